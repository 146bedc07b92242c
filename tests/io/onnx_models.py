"""Shared by the tests of ONNX files: small models, and their results by onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import agree, draw, randomised

onnx: Any = pytest.importorskip("onnx", reason="onnx is not installed: install onnx")
ort: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: install onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper
FLOAT = onnx.TensorProto.FLOAT

INPUTS, H, STEPS, BATCH = 5, 7, 6, 3
TERMS = 4 * (INPUTS + H + 2)
GATES = {"LSTM": 4, "RNN": 1}


def tensor(name: str, value: Any) -> Any:
    return numpy_helper.from_array(np.ascontiguousarray(value), name)


def weights(d: int = 1, kind: str = "LSTM", seed: int = 0) -> dict[str, Any]:
    rows = GATES[kind] * H
    shapes = {"W": (d, rows, INPUTS), "R": (d, rows, H), "B": (d, 2 * rows)}
    return {name: 0.5 * draw(*shape, seed=seed + k) for k, (name, shape) in enumerate(shapes.items())}


def model(nodes: Any, initializers: Any = (), functions: Any = (), d: int = 1, extra: Any = ()) -> Any:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("X", FLOAT, ["T", "B", INPUTS]), *extra],
        [helper.make_tensor_value_info("Y", FLOAT, ["T", d, "B", H])],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    result = helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=9)
    onnx.checker.check_model(result)
    return result


def simple(direction: str = "forward", kind: str = "LSTM", **attributes: Any) -> Any:
    d = 2 if direction == "bidirectional" else 1
    w = weights(d, kind)
    node = helper.make_node(kind, ["X", *w], ["Y"], "cell", direction=direction, hidden_size=H, **attributes)
    return model([node], [tensor(*item) for item in w.items()], d=d)


def run(proto: Any, x: Any, **inputs: Any) -> Any:
    """Y as ours has it: (T, B, D*H)."""
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    y = session.run(None, {"X": x, **inputs})[0]
    return y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1)


def compare(net: Any, proto: Any, **inputs: Any) -> None:
    x = draw(STEPS, BATCH, INPUTS, seed=9)
    agree(net(x)[0], run(proto, x, **inputs), TERMS, STEPS, "y")


def changed(net: Any) -> Any:
    """The same network with other parameters, as after training."""
    return randomised(net, seed=17)
