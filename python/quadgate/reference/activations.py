"""The activation functions and their derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Default alpha and beta of every activation, by name. Other names are invalid.
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
    """An activation function and its parameters.

    Attributes
    ----------
    name : str
        A key of `DEFAULTS`.
    alpha, beta : float
        Parameters; 0 for a function that has none.
    """

    name: str
    alpha: float = 0.0
    beta: float = 0.0

    @classmethod
    def read(cls, given: str | Sequence[Any]) -> Activation:
        """Make an activation of a name, (name, alpha) or (name, alpha, beta); one that is made already stays.

        Raises
        ------
        ValueError
            If the name is unknown, or more parameters are given than the function has.
        """
        if isinstance(given, cls):
            return given
        name, *values = (given,) if isinstance(given, str) else tuple(given)
        if name not in DEFAULTS:
            raise ValueError(f"unknown activation {given!r}")
        if len(values) > len(DEFAULTS[name]):
            raise ValueError(f"{name} takes {len(DEFAULTS[name])} parameters, got {given!r}")
        return cls(name, *(float(v) for v in (*values, *DEFAULTS[name][len(values) :])))


def sigmoid(a: Array) -> Array:
    """Return 1 / (1 + exp(-a)) elementwise, to full relative accuracy for both signs and without overflow."""
    e = np.exp(-np.abs(a))
    return np.asarray(np.where(a >= 0, 1.0, e) / (1.0 + e))


def activation(kind: Activation, a: Array) -> Array:
    """Return the value of an activation elementwise.

    Parameters
    ----------
    kind : Activation
    a : ndarray of float
        Arguments, of any shape.

    Returns
    -------
    ndarray
        Values, of the shape and dtype of `a`.

    Raises
    ------
    ValueError
        If there is no activation of this name.
    """
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
        a = np.clip(a, np.finfo(a.dtype).min, np.finfo(a.dtype).max)  # 1 for infinity, too
        return a / (1.0 + np.abs(a))
    if name == "softplus":
        return np.logaddexp(a, 0.0)
    raise ValueError(f"unknown activation {name!r}")


def slope(kind: Activation, a: Array) -> Array:
    """Return the derivative of an activation elementwise.

    At a kink it is the derivative from the left, and for hard_sigmoid 0.

    Parameters
    ----------
    kind : Activation
    a : ndarray of float
        Arguments of the activation (not its values), of any shape.

    Returns
    -------
    ndarray
        Derivatives, of the shape and dtype of `a`.

    Raises
    ------
    ValueError
        If there is no activation of this name.
    """
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
