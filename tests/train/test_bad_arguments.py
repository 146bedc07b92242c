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
