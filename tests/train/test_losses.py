"""Losses against their formulas in float64, and their gradients against central differences of themselves."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from quadgate.train import _losses

pytestmark = pytest.mark.numbers

NAMES = list(_losses._FIRST)
TYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def example(name, shape, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    z = (2 * rng.standard_normal(shape)).astype(dtype)
    if name == "softmax_cross_entropy":
        return z, rng.integers(0, shape[-1], shape[:-1])
    t = rng.random(shape)
    if name == "categorical_crossentropy":
        t /= t.sum(-1, keepdims=True)
    return z, t.astype(dtype)


def each(name, z, t):
    """The loss of every position, from its formula, in float64."""
    z = z.astype(np.float64)
    if name.endswith("crossentropy") or name == "softmax_cross_entropy":
        log_p = z - z.max(-1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
        one_hot = np.eye(z.shape[-1])[t] if name == "softmax_cross_entropy" else t.astype(np.float64)
        return -(one_hot * log_p).sum(-1)
    d = z - t
    return {
        "mse": lambda: (d**2).mean(-1),
        "mae": lambda: np.abs(d).mean(-1),
        "huber": lambda: np.where(np.abs(d) <= 1, d**2 / 2, np.abs(d) - 0.5).mean(-1),
        "binary_cross_entropy": lambda: (t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z)).mean(-1),
    }[name]()


CASES = [
    ((5, 3), {}),
    ((4, 6, 3), {}),
    ((4, 6, 3), {"lengths": [6, 0, 2, 3]}),
    ((4, 6, 3), {"weights": [1.0, 0.0, 0.5, 2.0]}),
    ((4, 6, 3), {"weights": np.random.default_rng(5).random((4, 6))}),
    (
        (4, 6, 3),
        {"mask": np.random.default_rng(6).random((4, 6)) < 0.7, "lengths": [6, 5, 1, 3], "weights": [1, 2, 3, 4]},
    ),
    ((5, 3), {"weights": [1, 0, 2, 3, 4], "mask": [True, True, False, True, True]}),
]


def counts(shape, weights=None, mask=None, lengths=None):
    w = np.ones(shape)
    if weights is not None:
        weights = np.asarray(weights, np.float64)
        w *= weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    if lengths is not None:
        w *= np.arange(shape[1]) < np.array(lengths)[:, None]
    return w if mask is None else w * np.asarray(mask)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("shape", "options"), CASES)
@TYPES
def test_value_and_gradient(name, shape, options, dtype):
    z, t = example(name, shape, dtype)
    loss, w = _losses.get(name), counts(shape[:-1], **options)
    dead = w == 0
    z[dead] = np.nan
    if t.dtype.kind == "f":
        t[dead] = np.inf
    else:
        t[dead] = -9
    value, d = loss(z, t, **options)
    assert d.shape == z.shape
    assert d.dtype == z.dtype
    assert not d[dead].any()
    safe = np.where(dead[..., None], 0, z)
    target = np.where(dead if t.dtype.kind != "f" else dead[..., None], 0, t)
    # Some 40 roundings of numbers of at most 20 behind each loss and slope.
    bound = 40 * 20 * float(np.finfo(dtype).eps)
    assert abs(value - (w * each(name, safe, target)).sum() / w.sum()) < bound
    step = 1e-6
    for index in np.ndindex(shape):
        up, down = safe.astype(np.float64), safe.astype(np.float64)
        up[index] += step
        down[index] -= step
        slope = ((w * each(name, up, target)).sum() - (w * each(name, down, target)).sum()) / (2 * step) / w.sum()
        assert abs(d[index] - slope) < bound + 1e-8  # of the difference: 1e-16 / 1e-6, and step^2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("swapped", [False, True])
def test_parts_of_a_batch_add_up(name, swapped):
    """Sums and gradients over two shards, with the weight of both as the divisor; and for outputs of any layout."""
    z, t = example(name, (6, 5, 4))
    w = np.random.default_rng(1).random((6, 5))
    loss = _losses.get(name)
    value, d = loss(z, t, weights=w)
    weight = loss.weight((6, 5), weights=w)
    if swapped:
        z = np.ascontiguousarray(z.swapaxes(0, 1)).swapaxes(0, 1)
    parts = [loss.part(z[s], t[s], weights=w[s], divisor=weight) for s in (slice(0, 2), slice(2, 6))]
    assert np.isclose(sum(p.weight for p in parts), weight, rtol=1e-15)
    assert np.isclose(sum(p.total for p in parts) / weight, value, rtol=1e-14)
    np.testing.assert_allclose(np.concatenate([p.doutputs for p in parts]), d, rtol=1e-14, atol=1e-17)
    assert loss.part(z, t, gradient=False).doutputs is None


@pytest.mark.parametrize("name", NAMES)
def test_nothing_counts(name):
    z, t = example(name, (3, 4))
    value, d = _losses.get(name)(z, t, weights=[0, 0, 0])
    assert value == 0
    assert not d.any()


def test_names():
    for name, other in (
        ("softmax_cross_entropy", "sparse_categorical_crossentropy"),
        ("mse", "mean_squared_error"),
        ("mae", "mean_absolute_error"),
        ("binary_cross_entropy", "binary_crossentropy"),
    ):
        assert _losses.get(name) is _losses.get(other) is _losses.get(_losses.get(name))
    with pytest.raises(ValueError, match="did you mean 'huber'"):
        _losses.get("hubr")
    with pytest.raises(TypeError, match="loss must be"):
        _losses.get(3)


def test_targets_of_other_forms():
    z, t = example("softmax_cross_entropy", (4, 6, 3))
    soft = _losses.get("softmax_cross_entropy")(z, np.eye(3)[t])
    hard = _losses.get("softmax_cross_entropy")(z, t.astype(np.uint8))
    assert np.isclose(soft[0], hard[0], rtol=1e-14)
    np.testing.assert_allclose(soft[1], hard[1], rtol=1e-12, atol=1e-16)
    z, t = example("mse", (4, 1))
    assert _losses.get("mse")(z, t[:, 0])[0] == _losses.get("mse")(z, t)[0]


@pytest.mark.parametrize(
    ("name", "z", "t", "options", "message"),
    [
        ("softmax_cross_entropy", (4, 3), [0, 1, 2, 3], {}, r"class numbers: targets must be from 0 to 2, got 3"),
        ("softmax_cross_entropy", (4, 3), [0, 1, -1, 2], {}, r"got -1"),
        ("softmax_cross_entropy", (4, 3), [0, 1], {}, r"targets must have shape \(4,\), got \(2,\)"),
        ("softmax_cross_entropy", (4, 3), [0.0, 1.0, 2.0, 0.0], {}, r"class numbers \(integers\), got dtype float64"),
        ("mse", (4, 3), np.zeros((4, 2)), {}, r"targets must have the outputs' shape \(4, 3\), got \(4, 2\)"),
        ("mse", (4, 3), np.zeros((4, 3)), {"weights": [1, 2]}, r"weights must have shape \(4,\), got \(2,\)"),
        ("mse", (4, 3), np.zeros((4, 3)), {"weights": [1, 2, 3, -1]}, r"weights must be 0 or more, got -1"),
        ("mse", (4, 3), np.zeros((4, 3)), {"weights": [1, 2, 3, np.nan]}, r"weights must be 0 or more, got nan"),
        ("mse", (4, 3), np.zeros((4, 3)), {"lengths": [1, 2, 3, 4]}, r"lengths need outputs \(B, T, C\)"),
        ("mse", (4, 3, 2), np.zeros((4, 3, 2)), {"lengths": [1, 2, 3, 4]}, r"between 0 and T = 3, got 4 for row 3"),
        ("mse", (4, 3, 2), np.zeros((4, 3, 2)), {"mask": np.ones((4, 2), bool)}, r"mask must have shape \(4, 3\)"),
    ],
)
def test_bad_arguments(name, z, t, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        _losses.get(name)(np.zeros(z), np.asarray(t), **options)


def test_bits_do_not_depend_on_threads():
    z, t = example("softmax_cross_entropy", (40, 50, 96), "float32")
    found = []
    for threads in (1, 2, 3):
        qg.set_num_threads(threads)
        value, d = _losses.get("softmax_cross_entropy")(z, t)
        found.append((value, d.tobytes()))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("shape", [(3, 0), (3, 4, 0), (0, 0)])
def test_classes_of_no_columns(shape):
    with pytest.raises(ValueError, match=r"outputs must have 1 column or more, got shape \("):
        _losses.get("softmax_cross_entropy")(np.zeros(shape), np.zeros(shape[:-1], int))
