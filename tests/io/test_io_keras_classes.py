"""Files of Keras 3 with functions, classes and cells of the user's own: refused, or asked about, never guessed."""

from __future__ import annotations

import json
import zipfile
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import agree, draw
from test_io_keras import LSTM, STEPS, TERMS, Bidirectional, h5py, keras, model, run, save  # skips without Keras

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras's variables

FILES = ["m.keras", "m.h5"]
registered = keras.saving.register_keras_serializable("my")


class MyLSTM(LSTM):  # type: ignore[misc]
    """Computes something else, or might."""


class Renamed(LSTM):  # type: ignore[misc]
    """Has its own name, and Keras's configuration."""


class Block(keras.layers.Layer):  # type: ignore[misc]
    """Holds a layer that its configuration does not have."""

    def __init__(self, layer: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.rec = layer

    def build(self, shape: Any) -> None:
        self.rec.build(shape)

    def get_config(self) -> Any:
        return {"name": self.name}

    def call(self, x: Any) -> Any:
        return self.rec(x)


class Net(keras.Model):  # type: ignore[misc]
    def __init__(self, layer: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.rec = layer

    def call(self, x: Any) -> Any:
        return self.rec(x)


class MyCell(keras.layers.LSTMCell):  # type: ignore[misc]
    pass


class MyBidirectional(Bidirectional):  # type: ignore[misc]
    pass


for mine in (MyLSTM, MyCell, MyBidirectional):
    mine.__name__ = mine.__base__.__name__  # type: ignore[union-attr]  # as a user may name them


@registered
def doubled(x: Any) -> Any:
    return 2 * x


def reconfigured(path: Any, change: Any) -> Any:
    """Rewrite the configuration of a file of Keras."""
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)
        return path
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(entries["config.json"])
    change(config)
    entries["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "leaky_relu", "mine"])
def test_a_function_of_the_user_is_not_taken_for_keras_own(tmp_path, file, name):
    """Whatever it is named: Keras writes its own as plain strings."""
    path = save(model(LSTM(3, activation=doubled, name="a")), tmp_path / file)

    def rename(config: Any) -> None:
        activation = config["config"]["layers"][-1]["config"]["activation"]
        assert (activation["module"], activation["class_name"]) == ("builtins", "function")
        activation["config"] = name

    reconfigured(path, rename)
    for load in (qg.io.load, qg.train.load_keras):
        with pytest.raises(ValueError, match=f"a: its activations are 'sigmoid' and the user's own function '{name}'"):
            load(path)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "softplus", "elu", "softsign", "leaky_relu"])
def test_functions_of_keras_itself_are_plain_strings(tmp_path, file, name):
    """Given by name, as keras.activations' and as keras.ops'."""
    for given in (name, getattr(keras.activations, name), getattr(keras.ops, name)):
        network = model(LSTM(3, activation=given, return_sequences=True))
        x = draw(2, STEPS, 5)
        agree(qg.io.load(save(network, tmp_path / file))(x)[0], run(network, x), TERMS, STEPS, name)


@pytest.mark.parametrize("file", FILES)
def test_a_name_that_keras_mistakes_too(tmp_path, file):
    """Keras writes an own function `relu` like its own, and loads its own: so does quadgate, as the docs say."""

    def relu(x: Any) -> Any:
        return 2 * x

    path = save(model(LSTM(3, activation=relu, return_sequences=True)), tmp_path / file)
    x = draw(2, STEPS, 5)
    agree(qg.io.load(path)(x)[0], run(keras.models.load_model(path), x), TERMS, STEPS, file)


def inner(name: str, *layers: Any) -> Any:
    return keras.Sequential([keras.layers.Input((None, 5)), *layers], name=name)


@pytest.mark.parametrize("file", FILES)
def test_layers_of_one_name_in_inner_models(tmp_path, file):
    """Each has its own options, and is chosen by the path of its models' names."""
    first = LSTM(5, activation="relu", return_sequences=True, name="a")
    second = LSTM(5, activation="softsign", recurrent_activation="relu", return_sequences=True, name="a")
    third = Bidirectional(LSTM(5, return_sequences=True), merge_mode="sum", name="a")
    last = LSTM(5, recurrent_activation="softplus", return_sequences=True, name="a")
    deep = inner("deep", inner("one", first), inner("two", second))
    network = model(deep, inner("three", third), last)
    path = save(network, tmp_path / file)
    found = qg.io.networks(path)
    assert [f.name for f in found] == ["deep/one/a", "deep/two/a", "three/a", "a"]
    x = draw(2, STEPS, 5)
    for f, layer in zip(found, (first, second, third, last), strict=True):
        agree(qg.io.load(path, name=f.name)(x)[0], run(layer, x), TERMS, STEPS, f.name)


def test_layers_of_one_name_in_weights_alone(tmp_path):
    one, two = (LSTM(5, return_sequences=True, name="a") for _ in range(2))
    path = save(model(inner("one", one), inner("two", two)), tmp_path / "m.weights.h5")
    x = draw(2, STEPS, 5)
    for f, layer in zip(qg.io.networks(path), (one, two), strict=True):
        agree(qg.io.load(path, name=f.name)(x)[0], run(layer, x), TERMS, STEPS, f.name)


@pytest.mark.parametrize("file", FILES)
def test_a_layer_that_two_inner_models_share(tmp_path, file):
    """A .keras file has its arrays once, an .h5 file twice."""
    shared = LSTM(5, activation="relu", return_sequences=True, name="a")
    path = save(model(inner("one", shared), inner("two", shared)), tmp_path / file)
    found = qg.io.networks(path)
    assert [f.name for f in found] == (["a"] if file == "m.keras" else ["one/a", "two/a"])
    x = draw(2, STEPS, 5)
    agree(qg.io.load(path, name=found[0].name)(x)[0], run(shared, x), TERMS, STEPS, file)


OWN = {
    "LSTM": (lambda: MyLSTM(5, return_sequences=True, name="a"), "its class"),
    "cell": (lambda: keras.layers.RNN(MyCell(5), return_sequences=True, name="a"), "the class of its cell,"),
    "forward": (lambda: Bidirectional(MyLSTM(5, return_sequences=True), name="a"), "its class"),
    "Bidirectional": (lambda: MyBidirectional(LSTM(5, return_sequences=True), name="a"), "its class"),
}


CASES = [(file, own, True) for file in FILES for own in OWN]


# One that is not registered is in an .h5 file as Keras's own, by that name alone: nothing can tell.
@pytest.mark.parametrize(("file", "own", "register"), [*CASES, ("m.keras", "LSTM", False), ("m.keras", "cell", False)])
def test_classes_of_the_user_are_not_taken_for_keras_own(tmp_path, file, own, register):
    """Of the same name as Keras's."""
    make, what = OWN[own]
    names = keras.src.saving.object_registration.GLOBAL_CUSTOM_NAMES
    try:
        if register:
            for mine in (MyLSTM, MyCell, MyBidirectional):
                registered(mine)
        path = save(model(make()), tmp_path / file)
    finally:
        for mine in (MyLSTM, MyCell, MyBidirectional):
            names.pop(mine, None)
    with pytest.raises(ValueError, match=f"a: {what} '(my>)?(LSTM|LSTMCell|Bidirectional)' is the user's own"):
        qg.io.load(path)
    with pytest.raises(ValueError, match=r"is the user's own|'a', a my>"):
        qg.train.load_keras(path)


@pytest.mark.parametrize("module", ["keras.layers", "keras.src.layers.rnn.lstm", "tf_keras.layers", None])
@pytest.mark.parametrize("name", ["LSTM", None])
def test_classes_of_keras_itself_by_any_of_its_names(tmp_path, module, name):
    """As the generations of Keras write them; a class that it does not export has its own name as the registered."""
    layer = LSTM(5, activation="relu", return_sequences=True)
    path = save(model(layer), tmp_path / "m.keras")
    reconfigured(path, lambda config: config["config"]["layers"][-1].update(module=module, registered_name=name))
    x = draw(2, STEPS, 5)
    agree(qg.io.load(path)(x)[0], run(layer, x), TERMS, STEPS, "y")


def backwards(kind: Any = LSTM, **options: Any) -> Any:
    return kind(4, activation="relu", go_backwards=True, return_sequences=True, name="a", **options)


@pytest.mark.parametrize("holder", ["m.keras block", "m.h5 block", "m.keras subclass", "m.h5 subclass", "m.keras net"])
@pytest.mark.parametrize("kind", ["LSTM", "SimpleRNN"])
def test_options_that_the_configuration_does_not_have_are_asked_for(tmp_path, holder, kind):
    """Layers of classes of the user's, and within such: nothing is assumed, where weights alone have defaults."""
    file, _, what = holder.partition(" ")
    if what == "subclass":
        layer = backwards(Renamed)
        network, kind = model(layer), "LSTM"
    else:
        layer = backwards(getattr(keras.layers, kind))
        network = model(Block(layer)) if what == "block" else Net(layer)
    x = draw(2, STEPS, 5)
    want = run(network, x)[:, ::-1]
    path = save(network, tmp_path / file)
    options = {"LSTM": {"activations": ("sigmoid", "relu", "relu")}, "SimpleRNN": {"nonlinearity": "relu"}}[kind]
    with pytest.raises(ValueError, match=rf"a: .* must be given: {next(iter(options))}= .*own.*; reverse= .*go_back"):
        qg.io.load(path)
    with pytest.raises(ValueError, match=r"a: .* must be given: reverse="):
        qg.io.load(path, **options)
    agree(qg.io.load(path, reverse=True, **options)(x)[0], want, TERMS, STEPS, holder)


def test_both_directions_within_a_class_of_the_user(tmp_path):
    both = Bidirectional(LSTM(4, return_sequences=True), merge_mode="sum", name="a")
    path = save(model(Block(both)), tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"a: .* must be given: merge= .*; activations="):
        qg.io.load(path)
    x = draw(2, STEPS, 5)
    ours = qg.io.load(path, merge="sum", activations=("sigmoid", "tanh", "tanh"))
    agree(ours(x)[0], run(both, x), TERMS, STEPS, "y")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_within_a_class_of_the_user_named_as_another(tmp_path, file, nested):
    """It does not get the options of the other."""
    known = LSTM(5, activation="softsign", return_sequences=True, name="a")
    layers = Block(LSTM(5, activation="relu", return_sequences=True, name="a"), name="own"), known
    path = save(model(inner("in", *layers)) if nested else model(*layers), tmp_path / file)
    hidden, shown = sorted(qg.io.networks(path), key=lambda f: not f.asks)
    assert "activations" not in hidden.options
    with pytest.raises(ValueError, match="must be given: activations="):
        hidden.build()
    if not (nested and file == "m.h5"):  # there both are asked for: the paths alone do not tell which is which
        x = draw(2, STEPS, 5)
        agree(shown.build()(x)[0], run(known, x), TERMS, STEPS, "y")


@pytest.mark.parametrize("file", [*FILES, "m.weights.h5"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_several_cells_are_not_passed_over(tmp_path, file, wrapped):
    """An RNN of two cells is listed, and no other network is chosen in its place."""
    cells = keras.layers.RNN([keras.layers.LSTMCell(3), keras.layers.LSTMCell(3)], return_sequences=True, name="two")
    if wrapped:
        cells = Bidirectional(cells, name="two")
    path = save(model(cells, LSTM(2, name="top")), tmp_path / file)
    found = {f.name: f for f in qg.io.networks(path)}
    assert set(found) == {"two", "top"}
    with pytest.raises(ValueError, match="'two' cannot be loaded: an RNN of"):
        qg.io.load(path)
    assert qg.io.load(path, name="top", **dict.fromkeys(found["top"].asks, None)).hidden_size == 2


def test_several_cells_in_weights_of_keras_2(tmp_path):
    with h5py.File(tmp_path / "w.hdf5", "w") as file:
        for cell in ("lstm_cell", "lstm_cell_1"):
            file[f"rnn/rnn/{cell}/kernel:0"] = draw(4, 16)
            file[f"rnn/rnn/{cell}/recurrent_kernel:0"] = draw(4, 16)
    with pytest.raises(ValueError, match=r"w\.hdf5: .*an RNN of several cells"):
        qg.io.load(tmp_path / "w.hdf5", activations=("sigmoid", "tanh", "tanh"))


def test_a_cell_of_more_arrays_in_weights_alone(tmp_path):
    """As of a cell with peepholes."""
    path = save(model(LSTM(3, name="a")), tmp_path / "m.weights.h5")
    with h5py.File(path, "a") as file:
        file["layers/lstm/cell/vars/3"] = draw(3)
    with pytest.raises(ValueError, match="a: its cell has more arrays than Keras's own"):
        qg.io.load(path)


@pytest.mark.parametrize("file", [*FILES, "m.weights.h5"])
@pytest.mark.parametrize("name", ["optimizer", "optimizer_lstm", "my_optimizer", "optimizer_weights"])
def test_layers_named_as_optimizers(tmp_path, file, name):
    network = model(LSTM(3, return_sequences=True, name=name))
    network.compile("adam", "mse")
    network.fit(draw(2, STEPS, 5), draw(2, STEPS, 3), verbose=0)
    x = draw(2, STEPS, 5)
    agree(qg.io.load(save(network, tmp_path / file))(x)[0], run(network, x), TERMS, STEPS, name)


@pytest.mark.parametrize("file", FILES)
def test_a_layer_without_arrays_counts(tmp_path, file):
    path = save(model(LSTM(3, return_sequences=True, name="a"), LSTM(2, name="b")), tmp_path / file)

    def add(config: Any) -> None:
        layers = config["config"]["layers"]
        layers.append(json.loads(json.dumps(layers[-1])))
        layers[-1]["config"]["name"] = "c"

    reconfigured(path, add)
    with pytest.raises(ValueError, match="'c' cannot be loaded: the file does not have its arrays"):
        qg.io.load(path)


@pytest.mark.parametrize("file", ["m.keras", "m.weights.h5"])
def test_bfloat16_is_read_exactly(tmp_path, file):
    made = keras.layers.LSTM(
        3, dtype="bfloat16", recurrent_initializer="glorot_uniform", return_sequences=True, name="a"
    )
    network = model(made, LSTM(2, name="b"))
    ours = qg.io.load(save(network, tmp_path / file), name="a")
    want = qg.io.from_keras([w.value.detach().float().numpy() for w in made.weights])
    assert all(np.array_equal(ours.params[name], value) for name, value in want.params.items())


def test_bfloat16_of_old_files_counts(tmp_path):
    """An .h5 file has the bytes, and does not say of which type."""
    made = keras.layers.LSTM(
        3, dtype="bfloat16", recurrent_initializer="glorot_uniform", return_sequences=True, name="a"
    )
    path = save(model(made, LSTM(2, name="b")), tmp_path / "m.h5")
    with pytest.raises(ValueError, match=r"'a' cannot be loaded: .* not in a type that can be read"):
        qg.io.load(path)


def as_tensorflow_2_12(path: Any) -> Any:
    """Rewrite a file as TensorFlow 2.12 to 2.14 wrote it: another group around the layers, and no names of theirs."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    place = path.with_suffix(".h5")
    place.write_bytes(entries["model.weights.h5"])
    with h5py.File(place, "a") as file:
        file.move("layers", "_layer_checkpoint_dependencies")
        file.visititems(lambda _, thing: thing.attrs.pop("name", None) and None)
    entries["model.weights.h5"] = place.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("both", [False, True])
def test_a_file_of_tensorflow_2_12(tmp_path, both):
    layer = LSTM(4, activation="relu", return_sequences=True, name="lstm")
    network = model(Bidirectional(layer, name="lstm") if both else layer, keras.layers.Dense(2))
    path = as_tensorflow_2_12(save(network, tmp_path / "m.keras"))
    x = draw(2, STEPS, 5)
    want = run(network.layers[0], x)
    (found,) = qg.io.networks(path)
    assert (found.name, found.problem) == ("lstm", None)
    for net in (qg.io.load(path), qg.io.load(path, name="lstm", activations=("sigmoid", "relu", "relu"))):
        agree(net(x)[0], want, TERMS, STEPS, "y")


def test_time_distributed_twice(tmp_path):
    """The options of the layer within come from the configuration."""
    inner = keras.layers.TimeDistributed(keras.layers.TimeDistributed(LSTM(3, activation="relu", name="a")))
    network = keras.Sequential([keras.layers.Input((2, 3, 4, 5)), inner])
    for file in FILES:
        (found,) = qg.io.networks(save(network, tmp_path / file))
        assert (found.problem, found.asks) == (None, {})
        assert found.build().activations == ("sigmoid", "relu", "relu")
