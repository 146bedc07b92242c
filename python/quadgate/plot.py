"""Plots with matplotlib, of the extra ``[plot]``: training histories, gates and norms of gradients.

``qg.plot.history(model.fit(x, y))``, ``qg.plot.gates(tape.trace)`` and ``qg.plot.gradient_norms(tape.trace)`` return
the axes, to be shown or saved as matplotlib does.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _check
from ._results import Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["gates", "gradient_norms", "history"]

GATES = {"i": "input gate", "f": "forget gate", "g": "candidate", "o": "output gate", "c": "cell"}


def history(figures: Any, ax: Any = None) -> Any:
    """Plot figures over epochs, those of validation data dashed in the colour of their training data's.

    Parameters
    ----------
    figures : History, or mapping from name to list of float
        As `Sequential.fit` returns it.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into; new ones if it is not given.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        If ``figures`` is no such mapping, or ``ax`` no axes.
    ImportError
        If matplotlib is not installed.
    """
    lists: object = getattr(figures, "history", figures)
    if not isinstance(lists, Mapping):
        needed = "a History, or a mapping from names to lists of numbers"
        raise TypeError(f"figures must be {needed}, got {_check.shown(figures)}")
    curves = {name: _curve(name, values) for name, values in lists.items()}
    ax = _one(ax)
    colours: dict[str, Any] = {}
    for name, values in sorted(curves.items(), key=lambda item: item[0].startswith("val_")):
        of = name.removeprefix("val_")
        style = "--" if name.startswith("val_") else "-"
        (line,) = ax.plot(values, style, label=name, color=colours.get(of), marker=_marker(values))
        colours[of] = line.get_color()
    ax.set_xlabel("epoch")
    if curves:
        ax.legend()
    return ax


def gates(trace: Trace, *, state: int = 0, row: int = 0, units: Any = None) -> Array:
    """Plot the gates and cells of one layer and direction as images, units over time.

    Parameters
    ----------
    trace : Trace
        ``tape.trace`` after ``forward(x, trace=True)``.
    state : int
        Layer and direction, in the order of the states.
    row : int
        Row of the batch.
    units : list of int, optional
        Units to show, in this order; all if it is not given.

    Returns
    -------
    array of matplotlib.axes.Axes (5,)
        Of i, f, g, o and c.

    Raises
    ------
    TypeError, ValueError
        If ``trace`` is none, or there is no such state, row or unit.
    ImportError
        If matplotlib is not installed.
    """
    _one_of(trace, state, row)
    shown = slice(None) if units is None else _units(units, trace.c.shape[3])
    axes = _axes(len(GATES), height=1.6)
    for ax, (name, title) in zip(axes, GATES.items(), strict=True):
        values = getattr(trace, name)[state, :, row].T[shown]
        low, high = (0.0, 1.0) if name in "ifo" else (-1.0, 1.0) if name == "g" else _symmetric(values)
        image = ax.imshow(values, aspect="auto", interpolation="nearest", vmin=low, vmax=high, cmap=_colours(low))
        ax.set_ylabel("unit")
        ax.set_title(f"{name}: {title}", fontsize="medium", loc="left")
        ax.figure.colorbar(image, ax=ax, pad=0.01)
    axes[-1].set_xlabel("step")
    return axes


def gradient_norms(trace: Trace, *, row: int | None = None, ax: Any = None) -> Any:
    """Plot the norms of the gradients of h and c, step by step and on a logarithmic axis: how they vanish or explode.

    Parameters
    ----------
    trace : Trace
        ``tape.trace`` of a tape that went through ``backward``.
    row : int, optional
        Row of the batch; the norm over all rows if it is not given.
    ax : matplotlib.axes.Axes, optional
        Axes to draw into; new ones if it is not given.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        If ``trace`` is none, has not seen ``backward``, or there is no such row; or ``ax`` is no axes.
    ImportError
        If matplotlib is not installed.
    """
    _one_of(trace, 0, 0 if row is None else row)
    if trace.dh_norm is None or trace.dc_norm is None:
        raise ValueError("trace has no norms yet: call backward with its tape first")
    ax = _one(ax)
    for name, norms, style in (("h", trace.dh_norm, "-"), ("c", trace.dc_norm, "--")):
        for state, values in enumerate(norms):
            over = np.sqrt((values.astype(np.float64) ** 2).sum(axis=1)) if row is None else values[:, row]
            over = np.where(over > 0, over, np.nan)  # a logarithmic axis has no 0
            if not np.isnan(over).all():
                label = f"gradient of {name}, state {state}"
                ax.plot(over, style, color=f"C{state}", label=label, marker=_marker(over))
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("norm")
    if ax.get_legend_handles_labels()[0]:
        ax.legend()
    return ax


def _one_of(trace: Any, state: int, row: int) -> None:
    if not isinstance(trace, Trace):
        raise TypeError(f"trace must be tape.trace after forward(x, trace=True), got {type(trace).__name__}")
    states, _, rows, _ = trace.c.shape
    for name, value, end in (("state", state, states), ("row", row, rows)):
        if not 0 <= _check.size(value, name, zero=True) < end:
            raise ValueError(f"{name} must be one of 0 to {end - 1}, got {value}")


def _units(units: Any, end: int) -> Array:
    read = list(units) if isinstance(units, Iterator) else units
    given = _check.array(read, "units", "numbers of units", "iu")
    if given.ndim != 1 or ((given < 0) | (given >= end)).any():
        raise ValueError(f"units must be a list of numbers from 0 to {end - 1}, got {_check.shown(units)}")
    return given.astype(np.intp)


def _curve(name: Any, values: object) -> Array:
    _check.text(name, "a name of figures")
    read = _check.array(values, f"figures[{name!r}]")
    if read.ndim != 1:
        raise ValueError(f"figures[{name!r}] must be a list of numbers, got {_check.shown(values)}")
    return read


def _marker(values: Array) -> str | None:
    """Return a marker for one value alone, of which a line shows nothing."""
    return "o" if len(values) == 1 else None


def _symmetric(values: Array) -> tuple[float, float]:
    most = float(np.abs(values).max(initial=0)) or 1.0
    return -most, most


def _colours(low: float) -> str:
    return "viridis" if low == 0 else "RdBu_r"


def _one(ax: Any) -> Any:
    """Return the given axes, or new ones for None."""
    if ax is not None and not hasattr(ax, "plot"):
        raise TypeError(f"ax must be None or axes of matplotlib, got {_check.shown(ax)}")
    return _axes(1)[0] if ax is None else ax


def _axes(count: int, height: float = 3.6) -> Array:
    try:
        plt: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError("plots need the package matplotlib: pip install matplotlib") from error
    size = (8.0, height * count)
    _, axes = plt.subplots(count, 1, sharex=count > 1, squeeze=False, figsize=size, layout="constrained")
    return np.asarray(axes[:, 0])
