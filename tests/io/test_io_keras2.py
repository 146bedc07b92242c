"""Files that Keras 2 and TensorFlow wrote, with the outputs that they computed: `make_data.py` says how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import agree

DATA = Path(__file__).parent / "data"
TERMS, STEPS = 4 * (5 + 8 + 1), 6


def stored(name: str) -> dict[str, Any]:
    with np.load(DATA / name) as file:
        return dict(file)


def test_keras_2():
    """hard_sigmoid of Keras 2, a Bidirectional layer with merge_mode "mul", and one without bias."""
    pytest.importorskip("h5py", reason="h5py is not installed: install h5py")
    expected = stored("keras2.npz")
    x = expected.pop("x")
    found = qg.io.networks(DATA / "keras2.h5")
    assert [f.name for f in found] == list(expected) == ["hard", "both", "soft"]
    assert found[0].options["activations"][0] == ("hard_sigmoid", 0.2, 0.5)
    for name, want in expected.items():
        y, _ = qg.io.load(DATA / "keras2.h5", name=name)(x)
        agree(y, want, TERMS, STEPS, name)
        x = want


def test_cudnn_as_keras_2_converts_it():
    pytest.importorskip("h5py", reason="h5py is not installed: install h5py")
    expected = stored("cudnn.npz")
    (found,) = qg.io.networks(DATA / "cudnn.h5")
    assert any("CuDNNLSTM" in note for note in found.notes)
    agree(found.build()(expected["x"])[0], expected["y"], TERMS, STEPS, "y")


def test_cells_of_tensorflow_1():
    """BasicLSTMCell; LSTMCell with peepholes, projection and clipping; BlockLSTM and BlockLSTMV2."""
    data = stored("tensorflow1.npz")
    x = data.pop("x")
    basic = {name: value for name, value in data.items() if name.startswith("basic/")}
    peephole = {name: value for name, value in data.items() if name.startswith("peephole/")}
    block = data["block/kernel"], data["block/bias"]
    with pytest.raises(ValueError, match="forget_bias="):
        qg.io.networks(basic)[0].build()
    options: dict[str, Any] = {"batch_first": True, "forget_bias": 1.0}
    nets = {
        "basic": qg.io.from_tensorflow1(basic, **options),
        "peephole": qg.io.from_tensorflow1(peephole, **options, cell_clip=0.5),
        "block": qg.io.from_tensorflow1(block, **options),
        "block2": qg.io.from_tensorflow1(block, batch_first=True, forget_bias=0.0, order="ifgo"),
    }
    for name, net in nets.items():
        agree(net(x)[0], data[f"{name}_y"], TERMS, STEPS, name)
