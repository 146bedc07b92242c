"""DynamicQuantizeLSTM as a network: what onnxruntime's own tools make of an LSTM, read, run and written."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import draw, lstm, randomised
from support import onnx_int8

onnx: Any = pytest.importorskip("onnx", reason="onnx is not installed: install onnx")
ort: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: install onnxruntime")
tools: Any = pytest.importorskip("onnxruntime.quantization", reason="onnxruntime's tools are not installed")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

INPUTS, H, STEPS, BATCH = 5, 7, 10, 3
IOFC = np.r_[0:H, 3 * H : 4 * H, H : 2 * H, 2 * H : 3 * H]  # the gates i, o, f, g among ours
PLACES = {"ih": (1, 8, 9), "hh": (2, 10, 11)}  # integers, scale, zero point among the node's inputs
DIRECTIONS = ("forward", "reverse", "bidirectional")


def model(direction: str = "forward", kind: str = "LSTM", peephole: bool = False, bias: bool = True) -> Any:
    d, rows = 1 + (direction == "bidirectional"), (4 if kind == "LSTM" else 1) * H
    shapes = {"W": (d, rows, INPUTS), "R": (d, rows, H), "B": (d, 2 * rows), "P": (d, 3 * H)}
    present = {"W", "R", *(["B"] if bias else []), *(["P"] if peephole else [])}
    w = {name: 0.5 * draw(*shape, seed=k) for k, (name, shape) in enumerate(shapes.items()) if name in present}
    names = ["X", *(name if name in present else "" for name in ("W", "R", "B", "", "", "", "P"))]
    while not names[-1]:
        names.pop()
    node = helper.make_node(kind, names, ["Y"], "cell", hidden_size=H, direction=direction)
    inputs = [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["T", "B", INPUTS])]
    outputs = [helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, ["T", d, "B", H])]
    graph = helper.make_graph([node], "g", inputs, outputs, [numpy_helper.from_array(v, n) for n, v in w.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def quantised(tmp_path: Any, proto: Any, by_column: bool, symmetric: bool = True) -> Any:
    """The model as onnxruntime quantises it."""
    before, after = tmp_path / "before.onnx", tmp_path / "after.onnx"
    onnx.save(proto, before)
    logging.disable(logging.WARNING)  # it advises to pre-process the model
    try:
        options = {"WeightSymmetric": symmetric}
        tools.quantize_dynamic(
            before, after, per_channel=by_column, weight_type=tools.QuantType.QInt8, extra_options=options
        )
    finally:
        logging.disable(logging.NOTSET)
    result = onnx.load(after)
    assert [node.op_type for node in result.graph.node] == ["DynamicQuantizeLSTM"]
    return result


def held(proto: Any) -> dict[str, Any]:
    """Integers and scales of a model's only node under our names and in our order, from the definition."""
    given = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    (node,) = proto.graph.node
    result = {}
    for name, (q, s, z) in PLACES.items():
        whole, scale, zero = (given[node.input[k]] for k in (q, s, z))
        for d, suffix in enumerate(["_l0", "_l0_reverse"][: len(whole)]):
            back = np.argsort(IOFC)
            centred = whole[d].T.astype(np.int64) - np.broadcast_to(zero[d].astype(np.int64), 4 * H)[:, None]
            result[f"weight_{name}{suffix}"] = centred[back]
            result[f"weight_{name}{suffix}.scale"] = np.broadcast_to(scale[d], 4 * H)[back]
    return result


def stands_for(whole: dict[str, Any], name: str) -> Any:
    """The float32 nearest to an integer times its scale; the product is exact in float64."""
    return (whole[name] * whole[name + ".scale"].astype(np.float64)[:, None]).astype(np.float32)


def run(proto: Any, x: Any) -> Any:
    session = ort.InferenceSession(onnx_int8.exact(proto).SerializeToString(), providers=["CPUExecutionProvider"])
    y = session.run(None, {"X": x})[0]
    return y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1)


def assert_one_step(net: Any, proto: Any) -> None:
    """One step from a zero state: each gate's sum is off by the two errors of x times the sum of |W|.

    Ours is half a level of the row's largest |x| / 127, onnxruntime's at most a level of all of X's range / 255. Slopes
    of sigmoid and tanh are at most 1/4 and 1, i and |g| at most 1; a thousandth is for float32.
    """
    x = draw(1, BATCH, INPUTS, seed=9)
    wrong = 0.5 * np.abs(x).max() / 127 + (max(x.max(), 0) - min(x.min(), 0)) / 255
    sums = [np.abs(v).sum(1).max() for name, v in net.params.items() if name.startswith("weight_ih")]
    off = wrong * max(sums)
    assert np.abs(net(x)[0] - run(proto, x)).max() <= (off / 4 + off / 4 + off) * 1.001


@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_integers_are_kept(tmp_path, direction, by_column):
    proto = quantised(tmp_path, model(direction), by_column)
    path = tmp_path / "after.onnx"
    (found,) = qg.io.networks(path)
    assert (found.kind, found.input_size, found.hidden_size, found.weights) == ("LSTM", INPUTS, H, "int8")
    assert "weights of int8" in str(found)
    net, whole = qg.onnx.load(path), held(proto)
    assert net.weight_type == "int8"
    assert net.reverse == (direction == "reverse")
    for name in (n for n in whole if not n.endswith(".scale")):
        np.testing.assert_array_equal(net._snapshot.stored[name], whole[name])
        np.testing.assert_array_equal(net._snapshot.stored[name + ".scale"], whole[name + ".scale"])
        np.testing.assert_array_equal(net.params[name], stands_for(whole, name))
    assert_one_step(net, proto)
    plain = qg.io.load(path, weights="float32")
    assert plain.weight_type == "float32"
    for name, value in net.params.items():
        np.testing.assert_array_equal(plain.params[name], value)
    plain.forward(draw(STEPS, BATCH, INPUTS))  # it trains


@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_written_back(tmp_path, direction, by_column):
    """The same integers give onnxruntime's own results to the bit; another network's are written as they are."""
    proto, x = quantised(tmp_path, model(direction), by_column), draw(STEPS, BATCH, INPUTS)
    before = proto.SerializeToString()
    net = qg.onnx.load(proto)
    np.testing.assert_array_equal(run(qg.onnx.store(proto, None, net), x), run(proto, x))
    options = {"bidirectional": net.bidirectional, "reverse": net.reverse}
    tuned = lstm(INPUTS, H, **options).quantize("int8")
    stored = qg.onnx.store(proto, None, tuned)
    assert proto.SerializeToString() == before
    assert len(stored.graph.initializer) == 7  # the old ones are gone
    whole = held(stored)
    for name, value in tuned._snapshot.stored.items():
        if name.startswith("weight_"):
            np.testing.assert_array_equal(whole[name], value)
    assert_one_step(tuned, stored)
    np.testing.assert_array_equal(qg.onnx.load(stored)(x)[0], tuned(x)[0])


@pytest.mark.parametrize("bias", [False, True])
def test_peepholes_and_biases(tmp_path, bias):
    """They are float32 in the node; a network without a bias fits a node without one."""
    proto = quantised(tmp_path, model(peephole=True, bias=bias), True)
    net = qg.onnx.load(proto)
    assert (net.peephole, net.bias) == (True, bias)
    assert_one_step(net, proto)
    x = draw(STEPS, BATCH, INPUTS)
    np.testing.assert_array_equal(run(qg.onnx.store(proto, None, net), x), run(proto, x))


def test_zero_points_are_asked_about(tmp_path):
    """They make numbers beyond 127 times the scale: float32 holds these, int8 is another quantisation."""
    proto = quantised(tmp_path, model("bidirectional"), False, symmetric=False)
    whole = held(proto)
    assert max(np.abs(v).max() for name, v in whole.items() if not name.endswith(".scale")) > 127
    with pytest.raises(ValueError, match=r"after\.onnx: cell_quant: .* must be given: weights= \(its integers less"):
        qg.io.load(tmp_path / "after.onnx")
    plain, small = (qg.onnx.load(proto, weights=kind) for kind in ("float32", "int8"))
    assert (plain.weight_type, small.weight_type) == ("float32", "int8")
    for name, value in plain.quantize("int8").params.items():
        if name.startswith("weight_"):
            np.testing.assert_array_equal(plain.params[name], stands_for(whole, name))
        np.testing.assert_array_equal(small.params[name], value)
    assert_one_step(small, qg.onnx.store(proto, None, small))
    with pytest.raises(ValueError, match="weights must be 'float32' or 'int8', got 'float16'"):
        qg.onnx.load(proto, weights="float16")


@pytest.mark.parametrize("symmetric", [True, False])
def test_float64_of_integers(tmp_path, symmetric):
    """`weights="float32"` are the numbers; the arithmetic may be of another type."""
    proto = quantised(tmp_path, model(), False, symmetric)
    whole, net = held(proto), qg.onnx.load(proto, weights="float32", dtype="float64", dropout=0.0)
    assert net.dtype == np.float64
    for name in ("weight_ih_l0", "weight_hh_l0"):
        np.testing.assert_array_equal(net.params[name], stands_for(whole, name))
    with pytest.raises(ValueError, match="float32"):
        qg.onnx.load(proto, weights="int8", dtype="float64")


def replaced(proto: Any, **arrays: Any) -> Any:
    """A copy of a model with other initializers."""
    result = onnx.ModelProto()
    result.CopyFrom(proto)
    for tensor in result.graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    return result


def test_unsigned_weights(tmp_path):
    """Zero points of 128 take nothing away: the same network."""
    proto = quantised(tmp_path, model(), False)
    given = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    shifted = {n: (v.astype(np.int16) + 128).astype(np.uint8) for n, v in given.items() if v.dtype == np.int8}
    other = replaced(proto, **shifted)
    net, same = qg.onnx.load(proto), qg.onnx.load(other)
    assert same.weight_type == "int8"
    for name, value in net._snapshot.stored.items():
        np.testing.assert_array_equal(same._snapshot.stored[name], value)
    x = draw(STEPS, BATCH, INPUTS)
    np.testing.assert_array_equal(run(qg.onnx.store(other, None, same), x), run(other, x))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"W_scale": np.ones(3, np.float32)}, r"W_scale must have shape \(1,\) or \(1, 28\), got \(3,\)"),
        ({"R_scale": np.full(1, np.nan, np.float32)}, "R_scale must be finite"),
        ({"W_zero_point": np.zeros(1, np.uint8)}, "W and W_zero_point must both be int8 or uint8"),
        ({"R_quantized": np.zeros((1, H, 3), np.int8)}, r"found \(1, 28, 5\) and \(1, 3, 7\)"),
    ],
)
def test_wrong_weights(tmp_path, change, why):
    proto = replaced(quantised(tmp_path, model(), False), **change)
    with pytest.raises(ValueError, match=why):
        qg.onnx.load(proto)
    with pytest.raises(ValueError, match=why):
        qg.onnx.store(proto, None, lstm(INPUTS, H).quantize("int8"))


def test_networks_that_do_not_fit(tmp_path):
    proto = quantised(tmp_path, model(), False)
    for net, why in (
        (lstm(INPUTS, H), r"it is a DynamicQuantizeLSTM, got weights of float32: pass net\.quantize\('int8'\)"),
        (lstm(INPUTS, H).quantize("float16"), "it is a DynamicQuantizeLSTM, got weights of float16"),
        (lstm(INPUTS, H + 1).quantize("int8"), "its parameters have shapes"),
        (lstm(INPUTS, H, coupled=True).quantize("int8"), "coupled is False there"),
        (qg.RNN(INPUTS, H, rng=0).quantize("int8"), "it is an LSTM, got RNN"),
    ):
        with pytest.raises(ValueError, match=why):
            qg.onnx.store(proto, None, net)
    with pytest.raises(ValueError, match="it is an LSTM with weights of floating point, got weights of int8"):
        qg.onnx.store(model(), None, lstm(INPUTS, H).quantize("int8"))
    rnn = qg.RNN(INPUTS, H, rng=0).quantize("int8")
    with pytest.raises(ValueError, match="it is an RNN with weights of floating point"):
        qg.onnx.store(model(kind="RNN"), None, rnn)


def test_float16_goes_into_a_float_node():
    """Its numbers are float32's."""
    net, x = lstm(INPUTS, H).quantize("float16"), draw(STEPS, BATCH, INPUTS)
    stored = qg.onnx.load(qg.onnx.store(model(), None, net))
    np.testing.assert_array_equal(stored(x)[0], net(x)[0])


def test_float32_of_any_quantised_file(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed: install safetensors")
    for kind in ("float16", "bfloat16", "int8"):
        small = lstm(INPUTS, H, 2).quantize(kind)
        qg.save(small, tmp_path / "small")
        plain = qg.load(tmp_path / "small", weights="float32")
        assert plain.weight_type == "float32"
        for name, value in small.params.items():
            np.testing.assert_array_equal(plain.params[name], value)
        assert qg.load(tmp_path / "small", weights=kind).weight_type == kind
    qg.save(randomised(qg.LSTM(INPUTS, H, rng=0)), tmp_path / "plain")
    with pytest.raises(TypeError, match="weights"):
        qg.load(tmp_path / "plain", weights="int8")


@pytest.mark.parametrize("by_column", [False, True])
def test_its_docstring_is_right(tmp_path, by_column):
    """20 networks: y against the model before its quantisation, and against onnxruntime."""
    far = []
    for seed in range(20):
        proto, x = model(), draw(STEPS, 2, INPUTS, seed=100 + seed)
        for k, tensor in enumerate(proto.graph.initializer):
            value = np.random.default_rng([seed, k]).uniform(-0.5, 0.5, numpy_helper.to_array(tensor).shape)
            tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float32), tensor.name))
        small = quantised(tmp_path, proto, by_column)
        y, theirs, before = qg.onnx.load(small)(x)[0], run(small, x), run(proto, x)
        far.append([np.abs(y - theirs).max(), np.abs(y - before).max(), np.abs(theirs - before).max()])
    apart, ours, runtimes = np.max(far, axis=0)
    assert ours < min(6e-3, runtimes)
    assert runtimes < 9e-3
    assert apart < 7e-3
