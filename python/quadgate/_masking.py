"""Masked steps: gather the steps that count, and scatter the results back to where they belong.

The core knows lengths only. A call with a mask runs over a compact sequence, in which each row's kept steps follow one
another. Rows that are padded on the right only are compact as they are: their mask becomes lengths, and nothing is
copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _check

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ._network import Network
    from ._options import Options

    Array = NDArray[Any]
    Flags = NDArray[np.bool_]
    Pair = tuple[Array | None, Array | None] | None


BLOCK = 1 << 18  # bytes moved at a time within y: they stay in the cache


class Held(NamedTuple):
    """Masked steps of one direction that repeat a value, as places in arrays of x's layout, leading axes merged.

    Attributes
    ----------
    at, source : array of int
        Masked steps, and the kept steps whose value they repeat.
    first_at, first_row : array of int
        Steps ahead of the direction's first kept step, and the rows whose initial state they repeat.
    """

    at: Array
    source: Array
    first_at: Array
    first_row: Array


class Masking:
    """Mask of one call, together with its lengths and resets; all arrays are time-major until they meet x.

    Attributes
    ----------
    leading : tuple of int
        x's axes without the last.
    lengths : array of int64 (B,)
        Kept steps of each row.
    resets : array of bool of the compact x's leading shape, or None
        Resets that the core applies: at a kept step, or at masked steps just ahead of it.
    """

    def __init__(
        self, o: Options, leading: tuple[int, ...], mask: Flags, lengths: Array | None, resets: Flags | None, last: bool
    ) -> None:
        self._o, self.leading, self._last = o, leading, last
        self._swapped = o.batch_first and len(leading) == 2
        kept = self._time_major(mask)
        self._within: Flags | None = None
        if lengths is not None:
            self._within = np.arange(len(kept))[:, None] < lengths
            kept = kept & self._within
        self._kept = kept
        self.lengths = kept.sum(axis=0, dtype=np.int64)
        self._moved = bool((kept[1:] > kept[:-1]).any())
        self.resets = resets
        self._ends: tuple[Flags, Flags] | None = None
        self._count: Array | None = None
        if resets is not None and len(kept):
            self._merge(self._time_major(resets))

    @property
    def nbytes(self) -> int:
        """Memory of its larger arrays."""
        held = (self._kept, self._within, self._count, self._steps if self._moved else None)
        return sum(a.nbytes for a in held if a is not None)

    @cached_property
    def _rows(self) -> Array:
        return np.arange(self._kept.shape[1])

    @cached_property
    def _steps(self) -> Array:
        """Steps that the core sees, (T', B): each row's kept ones, then any; if none moves, all steps."""
        if self._moved:
            return np.argsort(~self._kept, axis=0, kind="stable")[: self.lengths.max()]
        return np.broadcast_to(np.arange(len(self._kept))[:, None], self._kept.shape)

    def _merge(self, resets: Flags) -> None:
        """Move each reset at a masked step to the next kept one, and note those before the first and after the last."""
        within = resets if self._within is None else resets & self._within
        self._count = count = within.cumsum(axis=0)
        at_kept = np.take_along_axis(count, self._steps, axis=0)
        if self._moved:
            self.resets = np.ascontiguousarray(self._own_layout(np.diff(at_kept, axis=0, prepend=0) > 0))
        # A reset at step 0 separates nothing for a direction that ends there.
        empty = self.lengths == 0
        before = np.where(empty, count[-1], at_kept[0]) > count[0]
        after = count[-1] > np.where(empty, 0, at_kept[self.lengths - 1, self._rows])
        self._ends = before, after

    def gather(self, a: Array) -> Array:
        """Return the kept steps of an array with x's leading axes."""
        if not self._moved:
            return a
        return self._flat(a).take(self._own_layout(self._index(self._steps, self._rows, len(self._kept))), axis=0)

    def gather_drawn(self, drawn: dict[str, Flags], time_axis: Iterable[str]) -> dict[str, Flags]:
        """Return the masks of dropout and zoneout at the kept steps; they are drawn for all steps, and time-major."""
        if not self._moved:
            return drawn
        return {**drawn, **{name: drawn[name][self._steps, self._rows] for name in time_axis}}

    def initial(self, state: Pair) -> Pair:
        """Return the initial state without what a reset keeps from a direction that reads backwards."""
        if state is None or self._ends is None:
            return state
        return self._cleared(state, {True: self._ends[1] & (self.lengths > 0)})

    def final(self, state: Any) -> None:
        """Clear the final states, in place, of rows with a reset after their direction's last kept step."""
        if self._ends is not None:
            for a in state:
                self._clear(a, {True: self._ends[0], False: self._ends[1]})

    def buffer(self, columns: int, dtype: np.dtype[Any]) -> Array | None:
        """Return memory for y at all steps, whose first steps hold y at the kept ones until `y` moves them.

        Inference only needs one array of y's size then: fresh memory costs more than the copy. None if y would not be
        contiguous, or need not move.
        """
        if not self._moved or self._swapped:
            return None
        return np.empty((*self.leading, columns), dtype)

    def compact(self, buffer: Array) -> Array:
        """Return the part of a buffer that the core writes."""
        return buffer[: len(self._steps)]

    def y(self, y: Array, h0: Array | None, buffer: Array | None = None) -> Array:
        """Return y at all steps from y at the kept ones."""
        whole = self._scatter(y) if buffer is None else self._scatter_within(buffer)
        if self._last:
            self._repeat(whole, h0 if self._o.y_is_h else None)
        return whole

    def cells(self, cells: Array, c0: Array | None) -> Array:
        """Return the cells at all steps; masked steps repeat the c before them."""
        whole = self._scatter(cells)
        self._repeat(whole, c0)
        return whole

    def steps(self, a: Array) -> Array:
        """Return an array (L*D, T, B) or (L*D, T, B, N) from the kept steps', with zeros at the others."""
        if not self._moved:
            return a
        whole = np.zeros((a.shape[0], *self._kept.shape, *a.shape[3:]), a.dtype)
        steps, rows = np.nonzero(np.arange(len(self._steps))[:, None] < self.lengths)
        whole[:, self._steps[steps, rows], rows] = a[:, steps, rows]
        return whole

    def gradients(
        self, dy: Array | None, dcells: Array | None, dstate: Pair
    ) -> tuple[Array | None, Array | None, Pair]:
        """Return the gradients of the compact call's results from those of the whole one's."""
        if dstate is not None and self._ends is not None:
            dstate = self._cleared(dstate, {True: self._ends[0], False: self._ends[1]})
        dy = None if dy is None else self._back(dy) if self._last else self.gather(dy)
        return dy, None if dcells is None else self._back(dcells), dstate

    def input_gradients(
        self, dx: Array | None, dh0: Array | None, dc0: Array | None, dy: Array | None, dcells: Array | None
    ) -> Array | None:
        """Return dx at all steps; complete the gradients of the initial states in place."""
        if dh0 is not None and dc0 is not None and self._ends is not None:
            for a in (dh0, dc0):
                self._clear(a, {True: self._ends[1] & (self.lengths > 0)})
        for d, into in ((dy if self._last and self._o.y_is_h else None, dh0), (dcells, dc0)):
            if d is not None and into is not None:
                for part, held, state in self._halves(d, into):
                    np.add.at(state, held.first_row, part[held.first_at])
        return None if dx is None else self._scatter(dx)

    def _time_major(self, a: Array) -> Array:
        """Return the view (T, B) of an array of x's leading shape."""
        return a[:, None] if a.ndim == 1 else a.T if self._swapped else a

    def _own_layout(self, a: Array) -> Array:
        """Return the view of x's leading axes from (T, B)."""
        return a[:, 0] if len(self.leading) == 1 else a.T if self._swapped else a

    def _index(self, steps: Array, rows: Array, length: int) -> Array:
        """Return the places of steps and rows in an array of x's layout and `length` steps, its leading axes merged."""
        return rows * length + steps if self._swapped else steps * len(self._rows) + rows

    def _flat(self, a: Array) -> Array:
        n = len(self.leading)
        return a.reshape(-1, *a.shape[n:])

    def _scatter(self, compact: Array) -> Array:
        """Return an array of x's leading shape with zeros at masked steps."""
        if not self._moved:
            return compact
        whole: Array = self._flat(compact).take(self._own_layout(self._sources), axis=0)
        whole[self._own_layout(~self._kept)] = 0
        return whole

    def _scatter_within(self, whole: Array) -> Array:
        """Do the same within one time-major array: blocks from the end, since no step comes from a later one."""
        flat, sources, n = self._flat(whole), self._own_layout(self._sources), len(whole)
        block = max(1, BLOCK // max(1, whole[:1].nbytes))
        for end in range(n, 0, -block):
            part = slice(max(0, end - block), end)
            whole[part] = flat.take(sources[part], axis=0)
        whole[self._own_layout(~self._kept)] = 0
        return whole

    @property
    def _sources(self) -> Array:
        """Places in a compact array of the steps (T, B); any at masked steps."""
        return self._index((self._kept.cumsum(axis=0) - 1).clip(0), self._rows, len(self._steps))

    def _held(self, reverse: bool) -> Held:
        """Return the masked steps of one direction that repeat something: those that no reset parts from it."""
        steps, rows = np.nonzero(~self._kept if self._within is None else self._within & ~self._kept)
        rank = self._kept.cumsum(axis=0)[steps, rows]  # kept steps up to this one
        n = self.lengths[rows]
        source = rank if reverse else rank - 1
        first = source == (n if reverse else -1)
        origin = self._steps[source.clip(0, max(0, len(self._steps) - 1)), rows]
        if self._count is not None:
            outer = self._count[-1, rows] if reverse else 0 * rows  # resets up to where the initial state comes in
            free = np.where(first, outer, self._count[origin, rows]) == self._count[steps, rows]
            steps, rows, origin, first = steps[free], rows[free], origin[free], first[free]
        at, source = (self._index(t, rows, len(self._kept)) for t in (steps, origin))
        return Held(at[~first], source[~first], at[first], rows[first])

    def _halves(self, a: Array, state: Array | None) -> Iterable[tuple[Array, Held, Any]]:
        """Yield each direction's columns of an array of the last layer, its held steps, and its part of a state."""
        d = self._o.directions
        columns = a.shape[-1] // d
        for k in range(d):
            part = self._flat(a)[:, k * columns : (k + 1) * columns]
            own = None if state is None else state[k - d].reshape(len(self._rows), columns)
            yield part, self._held(self._o.reverse or k == 1), own

    def _repeat(self, whole: Array, first: Array | None) -> None:
        """Fill masked steps with the value of the step before them, in their direction's order."""
        for part, held, own in self._halves(whole, first):
            part[held.at] = part[held.source]
            if own is not None:
                part[held.first_at] = own[held.first_row]

    def _back(self, d: Array) -> Array:
        """Return the gradient at the kept steps, each with that of the steps that repeat it."""
        d = d.copy()
        for part, held, _ in self._halves(d, None):
            np.add.at(part, held.source, part[held.at])
        return self.gather(d)

    def _cleared(self, state: Pair, rows: dict[bool, Flags]) -> Pair:
        """Return a copy of a state or its gradient with `_clear` applied."""
        assert state is not None
        h, c = (None if a is None else a.copy() for a in state)
        for a in (h, c):
            if a is not None:
                self._clear(a, rows)
        return h, c

    def _clear(self, a: Array, rows: dict[bool, Flags]) -> None:
        """Clear rows of a state in place, by whether a direction reads backwards."""
        a = a.reshape(len(a), len(self._rows), a.shape[-1])
        d = self._o.directions
        for k in range(d):
            reverse = self._o.reverse or k == 1
            if reverse in rows:
                a[k::d, rows[reverse]] = 0


def read(
    net: Network,
    mask: object,
    padding_output: object,
    leading: tuple[int, ...],
    lengths: Array | None,
    resets: Flags | None,
) -> tuple[Masking, Flags]:
    """Return the masking of a call whose x has these leading axes, and the mask as it was given."""
    o = net._options
    last = _check.padding(padding_output) == "last"
    if last and o.directions == 2 and o.merge != "concat":
        raise ValueError(f"padding_output='last' needs merge='concat', got {o.merge!r}: each direction has its last y")
    given = _check.array(mask, "mask", _check.BOOLS, "biu")
    return Masking(o, leading, _check.bools(given, "mask", leading), lengths, resets, last), given


def pad_sequences(sequences: Sequence[ArrayLike], *, batch_first: bool = False) -> tuple[Array, NDArray[np.int64]]:
    """Put sequences of different lengths side by side, as x and ``lengths`` of a call.

    Parameters
    ----------
    sequences : list of arrays (T_b, ...)
        At least one, of any lengths, 0 included, and equal in all other axes.
    batch_first : bool
        True for x of shape (B, T, ...).

    Returns
    -------
    x : array (T, B, ...), or (B, T, ...)
        T is the largest length, and the type one that holds them all. Zeros fill the rows on the right.
    lengths : array of int64 (B,)

    Raises
    ------
    TypeError, ValueError
        If there is no sequence, or one is no array of numbers, or they do not fit each other.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> x, lengths = qg.pad_sequences([np.ones((2, 3)), np.ones((5, 3))])
    >>> x.shape, lengths
    ((5, 2, 3), array([2, 5]))
    """
    batch_first = _check.flag(batch_first, "batch_first")
    items = _check.items(sequences, "sequences", "a list of arrays")
    arrays = [_check.array(a, f"sequences[{b}]") for b, a in enumerate(items)]
    if not arrays:
        raise ValueError("sequences must hold at least one array, got none")
    for b, a in enumerate(arrays):
        if a.ndim == 0 or a.shape[1:] != arrays[0].shape[1:]:
            want = ", ".join(("T", *map(str, arrays[0].shape[1:])))
            raise ValueError(f"sequences[{b}] must have shape ({want}), got {a.shape}")
    lengths = np.array([len(a) for a in arrays], np.int64)
    x = np.zeros((len(arrays), lengths.max(), *arrays[0].shape[1:]), np.result_type(*{a.dtype for a in arrays}))
    x = x if batch_first else np.ascontiguousarray(x.swapaxes(0, 1))
    for row, a in zip(x if batch_first else x.swapaxes(0, 1), arrays, strict=True):
        row[: len(a)] = a
    return x, lengths


def unpad(y: ArrayLike, lengths: ArrayLike, *, batch_first: bool = False) -> list[Array]:
    """Take sequences apart again: the opposite of `pad_sequences`.

    Parameters
    ----------
    y : array (T, B, ...), or (B, T, ...) if ``batch_first``
        Sequences padded on the right.
    lengths : array of int (B,)
        Length of each, 0 to T.
    batch_first : bool
        True for y of shape (B, T, ...).

    Returns
    -------
    list of arrays (T_b, ...)
        Copies, one for each row.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> x, lengths = qg.pad_sequences([np.ones((2, 3)), np.ones((5, 3))])
    >>> [a.shape for a in qg.unpad(x, lengths)]
    [(2, 3), (5, 3)]
    """
    batch_first = _check.flag(batch_first, "batch_first")
    whole = _check.array(y, "y")
    if whole.ndim < 2:
        order = "B, T" if batch_first else "T, B"
        raise ValueError(f"y must have shape ({order}, ...), got {whole.shape}")
    rows = whole if batch_first else whole.swapaxes(0, 1)
    n = _check.lengths(_check.array(lengths, "lengths", _check.WHOLE), rows.shape[1], len(rows), batched=True, of="y")
    return [row[:k].copy() for row, k in zip(rows, n, strict=True)]


for _public in (pad_sequences, unpad):
    _public.__module__ = "quadgate"  # the name that errors show
