"""Schedules: learning rates that follow from the number of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .. import _check
from .._pickling import Slotted

Rate = Callable[[int], float]


class WarmupCosine(Slotted):
    """Learning rate that rises in a straight line, then falls as half a cosine (Loshchilov and Hutter 2017).

    Parameters
    ----------
    peak : float
        The largest rate.
    warmup_steps : int
        Steps of the rise: step k (from 0) has ``peak * (k + 1) / warmup_steps``.
    total_steps : int
        Steps until the rate is `floor`, where it stays.
    floor : float
        The smallest rate at the end.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of its range, or total_steps is no more than warmup_steps.
    """

    __slots__ = ("floor", "peak", "total_steps", "warmup_steps")
    __module__ = f"{__package__}._optimizers"  # the name that pickles have

    def __init__(self, peak: float, warmup_steps: int, total_steps: int, floor: float = 0.0) -> None:
        self.peak, self.floor = _check.positive(peak, "peak"), _check.number(floor, "floor")
        self.warmup_steps = _check.size(warmup_steps, "warmup_steps", zero=True)
        self.total_steps = _check.size(total_steps, "total_steps")
        if self.total_steps <= self.warmup_steps:
            raise ValueError(f"total_steps must be more than warmup_steps={warmup_steps}, got {total_steps}")
        if not 0 <= self.floor <= self.peak:
            raise ValueError(f"floor must be from 0 to peak={peak}, got {floor}")

    def __call__(self, step: int) -> float:
        """Return the rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        done = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.floor + (self.peak - self.floor) * 0.5 * (1.0 + math.cos(math.pi * done))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {name: getattr(self, name) for name in ("peak", "warmup_steps", "total_steps", "floor")}

    def __repr__(self) -> str:
        return f"WarmupCosine({', '.join(f'{k}={v!r}' for k, v in self.config().items())})"
