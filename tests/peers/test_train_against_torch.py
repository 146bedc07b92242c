"""quadgate.train's losses, optimizers and a whole model agree with torch, run live from equal numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quadgate as qg
from quadgate import train
from quadgate.train import _layers, _losses

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed, nothing is compared with it: install torch")

TYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def tensor(value, dtype=None, grad=False):
    return torch.tensor(np.array(value, dtype), requires_grad=grad)


LOSSES = {
    "softmax_cross_entropy": lambda z, t: torch.nn.functional.cross_entropy(z, t),
    "categorical_crossentropy": lambda z, t: torch.nn.functional.cross_entropy(z, t),
    "mse": lambda z, t: torch.nn.functional.mse_loss(z, t),
    "mae": lambda z, t: torch.nn.functional.l1_loss(z, t),
    "huber": lambda z, t: torch.nn.functional.huber_loss(z, t),
    "binary_cross_entropy": lambda z, t: torch.nn.functional.binary_cross_entropy_with_logits(z, t),
}


@TYPES
@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, dtype):
    """Value and gradient of 40 rows of 11 numbers: some 50 roundings of numbers of at most 10."""
    rng = np.random.default_rng(0)
    z = (2 * rng.standard_normal((40, 11))).astype(dtype)
    t = rng.integers(0, 11, 40) if name == "softmax_cross_entropy" else rng.random((40, 11)).astype(dtype)
    value, d = _losses.get(name)(z, t)
    theirs = tensor(z, grad=True)
    loss = LOSSES[name](theirs, torch.tensor(t))
    loss.backward()
    bound = 500 * float(np.finfo(dtype).eps)
    assert abs(value - float(loss.detach())) < bound
    np.testing.assert_allclose(d, theirs.grad.numpy(), rtol=0, atol=bound)


def test_losses_of_some_rows():
    """Targets that torch ignores are our masked positions."""
    rng = np.random.default_rng(0)
    z, t, mask = rng.standard_normal((6, 5, 7)), rng.integers(0, 7, (6, 5)), rng.random((6, 5)) < 0.6
    value, d = _losses.get("softmax_cross_entropy")(z, t, mask=mask)
    theirs = tensor(z, grad=True)
    ignored = torch.tensor(np.where(mask, t, -100).reshape(-1))
    loss = torch.nn.functional.cross_entropy(theirs.reshape(-1, 7), ignored)
    loss.backward()
    assert abs(value - float(loss.detach())) < 1e-13
    np.testing.assert_allclose(d, theirs.grad.numpy(), rtol=0, atol=1e-14)


OPTIMIZERS = [
    (train.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    (train.SGD(0.1, 0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    (train.SGD(0.1, 0.9, nesterov=True), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True)),
    (train.Adam(0.01, 0.8, 0.99, 1e-6), lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.99), 1e-6)),
    (train.AdamW(0.01, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
    (train.Adam(0.01, clip_norm=3.0), lambda p: torch.optim.Adam(p, 0.01)),
    (train.Adam(0.01, clip_value=0.3), lambda p: torch.optim.Adam(p, 0.01)),
]


@pytest.mark.parametrize(("ours", "theirs"), OPTIMIZERS, ids=[repr(o) for o, _ in OPTIMIZERS])
def test_optimizers(ours, theirs):
    """Twenty steps in float64. torch divides by the norm + 1e-6: 3e-7 of a gradient, of which a step moves 0.01."""
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(shape) for shape in ((30, 7), (11,))]
    tensors = [tensor(p, grad=True) for p in params]
    optimizer, state = theirs(tensors), ours.start(params)
    for _ in range(20):
        grads = [rng.standard_normal(p.shape) for p in params]
        params, state = ours.update(params, grads, state)
        for t, g in zip(tensors, grads, strict=True):
            t.grad = torch.tensor(g)
        if ours.clip_norm:
            torch.nn.utils.clip_grad_norm_(tensors, ours.clip_norm)
        if ours.clip_value:
            torch.nn.utils.clip_grad_value_(tensors, ours.clip_value)
        optimizer.step()
    for p, t in zip(params, tensors, strict=True):
        np.testing.assert_allclose(p, t.detach().numpy(), rtol=0, atol=20 * 0.01 * 3e-7 if ours.clip_norm else 1e-12)


@TYPES
def test_a_model_after_twenty_steps(dtype):
    """Embedding, LSTM, dense layer; Adam and clipping, from equal weights: losses and all parameters.

    In float64 only torch's 1e-6 in the norm tells them apart. In float32 gradients are good to some 1e-5, and Adam's
    moves, of at most 4e-3 a step, as good as these where the gradient is not near epsilon.
    """
    rng, kind = np.random.default_rng(0), np.dtype(dtype)
    net = qg.LSTM(12, 24, dtype=kind, rng=1)
    layers = [train.Embedding(19, 12), train.Recurrent(net), train.Dense(24, 19)]
    previous = None
    for layer in layers:
        layer.bind(rng, kind, previous)
        previous = layer
    x, t = rng.integers(0, 19, (8, 15)), rng.integers(0, 19, (8, 15))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.lstm = torch.nn.Embedding(19, 12), torch.nn.LSTM(12, 24, batch_first=True)
            self.dense = torch.nn.Linear(24, 19)

        def forward(self, x):
            return self.dense(self.lstm(self.embed(x))[0])

    model = Model().to(getattr(torch, dtype))
    model.load_state_dict(
        {
            "embed.weight": tensor(layers[0].params["weight"]),
            **{f"lstm.{name}": tensor(value) for name, value in net.state_dict().items()},
            **{f"dense.{name}": tensor(value) for name, value in layers[2].params.items()},
        }
    )
    for parameter in (model.lstm.bias_hh_l0,):  # our one bias is the sum of torch's two
        parameter.requires_grad_(False)
    theirs = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 4e-3)
    ours = train.Adam(4e-3, clip_norm=0.5)
    keys = [(layer, name) for layer in layers for name in layer.trainable_names]
    params = [layer.params[name] for layer, name in keys]
    state = ours.start(params)
    loss = _losses.get("softmax_cross_entropy")
    close = 1e-4 if dtype == "float32" else 2e-7
    for _ in range(20):
        context, a, tapes = train.Context(True), x, []
        for layer in layers:
            a, tape = layer.forward(a, context)
            tapes.append(tape)
        value, d = loss(a, t)
        grads = {}
        for layer, tape in zip(layers[::-1], tapes[::-1], strict=True):
            d, own = layer.backward(tape, d, need_x=layer is not layers[0])
            grads |= {(layer, name): g for name, g in own.items()}
        params, state = ours.update(params, [grads[key] for key in keys], state)
        swaps = []
        for layer in layers:
            swaps += layer.successor({name: p for (of, name), p in zip(keys, params, strict=True) if of is layer})
        _layers.replace_all(swaps)
        theirs.zero_grad()
        expected = torch.nn.functional.cross_entropy(
            model(torch.tensor(x)).reshape(-1, 19), torch.tensor(t.reshape(-1))
        )
        expected.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        theirs.step()
        assert abs(value - float(expected.detach())) < close
    found = {
        "embed.weight": layers[0].params["weight"],
        **{f"lstm.{name}": v for name, v in net.state_dict().items()},
        **{f"dense.{name}": v for name, v in layers[2].params.items()},
    }
    for name, want in model.state_dict().items():
        np.testing.assert_allclose(found[name], want.numpy(), rtol=0, atol=close)
