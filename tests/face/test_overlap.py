"""Arrays to write into must be apart: from the inputs, from each other, and no two elements in the same place."""

from __future__ import annotations

import re

import numpy as np
import pytest
import quadgate as qg
from numpy.lib.stride_tricks import as_strided

F = 4  # bytes of an element


def strided(shape, strides):
    """Return a float32 array of these strides in elements."""
    base = np.zeros(2000, np.float32)
    return as_strided(base[500:], shape, [s * F for s in strides])


# Shape (6, 3, 8) in strides that put two elements in the same place.
SELVES = {
    "zero_step": (0, 8, 1),
    "zero_row": (24, 0, 1),
    "zero_column": (24, 8, 0),
    "all_zero": (0, 0, 0),
    "rows_overlap": (24, 5, 1),
    "steps_overlap": (20, 8, 1),
    "columns_overlap_rows": (48, 8, 2),
    "backwards": (-20, 8, 1),
    "transposed": (8, 40, 1),
}


@pytest.mark.parametrize("strides", SELVES.values(), ids=SELVES)
def test_out_that_overlaps_itself(strides):
    lstm = qg.LSTM(5, 8, rng=0)
    x, out = np.ones((6, 3, 5), np.float32), strided((6, 3, 8), strides)
    calls = {
        "call": lambda: lstm(x, out=out),
        "run": lambda: lstm.stream(3).run(x, out=out),
    }
    for call in calls.values():
        with pytest.raises(ValueError, match="out must not overlap itself"):
            call()
    assert not out.any()


@pytest.mark.parametrize("strides", [(0, 1), (5, 1), (8, 0), (4, 2), (-5, 1)])
def test_out_of_a_step_that_overlaps_itself(strides):
    stream = qg.LSTM(5, 8, rng=0).stream(3)
    before = stream.state
    with pytest.raises(ValueError, match="out must not overlap itself"):
        stream.step(np.ones((3, 5), np.float32), out=strided((3, 8), strides))
    assert (stream.state[0] == before[0]).all()


@pytest.mark.parametrize(
    "strides", [(24, 8, 1), (8, 48, 1), (100, 30, 2), (-24, 8, 1), (24, -8, 1), (24, 8, -1), (48, 16, 2)]
)
def test_every_layout_without_overlap_is_written(strides):
    lstm = qg.LSTM(5, 8, rng=0)
    x, out = np.random.default_rng(0).normal(size=(6, 3, 5)).astype(np.float32), strided((6, 3, 8), strides)
    want, _ = lstm(x)
    assert lstm(x, out=out)[0] is out
    assert (out == want).all()
    out[...] = 0
    assert lstm.stream(3).run(x, out=out) is out
    assert (out == want).all()


def test_axes_of_one_element_may_have_any_stride():
    lstm = qg.LSTM(5, 8, rng=0)
    x = np.ones((1, 1, 5), np.float32)
    out = strided((1, 1, 8), (0, 0, 1))
    assert (lstm(x, out=out)[0] == lstm(x)[0]).all()
    empty = strided((0, 3, 8), (0, 0, 1))
    assert lstm(np.ones((0, 3, 5), np.float32), out=empty)[0] is empty


@pytest.mark.parametrize("strides", [(0, 1), (3, 1), (8, 0), (0, 0), (-3, 1)])
def test_gradients_that_overlap_themselves(strides):
    lstm = qg.LSTM(5, 8, rng=0)
    y, _, tape = lstm.forward(np.ones((6, 3, 5), np.float32))
    out = {name: np.zeros_like(value) for name, value in lstm.params.items()}
    out["weight_hh_l0"] = strided((32, 8), strides)
    with pytest.raises(ValueError, match=re.escape("out['weight_hh_l0'] must not overlap itself")):
        lstm.backward(tape, y, out=out)
    assert not out["weight_hh_l0"].any()
    assert not out["weight_ih_l0"].any()


@pytest.mark.parametrize("order", ["C", "F"])
def test_gradients_that_overlap_each_other(order):
    lstm = qg.LSTM(8, 8, rng=0)
    y, _, tape = lstm.forward(np.ones((6, 3, 8), np.float32))
    base = np.zeros(32 * 8 + 4, np.float32)
    out = {name: np.zeros_like(value) for name, value in lstm.params.items()}
    out["weight_ih_l0"] = base[: 32 * 8].reshape(32, 8, order=order)
    out["weight_hh_l0"] = base[4:].reshape(32, 8, order=order)
    with pytest.raises(ValueError, match="must not share memory with"):
        lstm.backward(tape, y, out=out)
    assert not base.any()


def test_out_that_is_in_the_memory_of_lengths():
    lstm = qg.LSTM(5, 8, rng=0)
    lengths = np.array([6, 4, 2] + [0] * 100)
    out = lengths.view(np.float32)[: 6 * 3 * 8].reshape(6, 3, 8)
    for x in (np.ones((6, 3, 5), np.float32), np.ones((6, 3, 5))):
        with pytest.raises(ValueError, match="out must not share memory with lengths"):
            lstm(x, lengths=lengths[:3], out=out)
    assert lengths[:3].tolist() == [6, 4, 2]
