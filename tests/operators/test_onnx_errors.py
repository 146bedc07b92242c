"""Errors of whole models in onnx's evaluator: they name the node and its operator, and those around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quadgate.onnx

onnx: Any = pytest.importorskip("onnx", reason="there are no models to run without onnx: install onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference.op_run import OpRun  # noqa: E402


def body(node: Any) -> Any:
    """The body of a Loop of one node, from c to d."""
    value = helper.make_tensor_value_info
    flags = [value(name, TensorProto.BOOL, ()) for name in ("before", "after")]
    inputs = [value("n", TensorProto.INT64, ()), flags[0], value("c", TensorProto.FLOAT, None)]
    nodes = [helper.make_node("Identity", ["before"], ["after"], name="keep_on"), node]
    return helper.make_graph(nodes, "body", inputs, [flags[1], value("d", TensorProto.FLOAT, None)])


def looping(node: Any) -> Any:
    """A model of a Loop around one node."""
    value = helper.make_tensor_value_info
    loop = helper.make_node("Loop", ["trips", "go", "x"], ["y"], name="steps", body=body(node))
    start = [numpy_helper.from_array(np.array(a), name) for a, name in ((2, "trips"), (True, "go"))]
    ends = [value(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph([loop], "graph", ends[:1], ends[1:], start)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_errors_name_node_and_operator():
    """While a model is loaded and while it runs, with the nodes around it; the exception's type stays."""
    evaluate = quadgate.onnx.ReferenceEvaluator
    x = {"x": np.ones((2, 3), np.float32)}
    assert evaluate(looping(helper.make_node("Neg", ["c"], ["d"]))).run(None, x)[0].shape == (2, 3)
    inner = looping(helper.make_node("MatMul", ["c", "c"], ["d"], name="product"))
    with pytest.raises(
        TypeError, match=r"^node 'steps' \(Loop\): node 'product' \(MatMul\): .*multiply shapes \(2, 3\)"
    ):
        evaluate(inner).run(None, x)
    with pytest.raises(TypeError, match=r"node 'd' \(MatMul\)"):  # without a name, its output tells which it is
        evaluate(looping(helper.make_node("MatMul", ["c", "c"], ["d"]))).run(None, x)
    for operator, domain, where in (("Nothing", "", "Nothing"), ("DynamicQuantizeLSTM", "com.microsoft", None)):
        made = looping(helper.make_node(operator, ["c"], ["d"], name="unknown", domain=domain))
        name = where or r"com\.microsoft\.DynamicQuantizeLSTM"
        with pytest.raises(Exception, match=rf"node 'unknown' \({name}\): ") as caught:
            evaluate(made).run(None, x)
        assert operator in str(caught.value).split(": ", 2)[-1]


def test_quantised_models_say_where_they_fail():
    """onnx's DequantizeLinear begins at opset 19, and LSTM does not take the integers in front of it."""
    value = helper.make_tensor_value_info
    scale, zero = (numpy_helper.from_array(a, n) for a, n in ((np.float32(0.1), "scale"), (np.int8(0), "zero")))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["r"], name="dequantise"),
        helper.make_node("LSTM", ["r", "q", "q"], ["y"], name="cell", hidden_size=1),
    ]
    ends = [value("x", TensorProto.FLOAT, None), value("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], [scale, zero])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(Exception, match=r"^node '(dequantise|cell)' \((DequantizeLinear|LSTM)\): "):
        quadgate.onnx.ReferenceEvaluator(made).run(None, {"x": np.ones((2, 1, 4), np.float32)})


class Failing(OpRun):
    """An operator that raises what a test has put here."""

    op_domain = "own"
    error: Exception | None = None

    def _run(self, x: Any) -> Any:
        if self.error is None:
            return (np.empty(1 << 60, np.float32),)
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (None, MemoryError),  # NumPy's, which is made of a shape and a type
        (MemoryError(), MemoryError),
        (FileNotFoundError(2, "no such file", "w.bin"), OSError),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"), ValueError),
        (KeyError("w"), KeyError),
    ],
)
def test_errors_keep_their_type(error, kind, monkeypatch):
    monkeypatch.setattr(Failing, "error", error)
    value = helper.make_tensor_value_info
    ends = [value(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Failing", ["x"], ["y"], domain="own")], "graph", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    evaluate = quadgate.onnx.ReferenceEvaluator(helper.make_model(graph, opset_imports=opsets), new_ops=[Failing])
    with pytest.raises(kind, match=r"node 'y' \(own\.Failing\): "):
        evaluate.run(None, {"x": np.ones(1, np.float32)})
