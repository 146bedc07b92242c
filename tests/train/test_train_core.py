"""The core of training: dense layers, embeddings, softmax cross-entropy, optimizer steps, blocks, and the commit.

Judged by float64 NumPy. A sum of n products has an error of at most n u times the sum of the terms' sizes (Higham,
section 3.1), u = eps / 2; where numbers are flushed to zero, `tiny` for each term.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import quadgate as qg
from quadgate import _core
from quadgate.reference import activations

pytestmark = pytest.mark.numbers

TYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
ROWS, COLUMNS = (1, 2, 6, 7, 13, 97), (1, 3, 16, 17, 65, 130)
SHAPES = [
    *(
        (r, i, o)
        for (r, i), o in zip(itertools.product(ROWS, COLUMNS), itertools.cycle((5, 1, 16, 33, 64, 67, 2, 129)))
    ),
    (1300, 9, 3),  # more rows than a piece has
    (40, 2050, 4),  # several slices of k
    (3, 5, 2050),
    (0, 3, 4),
    # The gradient of the weights, in blocks of rows: of few inputs, of few outputs, of more, and of rows that are long.
    (300, 1, 100),
    (129, 4, 1030),
    (257, 16, 200),
    (513, 65, 40),
    (1025, 9, 96),
    (2051, 130, 250),
    (1025, 70, 600),
    (0, 65, 600),
]
ACTIVATIONS = [(name, *(*numbers, 0.0, 0.0)[:2]) for name, numbers in activations.DEFAULTS.items()]


def arrays(dtype, *shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def check_sum(got, want, size, n):
    """`size`: the sum of the terms' sizes; n: roundings."""
    info = np.finfo(got.dtype)
    u = float(info.eps) / 2 + np.finfo(np.float64).eps / 2
    assert got.shape == want.shape
    assert (np.abs(got - want) <= n * u / (1 - n * u) * size + (n + 1) * float(info.tiny)).all()


def wide(*values):
    return [np.asarray(v, np.float64) for v in values]


@TYPES
@pytest.mark.parametrize(("rows", "n_in", "n_out"), SHAPES)
def test_dense_layer(dtype, rows, n_in, n_out):
    x, w, b, dy = arrays(dtype, (rows, n_in), (n_out, n_in), (n_out,), (rows, n_out))
    layer = _core.Dense(w, b, None)
    y, z = layer.forward(x, True)
    assert z is None
    dw, db = np.full_like(w, np.nan), np.full_like(b, np.nan)
    dx = layer.backward(x, None, None, dy, True, dw, db)
    x_, w_, b_, dy_ = wide(x, w, b, dy)
    ax, aw, ab, ady = map(np.abs, (x_, w_, b_, dy_))
    check_sum(y, x_ @ w_.T + b_, ax @ aw.T + ab, n_in + 4)
    check_sum(dx, dy_ @ w_, ady @ aw, n_out + 4)
    check_sum(dw, dy_.T @ x_, ady.T @ ax, rows + 2)
    check_sum(db, dy_.sum(0), ady.sum(0), rows + 2)


@TYPES
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=[a[0] for a in ACTIVATIONS])
def test_dense_layer_with_an_activation(dtype, activation):
    """y is the core's own activation of the sums; going back, the slope is within 16 eps of the reference's."""
    x, w, b, dy = arrays(dtype, (37, 19), (21, 19), (21,), (37, 21))
    sums, _ = _core.Dense(w, b, None).forward(x, False)
    layer = _core.Dense(w, b, activation)
    y, z = layer.forward(x, True)
    np.testing.assert_array_equal(y, _core.activation(*activation, sums))
    if z is not None:
        np.testing.assert_array_equal(z, sums)
    dw, db = np.empty_like(w), np.empty_like(b)
    dx = layer.backward(x, z, y, dy, True, dw, db)
    f = activations.Activation(*activation)
    sums_, x_, w_, dy_ = wide(sums, x, w, dy)
    slope = activations.slope(f, sums_)
    dz, error = dy_ * slope, np.abs(dy_) * 16 * float(np.finfo(dtype).eps) * max(1.0, float(np.abs(slope).max()))
    ax, aw, adz = np.abs(x_), np.abs(w_), np.abs(dz)
    for got, want, size, more, n in (
        (dx, dz @ w_, adz @ aw, error @ aw, 21),
        (dw, dz.T @ x_, adz.T @ ax, error.T @ ax, 37),
        (db, dz.sum(0), adz.sum(0), error.sum(0), 37),
    ):
        u = float(np.finfo(dtype).eps)
        assert (np.abs(got - want) <= more + (n + 4) * u * (size + more)).all()


@TYPES
@pytest.mark.parametrize(
    ("rows", "columns", "n"),
    [
        (1, 1, 1),
        (7, 5, 40),
        (96, 48, 1600),
        (300, 130, 64),
        (5, 3, 0),
        (5000, 130, 700),
        (17, 40_000, 9),
        (700, 20, 3000),
    ],
)
def test_embedding(dtype, rows, columns, n):
    (weight, dy), rng = arrays(dtype, (rows, columns), (n, columns)), np.random.default_rng(1)
    ids = rng.integers(0, rows, n)
    np.testing.assert_array_equal(_core.embed(weight, ids), weight[ids])
    dw = np.full_like(weight, np.nan)
    _core.embed_back(ids, dy, dw)
    want, size = np.zeros((2, rows, columns))
    np.add.at(want, ids, dy.astype(np.float64))
    np.add.at(size, ids, np.abs(dy.astype(np.float64)))
    check_sum(dw, want, size, max(1, n))
    assert not dw[np.setdiff1d(np.arange(rows), ids)].any()


@pytest.mark.parametrize("wrong", [-1, 4, 2**62, -(2**62)])
def test_numbers_without_a_row_are_refused(wrong):
    weight, ids = np.zeros((4, 3)), np.array([0, wrong, 1])
    with pytest.raises(IndexError, match=f"from 0 to 3, got {wrong}"):
        _core.embed(weight, ids)
    with pytest.raises(IndexError, match=f"from 0 to 3, got {wrong}"):
        _core.embed_back(ids, np.zeros((3, 3)), weight)
    with pytest.raises(IndexError, match=f"from 0 to 3, got {wrong}"):
        _core.softmax_cross_entropy(np.zeros((3, 4)), ids, None, 1.0, True)


@TYPES
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("rows", "classes"), [(1, 1), (3, 2), (130, 15), (5, 16), (4, 17), (300, 96), (2, 20_000)])
def test_softmax_cross_entropy(dtype, rows, classes, weighted):
    rng = np.random.default_rng(2)
    z = (3 * rng.standard_normal((rows, classes))).astype(dtype)
    t = rng.integers(0, classes, rows)
    w = rng.integers(0, 3, rows).astype(np.float64) if weighted else None
    counts = np.ones(rows) if w is None else w
    if weighted and rows > 3:
        w[1] = counts[1] = 0
        z[1], t[1] = np.nan, -7  # nobody reads them
    total, d = _core.softmax_cross_entropy(z, t, w, 3.0, True)
    without, none = _core.softmax_cross_entropy(z, t, w, 3.0, False)
    assert none is None
    assert without == total
    live = np.flatnonzero(counts)
    s = z[live].astype(np.float64)
    s -= s.max(1, keepdims=True)
    p = np.exp(s)
    log_sum = np.log(p.sum(1))
    p /= p.sum(1, keepdims=True)
    losses = log_sum - s[np.arange(len(live)), t[live]]
    # The argument of exp is off by u |s|; exp itself, the sum and the division by less than (classes + 16) u.
    u = float(np.finfo(dtype).eps)
    error = (np.abs(s) + classes + 16) * u
    assert abs(total - counts[live] @ losses) <= counts[live] @ (error.max(1) + u * np.abs(s).max(1)) + 1e-12 * rows
    want = p.copy()
    want[np.arange(len(live)), t[live]] -= 1
    scale = counts[live, None] / 3
    bound = scale * ((2 * error + 4 * u * np.abs(s).max(1, keepdims=True)) * p + 4 * u) + float(np.finfo(dtype).tiny)
    assert (np.abs(d[live] - want * scale) <= bound).all()
    assert not d[counts == 0].any()


@TYPES
def test_logits_that_are_not_finite(dtype):
    z = np.zeros((4, 40), dtype)
    z[0, 3], z[1, 39], z[2, 1], z[3, :] = np.nan, np.inf, -np.inf, 1e30
    for row, finite in enumerate((False, False, True, True)):
        total, d = _core.softmax_cross_entropy(z[row : row + 1].copy(), np.array([0]), None, 1.0, True)
        assert math.isfinite(total) == finite
        assert np.isfinite(d).all() == finite


@TYPES
@pytest.mark.parametrize("n", [1, 15, 16, 17, 100, 16_384, 40_001])
def test_sums_of_squares(dtype, n):
    a, b = arrays(dtype, (n,), (n, 2))
    for got, x in zip(_core.gradient_squares([a, b]), (a, b), strict=True):
        want = float(np.sum(x.astype(np.float64) ** 2))
        assert abs(got - want) <= 16_400 / 8 * float(np.finfo(dtype).eps) * want
    assert _core.gradient_squares([]) == []


@TYPES
def test_an_adam_step(dtype):
    shapes = [(3, 5), (16_384,), (1,), (77, 301)]
    p, g, m, v = (arrays(dtype, *shapes, seed=k) for k in range(4))
    v = [np.square(a) for a in v]
    size = sum(a.size for a in p) * p[0].itemsize
    blocks = [_core.Block(size) for _ in range(3)]
    scales = [0.5, 1.0, 0.25, 1.0]
    numbers = ("adam", 2.0, 0.9, 0.99, 1e-3, 0.1, 0.95, 0.5, 0.25)
    _core.optimize(numbers, p, g, [m, v], scales, blocks)
    got = [np.frombuffer(block, dtype) for block in blocks]
    u = float(np.finfo(dtype).eps)
    at = 0
    for p_, g_, m_, v_, scale in zip(*(map(wide_flat, x) for x in (p, g, m, v)), scales, strict=True):
        g_ = np.clip(g_ * scale, -2, 2)
        m_new, v_new = 0.9 * m_ + 0.1 * g_, 0.99 * v_ + 0.01 * g_ * g_
        move = 0.1 / 0.5 * m_new / (np.sqrt(v_new / 0.25) + 1e-3)
        part = slice(at, at := at + p_.size)
        m_error = 4 * u * (0.9 * np.abs(m_) + 0.1 * np.abs(g_))
        assert (np.abs(got[1][part] - m_new) <= m_error).all()
        assert (np.abs(got[2][part] - v_new) <= 6 * u * v_new).all()
        bound = 2 * u * np.abs(p_) + 10 * u * np.abs(move) + m_error * np.abs(move / m_new)
        assert (np.abs(got[0][part] - (0.95 * p_ - move)) <= bound).all()
    assert at * p[0].itemsize == size


def wide_flat(x):
    return x.astype(np.float64).ravel()


def test_results_do_not_depend_on_threads():
    """All bits, for sizes of many pieces."""
    x, w, b, dy, z = arrays("float32", (1700, 130), (97, 130), (97,), (1700, 97), (1700, 150))
    ids = np.random.default_rng(0).integers(0, 97, 1700)
    p = arrays("float32", (97, 1700), (333, 77))

    def everything():
        layer, results = _core.Dense(w, b, ("tanh", 0.0, 0.0)), []
        y, _ = layer.forward(x, True)
        dw, db, de = np.empty_like(w), np.empty_like(b), np.empty_like(w)
        results += [y, layer.backward(x, None, y, dy, True, dw, db), dw, db]
        wide_w, wide_dy = np.resize(w, (600, 130)), np.resize(dy, (1700, 600))
        wide_dw = np.empty_like(wide_w)
        wide_dx = _core.Dense(wide_w, None, None).backward(x, None, None, wide_dy, True, wide_dw, None)
        results += [wide_dx, wide_dw]
        results.append(_core.embed(w, ids))
        _core.embed_back(ids, x, de)
        total, d = _core.softmax_cross_entropy(z, ids, None, 7.0, True)
        results += [de, np.array(total), d, np.array(_core.gradient_squares(p))]
        blocks = [_core.Block(sum(a.nbytes for a in p)) for _ in range(3)]
        squares = [np.square(a) for a in p]
        _core.optimize(("adam", np.inf, 0.9, 0.99, 1e-8, 0.1, 1.0, 0.1, 0.01), p, p, [p, squares], [1.0, 0.5], blocks)
        return [r.tobytes() for r in results] + [bytes(block) for block in blocks]

    found = []
    for threads in (1, 2, 3):
        qg.set_num_threads(threads)
        found.append(everything())
    assert found[0] == found[1] == found[2]


def test_a_block_is_read_only_and_counts_its_buffers():
    block = _core.Block(4000)
    assert block.exports == 0
    flat = np.frombuffer(block, np.float32)
    part = flat[10:20].reshape(2, 5)
    assert block.exports > 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        flat.flags.writeable = True
    with pytest.raises(ValueError, match="WRITEABLE"):
        part.flags.writeable = True
    p, g = arrays("float32", (1000,), (1000,))
    numbers = ("sgd", np.inf, 0.0, 1.0, False)
    with pytest.raises(ValueError, match="that no array is over"):
        _core.optimize(numbers, [p], [g], [], [1.0], [block])
    del flat
    with pytest.raises(ValueError, match="that no array is over"):
        _core.optimize(numbers, [p], [g], [], [1.0], [block])
    del part
    assert block.exports == 0
    _core.optimize(numbers, [p], [g], [], [1.0], [block])
    np.testing.assert_array_equal(np.frombuffer(block, np.float32), p - g)
    for wrong in (-1, "3", None):
        with pytest.raises((TypeError, ValueError)):
            _core.Block(wrong)


def test_arrays_that_do_not_fit_are_refused():
    """Nothing outside of an array is read or written, whatever is passed."""
    x, w, b, dy = arrays("float32", (6, 3), (4, 3), (4,), (6, 4))
    layer = _core.Dense(w, b, None)
    dw, db = np.empty_like(w), np.empty_like(b)
    frozen = np.empty_like(w)
    frozen.flags.writeable = False
    for call in (
        lambda: _core.Dense(w, b[:3].copy(), None),
        lambda: _core.Dense(w, b.astype(np.float64), None),
        lambda: _core.Dense(w.T, b, None),
        lambda: _core.Dense(w[0], None, None),
        lambda: _core.Dense(w[:0], None, None),
        lambda: _core.Dense(np.empty((4, 0), np.float32), None, None),
        lambda: layer.forward(x.astype(np.float64), False),
        lambda: layer.forward(x[:, :2].copy(), False),
        lambda: layer.forward(x[::2], False),
        lambda: layer.forward(x),
        lambda: layer.backward(x, None, None, dy[:5].copy(), True, dw, db),
        lambda: layer.backward(x, None, None, dy, True, dw.T.copy(), db),
        lambda: layer.backward(x, None, None, dy, True, frozen, db),
        lambda: layer.backward(x, None, None, dy, True, dw, None),
        lambda: _core.Dense(w, b, ("elu", 1.0, 0.0)).backward(x, None, dy, dy, True, dw, db),
        lambda: _core.embed(w, np.zeros(3, np.int32)),
        lambda: _core.embed(w, np.zeros((3, 1), np.int64)),
        lambda: _core.embed(w.tolist(), np.zeros(3, np.int64)),
        lambda: _core.embed_back(np.zeros(5, np.int64), x, w),
        lambda: _core.embed_back(np.zeros(6, np.int64), x, frozen),
        lambda: _core.embed_back(np.zeros(6, np.int64), x, np.empty((4, 2), np.float32)),
        lambda: _core.softmax_cross_entropy(x, np.zeros(5, np.int64), None, 1.0, True),
        lambda: _core.softmax_cross_entropy(x, np.zeros(6, np.int64), np.ones(5), 1.0, True),
        lambda: _core.softmax_cross_entropy(x, np.zeros(6, np.int64), np.ones(6, np.float32), 1.0, True),
        lambda: _core.gradient_squares([x, x.astype(np.float64)]),
        lambda: _core.gradient_squares([x[::2]]),
        lambda: _core.gradient_squares(x),
        lambda: _core.optimize(("sgd", 1.0, 0.0, 1.0, False), [x], [x[:5]], [], [1.0], [_core.Block(72)]),
        lambda: _core.optimize(("sgd", 1.0, 0.0, 1.0, False), [x], [x], [], [1.0], [_core.Block(71)]),
        lambda: _core.optimize(("sgd", 1.0, 0.0, 1.0, False), [x], [x], [[x]], [1.0], [_core.Block(72)]),
        lambda: _core.optimize(("sgd", 1.0, 0.0, 1.0, False), [x], [x], [], [], [_core.Block(72)]),
        lambda: _core.optimize(("sgd", 1.0, 0.0, 1.0, False), [x], [x], [[x]], [1.0], [_core.Block(72)] * 2),
        lambda: _core.optimize(("adam",) + (1.0,) * 8, [x], [x], [[x]], [1.0], [_core.Block(72)] * 2),
        lambda: _core.optimize(("adam", 1.0), [x], [x], [], [1.0], [_core.Block(72)]),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
    np.testing.assert_array_equal(w, arrays("float32", (6, 3), (4, 3))[1])


class Holder:
    __slots__ = ("a", "b")

    def __init__(self):
        self.a, self.b = 1, 2


class Stubborn:
    """An attribute that cannot be set."""

    fixed = property(lambda self: 5)


def test_replace_all_sets_all_or_none():
    one, two = Holder(), Holder()
    assert _core.replace_all([(one, "a", 10), (two, "b", 20, 2), (one, "b", 30)]) is True
    assert (one.a, one.b, two.a, two.b) == (10, 30, 1, 20)
    assert _core.replace_all([(one, "a", 11), (two, "b", 21, 2)]) is False
    with pytest.raises(AttributeError):
        _core.replace_all([(one, "a", 11), (one, "a", 12), (Stubborn(), "fixed", 1), (two, "a", 11)])
    with pytest.raises(AttributeError):
        _core.replace_all([(one, "a", 11), (one, "nothing", 1)])
    for wrong in (None, [one], [(one, "a")], [(one, 1, 2)], [(one, "a", 1, 1, 1)]):
        with pytest.raises(TypeError):
            _core.replace_all(wrong)
    assert (one.a, one.b, two.a, two.b) == (10, 30, 1, 20)
