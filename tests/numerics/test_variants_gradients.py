"""The compiled backward pass of every option is the derivative of its compiled forward pass, by central differences.

A step e = 3e-6 leaves e^2/6 times a third derivative and at most eps/e times the loss's size, some hundreds, from
rounding: some 2e-8 (test_gradients.py has the sum). Options magnify derivatives, by 1/std in a normalisation for one,
but then the first as well: 1e-6 of the length of an array's gradient, and of 1, leaves room for third ones 600 000
times as large.
Masks are held by the seed. No value lies within 1e-3 of a kink, which no such step then crosses.
"""

from __future__ import annotations

import numpy as np
import pytest
from support.cases import Case, data, keywords, model, same_bits, train
from support.options import SINGLE, random_options, seeded, single
from support.verdicts import compare, judge, kinks, verdict

E = 3e-6
FAR = 1e-3


def clear(v, net, d):
    """True if no value is near a kink. A closed gate leaves exactly 0, and stays closed when its arguments move."""
    masks = train(v, net, d)[1].dropped
    _, tape = judge(v, net.params, d, masks if v.chance else None, backward=False)
    return all((np.abs(a - k)[a != k] > FAR).all() for a, at in kinks(v, tape) for k in at)


def prepared(v):
    net = model(v)
    for attempt in range(400):
        d = data(v, attempt)
        if clear(v, net, d):
            return net, d
    raise AssertionError(f"{v}: no data that are clear of all kinks")


def loss(v, net, d):
    """The sum of y, h, c and the last layer's cells, each weighted by its gradient, which backward gets."""
    if v.rnn:
        y, h, _ = net.forward(d.x, d.state[0], rng=v.seed, **keywords(v, d))
        return float((y * d.dy).sum() + (h * d.dstate[0]).sum())
    y, (h, c), tape = net.forward(d.x, d.state, return_cells=True, rng=v.seed, **keywords(v, d))
    cells = tape.cells
    terms = ((y, d.dy), (h, d.dstate[0]), (c, d.dstate[1]), (cells, d.dcells))
    return float(sum((value * weight).sum() for value, weight in terms))


def inputs(v, d):
    return {"dx": d.x, "dh0": d.state[0], **({} if v.rnn else {"dc0": d.state[1]})}


def slope(v, net, d, name, direction):
    """The derivative of the loss along `direction`, of one input or parameter."""
    losses = []
    for by in (E, -E):
        if name in net.params:
            with net.writable() as params:
                kept = params[name].copy()
                params[name] += by * direction
            losses.append(loss(v, net, d))
            with net.writable() as params:
                params[name] = kept
        else:
            field, k = {"dx": ("x", 0), "dh0": ("state", 0), "dc0": ("state", 1)}[name]
            moved = [d.x] if field == "x" else list(d.state)
            moved[k] = moved[k] + by * direction
            losses.append(loss(v, net, d._replace(**{field: moved[0] if field == "x" else tuple(moved)})))
    return (losses[0] - losses[1]) / (2 * E)


def assert_slopes(v, net, d, directions):
    """`directions` gives directions of length 1 for an array of some shape."""
    found, _ = train(v, net, d)
    for name in [*inputs(v, d), *net.params]:
        grad = found[name]
        for direction in directions(grad.shape):
            want, have = slope(v, net, d, name, direction), float((grad * direction).sum())
            size = max(1.0, float(np.linalg.norm(grad)))
            assert abs(want - have) <= 1e-6 * size, f"{v}: {name}: {have}, by differences {want}"


def each_element(shape):
    for at in np.ndindex(shape):
        unit = np.zeros(shape)
        unit[at] = 1
        yield unit


@pytest.mark.parametrize("name", SINGLE)
def test_every_element_of_every_gradient(name):
    v = single(name, 3, 2, steps=3, batch=2, inputs=2, dtype="float64", seed=1, resets=len(name) % 2 == 0)
    assert_slopes(v, *prepared(v), each_element)


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_combinations(seed, lengths):
    """Along random directions: each takes in every element of an array."""
    chosen = random_options(seeded(seed), 6)
    v = Case(4, 3, 3, 6, chosen, lengths=lengths, resets=seed % 3 == 1, dtype="float64", seed=seed)
    rng = np.random.default_rng(seed)

    def two_at_random(shape):
        for _ in range(2):
            direction = rng.normal(size=shape)
            yield direction / max(np.linalg.norm(direction), 1e-9)

    assert_slopes(v, *prepared(v), two_at_random)


@pytest.mark.parametrize("name", SINGLE)
def test_a_gradient_left_out_is_zeros(name):
    """Each of dy, dh, dc and dcells alone, the others not given: as if they were zeros."""
    v = single(name, 9, steps=3, dtype="float64", lengths=True)
    net, d = model(v), data(v)
    for k in range(2 if v.rnn else 4):
        only = [np.bool_(k == n) for n in range(4)]
        zeros = d._replace(
            dy=only[0] * d.dy,
            dstate=(only[1] * d.dstate[0], only[2] * d.dstate[1]),
            dcells=None if v.rnn else only[3] * d.dcells,
        )
        absent = d._replace(
            dy=d.dy if only[0] else None,
            dstate=(d.dstate[0] if only[1] else None, d.dstate[1] if only[2] else None),
            dcells=d.dcells if only[3] and not v.rnn else None,
        )
        want = train(v, net, zeros)[0]
        for key, value in train(v, net, absent)[0].items():
            np.testing.assert_array_equal(value, want[key], err_msg=f"{key}, {k}")


@pytest.mark.parametrize("name", [n for n in SINGLE if "activations" not in SINGLE[n]])
def test_into_given_arrays(name):
    """`out` is overwritten, with `accumulate` it is added to; without gradients of inputs the rest is what it was."""
    v = single(name, 9)
    net, d = model(v), data(v)
    want, tape = train(v, net, d)
    dstate = d.dstate[0] if v.rnn else d.dstate
    more = {} if v.rnn else {"dcells": d.dcells}
    out = {key: np.full_like(value, np.nan) for key, value in net.params.items()}
    grads = net.backward(tape, d.dy, dstate, out=out, input_grad=False, state_grad=False, **more)
    assert grads.x is grads.h0 is None
    for key, value in out.items():
        assert grads.params[key] is value
        assert same_bits(value, want[key]), key
    net.backward(tape, d.dy, dstate, out=out, accumulate=True, **more)
    right = verdict(v, net, d, tape.dropped if v.chance else None)
    twice = {key: 2 * right.want[key] for key in out}
    allowed = {key: 3 * right.allowed[key] for key in out}  # twice the sum, and the rounding of the sum of two
    compare(out, right._replace(want=twice, allowed=allowed), v)
