"""LSTM node of ONNX Runtime; inference only."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper
from shapes import Shape

from .base import STREAM_STEPS, Array, Arrays, repeat


def _gates(array: Array) -> Array:
    """Reorder the gates from i, f, g, o to ONNX's i, o, f, g."""
    i, f, g, o = np.split(array, 4)
    return np.concatenate([i, o, f, g])


def _model(shape: Shape, arrays: Arrays) -> bytes:
    """Return a chain of LSTM nodes, each output (T, D, B, H) converted to (T, B, D*H)."""
    suffixes = ("", "_reverse")[: shape.directions]
    nodes, constants, outputs = [], [], []
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [shape.T, shape.B, shape.I])]

    def constant(name: str, value: Array) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def value(name: str, sizes: list[int]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)

    state = [shape.directions, shape.B, shape.H]
    source = "x"
    for k in range(shape.layers):
        bias = [np.concatenate([_gates(arrays[f"bias_l{k}{s}"]), np.zeros(4 * shape.H, np.float32)]) for s in suffixes]
        names = [
            source,
            constant(f"W{k}", np.stack([_gates(arrays[f"weight_ih_l{k}{s}"]) for s in suffixes])),
            constant(f"R{k}", np.stack([_gates(arrays[f"weight_hh_l{k}{s}"]) for s in suffixes])),
            constant(f"B{k}", np.stack(bias)),
        ]
        if shape.mode == "stream":
            names += ["", f"h{k}", f"c{k}"]
            inputs += [value(f"h{k}", state), value(f"c{k}", state)]
        nodes.append(
            helper.make_node(
                "LSTM",
                names,
                [f"raw{k}", f"h{k}_out", f"c{k}_out"],
                hidden_size=shape.H,
                direction="bidirectional" if shape.directions == 2 else "forward",
            )
        )
        source = f"y{k}"
        if shape.directions == 1:
            nodes.append(helper.make_node("Squeeze", [f"raw{k}", constant(f"axis{k}", np.array([1]))], [source]))
        else:
            nodes.append(helper.make_node("Transpose", [f"raw{k}"], [f"turned{k}"], perm=[0, 2, 1, 3]))
            sizes = constant(f"sizes{k}", np.array([shape.T, shape.B, 2 * shape.H]))
            nodes.append(helper.make_node("Reshape", [f"turned{k}", sizes], [source]))
        outputs += [value(f"h{k}_out", state), value(f"c{k}_out", state)]
    outputs.insert(0, value(source, [shape.T, shape.B, shape.directions * shape.H]))
    graph = helper.make_graph(nodes, "lstm", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17)]
    serialized: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return serialized


class OnnxRuntimePeer:
    """One session, timed by the faster of `run` with arrays and a binding of inputs and outputs made beforehand."""

    version = str(onnxruntime.__version__)

    def setup(self, shape: Shape, threads: int, arrays: Arrays) -> dict[str, Array]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(self.model(shape, arrays), options, providers=providers)
        self.mode = shape.mode
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.feed: dict[str, Array] = {"x": arrays["x"]}
        self.carried = [i.name for i in self.session.get_inputs()][1:]
        self.feed.update({name: np.zeros((1, shape.B, shape.H), np.float32) for name in self.carried})
        for _ in range(STREAM_STEPS if shape.mode == "stream" else 1):
            values = self._run()
        self._bind()
        runs = [self._run] if self.mode == "stream" else [self._run, self._run_bound]
        self.run = min(runs, key=lambda run: min(repeat(run, 3) for _ in range(3)))
        return {"y": values[0], "h": np.concatenate(values[1::2]), "c": np.concatenate(values[2::2])}

    def model(self, shape: Shape, arrays: Arrays) -> bytes:
        return _model(shape, arrays)

    def _run(self) -> list[Array]:
        values: list[Array] = self.session.run(self.outputs, self.feed)
        for name, value in zip(self.carried, values[1:], strict=False):
            self.feed[name] = value
        return values

    def _bind(self) -> None:
        self.binding = self.session.io_binding()
        self.binding.bind_cpu_input("x", self.feed["x"])
        for name in self.outputs:
            self.binding.bind_output(name)

    def _run_bound(self) -> None:
        self.session.run_with_iobinding(self.binding)

    def time(self, calls: int) -> float:
        return repeat(self.run, calls)


Peer = OnnxRuntimePeer
