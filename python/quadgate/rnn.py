"""The class RNN: Elman's simple recurrent network, on the core of the LSTM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import numpy as np

from . import _run
from ._check import ZERO
from ._network import Network
from ._options import Option
from ._results import RNNGrads, Tape
from .stream import RNNStream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Array = NDArray[Any]

__all__ = ["RNN"]


class RNN(Network):
    """A plain recurrent network (Elman 1990), ``h_t = f(W x_t + U h_{t-1} + b)``, with ``torch.nn.RNN``'s arguments.

    Parameters
    ----------
    input_size : int
        I, the features of the input.
    hidden_size : int
        H, the units of each layer and direction.
    num_layers : int
        L, how many layers run one on top of the other.
    nonlinearity : "tanh" or "relu"
        f.
    bias, batch_first, bidirectional, dropout, recurrent_dropout, weight_drop, reverse, merge, shortcut, dtype, rng
        As in `LSTM`.
    initialization : "pytorch" or "keras"
        As in `LSTM`; the bias of Keras begins as zeros.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above; the message names it.
    MemoryError
        If the network is too large.

    Notes
    -----
    The notes of `LSTM` on arrays and results hold here too. The state is h alone.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> rnn = qg.RNN(64, 128, rng=0)
    >>> y, h = rnn(np.zeros((10, 3, 64), np.float32))
    >>> y.shape, h.shape
    ((10, 3, 128), (1, 3, 128))
    """

    __slots__ = ()
    __module__ = "quadgate"  # the name that pickles and errors show

    _elman = True

    nonlinearity = Option[str]('f: "tanh" or "relu".')

    def __init__(
        self,
        input_size: SupportsIndex,
        hidden_size: SupportsIndex,
        num_layers: SupportsIndex = 1,
        *,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
        reverse: bool = False,
        merge: Literal["concat", "sum", "mul", "mean"] = "concat",
        shortcut: Literal["residual", "highway", "dense"] | None = None,
        initialization: Literal["pytorch", "keras"] = "pytorch",
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        arguments = dict(locals())
        del arguments["self"], arguments["rng"]
        self._create(arguments, rng)

    def __call__(
        self,
        x: ArrayLike,
        h0: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        padding_output: Literal["zero", "last"] = "zero",
        out: Array | None = None,
    ) -> tuple[Array, Array]:
        """Run the network for inference.

        Parameters
        ----------
        x : array (T, B, I), (B, T, I) if ``batch_first``, or (T, I) without a batch
            The input sequences.
        h0 : array (L*D, B, H), or (L*D, H) without a batch; optional
            The initial state; zeros if it is not given.
        lengths, resets, mask, padding_output, out
            As in `LSTM.__call__`.

        Returns
        -------
        y : array (T, B, O), (B, T, O) or (T, O)
            Last layer's output at every step; ``out`` itself if that was given. O is D*H, or H if ``merge`` joins
            the directions otherwise.
        h : array of h0's shape
            Final state. Passed on to the next call it continues the sequence.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        """
        result = None
        if mask is None and padding_output is ZERO:
            core = self._snapshot.forward
            result = core(x, self._with_cells(h0), lengths, out, resets, False)
        if result is None:
            result = _run.infer(self, x, h0, lengths, out, resets, False, "h0", mask, padding_output)
        y, (h, _) = result
        return y, h

    def forward(
        self,
        x: ArrayLike,
        h0: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        padding_output: Literal["zero", "last"] = "zero",
        rng: int | np.random.Generator | None = None,
    ) -> tuple[Array, Array, Tape]:
        """Run the network for training: draw masks, and record what `backward` needs on a tape.

        Parameters
        ----------
        x, h0, lengths, resets, mask, padding_output
            As in `__call__`.
        rng : int or numpy.random.Generator, optional
            As in `LSTM.forward`.

        Returns
        -------
        y, h
            As in `__call__`, and without masks equal to its results to the last bit.
        tape : Tape
            As from `LSTM.forward`.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        """
        if mask is None and padding_output is ZERO and rng is None and not self._mask_plan:
            core = self._snapshot.forward_tape
            result = core(x, self._with_cells(h0), lengths, resets, False, None)
            if result is not None:
                y, (h, _), tape = result
                return y, h, Tape(tape)
        y, (h, _), record = _run.train(self, x, h0, lengths, resets, False, False, rng, "h0", mask, padding_output)
        return y, h, record

    def backward(
        self,
        tape: Tape,
        dy: ArrayLike | None = None,
        dh: ArrayLike | None = None,
        *,
        input_grad: bool = True,
        state_grad: bool = True,
        out: Mapping[str, Array] | None = None,
        accumulate: bool = False,
    ) -> RNNGrads:
        """Return the gradients of a loss from its gradients with respect to y and the final state.

        Parameters
        ----------
        tape : Tape
            From `forward`.
        dy : array of y's shape, optional
            Gradient of y; zeros if it is not given. One of the two gradients must be.
        dh : array of h0's shape, optional
            Gradient of the final state; zeros if it is not given.
        input_grad, state_grad, out, accumulate
            As in `LSTM.backward`.

        Returns
        -------
        RNNGrads

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value, or there is no gradient to start from.
        """
        dx, dh0, _, params = _run.backward(self, tape, dy, dh, None, input_grad, state_grad, out, accumulate, "dh")
        return RNNGrads(dx, dh0, params)

    def stream(self, batch_size: SupportsIndex = 1) -> RNNStream[RNN]:
        """Return an `RNNStream` over this network, as `LSTM.stream` does.

        Parameters
        ----------
        batch_size : int
            B, the number of rows that run side by side.

        Raises
        ------
        ValueError
            If the network is bidirectional or reverse: it starts at the end, which a stream does not have.
        """
        return RNNStream(self, batch_size)

    def _with_cells(self, h: Any) -> Any:
        """Return (h, c) for the core, with a c of no columns; other objects than arrays are left for it to refuse."""
        if h is None:
            return None
        return h, np.empty((*h.shape[:-1], 0), self._options.dtype) if type(h) is np.ndarray else None
