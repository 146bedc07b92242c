"""Forward and backward agree with the float64 reference: every tail, every option, drawn shapes, large shapes.

Inference, training forward and backward; see bounds.py for the judges.
"""

from __future__ import annotations

import dataclasses
import itertools
import os

import numpy as np
import pytest
import quadgate as qg
from hypothesis import given
from hypothesis import strategies as st
from support import bounds
from support.cases import DTYPES, SIZES, Array, Case, Data, data, infer, model, plain, run, same_bits
from support.judgements import shared
from support.verdicts import judge

pytestmark = pytest.mark.numbers

double_slowly = pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
# At least one gradient; dcells is for test_variants.py.
GIVEN = [(*given, False) for given in itertools.product((True, False), repeat=3) if any(given)]


@shared
def expected(case: Case, params: dict[str, Array], d: Data) -> dict[str, Array]:
    """The reference's results."""
    return dict(judge(case, params, d)[0])


@shared
def running_bounds(case: Case, weights: dict[str, Array], d: Data) -> dict[str, Array]:
    """The error allowed in each number of each result, by the rounding of every operation."""
    y, (h, c), tapes = bounds.forward(case.dtype, weights, d.x, d.state, d.lengths, **case.kind)
    dx, dh0, dc0, dparams = bounds.backward(case.dtype, weights, tapes, d.dy, d.dstate, **case.kind)
    errors = {"y": y, "h": h, "c": c, "dx": dx, "dh0": dh0, "dc0": dc0, **dparams}
    return {name: error.e for name, error in errors.items()}


def check(case: Case, *, running: bool = True, norm: bool = True) -> None:
    """Hold inference, training forward and backward of one case against the reference."""
    lstm, d = model(case), data(case)._replace(dcells=None)
    without_tape, got = infer(case, lstm, d), run(case, lstm, d)
    want = expected(case, dict(lstm.params), d)
    for name, value in got.items():
        assert value.dtype == case.dtype, f"{case}: {name} is {value.dtype}"
    for name, value in without_tape.items():
        assert same_bits(value, got[name]), f"{case}: {name} differs between inference and training"
    if running:
        weights = {name: np.asarray(value, np.float64) for name, value in lstm.params.items()}
        errors = running_bounds(case, weights, d)
        assert list(got) == list(errors)
        for name, value in got.items():
            bounds.assert_within(value, want[name], errors[name], f"{case}: {name}")
    if norm:
        depth = case.steps * case.layers
        ahead = bounds.norm_bound(case.dtype, case.inputs + case.hidden + 1, depth)
        back = bounds.norm_bound(case.dtype, 9 * max(4 * case.hidden, case.batch), depth, backward=True)
        for name, value in got.items():
            bounds.assert_norm(value, want[name], ahead if name in without_tape else back, f"{case}: {name}")


def test_the_instruction_set_asked_for_is_the_one_in_use():
    info = qg.cpu_info()
    assert info["isa"] in info["supported"]
    if os.environ.get("QUADGATE_ISA"):
        assert info["isa"] == os.environ["QUADGATE_ISA"]


@double_slowly
@pytest.mark.parametrize("row", range(len(SIZES)), ids=[f"H{h}" for h in SIZES])
def test_every_pair_of_tail_sizes(row, dtype):
    """A Latin square: with B from the sum of the other two's places, every pair of (I, H), (B, H) and (B, I) occurs."""
    for column, inputs in enumerate(SIZES):
        batch = SIZES[(row + column) % len(SIZES)]
        n = row * len(SIZES) + column
        options = {"bias": n % 3 != 0, "lengths": n % 4 == 1, "bidirectional": n % 5 == 2, "state": n % 7 != 3}
        check(plain(1 + n % 5, batch, inputs, SIZES[row], dtype=dtype, seed=n, **options))


@double_slowly
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_combination_of_options(layers, bidirectional, dtype):
    flags = itertools.product((False, True), repeat=4)
    for n, (bias, batch_first, lengths, state) in enumerate(flags):
        some = {"bias": bias, "batch_first": batch_first, "lengths": lengths, "state": state}
        check(plain(4, 7, 9, 11, layers, bidirectional, dtype=dtype, seed=n, given=GIVEN[n % 7], **some))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_unbatched(layers, bidirectional, dtype):
    for n, (batch_first, state, steps) in enumerate(itertools.product((False, True), (False, True), (1, 6))):
        case = plain(steps, 1, 5, 18, layers, bidirectional, batch_first=batch_first, unbatched=True, state=state)
        check(dataclasses.replace(case, dtype=dtype, seed=n))


@pytest.mark.slow
@given(data_=st.data())
def test_drawn_shapes(data_):
    size = st.integers(1, 70)
    flag = st.booleans()
    case = plain(
        steps=data_.draw(st.integers(1, 8)),
        batch=data_.draw(st.integers(1, 40)),
        inputs=data_.draw(size),
        hidden=data_.draw(size),
        layers=data_.draw(st.integers(1, 3)),
        bidirectional=data_.draw(flag),
        bias=data_.draw(flag),
        batch_first=data_.draw(flag),
        lengths=data_.draw(flag),
        state=data_.draw(flag),
        given=data_.draw(st.sampled_from(GIVEN)),
        dtype=data_.draw(st.sampled_from(DTYPES)),
        seed=data_.draw(st.integers(0, 2**16)),
    )
    if data_.draw(flag):
        case = dataclasses.replace(case, batch=1, unbatched=True, lengths=False)
    check(case, norm=False)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "case",
    [
        plain(40, 1, 130, 257),  # batch 1, two panels at a time, input projected ahead in chunks
        plain(150, 2, 20, 33, dtype="float64"),  # many more steps than one chunk
        plain(6, 64, 130, 257),  # large batch, input and state in one product
        plain(6, 61, 64, 128, 2, True, lengths=True),
        plain(30, 3, 40, 96, 3, True, dtype="float64"),
        plain(300, 5, 3, 4, lengths=True),  # steps of no work to speak of
    ],
    ids=lambda case: f"T{case.steps}-B{case.batch}-I{case.inputs}-H{case.hidden}-{case.dtype}",
)
def test_large(case, threads):
    qg.set_num_threads(threads)
    check(case, running=False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l1", "bias_l1_reverse"])
def test_the_judges_notice_a_wrong_weight(name, dtype):
    """Both judges refuse a result computed with one weight that is 2 % off: they are not too wide to fail."""
    case = plain(3, 4, 6, 10, 2, True, dtype=dtype)
    lstm, d = model(case), data(case)
    want, _ = judge(case, lstm.params, d)
    weights = {key: np.asarray(value, np.float64) for key, value in lstm.params.items()}
    y, _, _ = bounds.forward(dtype, weights, d.x, d.state, d.lengths, **case.kind)
    np.testing.assert_allclose(y.v, want.y, rtol=1e-12, atol=1e-12)
    with lstm.writable() as params:
        largest = np.unravel_index(np.abs(params[name]).argmax(), params[name].shape)
        params[name][largest] *= 1.02
    got = run(case, lstm, d)
    with pytest.raises(AssertionError, match="too far off"):
        bounds.assert_within(got.y, want.y, y.e, "y")
    with pytest.raises(AssertionError, match="off by"):
        bounds.assert_norm(got.y, want.y, bounds.norm_bound(dtype, 17, 6), "y")
