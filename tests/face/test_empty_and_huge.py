"""No steps or no rows give empty results; requests that no memory can hold raise MemoryError."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from numpy.lib.stride_tricks import as_strided
from support.cases import DTYPES, data, model, plain, same_bits

EMPTY = [(0, 3), (4, 0), (0, 0)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("steps", "batch"), EMPTY)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_empty(steps, batch, bidirectional, batch_first, dtype):
    """y is empty, states stay as they are, and gradients of the parameters are zeros."""
    case = plain(steps, batch, 5, 7, 2, bidirectional, batch_first=batch_first, dtype=dtype)
    lstm, d = model(case), data(case)
    leading = (batch, steps) if batch_first else (steps, batch)
    x = d.x.reshape(*leading, 5)
    for lengths in (None, np.zeros(batch, np.int64)):
        y, (h, c) = lstm(x, d.state, lengths=lengths)
        assert y.shape == (*leading, case.directions * 7)
        assert same_bits(h, d.state[0])
        assert same_bits(c, d.state[1])
        y, (h, c), tape = lstm.forward(x, d.state, lengths=lengths)
        assert same_bits(h, d.state[0])
        grads = lstm.backward(tape, np.zeros(y.shape, dtype), d.dstate)
        assert grads.x.shape == x.shape
        np.testing.assert_array_equal(grads.h0, d.dstate[0])
        np.testing.assert_array_equal(grads.c0, d.dstate[1])
        for name, value in grads.params.items():
            assert value.shape == lstm.params[name].shape
            assert not value.any(), name
    out = np.zeros(y.shape, dtype)
    assert lstm(x, out=out)[0] is out
    _, (h, c) = lstm(x)
    assert h.shape == c.shape == (2 * case.directions, batch, 7)
    assert not h.any()


def test_resets_of_no_rows():
    """However many steps there are: nothing counts them one by one."""
    y, _ = qg.LSTM(1, 1)(np.zeros((2**40, 0, 1), np.float32), resets=np.zeros((2**40, 0), bool))
    assert y.shape == (2**40, 0, 1)


def test_empty_without_a_batch():
    lstm = qg.LSTM(5, 7, 2, rng=0)
    y, (h, c) = lstm(np.zeros((0, 5), np.float32))
    assert y.shape == (0, 7)
    assert h.shape == c.shape == (2, 7)


def test_accumulating_nothing():
    lstm = qg.LSTM(5, 7, rng=0)
    _, _, tape = lstm.forward(np.zeros((0, 3, 5), np.float32))
    out = {name: np.full(value.shape, 3, np.float32) for name, value in lstm.params.items()}
    nothing = np.zeros((0, 3, 7), np.float32)
    lstm.backward(tape, nothing, out=out, accumulate=True)
    assert all((value == 3).all() for value in out.values())
    lstm.backward(tape, nothing, out=out)
    assert not any(value.any() for value in out.values())


@pytest.mark.parametrize(
    "sizes",
    [(1, 2**31), (2**62, 1), (2**40, 2**40), (2**31, 2**31), (1, 2**61), (1, 2**30, 2**30), (1, 2**15, 2**40)],
)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_networks_too_large(sizes, bidirectional):
    with pytest.raises(MemoryError):
        qg.LSTM(*sizes, bidirectional=bidirectional)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2**46, 1, 1), (2**23, 2**23, 1), (2**30, 2**29, 1), (1, 2**46, 1), (2**46, 1)])
def test_sequences_too_large(shape, dtype):
    """One number seen as an array that is larger than any memory: the result would have to be as large."""
    lstm = qg.LSTM(1, 16, rng=0, dtype=dtype)
    x = as_strided(np.zeros(1, dtype), shape, (0,) * len(shape), writeable=False)
    for call in (lstm, lstm.forward):
        with pytest.raises(MemoryError):
            call(x)
    y, _ = lstm(np.ones((2, 1, 1), dtype))
    assert np.isfinite(y).all()


def test_streams_too_large():
    lstm = qg.LSTM(1, 16, rng=0)
    for batch in (2**46, 2**58, 2**62):
        with pytest.raises(MemoryError):
            lstm.stream(batch)
    stream = lstm.stream()
    before = stream.step(np.ones(1, np.float32)), stream.state
    with pytest.raises(MemoryError):
        stream.run(as_strided(np.zeros(1, np.float32), (2**46, 1, 1), (0, 0, 0), writeable=False))
    assert same_bits(stream.state[0], before[1][0])
    assert same_bits(stream.state[1], before[1][1])
