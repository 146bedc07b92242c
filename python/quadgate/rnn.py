"""The class RNN: the plain recurrent network that LSTMs are compared with, on the same core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _check
from ._calls import Calls
from ._options import Options
from .stream import RNNStream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from ._calls import Pair, Shape
    from ._core import Tape

    Array = NDArray[Any]

__all__ = ["RNN", "RNNGrads"]


class RNNGrads(NamedTuple):
    """What `RNN.backward` returns.

    Attributes
    ----------
    x : array of x's shape, or None where ``need_x`` was False
    h0 : array (L*D, B, H), or (L*D, H) where x had no batch axis
        Gradient of the initial state, also where it was not given and stood for zeros.
    params : dict
        Gradients by parameter name, each of its parameter's shape.
    """

    x: Array | None
    h0: Array
    params: dict[str, Array]


class RNN(Calls):
    """A plain recurrent network (Elman 1990), ``h_t = f(W x_t + R h_{t-1} + b)``, with ``torch.nn.RNN``'s arguments.

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
        As in `LSTM`, where Keras begins with a bias of zeros.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what is described above; the message names it.
    MemoryError
        If the network is too large.

    Notes
    -----
    What `LSTM` says of its arrays and results holds here too. The state is h alone.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> rnn = qg.RNN(64, 128, rng=0)
    >>> y, h = rnn(np.zeros((10, 3, 64), np.float32))
    >>> y.shape, h.shape
    ((10, 3, 128), (1, 3, 128))
    """

    __slots__ = ()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_drop: float = 0.0,
        reverse: bool = False,
        merge: str = "concat",
        shortcut: str | None = None,
        initialization: str = "pytorch",
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        options = Options(
            input_size,
            hidden_size,
            num_layers,
            nonlinearity=_check.choice(nonlinearity, "nonlinearity", ("tanh", "relu")),
            bias=bias,
            batch_first=batch_first,
            bidirectional=bidirectional,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            weight_drop=weight_drop,
            reverse=reverse,
            merge=merge,
            shortcut=shortcut,
            initialization=initialization,
            dtype=_check.float_type(dtype),
        )
        self._create(options, rng)

    @property
    def nonlinearity(self) -> str:
        """f: "tanh" or "relu"."""
        return str(self._options.nonlinearity)

    def __call__(
        self,
        x: ArrayLike,
        h0: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        out: Array | None = None,
    ) -> tuple[Array, Array]:
        """Run the network, for inference.

        Parameters
        ----------
        x : array (T, B, I), (B, T, I) if ``batch_first``, or (T, I) without a batch
            The input sequences.
        h0 : array (L*D, B, H), or (L*D, H) without a batch; optional
            The initial state; zeros where it is not given.
        lengths, resets, out
            As in `LSTM.__call__`.

        Returns
        -------
        y : array (T, B, O), (B, T, O) or (T, O)
            Last layer's output at every step; ``out`` itself if that was given. O is D*H, or H where ``merge`` joins
            the directions otherwise.
        h : array of h0's shape
            Final state. Passed on to the next call it continues the sequence.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        """
        core = self._core_forward
        result = core(x, self._with_cells(h0), lengths, out, resets, False)
        if result is None:
            result = self._infer(x, h0, lengths, out, resets, False)
        y, (h, _) = result
        return y, h

    def forward(
        self,
        x: ArrayLike,
        h0: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> tuple[Array, Array, Tape]:
        """Run the network for training: keep what `backward` needs, and drop what is to be dropped.

        Parameters
        ----------
        x, h0, lengths, resets
            As in `__call__`.
        rng : int or numpy.random.Generator, optional
            As in `LSTM.forward`.

        Returns
        -------
        y, h
            As in `__call__`, and equal to what that returns to the last bit where there are no masks.
        tape : Tape
            As from `LSTM.forward`.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        """
        result: Any = None
        if not self._mask_plan and rng is None:
            state = self._with_cells(h0)
            result = self._core_forward_tape(x, state, lengths, resets, False, None)
        if result is None:
            result = self._train(x, h0, lengths, resets, False, False, rng)
        y, (h, _), tape = result
        return y, h, tape

    def backward(
        self,
        tape: Tape,
        dy: ArrayLike | None = None,
        dh: ArrayLike | None = None,
        *,
        need_x: bool = True,
        out: Mapping[str, Array] | None = None,
        accumulate: bool = False,
    ) -> RNNGrads:
        """Return the gradients of a loss from its gradients with respect to y and the final state.

        Parameters
        ----------
        tape : Tape
            From `forward`.
        dy : array of y's shape, optional
            Gradient of y; zeros where it is not given.
        dh : array of h0's shape, optional
            Gradient of the final state; zeros where it is not given.
        need_x, out, accumulate
            As in `LSTM.backward`.

        Returns
        -------
        RNNGrads

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        RuntimeError
            If the parameters have changed since the tape was made.
        """
        dx, dh0, _, params = self._gradients(tape, dy, dh, None, need_x, out, accumulate)
        return RNNGrads(dx, dh0, params)

    def stream(self, batch: int = 1) -> RNNStream:
        """Return an `RNNStream` over this network, as `LSTM.stream` does.

        Parameters
        ----------
        batch : int
            B, the number of rows that run side by side.

        Raises
        ------
        ValueError
            If the network is bidirectional or reverse: it starts at the end, which a stream does not have.
        """
        return RNNStream(self, batch)

    def _with_cells(self, h: Any) -> Any:
        """Return (h, c) for the core, where c has no columns; what is no array is left for the core to refuse."""
        if h is None:
            return None
        return h, np.empty((*h.shape[:-1], 0), self._options.dtype) if type(h) is np.ndarray else None

    def _dstate(self, value: Any) -> Any:
        return None if value is None else (value, None)

    def _pair(self, value: object, name: str, shapes: tuple[Shape, Shape], *, partial: bool = False) -> Pair:
        if value is None:
            return None
        h = _check.floats(value, "h0" if name == "state" else "dh", shapes[0], self._options.dtype)
        return h, None if partial else np.empty(shapes[1], self._options.dtype)

    def _parts(self, value: Any, name: str) -> dict[str, object]:
        return {"h0" if name == "state" else "dh": value}
