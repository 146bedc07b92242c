"""The class Stream: a network that is fed one step, or one chunk, at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _check, _core

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from .lstm import LSTM

    Array = NDArray[Any]

__all__ = ["Stream"]


class Stream:
    """An LSTM with its state kept inside, from ``lstm.stream(batch)``.

    It follows its network: new parameters are used from the next step on. Its steps give what one call over the whole
    sequence gives, to the last bit. Use one stream from one thread at a time.

    Parameters
    ----------
    lstm : LSTM
        The network, which must not be bidirectional.
    batch : int
        B, the number of rows that run side by side.

    Examples
    --------
    >>> stream = lstm.stream()
    >>> for x_t in x:
    ...     y_t = stream.step(x_t)
    """

    __slots__ = ("__weakref__", "_batch", "_core", "_lstm", "_run", "_step", "_time_major")

    def __init__(self, lstm: LSTM, batch: int = 1) -> None:
        batch = _check.size(batch, "batch")
        if lstm.bidirectional:
            raise ValueError("a bidirectional LSTM has no stream: its second direction starts at the end")
        self._lstm, self._batch = lstm, batch
        self._time_major = not lstm.batch_first
        self._core = _core.Stream(lstm._net, batch)
        self._step = self._core.step
        self._run = self._core.run

    def step(self, x: ArrayLike, out: Array | None = None) -> Array:
        """Take one step.

        Parameters
        ----------
        x : array (B, I), or (I,) if B is 1
            Input of this step.
        out : array (B, H), or (H,) if x is (I,); optional
            Written instead of a new array. It must have the network's type, be writable and not share x's memory.

        Returns
        -------
        array (B, H), or (H,) if x is (I,)
            Last layer's h; ``out`` itself if that was given.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value. The state has not changed then.
        """
        y = self._step(x, out)
        if y is not None:
            return y
        x_ = _check.array(x, "x")
        features = self._lstm.input_size
        if x_.shape != (self._batch, features) and (self._batch != 1 or x_.shape != (features,)):
            alone = f" or ({features},)" if self._batch == 1 else ""
            raise ValueError(f"x must have shape ({self._batch}, {features}){alone}, got {x_.shape}")
        target = self._target(x, x_, out)
        return self._give(self._step(_check.plain(x_, self._lstm.dtype), None), target, out)

    def run(self, x: ArrayLike, out: Array | None = None) -> Array:
        """Take as many steps as x has, and keep the state for the next call.

        Parameters
        ----------
        x : array (T, B, I), (B, T, I) if the network is ``batch_first``, or (T, I) if B is 1
            Input of T steps.
        out : array of the same shape with H instead of I, optional
            Written instead of a new array, as in `step`.

        Returns
        -------
        array of x's shape with H instead of I
            Last layer's h at every step.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value. The state has not changed then.
        """
        y = self._run(x, out) if self._time_major else None
        if y is not None:
            return y
        x_ = _check.array(x, "x")
        features = self._lstm.input_size
        rows = x_.shape[0 if self._lstm.batch_first else 1] if x_.ndim == 3 else 1
        if x_.ndim not in (2, 3) or x_.shape[-1] != features or rows != self._batch:
            order = f"{self._batch}, T" if self._lstm.batch_first else f"T, {self._batch}"
            alone = f" or (T, {features})" if self._batch == 1 else ""
            raise ValueError(f"x must have shape ({order}, {features}){alone}, got {x_.shape}")
        target = self._target(x, x_, out)
        single, swapped = x_.ndim == 2, x_.ndim == 3 and self._lstm.batch_first
        x_ = x_[:, None] if single else x_.swapaxes(0, 1) if swapped else x_
        y = self._run(_check.plain(x_, self._lstm.dtype), None)
        if y is not None:
            y = y[:, 0] if single else np.ascontiguousarray(y.swapaxes(0, 1)) if swapped else y
        return self._give(y, target, out)

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
    def state(self) -> tuple[Array, Array]:
        """The state (h, c), each array (L, B, H): a copy. Set it to continue from there; (L, H) will do if B is 1."""
        return self._core.get_state()

    @state.setter
    def state(self, value: tuple[ArrayLike, ArrayLike]) -> None:
        shape = (self._lstm.num_layers, self._batch, self._lstm.hidden_size)
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise TypeError(f"state must be a pair (h, c) of arrays of shape {shape}")
        h, c = (_check.array(v, f"state[{k}]") for k, v in enumerate(value))
        if self._batch == 1:
            h, c = (v[:, None] if v.ndim == 2 else v for v in (h, c))
        dtype = self._lstm.dtype
        self._core.set_state(_check.floats(h, "state[0]", shape, dtype), _check.floats(c, "state[1]", shape, dtype))

    @property
    def batch(self) -> int:
        """B, the number of rows."""
        return self._batch

    @property
    def lstm(self) -> LSTM:
        """The network."""
        return self._lstm

    def __repr__(self) -> str:
        return f"{self._lstm!r}.stream({self._batch})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self._lstm, self._batch, self.state)

    def _target(self, x: object, x_: Array, out: object) -> Array | None:
        """Check ``out`` before the state moves on."""
        if out is None:
            return None
        target = _check.buffer(out, "out", (*x_.shape[:-1], self._lstm.hidden_size), self._lstm.dtype)
        _check.apart(target, "out", {"x": x})
        return target

    def _give(self, y: Array | None, target: Array | None, out: Array | None) -> Array:
        y = _check.computed(y)
        if target is None or out is None:
            return y
        target[...] = y
        return out


def _rebuild(kind: type[Stream], lstm: LSTM, batch: int, state: tuple[Array, Array]) -> Stream:
    stream = kind(lstm, batch)
    stream.state = state
    return stream
