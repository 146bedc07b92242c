"""Write tests/io/data with TensorFlow and Keras 2, which are too large to install for the tests.

pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0, then: TF_USE_LEGACY_KERAS=1 python tests/io/make_data.py
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras.src.layers.rnn import legacy_cells
from tf_keras.src.saving.legacy import hdf5_format

DATA = Path(__file__).parent / "data"
INPUTS, UNITS, STEPS, BATCH = 5, 4, 6, 3
rng = np.random.default_rng(0)
x = rng.normal(size=(BATCH, STEPS, INPUTS)).astype(np.float32)


def draw(*shape: int) -> np.ndarray:
    return rng.uniform(-0.7, 0.7, shape).astype(np.float32)


def keras2() -> None:
    """Write a whole model of Keras 2, and what each of its layers makes of the layer below."""
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((None, INPUTS)),
            layers.LSTM(UNITS, return_sequences=True, recurrent_activation="hard_sigmoid", name="hard"),
            layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True), merge_mode="mul", name="both"),
            layers.LSTM(UNITS, return_sequences=True, activation="softsign", use_bias=False, name="soft"),
        ]
    )
    model.set_weights([draw(*w.shape) for w in model.get_weights()])
    model.save(DATA / "keras2.h5")
    expected, y = {"x": x}, x
    for layer in model.layers:
        y = layer(y)
        expected[layer.name] = np.asarray(y)
    np.savez(DATA / "keras2.npz", **expected)


def cudnn() -> None:
    """Write weights of a CuDNNLSTM, which Keras 2 itself converts from a plain LSTM's."""
    layer = keras.layers.LSTM(UNITS, return_sequences=True)
    layer.build((None, None, INPUTS))
    layer.set_weights([draw(*w.shape) for w in layer.get_weights()])
    expected = np.asarray(layer(x))
    given = layer.get_weights()
    half = draw(4 * UNITS)  # the converter leaves the second half of the bias at zero; anything that adds up will do
    converted = hdf5_format._convert_rnn_weights(_cudnn_layer(), given)
    bias = converted[2].copy()
    bias[: 4 * UNITS] -= half
    bias[4 * UNITS :] += half
    with h5py.File(DATA / "cudnn.h5", "w") as file:
        file.attrs["keras_version"] = b"2.1.5"
        file.attrs["layer_names"] = [b"lstm"]
        names = [f"lstm/{name}:0" for name in ("kernel", "recurrent_kernel", "bias")]
        group = file.create_group("lstm")
        group.attrs["weight_names"] = [name.encode() for name in names]
        for name, array in zip(names, (*converted[:2], bias), strict=True):
            group[name] = array
        file.attrs["model_config"] = json.dumps(
            {"class_name": "Sequential", "config": [{"class_name": "CuDNNLSTM", "config": {"name": "lstm"}}]}
        )
    np.savez(DATA / "cudnn.npz", x=x, y=expected)


def _cudnn_layer() -> object:
    layer = tf.compat.v1.keras.layers.CuDNNLSTM(UNITS)
    layer.build((None, None, INPUTS))
    return layer


def tensorflow1() -> None:
    """Write the variables of the cells of TensorFlow 1, with forget_bias 1, and what they compute."""
    cells = {
        "basic": legacy_cells.BasicLSTMCell(UNITS),
        "peephole": legacy_cells.LSTMCell(UNITS, use_peepholes=True, num_proj=3, cell_clip=0.5),
    }
    result = {"x": x}
    for name, cell in cells.items():
        state = cell.zero_state(BATCH, tf.float32)
        cell(x[:, 0], state)
        for variable in cell.variables:
            variable.assign(draw(*variable.shape))
            result[f"{name}/{variable.name}"] = variable.numpy()
        y = []
        for t in range(STEPS):
            out, state = cell(x[:, t], state)
            y.append(np.asarray(out))
        result[f"{name}_y"] = np.stack(y, 1)
    kernel, bias, zeros = draw(INPUTS + UNITS, 4 * UNITS), draw(4 * UNITS), np.zeros(UNITS, np.float32)
    result |= {"block/kernel": kernel, "block/bias": bias}
    common = {
        "seq_len_max": STEPS,
        "x": x.swapaxes(0, 1),
        "w": kernel,
        "b": bias,
        "wci": zeros,
        "wcf": zeros,
        "wco": zeros,
    }
    common |= {"cs_prev": np.zeros((BATCH, UNITS), np.float32), "h_prev": np.zeros((BATCH, UNITS), np.float32)}
    result["block_y"] = np.asarray(tf.raw_ops.BlockLSTM(**common, forget_bias=1.0, cell_clip=-1.0).h).swapaxes(0, 1)
    result["block2_y"] = np.asarray(tf.raw_ops.BlockLSTMV2(**common, cell_clip=0.0).h).swapaxes(0, 1)
    np.savez(DATA / "tensorflow1.npz", **result)


DATA.mkdir(exist_ok=True)
keras2()
cudnn()
tensorflow1()
