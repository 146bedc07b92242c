"""Errors of `quadgate.train` name the argument that is wrong, and come before anything has changed."""

from __future__ import annotations

import numpy as np
import pytest
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
