"""Errors of `quadgate.train` name the argument that is wrong, and come before anything has changed."""

from __future__ import annotations

import re

import numpy as np
import pytest
import quadgate as qg
from quadgate import train


@pytest.mark.parametrize("dtype", [[], "", 0, False, {}, np.ones(3)], ids=repr)
def test_a_dtype_that_is_none(dtype):
    """Not even one that is false in Python stands for the default."""
    with pytest.raises((TypeError, ValueError), match=r"^dtype must be float32 or float64, got "):
        train.Sequential([train.Dense(3, 4)], dtype=dtype, rng=0)


def test_an_activation_that_is_an_array():
    with pytest.raises(TypeError, match=r"^activation must be a name, .*, got ndarray$"):
        train.Dense(3, 4, np.ones(3))


def small(loss="mse", optimizer="sgd"):
    model = train.Sequential([train.Dense(3, 1)], rng=0)
    model.compile(loss, optimizer)
    return model


X, Y = np.ones((4, 3), np.float32), np.zeros((4, 1), np.float32)


def test_early_stopping_without_validation_data():
    """It is refused before the first epoch has changed the parameters."""
    model = small()
    before = model.params.flat.tobytes()
    with pytest.raises(ValueError, match=r"^EarlyStopping\('val_loss', patience=2\) needs validation_data: "):
        model.fit(X, Y, callbacks=[print, train.EarlyStopping(patience=2)])
    assert model.params.flat.tobytes() == before
    assert model.history is None
    model.fit(X, Y, callbacks=[train.EarlyStopping()], validation_data=(X, Y))
    model.fit(X, Y, callbacks=[train.EarlyStopping("loss")])

    def val_x(y, t):
        return np.abs(y - t).mean(-1)

    model.fit(X, Y, metrics=[val_x], callbacks=[train.EarlyStopping("val_x")])


def test_a_wrong_y_or_weight_is_called_so():
    sequence, x3 = train.Sequential([train.Dense(3, 2)], rng=0), np.ones((4, 5, 3))
    sequence.compile("softmax_cross_entropy", "sgd")
    for call in ("fit", "train_on_batch", "gradients", "evaluate"):
        with pytest.raises(ValueError, match=r"^y must have the outputs' shape \(4, 1\), got \(4, 2\)$"):
            getattr(small(), call)(X, np.ones((4, 2)))
        with pytest.raises(ValueError, match=r"^sample_weight must be 0 or more, got -1\.0$"):
            getattr(small(), call)(X, Y, sample_weight=[-1, 1, 1, 1])
        with pytest.raises(ValueError, match=r"^sample_weight must have shape \(4,\), got \(4, 3\)$"):
            getattr(small(), call)(X, Y, sample_weight=np.ones((4, 3)))
        with pytest.raises(ValueError, match=r"^y must have shape \(4, 5\), got \(4, 2\)$"):
            getattr(sequence, call)(x3, np.ones((4, 2), int))
        with pytest.raises(TypeError, match=r"^y must hold class numbers \(integers\), got dtype float64$"):
            getattr(sequence, call)(x3, np.ones((4, 5)))
        for wrong in (2, -1, 2**63):  # the last one of uint64, which int64 does not hold
            y = np.zeros((4, 5), np.array(wrong).dtype)
            y[2, 3] = wrong
            with pytest.raises(ValueError, match=rf"^class numbers: y must be from 0 to 1, got {wrong}$"):
                getattr(sequence, call)(x3, y)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (3, TypeError, r"validation_data must be \(x, y\), .*, or a list of batches, got 3$"),
        ("xy", TypeError, r"validation_data must be \(x, y\), .*, or a list of batches, got 'xy'$"),
        ((X,), TypeError, r"validation_data must be \(x, y\), .*, got 1 items$"),
        ({"y": Y}, ValueError, "validation_data must have x, .* got y$"),
        ({}, ValueError, "validation_data must have x, .* got nothing$"),
        (X, ValueError, "validation_data's y is missing"),
        ({"x": X}, ValueError, "validation_data's y is missing"),
        ((X[:, :2], Y), ValueError, "validation_data: x must have 3 columns"),
        ((X, Y[:2]), ValueError, "validation_data: y must have a row for each of x's 4"),
        ((X, np.ones((4, 2))), ValueError, "validation_data's y must have the outputs' shape"),
        ((X, Y, [-1, 1, 1, 1]), ValueError, "validation_data's sample_weight must be 0 or more"),
        ((X, Y, np.zeros(4)), ValueError, "validation_data's x must have at least one .*left out by sample_weight$"),
    ],
)
def test_validation_data_is_called_so(data, error, message):
    with pytest.raises(error, match=f"^{message}"):
        small().fit(X, Y, validation_data=data)


def test_what_leaves_all_out_is_named():
    model = train.Sequential([train.Dense(3, 1)], rng=0)
    model.compile("mse", "sgd")
    x, y = np.ones((4, 5, 3)), np.ones((4, 5, 1))
    nothing = {"lengths": [0] * 4, "mask": np.zeros((4, 5), bool), "sample_weight": np.zeros(4)}
    for call in (model.fit, model.evaluate):
        for name, value in nothing.items():
            with pytest.raises(
                ValueError, match=rf"^x must have at least one .*, and all of it is left out by {name}$"
            ):
                call(x, y, **{name: value})
        with pytest.raises(ValueError, match=r"left out by lengths and mask and sample_weight$"):
            call(x, y, **nothing)
        with pytest.raises(ValueError, match=r"^x must have at least one row or batch that counts$"):
            call(x[:0], y[:0])


@pytest.mark.parametrize("path", [None, 3, b"m.safetensors", ["m"]], ids=repr)
@pytest.mark.parametrize("call", [train.load, train.load_keras, lambda path: small().save(path)])
def test_a_path_that_is_none(call, path):
    with pytest.raises(TypeError, match=r"^path must be a str, an os\.PathLike or a binary file, got "):
        call(path)


def test_an_optimizer_that_is_none():
    for wrong, got in ((train.Adam, "the class Adam"), (3, "3"), (None, "None")):
        with pytest.raises(TypeError, match=rf"^optimizer must be .* or an optimizer, for example .*, got {got}$"):
            small(optimizer=wrong)
    with pytest.raises(
        ValueError, match=r"^optimizer must be 'sgd', 'adam' or 'adamw', got 'adm': did you mean 'adam'"
    ):
        small(optimizer="Adm")


@pytest.mark.parametrize("value", [np.array(3), 3, None], ids=repr)
def test_what_is_no_list(value):
    stream = train.Sequential([qg.LSTM(3, 4, rng=0)], rng=0).stream(2)
    calls = {
        "layers must be a list": lambda: train.Sequential(value),
        "callbacks must be a list": lambda: small().fit(X, Y, callbacks=value),
        "metrics must be a list": lambda: small().fit(X, Y, metrics=value),
        "states must be a list": lambda: setattr(stream, "states", value),
        "print_fn must be callable": lambda: small().summary(print_fn=value),
    }
    for message, call in calls.items():
        with pytest.raises(TypeError, match=f"^{message}.*, got "):
            call()


def test_a_buffer_of_several_axes():
    with pytest.raises(TypeError, match=r"^layers\[0\] must be a layer"):
        train.Sequential(memoryview(np.zeros((2, 2))))


@pytest.mark.parametrize("loss", ["binary_crossentropy", "softmax_cross_entropy", "categorical_crossentropy"])
def test_a_sigmoid_in_front_of_a_loss_of_logits(loss):
    model = train.Sequential([train.Dense(3, 2, activation="sigmoid")], rng=0)
    with pytest.raises(ValueError, match=r"takes logits, and the last layer has activation='sigmoid': leave it out"):
        model.compile(loss)
    model.compile("mse")
    train.Sequential([train.Dense(3, 2, activation="sigmoid"), train.Dense(2, 2)], rng=0).compile(loss)


def test_a_model_of_an_earlier_version_with_such_a_sigmoid(tmp_path):
    """Its file is still read, and trains on to the same bits."""
    model = train.Sequential([train.Dense(3, 2, activation="sigmoid")], rng=0)
    model._compile(train._losses.get("binary_cross_entropy"), train.Adam())
    model.save(tmp_path / "m.safetensors")
    x, y = np.ones((4, 3), np.float32), np.ones((4, 2))
    assert train.load(tmp_path / "m.safetensors").train_on_batch(x, y) == model.train_on_batch(x, y)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "softmax_cross_entropy", "categorical_crossentropy"])
@pytest.mark.parametrize("wrong", [-1.0, 255.0])
def test_targets_that_are_no_probabilities(loss, wrong):
    model = train.Sequential([train.Dense(3, 2)], rng=0)
    model.compile(loss)
    x, y = np.ones((4, 3), np.float32), np.full((4, 2), 0.5)
    y[2, 1] = wrong
    before = model.params.flat.tobytes()
    with pytest.raises(ValueError, match=rf"^y must be probabilities, from 0 to 1, got {wrong}$"):
        model.train_on_batch(x, y)
    assert model.params.flat.tobytes() == before
    model.train_on_batch(x, y, sample_weight=[1, 1, 0, 1])  # what does not count may be anything
    model.train_on_batch(x, np.full((4, 2), np.nextafter(np.float32(1), np.float32(2))))  # rounding


def test_an_x_of_pad_sequences_that_is_time_first():
    x, lengths = qg.pad_sequences([np.ones((n, 3)) for n in (5, 2)])
    model = train.Sequential([qg.LSTM(3, 2, rng=0), train.FinalState()])
    message = r"^x must have shape \(B, T, .* \(5, 2, 3\) and lengths \(2,\): pad_sequences\(..., batch_first=True\)"
    with pytest.raises(ValueError, match=message):
        model.predict(x, lengths=lengths)


@pytest.mark.parametrize("given", ["lengths", "mask"])
def test_validation_data_without_the_lengths_of_training(given):
    model = train.Sequential([qg.LSTM(3, 2, rng=0)], rng=0)
    model.compile("mse")
    x, y = np.ones((4, 5, 3), np.float32), np.ones((4, 5, 2))
    counts = {"lengths": [5, 4, 3, 2]} if given == "lengths" else {"mask": np.ones((4, 5), bool)}
    with pytest.warns(UserWarning, match=f"the training data have {given} and validation_data has none") as caught:
        model.fit(x, y, validation_data=(x, y), **counts)
    assert caught[0].filename == __file__
    model.fit(x, y, validation_data={"x": x, "y": y, **counts}, **counts)
    model.fit(x, y, validation_data=(x, y))


@pytest.mark.parametrize("monitor", ["val_accuracy", "val_los", "accuracy"])
def test_a_monitor_that_there_will_not_be_is_refused_at_once(monitor):
    model = small()
    before = model.params.flat.tobytes()
    x, y = np.ones((4, 3), np.float32), np.ones((4, 1))
    with pytest.raises(ValueError, match=rf"^monitor must be one of loss, val_loss, got '{monitor}'"):
        model.fit(x, y, validation_data=(x, y), callbacks=[train.EarlyStopping(monitor)])
    assert model.params.flat.tobytes() == before


@pytest.mark.parametrize("suffix", ["onnx", "keras", "h5", "pt", "npz"])
def test_a_file_named_as_another_format(tmp_path, suffix):
    model, path = small(), tmp_path / f"m.{suffix}"
    with pytest.warns(UserWarning, match=f"programs that read .{suffix} files do not expect") as caught:
        model.save(path)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=f"programs that read .{suffix} files do not expect") as caught:
        qg.save(qg.LSTM(2, 3, rng=0), path)
    assert caught[0].filename == __file__
    assert isinstance(qg.load(path), qg.LSTM)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lr", "it is learning_rate here"),
        ("eps", "it is epsilon here"),
        ("learningrate", "did you mean 'learning_rate'?"),
    ],
)
def test_other_names_of_an_optimizers_numbers(name, meant):
    with pytest.raises(TypeError, match=rf"^Adam\(\) got an unexpected keyword argument '{name}': {re.escape(meant)}$"):
        train.Adam(**{name: 1e-3})
