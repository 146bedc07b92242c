"""quadgate itself, through its public calls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import quadgate as qg
from shapes import Shape

from .base import STREAM_STEPS, Array, Arrays, parameter_names, repeat


def network(shape: Shape, arrays: Arrays) -> qg.LSTM:
    """Return a qg.LSTM with the parameters of `arrays`."""
    lstm = qg.LSTM(shape.I, shape.H, shape.layers, bidirectional=shape.directions == 2)
    with lstm.writable() as params:
        for name in parameter_names(shape):
            params[name][...] = arrays[name]
    return lstm


class QuadgatePeer:
    """`lstm(x)`; for streams `lstm(x, state)`; for training `forward` and `backward`."""

    version = str(qg.__version__)

    def setup(self, shape: Shape, threads: int, arrays: Arrays) -> dict[str, Array]:
        qg.set_num_threads(threads)
        self.lstm = self.network(shape, arrays)
        self.x = np.array(arrays["x"])
        self.run: Callable[[], object]
        if shape.mode == "training":
            self.dy = np.array(arrays["dy"])
            self.run = self._train
            # Gradient arrays are reused, as in a training loop and in the oneDNN peer.
            self.grads = self.lstm.backward(self.lstm.forward(self.x)[2], self.dy).params
            y, grads = self._train()
            assert grads.x is not None
            return {"y": y, "dx": grads.x, **{"d" + n: self.grads[n] for n in parameter_names(shape)}}
        if shape.mode == "inference":
            self.run = lambda: self.lstm(self.x)
            y, (h, c) = self.lstm(self.x)
            return {"y": y, "h": h, "c": c}
        self.run = self._carry
        self.state = (np.zeros((shape.layers, shape.B, shape.H), np.float32),) * 2
        for _ in range(STREAM_STEPS):
            y = self._carry()
        return {"y": y, "h": self.state[0], "c": self.state[1]}

    def network(self, shape: Shape, arrays: Arrays) -> qg.LSTM:
        return network(shape, arrays)

    def _carry(self) -> Array:
        y, self.state = self.lstm(self.x, self.state)
        return y

    def _train(self) -> tuple[Array, qg.LSTMGrads]:
        y, _, tape = self.lstm.forward(self.x)
        return y, self.lstm.backward(tape, self.dy, state_grad=False, out=self.grads)

    def time(self, calls: int) -> float:
        return repeat(self.run, calls)


Peer = QuadgatePeer
