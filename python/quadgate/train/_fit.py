"""Training over epochs, and evaluation: `Sequential.fit` and `Sequential.evaluate`."""

from __future__ import annotations

import importlib
import itertools
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from .. import _check
from . import _callbacks, _metrics, _pass
from ._batch import Batch
from ._history import History

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ._model import Sequential

    Array = NDArray[Any]

_FIELDS = ("x", "y", "sample_weight", "lengths", "mask")
_OF = "validation_data's "  # in front of the names of its parts in errors


def fit(
    model: Sequential,
    x: Any,
    y: ArrayLike | None = None,
    *,
    epochs: SupportsIndex = 1,
    batch_size: SupportsIndex = 32,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    shuffle: bool = True,
    validation_data: Any = None,
    sample_weight: ArrayLike | None = None,
    metrics: Sequence[str | _metrics.Metric] = (),
    callbacks: Sequence[Any] = (),
    accumulate: SupportsIndex = 1,
    steps_per_epoch: SupportsIndex | None = None,
    shards: SupportsIndex | None = None,
    reduce: Callable[[Array], Array] | None = None,
    progress: bool | None = None,
) -> History:
    """Train for some epochs.

    Parameters
    ----------
    x : array (N, T) or (N, T, I), or iterable of batches
        All rows; or batches, each (x, y), (x, y, sample_weight), or a mapping with the keys x, y, sample_weight,
        lengths and mask. A list, or another object that can be iterated again, is one epoch; an iterator that cannot
        goes on where it stopped, and needs ``steps_per_epoch`` for more than one epoch.
    y, lengths, mask, sample_weight : arrays
        As in `Sequential.train_on_batch`, for all rows. With an iterable of batches none of them is given.
    epochs : int
        Number of times to go through the data.
    batch_size : int
        Rows of a batch. The last batch of an epoch has those that are left; a stateful model needs a size that divides
        their number.
    shuffle : bool
        True to take the rows of arrays in another order in each epoch; batches come in the order of their iterable. A
        stateful model's rows are never shuffled: its batches are taken in order, and its states are reset before each
        epoch. With an iterator they are never reset.
    validation_data : (x, y), (x, y, sample_weight), a mapping, or a list of batches; optional
        Data to evaluate after each epoch; the names of its figures begin with ``val_``. An iterator is for one epoch.
    metrics : list of str and functions
        "accuracy", "binary_accuracy", "mse", "mae", "bits", or functions of (outputs, targets) that return a figure for
        each position. They are means over the positions that count and have a weight above 0, all alike, of the
        outputs before the model's head.
    callbacks : list of Callback and functions
        Functions are called as ``f(model, epoch, figures)`` after each epoch; one that returns True ends training.
    accumulate : int
        Number of batches whose gradients are added up for one update, which is that of one large batch.
    steps_per_epoch : int, optional
        Number of updates after which an epoch ends in any case.
    shards : int, optional
        Number of pieces that each batch is cut into, a power of two. Their gradients are added in a fixed order, so
        that the result is the same to the last bit on 1, 2, 4, ... processes that each do some of them.
    reduce : callable, optional
        ``reduce(vector)`` returns the sum of a vector over all processes, to all of them, in the order of
        ``(0 + 1) + (2 + 3)``. Its attributes ``rank`` and ``size`` say which process of how many this is. All
        processes have the same data and the same model.
    progress : bool, optional
        True for a line after each epoch, and a progress bar if tqdm is installed; by default if standard error is a
        terminal.

    Returns
    -------
    History
        The loss and metrics of each epoch, means over it as the parameters went on.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.
    RuntimeError
        If `Sequential.compile` was not called, or the parameters were changed by other means during a step.
    FloatingPointError
        If a loss or a gradient is NaN or infinite. The parameters are those of before that step.
    """
    model._compiled()
    named = _metrics.read(metrics)
    epochs, accumulate = _check.size(epochs, "epochs", zero=True), _check.size(accumulate, "accumulate")
    limit = None if steps_per_epoch is None else _check.size(steps_per_epoch, "steps_per_epoch")
    parts = _shards(model, shards, reduce)
    arrays = {"y": y, "sample_weight": sample_weight, "lengths": lengths, "mask": mask}
    source = _source(model, x, arrays, batch_size, _check.flag(shuffle, "shuffle"), accumulate, parts)
    if source.once and epochs > 1 and limit is None:
        raise ValueError("an iterator of batches ends after one epoch: pass steps_per_epoch, or a list")
    validation = None if validation_data is None else _validation(model, validation_data, batch_size)
    if isinstance(validation_data, tuple) and (lengths is not None or mask is not None):
        given = "lengths" if lengths is not None else "mask"
        warnings.warn(
            f"the training data have {given} and validation_data has none, so all its steps count: pass it as "
            f"{{'x': ..., 'y': ..., '{given}': ...}}",
            stacklevel=2,
        )
    if validation is not None and validation.once and epochs > 1:
        raise ValueError("validation_data must be arrays or a list of batches for each epoch anew, got an iterator")
    watchers = _callbacks.read(callbacks, named, validation is not None)
    history = model.history = History()
    show = _shown(None if progress is None else _check.flag(progress, "progress")) and parts.rank == 0
    for watcher in watchers:
        watcher.on_train_begin(model)
    for epoch in range(epochs):
        steps = source.steps if limit is None or source.steps is None else min(limit, source.steps)
        bar = _Bar(f"epoch {epoch + 1}/{epochs}", limit if steps is None else steps, show)
        if model.stateful and not source.once:
            model.reset_states()
        sums, stop = np.zeros((1 + len(named), 2)), False
        try:
            for step, batches in enumerate(itertools.islice(source.updates(), limit)):
                result = _pass.step(model, batches, named, source.shards)
                _pass.learn(model, result)
                sums += result.sums
                bar.advance(sums[0, 0] / max(sums[0, 1], 1e-300))
                answers = [watcher.on_batch_end(model, step, result.loss) for watcher in watchers]
                stop = any(answers)
                if stop:
                    break
        finally:
            bar.close()
        if not sums[0, 1]:
            if source.once and history.epoch:
                history.stopped = "the iterator of batches ended"
                break
            raise source.empty()
        figures = _figures(sums, named)
        if validation is not None:
            figures |= {f"val_{name}": value for name, value in _evaluated(model, validation, named, _OF).items()}
        history.add(epoch, figures)
        bar.say(epoch, figures)
        stopped = [watcher for watcher in watchers if watcher.on_epoch_end(model, epoch, figures)]
        if stopped or stop:
            history.stopped = repr(stopped[0]) if stopped else "a callback"
            break
    for watcher in watchers:
        watcher.on_train_end(model)
    return history


def evaluate(
    model: Sequential,
    x: Any,
    y: ArrayLike | None = None,
    *,
    batch_size: SupportsIndex = 32,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    metrics: Sequence[str | _metrics.Metric] = (),
) -> dict[str, float]:
    """Return the loss and metrics over some data, by name.

    Parameters
    ----------
    x, y, batch_size, lengths, mask, sample_weight, metrics
        As in `Sequential.fit`; x may be an iterable of batches. A stateful model starts from zeros, passes its states
        from batch to batch, and has those of before at the end.

    Returns
    -------
    dict
        "loss" and the metrics, each a mean over the positions that count.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.
    """
    model._compiled()
    arrays = {"y": y, "sample_weight": sample_weight, "lengths": lengths, "mask": mask}
    named = _metrics.read(metrics)
    return _evaluated(model, _source(model, x, arrays, batch_size, False, 1, _pass.ONE), named, "")


def _validation(model: Sequential, data: Any, batch_size: SupportsIndex) -> _Source:
    """Return the source of validation data."""
    if isinstance(data, str) or not (_is_array(data) or isinstance(data, Iterable)):
        needed = "(x, y), (x, y, sample_weight), a mapping, or a list of batches"
        raise TypeError(f"validation_data must be {needed}, got {_check.shown(data)}")
    given = _fields(data, "validation_data") if isinstance(data, (tuple, Mapping)) else {"x": data}
    x = given.pop("x")
    if _is_array(x) and given.get("y") is None:
        raise ValueError(f"{_OF}y is missing: the loss needs targets")
    try:
        return _source(model, x, given, batch_size, False, 1, _pass.ONE)
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise
        raise type(error)(f"validation_data: {error}") from error


def _evaluated(model: Sequential, source: _Source, named: Mapping[str, _metrics.Metric], of: str) -> dict[str, float]:
    loss, _ = model._compiled()
    sums, states = np.zeros((1 + len(named), 2)), None
    for batch in itertools.chain.from_iterable(source.updates()):
        if batch.y is None:
            raise ValueError(f"{of}y is missing: the loss needs targets")
        outputs, states = _pass.infer(model, batch, states)
        counts = _pass.counted(batch, outputs.shape[:-1], of)
        part = loss.part(outputs, batch.y, gradient=False, **counts)
        sums[0] += part.total, part.weight
        _pass.count_metrics(sums, named, outputs, batch, counts)
    if not sums[0, 1]:
        raise source.empty(of)
    return _figures(sums, named)


def _figures(sums: Array, named: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(a / b) if b else 0.0 for name, (a, b) in zip(("loss", *named), sums, strict=True)}


def _shards(model: Sequential, count: SupportsIndex | None, reduce: Any) -> _pass.Shards:
    if reduce is not None and not callable(reduce):
        raise TypeError(f"reduce must be callable, got {type(reduce).__name__}")
    if count is None:
        if reduce is not None:
            raise ValueError("reduce needs shards: the number of pieces that each batch is cut into")
        return _pass.ONE
    count = _check.size(count, "shards")
    if count & (count - 1):
        raise ValueError(f"shards must be a power of two, got {count}")
    size = _check.size(getattr(reduce, "size", 1), "reduce.size")
    rank = _check.size(getattr(reduce, "rank", 0), "reduce.rank", zero=True)
    if rank >= size:
        raise ValueError(f"reduce.rank must be below reduce.size={size}, got {rank}")
    if count % size:
        raise ValueError(f"the number of processes must divide shards={count}, got {size}")
    if model.stateful and size > 1:
        raise ValueError("a stateful model cannot be trained by several processes: each would have states of its own")
    return _pass.Shards(count, rank, size, reduce)


class _Source:
    """Data as lists of batches, one list for each update; `steps` is their number, if it is known."""

    def __init__(
        self,
        updates: Callable[[], Iterator[list[Batch]]],
        steps: int | None,
        once: bool,
        shards: _pass.Shards,
        arrays: Mapping[str, Any],
    ) -> None:
        self.updates, self.steps, self.once, self.shards = updates, steps, once, shards
        self._left_out_by = [name for name in ("lengths", "mask", "sample_weight") if arrays.get(name) is not None]

    def empty(self, of: str = "") -> ValueError:
        """Return the error for data of which nothing counts."""
        by = f", and all of it is left out by {' and '.join(self._left_out_by)}" if self._left_out_by else ""
        return ValueError(f"{of}x must have at least one row or batch that counts{by}")


def _source(
    model: Sequential,
    x: Any,
    arrays: Mapping[str, Any],
    batch_size: SupportsIndex,
    shuffle: bool,
    accumulate: int,
    shards: _pass.Shards,
) -> _Source:
    if isinstance(x, Mapping) or (
        isinstance(x, tuple) and len(x) in (2, 3) and arrays.get("y") is None and all(map(_has_axes, x))
    ):
        raise TypeError("x must be an array or an iterable of batches, got one batch: pass its parts, or a list of it")
    if not _is_array(x):
        odd = [name for name, value in arrays.items() if value is not None]
        if odd:
            raise ValueError(f"x is an iterable of batches, which have their own {', '.join(odd)}: do not pass them")
        if not isinstance(x, Iterable):
            raise TypeError(f"x must be an array or an iterable of batches, got {type(x).__name__}")
        if accumulate > 1 and shards.number > 1:
            raise ValueError("accumulate and shards exclude each other for an iterable of batches")
        steps = -(-len(x) // accumulate) if isinstance(x, Sized) else None
        return _Source(lambda: _grouped(model, x, accumulate), steps, iter(x) is x, shards, {})
    batch = model._read(x, *(arrays.get(name) for name in ("y", "lengths", "mask", "sample_weight")))
    size = _check.size(batch_size, "batch_size")
    if model.stateful:
        if batch.rows > size and batch.rows % size:
            raise ValueError(
                f"batch_size must divide the number of rows, {batch.rows}, since the model is stateful and its states "
                f"go on row by row: got {size}"
            )

        def ordered() -> Iterator[list[Batch]]:
            pieces = [batch.take(slice(at, at + size)) for at in range(0, batch.rows, size)]
            for at in range(0, len(pieces), accumulate):
                yield pieces[at : at + accumulate]

        return _Source(ordered, -(-batch.rows // (size * accumulate)), False, shards, arrays)
    if accumulate > 1:  # one large batch, in pieces
        size, shards = size * accumulate, shards._replace(number=shards.number * accumulate)

    def rows() -> Iterator[list[Batch]]:
        places = model._generator.permutation(batch.rows) if shuffle else np.arange(batch.rows)
        for at in range(0, batch.rows, size):
            yield [batch.take(places[at : at + size])]

    return _Source(rows, -(-batch.rows // size), False, shards, arrays)


def _is_array(x: Any) -> bool:
    """Return True for an array, or nested lists of numbers; False for batches."""
    if hasattr(x, "shape") or hasattr(x, "__array__"):
        return True
    if not isinstance(x, (list, tuple)) or not x:
        return False
    first = x[0]
    if isinstance(first, Mapping):
        return False
    if isinstance(first, tuple) and len(first) in (2, 3) and all(map(_has_axes, first[:2])):
        return False
    return not (isinstance(first, (list, tuple)) and first and _has_axes(first[0]))


def _has_axes(part: Any) -> bool:
    """Return True for an array, but not for a number of NumPy."""
    return bool(getattr(part, "shape", ()))


def _fields(item: Any, name: str = "a batch") -> dict[str, Any]:
    """Return the arrays of a batch by name."""
    if isinstance(item, Mapping):
        odd = set(item) - set(_FIELDS)
        if odd or "x" not in item:
            got = ", ".join(map(str, item)) or "nothing"
            raise ValueError(f"{name} must have x, and may have {', '.join(_FIELDS[1:])}; got {got}")
        return dict(item)
    if not isinstance(item, (tuple, list)) or len(item) not in (2, 3):
        what = f"{len(item)} items" if isinstance(item, (tuple, list)) else type(item).__name__
        raise TypeError(f"{name} must be (x, y), (x, y, sample_weight) or a mapping, got {what}")
    return dict(zip(_FIELDS, item, strict=False))


def _grouped(model: Sequential, batches: Iterable[Any], accumulate: int) -> Iterator[list[Batch]]:
    group: list[Batch] = []
    for item in batches:
        f = _fields(item)
        group.append(model._read(f["x"], f.get("y"), f.get("lengths"), f.get("mask"), f.get("sample_weight")))
        if len(group) == accumulate:
            yield group
            group = []
    if group:
        yield group


def _shown(progress: bool | None) -> bool:
    """Return True if progress is to be shown; never without standard error, as in daemons and under pythonw."""
    stream: Any = sys.stderr
    if not hasattr(stream, "write") or getattr(stream, "closed", False):
        return False
    return bool(getattr(stream, "isatty", bool)()) if progress is None else progress


class _Bar:
    """A progress bar of tqdm, or without it a line for each epoch."""

    def __init__(self, name: str, steps: int | None, show: bool) -> None:
        self._name, self._show = name, show
        self._bar: Any = None
        if not show:
            return
        try:
            tqdm: Any = importlib.import_module("tqdm")  # without type hints
        except ImportError:
            return
        self._bar = tqdm.tqdm(total=steps, desc=name, unit="step", leave=False)

    def advance(self, loss: float) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self._bar.update()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, epoch: int, figures: Mapping[str, float]) -> None:
        if self._show:
            line = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
            print(f"{self._name}: {line}", file=sys.stderr)
