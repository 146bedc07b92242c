"""fourgate: LSTM networks on CPUs. NumPy arrays in, NumPy arrays out.

>>> import numpy as np, fourgate as fg
>>> lstm = fg.LSTM(64, 128)
>>> y, (h, c) = lstm(np.zeros((10, 3, 64), np.float32))

`LSTM` runs and trains, `Stream` goes step by step, `fourgate.reference` is the same in plain NumPy, to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._core import Tape, __version__
from ._machine import cpu_info, get_num_threads, set_num_threads
from .lstm import LSTM, Grads
from .stream import Stream

__all__ = [
    "LSTM",
    "Grads",
    "Stream",
    "Tape",
    "__version__",
    "cpu_info",
    "get_num_threads",
    "reference",
    "set_num_threads",
]

if TYPE_CHECKING:
    from . import reference


def __getattr__(name: str) -> Any:
    if name == "reference":  # read by people and tests: an import need not pay for it
        from importlib import import_module

        return import_module(".reference", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
