"""The kernels' activations over the whole range, in float32 and float64: sigmoid and tanh are within 2 ULP of the exact
value, the others within 4 (where alpha is not 1, an ULP before that multiplication may weigh two after it).

An ULP here is the distance of neighbouring numbers at the exact value: 2^(e - 23) or 2^(e - 52) where
2^e <= |v| < 2^(e+1), and the smallest denormal below the normal numbers.
"""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from quadgate import _core
from support.bounds import ULPS
from support.cases import DTYPES, same_bits
from support.judgements import shared

pytestmark = pytest.mark.numbers

FUNCTIONS = {"sigmoid": _core.sigmoid, "tanh": _core.tanh}
# Of the nine others: alpha, beta, ULP. Those that only choose and round once have half an ULP.
OTHERS = {
    "relu": [(1.0, 0.0, 0)],
    "hard_sigmoid": [(0.2, 0.5, 0.5), (0.25, 0.5, 0.5)],
    "affine": [(1.0, 0.0, 0), (2.7, -0.6, 0.5)],
    "leaky_relu": [(0.01, 0.0, 0.5), (0.3, 0.0, 0.5)],
    "thresholded_relu": [(1.0, 0.0, 0), (-0.5, 0.0, 0)],
    "scaled_tanh": [(1.0, 1.0, 2), (1.7159, 2 / 3, 6)],
    "elu": [(1.0, 0.0, 4), (1.6732632423543772, 0.0, 8)],
    "softsign": [(1.0, 0.0, 4)],
    "softplus": [(1.0, 0.0, 4)],
}
FUSED = _core.cpu_info()["isa"] != "baseline"  # whether alpha x + beta rounds once
every_other = pytest.mark.parametrize(
    ("name", "alpha", "beta", "allowed"), [(name, *rest) for name, forms in OTHERS.items() for rest in forms]
)
every_function = pytest.mark.parametrize("name", FUNCTIONS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def exact(name, x):
    """In the precision of x, by formulas that keep relative accuracy."""
    if name == "tanh":
        return np.tanh(x)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


@shared
def by_mpmath(name, x):
    """Rounded to twice the precision of float64, as the sum of two float64 numbers."""
    with mpmath.workdps(40):
        high, low = np.empty_like(x), np.empty_like(x)
        for k, value in enumerate(x):
            v = mpmath.mpf(float(value))
            v = mpmath.tanh(v) if name == "tanh" else 1 / (1 + mpmath.exp(-v))
            high[k] = float(v)
            low[k] = float(v - mpmath.mpf(high[k]))
    return high, low


def other_by_mpmath(name, alpha, beta, v):
    """One of the nine others in mpmath's working precision; alpha and beta as the kernels have them."""
    if name == "relu":
        return max(v, 0)
    if name == "hard_sigmoid":
        return max(0, min(1, alpha * v + beta))
    if name == "affine":
        return alpha * v + beta
    if name == "leaky_relu":
        return alpha * v if v < 0 else v
    if name == "thresholded_relu":
        return v if v > alpha else mpmath.mpf(0)
    if name == "scaled_tanh":
        return alpha * mpmath.tanh(beta * v)
    if name == "elu":
        return alpha * mpmath.expm1(v) if v < 0 else v
    if name == "softsign":
        return v / (1 + abs(v))
    return mpmath.log1p(mpmath.exp(-abs(v))) + max(v, 0)


@shared
def others_by_mpmath(name, alpha, beta, x):
    """The same of each number of an array, to 50 digits."""
    with mpmath.workdps(50):
        of = mpmath.mpf(alpha), mpmath.mpf(beta)
        return [mpmath.mpf(other_by_mpmath(name, *of, mpmath.mpf(value))) for value in x.tolist()]


def ulp(v, dtype):
    """The distance of neighbours at v, by the exponent of v itself and not of v rounded."""
    info = np.finfo(dtype)
    _, exponent = np.frexp(v)
    return np.ldexp(np.ones_like(v), np.maximum(exponent - 1, info.minexp) - info.nmant)


def assert_good(x, got, off, size, allowed=ULPS):
    """`off` is how far `got` is from the exact value whose ULP is `size`."""
    ulps = np.abs(off) / size
    worst = np.argmax(ulps)
    assert ulps[worst] <= allowed, f"{x[worst]!r} gives {got[worst]!r}: off by {ulps[worst]} ULP"


@pytest.mark.slow
@every_function
def test_float32_densely(name):
    """Every 997th float32 there is, and every 61st between 2^-14 and 128; float64 is exact enough to judge."""
    patterns = np.arange(0, 2**32, 997, dtype=np.uint64).astype(np.uint32)
    low, high = np.array([2.0**-14, 128], np.float32).view(np.uint32)
    middle = np.arange(low, high, 61, dtype=np.uint32)
    for bits in (patterns, middle, middle | np.uint32(2**31)):
        x = bits.view(np.float32)
        x = x[np.isfinite(x)]
        got = FUNCTIONS[name](x)
        assert got.dtype == np.float32
        want = exact(name, x.astype(np.float64))
        assert_good(x, got, got - want, ulp(want, np.float32))


@pytest.mark.slow
@every_function
def test_float64_densely(name):
    """Random bit patterns and uniform draws against long double."""
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("long double is no longer than double here; mpmath judges")
    rng = np.random.default_rng(2)
    patterns = rng.integers(0, 2**64, 300_000, dtype=np.uint64).view(np.float64)
    draws = [patterns[np.isfinite(patterns)]]
    draws += [rng.uniform(-end, end, 300_000) for end in (1e-3, 0.1, 1, 20, 40, 760)]
    for x in draws:
        got = FUNCTIONS[name](x)
        want = exact(name, x.astype(np.longdouble))
        assert_good(x, got, got - want, ulp(want, np.float64))


@every_function
@every_dtype
def test_against_mpmath(name, dtype):
    rng = np.random.default_rng(3)
    scale = 10.0 ** rng.uniform(-10, 2.8, 2500)
    x = (scale * rng.choice([-1, 1], 2500)).astype(dtype)
    got = FUNCTIONS[name](x)
    high, low = by_mpmath(name, x.astype(np.float64))
    off = (got.astype(np.float64) - high) - low
    assert_good(x, got, off, ulp(high, dtype))


@pytest.mark.slow
@every_other
@every_dtype
def test_others_against_mpmath(name, alpha, beta, allowed, dtype):
    """Everywhere by size, around 0, where exp becomes denormal or 0, and where kinks are."""
    rng = np.random.default_rng(5)
    scale = 10.0 ** np.concatenate([rng.uniform(-10, 2.8, 1500), rng.uniform(-37, 30, 300)])
    x = (scale * rng.choice([-1, 1], len(scale))).astype(dtype)
    info = np.finfo(dtype)
    edges = np.array([0, 0.35, 0.6931, 1, 2.5, 16.64, 20, 36.74, 87.34, 103.97, 708.4, 745.13], dtype)
    edges = np.concatenate([edges, np.array([alpha, info.tiny, info.tiny / 4, info.smallest_subnormal], dtype)])
    near = [edges]
    for _ in range(4):
        near.append(np.nextafter(near[-1], np.array(np.inf, dtype)))
        near.append(np.nextafter(near[-2], np.array(0, dtype)))
    near = np.concatenate(near)
    x = np.concatenate([x, near, -near])
    got = _core.activation(name, alpha, beta, x)
    assert got.dtype == dtype
    off, sizes = np.empty(len(x)), np.empty(len(x))
    alpha, beta = (float(np.array(v, dtype)) for v in (alpha, beta))
    with mpmath.workdps(50):
        for k, want in enumerate(others_by_mpmath(name, alpha, beta, x.astype(np.float64))):
            term = abs(alpha * float(x[k])) if not FUSED and name in ("affine", "hard_sigmoid") else 0.0
            sizes[k] = max(ulp(np.array([float(want)]), dtype)[0], ulp(np.array([term]), dtype)[0])
            off[k] = float((mpmath.mpf(float(got[k])) - want) / sizes[k])
    # Without a fused multiply-add the product rounds for itself, and may be larger than the result.
    twice = 1 if FUSED or name not in ("affine", "hard_sigmoid") else 2
    assert_good(x, got, off, np.ones(len(x)), allowed * twice)


@every_dtype
def test_others_at_the_ends(dtype):
    """Limits at infinity are exact; NaN stays, but where the definition says 0."""
    info = np.finfo(dtype)
    ends = np.array([np.inf, -np.inf, info.max, info.min], dtype)
    far = [np.inf, -np.inf, info.max, info.min]
    want = {
        "relu": [np.inf, 0, info.max, 0],
        "hard_sigmoid": [1, 0, 1, 0],
        "affine": far,
        "leaky_relu": [np.inf, -np.inf, info.max, info.min / 4],
        "thresholded_relu": [np.inf, 0, info.max, 0],
        "scaled_tanh": [0.25, -0.25] * 2,
        "elu": [np.inf, -0.25, info.max, -0.25],
        "softsign": [1, -1] * 2,
        "softplus": [np.inf, 0, info.max, 0],
    }
    assert set(want) == set(OTHERS)
    for name, values in want.items():
        alpha, beta = (1, 0) if name == "affine" else (0.25, 0.5)
        got = _core.activation(name, alpha, beta, ends)
        np.testing.assert_array_equal(got, np.array(values, dtype), name)
        nan = _core.activation(name, alpha, beta, np.array([np.nan], dtype))
        assert nan[0] == 0 if name == "thresholded_relu" else np.isnan(nan[0])


@every_function
@every_dtype
def test_around_every_break(name, dtype):
    """Neighbours of where implementations change their formula, and of where results become 0, 1 or denormal."""
    info = np.finfo(dtype)
    centers = [0.125, 0.25, 0.3, 0.5, 0.55, 0.625, 1, 2, 4, 8, 9, 9.01, 16, 16.6, 17, 18, 19, 19.06, 20, 22, 32, 36, 37]
    centers += [40, 64, 87.3, 88, 88.37, 88.72, 89, 96, 100, 103.28, 103.97, 104, 128]
    centers += [700, 708.4, 709.78, 710, 744.4, 745.13]
    centers += [746, 800, 1e4, float(info.tiny), float(info.tiny) * 2, float(info.smallest_subnormal), float(info.max)]
    centers += list(np.log(2) * np.arange(0.5, 30, 1))  # where exp changes its power of two
    near = [np.array(centers, dtype)]
    for _ in range(8):
        near.append(np.nextafter(near[-1], np.array(0, dtype)))
    x = np.concatenate(near)
    x = np.concatenate([x, -x])
    got = FUNCTIONS[name](x)
    high, low = by_mpmath(name, x.astype(np.float64))
    off = (got.astype(np.float64) - high) - low
    assert_good(x, got, off, ulp(high, dtype))


@every_dtype
def test_special_values(dtype):
    info = np.finfo(dtype)
    small = np.array([0.0, info.smallest_subnormal, info.tiny / 4, info.tiny, info.tiny * 3], dtype)
    small = np.concatenate([small, -small])
    assert same_bits(_core.tanh(small), small)  # -0 stays -0, and denormals are not flushed
    assert same_bits(_core.sigmoid(small), np.full(10, 0.5, dtype))
    ends = np.array([np.inf, -np.inf, info.max, info.min, 1000, -1000], dtype)
    assert same_bits(_core.tanh(ends), np.array([1, -1] * 3, dtype))
    assert same_bits(_core.sigmoid(ends), np.array([1, 0] * 3, dtype))
    nans = np.array([np.nan, -np.nan, 0, np.nan], dtype)
    for function in FUNCTIONS.values():
        np.testing.assert_array_equal(np.isnan(function(nans)), [True, True, False, True])


@every_dtype
def test_range(dtype):
    """Never beyond the limits: 1 - tanh^2 and s (1 - s) are never negative."""
    x = np.concatenate([np.linspace(-60, 60, 200_001), np.linspace(6, 20, 100_001)]).astype(dtype)
    assert np.abs(_core.tanh(x)).max() == 1
    assert _core.sigmoid(x).max() == 1
    assert _core.sigmoid(x).min() > 0


@every_function
@every_dtype
def test_every_length(name, dtype):
    """The result for a number depends neither on its place nor on its neighbours; the input is unchanged."""
    x = np.random.default_rng(4).normal(size=80).astype(dtype) * 3
    kept = x.copy()
    one_by_one = np.concatenate([FUNCTIONS[name](x[k : k + 1]) for k in range(80)])
    for n in range(81):
        assert same_bits(FUNCTIONS[name](x[:n]), one_by_one[:n])
        assert same_bits(FUNCTIONS[name](x[80 - n :]), one_by_one[80 - n :])
    assert same_bits(x, kept)
