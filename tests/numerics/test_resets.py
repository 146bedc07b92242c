"""A reset row equals separate calls of its pieces: outputs, states, and gradients that do not cross the cut."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from support import bounds
from support.cases import Case, data, model, same_bits, train
from support.options import random_options, seeded
from support.verdicts import check

pytestmark = pytest.mark.numbers

NETS = {
    "plain": {},
    "reverse": {"reverse": True},
    "bidirectional": {"bidirectional": True},
    "three_layers": {"num_layers": 3, "shortcut": "highway"},
    "two_layers_both_ways": {"num_layers": 2, "bidirectional": True, "merge": "mul", "shortcut": "dense"},
    "everything": {"proj_size": 5, "peephole": True, "cell_clip": 0.4, "layer_norm": "cell", "bidirectional": True},
    "rnn": {"nonlinearity": "tanh", "bidirectional": True},
}
every_net = pytest.mark.parametrize("name", NETS)


def pieces(resets, n):
    """Begin and end of the pieces of one row of length n."""
    cuts = [0, *(t for t in range(1, n) if resets[t]), n]
    return list(itertools.pairwise(cuts))


def backwards(v):
    """For each row of a state, whether its direction goes backwards."""
    both = [False, True] if v.directions == 2 else [bool(v.options.get("reverse"))]
    return np.array(both * v.layers)


@every_net
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_reset_row_is_its_pieces(name, dtype, lengths):
    """Bit for bit what concerns the row alone; sums over all rows and pieces as exactly as any order gives them."""
    v = Case(9, 6, 4, 10, NETS[name], lengths=lengths, resets=True, dtype=dtype, seed=len(name))
    net, d = model(v), data(v)
    d.resets[:, 0] = False
    d.resets[:, 1] = True
    d.resets[0, 2:4] = True, False
    found, _ = train(v, net, d)
    totals = {name: np.zeros(value.shape) for name, value in net.params.items()}
    sizes = dict(totals)
    states = ("h", "c")[: 1 if v.rnn else 2]
    turn = backwards(v)
    for row in range(v.batch):
        n = int(d.lengths[row]) if lengths else v.steps
        one = slice(row, row + 1)
        parts = pieces(d.resets[:, row], n) if n else []
        for first, last in parts:
            # The row's own states belong to the piece where the direction starts, and to that where it ends.
            starts = np.where(turn, last == n, first == 0 and not d.resets[0, row])[:, None, None]
            ends = np.where(turn, first == 0, last == n)[:, None, None]
            alone = data(replace(v, steps=last - first, batch=1, lengths=False, resets=False))._replace(
                x=d.x[first:last, one].copy(),
                state=tuple(np.where(starts, s[:, one], 0).astype(dtype) for s in d.state),
                dy=d.dy[first:last, one].copy(),
                dstate=tuple(np.where(ends, s[:, one], 0).astype(dtype) for s in d.dstate),
                dcells=None if v.rnn else d.dcells[first:last, one].copy(),
            )
            piece, _ = train(replace(v, steps=last - first, batch=1, lengths=False, resets=False), net, alone)
            for key in ("y", "cells")[: len(states)]:
                assert same_bits(found[key][first:last, one], piece[key]), f"{key} of row {row}, {first}:{last}"
            for key in states:
                for k in np.flatnonzero(ends):
                    assert same_bits(found[key][k, one], piece[key][k]), f"{key} of row {row}"
            relative = 2 * bounds.norm_bound(dtype, 9 * 4 * 10, v.steps * v.layers, backward=True)
            largest = np.abs(found["dx"]).max()
            assert np.abs(found["dx"][first:last, one] - piece["dx"]).max() <= relative * largest, f"dx of row {row}"
            for key in ("dh0", "dc0")[: len(states)]:
                for k in np.flatnonzero(starts):
                    off = np.abs(found[key][k, one] - piece[key][k]).max()
                    assert off <= relative * np.abs(found[key]).max(), f"{key} of row {row}"
            for key in totals:
                totals[key] += piece[key]
                sizes[key] = sizes[key] + np.abs(piece[key])
        if n == 0:
            for key in states:
                assert same_bits(found[key][:, one], d.state[states.index(key)][:, one])
        elif d.resets[0, row] and not turn.all():
            assert not found["dh0"][~turn, row].any()
    relative = 2 * bounds.norm_bound(dtype, 9 * 4 * 10, v.steps * v.batch * v.layers, backward=True)
    for key, total in totals.items():
        assert np.abs(found[key] - total).max() <= relative * sizes[key].max(), key


@every_net
def test_no_gradient_crosses_a_cut(name):
    """A loss of the steps on one side of a cut does not depend on the other side, nor on the state before it."""
    v = Case(8, 3, 4, 10, NETS[name], seed=1)
    net, d = model(v), data(v)
    resets = np.zeros((8, 3), bool)
    resets[5] = True
    d = d._replace(resets=resets, dstate=(None, None), dcells=None)
    for used, unused in ((slice(0, 5), slice(5, 8)), (slice(5, 8), slice(0, 5))):
        dy = np.zeros_like(d.dy)
        dy[used] = d.dy[used]
        found, _ = train(v, net, d._replace(dy=dy))
        assert not found["dx"][unused].any()
        assert found["dx"][used].all()
        for k, back in enumerate(backwards(v)):
            inside = used.start == (5 if back else 0)  # the side on which the direction starts
            assert found["dh0"][k].any() == inside
            if not v.rnn:
                assert found["dc0"][k].any() == inside


@every_net
def test_no_resets_are_no_resets(name):
    """An array of False, the first step's resets of zero states, and resets past the end change nothing at all."""
    v = Case(6, 4, 4, 10, NETS[name], lengths=True, state=False)
    net, d = model(v), data(v)
    want, _ = train(v, net, d)
    past = np.arange(6)[:, None] >= d.lengths
    first = np.zeros((6, 4), bool)
    first[0] = True
    for resets in (first & False, past, past | first):
        got, _ = train(v, net, d._replace(resets=resets))
        for key, value in want.items():
            if not (key in ("dh0", "dc0") and resets[0].all()):
                assert same_bits(got[key], value), key


@pytest.mark.parametrize("name", ["plain", "reverse", "bidirectional", "rnn"])
@pytest.mark.parametrize("lengths", [False, True])
def test_steps_together_and_apart(name, lengths):
    """Many short steps are done at once, up to the end of what is projected ahead of a wide input; resets part them."""
    v = Case(150, 3, 600, 10, NETS[name], lengths=lengths)
    net, d = model(v), data(v)
    want, _ = train(v, net, d)
    got, _ = train(v, net, d._replace(resets=np.zeros((150, 3), bool)))
    for key, value in want.items():
        assert same_bits(got[key], value), key


def test_layouts():
    """(T, B), (B, T) and (T,) say the same."""
    v = Case(6, 1, 4, 10, {"bidirectional": True, "num_layers": 2}, resets=True)
    d = data(v)
    want, _ = train(v, model(v), d)
    for layout in ({"batch_first": True}, {"unbatched": True}, {"batch_first": True, "unbatched": True}):
        other = replace(v, **layout)
        got, _ = train(other, model(other), d)
        for key, value in want.items():
            assert same_bits(got[key], value), f"{layout}: {key}"
    v = replace(v, batch=5)
    d = data(v)
    want, _ = train(v, model(v), d)
    got, _ = train(replace(v, batch_first=True), model(replace(v, batch_first=True)), d)
    for key, value in want.items():
        assert same_bits(np.ascontiguousarray(got[key]), value), key


@pytest.mark.slow
def test_episodes_of_different_lengths():
    """As recurrent reinforcement learning does: each row restarts when its episode ends, in every option's way."""
    for seed in range(25):
        chosen = random_options(seeded(seed), 9)
        check(Case(12, 4, 3, 9, chosen, resets=True, dtype="float64", seed=seed))
