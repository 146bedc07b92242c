"""The ONNX LSTM operator on fourgate, as far as version 0.1 goes: what third-party conformance suites call.

Peepholes, other activations, clip and input_forget raise NotImplementedError, which the suites count apart.
"""

from __future__ import annotations

from typing import Any

import fourgate as fg
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ORDER = [0, 2, 3, 1]  # ONNX keeps i, o, f, c where fourgate keeps i, f, g, o


def reordered(a: Array) -> Array:
    """Return (4H, ...) with its gates in fourgate's order."""
    return a.reshape(4, -1, *a.shape[1:])[ORDER].reshape(a.shape)


def lstm(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    P: Array | None = None,
    *,
    direction: str = "forward",
    hidden_size: int | None = None,
    activations: list[str] | None = None,
    clip: float | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Array, Array, Array]:
    """Return Y (T, D, B, H), Y_h and Y_c (D, B, H); batch axis first in all of them with layout 1."""
    plain = ["sigmoid", "tanh", "tanh"] * W.shape[0]
    if [name.lower() for name in activations or plain] != plain:
        raise NotImplementedError(f"activations {activations}")
    if clip is not None or input_forget or (P is not None and np.any(P)):
        raise NotImplementedError("clip, input_forget or peepholes")
    n_directions, hidden = R.shape[0], R.shape[2]
    assert hidden_size in (None, hidden)
    if layout:
        X = X.swapaxes(0, 1)
        initial_h, initial_c = (None if s is None else s.swapaxes(0, 1) for s in (initial_h, initial_c))
    # A reverse network is the second direction of one that reads both ways.
    reverse = direction == "reverse"
    net = fg.LSTM(X.shape[2], hidden, bidirectional=reverse or n_directions == 2, dtype=X.dtype)
    with net.writable() as params:
        for k, suffix in enumerate(["", "_reverse"] if net.bidirectional else [""]):
            d = min(k, n_directions - 1)
            params[f"weight_ih_l0{suffix}"] = reordered(W[d])
            params[f"weight_hh_l0{suffix}"] = reordered(R[d])
            both = np.zeros((2, 4 * hidden), X.dtype) if B is None else B[d].reshape(2, -1)
            params[f"bias_l0{suffix}"] = reordered(both[0] + both[1])
    state = None
    if initial_h is not None or initial_c is not None:
        zeros = np.zeros((n_directions, X.shape[1], hidden), X.dtype)
        parts = [zeros if s is None else s for s in (initial_h, initial_c)]
        h0, c0 = (np.concatenate([s, s]) if reverse else s for s in parts)
        state = (h0, c0)
    y, (h, c) = net(X, state, lengths=None if sequence_lens is None else np.asarray(sequence_lens, np.int64))
    Y = y.reshape(*y.shape[:2], -1, hidden).transpose(0, 2, 1, 3)
    if reverse:
        Y, h, c = Y[:, 1:], h[1:], c[1:]
    if layout:
        return Y.transpose(2, 0, 1, 3), h.swapaxes(0, 1), c.swapaxes(0, 1)
    return Y, h, c
