"""`quadgate.onnx.lstm` and onnxruntime's LSTM, run live, agree on random calls; where they must not, the spec decides.

Where onnxruntime 1.31 does something else than the operator's definition says, found by experiment:

- clip is not applied to the argument of the output's function (the definition: "to the input of activations"; its
  tracker's issue 27224 says the same);
- a row of length 0 ends in zeros, not in its initial state;
- Affine, ScaledTanh and ThresholdedRelu take 0 for an alpha or beta that is not given (the defaults of those operators
  are 1 and 0, 1 and 1, and 1);
- Softplus is infinite where exp(x) is, from an argument of 89 on;
- layout=1, clip=0, a missing hidden_size and float64 are refused.

`onnx_cases.judge_call` has the operator's own equations in float64. It judges every call, onnxruntime those which it
understands the same. Its version is not pinned, so a difference is allowed for, not demanded: one that is gone is a
warning, after which the allowance can go.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import hypothesis
import numpy as np
import pytest
import quadgate.onnx
from hypothesis import strategies as st
from support import onnx_cases
from support.examples import examples
from support.onnx_cases import FUNCTIONS, OPTIONAL, Call, by_onnxruntime, call_data, conditions, judge_call, node_model

onnxruntime: Any = pytest.importorskip("onnxruntime", reason="nothing is compared with onnxruntime: install it")
pytest.importorskip("onnx", reason="models for onnxruntime are made with onnx: install it")

# Sizes around every SIMD tail, up to 70.
SIZES = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 70])
NO_DEFAULT = {"Affine", "ScaledTanh", "ThresholdedRelu"}  # those for which onnxruntime takes 0
UNBOUNDED = {"Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Affine", "Softplus"}  # products of these grow fast


@st.composite
def calls(draw: st.DrawFn) -> Call:
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    count = 6 if direction == "bidirectional" else 3
    activations, alpha, beta = None, None, None
    if draw(st.booleans()):
        activations = tuple(draw(st.lists(st.sampled_from(sorted(FUNCTIONS)), min_size=count, max_size=count)))
        if count == 6 and draw(st.booleans()):
            activations = activations[:3] * 2
        takes = [len(FUNCTIONS[name][1]) for name in activations]
        # Tenths, which float32 and float64 hold differently; onnxruntime and quadgate both read them as float32.
        number = st.integers(-15, 15).map(lambda tenths: float(np.float32(tenths / 10)))
        for k in (1, 2):
            values = tuple(draw(st.lists(number, max_size=sum(n >= k for n in takes)))) or None
            if draw(st.integers(0, 3)):  # most often one for each
                values = tuple(draw(number) for n in takes if n >= k) or None
            alpha, beta = (values, beta) if k == 1 else (alpha, values)
    return Call(
        steps=draw(st.integers(1, 3 if UNBOUNDED & set(activations or ()) else 7)),
        batch=draw(st.integers(1, 20)),
        inputs=draw(SIZES),
        hidden=draw(SIZES),
        direction=direction,
        given=frozenset(draw(st.sets(st.sampled_from(OPTIONAL)))),
        activations=activations,
        alpha=alpha,
        beta=beta,
        clip=draw(st.none() | st.sampled_from([0.1, 0.5, 1.0, 3.0, 50.0]).map(lambda v: float(np.float32(v)))),
        input_forget=draw(st.integers(0, 1)),
        layout=draw(st.integers(0, 1)),
        scale=draw(st.sampled_from([0.5, 1.0, 2.0])),
        seed=draw(st.integers(0, 2**16)),
    )


def numbers_missing(call: Call) -> bool:
    """True if onnxruntime would fill in a number otherwise than the operator's definition."""
    left = [len(call.alpha or ()), len(call.beta or ())]
    for name in call.activations or ():
        for k in range(len(FUNCTIONS[name][1])):
            left[k] -= 1
            if left[k] < 0 and name in NO_DEFAULT:
                return True
    return False


def overflows(call: Call, judged: onnx_cases.Judged) -> bool:
    """True if onnxruntime's Softplus would be infinite."""
    functions = call.functions()
    return any(functions[3 * d + k][0] == "Softplus" and (v > 85).any() for d, k, v in judged.arguments)


def near_a_jump(call: Call, judged: onnx_cases.Judged, margin: float) -> bool:
    """True if rounding could carry an argument over the one jump there is among the functions, ThresholdedRelu's."""
    functions = call.functions()
    for d, k, v in judged.arguments:
        name, numbers = functions[3 * d + k]
        if name == "ThresholdedRelu" and (np.abs(v - numbers[0]) < margin * (1 + np.abs(v))).any():
            return True
    return False


def judgeable(call: Call) -> bool:
    """True if float32 can be expected to come near to the exact result."""
    inputs = call_data(call)
    judged = judge_call(call, inputs)
    # Functions without bounds, multiplied with each other at every step, can leave the range of float32.
    if not all((np.abs(w) < 1e9).all() for w in judged.outputs):
        return False
    # The functions' arguments are taken to be as good as what comes of them.
    margin = onnx_cases.error(call) * max(1.0, *conditions(call, inputs))
    return not near_a_jump(call, judged, margin)


def run_onnxruntime(call: Call, inputs: onnx_cases.Inputs) -> list[np.ndarray]:
    """onnxruntime's answer in the call's layout, though it knows one layout only."""
    turned, attributes = dict(inputs), dict(call.attributes)
    if call.layout:
        del attributes["layout"]
        for name in ("X", "initial_h", "initial_c"):
            turned[name] = None if inputs[name] is None else np.ascontiguousarray(inputs[name].swapaxes(0, 1))
    y, h, c = by_onnxruntime(node_model("LSTM", turned, attributes), turned)
    return [y.transpose(2, 0, 1, 3), h.swapaxes(0, 1), c.swapaxes(0, 1)] if call.layout else [y, h, c]


def check(call: Call) -> None:
    inputs = call_data(call)
    judged = judge_call(call, inputs)
    want, relative, condition = judged.outputs, onnx_cases.error(call), conditions(call, inputs)
    got = quadgate.onnx.lstm(*inputs.values(), **call.attributes)
    assert all(g.dtype == call.dtype for g in got)
    onnx_cases.assert_near(call, got, want, [relative * c for c in condition])
    if numbers_missing(call) or overflows(call, judged):
        return

    theirs = run_onnxruntime(call, inputs)
    lossy = {"Elu", "ScaledTanh", "Sigmoid", "Softplus"} & set(call.activations or ("Sigmoid",))
    condition = conditions(call, inputs, absolute=bool(lossy))
    if inputs["sequence_lens"] is not None:
        empty = inputs["sequence_lens"] == 0
        for k in (1, 2):
            rows, mine = (a[k] if call.layout else a[k].swapaxes(0, 1) for a in (theirs, got))
            rows[empty] = mine[empty]  # on which the judge has spoken
    if call.clip is not None and judged.largest_cell > call.clip:
        # Held against either reading of clip, which shows that nothing else differs.
        unclipped = judge_call(call, inputs, clip_output=False).outputs
        loose = conditions(call, inputs, clip_output=False, absolute=bool(lossy))
        try:
            onnx_cases.assert_near(call, theirs, unclipped, [relative * c for c in loose])
        except AssertionError:
            onnx_cases.assert_near(call, theirs, want, [relative * c for c in condition])
        return
    # Two programs of the same precision: each may be as far off as the bound says.
    onnx_cases.assert_near(call, got, [t.astype(np.float64) for t in theirs], [2 * relative * c for c in condition])


@pytest.mark.slow
@hypothesis.settings(max_examples=examples(200))
@hypothesis.given(calls())
@hypothesis.example(Call(1, 1, 63, 1, given=frozenset()))  # Sigmoid of -8, of which onnxruntime has few digits
def test_random_calls(call: Call) -> None:
    hypothesis.assume(judgeable(call))
    check(call)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", range(1, 71))
def test_every_tail(hidden: int) -> None:
    """All of the operator at once, at every number of units."""
    everything = {"activations": ("HardSigmoid", "Tanh", "Softsign") * 2, "alpha": (0.25, 0.25), "beta": (0.5, 0.5)}
    check(
        Call(4, 5, 71 - hidden, hidden, "bidirectional", clip=2.0, input_forget=hidden % 2, seed=hidden, **everything)
    )


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_in_every_place(name: str, place: int) -> None:
    names = ["Sigmoid", "Tanh", "Tanh"]
    names[place] = name
    for alpha, beta in [(None, None), ((0.75,), (0.25,)), ((-0.25,), (1.5,))]:
        for more in ({}, {"clip": 0.5, "direction": "reverse"}):
            numbers = {"activations": tuple(names), "alpha": alpha, "beta": beta}
            tries = [Call(3, 4, 5, 19, scale=0.5, seed=seed, **numbers, **more) for seed in range(20)]
            check(next(filter(judgeable, tries)))


def refuses(call: Call, attributes: dict[str, Any]) -> bool:
    inputs = call_data(call)
    try:
        by_onnxruntime(node_model("LSTM", inputs, attributes), inputs)
    except Exception:  # of whatever kind onnxruntime has
        return True
    return False


def differs(call: Call, place: int, inputs: onnx_cases.Inputs | None = None) -> bool:
    inputs = call_data(call) if inputs is None else inputs
    theirs = by_onnxruntime(node_model("LSTM", inputs, call.attributes), inputs)
    return not np.abs(theirs[place] - judge_call(call, inputs).outputs[place]).max() <= 0.01


@pytest.mark.filterwarnings("default::UserWarning")
def test_known_differences() -> None:
    """Each difference that this file makes allowance for, looked for: a warning names those that are gone."""
    call = Call(3, 2, 3, 4)
    seen = {
        f"{name} is refused": refuses(call, call.attributes | {name: value})
        for name, value in (("layout", 1), ("clip", 0.0), ("hidden_size", 0))
    }
    seen["float64 is refused"] = refuses(replace(call, dtype="float64"), call.attributes)
    for name in NO_DEFAULT:
        silent = replace(call, activations=("Sigmoid", name, "Tanh"), given=frozenset())
        seen[f"{name} has no defaults"] = differs(silent, 2)
    inputs = call_data(call)
    inputs["initial_c"] = inputs["initial_c"] * np.float32(1000)
    large = replace(call, activations=("Sigmoid", "Tanh", "Softplus"), given=frozenset({"initial_c"}))
    assert np.isfinite(judge_call(large, inputs).outputs[0]).all()
    seen["Softplus overflows"] = differs(large, 0, inputs)
    empty = call_data(replace(call, seed=3)) | {"sequence_lens": np.zeros(2, np.int32)}
    seen["a row of length 0 ends in zeros"] = differs(call, 1, empty)
    seen["clip leaves the output's argument alone"] = differs(
        replace(call, clip=0.25, given=frozenset(OPTIONAL) - {"sequence_lens"}), 0
    )
    for name, there in seen.items():
        if not there:
            warnings.warn(f"onnxruntime {onnxruntime.__version__} is different here no more: {name}", stacklevel=1)
