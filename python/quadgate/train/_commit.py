"""The one point where parameters and the optimizer's state change together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._params import freeze

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

Swap = tuple[object, str, object]  # object, attribute, new value


def replace_all(swaps: Iterable[Swap]) -> None:
    """Set all the attributes, or none of them: no interrupt finds some old and some new.

    Parameters
    ----------
    swaps : iterable of (object, attribute, value)
        Everything that changes in a step: snapshots of layers, the optimizer's state.
    """
    _core.replace_all(list(swaps))


def lay_out(arrays: Sequence[Array], dtype: np.dtype[Any]) -> tuple[Array, list[Array]]:
    """Return a vector of all elements, which cannot be written, and the arrays as views of it.

    Parameters
    ----------
    arrays : sequence of arrays
        Their elements follow each other in this order, each array in C order.
    dtype : float32 or float64
        Type of the vector.
    """
    parts = [np.asarray(a, dtype).ravel() for a in arrays]
    flat = freeze(np.concatenate(parts) if parts else np.empty(0, dtype))
    return flat, views(flat, [a.shape for a in arrays])


def views(flat: Array, shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """Return consecutive parts of a vector (N,) as arrays of the given shapes, which have N elements in all."""
    result, at = [], 0
    for shape in shapes:
        end = at + math.prod(shape)
        result.append(flat[at:end].reshape(shape))
        at = end
    return result


def vector(block: _core.Block, dtype: np.dtype[Any]) -> Array:
    """Return a block as a vector, which can never be made writable."""
    result: Array = np.frombuffer(view(block), dtype)
    return result


def view(block: _core.Block) -> memoryview:
    """Return a block's bytes. Only Python 3.12 can say in a stub that an object has a buffer."""
    exporter: Any = block
    return memoryview(exporter)
