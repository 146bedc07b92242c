"""onnxruntime's products of 8 bits, which are not exact on every machine."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np


@lru_cache(maxsize=1)
def saturates() -> bool:
    """True if onnxruntime adds two products with signed weights in 16 bits, as on x86 without VNNI: 2 * 255 * 127."""
    import onnx
    import onnxruntime

    helper, kind = onnx.helper, onnx.TensorProto
    node = helper.make_node("MatMulInteger", ["A", "B"], ["Y"])
    ends = [
        helper.make_tensor_value_info("A", kind.UINT8, [1, 2]),
        helper.make_tensor_value_info("Y", kind.INT32, [1, 4]),
    ]
    weight = onnx.numpy_helper.from_array(np.full((2, 4), 127, np.int8), "B")
    graph = helper.make_graph([node], "product", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return bool(session.run(None, {"A": np.full((1, 2), 255, np.uint8)})[0][0, 0] != 2 * 255 * 127)


def exact(model: Any) -> Any:
    """A model as onnxruntime computes it exactly: a DynamicQuantizeLSTM's weights without a sign where it saturates.

    128 more on the weights and on their zero points are the same numbers.
    """
    if all(node.op_type != "DynamicQuantizeLSTM" for node in model.graph.node) or not saturates():
        return model
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8:
            shifted = onnx.numpy_helper.to_array(tensor).astype(np.int16) + 128
            tensor.CopyFrom(onnx.numpy_helper.from_array(shifted.astype(np.uint8), tensor.name))
    return result
