"""NaN and infinity pass through as IEEE arithmetic has them, and only to where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from support import bounds
from support.cases import DTYPES, data, model, plain, run, same_bits
from support.verdicts import judge

pytestmark = pytest.mark.numbers

SIZES = [1, 4, 17, 40]
every_size = pytest.mark.parametrize("hidden", SIZES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@every_size
@every_dtype
@pytest.mark.parametrize("batch", [1, 2, 9])
def test_nan_stays_in_its_row_and_goes_on_in_time(hidden, dtype, batch):
    case = plain(5, batch, 3, hidden, dtype=dtype)
    lstm, d = model(case), data(case)
    want = run(case, lstm, d)
    row = batch // 2
    x = d.x.copy()
    x[2, row, 1] = np.nan
    got = run(case, lstm, d._replace(x=x))
    assert np.isnan(got.y[2:, row]).all()
    assert same_bits(got.y[:2], want.y[:2])
    others = [k for k in range(batch) if k != row]
    for name in ("y", "h", "c", "dx", "dh0", "dc0"):
        assert same_bits(getattr(got, name)[:, others], getattr(want, name)[:, others]), name
    for name in ("h", "c", "dx", "dh0", "dc0"):
        assert np.isnan(getattr(got, name)[:, row]).all(), name
    for name, value in got.params.items():
        assert np.isnan(value).all(), name


@every_dtype
def test_nan_in_a_gradient_goes_back_in_time(dtype):
    case = plain(5, 4, 3, 17, dtype=dtype)
    lstm, d = model(case), data(case)
    want = run(case, lstm, d)
    dy = d.dy.copy()
    dy[2, 1, 5] = np.nan
    got = run(case, lstm, d._replace(dy=dy))
    assert same_bits(got.y, want.y)
    assert np.isnan(got.dx[:3, 1]).all()
    assert same_bits(got.dx[3:], want.dx[3:])
    assert same_bits(got.dx[:, [0, 2, 3]], want.dx[:, [0, 2, 3]])
    assert np.isnan(got.dh0[0, 1]).all()


@every_size
@every_dtype
@pytest.mark.parametrize("where", ["x", "h0", "c0", "nan c0", "weight", "bias"])
def test_like_the_reference(where, hidden, dtype):
    """Infinities of both signs: the same elements become NaN, infinite or finite, and the finite ones agree."""
    case = plain(4, 3, 3, hidden, 1, True, dtype=dtype)
    lstm, d = model(case), data(case)
    h0, c0 = (s.copy() for s in d.state)
    x = d.x.copy()
    if where == "x":
        x[1, 0, 0], x[2, 1, 2] = np.inf, -np.inf
    elif where == "h0":
        h0[0, 0, 0], h0[1, 2, hidden // 2] = np.inf, -np.inf
    elif where == "c0":
        c0[0, 0, 0], c0[1, 2, hidden - 1] = np.inf, -np.inf
    elif where == "nan c0":
        c0[0, 1, hidden // 2] = np.nan
    else:
        name = {"weight": "weight_hh_l0", "bias": "bias_l0"}[where]
        with lstm.writable() as params:
            params[name][0], params[name][2 * hidden], params[name][4 * hidden - 1] = np.inf, -np.inf, np.inf
    d = d._replace(x=x, state=(h0, c0))
    with np.errstate(all="ignore"):
        want, _ = judge(case, lstm.params, d)
    got = run(case, lstm, d)
    relative = bounds.norm_bound(dtype, 3 + hidden + 1, 4)
    for name in ("y", "h", "c"):
        a, b = getattr(got, name), getattr(want, name)
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=name)
        infinite = np.isinf(b)
        np.testing.assert_array_equal(a[infinite], b[infinite], err_msg=name)
        assert not np.isinf(a[~infinite]).any()
        finite = np.isfinite(b)
        bounds.assert_norm(a[finite], b[finite], relative, name, least=1)


@every_dtype
def test_huge_finite_numbers_saturate(dtype):
    """An argument that overflows to one infinity drives a gate to 0 or 1; it makes no NaN."""
    case = plain(3, 2, 1, 9, dtype=dtype)
    lstm, d = model(case), data(case)
    x = np.full_like(d.x, np.finfo(dtype).max)
    with lstm.writable() as params:
        params["weight_ih_l0"][...] = np.where(params["weight_ih_l0"] < 0, -2, 2)
    y, (_, c) = lstm(x, d.state)
    assert np.isfinite(y).all()
    assert np.isfinite(c).all()
