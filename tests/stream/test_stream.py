"""Streams: one step at a time with the state inside; and no mistake costs the state."""

from __future__ import annotations

import re

import numpy as np
import pytest
import quadgate as qg
from support.cases import DTYPES, data, model, plain, same_bits

CASE = plain(6, 3, 5, 17, 2)


@pytest.fixture
def lstm():
    return model(CASE)


@pytest.fixture
def d():
    return data(CASE)


def same_state(a, b):
    return same_bits(a[0], b[0]) and same_bits(a[1], b[1])


def test_it_starts_from_zeros(lstm, d):
    stream = lstm.stream(3)
    assert stream.state[0].shape == stream.state[1].shape == (2, 3, 17)
    assert not stream.state[0].any()
    assert not stream.state[1].any()
    want, state = lstm(d.x)
    assert same_bits(np.stack([stream.step(x) for x in d.x]), want)
    assert same_state(stream.state, state)


@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes_and_types(dtype):
    lstm = qg.LSTM(5, 17, dtype=dtype, rng=0)
    one, many = lstm.stream(), lstm.stream(4)
    assert one.step(np.zeros(5, dtype)).shape == (17,)
    assert one.step(np.zeros((1, 5), dtype)).shape == (1, 17)
    assert one.run(np.zeros((7, 5), dtype)).shape == (7, 17)
    assert one.run(np.zeros((7, 1, 5), dtype)).shape == (7, 1, 17)
    assert one.run(np.zeros((0, 1, 5), dtype)).shape == (0, 1, 17)
    assert many.step(np.zeros((4, 5), dtype)).shape == (4, 17)
    assert many.run(np.zeros((7, 4, 5), dtype)).shape == (7, 4, 17)
    for y in (one.step(np.zeros(5, dtype)), many.run(np.zeros((2, 4, 5), dtype)), *many.state):
        assert y.dtype == dtype
        assert type(y) is np.ndarray


def test_one_row_with_and_without_a_batch_axis():
    case = plain(6, 1, 5, 17, 2, state=False)
    lstm, d = model(case), data(case)
    want, _ = lstm(d.x)
    flat, batched = lstm.stream(), lstm.stream(1)
    for t, x in enumerate(d.x):
        assert same_bits(flat.step(x[0]), want[t, 0])
        assert same_bits(batched.step(x), want[t])
    flat.reset()
    assert same_bits(flat.run(d.x[:, 0]), want[:, 0])


def test_batch_first():
    """run takes and gives (B, T, ...), step is the same."""
    case = plain(6, 3, 5, 17, 2, state=False)
    lstm, d = model(case), data(case)
    first = qg.LSTM(5, 17, 2, batch_first=True)
    first.load_state_dict(dict(lstm.params))
    want, state = lstm(d.x)
    stream = first.stream(3)
    assert same_bits(stream.step(d.x[0]), want[0])
    x = np.ascontiguousarray(d.x[1:].swapaxes(0, 1))
    assert same_bits(stream.run(x), np.ascontiguousarray(want[1:].swapaxes(0, 1)))
    assert same_state(stream.state, state)


def test_out(lstm, d):
    want, _ = lstm(d.x)
    stream = lstm.stream(3)
    out = np.full((3, 17), np.nan, np.float32)
    for t, x in enumerate(d.x):
        assert stream.step(x, out=out) is out
        assert same_bits(out, want[t])
    stream.reset()
    out = np.full((6, 3, 17), np.nan, np.float32)
    assert stream.run(d.x, out=out) is out
    assert same_bits(out, want)
    stream.reset()
    wide = np.full((6, 3, 40), 7, np.float32)
    assert stream.run(d.x, out=wide[:, :, 3:20]) is not None
    assert same_bits(np.ascontiguousarray(wide[:, :, 3:20]), want)
    assert (wide[:, :, :3] == 7).all()
    assert (wide[:, :, 20:] == 7).all()


@pytest.mark.parametrize("mask", [[True, False, True], [False] * 3, [True] * 3])
def test_reset_of_chosen_rows(lstm, d, mask):
    mask = np.array(mask)
    stream = lstm.stream(3)
    stream.run(d.x[:3])
    h, c = stream.state
    stream.reset(mask)
    keep = ~mask[None, :, None]
    want = (h * keep, c * keep)
    for got, value in zip(stream.state, want, strict=True):
        np.testing.assert_array_equal(got, value)
    y, _ = lstm(d.x[3:], want)
    assert same_bits(stream.run(d.x[3:]), y)


def test_reset_of_all(lstm, d):
    stream = lstm.stream(3)
    first = stream.run(d.x)
    stream.reset()
    assert not stream.state[0].any()
    assert same_bits(stream.run(d.x), first)


def test_reset_cleans_nan(lstm, d):
    """Zeros, not zero times what was there."""
    stream = lstm.stream(3)
    stream.step(np.full((3, 5), np.nan, np.float32))
    assert np.isnan(stream.state[0]).any()
    stream.reset(np.array([True, True, False]))
    assert not stream.state[0][:, :2].any()
    assert np.isnan(stream.state[0][0, 2]).all()
    stream.reset()
    assert same_bits(stream.run(d.x), lstm(d.x)[0])


def test_the_state_is_a_copy_both_ways(lstm, d):
    stream = lstm.stream(3)
    h, c = (s.copy() for s in d.state)
    stream.state = (h, c)
    h[...] = np.nan
    got = stream.state
    assert same_state(got, d.state)
    got[0][...] = np.nan
    assert same_state(stream.state, d.state)
    assert same_bits(stream.run(d.x), lstm(d.x, d.state)[0])


def test_streams_of_one_network_do_not_disturb_each_other(lstm, d):
    want, _ = lstm(d.x)
    streams = [lstm.stream(3) for _ in range(3)]
    parts = [[] for _ in streams]
    for t in range(6):
        for k, stream in enumerate(streams):
            if k <= t:  # each starts one step later than the one before
                parts[k].append(stream.step(d.x[t - k]))
                lstm(d.x[::-1])
    for k, part in enumerate(parts):
        assert same_bits(np.stack(part), want[: 6 - k])


def test_two_sizes_of_batch(lstm, d):
    want, _ = lstm(d.x)
    small, large = lstm.stream(1), lstm.stream(3)
    for t in range(6):
        y = large.step(d.x[t])
        assert same_bits(y, want[t])
        assert same_bits(small.step(d.x[t, 1]), want[t, 1])


def test_a_stream_outlives_its_network():
    stream = model(CASE).stream(3)
    want, _ = model(CASE)(data(CASE).x)
    assert same_bits(stream.run(data(CASE).x), want)


BAD_STEPS = [
    (np.zeros((3, 4), np.float32), ValueError, "x must have shape (3, 5)"),
    (np.zeros((2, 5), np.float32), ValueError, "x must have shape (3, 5)"),
    (np.zeros((1, 5), np.float32), ValueError, "x must have shape (3, 5)"),
    (np.zeros(5, np.float32), ValueError, "x must have shape (3, 5)"),
    (np.zeros((1, 3, 5), np.float32), ValueError, "x must have shape (3, 5)"),
    (np.zeros((3, 5), np.complex64), TypeError, "x must hold real numbers"),
    (np.ma.masked_array(np.zeros((3, 5)), mask=True), TypeError, "x must not be a masked array"),
    (None, TypeError, "x "),
    ("text", TypeError, "x "),
]


@pytest.mark.parametrize(("x", "error", "said"), BAD_STEPS)
def test_a_refused_step_leaves_the_state(lstm, d, x, error, said):
    stream = lstm.stream(3)
    stream.run(d.x[:3])
    before = stream.state
    with pytest.raises(error, match=re.escape(said)):
        stream.step(x)
    assert same_state(stream.state, before)
    assert same_bits(stream.run(d.x[3:]), lstm(d.x)[0][3:])


def test_a_refused_out_leaves_the_state(lstm, d):
    stream = lstm.stream(3)
    stream.run(d.x[:3])
    before = stream.state
    fixed = np.zeros((3, 17), np.float32)
    fixed.flags.writeable = False
    shared = np.zeros(60, np.float32)
    x = shared[:15].reshape(3, 5)
    bad = [
        (d.x[3], np.zeros((3, 16), np.float32), ValueError),
        (d.x[3], np.zeros((3, 17)), ValueError),
        (d.x[3], [[0.0] * 17] * 3, TypeError),
        (d.x[3], fixed, ValueError),
        (x, shared[9:60].reshape(3, 17), ValueError),
    ]
    for value, out, error in bad:
        with pytest.raises(error, match=r"^out must"):
            stream.step(value, out=out)
        assert same_state(stream.state, before)
    with pytest.raises(ValueError, match=r"^out must"):
        stream.run(d.x[3:], out=np.zeros((2, 3, 17), np.float32))
    for shape in [(3, 2, 5), (3, 3, 6), (3, 5), (5,)]:
        with pytest.raises(ValueError, match=r"^x must have shape"):
            stream.run(np.zeros(shape, np.float32))
    assert same_state(stream.state, before)


@pytest.mark.parametrize(
    ("rows", "error"),
    [(rows, ValueError) for rows in ([True], [True] * 4, [[True] * 3], [3], [0, -1], [[1]], 3)]
    + [(rows, TypeError) for rows in ("yes", np.zeros(3), [1.0, 0.0, 1.0])],
)
def test_refused_rows_leave_the_state(lstm, d, rows, error):
    stream = lstm.stream(3)
    stream.run(d.x)
    before = stream.state
    with pytest.raises(error, match=r"^rows must"):
        stream.reset(rows)
    assert same_state(stream.state, before)


@pytest.mark.parametrize("shape", [(2, 3, 16), (1, 3, 17), (2, 1, 17), (3, 17), (2, 17), ()])
def test_a_refused_state_leaves_the_state(lstm, d, shape):
    stream = lstm.stream(3)
    stream.run(d.x)
    before = stream.state
    good, bad = np.zeros((2, 3, 17), np.float32), np.zeros(shape, np.float32)
    refused = [((good, bad), ValueError), ((bad, good), ValueError)]
    refused += [(value, TypeError) for value in (good, (good,), None, (good, good * 1j))]
    for value, error in refused:
        with pytest.raises(error, match=r"^state"):
            stream.state = value
        assert same_state(stream.state, before)


def test_errors_of_a_state_say_what_came():
    lstm, rnn = qg.LSTM(3, 4, rng=0).stream(), qg.RNN(3, 4, rng=0).stream()
    for stream, value, error, said in (
        (lstm, None, TypeError, "state must be a pair (h, c) of arrays of shapes (1, 1, 4) and (1, 1, 4), got None"),
        (lstm, (1, 2, 3), TypeError, "got (1, 2, 3)"),
        (lstm, np.zeros((1, 4)), TypeError, "got ndarray"),
        (lstm, (np.zeros((2, 3)), None), ValueError, "state[0] must have shape (1, 1, 4), got (2, 3)"),
        (lstm, (None, np.zeros((2, 4))), ValueError, "state[1] must have shape (1, 1, 4), got (2, 4)"),
        (rnn, np.zeros((1, 3)), ValueError, "state must have shape (1, 1, 4), got (1, 3)"),
        (rnn, None, TypeError, "state must be an array of shape (1, 1, 4), got None"),
    ):
        with pytest.raises(error, match=f"{re.escape(said)}$"):
            stream.state = value


@pytest.mark.parametrize("net", [qg.LSTM(3, 4), qg.RNN(3, 4), qg.LSTM(3, 4).quantize("int8")])
def test_a_batch_beyond_memory(net):
    with pytest.raises(MemoryError, match=f"a stream of {2**62} rows does not fit into memory"):
        net.stream(2**62)


@pytest.mark.parametrize("batch", [0, -1, 1.5, "2", None, True])
def test_a_refused_batch(lstm, batch):
    with pytest.raises(ValueError if batch in (0, -1) else TypeError, match="batch"):
        lstm.stream(batch)


def test_no_stream_of_two_directions():
    with pytest.raises(ValueError, match="bidirectional"):
        qg.LSTM(3, 4, bidirectional=True).stream()
