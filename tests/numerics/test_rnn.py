"""qg.RNN: h_t = f(W x + R h + b), with the interface of qg.LSTM where there is no cell to speak of."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
import quadgate as qg
from quadgate import reference
from support import bounds
from support.cases import DTYPES, same_bits

T, B, IN, H = 6, 3, 5, 7


def normal(*shape, dtype="float32", seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)


def make(dtype="float32", **options):
    return qg.RNN(IN, H, dtype=dtype, rng=0, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_the_formula(nonlinearity, dtype):
    """Written out."""
    rnn = make(dtype, nonlinearity=nonlinearity)
    x, h = normal(T, B, IN, dtype=dtype), normal(1, B, H, dtype=dtype)
    y, end = rnn(x, h)
    assert y.dtype == end.dtype == dtype
    p = {name: value.astype(np.float64) for name, value in rnn.params.items()}
    now = h[0].astype(np.float64)
    for t in range(T):
        a = x[t] @ p["weight_ih_l0"].T + now @ p["weight_hh_l0"].T + p["bias_l0"]
        now = np.tanh(a) if nonlinearity == "tanh" else np.maximum(a, 0)
        bounds.assert_norm(y[t], now, bounds.norm_bound(dtype, IN + H + 1, t + 1), f"step {t}")
    assert same_bits(end[0], y[-1])


VARIANTS = [
    {},
    {"nonlinearity": "relu"},
    {"num_layers": 2, "bidirectional": True, "merge": "mul"},
    {"num_layers": 3, "shortcut": "highway", "bias": False},
    {"num_layers": 2, "shortcut": "dense", "reverse": True},
    {"num_layers": 2, "dropout": 0.3, "recurrent_dropout": 0.4, "weight_drop": 0.2},
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", VARIANTS)
def test_against_the_reference(options, dtype):
    """Forward and backward, with lengths and resets; the masks are those of the tape."""
    rnn = make(dtype, **options)
    directions = 2 if rnn.bidirectional else 1
    states = rnn.num_layers * directions
    x, h0 = normal(T, B, IN, dtype=dtype), normal(states, B, H, dtype=dtype)
    lengths, resets = np.array([6, 0, 4]), normal(T, B) > 1
    y, h, tape = rnn.forward(x, h0, lengths=lengths, resets=resets, rng=3)
    dy, dh = normal(*y.shape, dtype=dtype, seed=1), normal(*h.shape, dtype=dtype, seed=1)
    grads = rnn.backward(tape, dy, dh)
    given = {"nonlinearity": "tanh", "num_layers": 1, "bidirectional": False, **options}
    given["masks"] = tape.dropped or None
    empty = np.empty((states, B, 0))
    want, (want_h, _), want_tape = reference.forward(rnn.params, x, (h0, empty), lengths, resets=resets, **given)
    want_grads = reference.backward(rnn.params, want_tape, dy, (dh, None))
    depth = T * rnn.num_layers
    ahead = bounds.norm_bound(dtype, 3 * H + IN + 1, depth)
    back = bounds.norm_bound(dtype, 9 * max(2 * H, B), depth, backward=True)
    for got, value, bound in ((y, want, ahead), (h, want_h, ahead), (grads.x, want_grads.x, back)):
        bounds.assert_norm(got, value, bound, str(options))
    bounds.assert_norm(grads.h0, want_grads.h0, back, "h0")
    assert list(grads.params) == list(rnn.params)
    for name, value in grads.params.items():
        bounds.assert_norm(value, want_grads.params[name], back, name)


def test_against_torch():
    """Its state dict is taken, and gives its numbers."""
    torch = pytest.importorskip("torch")
    for nonlinearity in ("tanh", "relu"):
        theirs = torch.nn.RNN(IN, H, 2, nonlinearity=nonlinearity, bidirectional=True, dtype=torch.float64)
        ours = make("float64", num_layers=2, nonlinearity=nonlinearity, bidirectional=True)
        ours.load_state_dict({name: value.detach() for name, value in theirs.state_dict().items()})
        x, h0 = normal(T, B, IN, dtype="float64"), normal(4, B, H, dtype="float64")
        with torch.no_grad():
            want, want_h = theirs(torch.from_numpy(x), torch.from_numpy(h0))
        bound = bounds.norm_bound("float64", 2 * H + IN + 2, 4 * T)  # both sides round
        y, h = ours(x, h0)
        bounds.assert_norm(y, want.numpy(), bound, nonlinearity)
        bounds.assert_norm(h, want_h.numpy(), bound, nonlinearity)
        theirs.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})


@pytest.mark.parametrize("change", [np.ndarray.tolist, np.asfortranarray, lambda a: a.astype(np.longdouble)])
def test_arguments_of_any_kind(change):
    rnn = make(num_layers=2)
    x, h0 = normal(T, B, IN), normal(2, B, H)
    y, h, tape = rnn.forward(x, h0)
    grads = rnn.backward(tape, y, h)
    for got in (rnn(change(x), change(h0)), rnn(x, change(h0)), rnn.forward(change(x), change(h0))[:2]):
        assert same_bits(got[0], y)
        assert same_bits(got[1], h)
    for other in (rnn.backward(tape, change(y), change(h)), rnn.backward(tape, y, change(h))):
        assert same_bits(other.x, grads.x)
        assert same_bits(other.h0, grads.h0)
    out = np.zeros_like(y)
    assert rnn(x, h0, out=out)[0] is out
    assert same_bits(out, y)
    wide = np.zeros((T, B, 2 * H), np.float32)
    assert rnn(change(x), h0, out=wide[..., ::2])[0].base is wide
    assert same_bits(np.ascontiguousarray(wide[..., ::2]), y)


def test_without_a_batch_axis_and_batch_first():
    rnn = make(num_layers=2)
    first = make(num_layers=2, batch_first=True)
    x, h0 = normal(T, B, IN), normal(2, B, H)
    y, h, tape = rnn.forward(x, h0)
    y2, h2, tape2 = first.forward(np.ascontiguousarray(x.swapaxes(0, 1)), h0)
    assert same_bits(np.ascontiguousarray(y2.swapaxes(0, 1)), y)
    assert same_bits(h2, h)
    assert same_bits(first.backward(tape2, y2).h0, rnn.backward(tape, y).h0)
    for net in (rnn, first):
        flat, end, tape = net.forward(x[:, 1], h0[:, 1])
        assert same_bits(flat, np.ascontiguousarray(y[:, 1]))
        assert same_bits(end, np.ascontiguousarray(h[:, 1]))
        grads = net.backward(tape, flat, end)
        assert grads.x.shape == (T, IN)
        assert grads.h0.shape == (2, H)


def test_gradients_into_arrays():
    rnn = make()
    y, h, tape = rnn.forward(normal(T, B, IN))
    want = rnn.backward(tape, y, h)
    out = {name: np.ones(value.shape, np.float32) for name, value in rnn.params.items()}
    grads = rnn.backward(tape, y, h, input_grad=False, state_grad=False, out=out)
    assert grads.x is grads.h0 is None
    for name, value in out.items():
        assert grads.params[name] is value
        assert same_bits(value, want.params[name])
    with pytest.raises(ValueError, match="accumulate"):
        rnn.backward(tape, y, accumulate=True)
    assert len(want) == 3


@pytest.mark.parametrize("batch_first", [False, True])
def test_streams(batch_first):
    rnn = make(num_layers=2, batch_first=batch_first)
    x, h0 = normal(T, B, IN), normal(2, B, H)
    layout = np.ascontiguousarray(x.swapaxes(0, 1)) if batch_first else x
    y, h = rnn(layout, h0)
    steps = y.swapaxes(0, 1) if batch_first else y
    stream = rnn.stream(B)
    assert type(stream) is qg.RNNStream
    assert stream.rnn is rnn
    assert repr(stream) == f"{rnn!r}.stream(batch_size={B})"
    assert not stream.state.any()
    stream.state = h0
    assert same_bits(stream.state, h0)
    assert same_bits(np.stack([stream.step(step) for step in x]), np.ascontiguousarray(steps))
    assert same_bits(stream.state, h)
    for other in (copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        assert same_bits(other.state, h)
    stream.state = h0.tolist()
    assert same_bits(stream.run(layout), y)
    stream.reset([True, False, True])
    assert not stream.state[:, [0, 2]].any()
    assert same_bits(stream.state[:, 1], h[:, 1])
    for bad, error in ((h0[:1], ValueError), ((h0, h0), ValueError), (None, TypeError), (h0 * 1j, TypeError)):
        with pytest.raises(error, match=r"^state must"):
            stream.state = bad
    one = rnn.stream()
    one.state = h0[:, 0]
    assert one.state.shape == (2, 1, H)


def test_pickle():
    rnn = make(num_layers=2, nonlinearity="relu")
    x = normal(T, B, IN)
    want, _ = rnn(x)
    for other in (copy.deepcopy(rnn), pickle.loads(pickle.dumps(rnn))):
        assert type(other) is qg.RNN
        assert same_bits(other(x)[0], want)
    grads = rnn.backward(rnn.forward(x)[2], want)
    assert same_bits(pickle.loads(pickle.dumps(grads)).h0, grads.h0)


def says(*parts):
    return "^" + ".*".join(re.escape(str(p)) for p in parts)


@pytest.mark.parametrize("call", ["__call__", "forward"])
def test_a_wrong_state(call):
    rnn, x = make(), normal(T, B, IN)
    for shape in ((1, B, H + 1), (1, B), (B, H), (2, B, H), (), (1, 1, H), (1, B, H, 0)):
        with pytest.raises(ValueError, match=says("h0 must have shape", (1, B, H), "got", shape)):
            getattr(rnn, call)(x, np.zeros(shape, np.float32))
    for bad in (np.zeros((1, B, H), bool), "text", object(), np.zeros((1, B, H), complex)):
        with pytest.raises(TypeError, match=r"^h0 "):
            getattr(rnn, call)(x, bad)
    with pytest.raises(ValueError, match=r"^h0 "):
        getattr(rnn, call)(x, (np.zeros((1, B, H)), np.zeros((1, B, 0))))


def test_wrong_gradients():
    rnn = make()
    _, _, tape = rnn.forward(normal(T, B, IN))
    with pytest.raises(ValueError, match=says("dh must have shape", (1, B, H), "got", (1, B, H + 1))):
        rnn.backward(tape, dh=np.zeros((1, B, H + 1)))
    with pytest.raises(TypeError, match=r"^dh "):
        rnn.backward(tape, dh=np.zeros((1, B, H), complex))
    with pytest.raises(ValueError, match=says("dy must have shape", (T, B, H))):
        rnn.backward(tape, dy=np.zeros((T, B, IN)))
    with pytest.raises(TypeError, match=r"^tape must"):
        rnn.backward(None)
    other = qg.LSTM(IN, H)
    with pytest.raises(ValueError, match="tape"):
        rnn.backward(other.forward(normal(T, B, IN))[2], np.ones((T, B, H)))


def test_out_and_state_share_memory():
    rnn = qg.RNN(IN, H)
    base = np.zeros((T, B, H), np.float32)
    with pytest.raises(ValueError, match=r"^out must not share memory with h0"):
        rnn(normal(T, B, IN), base[:1], out=base)


def test_empty():
    rnn = make(num_layers=2)
    h0 = normal(2, B, H)
    y, h = rnn(np.zeros((0, B, IN), np.float32), h0)
    assert y.shape == (0, B, H)
    assert same_bits(h, h0)
    with pytest.raises(MemoryError):
        qg.RNN(2**40, 2**40)
