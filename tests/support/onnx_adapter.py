"""What third-party conformance suites call: ONNX's LSTM, and its gradient from saved tensors, by `quadgate.onnx`."""

from __future__ import annotations

from typing import Any

from quadgate.onnx import lstm, lstm_grad

__all__ = ["lstm", "lstm_backward"]


def lstm_backward(X: Any, W: Any, R: Any, H_all: Any, C_all: Any, iofc: Any, grad_H_all: Any) -> tuple[Any, ...]:
    """Return dX, dW, dR and dB, both halves of which are the same."""
    grads = lstm_grad(X, W, R, H_all, C_all, iofc, grad_H_all)
    return grads.X, grads.W, grads.R, grads.B
