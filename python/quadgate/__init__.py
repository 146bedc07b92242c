"""quadgate: LSTM networks on CPUs. NumPy arrays in, NumPy arrays out.

>>> import numpy as np, quadgate as qg
>>> lstm = qg.LSTM(64, 128)
>>> y, (h, c) = lstm(np.zeros((10, 3, 64), np.float32))

`LSTM` runs and trains, `RNN` is what came before it, `Stream` goes step by step, `quadgate.onnx` speaks ONNX, and
`quadgate.reference` is the same in plain NumPy, to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._core import Tape, __version__
from ._machine import cpu_info, get_num_threads, set_num_threads
from ._trace import Trace
from .lstm import LSTM, Grads
from .rnn import RNN, RNNGrads
from .stream import RNNStream, Stream

__all__ = [
    "LSTM",
    "RNN",
    "Grads",
    "RNNGrads",
    "RNNStream",
    "Stream",
    "Tape",
    "Trace",
    "__version__",
    "cpu_info",
    "get_num_threads",
    "io",
    "onnx",
    "reference",
    "set_num_threads",
]

if TYPE_CHECKING:
    from . import io, onnx, reference


def __getattr__(name: str) -> Any:
    if name in ("io", "onnx", "reference"):  # not what most programs need: an import need not pay for it
        from importlib import import_module

        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
