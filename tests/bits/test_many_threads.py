"""The same bits for many more threads than cores, where rows and units are split at the same time."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
import quadgate as qg

pytestmark = pytest.mark.numbers


@pytest.mark.parametrize(
    ("steps", "batch", "inputs", "hidden", "options"),
    [
        (9, 30, 24, 330, {}),
        (7, 6, 40, 520, {"num_layers": 2}),
        (6, 13, 9, 200, {"bidirectional": True, "merge": "sum"}),
        (40, 3, 16, 48, {"num_layers": 3, "shortcut": "residual"}),
    ],
)
def test_bits(steps, batch, inputs, hidden, options):
    lstm = qg.LSTM(inputs, hidden, rng=0, **options)
    x = np.random.default_rng(1).standard_normal((steps, batch, inputs)).astype(np.float32)
    lengths = np.arange(batch) % steps + 1

    def results():
        y, (h, c), tape = lstm.forward(x, lengths=lengths)
        grads = lstm.backward(tape, y)
        inference, _ = lstm(x)
        return [inference, y, h, c, grads.x, grads.h0, grads.c0, *grads.params.values()]

    before = qg.get_num_threads()
    try:
        qg.set_num_threads(1)
        want = results()
        for threads in (2, 4, 5, 8, 16):
            qg.set_num_threads(threads)
            for got, expected in zip(results(), want, strict=True):
                np.testing.assert_array_equal(got, expected)
    finally:
        qg.set_num_threads(before)


@pytest.mark.parametrize(
    ("inputs", "hidden", "layers", "steps", "long", "batch", "dtype"),
    [
        (128, 650, 2, 20, 8, 69, "float32"),
        (512, 128, 2, 20, 8, 79, "float32"),
        (600, 90, 2, 20, 8, 70, "float32"),
        (128, 650, 3, 50, 10, 96, "float32"),
        (256, 300, 2, 20, 6, 88, "float64"),
    ],
)
def test_few_long_rows_beside_many_short_ones(inputs, hidden, layers, steps, long, batch, dtype):
    """A part of the long rows makes input products ahead; one of the short rows does so for some layers only."""
    lstm = qg.LSTM(inputs, hidden, layers, dtype=dtype, rng=0)
    x = np.random.default_rng(1).standard_normal((steps, batch, inputs)).astype(dtype)
    lengths = np.where(np.arange(batch) < long, steps, 2)

    def results():
        y, (h, c), tape = lstm.forward(x, lengths=lengths)
        return [lstm(x, lengths=lengths)[0], y, h, c, lstm.backward(tape, y).x]

    before = qg.get_num_threads()
    try:
        qg.set_num_threads(1)
        want = results()
        for threads in (2, 3, 4, 8):
            qg.set_num_threads(threads)
            for got, expected in zip(results(), want, strict=True):
                np.testing.assert_array_equal(got, expected)
    finally:
        qg.set_num_threads(before)


@pytest.mark.parametrize("lengths", ["equal", "drawn", "one long", "resets"])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((60, 16, 64, 128), {}),
        ((20, 32, 40, 256), {"reverse": True}),
        ((20, 32, 40, 256), {"num_layers": 2}),
        ((20, 32, 40, 200), {"bidirectional": True}),
        ((20, 32, 40, 256), {"proj_size": 128, "zoneout": (0.1, 0.2)}),
        ((20, 24, 40, 256), {"layer_norm": "output", "dtype": np.float64}),
    ],
)
def test_parts_of_the_rows_that_threads_take_in_turn(shape, options, lengths):
    """Two threads have more parts than they are, often three and backward, too. Of unequal rows some are empty."""
    steps, batch, inputs, hidden = shape
    lstm = qg.LSTM(inputs, hidden, rng=0, **options)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((steps, batch, inputs)).astype(lstm.dtype)
    extra = {}
    if lengths == "resets":
        extra["resets"] = rng.random((steps, batch)) < 0.1
    elif lengths != "equal":
        extra["lengths"] = rng.integers(1, steps + 1, batch) if lengths == "drawn" else np.r_[steps, [1] * (batch - 1)]

    def results():
        y, (h, c), tape = lstm.forward(x, rng=3, **extra)
        grads = lstm.backward(tape, y)
        return [lstm(x, **extra)[0], y, h, c, grads.x, grads.h0, grads.c0, *grads.params.values()]

    before = qg.get_num_threads()
    try:
        qg.set_num_threads(1)
        want = results()
        for threads in (2, 3):
            qg.set_num_threads(threads)
            for got, expected in zip(results(), want, strict=True):
                np.testing.assert_array_equal(got, expected)
    finally:
        qg.set_num_threads(before)


@pytest.mark.parametrize("weights", ["float32", "float64", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"reverse": True}])
def test_long_sequences_of_narrow_layers(weights, options):
    """One thread has the time loop, while the others make the input products of the next steps."""
    dtype = np.float64 if weights == "float64" else np.float32
    lstm = qg.LSTM(800, 24, rng=0, dtype=dtype, **options)
    if not weights.endswith(("32", "64")):
        lstm = lstm.quantize(weights)
    rng = np.random.default_rng(1)
    before = qg.get_num_threads()
    try:
        for lengths in (None, [250, 131]):
            x = rng.standard_normal((250, 2 if lengths else 1, 800)).astype(dtype)
            qg.set_num_threads(1)
            want, (h, c) = lstm(x, lengths=lengths)
            for threads in (2, 3, 5, 16):
                qg.set_num_threads(threads)
                got, (got_h, got_c) = lstm(x, lengths=lengths)
                np.testing.assert_array_equal(got, want)
                np.testing.assert_array_equal(got_h, h)
                np.testing.assert_array_equal(got_c, c)
    finally:
        qg.set_num_threads(before)


def test_memory():
    """Sixteen threads keep their memory from call to call."""
    lstm = qg.LSTM(64, 320, rng=0)
    x = np.zeros((20, 32, 64), np.float32)
    before = qg.get_num_threads()
    try:
        qg.set_num_threads(16)
        for _ in range(5):
            lstm.forward(x)
        start = psutil.Process().memory_info().rss
        for _ in range(30):
            lstm.forward(x)
        assert psutil.Process().memory_info().rss - start < 30e6
    finally:
        qg.set_num_threads(before)
