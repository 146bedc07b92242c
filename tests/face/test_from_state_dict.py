"""Networks made from state dicts: sizes are inferred, and what does not fit is named."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from support.cases import same_bits

KINDS = {
    "plain": {},
    "layers": {"num_layers": 3},
    "both": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False},
    "projection": {"proj_size": 2, "num_layers": 2},
    "wide projection": {"proj_size": 9, "bidirectional": True},
    "peephole": {"peephole": True},
    "highway": {"num_layers": 3, "shortcut": "highway"},
    "float64": {"dtype": "float64"},
}


@pytest.mark.parametrize("prefix", ["", "encoder.lstm."])
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_sizes_are_inferred(options, prefix):
    lstm = qg.LSTM(3, 4, **options, rng=0)
    for values in (lstm.state_dict(prefix=prefix), {prefix + name: value for name, value in lstm.params.items()}):
        made = qg.LSTM.from_state_dict(values)
        assert repr(made) == repr(lstm)
        for name, value in lstm.params.items():
            assert same_bits(made.params[name], value)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}])
def test_an_rnn(options):
    rnn = qg.RNN(3, 4, nonlinearity="relu", **options, rng=0)
    made = qg.RNN.from_state_dict(rnn.state_dict(), nonlinearity="relu")
    assert repr(made) == repr(rnn)
    with pytest.raises(ValueError, match=r"pass nonlinearity='tanh' or 'relu'"):
        qg.RNN.from_state_dict(rnn.state_dict())


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "proj_size": 2}, {"bias": False}])
def test_torch(options):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LSTM(3, 4, **options), torch.nn.Linear(2, 2))
    ours = qg.LSTM.from_state_dict(theirs.state_dict(), batch_first=True)
    assert ours.batch_first
    x = torch.randn(2, 6, 3)
    want = theirs[1](x.transpose(0, 1))[0].transpose(0, 1).detach().numpy()
    np.testing.assert_allclose(ours(x)[0], want, atol=1e-6)


@pytest.mark.parametrize("prefix", ["", "cell."])
@pytest.mark.parametrize("bias", [True, False])
def test_a_cell(prefix, bias):
    """LSTMCell's names have no layer; the cell is a step of a network of one layer."""
    rng = np.random.default_rng(0)
    shapes = {"weight_ih": (16, 3), "weight_hh": (16, 4)} | ({"bias_ih": (16,), "bias_hh": (16,)} if bias else {})
    values = {prefix + name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    lstm = qg.LSTM.from_state_dict(values)
    assert (lstm.input_size, lstm.hidden_size, lstm.num_layers, lstm.bias) == (3, 4, 1, bias)
    assert same_bits(lstm.params["weight_hh_l0"], values[f"{prefix}weight_hh"])
    other = qg.LSTM(3, 4, bias=bias)
    other.load_state_dict(values)
    for name, value in lstm.params.items():
        assert same_bits(other.params[name], value)
    if bias:
        total = values[f"{prefix}bias_ih"].astype(float) + values[f"{prefix}bias_hh"]
        assert same_bits(lstm.params["bias_l0"], total.astype(np.float32))


def test_several_networks_are_chosen_from_by_name():
    one, two = qg.LSTM(3, 4, rng=0), qg.LSTM(4, 5, 2, rng=1)
    values = {**one.state_dict(prefix="encoder."), **two.state_dict(prefix="decoder.rnn."), "head.weight": np.ones(3)}
    with pytest.raises(ValueError, match=r"several networks.*name=.*'decoder\.rnn', 'encoder'"):
        qg.LSTM.from_state_dict(values)
    for name in ("decoder.rnn", "decoder.rnn."):
        assert repr(qg.LSTM.from_state_dict(values, name=name)) == repr(two)
    assert same_bits(qg.LSTM.from_state_dict(values, name="encoder").params["bias_l0"], one.params["bias_l0"])
    with pytest.raises(ValueError, match=r"no network 'decoder'.*'decoder\.rnn'"):
        qg.LSTM.from_state_dict(values, name="decoder")
    with pytest.raises(TypeError, match="name must be a str"):
        qg.LSTM.from_state_dict(values, name=3)


def test_options_that_arrays_do_not_tell():
    lstm = qg.LSTM(3, 4, 2, layer_norm="cell", rng=0)
    with pytest.raises(ValueError, match=r"layer_norm='output' or 'cell'"):
        qg.LSTM.from_state_dict(lstm.state_dict())
    assert repr(qg.LSTM.from_state_dict(lstm.state_dict(), layer_norm="cell")) == repr(lstm)
    dense = qg.LSTM(3, 4, 2, shortcut="dense", rng=0)
    assert repr(qg.LSTM.from_state_dict(dense.state_dict(), shortcut="dense")) == repr(dense)
    with pytest.raises(ValueError, match="weight_ih_l1 must have shape"):
        qg.LSTM.from_state_dict(dense.state_dict())
    one = qg.LSTM.from_state_dict(qg.LSTM(3, 4, 2, rng=0).state_dict(), dropout=0.5, rng=3)
    two = qg.LSTM.from_state_dict(qg.LSTM(3, 4, 2, rng=0).state_dict(), dropout=0.5, rng=3)
    x = np.ones((2, 1, 3), np.float32)
    assert same_bits(one.forward(x)[2].dropped["dropout_l0"], two.forward(x)[2].dropped["dropout_l0"])
    assert qg.LSTM.from_state_dict(lstm.state_dict(), layer_norm="cell", dtype="float64").dtype == np.float64


@pytest.mark.parametrize("from_state_dict", [qg.LSTM.from_state_dict, qg.io.from_state_dict])
def test_options_that_shape_the_second_layer_are_named(from_state_dict):
    for options in ({"bidirectional": True, "merge": "sum"}, {"shortcut": "dense"}):
        arrays = qg.LSTM(3, 4, 2, **options, rng=0).state_dict()
        with pytest.raises(ValueError, match=r"weight_ih_l1 must have shape .*got .*merge= or shortcut="):
            from_state_dict(arrays)
        options.pop("bidirectional", None)
        assert from_state_dict(arrays, **options).num_layers == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "holds no network: there is no weight_ih_l0"),
        ({"weight_ih_l0": np.ones((16, 3))}, "weight_hh_l0"),
        ({"weight_ih_l0": np.ones(16), "weight_hh_l0": np.ones((16, 4))}, "two axes"),
        ({"weight_ih_l0": np.ones((12, 3)), "weight_hh_l0": np.ones((12, 4))}, "GRU"),
        ({"weight_ih_l0": np.ones((4, 3)), "weight_hh_l0": np.ones((4, 4))}, "plain recurrent network"),
        ({**qg.LSTM(3, 4).state_dict(), "weight": np.ones(3)}, "unknown: weight"),
        ({**qg.LSTM(3, 4).state_dict(), "weight_hh_l0": np.ones((20, 4))}, "weight_hh_l0 must have shape"),
    ],
)
def test_refused(values, said):
    with pytest.raises(ValueError, match=said):
        qg.LSTM.from_state_dict(values)


def test_refused_types():
    with pytest.raises(TypeError, match="must be a mapping"):
        qg.LSTM.from_state_dict([1])
    with pytest.raises(ValueError, match="an LSTM"):
        qg.RNN.from_state_dict(qg.LSTM(3, 4).state_dict())
