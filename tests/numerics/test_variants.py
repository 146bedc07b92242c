"""Every option alone, and any combination of them, against the float64 reference; see verdicts.py for the bounds.

Inference and training, the latter with the masks that the network says it drew, forward and backward.
"""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import quadgate as qg
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from support.cases import DTYPES, SIZES, Case, data, infer, model, same_bits, train
from support.examples import TIMES, examples
from support.options import SINGLE, random_options, seeded, single
from support.verdicts import Unclear, check, compare, judge, verdict

pytestmark = pytest.mark.numbers

BATCHES = (1, 2, 3, 6, 7, 13, 33)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SINGLE)
def test_each_option(name, dtype):
    check(single(name, 17, lengths=dtype == "float64", dtype=dtype, seed=len(name)))


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGLE)
def test_each_option_at_every_tail(name):
    """Every H, every second for an activation; the type, B and the call's arguments vary with it.

    QUADGATE_TEST_EXAMPLES above 1 takes every H in both types.
    """
    start, stride = (len(name) % 2, 2) if "activations" in SINGLE[name] else (0, 1)
    for n, hidden in list(enumerate(SIZES))[start::stride]:
        for k, dtype in enumerate(DTYPES):
            at = n + 7 * k + len(name)
            if TIMES == 1 and (n // stride + len(name) // stride) % 2 != k:
                continue
            batch = BATCHES[at % 7] if hidden < 60 else BATCHES[at % 4]
            call = {"lengths": at % 4 == 1, "resets": at % 5 == 2, "state": at % 3 != 1}
            check(single(name, hidden, steps=1 + at % 4, batch=batch, dtype=dtype, seed=at, **call))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["proj_size", "proj_clip"])
def test_every_tail_of_a_projection(name, dtype):
    for n, columns in enumerate(SIZES):
        for batch in (BATCHES[n % 7], 4 - n % 2):
            call = {"batch": batch, "lengths": n % 3 == 1, "dtype": dtype, "seed": n}
            check(single(name, max(columns + 1 + n % 3, 12), columns, **call))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [b if b < 10 else pytest.param(b, marks=pytest.mark.slow) for b in BATCHES])
def test_combinations_at_every_batch(batch, dtype):
    for seed in range(12):
        pick = seeded(1000 * batch + seed)
        hidden = pick((6, 9, 17, 24, 33))
        check(drawn(pick, hidden, batch, dtype, seed))


def drawn(pick, hidden, batch, dtype, seed):
    flag, inputs = (False, True), pick((1, 3, 8, 17))
    given = [pick((True, True, False)) for _ in range(4)]
    given[0] |= not given[1]  # an RNN has no others, and backward needs one
    return Case(
        steps=pick((1, 2, 3, 5)),
        batch=batch,
        inputs=inputs,
        hidden=hidden,
        options=random_options(pick, hidden, inputs),
        lengths=pick(flag),
        resets=pick(flag),
        state=pick((True, False)),
        batch_first=pick(flag),
        unbatched=batch == 1 and pick(flag),
        given=tuple(given),
        dtype=dtype,
        seed=seed,
    )


def test_every_option_of_the_constructors_is_drawn():
    """By `drawn`, with a few exceptions that are named here."""
    names = {"input_size", "batch_first"}
    for seed in range(400):
        names |= drawn(seeded(seed), 20, 1, "float32", seed).options.keys()
    given = {"hidden_size", "dtype", "rng"}  # by the arguments of `drawn`
    first = {"initialization", "forget_bias"}  # change the first parameters only, which NumPy makes: see below
    for kind in (qg.LSTM, qg.RNN):
        assert set(inspect.signature(kind.__init__).parameters) - {"self"} <= names | given | first


def test_first_parameters_are_all_that_two_options_change():
    x = np.random.default_rng(0).normal(size=(3, 2, 5))
    for seed in range(12):
        pick = seeded(seed)
        sizes, dtype = (5, pick((1, 7, 17, 33)), pick((1, 2))), pick(DTYPES)
        options = {"initialization": pick(("pytorch", "keras")), "forget_bias": pick((None, 0.0, 1.5))}
        net, other = qg.LSTM(*sizes, dtype=dtype, rng=seed, **options), qg.LSTM(*sizes, dtype=dtype, rng=seed + 1)
        other.load_state_dict(net.state_dict())
        assert same_bits(net(x)[0], other(x)[0])


@pytest.mark.slow
@settings(max_examples=examples(100))
@given(st.data())
def test_drawn_combinations(source):
    def pick(sequence):
        return source.draw(st.sampled_from(sequence))

    v = drawn(pick, pick((1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 40)), pick(BATCHES), pick(DTYPES), pick(range(9)))
    try:
        check(v, attempts=8)
    except Unclear:
        reject()


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "name", ["peephole", "proj_size", "layer_norm_output", "layer_norm_cell", "zoneout", "highway"]
)
def test_large(name, threads):
    """Large enough to be split over threads: over rows, and, for one row, over units."""
    qg.set_num_threads(threads)
    check(single(name, 130, 70, steps=3, batch=48, inputs=90))
    check(single(name, 257, 129, steps=5, batch=1, inputs=130))
    check(single(name, 20, 9, steps=60, batch=3, inputs=7, resets=True))


def test_coupled_gates_leave_rows_unused():
    """The forget gate's weights, bias and peephole get no gradient, and their values do not matter."""
    v = single("coupled", 9, options={"coupled": True, "peephole": True})
    net, d = model(v), data(v)
    found, _ = train(v, net, d)
    unused = {"weight_ih_l0": slice(9, 18), "weight_hh_l0": slice(9, 18), "bias_l0": slice(9, 18), "peephole_l0": 1}
    for name, rows in unused.items():
        assert not found[name][rows].any(), name
    with net.writable() as params:
        for name, rows in unused.items():
            params[name][rows] += 3
    again, _ = train(v, net, d)
    for name, value in again.items():
        assert same_bits(value, found[name]), name


def test_padding_is_never_looked_at():
    """With any values past the rows' ends in x, resets, dy and dcells."""
    for seed in range(20):
        pick = seeded(seed)
        v = Case(5, 6, 4, 9, random_options(pick, 9), lengths=True, resets=True, seed=seed)
        net, d = model(v), data(v)
        past = np.arange(v.steps)[:, None] >= d.lengths
        want, _ = train(v, net, d)
        dirty = d._replace(x=d.x.copy(), resets=d.resets ^ past, dy=d.dy.copy())
        dirty.x[past] = dirty.dy[past] = np.nan
        if d.dcells is not None:
            dirty = dirty._replace(dcells=np.where(past[:, :, None], np.float32(np.nan), d.dcells))
        got, _ = train(v, net, dirty)
        for name, value in want.items():
            assert same_bits(got[name], value), f"{v}: {name}"
            if name in ("y", "cells", "dx"):
                assert not value[past].any(), f"{v}: {name}"


KINDS = ["weight_hr_l0", "peephole_l1", "norm_ih_l1", "norm_hh_l0", "norm_c_l1", "weight_highway_l1", "bias_highway_l1"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KINDS)
def test_the_judge_notices_a_wrong_parameter(name, dtype):
    """A result computed with one number that is a fifth off is refused: the bounds are not too wide to fail."""
    everything = {"num_layers": 2, "proj_size": 7, "peephole": True, "layer_norm": "output", "shortcut": "highway"}
    v = Case(3, 4, 5, 11, everything, dtype=dtype)
    net, d = model(v), data(v)
    right = verdict(v, net, d)
    with net.writable() as params:
        largest = np.unravel_index(np.abs(params[name]).argmax(), params[name].shape)
        params[name][largest] *= 1.2
    found, _ = train(v, net, d)
    for output in ("y", name):
        with pytest.raises(AssertionError, match=f"{output} is off by"):
            compare({output: found[output]}, right, v)


@pytest.mark.parametrize(
    "change", [{"peephole": True}, {"cell_clip": 0.4}, {"layer_norm": "output"}, {"coupled": True}]
)
def test_the_judge_notices_an_option_left_out(change):
    v = Case(3, 4, 5, 11, change)
    net, d = model(v), data(v)
    found, _ = train(v, net, d)
    weights = {name: value for name, value in net.params.items() if name[:6] in ("weight", "bias_l")}
    want, _ = judge(Case(3, 4, 5, 11), weights, d)
    wrong = verdict(v, net, d)._replace(want=want)
    with pytest.raises(AssertionError, match="y is off by"):
        compare({"y": found["y"]}, wrong, v)


@pytest.mark.parametrize("steps", [0, 3])
def test_nothing_to_do(steps):
    """No steps or no rows: empty results, states as they were, gradients of zeros."""
    for seed in range(30):
        pick = seeded(seed)
        v = Case(steps, 0 if steps else 2, 4, 9, random_options(pick, 9), resets=pick((False, True)), seed=seed)
        net, d = model(v), data(v)
        found, _ = train(v, net, d)
        assert found["y"].shape == (v.steps, v.batch, v.outputs)
        assert found["dx"].shape == d.x.shape
        for k, name in enumerate(("h", "c")[: 1 if v.rnn else 2]):
            assert same_bits(found[name], d.state[k])
            np.testing.assert_array_equal(found[f"d{name}0"], d.dstate[k])
        for name, value in net.params.items():
            assert found[name].shape == value.shape
            assert not found[name].any()
        assert all(same_bits(value, found[name]) for name, value in infer(v, net, d, cells=True).items())
