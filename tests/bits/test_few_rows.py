"""Few rows with large weights: threads share rows and columns of backward's products, and results keep their bits."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from support.cases import same_bits

OPTIONS = {
    "plain": {},
    "dropout": {"recurrent_dropout": 0.3},
    "zoneout": {"zoneout": (0.2, 0.1)},
    "projection": {"proj_size": 280},
    "layers": {"num_layers": 2, "bidirectional": True},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(("steps", "rows"), [(1, 1), (1, 7), (3, 5), (1, 40), (2, 120)])
def test_threads(name, steps, rows):
    """One to sixteen threads, with rows that start again."""
    rng = np.random.default_rng(0)
    lstm = qg.LSTM(310, 300, rng=0, **OPTIONS[name])
    x = rng.normal(size=(steps, rows, 310)).astype(np.float32)
    resets = np.zeros((steps, rows), bool)
    resets[0, ::2] = resets[-1, 1::3] = True
    before = qg.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 4, 7, 16):
            qg.set_num_threads(threads)
            y, _, tape = lstm.forward(x, resets=resets, rng=3)
            grads = lstm.backward(tape, y)
            results.append([y, grads.x, grads.h0, grads.c0, *grads.params.values()])
    finally:
        qg.set_num_threads(before)
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.numbers
@pytest.mark.parametrize("steps", [1, 3])
def test_tiles_of_large_weights(steps):
    """Rows in tiles that prefetch weights, or copy what they multiply: the bits of one row, which does neither."""
    rng = np.random.default_rng(0)
    lstm = qg.LSTM(700, 650, rng=0)
    x = rng.normal(size=(steps, 8, 700)).astype(np.float32)
    dy = rng.normal(size=(steps, 8, 650)).astype(np.float32)
    alone = []
    for row in range(8):
        y, _, tape = lstm.forward(x[:, row : row + 1])
        alone.append((y, lstm.backward(tape, dy[:, row : row + 1]).x))
    for rows in (2, 3, 4, 5, 7, 8):
        y, _, tape = lstm.forward(x[:, :rows])
        dx = lstm.backward(tape, dy[:, :rows]).x
        assert same_bits(lstm(x[:, :rows])[0], y)
        for row in range(rows):
            assert same_bits(y[:, row : row + 1], alone[row][0])
            assert same_bits(dx[:, row : row + 1], alone[row][1])
