"""Pickles and files of earlier versions and other NumPys stay readable.

The files in ``golden`` were written once, under NumPy 2.4. Never write them anew; a new format gets a file of its own
beside them.

- ``format1.pickle``: ``pickle.dump(list(made()), file, 4)``
- ``quantized2.pickle``: ``pickle.dump(compact(), file, 4)``
- ``results1.pickle``: ``pickle.dump(results(), file, 4)``
- ``net1.safetensors``: ``qg.save`` of the second network of `made`
- ``quantized2.safetensors``: ``qg.save`` of the last of `compact`
- ``model1.safetensors``: ``model().save``
- ``model1.pickle``: ``pickle.dump(model(), file, 4)``
- ``state1.pickle``: the same of the state of ``train.Adam`` after a step with one parameter (2, 3) and gradients 1
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import quadgate as qg
from quadgate import train
from support.cases import same_bits

GOLDEN = Path(__file__).with_name("golden")
FILES = sorted(GOLDEN.glob("format*.pickle"))


def filled(net):
    """Give every parameter numbers that can be told from its place."""
    values = {
        name: ((np.arange(value.size) * (k + 1)) % 17 - 8).reshape(value.shape) / 16
        for k, (name, value) in enumerate(net.params.items())
    }
    net.load_state_dict(values)
    if net._mask_plan:
        net._generator = np.random.Generator(np.random.PCG64(12345))
    return net


def made():
    """The networks and streams in the files."""
    everything = {"proj_size": 2, "peephole": True, "layer_norm": "cell", "zoneout": (0.25, 0.5), "cell_clip": 3.0}
    yield filled(qg.LSTM(3, 4))
    yield filled(qg.LSTM(3, 4, 2, bidirectional=True, merge="sum", batch_first=True, dropout=0.5, **everything))
    yield filled(qg.LSTM(3, 4, dtype=np.float64, activations=("hard_sigmoid", ("elu", 0.5), "tanh"), bias=False))
    yield filled(qg.RNN(3, 4, 2, nonlinearity="relu", shortcut="highway", recurrent_dropout=0.25))
    stream = filled(qg.LSTM(3, 4, 2)).stream(batch_size=2)
    stream.state = np.arange(16).reshape(2, 2, 4) / 16, np.arange(16).reshape(2, 2, 4) / -32
    yield stream
    stream = filled(qg.RNN(3, 4, dtype=np.float64)).stream(batch_size=2)
    stream.state = np.arange(8).reshape(1, 2, 4) / 16
    yield stream


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_file_of_long_ago(path):
    values = pickle.loads(path.read_bytes())
    for value, want in zip(values, made(), strict=True):
        assert type(value) is type(want)
        assert repr(value) == repr(want)
        net, wanted = (getattr(v, "_network", v) for v in (value, want))
        assert list(net.params) == list(wanted.params)
        for name, parameter in wanted.params.items():
            assert same_bits(net.params[name], parameter)
        if net._mask_plan:
            assert net._generator.bit_generator.state == np.random.PCG64(12345).state
        if net is not value:
            for got, part in zip(np.atleast_1d(value.state), np.atleast_1d(want.state), strict=True):
                assert same_bits(got, part)


def test_there_is_a_file_of_each_format():
    from quadgate._pickling import FORMAT

    assert [path.stem for path in FILES] == [f"format{n}" for n in range(1, FORMAT + 1)]


def compact():
    """The quantised networks in the files."""
    return [filled(qg.LSTM(3, 4, peephole=True)).quantize(kind) for kind in ("float16", "bfloat16", "int8")]


def same_network(got, want):
    assert repr(got) == repr(want)
    assert got.weight_type == want.weight_type
    assert list(got.params) == list(want.params)
    assert all(same_bits(got.params[name], value) for name, value in want.params.items())


def test_quantised_networks_of_long_ago():
    """Their values are sixteenths, which 16 bits hold exactly, and int8 within half a step of its row's scale."""
    loaded = pickle.loads(GOLDEN.joinpath("quantized2.pickle").read_bytes())
    for got, want in zip(loaded, compact(), strict=True):
        same_network(got, want)
        for name, value in filled(qg.LSTM(3, 4, peephole=True)).params.items():
            step = np.abs(value).max(-1, keepdims=True) / 127 if want.weight_type == "int8" else 0
            assert (np.abs(got.params[name] - value) <= step * 0.5001).all()


def test_safetensors_of_long_ago():
    pytest.importorskip("safetensors", reason="safetensors is not installed: install safetensors")
    same_network(qg.load(GOLDEN / "net1.safetensors"), list(made())[1])
    same_network(qg.load(GOLDEN / "quantized2.safetensors"), compact()[-1])


def model():
    """The model in the file: two steps of an optimizer behind its first parameters, and states to go on from."""
    net = qg.LSTM(3, 4, recurrent_dropout=0.25, rng=5)
    result = train.Sequential([train.Embedding(7, 3), net, train.Dense(4, 2)], stateful=True, rng=5)
    params = {
        name: ((np.arange(value.size) * (k + 1)) % 17 - 8).reshape(value.shape) / 16
        for k, (name, value) in enumerate(result.params.items())
    }
    result.load_params(params)
    rate = train.WarmupCosine(0.01, 1, 10)
    result.compile("softmax_cross_entropy", train.SGD(rate, momentum=0.5, clip_value=1.0))
    one = {name: np.ones(value.shape, np.float32) for name, value in params.items()}
    for _ in range(2):
        result.apply_gradients(one)
    return result


@pytest.mark.parametrize("form", ["safetensors", "pickle"])
def test_a_model_of_long_ago(form):
    """SGD of gradients 1: after steps of rates r0 and r1 a parameter is p - r0 - 1.5 r1, its velocity 1.5."""
    path = GOLDEN / f"model1.{form}"
    if form == "pickle":
        got = pickle.loads(path.read_bytes())
    else:
        pytest.importorskip("safetensors", reason="safetensors is not installed: install safetensors")
        got = train.load(path)
    assert (got.step, got.stateful, got.head, got.dtype) == (2, True, None, np.float32)
    assert repr(got.layers) == repr(model().layers)
    assert repr(got.optimizer) == repr(train.SGD(train.WarmupCosine(0.01, 1, 10), 0.5))
    assert got.optimizer.clip_value == 1.0
    moved = sum(v * got.optimizer.rate(k) for k, v in enumerate((1.0, 1.5)))
    for k, (name, value) in enumerate(got.params.items()):
        want = ((np.arange(value.size) * (k + 1)) % 17 - 8).reshape(value.shape) / 16 - moved
        assert np.abs(value - want).max() <= 3 * 2**-24, name
    x = np.arange(10).reshape(2, 5) % 7
    resumed = model()
    assert got.train_on_batch(x, x % 2) == resumed.train_on_batch(x, x % 2)  # the same dropout, too
    assert same_bits(got.params.flat, resumed.params.flat)


def test_an_optimizers_state_of_long_ago():
    """Its means are (1 - beta_1) g and (1 - beta_2) g^2."""
    state = pickle.loads(GOLDEN.joinpath("state1.pickle").read_bytes())
    assert state.step == 1
    assert list(state.slots) == ["m", "v"]
    for name, want in (("m", 0.1), ("v", 0.001)):
        (mean,) = state.slots[name]
        assert mean.shape == (2, 3)
        np.testing.assert_allclose(mean, want, rtol=2**-22)
    params = [np.ones((2, 3), np.float32)]
    assert train.Adam(0.1).update(params, params, state)[1].step == 2


def results():
    """The results in the file: numbers that can be told from their places."""
    arrays = [np.arange(24, dtype=np.float32).reshape(4, 2, 3) / (k + 1) for k in range(7)]
    trace = qg.Trace(*arrays[:5])
    trace.dh_norm = arrays[5][..., 0].astype(np.float64)
    params = {"weight_ih_l0": arrays[5][0], "bias_l0": arrays[6][0, 0]}
    return [qg.LSTMGrads(None, arrays[0], arrays[1], params), qg.RNNGrads(arrays[2], arrays[3], params), trace]


def test_results_of_long_ago():
    loaded = pickle.loads(GOLDEN.joinpath("results1.pickle").read_bytes())
    for value, want in zip(loaded, results(), strict=True):
        assert type(value) is type(want)
        names = qg.Trace.__slots__ if isinstance(want, qg.Trace) else want._fields
        for name in names:
            got, part = getattr(value, name), getattr(want, name)
            if isinstance(part, dict):
                assert list(got) == list(part)
                assert all(same_bits(got[key], part[key]) for key in part)
            else:
                assert got is None if part is None else same_bits(got, part)
