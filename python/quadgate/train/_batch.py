"""One batch of data, checked and converted, and its shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _check

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Batch(NamedTuple):
    """Arrays of a batch: x (B, T, ...), targets, lengths int64 (B,), mask (B, T), weights of rows or positions."""

    x: Array
    y: Array | None = None
    lengths: Array | None = None
    mask: Array | None = None
    weights: Array | None = None

    @property
    def rows(self) -> int:
        """B."""
        return len(self.x)

    def take(self, rows: Any) -> Batch:
        """Return the batch of some rows: a slice, or their numbers."""
        return Batch(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]

    def without_padding(self) -> Batch:
        """Return the batch with zeros for x of steps that do not count.

        No result depends on them, but a NaN there times the zero of its gradient would be NaN.
        """
        counts = steps_that_count(self.x.shape[:2], self.lengths, self.mask)
        if counts is None or counts.all():
            return self
        x = np.where(counts[..., None] if self.x.ndim == 3 else counts, self.x, self.x.dtype.type(0))
        return self._replace(x=x)

    @classmethod
    def read(cls, x: Any, y: Any, lengths: Any, mask: Any, weights: Any, integers: bool, dtype: np.dtype[Any]) -> Batch:
        """Return plain arrays, or raise TypeError or ValueError for an argument that does not fit x."""
        if integers:
            x_ = _check.array(x, "x", "integers", "iu")
            if x_.ndim != 2:
                raise ValueError(f"x must have shape (B, T), got {x_.shape}")
        else:
            x_ = _check.plain(_check.array(x, "x"), dtype)
            if x_.ndim not in (2, 3):
                raise ValueError(f"x must have shape (B, T, I), got {x_.shape}")
        rows, steps = x_.shape[:2]
        given = "lengths" if lengths is not None else "mask" if mask is not None else ""
        if given and not integers and x_.ndim == 2:
            raise ValueError(f"{given} must be left out for x without steps: x (B, T, I) has them, got {x_.shape}")
        lengths_ = mask_ = weights_ = y_ = None
        if lengths is not None:
            read = _check.array(lengths, "lengths", _check.WHOLE)
            if read.shape == (steps,) != (rows,):
                raise ValueError(
                    f"x must have shape (B, T, ...), with a length for each of its B rows, got {x_.shape} and lengths "
                    f"{read.shape}: pad_sequences(..., batch_first=True) makes such an x"
                )
            lengths_ = _check.lengths(read, steps, rows, batched=True)
        if mask is not None:
            mask_ = _check.bools(_check.array(mask, "mask", _check.BOOLS, "biu"), "mask", (rows, steps))
        if weights is not None:
            weights_ = _check.array(weights, "sample_weight")
            if weights_.shape not in ((rows,), (rows, steps)):
                raise ValueError(f"sample_weight must have shape ({rows},) or {(rows, steps)}, got {weights_.shape}")
        if y is not None:
            y_ = _check.array(y, "y", "real numbers or class numbers", "fiub")
            if y_.dtype.kind == "b":
                y_ = y_.astype(np.int64)
            if y_.ndim == 0 or len(y_) != rows:
                raise ValueError(f"y must have a row for each of x's {rows}, got shape {y_.shape}")
        return cls(x_, y_, lengths_, mask_, weights_)


def steps_that_count(shape: tuple[int, ...], lengths: Array | None, mask: Array | None) -> Array | None:
    """Return the steps that neither the lengths nor the mask leave out, array of bool (B, T); None if all count."""
    if lengths is None:
        return mask
    within: Array = np.arange(shape[1]) < lengths[:, None]
    return within if mask is None else within & mask


def bounds(rows: int, shards: int) -> list[tuple[int, int]]:
    """Return the first and last row of each shard: as equal as they can be, whatever the number of machines."""
    return [(k * rows // shards, (k + 1) * rows // shards) for k in range(shards)]
