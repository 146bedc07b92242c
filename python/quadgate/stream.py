"""The classes Stream and RNNStream: a network that is fed one step, or one chunk, at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np

from . import _check, _core

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ._calls import Calls
    from ._lstm_calls import LSTMCalls
    from .rnn import RNN

    Array = NDArray[Any]

__all__ = ["RNNStream", "Stream"]


class BaseStream:
    """What streams over an LSTM and an RNN share: all but what a state is to the caller."""

    __slots__ = ("__weakref__", "_batch", "_core", "_network", "_run", "_step", "_time_major")

    state: Any

    def __init__(self, network: Calls, batch: int = 1) -> None:
        batch = _check.size(batch, "batch")
        for name in ("bidirectional", "reverse"):
            if getattr(network, name):
                kind = type(network).__name__
                raise ValueError(f"a {name} {kind} has no stream: it starts at the end of a sequence")
        self._network, self._batch = network, batch
        self._time_major = not network.batch_first
        self._core = _core.Stream(network._net, batch)
        self._step = self._core.step
        self._run = self._core.run

    def step(self, x: ArrayLike, out: Array | None = None) -> Array:
        """Take one step.

        Parameters
        ----------
        x : array (B, I), or (I,) if B is 1
            Input of this step.
        out : array (B, O), or (O,) if x is (I,); optional
            Written instead of a new array. It must have the network's type, be writable and not share x's memory.

        Returns
        -------
        array (B, O), or (O,) if x is (I,)
            Last layer's output, h but for a ``shortcut``; ``out`` itself if that was given.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value. The state has not changed then.
        """
        core = self._step
        y = core(x, out)
        if y is not None:
            return y
        x_ = _check.array(x, "x")
        features = self._network.input_size
        if x_.shape != (self._batch, features) and (self._batch != 1 or x_.shape != (features,)):
            alone = f" or ({features},)" if self._batch == 1 else ""
            raise ValueError(f"x must have shape ({self._batch}, {features}){alone}, got {x_.shape}")
        target = self._target(x, x_, out)
        return self._give(self._step(_check.plain(x_, self._network.dtype), None), target, out)

    def _take(self, x: ArrayLike, out: Array | None, resets: ArrayLike | None, cells: bool) -> list[Array]:
        """Take as many steps as x has; return y and, with `cells`, c at every step."""
        result = self._run(x, out, resets, cells) if self._time_major else None
        if result is not None:
            return list(result) if cells else [result]
        x_ = _check.array(x, "x")
        features = self._network.input_size
        rows = x_.shape[0 if self._network.batch_first else 1] if x_.ndim == 3 else 1
        if x_.ndim not in (2, 3) or x_.shape[-1] != features or rows != self._batch:
            order = f"{self._batch}, T" if self._network.batch_first else f"T, {self._batch}"
            alone = f" or (T, {features})" if self._batch == 1 else ""
            raise ValueError(f"x must have shape ({order}, {features}){alone}, got {x_.shape}")
        resets_ = _check.resets(resets, x_.shape[:-1])
        target = self._target(x, x_, out, resets)
        single, swapped = x_.ndim == 2, x_.ndim == 3 and self._network.batch_first
        x_ = x_[:, None] if single else x_.swapaxes(0, 1) if swapped else x_
        if resets_ is not None and (single or swapped):
            resets_ = np.ascontiguousarray(resets_[:, None] if single else resets_.T)
        result = _check.computed(self._run(_check.plain(x_, self._network.dtype), None, resets_, cells))
        both = [
            a[:, 0] if single else np.ascontiguousarray(a.swapaxes(0, 1)) if swapped else a
            for a in (result if cells else (result,))
        ]
        return [self._give(both[0], target, out), *both[1:]]

    def reset(self, mask: ArrayLike | None = None) -> None:
        """Set the state to zeros.

        Parameters
        ----------
        mask : array of bool (B,), optional
            Which rows; all where it is not given.

        Raises
        ------
        TypeError, ValueError
            If the mask has a wrong type or shape.
        """
        self._core.reset(None if mask is None else _check.mask(mask, self._batch))

    @property
    def batch(self) -> int:
        """B, the number of rows."""
        return self._batch

    def __repr__(self) -> str:
        return f"{self._network!r}.stream({self._batch})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._network, self._batch, self.state)

    def _one(self, value: object, name: str, shape: tuple[int, ...]) -> Array:
        """Read one array of a state; without its batch axis, too, where B is 1."""
        array = _check.array(value, name)
        if self._batch == 1 and array.ndim == 2:
            array = array[:, None]
        return _check.floats(array, name, shape, self._network.dtype)

    def _target(self, x: object, x_: Array, out: object, resets: object = None) -> Array | None:
        """Check ``out`` before the state moves on."""
        if out is None:
            return None
        target = _check.buffer(out, "out", (*x_.shape[:-1], self._network._options.outputs), self._network.dtype)
        _check.apart(target, "out", {"x": x, "resets": resets})
        return target

    def _give(self, y: Array | None, target: Array | None, out: Array | None) -> Array:
        y = _check.computed(y)
        if target is None or out is None:
            return y
        target[...] = y
        return out


class Stream(BaseStream):
    """An LSTM with its state kept inside, from ``lstm.stream(batch)``.

    It follows its network: new parameters are used from the next step on. Its steps give what one call over the whole
    sequence gives, to the last bit. Use one stream from one thread at a time.

    Parameters
    ----------
    lstm : LSTM
        The network, which must be neither bidirectional nor reverse.
    batch : int
        B, the number of rows that run side by side.

    Examples
    --------
    >>> stream = lstm.stream()
    >>> for x_t in x:
    ...     y_t = stream.step(x_t)
    """

    __slots__ = ()

    def __init__(self, lstm: LSTMCalls, batch: int = 1) -> None:
        super().__init__(lstm, batch)

    @overload
    def run(
        self,
        x: ArrayLike,
        out: Array | None = None,
        *,
        resets: ArrayLike | None = None,
        return_cells: Literal[False] = False,
    ) -> Array: ...
    @overload
    def run(
        self, x: ArrayLike, out: Array | None = None, *, resets: ArrayLike | None = None, return_cells: Literal[True]
    ) -> tuple[Array, Array]: ...
    def run(
        self,
        x: ArrayLike,
        out: Array | None = None,
        *,
        resets: ArrayLike | None = None,
        return_cells: bool = False,
    ) -> Array | tuple[Array, Array]:
        """Take as many steps as x has, and keep the state for the next call.

        Parameters
        ----------
        x : array (T, B, I), (B, T, I) if the network is ``batch_first``, or (T, I) if B is 1
            Input of T steps.
        out : array of the same shape with O instead of I, optional
            Written instead of a new array, as in `step`.
        resets : array of bool of x's shape without its last axis, optional
            True where a row is to start anew before that step, from zeros.
        return_cells : bool
            Whether to return (y, cells) instead of y; cells holds the last layer's c at every step, H instead of I.

        Returns
        -------
        array of x's shape with O instead of I
            Last layer's output at every step.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value. The state has not changed then.
        """
        y, *cells = self._take(x, out, resets, _check.flag(return_cells, "return_cells"))
        return (y, cells[0]) if cells else y

    @property
    def state(self) -> tuple[Array, Array]:
        """The state (h, c), arrays (L, B, R) and (L, B, H): a copy. Set it to continue from there.

        If B is 1, (L, R) and (L, H) will do.
        """
        return self._core.get_state()

    @state.setter
    def state(self, value: tuple[ArrayLike, ArrayLike]) -> None:
        o = self._network._options
        shapes = [(o.num_layers, self._batch, columns) for columns in (o.state_columns, o.cell_columns)]
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise TypeError(f"state must be a pair (h, c) of arrays of shapes {shapes[0]} and {shapes[1]}")
        self._core.set_state(*(self._one(value[k], f"state[{k}]", shapes[k]) for k in (0, 1)))

    @property
    def lstm(self) -> LSTMCalls:
        """The network."""
        return cast("LSTMCalls", self._network)


class RNNStream(BaseStream):
    """An RNN with its state kept inside, from ``rnn.stream(batch)``: as `Stream`, but that its state is h alone.

    Parameters
    ----------
    rnn : RNN
        The network, which must be neither bidirectional nor reverse.
    batch : int
        B, the number of rows that run side by side.
    """

    __slots__ = ()

    def __init__(self, rnn: RNN, batch: int = 1) -> None:
        super().__init__(rnn, batch)

    def run(self, x: ArrayLike, out: Array | None = None, *, resets: ArrayLike | None = None) -> Array:
        """Take as many steps as x has, and keep the state for the next call.

        Parameters
        ----------
        x : array (T, B, I), (B, T, I) if the network is ``batch_first``, or (T, I) if B is 1
            Input of T steps.
        out : array of the same shape with O instead of I, optional
            Written instead of a new array, as in `step`.
        resets : array of bool of x's shape without its last axis, optional
            True where a row is to start anew before that step, from zeros.

        Returns
        -------
        array of x's shape with O instead of I
            Last layer's output at every step.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value. The state has not changed then.
        """
        return self._take(x, out, resets, False)[0]

    @property
    def state(self) -> Array:
        """The state h, an array (L, B, H): a copy. Set it to continue from there; (L, H) will do if B is 1."""
        return self._core.get_state()[0]

    @state.setter
    def state(self, value: ArrayLike) -> None:
        o = self._network._options
        h = self._one(value, "state", (o.num_layers, self._batch, o.state_columns))
        self._core.set_state(h, np.empty((*h.shape[:-1], 0), o.dtype))

    @property
    def rnn(self) -> RNN:
        """The network."""
        return cast("RNN", self._network)


def _rebuild(kind: type[BaseStream], network: Any, batch: int, state: Any) -> BaseStream:
    stream = kind(network, batch)
    stream.state = state
    return stream
