"""quadgate with int8 weights."""

from __future__ import annotations

import quadgate as qg
from shapes import Shape

from .base import Arrays
from .peer_quadgate import QuadgatePeer, network


class QuadgateInt8Peer(QuadgatePeer):
    """`lstm.quantize("int8")(x)`."""

    weights = "int8"

    def network(self, shape: Shape, arrays: Arrays) -> qg.LSTM:
        return network(shape, arrays).quantize(self.weights)


Peer = QuadgateInt8Peer
