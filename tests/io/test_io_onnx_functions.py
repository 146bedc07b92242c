"""qg.onnx.load and store in functions of a model: overloads, inputs that are shared, inputs that are left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import draw
from onnx_models import BATCH, INPUTS, STEPS, H, changed, compare, helper, model, onnx, run, simple, tensor, weights

OPSETS = [helper.make_opsetid("", 17)]


def with_constants(overload: str, seed: int) -> Any:
    """A function whose weights are within."""
    w = weights(seed=seed)
    inner = [helper.make_node("Constant", [], [name], value=tensor("", value)) for name, value in w.items()]
    inner.append(helper.make_node("LSTM", ["x", *w], ["y"], "cell", hidden_size=H))
    return helper.make_function("own", "Net", ["x"], ["y"], inner, OPSETS, overload=overload)


def test_overloads_of_a_function():
    """A call has the function of its own overload, and what another is called does not count."""
    nodes = [helper.make_node("Net", ["X"], [name], name, domain="own", overload=name) for name in "ab"]
    nodes.append(helper.make_node("Add", ["a", "b"], ["Y"]))
    proto = model(nodes, functions=[with_constants("a", 0), with_constants("b", 20)])
    for name, seed in (("a/cell", 0), ("b/cell", 20)):
        net = qg.onnx.load(proto, name)
        assert np.array_equal(net.params["weight_ih_l0"][:H], weights(seed=seed)["W"][0, :H])
        tuned = changed(net)
        stored = qg.onnx.store(proto, name, tuned)
        assert np.array_equal(qg.onnx.load(stored, name).params["weight_ih_l0"], tuned.params["weight_ih_l0"])
        other = {"a/cell": "b/cell", "b/cell": "a/cell"}[name]
        kept = qg.onnx.load(proto, other).params["weight_ih_l0"]
        assert np.array_equal(qg.onnx.load(stored, other).params["weight_ih_l0"], kept)
    with pytest.raises(ValueError, match=r"own\.Net has 2 overloads, which onnx's evaluator cannot tell apart"):
        qg.onnx.ReferenceEvaluator(proto)


def two_cells(outer: bool) -> Any:
    """A function of two LSTMs, one after the other, that read the same weights; `outer`: within another function."""
    inner = [
        helper.make_node("Constant", [], ["axes"], value=tensor("", np.array([1]))),
        helper.make_node("LSTM", ["x", "w", "r"], ["a"], "first", hidden_size=H),
        helper.make_node("Squeeze", ["a", "axes"], ["b"]),
    ]
    second = helper.make_node("LSTM", ["b", "w", "r"], ["y"], "second", hidden_size=H)
    own, arguments = [helper.make_opsetid("own", 1)], ["x", "w", "r"]
    if outer:
        rest = helper.make_function("own", "Rest", ["b", "w", "r"], ["y"], [second], OPSETS)
        call = helper.make_node("Rest", ["b", "w", "r"], ["y"], "rest", domain="own")
        functions = [helper.make_function("own", "Net", arguments, ["y"], [*inner, call], OPSETS + own), rest]
    else:
        functions = [helper.make_function("own", "Net", arguments, ["y"], [*inner, second], OPSETS)]
    call = helper.make_node("Net", ["X", "W", "R"], ["Y"], "net", domain="own")
    W, R = (0.5 * draw(1, 4 * H, H, seed=k) for k in range(2))
    proto = model([call], [tensor("W", W), tensor("R", R)], functions)
    del proto.graph.input[0].type.tensor_type.shape.dim[2]  # here I is H
    proto.graph.input[0].type.tensor_type.shape.dim.add(dim_value=H)
    return proto


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("name", ["first", "second"])
def test_weights_that_another_node_of_the_function_reads_stay(name, outer):
    proto = two_cells(outer)
    nets = {n: qg.onnx.load(proto, n) for n in ("first", "second")}
    nets[name] = changed(nets[name])
    stored = qg.onnx.store(proto, name, nets[name])
    onnx.checker.check_model(stored, full_check=True)
    x = draw(STEPS, BATCH, H)
    want = nets["second"](nets["first"](x)[0])[0]
    np.testing.assert_allclose(run(stored, x), want, atol=1e-5)
    for n, net in nets.items():
        assert np.array_equal(qg.onnx.load(stored, n).params["weight_ih_l0"], net.params["weight_ih_l0"])


@pytest.mark.parametrize("given", [["X", "W", "R", ""], ["X", "W", "R"]])
def test_inputs_that_a_call_leaves_out(given):
    """They are absent in the node, too, and `store` gives the call a bias if the network has one."""
    inner = [helper.make_node("LSTM", ["x", "w", "r", "b", "", "h"], ["y"], "cell", hidden_size=H)]
    function = helper.make_function("own", "Net", ["x", "w", "r", "b", "h"], ["y"], inner, OPSETS)
    w = weights()
    call = helper.make_node("Net", given, ["Y"], "net", domain="own")
    proto = model([call], [tensor(n, w[n]) for n in "WR"], [function])
    net = qg.onnx.load(proto)
    assert not net.bias
    (found,) = qg.onnx._files.networks(proto, "m")
    assert found.notes == ()
    compare(net, proto)
    compare(changed(net), qg.onnx.store(proto, "cell", changed(net)))
    tuned = changed(qg.LSTM(INPUTS, H, rng=0))
    compare(tuned, qg.onnx.store(proto, "cell", tuned))


def test_names_that_nothing_defines():
    inner = [helper.make_node("LSTM", ["x", "w", "other"], ["y"], "cell", hidden_size=H)]
    function = helper.make_function("own", "Net", ["x", "w"], ["y"], inner, OPSETS)
    proto = simple()
    proto.graph.node[0].CopyFrom(helper.make_node("Net", ["X", "W"], ["Y"], "net", domain="own"))
    proto.functions.append(function)
    with pytest.raises(ValueError, match="cell: weight 'other' is defined nowhere"):
        qg.onnx.load(proto)


def test_nodes_of_other_domains():
    """They only have the name; a function of the model with that name is looked into."""
    for op, domain in (("LSTM", "own"), ("RNN", "own"), ("DynamicQuantizeLSTM", ""), ("LSTM", "com.microsoft")):
        proto = simple(kind="RNN" if op == "RNN" else "LSTM")
        proto.graph.node[0].op_type, proto.graph.node[0].domain = op, domain
        with pytest.raises(ValueError, match="no LSTM and no RNN was found"):
            qg.onnx.load(proto)
    proto = simple()
    proto.graph.node[0].domain = "ai.onnx"
    compare(qg.onnx.load(proto), simple())
    w = weights()
    inner = [helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], "cell", hidden_size=H)]
    function = helper.make_function("own", "LSTM", ["x", "w", "r", "b"], ["y"], inner, OPSETS)
    call = helper.make_node("LSTM", ["X", *w], ["Y"], "outer", domain="own")
    proto = model([call], [tensor(*item) for item in w.items()], [function])
    compare(qg.onnx.load(proto, "cell"), proto)


def test_a_constant_of_another_domain():
    w = weights()
    literal = helper.make_node("Constant", [], ["W"], domain="own", value=tensor("", w["W"]))
    proto = simple()
    proto.graph.node.insert(0, literal)
    del proto.graph.initializer[0]
    with pytest.raises(ValueError, match="weight 'W' is computed by Constant"):
        qg.onnx.load(proto)


def test_names_that_are_no_text():
    """They come out of protobuf as bytes, and are in nobody's way."""
    w = weights()
    inner = [helper.make_node("LSTM", ["x", "w", "r"], ["y"], "cell", hidden_size=H)]
    function = helper.make_function("own", "Net", ["x", "w", "r", "zzzz"], ["y"], inner, OPSETS)
    call = helper.make_node("Net", ["X", "W", "R"], ["Y"], "net", domain="own")
    proto = model([call], [tensor(n, w[n]) for n in "WR"], [function])
    data = proto.SerializeToString().replace(b"zzzz", b"\xff" * 4)
    tuned = changed(qg.onnx.load(data))
    stored = qg.onnx.store(data, None, tuned)
    assert np.array_equal(qg.onnx.load(stored).params["weight_ih_l0"], tuned.params["weight_ih_l0"])
