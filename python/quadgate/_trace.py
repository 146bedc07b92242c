"""The class Trace: what happened inside an LSTM, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._core import Tape
    from ._options import Options

    Array = NDArray[Any]

__all__ = ["Trace"]


class Trace:
    """Gates, cells and gradients of every step, from ``lstm.forward(x, trace=True)``: it is ``tape.trace``.

    All arrays are time-major, with a batch axis of 1 where x has none, whatever the network's ``batch_first``; layers
    and directions are in the order of the states. What lies past a row's length is zeros.

    Attributes
    ----------
    i, f, g, o : array (L*D, T, B, H)
        The input gate, forget gate, cell candidate and output gate, after their activations.
    c : array (L*D, T, B, H)
        The cell as it leaves the step.
    dh_norm : array (L*D, T, B), or None until `LSTM.backward` has run
        Euclidean norm of the loss's gradient by h as it leaves the step. `LSTM.backward` makes a new array each time.
    dc_norm : array (L*D, T, B), or None until then
        The same of the step's c: through all that the step and later ones make of it.
    """

    __slots__ = ("c", "dc_norm", "dh_norm", "f", "g", "i", "o")

    def __init__(self, i: Array, f: Array, g: Array, o: Array, c: Array) -> None:
        self.i, self.f, self.g, self.o, self.c = i, f, g, o, c
        self.dh_norm: Array | None = None
        self.dc_norm: Array | None = None

    def room(self) -> tuple[Array, Array]:
        """Return two new arrays for dh_norm and dc_norm."""
        shape, dtype = self.c.shape[:-1], self.c.dtype
        return np.zeros(shape, dtype), np.zeros(shape, dtype)

    def __repr__(self) -> str:
        return f"Trace(shape={self.c.shape}, dtype={self.c.dtype}, backward={self.dh_norm is not None})"


def read(tape: Tape, o: Options) -> Trace:
    """Copy the gates and cells out of a tape."""
    x_shape = tape.x_shape
    batch_first = o.batch_first and len(x_shape) == 3
    steps, rows = x_shape[1 if batch_first else 0], x_shape[0 if batch_first else 1] if len(x_shape) == 3 else 1
    states = o.num_layers * o.directions
    arrays = np.empty((5, states, steps, rows, o.hidden_size), o.dtype)
    for state in range(states):
        arrays[:4, state] = np.moveaxis(tape.gates(state), 2, 0)
        arrays[4, state] = tape.cells(state)
    return Trace(*arrays)
