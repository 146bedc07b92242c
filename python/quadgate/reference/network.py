"""The whole network: layers, directions, merges, shortcuts, and dropout between layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import cell, layer
from .activations import sigmoid
from .options import Options, check_masks, check_params, layers, parse

Array = NDArray[Any]
State = tuple[ArrayLike | None, ArrayLike | None]


class Join(NamedTuple):
    """Merge and shortcut of one layer.

    Attributes
    ----------
    x : ndarray (T, B, I)
        Input of the layer.
    raw : list of ndarray (T, B, R)
        Output of each direction.
    inner, out : ndarray (T, B, O)
        Merged output, without and with the shortcut.
    gate : ndarray (T, B, O)
        t of a highway; otherwise a zero of no axes.
    kept : ndarray (T, B, O)
        Multipliers of the dropout that follows the layer.
    """

    x: Array
    raw: list[Array]
    inner: Array
    gate: Array
    out: Array
    kept: Array


class Tape(NamedTuple):
    """Values that `forward` keeps for `backward`.

    Attributes
    ----------
    options : Options
        Options of the network.
    active : ndarray of bool (T, B)
        Rows that are active at each step.
    within : ndarray of bool (T, B)
        Steps that are not past a row's length.
    padding_output : str
        "zero" or "last".
    layers : list of LayerTape
        One for each layer and direction, in the order of the states.
    joins : list of Join
        One for each layer.
    cells : ndarray (T, B, D*H)
        The last layer's c after every step, 0 past a row's length; forward direction first.
    """

    options: Options
    active: Array
    within: Array
    padding_output: str
    layers: list[layer.LayerTape]
    joins: list[Join]
    cells: Array


class Grads(NamedTuple):
    """Gradients of all inputs and parameters, and their norms at every step.

    Attributes
    ----------
    x : ndarray (T, B, I)
    h0, c0 : ndarray (L*D, B, R), (L*D, B, H)
        Gradients of the initial states.
    params : dict of str to ndarray
        By the parameters' names, each of its parameter's shape.
    dh_norm, dc_norm : ndarray (L*D, T, B)
        Euclidean norms of each row's gradients of h and c after each step; the package docstring defines them.
    """

    x: Array
    h0: Array
    c0: Array
    params: dict[str, Array]
    dh_norm: Array
    dc_norm: Array


def forward(
    params: Mapping[str, ArrayLike],
    x: ArrayLike,
    state: State | None = None,
    lengths: ArrayLike | None = None,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    resets: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    padding_output: str = "zero",
    masks: Mapping[str, ArrayLike] | None = None,
    **options: Any,
) -> tuple[Array, tuple[Array, Array], Tape]:
    """Run the network forward. The package docstring has the equations.

    Parameters
    ----------
    params : mapping of str to array_like
        Parameters by the constructor's names: ``weight_ih_l{k}`` and so on for each layer k, with the suffix
        ``_reverse`` for the second direction. Absent ones (bias, weight_hr, peephole) are not part of the network.
    x : array_like (T, B, I)
        Input.
    state : (h0, c0), array_like (L*D, B, R) and (L*D, B, H), optional
        Initial state; None for zeros, in place of the pair or of one array.
    lengths : array_like of int (B,), optional
        Number of active steps of each row, 0 to T, in any order. Default: T.
    num_layers : int
        L.
    bidirectional : bool
        True if D is 2.
    resets : array_like of bool (T, B), optional
        True separates steps t - 1 and t of a row.
    mask : array_like of bool (T, B), optional
        False for steps that are skipped. Default: none is.
    padding_output : "zero" or "last"
        Value of y at masked steps.
    masks : mapping of str to array_like of bool, optional
        Masks of a training call, one for each option whose probability is above 0: ``weight_drop_l{k}`` (G*H, R),
        ``recurrent_dropout_l{k}`` (B, R), ``zoneout_h_l{k}`` (T, B, R), ``zoneout_c_l{k}`` (T, B, H) for each layer and
        direction, ``dropout_l{k}`` (T, B, O) for all layers but the last. None for inference.
    **options
        Options of the constructor, and ``nonlinearity`` ("tanh" or "relu"), which selects an Elman network. Options
        that the parameters imply or that have no effect here are ignored; ``batch_first`` is one of these, since
        arrays are always time-major.

    Returns
    -------
    y : ndarray of float64 (T, B, O)
        Output of the last layer.
    (h, c) : ndarray (L*D, B, R), (L*D, B, H)
        Final states; an Elman network's c has no columns.
    tape : Tape
        Argument of `backward`.

    Raises
    ------
    TypeError
        If ``params`` is no mapping, or there is no such option.
    ValueError
        If ``params`` has no weights of a layer, x has not three axes, masks are missing, superfluous or of a wrong
        shape, an activation is unknown, or ``padding_output`` is "last" in a network that joins its directions
        otherwise than by "concat". Other arguments are not checked.
    """
    opts = parse(options, num_layers, bidirectional)
    check_params(opts, params)
    dtype = _float_type([x, *params.values(), *(state or ())])
    weights = {name: np.asarray(value, dtype) for name, value in params.items()}
    below = np.asarray(x, dtype)
    if below.ndim != 3:
        raise ValueError(f"x must have shape (T, B, I), got {below.shape}")
    steps, batch, _ = below.shape
    within = np.full((steps, batch), True)
    if lengths is not None:
        within = np.arange(steps)[:, None] < np.asarray(lengths)[None, :]
    active = within if mask is None else within & np.asarray(mask, bool)
    cuts = np.zeros_like(active) if resets is None else np.asarray(resets, bool)
    if padding_output == "last" and bidirectional and opts.merge != "concat":
        raise ValueError("padding_output='last' needs merge='concat'")
    units, columns = _sizes(opts, weights)
    rows = num_layers * (2 if bidirectional else 1)
    h0, c0 = _pair(state, (rows, batch, columns), (rows, batch, 0 if opts.cell.elman else units), dtype)
    chance = check_masks(opts, masks)

    tapes: list[layer.LayerTape] = []
    joins: list[Join] = []
    h_end, c_end = [], []
    for k, suffixes in layers(opts):
        raw = []
        for suffix in suffixes:
            n, w = len(tapes), _weights(weights, suffix)
            drawn = _drawn(opts, chance, suffix, w, steps, batch)
            backwards = opts.reverse or suffix.endswith("_reverse")
            y, h, c, tape = layer.forward(w, opts.cell, drawn, below, h0[n], c0[n], active, within, cuts, backwards)
            raw.append(y)
            h_end.append(h)
            c_end.append(c)
            tapes.append(tape)
        joins.append(_join(opts, weights, k, below, raw, chance))
        below = _input_above(opts, joins[-1])
    count = rows // num_layers
    top, y = tapes[-count:], joins[-1].out
    cells = [
        layer.hold(t.c, first, active, within, t.restart, t.reverse) for t, first in zip(top, c0[-count:], strict=True)
    ]
    if padding_output == "last":
        firsts = h0[-count:] if _y_is_h(opts) else np.zeros_like(h0[-count:])
        halves = zip(top, np.split(y, count, axis=2), firsts, strict=True)
        y = np.concatenate([layer.hold(a, f, active, within, t.restart, t.reverse) for t, a, f in halves], axis=2)
    kept = Tape(opts, active, within, padding_output, tapes, joins, np.concatenate(cells, axis=2))
    return y, (np.stack(h_end), np.stack(c_end)), kept


def backward(
    params: Mapping[str, ArrayLike],
    tape: Tape,
    dy: ArrayLike | None = None,
    dstate: State = (None, None),
    *,
    dcells: ArrayLike | None = None,
) -> Grads:
    """Compute the gradients of a loss with respect to all inputs and parameters.

    Parameters
    ----------
    params : mapping of str to array_like
        Parameters that `forward` was called with.
    tape : Tape
        Tape that `forward` returned.
    dy : array_like (T, B, O), optional
        Gradient of y; None for zeros, here and below.
    dstate : (dh, dc), array_like (L*D, B, R) or None, array_like (L*D, B, H) or None
        Gradients of the final states.
    dcells : array_like (T, B, D*H), optional
        Gradient of ``tape.cells``.

    Returns
    -------
    Grads
    """
    opts, joins = tape.options, tape.joins
    dtype = _float_type([joins[-1].out, dy, dcells, *dstate])
    weights = {name: np.asarray(value, dtype) for name, value in params.items()}
    count = len(tape.layers) // opts.num_layers  # directions
    rows, batch = len(tape.layers), tape.active.shape[1]
    units, columns = _sizes(opts, weights)
    dh, dc = _pair(dstate, (rows, batch, columns), (rows, batch, 0 if opts.cell.elman else units), dtype)

    def cleaned(d: ArrayLike | None, like: Array) -> Array:
        return (
            np.zeros(like.shape, dtype) if d is None else np.where(tape.within[:, :, None], np.asarray(d, dtype), 0.0)
        )

    def held_back(d: Array) -> tuple[list[Array], list[Array]]:
        """Move the gradients at masked steps to the steps whose values were repeated, and to the initial state."""
        both = [
            layer.hold_back(part, tape.active, tape.within, top.restart, top.reverse)
            for part, top in zip(np.split(d, count, axis=2), tape.layers[-count:], strict=True)
        ]
        return [d for d, _ in both], [first for _, first in both]

    dout, dh_first = cleaned(dy, joins[-1].out), None
    if tape.padding_output == "last":
        parts, dh_first = held_back(dout)
        dout = np.concatenate(parts, axis=2)
    dout = np.where(tape.active[:, :, None], dout, 0.0)
    dc_each, dc_first = held_back(cleaned(dcells, tape.cells))
    results: list[layer.LayerGrads] = []
    grads: dict[str, Array] = {}
    d_above = dout
    for k, suffixes in reversed(list(layers(opts))):
        join = joins[k]
        dense = np.zeros_like(join.x)
        if k < opts.num_layers - 1:
            if opts.shortcut == "dense":
                dense, d_above = d_above[:, :, : join.x.shape[2]], d_above[:, :, join.x.shape[2] :]
            d_above = d_above * join.kept
        draw, dx = _join_back(opts, weights, k, join, d_above, grads)
        dx = dx + dense
        here = []
        for d, suffix in enumerate(suffixes):
            n = k * count + d
            dcell = dc_each[d] if k == opts.num_layers - 1 else np.zeros_like(tape.layers[n].c, dtype)
            here.append(layer.backward(tape.layers[n], draw[d], dcell, dh[n], dc[n]))
            grads |= {name + suffix: value for name, value in here[d].params.items()}
            dx = dx + here[d].x
        results[:0] = here
        d_above = dx
    h0, c0 = np.stack([r.h0 for r in results]), np.stack([r.c0 for r in results])
    if dh_first is not None and _y_is_h(opts):
        h0[-count:] += dh_first
    c0[-count:] += dc_first
    norms = np.stack([r.dh_norm for r in results]), np.stack([r.dc_norm for r in results])
    return Grads(d_above, h0, c0, {name: grads[name] for name in params}, *norms)


def _y_is_h(opts: Options) -> bool:
    """Look whether y is the last layer's h, without a shortcut's input."""
    return opts.num_layers == 1 or opts.shortcut in (None, "dense")


def _float_type(values: Iterable[ArrayLike | None]) -> np.dtype[Any]:
    """Return the dtype of the arithmetic: at least float64."""
    return np.result_type(np.float64, *(np.asarray(value).dtype for value in values if value is not None))


def _sizes(opts: Options, weights: Mapping[str, Array]) -> tuple[int, int]:
    """Return H and R."""
    return len(weights["weight_ih_l0"]) // (1 if opts.cell.elman else 4), weights["weight_hh_l0"].shape[1]


def _weights(weights: Mapping[str, Array], suffix: str) -> cell.Weights:
    """Return the parameters of one layer and direction."""
    return cell.Weights(**{name: weights[name + suffix] for name in cell.Weights._fields if name + suffix in weights})


def _pair(state: State | None, h: tuple[int, ...], c: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
    """Return a state or its gradient, with zeros for None."""
    given = state or (None, None)
    return (
        np.zeros(h, dtype) if given[0] is None else np.asarray(given[0], dtype),
        np.zeros(c, dtype) if given[1] is None else np.asarray(given[1], dtype).reshape(c),
    )


def _drawn(
    opts: Options, masks: dict[str, Array] | None, suffix: str, w: cell.Weights, steps: int, batch: int
) -> layer.Masks:
    """Return the effect of the masks on one layer and direction, or in inference its expectation."""
    columns, units = w.weight_hh.shape[1], len(w.weight_hh) // 4
    drawn = masks or {}
    return layer.Masks(
        _multiplier(drawn.get("weight_drop" + suffix), opts.weight_drop, w.weight_hh.shape),
        _multiplier(drawn.get("recurrent_dropout" + suffix), opts.recurrent_dropout, (batch, columns)),
        _share(drawn.get("zoneout_h" + suffix), opts.zoneout[0], (steps, batch, columns)),
        _share(drawn.get("zoneout_c" + suffix), opts.zoneout[1], (steps, batch, units)),
    )


def _multiplier(dropped: Array | None, p: float, shape: tuple[int, ...]) -> Array:
    """Return 0 for dropped elements and 1 / (1 - p) for the others; ones without a mask."""
    if dropped is None:
        return np.ones(shape)
    _check_shape(dropped, shape)
    return np.where(dropped, 0.0, 1.0 / (1.0 - p) if p < 1 else 0.0)


def _share(kept: Array | None, p: float, shape: tuple[int, ...]) -> Array:
    """Return 1 for elements that keep the old value and 0 for the others; the probability without a mask."""
    if kept is None:
        return np.full(shape, float(p))
    _check_shape(kept, shape)
    return kept.astype(float)


def _check_shape(mask: Array, shape: tuple[int, ...]) -> None:
    if mask.shape != shape:
        raise ValueError(f"a mask has shape {mask.shape}, must have {shape}")


def _join(
    opts: Options, weights: Mapping[str, Array], k: int, x: Array, raw: list[Array], masks: dict[str, Array] | None
) -> Join:
    """Merge the directions of layer k, and apply its shortcut."""
    if opts.merge == "concat":
        inner = np.concatenate(raw, axis=2)
    elif opts.merge == "mul":
        inner = raw[0] * raw[1]
    else:
        inner = (raw[0] + raw[1]) / (2.0 if opts.merge == "mean" else 1.0)
    gate, out = np.zeros(()), inner
    if k > 0 and opts.shortcut == "residual":
        out = inner + x
    elif k > 0 and opts.shortcut == "highway":
        gate = sigmoid(x @ weights[f"weight_highway_l{k}"].T + weights[f"bias_highway_l{k}"])
        out = gate * inner + (1.0 - gate) * x
    return Join(x, raw, inner, gate, out, _multiplier((masks or {}).get(f"dropout_l{k}"), opts.dropout, out.shape))


def _input_above(opts: Options, join: Join) -> Array:
    dropped = join.out * join.kept
    return np.concatenate([join.x, dropped], axis=2) if opts.shortcut == "dense" else dropped


def _join_back(
    opts: Options, weights: Mapping[str, Array], k: int, join: Join, dout: Array, grads: dict[str, Array]
) -> tuple[list[Array], Array]:
    """Return the gradients of the directions' outputs, and the part of dx that comes through the shortcut."""
    dinner, dx = dout, np.zeros_like(join.x)
    if k > 0 and opts.shortcut == "residual":
        dx = dout
    elif k > 0 and opts.shortcut == "highway":
        weight = weights[f"weight_highway_l{k}"]
        da = dout * (join.inner - join.x) * join.gate * (1.0 - join.gate)
        grads[f"weight_highway_l{k}"] = np.einsum("tbi,tbj->ij", da, join.x)
        grads[f"bias_highway_l{k}"] = da.sum(axis=(0, 1))
        dinner, dx = dout * join.gate, dout * (1.0 - join.gate) + da @ weight
    if opts.merge == "concat":
        return np.split(dinner, len(join.raw), axis=2), dx
    if opts.merge == "mul":
        return [dinner * join.raw[1], dinner * join.raw[0]], dx
    half = dinner / (2.0 if opts.merge == "mean" else 1.0)
    return [half, half], dx
