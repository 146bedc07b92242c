"""The classes Stream and RNNStream: a network that is fed one step, or one chunk, at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, SupportsIndex, overload

import numpy as np

from . import _check, _core, _params, _pickling, _run, _stream_input
from ._check import ZERO
from ._network import Network

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ._options import Options
    from ._params import Snapshot

    Array = NDArray[Any]

__all__ = ["RNNStream", "Stream"]


class Streamable(Protocol):
    """The part of a network that a stream uses."""

    _options: Options
    _snapshot: Snapshot


if TYPE_CHECKING:
    from typing_extensions import TypeVar  # known to type checkers, not needed at run time

    Net = TypeVar("Net", bound=Streamable, default=Any)
else:
    from typing import TypeVar

    Net = TypeVar("Net", bound=Streamable)


class BaseStream(_pickling.Pickled, Generic[Net]):
    """The part of a stream that does not depend on the form of its state."""

    __slots__ = ("__weakref__", "_batch_size", "_core", "_network", "_run", "_step", "_time_major")

    _elman: ClassVar[bool]
    state: Any

    def __init__(self, network: Net, batch_size: SupportsIndex = 1) -> None:
        if not self._fits(network):
            kind = "RNN" if self._elman else "LSTM"
            raise TypeError(f"{kind.lower()} must be an {kind}, got {_check.shown(network)}")
        batch_size = _check.size(batch_size, "batch_size")
        o = network._options
        for name in ("bidirectional", "reverse"):
            if getattr(o, name):
                raise ValueError(f"a {name} {type(network).__name__} has no stream: it starts at the end of a sequence")
        self._network, self._batch_size = network, batch_size
        self._time_major = not o.batch_first
        try:
            self._core = _core.Stream(network._snapshot.core, batch_size)
        except MemoryError:
            raise MemoryError(f"the state of a stream of {batch_size} rows does not fit into memory") from None
        self._step = self._core.step
        self._run = self._core.run

    def _fits(self, network: object) -> bool:
        return isinstance(network, Network) and network._elman is self._elman

    def step(
        self,
        x: ArrayLike,
        out: Array | None = None,
        mask: ArrayLike | None = None,
        padding_output: Literal["zero", "last"] = "zero",
    ) -> Array:
        """Take one step.

        Parameters
        ----------
        x : array (B, I), or (I,) if B is 1
            Input of this step.
        out : array (B, O), or (O,) if x is (I,); optional
            Filled and returned instead of a new array. It must have the network's type, be writable and not share x's
            memory.
        mask : array of bool, or of ints 0 and 1, (B,), or () if x is (I,); optional
            False for rows that skip this step: their state stays as it is.
        padding_output : "zero" or "last"
            y of those rows: 0, or the last layer's h in the state, which is their last y. It has no effect without a
            mask; with "last" the network must have no residual or highway shortcut, where y is not h.

        Returns
        -------
        array (B, O), or (O,) if x is (I,)
            Last layer's output: h, unless there is a ``shortcut``; ``out`` itself if that was given.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value. The state has not changed then.
        """
        if mask is None and padding_output is ZERO:
            core = self._step
            y = core(x, out, self._network._snapshot.core)
            if y is not None:
                return y
        x_ = _stream_input.step(x, self._batch_size, self._network._options.input_size)
        if mask is not None:
            kept = _check.bools(_check.array(mask, "mask", _check.BOOLS, "biu"), "mask", x_.shape[:-1])
            target = _stream_input.target(out, self._network._options, x_, mask=kept)
            return _stream_input.into_out(self._step_of_some(x_, kept, padding_output), target, out)
        _check.padding(padding_output)
        target = _stream_input.target(out, self._network._options, x_)
        plain = _check.plain(x_, self._network._options.dtype)
        return _stream_input.into_out(self._step(plain, None, self._network._snapshot.core), target, out)

    def _take(
        self,
        x: ArrayLike,
        out: Array | None,
        resets: ArrayLike | None,
        cells: bool,
        mask: ArrayLike | None,
        padding_output: str,
    ) -> list[Array]:
        """Take as many steps as x has; return y and, with `cells`, c at every step."""
        core = self._network._snapshot.core
        plain_call = self._time_major and mask is None and padding_output is ZERO
        result = self._run(x, out, resets, cells, core) if plain_call else None
        if result is not None:
            return list(result) if cells else [result]
        x_ = _stream_input.chunk(x, self._batch_size, self._network._options.input_size, self._time_major)
        read = None if resets is None else _check.array(resets, "resets", _check.BOOLS, "biu")
        resets_ = None if read is None else _check.bools(read, "resets", x_.shape[:-1])
        if mask is not None:
            mask_ = _check.array(mask, "mask", _check.BOOLS, "biu")
            target = _stream_input.target(out, self._network._options, x_, read, mask_)
            both = self._masked(x_, resets_, cells, mask_, padding_output)
            return [_stream_input.into_out(both[0], target, out), *both[1:]]
        _check.padding(padding_output)
        target = _stream_input.target(out, self._network._options, x_, read)
        single, swapped = x_.ndim == 2, x_.ndim == 3 and not self._time_major
        x_ = x_[:, None] if single else x_.swapaxes(0, 1) if swapped else x_
        if resets_ is not None and (single or swapped):
            resets_ = np.ascontiguousarray(resets_[:, None] if single else resets_.T)
        plain = _check.plain(x_, self._network._options.dtype)
        result = _check.computed(self._run(plain, None, resets_, cells, core))
        both = [
            a[:, 0] if single else np.ascontiguousarray(a.swapaxes(0, 1)) if swapped else a
            for a in (result if cells else (result,))
        ]
        return [_stream_input.into_out(both[0], target, out), *both[1:]]

    def _masked(self, x: Array, resets: Array | None, cells: bool, mask: Array, padding_output: object) -> list[Array]:
        """Take steps with a mask by one call of the network, whose bits are those of single steps."""
        _stream_input.repeats_last(padding_output, self._network._options)
        h, c = self._core.get_state()
        single = x.ndim == 2
        start: Any = (h[:, 0], c[:, 0]) if single else (h, c)
        state_name = "h0" if self._elman else None
        given = start[0] if self._elman else start
        net: Any = self._network
        y, (h, c), *rest = _run.infer(net, x, given, None, None, resets, cells, state_name, mask, padding_output)
        self._core.set_state(*((h[:, None], c[:, None]) if single else (h, c)))
        return [y, *rest]

    def _step_of_some(self, x: Array, kept: Array, padding_output: object) -> Array:
        """Take one step of all rows, and keep the others' state: rows do not depend on each other.

        The new state is put in place at once, so that an interrupt leaves it as it was.
        """
        last = _stream_input.repeats_last(padding_output, self._network._options)
        plain = _check.plain(x.reshape(1, self._batch_size, -1), self._network._options.dtype)
        if not self._time_major:
            plain = plain.swapaxes(0, 1)
        before, others = self._core.get_state(), ~kept.reshape(self._batch_size, 1)
        y, after = _check.computed(self._network._snapshot.forward(plain, before, None, None, None, False))
        rows: Array = y.reshape(self._batch_size, -1)
        for old, new in zip(before, after, strict=True):
            np.copyto(new, old, where=others)
        np.copyto(rows, before[0][-1] if last else 0, where=others)
        self._core.set_state(*after)
        return rows.reshape(*x.shape[:-1], -1)

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Set the state to zeros.

        Parameters
        ----------
        rows : array of bool (B,), or list of int, optional
            True for the rows to reset, or their numbers; all if it is not given.

        Raises
        ------
        TypeError, ValueError
            If ``rows`` has a wrong type or shape.
        """
        self._core.reset(None if rows is None else _check.rows(rows, self._batch_size))

    @property
    def batch_size(self) -> int:
        """B, the number of rows."""
        return self._batch_size

    def __repr__(self) -> str:
        return f"{self._network!r}.stream(batch_size={self._batch_size})"

    def __getstate__(self) -> dict[str, Any]:
        h, c = self._core.get_state()
        state = {"h": _params.pack(h), "c": _params.pack(c)}
        return {"format": _pickling.FORMAT, "network": self._network, "batch_size": self._batch_size, "state": state}

    def __setstate__(self, state: Any) -> None:
        if self._take_attributes(state):
            return
        _pickling.check_format(state, ("network", "batch_size", "state"))
        network, parts = state["network"], state["state"]
        if not self._fits(network) or not hasattr(network, "_snapshot") or not isinstance(parts, dict):
            raise ValueError(f"the pickle of a {type(self).__name__} holds another kind of network or state")
        BaseStream.__init__(self, network, state["batch_size"])
        o = network._options
        columns = {"h": o.state_columns, "c": o.cell_columns}
        h, c = (
            _params.unpack(parts.get(name), name, (o.num_layers, self._batch_size, n), o.dtype)
            for name, n in columns.items()
        )
        self._core.set_state(h, c)


class Stream(BaseStream[Net]):
    """An LSTM with its state kept inside, from ``lstm.stream(batch_size)``.

    It follows its network: new parameters are used from the next step on. Its steps give what one call over the whole
    sequence gives, to the last bit. Use one stream from one thread at a time.

    Parameters
    ----------
    lstm : LSTM
        The network, which must be neither bidirectional nor reverse.
    batch_size : int
        B, the number of rows that run side by side.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> stream = qg.LSTM(3, 4).stream()
    >>> y_t = stream.step(np.zeros((1, 3), np.float32))
    """

    __slots__ = ()
    __module__ = "quadgate"  # the name that pickles and errors show

    _elman = False

    def __init__(self, lstm: Net, batch_size: SupportsIndex = 1) -> None:
        super().__init__(lstm, batch_size)

    @overload
    def run(
        self,
        x: ArrayLike,
        out: Array | None = None,
        *,
        resets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        padding_output: Literal["zero", "last"] = "zero",
        return_cells: Literal[False] = False,
    ) -> Array: ...
    @overload
    def run(
        self,
        x: ArrayLike,
        out: Array | None = None,
        *,
        resets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        padding_output: Literal["zero", "last"] = "zero",
        return_cells: Literal[True],
    ) -> tuple[Array, Array]: ...
    @overload
    def run(
        self,
        x: ArrayLike,
        out: Array | None = None,
        *,
        resets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        padding_output: Literal["zero", "last"] = "zero",
        return_cells: bool,
    ) -> Array | tuple[Array, Array]: ...
    def run(
        self,
        x: ArrayLike,
        out: Array | None = None,
        *,
        resets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        padding_output: Literal["zero", "last"] = "zero",
        return_cells: bool = False,
    ) -> Array | tuple[Array, Array]:
        """Take as many steps as x has, and keep the state for the next call.

        Parameters
        ----------
        x : array (T, B, I), (B, T, I) if the network is ``batch_first``, or (T, I) if B is 1
            Input of T steps.
        out : array of the same shape with O instead of I, optional
            Filled and returned instead of a new array, as in `step`.
        resets : array of bool, or of ints 0 and 1, of x's shape without its last axis, optional
            True to start a row anew before that step, from zeros.
        mask : array of bool, or of ints 0 and 1, of the same shape; optional
            False for steps to skip, as in `LSTM.__call__`: the state stays as it is.
        padding_output : "zero" or "last"
            As in `step`, for y at masked steps.
        return_cells : bool
            True to return (y, cells) instead of y; cells holds the last layer's c at every step, H instead of I.

        Returns
        -------
        y : array of x's shape with O instead of I
            Last layer's output at every step; ``out`` itself if that was given.
        cells : array of x's shape with H instead of I
            Only with ``return_cells``.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value. The state has not changed then.
        """
        y, *cells = self._take(x, out, resets, _check.flag(return_cells, "return_cells"), mask, padding_output)
        return (y, cells[0]) if cells else y

    @property
    def state(self) -> tuple[Array, Array]:
        """The state (h, c), arrays (L, B, R) and (L, B, H): a copy. Set it to continue from there.

        If B is 1, (L, R) and (L, H) will do; None for one of the two is zeros.
        """
        return self._core.get_state()

    @state.setter
    def state(self, value: tuple[ArrayLike | None, ArrayLike | None]) -> None:
        o = self._network._options
        shapes = [(o.num_layers, self._batch_size, columns) for columns in (o.state_columns, o.cell_columns)]
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            needed = f"a pair (h, c) of arrays of shapes {shapes[0]} and {shapes[1]}"
            raise TypeError(f"state must be {needed}, got {_check.shown(value)}")
        self._core.set_state(
            *(
                np.zeros(shape, o.dtype) if part is None else _stream_input.state(part, f"state[{k}]", shape, o.dtype)
                for k, (part, shape) in enumerate(zip(value, shapes, strict=True))
            )
        )

    @property
    def lstm(self) -> Net:
        """The network."""
        return self._network


class RNNStream(BaseStream[Net]):
    """An RNN with its state kept inside, from ``rnn.stream(batch_size)``: like `Stream`, but its state is h alone.

    Parameters
    ----------
    rnn : RNN
        The network, which must be neither bidirectional nor reverse.
    batch_size : int
        B, the number of rows that run side by side.
    """

    __slots__ = ()
    __module__ = "quadgate"  # the name that pickles and errors show

    _elman = True

    def __init__(self, rnn: Net, batch_size: SupportsIndex = 1) -> None:
        super().__init__(rnn, batch_size)

    def run(
        self,
        x: ArrayLike,
        out: Array | None = None,
        *,
        resets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        padding_output: Literal["zero", "last"] = "zero",
    ) -> Array:
        """Take as many steps as x has, and keep the state for the next call.

        Parameters
        ----------
        x : array (T, B, I), (B, T, I) if the network is ``batch_first``, or (T, I) if B is 1
            Input of T steps.
        out : array of the same shape with O instead of I, optional
            Filled and returned instead of a new array, as in `step`.
        resets : array of bool, or of ints 0 and 1, of x's shape without its last axis, optional
            True to start a row anew before that step, from zeros.
        mask : array of bool, or of ints 0 and 1, of the same shape; optional
            False for steps to skip, as in `LSTM.__call__`: the state stays as it is.
        padding_output : "zero" or "last"
            As in `step`, for y at masked steps.

        Returns
        -------
        array of x's shape with O instead of I
            Last layer's output at every step; ``out`` itself if that was given.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value. The state has not changed then.
        """
        return self._take(x, out, resets, False, mask, padding_output)[0]

    @property
    def state(self) -> Array:
        """The state h, an array (L, B, H): a copy. Set it to continue from there; (L, H) will do if B is 1."""
        return self._core.get_state()[0]

    @state.setter
    def state(self, value: ArrayLike) -> None:
        o = self._network._options
        h = _stream_input.state(value, "state", (o.num_layers, self._batch_size, o.state_columns), o.dtype)
        self._core.set_state(h, np.empty((*h.shape[:-1], 0), o.dtype))

    @property
    def rnn(self) -> Net:
        """The network."""
        return self._network
