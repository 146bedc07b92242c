"""`train.rtrl`: forward-mode gradients equal those of backpropagation through time within bounds derived for both."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from quadgate import train
from support import bounds
from support.bounds import Num, Rounding, assert_within

NETS = [(2, 3, 1), (3, 4, 2), (1, 2, 3)]  # I, H, L


def forward_mode(dtype, params, x, dy):
    """Williams and Zipser's recursion with a bound of each number's error: x (T, 1, I), dy (T, 1, H); all losses."""
    layers = sum(name.startswith("weight_hh") for name in params)
    r = Rounding(dtype)
    _, _, tapes = bounds.forward(dtype, params, x, None, None, num_layers=layers, bidirectional=False)
    total = sum(value.size for value in params.values())
    starts = dict(zip(params, np.cumsum([0, *(value.size for value in params.values())]), strict=False))
    hidden = params["weight_hh_l0"].shape[1]
    zero = r.exact(np.zeros((hidden, total)))
    influence = [(zero, zero)] * layers
    grads = r.exact(np.zeros((1, total)))

    def column(value):
        return Num(value.v.reshape(-1, 1), value.e.reshape(-1, 1))

    for t in range(len(x)):
        below = None
        for k, tape in enumerate(tapes):
            w = {name: r.exact(params[f"{name}_l{k}"]) for name in ("weight_ih", "weight_hh", "bias")}
            d_h, d_c = influence[k]
            pairs = [(w["weight_hh"], d_h)] + ([(w["weight_ih"], below)] if below is not None else [])
            d_a = r.products(pairs)
            direct = r.exact(np.zeros_like(d_a.v))
            for name, source in (("weight_ih", tape.x[t]), ("weight_hh", tape.h_prev[t]), ("bias", r.exact([[1.0]]))):
                width = source.v.shape[1]
                for row in range(4 * hidden):
                    at = starts[f"{name}_l{k}"] + row * width
                    direct.v[row, at : at + width], direct.e[row, at : at + width] = source.v[0], source.e[0]
            d_a = r.add(d_a, direct)
            d_i, d_f, d_g, d_o = (Num(*parts) for parts in zip(np.split(d_a.v, 4), np.split(d_a.e, 4), strict=True))
            i, f, g, o = (column(gate) for gate in tape.gates[t])
            c_prev, tanh_c = column(tape.c_prev[t]), column(r.tanh(tape.c[t]))
            new = r.mul(f, d_c)
            new = r.add(new, r.mul(r.mul(g, r.sigmoid_slope(i)), d_i))
            new = r.add(new, r.mul(r.mul(c_prev, r.sigmoid_slope(f)), d_f))
            new = r.add(new, r.mul(r.mul(i, r.tanh_slope(g)), d_g))
            d_h = r.mul(r.mul(o, r.tanh_slope(tanh_c)), new)
            d_h = r.add(d_h, r.mul(r.mul(tanh_c, r.sigmoid_slope(o)), d_o))
            influence[k], below = (d_h, new), d_h
        grads = r.add(grads, r.products([(r.exact(dy[t]), below)]))
    return Num(grads.v[0], grads.e[0])


def data(net, steps, batch, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(steps, batch, net.input_size)).astype(net.dtype)
    return x, rng.normal(size=(steps, batch, net.hidden_size)).astype(net.dtype)


def by_rtrl(net, x, dy):
    learner = train.rtrl(net, x.shape[1])
    total, ys = np.zeros_like(net.params.flat), []
    for x_t, dy_t in zip(x, dy, strict=True):
        ys.append(learner.step(x_t))
        total += learner.gradients(dy_t).flat
    return np.stack(ys), total, learner


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", NETS)
def test_lstm_equals_backpropagation_through_time(sizes, dtype):
    net = qg.LSTM(*sizes, dtype=dtype, rng=1)
    x, dy = data(net, 5, 1)
    _, got, _ = by_rtrl(net, x, dy)
    want = forward_mode(dtype, net.params, x, dy)
    assert_within(got, want.v, want.e, "forward mode")
    layers = net.num_layers
    _, _, tapes = bounds.forward(dtype, net.params, x, None, None, num_layers=layers, bidirectional=False)
    *_, back = bounds.backward(dtype, net.params, tapes, dy, (None, None), num_layers=layers, bidirectional=False)
    by_time = net.backward(net.forward(x)[2], dy).params
    error = want.e + np.concatenate([back[name].e.ravel() for name in by_time])
    assert_within(got, by_time.flat, error, "forward mode and backpropagation")


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("sizes", NETS)
def test_rnn_equals_backpropagation_through_time(sizes, nonlinearity):
    """In float64, with the norm-wise rule of tests/support/bounds.py for sums of products through steps and layers."""
    net = qg.RNN(*sizes, nonlinearity=nonlinearity, dtype="float64", rng=1)
    x, dy = data(net, 12, 3)
    y, got, learner = by_rtrl(net, x, dy)
    want, h, tape = net.forward(x)
    grads = net.backward(tape, dy).params.flat
    relative = bounds.norm_bound("float64", max(sizes), len(x) * net.num_layers, backward=True)
    assert np.abs(y - want).max() <= relative * np.abs(want).max()
    assert np.abs(got - grads).max() <= relative * np.abs(grads).max()
    assert np.abs(learner.state - h).max() <= relative * np.abs(h).max()


def test_rows_batches_and_reset():
    """A batch's gradients are the sum of its rows'; after `reset` a learner is as new."""
    net = qg.LSTM(2, 4, dtype="float64", rng=2)
    x, dy = data(net, 6, 3)
    y, together, learner = by_rtrl(net, x, dy)
    parts = [by_rtrl(net, x[:, k : k + 1], dy[:, k : k + 1]) for k in range(3)]
    assert np.allclose(y, np.concatenate([part[0] for part in parts], axis=1), rtol=1e-14, atol=1e-15)
    assert np.allclose(together, sum(part[1] for part in parts), rtol=1e-12, atol=1e-13)
    learner.reset()
    first = learner.step(x[0])
    assert first.tobytes() == y[0].tobytes()
    h, c = learner.state
    assert h.shape == c.shape == (1, 3, 4)


def test_online_learning():
    """An update every step: the network's own parameters move by the optimizer's rule, and it learns."""
    assert train.rtrl(qg.RNN(1, 8), optimizer="adam").learn(np.ones(8)).flat.shape == (80,)
    net = qg.RNN(1, 8, rng=0)
    learner = train.rtrl(net, optimizer=train.SGD(0.05))
    before = net.params.flat.copy()
    learner.step([0.5])
    grads = learner.learn(np.ones(8))
    rate = np.float32(0.05)
    assert np.allclose(net.params.flat, before - rate * grads.flat, rtol=0, atol=2 * np.finfo(np.float32).eps)
    errors, rng, last = [], np.random.default_rng(0), 0.0
    for _ in range(600):  # the task: say the number before
        x = rng.uniform(-1, 1)
        y = learner.step([x])
        dy = np.zeros(8, np.float32)
        dy[0] = y[0] - last
        errors.append(float(dy[0]) ** 2)
        learner.learn(dy)
        last = x
    assert np.mean(errors[-100:]) < 0.1 * np.mean(errors[:100])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_update_by_a_gradient_that_is_not_finite(bad):
    net = qg.LSTM(2, 3, rng=0)
    learner = train.rtrl(net, optimizer=train.Adam(0.1))
    learner.step(np.ones(2))
    before, memory = net.params, learner._memory
    with pytest.raises(FloatingPointError, match="a gradient is NaN or infinite at step 0"):
        learner.learn(np.full(3, bad))
    assert net.params is before
    assert learner._memory is memory


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: train.rtrl(None), TypeError, "net must be a quadgate.LSTM or quadgate.RNN, got NoneType"),
        (lambda: train.rtrl(qg.LSTM(2, 3, bidirectional=True)), ValueError, "without bidirectional"),
        (lambda: train.rtrl(qg.LSTM(2, 3, peephole=True, coupled=True)), ValueError, "without coupled, peephole"),
        (lambda: train.rtrl(qg.LSTM(2, 3).quantize("int8")), TypeError, "int8"),
        (lambda: train.rtrl(qg.LSTM(512, 512)), ValueError, "it is for small networks"),
        (lambda: train.rtrl(qg.RNN(2, 3), 0), ValueError, "batch_size must be a positive int"),
        (lambda: train.rtrl(qg.RNN(2, 3)).step(np.zeros((2, 2))), ValueError, r"x must have shape \(1, 2\)"),
        (lambda: train.rtrl(qg.RNN(2, 3)).gradients(np.zeros(2)), ValueError, r"dy must have shape \(3,\)"),
        (lambda: train.rtrl(qg.RNN(2, 3)).learn(np.zeros(3)), ValueError, "learn needs an optimizer"),
        (lambda: train.rtrl(qg.RNN(2, 3), optimizer="adan"), ValueError, "did you mean 'adam'"),
        (lambda: train.rtrl(qg.RNN(2, 3), optimizer=3), TypeError, "optimizer must be"),
    ],
)
def test_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
