"""One pass of a batch through a model and back, whole or in shards, and its inference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _check, _core, _params
from .._results import NamedGrads
from . import _losses, _metrics
from ._batch import Batch, bounds
from ._layer import Context, values
from ._recurrent import mask_generators

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._layer import Layer
    from ._model import Sequential

    Array = NDArray[Any]
    States = Mapping[Layer, Any]
    Reduce = Callable[[Array], Array]


class Result(NamedTuple):
    """Result of a training pass: the loss, gradients, next states, and sums of the loss and of metrics with counts."""

    loss: float
    grads: NamedGrads
    states: States | None
    sums: Array  # (1 + metrics, 2): total and count


class Shards(NamedTuple):
    """A batch's fixed pieces, of which this process does a run; sums over processes are `reduce`'s."""

    number: int
    rank: int = 0
    size: int = 1
    reduce: Reduce | None = None


ONE = Shards(1)


def step(
    model: Sequential,
    batches: Sequence[Batch],
    metrics: Mapping[str, _metrics.Metric] | None = None,
    shards: Shards = ONE,
) -> Result:
    """Return the loss of a batch, its gradients, and the states that a stateful model goes on with.

    Several batches, each of which starts from the states of the one before, have the loss and gradients of one batch of
    all their rows; there are no shards then. The sum over them, or over shards, is always that of two halves.
    """
    loss, _ = model._compiled()
    shapes = [positions(model, batch) for batch in batches]
    divisor = sum(loss.weight(s, **counted(batch, s)) for s, batch in zip(shapes, batches, strict=True))
    generators = [g for g in mask_generators(model._layers) if g is not None]
    before = [g.bit_generator.state for g in generators] if shards.number > 1 else []
    states: list[States | None] = []

    def one(k: int) -> tuple[NamedGrads, Array]:
        if len(batches) > 1 or shards.number == 1:
            start = states.pop() if states else model._states
            return _part(model, batches[k], start, divisor, None, metrics or {}, states)
        for generator, state in zip(generators, before, strict=True):
            generator.bit_generator.state = state  # all shards draw the masks of the whole batch
        (batch,) = batches
        begin, end = bounds(batch.rows, shards.number)[k]
        rows = (begin, end, batch.rows)
        return _part(model, batch.take(slice(begin, end)), model._states, divisor, rows, metrics or {}, states)

    if len(batches) > 1:
        grads, sums = _tree(one, 0, len(batches))
    else:
        each = shards.number // shards.size
        grads, sums = _tree(one, shards.rank * each, (shards.rank + 1) * each)
    if shards.reduce is not None:
        grads = NamedGrads.of_flat(_reduced(shards.reduce, grads.flat), model._shapes)
        sums = _reduced(shards.reduce, sums.ravel()).reshape(sums.shape)
    value = float(sums[0, 0] / sums[0, 1]) if sums[0, 1] else 0.0
    return Result(value, grads, _joined(states), sums)


def _tree(one: Callable[[int], tuple[NamedGrads, Array]], first: int, last: int) -> tuple[NamedGrads, Array]:
    if last - first == 1:
        return one(first)
    middle = (first + last) // 2
    (grads, sums), (more, counts) = _tree(one, first, middle), _tree(one, middle, last)
    grads.flat += more.flat
    return grads, sums + counts


def _reduced(reduce: Reduce, vector: Array) -> Array:
    result = np.asarray(reduce(vector))
    if result.shape != vector.shape or result.dtype != vector.dtype:
        raise ValueError(
            f"reduce must return a vector {vector.shape} of {vector.dtype}, got {result.shape} of {result.dtype}"
        )
    return result


def _part(
    model: Sequential,
    batch: Batch,
    start: States | None,
    divisor: float,
    rows: tuple[int, int, int] | None,
    metrics: Mapping[str, _metrics.Metric],
    ends: list[States | None],
) -> tuple[NamedGrads, Array]:
    """Go forward and back with a batch, or with some rows of one; append its final states to `ends`."""
    flat = _params.empty_vector(model.num_parameters, model.dtype)
    grads = NamedGrads.of_flat(flat, model._shapes)
    sums = np.zeros((1 + len(metrics), 2))
    states = initial(model, start, batch, rows)
    context = Context(True, batch.lengths, batch.mask, states, rows)
    y: Any = batch.x
    tapes = []
    for layer in model._layers:
        y, tape = layer.forward(y, context)
        tapes.append(tape)
    if batch.rows == 0:  # an empty shard, which has drawn its masks, as all shards must
        flat[...] = 0
        return grads, sums
    outputs = values(y)
    if batch.y is None:
        raise ValueError("y is missing: training needs targets")
    loss, _ = model._compiled()
    counts = counted(batch, outputs.shape[:-1])
    part = loss.part(outputs, batch.y, divisor=divisor, **counts)
    sums[0] = part.total, part.weight
    count_metrics(sums, metrics, outputs, batch, counts)
    d: Any = part.doutputs
    first = next(k for k, layer in enumerate(model._layers) if layer.params)
    for k in range(len(tapes) - 1, first - 1, -1):
        layer = model._layers[k]
        out = {name: grads[f"{k}.{name}"] for name in layer.params}
        d, made = layer.backward(tapes[k], d, need_x=k > first, out=out or None)
        for name, value in made.items():
            if value is not out[name]:
                out[name][...] = value
        tapes[k] = None
    ends.append(states)
    return grads, sums


def count_metrics(
    sums: Array, metrics: Mapping[str, _metrics.Metric], outputs: Array, batch: Batch, counts: Mapping[str, Any]
) -> None:
    """Add the sums and counts of metrics to the rows of `sums` after the first; of weights only 0 matters."""
    if not metrics or batch.y is None:
        return
    weights = _losses.position_weights(outputs.shape[:-1], **counts)
    kept = None if weights is None else weights > 0
    for k, metric in enumerate(metrics.values(), 1):
        sums[k] += _metrics.total(metric, outputs, batch.y, kept)


def positions(model: Sequential, batch: Batch) -> tuple[int, ...]:
    """Return the outputs' shape without its last axis."""
    steps = len(model._output_shapes[-1]) == 3 and batch.x.ndim + model._integers == 3
    return batch.x.shape[:2] if steps else (batch.rows,)


def counted(batch: Batch, shape: tuple[int, ...], of: str = "") -> dict[str, Any]:
    """Return the loss's arguments that say which positions count: steps do not where the outputs have none.

    `of` is put in front of the names of the arguments in errors.
    """
    steps = len(shape) == 2
    lengths, mask = (batch.lengths, batch.mask) if steps else (None, None)
    names = (f"{of}y", f"{of}sample_weight")
    return {"weights": batch.weights, "lengths": lengths, "mask": mask, "names": names}


def infer(model: Sequential, batch: Batch, states: States | None) -> tuple[Array, States | None]:
    """Return the outputs, without the head, and the states to go on with."""
    own = initial(model, states, batch, None)
    context = Context(False, batch.lengths, batch.mask, own)
    y: Any = batch.x
    for layer in model._layers:
        y = layer.forward(y, context)[0]
    return values(y), own


def initial(
    model: Sequential, states: States | None, batch: Batch, rows: tuple[int, int, int] | None
) -> dict[Layer, Any] | None:
    """Return a dict of a stateful model's states for these rows of a batch; None for another model."""
    if not model.stateful:
        return None
    result: dict[Layer, Any] = {}
    for layer, state in (states or {}).items():
        parts = state if isinstance(state, tuple) else (state,)
        total = batch.rows if rows is None else rows[2]
        if parts[0].shape[1] != total:
            raise ValueError(
                f"the model is stateful and has states of {parts[0].shape[1]} rows, got a batch of {total}: "
                "keep the number, or call reset_states first"
            )
        cut = parts if rows is None else tuple(np.ascontiguousarray(part[:, rows[0] : rows[1]]) for part in parts)
        result[layer] = cut if isinstance(state, tuple) else cut[0]
    return result


def _joined(states: list[States | None]) -> States | None:
    """Return the states of all rows, from those of the shards in order."""
    known = [state for state in states if state is not None]
    if len(known) < 2:
        return known[0] if known else None
    result: dict[Layer, Any] = {}
    for layer, first in known[0].items():
        each = [state[layer] for state in known]
        if isinstance(first, tuple):
            result[layer] = tuple(np.concatenate(parts, axis=1) for parts in zip(*each, strict=True))
        else:
            result[layer] = np.concatenate(each, axis=1)
    return result


def activated(outputs: Array, head: str | None) -> Array:
    """Return the outputs after the model's head."""
    with np.errstate(under="ignore"):
        if head == "softmax":
            e = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
            return np.asarray(e / e.sum(axis=-1, keepdims=True))
        if head == "sigmoid":
            e = np.exp(-np.abs(outputs))
            return np.asarray(np.where(outputs >= 0, 1, e) / (1 + e))
    return outputs


def require_finite(grads: Iterable[Array], step: int, loss: float = 0.0) -> None:
    """Raise FloatingPointError for a loss or gradients with NaN or infinity: before an update, never after it."""
    wrong = ""
    arrays = [_check.plain(g, g.dtype) for g in grads]
    if not math.isfinite(loss):
        wrong = f"the loss is {loss}"
    else:  # a sum of squares has NaN or infinity if a gradient has, and is fast; it may overflow, so gradients decide
        squares = _core.gradient_squares(arrays)
        if any(not math.isfinite(s) and not np.isfinite(g).all() for s, g in zip(squares, arrays, strict=True)):
            wrong = "a gradient is NaN or infinite"
    if wrong:
        raise FloatingPointError(
            f"{wrong} at step {step}, and the parameters are those of before the step: look for NaN in x, y and "
            "the weights, lower the learning rate, or clip gradients with clip_norm"
        )


def learn(model: Sequential, result: Result) -> None:
    """Take one step of the optimizer; a batch of which nothing counts changes states alone.

    Raises FloatingPointError, with nothing changed, for a loss or gradients with NaN or infinity.
    """
    require_finite([result.grads.flat], model.step, result.loss)
    if result.sums[0, 1]:
        model._update(list(result.grads.values()), result.states)
    else:
        model._states = result.states
