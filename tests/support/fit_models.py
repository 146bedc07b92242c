"""A small model that is ready to fit, and its data."""

from __future__ import annotations

import numpy as np
import quadgate as qg
from quadgate import train

SYMBOLS, T, N = 20, 7, 22


def model(rate=0.0, dropout=0.0, optimizer=None, stateful=False, dtype="float32"):
    net = qg.LSTM(8, 10, 2 if dropout else 1, dropout=dropout, dtype=dtype, rng=0)
    layers = [train.Embedding(SYMBOLS, 8), train.Dropout(rate), net, train.Dense(10, 5)]
    result = train.Sequential(layers, stateful=stateful, rng=0)
    result.compile("softmax_cross_entropy", optimizer or train.Adam(0.01, clip_norm=1.0))
    return result


def data(rows=N, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, SYMBOLS, (rows, T))
    return x, x % 5, rng.integers(1, T + 1, rows)


def bits(m):
    return m.params.flat.tobytes()
