"""oneDNN's LSTM primitive of bytes, through a small extension module (onednn_int8_module.cpp)."""

from __future__ import annotations

import numpy as np
from shapes import Shape

from .base import Array, Arrays
from .peer_onednn import load


class OneDnnInt8Peer:
    """x and weights become bytes before timing, and y stays bytes; the timed loop is C++."""

    def __init__(self) -> None:
        self.module = load("_onednn_int8")
        self.version = str(self.module.version())

    def setup(self, shape: Shape, threads: int, arrays: Arrays) -> dict[str, Array]:
        self.module.set_num_threads(threads)
        names = ("weight_ih_l0", "weight_hh_l0", "bias_l0", "x")
        self.net = self.module.Lstm(shape.T, shape.B, shape.I, shape.H, *(arrays[name] for name in names))
        self.net.time(1)
        return {"y": np.array(self.net.y())}

    def time(self, calls: int) -> float:
        return float(self.net.time(calls))


Peer = OneDnnInt8Peer
