"""OpenVINO's LSTMSequence on the CPU; inference only."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
from openvino import opset13 as ops
from shapes import Shape

from .base import STREAM_STEPS, Array, Arrays, repeat


def _gates(array: Array) -> Array:
    """Reorder the gates from i, f, g, o to OpenVINO's f, i, g, o."""
    i, f, g, o = np.split(array, 4)
    return np.concatenate([f, i, g, o])


def _constant(value: Any) -> Any:
    return ops.constant(np.ascontiguousarray(value))


def _model(shape: Shape, arrays: Arrays) -> Any:
    """Return a chain of LSTMSequence nodes from (T, B, I) to (T, B, D*H); a node maps (B, T, I) to (B, D, T, H).

    With one direction the plugin recognises the two transposes as a time-major layout, and moves no data.
    A stream's state stays in the model, as two variables a layer; otherwise the final states are outputs.
    """
    suffixes = ("", "_reverse")[: shape.directions]
    direction = "bidirectional" if shape.directions == 2 else "forward"
    state = [shape.B, shape.directions, shape.H]
    lengths = _constant(np.full(shape.B, shape.T, np.int32))
    x = source = ops.parameter([shape.T, shape.B, shape.I], np.float32, name="x")
    outputs, sinks = [], []
    for k in range(shape.layers):
        start = [ops.constant(np.zeros(state, np.float32)) for _ in "hc"]
        if shape.mode == "stream":
            start = [ops.read_value(s, f"{name}{k}", np.float32, state) for name, s in zip("hc", start, strict=True)]
        kinds = ("weight_ih", "weight_hh", "bias")
        params = [_constant(np.stack([_gates(arrays[f"{kind}_l{k}{s}"]) for s in suffixes])) for kind in kinds]
        turned = ops.transpose(source, _constant([1, 0, 2]))
        node = ops.lstm_sequence(turned, *start, lengths, *params, shape.H, direction)
        source = ops.transpose(node.output(0), _constant([2, 1, 0, 3]))
        if shape.directions == 1:
            source = ops.squeeze(source, _constant([1]))
        else:
            source = ops.transpose(source, _constant([0, 2, 1, 3]))
            source = ops.reshape(source, _constant([shape.T, shape.B, 2 * shape.H]), False)
        for name, end in zip("hc", (node.output(1), node.output(2)), strict=True):
            if shape.mode == "stream":
                # The reshape costs nothing; `assign` requires a node, not one of its outputs.
                sinks.append(ops.assign(ops.reshape(end, _constant(state), False), f"{name}{k}"))
            else:
                outputs.append(ops.result(end))
    outputs.insert(0, ops.result(source))
    return openvino.Model(outputs, sinks, [x], "lstm")


class OpenVinoPeer:
    """One request with its input, prepared before timing; timed is `infer` without a copy of the outputs."""

    version = str(openvino.__version__).split("-")[0]

    def __init__(self) -> None:
        self.core = openvino.Core()

    def setup(self, shape: Shape, threads: int, arrays: Arrays) -> dict[str, Array]:
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",  # the default is bfloat16 on processors that support it
            "ENABLE_CPU_PINNING": False,
        }
        request = self.core.compile_model(_model(shape, arrays), "CPU", options).create_infer_request()
        request.get_input_tensor(0).data[...] = arrays["x"]
        self.run = partial(request.infer, share_outputs=True)
        for _ in range(STREAM_STEPS if shape.mode == "stream" else 1):
            values = self.run().to_tuple()
        if shape.mode == "stream":
            found = {variable.name: np.array(variable.state.data) for variable in request.query_state()}
            states = [found[f"{name}{k}"] for k in range(shape.layers) for name in "hc"]
        else:
            states = values[1:]
        h, c = (np.concatenate([s.swapaxes(0, 1) for s in states[k::2]]) for k in range(2))
        return {"y": values[0], "h": h, "c": c}

    def time(self, calls: int) -> float:
        return repeat(self.run, calls)


Peer = OpenVinoPeer
