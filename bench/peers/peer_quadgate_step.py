"""quadgate's stream: weights packed once, state kept inside."""

from __future__ import annotations

from functools import partial

import numpy as np
import quadgate as qg
from shapes import Shape

from .base import STREAM_STEPS, Array, Arrays, repeat
from .peer_quadgate import network


class QuadgateStepPeer:
    """`stream.step(x, out=y)`."""

    version = str(qg.__version__)

    def setup(self, shape: Shape, threads: int, arrays: Arrays) -> dict[str, Array]:
        if shape.mode != "stream":
            raise ValueError(f"stream.step has no mode {shape.mode!r}")
        qg.set_num_threads(threads)
        self.stream = network(shape, arrays).stream(batch_size=shape.B)
        self.x = np.array(arrays["x"][0])
        self.y = np.zeros((shape.B, shape.H), np.float32)
        self.run = partial(self.stream.step, self.x, out=self.y)
        for _ in range(STREAM_STEPS):
            self.run()
        h, c = self.stream.state
        return {"y": self.y[None].copy(), "h": h, "c": c}

    def time(self, calls: int) -> float:
        return repeat(self.run, calls)


Peer = QuadgateStepPeer
