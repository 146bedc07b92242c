"""All that can be read as real numbers is taken: other types, byte orders, flags, lists, subclasses, foreign arrays."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from support.cases import DTYPES, data, model, plain, same_bits


class Foreign:
    """An array type of another library that knows `__array__`."""

    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return self.a if dtype is None else self.a.astype(dtype)


class Packed:
    """An array type of another library that knows DLPack only."""

    def __init__(self, a):
        self.a = a

    def __dlpack__(self, **keywords):
        return self.a.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()


class Subclass(np.ndarray):
    pass


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:]
    view = raw.view(a.dtype).reshape(a.shape)
    view[...] = a
    assert not view.flags.aligned
    return view


def swapped(a):
    return a.astype(a.dtype.newbyteorder())


CHANGES = {
    "float64": lambda a: a.astype(np.float64),
    "longdouble": lambda a: a.astype(np.longdouble),
    "swapped": swapped,
    "read_only": read_only,
    "unaligned": unaligned,
    "list": lambda a: a.tolist(),
    "fortran": np.asfortranarray,
    "foreign": Foreign,
    "packed": Packed,
    "subclass": lambda a: a.view(Subclass),
    "matrix_of_zero_strides": lambda a: np.broadcast_to(a[None], (1, *a.shape))[0],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_numbers_same_results(dtype, change):
    """Everywhere where an array goes in; what comes out is a plain array of the network's type."""
    case = plain(4, 3, 5, 17, 2, dtype=dtype)
    lstm, d = model(case), data(case)
    want_y, want_state, tape = lstm.forward(d.x, d.state)
    want = lstm.backward(tape, d.dy, d.dstate)

    before = d.x.tobytes()
    state = tuple(map(change, d.state))
    for y, (h, c) in (lstm(change(d.x), state), lstm.forward(change(d.x), state)[:2]):
        assert type(y) is np.ndarray
        assert same_bits(y, want_y)
        assert same_bits(h, want_state[0])
        assert same_bits(c, want_state[1])
    assert d.x.tobytes() == before
    grads = lstm.backward(tape, change(d.dy), tuple(map(change, d.dstate)))
    assert same_bits(grads.x, want.x)
    assert same_bits(grads.h0, want.h0)
    for name, value in want.params.items():
        assert same_bits(grads.params[name], value)

    stream = lstm.stream(3)
    stream.state = state
    assert same_bits(np.stack([stream.step(change(x)) for x in d.x]), want_y)
    stream.state = state
    assert same_bits(stream.run(change(d.x)), want_y)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float16])
def test_small_numbers_of_any_type(dtype):
    case = plain(4, 3, 5, 7)
    lstm = model(case)
    x = np.random.default_rng(0).integers(0, 3, (4, 3, 5)).astype(dtype)
    assert same_bits(lstm(x)[0], lstm(x.astype(np.float32))[0])


def test_the_state_may_be_a_list_and_may_be_what_came_out():
    case = plain(4, 3, 5, 7)
    lstm, d = model(case), data(case)
    want, _ = lstm(d.x, d.state)
    assert same_bits(lstm(d.x, list(d.state))[0], want)
    _, state = lstm(d.x)
    kept = [s.copy() for s in state]
    lstm(d.x, state)
    assert same_bits(state[0], kept[0])
    assert same_bits(state[1], kept[1])


def test_the_same_array_twice():
    """h and c, dh and dc, x and out of earlier calls may be one array: inputs are only read."""
    case = plain(4, 3, 7, 7)
    lstm, d = model(case), data(case)
    s = d.state[0]
    y, _, tape = lstm.forward(d.x, (s, s))
    assert same_bits(y, lstm(d.x, (s, s.copy()))[0])
    one, two = lstm.backward(tape, y, (s, s)), lstm.backward(tape, y.copy(), (s, s.copy()))
    assert same_bits(one.x, two.x)
    y2, _ = lstm(y)
    assert same_bits(y2, lstm(y.copy())[0])


def test_results_are_the_callers_own():
    """No later call changes an earlier result, and results do not share memory with each other or with the input."""
    case = plain(4, 3, 7, 7)
    lstm, d = model(case), data(case)
    y, (h, c) = lstm(d.x, d.state)
    kept = [a.copy() for a in (y, h, c)]
    lstm(d.x[::-1], d.state)
    stream = lstm.stream(3)
    out1 = stream.step(d.x[0])
    kept1 = out1.copy()
    stream.step(d.x[1])
    assert same_bits(out1, kept1)
    for value, before in zip((y, h, c), kept, strict=True):
        assert same_bits(value, before)
        assert value.flags.writeable
        assert value.flags.owndata or value.base is not None
    arrays = [y, h, c, d.x, *d.state, *lstm.params.values()]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_float64_into_float32():
    """float64 is what NumPy makes unless told otherwise: it is rounded to the network's type."""
    lstm = qg.LSTM(3, 4, rng=0)
    x = np.random.default_rng(0).normal(size=(5, 2, 3))
    y, _ = lstm(x)
    assert y.dtype == np.float32
    assert same_bits(y, lstm(x.astype(np.float32))[0])


def test_numbers_under_numpys_strict_errors():
    """Numbers that float32 flushes to zero are no error, and float16 need not hold the number of steps."""
    with np.errstate(all="raise"):
        lstm = qg.LSTM(1, 1, forget_bias=1e-50)
        y, _ = lstm(np.full((70_000, 2, 1), 1e-300), lengths=np.array([1, 2], np.float16))
    assert not y[2:].any()
