"""Initial parameters: PyTorch's scheme, Keras's scheme, a chosen forget bias; from a seed, the same in both types."""

from __future__ import annotations

import math

import numpy as np
import pytest
import quadgate as qg
from support.cases import DTYPES, same_bits

ALL = {"num_layers": 2, "bidirectional": True, "peephole": True, "layer_norm": "output", "shortcut": "highway"}
BOTH = pytest.mark.parametrize("scheme", ["pytorch", "keras"])


def kind(name):
    return name[: name.rindex("_l")]


def assert_uniform(value, end, name):
    """Within the ends and close to them, with the mean and deviation of n uniform draws give or take 5 sigma."""
    n = value.size
    assert np.abs(value).max() <= np.float32(end), name
    assert np.abs(value).max() > end * 1e-6 ** (1 / n), name  # of n draws all are smaller once in a million times
    assert abs(value.mean()) < 5 * end / math.sqrt(3 * n), name
    assert abs(value.std() / end * math.sqrt(3) - 1) < 5 * math.sqrt(0.2 / n), name


@BOTH
def test_one_seed_one_network(scheme):
    """For an int and its generator, and in both types up to rounding; another seed gives another."""
    for make, options in ((qg.LSTM, {**ALL, "proj_size": 3}), (qg.RNN, {"num_layers": 2, "shortcut": "highway"})):
        nets = [
            make(5, 7, **options, initialization=scheme, rng=rng, dtype=dtype)
            for rng in (3, np.random.default_rng(3), 4)
            for dtype in DTYPES
        ]
        one, double, two, _, other, _ = (net.params for net in nets)
        for name, value in one.items():
            assert value.dtype == np.float32
            assert same_bits(value, two[name])
            assert same_bits(value, double[name].astype(np.float32))
        assert not same_bits(one["weight_ih_l0"], other["weight_ih_l0"])
        assert not same_bits(one["weight_hh_l1"], other["weight_hh_l1"])
        again = make(5, 7, **options, initialization=scheme)
        assert not same_bits(again.params["weight_hh_l0"], make(5, 7, **options).params["weight_hh_l0"])


@BOTH
def test_norms_and_highways(scheme):
    """Gains of 1, biases of 0, and a highway that carries its input through more than it transforms it."""
    params = qg.LSTM(20, 30, **ALL, initialization=scheme, rng=0).params
    for name, value in params.items():
        if kind(name) in ("norm_ih", "norm_hh"):
            assert (value == 1).all()
        elif kind(name) == "norm_c":
            assert (value[0] == 1).all()
            assert (value[1] == 0).all()
        elif kind(name) == "bias_highway":
            assert (value == -1).all()
    end = 1 / math.sqrt(30) if scheme == "pytorch" else math.sqrt(6 / 120)
    assert_uniform(params["weight_highway_l1"], end, scheme)


def test_as_pytorch():
    """Everything else uniform between -1/sqrt(H) and 1/sqrt(H), projections and peepholes too."""
    params = qg.LSTM(20, 64, 2, proj_size=16, peephole=True, bidirectional=True, rng=0).params
    for name, value in params.items():
        assert_uniform(value, 1 / 8, name)
    for name, value in qg.RNN(20, 64, 2, rng=0).params.items():
        assert_uniform(value, 1 / 8, name)


def test_as_pytorch_has_it():
    """Keras's own new network agrees: for each kind the largest is close to the same bound."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(20, 64, proj_size=16).state_dict()
    ours = qg.LSTM(20, 64, proj_size=16, rng=0).state_dict()
    for name, value in theirs.items():
        if name != "bias_hh_l0":  # ours are added to the other half
            assert abs(np.abs(ours[name]).max() - value.abs().max().item()) < 0.125 * (1 - 1e-6 ** (1 / value.numel()))


@pytest.mark.parametrize(("sizes", "columns"), [((20, 30), 30), ((64, 1), 1), ((5, 30), 8), ((3, 2), 20)])
def test_as_keras(sizes, columns):
    """Glorot's uniform with the fan-out of all gates, orthonormal columns, zeros; ones for the forget gate."""
    inputs, units = sizes
    proj = {} if columns == units else {"proj_size": columns}
    params = qg.LSTM(*sizes, 2, **proj, peephole=True, initialization="keras", rng=0, dtype=np.float64).params
    for layer, width in enumerate((inputs, columns)):
        assert_uniform(params[f"weight_ih_l{layer}"], math.sqrt(6 / (width + 4 * units)), layer)
        hh = params[f"weight_hh_l{layer}"]
        if columns > 4 * units:
            hh = hh.T
        size = max(hh.shape)  # Householder's errors are some eps for each of the n rows: LAPACK Users' Guide, 4.1
        np.testing.assert_allclose(hh.T @ hh, np.eye(hh.shape[1]), atol=10 * size * np.finfo(float).eps, rtol=0)
        bias = params[f"bias_l{layer}"].reshape(4, units)
        assert (bias[1] == 1).all()
        assert not bias[[0, 2, 3]].any()
        assert not params[f"peephole_l{layer}"].any()
        if proj:
            assert_uniform(params[f"weight_hr_l{layer}"], math.sqrt(6 / (units + columns)), layer)


def test_as_keras_without_gates():
    params = qg.RNN(20, 30, 2, initialization="keras", rng=0, dtype=np.float64).params
    for layer, width in enumerate((20, 30)):
        assert_uniform(params[f"weight_ih_l{layer}"], math.sqrt(6 / (width + 30)), layer)
        hh = params[f"weight_hh_l{layer}"]
        np.testing.assert_allclose(hh.T @ hh, np.eye(30), atol=300 * np.finfo(float).eps, rtol=0)
        assert not params[f"bias_l{layer}"].any()


def test_orthogonal_matrices_are_drawn_uniformly():
    """Every sign is as likely as the other: plain Householder has the first one always negative."""
    firsts = [qg.LSTM(1, 3, initialization="keras", rng=seed).params["weight_hh_l0"][0] for seed in range(400)]
    positive = (np.array(firsts) > 0).sum(axis=0)
    assert (np.abs(positive - 200) < 5 * math.sqrt(100)).all()


def test_coupled_gates_have_no_forget_bias():
    assert not qg.LSTM(3, 4, coupled=True, initialization="keras").params["bias_l0"].any()


@BOTH
@pytest.mark.parametrize("value", [1, 0.0, -2.5])
def test_forget_bias(scheme, value):
    """The rows of f in every layer and direction; all else is what it is without."""
    options = {**ALL, "initialization": scheme, "rng": 0}
    params, without = (qg.LSTM(5, 7, forget_bias=b, **options).params for b in (value, None))
    for name, parameter in params.items():
        if kind(name) == "bias":
            assert (parameter[7:14] == np.float32(value)).all()
            parameter, plain = (np.delete(p, np.s_[7:14]) for p in (parameter, without[name]))
            assert same_bits(parameter, plain)
        else:
            assert same_bits(parameter, without[name])


def test_the_generator_that_is_given_moves_on():
    """Two networks from one generator differ."""
    rng = np.random.default_rng(0)
    one, two = (qg.LSTM(3, 4, rng=rng, dropout=0.5, num_layers=2) for _ in range(2))
    assert not same_bits(one.params["weight_ih_l0"], two.params["weight_ih_l0"])
