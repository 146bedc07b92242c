"""The class LSTM(Base): names, shapes, errors and documentation; the arithmetic is all in the compiled core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _check, _params
from ._base import Base
from ._core import Tape
from .stream import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Array = NDArray[Any]
    State = tuple[Array, Array]

__all__ = ["LSTM", "Grads"]


class Grads(NamedTuple):
    """What `LSTM.backward` returns.

    Attributes
    ----------
    x : array of x's shape, or None where ``need_x`` was False
    h0, c0 : array (L*D, B, H), or (L*D, H) where x had no batch axis
        Gradients of the initial state, also where it was not given and stood for zeros.
    params : dict
        Gradients by parameter name, each of its parameter's shape.
    """

    x: Array | None
    h0: Array
    c0: Array
    params: dict[str, Array]


class LSTM(Base):
    """A long short-term memory network, with ``torch.nn.LSTM``'s arguments, shapes and gate order (i, f, g, o).

    Parameters
    ----------
    input_size : int
        I, the features of the input.
    hidden_size : int
        H, the units of each layer and direction.
    num_layers : int
        L, how many layers run one on top of the other.
    bias : bool
        Whether there are biases; one for each gate and unit, where PyTorch keeps two and adds them.
    batch_first : bool
        Whether batched x and y are (B, T, ...) instead of (T, B, ...). States never are.
    bidirectional : bool
        Whether a second set of units reads the sequence backwards (D = 2) beside the first.
    dropout, proj_size
        Not there yet: anything but 0 raises NotImplementedError.
    dtype : float32 or float64
        Type of the parameters, of the arithmetic, and of every result.
    rng : None, int or numpy.random.Generator
        Where the initial parameters come from: uniform between -1/sqrt(H) and 1/sqrt(H). One seed gives the same
        network in both types, up to rounding.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what is described above; the message names it.
    MemoryError
        If the network is too large.

    Notes
    -----
    Arrays may be anything that NumPy can read as real numbers: lists, other types and byte orders, non-contiguous or
    read-only arrays, and whatever has ``__array__`` or ``__dlpack__``. They are converted to the network's type. That
    includes float64 into a float32 network, since float64 is what NumPy makes unless told otherwise. Arrays of the
    right type whose last axis is contiguous are read in place. Complex numbers, bools, strings, objects and masked
    arrays raise TypeError; wrong shapes raise ValueError. NaN and infinity pass through as IEEE arithmetic has them.

    Results do not depend, to the last bit, on the batch that a row is in, on the number of threads, or on how a
    sequence was cut into calls that pass the state on. One object may be used from many threads at once.

    Examples
    --------
    >>> import numpy as np, fourgate as fg
    >>> lstm = fg.LSTM(64, 128, rng=0)
    >>> y, (h, c) = lstm(np.zeros((10, 3, 64), np.float32))
    >>> y.shape, h.shape, c.shape
    ((10, 3, 128), (1, 3, 128), (1, 3, 128))
    """

    __slots__ = ()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        dropout: float = 0.0,
        proj_size: int = 0,
        dtype: DTypeLike = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        for name, value in (("dropout", dropout), ("proj_size", proj_size)):
            if value != 0:
                raise NotImplementedError(f"{name} is not there yet: it must be 0, got {value!r}")
        self._configure(
            _check.size(input_size, "input_size"),
            _check.size(hidden_size, "hidden_size"),
            _check.size(num_layers, "num_layers"),
            _check.flag(bias, "bias"),
            _check.flag(batch_first, "batch_first"),
            _check.flag(bidirectional, "bidirectional"),
            _check.float_type(dtype),
        )
        self._commit(_params.initial(self._shapes, self._hidden_size, self._dtype, rng))

    def __call__(
        self,
        x: ArrayLike,
        state: tuple[ArrayLike, ArrayLike] | None = None,
        *,
        lengths: ArrayLike | None = None,
        out: Array | None = None,
    ) -> tuple[Array, State]:
        """Run the network, for inference.

        Parameters
        ----------
        x : array (T, B, I), (B, T, I) if ``batch_first``, or (T, I) without a batch
            The input sequences.
        state : (h0, c0), each array (L*D, B, H), or (L*D, H) without a batch; optional
            The initial state; zeros where it is not given.
        lengths : array of int (B,), optional
            How many steps of each row count, 0 to T, in any order; all T where it is not given. What lies behind is not
            read, its y is 0, and the final state is that of the row's last step. The reverse direction starts there.
        out : array of y's shape and the network's type, optional
            Written instead of a new y. It must be writable and share no memory with the other arguments.

        Returns
        -------
        y : array (T, B, D*H), (B, T, D*H) or (T, D*H)
            Last layer's h at every step, forward direction first; ``out`` itself if that was given.
        (h, c) : arrays of the state's shape
            Final states. Passed on to the next call they continue the sequence.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        """
        result = self._core_forward(x, state, lengths, self._batch_first, out)
        if result is not None:
            return result
        x_, state_, lengths_ = self._convert(x, state, lengths)
        if out is None:
            return _check.computed(self._core_forward(x_, state_, lengths_, self._batch_first, None))
        target = _check.buffer(out, "out", self._y_shape(x_.shape), self._dtype)
        h, c = (None, None) if state is None else state
        _check.apart(target, "out", {"x": x, "state[0]": h, "state[1]": c, "lengths": lengths})
        y, end = _check.computed(self._core_forward(x_, state_, lengths_, self._batch_first, None))
        target[...] = y
        return out, end

    def forward(
        self, x: ArrayLike, state: tuple[ArrayLike, ArrayLike] | None = None, *, lengths: ArrayLike | None = None
    ) -> tuple[Array, State, Tape]:
        """Run the network and keep what `backward` needs.

        Parameters
        ----------
        x, state, lengths
            As in `__call__`.

        Returns
        -------
        y, (h, c)
            As in `__call__`, and equal to what that returns to the last bit.
        tape : Tape
            For `backward`, any number of times, until the parameters change. ``tape.nbytes`` is the memory it holds.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        """
        result = self._core_forward_tape(x, state, lengths, self._batch_first)
        if result is not None:
            return result
        return _check.computed(self._core_forward_tape(*self._convert(x, state, lengths), self._batch_first))

    def backward(
        self,
        tape: Tape,
        dy: ArrayLike | None = None,
        dstate: tuple[ArrayLike | None, ArrayLike | None] | None = None,
        *,
        need_x: bool = True,
        out: Mapping[str, Array] | None = None,
        accumulate: bool = False,
    ) -> Grads:
        """Return the gradients of a loss from its gradients with respect to y and the final states.

        Parameters
        ----------
        tape : Tape
            From `forward`.
        dy : array of y's shape, optional
            Gradient of y; zeros where it is not given.
        dstate : (dh, dc), each array of the state's shape or None; optional
            Gradients of the final states; zeros where they are not given.
        need_x : bool
            Whether the gradient of x is wanted; without it `Grads.x` is None.
        out : mapping from every parameter's name to an array of its shape and the network's type, optional
            Where to write the gradients of the parameters, instead of new arrays. They must be writable and share no
            memory with each other or with the other arguments.
        accumulate : bool
            Whether to add to what is in ``out``, rather than to overwrite it.

        Returns
        -------
        Grads

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        RuntimeError
            If the parameters have changed since the tape was made.
        """
        if not isinstance(tape, Tape):
            raise TypeError(f"tape must be what forward returned last, got {type(tape).__name__}")
        if out is None:
            if accumulate:
                raise ValueError("accumulate=True needs out: the arrays that the gradients are added to")
            result = self._core_backward(tape, dy, dstate, need_x, None, False)
        else:
            if out.keys() != self._shapes.keys():
                raise ValueError(f"out must have the names {', '.join(self._shapes)}, got {', '.join(map(str, out))}")
            result = self._core_backward(tape, dy, dstate, need_x, [out[k] for k in self._shapes], bool(accumulate))
        if result is None:
            result = self._backward_converted(tape, dy, dstate, need_x, out, bool(accumulate))
        dx, dh0, dc0, params = result
        into = params if out is None else [out[name] for name in self._shapes]
        return Grads(dx, dh0, dc0, dict(zip(self._shapes, into, strict=True)))

    def stream(self, batch: int = 1) -> Stream:
        """Return a `Stream` over this network: its state kept inside, zeros at first, one step or chunk at a time.

        Parameters
        ----------
        batch : int
            B, the number of rows that run side by side.

        Raises
        ------
        ValueError
            If the network is bidirectional: its second direction starts at the end, which a stream does not have.
        """
        return Stream(self, batch)

    def _state_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        rows = self._num_layers * (2 if self._bidirectional else 1)
        batch = x_shape[:-1][1 - self._batch_first :][:1] if len(x_shape) == 3 else ()
        return (rows, *batch, self._hidden_size)

    def _y_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*x_shape[:-1], self._hidden_size * (2 if self._bidirectional else 1))

    def _convert(
        self, x: object, state: object, lengths: object
    ) -> tuple[Array, tuple[Array | None, Array | None] | None, Array | None]:
        """Return the arguments of a forward pass as plain arrays, or raise what is wrong with them."""
        x_ = _check.sequence(x, self._input_size, self._batch_first, self._dtype)
        shape = self._state_shape(x_.shape)
        batched = x_.ndim == 3
        steps = x_.shape[1 if batched and self._batch_first else 0]
        lengths_ = _check.lengths(lengths, steps, shape[1] if batched else 1, batched=batched)
        return x_, _check.pair(state, "state", shape, self._dtype), lengths_

    def _backward_converted(
        self, tape: Tape, dy: object, dstate: Any, need_x: bool, out: Mapping[str, Array] | None, accumulate: bool
    ) -> tuple[Array | None, Array, Array, list[Array]]:
        """Go backward with arguments that the core could not read as they came."""
        dy_ = None if dy is None else _check.floats(dy, "dy", self._y_shape(tape.x_shape), self._dtype)
        dstate_ = _check.pair(dstate, "dstate", self._state_shape(tape.x_shape), self._dtype, partial=True)
        if out is None:
            return _check.computed(self._core_backward(tape, dy_, dstate_, need_x, None, False))
        dh, dc = (None, None) if dstate is None else dstate
        others = {"dy": dy, "dstate[0]": dh, "dstate[1]": dc}
        targets = []
        for name, shape in self._shapes.items():
            targets.append(_check.buffer(out[name], f"out[{name!r}]", shape, self._dtype))
            _check.apart(targets[-1], f"out[{name!r}]", others)
            others[f"out[{name!r}]"] = targets[-1]
        # Into plain copies, which the core can write whatever the layout of the targets is.
        copies = [np.array(target, order="C") for target in targets]
        result = _check.computed(self._core_backward(tape, dy_, dstate_, need_x, copies, accumulate))
        for target, value in zip(targets, copies, strict=True):
            target[...] = value
        return result
