"""Networks with weights of 16 or 8 bits: conversion of their matrices, and the error that it makes."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import numpy as np

from . import _check, _core, _params
from ._params import Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from ._network import Network
    from ._options import Options

    Array = NDArray[Any]

__all__ = ["QuantizationError", "quantization_error"]

Net = TypeVar("Net", bound="Network")

TYPES = ("float16", "bfloat16", "int8")
STORED: dict[str, np.dtype[Any]] = {
    "float16": np.dtype(np.uint16),
    "bfloat16": np.dtype(np.uint16),
    "int8": np.dtype(np.int8),
}
SCALE = ".scale"  # behind a matrix's name: the float32 scales of its rows
MOST_COLUMNS = 1 << 17  # of a matrix of int8: 32 bits hold a sum of that many products


class QuantizedSnapshot(Snapshot):
    """Parameters of which the matrices are stored in a compact type.

    The core packs small matrices of 16 bits as float32, which are then the only copy.
    """

    __slots__ = ("_held", "_shapes")

    def __init__(self, core: _core.Network, stored: dict[str, Array], weight_type: str) -> None:
        for name, value in stored.items():
            _refuse_unmade(value, name, weight_type)
        super().__init__(core, {})
        self.weight_type: str = weight_type
        self._shapes = {name: value.shape for name, value in stored.items()}
        self._held = stored
        if core.unpack(None):
            self._held = {name: value for name, value in stored.items() if not is_matrix(name)}
        # No method of its own, which would be a cycle: memory is to go with the last network that has it.
        self.forward_tape = self.backward = functools.partial(_refuse_training, weight_type)

    @property
    def stored(self) -> dict[str, Array]:
        """All arrays as files have them."""
        if len(self._held) == len(self._shapes):
            return self._held
        matrices = [np.empty(shape, np.float32) for name, shape in self._shapes.items() if is_matrix(name)]
        self.core.unpack(matrices)
        pieces = iter(matrices)
        to_bits = to_float16 if self.weight_type == "float16" else to_bfloat16
        return {
            name: _params.freeze(to_bits(next(pieces), name)) if is_matrix(name) else self._held[name]
            for name in self._shapes
        }

    @property
    def params(self) -> _params.Params:
        """Copies of the values in float32."""
        return _params.Params(values(self.stored, self.weight_type))

    @property
    def held(self) -> Mapping[str, Array]:
        return self._held

    def refuse_training(self, *_: Any) -> NoReturn:
        _refuse_training(self.weight_type)

    def refuse_change(self) -> NoReturn:
        raise TypeError(
            f"the parameters of a network with {self.weight_type} weights cannot be changed: change those of the "
            "float32 network, and quantize it again"
        )


def _refuse_training(kind: str, *_: Any) -> NoReturn:
    raise TypeError(
        f"a network with {kind} weights is for inference and streams: train the float32 network, and quantize it again"
    )


def quantized(net: Net, weights: object) -> Net:
    """Return `net` with its matrices stored in another type; see `Network.quantize`.

    Attributes of a subclass are those of `net` themselves, as in a shallow copy.
    """
    kind: str = _check.choice(weights, "weights", TYPES)
    o = net._options
    if net.weight_type in TYPES:
        raise ValueError(f"the network has {net.weight_type} weights already: quantize the float32 network")
    if o.dtype != np.float32:
        raise ValueError(
            f"quantize needs a float32 network, got {o.dtype}: make one with dtype='float32' and load this one's "
            "state_dict() into it"
        )
    stored: dict[str, Array] = {}
    for name, value in net.params.items():
        if not is_matrix(name):
            stored[name] = _params.freeze(value)  # a copy: `value` may be a view of all parameters
        elif kind == "int8":
            whole, scale = to_int8(value, name)
            stored[name], stored[name + SCALE] = _params.freeze(whole), _params.freeze(scale)
        else:
            bits = to_float16(value, name) if kind == "float16" else to_bfloat16(value, name)
            stored[name] = _params.freeze(bits)
    result = restored(type(net), o, kind, stored)
    result._take_attributes({"attributes": net._kept_attributes()})
    return result


def restored(of: type[Net], o: Options, kind: str, stored: dict[str, Array]) -> Net:
    """Return a network of these options with the arrays of `QuantizedSnapshot.stored`."""
    net = of.__new__(of)
    net._configure(o)
    net._take_stored(kind, stored)
    return net


def checked(of: type[Net], o: Options, kind: str, arrays: Mapping[str, Array]) -> Net:
    """Return `restored` of arrays from outside. Raises ValueError if they do not fit."""
    want = shapes(_params.shapes(o), kind)
    if arrays.keys() != want.keys():
        raise ValueError(f"{kind} weights need the arrays {', '.join(want)}; got {', '.join(arrays)}")
    stored = {}
    for name, (shape, dtype) in want.items():
        if arrays[name].shape != shape or arrays[name].dtype != dtype:
            got = f"{arrays[name].dtype} {arrays[name].shape}"
            raise ValueError(f"{name} must be {dtype} {shape}, got {got}")
        stored[name] = _params.freeze(np.ascontiguousarray(arrays[name]))
    return restored(of, o, kind, stored)


def core_of(o: Options, kind: str) -> _core.Network:
    """Return a compiled network for weights of a compact type, without parameters."""
    sizes = (o.input_size, o.hidden_size, o.num_layers, o.directions)
    return _core.Network(o.dtype.name, *sizes, o.bias, {**(o.core() or {}), "weights": kind}, o.batch_first)


def is_matrix(name: str) -> bool:
    """Return True for a parameter that is stored in the compact type."""
    return name.startswith("weight_")


def shapes(plain: Mapping[str, tuple[int, ...]], kind: str) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return the shape and type of every array that a network stores, in the core's order."""
    result: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for name, shape in plain.items():
        result[name] = shape, STORED[kind] if is_matrix(name) else np.dtype(np.float32)
        if kind == "int8" and is_matrix(name):
            result[name + SCALE] = shape[:1], np.dtype(np.float32)
    return result


def to_float16(value: Array, name: str) -> NDArray[np.uint16]:
    """Return the bits of float32 numbers, rounded to the nearest float16, to even where two are as near."""
    with np.errstate(over="ignore", under="ignore"):
        result: NDArray[np.float16] = value.astype(np.float16)
    _refuse_infinite(value, result, name, "float16", "bfloat16 has the range of float32")
    bits: NDArray[np.uint16] = result.view(np.uint16)
    return bits


def to_bfloat16(value: Array, name: str) -> NDArray[np.uint16]:
    """Return the bits of float32 numbers, rounded to the nearest bfloat16, to even where two are as near."""
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
    even = bits >> np.uint32(16) & np.uint32(1)
    result: NDArray[np.uint16] = ((bits.astype(np.uint64) + 0x7FFF + even) >> 16).astype(np.uint16)
    _refuse_infinite(value, widened(result, "bfloat16"), name, "bfloat16", "it is beyond all its numbers")
    return result


def to_int8(value: Array, name: str) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return integers from -127 to 127 and the scale of each row, its largest magnitude / 127."""
    if value.shape[1] > MOST_COLUMNS:
        raise ValueError(f"{name} has {value.shape[1]} columns; int8 weights may have {MOST_COLUMNS}")
    _refuse_infinite(value, value, name, "int8", "")
    largest = np.abs(value).max(axis=1)
    with np.errstate(under="ignore"):
        scale = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
        scale = np.maximum(scale, np.finfo(np.float32).tiny)  # denormals are taken for zeros
        return np.clip(np.rint(value / scale[:, None]), -127, 127).astype(np.int8), scale


def _refuse_infinite(value: Array, result: Array, name: str, kind: str, hint: str) -> None:
    if not np.isfinite(value).all():
        raise ValueError(f"{name} has NaN or infinity: {kind} weights must be finite")
    if not np.isfinite(result).all():
        worst = float(np.abs(value).max())
        raise ValueError(f"{name} has {worst:.6g}, which {kind} cannot hold: {hint}")


def _refuse_unmade(stored: Array, name: str, kind: str) -> None:
    """Raise ValueError for numbers that `quantized` never makes, but a file or a pickle may hold."""
    if name.endswith(SCALE):
        wrong, what = ~np.isfinite(stored), "NaN or infinity: scales must be finite"
    elif not is_matrix(name):
        return
    elif kind == "int8":
        wrong, what = stored == -128, "-128: int8 weights are from -127 to 127"
    else:
        exponent = 0x7C00 if kind == "float16" else 0x7F80
        wrong, what = stored & exponent == exponent, f"NaN or infinity: {kind} weights must be finite"
    if wrong.any():
        raise ValueError(f"{name} has {what}")


def widened(stored: Array, kind: str) -> NDArray[np.float32]:
    """Return the float32 values of bits of float16 or bfloat16, exactly."""
    result: NDArray[np.float32]
    if kind == "float16":
        result = stored.view(np.float16).astype(np.float32)
    else:
        result = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return result


def values(stored: Mapping[str, Array], kind: str) -> dict[str, Array]:
    """Return the float32 values of all parameters, in arrays that cannot be written."""
    result = {}
    for name, array in stored.items():
        if name.endswith(SCALE):
            continue
        if not is_matrix(name):
            result[name] = array
        elif kind == "int8":
            result[name] = _params.freeze(array * stored[name + SCALE][:, None])
        else:
            result[name] = _params.freeze(widened(array, kind))
    return result


class QuantizationError(NamedTuple):
    """Change of y by quantised weights: its largest and its mean magnitude."""

    largest: float
    mean: float


def quantization_error(net: Network, quantized: Network, x: ArrayLike, **arguments: Any) -> QuantizationError:
    """Return how far a quantised network's output is from the original's, on data.

    Parameters
    ----------
    net : LSTM or RNN
        The float32 network.
    quantized : LSTM or RNN
        Its result of `LSTM.quantize`, or any other network with the same sizes.
    x : array (T, B, I), (B, T, I) if ``batch_first``, or (T, I)
        Input like that of the task: the error depends on it.
    **arguments
        More arguments of both calls, such as ``state`` or ``lengths``.

    Returns
    -------
    QuantizationError
        ``largest`` and ``mean`` of ``abs(y - y_quantized)``, over all of y.

    Raises
    ------
    TypeError, ValueError
        If one is no network, their y has different shapes, or an argument is wrong.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> lstm = qg.LSTM(64, 128, rng=0)
    >>> x = np.random.default_rng(0).standard_normal((50, 1, 64))
    >>> error = qg.quantization_error(lstm, lstm.quantize("float16"), x)
    >>> error.mean < error.largest < 1e-3
    True
    """
    for name, value in (("net", net), ("quantized", quantized)):
        if not isinstance(getattr(value, "_snapshot", None), Snapshot):
            raise TypeError(f"{name} must be an LSTM or RNN, got {_check.shown(value)}")
    if arguments.get("out") is not None:
        raise ValueError("out must be None: both calls would write to it")
    call: Any = net
    want = call(x, **arguments)[0]
    call = quantized
    got = call(x, **arguments)[0]
    if want.shape != got.shape:
        raise ValueError(f"the networks' y have shapes {want.shape} and {got.shape}")
    off = np.abs(want.astype(np.float64) - got)
    if math.prod(off.shape) == 0:
        return QuantizationError(0.0, 0.0)
    return QuantizationError(float(off.max()), float(off.mean()))
