"""A network from elsewhere, trained here for some steps, and put back: both then compute the same."""

from __future__ import annotations

import os
import tempfile
import warnings
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import agree, draw

INPUTS, H, STEPS, BATCH = 5, 7, 6, 3
TERMS = 4 * (INPUTS + 2 * H + 1)


def trained(net: Any) -> Any:
    """Three steps towards a target; the loss falls."""
    x = draw(BATCH, STEPS, INPUTS) if net.batch_first else draw(STEPS, BATCH, INPUTS)
    target, losses = 0.3 * draw(*net(x)[0].shape, seed=5), []
    for _ in range(3):
        y, _, tape = net.forward(x)
        losses.append(float(((y - target) ** 2).sum()))
        grads = net.backward(tape, y - target)
        with net.writable() as params:
            for name, grad in grads.params.items():
                params[name] -= 0.05 * grad
    assert losses[2] < losses[1] < losses[0]
    return net


def test_torch(tmp_path):
    torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed: install torch")
    torch.manual_seed(0)
    module = torch.nn.LSTM(INPUTS, H, 2, bidirectional=True, batch_first=True)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    net = trained(qg.io.load(tmp_path / "m.pt", batch_first=True))
    module.load_state_dict({name: torch.from_numpy(value) for name, value in qg.io.to_torch(net).items()})
    x = draw(BATCH, STEPS, INPUTS, seed=8)
    with torch.no_grad():
        want = module(torch.from_numpy(x))[0].numpy()
    agree(net(x)[0], want, TERMS, STEPS, "y")
    torch.save(module.state_dict(), tmp_path / "m.pt")
    back = qg.io.load(tmp_path / "m.pt", batch_first=True)
    assert all(np.array_equal(back.params[name], value) for name, value in net.params.items())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras's variables
@pytest.mark.parametrize("file", ["m.h5", "m.keras"])
def test_keras(tmp_path, file):
    pytest.importorskip("torch", reason="PyTorch is not installed, Keras has no backend: install torch")
    pytest.importorskip("h5py", reason="h5py is not installed: install h5py")
    os.environ["KERAS_BACKEND"] = "torch"
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("KERAS_HOME", folder)
        keras: Any = pytest.importorskip("keras", reason="Keras is not installed: install keras")
    layer = keras.layers.Bidirectional(keras.layers.LSTM(H, return_sequences=True), merge_mode="sum")
    model = keras.Sequential([keras.layers.Input((None, INPUTS)), layer])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / file)
        net = trained(qg.io.load(tmp_path / file))
        model.set_weights(list(qg.io.to_keras(net).values()))
        model.save(tmp_path / file)
        again = keras.models.load_model(tmp_path / file)
    x = draw(BATCH, STEPS, INPUTS, seed=8)
    agree(net(x)[0], again(x).detach().numpy(), TERMS, STEPS, "y")
    back = qg.io.load(tmp_path / file)
    assert all(np.array_equal(back.params[name], value) for name, value in net.params.items())
