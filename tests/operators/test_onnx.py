"""`quadgate.onnx.lstm` is ONNX's operator LSTM: attributes, absent inputs, layouts, types, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import quadgate as qg
import quadgate.onnx
from quadgate.onnx import lstm, lstm_backward, lstm_grad, lstm_training
from support import onnx_cases
from support.onnx_cases import FUNCTIONS, OPTIONAL, Call, call_data, conditions, judge_call

DIRECTIONS = ("forward", "reverse", "bidirectional")
DTYPES = ("float32", "float64")


def check(call: Call) -> tuple[Any, ...]:
    """Inference and training both, against the operator's equations in float64."""
    inputs = call_data(call)
    got = lstm(*inputs.values(), **call.attributes)
    # The judge's roundings are of the size of those of a float64 call, hence twice.
    allowed = [2 * onnx_cases.error(call) * c for c in conditions(call, inputs)]
    onnx_cases.assert_near(call, got, judge_call(call, inputs).outputs, allowed)
    *training, _ = lstm_training(*inputs.values(), **call.attributes)
    for a, b in zip(got, training, strict=True):
        assert a.dtype == call.dtype
        assert a.flags.c_contiguous
        assert a.tobytes() == b.tobytes(), f"{call}: inference and training differ"
    return got


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_directions_and_layouts(direction, layout, dtype):
    check(Call(direction=direction, layout=layout, dtype=dtype))
    check(Call(hidden=17, inputs=9, direction=direction, layout=layout, dtype=dtype, clip=0.5, input_forget=1, seed=1))


@pytest.mark.parametrize(
    "absent", [*[{name} for name in OPTIONAL], set(OPTIONAL), {"initial_h", "P"}, {"B", "initial_c"}]
)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_absent_inputs(direction, absent):
    call = Call(direction=direction, given=frozenset(OPTIONAL) - absent, dtype="float64")
    outputs = check(call)
    present = call_data(replace(call, given=frozenset(OPTIONAL)))
    zeros = {name: np.zeros_like(present[name]) for name in absent - {"sequence_lens"}}
    if "sequence_lens" in absent:
        zeros["sequence_lens"] = np.full(call.batch, call.steps)
    same = lstm(*(call_data(call) | zeros).values(), **call.attributes)
    onnx_cases.assert_near(call, outputs, same, [1e-14] * 3)  # a 0 more in a sum of ten terms of size 1


def test_only_what_must_be_given():
    inputs = call_data(Call(given=frozenset()))
    y, y_h, y_c = lstm(inputs["X"], inputs["W"], inputs["R"])
    assert y.shape == (5, 1, 3, 6)
    assert y_h.shape == y_c.shape == (1, 3, 6)
    np.testing.assert_array_equal(y[-1], y_h)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_lengths(direction, layout):
    """Y is 0 past a row's end for any X there; Y_h is Y at its last step; length 0 keeps the state."""
    call = Call(direction=direction, layout=layout, batch=4)
    inputs = call_data(call)
    lens = np.array([5, 0, 2, 1], np.int32)
    inputs["sequence_lens"] = lens
    x = inputs["X"] if layout == 0 else inputs["X"].swapaxes(0, 1)
    for row, n in enumerate(lens):
        x[n:, row] = np.nan
    y, y_h, y_c = lstm(*inputs.values(), **call.attributes)
    h0, c0 = inputs["initial_h"], inputs["initial_c"]
    if layout:
        y = y.transpose(1, 2, 0, 3)
        y_h, y_c, h0, c0 = (s.swapaxes(0, 1) for s in (y_h, y_c, h0, c0))
    for row, n in enumerate(lens):
        assert not y[n:, :, row].any()
        assert np.isfinite(y[:n, :, row]).all()
        for d in range(call.directions):
            ends_first = direction == "reverse" or d == 1
            if n:
                np.testing.assert_array_equal(y[0 if ends_first else n - 1, d, row], y_h[d, row])
            else:
                np.testing.assert_array_equal(y_h[d, row], h0[d, row])
                np.testing.assert_array_equal(y_c[d, row], c0[d, row])
    for integers in (lens.tolist(), lens.astype(np.int64), lens.astype(np.uint8), lens.astype(">i2")):
        again = lstm(*(inputs | {"sequence_lens": integers}).values(), **call.attributes)
        np.testing.assert_array_equal(again[0], lstm(*inputs.values(), **call.attributes)[0])


@pytest.mark.parametrize(("steps", "batch"), [(0, 3), (4, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_nothing_to_do(direction, layout, steps, batch):
    call = Call(steps, batch, direction=direction, layout=layout)
    _, y_h, y_c = check(call)
    if steps == 0:
        np.testing.assert_array_equal(y_h, call_data(call)["initial_h"])
        np.testing.assert_array_equal(y_c, call_data(call)["initial_c"])
    *outputs, tape = lstm_training(*call_data(call).values(), **call.attributes)
    grads = lstm_backward(tape, *outputs)
    assert grads.X.shape == call_data(call)["X"].shape
    if steps * batch == 0:
        assert not any(g.any() for g in (grads.W, grads.R, grads.B, grads.P))


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_each_function_in_each_place(name, place):
    names = ["Sigmoid", "Tanh", "Tanh"] * 2
    names[place] = name
    call = Call(direction="bidirectional", activations=tuple(names), scale=0.5, dtype="float64")
    check(call)
    if FUNCTIONS[name][1]:
        check(replace(call, alpha=(0.375,)))
    if len(FUNCTIONS[name][1]) == 2:
        check(replace(call, alpha=(0.375,), beta=(0.625,)))
        check(replace(call, beta=(0.625,)))


def test_alpha_and_beta_go_to_those_that_take_them():
    """One list over both directions, in order; functions without the parameter are passed over."""
    names = ("Sigmoid", "Elu", "ScaledTanh", "HardSigmoid", "Tanh", "LeakyRelu")
    call = Call(direction="bidirectional", activations=names, alpha=(0.5, 0.75, 0.3, 0.05), beta=(1.25, 0.4))
    together = check(replace(call, dtype="float64"))
    inputs = call_data(replace(call, dtype="float64"))
    separate = []
    for d, (alpha, beta) in enumerate([([0.5, 0.75], [1.25]), ([0.3, 0.05], [0.4])]):
        part = [a if name in ("X", "sequence_lens") else a[d : d + 1] for name, a in inputs.items()]
        some = {"activations": names[3 * d : 3 * d + 3], "activation_alpha": alpha, "activation_beta": beta}
        separate.append(lstm(*part, direction=("forward", "reverse")[d], **some))
    for got, axis, parts in zip(together, (1, 0, 0), zip(*separate, strict=True), strict=True):
        np.testing.assert_allclose(got, np.concatenate(parts, axis), rtol=0, atol=1e-14)


def test_too_few_numbers_leave_the_defaults():
    names = ("HardSigmoid", "Elu", "LeakyRelu")
    check(Call(activations=names, alpha=(0.3,), dtype="float64"))
    inputs = list(call_data(Call()).values())
    full = lstm(*inputs, activations=names, activation_alpha=[0.3, 1.0, 0.01], activation_beta=[0.5])
    for a, b in zip(lstm(*inputs, activations=names, activation_alpha=[0.3]), full, strict=True):
        np.testing.assert_array_equal(a, b)


def test_numbers_that_no_function_takes_say_nothing():
    inputs = list(call_data(Call()).values())
    for a, b in zip(lstm(*inputs, activation_alpha=[0.0] * 3, activation_beta=[1]), lstm(*inputs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_names_in_any_case_and_what_stands_for_absent():
    inputs = list(call_data(Call()).values())
    want = lstm(*inputs, activations=["HardSigmoid", "Tanh", "ScaledTanh"])
    got = lstm(*inputs, activations=("HARDSIGMOID", "tanh", "scaledTanh"), clip=0, hidden_size=np.int64(6))
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(lstm(*inputs, activations=[], clip=np.inf, activation_alpha=[]), lstm(*inputs), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_clip_is_that_of_every_function(direction):
    """Each function's argument is cut off, the output's too: with Affine functions one sees it in the numbers."""
    call = Call(direction=direction, activations=("Sigmoid", "Affine", "Affine") * (2 if direction[0] == "b" else 1))
    call = replace(call, alpha=(1.0,) * 2 * call.directions, beta=(0.0,) * 2 * call.directions, clip=0.125, scale=3.0)
    judged = judge_call(call, call_data(call))
    assert judged.largest_cell > 0.25  # it does something to the output
    y, _, _ = check(call)
    assert np.abs(y).max() <= 0.125
    check(replace(call, dtype="float64"))


def test_coupled_gates_do_not_read_the_rows_of_f():
    call = Call(input_forget=1)
    inputs = call_data(call)
    want = lstm(*inputs.values(), **call.attributes)
    inputs["W"][:, 12:18] = inputs["R"][:, 12:18] = 5
    inputs["B"][:, 12:18] = inputs["B"][:, 36:42] = 7
    inputs["P"][:, 12:18] = 3
    for a, b in zip(lstm(*inputs.values(), **call.attributes), want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("small", ["float16", "bfloat16"])
def test_types_of_16_bits(small):
    """They are computed in float32 and rounded once, to X's type."""
    if small == "bfloat16":
        ml_dtypes = pytest.importorskip("ml_dtypes", reason="NumPy has bfloat16 from ml_dtypes only: install ml_dtypes")
        dtype = np.dtype(ml_dtypes.bfloat16)
    else:
        dtype = np.dtype(small)
    call = Call(direction="bidirectional", clip=1.0)
    narrow = {k: v if k == "sequence_lens" else v.astype(dtype) for k, v in call_data(call).items()}
    wide = {k: v if k == "sequence_lens" else v.astype(np.float32) for k, v in narrow.items()}
    want, got = (lstm(*inputs.values(), **call.attributes) for inputs in (wide, narrow))
    for a, b in zip(got, want, strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a.astype(np.float32), b.astype(dtype).astype(np.float32))
    *outputs, tape = lstm_training(*narrow.values(), **call.attributes)
    grads = lstm_backward(tape, *outputs)
    *_, tape = lstm_training(*wide.values(), **call.attributes)
    for a, b in zip(grads, lstm_backward(tape, *(v.astype(np.float32) for v in outputs)), strict=True):
        assert a.dtype == dtype
        np.testing.assert_array_equal(a.astype(np.float32), b.astype(dtype).astype(np.float32))


def test_float16_overflows_to_infinity():
    x = np.full((1, 1, 1), 60000, np.float16)
    y, _, _ = lstm(x, np.ones((1, 4, 1)), np.ones((1, 4, 1)), activations=["Relu"] * 3)
    assert y.dtype == np.float16
    assert np.isinf(y).all()


def test_arrays_of_other_kinds():
    """Lists, other types, byte orders and strides; nothing that is given is written to."""
    call = Call(direction="bidirectional")
    inputs = call_data(call)
    want = lstm(*inputs.values(), **call.attributes)
    swapped = {k: v.astype(v.dtype.newbyteorder(">")) for k, v in inputs.items()}
    strided = {k: np.repeat(v, 2, axis=-1)[..., ::2] for k, v in inputs.items()}
    frozen = {k: v.copy() for k, v in inputs.items()}
    for value in frozen.values():
        value.setflags(write=False)
    lists = {k: v if k == "X" else v.tolist() for k, v in inputs.items()}
    for other in (swapped, strided, frozen, lists):
        before = {k: np.array(v) for k, v in other.items()}
        for a, b in zip(lstm(*other.values(), **call.attributes), want, strict=True):
            assert a.dtype == np.float32
            np.testing.assert_array_equal(a, b)
        for name, value in other.items():
            np.testing.assert_array_equal(value, before[name])


def test_results_belong_to_the_caller():
    """With no steps the final state is the initial one, in memory of its own."""
    inputs = call_data(Call(steps=0))
    _, y_h, y_c = lstm(*inputs.values())
    for result, given in ((y_h, inputs["initial_h"]), (y_c, inputs["initial_c"])):
        assert not np.shares_memory(result, given)
        assert result.flags.writeable


SHAPES = {
    "X": [(5, 3), (5, 3, 7), (5, 3, 0)],
    "W": [(24, 4), (2, 24, 4), (1, 18, 4), (1, 24, 5)],
    "R": [(24, 6), (2, 24, 6), (1, 20, 6), (1, 24, 7)],
    "B": [(48,), (1, 24), (2, 48)],
    "sequence_lens": [(), (1,), (4,), (1, 3)],
    "initial_h": [(3, 6), (3, 1, 6), (1, 3, 5), (2, 3, 6)],
    "initial_c": [(3, 6), (3, 1, 6), (1, 3, 5), (2, 3, 6)],
    "P": [(18,), (1, 24), (2, 18)],
}


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name, shapes in SHAPES.items() for shape in shapes])
@pytest.mark.parametrize("function", [lstm, lstm_training])
def test_wrong_shapes(function, name, shape):
    inputs = call_data(Call())
    inputs[name] = np.ones(shape, inputs[name].dtype)
    # A wrong last axis of X shows in W, which does not fit it.
    blamed = "W" if name == "X" and shape[-1] == 7 else name
    with pytest.raises(ValueError, match=rf"^{blamed} must .*{re.escape(str(shape)) if blamed == name else ''}"):
        function(*inputs.values(), hidden_size=6)


def test_wrong_shapes_in_the_other_layout():
    inputs = call_data(Call())
    with pytest.raises(ValueError, match=r"^initial_h must have shape \(5, 1, 6\).*\(1, 3, 6\)"):
        lstm(*(inputs | {"sequence_lens": None}).values(), layout=1)
    with pytest.raises(ValueError, match=r"^R must have shape \(2, 24, 6\)"):
        lstm(*inputs.values(), direction="bidirectional")


@pytest.mark.parametrize("hidden_size", [5, 7])
def test_hidden_size_that_does_not_fit(hidden_size):
    with pytest.raises(
        ValueError, match=rf"^R must have shape \(1, {4 * hidden_size}, {hidden_size}\).*4\*hidden_size"
    ):
        lstm(*call_data(Call()).values(), hidden_size=hidden_size)


@pytest.mark.parametrize(
    ("lens", "error"),
    [([5, 6, 1], ValueError), ([-1, 2, 2], ValueError), ([1.0, 2.0, 3.0], TypeError), ([True] * 3, TypeError)],
)
def test_wrong_lengths(lens, error):
    with pytest.raises(error, match=r"^sequence_lens must"):
        lstm(*(call_data(Call()) | {"sequence_lens": np.array(lens)}).values())


@pytest.mark.parametrize("name", ["X", "W", "R", "B", "initial_h", "initial_c", "P"])
def test_wrong_types(name):
    for value in (np.ones(call_data(Call())[name].shape, complex), "text", object()):
        with pytest.raises(TypeError, match=f"^{name} "):
            lstm(*(call_data(Call()) | {name: value}).values())


def test_x_decides_on_the_type_and_must_have_one():
    for dtype in (np.int64, np.bool_, np.longdouble, np.dtype("V4")):
        with pytest.raises(TypeError, match=r"^X must"):
            lstm(*(call_data(Call()) | {"X": np.zeros((5, 3, 4), dtype)}).values())


WRONG: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"direction": "backward"}, ValueError),
    ({"direction": "Forward"}, ValueError),
    ({"direction": None}, TypeError),
    ({"hidden_size": 0}, ValueError),
    ({"hidden_size": 6.0}, TypeError),
    ({"activations": ["Sigmoid", "Tanh"]}, ValueError),
    ({"activations": ["Sigmoid", "Tanh", "Tanh"] * 2}, ValueError),
    ({"activations": ["Sigmoid", "Tanh", "Gelu"]}, ValueError),
    ({"activations": "Sigmoid"}, TypeError),
    ({"activations": ["Sigmoid", "Tanh", 3]}, TypeError),
    ({"activations": 3}, TypeError),
    ({"activations": ["Elu", "Tanh", "Tanh"], "activation_alpha": 0.5}, TypeError),
    ({"activations": ["Elu", "Tanh", "Tanh"], "activation_alpha": ["a"]}, TypeError),
    ({"activations": ["Elu", "Tanh", "Tanh"], "activation_alpha": [1.0, 2.0]}, ValueError),
    ({"activations": ["HardSigmoid", "Tanh", "Elu"], "activation_beta": [1.0, 2.0]}, ValueError),
    ({"activations": ["HardSigmoid", "Tanh", "Elu"], "activation_beta": [np.nan]}, ValueError),
    ({"clip": -1.0}, ValueError),
    ({"clip": np.nan}, ValueError),
    ({"clip": "1"}, TypeError),
    ({"clip": np.array([1.0, 2.0])}, TypeError),
    ({"clip": 1e300}, ValueError),  # more than float32 holds
    ({"clip": 1e-50}, ValueError),
    ({"activations": ["Elu", "Tanh", "Tanh"], "activation_alpha": [1e300]}, ValueError),
    ({"activations": ["Tanh", "Affine", "HardSigmoid"], "activation_beta": [0.0, -1e39]}, ValueError),
    ({"hidden_size": np.array([4, 4])}, TypeError),
    ({"layout": np.array([0, 1])}, TypeError),
    ({"activations": ["Elu", "Tanh", "Tanh"], "activation_alpha": np.array(0.5)}, TypeError),
    ({"input_forget": 2}, ValueError),
    ({"input_forget": 1.0}, TypeError),
    ({"layout": -1}, ValueError),
    ({"layout": None}, TypeError),
    ({"activation_alpha": "a"}, TypeError),  # which no function takes
    ({"activation_alpha": {}}, TypeError),
    ({"activation_alpha": [1, 2, 3, 4, 5]}, ValueError),
    ({"activation_alpha": [1, None]}, TypeError),
    ({"activation_beta": object()}, TypeError),
    ({"activations": ["Elu", "Tanh", "Tanh"], "activation_alpha": {0.5}}, TypeError),
    ({"hidden_size": True}, TypeError),
    ({"layout": np.True_}, TypeError),
    ({"layout": True}, TypeError),
]


@pytest.mark.parametrize(("attributes", "error"), WRONG)
def test_wrong_attributes(attributes, error):
    name = list(attributes)[-1]
    with pytest.raises(error, match=f"^{name} "):
        lstm(*call_data(Call()).values(), **attributes)


def test_what_the_module_offers():
    pytest.importorskip("onnx", reason="a part of the module needs onnx: install onnx")
    assert qg.onnx is quadgate.onnx
    for name in quadgate.onnx.__all__:
        assert getattr(quadgate.onnx, name).__doc__
    with pytest.raises(AttributeError, match="nothing"):
        _ = quadgate.onnx.nothing
    assert lstm_grad.__module__.startswith("quadgate.onnx")


def test_onnx_is_imported_when_asked_for(run_script):
    """Without onnx, functions that run models say what to install; all others work."""
    run_script(
        """
        import sys
        sys.modules["onnx"] = None  # as if it were not installed
        import quadgate.onnx, numpy as np
        one = np.ones((1, 4, 1), np.float32)
        quadgate.onnx.lstm(one[:, :1], one, one)
        for name in ("LSTM", "ReferenceEvaluator", "export"):
            try:
                getattr(quadgate.onnx, name)
            except ImportError as error:
                assert name in str(error) and "pip install onnx" in str(error), error
            else:
                raise SystemExit("no error")
        """
    )
    run_script("import quadgate.onnx, sys; assert 'onnx' not in sys.modules")
