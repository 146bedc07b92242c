"""The operator LSTM of ONNX on quadgate, all of it: forward, backward, and as a part of whole models.

>>> import quadgate.onnx
>>> Y, Y_h, Y_c = quadgate.onnx.lstm(X, W, R, B, direction="bidirectional")

`lstm` has the inputs and attributes of the operator; `lstm_training` and `lstm_backward` train it; `lstm_grad` goes
backward from what another program saved. `ReferenceEvaluator` runs whole models with quadgate for their LSTM nodes, as
onnx's own does with `LSTM` among its ``new_ops``: these two need the package onnx, and import it when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._operator import lstm
from ._training import Gradients, Tape, lstm_backward, lstm_grad, lstm_training

if TYPE_CHECKING:
    from ._evaluator import LSTM, ReferenceEvaluator

__all__ = ["LSTM", "Gradients", "ReferenceEvaluator", "Tape", "lstm", "lstm_backward", "lstm_grad", "lstm_training"]


def __getattr__(name: str) -> Any:
    if name in ("LSTM", "ReferenceEvaluator"):
        try:
            from . import _evaluator
        except ImportError as error:
            raise ImportError(f"quadgate.onnx.{name} needs the package onnx: pip install onnx") from error
        return getattr(_evaluator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
