"""The ONNX operator LSTM on `quadgate.LSTM`: its networks, and the forward pass."""

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
    """A network and the directions of the operator that it computes: both, or one."""

    net: LSTM
    directions: slice
    suffixes: tuple[str, ...]

    @property
    def width(self) -> int:
        """The columns of the network's y."""
        return self.net.hidden_size * len(self.suffixes)


class Operator:
    """One LSTM node: its attributes, and the networks made of the weights that it met last."""

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self._last: tuple[_inputs.Weights, list[Part]] | None = None

    def parts(self, weights: _inputs.Weights, *, keep: bool = False) -> list[Part]:
        """Return networks with these weights; with `keep` those of the call before, if it had the same."""
        last = self._last
        if keep and last is not None and all(map(_same, last[0], weights)):
            return last[1]
        made = networks(weights, self.attributes)
        if keep:  # of copies, since whoever owns the arrays may write to them
            copies = _inputs.Weights(*(None if a is None else a.copy() for a in weights))  # type: ignore[arg-type]
            self._last = copies, made
        return made

    def read(self, args: Sequence[Any], *, keep: bool = False) -> tuple[list[Part], _inputs.Sequences, np.dtype[Any]]:
        """Check the eight inputs, in the operator's order, and return what there is to run."""
        X, W, R, B, sequence_lens, initial_h, initial_c, P = args
        x, dtype = _inputs.read_x(X)
        weights = _inputs.weights(x.shape[2], W, R, B, P, self.attributes, x.dtype)
        hidden = weights.R.shape[2]
        sequences = _inputs.sequences(x, sequence_lens, initial_h, initial_c, hidden, self.attributes)
        return self.parts(weights, keep=keep), sequences, dtype

    def run(self, args: Sequence[Any], *, keep: bool = False) -> tuple[Array, Array, Array]:
        """Compute the operator's three outputs."""
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
    """Compute ONNX's operator LSTM, as versions 7, 14 and 22 of the operator define it.

    T, B, I, H are time steps, batch, input size and hidden size; D is 2 if `direction` is "bidirectional", else 1.

    Parameters
    ----------
    X : array (T, B, I), or (B, T, I) with ``layout=1``
        Its type, float16, bfloat16, float32 or float64, is that of the results. The two of 16 bits are computed in
        float32. All other inputs are converted to the type of the arithmetic.
    W : array (D, 4H, I)
        Weights of the input; the gates in ONNX's order i, o, f, c.
    R : array (D, 4H, H)
        Recurrent weights.
    B : array (D, 8H), optional
        Biases: 4H that belong to W, 4H that belong to R. The two are added.
    sequence_lens : array of int (B,), optional
        How many steps of each row count, 0 to T. Y is 0 behind them. A row of length 0 ends in its initial state.
    initial_h, initial_c : array (D, B, H), or (B, D, H) with ``layout=1``; optional
        The initial state; each is zeros where it is not given.
    P : array (D, 3H), optional
        Peepholes, in the order i, o, f.
    direction : "forward", "reverse" or "bidirectional"
        Reverse directions start at each row's last step that counts.
    hidden_size : int, optional
        H. Without it, it is taken from R.
    activations : list of 3 D str, optional
        For each direction the functions of the gates, of the cell's input and of the output; Sigmoid, Tanh, Tanh if
        not given. Capital letters do not matter. The others are Relu, LeakyRelu, ThresholdedRelu, Elu, HardSigmoid,
        Affine, ScaledTanh, Softsign and Softplus.
    activation_alpha, activation_beta : list of float, optional
        Parameters of the functions, in their order; functions without the parameter take none from the list. Those for
        which nothing is left have the default of the ONNX operator of their name.
    clip : float, optional
        The argument of every function is cut off at plus and minus this bound, that of the output's function too. 0 is
        no clip.
    input_forget : int
        1 if the forget gate is 1 - i, instead of a gate of its own.
    layout : int
        1 if the batch is the first axis of X, of the states, and of all results.

    Returns
    -------
    Y : array (T, D, B, H), or (B, T, D, H) with ``layout=1``
        h at every step.
    Y_h, Y_c : array (D, B, H), or (B, D, H) with ``layout=1``
        The final state.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value; the message names it.

    Notes
    -----
    onnxruntime 1.31 differs from this definition: it does not clip the argument of the output's function, ends rows of
    length 0 in zeros, takes 0 for the alpha and beta of Affine, ScaledTanh and ThresholdedRelu where they are not
    given, returns infinity from Softplus above 88, and refuses ``layout=1``, ``clip=0`` and float64.

    Every call makes a network of the weights first. Where the same weights are used again and again, and time matters,
    `quadgate.LSTM` itself is for that.
    """
    args = (X, W, R, B, sequence_lens, initial_h, initial_c, P)
    numbers = (activation_alpha, activation_beta)
    return Operator(parse(direction, hidden_size, activations, *numbers, clip, input_forget, layout)).run(args)


def networks(weights: _inputs.Weights, attributes: Attributes) -> list[Part]:
    """Return one network for all directions, or one for each where their activations differ."""
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
    """Return the initial state of one network, zeros for one of the two where only the other is given."""
    h, c = given.initial_h, given.initial_c
    if h is None and c is None:
        return None
    h = np.zeros_like(c) if h is None else h
    c = np.zeros_like(h) if c is None else c
    return h[part.directions], c[part.directions]


def outputs(ys: list[Array], states: list[Any], batch_first: bool, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """Join what the networks returned into Y, Y_h and Y_c."""
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
    """Return a C-contiguous array of the results' type; what float16 cannot hold becomes infinite, as elsewhere."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(value, dtype)


def _same(a: Array | None, b: Array | None) -> bool:
    """Whether two plain arrays have the same bits."""
    if a is None or b is None:
        return a is b
    bits = f"u{a.itemsize}"
    return a.dtype == b.dtype and np.array_equal(a.view(bits), b.view(bits))
