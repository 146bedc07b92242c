"""DynamicQuantizeLSTM node of ONNX Runtime: int8 weights with a scale for each gate row; inference only.

An x86 processor without VNNI adds pairs of products in 16 bits, where onnxruntime lets them saturate: y is off by 0.2
then. Its documentation advises weights of 7 bits there (reduce_range), which are measured.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped]
from shapes import Shape

from .base import Arrays
from .peer_onnxruntime import OnnxRuntimePeer


def saturates(cpuinfo: str) -> bool:
    """Return True if /proc/cpuinfo is that of an x86 processor without VNNI."""
    flags = next((line.split() for line in cpuinfo.splitlines() if line.startswith("flags")), None)
    return flags is not None and not {"avx512_vnni", "avx_vnni"} & set(flags)


class OnnxRuntimeInt8Peer(OnnxRuntimePeer):
    """The session of the float32 peer, its model quantised by onnxruntime's own tool."""

    def model(self, shape: Shape, arrays: Arrays) -> bytes:
        logging.disable(logging.WARNING)  # advice about preparing models
        with tempfile.TemporaryDirectory(prefix="quadgate-bench-") as folder:
            plain, small = Path(folder) / "plain.onnx", Path(folder) / "small.onnx"
            plain.write_bytes(super().model(shape, arrays))
            narrow = saturates(Path("/proc/cpuinfo").read_text())
            kinds = {"weight_type": QuantType.QInt8, "per_channel": True, "reduce_range": narrow}
            quantize_dynamic(str(plain), str(small), **kinds)
            return small.read_bytes()


Peer = OnnxRuntimeInt8Peer
