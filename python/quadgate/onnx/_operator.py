"""Forward pass of the ONNX operator LSTM, and the networks of `quadgate.LSTM` that compute it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsFloat, SupportsIndex

import numpy as np

from ..lstm import LSTM
from . import _inputs
from ._attributes import Attributes, parse

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


class Part(NamedTuple):
    """A network, and the directions of the operator that it computes: all, or one."""

    net: LSTM
    directions: slice
    suffixes: tuple[str, ...]

    @property
    def width(self) -> int:
        """Number of columns of the network's y."""
        return self.net.hidden_size * len(self.suffixes)


class Operator:
    """One LSTM node: its attributes, and the networks built from the last weights."""

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self._last: tuple[_inputs.Weights, list[Part]] | None = None

    def parts(self, weights: _inputs.Weights, *, keep: bool = False) -> list[Part]:
        """Return networks with these weights; with `keep`, those of the previous call if its weights were equal."""
        last = self._last
        if keep and last is not None and all(map(_same, last[0], weights)):
            return last[1]
        made = networks(weights, self.attributes)
        if keep:  # copies, since the owner of the arrays may change them
            copies = _inputs.Weights(*(None if a is None else a.copy() for a in weights))  # type: ignore[arg-type]
            self._last = copies, made
        return made

    def read(self, args: Sequence[Any], *, keep: bool = False) -> tuple[list[Part], _inputs.Sequences, np.dtype[Any]]:
        """Validate the eight inputs, in the operator's order; return networks, their inputs and the results' dtype."""
        X, W, R, B, sequence_lens, initial_h, initial_c, P = args
        x, dtype = _inputs.read_x(X)
        weights = _inputs.weights(x.shape[2], W, R, B, P, self.attributes, x.dtype)
        hidden = weights.R.shape[2]
        sequences = _inputs.sequences(x, sequence_lens, initial_h, initial_c, hidden, self.attributes)
        return self.parts(weights, keep=keep), sequences, dtype

    def run(self, args: Sequence[Any], *, keep: bool = False) -> tuple[Array, Array, Array]:
        """Return the operator's outputs Y, Y_h and Y_c."""
        parts, given, dtype = self.read(args, keep=keep)
        results = [part.net(given.X, state_of(part, given), lengths=given.lengths) for part in parts]
        return outputs([y for y, _ in results], [s for _, s in results], self.attributes.batch_first, dtype)


def lstm(
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
) -> tuple[Array, Array, Array]:
    """Compute the ONNX operator LSTM.

    The definition is that of versions 7, 14 and 22 of the operator. T, B, I and H are time steps, batch size, input
    size and hidden size; D is 2 if `direction` is "bidirectional", otherwise 1.

    Parameters
    ----------
    X : array_like (T, B, I), or (B, T, I) with ``layout=1``
        Input. The results have its dtype: float16, bfloat16, float32 or float64. Arithmetic is float32 for the first
        three. All other inputs are converted to the dtype of the arithmetic.
    W : array_like (D, 4H, I)
        Input weights, in ONNX's gate order i, o, f, c.
    R : array_like (D, 4H, H)
        Recurrent weights.
    B : array_like (D, 8H), optional
        Biases: 4H of W, then 4H of R. The two are added.
    sequence_lens : array_like of int (B,), optional
        Number of active steps of each row, 0 to T. Y is 0 past them. The final state of a row of length 0 is its
        initial state.
    initial_h, initial_c : array_like (D, B, H), or (B, D, H) with ``layout=1``; optional
        Initial state. Default: zeros, for either.
    P : array_like (D, 3H), optional
        Peephole weights, in the order i, o, f.
    direction : {"forward", "reverse", "bidirectional"}
        Reverse directions start at each row's last active step.
    hidden_size : int, optional
        H. Default: derived from the shape of R.
    activations : list of 3 D str, optional
        For each direction the activations of the gates, the cell candidate and the output. Default: Sigmoid, Tanh,
        Tanh. Further names are Relu, LeakyRelu, ThresholdedRelu, Elu, HardSigmoid, Affine, ScaledTanh, Softsign and
        Softplus. Case is ignored.
    activation_alpha, activation_beta : list of float, optional
        Parameters of the activations, in their order. Activations without the parameter take no value from the list.
        Activations beyond the end of the list use the default of the ONNX operator of the same name.
    clip : float, optional
        Bound to which the argument of every activation is clipped, including that of the output. 0 for no clip.
    input_forget : int
        1 to use 1 - i as the forget gate.
    layout : int
        1 to have the batch as the first axis of X, of the states, and of all results.

    Returns
    -------
    Y : ndarray (T, D, B, H), or (B, T, D, H) with ``layout=1``
        h after every step.
    Y_h, Y_c : ndarray (D, B, H), or (B, D, H) with ``layout=1``
        Final state.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value; the message names it.

    Notes
    -----
    onnxruntime 1.31 differs from this definition. It does not clip the argument of the output's activation. It returns
    zeros as the final state of rows of length 0. It uses 0 as the default alpha and beta of Affine, ScaledTanh and
    ThresholdedRelu. It returns infinity from Softplus above 88. It rejects ``layout=1``, ``clip=0`` and float64.

    Every call builds a network from the weights. For repeated calls with the same weights, `quadgate.LSTM` is faster.
    """
    args = (X, W, R, B, sequence_lens, initial_h, initial_c, P)
    numbers = (activation_alpha, activation_beta)
    return Operator(parse(direction, hidden_size, activations, *numbers, clip, input_forget, layout)).run(args)


def networks(weights: _inputs.Weights, attributes: Attributes) -> list[Part]:
    """Return one network for all directions, or one for each direction if their activations differ."""
    attributes.refuse_unrepresentable(weights.W.dtype)
    cells, directions = attributes.activations, len(attributes.directions)
    one = all(cell == cells[0] for cell in cells)
    parts = []
    for d in range(1 if one else directions):
        here = slice(0, directions) if one else slice(d, d + 1)
        suffixes = ("", "_reverse")[: here.stop - here.start]
        net = LSTM(
            weights.W.shape[2],
            weights.R.shape[2],
            bias=weights.B is not None,
            batch_first=attributes.batch_first,
            bidirectional=len(suffixes) == 2,
            peephole=weights.P is not None,
            coupled=attributes.coupled,
            activations=cells[d],
            gate_clip=attributes.clip,
            reverse=len(suffixes) == 1 and attributes.directions[d],
            dtype=weights.W.dtype,
            rng=0,
        )
        values: dict[str, Array] = {}
        for k, suffix in enumerate(suffixes):
            values |= _inputs.parameters(weights, here.start + k, suffix)
        net.load_state_dict(values)
        parts.append(Part(net, here, suffixes))
    return parts


def state_of(part: Part, given: _inputs.Sequences) -> tuple[Array, Array] | None:
    """Return the initial state of one network; if only one of h and c is given, the other is zeros."""
    h, c = given.initial_h, given.initial_c
    if h is None and c is None:
        return None
    h = np.zeros_like(c) if h is None else h
    c = np.zeros_like(h) if c is None else c
    return h[part.directions], c[part.directions]


def outputs(ys: list[Array], states: list[Any], batch_first: bool, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """Join the results of the networks to Y, Y_h and Y_c."""
    hidden = states[0][0].shape[2]
    y = join([y.reshape(*y.shape[:2], y.shape[2] // hidden, hidden) for y in ys], 2)
    h, c = (join([state[k] for state in states], 0) for k in (0, 1))
    if batch_first:
        h, c = h.swapaxes(0, 1), c.swapaxes(0, 1)
    else:
        y = y.transpose(0, 2, 1, 3)
    return returned(y, dtype), returned(h, dtype), returned(c, dtype)


def join(parts: list[Array], axis: int) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)


def returned(value: Array, dtype: np.dtype[Any]) -> Array:
    """Return a C-contiguous array of the results' dtype; values beyond the range of float16 become infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(value, dtype)


def _same(a: Array | None, b: Array | None) -> bool:
    """Return True if two plain arrays have the same dtype and bits, or both are None."""
    if a is None or b is None:
        return a is b
    bits = f"u{a.itemsize}"
    return a.dtype == b.dtype and np.array_equal(a.view(bits), b.view(bits))
