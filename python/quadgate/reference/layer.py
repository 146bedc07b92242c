"""One layer in one direction: the cell over time, with lengths and resets."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import cell

Array = NDArray[Any]


class Masks(NamedTuple):
    """What dropout and zoneout make of one layer in one direction.

    ``weight`` multiplies W_hh, ``recurrent`` (B, R) multiplies h' in every step; ``h`` (T, B, R) and ``c`` (T, B, H)
    are the shares of the old values in the new, as in `cell.Chance`.
    """

    weight: Array
    recurrent: Array
    h: Array
    c: Array

    def at(self, t: int, rows: Array) -> cell.Chance:
        """Return what they make of some rows at one step."""
        return cell.Chance(self.recurrent[rows], self.h[t, rows], self.c[t, rows])


class LayerTape(NamedTuple):
    """What one layer in one direction keeps for its backward pass; the first axis of each array but gates is time.

    ``active`` (T, B) tells which rows take part in a step, ``restart`` (T, B) which of these begin it with a state of
    zeros, whatever the step before left. ``weights`` are those that the steps used; ``steps`` has one entry for each
    step, of the active rows alone. To be looked at: the activated ``gates`` (4, T, B, H), that is i, f, g, o (an Elman
    network has one, h itself: (1, T, B, H)), and the cell state ``c`` (T, B, H) that each step left; zeros where a row
    takes no part.
    """

    weights: cell.Weights
    options: cell.Options
    masks: Masks
    active: Array
    restart: Array
    reverse: bool
    steps: list[cell.Step]
    gates: Array
    c: Array


class LayerGrads(NamedTuple):
    """Gradients of a layer: x, h0, c0, the parameters, and of h and c after each step their norms (T, B)."""

    x: Array
    h0: Array
    c0: Array
    params: dict[str, Array]
    dh_norm: Array
    dc_norm: Array


def forward(
    w: cell.Weights,
    o: cell.Options,
    masks: Masks,
    x: Array,
    h0: Array,
    c0: Array,
    active: Array,
    resets: Array,
    reverse: bool,
) -> tuple[Array, Array, Array, LayerTape]:
    """Run one layer in one direction.

    Parameters
    ----------
    w, o, masks
        What the cell is, and what chance makes of this call.
    x : array (T, B, I)
    h0, c0 : array (B, R), (B, H)
        The state before the first step; for ``reverse`` that is the step with the largest t.
    active : array of bool (T, B)
        Which rows take part in which steps.
    resets : array of bool (T, B)
        Where a row is cut between t - 1 and t.
    reverse : bool
        Go through the steps from the last to the first.

    Returns
    -------
    y : array (T, B, R)
        h of every step, 0 where a row takes no part.
    h, c : array (B, R), (B, H)
        The state after the last step taken.
    tape : LayerTape
    """
    w = w._replace(weight_hh=w.weight_hh * masks.weight)
    restart = resets & active
    if reverse:  # a cut before t + 1 is one after t, and stands between the two only if both are taken
        restart = np.concatenate([restart[1:], np.zeros_like(restart[:1])])
    h, c = h0.copy(), c0.copy()
    y = np.zeros((*x.shape[:2], h.shape[1]), x.dtype)
    cells = np.zeros((*x.shape[:2], c.shape[1]), x.dtype)
    gates = np.zeros((1, *y.shape) if o.elman else (4, *cells.shape), x.dtype)
    steps: dict[int, cell.Step] = {}
    for t in times(len(x), reverse):
        h[restart[t]], c[restart[t]] = 0.0, 0.0
        rows = np.flatnonzero(active[t])  # padding may be anything, even NaN, and must not reach a gradient
        step = cell.forward(w, o, masks.at(t, rows), x[t, rows], h[rows], c[rows])
        h[rows], c[rows] = step.h, step.c
        y[t, rows], cells[t, rows], gates[:, t, rows], steps[t] = step.h, step.c, step.gates, step
    kept = [steps[t] for t in range(len(x))]
    return y, h, c, LayerTape(w, o, masks, active, restart, reverse, kept, gates, cells)


def backward(tape: LayerTape, dy: Array, dcells: Array, dh: Array, dc: Array) -> LayerGrads:
    """Go back through one layer in one direction.

    Parameters
    ----------
    tape : LayerTape
        From `forward`.
    dy, dcells : array (T, B, R), (T, B, H)
        Gradients of y, and of c after each step; ignored where a row takes no part.
    dh, dc : array (B, R), (B, H)
        Gradients of the final state.
    """
    w, o, masks = tape.weights, tape.options, tape.masks
    dh, dc = dh.copy(), dc.copy()
    dx = np.zeros((*dy.shape[:2], w.weight_ih.shape[1]), dy.dtype)
    grads = {name: np.zeros(value.shape, dy.dtype) for name, value in w._asdict().items() if value is not None}
    dh_norm, dc_norm = np.zeros((2, *tape.active.shape), dy.dtype)
    for t in times(len(dy), not tape.reverse):
        rows = np.flatnonzero(tape.active[t])
        dh_t, dc_t = dh[rows] + dy[t, rows], dc[rows] + dcells[t, rows]
        dx[t, rows], dh[rows], dc[rows], dc_sum = cell.backward(
            w, o, masks.at(t, rows), tape.steps[t], dh_t, dc_t, grads
        )
        dh_norm[t, rows], dc_norm[t, rows] = np.sqrt((dh_t**2).sum(axis=1)), np.sqrt((dc_sum**2).sum(axis=1))
        dh[tape.restart[t]], dc[tape.restart[t]] = 0.0, 0.0
    grads["weight_hh"] *= masks.weight
    return LayerGrads(dx, dh, dc, grads, dh_norm, dc_norm)


def times(steps: int, reverse: bool) -> range:
    """Return the steps in the order in which they are taken."""
    return range(steps - 1, -1, -1) if reverse else range(steps)
