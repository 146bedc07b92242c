"""Types of weights in ONNX models: bfloat16 read, cast and written, and models of old versions."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from onnx_models import INPUTS, H, changed, compare, helper, onnx, simple, tensor, weights

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: install onnx")
BFLOAT16 = onnx.TensorProto.BFLOAT16


def nearest_bfloat16(value):
    """Float32 rounded to the nearest number with 16 bits, ties to even, by integers."""
    bits = np.asarray(value, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_bfloat16_stays(kind):
    """`store` keeps the node's own type, so the model stays valid; numbers are rounded to the nearest."""
    w = {name: value.astype(ml_dtypes.bfloat16) for name, value in weights(kind=kind).items()}
    node = helper.make_node(kind, ["X", *w], ["Y"], "cell", hidden_size=H)
    shapes = {"X": ["T", "B", INPUTS], "Y": ["T", 1, "B", H]}
    ends = [[helper.make_tensor_value_info(name, BFLOAT16, shape)] for name, shape in shapes.items()]
    graph = helper.make_graph([node], "g", *ends, [tensor(*item) for item in w.items()])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(proto, full_check=True)
    net = qg.onnx.load(proto)
    assert net.dtype == np.float32
    assert np.array_equal(np.sort(net.params["weight_ih_l0"], 0), np.sort(w["W"][0].astype(np.float32), 0))
    tuned = changed(net)
    stored = qg.onnx.store(proto, None, tuned)
    onnx.checker.check_model(stored, full_check=True)
    assert {t.data_type for t in stored.graph.initializer} == {BFLOAT16}
    back = qg.onnx.load(stored).params
    for name, value in tuned.params.items():
        assert np.array_equal(back[name], nearest_bfloat16(value))


@pytest.mark.parametrize("to", ["bfloat16", "float32"])
def test_a_cast_to_bfloat16_rounds(to):
    """To the nearest, ties to even, also where a Cast back follows."""
    w = weights()
    w["W"][0, 0, :4] = [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -1 - 2**-8]
    casts = [helper.make_node("Cast", ["W"], ["w1"], to=BFLOAT16)]
    if to == "float32":
        casts.append(helper.make_node("Cast", ["w1"], ["w2"], to=onnx.TensorProto.FLOAT))
    cell = helper.make_node("LSTM", ["X", casts[-1].output[0], "R", "B"], ["Y"], "cell", hidden_size=H)
    proto = simple()
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend([*casts, cell])
    proto.graph.initializer.extend([tensor(*item) for item in w.items()])
    got = qg.onnx.load(proto).params["weight_ih_l0"]
    assert list(got[0, :4]) == [1, 1 + 2**-6, 1 + 2**-7, -1]
    assert np.array_equal(got[:H], nearest_bfloat16(w["W"][0, :H]))


@pytest.mark.parametrize("version", [3, 8])
def test_weights_that_are_inputs_of_the_graph(version):
    """Version 3 of the format wants that of all initializers; the old weights go as inputs too."""
    proto = simple()
    proto.ir_version, proto.opset_import[0].version = version, 7
    ends = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in proto.graph.initializer]
    proto.graph.input.extend(ends)
    onnx.checker.check_model(proto, full_check=True)
    tuned = changed(qg.onnx.load(proto))
    stored = qg.onnx.store(proto, None, tuned)
    for _ in range(2):  # a second time, on what the first has made
        onnx.checker.check_model(stored, full_check=True)
        assert [value.name for value in stored.graph.input] == ["X"]
        assert len(stored.graph.initializer) + len(stored.graph.node) == 4  # the cell and its three weights
        compare(tuned, stored)
        stored = qg.onnx.store(stored, None, tuned)
