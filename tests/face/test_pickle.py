"""Networks, streams and results survive pickle and deepcopy."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import quadgate as qg
from support.cases import DTYPES, data, infer, model, plain, run, same_bits

COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    **{f"pickle{p}": (lambda o, p=p: pickle.loads(pickle.dumps(o, p))) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)},
}
every_copy = pytest.mark.parametrize("again", COPIES.values(), ids=COPIES)
OPTIONS = [
    plain(5, 3, 4, 18),
    plain(5, 3, 4, 18, 2, True, batch_first=True),
    plain(5, 3, 4, 18, 3, bias=False, dtype="float64"),
]


@every_copy
@pytest.mark.parametrize("case", OPTIONS, ids=["plain", "all", "float64"])
def test_networks(case, again):
    lstm, d = model(case), data(case)
    infer(case, lstm, d)
    other = again(lstm)
    assert type(other) is qg.LSTM
    assert repr(other) == repr(lstm)
    for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional", "dtype"):
        assert getattr(other, name) == getattr(lstm, name)
    want, got = run(case, lstm, d), run(case, other, d)
    for name, value in want.items():
        assert same_bits(got[name], value), name
    assert all(not value.flags.writeable for value in other.params.values())


@every_copy
def test_a_copy_is_a_network_of_its_own(again):
    case = OPTIONS[0]
    lstm, d = model(case), data(case)
    want = infer(case, lstm, d)
    other = again(lstm)
    with other.writable() as params:
        params["weight_hh_l0"][...] = 0
    assert lstm.params["weight_hh_l0"].any()
    for name, got in infer(case, lstm, d).items():
        assert same_bits(got, want[name])
    assert not same_bits(infer(case, other, d).y, want.y)


@every_copy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_streams(again, batch, dtype):
    """With the state they have at that moment; then each goes its own way."""
    case = plain(8, batch, 4, 18, 2, dtype=dtype)
    lstm, d = model(case), data(case)
    want, _ = lstm(d.x)
    stream = lstm.stream(batch)
    stream.run(d.x[:5])
    other = again(stream)
    assert other.batch == batch
    for one in (stream, other):
        assert same_bits(one.run(d.x[5:]), want[5:])
    stream.reset()
    assert other.state[0].any()


def test_a_network_and_its_stream_together():
    """Pickled as a pair they stay a pair."""
    lstm = qg.LSTM(3, 4, rng=0)
    network, stream = pickle.loads(pickle.dumps((lstm, lstm.stream())))
    with network.writable() as params:
        params["weight_ih_l0"][...] = 0
    one, other = np.zeros((2, 3), np.float32)
    other[...] = 9
    assert same_bits(stream.step(one), network.stream().step(other))


def test_gradients():
    case = OPTIONS[0]
    lstm, d = model(case), data(case)
    _, _, tape = lstm.forward(d.x)
    grads = lstm.backward(tape, d.dy)
    for other in (pickle.loads(pickle.dumps(grads)), copy.deepcopy(grads)):
        assert same_bits(other.x, grads.x)
        assert list(other.params) == list(grads.params)


def test_subclasses_keep_their_attributes():
    again = pickle.loads(pickle.dumps(Named(3, 4, rng=0)))
    assert type(again) is Named
    assert again.name == "mine"
    assert again.params["bias_l0"].shape == (16,)


class Named(qg.LSTM):
    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        self.name = "mine"


def test_the_size_is_that_of_the_parameters():
    """Neither packed weights nor workspaces are saved."""
    lstm = qg.LSTM(64, 128, rng=0)
    lstm(np.zeros((50, 8, 64), np.float32))
    assert len(pickle.dumps(lstm)) < lstm.num_parameters * 4 + 4096
