"""Files of Keras 2 and 3 against Keras itself, run live on its PyTorch backend; layouts of Keras 2 by hand."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import agree, draw, lstm, randomised

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed, Keras has no backend: install torch")
h5py: Any = pytest.importorskip("h5py", reason="h5py is not installed: install h5py")
os.environ["KERAS_BACKEND"] = "torch"
with tempfile.TemporaryDirectory() as folder:
    os.environ.setdefault("KERAS_HOME", folder)  # or Keras would leave its settings in the user's home
    keras: Any = pytest.importorskip("keras", reason="Keras is not installed, nothing to compare with: install keras")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras's variables

LSTM, Bidirectional = keras.layers.LSTM, keras.layers.Bidirectional
TERMS, STEPS = 4 * (5 + 14 + 1), 6


def model(*layers: Any, name: str = "m") -> Any:
    result = keras.Sequential([keras.layers.Input((None, 5)), *layers], name=name)
    rng = np.random.default_rng(3)
    result.set_weights([rng.uniform(-0.7, 0.7, w.shape) for w in result.get_weights()])
    return result


def run(network: Any, x: Any) -> Any:
    return network(x).detach().numpy()


def save(network: Any, path: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (network.save_weights if path.name.endswith(".weights.h5") else network.save)(path)
    return path


def stack() -> Any:
    """Two layers and both directions, a projection of names, and options that differ from the defaults."""
    return model(
        LSTM(7, return_sequences=True, name="first", recurrent_activation="hard_sigmoid", activation="softsign"),
        keras.layers.Dense(5, name="between"),
        Bidirectional(LSTM(4, return_sequences=True, use_bias=False), merge_mode="ave", name="second"),
        keras.layers.RNN(keras.layers.LSTMCell(3), return_sequences=True, name="third"),
        LSTM(2, return_sequences=True, go_backwards=True, name="fourth"),
    )


@pytest.mark.parametrize("file", ["m.keras", "m.h5"])
def test_whole_models(tmp_path, file):
    """Each layer alone and by name, its input the output of Keras's own layer below."""
    network = stack()
    path = save(network, tmp_path / file)
    assert [f.name for f in qg.io.networks(path)] == ["first", "second", "third", "fourth"]
    x = draw(3, STEPS, 5)
    for layer in network.layers:
        want = layer(x).detach().numpy()
        if layer.name != "between":
            ours = qg.io.load(path, name=layer.name)
            y, _ = ours(x)
            agree(y[:, ::-1] if layer.name == "fourth" else y, want, TERMS, STEPS, layer.name)
        x = want
    with pytest.raises(ValueError, match="several networks: choose one by name=, of 'first' "):
        qg.io.load(path)


def test_weights_alone(tmp_path):
    network = model(
        LSTM(7, return_sequences=True, name="first"),
        Bidirectional(LSTM(4, return_sequences=True), name="bidirectional"),
    )
    path = save(network, tmp_path / "m.weights.h5")
    x = draw(3, STEPS, 5)
    y, _ = qg.io.load(path, name="first")(x)
    agree(y, network.layers[0](x).detach().numpy(), TERMS, STEPS, "first")
    with pytest.raises(ValueError, match="merge="):
        qg.io.load(path, name="bidirectional")
    y, _ = qg.io.load(path, name="bidirectional", merge="concat")(y)
    agree(y, run(network, x), TERMS, 2 * STEPS, "second")


@pytest.mark.parametrize("file", ["m.keras", "m.h5"])
def test_layers_with_names_of_directions(tmp_path, file):
    """A side of Bidirectional is known by the configuration: a user may give a layer any name."""
    network = model(
        LSTM(4, return_sequences=True, name="forward_lstm", activation="relu", go_backwards=True),
        LSTM(4, return_sequences=True, name="backward_1", recurrent_activation="relu"),
        Bidirectional(
            LSTM(4, return_sequences=True, name="forward_lstm"),
            backward_layer=LSTM(4, return_sequences=True, go_backwards=True, name="other"),
            merge_mode="sum",
            name="both",
        ),
        Bidirectional(LSTM(3, return_sequences=True, name="x"), name="forward_x"),
        keras.layers.RNN(keras.layers.LSTMCell(3, activation="relu", name="mine"), return_sequences=True, name="of"),
    )
    path = save(network, tmp_path / file)
    assert [f.name for f in qg.io.networks(path)] == [layer.name for layer in network.layers]
    x = draw(3, STEPS, 5)
    for layer in network.layers:
        want = layer(x).detach().numpy()
        y, _ = qg.io.load(path, name=layer.name)(x)
        agree(y[:, ::-1] if layer.name == "forward_lstm" else y, want, TERMS, STEPS, layer.name)
        x = want


def test_a_whole_model_with_names_of_directions(tmp_path):
    network = model(
        LSTM(4, return_sequences=True, name="forward_lstm", activation="relu"),
        Bidirectional(LSTM(3), backward_layer=LSTM(3, go_backwards=True)),
    )
    x = draw(3, STEPS, 5)
    for file in ("m.keras", "m.h5"):
        ours = qg.train.load_keras(save(network, tmp_path / file))
        agree(ours.predict(x), run(network, x), TERMS, 2 * STEPS, file)


def test_directions_that_contradict_the_configuration(tmp_path):
    plain = old_config("a", recurrent_activation="sigmoid")
    both = {"class_name": "Bidirectional", "config": {"name": "a", "layer": plain}}
    with pytest.raises(ValueError, match="a: its configuration has 2 directions, its arrays 1"):
        qg.io.load(old_file(tmp_path / "m.h5", {"a": weights()}, [both], "2.11.0"))


def test_nested_models_and_simple_rnn(tmp_path):
    inner = keras.Sequential([keras.layers.Input((None, 5)), LSTM(4, return_sequences=True, name="deep")], name="inner")
    network = model(
        LSTM(5, return_sequences=True, name="outer"), inner, keras.layers.SimpleRNN(3, "relu", name="plain")
    )
    for file in ("m.keras", "m.h5"):
        path = save(network, tmp_path / file)
        assert {f.name: f.kind for f in qg.io.networks(path)} == {"outer": "LSTM", "deep": "LSTM", "plain": "RNN"}
        y, _ = qg.io.load(path, name="deep")(qg.io.load(path, name="outer")(draw(3, STEPS, 5))[0])
        _, h = qg.io.load(path, name="plain")(y)
        agree(h[0], run(network, draw(3, STEPS, 5)), TERMS, 3 * STEPS, file)


def test_what_quadgate_does_not_have_is_listed(tmp_path):
    network = model(keras.layers.GRU(3, return_sequences=True, name="g"), LSTM(3, activation="gelu", name="l"))
    path = save(network, tmp_path / "m.keras")
    for name, why in (("g", "GRU"), ("l", "gelu")):
        with pytest.raises(ValueError, match=why):
            qg.io.load(path, name=name)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_round_trip(bidirectional, bias):
    """Ours into Keras by set_weights, and back from get_weights."""
    ours = lstm(5, 4, 2, bidirectional=bidirectional, bias=bias, batch_first=True)
    layers = [LSTM(4, return_sequences=True, use_bias=bias) for _ in range(2)]
    network = model(*(Bidirectional(layer) for layer in layers) if bidirectional else layers)
    network.set_weights(list(qg.io.to_keras(ours).values()))
    x = draw(3, STEPS, 5)
    agree(ours(x)[0], run(network, x), TERMS, 2 * STEPS, "y")
    back = qg.io.from_keras([layer.get_weights() for layer in network.layers])
    assert all(np.array_equal(back.params[name], value) for name, value in ours.params.items())
    assert back.batch_first


def test_simple_rnn_round_trip():
    ours = randomised(qg.RNN(5, 4, batch_first=True, rng=0))
    network = model(keras.layers.SimpleRNN(4, return_sequences=True))
    network.set_weights(list(qg.io.to_keras(ours).values()))
    agree(ours(draw(3, STEPS, 5))[0], run(network, draw(3, STEPS, 5)), TERMS, STEPS, "y")
    with pytest.raises(ValueError, match=r"must be given: nonlinearity= .*tanh.*relu"):
        qg.io.from_keras(network.get_weights())
    back = qg.io.from_keras(network.get_weights(), nonlinearity="tanh")
    assert isinstance(back, qg.RNN)
    assert all(np.array_equal(back.params[name], value) for name, value in ours.params.items())


@pytest.mark.parametrize("file", ["arrays", "m.weights.h5"])
def test_activation_of_a_simple_rnn_is_not_guessed(tmp_path, file):
    network = model(keras.layers.SimpleRNN(4, activation="relu", return_sequences=True, name="r"))
    path = tmp_path / file if file == "arrays" else save(network, tmp_path / file)

    def made(**options: Any) -> Any:
        of_arrays = file == "arrays"
        return qg.io.from_keras(network.get_weights(), **options) if of_arrays else qg.io.load(path, **options)

    with pytest.raises(ValueError, match="must be given: nonlinearity="):
        made()
    agree(made(nonlinearity="relu")(draw(3, STEPS, 5))[0], run(network, draw(3, STEPS, 5)), TERMS, STEPS, file)


def test_to_keras_refuses_what_keras_has_not():
    for options, what in (
        ({"peephole": True}, "peephole"),
        ({"proj_size": 2}, "proj_size=2"),
        ({"cell_clip": 1.0}, "clip"),
        ({"gate_clip": 1.0, "coupled": True}, r"coupled=True, gate_clip=1\.0"),
        ({"layer_norm": "cell"}, "layer_norm='cell'"),
        ({"num_layers": 2, "shortcut": "residual"}, "shortcut='residual'"),
        ({"zoneout": (0.0, 0.1)}, "zoneout"),
        ({"activations": ("sigmoid", "tanh", "relu")}, "one activation .* got .'tanh', 'relu'.$"),
    ):
        with pytest.raises(ValueError, match=what):
            qg.io.to_keras(qg.LSTM(5, 4, rng=0, **options))
    with pytest.raises(ValueError, match="Keras's layers have no shortcut='highway'"):
        qg.io.to_keras(qg.RNN(5, 4, 2, shortcut="highway"))
    for net in (None, qg.LSTM(5, 4).stream()):
        with pytest.raises(TypeError, match=r"net must be a quadgate\.LSTM or quadgate\.RNN, got"):
            qg.io.to_keras(net)


@pytest.mark.parametrize("merge", ["sum", "mul", "ave"])
def test_options_of_keras_pass(merge):
    """Merges and activations are Keras's own, and masks of training have no effect on the arrays' outputs."""
    ours = lstm(
        5,
        4,
        bidirectional=True,
        merge={"ave": "mean"}.get(merge, merge),
        activations=("relu", "softsign", "softsign"),
        recurrent_dropout=0.3,
        forget_bias=1.0,
        batch_first=True,
    )
    layer = LSTM(4, return_sequences=True, recurrent_activation="relu", activation="softsign")
    network = model(Bidirectional(layer, merge_mode=merge))
    network.set_weights(list(qg.io.to_keras(ours).values()))
    x = draw(3, STEPS, 5)
    agree(ours(x)[0], run(network, x), TERMS, STEPS, merge)


def test_reverse_is_go_backwards():
    ours = lstm(5, 4, reverse=True, batch_first=True)
    network = model(LSTM(4, return_sequences=True, go_backwards=True))
    network.set_weights(list(qg.io.to_keras(ours).values()))
    x = draw(3, STEPS, 5)
    agree(ours(x)[0][:, ::-1], run(network, x), TERMS, STEPS, "y")


def old_file(path: Any, layers: dict[str, list[Any]], config: Any, version: str | None) -> Any:
    """Write a file as Keras 2 does: a group for each layer, its weights' names in an attribute."""
    with h5py.File(path, "w") as file:
        root = file if config is None else file.create_group("model_weights")
        if config is not None:
            file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config})
        if version is not None:
            file.attrs["keras_version"] = version.encode()
        root.attrs["layer_names"] = [name.encode() for name in layers]
        for name, arrays in layers.items():
            sides = (f"{name}/forward_{name}", f"{name}/backward_{name}") if len(arrays) == 6 else (name,)
            each = ("kernel", "recurrent_kernel", "bias")[: len(arrays) // len(sides)]
            names = [f"{side}/{what}:0" for side in sides for what in each]
            group = root.create_group(name)
            group.attrs["weight_names"] = [n.encode() for n in names]
            for key, array in zip(names, arrays, strict=True):
                group[key] = array
    return path


def old_config(name: str, kind: str = "LSTM", **options: Any) -> Any:
    return {"class_name": kind, "config": {"name": name, "activation": "tanh", "use_bias": True, **options}}


def weights(bias: int = 16) -> list[Any]:
    return [draw(5, 16), draw(4, 16, seed=2), draw(bias, seed=3)]


def hard(x: Any, slope: float) -> Any:
    return np.clip(slope * x + 0.5, 0, 1)


def by_hand(kernel: Any, recurrent: Any, bias: Any, x: Any, gate: Any) -> Any:
    """Keras's formulas in float64: x (T, I), gates i, f, c, o."""
    h, c, y = np.zeros(4), np.zeros(4), []
    kernel, recurrent, bias = (np.asarray(a, np.float64) for a in (kernel, recurrent, bias))
    for row in np.asarray(x, np.float64):
        i, f, g, o = np.split(row @ kernel + h @ recurrent + bias, 4)
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
        y.append(h)
    return np.stack(y)


@pytest.mark.parametrize(("version", "slope"), [("2.1.5", 0.2), ("2.4.0-tf", 0.2), ("3.4.1", 1 / 6)])
def test_hard_sigmoid_is_that_of_the_generation(tmp_path, version, slope):
    config = [old_config("a", recurrent_activation="hard_sigmoid")]
    path = old_file(tmp_path / "m.h5", {"a": weights()}, config, version)
    y, _ = qg.io.load(path)(draw(9, 5))
    agree(y, by_hand(*weights(), draw(9, 5), lambda v: hard(v, slope)), TERMS, 9, version)


@pytest.mark.parametrize("kind", ["LSTM", "CuDNNLSTM", "SimpleRNN", "RNN", "Bidirectional"])
@pytest.mark.parametrize("time_major", [False, True, None])
def test_time_major_of_keras_2(tmp_path, kind, time_major):
    """A layer whose x is (T, B, I) is not batch_first; early files do not have the entry."""
    entry = {} if time_major is None else {"time_major": time_major}
    options = {"recurrent_activation": "sigmoid", **entry}
    arrays = weights(32 if kind == "CuDNNLSTM" else 16)
    plain = old_config("a", **options)
    config = old_config("a", kind, **options)
    if kind == "SimpleRNN":
        arrays = [draw(5, 4), draw(4, 4), draw(4)]
    elif kind == "RNN":
        cell = {"class_name": "LSTMCell", "config": old_config("c", recurrent_activation="sigmoid")["config"]}
        config["config"] = {"name": "a", "cell": cell, **entry}
    elif kind == "Bidirectional":
        config["config"], arrays = {"name": "a", "layer": plain}, 2 * arrays
    net = qg.io.load(old_file(tmp_path / "m.h5", {"a": arrays}, [config], "2.11.0"))
    assert net.batch_first is not bool(time_major)


@pytest.mark.parametrize("version", [None, "tf"])
def test_hard_sigmoid_of_no_known_generation_is_asked_for(tmp_path, version):
    config = [old_config("a", recurrent_activation="hard_sigmoid")]
    path = old_file(tmp_path / "m.h5", {"a": weights()}, config, version)
    with pytest.raises(ValueError, match=r"m\.h5: a: .*activations=.*Keras 2.*Keras 3"):
        qg.io.load(path)
    assert qg.io.load(path, activations=("sigmoid", "tanh", "tanh")).hidden_size == 4


def test_weights_of_keras_2_alone_ask_for_activations(tmp_path):
    path = old_file(tmp_path / "w.hdf5", {"a": weights()}, None, "2.2.4")
    with pytest.raises(ValueError, match="activations="):
        qg.io.load(path)
    gates = ("hard_sigmoid", 0.2, 0.5)
    y, _ = qg.io.load(path, activations=(gates, "tanh", "tanh"))(draw(9, 5))
    agree(y, by_hand(*weights(), draw(9, 5), lambda v: hard(v, 0.2)), TERMS, 9, "y")


@pytest.mark.parametrize("whole", [False, True])
def test_cudnn(tmp_path, whole):
    """A CuDNNLSTM's file: each block is the matrix (H, I) of cuDNN, its bytes taken for (I, H); two biases."""
    matrices, recurrents = draw(4, 4, 5, seed=5), draw(4, 4, 4, seed=6)  # gate, H, I or H: what cuDNN multiplies with
    kernel = np.concatenate([m.reshape(5, 4) for m in matrices], 1)
    recurrent = np.concatenate([m.reshape(4, 4) for m in recurrents], 1)
    bias = draw(32, seed=7)
    config = [{"class_name": "CuDNNLSTM", "config": {"name": "a"}}] if whole else None
    path = old_file(tmp_path / "c.h5", {"a": [kernel, recurrent, bias]}, config, "2.1.5")
    plain = [np.concatenate([m.T for m in part], 1) for part in (matrices, recurrents)]
    want = by_hand(*plain, bias[:16] + bias[16:], draw(9, 5), lambda v: 1 / (1 + np.exp(-v)))
    agree(qg.io.load(path)(draw(9, 5))[0], want, TERMS, 9, "y")
    with pytest.raises(ValueError, match="cudnn=True"):
        qg.io.from_keras([kernel, recurrent, bias])
    agree(qg.io.from_keras([kernel, recurrent, bias], cudnn=True)(draw(1, 9, 5))[0][0], want, TERMS, 9, "y")
    with pytest.raises(ValueError, match="CuDNNLSTM has a bias"):
        qg.io.from_keras(weights(), cudnn=True)


@pytest.mark.parametrize(("dtype", "result"), [(np.float16, np.float32), (np.float64, np.float64)])
def test_the_two_biases_of_a_cudnn_layer_are_added_in_float32_at_least(dtype, result, tmp_path):
    halves = np.full(16, 60000, dtype), np.linspace(0.3, 60000, 16, dtype=dtype)
    arrays = [np.ones((5, 16), dtype), np.ones((4, 16), dtype), np.concatenate(halves)]
    want = np.add(*(half.astype(np.float64) for half in halves)).astype(result)
    path = old_file(tmp_path / "c.h5", {"a": arrays}, [{"class_name": "CuDNNLSTM", "config": {"name": "a"}}], "2.1.5")
    for net in (qg.io.from_keras(arrays, cudnn=True), qg.io.load(path)):
        assert net.params["bias_l0"].dtype == result
        assert np.array_equal(net.params["bias_l0"], want)


def test_arrays_that_are_no_layer():
    for given, why in (
        ([], "empty"),
        ([draw(5, 16)], "1 arrays"),
        ([draw(5, 15), draw(4, 15)], "kernel has shape"),
        ([draw(5, 16), draw(4, 16), draw(15)], r"bias has shape \(15,\)"),
        ([draw(5, 12), draw(4, 12)], "GRU"),
        ([[draw(5, 16), draw(4, 16)], [draw(4, 12), draw(3, 12)]], "layer 1"),
        ([weights(), [draw(4, 24), draw(6, 24)]], "must have the same .*got LSTM of 6 units .*above LSTM of 4 and 1"),
        ([draw(5, 16).astype(np.int8), draw(4, 16)], "quantised"),
        ([draw(5, 16), draw(4, 16), np.zeros(16, int)], "bias has type int64; floating-point .*quantised"),
        ([draw(5, 16), draw(4, 16), draw(1, 16)], r"bias has shape \(1, 16\)"),
        ([draw(5, 12), draw(4, 12), draw(2, 12)], "GRU"),
    ):
        with pytest.raises(ValueError, match=why):
            qg.io.from_keras(given)


def test_arguments_that_are_no_lists_of_arrays():
    masked = np.ma.masked_array(draw(4, 16), True)
    for given, why in (
        (None, "weights must be a list of arrays, or of such lists, got None"),
        (draw(5, 16), "weights must be a list of arrays, or of such lists, got ndarray"),
        ([weights(), None], "layer 1 of the weights must be a list of arrays, got None"),
        ([draw(5, 16), masked], "layer 0 of the weights, array 1, must not be a masked array"),
        ([draw(5, 16), draw(4, 16), draw(16) > 0], "layer 0 of the weights, array 2, must hold real numbers .*bool"),
        ([weights(), [draw(5, 16) * 1j, draw(4, 16)]], "layer 1 of the weights, array 0, must hold .*complex"),
    ):
        with pytest.raises(TypeError, match=why):
            qg.io.from_keras(given)
