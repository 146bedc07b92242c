"""A stream with masks: steps, runs and one call give the same bits; rows that are masked stay as they are."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
import quadgate as qg
from support.cases import Case, data, infer, model, same_bits, to_layout

pytestmark = pytest.mark.numbers

NETS = {
    "plain": {},
    "layers": {"num_layers": 3, "proj_size": 5, "peephole": True},
    "dense": {"num_layers": 2, "shortcut": "dense", "zoneout": (0.2, 0.3)},
    "highway": {"num_layers": 2, "shortcut": "highway"},
    "rnn": {"nonlinearity": "tanh", "num_layers": 2},
}


def state_of(v, d):
    return d.state[0] if v.rnn else d.state


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("padding", ["zero", "last"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_steps_runs_and_calls_are_equal(name, padding, batch_first):
    if (name, padding) == ("highway", "last"):
        pytest.skip("y of a highway is not in the state")
    v = Case(9, 4, 5, 12, NETS[name], mask="any", padding=padding, batch_first=batch_first)
    net, d = model(v), data(v)
    d.x[~d.mask] = np.nan
    whole = infer(v, net, d, cells=True)
    for cuts in ([1] * 9, [9], [2, 1, 5, 1]):
        stream = net.stream(4)
        stream.state = state_of(v, d)
        at, y = 0, []
        for size in cuts:
            x, mask = d.x[at : at + size], d.mask[at : at + size]
            if size == 1:
                y.append(stream.step(x[0], mask=mask[0], padding_output=padding)[None])
            else:
                given = [to_layout(v, a) for a in (x, mask)]
                got = stream.run(given[0], mask=given[1], padding_output=padding)
                y.append(got.swapaxes(0, 1) if batch_first else got)
            at += size
        assert same_bits(np.concatenate(y), whole.y)
        h, c = (stream.state, None) if v.rnn else stream.state
        assert same_bits(h, whole.h)
        assert v.rnn or same_bits(c, whole.c)


def test_steps_without_a_mask_in_between():
    v = Case(4, 3, 5, 12, mask="any", padding="last")
    net, d = model(v), data(v)
    stream, plain = net.stream(3), net.stream(3)
    first = stream.step(d.x[0])
    assert same_bits(first, plain.step(d.x[0], mask=[1, 1, 1]))
    again = stream.step(d.x[1], mask=[True, False, True], padding_output="last")
    assert same_bits(again[1], first[1])
    assert same_bits(again[[0, 2]], plain.step(d.x[1])[[0, 2]])
    before = copy.deepcopy(stream.state)
    assert not stream.step(d.x[2], mask=[False] * 3).any()
    assert all(same_bits(a, b) for a, b in zip(stream.state, before, strict=True))
    moved = pickle.loads(pickle.dumps(stream))
    assert same_bits(moved.step(d.x[3], mask=[0, 1, 1]), stream.step(d.x[3], mask=[0, 1, 1]))


def test_resets_cells_and_out():
    v = Case(6, 3, 5, 12, mask="any", padding="last", resets=True)
    net, d = model(v), data(v)
    d = d._replace(state=None)
    whole, stream = infer(v, net, d, cells=True), net.stream(3)
    out = np.empty((6, 3, 12), np.float32)
    y, cells = stream.run(d.x, out, resets=d.resets, mask=d.mask, padding_output="last", return_cells=True)
    assert y is out
    assert same_bits(y, whole.y)
    assert same_bits(cells, whole.cells)


@pytest.mark.parametrize("kind", [qg.LSTM, qg.RNN])
def test_one_row_without_a_batch_axis(kind):
    net = kind(3, 4, rng=0)
    x, mask = np.ones((5, 3), np.float32), np.array([1, 0, 1, 1, 0], bool)
    want = net(x, mask=mask)[0]
    stream = net.stream()
    assert same_bits(stream.run(x, mask=mask), want)
    stream.reset()
    out = np.empty(4, np.float32)
    for t in range(5):
        assert stream.step(x[t], out, mask=mask[t]) is out
        assert same_bits(out, want[t])


def test_errors_name_the_argument_and_leave_the_state():
    net = qg.LSTM(3, 4, 2, shortcut="residual", rng=0)
    stream, x = net.stream(2), np.ones((2, 3), np.float32)
    stream.step(x)
    before = copy.deepcopy(stream.state)
    with pytest.raises(ValueError, match=r"mask must have shape \(2,\).*got \(3,\)"):
        stream.step(x, mask=[True] * 3)
    with pytest.raises(ValueError, match=r"mask must have shape \(5, 2\).*got \(2, 5\)"):
        stream.run(np.ones((5, 2, 3)), mask=np.ones((2, 5), bool))
    with pytest.raises(TypeError, match="mask must hold bools"):
        stream.step(x, mask=[0.0, 1.0])
    with pytest.raises(ValueError, match="padding_output must be 'zero'"):
        stream.step(x, mask=[True, False], padding_output="last")
    with pytest.raises(ValueError, match="padding_output must be 'zero' or 'last', got 'lost'"):
        stream.run(x[None], mask=[[True, False]], padding_output="lost")
    with pytest.raises(ValueError, match="out must have shape"):
        stream.step(x, np.empty((2, 5), np.float32), mask=[True, False])
    assert all(same_bits(a, b) for a, b in zip(stream.state, before, strict=True))


def test_rows_side_by_side_do_not_matter():
    v = Case(7, 5, 5, 12, mask="any")
    net, d = model(v), data(v)
    whole = net.stream(5).run(d.x, mask=d.mask)
    for b in range(5):
        one = replace(v, batch=1)
        assert one.batch == 1
        assert same_bits(net.stream().run(d.x[:, b : b + 1], mask=d.mask[:, b : b + 1]), whole[:, b : b + 1])
