"""Layers of files of Keras that need no parameters: masks from padding, and joined directions of a final state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check
from ._layer import Context, Layer, values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Shape = tuple[int | None, ...]


class Masking(Layer):
    """Skip the steps that hold a value in all their features, as Keras's Masking and ``Embedding(mask_zero=True)``.

    It is the first layer of a model, in front of an Embedding too. Its mask acts on all recurrent layers and on the
    loss, together with the ``mask`` of a call.

    Parameters
    ----------
    mask_value : float
        The value.

    Raises
    ------
    TypeError, ValueError
        If mask_value is no finite number.
    """

    __slots__ = ("mask_value",)

    def __init__(self, mask_value: float = 0.0) -> None:
        super().__init__()
        self.mask_value = _check.number(mask_value, "mask_value")

    def mask(self, x: Array) -> Array:
        """Return the mask of an input (B, T) or (B, T, I): array of bool (B, T), False for steps to skip."""
        differs: Array = x != self.mask_value
        return differs if x.ndim == 2 else np.asarray(differs.any(axis=-1))

    def bind(self, rng: np.random.Generator, dtype: np.dtype[Any], previous: Layer | None = None) -> None:
        """Check that this is the first layer."""
        super().bind(rng, dtype, previous)
        if previous is not None:
            raise ValueError(f"{self!r} must be the first layer, got {previous!r} before it")

    def forward(self, x: Any, context: Context) -> tuple[Any, Any]:
        """Return x."""
        return x, None

    def backward(
        self, tape: Any, dy: Any, *, need_x: bool, out: Mapping[str, Array] | None = None
    ) -> tuple[Any, dict[str, Array]]:
        """Return dy."""
        return dy, {}

    def config(self) -> dict[str, Any]:
        """Return the constructor's argument."""
        return {**super().config(), "mask_value": self.mask_value}


class Halves(Layer):
    """The two directions of a final state joined: (B, 2R) to (B, R).

    Parameters
    ----------
    merge : "sum", "mul" or "mean"
    """

    __slots__ = ("merge",)

    def __init__(self, merge: str) -> None:
        super().__init__()
        self.merge = _check.choice(merge, "merge", ("sum", "mul", "mean"))

    def output_shape(self, shape: Shape) -> Shape:
        """Return (B, R)."""
        if len(shape) != 2 or shape[-1] is None or shape[-1] % 2:
            raise self._refuse(shape, "(B, 2R)")
        return (shape[0], shape[-1] // 2)

    def forward(self, x: Any, context: Context) -> tuple[Any, Any]:
        """Return the joined halves."""
        a, b = np.split(values(x), 2, axis=-1)
        y = a * b if self.merge == "mul" else (a + b) * x.dtype.type(0.5 if self.merge == "mean" else 1)
        return y, (a, b) if context.training else None

    def backward(
        self, tape: Any, dy: Any, *, need_x: bool, out: Mapping[str, Array] | None = None
    ) -> tuple[Any, dict[str, Array]]:
        """Return the gradient of both halves."""
        a, b = tape
        if self.merge == "mul":
            return np.concatenate((dy * b, dy * a), -1), {}
        half = dy * dy.dtype.type(0.5 if self.merge == "mean" else 1)
        return np.concatenate((half, half), -1), {}

    def config(self) -> dict[str, Any]:
        """Return the constructor's argument."""
        return {**super().config(), "merge": self.merge}
