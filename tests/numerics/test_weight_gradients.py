"""The weight gradient of one step is an outer product: to the last bit for one row, at every tail of the sizes."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from support.cases import DTYPES, same_bits

# One below, at and one above the lanes of a vector and of a line of four, of both types and every instruction set.
SIZES = (1, 2, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 130)


def step(inputs, hidden, rows, dtype, seed=0):
    """Return a network and one step's x, h, c and dy, each (1, rows, n)."""
    rng = np.random.default_rng(seed)
    lstm = qg.LSTM(inputs, hidden, dtype=dtype, rng=seed)
    return lstm, *(rng.normal(size=(1, rows, n)).astype(dtype) for n in (inputs, hidden, hidden, hidden))


def gradients(lstm, x, h, c, dy, **to):
    """Return the parameters' gradients of a step."""
    return lstm.backward(lstm.forward(x, (h, c))[-1], dy, **to).params


def by_columns(grads):
    """Return the gradients of weight_ih and weight_hh side by side."""
    return np.concatenate([grads["weight_ih_l0"], grads["weight_hh_l0"]], 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden", SIZES)
def test_one_row(hidden, dtype):
    """Each element is one product, rounded once, of the bias's gradient and an input; added, it is one sum more."""
    for i, inputs in enumerate(SIZES):
        lstm, x, h, c, dy = step(inputs, hidden, 1, dtype, seed=i)
        got = gradients(lstm, x, h, c, dy)
        products = got["bias_l0"][:, None] * np.concatenate([x, h], 2)[0]
        assert same_bits(by_columns(got), products + np.zeros(1, dtype))  # a sum from zero on has no -0
        rng = np.random.default_rng(1)
        out = {name: rng.normal(size=value.shape).astype(dtype) for name, value in got.items()}
        before = {name: value.copy() for name, value in out.items()}
        gradients(lstm, x, h, c, dy, out=out, accumulate=True)
        for name, value in out.items():
            assert same_bits(value, before[name] + got[name]), (name, inputs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [2, 7, 130])
def test_rows_are_added_up(rows, dtype):
    """The sum over rows of what each row gives by itself: within n roundings of n products."""
    for inputs, hidden in ((1, 1), (17, 40), (90, 24), (64, 33), (130, 65)):
        lstm, *arrays = step(inputs, hidden, rows, dtype)
        got = gradients(lstm, *arrays)
        alone = [gradients(lstm, *(a[:, r : r + 1] for a in arrays))["bias_l0"] for r in range(rows)]
        dg = np.array(alone, np.float64)
        ones = np.concatenate([*(a[0].astype(np.float64) for a in arrays[:2]), np.ones((rows, 1))], 1)
        bound = rows * np.finfo(dtype).eps * (np.abs(dg).T @ np.abs(ones)) * (1 + 1e-6)
        found = np.concatenate([by_columns(got), got["bias_l0"][:, None]], 1)
        assert (np.abs(found - dg.T @ ones) <= bound).all(), (inputs, hidden)
