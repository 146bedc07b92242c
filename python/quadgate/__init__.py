"""quadgate: LSTM networks on CPUs. NumPy arrays in, NumPy arrays out.

>>> import numpy as np, quadgate as qg
>>> lstm = qg.LSTM(64, 128)
>>> y, (h, c) = lstm(np.zeros((10, 3, 64), np.float32))

`LSTM` runs and trains, `RNN` is Elman's simple recurrent network, `Stream` goes step by step, and `load` and `save`
read and write files. `pad_sequences` and `unpad` are for sequences of different lengths, `set_num_threads` and
`cpu_info` for the machine, `explore` and `quadgate.plot` for a look inside.

`quadgate.train` has the layers, losses and optimizers around an LSTM, `quadgate.torch` modules that train in the place
of PyTorch's, `quadgate.io` the files of other frameworks, `quadgate.onnx` ONNX models, and `quadgate.reference` the
same mathematics in plain NumPy, to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._core import __version__
from ._machine import cpu_info, get_num_threads, set_num_threads
from ._results import LSTMGrads, RNNGrads, Tape, Trace
from .lstm import LSTM
from .rnn import RNN
from .stream import RNNStream, Stream

__all__ = [
    "LSTM",
    "RNN",
    "LSTMGrads",
    "RNNGrads",
    "RNNStream",
    "Stream",
    "Tape",
    "Trace",
    "__version__",
    "cpu_info",
    "explore",
    "get_num_threads",
    "io",
    "load",
    "onnx",
    "pad_sequences",
    "plot",
    "quantization_error",
    "reference",
    "save",
    "set_num_threads",
    "train",
    "unpad",
]

if TYPE_CHECKING:
    from . import io, onnx, plot, reference, train
    from ._explore import explore
    from ._masking import pad_sequences, unpad
    from ._quantize import quantization_error
    from .io import load, save

# Name -> module, or module and function: most programs do not need them, and an import need not pay for them.
_LAZY = {
    "explore": "._explore:explore",
    "io": ".io",
    "load": ".io:load",
    "onnx": ".onnx",
    "plot": ".plot",
    "reference": ".reference",
    "save": ".io:save",
    "train": ".train",
    "torch": ".torch",  # not in __all__: it needs the package torch
    "pad_sequences": "._masking:pad_sequences",
    "quantization_error": "._quantize:quantization_error",
    "unpad": "._masking:unpad",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        module, _, function = _LAZY[name].partition(":")
        value = import_module(module, __name__)
        return getattr(value, function) if function else value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
