"""Weights of onnxruntime's operator DynamicQuantizeLSTM as those of LSTM, and as weights of int8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _quantize
from . import _inputs

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
    W, R = (Matrix.of(args[k], args[s], args[s + 1], name) for k, s, name in PLACES)
    return [args[0], W.values, R.values, *args[3:8]]


# W and R: the places of the integers and of the scale among the inputs; the zero point follows the scale.
PLACES = ((1, 8, "W"), (2, 10, "R"))


class Matrix(NamedTuple):
    """W or R in the layout of LSTM: integers (D, 4H, N) without their zero points, and scales (D, 4H)."""

    integers: NDArray[np.int16]
    scale: NDArray[np.float32]

    @staticmethod
    def of(q: Any, scale: Any, zero: Any, name: str) -> Matrix:
        """Return the matrix of three inputs of the node; raise as `dequantised`."""
        q, scale, zero = _checked(q, scale, zero, name)
        whole = q.transpose(0, 2, 1).astype(np.int16)
        scales = np.broadcast_to(scale.reshape(len(scale), -1), whole.shape[:2])
        return Matrix(whole - zero.reshape(len(zero), -1, 1).astype(np.int16), scales)

    @property
    def values(self) -> Array:
        """The numbers that the integers stand for; float32 holds the integers exactly."""
        result: Array = self.integers.astype(np.float32) * self.scale[..., None]
        return result

    @property
    def fits(self) -> bool:
        """True if the weights of int8 that `quadgate.LSTM.quantize` makes can be these integers."""
        return bool(np.abs(self.integers).max() <= 127 and self.integers.shape[2] <= _quantize.MOST_COLUMNS)


def parameters(W: Matrix, R: Matrix, plain: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays of a network with weights of int8; `plain` are the parameters of the float32 network."""
    result = dict(plain)
    for d, suffix in zip(range(len(W.scale)), ("_l0", "_l0_reverse"), strict=False):
        for name, matrix in ((f"weight_ih{suffix}", W), (f"weight_hh{suffix}", R)):
            result[name] = _inputs.our_rows(matrix.integers[d].astype(np.int8))
            result[name + _quantize.SCALE] = _inputs.our_rows(matrix.scale[d])
    return result


def inputs(stored: Mapping[str, Array], suffixes: Sequence[str]) -> dict[int, Array]:
    """Return the node's integers, scales and zero points by their places, of the arrays of such a network."""
    result: dict[int, Array] = {}
    for (place, scale, _), kind in zip(PLACES, ("weight_ih_l0", "weight_hh_l0"), strict=True):
        result[place] = np.stack([_inputs.onnx_rows(stored[kind + suffix]).T for suffix in suffixes])
        result[scale] = np.stack([_inputs.onnx_rows(stored[kind + suffix + _quantize.SCALE]) for suffix in suffixes])
        result[scale + 1] = np.zeros(result[scale].shape, np.int8)
    return result


def _checked(q: Any, scale: Any, zero: Any, name: str) -> tuple[Array, Array, Array]:
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
    if not np.isfinite(scale).all():
        raise ValueError(f"{name}_scale must be finite")
    return q, scale, zero
