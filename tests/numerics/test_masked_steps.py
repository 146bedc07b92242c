"""A masked step is skipped: the reference's plain loop, the sequence without it, and central differences say the same.

With every option, with lengths and resets, on the left, the right and anywhere, y zero or repeated.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import quadgate as qg
from hypothesis import given
from hypothesis import strategies as st
from quadgate import _masking, reference
from support.cases import Case, data, infer, model, run, same_bits, train
from support.options import COMBINED, NAMES, random_options, variant
from support.verdicts import check

pytestmark = pytest.mark.numbers

PLACES = ("left", "right", "any", "none")


def joined(v):
    """Return True if the directions have no last y of their own."""
    return v.bidirectional and v.options.get("merge", "concat") != "concat"


@pytest.mark.parametrize("name", NAMES + COMBINED)
def test_every_option_against_the_reference(name):
    more = ("left", "right", "any")[len(name) % 3]
    for place, last in ((more, False), ("any", True)):
        v = variant(name, steps=6, batch=5, mask=place, lengths=last, resets=True)
        check(replace(v, padding="last" if last and not joined(v) else "zero"))


@pytest.mark.slow
@given(st.data())
def test_drawn_cases_against_the_reference(drawn):
    def pick(values):
        return drawn.draw(st.sampled_from(values))

    hidden = pick((3, 8, 17))
    v = Case(
        steps=pick((5, 1, 2, 9)),
        batch=pick((3, 1, 6)),
        inputs=4,
        hidden=hidden,
        options=random_options(pick, hidden),
        mask=pick(PLACES),
        lengths=pick((False, True)),
        resets=pick((False, True)),
        state=pick((True, False)),
        batch_first=pick((False, True)),
        dtype=pick(("float32", "float64")),
        seed=drawn.draw(st.integers(0, 999)),
    )
    if v.batch == 1 and pick((False, True)):
        v = replace(v, unbatched=True, lengths=False)
    check(replace(v, padding="zero" if joined(v) else pick(("last", "zero"))))


def test_the_value_of_the_issue():
    lstm = qg.LSTM(1, 1, bidirectional=True, dtype=np.float64)
    with lstm.writable() as params:
        for value in params.values():
            value[...] = 0.5
    x, mask = np.array([[0.0], [0.0], [1.0], [2.0]]), np.array([False, False, True, True])
    np.testing.assert_allclose(lstm(x, mask=mask)[1][0].ravel(), [0.71722695, 0.65780668], rtol=0, atol=5e-9)


NETS = {
    "plain": {},
    "reverse": {"reverse": True},
    "bidirectional": {"bidirectional": True, "num_layers": 2},
    "mul": {"bidirectional": True, "num_layers": 2, "merge": "mul", "shortcut": "dense"},
    "highway": {"num_layers": 3, "shortcut": "highway"},
    "options": {"proj_size": 5, "peephole": True, "layer_norm": "cell", "bidirectional": True, "zoneout": (0.2, 0.3)},
    "rnn": {"nonlinearity": "tanh", "bidirectional": True},
}
every_net = pytest.mark.parametrize("name", NETS)


@every_net
@pytest.mark.parametrize("place", ["left", "right", "any"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_row_is_the_sequence_without_its_masked_steps(name, place, batch_first):
    """Bit for bit, whatever masked steps hold."""
    v = Case(9, 6, 5, 12, NETS[name], mask=place, batch_first=batch_first)
    net, d = model(v), data(v)
    d.x[~d.mask] = np.nan
    whole, alone = infer(v, net, d, cells=True), replace(v, mask="", batch=1)
    for b in range(v.batch):
        kept = d.mask[:, b]
        part = d._replace(x=d.x[kept, b : b + 1], state=tuple(s[:, b : b + 1] for s in d.state), mask=None)
        want = infer(alone, net, part, cells=True)
        assert same_bits(whole.y[kept, b], want.y[:, 0])
        assert not whole.y[~kept, b].any()
        for key in want.keys() - {"y", "cells"}:
            assert same_bits(whole[key][:, b], want[key][:, 0]), key
        if "cells" in want:
            assert same_bits(whole.cells[kept, b], want.cells[:, 0])


@every_net
def test_masks_on_the_right_are_lengths(name):
    """To the last bit; but cells carry c on."""
    v = Case(8, 5, 5, 12, NETS[name], mask="right")
    net, d = model(v), data(v)
    with_mask, with_lengths = run(v, net, d), run(v, net, d._replace(mask=None, lengths=d.mask.sum(axis=0)))
    for key, value in with_mask.items():
        assert same_bits(value, with_lengths[key]), key


def test_masks_on_the_right_copy_nothing():
    o, x = qg.LSTM(2, 3)._options, np.ones((5, 2, 2), np.float32)
    for n in ([3, 5], [0, 0], [5, 5]):
        masking = _masking.Masking(o, (5, 2), np.arange(5)[:, None] < n, None, None, False)
        assert masking.gather(x) is x
        assert masking.y(x, None) is x
        assert masking.lengths.tolist() == n


@every_net
def test_a_mask_that_masks_nothing_changes_nothing(name):
    v = Case(6, 4, 5, 12, {**NETS[name], "recurrent_dropout": 0.3}, resets=True, lengths=True)
    net, d = model(v), data(v)
    want, _ = train(v, net, d)
    got, _ = train(v, net, d._replace(mask=np.ones((6, 4), bool)))
    for key, value in want.items():
        assert same_bits(got[key], value), key


@pytest.mark.parametrize("name", ["plain", "bidirectional", "rnn"])
def test_what_masked_steps_hold_reaches_no_gradient(name):
    v = Case(7, 4, 5, 12, NETS[name], mask="any", resets=True)
    net, d = model(v), data(v)
    want = run(v, net, d)
    d.x[~d.mask], d.dy[~d.mask] = np.nan, np.nan
    got = run(v, net, d)
    for key, value in want.items():
        assert same_bits(got[key], value), key
    assert not got.dx[~d.mask].any()


@pytest.mark.parametrize("name", ["plain", "reverse", "bidirectional", "highway", "options"])
@pytest.mark.parametrize("padding", ["zero", "last"])
def test_gradients_against_central_differences(name, padding):
    v = Case(5, 3, 3, 4, NETS[name], mask="any", resets=True, lengths=True, padding=padding, dtype="float64")
    v = replace(v, options={k: n for k, n in v.options.items() if k not in ("zoneout", "proj_size")})
    net, d = model(v), data(v)
    got, _ = train(v, net, d)
    call = {"lengths": d.lengths, "resets": d.resets, "mask": d.mask, "padding_output": padding}

    def loss():
        y, (h, c), cells = net(d.x, d.state, return_cells=True, **call)
        pairs = ((y, d.dy), (h, d.dstate[0]), (c, d.dstate[1]), (cells, d.dcells))
        return sum(float((a * da).sum()) for a, da in pairs)

    def slope(value, at, step=1e-6):
        here = value[at]
        ends = []
        for moved in (here + step, here - step):
            value[at] = moved
            ends.append(loss())
        value[at] = here
        return (ends[0] - ends[1]) / (2 * step)

    for value, grad in ((d.x, got.dx), (d.state[0], got.dh0), (d.state[1], got.dc0)):
        for at in itertools.product(*map(range, value.shape)):
            assert slope(value, at) == pytest.approx(grad[at], abs=1e-7)


def test_resets_at_masked_steps_by_hand():
    """T = 5, the middle step is kept. Each reset alone, in both directions."""
    lstm = qg.LSTM(2, 3, bidirectional=True, dtype=np.float64, rng=0)
    x, kept = np.ones((5, 1, 2)), np.arange(5)[:, None] == 2
    state = np.ones((2, 1, 3)), np.ones((2, 1, 3))
    zeros = np.zeros((2, 1, 3)), np.zeros((2, 1, 3))
    from_ones, from_zeros = (lstm(x[:1], s)[1][0] for s in (state, zeros))
    forward = {0: from_zeros, 1: from_zeros, 2: from_zeros, 3: 0 * from_ones, 4: 0 * from_ones}
    reverse = {0: from_ones, 1: 0 * from_ones, 2: 0 * from_ones, 3: from_zeros, 4: from_zeros}
    for at in range(5):
        resets = np.arange(5)[:, None] == at
        for last in ("zero", "last"):
            _, (h, _) = lstm(x, state, mask=kept, resets=resets, padding_output=last)
            assert same_bits(h[0], forward[at][0])
            assert same_bits(h[1], reverse[at][1])
    _, (h, _) = lstm(x, state, mask=kept, resets=np.arange(5)[:, None] == 4, lengths=[4])
    assert same_bits(h, from_ones)


def test_y_repeats_the_last_one_until_a_reset():
    lstm = qg.LSTM(2, 3, dtype=np.float64, rng=0)
    x, h0 = np.ones((6, 2)), np.full((1, 3), 0.5)
    kept, resets = np.array([0, 1, 0, 0, 0, 1], bool), np.arange(6) == 3
    y, _, cells = lstm(x, (h0, h0), mask=kept, resets=resets, padding_output="last", return_cells=True)
    assert same_bits(y[0], h0[0])
    assert same_bits(cells[0], h0[0])
    assert same_bits(y[2], y[1])
    assert same_bits(cells[2], cells[1])
    for a in (y, cells):
        assert a[1].any()
        assert a[5].any()
        assert not a[3:5].any()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", ["plain", "bidirectional", "options", "rnn"])
@pytest.mark.parametrize("padding", ["zero", "last"])
def test_bits_do_not_depend_on_threads_or_batch(name, threads, padding):
    v = Case(9, 7, 5, 40, NETS[name], mask="any", resets=True, padding=padding)
    net, d = model(v), data(v)
    before = qg.get_num_threads()
    qg.set_num_threads(threads)
    try:
        whole = infer(v, net, d, cells=True)
    finally:
        qg.set_num_threads(before)
    for b in range(v.batch):
        row = d._replace(
            x=d.x[:, b : b + 1],
            state=tuple(s[:, b : b + 1] for s in d.state),
            resets=d.resets[:, b : b + 1],
            mask=d.mask[:, b : b + 1],
        )
        for key, value in infer(replace(v, batch=1), net, row, cells=True).items():
            assert same_bits(value, whole[key][:, b : b + 1]), key


@pytest.mark.parametrize("name", ["plain", "highway"])
@pytest.mark.parametrize("padding", ["zero", "last"])
def test_calls_that_pass_the_state_on_are_one_call(name, padding):
    if (name, padding) == ("highway", "last"):
        pytest.skip("y of a highway is not in the state")
    v = Case(9, 5, 5, 12, NETS[name], mask="any", resets=True, padding=padding)
    net, d = model(v), data(v)
    whole = infer(v, net, d, cells=True)
    state, y = d.state, []
    for a, b in ((0, 1), (1, 4), (4, 9)):
        part = d._replace(x=d.x[a:b], state=state, resets=d.resets[a:b], mask=d.mask[a:b])
        found = infer(replace(v, steps=b - a), net, part, cells=True)
        state = found.h, found.c
        y.append(found.y)
    assert same_bits(np.concatenate(y), whole.y)
    assert same_bits(state[0], whole.h)
    assert same_bits(state[1], whole.c)


def test_masks_of_dropout_do_not_depend_on_masked_steps():
    """They keep the time axis of x, and those of kept steps are those that act."""
    v = Case(6, 3, 4, 5, {"num_layers": 2, "dropout": 0.5, "zoneout": (0.3, 0.3)}, mask="any")
    net, d = model(v), data(v)
    *_, tape = net.forward(d.x, rng=1, mask=d.mask)
    *_, other = net.forward(d.x, rng=1)
    assert tape.dropped.keys() == other.dropped.keys()
    for name, value in tape.dropped.items():
        assert same_bits(value, other.dropped[name])
    assert tape.x_shape == d.x.shape
    params = {name: value.astype(np.float64) for name, value in net.params.items()}
    want = reference.forward(params, d.x, mask=d.mask, masks=tape.dropped, **v.options)[0]
    np.testing.assert_allclose(net.forward(d.x, rng=1, mask=d.mask)[0], want, rtol=0, atol=1e-5)


def test_out_and_accumulated_gradients():
    v = Case(6, 3, 4, 5, mask="any", padding="last")
    net, d = model(v), data(v)
    out = np.empty((6, 3, 5), np.float32)
    assert net(d.x, mask=d.mask, padding_output="last", out=out)[0] is out
    assert same_bits(out, net(d.x, mask=d.mask, padding_output="last")[0])
    *_, tape = net.forward(d.x, mask=d.mask, padding_output="last")
    assert tape.nbytes > tape._core.nbytes
    want = net.backward(tape, d.dy)
    into = {name: np.zeros_like(value) for name, value in net.params.items()}
    for _ in range(2):
        grads = net.backward(tape, d.dy.tolist(), out=into, accumulate=True, input_grad=False, state_grad=False)
    assert grads.x is grads.h0 is grads.c0 is None
    assert same_bits(net.backward(tape, d.dy, state_grad=False).x, want.x)
    for name, value in want.params.items():
        np.testing.assert_allclose(into[name], 2 * value, rtol=1e-6)


@pytest.mark.parametrize("block", [1, 100, 700, 1 << 18])
@pytest.mark.parametrize("unbatched", [False, True])
def test_y_is_moved_in_blocks_of_any_size(block, unbatched, monkeypatch):
    """Within its own memory; the tape's y is moved in another way."""
    monkeypatch.setattr(_masking, "BLOCK", block)
    v = Case(23, 1 if unbatched else 4, 3, 8, mask="any", unbatched=unbatched, padding="last")
    net, d = model(v), data(v)
    assert same_bits(infer(v, net, d).y, run(v, net, d).y)
