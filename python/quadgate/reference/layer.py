"""One layer in one direction: the time loop, with lengths, masked steps and resets."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import cell

Array = NDArray[Any]


class Masks(NamedTuple):
    """Effect of dropout and zoneout on one layer in one direction.

    Attributes
    ----------
    weight : ndarray (G*H, R)
        Multiplier of weight_hh.
    recurrent : ndarray (B, R)
        Multiplier of h' in every step.
    h, c : ndarray (T, B, R), (T, B, H)
        Weights of the old values in the new ones, as in `cell.Chance`.
    """

    weight: Array
    recurrent: Array
    h: Array
    c: Array

    def at(self, t: int, rows: Array) -> cell.Chance:
        """Return the effect on the given rows at step t."""
        return cell.Chance(self.recurrent[rows], self.h[t, rows], self.c[t, rows])


class LayerTape(NamedTuple):
    """Values that one layer in one direction keeps for its backward pass.

    Attributes
    ----------
    weights, options, masks
        Those that the steps used; weight drop is already applied to ``weights``.
    active : ndarray of bool (T, B)
        Rows that are active at each step.
    restart : ndarray of bool (T, B)
        Rows whose state is set to zeros before the step.
    reverse : bool
        True if steps run from the last to the first.
    steps : list of cell.Step
        One for each step, with the active rows only.
    gates : ndarray (4, T, B, H)
        The activated gates i, f, g, o, zeros for inactive rows. An Elman network has one, h itself: (1, T, B, H).
    c : ndarray (T, B, H)
        The cell state after each step, zeros for inactive rows.
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
    """Gradients of x, h0, c0 and the parameters, and the norms (T, B) of the gradients of h and c after each step."""

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
    within: Array,
    resets: Array,
    reverse: bool,
) -> tuple[Array, Array, Array, LayerTape]:
    """Run one layer in one direction.

    Parameters
    ----------
    w, o, masks
        Parameters and options of the cell, and the effect of dropout and zoneout on this call.
    x : ndarray (T, B, I)
        Input.
    h0, c0 : ndarray (B, R), (B, H)
        State ahead of the first step; with `reverse` the first step is the one with the largest t.
    active : ndarray of bool (T, B)
        Rows that are active at each step.
    within : ndarray of bool (T, B)
        Steps that are not past a row's length, masked or not: resets act there.
    resets : ndarray of bool (T, B)
        True separates steps t - 1 and t of a row.
    reverse : bool
        Run the steps from the last to the first.

    Returns
    -------
    y : ndarray (T, B, R)
        h after every step, 0 for inactive rows.
    h, c : ndarray (B, R), (B, H)
        State after the last step.
    tape : LayerTape
    """
    w = w._replace(weight_hh=w.weight_hh * masks.weight)
    restart = starts(resets & within, reverse)
    h, c = h0.copy(), c0.copy()
    y = np.zeros((*x.shape[:2], h.shape[1]), x.dtype)
    cells = np.zeros((*x.shape[:2], c.shape[1]), x.dtype)
    gates = np.zeros((1, *y.shape) if o.elman else (4, *cells.shape), x.dtype)
    steps: dict[int, cell.Step] = {}
    for t in times(len(x), reverse):
        h[restart[t]], c[restart[t]] = 0.0, 0.0
        rows = np.flatnonzero(active[t])  # padding may hold NaN, which must not reach a gradient
        step = cell.forward(w, o, masks.at(t, rows), x[t, rows], h[rows], c[rows])
        h[rows], c[rows] = step.h, step.c
        y[t, rows], cells[t, rows], gates[:, t, rows], steps[t] = step.h, step.c, step.gates, step
    kept = [steps[t] for t in range(len(x))]
    return y, h, c, LayerTape(w, o, masks, active, restart, reverse, kept, gates, cells)


def backward(tape: LayerTape, dy: Array, dcells: Array, dh: Array, dc: Array) -> LayerGrads:
    """Compute the gradients of one layer in one direction.

    Parameters
    ----------
    tape : LayerTape
        From `forward`.
    dy, dcells : ndarray (T, B, R), (T, B, H)
        Gradients of y, and of c after each step; ignored for inactive rows.
    dh, dc : ndarray (B, R), (B, H)
        Gradients of the final state.

    Returns
    -------
    LayerGrads
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
    """Return the step indices in the order of execution."""
    return range(steps - 1, -1, -1) if reverse else range(steps)


def starts(resets: Array, reverse: bool) -> Array:
    """Return the steps that begin from zeros: in reverse a reset at t + 1 restarts step t."""
    return np.concatenate([resets[1:], np.zeros_like(resets[:1])]) if reverse else resets


def hold(a: Array, first: Array, active: Array, within: Array, restart: Array, reverse: bool) -> Array:
    """Return a (T, B, N) with the last active step's value at the masked steps, `first` (B, N) ahead of all of them."""
    a, last = a.copy(), first.copy()
    for t in times(len(a), reverse):
        last[restart[t]] = 0.0
        last[active[t]] = a[t, active[t]]
        masked = within[t] & ~active[t]
        a[t, masked] = last[masked]
    return a


def hold_back(da: Array, active: Array, within: Array, restart: Array, reverse: bool) -> tuple[Array, Array]:
    """Return the gradients of `hold`'s a and `first`."""
    da, last = da.copy(), np.zeros_like(da, shape=da.shape[1:])
    for t in times(len(da), not reverse):
        masked = within[t] & ~active[t]
        last[masked] += da[t, masked]
        da[t, masked] = 0.0
        da[t, active[t]] += last[active[t]]
        last[active[t]] = 0.0
        last[restart[t]] = 0.0
    return da, last
