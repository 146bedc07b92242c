"""quadgate with float16 weights."""

from __future__ import annotations

from .peer_quadgate_int8 import QuadgateInt8Peer


class QuadgateFloat16Peer(QuadgateInt8Peer):
    """`lstm.quantize("float16")(x)`."""

    weights = "float16"


Peer = QuadgateFloat16Peer
