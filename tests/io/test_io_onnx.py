"""qg.onnx.load and store against onnxruntime: nodes in graphs, branches and functions, weights kept in any way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import agree, draw, lstm
from onnx_models import (
    BATCH,
    FLOAT,
    INPUTS,
    STEPS,
    TERMS,
    H,
    changed,
    compare,
    helper,
    model,
    onnx,
    run,
    simple,
    tensor,
    weights,
)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"clip": 0.4},
        {"input_forget": 1},
        {"activations": ["HardSigmoid", "Softsign", "Elu"], "activation_alpha": [0.3, 0.7], "activation_beta": [0.4]},
    ],
    ids=["plain", "clip", "coupled", "activations"],
)
def test_there_and_back(direction, attributes):
    if "activations" in attributes and direction == "bidirectional":
        attributes = {name: value * 2 for name, value in attributes.items()}
    proto = simple(direction, **attributes)
    before = proto.SerializeToString()
    net = qg.onnx.load(proto)
    x = draw(STEPS, BATCH, INPUTS, seed=9)
    if "clip" not in attributes:  # onnxruntime does not clip the output's argument
        compare(net, proto)
    tuned = changed(net)
    stored = qg.onnx.store(proto, None, tuned)
    onnx.checker.check_model(stored)
    assert proto.SerializeToString() == before
    assert len(stored.graph.initializer) == 3  # the old ones are gone
    if "clip" not in attributes:
        compare(tuned, stored)
    assert np.array_equal(qg.onnx.load(stored)(x)[0], tuned(x)[0])


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("function", ["Tanh", "Relu"])
def test_rnn(direction, function):
    d = 1 + (direction == "bidirectional")
    proto = simple(direction, "RNN", activations=[function] * d)
    net = qg.onnx.load(proto)
    assert (type(net).__name__, net.nonlinearity) == ("RNN", function.lower())
    compare(net, proto)
    tuned = changed(net)
    compare(tuned, qg.onnx.store(proto, "cell", tuned))


def test_peepholes_and_no_bias():
    w = weights() | {"P": draw(1, 3 * H, seed=8)}
    node = helper.make_node("LSTM", ["X", "W", "R", "", "", "", "", "P"], ["Y"], hidden_size=H)
    proto = model([node], [tensor(n, w[n]) for n in "WRP"])
    net = qg.onnx.load(proto, "Y")
    assert net.peephole
    assert not net.bias
    compare(net, proto)
    tuned = lstm(INPUTS, H, peephole=True)  # with a bias, which the node gets
    stored = qg.onnx.store(proto, "Y", tuned)
    compare(tuned, stored)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_halves_of_a_float16_bias_are_added_in_float32(kind):
    """Their sum may be larger than float16's largest number, and have more digits."""
    w = {name: value.astype(np.float16) for name, value in weights(kind=kind).items()}
    w["B"][0, ::H] = 40000
    types = {"elem_type": onnx.TensorProto.FLOAT16, "shape": None}
    node = helper.make_node(kind, ["X", "W", "R", "B"], ["Y"], "cell", hidden_size=H)
    ends = [[helper.make_tensor_value_info(name, **types)] for name in "XY"]
    graph = helper.make_graph([node], "g", *ends, [tensor(*item) for item in w.items()])
    net = qg.onnx.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)]))
    ours, recurrent = w["B"][0].astype(np.float32).reshape(2, -1)
    assert sorted(net.params["bias_l0"]) == sorted(ours + recurrent)


def test_files(tmp_path):
    """Paths, bytes, qg.io, and the arrays of a model."""
    proto = simple("bidirectional")
    path = tmp_path / "model.bin"
    onnx.save(proto, path)
    for net in (qg.onnx.load(path), qg.onnx.load(path.read_bytes()), qg.io.load(path), qg.io.load(path, name="cell")):
        compare(net, proto)
    assert set(qg.io.read(path)) == {"W", "R", "B"}
    with pytest.raises(ValueError, match=r"model\.bin: no network is named 'x'; there are: 'cell'"):
        qg.onnx.load(path, "x")
    with pytest.raises(TypeError, match="model must be"):
        qg.onnx.load(3)


def test_weights_of_a_cell():
    """As PyTorch exports a cell: Unsqueeze of Constants, a Concat of two biases, a Slice and a Transpose."""
    w = weights()
    constants = [
        helper.make_node("Constant", [], ["w2"], value=tensor("", w["W"][0].T)),
        helper.make_node("Constant", [], ["r2"], value=tensor("", np.concatenate([w["R"][0], w["R"][0]]))),
        helper.make_node("Constant", [], ["zero"], value_ints=[0]),
        helper.make_node("Constant", [], ["end"], value_ints=[4 * H]),
        helper.make_node("Transpose", ["w2"], ["wt"], perm=[1, 0]),
        helper.make_node("Unsqueeze", ["wt", "zero"], ["W"]),
        helper.make_node("Slice", ["r2", "zero", "end", "zero"], ["rs"]),
        helper.make_node("Unsqueeze", ["rs", "zero"], ["R"]),
        helper.make_node("Concat", ["b1", "b2"], ["b"], axis=0),
        helper.make_node("Reshape", ["b", "shape"], ["B"]),
    ]
    halves = [tensor("b1", w["B"][0, : 4 * H]), tensor("b2", w["B"][0, 4 * H :]), tensor("shape", np.array([1, -1]))]
    proto = model([*constants, helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y"], hidden_size=H)], halves)
    net = qg.onnx.load(proto)
    compare(net, proto)
    tuned = changed(net)
    stored = qg.onnx.store(proto, "Y", tuned)
    compare(tuned, stored)
    assert {node.op_type for node in stored.graph.node} <= {
        "LSTM",
        "Constant",
    }  # the chains are gone with their weights


def branches() -> Any:
    def branch(name: str, seed: int) -> Any:
        w = {f"{n}_{name}": v for n, v in weights(seed=seed).items()}
        node = helper.make_node("LSTM", ["X", *w], [f"Y_{name}"], "cell", hidden_size=H)
        out = helper.make_tensor_value_info(f"Y_{name}", FLOAT, ["T", 1, "B", H])
        return helper.make_graph([node], name, [], [out], [tensor(*item) for item in w.items()])

    node = helper.make_node("If", ["c"], ["Y"], "choice", then_branch=branch("yes", 0), else_branch=branch("no", 20))
    return model([node], extra=[helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])])


def test_branches(tmp_path):
    proto = branches()
    onnx.save(proto, tmp_path / "m")
    names = {"choice/then_branch/cell": True, "choice/else_branch/cell": False}
    assert {f.name for f in qg.io.networks(tmp_path / "m")} == set(names)
    with pytest.raises(ValueError, match="several networks"):
        qg.onnx.load(proto)
    for name, condition in names.items():
        net = qg.onnx.load(proto, name)
        compare(net, proto, c=np.array(condition))
        tuned = changed(net)
        stored = qg.onnx.store(proto, name, tuned)
        compare(tuned, stored, c=np.array(condition))
        other = next(n for n in names if n != name)
        compare(qg.onnx.load(proto, other), stored, c=np.array(not condition))


def function(inner: Any, inputs: Any) -> Any:
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_function("own", "Twice", inputs, ["y"], inner, opsets, attributes=["size"])


def with_size(node: Any) -> Any:
    attribute = onnx.AttributeProto(name="hidden_size", ref_attr_name="size", type=onnx.AttributeProto.INT)
    node.attribute.append(attribute)
    return node


def test_functions():
    """Weights passed by the call, and a constant within; the attribute comes from the call."""
    w = weights()
    inner = [
        helper.make_node("Constant", [], ["b"], value=tensor("", w["B"])),
        with_size(helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], "cell")),
    ]
    call = helper.make_node("Twice", ["X", "W", "R"], ["Y"], "call", domain="own", size=H)
    proto = model([call], [tensor(n, w[n]) for n in "WR"], [function(inner, ["x", "w", "r"])])
    net = qg.onnx.load(proto)
    compare(net, proto)
    tuned = changed(net)
    compare(tuned, qg.onnx.store(proto, "cell", tuned))


def test_a_function_that_is_called_twice_shares_its_constants():
    """A change inside the function would act in both calls, so it is an error."""
    w = weights()
    inner = [helper.make_node("Constant", [], [n.lower()], value=tensor("", v)) for n, v in w.items()]
    inner.append(helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], "cell", hidden_size=H))
    nodes = [helper.make_node("Twice", ["X"], [out], out, domain="own", size=H) for out in ("a", "b")]
    nodes.append(helper.make_node("Add", ["a", "b"], ["Y"]))
    proto = model(nodes, functions=[function(inner, ["x"])])
    net = qg.onnx.load(proto, "a/cell")
    with pytest.raises(ValueError, match="called 2 times"):
        qg.onnx.store(proto, "a/cell", net)


def test_weights_that_others_use_stay():
    w = weights()
    nodes = [helper.make_node("LSTM", ["X", "W", "R", "B"], [out], out, hidden_size=H) for out in ("a", "b")]
    nodes.append(helper.make_node("Add", ["a", "b"], ["Y"]))
    proto = model(nodes, [tensor(*item) for item in w.items()])
    old = qg.onnx.load(proto, "a")
    tuned = changed(qg.onnx.load(proto, "a"))
    stored = qg.onnx.store(proto, "a", tuned)
    x = draw(STEPS, BATCH, INPUTS, seed=9)
    agree(tuned(x)[0] + old(x)[0], run(stored, x), TERMS, STEPS, "both")


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (lambda: qg.RNN(INPUTS, H, rng=0), "it is an LSTM, got RNN"),
        (lambda: qg.LSTM(INPUTS, H + 1, rng=0), "shapes"),
        (lambda: qg.LSTM(INPUTS, H, 2, rng=0), "it has no weight_ih_l1"),
        (lambda: qg.LSTM(INPUTS, H, reverse=True, rng=0), "reverse is False there, True in the network"),
        (lambda: qg.LSTM(INPUTS, H, coupled=True, rng=0), "coupled"),
        (lambda: qg.LSTM(INPUTS, H, gate_clip=1.0, rng=0), "gate_clip"),
        (lambda: qg.LSTM(INPUTS, H, peephole=True, rng=0), "it has no peephole_l0"),
        (lambda: qg.LSTM(INPUTS, H, zoneout=(0.3, 0.2), rng=0), "zoneout"),
        (lambda: qg.LSTM(INPUTS, H, activations=("sigmoid", "relu", "tanh"), rng=0), "activations"),
    ],
)
def test_networks_that_do_not_fit(net, why):
    with pytest.raises(ValueError, match=why):
        qg.onnx.store(simple(), "cell", net())


def test_options_are_compared_in_float32():
    """An attribute has no more digits. A number that float32 tells apart is another one."""
    names = {"activations": ["HardSigmoid", "Tanh", "Tanh"], "activation_alpha": [0.3], "activation_beta": [0.4]}
    proto = simple(**names, clip=0.7)
    for dtype in ("float32", "float64"):
        options = {"activations": (("hard_sigmoid", 0.3, 0.4), "tanh", "tanh"), "gate_clip": 0.7, "dtype": dtype}
        qg.onnx.store(proto, "cell", lstm(INPUTS, H, **options))
        for other in ({"gate_clip": 0.7000001}, {"activations": (("hard_sigmoid", 0.3, 0.4000001), "tanh", "tanh")}):
            with pytest.raises(ValueError, match=f"{next(iter(other))} is .* there, .* in the network"):
                qg.onnx.store(proto, "cell", lstm(INPUTS, H, **options | other))
    given = simple(activations=["HardSigmoid", "Tanh", "Tanh"], activation_alpha=[0.2], activation_beta=[0.5])
    defaults = lstm(INPUTS, H, activations=("hard_sigmoid", "tanh", "tanh"))
    compare(defaults, qg.onnx.store(given, "cell", defaults))
    with pytest.raises(ValueError, match="gate_clip is None there, 1e\\+300 in the network"):
        qg.onnx.store(simple(), "cell", lstm(INPUTS, H, gate_clip=1e300, dtype="float64"))


def test_networks_of_classes_of_ones_own():
    class Encoder(qg.LSTM):
        pass

    tuned = changed(Encoder(INPUTS, H, rng=0))
    compare(tuned, qg.onnx.store(simple(), "cell", tuned))


@pytest.mark.parametrize("given", [None, "net", type("LSTM", (), {"__module__": "torch.nn"})(), {"weight_ih_l0": 0}])
def test_what_is_no_network(given):
    got = rf"{type(given).__module__}\.{type(given).__name__}"
    with pytest.raises(TypeError, match=rf"^net must be a quadgate\.LSTM or quadgate\.RNN, got {got}"):
        qg.onnx.store(simple(), "cell", given)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_infinite_biases(kind):
    """The operator adds two halves: the second must be zeros, or the sum is not a number."""
    proto = simple(kind=kind)
    net = qg.onnx.load(proto)
    bias = net.params["bias_l0"].copy()
    bias[:2] = np.inf, -np.inf
    net.load_state_dict({**net.params, "bias_l0": bias})
    np.testing.assert_array_equal(qg.onnx.load(qg.onnx.store(proto, None, net)).params["bias_l0"], bias)


def test_weights_beyond_the_nodes_type_are_refused():
    node = helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y"], "cell", hidden_size=H)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT16, ["T", "B", INPUTS])],
        [helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT16, ["T", 1, "B", H])],
        [tensor(name, value.astype(np.float16)) for name, value in weights().items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    net = qg.onnx.load(proto)
    qg.onnx.store(proto, "cell", net)
    net.load_state_dict({name: np.full_like(value, 1e6) for name, value in net.params.items()})
    with pytest.raises(ValueError, match=r"W has 1e\+06, which the node's float16 cannot hold"):
        qg.onnx.store(proto, "cell", net)


def test_none_is_chosen_where_another_cannot_be_loaded():
    """It may be the one that is meant."""
    w = weights()
    nodes = [helper.make_node("Exp", ["W"], ["V"])]
    nodes += [
        helper.make_node("LSTM", ["X", n, "R", "B"], [out], out, hidden_size=H) for n, out in (("V", "a"), ("W", "b"))
    ]
    nodes.append(helper.make_node("Add", ["a", "b"], ["Y"]))
    proto = model(nodes, [tensor(*item) for item in w.items()])
    why = (
        r"several networks: choose one by name=, of 'b' \(LSTM, 5 -> 7\); 'a' cannot be loaded: weight 'V' is computed"
    )
    with pytest.raises(ValueError, match=why):
        qg.onnx.load(proto)
    with pytest.raises(ValueError, match=why):
        qg.onnx.store(proto, None, lstm(INPUTS, H))
    qg.onnx.store(proto, "b", qg.onnx.load(proto, "b"))
    proto.graph.node[1].op_type = "GRU"
    qg.onnx.load(proto)  # quadgate has no GRU, so it is not meant


def test_computed_and_quantised_weights_are_refused():
    w = weights()
    rest = [tensor(n, w[n]) for n in "RB"]
    cell = helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y"], "cell", hidden_size=H)
    computed = model([helper.make_node("Exp", ["w"], ["W"]), cell], [tensor("w", w["W"]), *rest])
    with pytest.raises(ValueError, match="weight 'W' is computed by Exp"):
        qg.onnx.load(computed)
    scale = [tensor("w", w["W"].astype(np.int8)), tensor("s", np.float32(0.1))]
    quantised = model([helper.make_node("DequantizeLinear", ["w", "s"], ["W"]), cell], [*scale, *rest])
    with pytest.raises(ValueError, match="quantised"):
        qg.onnx.load(quantised)
    given = model([cell], rest, extra=[helper.make_tensor_value_info("W", FLOAT, [1, 4 * H, INPUTS])])
    with pytest.raises(ValueError, match="weight 'W' is an input of the graph"):
        qg.onnx.load(given)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_attributes_that_do_not_fit(kind):
    for attribute, value, why in (
        ("own", 1, f"its attributes own are none that {kind} has"),
        ("hidden_size", H + 1, f"its hidden_size is {H + 1}, R has {H}"),
        ("hidden_size", [H, H], "hidden_size must be an integer"),
        ("direction", "backwards", "direction must be one of"),
        ("direction", "bidirectional", "its direction is 'bidirectional', W has 1 directions"),
        ("layout", 2, "layout must be 0 or 1, got 2"),
        ("clip", -1.0, "clip must be a positive number"),
        *([("input_forget", 1, "its attributes input_forget are none that RNN has")] if kind == "RNN" else []),
    ):
        proto = simple(kind=kind)
        (node,) = proto.graph.node
        kept = [a for a in node.attribute if a.name != attribute]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(attribute, value)])
        with pytest.raises(ValueError, match=f"cell: {why}"):
            qg.onnx.load(proto)


def test_wrong_options_are_the_callers_mistake(tmp_path):
    """They raise as they do in `quadgate.load`, and are not put on the model."""
    proto = simple()
    onnx.save(proto, tmp_path / "m.onnx")
    for given in (proto, tmp_path / "m.onnx"):
        with pytest.raises(TypeError, match=r"^LSTM\(\) got an unexpected keyword argument 'drop'"):
            qg.onnx.load(given, drop=1)
        with pytest.raises(TypeError, match=r"^dropout must be"):
            qg.onnx.load(given, dropout="much")


def test_the_size_of_a_model_is_not_asked_for():
    """Protobuf copies the model for it, and fails beyond 2 GiB."""

    class Model:
        def __init__(self, proto: Any) -> None:
            self.graph, self.functions = proto.graph, proto.functions

    (found,) = qg.onnx._files.networks(Model(simple()), "m")
    assert (found.problem, found.name) == (None, "cell")


def test_hostile_models():
    """Circles and constants that unfold are found out in time."""
    cell = helper.make_node("LSTM", ["X", "W", "W", ""], ["Y"], "cell", hidden_size=H)
    doubled = [helper.make_node("Concat", [f"w{k}"] * 2, [f"w{k + 1}"], axis=0) for k in range(45)]
    doubled.append(helper.make_node("Identity", ["w45"], ["W"]))
    start = tensor("w0", np.ones((1, 1000), np.float32))
    for nodes in (doubled, [helper.make_node("Identity", ["W"], ["W"])]):
        graph = helper.make_graph([*nodes, cell], "g", [], [], [start])
        with pytest.raises(ValueError, match="cell"):
            qg.onnx.load(helper.make_model(graph))
    calls = [helper.make_node("Twice", [], [], domain="own") for _ in range(2)]
    endless = helper.make_function("own", "Twice", [], [], calls, [helper.make_opsetid("own", 1)])
    with pytest.raises(ValueError, match="nested"):
        qg.onnx.load(helper.make_model(helper.make_graph(calls, "g", [], []), functions=[endless]))
