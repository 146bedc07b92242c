"""Two small models of `quadgate.train`, and batches for them."""

from __future__ import annotations

import numpy as np
import quadgate as qg
from quadgate import train

SYMBOLS, T, B = 20, 9, 6


def tagger(dtype="float32", rng=0, dropout=0.0):
    lstm = qg.LSTM(8, 10, 2, bidirectional=True, dropout=dropout, dtype=dtype, rng=rng)
    return train.Sequential([train.Embedding(SYMBOLS, 8), lstm, train.Dense(20, 5)], rng=rng, dtype=dtype)


def classifier(dtype="float32", rng=0, rate=0.0):
    lstm = qg.LSTM(8, 10, batch_first=True, dtype=dtype, rng=rng)
    layers = [train.Embedding(SYMBOLS, 8), lstm, train.FinalState(), train.Dropout(rate), train.Dense(10, 5)]
    return train.Sequential(layers, rng=rng, dtype=dtype)


def data(steps=True, seed=1, rows=B):
    rng = np.random.default_rng(seed)
    return rng.integers(0, SYMBOLS, (rows, T)), rng.integers(0, 5, (rows, T) if steps else rows)


LENGTHS = np.array([9, 3, 1, 9, 5, 7])
