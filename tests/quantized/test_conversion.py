"""Rounding of weights to fewer bits, against arithmetic in float64, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg

KINDS = ("float16", "bfloat16", "int8")
DIGITS = {"float16": 11, "bfloat16": 8}
LEAST_EXPONENT = {"float16": -14, "bfloat16": -126}


def nearest(value, kind):
    """The nearest number of the type, to even where two are as near, from its definition."""
    value = value.astype(np.float64)
    exponent = np.maximum(np.frexp(value)[1] - 1, LEAST_EXPONENT[kind])
    step = np.ldexp(1.0, exponent - DIGITS[kind] + 1)
    return np.rint(value / step) * step  # np.rint rounds halves to even


def numbers(kind):
    """float32 numbers of every size, among them exact halves between two neighbours, and their own neighbours."""
    rng = np.random.default_rng(0)
    wide = np.ldexp(rng.uniform(-1, 1, 3000), rng.integers(-30, 15, 3000)).astype(np.float32)
    at = nearest(wide, kind)
    halves = (at + np.ldexp(0.5, np.maximum(np.frexp(at)[1] - 1, LEAST_EXPONENT[kind]) - DIGITS[kind] + 1)).astype(
        np.float32
    )
    near = np.concatenate([np.nextafter(halves, np.float32(s)) for s in (-np.inf, np.inf)])
    special = np.array([0.0, -0.0, 1.0, -1.0, 2.0**-24, 2.0**-25, 1.5 * 2.0**-25, 2.0**-14, 65504.0], np.float32)
    return np.concatenate([wide, halves, near, special])


def network(values):
    """An LSTM with these numbers among its weights."""
    lstm = qg.LSTM(-(-values.size // 40), 10, rng=0)
    with lstm.writable() as params:
        params["weight_ih_l0"].flat[: values.size] = values
    return lstm


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_rounding_to_nearest_even(kind):
    values = numbers(kind)
    got = network(values).quantize(kind).params["weight_ih_l0"].ravel()[: values.size]
    want = nearest(values, kind)
    assert np.array_equal(got.astype(np.float64), want)
    assert np.array_equal(np.signbit(got), np.signbit(values))


def test_int8_scales_and_integers():
    lstm = qg.LSTM(7, 9, rng=0)
    with lstm.writable() as params:
        params["weight_ih_l0"][3] = 0
        params["weight_ih_l0"][5] *= 1e-30
    before, after = lstm.params["weight_ih_l0"].astype(np.float64), lstm.quantize("int8").params["weight_ih_l0"]
    scale = np.abs(before).max(1) / 127
    # Half a step, and three roundings in float32: of the scale, of the quotient, of the product.
    assert (np.abs(after - before) <= scale[:, None] * (0.5 + 127 * 3 * 2.0**-24)).all()
    assert (after[3] == 0).all()
    rows = scale > 0
    assert np.allclose(
        np.abs(after).max(1)[rows], np.abs(before).max(1)[rows], rtol=2**-22, atol=0
    )  # no row is clipped


@pytest.mark.parametrize(("kind", "value"), [("float16", 65520.0), ("bfloat16", 3.4e38)])
def test_overflow_is_refused(kind, value):
    with pytest.raises(ValueError, match=f"weight_ih_l0 .*{kind}"):
        network(np.array([-value], np.float32)).quantize(kind)
    network(np.array([value * 0.99], np.float32)).quantize(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_small_weights_under_numpys_strict_errors(kind):
    with np.errstate(all="raise"):
        network(np.array([1e-30, 1e-39, 1e-44], np.float32)).quantize(kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(kind, value):
    with pytest.raises(ValueError, match="weight_ih_l0 has NaN or infinity"):
        network(np.array([value], np.float32)).quantize(kind)


def test_wrong_arguments():
    lstm = qg.LSTM(3, 4, rng=0)
    with pytest.raises(ValueError, match="weights must be 'float16', 'bfloat16' or 'int8'"):
        lstm.quantize("float8")
    with pytest.raises((TypeError, ValueError), match="weights"):
        lstm.quantize(16)
    with pytest.raises(ValueError, match="float32 network, got float64"):
        qg.LSTM(3, 4, dtype="float64").quantize("float16")
    with pytest.raises(ValueError, match="has int8 weights already"):
        lstm.quantize("int8").quantize("float16")
    with pytest.raises(TypeError, match="net must be an LSTM or RNN"):
        qg.quantization_error(3, lstm, np.zeros((1, 1, 3)))
    with pytest.raises(ValueError, match="shapes"):
        qg.quantization_error(lstm, qg.LSTM(3, 5), np.zeros((1, 1, 3)))
    with pytest.raises(ValueError, match="out must be None"):
        qg.quantization_error(lstm, lstm, np.zeros((1, 1, 3)), out=np.zeros((1, 1, 4), np.float32))


def test_int8_refuses_more_columns_than_a_sum_can_hold():
    with pytest.raises(ValueError, match="131073 columns"):
        qg.LSTM(131073, 1, rng=0).quantize("int8")


def test_error_is_that_of_y():
    lstm = qg.LSTM(7, 20, rng=0)
    x = np.random.default_rng(0).standard_normal((9, 3, 7)).astype(np.float32)
    half = lstm.quantize("bfloat16")
    error = qg.quantization_error(lstm, half, x, lengths=[9, 4, 1])
    off = np.abs(lstm(x, lengths=[9, 4, 1])[0].astype(np.float64) - half(x, lengths=[9, 4, 1])[0])
    assert error == (off.max(), off.mean())
    assert qg.quantization_error(lstm, lstm, x) == (0, 0)
    assert qg.quantization_error(lstm, half, x[:0]) == (0, 0)
