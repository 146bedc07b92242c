"""Arguments of `explore`: one sequence, its labels, and columns of the output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check
from .._network import Network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MOST_OUTPUTS = 8
MOST_STEPS = 20_000  # columns that a browser can draw
LONGEST_LABEL = 40


def read_x(net: Any, x: object) -> tuple[Array, Array | None, Array | None]:
    """Return x as a batch of one row, batch first; the mask of a model's Masking layer; and x if it is integers."""
    if isinstance(net, Network):
        x_ = _check.sequence(x, net.input_size, net.batch_first)
        if x_.ndim == 3:
            x_ = x_ if net.batch_first else x_.swapaxes(0, 1)
            _one_row(x_.shape[0])
        else:
            x_ = x_[None]
        return _some_steps(_finite(_check.plain(x_, net.dtype))), None, None
    integers = net._integers
    given = _check.array(x, "x", "integers", "iu") if integers else _check.array(x, "x")
    axes = 1 if integers else 2
    if given.ndim == axes:
        given = given[None]
    if given.ndim != axes + 1:
        needed = "(T,) or (1, T)" if integers else "(T, I) or (1, T, I)"
        raise ValueError(f"x must have shape {needed}, got {given.shape}")
    _one_row(given.shape[0])
    width = None if integers else net._input_shape[-1]
    if width is not None and given.shape[-1] != width:
        raise ValueError(f"x must have {width} columns, got shape {given.shape}")
    batch = net._read(given if integers else _finite(_check.plain(given, net.dtype)))
    x_ = _some_steps(batch.x)
    return x_, batch.mask, x_[0] if integers else None


def _one_row(rows: int) -> None:
    if rows != 1:
        raise ValueError(f"x must be one sequence, got a batch of {rows}: choose one, for example x[:, :1]")


def _some_steps(x: Array) -> Array:
    if x.shape[1] == 0:
        raise ValueError("x must have at least one step, got none")
    if x.shape[1] > MOST_STEPS:
        raise ValueError(f"x is too long for a page: {x.shape[1]:,} steps, at most {MOST_STEPS:,}; pass a part of it")
    return x


def _finite(x: Array) -> Array:
    if not np.isfinite(x).all():
        raise ValueError("x must be finite: it holds NaN or infinity")
    return x


def read_labels(labels: object, steps: int, ids: Array | None) -> list[str] | None:
    """Return the label of each step as a str, or None."""
    needed = "a str of T letters, a list of T str, or integers (T,)"
    if isinstance(labels, memoryview):  # which cannot be iterated with several axes
        labels = np.asarray(labels)
    if labels is None:
        return None if ids is None else [str(value) for value in ids.tolist()]
    if isinstance(labels, str):
        result = list(labels)
    else:
        try:
            items: Any = list(labels) if isinstance(labels, Iterable) else None
        except TypeError:  # an array without axes, whose shape is refused below
            items = []
        if items and all(isinstance(item, str) for item in items):
            result = [str(item) for item in items]
        else:
            if items is None:
                raise TypeError(f"labels must be {needed}, got {_check.shown(labels)}")
            if any(isinstance(item, str) for item in items):
                raise TypeError(f"labels must be {needed}, got a mixture")
            # An iterator is used up by now.
            read = _check.array(items if isinstance(labels, Iterator) else labels, "labels", "str or integers", "iu")
            if read.ndim != 1:
                raise ValueError(f"labels must be {needed}, got shape {read.shape}")
            result = [str(value) for value in read.tolist()]
    if len(result) != steps:
        raise ValueError(f"labels must be {needed}, T = {steps}: got {len(result)}")
    # A lone surrogate cannot be written as UTF-8.
    whole = [label.encode("utf-8", "replace").decode("utf-8") for label in result]
    return [label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…" for label in whole]


def read_outputs(outputs: object, y: Array) -> list[int]:
    """Return the columns of y (T, O) or (O,) that are asked for, or those that vary most."""
    width = y.shape[-1]
    if outputs is None:
        spread = y.std(axis=0) if y.ndim == 2 and len(y) > 1 else np.abs(y).reshape(-1, width)[-1]
        return sorted(np.argsort(-spread, kind="stable")[:2].tolist())
    given = _check.array(outputs, "outputs", "columns of the output", "iu")
    if given.ndim != 1 or given.size > MOST_OUTPUTS or ((given < 0) | (given >= width)).any():
        needed = f"a list of at most {MOST_OUTPUTS} numbers from 0 to {width - 1}"
        raise ValueError(f"outputs must be {needed}, got {_check.shown(outputs)}")
    return sorted(set(given.tolist()))
