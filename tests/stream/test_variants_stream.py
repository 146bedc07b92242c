"""A stream is the whole call, step by step, for every option that makes sense in one."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import quadgate as qg
from support.cases import data, infer, model, same_bits
from support.options import COMBINED, NAMES, SINGLE, variant

pytestmark = pytest.mark.numbers

ONE_WAY = [n for n in NAMES if not {"bidirectional", "reverse"} & SINGLE[n].keys()]
every_variant = pytest.mark.parametrize("name", ONE_WAY + COMBINED)


def one_way(name, **call):
    v = variant(name, **call)
    kept = {k: value for k, value in v.options.items() if k not in ("bidirectional", "merge", "reverse")}
    return replace(v, options=kept, batch_first=False)


def state_of(v, d):
    return d.state[0] if v.rnn else d.state


def assert_ends(v, stream, whole):
    h, c = (stream.state, None) if v.rnn else stream.state
    assert same_bits(h, whole["h"])
    assert v.rnn or same_bits(c, whole["c"])


@pytest.mark.parametrize("threads", [1, 2])
@every_variant
def test_steps_and_runs(name, threads):
    """step, run, both; masks of training play no part: options of chance act by expectation."""
    qg.set_num_threads(threads)
    for batch in (1, 6):
        v = one_way(name, steps=9, batch=batch)
        net, d = model(v), data(v)
        whole = infer(v, net, d, cells=True)
        stream = net.stream(batch)
        for cuts in ([1] * 9, [9], [2, 1, 1, 5]):
            stream.reset()
            stream.state = state_of(v, d)
            at = 0
            for size in cuts:
                part = d.x[at : at + size]
                y = stream.step(part[0]) if size == 1 else stream.run(part)
                assert same_bits(y, whole["y"][at] if size == 1 else whole["y"][at : at + size])
                at += size
            assert_ends(v, stream, whole)


@every_variant
def test_resets(name):
    """`run` with resets, and `reset` of the same rows before each step, are the call with resets."""
    v = one_way(name, steps=8, batch=4, resets=True)
    net, d = model(v), data(v)
    whole = infer(v, net, d, cells=True)
    stream = net.stream(4)
    stream.state = state_of(v, d)
    y = [stream.run(d.x[:5], resets=d.resets[:5]), stream.run(d.x[5:], resets=d.resets[5:])]
    assert same_bits(np.concatenate(y), whole["y"])
    assert_ends(v, stream, whole)
    stream.state = state_of(v, d)
    for t in range(8):
        stream.reset(d.resets[t])
        assert same_bits(stream.step(d.x[t]), whole["y"][t])
    assert_ends(v, stream, whole)


@every_variant
def test_into_given_arrays(name):
    v = one_way(name, steps=4, batch=3)
    net, d = model(v), data(v)
    first, second = net.stream(3), net.stream(3)
    out = np.full((4, 3, v.outputs), np.nan, v.dtype)
    assert first.run(d.x, out=out) is out
    assert same_bits(second.run(d.x), out)
    one = np.full((3, v.outputs), np.nan, v.dtype)
    assert first.step(d.x[0], out=one) is one
    assert same_bits(second.step(d.x[0]), one)


@pytest.mark.parametrize("options", [{"reverse": True}, {"bidirectional": True}])
def test_no_stream_backwards(options):
    for make in (qg.LSTM, qg.RNN):
        with pytest.raises(ValueError, match=next(iter(options))):
            make(3, 4, **options).stream()


@every_variant
def test_cells(name):
    """c of the last layer at every step, in whatever chunks; the same through lists, and without a batch axis."""
    v = one_way(name, steps=7, batch=1)
    if v.rnn:
        pytest.skip("an RNN has no cells")
    net, d = model(v), data(v)
    y, _, cells = net(d.x, d.state, return_cells=True)
    for split in ([7], [3, 4]):
        stream = net.stream(1)
        stream.state = d.state
        at = 0
        for size in split:
            part = d.x[at : at + size]
            for x in (part, part.tolist(), part[:, 0]):
                again = copy.deepcopy(stream)
                y_part, c_part = again.run(x, return_cells=True)
                assert same_bits(y_part.reshape(y[at : at + size].shape), y[at : at + size])
                assert same_bits(c_part.reshape(cells[at : at + size].shape), cells[at : at + size])
                assert c_part.ndim == np.ndim(x)
            stream.run(part)
            at += size
    with pytest.raises(TypeError, match="return_cells"):
        net.stream(1).run(d.x, return_cells=1)
