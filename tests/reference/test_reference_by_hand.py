"""Each option of the reference in one step of one or two units, against numbers worked out by hand."""

from __future__ import annotations

from math import exp, sqrt, tanh

import numpy as np
import pytest
from quadgate import reference
from quadgate.reference.activations import DEFAULTS
from support.reference_cases import CLOSE, REAL, STEP

ACTIVATIONS = {
    "sigmoid": lambda a, alpha, beta: 1 / (1 + exp(-a)),
    "tanh": lambda a, alpha, beta: tanh(a),
    "relu": lambda a, alpha, beta: max(a, 0.0),
    "hard_sigmoid": lambda a, alpha, beta: max(0.0, min(1.0, alpha * a + beta)),
    "affine": lambda a, alpha, beta: alpha * a + beta,
    "leaky_relu": lambda a, alpha, beta: alpha * a if a < 0 else a,
    "thresholded_relu": lambda a, alpha, beta: a if a > alpha else 0.0,
    "scaled_tanh": lambda a, alpha, beta: alpha * tanh(beta * a),
    "elu": lambda a, alpha, beta: alpha * (exp(a) - 1) if a < 0 else a,
    "softsign": lambda a, alpha, beta: a / (1 + abs(a)),
    "softplus": lambda a, alpha, beta: np.log(1 + exp(a)),
}


def s(a):
    return 1 / (1 + exp(-a))


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("given", [(), (0.7,), (0.7, -0.4)])
def test_activation_and_slope(name, given):
    """Values against the formula; slopes against differences, at points that lie far from every kink."""
    given = given[: len(DEFAULTS[name])]
    kind = reference.Activation.read((name, *given))
    defaults = {"hard_sigmoid": (0.2, 0.5), "affine": (1, 0), "leaky_relu": (0.01, 0), "thresholded_relu": (1, 0)}
    defaults |= {"scaled_tanh": (1, 1), "elu": (1, 0)}
    alpha, beta = (*given, *defaults.get(name, (0, 0))[len(given) :])
    a = np.array([-30.1, -4.3, -2.6, -1.1, -0.3, 0.2, 0.45, 0.9, 1.7, 2.4, 5.3, 31.7])
    want = [ACTIVATIONS[name](each, alpha, beta) for each in a]
    np.testing.assert_allclose(reference.activation(kind, a), want, rtol=1e-13, atol=1e-15)
    up, down = (reference.activation(kind, a.astype(REAL) + e) for e in (STEP, -STEP))
    np.testing.assert_allclose(reference.slope(kind, a), (up - down) / (2 * STEP), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_parameters_that_an_activation_does_not_have(name):
    own = DEFAULTS[name]
    kind = reference.Activation.read((name, *own))
    assert reference.Activation.read(name) == reference.Activation.read(kind) == kind
    with pytest.raises(ValueError, match=f"^{name} takes {len(own)} parameters, got "):
        reference.Activation.read((name, *own, 0.5))


def test_activations_at_infinity():
    """Limits, where there are any."""
    limits = {"sigmoid": (0, 1), "tanh": (-1, 1), "relu": (0, np.inf), "hard_sigmoid": (0, 1), "elu": (-1, np.inf)}
    limits |= {"softsign": (-1, 1), "softplus": (0, np.inf), "scaled_tanh": (-1, 1)}
    for name, want in limits.items():
        for dtype in (np.float64, REAL):
            a = np.array([-np.inf, np.inf, np.nan], dtype)
            with np.errstate(invalid="ignore"):
                got = reference.activation(reference.Activation.read(name), a)
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, [*want, np.nan], name)
    a = np.array([-5e300, -1e-300, 1e-5, 5e300])
    np.testing.assert_array_equal(reference.activation(reference.Activation("softsign"), a), a / (1 + np.abs(a)))


def test_slopes_at_kinks():
    def at(given, a):
        return reference.slope(reference.Activation.read(given), np.array([a]))[0]

    assert at("relu", 0.0) == at("thresholded_relu", 1.0) == 0
    assert at(("leaky_relu", 0.25), 0.0) == at(("elu", 0.25), 0.0) == 0.25
    assert at(("hard_sigmoid", 0.5, 0.5), -1.0) == at(("hard_sigmoid", 0.5, 0.5), 1.0) == 0


def one_step(bias=(0, 0, 0, 0), c0=(0,), h0=None, *, x=0.0, weight_ih=None, masks=None, **more):
    """Run one step of a network whose weights are zeros unless given; return h and c as lists, and a backward pass."""
    units = len(c0)
    params = {name: np.array(more.pop(name), float) for name in list(more) if name.split("_l0")[0] != name}
    columns = params["weight_hr_l0"].shape[0] if "weight_hr_l0" in params else units
    params["weight_ih_l0"] = np.zeros((4 * units, 1)) if weight_ih is None else np.array(weight_ih, float)[:, None]
    params.setdefault("weight_hh_l0", np.zeros((4 * units, columns)))
    params["bias_l0"] = np.repeat(np.array(bias, float), units)
    state = np.zeros((1, 1, columns)) if h0 is None else np.array([[h0]], float), np.array([[c0]], float)
    _, (h, c), tape = reference.forward(params, [[[x]]], state, masks=masks, **more)

    def back(dh, dc):
        return reference.backward(params, tape, None, (np.reshape(dh, (1, 1, -1)), np.reshape(dc, (1, 1, -1))))

    return h[0, 0], c[0, 0], back


def test_peephole_by_hand():
    h, c, _ = one_step(c0=[2.0], peephole_l0=[[0.5], [-1.0], [0.25]], bias=(0, 0, 1, 0))
    n = s(-2) * 2 + s(1) * tanh(1)
    np.testing.assert_allclose([h[0], c[0]], [s(0.25 * n) * tanh(n), n], **CLOSE)


def test_coupled_by_hand():
    h, c, back = one_step(bias=(0.3, 99, 1, 0.2), c0=[2.0], coupled=True)
    n = (1 - s(0.3)) * 2 + s(0.3) * tanh(1)
    np.testing.assert_allclose([h[0], c[0]], [s(0.2) * tanh(n), n], **CLOSE)
    assert back(1.0, 1.0).params["bias_l0"][1] == 0


def test_cell_clip_by_hand():
    """It clips what is kept, and lets gradients through up to its bound and no further."""
    for c0, slope in [(10.0, 0.0), (4.0, 0.5), (-4.0, 0.5), (-4.001, 0.0)]:
        h, c, back = one_step(c0=[c0], cell_clip=2.0)
        n = max(-2.0, min(2.0, c0 / 2))
        np.testing.assert_allclose([h[0], c[0]], [0.5 * tanh(n), n], **CLOSE)
        assert back(0.0, 1.0).c0.item() == slope


def test_gate_clip_by_hand():
    """The argument of all five activations, that of the cell's too."""
    h, c, back = one_step(bias=(5, -5, 5, -5), c0=[9.0], gate_clip=1.0)
    n = s(-1) * 9 + s(1) * tanh(1)
    assert n > 1
    np.testing.assert_allclose([h[0], c[0]], [s(-1) * tanh(1), n], **CLOSE)
    grads = back(1.0, 0.0)
    assert grads.c0.item() == 0
    assert not grads.params["bias_l0"].any()


def test_projection_by_hand():
    """Three columns of h from one unit; the clip is of h, with a gradient where it does not bite."""
    m = 0.5 * tanh(1)
    h, c, back = one_step(c0=[2.0], weight_hr_l0=[[1.0], [-3.0], [2.0]])
    np.testing.assert_allclose([*h, *c], [m, -3 * m, 2 * m, 1], **CLOSE)
    h, c, back = one_step(c0=[2.0], weight_hr_l0=[[1.0], [-3.0], [2.0]], proj_clip=0.5)
    np.testing.assert_allclose([*h, *c], [m, -0.5, 0.5, 1], **CLOSE)
    np.testing.assert_allclose(back([1.0, 1.0, 1.0], [0.0]).params["weight_hr_l0"][:, 0], [m, 0, 0], **CLOSE)


def test_activations_by_hand():
    h, c, _ = one_step(bias=(1, 2, 3, 4), c0=[2.0], activations=("affine", ("affine", 2.0), ("affine", 1.0, 5.0)))
    assert c[0] == 2 * 2 + 1 * (2 * 3)
    assert h[0] == 4 * (10 + 5)


def test_norm_of_products_by_hand():
    """W x alone: eight numbers of mean 4.5 and variance 5.25; the other product is 0 and stays 0."""
    w = np.arange(1.0, 9.0)
    ones = {"norm_ih_l0": np.full(8, 2.0), "norm_hh_l0": np.full(8, 9.0), "norm_c_l0": [[1, 1], [0, 0]]}
    _, c, _ = one_step(c0=[1.0, 1.0], x=1.0, weight_ih=w, layer_norm="output", layer_norm_eps=0.75, **ones)
    a = 2 * (w - 4.5) / sqrt(5.25 + 0.75)
    want = [s(a[2 + k]) + s(a[k]) * tanh(a[4 + k]) for k in (0, 1)]
    np.testing.assert_allclose(c, want, **CLOSE)


def test_norm_of_c_by_hand():
    """n = (0.5, 1.5), and N(n) = (-1, 1) / sqrt(1 + eps / var)."""
    gains = {"norm_ih_l0": np.ones(8), "norm_hh_l0": np.ones(8), "norm_c_l0": [[1, 2], [3, 4]]}
    peep = {"peephole_l0": [[0, 0], [0, 0], [1, 1]]}
    size = 1 / sqrt(1 + 0.25 / 0.25)
    v = [-size + 3, 2 * size + 4]
    h, c, _ = one_step(c0=[1.0, 3.0], layer_norm="output", layer_norm_eps=0.25, **gains, **peep)
    np.testing.assert_allclose([*c, *h], [0.5, 1.5, s(0.5) * tanh(v[0]), s(1.5) * tanh(v[1])], **CLOSE)
    h, c, _ = one_step(c0=[1.0, 3.0], layer_norm="cell", layer_norm_eps=0.25, **gains, **peep)
    np.testing.assert_allclose([*c, *h], [*v, *(s(e) * tanh(e) for e in v)], **CLOSE)


def test_zoneout_by_hand():
    """By expectation without masks; with them by each element; h comes from the new c, not from the kept one."""
    h, c, _ = one_step(c0=[2.0], h0=[7.0], zoneout=(0.25, 0.5))
    np.testing.assert_allclose([h[0], c[0]], [0.25 * 7 + 0.75 * 0.5 * tanh(1), 0.5 * 2 + 0.5 * 1], **CLOSE)
    for kept_h, kept_c in [(True, False), (False, True)]:
        masks = {"zoneout_h_l0": [[[kept_h]]], "zoneout_c_l0": [[[kept_c]]]}
        h, c, _ = one_step(c0=[2.0], h0=[7.0], zoneout=(0.25, 0.5), masks=masks)
        np.testing.assert_allclose([h[0], c[0]], [7 if kept_h else 0.5 * tanh(1), 2 if kept_c else 1], **CLOSE)


def test_recurrent_dropout_and_weight_drop_by_hand():
    """Kept values are divided by 1 - p = 0.25; without masks nothing happens; zoneout keeps the whole h'."""
    w = np.zeros((8, 2))
    w[4:6] = [[1, 2], [3, 4]]
    data = {"h0": [0.1, 0.2], "c0": [0.0, 0.0], "weight_hh_l0": w}
    _, c, _ = one_step(**data, recurrent_dropout=0.75, weight_drop=0.75)
    np.testing.assert_allclose(c, [0.5 * tanh(0.5), 0.5 * tanh(1.1)], **CLOSE)
    masks = {"recurrent_dropout_l0": [[False, True]], "zoneout_h_l0": [[[True, True]]]}
    h, c, _ = one_step(**data, recurrent_dropout=0.75, zoneout=(0.5, 0.0), masks=masks)
    np.testing.assert_allclose([*c, *h], [0.5 * tanh(0.4), 0.5 * tanh(1.2), 0.1, 0.2], **CLOSE)
    dropped = np.ones((8, 2), bool)
    dropped[5, 0] = False
    _, c, _ = one_step(**data, weight_drop=0.75, masks={"weight_drop_l0": dropped})
    np.testing.assert_allclose(c, [0, 0.5 * tanh(1.2)], **CLOSE)


def test_elman_by_hand():
    params = {"weight_ih_l0": [[2.0]], "weight_hh_l0": [[0.5]], "bias_l0": [1.0]}
    y, (h, c), tape = reference.forward(params, [[[1.0]], [[-4.0]]], ([[[4.0]]], None), nonlinearity="relu")
    np.testing.assert_array_equal(y[:, 0, 0], [5.0, 0.0])
    assert h.item() == 0
    assert c.shape == (1, 1, 0)
    grads = reference.backward(params, tape, [[[3.0]], [[1.0]]])
    np.testing.assert_array_equal([*grads.x[:, 0, 0], grads.h0.item()], [6, 0, 1.5])
    np.testing.assert_array_equal(grads.dh_norm[0, :, 0], [3, 1])
    np.testing.assert_array_equal(grads.dc_norm, 0)
    y, _, _ = reference.forward(params, [[[1.0]], [[-4.0]]], ([[[4.0]]], None), nonlinearity="tanh")
    np.testing.assert_allclose(y[:, 0, 0], [tanh(5), tanh(-7 + tanh(5) / 2)], **CLOSE)
