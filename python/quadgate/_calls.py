"""How networks are run when a call is not plain: its arguments converted, masks drawn, traces made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from . import _check, _masks, _trace
from ._base import Base
from ._core import Tape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Pair = tuple[Array | None, Array | None] | None
    Shape = tuple[int, ...]


class Calls(Base):
    """What `quadgate.LSTM` and `quadgate.RNN` share of their calls: all but what they are given and return.

    `_pair` and `_parts` know what a state looks like to the caller; the core always has (h, c).
    """

    __slots__ = ()

    def _pair(self, value: object, name: str, shapes: tuple[Shape, Shape], *, partial: bool = False) -> Pair:
        """Return a state, or the gradients of one, as the core takes it; with `partial` either may be None."""
        raise NotImplementedError

    def _parts(self, value: Any, name: str) -> dict[str, object]:
        """Return the arrays of a state by the names that errors call them by."""
        raise NotImplementedError

    def _infer(
        self, x: object, state: object, lengths: object, out: Array | None, resets: object, cells: bool
    ) -> tuple[Any, ...]:
        """Run the network with arguments that the core could not read as they came."""
        cells = _check.flag(cells, "return_cells")
        x_, state_, lengths_, resets_ = self._convert(x, state, lengths, resets)
        if out is None:
            return self._computed_forward(x_, state_, lengths_, resets_, cells)
        target = _check.buffer(out, "out", self._y_shape(x_.shape), self._options.dtype)
        others = {"x": x, **self._parts(state, "state"), "lengths": lengths, "resets": resets}
        _check.apart(target, "out", others)
        y, *rest = self._computed_forward(x_, state_, lengths_, resets_, cells)
        target[...] = y
        return out, *rest

    def _computed_forward(self, x: Array, state: Pair, lengths: Any, resets: Any, cells: bool) -> tuple[Any, ...]:
        result = self._core_forward(x, state, lengths, None, resets, cells)
        return cast("tuple[Any, ...]", _check.computed(result))

    def _train(
        self,
        x: object,
        state: object,
        lengths: object,
        resets: object,
        cells: bool,
        trace: bool,
        rng: int | np.random.Generator | None,
    ) -> tuple[Any, ...]:
        """Run the network with a tape where there is more to it than one call of the core with what came."""
        cells, trace = _check.flag(cells, "return_cells"), _check.flag(trace, "trace")
        x_, state_, lengths_, resets_ = self._convert(x, state, lengths, resets)
        masks = None
        if rng is not None:
            rng = _check.generator(rng)
        if self._mask_plan:
            batched = x_.ndim == 3
            rows, steps = (x_.shape[:2] if self._batch_first else x_.shape[1::-1]) if batched else (1, x_.shape[0])
            if rng is not None:
                masks = _masks.draw(self._mask_plan, steps, rows, rng)
            else:
                with self._own_lock():  # so that calls in several threads do not share the masks of one
                    assert self._generator is not None
                    masks = _masks.draw(self._mask_plan, steps, rows, self._generator)
        result = self._core_forward_tape(x_, state_, lengths_, resets_, cells, masks)
        tape: Tape = _check.computed(result)[-1]
        if trace:
            tape.trace = _trace.read(tape, self._options)
        return cast("tuple[Any, ...]", result)

    def _gradients(
        self,
        tape: Tape,
        dy: object,
        dstate: Any,
        dcells: object,
        need_x: bool,
        out: Mapping[str, Array] | None,
        accumulate: bool,
    ) -> tuple[Array | None, Array, Array, dict[str, Array]]:
        """Go backward; return dx, dh0, dc0 and the gradients of the parameters by name."""
        if not isinstance(tape, Tape):
            raise TypeError(f"tape must be what forward returned last, got {type(tape).__name__}")
        names = self._shapes
        into = None
        accumulate = _check.flag(accumulate, "accumulate")
        if out is not None:
            if not isinstance(out, Mapping):
                raise TypeError(f"out must be a mapping from names to arrays, got {type(out).__name__}")
            if out.keys() != names.keys():
                raise ValueError(f"out must have the names {', '.join(names)}, got {', '.join(map(str, out))}")
            into = [out[name] for name in names]
        elif accumulate:
            raise ValueError("accumulate=True needs out: the arrays that the gradients are added to")
        trace = tape.trace
        norms = None if trace is None else trace.room()
        result = self._core_backward(tape, dy, self._dstate(dstate), need_x, into, accumulate, dcells, norms)
        if result is None:
            result = self._gradients_converted(tape, dy, dstate, dcells, need_x, out, accumulate, norms)
        if trace is not None and norms is not None:
            trace.dh_norm, trace.dc_norm = norms
        dx, dh0, dc0, params = result
        return dx, dh0, dc0, dict(zip(names, params if into is None else into, strict=True))

    def _dstate(self, value: Any) -> Any:
        """Return what the core is to try to read as the gradients of the state."""
        return value

    def _gradients_converted(
        self,
        tape: Tape,
        dy: object,
        dstate: Any,
        dcells: object,
        need_x: bool,
        out: Mapping[str, Array] | None,
        accumulate: bool,
        norms: tuple[Array, Array] | None,
    ) -> tuple[Array | None, Array, Array, list[Array]]:
        """Go backward with arguments that the core could not read as they came."""
        need_x = _check.flag(need_x, "need_x")
        dtype, x_shape = self._options.dtype, tape.x_shape
        dy_ = None if dy is None else _check.floats(dy, "dy", self._y_shape(x_shape), dtype)
        dstate_ = self._pair(dstate, "dstate", self._state_shapes(x_shape), partial=True)
        dcells_ = None if dcells is None else _check.floats(dcells, "dcells", self._cells_shape(x_shape), dtype)
        copies, targets = None, []
        if out is not None:
            others = {"dy": dy, **self._parts(dstate, "dstate"), "dcells": dcells}
            for name, shape in self._shapes.items():
                targets.append(_check.buffer(out[name], f"out[{name!r}]", shape, dtype))
                _check.apart(targets[-1], f"out[{name!r}]", others)
                others[f"out[{name!r}]"] = targets[-1]
            # Into plain copies, which the core can write whatever the layout of the targets is.
            copies = [np.array(target, order="C") for target in targets]
        result = _check.computed(self._core_backward(tape, dy_, dstate_, need_x, copies, accumulate, dcells_, norms))
        for target, value in zip(targets, copies or [], strict=True):
            target[...] = value
        return result

    def _state_shapes(self, x_shape: Shape) -> tuple[Shape, Shape]:
        o = self._options
        batch = x_shape[:-1][1 - self._batch_first :][:1] if len(x_shape) == 3 else ()
        leading = (o.num_layers * o.directions, *batch)
        return (*leading, o.state_columns), (*leading, o.cell_columns)

    def _y_shape(self, x_shape: Shape) -> Shape:
        return (*x_shape[:-1], self._options.outputs)

    def _cells_shape(self, x_shape: Shape) -> Shape:
        return (*x_shape[:-1], self._options.directions * self._options.cell_columns)

    def _convert(
        self, x: object, state: object, lengths: object, resets: object
    ) -> tuple[Array, Pair, Array | None, NDArray[np.bool_] | None]:
        """Return the arguments of a forward pass as plain arrays, or raise what is wrong with them."""
        x_ = _check.sequence(x, self._options.input_size, self._batch_first, self._options.dtype)
        shapes = self._state_shapes(x_.shape)
        batched = x_.ndim == 3
        steps = x_.shape[1 if batched and self._batch_first else 0]
        lengths_ = _check.lengths(lengths, steps, shapes[0][1] if batched else 1, batched=batched)
        state_ = self._pair(state, "state", shapes)
        return x_, state_, lengths_, _check.resets(resets, x_.shape[:-1])
