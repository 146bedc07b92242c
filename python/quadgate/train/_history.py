"""Figures of a training run, epoch by epoch."""

from __future__ import annotations

from typing import Any


class History:
    """The result of `Sequential.fit`.

    Attributes
    ----------
    history : dict
        From the name of a figure to its list, one number for each epoch: "loss", the metrics, and "val_loss" and so on
        where there is validation data.
    epoch : list of int
        Numbers of the epochs, from 0.
    stopped : str or None
        Why training ended before the last epoch.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.stopped: str | None = None

    def add(self, epoch: int, figures: dict[str, float]) -> None:
        """Append the figures of an epoch."""
        self.epoch.append(epoch)
        for name, value in figures.items():
            self.history.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> list[float]:
        return self.history[name]

    def plot(self, ax: Any = None) -> Any:
        """Plot all figures over the epochs, as `quadgate.plot.history` does; return the axes.

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install matplotlib``.
        """
        from .. import plot

        return plot.history(self, ax)

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.6g}" for name, values in self.history.items())
        return f"History({len(self.epoch)} epochs{', ' if last else ''}{last})"
