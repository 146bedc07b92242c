"""DynamicQuantizeLSTM node of ONNX Runtime: int8 weights with a scale for each gate row; inference only."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]
from shapes import Shape

from .base import Arrays
from .peer_onnxruntime import OnnxRuntimePeer


class OnnxRuntimeInt8Peer(OnnxRuntimePeer):
    """The session of the float32 peer, its model quantised by onnxruntime's own tool."""

    def model(self, shape: Shape, arrays: Arrays) -> bytes:
        logging.disable(logging.WARNING)  # advice about preparing models
        with tempfile.TemporaryDirectory(prefix="quadgate-bench-") as folder:
            plain, small = Path(folder) / "plain.onnx", Path(folder) / "small.onnx"
            plain.write_bytes(super().model(shape, arrays))
            quantize_dynamic(str(plain), str(small), weight_type=QuantType.QInt8, per_channel=True)
            return small.read_bytes()


Peer = OnnxRuntimeInt8Peer
