"""The ONNX operator LSTM computed by quadgate: forward, backward, and as a node of whole models.

>>> import numpy as np, quadgate.onnx
>>> X = np.zeros((10, 2, 3), np.float32)  # (T, B, I)
>>> W, R = np.ones((1, 4 * 5, 3), np.float32), np.ones((1, 4 * 5, 5), np.float32)
>>> Y, Y_h, Y_c = quadgate.onnx.lstm(X, W, R)

`lstm` takes the inputs and attributes of the operator. `lstm_training` and `lstm_backward` compute its gradients.
`lstm_grad` computes them from values that another program saved in its forward pass. `ReferenceEvaluator` runs whole
models with quadgate as the implementation of LSTM; onnx's own evaluator does so with `LSTM` among its ``new_ops``.
`load` makes a network of a node in a model's file, and `store` puts one back. `export` makes a model of a network or of
a `quadgate.train.Sequential`. These five need the package onnx, which is imported on their first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._operator import lstm
from ._training import Gradients, Tape, lstm_backward, lstm_grad, lstm_training

if TYPE_CHECKING:
    from ._evaluator import LSTM, ReferenceEvaluator
    from ._export import export
    from ._files import load, store

__all__ = [
    "LSTM",
    "Gradients",
    "ReferenceEvaluator",
    "Tape",
    "export",
    "load",
    "lstm",
    "lstm_backward",
    "lstm_grad",
    "lstm_training",
    "store",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in ("load", "store"):
        from . import _files

        return getattr(_files, name)
    module = {"LSTM": "_evaluator", "ReferenceEvaluator": "_evaluator", "export": "_export"}.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = import_module(f".{module}", __name__)
    except ImportError as error:
        raise ImportError(f"quadgate.onnx.{name} needs the package onnx: pip install onnx") from error
    return getattr(found, name)
