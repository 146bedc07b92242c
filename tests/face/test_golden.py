"""Pickles of earlier versions and other NumPys stay readable.

``golden/format1.pickle`` was written once, by ``pickle.dump(list(made()), file, 4)`` under NumPy 2.4, and
``results1.pickle`` by ``pickle.dump(results(), file, 4)``: never write them anew. A new format gets a file of its own
beside it.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import quadgate as qg
from support.cases import same_bits

FILES = sorted(Path(__file__).with_name("golden").glob("format*.pickle"))


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


def results():
    """The results in the file: numbers that can be told from their places."""
    arrays = [np.arange(24, dtype=np.float32).reshape(4, 2, 3) / (k + 1) for k in range(7)]
    trace = qg.Trace(*arrays[:5])
    trace.dh_norm = arrays[5][..., 0].astype(np.float64)
    params = {"weight_ih_l0": arrays[5][0], "bias_l0": arrays[6][0, 0]}
    return [qg.LSTMGrads(None, arrays[0], arrays[1], params), qg.RNNGrads(arrays[2], arrays[3], params), trace]


def test_results_of_long_ago():
    loaded = pickle.loads(Path(__file__).with_name("golden").joinpath("results1.pickle").read_bytes())
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
