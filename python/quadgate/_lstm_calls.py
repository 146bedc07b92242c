"""How an LSTM is run: the signatures and their documentation; the arithmetic is all in the compiled core."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np

from . import _check
from ._calls import Calls
from .stream import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from ._calls import Pair, Shape
    from ._core import Tape

    Array = NDArray[Any]
    State = tuple[Array, Array]
    StateLike = tuple[ArrayLike, ArrayLike]


class Grads(NamedTuple):
    """What `LSTM.backward` returns.

    Attributes
    ----------
    x : array of x's shape, or None where ``need_x`` was False
    h0 : array (L*D, B, R), or (L*D, R) where x had no batch axis
        Gradient of the initial h, also where it was not given and stood for zeros.
    c0 : array (L*D, B, H), or (L*D, H)
        The same for c.
    params : dict
        Gradients by parameter name, each of its parameter's shape.
    """

    x: Array | None
    h0: Array
    c0: Array
    params: dict[str, Array]


class LSTMCalls(Calls):
    """The methods of `quadgate.LSTM` that run it."""

    __slots__ = ()

    @overload
    def __call__(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        return_cells: Literal[False] = False,
        out: Array | None = None,
    ) -> tuple[Array, State]: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        return_cells: Literal[True],
        out: Array | None = None,
    ) -> tuple[Array, State, Array]: ...
    def __call__(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        return_cells: bool = False,
        out: Array | None = None,
    ) -> Any:
        """Run the network, for inference: what acts by chance in training acts by its expectation.

        Parameters
        ----------
        x : array (T, B, I), (B, T, I) if ``batch_first``, or (T, I) without a batch
            The input sequences.
        state : (h0, c0), arrays (L*D, B, R) and (L*D, B, H), or (L*D, R) and (L*D, H) without a batch; optional
            The initial state; zeros where it is not given. R is ``proj_size``, or H without a projection.
        lengths : array of int (B,), optional
            How many steps of each row count, 0 to T, in any order; all T where it is not given. What lies behind is not
            read, its y is 0, and the final state is that of the row's last step. The reverse direction starts there.
        resets : array of bool (T, B), (B, T) if ``batch_first``, or (T,) without a batch; optional
            True at t starts a row anew before its step t: nothing passes between steps t-1 and t, in either direction.
            At t = 0 that replaces the row's initial state by zeros, except in a direction that reads backwards.
        return_cells : bool
            Whether to return ``cells`` too.
        out : array of y's shape and the network's type, optional
            Written instead of a new y. It must be writable and share no memory with the other arguments.

        Returns
        -------
        y : array (T, B, O), (B, T, O) or (T, O)
            Last layer's output at every step; ``out`` itself if that was given. O is D*R, forward direction first, or R
            where ``merge`` joins the directions otherwise.
        (h, c) : arrays of the state's shapes
            Final states. Passed on to the next call they continue the sequence.
        cells : array (T, B, D*H), (B, T, D*H) or (T, D*H)
            Only with ``return_cells``: last layer's c at every step, 0 past a row's length.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        """
        core = self._core_forward
        result = core(x, state, lengths, out, resets, return_cells)
        if result is not None:
            return result
        return self._infer(x, state, lengths, out, resets, return_cells)

    @overload
    def forward(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        return_cells: Literal[False] = False,
        trace: bool = False,
        rng: int | np.random.Generator | None = None,
    ) -> tuple[Array, State, Tape]: ...
    @overload
    def forward(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        return_cells: Literal[True],
        trace: bool = False,
        rng: int | np.random.Generator | None = None,
    ) -> tuple[Array, State, Array, Tape]: ...
    def forward(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        return_cells: bool = False,
        trace: bool = False,
        rng: int | np.random.Generator | None = None,
    ) -> Any:
        """Run the network for training: keep what `backward` needs, and drop what is to be dropped.

        Parameters
        ----------
        x, state, lengths, resets, return_cells
            As in `__call__`.
        trace : bool
            Whether ``tape.trace`` is to hold a `Trace`: the gates and cells of every step, and after `backward` the
            norms of their gradients. It costs a copy of them all.
        rng : int or numpy.random.Generator, optional
            Where masks are drawn from in a network with ``dropout``, ``recurrent_dropout``, ``weight_drop`` or
            ``zoneout``; the network's own generator where it is not given. The number of threads is no matter.

        Returns
        -------
        y, (h, c)
            As in `__call__`, and equal to what that returns to the last bit where there are no masks.
        cells
            As in `__call__`, only with ``return_cells``.
        tape : Tape
            For `backward`, any number of times, until the parameters change. ``tape.nbytes`` is the memory it holds,
            ``tape.masks`` the masks by name, arrays of bool, where True dropped a number or kept an old one.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        """
        if trace is False and rng is None and not self._mask_plan:
            core = self._core_forward_tape
            result = core(x, state, lengths, resets, return_cells, None)
            if result is not None:
                return result
        return self._train(x, state, lengths, resets, return_cells, trace, rng)

    def backward(
        self,
        tape: Tape,
        dy: ArrayLike | None = None,
        dstate: tuple[ArrayLike | None, ArrayLike | None] | None = None,
        *,
        dcells: ArrayLike | None = None,
        need_x: bool = True,
        out: Mapping[str, Array] | None = None,
        accumulate: bool = False,
    ) -> Grads:
        """Return the gradients of a loss from its gradients with respect to y, the final states, and the cells.

        Parameters
        ----------
        tape : Tape
            From `forward`.
        dy : array of y's shape, optional
            Gradient of y; zeros where it is not given.
        dstate : (dh, dc), each array of its state's shape or None; optional
            Gradients of the final states; zeros where they are not given.
        dcells : array of the cells' shape, optional
            Gradient of the cells that ``return_cells`` returns; zeros where it is not given.
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
        return Grads(*self._gradients(tape, dy, dstate, dcells, need_x, out, accumulate))

    def stream(self, batch: int = 1) -> Stream:
        """Return a `Stream` over this network: its state kept inside, zeros at first, one step or chunk at a time.

        Parameters
        ----------
        batch : int
            B, the number of rows that run side by side.

        Raises
        ------
        ValueError
            If the network is bidirectional or reverse: it starts at the end, which a stream does not have.
        """
        return Stream(self, batch)

    def _pair(self, value: object, name: str, shapes: tuple[Shape, Shape], *, partial: bool = False) -> Pair:
        return _check.pair(value, name, shapes, self._options.dtype, partial=partial)

    def _parts(self, value: Any, name: str) -> dict[str, object]:
        h, c = (None, None) if value is None else value
        return {f"{name}[0]": h, f"{name}[1]": c}
