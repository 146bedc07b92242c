"""Plots with matplotlib, of the extra ``[plot]``: training histories, gates and norms of gradients.

``qg.plot.history(model.fit(x, y))``, ``qg.plot.gates(tape.trace)`` and ``qg.plot.gradient_norms(tape.trace)`` return
the axes, to be shown or saved as matplotlib does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _check
from ._results import Trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    ImportError
        If matplotlib is not installed.
    """
    lists: Mapping[str, Sequence[float]] = getattr(figures, "history", figures)
    ax = _axes(1)[0] if ax is None else ax
    colours: dict[str, Any] = {}
    for name, values in sorted(lists.items(), key=lambda item: item[0].startswith("val_")):
        of = name.removeprefix("val_")
        style = "--" if name.startswith("val_") else "-"
        marker = "o" if len(values) == 1 else None
        (line,) = ax.plot(values, style, label=name, color=colours.get(of), marker=marker)
        colours[of] = line.get_color()
    ax.set_xlabel("epoch")
    if lists:
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
        If ``trace`` is none, or there is no such state or row.
    ImportError
        If matplotlib is not installed.
    """
    _one_of(trace, state, row)
    axes = _axes(len(GATES), height=1.6)
    for ax, (name, title) in zip(axes, GATES.items(), strict=True):
        values = getattr(trace, name)[state, :, row].T
        values = values if units is None else values[list(units)]
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
        If ``trace`` is none, has not seen ``backward``, or there is no such row.
    ImportError
        If matplotlib is not installed.
    """
    _one_of(trace, 0, row or 0)
    if trace.dh_norm is None or trace.dc_norm is None:
        raise ValueError("trace has no norms yet: call backward with its tape first")
    ax = _axes(1)[0] if ax is None else ax
    for name, norms, style in (("h", trace.dh_norm, "-"), ("c", trace.dc_norm, "--")):
        for state, values in enumerate(norms):
            over = np.sqrt((values.astype(np.float64) ** 2).sum(axis=1)) if row is None else values[:, row]
            over = np.where(over > 0, over, np.nan)  # a logarithmic axis has no 0
            if not np.isnan(over).all():
                ax.plot(over, style, color=f"C{state}", label=f"gradient of {name}, state {state}")
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("norm")
    ax.legend()
    return ax


def _one_of(trace: Any, state: int, row: int) -> None:
    if not isinstance(trace, Trace):
        raise TypeError(f"trace must be tape.trace after forward(x, trace=True), got {type(trace).__name__}")
    states, _, rows, _ = trace.c.shape
    for name, value, end in (("state", state, states), ("row", row, rows)):
        if not 0 <= _check.size(value, name, zero=True) < end:
            raise ValueError(f"{name} must be one of 0 to {end - 1}, got {value}")


def _symmetric(values: Array) -> tuple[float, float]:
    most = float(np.abs(values).max(initial=0)) or 1.0
    return -most, most


def _colours(low: float) -> str:
    return "viridis" if low == 0 else "RdBu_r"


def _axes(count: int, height: float = 3.6) -> Array:
    try:
        plt: Any = importlib.import_module("matplotlib.pyplot")
    except ImportError as error:
        raise ImportError("plots need the package matplotlib: pip install quadgate[plot]") from error
    size = (8.0, height * count)
    _, axes = plt.subplots(count, 1, sharex=count > 1, squeeze=False, figsize=size, layout="constrained")
    return np.asarray(axes[:, 0])
