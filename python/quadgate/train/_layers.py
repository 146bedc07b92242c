"""Layers without steps in time: Embedding, Dense and Dropout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from .. import _check, _core, _masks, _options
from ._commit import Swap, replace_all
from ._layer import Context, Layer, _owned, _Plain, _rows, _target, _unrowed, values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Shape = tuple[int | None, ...]
    Values = Mapping[str, Array]

_INT64 = np.dtype(np.int64)


class _Packed(_Plain):
    """Parameters of a `Dense`, with the core's packed copy of them."""

    __slots__ = ("activation", "core")

    def __init__(self, params: Values, activation: _options.Activation | None) -> None:
        super().__init__(_owned(params))
        self.activation = activation
        whole = None if activation is None else _whole(activation)
        self.core = _core.Dense(self.params["weight"], self.params.get("bias"), whole)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Packed, (dict(self.params), self.activation)


class Embedding(Layer):
    """A learned vector for each of a set of numbers.

    Parameters
    ----------
    num_embeddings : int
        Numbers that there are: the input holds 0 to num_embeddings - 1.
    embedding_dim : int
        Columns of a vector.

    Raises
    ------
    TypeError, ValueError
        If a size is no integer, or below 1.

    Notes
    -----
    The input is an array of integers, (B, T) or of any other shape; the output has one more axis. The parameter is
    ``weight`` (num_embeddings, embedding_dim), as in ``torch.nn.Embedding``; it begins uniform between -0.05 and 0.05,
    as in Keras.
    """

    __slots__ = ("embedding_dim", "num_embeddings")

    def __init__(self, num_embeddings: SupportsIndex, embedding_dim: SupportsIndex) -> None:
        super().__init__()
        self.num_embeddings = _check.size(num_embeddings, "num_embeddings")
        self.embedding_dim = _check.size(embedding_dim, "embedding_dim")

    def bind(self, rng: np.random.Generator, dtype: np.dtype[Any], previous: Layer | None = None) -> None:
        """Draw the vectors."""
        super().bind(rng, dtype, previous)
        weight = rng.uniform(-0.05, 0.05, (self.num_embeddings, self.embedding_dim))
        replace_all(self.successor({"weight": weight.astype(dtype)}))

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape with one more axis."""
        return (*shape, self.embedding_dim)

    def forward(self, x: Any, context: Context) -> tuple[Any, Any]:
        """Return the vectors of integers x (B, T): (B, T, embedding_dim).

        Raises
        ------
        TypeError, ValueError
            If x holds no integers, or one that has no vector.
        """
        ids = _check.array(values(x), "x", "integers", "iu")
        flat, shape = ids.astype(_INT64).reshape(-1), ids.shape  # a copy: the caller may change x before `backward`
        if not self.params:
            raise self._unbound()
        try:
            y = _core.embed(self.params["weight"], flat)
        except IndexError as error:
            raise ValueError(f"{self!r}: {error}") from None
        return y.reshape(*shape, self.embedding_dim), (flat, shape) if context.training else None

    def backward(
        self, tape: Any, dy: Any, *, need_x: bool, out: Mapping[str, Array] | None = None
    ) -> tuple[Any, dict[str, Array]]:
        """Return None, which integers have for a gradient, and that of ``weight``."""
        flat, shape = tape
        rows, swapped = _rows(dy)
        if swapped:
            flat = np.ascontiguousarray(flat.reshape(shape).T).ravel()
        to = _target(out, "weight", (self.num_embeddings, self.embedding_dim), self.dtype)
        _core.embed_back(flat, rows, to)
        return None, {"weight": to}

    def successor(self, values: Values) -> list[Swap]:
        """Return the swap of the one snapshot."""
        return [(self, "_snapshot", _Plain(_owned(values)))]

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().config(), "num_embeddings": self.num_embeddings, "embedding_dim": self.embedding_dim}


class Dense(Layer):
    """An affine map of the last axis, and an activation: ``f(x W^T + b)``.

    Parameters
    ----------
    units_in, units_out : int
        Columns of the input and of the output.
    activation : str or (name, alpha, beta), optional
        One of the names that `quadgate.LSTM` takes as ``activations``; None or "linear" for none.
    bias : bool
        True for a bias.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of its range, or activation is unknown or "softmax".

    Notes
    -----
    The input is (B, T, units_in), of which all steps are done at once, or (B, units_in). The parameters are ``weight``
    (units_out, units_in) and ``bias`` (units_out,), as in ``torch.nn.Linear``. They begin as in Keras: the weight
    uniform between -e and e, e = sqrt(6 / (units_in + units_out)) (Glorot and Bengio 2010), the bias 0.
    """

    __slots__ = ("activation", "bias", "units_in", "units_out")

    def __init__(
        self,
        units_in: SupportsIndex,
        units_out: SupportsIndex,
        activation: _options.Activation | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.units_in, self.units_out = _check.size(units_in, "units_in"), _check.size(units_out, "units_out")
        named = activation if isinstance(activation, str) else ""
        if named == "softmax":
            raise ValueError(
                "activation must not be 'softmax': leave it out, the loss softmax_cross_entropy takes the logits"
            )
        plain = activation is None or named == "linear"
        self.activation = None if plain else _options._activation(activation, "activation")
        self.bias = _check.flag(bias, "bias")

    def bind(self, rng: np.random.Generator, dtype: np.dtype[Any], previous: Layer | None = None) -> None:
        """Draw the weight."""
        super().bind(rng, dtype, previous)
        end = math.sqrt(6.0 / (self.units_in + self.units_out))
        drawn = {"weight": rng.uniform(-end, end, (self.units_out, self.units_in)).astype(dtype)}
        if self.bias:
            drawn["bias"] = np.zeros(self.units_out, dtype)
        replace_all(self.successor(drawn))

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape with units_out columns."""
        if len(shape) < 2 or shape[-1] != self.units_in:
            raise self._refuse(shape, f"(..., {self.units_in})")
        return (*shape[:-1], self.units_out)

    def forward(self, x: Any, context: Context) -> tuple[Any, Any]:
        """Return f(x W^T + b), (..., units_out), in x's order of memory."""
        x = values(x)
        if x.ndim < 2 or x.shape[-1] != self.units_in:
            raise self._refuse(x.shape, f"(..., {self.units_in})")
        if not self.params:
            raise self._unbound()
        core = self._snapshot.core
        rows, swapped = _rows(_check.plain(x, self.dtype) if x.dtype != self.dtype else x)
        y, z = core.forward(rows, context.training)
        return _unrowed(y, x.shape, swapped), (core, rows, z, y, x.shape, swapped) if context.training else None

    def backward(
        self, tape: Any, dy: Any, *, need_x: bool, out: Mapping[str, Array] | None = None
    ) -> tuple[Any, dict[str, Array]]:
        """Return the gradients of x, of ``weight`` and of ``bias``."""
        core, rows, z, y, shape, swapped = tape
        dy = np.ascontiguousarray(dy.swapaxes(0, 1) if swapped else dy, self.dtype).reshape(len(rows), self.units_out)
        grads = {"weight": _target(out, "weight", (self.units_out, self.units_in), self.dtype)}
        if self.bias:
            grads["bias"] = _target(out, "bias", (self.units_out,), self.dtype)
        dx = core.backward(rows, z, y, dy, need_x, grads["weight"], grads.get("bias"))
        return None if dx is None else _unrowed(dx, shape, swapped), grads

    def successor(self, values: Values) -> list[Swap]:
        """Return the swap of the one snapshot, with the weight packed for products."""
        return [(self, "_snapshot", _Packed(values, self.activation))]

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        sizes = {"units_in": self.units_in, "units_out": self.units_out}
        return {**super().config(), **sizes, "activation": self.activation, "bias": self.bias}


class Dropout(Layer):
    """Zeros for a share of the elements in training; the others are divided by 1 - rate.

    Parameters
    ----------
    rate : float
        Probability of an element to be dropped, from 0 to 1. Nothing is dropped outside of training.

    Raises
    ------
    TypeError, ValueError
        If rate is no number, or not from 0 to 1.
    """

    __slots__ = ("rate",)

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = _check.probability(rate, "rate")

    def bind(self, rng: np.random.Generator, dtype: np.dtype[Any], previous: Layer | None = None) -> None:
        """Start the generator of the masks."""
        super().bind(rng, dtype, previous)
        self._seed(rng)

    def forward(self, x: Any, context: Context) -> tuple[Any, Any]:
        """Return x with a share of its elements dropped."""
        x = values(x)
        if not context.training or self.rate == 0:
            return x, None
        if self.generator is None:
            raise self._unbound()
        begin, end, total = context.rows or (0, len(x), len(x))
        dropped = _masks._draw(self.rate, (total, *x.shape[1:]), self.generator)[begin:end]
        scale = np.where(dropped, x.dtype.type(0), x.dtype.type(1 / (1 - self.rate) if self.rate < 1 else 0))
        return x * scale, scale

    def backward(
        self, tape: Any, dy: Any, *, need_x: bool, out: Mapping[str, Array] | None = None
    ) -> tuple[Any, dict[str, Array]]:
        """Return the gradient of x."""
        if not need_x:
            return None, {}
        return dy if tape is None else dy * tape, {}

    def config(self) -> dict[str, Any]:
        """Return the constructor's argument."""
        return {**super().config(), "rate": self.rate}


def _whole(activation: _options.Activation) -> tuple[str, float, float]:
    name, *numbers = _options._whole(activation)
    alpha, beta = (*numbers, 0.0, 0.0)[:2]
    return name, alpha, beta
