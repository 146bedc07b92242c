"""`train.load_keras` against Keras itself, live: predictions of whole models, and losses and parameters of training."""

from __future__ import annotations

import os
import tempfile
import zipfile
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from quadgate import train

pytest.importorskip("torch", reason="PyTorch is not installed, Keras has no backend: install torch")
h5py: Any = pytest.importorskip("h5py", reason="h5py is not installed, files of Keras are not read: install h5py")
os.environ["KERAS_BACKEND"] = "torch"
with tempfile.TemporaryDirectory() as folder:
    os.environ.setdefault("KERAS_HOME", folder)  # or Keras would leave its settings in the user's home
    keras: Any = pytest.importorskip("keras", reason="Keras is not installed, nothing to compare with: install keras")
layers = keras.layers

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras's variables

T, FEATURES = 9, 5  # steps, columns of x
SYMBOLS = 30


def symbols(*rest):
    return [keras.Input((None,), dtype="int32"), *rest]


def features(*rest):
    return [keras.Input((None, FEATURES)), *rest]


def both(layer, **options):
    return layers.Bidirectional(layer, **options)


MODELS = {
    "classifier": lambda: symbols(layers.Embedding(SYMBOLS, 6), layers.LSTM(7), layers.Dense(4, activation="softmax")),
    "padded": lambda: symbols(layers.Embedding(SYMBOLS, 6, mask_zero=True), layers.LSTM(7), layers.Dense(4)),
    "tagger": lambda: symbols(
        layers.Embedding(SYMBOLS, 6, mask_zero=True),
        both(layers.LSTM(5, return_sequences=True)),
        both(layers.LSTM(4, return_sequences=True)),
        layers.TimeDistributed(layers.Dense(3, activation="softmax")),
    ),
    "stack": lambda: features(
        layers.Masking(),
        layers.LSTM(7, return_sequences=True),
        layers.Dropout(0.3),
        layers.LSTM(6, recurrent_dropout=0.2),
        layers.Dense(8, activation="relu"),
        layers.Dense(1, activation="sigmoid"),
    ),
    "masked steps": lambda: features(layers.Masking(), layers.LSTM(7, return_sequences=True), layers.Dense(3)),
    "sum": lambda: features(both(layers.LSTM(5), merge_mode="sum"), layers.Dense(2)),
    "mul": lambda: features(both(layers.LSTM(5), merge_mode="mul"), layers.Dense(2)),
    "ave": lambda: features(both(layers.LSTM(5, return_sequences=True), merge_mode="ave"), both(layers.SimpleRNN(4))),
    "backwards": lambda: features(layers.LSTM(5, go_backwards=True), layers.Dense(2, use_bias=False)),
    "simple": lambda: features(layers.SimpleRNN(6, activation="relu", return_sequences=True), layers.Dense(3, "tanh")),
    "activations": lambda: features(
        layers.LSTM(5),
        layers.Dense(6, "sigmoid"),
        layers.Dense(4),
        layers.Activation("relu"),
        layers.Dense(3),
        layers.Activation("sigmoid"),
        layers.Dropout(0.2),
    ),
    "odd": lambda: features(
        layers.LSTM(5, recurrent_activation="hard_sigmoid", activation="softsign", use_bias=False, dropout=0.1),
        layers.Dense(3),
        layers.Activation("softmax"),
    ),
}
models = pytest.mark.parametrize("name", MODELS)


def made(name):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(MODELS[name]())
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.4, w.shape) for w in model.get_weights()])
    return model


def data(model, rows=6, seed=2):
    rng = np.random.default_rng(seed)
    if len(model.input_shape) == 2:
        x = rng.integers(1, SYMBOLS, (rows, T))
        for row in range(rows):
            x[row, T - row :] = 0  # padding behind
        return x
    x = rng.normal(size=(rows, T, FEATURES)).astype(np.float32)
    x[1, 5:] = 0
    x[2, 3] = 0  # a gap
    x[3, 4, 1] = 0  # a step that counts
    return x


def close(got, want, depth):
    """Both sides are float32: some roundings of u in each step of each layer, of numbers below 1 or so."""
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 8 * T * depth * np.finfo(np.float32).eps * max(1, np.abs(want).max())


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@models
def test_predictions(name, suffix, tmp_path):
    model = made(name)
    path = tmp_path / f"m{suffix}"
    model.save(path)
    x = data(model)
    ours = train.load_keras(path)
    want = model.predict(x, verbose=0)
    close(ours.predict(x), want, len(model.layers))
    assert ours.num_parameters == model.count_params()


def test_names_that_stand_in_other_paths_of_hdf5(tmp_path):
    """The model's own name is in the paths of its layers, and optimizers name their numbers like layers."""
    rest = [layers.LSTM(5), layers.Dense(5, name="zet"), layers.Dense(5, name="net")]
    model = keras.Sequential(features(*rest), name="net")
    path = tmp_path / "m.h5"
    model.save(path)
    x = data(model)
    with h5py.File(path, "a") as file:
        for moment in ("m", "v"):
            for name, layer in (("zet", rest[1]), ("net", rest[2])):
                for variable, value in zip(("kernel", "bias"), layer.get_weights(), strict=True):
                    file[f"optimizer_weights/Adam/{moment}/{name}/{variable}:0"] = np.full_like(value, 0.5)
    close(train.load_keras(path).predict(x), model.predict(x, verbose=0), len(model.layers))


TRAINED = {
    "classifier": "sparse_categorical_crossentropy",
    "tagger": "sparse_categorical_crossentropy",
    "padded": "mean_squared_error",
    "simple": "huber",
    "sum": "mean_absolute_error",
}


@pytest.fixture
def double():
    """Keras in float64."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before[0])
    keras.config.set_floatx(before[1])


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("name", TRAINED)
def test_twenty_steps_of_training(name, tmp_path):
    """From equal weights, the losses and the parameters after 20 steps are Keras's.

    In float64, but that Keras keeps scalars such as the learning rate in float32: each step may differ by 2^-24 of
    itself, and clipped gradients at rates below 1 make steps below 1.
    """
    model = made(name)
    model.save(tmp_path / "m.keras")
    ours = train.load_keras(tmp_path / "m.keras")
    assert ours.dtype == np.float64
    loss, options = TRAINED[name], {"momentum": 0.9, "global_clipnorm": 0.5}
    model.compile(loss=loss, optimizer=keras.optimizers.SGD(0.05, **options))
    ours.compile(loss=loss, optimizer=train.SGD(0.05, **options))
    x, rng = data(model), np.random.default_rng(5)
    shape = model.output_shape
    if loss.startswith("sparse"):
        y = rng.integers(0, shape[-1], x.shape[: len(shape) - 1])
    else:
        y = rng.normal(size=(*x.shape[: len(shape) - 1], shape[-1]))
    theirs, mine = [], []
    for _ in range(20):
        theirs.append(float(model.train_on_batch(x, y)))
        mine.append(ours.train_on_batch(x, y))
    assert np.allclose(mine, theirs, rtol=1e-6, atol=0)  # Keras averages its losses in float32
    assert mine[-1] < mine[0]
    model.save(tmp_path / "after.keras")
    want = train.load_keras(tmp_path / "after.keras").params
    for name, value in ours.params.items():
        assert np.abs(value - want[name]).max() <= 20 * 2**-24, name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: features(layers.GRU(4)), "GRU"),
        (lambda: features(layers.Conv1D(4, 2)), "'conv1d.*', a Conv1D, which there is not here"),
        (lambda: features(layers.LSTM(4, stateful=False), layers.Dense(2, "gelu")), "activation 'gelu'"),
        (
            lambda: features(layers.LSTM(4, go_backwards=True, return_sequences=True)),
            "go_backwards and return_sequences",
        ),
        (lambda: features(layers.Dense(4, "softmax"), layers.LSTM(2)), "LSTM behind a softmax"),
        (lambda: features(layers.Masking(), layers.LSTM(4, zero_output_for_mask=True)), "0 for some rows"),
    ],
)
def test_refused(make, message, tmp_path):
    keras.Sequential(make()).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=message):
        train.load_keras(tmp_path / "m.keras")


@pytest.mark.parametrize("layer", [layers.LSTM, both], ids=["one direction", "both"])
def test_zero_output_for_mask(layer, tmp_path):
    """Loaded where the result is Keras's; of one direction's last step it is 0 where that one is masked: refused."""
    inner = layers.LSTM(4, zero_output_for_mask=True, return_sequences=layer is layers.LSTM)
    model = keras.Sequential(features(layers.Masking(), inner if layer is layers.LSTM else layer(inner)))
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(3, T, FEATURES)).astype(np.float32)
    x[0, 4:] = x[1, 2] = 0
    want = np.asarray(model.predict(x, verbose=0))
    assert np.abs(train.load_keras(tmp_path / "m.keras").predict(x) - want).max() <= 1e-5


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.LSTM(4, trainable=False),
        lambda: layers.LSTM(4, kernel_regularizer="l2"),
        lambda: both(layers.LSTM(4, recurrent_constraint="max_norm")),
        lambda: layers.TimeDistributed(layers.Dense(4, activity_regularizer="l1")),
    ],
)
def test_a_warning_names_what_training_leaves_out(layer, tmp_path):
    made = layer()
    keras.Sequential(features(made, layers.Dense(2))).save(tmp_path / "m.keras")
    with pytest.warns(UserWarning, match=f"are not kept.* in '{made.name}'$") as seen:
        train.load_keras(tmp_path / "m.keras")
    assert len(seen) == 1
    assert seen[0].filename == __file__


def test_a_warning_tells_of_states_that_are_not_returned(tmp_path):
    model = keras.Sequential(features(layers.LSTM(4, return_sequences=True, return_state=True)))
    model.save(tmp_path / "m.keras")
    with pytest.warns(UserWarning, match="has return_state: the model here returns its y alone") as caught:
        mine = train.load_keras(tmp_path / "m.keras")
    assert caught[0].filename == __file__
    x = np.random.default_rng(0).standard_normal((2, T, FEATURES)).astype(np.float32)
    np.testing.assert_allclose(mine.predict(x), np.asarray(model.predict(x, verbose=0)[0]), atol=1e-6)


def test_time_major_layers_are_refused(tmp_path):
    """Of Keras 2: x has its time axis in front there, and models here have the batch."""
    keras.Sequential(features(layers.LSTM(4))).save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as old, zipfile.ZipFile(tmp_path / "t.keras", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "config.json":
                data = data.replace(b'"go_backwards": false', b'"go_backwards": false, "time_major": true')
            new.writestr(name, data)
    with pytest.raises(ValueError, match=r"'lstm.*' is time_major"):
        train.load_keras(tmp_path / "t.keras")


def test_a_functional_model_is_refused(tmp_path):
    a = keras.Input((None, FEATURES))
    keras.Model(a, layers.LSTM(3)(a)).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="a Sequential one is needed"):
        train.load_keras(tmp_path / "m.keras")


def test_weights_alone_are_refused(tmp_path):
    made("classifier").save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match="its configuration is missing"):
        train.load_keras(tmp_path / "m.weights.h5")


def test_the_summary_is_keras_own(capsys):
    """The same rules, columns and sums as Keras prints for its own model; FinalState is no layer there."""
    rest = [layers.Embedding(1000, 64), layers.LSTM(128), layers.Dense(10)]
    keras.Sequential([keras.Input((None,)), *rest]).summary(line_length=78)
    want = capsys.readouterr().out
    kit = [train.Embedding(1000, 64), qg.LSTM(64, 128), train.FinalState(), train.Dense(128, 10)]
    train.Sequential(kit, rng=0).summary()
    got = capsys.readouterr().out

    def parts(text):
        lines = [line.strip() for line in text.splitlines()]
        rows = [[cell.strip() for cell in line.split("\u2502")[1:-1]] for line in lines if line.startswith("\u2502")]
        return [line for line in lines if "params" in line], {line[0] for line in lines if line}, [r[2] for r in rows]

    assert parts(got)[:2] == parts(want)[:2]
    assert [count for count in parts(got)[2] if count != "0"] == parts(want)[2]


class Doubled(layers.Dense):
    """Dense to look at, and not what it computes."""

    def call(self, x):
        return 2 * super().call(x)


@pytest.mark.parametrize("make", [Doubled, lambda units: layers.TimeDistributed(Doubled(units))])
def test_a_layer_of_the_users_own(tmp_path, make):
    doubled = keras.saving.register_keras_serializable("my", "Dense")(Doubled)
    assert doubled is Doubled
    model = keras.Sequential(features(layers.LSTM(4, return_sequences=True), make(2)))
    model.save(tmp_path / "m.keras")
    with pytest.raises(
        ValueError, match=r"m\.keras: it has a layer that cannot be read: its class 'my>Dense' is the user"
    ):
        train.load_keras(tmp_path / "m.keras")
