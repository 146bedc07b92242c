"""State of an optimizer, and the memory that it lies in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _core
from ._commit import lay_out, view

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]


class State:
    """State of an optimizer after some steps. It never changes: `Optimizer.update` makes the next one.

    Attributes
    ----------
    step : int
        Updates so far.
    slots : mapping from name to list of arrays
        The running means, by the optimizer's names for them ("m", "v", "velocity"): one read-only array for each
        parameter, of its shape and type.
    flat : array (N,) or None
        The vector whose consecutive views the parameters of the last update are; None before the first.
    """

    __slots__ = ("_blocks", "_spare", "flat", "slots", "step")

    def __init__(self, step: int, slots: Mapping[str, list[Array]], flat: Array | None) -> None:
        self.step, self.slots, self.flat = step, slots, flat
        self._blocks: list[_core.Block] = []  # that flat and the slots lie in
        self._spare: list[_core.Block] = []  # of the step before: written again once nothing looks at them

    def __reduce__(self) -> tuple[Any, ...]:
        return _copied, (self.step, self.slots)


def _copied(step: int, slots: Mapping[str, list[Array]]) -> State:
    """Return the state of a copy or a pickle, whose running means lie in memory of its own."""
    return State(step, {name: lay_out(means, means[0].dtype)[1] for name, means in slots.items() if means}, None)


def spare(state: State, size: int) -> _core.Block:
    """Return a block of so many bytes: one of the step before last if nothing looks at it any more, or a new one."""
    while True:
        try:
            block = state._spare.pop()  # never the same for two threads
        except IndexError:
            return _core.Block(size)
        if block.exports == 0 and view(block).nbytes == size:
            return block
