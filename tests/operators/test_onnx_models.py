"""Whole models whose LSTM nodes quadgate runs, in onnx's evaluator: against onnxruntime, torch and onnx's own cases."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import quadgate as qg
import quadgate.onnx
from support import bounds, onnx_cases
from support.onnx_cases import OPTIONAL, Call, by_onnxruntime, call_data, conditions, judge_call, node_model

onnx: Any = pytest.importorskip("onnx", reason="there are no models to run without onnx: install onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402


def evaluator(made: Any) -> Any:
    return ReferenceEvaluator(made, new_ops=[quadgate.onnx.LSTM])


def run(made: Any, feeds: dict[str, Any]) -> list[Any]:
    """The model's outputs, the same from onnx's evaluator with a new operator and from the one that has it in it."""
    feeds = {name: a for name, a in feeds.items() if a is not None}
    results = evaluator(made).run(None, feeds)
    for a, b in zip(quadgate.onnx.ReferenceEvaluator(made).run(None, feeds), results, strict=True):
        np.testing.assert_array_equal(a, b)
    return results


def assert_close(got: Any, want: Any, sum_length: int, steps: int, what: str) -> None:
    """Two programs of float32: each as far off as the bound says."""
    assert got.shape == want.shape
    assert got.dtype == want.dtype == np.float32
    relative = 2 * bounds.norm_bound("float32", sum_length, steps)
    bounds.assert_norm(got, want.astype(np.float64), relative, what, least=1)


def node_cases() -> list[Any]:
    """The backend tests of the operator that onnx has itself, models and data."""
    import onnx.backend.test.case.node.lstm  # noqa: F401  (collects them)
    from onnx.backend.test.case import node

    return [case for case in node._NodeTestCases if any(n.op_type == "LSTM" for n in case.model.graph.node)]


def test_there_are_cases_in_onnx():
    assert len(node_cases()) >= 6


@pytest.mark.parametrize("case", node_cases(), ids=lambda case: case.name)
def test_cases_of_onnx(case):
    """As models, and as calls: the cases' own tolerances, which are wide, and theirs are not random weights."""
    for inputs, outputs in case.data_sets:
        names = [value.name for value in case.model.graph.input]
        results = run(case.model, dict(zip(names, inputs, strict=True)))
        assert len(results) == len(outputs) > 0
        for got, want in zip(results, outputs, strict=True):
            assert got.dtype == want.dtype
            np.testing.assert_allclose(got, want, rtol=case.rtol, atol=case.atol)
        (node,) = case.model.graph.node
        given = dict(zip([name for name in node.input if name], inputs, strict=True))
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        attributes = {k: v.decode() if isinstance(v, bytes) else v for k, v in attributes.items()}
        direct = dict(
            zip(onnx_cases.OUTPUTS, quadgate.onnx.lstm(*map(given.get, node.input), **attributes), strict=True)
        )
        for name, want in zip([name for name in node.output if name], outputs, strict=True):
            np.testing.assert_allclose(direct[name], want, rtol=case.rtol, atol=case.atol)


EVERYTHING = {
    "activations": ("HardSigmoid", "Tanh", "ScaledTanh", "Sigmoid", "Elu", "Softsign"),
    "alpha": (0.25, 0.75, 1.5),
    "beta": (0.5, 1.25),
}


@pytest.mark.parametrize("opset", [7, 14, 22])
def test_every_attribute_reaches_the_operator(opset):
    """A model that onnx's own evaluator, which passes over most attributes and the lengths, gets wrong."""
    call = Call(direction="bidirectional", clip=0.75, input_forget=1, layout=int(opset >= 14), **EVERYTHING)
    inputs = call_data(call)
    made = node_model("LSTM", inputs, call.attributes, opset)
    want = judge_call(call, inputs).outputs
    allowed = [onnx_cases.error(call) * c for c in conditions(call, inputs)]
    onnx_cases.assert_near(call, run(made, inputs), want, allowed)
    wrong = ReferenceEvaluator(made).run(None, inputs)[0]
    assert np.abs(wrong - want[0]).max() > 0.01


@pytest.mark.parametrize("absent", [{"B"}, {"sequence_lens", "initial_c"}, {"P"}, set(OPTIONAL)])
def test_inputs_without_a_name(absent):
    call = Call(given=frozenset(OPTIONAL) - absent)
    inputs = call_data(call)
    allowed = [onnx_cases.error(call) * c for c in conditions(call, inputs)]
    onnx_cases.assert_near(
        call, run(node_model("LSTM", inputs, call.attributes), inputs), judge_call(call, inputs).outputs, allowed
    )


@pytest.mark.parametrize("wanted", [("Y",), ("", "Y_h"), ("", "", "Y_c"), ("Y", "", "Y_c"), ("Y", "Y_h")])
def test_some_outputs(wanted):
    call = Call()
    inputs = call_data(call)
    made = node_model("LSTM", inputs, call.attributes)
    whole = dict(zip(onnx_cases.OUTPUTS, run(made, inputs), strict=True))
    del made.graph.node[0].output[:]
    made.graph.node[0].output.extend(wanted)
    kept = [value for value in made.graph.output if value.name in wanted]
    del made.graph.output[:]
    made.graph.output.extend(kept)
    onnx.checker.check_model(made)
    results = run(made, inputs)
    assert len(results) == len(kept)
    for value, result in zip(kept, results, strict=True):
        np.testing.assert_array_equal(result, whole[value.name])


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_types(dtype):
    call = Call(direction="bidirectional", dtype=dtype)
    inputs = call_data(call)
    results = run(node_model("LSTM", inputs, call.attributes), inputs)
    for got, want in zip(results, quadgate.onnx.lstm(*inputs.values(), **call.attributes), strict=True):
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, want)


def test_weights_that_change_between_runs():
    """The network of the run before is used again for the same weights only, even if they are in the same array."""
    call = Call(given=frozenset({"B", "P", "initial_h"}))
    first, second = call_data(call), call_data(replace(call, seed=1))
    session = evaluator(node_model("LSTM", first, {}))
    inputs = {name: a.copy() for name, a in first.items() if a is not None}
    for name in (None, "W", "R", "B", "P", "X", None):
        if name is not None:
            inputs[name][...] = second[name]
        whole = dict.fromkeys(onnx_cases.INPUTS) | inputs
        for got, want in zip(session.run(None, inputs), quadgate.onnx.lstm(*whole.values()), strict=True):
            np.testing.assert_array_equal(got, want)
    for other in (replace(call, hidden=3), replace(call, dtype="float64"), replace(call, inputs=5)):
        inputs = call_data(other)
        results = session.run(None, {name: a for name, a in inputs.items() if a is not None})
        for got, want in zip(results, quadgate.onnx.lstm(*inputs.values()), strict=True):
            np.testing.assert_array_equal(got, want)


def test_the_same_weights_make_one_network(monkeypatch):
    from quadgate.onnx import _operator

    made = []

    def counted(*args: Any, **keywords: Any) -> qg.LSTM:
        made.append(args)
        return qg.LSTM(*args, **keywords)

    monkeypatch.setattr(_operator, "LSTM", counted)
    call = Call(given=frozenset({"B"}), direction="bidirectional")  # both directions of which are one network
    session = evaluator(node_model("LSTM", call_data(call), call.attributes))
    for seed in range(3):  # other sequences
        inputs = {name: a.copy() for name, a in call_data(call).items() if a is not None}
        inputs["X"] = call_data(replace(call, seed=seed, steps=3 + seed))["X"]
        session.run(None, inputs)
    assert made == [(4, 6)]


def test_a_model_of_many_nodes():
    """A bidirectional LSTM with lengths between two Transposes, a reverse one that starts from its states, a classifier
    of the final state, and all steps as a second output."""
    steps, batch, inputs, hidden, classes = 9, 5, 7, 18, 4
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> Any:
        return (rng.uniform(-1, 1, shape) / np.sqrt(hidden)).astype(np.float32)

    constants = {
        "W1": weight(2, 4 * hidden, inputs),
        "R1": weight(2, 4 * hidden, hidden),
        "B1": weight(2, 8 * hidden),
        "W2": weight(1, 4 * hidden, 2 * hidden),
        "R2": weight(1, 4 * hidden, hidden),
        "P2": weight(1, 3 * hidden),
        "V": weight(hidden, classes),
        "b": weight(classes),
        "joined": np.array([0, 0, -1], np.int64),
        "one": np.array([1], np.int64),
        "first": np.array([0], np.int64),
        "half": np.array(0.5, np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node(
            "LSTM", ["xt", "W1", "R1", "B1", "lens"], ["y1", "h1", "c1"], hidden_size=hidden, direction="bidirectional"
        ),
        helper.make_node("Transpose", ["y1"], ["y1t"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["y1t", "joined"], ["x2"]),
        helper.make_node("ReduceMean", ["h1", "first"], ["h0"], keepdims=1),
        helper.make_node("ReduceMean", ["c1", "first"], ["c0"], keepdims=1),
        helper.make_node(
            "LSTM",
            ["x2", "W2", "R2", "", "lens", "h0", "c0", "P2"],
            ["y2", "h2"],
            hidden_size=hidden,
            direction="reverse",
            activations=["HardSigmoid", "Tanh", "Tanh"],
            activation_alpha=[0.25],
        ),
        helper.make_node("Squeeze", ["h2", "first"], ["last"]),
        helper.make_node("MatMul", ["last", "V"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("Squeeze", ["y2", "one"], ["all_steps"]),
    ]
    graph = helper.make_graph(
        nodes,
        "many_nodes",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", "T", inputs]),
            helper.make_tensor_value_info("lens", TensorProto.INT32, ["N"]),
        ],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes]),
            helper.make_tensor_value_info("all_steps", TensorProto.FLOAT, ["T", "N", hidden]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(made, full_check=True)
    pytest.importorskip("onnxruntime", reason="the model is not compared with onnxruntime: install it")
    session = evaluator(made)
    assert [type(node) for node in session.rt_nodes_].count(quadgate.onnx.LSTM) == 2
    for seed, rows in enumerate((batch, 1, batch + 3)):
        rng = np.random.default_rng(seed)
        feeds = {
            "x": rng.normal(size=(rows, steps, inputs)).astype(np.float32),
            "lens": rng.integers(1, steps + 1, rows).astype(np.int32),  # 0 is where onnxruntime differs
        }
        got, want = session.run(None, feeds), by_onnxruntime(made, feeds)
        for name, a, b in zip(("probabilities", "all_steps"), got, want, strict=True):
            assert_close(a, b, 3 * hidden + 1, 2 * steps, name)


def test_a_node_in_a_subgraph():
    """In the branch of an If, where the weights are the outer graph's."""
    call = Call(given=frozenset({"B"}))
    inputs = {name: a for name, a in call_data(call).items() if a is not None}
    y = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)]
    run_it = helper.make_graph([helper.make_node("LSTM", list(inputs), ["y"], **call.attributes)], "then", [], y)
    node = helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32)))
    graph = helper.make_graph(
        [
            helper.make_node(
                "If", ["on"], ["result"], then_branch=run_it, else_branch=helper.make_graph([node], "e", [], y)
            )
        ],
        "outer",
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])]
        + [helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape) for name, a in inputs.items()],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT, [None] * 4)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(made)
    want = quadgate.onnx.lstm(*inputs.values())[0]
    np.testing.assert_array_equal(run(made, inputs | {"on": np.array(True)})[0], want)
    assert not run(made, inputs | {"on": np.array(False)})[0].any()


def test_a_node_in_a_function_of_the_model():
    """Whose attributes come from the call of the function, another at each of two calls."""
    call = Call(given=frozenset({"B"}))
    inputs = {name: a for name, a in call_data(call).items() if a is not None}
    inner = helper.make_node("LSTM", list(inputs), ["y"])
    for name, kind in (("direction", onnx.AttributeProto.STRING), ("clip", onnx.AttributeProto.FLOAT)):
        attribute = inner.attribute.add()
        attribute.name = attribute.ref_attr_name = name
        attribute.type = kind
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Layer", list(inputs), ["y"], [inner], opsets[:1], ["direction", "clip"])
    nodes = [
        helper.make_node("Layer", list(inputs), ["y1"], domain="own", direction="forward", clip=0.5),
        helper.make_node("Layer", list(inputs), ["y2"], domain="own", direction="reverse", clip=0.25),
    ]
    graph = helper.make_graph(
        nodes,
        "calls",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape) for name, a in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in ("y1", "y2")],
    )
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=[function])
    session = quadgate.onnx.ReferenceEvaluator(made)
    for got, direction, clip in zip(session.run(None, inputs), ("forward", "reverse"), (0.5, 0.25), strict=True):
        np.testing.assert_array_equal(got, quadgate.onnx.lstm(*inputs.values(), direction=direction, clip=clip)[0])


def test_an_operator_of_ones_own_comes_first():
    from onnx.reference.op_run import OpRun

    class LSTM(OpRun):
        op_domain = ""

        def _run(self, *inputs: Any, **attributes: Any) -> tuple[Any, ...]:
            return (np.zeros(1), np.zeros(2), np.zeros(3))

    inputs = call_data(Call(given=frozenset()))
    session = quadgate.onnx.ReferenceEvaluator(node_model("LSTM", inputs, {"hidden_size": 6}), new_ops=[LSTM])
    assert [a.shape for a in session.run(None, inputs)] == [(1,), (2,), (3,)]


def test_a_wrong_model_says_what_is_wrong():
    call = Call()
    inputs = call_data(call)
    made = node_model("LSTM", inputs, call.attributes)
    made.graph.node[0].attribute.append(helper.make_attribute("clip", -1.0))
    with pytest.raises(ValueError, match="clip"):
        run(made, inputs)
    with pytest.raises(ValueError, match="initial_c must have shape"):
        run(node_model("LSTM", inputs, call.attributes), inputs | {"initial_c": np.zeros((1, 3, 7), np.float32)})


def test_a_model_exported_by_torch():
    """Embedding, two bidirectional layers, a classifier: torch, onnxruntime and the evaluator agree."""
    torch: Any = pytest.importorskip("torch", reason="no model is exported by PyTorch: install torch")
    torch.manual_seed(0)

    class Tagger(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(50, 12)
            self.lstm = torch.nn.LSTM(12, 20, num_layers=2, bidirectional=True, batch_first=True)
            self.tags = torch.nn.Linear(40, 5)

        def forward(self, words: Any, h0: Any, c0: Any) -> Any:
            y, (h, c) = self.lstm(self.embedding(words), (h0, c0))
            return self.tags(y), h, c

    net = Tagger().eval()
    example = (torch.randint(0, 50, (3, 8)), torch.randn(4, 3, 20), torch.randn(4, 3, 20))
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The newer exporter needs onnxscript, and makes the same LSTM nodes; this one warns that it is the older.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            example,
            file,
            dynamo=False,
            input_names=["words", "h0", "c0"],
            dynamic_axes={"words": {0: "N", 1: "T"}, "h0": {1: "N"}, "c0": {1: "N"}},
        )
    made = onnx.load_from_string(file.getvalue())
    assert sum(node.op_type == "LSTM" for node in made.graph.node) == 2
    for rows, steps in ((3, 8), (6, 13)):
        feeds = {
            "words": np.random.default_rng(rows).integers(0, 50, (rows, steps)),
            "h0": np.random.default_rng(1).normal(size=(4, rows, 20)).astype(np.float32),
            "c0": np.random.default_rng(2).normal(size=(4, rows, 20)).astype(np.float32),
        }
        results = run(made, feeds)
        with torch.no_grad():
            theirs = [a.numpy() for a in net(*(torch.tensor(a) for a in feeds.values()))]
        for name, got, want in zip(("tags", "h", "c"), results, theirs, strict=True):
            assert_close(got, want, 40 + 20 + 2, 2 * steps, name)
