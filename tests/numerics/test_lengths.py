"""Variable lengths: each row is what it would be alone without its padding, and the padding is never looked at."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import quadgate as qg
from support import bounds
from support.cases import DTYPES, data, from_layout, model, plain, run, same_bits, to_layout

pytestmark = pytest.mark.numbers

LENGTHS = [
    [4, 4, 4, 4, 4],
    [4, 3, 2, 1, 0],  # sorted
    [0, 2, 4, 1, 3],  # not sorted
    [0, 0, 0, 0, 0],
    [1, 1, 0, 1, 1],
    [2, 2, 2, 2, 2],  # no row reaches the end
]
some_lengths = pytest.mark.parametrize("lengths", LENGTHS, ids=str)


def padded(case, d, lengths, filler):
    """The same data with everything past the rows' ends set to `filler`."""
    x, dy = d.x.copy(), d.dy.copy()
    for row, n in enumerate(lengths):
        x[n:, row] = filler
        dy[n:, row] = filler
    return d._replace(x=x, dy=dy, lengths=np.array(lengths))


def assert_same_sums(case, lstm, d, got, want):
    """Gradients of parameters agree as two sums of the same terms in any two orders do."""
    weights = {name: np.asarray(value, np.float64) for name, value in lstm.params.items()}
    _, _, tapes = bounds.forward(case.dtype, weights, d.x, d.state, d.lengths, **case.kind)
    *_, exact = bounds.backward(case.dtype, weights, tapes, d.dy, d.dstate, **case.kind)
    for name, value in want.items():
        bounds.assert_within(got[name], value.astype(np.float64), 2 * exact[name].e, name)


@some_lengths
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_each_row_alone(bidirectional, dtype, lengths):
    case = plain(4, 5, 3, 18, 2, bidirectional, dtype=dtype)
    lstm, d = model(case), data(case)
    got = run(case, lstm, d._replace(lengths=np.array(lengths)))
    for row, n in enumerate(lengths):
        one = slice(row, row + 1)
        assert not got.y[n:, row].any()
        assert not got.dx[n:, row].any()
        if n == 0:
            assert same_bits(got.h[:, row], d.state[0][:, row])
            assert same_bits(got.c[:, row], d.state[1][:, row])
            np.testing.assert_array_equal(got.dh0[:, row], d.dstate[0][:, row])
            np.testing.assert_array_equal(got.dc0[:, row], d.dstate[1][:, row])
            continue
        alone = d._replace(
            x=d.x[:n, one],
            dy=d.dy[:n, one],
            state=tuple(s[:, one] for s in d.state),
            dstate=tuple(s[:, one] for s in d.dstate),
        )
        want = run(dataclasses.replace(case, steps=n, batch=1), lstm, alone)
        assert same_bits(got.y[:n, one], want.y)
        assert same_bits(got.dx[:n, one], want.dx)
        for name in ("h", "c", "dh0", "dc0"):
            assert same_bits(getattr(got, name)[:, one], getattr(want, name)), name


@some_lengths
@pytest.mark.parametrize("filler", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("batch_first", [False, True])
def test_padding_is_never_looked_at(batch_first, filler, lengths):
    """Neither in x nor in dy, forward and backward; y and dx past the end are exactly 0."""
    case = plain(4, 5, 3, 18, 2, True, batch_first=batch_first)
    lstm, d = model(case), data(case)
    want = run(case, lstm, padded(case, d, lengths, 0))
    got = run(case, lstm, padded(case, d, lengths, filler))
    for name, value in want.items():
        assert same_bits(got[name], value), name
        assert np.isfinite(value).all(), name


def test_a_buffer_is_zeroed_behind_the_ends():
    case = plain(4, 5, 3, 7)
    lstm, d = model(case), data(case)
    out = np.full((4, 5, 7), np.nan, np.float32)
    y, _ = lstm(d.x, d.state, lengths=np.array([4, 0, 2, 1, 3]), out=out)
    assert y is out
    assert not np.isnan(out).any()
    assert not out[:, 1].any()
    assert not out[2:, 2].any()


@pytest.mark.parametrize("bidirectional", [False, True])
def test_full_lengths_are_no_lengths(bidirectional):
    case = plain(6, 5, 3, 18, 2, bidirectional)
    lstm, d = model(case), data(case)
    want, got = run(case, lstm, d), run(case, lstm, d._replace(lengths=np.full(5, 6)))
    for name in ("y", "h", "c", "dx", "dh0", "dc0"):
        assert same_bits(getattr(got, name), getattr(want, name)), name
    assert_same_sums(case, lstm, d, got.params, want.params)


def test_more_padding_changes_nothing():
    """Gradients of the parameters included: an inactive row adds nothing to a sum."""
    case = plain(5, 4, 3, 18, 2, True, dtype="float64")
    lstm, d = model(case), data(case)
    d = d._replace(lengths=np.array([5, 1, 0, 3]))
    longer = d._replace(
        x=np.concatenate([d.x, np.full((7, 4, 3), np.nan)]), dy=np.concatenate([d.dy, np.full((7, 4, 36), np.nan)])
    )
    want, got = run(case, lstm, d), run(dataclasses.replace(case, steps=12), lstm, longer)
    assert same_bits(got.y[:5], want.y)
    assert same_bits(got.dx[:5], want.dx)
    assert not got.y[5:].any()
    for name in ("h", "c", "dh0", "dc0"):
        assert same_bits(getattr(got, name), getattr(want, name)), name
    assert_same_sums(case, lstm, d, got.params, want.params)


@pytest.mark.parametrize("kind", [list, tuple, np.int8, np.int32, np.uint16, np.uint64, ">i8"])
def test_kinds_of_lengths(kind):
    case = plain(4, 5, 3, 7)
    lstm, d = model(case), data(case)
    lengths = np.array([4, 0, 2, 1, 3])
    want, _ = lstm(d.x, d.state, lengths=lengths)
    given = kind(lengths.tolist()) if kind in (list, tuple) else lengths.astype(kind)
    assert same_bits(lstm(d.x, d.state, lengths=given)[0], want)
    wide = np.zeros(10, np.int64)
    wide[::2] = lengths
    assert same_bits(lstm(d.x, d.state, lengths=wide[::2])[0], want)


def test_lengths_may_change_after_the_call():
    """The tape keeps what it was made with."""
    case = plain(4, 5, 3, 7, lengths=True)
    lstm, d = model(case), data(case)
    want = run(case, lstm, d)
    n = d.lengths.copy()
    x = d.x.copy()
    _, _, tape = lstm.forward(x, d.state, lengths=n)
    n[...] = 0
    x[...] = np.nan
    grads = lstm.backward(tape, d.dy, d.dstate)
    assert same_bits(grads.x, want.dx)
    for name, value in want.params.items():
        assert same_bits(grads.params[name], value), name


def test_unbatched_and_batch_first():
    case = plain(6, 3, 4, 9, 2, True)
    lstm, d = model(case), data(case)
    other = qg.LSTM(4, 9, 2, bidirectional=True, batch_first=True)
    with other.writable() as params:
        for name, value in params.items():
            value[...] = lstm.params[name]
    first = dataclasses.replace(case, batch_first=True)
    n = np.array([2, 6, 0])
    y, _ = lstm(d.x, d.state, lengths=n)
    y_first, _ = other(to_layout(first, d.x), d.state, lengths=n)
    assert same_bits(from_layout(first, y_first), y)
    y_one, (h_one, _) = lstm(d.x[:, 0], tuple(s[:, 0] for s in d.state), lengths=[2])
    assert same_bits(y_one, y[:, 0])
    assert h_one.shape == (4, 9)
