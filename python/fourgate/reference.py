"""The LSTM in plain NumPy float64: the specification of fourgate, and the judge of its tests.

One step of one layer, for one row (``s`` is the logistic function, ``*`` between vectors is elementwise)::

    i = s(W_i x + R_i h' + b_i)          input gate           h', c': the previous step's h and c
    f = s(W_f x + R_f h' + b_f)          forget gate
    g = tanh(W_g x + R_g h' + b_g)       cell candidate
    o = s(W_o x + R_o h' + b_o)          output gate
    c = f * c' + i * g
    h = o * tanh(c)

W_i, W_f, W_g, W_o lie one below the other in ``weight_ih`` (4H, I), R_* in ``weight_hh`` (4H, H), b_* in ``bias``
(4H,).

This is the cell of Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997, with the forget
gate of Gers, Schmidhuber and Cummins, "Learning to Forget: Continual Prediction with LSTM", Neural Computation 12(10),
2000, without peepholes, and with tanh for both squashing functions. The gradient is the full one through all time
steps, as in Graves and Schmidhuber, "Framewise Phoneme Classification with Bidirectional LSTM", Neural Networks
18(5-6), 2005, not the truncated one of 1997.

Backward, from the gradients ``dh`` and ``dc`` that reach a step (an ``a`` is the argument of the gate's function)::

    do = dh * tanh(c)                    dc = dc + dh * o * (1 - tanh(c)^2)
    di = dc * g      df = dc * c'      dg = dc * i
    da_i = di * i (1 - i)    da_f = df * f (1 - f)    da_g = dg * (1 - g^2)    da_o = do * o (1 - o)
    dx = W^T da      dh' = R^T da      dc' = dc * f
    dW = sum over steps and rows of da x^T,    dR = the same of da h'^T,    db = the same of da

Arrays are batched and time-major: x (T, B, I), y (T, B, D*H), states (L*D, B, H). Layers and directions are named and
ordered as in PyTorch: row ``layer * D + direction`` of a state, ``_reverse`` behind the names of the second direction.
A row of length n takes part in steps 0 .. n-1 only: elsewhere its output is 0 and its state stays as it is, so that the
reverse direction starts at step n-1, and a row of length 0 ends in its initial state.

Everything is computed in float64, or in NumPy's ``longdouble`` where an argument is of that type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Grads", "LayerTape", "backward", "forward", "layer_backward", "layer_forward", "sigmoid"]

Array = NDArray[Any]


class LayerTape(NamedTuple):
    """What one layer in one direction keeps for its backward pass; each first axis is time, of length T.

    ``active`` (T, B) tells which rows take part in a step; ``h_prev`` and ``c_prev`` (T, B, H) are the states that the
    step started from, ``c`` (T, B, H) the cell state it ended with, ``gates`` (4, T, B, H) are i, f, g, o.
    """

    x: Array
    active: Array
    h_prev: Array
    c_prev: Array
    c: Array
    gates: Array
    reverse: bool


class Grads(NamedTuple):
    """Gradients: ``x`` (T, B, I), ``h0`` and ``c0`` (L*D, B, H), ``params`` by name, each of its parameter's shape."""

    x: Array
    h0: Array
    c0: Array
    params: dict[str, Array]


def sigmoid(a: Array) -> Array:
    """Return 1 / (1 + exp(-a)), to full relative accuracy on both sides and without overflow."""
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1.0, e) / (1.0 + e)


def layer_forward(
    x: Array,
    h0: Array,
    c0: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    active: Array | None = None,
    reverse: bool = False,
) -> tuple[Array, Array, Array, LayerTape]:
    """Run one layer in one direction.

    Parameters
    ----------
    x : array (T, B, I)
    h0, c0 : array (B, H)
        The state before the first step; for ``reverse`` that is the step with the largest t.
    weight_ih, weight_hh, bias : array (4H, I), (4H, H), (4H,)
        The gates i, f, g, o one below the other; ``bias`` None stands for zeros.
    active : array of bool (T, B), optional
        Which rows take part in which steps; None stands for all in all.
    reverse : bool
        Go through the steps from the last to the first.

    Returns
    -------
    y : array (T, B, H)
        h of every step, 0 where a row takes no part.
    h, c : array (B, H)
        The state after the last step taken.
    tape : LayerTape
    """
    steps, batch, _ = x.shape
    hidden = weight_hh.shape[1]
    dtype = np.result_type(x, h0, c0, weight_ih, weight_hh)
    if active is None:
        active = np.ones((steps, batch), bool)
    x = np.where(active[:, :, None], x, 0.0)  # padding may be anything, even NaN, and must not reach a gradient
    y, h_prev, c_prev, c_new = np.zeros((4, steps, batch, hidden), dtype)
    gates = np.zeros((4, steps, batch, hidden), dtype)
    h, c = h0, c0
    for t in _times(steps, reverse):
        a = x[t] @ weight_ih.T + h @ weight_hh.T
        if bias is not None:
            a = a + bias
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
        i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
        c_next = f * c + i * g
        h_next = o * np.tanh(c_next)

        on = active[t][:, None]
        h_prev[t], c_prev[t], c_new[t], gates[:, t] = h, c, c_next, (i, f, g, o)
        y[t] = np.where(on, h_next, 0.0)
        h, c = np.where(on, h_next, h), np.where(on, c_next, c)
    return y, h, c, LayerTape(x, active, h_prev, c_prev, c_new, gates, reverse)


def layer_backward(
    tape: LayerTape, dy: Array, dh: Array, dc: Array, weight_ih: Array, weight_hh: Array
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Go back through one layer in one direction.

    Parameters
    ----------
    tape : LayerTape
        From `layer_forward`.
    dy : array (T, B, H)
        Gradient of y; ignored where a row takes no part.
    dh, dc : array (B, H)
        Gradients of the final state.
    weight_ih, weight_hh : array (4H, I), (4H, H)

    Returns
    -------
    dx, dh0, dc0, dweight_ih, dweight_hh, dbias : array
        Each of the shape of what it is the gradient of.
    """
    steps = len(tape.x)
    dx = np.zeros(tape.x.shape, dy.dtype)
    dw_ih, dw_hh = np.zeros(weight_ih.shape, dy.dtype), np.zeros(weight_hh.shape, dy.dtype)
    db = np.zeros(len(weight_ih), dy.dtype)
    for t in _times(steps, not tape.reverse):
        on = tape.active[t][:, None]
        i, f, g, o = tape.gates[:, t]
        tanh_c = np.tanh(tape.c[t])
        dh_t = dh + dy[t]
        do = dh_t * tanh_c
        dc_t = dc + dh_t * o * (1.0 - tanh_c**2)
        di, df, dg = dc_t * g, dc_t * tape.c_prev[t], dc_t * i
        parts = (di * i * (1.0 - i), df * f * (1.0 - f), dg * (1.0 - g**2), do * o * (1.0 - o))
        da = np.where(on, np.concatenate(parts, axis=1), 0.0)

        dx[t] = da @ weight_ih
        dw_ih += da.T @ tape.x[t]
        dw_hh += da.T @ tape.h_prev[t]
        db += da.sum(axis=0)
        dh, dc = np.where(on, da @ weight_hh, dh), np.where(on, dc_t * f, dc)
    return dx, dh, dc, dw_ih, dw_hh, db


def forward(
    params: Mapping[str, ArrayLike],
    x: ArrayLike,
    state: tuple[ArrayLike, ArrayLike] | None = None,
    lengths: ArrayLike | None = None,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
) -> tuple[Array, tuple[Array, Array], list[LayerTape]]:
    """Run the whole network.

    Parameters
    ----------
    params : mapping
        ``weight_ih_l{k}`` (4H, in), ``weight_hh_l{k}`` (4H, H), ``bias_l{k}`` (4H,) for each layer k, with ``_reverse``
        behind them for the second direction. Without ``bias_l{k}`` there is no bias.
    x : array (T, B, I)
    state : (h0, c0), each array (L*D, B, H), optional
        None stands for zeros.
    lengths : array of int (B,), optional
        How many steps each row takes part in, 0 to T, in any order.
    num_layers, bidirectional
        L, and whether D is 2.

    Returns
    -------
    y : array (T, B, D*H)
        Output of the last layer: forward direction first, then reverse.
    (h, c) : arrays (L*D, B, H)
        Final states.
    tape : list of LayerTape
        For `backward`; one for each layer and direction, in the order of the states.
    """
    weights = {name: _floats(value) for name, value in params.items()}
    y = _floats(x)
    steps, batch, _ = y.shape
    directions = 2 if bidirectional else 1
    hidden = weights["weight_hh_l0"].shape[1]
    if state is None:
        h0 = c0 = np.zeros((num_layers * directions, batch, hidden))
    else:
        h0, c0 = _floats(state[0]), _floats(state[1])
    active = None if lengths is None else np.arange(steps)[:, None] < np.asarray(lengths)[None, :]

    tape: list[LayerTape] = []
    h_end, c_end = [], []
    for _, suffixes in _layers(num_layers, directions):
        outputs = []
        for suffix in suffixes:
            k = len(tape)
            w_ih, w_hh = weights["weight_ih" + suffix], weights["weight_hh" + suffix]
            bias, reverse = weights.get("bias" + suffix), suffix.endswith("_reverse")
            out, h, c, kept = layer_forward(y, h0[k], c0[k], w_ih, w_hh, bias, active, reverse)
            outputs.append(out)
            h_end.append(h)
            c_end.append(c)
            tape.append(kept)
        y = np.concatenate(outputs, axis=2)
    return y, (np.stack(h_end), np.stack(c_end)), tape


def backward(
    params: Mapping[str, ArrayLike],
    tape: list[LayerTape],
    dy: ArrayLike | None = None,
    dstate: tuple[ArrayLike | None, ArrayLike | None] = (None, None),
) -> Grads:
    """Go back through the whole network.

    Parameters
    ----------
    params : mapping
        What `forward` was called with.
    tape : list of LayerTape
        What it returned.
    dy : array (T, B, D*H), optional
        Gradient of y; None stands for zeros.
    dstate : (dh, dc), each array (L*D, B, H) or None
        Gradients of the final states; None stands for zeros.

    Returns
    -------
    Grads
    """
    weights = {name: _floats(value) for name, value in params.items()}
    directions = 2 if tape[-1].reverse else 1
    num_layers = len(tape) // directions
    _, steps, batch, hidden = tape[0].gates.shape
    dh = np.zeros((len(tape), batch, hidden)) if dstate[0] is None else _floats(dstate[0])
    dc = np.zeros((len(tape), batch, hidden)) if dstate[1] is None else _floats(dstate[1])
    dout = np.zeros((steps, batch, directions * hidden)) if dy is None else _floats(dy)
    dh0, dc0 = np.zeros_like(dh), np.zeros_like(dc)
    grads: dict[str, Array] = {}
    for layer, suffixes in reversed(list(_layers(num_layers, directions))):
        dx = np.zeros(())
        for d, suffix in enumerate(suffixes):
            k = layer * directions + d
            w_ih, w_hh = weights["weight_ih" + suffix], weights["weight_hh" + suffix]
            part = dout[:, :, d * hidden : (d + 1) * hidden]
            dx_d, dh0[k], dc0[k], dw_ih, dw_hh, db = layer_backward(tape[k], part, dh[k], dc[k], w_ih, w_hh)
            dx = dx + dx_d
            grads |= {"weight_ih" + suffix: dw_ih, "weight_hh" + suffix: dw_hh, "bias" + suffix: db}
        dout = dx
    return Grads(dout, dh0, dc0, {name: grads[name] for name in params})


def _layers(num_layers: int, directions: int) -> Iterator[tuple[int, list[str]]]:
    """Give each layer's number and the endings of its parameters' names, one for each direction."""
    for layer in range(num_layers):
        yield layer, [f"_l{layer}{reverse}" for reverse in ("", "_reverse")[:directions]]


def _times(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


def _floats(value: ArrayLike) -> Array:
    array = np.asarray(value)
    return array.astype(np.result_type(array, np.float64), copy=False)
