"""com.microsoft.DynamicQuantizeLSTM in the evaluator: against the float64 judge, and its distance from onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quadgate.onnx
from support.onnx_cases import OUTPUTS, Call, assert_near, by_onnxruntime, call_data, conditions, error, judge_call

onnx: Any = pytest.importorskip("onnx", reason="there are no models to run without onnx: install onnx")
from onnx import helper  # noqa: E402


def quantised(a: Any, dtype: Any, by_column: bool) -> tuple[Any, Any, Any, Any]:
    """(D, 4H, N) as (D, N, 4H) of 8 bits, scale, zero point, and the numbers that these stand for, (D, 4H, N)."""
    flat = a if by_column else a.reshape(len(a), 1, -1)
    low, high = np.minimum(flat.min(2), 0), np.maximum(flat.max(2), 0)
    info = np.iinfo(dtype)
    if dtype is np.int8:  # symmetric, as onnxruntime's tools quantise weights
        scale, zero = np.maximum(-low, high) / 127, np.zeros(low.shape)
    else:
        scale = (high - low) / 255
        zero = np.round(-low / scale)
    scale = scale.astype(np.float32)
    q = np.clip(np.round(a / scale[..., None]) + zero[..., None], info.min, info.max).astype(dtype)
    value = (q.astype(np.float64) - zero[..., None]) * scale[..., None]
    shape = scale.shape if by_column else scale.shape[:1]
    return np.ascontiguousarray(q.swapaxes(1, 2)), scale.reshape(shape), zero.astype(dtype).reshape(shape), value


def case(call: Call, dtype: Any, by_column: bool) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """A model of one node, its inputs, and those of the LSTM that it stands for."""
    plain = call_data(call)
    inputs: dict[str, Any] = dict(plain)
    scales = {}
    for name in ("W", "R"):
        inputs[name], scales[f"{name}_scale"], scales[f"{name}_zero_point"], plain[name] = quantised(
            plain[name], dtype, by_column
        )
    inputs |= scales
    present = {name: a for name, a in inputs.items() if a is not None}
    names = [name if name in present else "" for name in inputs]
    node = helper.make_node(
        "DynamicQuantizeLSTM", names, [*OUTPUTS], name="cell", domain="com.microsoft", **call.attributes
    )
    value, kind = helper.make_tensor_value_info, helper.np_dtype_to_tensor_dtype
    initializers = [onnx.numpy_helper.from_array(present[n], n) for n in ("W", "R", *scales)]
    ends = [value(n, kind(a.dtype), a.shape) for n, a in present.items() if n not in ("W", "R", *scales)]
    outs = [value(n, onnx.TensorProto.FLOAT, [None] * k) for n, k in zip(OUTPUTS, (4, 3, 3), strict=True)]
    graph = helper.make_graph([node], "one_node", ends, outs, initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return made, {value.name: inputs[value.name] for value in ends}, plain


CALLS = [
    Call(given=frozenset()),
    Call(direction="bidirectional", given=frozenset({"B", "initial_h", "initial_c"})),
    Call(direction="reverse", given=frozenset({"B", "P", "sequence_lens"}), clip=0.7),
]


@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("call", CALLS, ids=["plain", "both", "reverse"])
def test_dequantised_weights(call, dtype, by_column):
    """The equations in float64 with the numbers that the weights stand for."""
    made, inputs, plain = case(call, dtype, by_column)
    session = quadgate.onnx.ReferenceEvaluator(made)
    for _ in range(2):
        got = session.run(None, inputs)
        want = judge_call(call, plain).outputs
        assert_near(call, got, want, [error(call) * c for c in conditions(call, plain)])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_one_step_of_onnxruntime(dtype):
    """It quantises x to 8 bits: off by a step of its scale at most, so that each gate's sum is off by that times |W|.

    Slopes of sigmoid and tanh are at most 1/4 and 1; i and |g| are at most 1, and c0 and h0 are 0.
    """
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nothing is compared with it")
    call = Call(steps=1, batch=1, inputs=5, hidden=7, given=frozenset({"B"}))
    made, inputs, plain = case(call, dtype, False)
    x = inputs["X"]
    step = (max(x.max(), 0) - min(x.min(), 0)) / 255
    off = step * np.abs(plain["W"][0]).sum(1).reshape(4, 7).max()
    got, want = quadgate.onnx.ReferenceEvaluator(made).run(None, inputs), by_onnxruntime(made, inputs)
    dc = off / 4 + off
    for a, b, most in zip(got, want, (off / 4 + dc, off / 4 + dc, dc), strict=True):
        assert a.shape == b.shape
        assert 0 < np.abs(a - b).max() <= most


def test_its_docstring_is_right():
    """5 inputs, 7 units, 20 networks: up to 4e-3 from onnxruntime, and nearer than that to the model before."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: nothing is compared with it")
    far = []
    for seed in range(20):
        call = Call(steps=10, batch=2, inputs=5, hidden=7, given=frozenset({"B"}), seed=seed)
        made, inputs, _ = case(call, np.int8, False)
        y, theirs = quadgate.onnx.ReferenceEvaluator(made).run(None, inputs)[0], by_onnxruntime(made, inputs)[0]
        before = judge_call(call, call_data(call)).outputs[0]
        far.append([np.abs(y - theirs).max(), np.abs(y - before).max(), np.abs(theirs - before).max()])
    apart, ours, runtimes = np.max(far, axis=0)
    assert apart < 5e-3
    assert ours < runtimes


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"W_scale": np.ones(3, np.float32)}, ValueError, r"W_scale must have shape \(1,\) or \(1, 24\), got \(3,\)"),
        ({"R_zero_point": np.zeros(1, np.uint8)}, TypeError, "R and R_zero_point must both be int8 or uint8"),
        ({"W": np.zeros((1, 4, 24), np.float32)}, TypeError, "W and W_zero_point must both be int8 or uint8"),
        ({"R_scale": np.ones(1, np.float64)}, TypeError, "R_scale must be float32, got float64"),
    ],
)
def test_wrong_inputs(change, kind, text):
    made, inputs, _ = case(Call(given=frozenset()), np.int8, False)
    for initializer in made.graph.initializer:
        if initializer.name in change:
            initializer.CopyFrom(onnx.numpy_helper.from_array(change[initializer.name], initializer.name))
    with pytest.raises(kind, match=rf"^node 'cell' \(com\.microsoft\.DynamicQuantizeLSTM\): .*{text}"):
        quadgate.onnx.ReferenceEvaluator(made).run(None, inputs)
