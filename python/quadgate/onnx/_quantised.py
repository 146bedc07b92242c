"""Weights of onnxruntime's operator DynamicQuantizeLSTM as those of LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def dequantised(args: Sequence[Any]) -> list[Any]:
    """Return the eight inputs of LSTM from the twelve of DynamicQuantizeLSTM, with weights as float32.

    Parameters
    ----------
    args : sequence
        X, W (D, I, 4H), R (D, H, 4H), B, sequence_lens, initial_h, initial_c, P, then scale and zero point of W and of
        R, each (D,) or (D, 4H). W and R are int8 or uint8.

    Raises
    ------
    TypeError, ValueError
        If one of the weights, scales and zero points is missing, or has a wrong type or shape.
    """
    args = [*args, *[None] * (12 - len(args))]
    W, R = (_weights(args[k], args[s], args[s + 1], name) for k, s, name in ((1, 8, "W"), (2, 10, "R")))
    return [args[0], W, R, *args[3:8]]


def _weights(q: Any, scale: Any, zero: Any, name: str) -> Array:
    for value, what in ((q, name), (scale, f"{name}_scale"), (zero, f"{name}_zero_point")):
        if value is None:
            raise ValueError(f"{what} must be given")
    q, scale, zero = np.asarray(q), np.asarray(scale), np.asarray(zero)
    if q.dtype not in (np.int8, np.uint8) or zero.dtype != q.dtype:
        raise TypeError(f"{name} and {name}_zero_point must both be int8 or uint8, got {q.dtype} and {zero.dtype}")
    if scale.dtype != np.float32:
        raise TypeError(f"{name}_scale must be float32, got {scale.dtype}")
    if q.ndim != 3:
        raise ValueError(f"{name} must have 3 axes, got {q.ndim}")
    shapes = ((q.shape[0],), (q.shape[0], q.shape[2]))
    for value, what in ((scale, "scale"), (zero, "zero_point")):
        if value.shape not in shapes:
            raise ValueError(f"{name}_{what} must have shape {shapes[0]} or {shapes[1]}, got {value.shape}")
    whole = q.transpose(0, 2, 1).astype(np.float32)  # exact, as is the difference
    result: Array = (whole - _column(zero)) * _column(scale)
    return result


def _column(value: Array) -> Array:
    """Return (D, 1, 1) or (D, 4H, 1) of float32."""
    return value.astype(np.float32).reshape(value.shape[0], -1, 1)
