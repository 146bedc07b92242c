"""Functions that `Sequential.fit` calls after each epoch, and the one that stops it early."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["Callback", "EarlyStopping"]


class Callback:
    """Base of objects that `Sequential.fit` calls; a plain function ``f(model, epoch, figures)`` will do, too.

    A method, or the function, that returns True ends training.
    """

    def on_train_begin(self, model: Any) -> None:
        """Start a run."""

    def on_batch_end(self, model: Any, batch: int, loss: float) -> bool | None:
        """Take note of an update, numbered from 0 in each epoch, and its loss.

        With ``accumulate`` these are of several batches.
        """
        return None

    def on_epoch_end(self, model: Any, epoch: int, figures: Mapping[str, float]) -> bool | None:
        """Take note of an epoch and its figures."""
        return None

    def on_train_end(self, model: Any) -> None:
        """End a run."""


class EarlyStopping(Callback):
    """Stop when a figure has not improved for some epochs.

    Parameters
    ----------
    monitor : str
        Name of the figure: "val_loss", which needs the ``validation_data`` of `fit`, "loss", or a metric's.
    patience : int
        Number of epochs without improvement after which training stops.
    min_delta : float
        Least change that counts as an improvement.
    mode : "auto", "min" or "max"
        Direction of improvement; "auto" is "max" for names that end in "acc" or "accuracy", and "min" for all others.
    restore_best : bool
        True to put the parameters of the best epoch back at the end. After an interruption they are in `best_params`.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of its range.

    Attributes
    ----------
    best : float
        Best figure so far, NaN before the first.
    best_epoch : int
        Its epoch, from 0; -1 before the first.
    best_params : Params or None
        Parameters after that epoch, with ``restore_best``.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 0,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best: bool = False,
    ) -> None:
        _check.text(monitor, "monitor")
        self.monitor, self.patience = monitor, _check.size(patience, "patience", zero=True)
        self.min_delta = abs(_check.number(min_delta, "min_delta"))
        mode = _check.choice(mode, "mode", ("auto", "min", "max"))
        self._sign = 1.0 if mode == "max" or (mode == "auto" and monitor.endswith(("acc", "accuracy"))) else -1.0
        self.restore_best = _check.flag(restore_best, "restore_best")
        self.best, self.best_epoch, self._wait = math.nan, -1, 0
        self.best_params: Any = None

    def on_train_begin(self, model: Any) -> None:
        self.best, self.best_epoch, self._wait, self.best_params = math.nan, -1, 0, None

    def on_epoch_end(self, model: Any, epoch: int, figures: Mapping[str, float]) -> bool | None:
        self._require_known(figures)
        value = figures[self.monitor]
        better = math.isnan(self.best) or self._sign * (value - self.best) > self.min_delta
        if better and not math.isnan(value):
            self.best, self.best_epoch, self._wait = value, epoch, 0
            self.best_params = model.params if self.restore_best else None
            return None
        self._wait += 1
        return self._wait >= self.patience

    def _require_known(self, figures: Collection[str]) -> None:
        """Raise ValueError if the figure is not among these."""
        if self.monitor not in figures:
            meant = _check.did_you_mean(self.monitor, figures) or "; the metrics of fit are figures, too"
            raise ValueError(f"monitor must be one of {', '.join(figures)}, got {self.monitor!r}{meant}")

    def on_train_end(self, model: Any) -> None:
        if self.best_params is not None:
            model.load_params(self.best_params)

    def __repr__(self) -> str:
        return f"EarlyStopping({self.monitor!r}, patience={self.patience})"


class _Function(Callback):
    def __init__(self, function: Any) -> None:
        self._function = function

    def on_epoch_end(self, model: Any, epoch: int, figures: Mapping[str, float]) -> bool | None:
        stop = self._function(model, epoch, figures)
        return isinstance(stop, (bool, np.bool_)) and bool(stop)

    def __repr__(self) -> str:
        return getattr(self._function, "__name__", repr(self._function))


def read(callbacks: Any, figures: Collection[str], validated: bool) -> list[Callback]:
    """Return callbacks, functions among them as such; raise TypeError for others.

    Raises ValueError at once, not after a whole epoch, for a figure to be monitored that there will not be.
    """
    known = ["loss", *figures]
    known += [f"val_{name}" for name in known] if validated else []
    if isinstance(callbacks, (Callback, str)):
        raise TypeError(f"callbacks must be a list, got {type(callbacks).__name__}")
    result: list[Callback] = []
    for item in _check.items(callbacks, "callbacks", "a list"):
        if isinstance(item, type):
            raise TypeError(f"callbacks must be functions or objects of train.Callback, got the class {item.__name__}")
        if not isinstance(item, Callback) and not callable(item):
            raise TypeError(f"callbacks must be functions or objects of train.Callback, got {type(item).__name__}")
        if type(item) is EarlyStopping:  # a subclass may have figures of its own
            if not validated and item.monitor.startswith("val_") and item.monitor not in known:
                raise ValueError(
                    f"{item!r} needs validation_data: pass it to fit, or monitor another figure, as 'loss'"
                )
            if all(type(earlier) is EarlyStopping for earlier in result):  # other callbacks may add some
                item._require_known(known)
        result.append(item if isinstance(item, Callback) else _Function(item))
    return result
