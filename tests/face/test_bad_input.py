"""Errors name the argument, its value and what it must be; a mistake changes nothing."""

from __future__ import annotations

import re

import numpy as np
import pytest
import quadgate as qg
from support.cases import data, infer, model, plain, same_bits

CASE = plain(4, 3, 5, 6, 2)


@pytest.fixture
def lstm():
    return model(CASE)


@pytest.fixture
def d():
    return data(CASE)


def zeros(*shape):
    return np.zeros(shape, np.float32)


def masked(*shape):
    return np.ma.masked_array(zeros(*shape), mask=True)


# Values that no array argument takes: one of the expected shape, and the exception.
NOT_NUMBERS = {
    "complex": (lambda *s: zeros(*s).astype(np.complex64), TypeError),
    "bool": (lambda *s: zeros(*s).astype(bool), TypeError),
    "text": (lambda *s: zeros(*s).astype(str), TypeError),
    "object": (lambda *s: zeros(*s).astype(object), TypeError),
    "time": (lambda *s: zeros(*s).astype("m8[s]"), TypeError),
    "structured": (lambda *s: np.zeros(s, [("a", np.float32)]), TypeError),
    "masked": (masked, TypeError),
}
not_numbers = pytest.mark.parametrize("kind", NOT_NUMBERS)


def wrong(shape):
    """Every way to be of a wrong shape: one axis more, less, longer, shorter, or broadcastable."""
    yield (1, *shape)
    yield shape[1:]
    yield ()
    for axis in range(len(shape)):
        for size in {shape[axis] + 1, shape[axis] - 1, 1, 2 * shape[axis]} - {shape[axis]}:
            yield (*shape[:axis], size, *shape[axis + 1 :])


def says(*parts):
    return "(?s)" + ".*".join(re.escape(str(p)) for p in parts)


# The features of x are wrong; its T and B are free.
@pytest.mark.parametrize("shape", [(4, 3, 4), (4, 3, 6), (4, 3, 1), (4, 3, 0), (4, 6), (5,), (), (1, 4, 3, 5)])
@pytest.mark.parametrize("call", ["__call__", "forward"])
def test_shape_of_x(lstm, call, shape):
    with pytest.raises(ValueError, match=says("x must have shape", 5, "got", shape)):
        getattr(lstm, call)(zeros(*shape))


@not_numbers
@pytest.mark.parametrize("call", ["__call__", "forward"])
def test_type_of_x(lstm, call, kind):
    make, error = NOT_NUMBERS[kind]
    with pytest.raises(error, match=r"^x "):
        getattr(lstm, call)(make(4, 3, 5))


@pytest.mark.parametrize(
    ("x", "error"),
    [(x, TypeError) for x in (None, "text", object())] + [(x, ValueError) for x in (3.5, [[1.0], [2.0, 3.0]])],
)
def test_x_is_no_array(lstm, x, error):
    with pytest.raises(error, match=r"^x "):
        lstm(x)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("call", ["__call__", "forward"])
def test_shape_of_the_state(lstm, d, call, place):
    """h and c each; a state of another batch, hidden size or number of layers is never broadcast."""
    good = (2, 3, 6)
    for shape in wrong(good):
        state = [zeros(*good), zeros(*good)]
        state[place] = zeros(*shape)
        with pytest.raises(ValueError, match=says(f"state[{place}] must have shape", good, "got", shape)):
            getattr(lstm, call)(d.x, tuple(state))


def test_shape_of_the_state_of_an_unbatched_call(lstm, d):
    with pytest.raises(ValueError, match=says("state[0] must have shape", (2, 6), "got", (2, 1, 6))):
        lstm(d.x[:, 0], (zeros(2, 1, 6), zeros(2, 1, 6)))


@pytest.mark.parametrize("state", [zeros(2, 3, 6), (zeros(2, 3, 6),), (zeros(2, 3, 6),) * 3, "hc", 1])
def test_the_state_is_no_pair(lstm, d, state):
    with pytest.raises(TypeError, match=r"^state must be"):
        lstm(d.x, state)


@pytest.mark.parametrize("place", [0, 1])
@not_numbers
def test_type_of_the_state(lstm, d, kind, place):
    make, error = NOT_NUMBERS[kind]
    state = [zeros(2, 3, 6), zeros(2, 3, 6)]
    state[place] = make(2, 3, 6)
    with pytest.raises(error, match=rf"^state\[{place}\] "):
        lstm(d.x, tuple(state))


@pytest.mark.parametrize(
    ("lengths", "error", "said"),
    [
        ([1, 2], ValueError, "(3,)"),
        ([1, 2, 3, 4], ValueError, "(3,)"),
        ([[1, 2, 3]], ValueError, "(3,)"),
        (2, ValueError, "(3,)"),
        ([1, 2, 5], ValueError, 5),
        ([1, -1, 2], ValueError, -1),
        ([1, 2, 2**62], ValueError, 2**62),
        (np.array([1, 2, 2**64 - 1], np.uint64), ValueError, 2**64 - 1),
        ([1.0, np.nan, 2.0], ValueError, "nan"),
        ([1.5, 2, 3], ValueError, 1.5),
        (np.array([True, False, True]), TypeError, "bool"),
        (np.array([1, 2, 3], complex), TypeError, "complex"),
        (np.ma.masked_array([1, 2, 3], mask=[0, 1, 0]), TypeError, "masked"),
        (["1", "2", "3"], TypeError, "<U1"),
        ([1, None, 2], TypeError, "object"),
    ],
)
@pytest.mark.parametrize("call", ["__call__", "forward"])
def test_lengths(lstm, d, call, lengths, error, said):
    with pytest.raises(error, match=says("lengths", said)):
        getattr(lstm, call)(d.x, lengths=lengths)


def test_shape_and_type_of_out(lstm, d):
    good = (4, 3, 6)
    for shape in wrong(good):
        with pytest.raises(ValueError, match=says("out must have shape", good, "got", shape)):
            lstm(d.x, out=zeros(*shape))
    for dtype in (np.float64, np.float16, np.int32, ">f4"):
        with pytest.raises(ValueError, match=says("out must have dtype float32", "got", np.dtype(dtype))):
            lstm(d.x, out=np.zeros(good, dtype))
    for value in ([[0.0]], "out", 3, memoryview(zeros(*good)), masked(*good)):
        with pytest.raises(TypeError, match=r"^out must"):
            lstm(d.x, out=value)


def test_out_is_read_only(lstm, d):
    out = zeros(4, 3, 6)
    out.flags.writeable = False
    with pytest.raises(ValueError, match=r"out must be writable.*read-only"):
        lstm(d.x, out=out)


def test_out_overlaps_an_input():
    case = plain(4, 3, 6, 6)
    lstm, d = model(case), data(case)
    before = [a.copy() for a in (d.x, *d.state)]
    for place, name in ((0, "x"), (1, "state[0]"), (2, "state[1]")):
        base = np.zeros(4 * 3 * 6 + 40, np.float32)
        arguments = [d.x, *d.state]
        arguments[place] = base[: arguments[place].size].reshape(arguments[place].shape)
        arguments[place][...] = before[place]
        # In front of the end by one element, so that only one is shared, and whole where the sizes are equal.
        for start in (0, arguments[place].size - 1):
            if start + 72 <= base.size:
                out = base[start : start + 72].reshape(4, 3, 6)
                with pytest.raises(ValueError, match=says("out must not share memory with", name)):
                    lstm(arguments[0], tuple(arguments[1:]), out=out)
        assert same_bits(arguments[place], before[place])
    # One after the other in the same memory is no overlap.
    base = np.zeros(2 * 72, np.float32)
    base[:72] = d.x.ravel()
    y, _ = lstm(base[:72].reshape(4, 3, 6), d.state, out=base[72:].reshape(4, 3, 6))
    assert same_bits(y, infer(case, lstm, d).y)


@pytest.mark.parametrize("name", ["dy", "dstate[0]", "dstate[1]"])
def test_gradients(lstm, d, name):
    _, _, tape = lstm.forward(d.x, d.state)
    good = (4, 3, 6) if name == "dy" else (2, 3, 6)

    def call(value):
        if name == "dy":
            lstm.backward(tape, value)
        else:
            lstm.backward(tape, d.dy, (value, None) if name == "dstate[0]" else (None, value))

    for shape in wrong(good):
        with pytest.raises(ValueError, match=says(name, "must have shape", good, "got", shape)):
            call(zeros(*shape))
    for make, error in NOT_NUMBERS.values():
        with pytest.raises(error, match=f"^{re.escape(name)} "):
            call(make(*good))


@pytest.mark.parametrize("dstate", [zeros(2, 3, 6), (None,), (None, None, None), 3])
def test_dstate_is_no_pair(lstm, d, dstate):
    _, _, tape = lstm.forward(d.x)
    with pytest.raises(TypeError, match=r"^dstate must be"):
        lstm.backward(tape, d.dy, dstate)


@pytest.mark.parametrize("tape", [None, 3, "tape", object()])
def test_no_tape(lstm, d, tape):
    with pytest.raises(TypeError, match=r"^tape must be a Tape, the third result of forward, got "):
        lstm.backward(tape, d.dy)


def test_a_tape_of_another_network(lstm, d):
    """Of other sizes or of the same: the tape knows whose it is."""
    for other in (model(CASE), qg.LSTM(5, 7, 2), qg.LSTM(5, 6, 2, dtype=np.float64)):
        _, _, tape = other.forward(d.x)
        with pytest.raises(ValueError, match="tape"):
            lstm.backward(tape, d.dy)


def test_arrays_for_gradients(lstm, d):
    _, _, tape = lstm.forward(d.x)
    good = {name: np.zeros(value.shape, np.float32) for name, value in lstm.params.items()}
    with pytest.raises(ValueError, match="accumulate"):
        lstm.backward(tape, d.dy, accumulate=True)
    for name in good:
        without = {key: value for key, value in good.items() if key != name}
        with pytest.raises(ValueError, match=name):
            lstm.backward(tape, d.dy, out=without)
        fixed = np.zeros(good[name].shape, np.float32)
        fixed.flags.writeable = False
        for bad in (zeros(3), good[name].astype(np.float64), good[name].tolist(), fixed):
            with pytest.raises(TypeError if isinstance(bad, list) else ValueError, match=name):
                lstm.backward(tape, d.dy, out={**good, name: bad})
    with pytest.raises(ValueError, match=r"^out must have the names weight_ih_l0, .*, got nothing$"):
        lstm.backward(tape, d.dy, out={})
    with pytest.raises(ValueError, match="weight_ih_l7"):
        lstm.backward(tape, d.dy, out={**good, "weight_ih_l7": zeros(3)})
    with pytest.raises(ValueError, match=says("bias_l1", "must not share memory with")):
        lstm.backward(tape, d.dy, out={**good, "bias_l1": good["bias_l0"]})
    overlapping = good["weight_hh_l0"].ravel()[:24]
    with pytest.raises(ValueError, match=says("must not share memory with")):
        lstm.backward(tape, d.dy, out={**good, "bias_l1": overlapping})
    assert not any(value.any() for value in good.values())


@pytest.mark.parametrize(("batch_first", "leading"), [(False, (4, 3)), (True, (3, 4)), (False, (4,))])
def test_resets(batch_first, leading):
    """Of x's shape without its last axis, in x's layout, and bools."""
    lstm = qg.LSTM(5, 6, 2, batch_first=batch_first)
    x = zeros(*leading, 5)
    for call in (lstm, lstm.forward, qg.RNN(5, 6, batch_first=batch_first)):
        for shape in wrong(leading):
            with pytest.raises(ValueError, match=says("resets must have shape", leading, "got", shape)):
                call(x, resets=np.zeros(shape, bool))
        for bad in (zeros(*leading), np.zeros(leading, "U1"), masked(*leading).astype(bool)):
            with pytest.raises(TypeError, match=r"^resets must"):
                call(x, resets=bad)
        for number in (2, -1):
            with pytest.raises(ValueError, match=r"^resets must hold"):
                call(x, resets=np.full(leading, number))
        call(x, resets=np.ones(leading, bool))


def test_gradients_of_cells():
    lstm = qg.LSTM(5, 6, 2, bidirectional=True, proj_size=2)
    _, _, tape = lstm.forward(zeros(4, 3, 5), return_cells=True)
    good = (4, 3, 12)
    assert tape.cells.shape == good
    for shape in wrong(good):
        with pytest.raises(ValueError, match=says("dcells must have shape", good, "got", shape)):
            lstm.backward(tape, dcells=zeros(*shape))
    for make, error in NOT_NUMBERS.values():
        with pytest.raises(error, match=r"^dcells "):
            lstm.backward(tape, dcells=make(*good))


def test_state_of_a_projection():
    """h and c are of different shapes, and each is checked for its own."""
    lstm = qg.LSTM(5, 6, proj_size=2)
    x = zeros(4, 3, 5)
    _, _, tape = lstm.forward(x)
    h, c = zeros(1, 3, 2), zeros(1, 3, 6)
    lstm(x, (h, c))
    for pair, said in (((c, c), ("[0]", (1, 3, 2))), ((h, h), ("[1]", (1, 3, 6)))):
        with pytest.raises(ValueError, match=says("state", *said)):
            lstm(x, pair)
        with pytest.raises(ValueError, match=says("dstate", *said)):
            lstm.backward(tape, dstate=pair)
    with pytest.raises(TypeError, match=says("state must be", (1, 3, 2), (1, 3, 6))):
        lstm(x, h)
    stream = lstm.stream(3)
    for pair, said in (((c, c), ("[0]", (1, 3, 2))), ((h, h), ("[1]", (1, 3, 6)))):
        with pytest.raises(ValueError, match=says("state", *said)):
            stream.state = pair


def test_out_and_resets_share_memory():
    lstm = qg.LSTM(5, 6, dtype=np.float64)
    base = np.zeros(4 * 3 * 6)
    resets = base.view(bool)[:12].reshape(4, 3)
    with pytest.raises(ValueError, match=says("out must not share memory with resets")):
        lstm(np.zeros((4, 3, 5)), resets=resets, out=base.reshape(4, 3, 6))


def test_nothing_is_lost_by_mistakes(lstm, d):
    """After every kind of refused call the network gives what it gave before."""
    want = infer(CASE, lstm, d)
    _, _, tape = lstm.forward(d.x, d.state)
    grads = lstm.backward(tape, d.dy)
    attempts = [
        lambda: lstm(zeros(4, 3, 9)),
        lambda: lstm(d.x, (d.state[0], zeros(1))),
        lambda: lstm(d.x, lengths=[9, 9, 9]),
        lambda: lstm(d.x, out=zeros(1)),
        lambda: lstm.backward(tape, zeros(1)),
        lambda: lstm.backward(tape, d.dy, (zeros(1), None)),
        lambda: lstm.load_state_dict({}),
    ]
    for attempt in attempts:
        with pytest.raises(ValueError, match=r"must|does not fit"):
            attempt()
        for name, got in infer(CASE, lstm, d).items():
            assert same_bits(got, want[name])
    assert same_bits(lstm.backward(tape, d.dy).x, grads.x)


@pytest.mark.parametrize("bad", ["no", 1, None])
def test_flags_of_calls(bad):
    lstm = qg.LSTM(5, 6)
    x = np.zeros((4, 3, 5), np.float32)
    y, _, tape = lstm.forward(x)
    out = lstm.backward(tape, y).params
    for name, call in {
        "return_cells": lambda: lstm(x, return_cells=bad),
        "trace": lambda: lstm.forward(x, trace=bad),
        "input_grad": lambda: lstm.backward(tape, y, input_grad=bad),
        "state_grad": lambda: lstm.backward(tape, y, state_grad=bad),
        "accumulate": lambda: lstm.backward(tape, y, out=out, accumulate=bad),
    }.items():
        with pytest.raises(TypeError, match=rf"^{name} must be True or False"):
            call()
    with pytest.raises(TypeError, match=r"^return_cells must"):
        lstm.forward(x, return_cells=bad)
    with pytest.raises(TypeError, match=r"^out must be a mapping"):
        lstm.backward(tape, y, out=[*out.values()])
