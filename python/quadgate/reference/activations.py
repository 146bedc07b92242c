"""The activation functions and their derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# name: alpha and beta where they are not given. A name that is missing here is no activation.
DEFAULTS: dict[str, tuple[float, ...]] = {
    "sigmoid": (),
    "tanh": (),
    "relu": (),
    "hard_sigmoid": (0.2, 0.5),
    "affine": (1.0, 0.0),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "scaled_tanh": (1.0, 1.0),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}


class Activation(NamedTuple):
    """One of the activation functions, with its parameters."""

    name: str
    alpha: float = 0.0
    beta: float = 0.0

    @classmethod
    def read(cls, given: str | Sequence[Any]) -> Activation:
        """Return what a name, (name, alpha) or (name, alpha, beta) stands for."""
        name, *values = (given,) if isinstance(given, str) else tuple(given)
        if name not in DEFAULTS or len(values) > max(2, len(DEFAULTS[name])):
            raise ValueError(f"unknown activation {given!r}")
        return cls(name, *(float(v) for v in (*values, *DEFAULTS[name][len(values) :])))


def sigmoid(a: Array) -> Array:
    """Return 1 / (1 + exp(-a)), to full relative accuracy on both sides and without overflow."""
    e = np.exp(-np.abs(a))
    return np.asarray(np.where(a >= 0, 1.0, e) / (1.0 + e))


def activation(kind: Activation, a: Array) -> Array:
    """Return an activation's value."""
    name, alpha, beta = kind
    below = np.minimum(a, 0.0)
    if name == "sigmoid":
        return sigmoid(a)
    if name == "tanh":
        return np.tanh(a)
    if name == "relu":
        return np.maximum(a, 0.0)
    if name == "hard_sigmoid":
        return np.clip(alpha * a + beta, 0.0, 1.0)
    if name == "affine":
        return alpha * a + beta
    if name == "leaky_relu":
        return np.where(a < 0, alpha * a, a)
    if name == "thresholded_relu":
        return np.where(a > alpha, a, 0.0)
    if name == "scaled_tanh":
        return alpha * np.tanh(beta * a)
    if name == "elu":
        return np.where(a < 0, alpha * np.expm1(below), a)
    if name == "softsign":
        return a / (1.0 + np.abs(a))
    if name == "softplus":
        return np.logaddexp(a, 0.0)
    raise ValueError(f"unknown activation {name!r}")


def slope(kind: Activation, a: Array) -> Array:
    """Return an activation's derivative; at a kink the one from the left, and at those of hard_sigmoid 0."""
    name, alpha, beta = kind
    one, below = np.ones_like(a), np.minimum(a, 0.0)
    if name == "sigmoid":
        return sigmoid(a) * sigmoid(-a)
    if name == "tanh":
        return 1.0 - np.tanh(a) ** 2
    if name == "relu":
        return np.where(a > 0, one, 0.0)
    if name == "hard_sigmoid":
        return np.where((alpha * a + beta > 0) & (alpha * a + beta < 1), alpha * one, 0.0)
    if name == "affine":
        return alpha * one
    if name == "leaky_relu":
        return np.where(a > 0, one, alpha)
    if name == "thresholded_relu":
        return np.where(a > alpha, one, 0.0)
    if name == "scaled_tanh":
        return alpha * beta * (1.0 - np.tanh(beta * a) ** 2)
    if name == "elu":
        return np.where(a > 0, one, alpha * np.exp(below))
    if name == "softsign":
        return 1.0 / (1.0 + np.abs(a)) ** 2
    if name == "softplus":
        return sigmoid(a)
    raise ValueError(f"unknown activation {name!r}")
