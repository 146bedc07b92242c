"""Dropout and zoneout masks, drawn from a seeded generator before a training pass."""

from __future__ import annotations

import sys
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._options import Options

    Masks = dict[str, NDArray[np.bool_]]

CHUNK = 1 << 16  # numbers drawn at a time: they stay in the cache until they are compared


class Mask(NamedTuple):
    """One mask of a network: its name, the probability of True, and its shape, with the steps and rows of a call."""

    name: str
    p: float
    steps: bool
    rows: bool
    rest: tuple[int, ...]

    def shape(self, steps: int, rows: int) -> tuple[int, ...]:
        """Return the shape in a call of so many steps and rows."""
        return (*((steps,) if self.steps else ()), *((rows,) if self.rows else ()), *self.rest)


def plan(o: Options) -> tuple[Mask, ...]:
    """Return a network's masks in the order in which they are drawn: only those of a probability above 0.

    Each direction of each layer has weight_drop (G*H, R), recurrent_dropout (B, R), zoneout_h (T, B, R) and zoneout_c
    (T, B, H); then each layer but the last has dropout (T, B, O). True drops, or keeps the old state for zoneout.
    """
    result = []
    for layer in range(o.num_layers):
        for suffix in o.suffixes(layer):
            result += [
                Mask(f"weight_drop{suffix}", o.weight_drop, False, False, (o.gates * o.hidden_size, o.state_columns)),
                Mask(f"recurrent_dropout{suffix}", o.recurrent_dropout, False, True, (o.state_columns,)),
                Mask(f"zoneout_h{suffix}", o.zoneout[0], True, True, (o.state_columns,)),
                Mask(f"zoneout_c{suffix}", o.zoneout[1], True, True, (o.hidden_size,)),
            ]
        if layer < o.num_layers - 1:
            result.append(Mask(f"dropout_l{layer}", o.dropout, True, True, (o.outputs,)))
    return tuple(mask for mask in result if mask.p > 0)


def draw(masks: tuple[Mask, ...], steps: int, rows: int, rng: np.random.Generator) -> Masks:
    """Return the masks of one call by name, arrays of bool that cannot be written."""
    return {mask.name: _draw(mask.p, mask.shape(steps, rows), rng) for mask in masks}


def take(masks: tuple[Mask, ...], drawn: Masks, rows: slice) -> Masks:
    """Return the masks of some rows of a batch."""
    result = {}
    for mask in masks:
        value = drawn[mask.name]
        if mask.rows:
            value = np.ascontiguousarray(value[:, rows] if mask.steps else value[rows])
            value.flags.writeable = False
        result[mask.name] = value
    return result


def _draw(p: float, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return True with probability p, rounded to a multiple of 2**-32: two of them from each uint64, low half first.

    NumPy's generators make raw integers of 64 bits 3 to 6 times faster than floats or bytes.
    """
    size, limit = prod(shape), round(p * 2**32)
    if size > sys.maxsize // 4:
        raise MemoryError(f"a mask of {size} elements does not fit into memory")
    flat: NDArray[Any] = np.empty(size, np.bool_)
    for start in range(0, size, CHUNK):
        part = flat[start : start + CHUNK]
        drawn = rng.integers(0, 2**64, (part.size + 1) // 2, np.uint64).astype("<u8", copy=False).view("<u4")
        if limit < 2**32:
            np.less(drawn[: part.size], np.uint32(limit), out=part)
        else:
            part[...] = True
    flat.flags.writeable = False
    return flat.reshape(shape)
