"""Models in files: exact resume to the last bit, generators included; only ValueError for senseless files."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import quadgate as qg
from quadgate import train

safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed: install it")
SYMBOLS, T, B = 12, 6, 8


def lstm_model(dtype="float32", stateful=False):
    lstm = qg.LSTM(
        8, 10, 2, dropout=0.3, recurrent_dropout=0.2, zoneout=(0.1, 0.1), peephole=True, proj_size=6, dtype=dtype, rng=0
    )
    layers = [train.Embedding(SYMBOLS, 8), train.Dropout(0.2), lstm, train.Dense(6, 7, "tanh"), train.Dense(7, 5)]
    return train.Sequential(layers, stateful=stateful, rng=0)


def rnn_model(dtype="float64", stateful=False):
    rnn = qg.RNN(8, 10, nonlinearity="relu", dtype=dtype, rng=0)
    layers = [train.Masking(), train.Embedding(SYMBOLS, 8), rnn, train.Dense(10, 5, ("leaky_relu", 0.2), bias=False)]
    return train.Sequential(layers, stateful=stateful, rng=0, dtype=dtype)


def final_model():
    lstm = qg.LSTM(8, 10, bidirectional=True, layer_norm="cell", batch_first=True, rng=0)
    layers = [train.Embedding(SYMBOLS, 8), lstm, train.FinalState(), train.Dense(20, 5)]
    return train.Sequential(layers, head="softmax", rng=0)


def batch(seed, final):
    rng = np.random.default_rng(seed)
    return rng.integers(0, SYMBOLS, (B, T)), rng.integers(0, 5, B if final else (B, T))


MAKERS = {
    "lstm": lstm_model,
    "stateful": lambda: lstm_model(stateful=True),
    "float64 rnn": rnn_model,
    "stateful rnn": lambda: rnn_model(stateful=True),
    "final": final_model,
}
OPTIMIZERS = [
    train.SGD(0.1),
    train.SGD(0.1, 0.9, nesterov=True),
    train.Adam(train.WarmupCosine(0.02, 3, 20, 1e-3), clip_norm=1.0),
    train.AdamW(0.01, weight_decay=0.1, clip_value=0.1),
    train.Adam(0.01, clipnorm=0.5),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("name", MAKERS)
def test_ten_steps_equal_five_and_five(name, optimizer, tmp_path):
    final = name == "final"
    one, other = MAKERS[name](), MAKERS[name]()
    for model in (one, other):
        model.compile("softmax_cross_entropy", optimizer)
    losses = [one.train_on_batch(*batch(k, final)) for k in range(10)]
    again = [other.train_on_batch(*batch(k, final)) for k in range(5)]
    other.save(tmp_path / "m.safetensors")
    back = train.load(tmp_path / "m.safetensors")
    again += [back.train_on_batch(*batch(k, final)) for k in range(5, 10)]
    assert again == losses
    assert back.step == 10
    assert back.params.flat.tobytes() == one.params.flat.tobytes()
    x, _ = batch(11, final)
    assert back.predict(x).tobytes() == one.predict(x).tobytes()
    assert repr(back) == repr(one)
    assert repr(back.optimizer) == repr(one.optimizer)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), "file"])
@pytest.mark.parametrize(("first", "then"), [(0.0, 0.5), (0.9, 0.0)])
def test_a_momentum_that_has_changed(first, then, copied, tmp_path):
    """Before its first step and after it; and one that was set to 0 goes on where it stopped."""
    model = lstm_model()
    model.compile("softmax_cross_entropy", train.SGD(0.1, first, nesterov=first > 0))

    def back():
        if copied == "file":
            model.save(tmp_path / "m.safetensors")
            return train.load(tmp_path / "m.safetensors")
        return copied(model)

    model.train_on_batch(*batch(0, False))
    for momentum in (then, 0.9):
        model.optimizer.momentum = momentum
        for _ in range(2):
            other = back()
            assert repr(other.optimizer) == repr(model.optimizer)
            assert other.train_on_batch(*batch(1, False)) == model.train_on_batch(*batch(1, False))
            assert other.params.flat.tobytes() == model.params.flat.tobytes()


def test_numbers_that_no_constructor_takes():
    """Set after it, they are refused at once, and not when the file is read."""
    model = lstm_model()
    model.compile("softmax_cross_entropy", train.SGD(0.1))
    model.optimizer.momentum = 1.5
    with pytest.raises(ValueError, match=r"momentum must be from 0 to below 1, got 1\.5"):
        copy.deepcopy(model)


def test_epochs_go_on_with_the_same_shuffling(tmp_path):
    x, y = (np.concatenate(parts) for parts in zip(*(batch(k, False) for k in range(4)), strict=True))
    one, other = lstm_model(), lstm_model()
    for model in (one, other):
        model.compile("softmax_cross_entropy", "adam")
    whole = one.fit(x, y, epochs=4, batch_size=5)["loss"]
    first = other.fit(x, y, epochs=2, batch_size=5)["loss"]
    other.save(tmp_path / "m.safetensors")
    back = train.load(tmp_path / "m.safetensors")
    assert first + back.fit(x, y, epochs=2, batch_size=5)["loss"] == whole
    assert back.params.flat.tobytes() == one.params.flat.tobytes()


def test_a_model_without_an_optimizer(tmp_path):
    model = final_model()
    model.save(tmp_path / "m.safetensors")
    back = train.load(tmp_path / "m.safetensors")
    assert back.optimizer is None
    assert back.head == "softmax"
    assert back.params.flat.tobytes() == model.params.flat.tobytes()
    arrays = safetensors.load_file(tmp_path / "m.safetensors")
    assert set(arrays) == set(model.params)


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_a_model_with_quantised_weights_is_for_inference(tmp_path, kind):
    model = train.Sequential([qg.LSTM(3, 4, rng=0).quantize(kind), train.Dense(4, 2)], rng=0)
    assert model.predict(np.zeros((2, 3, 3))).shape == (2, 3, 2)
    for refused in (lambda: model.save(tmp_path / "m"), lambda: copy.deepcopy(model), lambda: pickle.dumps(model)):
        with pytest.raises(TypeError, match=f"a model with {kind} weights is neither saved nor copied"):
            refused()
    with pytest.raises(TypeError, match=f"parameters of a network with {kind} weights cannot be changed"):
        model.load_params(model.params)


class MyLSTM(qg.LSTM):
    """A network of the user's."""


class MySGD(train.SGD):
    """An optimizer of the user's."""


def test_classes_of_the_users(tmp_path):
    """A network comes back as its base class, as `qg.save` has it; what would not come back is refused at once."""
    model = train.Sequential([MyLSTM(3, 4, rng=0), train.Dense(4, 2)], rng=0)
    x = np.ones((2, 3, 3))
    model.save(tmp_path / "m")
    for again in (train.load(tmp_path / "m"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(again.predict(x), model.predict(x))
    for loss, optimizer in (("mse", MySGD(0.1)), (train.Loss("mse", lambda *_: None), "sgd")):
        model.compile(loss, optimizer)
        with pytest.raises(TypeError, match=r"cannot be saved: it is not one of quadgate\.train"):
            model.save(tmp_path / "n")


class MyDropout(train.Dropout):
    """A layer of the user's."""


class MyModel(train.Sequential):
    """A model of the user's."""


def test_layers_and_models_of_the_users_are_refused_at_once(tmp_path):
    """A file that cannot be loaded is not written, and no copy is of another class."""
    model = train.Sequential([train.Dense(4, 2), MyDropout(0.5)], rng=0)
    for refused in (lambda: model.save(tmp_path / "m"), lambda: copy.deepcopy(model), lambda: pickle.dumps(model)):
        with pytest.raises(
            TypeError, match=r"MyDropout\(rate=0.5\) of the class MyDropout is neither saved nor copied"
        ):
            refused()
    assert not list(tmp_path.iterdir())
    model = MyModel([train.Dense(4, 2)], rng=0)
    for refused in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="a MyModel is neither copied nor pickled"):
            refused(model)
    model.save(tmp_path / "m")
    assert np.array_equal(train.load(tmp_path / "m").params.flat, model.params.flat)


def test_a_stream_is_refused_by_name():
    stream = train.Sequential([qg.LSTM(3, 4, rng=0)], rng=0).stream()
    for refused in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="a stream of a model is neither copied nor pickled"):
            refused(stream)


def again(value):
    return pickle.loads(pickle.dumps(value))


def oldest(value):
    """By the first protocol, for which Python itself pickles no object with slots."""
    return pickle.loads(pickle.dumps(value, 0))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, again, oldest])
def test_layers_are_copied(copied):
    """With their parameters, which nothing can write to, before and after a model took them."""
    net = qg.LSTM(8, 10, rng=0)
    layers = [train.Embedding(20, 8), net, train.FinalState(), train.Dropout(0.5), train.Dense(10, 5, "relu")]
    fresh = [copied(layer) for layer in layers]
    model = train.Sequential(layers, rng=0)
    x = np.arange(12).reshape(2, 6)
    other = train.Sequential([copied(layer) for layer in layers], rng=1)
    assert np.array_equal(other.predict(x), model.predict(x))
    for value in other.params.values():
        assert not value.flags.writeable
    other.compile("mse", "sgd")
    other.train_on_batch(x, np.ones((2, 5)))
    assert not np.array_equal(other.params["4.weight"], model.params["4.weight"])
    assert train.Sequential(fresh, rng=0).predict(x).shape == (2, 5)


@pytest.mark.parametrize("copied", [copy.deepcopy, again, oldest])
@pytest.mark.parametrize("optimizer", ["adam", "sgd", train.SGD(0.1, momentum=0.9)], ids=["adam", "sgd", "momentum"])
def test_a_learner_is_copied(copied, optimizer):
    """After an update, and goes on to the same bits, apart from the first."""
    learner = train.rtrl(qg.LSTM(2, 3, rng=0), optimizer=optimizer)
    learner.step([1.0, 2.0])
    learner.learn(np.ones(3))
    other, before = copied(learner), learner.net.params.flat.copy()
    for each in (other, learner):
        assert np.array_equal(each.net.params.flat, before)
        each.step([0.5, -1.0])
        each.learn(np.ones(3))
    assert np.array_equal(other.net.params.flat, learner.net.params.flat)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_optimizers_and_layers_in_every_protocol(protocol):
    for value in (*OPTIMIZERS, train.Masking(2.0), train.Dense(3, 4, "tanh"), OPTIMIZERS[2].learning_rate):
        assert repr(pickle.loads(pickle.dumps(value, protocol))) == repr(value)


def test_a_schedule_of_the_users_cannot_be_saved(tmp_path):
    model = final_model()
    model.compile("softmax_cross_entropy", train.Adam(lambda step: 0.1))
    with pytest.raises(TypeError, match="cannot be saved"):
        model.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------- senseless files


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The description and arrays of a sound file."""
    model = lstm_model(stateful=True)
    model.compile("softmax_cross_entropy", train.Adam(train.WarmupCosine(0.1, 1, 9)))
    model.train_on_batch(*batch(0, False))
    path = tmp_path_factory.mktemp("files") / "m.safetensors"
    model.save(path)
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    return json.loads(header["model"]), safetensors.load(data), data


def write(path, description, arrays, kind="quadgate model 1"):
    text = description if isinstance(description, str) else json.dumps(description)
    safetensors.save_file(arrays, path, {"format": kind, "model": text})
    return path


def changed(value, path, new):
    """A copy of nested lists and dicts with one place changed; the path ends in a key."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if new is DELETED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return copy


DELETED = object()
SENSELESS = [
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    "x",
    "LSTM",
    [],
    [1],
    {},
    {"a": 1},
    DELETED,
    float("nan"),
    [[0, 2], [0, 2]],
]


def places(value, path=()):
    """Every place in nested lists and dicts."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def test_every_place_changed_to_nonsense(parts, tmp_path):
    """A file that says something else is another model or ValueError; nothing else, no crash and no huge memory."""
    description, arrays, _ = parts
    refused = 0
    for place in places(description):
        for new in SENSELESS:
            path = write(tmp_path / "m.safetensors", changed(description, place, new), arrays)
            model = loaded(path)
            refused += model is None
            if model is not None:
                assert model.params.flat.size == sum(v.size for n, v in arrays.items() if n[0].isdigit())
    assert refused > 500


def loaded(path):
    """The model of a file; None if that raises ValueError, which names the file."""
    try:
        return train.load(path)
    except ValueError as error:
        if not str(error).startswith(f"{path}: "):
            raise
        return None


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '"x"', "1" * 5000, "[" * 5000, "NaN", '{"layers": []}'])
def test_descriptions_that_are_none(parts, tmp_path, text):
    with pytest.raises(ValueError, match=r"m\.safetensors"):
        train.load(write(tmp_path / "m.safetensors", text, parts[1]))


def test_arrays_that_do_not_fit(parts, tmp_path):
    description, arrays, _ = parts
    path = tmp_path / "m.safetensors"
    for name, value in arrays.items():
        for new in (None, value[:-1], value.astype(np.float16), value.astype(np.float64)):
            rest = {n: v for n, v in arrays.items() if n != name} | ({} if new is None else {name: new})
            with pytest.raises(ValueError, match=r"m\.safetensors"):
                train.load(write(path, description, rest))
    with pytest.raises(ValueError, match=r"not the model's: more"):
        train.load(write(path, description, arrays | {"more": np.zeros(2, np.float32)}))


def test_damaged_and_other_files(parts, tmp_path):
    description, arrays, data = parts
    path = tmp_path / "m.safetensors"
    rng = np.random.default_rng(0)
    for cut in (0, 1, 8, 9, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match=r"m\.safetensors"):
            train.load(path)
    head = 8 + int.from_bytes(data[:8], "little")
    for _ in range(300):
        broken = bytearray(data)
        for at in rng.integers(0, head, 3):
            broken[at] = rng.integers(256)
        path.write_bytes(broken)
        loaded(path)
    with pytest.raises(ValueError, match="its format is 'quadgate model 2'"):
        train.load(write(path, description, arrays, "quadgate model 2"))
    qg.save(qg.LSTM(2, 3), path)
    with pytest.raises(ValueError, match=r"no model of quadgate\.train: its format is 'quadgate 1'"):
        train.load(path)
    with pytest.raises(FileNotFoundError):
        train.load(tmp_path / "none")
