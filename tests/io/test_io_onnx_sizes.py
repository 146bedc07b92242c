"""qg.onnx.load of models that keep their weights in many steps, and of models that are made to fill the memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import draw
from onnx_models import FLOAT, helper, onnx, tensor
from quadgate.onnx import _constants, _files, _nodes, _quantised

WIDE = 160


def exported(dtype: Any = np.float32, cast: str = "") -> tuple[Any, dict[str, Any]]:
    """Both directions of a module as torch.onnx writes them without folding: PyTorch's rows, a Slice for each gate.

    A Cast follows the rows or the Concat, or nothing.
    """
    given, nodes = {}, []
    for k in range(4):
        nodes.append(helper.make_node("Constant", [], [f"c{k}"], value=tensor("", np.array([k * WIDE]))))
    nodes.append(helper.make_node("Constant", [], ["c4"], value=tensor("", np.array([4 * WIDE]))))
    nodes.append(helper.make_node("Constant", [], ["axes"], value=tensor("", np.array([0]))))

    def converted(name: str, here: bool) -> str:
        if here:
            nodes.append(helper.make_node("Cast", [name], [f"{name}_cast"], to=FLOAT))
        return f"{name}_cast" if here else name

    for what, name in (("W", "weight_ih"), ("R", "weight_hh")):
        parts = []
        for suffix in ("_l0", "_l0_reverse"):
            own = name + suffix
            given[own] = (draw(4 * WIDE, WIDE, seed=len(given)) / 16).astype(dtype)
            rows = converted(own, cast == "first")
            for gate, k in (("i", 0), ("o", 3), ("f", 1), ("c", 2)):  # from PyTorch's order i, f, c, o
                nodes.append(helper.make_node("Slice", [rows, f"c{k}", f"c{k + 1}", "axes"], [f"{own}_{gate}"]))
            nodes.append(helper.make_node("Concat", [f"{own}_{gate}" for gate in "iofc"], [f"{own}_4"], axis=0))
            nodes.append(helper.make_node("Unsqueeze", [converted(f"{own}_4", cast == "last"), "axes"], [f"{own}_5"]))
            parts.append(f"{own}_5")
        nodes.append(helper.make_node("Concat", parts, [what], axis=0))
    nodes.append(helper.make_node("LSTM", ["X", "W", "R"], ["Y"], hidden_size=WIDE, direction="bidirectional"))
    shapes = {"X": ["T", "B", WIDE], "Y": ["T", 2, "B", WIDE]}
    ends = [[helper.make_tensor_value_info(name, FLOAT, shape)] for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "g", *ends, [tensor(*item) for item in given.items()])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(proto, full_check=True)
    return proto, given


@pytest.mark.parametrize(("dtype", "cast"), [(np.float32, ""), (np.float16, "first"), (np.float16, "last")])
def test_exports_without_folding(dtype, cast):
    proto, given = exported(dtype, cast)
    net = qg.onnx.load(proto)
    for name, value in given.items():
        assert np.array_equal(net.params[name], value.astype(np.float32))


def cells(count: int, wide: int, op: str = "LSTM") -> Any:
    """A model of many nodes that share their weights."""
    names = ["X", "W", "R"]
    given = {"W": np.zeros((1, 4 * wide, wide), np.float32), "R": np.zeros((1, 4 * wide, wide), np.float32)}
    if op != "LSTM":
        names += ["", "", "", "", "", "s", "z", "s", "z"]
        given = {name: value.transpose(0, 2, 1).astype(np.int8) for name, value in given.items()}
        given |= {"s": np.ones(1, np.float32), "z": np.zeros(1, np.int8)}
    domain = "" if op == "LSTM" else "com.microsoft"
    nodes = [helper.make_node(op, names, [f"Y{k}"], domain=domain, hidden_size=wide) for k in range(count)]
    return helper.make_model(helper.make_graph(nodes, "g", [], [], [tensor(*item) for item in given.items()]))


@pytest.mark.parametrize("op", ["LSTM", "DynamicQuantizeLSTM"])
def test_nodes_that_share_their_weights_share_their_memory(op):
    """A list of networks has none of their parameters, which would take 39 MB here."""
    data = cells(300, 64, op).SerializeToString()
    tracemalloc.start()
    try:
        found = _files.networks(_files.parse(data, Path()), "m")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [f.problem for f in found] == [None] * 300
    assert peak < 4e6
    assert found[7].build().hidden_size == 64


def test_long_names_of_many_nodes():
    """Within a function each has the name of the call in front: 0.4 MB of a file would become 300 MB."""
    nodes = [helper.make_node("LSTM", ["x", "w", "w"], ["y"], "a") for _ in range(1000)]
    function = helper.make_function("own", "Net", ["x", "w"], ["y"], nodes, [helper.make_opsetid("", 17)])
    call = helper.make_node("Net", ["X", "W"], ["Y"], "z" * 300_000, domain="own")
    proto = helper.make_model(helper.make_graph([call], "g", [], []), functions=[function])
    with pytest.raises(ValueError, match="names of its nodes and of all that they are in have more than 16777216"):
        qg.onnx.load(proto)


def test_a_concat_of_much_more_than_the_model_is_not_made():
    """One initializer of 64 kB, named 3000 times: it would take 197 MB before it is refused."""
    nodes = [
        helper.make_node("Concat", ["a"] * 3000, ["W"], axis=0),
        helper.make_node("LSTM", ["X", "W", "W"], ["Y"], "cell"),
    ]
    data = helper.make_model(helper.make_graph(nodes, "g", [], [], [tensor("a", draw(1, 4, 4096))]))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="its constants unfold to much more than the model holds"):
            qg.onnx.load(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2e7


def test_a_concat_has_inputs_of_one_type():
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["W"], axis=0),
        helper.make_node("LSTM", ["X", "W", "W"], ["Y"], "cell"),
    ]
    given = [tensor("a", draw(1, 16, 4)), tensor("b", draw(1, 16, 4).astype(np.float64))]
    with pytest.raises(ValueError, match="has inputs of several types"):
        qg.onnx.load(helper.make_model(helper.make_graph(nodes, "g", [], [], given)))


class Counted(list[Any]):
    """A list that counts how often it is read from its beginning."""

    reads = 0

    def __iter__(self) -> Any:
        self.reads += 1
        return super().__iter__()


def test_inputs_are_read_once_for_all_nodes():
    """Each of thousands of nodes looked for its weights among all inputs of the graph."""
    value = helper.make_tensor_value_info("W", FLOAT, None)
    inputs = Counted([value])
    graph: Any = SimpleNamespace(node=[], initializer=[], input=inputs, name="g")
    frame = _nodes.Frame(graph, None, _nodes.Budget(helper.make_model(helper.make_graph([], "g", [], []))))
    for _ in range(10):
        with pytest.raises(ValueError, match="weight 'W' is an input of the graph 'g'"):
            frame.find("W")
    assert inputs.reads == 1


def test_a_weight_that_fails_is_computed_once(monkeypatch):
    """A Concat of very many inputs, the last of which is none, is not read again for each node that names it."""
    calls = []
    of = _constants.constant
    monkeypatch.setattr(_constants, "constant", lambda *a: calls.append(a) or of(*a))
    nodes = [helper.make_node("Concat", ["a"] * 50 + ["nothing"], ["W"], axis=0)]
    nodes += [helper.make_node("LSTM", ["X", "W", "W"], [f"Y{k}"]) for k in range(20)]
    data = helper.make_model(helper.make_graph(nodes, "g", [], [], [tensor("a", draw(1, 4, 4))])).SerializeToString()
    found = _files.networks(_files.parse(data, Path()), "m")
    assert [f.problem for f in found] == ["weight 'nothing' is defined nowhere"] * 20
    assert len(calls) == 51


def calls_of(function: Any, count: int, op: str = "Net") -> Any:
    nodes = [helper.make_node(op, ["X"], [f"Z{k}"], domain="own") for k in range(count)]
    return helper.make_model(helper.make_graph(nodes, "g", [], []), functions=[function])


def peak_of(proto: Any) -> float:
    tracemalloc.start()
    try:
        found = _files.networks(_files.parse(proto.SerializeToString(), Path()), "m")
        assert found
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_function_is_not_copied_for_each_call_of_it():
    """Its names, the texts of its node's attributes and those in messages: all would be there 1000 times."""
    opsets, long = [helper.make_opsetid("", 17)], "z" * 500_000
    outputs = helper.make_node("Split", ["x"], [f"s{k}" for k in range(5000)])
    cell = helper.make_node("LSTM", ["x", "w", "w"], ["y"], "a")
    assert peak_of(calls_of(helper.make_function("own", "Net", ["x"], ["y"], [outputs, cell], opsets), 1000)) < 3e7
    cell = helper.make_node("LSTM", ["x", long, "w"], ["y"], "a")
    assert peak_of(calls_of(helper.make_function("own", "Net", ["x"], ["y"], [cell], opsets), 1000)) < 3e7
    for values in ({"direction": long}, {"activations": ["Tanh"] * 5000}, {"activation_alpha": [0.5] * 5000}):
        cell = helper.make_node("LSTM", ["x", "w", "w"], ["y"], "a", **values)
        weights = [helper.make_node("Constant", [], ["w"], value=tensor("w", draw(1, 16, 4)))]
        proto = calls_of(helper.make_function("own", "Net", ["x"], ["y"], [*weights, cell], opsets), 3)
        with pytest.raises(ValueError, match="has more than 1000 values"):
            qg.onnx.load(proto)


def test_the_work_of_many_calls_is_bounded(monkeypatch):
    """Each call of a function has a list of its inputs. Its nodes are looked at once, all of their attributes too."""
    opsets, cell = [helper.make_opsetid("", 17)], helper.make_node("LSTM", ["x", "w", "w"], ["y"], "a")
    inputs = ["x", *(f"x{k}" for k in range(5000))]
    proto = calls_of(helper.make_function("own", "Net", inputs, ["y"], [cell], opsets), 200)
    monkeypatch.setattr(_nodes, "VISITS", 20_000)
    with pytest.raises(ValueError, match="it has more than 20000 nodes, each function counted once a call"):
        qg.onnx.load(proto)
    asked, of = [], _nodes._is_recurrent
    monkeypatch.setattr(_nodes, "_is_recurrent", lambda node: asked.append(node.op_type) or of(node))
    cell.attribute.extend(helper.make_attribute(f"a{k}", 1) for k in range(2000))
    nodes = [helper.make_node("Constant", [], ["w"], value=tensor("w", draw(1, 16, 4))), cell]
    nodes += [helper.make_node("Split", ["x"], [f"z{k}"]) for k in range(10)]
    proto = calls_of(helper.make_function("own", "Net", ["x"], ["y"], nodes, opsets), 200)
    assert {f.problem for f in _files.networks(proto, "m")} == {"it has more than 1000 attributes"}
    assert asked.count("Split") == 10


@pytest.mark.parametrize("dims", [(1, 16, -1), (-1, 16, 4), (1, -16, -4), (-1,) * 100])
def test_negative_sizes_of_a_tensor(tmp_path, dims):
    """NumPy's reshape would take one of -1 for what is left."""
    odd = onnx.TensorProto(name="W", data_type=FLOAT, dims=dims, raw_data=bytes(256))
    cell = helper.make_node("LSTM", ["X", "W", "R"], ["Y"], "cell")
    literal = helper.make_node("Constant", [], ["W"], value=odd)
    for nodes, given in (([cell], [odd]), ([literal, cell], [])):
        proto = helper.make_model(helper.make_graph(nodes, "g", [], [], [*given, tensor("R", draw(1, 16, 4))]))
        (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
        with pytest.raises(ValueError, match=r"m\.onnx: .*tensor 'W' has the senseless shape (\(.*-|tuple)"):
            qg.onnx.load(tmp_path / "m.onnx")
    proto = helper.make_model(helper.make_graph([cell], "g", [], [], [odd]))
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match=r"m\.onnx: .*tensor 'W' has the senseless shape"):
        qg.io.read(tmp_path / "m.onnx")


def test_quantised_matrices_that_nodes_share_are_looked_at_once(monkeypatch):
    """Their integers and scales would be multiplied anew for each node, of which a file has one in 60 bytes."""
    made, of = [], _quantised.Matrix.of
    monkeypatch.setattr(_quantised.Matrix, "of", staticmethod(lambda *given: made.append(given) or of(*given)))
    found = _files.networks(cells(50, 8, "DynamicQuantizeLSTM"), "m")
    assert len(made) == 2
    assert [(f.problem, f.weights, f.hidden_size) for f in found] == [(None, "int8", 8)] * 50
    assert found[3].build().weight_type == found[4].build().weight_type == "int8"
