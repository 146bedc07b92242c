"""Backward pass of the ONNX operator LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsFloat, SupportsIndex

import numpy as np

from .. import _check
from .._results import LSTMGrads
from .._results import Tape as LSTMTape
from . import _inputs
from ._attributes import Attributes, parse
from ._operator import Operator, Part, join, networks, outputs, returned, state_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


class Gradients(NamedTuple):
    """Gradients of the operator's inputs, as `lstm_backward` and `lstm_grad` return them.

    Attributes
    ----------
    X, W, R : ndarray
        Gradients, of the shapes of the inputs and the dtype of X.
    B, initial_h, initial_c, P : ndarray or None
        The same; None for an absent input.
    """

    X: Array
    W: Array
    R: Array
    B: Array | None
    initial_h: Array | None
    initial_c: Array | None
    P: Array | None


class Tape:
    """Values that `lstm_training` keeps for any number of calls of `lstm_backward`.

    Attributes
    ----------
    nbytes : int
        Memory in bytes, without the weights.
    """

    __slots__ = ("_attributes", "_given", "_parts", "_tapes", "_type", "_y_shape")

    def __init__(
        self,
        attributes: Attributes,
        parts: list[Part],
        tapes: list[Any],
        y_shape: tuple[int, ...],
        given: tuple[bool, bool],
        dtype: np.dtype[Any],
    ) -> None:
        self._attributes, self._parts, self._tapes = attributes, parts, tapes
        self._y_shape, self._given, self._type = y_shape, given, dtype

    @property
    def nbytes(self) -> int:
        """Memory in bytes, without the weights."""
        return sum(tape.nbytes for tape in self._tapes)


def lstm_training(
    X: ArrayLike,
    W: ArrayLike,
    R: ArrayLike,
    B: ArrayLike | None = None,
    sequence_lens: ArrayLike | None = None,
    initial_h: ArrayLike | None = None,
    initial_c: ArrayLike | None = None,
    P: ArrayLike | None = None,
    *,
    direction: str = "forward",
    hidden_size: SupportsIndex | None = None,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[SupportsFloat] | None = None,
    activation_beta: Sequence[SupportsFloat] | None = None,
    clip: SupportsFloat | None = None,
    input_forget: SupportsIndex = 0,
    layout: SupportsIndex = 0,
) -> tuple[Array, Array, Array, Tape]:
    """Compute the results of `lstm`, and a tape for `lstm_backward`.

    Parameters
    ----------
    X, W, R, B, sequence_lens, initial_h, initial_c, P
        As in `lstm`.
    direction, hidden_size, activations, activation_alpha, activation_beta, clip, input_forget, layout
        As in `lstm`.

    Returns
    -------
    Y, Y_h, Y_c : ndarray
        The same bits as those of `lstm`.
    tape : Tape
        Argument of `lstm_backward`.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value; the message names it.
    """
    numbers = (activation_alpha, activation_beta)
    operator = Operator(parse(direction, hidden_size, activations, *numbers, clip, input_forget, layout))
    parts, given, dtype = operator.read((X, W, R, B, sequence_lens, initial_h, initial_c, P))
    batch_first = operator.attributes.batch_first
    results = [part.net.forward(given.X, state_of(part, given), lengths=given.lengths) for part in parts]
    ends = outputs([y for y, _, _ in results], [s for _, s, _ in results], batch_first, dtype)
    has_state = given.initial_h is not None, given.initial_c is not None
    tapes = [tape for _, _, tape in results]
    return *ends, Tape(operator.attributes, parts, tapes, ends[0].shape, has_state, dtype)


def lstm_backward(
    tape: Tape, dY: ArrayLike | None = None, dY_h: ArrayLike | None = None, dY_c: ArrayLike | None = None
) -> Gradients:
    """Compute the gradients of a loss with respect to the operator's inputs from those with respect to its outputs.

    Parameters
    ----------
    tape : Tape
        From `lstm_training`.
    dY, dY_h, dY_c : array_like of the shapes of Y, Y_h and Y_c, optional
        Gradients of the outputs. Default: zeros.

    Returns
    -------
    Gradients
        In the dtype of X.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or shape; the message names it.

    Notes
    -----
    The gradient of a clipped value is 0.
    """
    if not isinstance(tape, Tape):
        raise TypeError(f"tape must be what lstm_training returned last, got {type(tape).__name__}")
    batch_first, parts = tape._attributes.batch_first, tape._parts
    compute = parts[0].net.dtype
    dy = None
    if dY is not None:
        dy = _inputs.shaped(dY, "dY", tape._y_shape, "Y's shape", compute)
        dy = dy if batch_first else dy.transpose(0, 2, 1, 3)  # now (T, B, D, H), or (B, T, D, H)
    rows = len(tape._attributes.directions), tape._y_shape[0 if batch_first else 2], tape._y_shape[3]
    ends = [_inputs.state(s, name, rows, batch_first, compute) for s, name in ((dY_h, "dY_h"), (dY_c, "dY_c"))]
    if dy is None and all(end is None for end in ends):  # which the operator allows, and a network does not
        ends[0] = np.zeros(rows, compute)
    found = []
    for part, kept in zip(parts, tape._tapes, strict=True):
        dy_part = None if dy is None else dy[:, :, part.directions].reshape(*dy.shape[:2], part.width)
        h, c = (None if end is None else end[part.directions] for end in ends)
        found.append(part.net.backward(kept, dy_part, (h, c)))
    return _gradients(parts, found, tape._given, batch_first, tape._type)


def lstm_grad(
    X: ArrayLike,
    W: ArrayLike,
    R: ArrayLike,
    H_all: ArrayLike,
    C_all: ArrayLike,
    iofc: ArrayLike,
    dH_all: ArrayLike | None = None,
    dY_h: ArrayLike | None = None,
    dY_c: ArrayLike | None = None,
    *,
    initial_h: ArrayLike | None = None,
    initial_c: ArrayLike | None = None,
) -> Gradients:
    """Compute gradients from values that another program saved in its forward pass, as ONNX Runtime's LSTMGrad does.

    The network has one forward direction, the activations Sigmoid, Tanh, Tanh, and neither peepholes nor clip.

    Parameters
    ----------
    X : array_like (T, B, I)
    W, R : array_like (1, 4H, I) and (1, 4H, H)
        As in `lstm`.
    H_all, C_all : array_like (T, 1, B, H)
        h and c after every step.
    iofc : array_like (T, 1, B, 4H)
        Activated gates, in ONNX's order i, o, f, c.
    dH_all : array_like (T, 1, B, H), optional
        Gradient of h after every step. Default: zeros.
    dY_h, dY_c : array_like (1, B, H), optional
        Gradients of the final state. Default: zeros.
    initial_h, initial_c : array_like (1, B, H), optional
        Initial state of that forward pass. Default: zeros.

    Returns
    -------
    Gradients
        Includes the gradient of B, which does not depend on B; that of P is None.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or shape; the message names it.
    """
    attributes = parse()
    x, dtype = _inputs.read_x(X)
    weights = _inputs.weights(x.shape[2], W, R, None, None, attributes, x.dtype)
    steps, batch, _ = x.shape
    hidden = weights.R.shape[2]
    saved = (steps, 1, batch, hidden)
    meaning = "seq_length, 1, batch_size, hidden_size"
    wide = (steps, 1, batch, 4 * hidden)
    given = _inputs.sequences(x, None, initial_h, initial_c, hidden, attributes)
    h, c = (_inputs.shaped(s, n, saved, meaning, x.dtype)[:, 0] for s, n in ((H_all, "H_all"), (C_all, "C_all")))
    gates = _inputs.shaped(iofc, "iofc", wide, "seq_length, 1, batch_size, 4*hidden_size", x.dtype)
    dy = None if dH_all is None else _inputs.shaped(dH_all, "dH_all", saved, meaning, x.dtype)[:, 0]
    ends = [_inputs.state(s, n, (1, batch, hidden), False, x.dtype) for s, n in ((dY_h, "dY_h"), (dY_c, "dY_c"))]
    if dy is None and all(end is None for end in ends):
        ends[0] = np.zeros((1, batch, hidden), x.dtype)
    zeros = np.zeros((1, 8 * hidden), x.dtype)
    (part,) = networks(weights._replace(B=zeros), attributes)
    start = state_of(part, given) or (np.zeros((1, batch, hidden), x.dtype),) * 2
    plain = [_check.plain(a, x.dtype) for a in (h, _inputs.our_gates(gates[:, 0]), c)]
    tape = _check.computed(part.net._snapshot.core.make_tape(x, start, *plain))
    found = part.net.backward(LSTMTape(tape), dy, (ends[0], ends[1]))
    return _gradients([part], [found], (initial_h is not None, initial_c is not None), False, dtype)


def _gradients(
    parts: list[Part], found: list[LSTMGrads], has_state: tuple[bool, bool], batch_first: bool, dtype: np.dtype[Any]
) -> Gradients:
    """Join the gradients of the networks' parameters, and add their gradients of X."""
    x = found[0].x
    for grads in found[1:]:
        x = x + grads.x  # type: ignore[operator]
    states: list[Array | None] = []
    for given, name in zip(has_state, ("h0", "c0"), strict=True):
        joined = join([getattr(grads, name) for grads in found], 0) if given else None
        states.append(joined if joined is None or not batch_first else joined.swapaxes(0, 1))
    each = [_inputs.from_parameters(g.params, s) for p, g in zip(parts, found, strict=True) for s in p.suffixes]
    W, R, B, P = (None if rows[0] is None else np.stack(rows) for rows in zip(*each, strict=True))
    return Gradients(*(None if g is None else returned(g, dtype) for g in (x, W, R, B, *states, P)))  # type: ignore[arg-type]
