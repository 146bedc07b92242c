"""First parameters of a new network."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._options import Options
    from ._params import Shapes

    Array = NDArray[Any]

HIGHWAY_BIAS = -1.0  # so that a new network carries its input through rather than transforms it: Srivastava 2015


def draw(o: Options, of: Shapes, rng: np.random.Generator) -> dict[str, Array]:
    """Return all parameters, drawn in their order.

    They are drawn in float64 whatever the network's type, so that a seed gives one network, not one for each type.
    """
    scheme = _keras if o.initialization == "keras" else _uniform
    result = {}
    for name, shape in of.items():
        kind = name[: name.rindex("_l")]
        value = np.empty(shape)
        if kind == "bias_highway":
            value[...] = HIGHWAY_BIAS
        elif kind.startswith("norm"):  # gains are 1; norm_c is its gain and its bias, which is 0
            value[...] = 1
            if kind == "norm_c":
                value[1] = 0
        else:
            value[...] = scheme(o, kind, shape, rng)
        if kind == "bias" and o.forget_bias is not None:
            value[_forget(o)] = o.forget_bias
        with np.errstate(under="ignore"):
            result[name] = value.astype(o.dtype)
    return result


def _forget(o: Options) -> slice:
    """Return the rows of the bias that belong to the forget gate."""
    return slice(o.hidden_size, 2 * o.hidden_size)


def _uniform(o: Options, kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Draw as PyTorch does, every parameter alike: uniform on (-1/sqrt(H), 1/sqrt(H))."""
    end = 1.0 / math.sqrt(o.hidden_size)
    return rng.uniform(-end, end, shape)


def _keras(o: Options, kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Draw as Keras does: Glorot's uniform, an orthogonal recurrent matrix, zeros with ones for the forget gate.

    Keras takes all gates together for one matrix, in the fan-out as well as in the orthogonal matrix.
    """
    if kind in ("weight_ih", "weight_hr", "weight_highway"):
        end = math.sqrt(6.0 / (shape[0] + shape[1]))
        return rng.uniform(-end, end, shape)
    if kind == "weight_hh":
        return _orthogonal(shape, rng)
    value = np.zeros(shape)
    if kind == "bias" and not o.elman and not o.coupled:
        value[_forget(o)] = 1
    return value


def _orthogonal(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Draw a matrix whose columns, or rows if they are fewer, are orthonormal; uniformly over all such matrices."""
    q, r = np.linalg.qr(rng.normal(size=(max(shape), min(shape))))
    q *= np.where(np.diagonal(r) < 0, -1.0, 1.0)  # makes the decomposition unique, without which q is not uniform
    return q if q.shape == shape else q.T
