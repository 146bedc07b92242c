"""The core's promises hold for every option: results are equal to the last bit over threads, batches, calls, chunks."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import quadgate as qg
from support.cases import CHANCE, data, infer, keywords, model, same_bits
from support.cases import train as both_ways
from support.options import COMBINED, NAMES, SINGLE, variant

pytestmark = pytest.mark.numbers

every_variant = pytest.mark.parametrize("name", NAMES + COMBINED)


def assert_same(got, want, what=""):
    for name, value in want.items():
        assert same_bits(got[name], value), f"{what} {name} differs in {np.sum(got[name] != value)} elements"


@every_variant
def test_threads(name):
    """Masks, outputs, states, traces and every gradient, at sizes that are split over rows and over units."""
    sizes = [{"hidden": 20}, {"hidden": 150, "batch": 1, "inputs": 70}, {"hidden": 70, "batch": 40, "inputs": 30}]
    for size in sizes:
        v = variant(name, **size)
        net, d = model(v), data(v)
        qg.set_num_threads(1)
        want, tape = both_ways(v, net, d)
        for threads in (2, 3):
            qg.set_num_threads(threads)
            for _ in range(2):
                got, other = both_ways(v, net, d)
                assert_same(got, want)
                assert_same(other.dropped, tape.dropped)
                assert other.dropped.keys() == tape.dropped.keys()


@every_variant
def test_calls(name):
    """Called again, with and without a tape, after calls of other sizes have used the network's memory."""
    v = variant(name)
    net, d = model(v), data(v)
    want, _ = both_ways(v, net, d)
    alone = infer(v, net, d, cells=True)
    if not v.chance:
        assert_same(alone, {key: want[key] for key in alone})
    for other in (replace(v, steps=2, batch=5), replace(v, steps=30, batch=2)):
        both_ways(other, net, data(other))
    assert_same(infer(v, net, d, cells=True), alone)
    assert_same(both_ways(v, net, d)[0], want)


@every_variant
def test_a_row_is_the_same_in_every_batch(name):
    """In inference, where no masks of the batch's shape are drawn, and in training where there are none."""
    v = variant(name, batch=7, resets=True)
    net, d = model(v), data(v)
    call = partial(infer, cells=True) if v.chance else lambda *given: both_ways(*given)[0]
    want = call(v, net, d)
    across = {key: value for key, value in want.items() if key not in net.params}
    for rows in ([0], [3], [6], [5, 1], [6, 5, 4, 3, 2, 1, 0]):

        def some(a):
            return None if a is None else np.ascontiguousarray(a[:, rows])  # noqa: B023

        part = d._replace(
            x=some(d.x),
            state=(some(d.state[0]), some(d.state[1])),
            resets=some(d.resets),
            dy=some(d.dy),
            dstate=(some(d.dstate[0]), some(d.dstate[1])),
            dcells=some(d.dcells),
        )
        got = call(replace(v, batch=len(rows)), net, part)
        for key, value in across.items():
            axis = 2 if key.startswith(("trace", "dh_norm", "dc_norm")) else 1
            assert same_bits(got[key], np.take(value, rows, axis)), f"{key} of rows {rows}"


@every_variant
def test_a_sequence_is_the_same_in_chunks(name):
    """The state passed on; a network that only goes backwards takes its chunks from the last to the first."""
    v = variant(name, steps=13, lengths=False)
    if v.directions == 2:
        v = replace(v, options={k: value for k, value in v.options.items() if k not in ("bidirectional", "merge")})
    net, d = model(v), data(v)
    whole = infer(v, net, d, cells=True)
    for sizes in ([1] * 13, [12, 1], [1, 2, 3, 5, 2]):
        ends = np.cumsum([0, *sizes])
        chunks = list(itertools.pairwise(ends))
        state, parts = d.state, {}
        for first, last in chunks if v.one_way else chunks[::-1]:
            part = infer(v, net, d._replace(x=d.x[first:last], state=state), cells=True)
            state = (part["h"], part.get("c", d.state[1]))
            parts[first] = part
        joined = {key: np.concatenate([parts[k][key] for k in sorted(parts)]) for key in ("y", "cells") if key in whole}
        assert_same(joined | {"h": state[0], "c": state[1]}, whole)


@pytest.mark.parametrize("name", [n for n in NAMES if any(k in SINGLE[n] for k in CHANCE)] + COMBINED)
def test_a_seed_is_a_result(name):
    """The same seed gives the same masks and numbers, as an int or a Generator, and another seed gives others."""
    v = variant(name, batch=6)
    if not v.chance:
        v = replace(v, options=v.options | {"recurrent_dropout": 0.5})
    net, d = model(v), data(v)
    want, tape = both_ways(v, net, d, 5)
    got, again = both_ways(v, net, d, np.random.default_rng(5))
    assert_same(got, want)
    assert_same(again.dropped, tape.dropped)
    other, another = both_ways(v, net, d, 6)
    assert all((another.dropped[key] != tape.dropped[key]).any() for key in tape.dropped)
    assert not same_bits(other["y"], want["y"])
    # Without a seed the network draws from its own generator, which began with the constructor's.
    twins = [model(v), model(v)]
    several = [[net.forward(d.x, *states(v, d))[0] for _ in range(2)] for net in twins if not v.batch_first]
    if several:
        assert same_bits(several[0][0], several[1][0])
        assert same_bits(several[0][1], several[1][1])
        assert not same_bits(several[0][0], several[0][1])


def states(v, d):
    return (d.state[0],) if v.rnn else (d.state,)


@every_variant
def test_masks_are_drawn_as_often_as_they_say(name):
    """Shapes and order of the masks are those of the documentation; a share within 6 deviations of its p."""
    v = variant(name, steps=40, batch=20, hidden=30)
    net, d = model(v), data(v)
    masks = both_ways(v, net, d)[1].dropped
    share = {k: v.options.get(k, 0.0) for k in ("weight_drop", "recurrent_dropout", "dropout")}
    share |= dict(zip(("zoneout_h", "zoneout_c"), v.options.get("zoneout", (0.0, 0.0)), strict=True))
    shapes = {
        "weight_drop": ((1 if v.rnn else 4) * v.hidden, v.columns),
        "recurrent_dropout": (v.batch, v.columns),
        "zoneout_h": (v.steps, v.batch, v.columns),
        "zoneout_c": (v.steps, v.batch, v.hidden),
    }
    want = {}
    for k in range(v.layers):
        for end in (f"_l{k}", f"_l{k}_reverse")[: v.directions]:
            want |= {kind + end: shape for kind, shape in shapes.items() if share[kind]}
        if share["dropout"] and k < v.layers - 1:
            want[f"dropout_l{k}"] = (v.steps, v.batch, v.outputs)
    assert list(masks) == list(want)
    rng = np.random.default_rng(v.seed)
    for key, mask in masks.items():
        assert mask.shape == want[key]
        assert mask.dtype == bool
        assert not mask.flags.writeable
        p = share[key[: key.rindex("_l")]]
        numbers = rng.integers(0, 2**64, -(-mask.size // 2), np.uint64).view("<u4")[: mask.size]
        drawn = numbers.reshape(mask.shape) < round(p * 2**32)
        np.testing.assert_array_equal(mask, drawn, err_msg=key)
        assert abs(mask.mean() - p) <= 6 * np.sqrt(p * (1 - p) / mask.size)


@every_variant
def test_out_is_what_is_returned(name):
    v = variant(name)
    net, d = model(v), data(v)
    wanted, *_ = net(*arguments(v, d), **keywords(v, d))
    out = np.full_like(wanted, np.nan)
    y, *_ = net(*arguments(v, d), out=out, **keywords(v, d))
    assert y is out
    assert same_bits(out, wanted)


def arguments(v, d):
    return (d.x.swapaxes(0, 1) if v.batch_first else d.x, *states(v, d))
