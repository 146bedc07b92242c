"""qg.onnx.load of models that say one thing twice, which programs resolve as they happen to look: refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import draw
from onnx_models import FLOAT, INPUTS, H, compare, helper, model, onnx, simple, tensor, weights


def zeros(name: str = "W") -> Any:
    return tensor(name, np.zeros_like(weights()[name]))


def constant(value: Any, name: str = "W") -> Any:
    return helper.make_node("Constant", [], [name], value=value)


def refused(proto: Any, match: str, tmp_path: Any) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    for read in (qg.onnx.load, qg.load):
        with pytest.raises(ValueError, match=rf"m\.onnx: .*{match}"):
            read(path)


def test_weights_that_are_defined_twice(tmp_path):
    """Two initializers, an initializer beside a Constant, two nodes, an input of the graph beside a node."""
    match = "'W' is defined twice"
    proto = simple()
    proto.graph.initializer.append(zeros())
    refused(proto, match, tmp_path)
    with pytest.raises(ValueError, match="initializer 'W' is defined twice"):
        qg.io.read(tmp_path / "m.onnx")
    proto = simple()
    proto.graph.node.insert(0, constant(zeros()))
    refused(proto, match, tmp_path)
    with pytest.raises(ValueError, match=match):
        qg.io.read(tmp_path / "m.onnx")
    proto = simple()
    del proto.graph.initializer[0]
    proto.graph.node.extend([constant(zeros()), constant(tensor("", weights()["W"]))])
    refused(proto, match, tmp_path)
    del proto.graph.node[-1]
    proto.graph.input.append(helper.make_tensor_value_info("W", FLOAT, weights()["W"].shape))
    refused(proto, match, tmp_path)
    assert not qg.onnx.load(two_cells(), "other").params["weight_ih_l0"].any()  # a network without that weight
    with pytest.raises(ValueError, match=match):
        qg.onnx.load(two_cells(), "cell")


def two_cells() -> Any:
    """A model in which the weight of one of two nodes is defined twice."""
    proto = simple()
    other = helper.make_node("LSTM", ["X", "V", "R", "B"], ["Z"], "other", hidden_size=H)
    proto.graph.node.extend([constant(zeros()), constant(zeros(), "V"), other])
    return proto


def test_attributes_that_a_node_has_twice(tmp_path):
    proto = simple()
    proto.graph.node[0].attribute.append(helper.make_attribute("direction", "reverse"))
    refused(proto, "LSTM 'cell' has the attribute 'direction' twice", tmp_path)
    proto = simple()
    del proto.graph.initializer[0]
    proto.graph.node.insert(0, constant(zeros()))
    proto.graph.node[0].attribute.append(helper.make_attribute("value", tensor("", weights()["W"])))
    refused(proto, "Constant '' has the attribute 'value' twice", tmp_path)


def function(*nodes: Any, inputs: Any = ("X", "W", "R"), op: str = "Net") -> Any:
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_function("own", op, list(inputs), ["Y"], list(nodes), opsets, attributes=["direction"])


def test_functions_that_say_one_thing_twice(tmp_path):
    """Two functions of one name, a name within one, an input of one, an attribute of a call."""
    given = [tensor(n, weights()[n]) for n in "WR"]
    cell = helper.make_node("LSTM", ["X", "W", "R"], ["Y"], "cell", hidden_size=H)
    call = helper.make_node("Net", ["X", "W", "R"], ["Y"], "call", domain="own", direction="reverse")
    proto = model([call], given, [function(cell)])
    qg.onnx.load(proto)
    proto.functions.append(function(cell))
    refused(proto, "two functions of the same name", tmp_path)
    del proto.functions[:]
    proto.functions.append(function(constant(zeros()), cell))
    refused(proto, "'W' is defined twice, in 'Net'", tmp_path)
    del proto.functions[:]
    proto.functions.append(function(cell, inputs=["X", "W", "R", "W"]))
    refused(proto, "'W' is defined twice, in 'Net'", tmp_path)
    del proto.functions[:]
    proto.functions.append(function(cell))
    proto.graph.node[0].attribute.append(helper.make_attribute("direction", "forward"))
    refused(proto, "Net 'call' has the attribute 'direction' twice", tmp_path)


def test_what_may_be_there_twice():
    """An initializer that is an input's default, a name of the graph around, one in both branches."""
    proto = simple()
    for t in proto.graph.initializer:
        proto.graph.input.append(helper.make_tensor_value_info(t.name, FLOAT, t.dims))
    onnx.checker.check_model(proto)
    compare(qg.onnx.load(proto), simple())
    own = draw(1, 4 * H, INPUTS, seed=5)
    branches = []
    for k in range(2):
        cell = helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y"], f"cell{k}", hidden_size=H)
        end = helper.make_tensor_value_info("Y", FLOAT, None)
        branches.append(helper.make_graph([cell], f"g{k}", [], [end], [tensor("W", own + k)]))
    node = helper.make_node("If", ["c"], ["Y"], "if", then_branch=branches[0], else_branch=branches[1])
    condition = helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])
    given = [tensor(*item) for item in weights().items()]
    graph = helper.make_graph([node], "g", [condition, proto.graph.input[0]], [proto.graph.output[0]], given)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    for k, place in enumerate(("if/then_branch/cell0", "if/else_branch/cell1")):
        net = qg.onnx.load(proto, place.rpartition("/")[2])
        assert np.array_equal(np.sort(net.params["weight_ih_l0"], None), np.sort(own + k, None))
