"""Figures beside the loss, each a mean over the elements that count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Metric = Callable[[Array, Array], Array]


def accuracy(outputs: Array, targets: Array) -> Array:
    """Return 1 where the largest output is the target's class, else 0; with one output, where its sign says the target.

    Targets are class numbers, or distributions of the outputs' shape, of which the largest counts. A single output is a
    logit, above 0 for the target 1.
    """
    if outputs.shape[-1] == 1:
        return np.asarray((outputs > 0) == (_numbers("accuracy", outputs, targets) > 0.5), np.float64)[..., 0]
    classes = targets.argmax(axis=-1) if targets.shape == outputs.shape else _classes("accuracy", outputs, targets)
    return np.asarray(outputs.argmax(axis=-1) == classes, np.float64)


def binary_accuracy(outputs: Array, targets: Array) -> Array:
    """Return the share of outputs, each a logit, whose sign says its target: above 0 for 1."""
    return np.asarray(((outputs > 0) == (_numbers("binary_accuracy", outputs, targets) > 0.5)).mean(axis=-1))


def mean_squared_error(outputs: Array, targets: Array) -> Array:
    """Return the squared error, its mean over the last axis."""
    difference = outputs.astype(np.float64) - _numbers("mse", outputs, targets)
    return np.asarray((difference * difference).mean(axis=-1))


def mean_absolute_error(outputs: Array, targets: Array) -> Array:
    """Return the absolute error, its mean over the last axis."""
    return np.asarray(np.abs(outputs.astype(np.float64) - _numbers("mae", outputs, targets)).mean(axis=-1))


def bits(outputs: Array, targets: Array) -> Array:
    """Return minus the binary logarithm of the probability that a softmax of the outputs gives the target's class."""
    classes = _classes("bits", outputs, targets)
    values = outputs.astype(np.float64)
    values -= values.max(axis=-1, keepdims=True)
    at = np.take_along_axis(values, classes[..., None], axis=-1)[..., 0]
    with np.errstate(under="ignore"):
        return np.asarray((np.log(np.exp(values).sum(axis=-1)) - at) / np.log(2))


def _classes(name: str, outputs: Array, targets: Array) -> Array:
    """Return class numbers of the positions' shape, or raise ValueError."""
    positions, count = outputs.shape[:-1], outputs.shape[-1]
    if count < 2 or targets.shape != positions or targets.dtype.kind not in "iu":
        raise ValueError(
            f"the metric {name} needs two outputs or more and class numbers of shape {positions}, got {count} and "
            f"{targets.dtype} of shape {targets.shape}"
        )
    if targets.size and not 0 <= targets.min() <= targets.max() < count:
        raise ValueError(f"the metric {name} needs class numbers from 0 to {count - 1}")
    return targets.astype(np.int64)


def _numbers(name: str, outputs: Array, targets: Array) -> Array:
    """Return targets of the outputs' shape, or raise ValueError; of one output the last axis may be left out."""
    if targets.shape != outputs.shape and (*targets.shape, 1) != outputs.shape:
        raise ValueError(f"the metric {name} needs targets of the outputs' shape {outputs.shape}, got {targets.shape}")
    return targets.reshape(outputs.shape)


_NAMED: dict[str, Metric] = {
    "accuracy": accuracy,
    "acc": accuracy,
    "sparse_categorical_accuracy": accuracy,
    "categorical_accuracy": accuracy,
    "binary_accuracy": binary_accuracy,
    "mse": mean_squared_error,
    "mean_squared_error": mean_squared_error,
    "mae": mean_absolute_error,
    "mean_absolute_error": mean_absolute_error,
    "bits": bits,
}


def read(metrics: Sequence[str | Metric]) -> dict[str, Metric]:
    """Return the metrics by name; raise TypeError or ValueError for one that there is not."""
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        raise TypeError(f"metrics must be a list of names and functions, got {metrics!r}")
    result: dict[str, Metric] = {}
    for metric in _check.items(metrics, "metrics", "a list"):
        if callable(metric):
            name = getattr(metric, "__name__", "metric")
            if name == "loss" or name in result:
                raise ValueError(f"metrics must have names of their own, apart from loss, got {name!r} again")
            result[name] = metric
        elif isinstance(metric, str) and metric in _NAMED:
            result[metric] = _NAMED[metric]
        else:
            meant = _check.did_you_mean(metric, _NAMED) if isinstance(metric, str) else ""
            raise ValueError(f"metrics must be functions or of {', '.join(_NAMED)}, got {metric!r}{meant}")
    return result


def total(metric: Metric, outputs: Array, targets: Array, counted: Array | None) -> tuple[float, float]:
    """Return the sum of a metric over the elements that count, and their number."""
    # Targets of positions that do not count need be no class numbers.
    if counted is not None and targets.shape[: counted.ndim] == counted.shape:
        here = counted.reshape(counted.shape + (1,) * (targets.ndim - counted.ndim))
        targets = np.where(here, targets, targets.dtype.type(0))
    values = np.asarray(metric(outputs, targets), np.float64)
    if values.shape != outputs.shape[:-1]:
        name = getattr(metric, "__name__", "metric")
        raise ValueError(f"{name} must return an array of shape {outputs.shape[:-1]}, got {values.shape}")
    if counted is None:
        return float(values.sum()), float(values.size)
    kept = values[counted]
    return float(kept.sum()), float(kept.size)
