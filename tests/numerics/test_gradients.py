"""The compiled backward pass is the derivative of the compiled forward pass, for everything that has a gradient."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import quadgate as qg
from support import bounds
from support.cases import DTYPES, data, model, plain, run, same_bits

pytestmark = pytest.mark.numbers

GIVEN = list(itertools.product((True, False), repeat=3))[:-1]  # at least one of them


def loss(lstm, x, state, lengths, dy, dstate):
    y, (h, c) = lstm(x, state, lengths=lengths)
    return float((y * dy).sum() + (h * dstate[0]).sum() + (c * dstate[1]).sum())


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [None, (2, 0, 4, 1)], ids=["full", "lengths"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("layers", "hidden", "bias"), [(1, 1, True), (1, 9, False), (2, 3, True), (3, 5, True)])
def test_central_differences(layers, hidden, bias, bidirectional, lengths):
    """Every element of every gradient in float64.

    A step e leaves e^2/6 times the third derivative, and at most eps/e times the loss's size from rounding. The loss is
    a sum of some 200 terms of size 1 whose derivatives are of the size of the gradients: with e = 1e-5 that is 2e-11
    times a derivative and 2e-16/1e-5 * 200 = 4e-9; 1e-7 leaves room for third derivatives of some thousands.
    """
    case = plain(4, 4, 3, hidden, layers, bidirectional, bias, dtype="float64", seed=layers)
    lstm, d = model(case), data(case)
    n = None if lengths is None else np.array(lengths)
    got = run(case, lstm, d._replace(lengths=n))
    e = 1e-5

    def slope(value, at):
        kept = value[at]
        value[at] = kept + e
        up = loss(lstm, d.x, d.state, n, d.dy, d.dstate)
        value[at] = kept - e
        down = loss(lstm, d.x, d.state, n, d.dy, d.dstate)
        value[at] = kept
        return (up - down) / (2 * e)

    def slope_of_parameter(name, at):
        losses = []
        for by in (e, -e):
            with lstm.writable() as params:
                kept = params[name][at]
                params[name][at] = kept + by
            losses.append(loss(lstm, d.x, d.state, n, d.dy, d.dstate))
            with lstm.writable() as params:
                params[name][at] = kept
        return (losses[0] - losses[1]) / (2 * e)

    for value, grad in zip((d.x, *d.state), (got.dx, got.dh0, got.dc0), strict=True):
        for at in np.ndindex(value.shape):
            assert abs(slope(value, at) - grad[at]) < 1e-7 * (1 + abs(grad[at]))
    for name, grad in got.params.items():
        assert grad.shape == lstm.params[name].shape
        for at in np.ndindex(grad.shape):
            assert abs(slope_of_parameter(name, at) - grad[at]) < 1e-7 * (1 + abs(grad[at])), name


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("given", GIVEN)
def test_a_gradient_left_out_is_zeros(given, lengths):
    case = plain(5, 3, 4, 18, 2, True, lengths=lengths)
    lstm, d = model(case), data(case)
    y, dh, dc = (use * g for use, g in zip(given, (d.dy, *d.dstate), strict=True))
    zeros = run(case, lstm, d._replace(dy=y, dstate=(dh, dc)))
    left_out = [g if use else None for use, g in zip(given, (d.dy, *d.dstate), strict=True)]
    absent = run(case, lstm, d._replace(dy=left_out[0], dstate=(left_out[1], left_out[2])))
    for name, value in absent.items():
        np.testing.assert_array_equal(value, zeros[name], err_msg=name)


def test_no_state_gradient_at_all():
    case = plain(5, 3, 4, 6)
    lstm, d = model(case), data(case)
    _, _, tape = lstm.forward(d.x, d.state)
    short, full = lstm.backward(tape, d.dy), lstm.backward(tape, d.dy, (None, None))
    assert same_bits(short.x, full.x)
    for name in full.params:
        assert same_bits(short.params[name], full.params[name])


def test_a_tape_serves_more_than_once():
    case = plain(5, 3, 4, 18, 2, True)
    lstm, d = model(case), data(case)
    _, _, tape = lstm.forward(d.x, d.state)
    first, second = lstm.backward(tape, d.dy, d.dstate), lstm.backward(tape, d.dy, d.dstate)
    assert same_bits(first.x, second.x)
    assert same_bits(first.h0, second.h0)
    assert same_bits(first.c0, second.c0)
    for name in first.params:
        assert same_bits(first.params[name], second.params[name])


def test_tapes_do_not_disturb_each_other():
    case = plain(6, 4, 5, 17)
    lstm = model(case)
    several = [data(plain(6, 4, 5, 17, seed=k)) for k in range(3)]
    alone = [run(case, lstm, d) for d in several]
    tapes = [lstm.forward(d.x, d.state)[2] for d in several]
    for want, d, tape in reversed(list(zip(alone, several, tapes, strict=True))):
        assert same_bits(lstm.backward(tape, d.dy, d.dstate).x, want.dx)


def test_backward_leaves_what_it_is_given_alone():
    case = plain(5, 3, 4, 18, 2, True, lengths=True)
    lstm, d = model(case), data(case)
    before = [a.copy() for a in (d.x, *d.state, d.lengths, d.dy, *d.dstate)]
    run(case, lstm, d)
    for a, b in zip((d.x, *d.state, d.lengths, d.dy, *d.dstate), before, strict=True):
        assert same_bits(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sequence_in_chunks_with_all_gradients_handed_back(dtype):
    """Forward over chunks with the state passed on, backward over them in reverse, is the gradient of the whole."""
    case = plain(12, 5, 7, 18, 2, dtype=dtype)
    lstm, d = model(case), data(case)
    want = run(case, lstm, d)
    state, tapes = d.state, []
    for k in range(0, 12, 4):
        _, state, tape = lstm.forward(d.x[k : k + 4], state)
        tapes.append(tape)
    dstate, dx, total = d.dstate, [], {name: np.zeros(v.shape) for name, v in want.params.items()}
    for k, tape in zip((8, 4, 0), reversed(tapes), strict=True):
        grads = lstm.backward(tape, d.dy[k : k + 4], dstate)
        dstate = (grads.h0, grads.c0)
        dx.insert(0, grads.x)
        for name in total:
            total[name] += grads.params[name]
    relative = 2 * bounds.norm_bound(dtype, 9 * 4 * 18, 2 * 12, backward=True)
    bounds.assert_norm(np.concatenate(dx), want.dx.astype(np.float64), relative, "dx")
    bounds.assert_norm(dstate[0], want.dh0.astype(np.float64), relative, "dh0")
    bounds.assert_norm(dstate[1], want.dc0.astype(np.float64), relative, "dc0")
    for name, value in want.params.items():
        bounds.assert_norm(total[name], value.astype(np.float64), relative, name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
def test_into_given_arrays(bias, dtype):
    """`out` is overwritten, whatever it holds, and its own arrays come back; with `accumulate` it is added to."""
    case = plain(5, 3, 4, 18, 2, True, bias, dtype=dtype)
    lstm, d = model(case), data(case)
    _, _, tape = lstm.forward(d.x, d.state)
    want = lstm.backward(tape, d.dy, d.dstate)

    out = {name: np.full_like(value, np.nan) for name, value in want.params.items()}
    got = lstm.backward(tape, d.dy, d.dstate, out=out)
    assert same_bits(got.x, want.x)
    for name, value in want.params.items():
        assert got.params[name] is out[name]
        assert same_bits(out[name], value), name

    weights = {name: np.asarray(value, np.float64) for name, value in lstm.params.items()}
    _, _, tapes = bounds.forward(dtype, weights, d.x, d.state, None, **case.kind)
    *_, exact = bounds.backward(dtype, weights, tapes, d.dy, d.dstate, **case.kind)
    rng = np.random.default_rng(1)
    out = {name: rng.normal(size=value.shape).astype(dtype) for name, value in want.params.items()}
    before = {name: value.astype(np.float64) for name, value in out.items()}
    got = lstm.backward(tape, d.dy, d.dstate, out=out, accumulate=True)
    assert same_bits(got.x, want.x)
    for name, value in out.items():
        assert got.params[name] is value
        # The old value takes part in each of the T * B roundings of the sum, and in one addition more.
        more = (5 * 3 + 2) * np.finfo(dtype).eps * np.abs(before[name])
        bounds.assert_within(value, before[name] + exact[name].v, exact[name].e * (1 + 1e-6) + more, name)


def test_accumulating_over_two_halves_of_a_batch():
    """Added up over two calls, gradients are those of the whole batch: the purpose of out= and accumulate=."""
    case = plain(6, 8, 4, 9, dtype="float64")
    lstm, d = model(case), data(case)
    want = run(case, lstm, d)
    out = {name: np.zeros_like(value) for name, value in want.params.items()}
    for rows in (slice(0, 3), slice(3, 8)):
        _, _, tape = lstm.forward(d.x[:, rows], tuple(s[:, rows] for s in d.state))
        half = tuple(s[:, rows] for s in d.dstate)
        lstm.backward(tape, d.dy[:, rows], half, out=out, accumulate=True)
    weights = {name: np.asarray(value) for name, value in lstm.params.items()}
    _, _, tapes = bounds.forward("float64", weights, d.x, d.state, None, **case.kind)
    *_, exact = bounds.backward("float64", weights, tapes, d.dy, d.dstate, **case.kind)
    for name, value in want.params.items():
        bounds.assert_within(out[name], value.astype(np.float64), 2 * exact[name].e, name)


@pytest.mark.parametrize("input_grad", [False, True])
@pytest.mark.parametrize("state_grad", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("T", "B"), [(5, 3), (1, 4), (3, 400)])
def test_without_gradients_that_nobody_needs(T, B, bidirectional, state_grad, input_grad):
    case = plain(T, B, 4, 18, 2, bidirectional)
    lstm, d = model(case), data(case)
    for state in (None, d.state):
        _, _, tape = lstm.forward(d.x, state)
        want = lstm.backward(tape, d.dy, d.dstate)
        got = lstm.backward(tape, d.dy, d.dstate, input_grad=input_grad, state_grad=state_grad)
        for part, asked in (("x", input_grad), ("h0", state_grad), ("c0", state_grad)):
            if asked:
                assert same_bits(getattr(got, part), getattr(want, part))
            else:
                assert getattr(got, part) is None
        for name, value in want.params.items():
            assert same_bits(got.params[name], value)


def test_learning():
    """Plain gradient descent makes the loss of a small task fall to less than a tenth: everything is wired together."""
    rng = np.random.default_rng(0)
    lstm = qg.LSTM(3, 16, rng=1)
    x = rng.normal(size=(10, 32, 3)).astype(np.float32)
    want = np.tanh(np.cumsum(x[:, :, :1], axis=0) / 2) * np.float32(0.9)
    losses = []
    for _ in range(300):
        y, _, tape = lstm.forward(x)
        off = y[:, :, :1] - want
        dy = np.zeros_like(y)
        dy[:, :, :1] = off * np.float32(2 / off.size)
        losses.append(float((off**2).mean()))
        grads = lstm.backward(tape, dy)
        with lstm.writable() as params:
            for name in params:
                params[name] -= np.float32(0.5) * grads.params[name]
    assert losses[-1] < losses[0] / 10
