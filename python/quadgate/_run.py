"""Calls of networks with arguments that are not plain: conversion, masks, traces.

The core always has a state (h, c). `state_name` is the name of the state of a network that has h only, in whose calls
the state is that one array; None for a pair.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _check, _masks
from ._results import NOTHING, NamedGrads, Tape, Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from . import _core, _masking
    from ._network import Network

    Array = NDArray[Any]
    Shape = tuple[int, ...]
    Pair = tuple[Array | None, Array | None] | None
    Named = dict[str, Array | None]


class Arguments(NamedTuple):
    """Arguments of a forward pass as plain arrays; `read` has them by name as they were before that."""

    x: Array
    state: Pair
    lengths: Array | None
    resets: Array | None
    read: Named
    masking: _masking.Masking | None = None


def infer(
    net: Network,
    x: object,
    state: object,
    lengths: object,
    out: Array | None,
    resets: object,
    cells: bool,
    state_name: str | None = None,
    mask: object = None,
    padding_output: object = _check.ZERO,
) -> tuple[Any, ...]:
    """Return y, (h, c) and with `cells` the cells, from arguments that the core refused, or with a mask."""
    cells = _check.flag(cells, "return_cells")
    a = _arguments(net, x, state, lengths, resets, state_name, mask, padding_output)
    target = None
    if out is not None:
        target = _check.buffer(out, "out", _y_shape(net, a.x.shape), net._options.dtype)
        _check.apart(target, "out", a.read)
    c, m = _compact(a), a.masking
    buffer = None if m is None else m.buffer(net._options.outputs, net._options.dtype)
    y_ = None if m is None or buffer is None else m.compact(buffer)
    result: tuple[Any, ...] = _check.computed(net._snapshot.forward(c.x, c.state, c.lengths, y_, c.resets, cells))
    result = _whole(a, result, cells, buffer)
    if target is None:
        return result
    y, *rest = result
    target[...] = y
    return out, *rest


def train(
    net: Network,
    x: object,
    state: object,
    lengths: object,
    resets: object,
    cells: bool,
    trace: bool,
    rng: int | np.random.Generator | None,
    state_name: str | None = None,
    mask: object = None,
    padding_output: object = _check.ZERO,
    rows_of: tuple[int, int, int] | None = None,
) -> tuple[Array, Any, Tape]:
    """Return y, (h, c) and the tape, if there are masks or a trace or the core refused the arguments.

    With `rows_of` = (begin, end, total) masks are drawn for a batch of `total` rows, and x has those from begin to end.
    """
    net._snapshot.refuse_training()
    cells, trace = _check.flag(cells, "return_cells"), _check.flag(trace, "trace")
    a = _arguments(net, x, state, lengths, resets, state_name, mask, padding_output)
    if rng is not None:
        rng = _check.generator(rng)
    masks = None
    if net._mask_plan:
        steps, rows = _steps_and_rows(net, a.x.shape)
        rows = rows if rows_of is None else rows_of[2]
        if rng is not None:
            masks = _masks.draw(net._mask_plan, steps, rows, rng)
        else:
            with net._own_lock():  # so that calls in several threads do not share the masks of one
                assert net._generator is not None
                masks = _masks.draw(net._mask_plan, steps, rows, net._generator)
        if rows_of is not None:
            masks = _masks.take(net._mask_plan, masks, slice(*rows_of[:2]))
    c, drawn = _compact(a), masks
    if masks is not None and a.masking is not None:
        drawn = a.masking.gather_drawn(masks, [m.name for m in net._mask_plan if m.steps])
    result = _check.computed(net._snapshot.forward_tape(c.x, c.state, c.lengths, c.resets, cells, drawn))
    result = _whole(a, result, cells)
    return result[0], result[1], record(net, result, masks, trace, a.masking)


def record(
    net: Network, result: tuple[Any, ...], masks: Any, trace: bool, masking: _masking.Masking | None = None
) -> Tape:
    """Return the tape from the core's training pass: (y, (h, c), tape) or (y, (h, c), cells, tape)."""
    core = result[-1]
    cells = result[2] if len(result) == 4 else None
    return Tape(core, cells, masks or NOTHING, _trace(net, core, masking) if trace else None, masking)


def _compact(a: Arguments) -> Arguments:
    """Return the arguments of the core's call: those of a call with a mask at its kept steps only."""
    m = a.masking
    if m is None:
        return a
    return a._replace(x=m.gather(a.x), state=m.initial(a.state), lengths=m.lengths, resets=m.resets)


def _whole(a: Arguments, result: tuple[Any, ...], cells: bool, buffer: Array | None = None) -> tuple[Any, ...]:
    """Return the results of the core's call at all steps."""
    m = a.masking
    if m is None:
        return result
    h0, c0 = a.state or (None, None)
    y, state, *rest = result
    m.final(state)
    if cells:
        rest[0] = m.cells(rest[0], c0)
    return m.y(y, h0, buffer), state, *rest


def backward(
    net: Network,
    tape: Tape,
    dy: object,
    dstate: Any,
    dcells: object,
    input_grad: bool,
    state_grad: bool,
    out: Mapping[str, Array] | None,
    accumulate: bool,
    state_name: str | None = None,
) -> tuple[Array | None, Array | None, Array | None, NamedGrads]:
    """Return dx, dh0, dc0 and the gradients of the parameters by name."""
    if type(tape) is not Tape:
        net._snapshot.refuse_training()
        raise TypeError(f"tape must be a Tape, the third result of forward, got {_check.shown(tape)}")
    if dy is None and dcells is None and _all_none(dstate):
        given = f"dy or {state_name}" if state_name else "dy, dstate or dcells"
        raise ValueError(f"backward needs a gradient to start from: {given} must not be None")
    if accumulate is not False:
        accumulate = _check.flag(accumulate, "accumulate")
        if accumulate and out is None:
            raise ValueError("accumulate=True needs out: the arrays that the gradients are added to")
    names, core, trace, m = net._shapes, tape._core, tape._trace, tape._masking
    own: Any = None
    if m is not None:
        dy, dstate, dcells = _masked_gradients(net, tape, dy, dstate, dcells, state_name)
        own = dy, dcells
        dy, dcells, dstate = m.gradients(dy, dcells, dstate)
        dstate = dstate if state_name is None or dstate is None else dstate[0]
    norms = None if trace is None else _norms(net, core)
    plain = dstate if state_name is None or dstate is None else (dstate, None)
    into: Any = out
    if out is not None and type(out) is not NamedGrads and type(out) is not dict:
        into = _targets(out, names)  # the core reads these two types alone
    result = net._snapshot.backward(core, dy, plain, input_grad, state_grad, into, names, accumulate, dcells, norms)
    if result is None:
        targets = None if out is None else _targets(into, names)
        wanted = input_grad, state_grad
        result = _backward_converted(net, core, dy, dstate, dcells, wanted, targets, accumulate, norms, state_name)
    if trace is not None and norms is not None:
        trace.dh_norm, trace.dc_norm = norms if m is None else map(m.steps, norms)
    dx, dh0, dc0, params = result
    if m is not None:
        dx = m.input_gradients(dx, dh0, dc0, *own)
    if type(out) is NamedGrads:
        return dx, dh0, dc0, out
    flat = params.pop() if out is None else None
    named = NamedGrads(zip(names, params, strict=True))
    if flat is not None:
        named.flat = flat
    return dx, dh0, dc0, named


def _masked_gradients(
    net: Network, tape: Tape, dy: object, dstate: object, dcells: object, state_name: str | None
) -> tuple[Array | None, Pair, Array | None]:
    """Convert the gradients that a pass with a mask goes back from; a state always has two parts here."""
    dtype, x_shape = net._options.dtype, tape.x_shape

    def plain(value: object, name: str, shape: Shape) -> Array | None:
        return None if value is None else _check.floats(value, name, shape, dtype)

    parts = _read_state(dstate, "dstate", _state_shapes(net, x_shape), state_name)
    dh, dc = (*(None if a is None else _check.plain(a, dtype) for a in parts.values()), None, None)[:2]
    dy_, dcells_ = plain(dy, "dy", _y_shape(net, x_shape)), plain(dcells, "dcells", _cells_shape(net, x_shape))
    return dy_, (dh, dc) if parts else None, dcells_


def _all_none(dstate: Any) -> bool:
    return dstate is None or (isinstance(dstate, (tuple, list)) and len(dstate) == 2 and dstate[0] is dstate[1] is None)


def _targets(out: object, names: Mapping[str, Shape]) -> dict[str, Array]:
    if not isinstance(out, Mapping):
        raise TypeError(f"out must be a mapping from names to arrays, got {type(out).__name__}")
    if out.keys() != names.keys():
        raise ValueError(f"out must have the names {', '.join(names)}, got {', '.join(map(str, out)) or 'nothing'}")
    return {name: out[name] for name in names}


def _backward_converted(
    net: Network,
    core: _core.Tape,
    dy: object,
    dstate: object,
    dcells: object,
    wanted: tuple[bool, bool],
    into: dict[str, Array] | None,
    accumulate: bool,
    norms: tuple[Array, Array] | None,
    state_name: str | None,
) -> tuple[Array | None, Array | None, Array | None, list[Array]]:
    """Go backward with arguments that the core refused."""
    input_grad, state_grad = map(_check.flag, wanted, ("input_grad", "state_grad"))
    dtype, x_shape = net._options.dtype, core.x_shape
    shapes = _state_shapes(net, x_shape)
    read: Named = {"dy": None if dy is None else _check.shaped(dy, "dy", _y_shape(net, x_shape))}
    parts = _read_state(dstate, "dstate", shapes, state_name)
    read |= parts
    read["dcells"] = None if dcells is None else _check.shaped(dcells, "dcells", _cells_shape(net, x_shape))
    copies = None
    if into is not None:
        others = dict(read)
        for name, value in into.items():
            into[name] = target = _check.buffer(value, f"out[{name!r}]", net._shapes[name], dtype)
            _check.apart(target, f"out[{name!r}]", others)
            others[f"out[{name!r}]"] = target
        # The core writes plain copies, since the targets may have any layout.
        copies = {name: np.array(target, order="C") for name, target in into.items()}
    dy_, dcells_ = (None if a is None else _check.plain(a, dtype) for a in (read["dy"], read["dcells"]))
    dstate_ = tuple(None if a is None else _check.plain(a, dtype) for a in parts.values())
    dstate_ = (*dstate_, None, None)[:2]
    given = net._snapshot.backward(
        core, dy_, dstate_, input_grad, state_grad, copies, net._shapes, accumulate, dcells_, norms
    )
    dx, dh0, dc0, params = _check.computed(given)
    if into is None or copies is None:
        return dx, dh0, dc0, params
    for name, target in into.items():
        target[...] = copies[name]
    return dx, dh0, dc0, list(into.values())


def _arguments(
    net: Network,
    x: object,
    state: object,
    lengths: object,
    resets: object,
    state_name: str | None,
    mask: object,
    padding_output: object,
) -> Arguments:
    """Convert the arguments of a forward pass, each of them once, or raise an error that names the wrong one."""
    o = net._options
    x_ = _check.sequence(x, o.input_size, net._batch_first)
    shapes = _state_shapes(net, x_.shape)
    batched = x_.ndim == 3
    steps = x_.shape[1 if batched and net._batch_first else 0]
    read: Named = {"x": x_}
    lengths_ = None
    if lengths is not None:
        read["lengths"] = given = _check.array(lengths, "lengths", _check.WHOLE)
        lengths_ = _check.lengths(given, steps, shapes[0][1] if batched else 1, batched=batched)
    parts = _read_state(state, "state", shapes, state_name)
    read |= parts
    pair = None
    if parts:
        h, c = (*parts.values(), None)[:2]
        pair = _plain_or_zeros(h, shapes[0], o.dtype), _plain_or_zeros(c, shapes[1], o.dtype)
    resets_ = None
    if resets is not None:
        read["resets"] = given = _check.array(resets, "resets", _check.BOOLS, "biu")
        resets_ = _check.bools(given, "resets", x_.shape[:-1])
    masking = None
    if mask is None:
        _check.padding(padding_output)
    else:
        from . import _masking  # most programs do not need it, and an import need not pay for it

        masking, read["mask"] = _masking.read(net, mask, padding_output, x_.shape[:-1], lengths_, resets_)
    return Arguments(_check.plain(x_, o.dtype), pair, lengths_, resets_, read, masking)


def _read_state(value: Any, name: str, shapes: tuple[Shape, Shape], state_name: str | None) -> Named:
    """Return the arrays of a state, or of its gradients, by their names in errors; h comes first."""
    if value is None:
        return {}
    if state_name is not None:
        return {state_name: _check.shaped(value, state_name, shapes[0])}
    items = _check.pair(value, name, shapes)
    names = (f"{name}[0]", f"{name}[1]")
    return {n: None if v is None else _check.shaped(v, n, s) for n, v, s in zip(names, items, shapes, strict=True)}


def _plain_or_zeros(value: Array | None, shape: Shape, dtype: np.dtype[Any]) -> Array:
    return np.zeros(shape, dtype) if value is None else _check.plain(value, dtype)


def _state_shapes(net: Network, x_shape: Shape) -> tuple[Shape, Shape]:
    o = net._options
    batch = x_shape[:-1][1 - net._batch_first :][:1] if len(x_shape) == 3 else ()
    leading = (o.num_layers * o.directions, *batch)
    return (*leading, o.state_columns), (*leading, o.cell_columns)


def _y_shape(net: Network, x_shape: Shape) -> Shape:
    return (*x_shape[:-1], net._options.outputs)


def _cells_shape(net: Network, x_shape: Shape) -> Shape:
    return (*x_shape[:-1], net._options.directions * net._options.cell_columns)


def _steps_and_rows(net: Network, x_shape: Shape) -> tuple[int, int]:
    if len(x_shape) == 2:
        return x_shape[0], 1
    return (x_shape[1], x_shape[0]) if net._batch_first else (x_shape[0], x_shape[1])


def _trace(net: Network, core: _core.Tape, masking: _masking.Masking | None) -> Trace:
    """Copy the gates and cells out of a tape."""
    o = net._options
    states = o.num_layers * o.directions
    arrays = np.empty((5, states, *_steps_and_rows(net, core.x_shape), o.hidden_size), o.dtype)
    for state in range(states):
        arrays[:4, state] = np.moveaxis(core.gates(state), 2, 0)
        arrays[4, state] = core.cells(state)
    return Trace(*arrays) if masking is None else Trace(*map(masking.steps, arrays))


def _norms(net: Network, core: _core.Tape) -> tuple[Array, Array]:
    """Return two new arrays for the norms of a trace."""
    o = net._options
    shape = (o.num_layers * o.directions, *_steps_and_rows(net, core.x_shape))
    return np.zeros(shape, o.dtype), np.zeros(shape, o.dtype)
