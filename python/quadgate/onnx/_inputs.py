"""Validation of the inputs of the ONNX operator LSTM, and their conversion to plain arrays in quadgate's gate order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _check

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._attributes import Attributes

    Array = NDArray[Any]

_TO_OURS = (0, 2, 3, 1)  # from ONNX's gate order i, o, f, c to quadgate's i, f, g (ONNX's c), o
_TO_ONNX = (0, 3, 1, 2)
_PEEPHOLES = (0, 2, 1)  # between i, o, f and i, f, o; its own inverse


class Weights(NamedTuple):
    """W, R, B and P in the operator's layout, of one floating dtype."""

    W: Array
    R: Array
    B: Array | None
    P: Array | None


class Sequences(NamedTuple):
    """Inputs other than parameters: X (T, B, I), or (B, T, I) with ``layout=1``; lengths (B,); states (D, B, H)."""

    X: Array
    lengths: Array | None
    initial_h: Array | None
    initial_c: Array | None


def real(value: object, name: str) -> Array:
    """Return an array of real numbers; bfloat16, which is not a dtype of NumPy itself, is converted to float32."""
    result = _check.array(value, name, kinds="fiuV")
    if result.dtype.kind == "V":
        if result.dtype.name != "bfloat16":
            raise TypeError(f"{name} must hold real numbers (float or integer), got dtype {result.dtype}")
        return result.astype(np.float32)
    return result


def read_x(value: object) -> tuple[Array, np.dtype[Any]]:
    """Return X as a plain array of the dtype of the arithmetic, and the dtype of the results, which is X's own."""
    given = _check.array(value, "X", kinds="fiuV")
    if given.dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        raise TypeError(f"X must be float16, bfloat16, float32 or float64, got {given.dtype}")
    if given.ndim != 3 or given.shape[2] < 1:
        raise ValueError(f"X must have three axes, the last of them input_size of at least 1, got shape {given.shape}")
    dtype = given.dtype.newbyteorder("=")
    return _check.plain(given, np.dtype(np.float64 if dtype.name == "float64" else np.float32)), dtype


def shaped(value: object, name: str, shape: tuple[int, ...], meaning: str, dtype: np.dtype[Any]) -> Array:
    """Return a plain array of that shape and dtype; `meaning` names the axes in the error message."""
    result = real(value, name)
    if result.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, which is ({meaning}), got {result.shape}")
    return _check.plain(result, dtype)


def weights(inputs: int, W: object, R: object, B: object, P: object, attributes: Attributes, dtype: Any) -> Weights:
    """Validate and convert the parameters of an operator with `inputs` input features."""
    directions, hidden = len(attributes.directions), attributes.hidden_size
    if hidden is None:
        shape = real(R, "R").shape
        if len(shape) != 3 or shape[2] < 1:
            raise ValueError(f"R must have shape (num_directions, 4*hidden_size, hidden_size), got {shape}")
        hidden = shape[2]
    d = "num_directions"
    # R first: without the attribute hidden_size, it determines the shapes of the others.
    recurrent = shaped(R, "R", (directions, 4 * hidden, hidden), f"{d}, 4*hidden_size, hidden_size", dtype)
    return Weights(
        shaped(W, "W", (directions, 4 * hidden, inputs), f"{d}, 4*hidden_size, input_size", dtype),
        recurrent,
        None if B is None else shaped(B, "B", (directions, 8 * hidden), f"{d}, 8*hidden_size", dtype),
        None if P is None else shaped(P, "P", (directions, 3 * hidden), f"{d}, 3*hidden_size", dtype),
    )


def sequences(
    x: Array, sequence_lens: object, initial_h: object, initial_c: object, hidden: int, attributes: Attributes
) -> Sequences:
    """Validate and convert the inputs other than parameters; `x` is the result of `read_x`."""
    batch, steps = x.shape[:2] if attributes.batch_first else x.shape[1::-1]
    lengths = None
    if sequence_lens is not None:
        # A copy, so that no other thread can change it after the check.
        lengths = np.array(_check.array(sequence_lens, "sequence_lens", "integers", "iu"))
        if lengths.shape != (batch,):
            raise ValueError(f"sequence_lens must have shape ({batch},), which is (batch_size,), got {lengths.shape}")
        outside = (lengths < 0) | (lengths > steps)
        if outside.any():
            row = int(outside.argmax())
            raise ValueError(f"sequence_lens must be between 0 and {steps}, got {lengths[row]} for row {row}")
        lengths = lengths.astype(np.int64)
    shape = len(attributes.directions), batch, hidden
    return Sequences(
        x,
        lengths,
        state(initial_h, "initial_h", shape, attributes.batch_first, x.dtype),
        state(initial_c, "initial_c", shape, attributes.batch_first, x.dtype),
    )


def state(value: object, name: str, shape: tuple[int, int, int], batch_first: bool, dtype: Any) -> Array | None:
    """Return a state as (D, B, H), None for None; with `batch_first` the given one is (B, D, H)."""
    if value is None:
        return None
    if not batch_first:
        return shaped(value, name, shape, "num_directions, batch_size, hidden_size", dtype)
    turned = shape[1], shape[0], shape[2]
    result = shaped(value, name, turned, "batch_size, num_directions, hidden_size", dtype)
    return np.ascontiguousarray(result.swapaxes(0, 1))


def sum_of_biases(ours: Array, recurrent: Array) -> Array:
    """Return the sum, of float16 in float32: it may have more digits, or be larger than float16's largest."""
    return np.add(ours, recurrent, dtype=np.result_type(ours, np.float32))


def parameters(w: Weights, d: int, suffix: str) -> dict[str, Array]:
    """Return the parameters of direction d by quadgate's names."""
    found = {f"weight_ih_l0{suffix}": _ordered(w.W[d], _TO_OURS), f"weight_hh_l0{suffix}": _ordered(w.R[d], _TO_OURS)}
    if w.B is not None:
        ours, recurrent = w.B[d].reshape(2, -1)
        found[f"bias_l0{suffix}"] = _ordered(sum_of_biases(ours, recurrent), _TO_OURS)
    if w.P is not None:
        found[f"peephole_l0{suffix}"] = w.P[d].reshape(3, -1)[list(_PEEPHOLES)]
    return found


def elman_parameters(w: Weights, d: int, suffix: str) -> dict[str, Array]:
    """Return the parameters of direction d of the operator RNN."""
    found = {f"weight_ih_l0{suffix}": w.W[d], f"weight_hh_l0{suffix}": w.R[d]}
    if w.B is not None:
        found[f"bias_l0{suffix}"] = sum_of_biases(*w.B[d].reshape(2, -1))
    return found


def from_parameters(grads: dict[str, Array], suffix: str) -> Weights:
    """Return one direction's gradients in the operator's layout; both halves of B have the gradient of their sum."""
    bias, peephole = grads.get(f"bias_l0{suffix}"), grads.get(f"peephole_l0{suffix}")
    return Weights(
        _ordered(grads[f"weight_ih_l0{suffix}"], _TO_ONNX),
        _ordered(grads[f"weight_hh_l0{suffix}"], _TO_ONNX),
        None if bias is None else np.tile(_ordered(bias, _TO_ONNX), 2),
        None if peephole is None else peephole[list(_PEEPHOLES)].reshape(-1),
    )


def our_gates(iofc: Array) -> Array:
    """Convert activated gates (T, B, 4H) in ONNX's order to (T, B, 4, H) in quadgate's order."""
    return np.ascontiguousarray(iofc.reshape(*iofc.shape[:2], 4, iofc.shape[2] // 4)[:, :, list(_TO_OURS)])


def our_rows(value: Array) -> Array:
    """Reorder rows (4H, ...) from ONNX's order to quadgate's."""
    return _ordered(value, _TO_OURS)


def onnx_rows(value: Array) -> Array:
    """Reorder rows (4H, ...) from quadgate's order to ONNX's."""
    return _ordered(value, _TO_ONNX)


def _ordered(value: Array, order: tuple[int, ...]) -> Array:
    """Reorder the four blocks of the first axis."""
    return value.reshape(4, -1, *value.shape[1:])[list(order)].reshape(value.shape)
