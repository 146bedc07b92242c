"""Cases of ONNX, ONNX Runtime, Keras and RTNeural: their numbers, from suites/, which says where they come from.

The node tests of the installed onnx package are run by test_onnx_models.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quadgate as qg
import quadgate.onnx
from support.cases import DTYPES

SUITES = Path(__file__).parent / "suites"
ONNX_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")


def cases_of(name: str, count: int) -> list[dict[str, Any]]:
    cases = json.loads((SUITES / f"{name}_lstm_cases.json").read_text())["cases"]
    assert len(cases) == count
    return cases


def named(cases: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


def assert_near(got: Any, want: Any, what: str, *, rtol: float = 0.0, atol: float) -> None:
    want = np.asarray(want, np.float64)
    assert got.shape == want.shape, what
    off = np.abs(got.astype(np.float64) - want)
    assert (off <= atol + rtol * np.abs(want)).all(), f"{what} is off by {off.max():.3g}"


every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@every_dtype
@named(cases_of("onnx", 6) + cases_of("ort", 34))
def test_operator(case: dict[str, Any], dtype: str) -> None:
    """ONNX's own node tests, and those of ONNX Runtime, which have other weights in every place."""
    given = {name: None if a is None else np.array(a, dtype) for name, a in case["inputs"].items()}
    if given["sequence_lens"] is not None:
        given["sequence_lens"] = given["sequence_lens"].astype(np.int32)
    names = ("direction", "hidden_size", "activations", "clip", "input_forget", "layout")
    attributes = {name: case[name] for name in names if case[name] is not None}
    got = quadgate.onnx.lstm(*(given[name] for name in ONNX_INPUTS), **attributes)
    wanted = 0
    for name, value in zip(("Y", "Y_h", "Y_c"), got, strict=True):
        assert value.dtype == dtype
        if case["expected"][name] is not None:
            assert_near(value, case["expected"][name], name, rtol=case.get("rtol", 0.0), atol=case.get("atol", 1e-4))
            wanted += 1
    assert wanted


def arrays(group: dict[str, Any], dtype: str) -> dict[str, Any]:
    return {name: np.array(value, dtype) for name, value in group.items()}


@every_dtype
def test_operator_in_training(dtype: str) -> None:
    """ONNX Runtime's forward pass that saves, and its gradient, from saved numbers that no forward pass has made."""
    both = json.loads((SUITES / "ort_training_lstm_cases.json").read_text())
    given, want = arrays(both["forward"]["inputs"], dtype), both["forward"]["expected"]
    *got, _ = quadgate.onnx.lstm_training(
        given["input_tensor"], given["weights"], given["recurrence_weights"], given["bias"]
    )
    for name, value in zip(("HAll", "final_h", "final_c"), got, strict=True):
        assert_near(value, want[name], name, atol=1e-4)
    given, want = arrays(both["backward"]["inputs"], dtype), both["backward"]["expected"]
    names = ("input_tensor", "weights", "recurrence_weights", "HAll", "CAll", "iofc", "grad_HAll")
    grads = quadgate.onnx.lstm_grad(*(given[name] for name in names))
    for name, value in zip("XWRB", (grads.X, grads.W, grads.R, grads.B), strict=True):
        assert_near(value, want[f"d{name}"], f"d{name}", atol=1e-4)


@every_dtype
@named(cases_of("keras", 14))
def test_keras(case: dict[str, Any], dtype: str) -> None:
    """Each matrix of one number; masks of leading ones are lengths, those of trailing ones are reversed."""
    units, backwards, both = case["units"], case["direction"] == "reverse", case["direction"] == "bidirectional"
    x = np.arange(case["X"]["arange"], dtype=dtype).reshape(case["X"]["shape"])
    lstm = qg.LSTM(
        x.shape[2],
        units,
        batch_first=True,
        bidirectional=both,
        reverse=backwards,
        bias=case["bias"] is not None,
        dtype=np.dtype(dtype),
    )
    with lstm.writable() as params:
        for name, value in params.items():
            if name.startswith("bias"):
                value[...] = case["bias"]
                value[units : 2 * units] = case["forget_bias"]
            else:
                value[...] = case["kernel" if "ih" in name else "recurrent"]
    lengths = None
    if case["mask"] is not None:
        mask = np.array(case["mask"], bool)
        lengths = mask.sum(axis=1)
        if backwards:
            x = np.stack([np.concatenate([row[on], row[~on]]) for row, on in zip(x, mask, strict=True)])
    state = None
    if case["initial_state"]:
        state = tuple(np.array(part, dtype) for part in zip(*case["initial_state"], strict=True))
    for _ in range(case["calls"]):
        y, state = lstm(x, state, lengths=lengths)
    h, c = state
    if case["what"] == "last_output":
        got = np.concatenate(list(h), axis=-1)
    elif case["what"] == "states":
        got = np.stack([part[k] for k in range(len(h)) for part in (h, c)])
    else:
        got = y
        if case["what"] == "sequence_carry":  # Keras repeats the last output past a row's end, we have zeros there
            for row, n in enumerate(lengths):
                got[row, n:] = got[row, n - 1]
    assert_near(got, case["expected"], case["what"], rtol=1e-5, atol=1e-5)


def layer_of(layer: dict[str, Any], dtype: str) -> Any:
    """A dense layer is a function of all steps, an LSTM is one of ours."""
    if layer["type"] == "dense":
        assert layer["activation"] in (None, "", "linear", "tanh"), layer["activation"]
        after = np.tanh if layer["activation"] == "tanh" else np.asarray
        return lambda x: after(x.astype(np.float64) @ np.array(layer["w"]).T + np.array(layer["b"])).astype(dtype)
    hidden = len(layer["w_hh"][0])
    lstm = qg.LSTM(len(layer["w_ih"][0]), hidden, dtype=np.dtype(dtype))
    with lstm.writable() as params:
        params["weight_ih_l0"], params["weight_hh_l0"] = (np.array(layer[k], dtype) for k in ("w_ih", "w_hh"))
        bias = np.zeros(4 * hidden)
        for name in ("b_ih", "b_hh"):
            if layer[name] is not None:
                bias += np.array(layer[name])
        params["bias_l0"] = bias.astype(dtype)
    return lstm


@every_dtype
@pytest.mark.parametrize("streamed", [False, True])
@named(cases_of("rtneural", 3))
def test_rtneural(case: dict[str, Any], streamed: bool, dtype: str) -> None:
    """Signals through networks of dense layers and LSTMs, whole and a step at a time."""
    layers = [layer_of(layer, dtype) for layer in case["layers"]]
    x = np.array(case["x"], dtype)[:, None, None]

    def through(x: Any, calls: list[Any]) -> Any:
        for call in calls:
            x = call(x)
        return x

    if streamed:
        calls = [layer.stream(1).step if isinstance(layer, qg.LSTM) else layer for layer in layers]
        y = np.stack([through(step, calls) for step in x])
    else:
        calls = [(lambda x, net=layer: net(x)[0]) if isinstance(layer, qg.LSTM) else layer for layer in layers]
        y = through(x, calls)
    assert_near(y[:, 0, 0], case["y"], "y", atol=2e-6)
