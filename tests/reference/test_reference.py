"""The judge is judged first: `quadgate.reference` against PyTorch in float64, and against central differences.

Torch gives every output and every gradient by code that shares nothing with ours. Central differences give the
gradients from the forward pass alone, so that they hold the backward pass to the equations even where torch is not
installed.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from quadgate import reference

EPS = np.finfo(np.float64).eps


def draw(rng, steps, batch, inputs, hidden, layers, directions, bias):
    """Return random parameters, input, state and the gradients of the outputs, all of size about 1."""
    params = {}
    for layer in range(layers):
        for suffix in ("", "_reverse")[:directions]:
            width = inputs if layer == 0 else directions * hidden
            params[f"weight_ih_l{layer}{suffix}"] = rng.normal(size=(4 * hidden, width)) / np.sqrt(width)
            params[f"weight_hh_l{layer}{suffix}"] = rng.normal(size=(4 * hidden, hidden)) / np.sqrt(hidden)
            if bias:
                params[f"bias_l{layer}{suffix}"] = rng.normal(size=4 * hidden)
    states = rng.normal(size=(4, layers * directions, batch, hidden))
    x = rng.normal(size=(steps, batch, inputs))
    dy = rng.normal(size=(steps, batch, directions * hidden))
    return params, x, (states[0], states[1]), dy, (states[2], states[3])


def by_torch(torch, params, x, state, dy, dstate, lengths, layers, bidirectional):
    """Return outputs and gradients by torch: (y, h, c, dx, dh0, dc0, {name: gradient})."""
    bias = "bias_l0" in params
    hidden = params["weight_hh_l0"].shape[1]
    net = torch.nn.LSTM(x.shape[2], hidden, layers, bias=bias, bidirectional=bidirectional, dtype=torch.float64)
    tensors = {}
    for name, value in params.items():
        tensors[name.replace("bias", "bias_ih")] = torch.tensor(value)
        if name.startswith("bias"):
            tensors[name.replace("bias", "bias_hh")] = torch.zeros(value.shape, dtype=torch.float64)
    net.load_state_dict(tensors)
    xt = torch.tensor(x, requires_grad=True)
    h0, c0 = (torch.tensor(s, requires_grad=True) for s in state)
    if lengths is None:
        y, (h, c) = net(xt, (h0, c0))
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(xt, torch.tensor(lengths), enforce_sorted=False)
        y, (h, c) = net(packed, (h0, c0))
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=len(x))
    loss = (y * torch.tensor(dy)).sum() + (h * torch.tensor(dstate[0])).sum() + (c * torch.tensor(dstate[1])).sum()
    loss.backward()
    by_name = dict(net.named_parameters())
    dparams = {name: by_name[name.replace("bias", "bias_ih")].grad.numpy() for name in params}
    return (*(t.detach().numpy() for t in (y, h, c)), *(t.grad.numpy() for t in (xt, h0, c0)), dparams)


def bound(steps, inputs, hidden, layers, batch):
    """Bound the difference of two float64 computations of values of size about 1.

    A pre-activation is a sum of n = I + H + 1 terms: n eps, twice because both sides round. A step passes its error on
    with a factor that these weights keep near 1, so T steps and L layers add up, and a weight gradient sums T * B rows.
    The factor 8 covers the terms' size (normal numbers reach 4) and the activations' own rounding.
    """
    return 8 * 2 * (inputs + hidden + 1 + batch) * steps * layers * EPS


@pytest.mark.parametrize("lengths", [None, "random"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_equals_torch(layers, bidirectional, bias, lengths):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
    rng = np.random.default_rng(layers * 8 + bidirectional * 4 + bias * 2 + (lengths is None))
    for steps, batch, inputs, hidden in [(1, 1, 1, 1), (5, 3, 4, 2), (12, 6, 3, 7)]:
        params, x, state, dy, dstate = draw(rng, steps, batch, inputs, hidden, layers, 1 + bidirectional, bias)
        n = None if lengths is None else rng.integers(1, steps + 1, batch)
        y, (h, c), tape = reference.forward(params, x, state, n, num_layers=layers, bidirectional=bidirectional)
        grads = reference.backward(params, tape, dy, dstate)
        want = by_torch(torch, params, x, state, dy, dstate, n, layers, bidirectional)
        atol = bound(steps, inputs, hidden, layers, batch)
        assert atol < 1e-10
        for got, expected in zip((y, h, c, grads.x, grads.h0, grads.c0), want, strict=False):
            np.testing.assert_allclose(got, expected, rtol=atol, atol=atol)
        assert list(grads.params) == list(params)
        for name, expected in want[-1].items():
            np.testing.assert_allclose(grads.params[name], expected, rtol=atol, atol=atol, err_msg=name)


@pytest.mark.parametrize("given", list(itertools.product([True, False], repeat=3)))
def test_absent_gradients_are_zeros(given):
    rng = np.random.default_rng(5)
    params, x, state, dy, dstate = draw(rng, 4, 3, 2, 5, 2, 2, True)
    _, _, tape = reference.forward(params, x, state, num_layers=2, bidirectional=True)
    use_y, use_h, use_c = given
    some = reference.backward(
        params, tape, dy if use_y else None, (dstate[0] if use_h else None, dstate[1] if use_c else None)
    )
    full = reference.backward(params, tape, dy * use_y, (dstate[0] * use_h, dstate[1] * use_c))
    for a, b in zip(some[:3], full[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    for name in params:
        np.testing.assert_array_equal(some.params[name], full.params[name])


@pytest.mark.slow
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_by_central_differences(bidirectional, bias):
    """Every element of every gradient, with lengths that include 0 and T.

    The step e leaves an error e^2/6 times the third derivative and eps/e times the loss's rounding: e = 1e-5 makes them
    about 1e-10 times derivatives of size 1 to 100, and 1e-11 times the loss's size (a sum of 100 terms); 1e-7 covers
    both.
    """
    rng = np.random.default_rng(11)
    params, x, state, dy, dstate = draw(rng, 4, 4, 2, 3, 2, 1 + bidirectional, bias)
    lengths = np.array([2, 0, 4, 1])

    def loss():
        y, (h, c), _ = reference.forward(params, x, state, lengths, num_layers=2, bidirectional=bidirectional)
        return (y * dy).sum() + (h * dstate[0]).sum() + (c * dstate[1]).sum()

    _, _, tape = reference.forward(params, x, state, lengths, num_layers=2, bidirectional=bidirectional)
    grads = reference.backward(params, tape, dy, dstate)
    pairs = [(x, grads.x), (state[0], grads.h0), (state[1], grads.c0)]
    pairs += [(params[name], grads.params[name]) for name in params]
    e = 1e-5
    for value, grad in pairs:
        for at in np.ndindex(value.shape):
            kept = value[at]
            value[at] = kept + e
            up = loss()
            value[at] = kept - e
            down = loss()
            value[at] = kept
            assert abs((up - down) / (2 * e) - grad[at]) < 1e-7 * (1 + abs(grad[at]))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_lengths_are_the_rows_run_alone(bidirectional):
    """A row of length n gives what its first n steps alone give; a row of length 0 gives 0 and its own state."""
    rng = np.random.default_rng(3)
    params, x, state, dy, dstate = draw(rng, 6, 5, 3, 4, 2, 1 + bidirectional, True)
    lengths = np.array([3, 0, 6, 1, 5])
    kind = {"num_layers": 2, "bidirectional": bidirectional}
    x[np.arange(6)[:, None] >= lengths] = np.nan  # padding is never looked at
    dy[np.arange(6)[:, None] >= lengths] = np.nan
    y, (h, c), tape = reference.forward(params, x, state, lengths, **kind)
    grads = reference.backward(params, tape, dy, dstate)
    total = {name: np.zeros_like(value) for name, value in params.items()}
    tol = {"rtol": 0, "atol": bound(6, 3, 4, 2, 5)}
    for row, n in enumerate(lengths):
        one = slice(row, row + 1)
        alone = (state[0][:, one], state[1][:, one])
        yr, (hr, cr), kept = reference.forward(params, x[:n, one], alone, **kind)
        gr = reference.backward(params, kept, dy[:n, one], (dstate[0][:, one], dstate[1][:, one]))
        np.testing.assert_allclose(y[:n, one], yr, **tol)
        np.testing.assert_allclose(h[:, one], hr, **tol)
        np.testing.assert_allclose(c[:, one], cr, **tol)
        np.testing.assert_allclose(grads.x[:n, one], gr.x, **tol)
        np.testing.assert_allclose(grads.h0[:, one], gr.h0, **tol)
        np.testing.assert_allclose(grads.c0[:, one], gr.c0, **tol)
        assert not y[n:, one].any()
        assert not grads.x[n:, one].any()
        for name, value in gr.params.items():
            total[name] += value
    for name in params:
        np.testing.assert_allclose(grads.params[name], total[name], **tol)
    np.testing.assert_array_equal(h[:, 1], state[0][:, 1])
    np.testing.assert_array_equal(c[:, 1], state[1][:, 1])
    np.testing.assert_array_equal(grads.h0[:, 1], dstate[0][:, 1])


def test_sigmoid_keeps_relative_accuracy():
    a = np.array([0.0, -0.0, 1.0, -1.0, -40.0, -700.0, 700.0, np.inf, -np.inf, np.nan])
    got = reference.sigmoid(a)
    want = [0.5, 0.5, 0.7310585786300049, 0.2689414213699951, np.exp(-40.0), np.exp(-700.0), 1.0, 1.0, 0.0, np.nan]
    np.testing.assert_allclose(got, want, rtol=2 * EPS)


def test_long_double_stays():
    rng = np.random.default_rng(0)
    params, x, state, dy, _ = draw(rng, 3, 2, 2, 3, 1, 1, True)
    y, (h, c), tape = reference.forward(params, x.astype(np.longdouble), state)
    assert {y.dtype, h.dtype, c.dtype} == {np.dtype(np.longdouble)}
    assert reference.backward(params, tape, dy.astype(np.longdouble)).x.dtype == np.longdouble
    np.testing.assert_allclose(y.astype(float), reference.forward(params, x, state)[0], atol=1e-14)
