"""Constants of an ONNX model that are weights of its nodes, and the operators that exporters put before them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check
from ._nodes import DEPTH, Frame, attributes_of, domain_of, quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def value_of(tensor: Any) -> Array:
    """Return a tensor as an array of its own type.

    Raises ValueError for external data, which onnx would take from the current directory, and for negative sizes, of
    which NumPy's reshape takes one for the rest.
    """
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ValueError(
            f"tensor {quoted(tensor.name)} has external data, which is not part of the model in memory: pass the "
            "path, or a model that onnx.load has read with its external data"
        )
    if any(n < 0 for n in tensor.dims):
        raise ValueError(f"tensor {quoted(tensor.name)} has the senseless shape {_check.shown(tuple(tensor.dims))}")
    return np.asarray(onnx.numpy_helper.to_array(tensor))


def is_floating(array: Array) -> bool:
    """Return True for floating point; NumPy has bfloat16 from another package, and does not know its kind."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def known(array: Array) -> Array:
    """Return an array of a type that is NumPy's own: bfloat16 as float32."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def constant(frame: Frame, name: str, depth: int = 0) -> Array | None:
    """Return a constant of a graph, None for an empty name and for an input that a function's call leaves out.

    Followed are initializers, Constant, and what exporters put between them and a node: Identity, Unsqueeze, Squeeze,
    Concat, Slice, Transpose, Reshape and Cast. Raises ValueError for what is computed in any other way.
    """
    if not name:
        return None
    if depth > DEPTH:
        raise ValueError(f"weight {quoted(name)} is computed by more than {DEPTH} nodes")
    where, source = frame.find(name)
    if source is None:
        return None
    key = source.output[0] if hasattr(source, "op_type") and source.output else name
    if key in where.cache:
        return where.cache[key]
    if key in where.failed and depth >= where.failed[key][0]:  # many nodes may name it, and it many inputs
        raise ValueError(where.failed[key][1])
    try:
        value = where.cache[key] = _computed(where, source, name, depth)
    except ValueError as error:
        where.failed[key] = depth, str(error)
        raise
    return value


def _computed(where: Frame, source: Any, name: str, depth: int) -> Array:
    """Return the value of an initializer or of what a node computes of constants."""
    arguments: list[Any] = []
    made = 0
    if not hasattr(source, "op_type"):
        value = value_of(source)
    elif source.op_type == "Constant" and not domain_of(source):
        value = _literal(attributes_of(where, source), name)
    elif source.op_type == "DequantizeLinear":
        raise ValueError(f"weight {quoted(name)} is dequantised: quantised weights cannot be loaded")
    elif source.op_type in _OPERATORS and not domain_of(source):
        arguments = [constant(where, inner, depth + 1) for inner in source.input]
        if not arguments or arguments[0] is None:
            raise ValueError(f"weight {quoted(name)} comes from {_operator(source)} without an input")
        given = attributes_of(where, source)
        made = _size(source.op_type, arguments, given)
        where.budget.take(made)  # before it is made, which may be more than there is memory
        value = np.asarray(_OPERATORS[source.op_type](arguments, given))
        if source.op_type != "Concat" and value.size > arguments[0].size:
            raise ValueError(f"weight {quoted(name)} is more than the input of {_operator(source)}")
    else:
        raise ValueError(f"weight {quoted(name)} is computed by {_operator(source)}, not a constant")
    if not made and not (arguments and np.may_share_memory(value, arguments[0])):
        where.budget.take(value.nbytes)
    return value


def _operator(node: Any) -> str:
    return f"{node.op_type[:200]} {quoted(node.name)}"


def _size(operator: str, arguments: list[Any], given: dict[str, Any]) -> int:
    """Return the bytes of what Concat and Cast make; 0 for the others, which make a view or as much as they take."""
    if operator == "Concat":
        if any(a is None or a.dtype != arguments[0].dtype for a in arguments):
            raise ValueError("a Concat of weights lacks an input, or has inputs of several types")
        return sum(a.nbytes for a in arguments)
    return int(arguments[0].size * _cast_type(arguments[0], given).itemsize) if operator == "Cast" else 0


def _literal(given: dict[str, Any], name: str) -> Array:
    """Return the value of a node Constant."""
    if "value" in given:
        return value_of(given["value"])
    for attribute in ("value_float", "value_floats"):
        if attribute in given:
            return np.asarray(given[attribute], np.float32)
    for attribute in ("value_int", "value_ints"):
        if attribute in given:
            return np.asarray(given[attribute], np.int64)
    raise ValueError(f"weight {quoted(name)} is a Constant without numbers")


def _axes(arguments: list[Any], given: dict[str, Any]) -> tuple[int, ...]:
    """Return the axes of Unsqueeze and Squeeze: an input since opset 13, an attribute before."""
    axes = arguments[1] if len(arguments) > 1 and arguments[1] is not None else given.get("axes", ())
    return tuple(int(axis) for axis in np.atleast_1d(np.asarray(axes, np.int64)))


def _squeeze(arguments: list[Any], given: dict[str, Any]) -> Array:
    axes = _axes(arguments, given)
    return np.asarray(np.squeeze(arguments[0], axes or None))


def _concat(arguments: list[Any], given: dict[str, Any]) -> Array:
    return np.concatenate(arguments, int(given["axis"]))


def _slice(arguments: list[Any], given: dict[str, Any]) -> Array:
    names = ("starts", "ends", "axes", "steps")
    found = dict(zip(names, arguments[1:], strict=False)) if len(arguments) > 1 else {n: given.get(n) for n in names}
    starts, ends = (np.atleast_1d(np.asarray(found[n], np.int64)) for n in ("starts", "ends"))
    axes, steps = (
        np.atleast_1d(np.asarray(default if found.get(n) is None else found[n], np.int64))
        for n, default in (("axes", range(len(starts))), ("steps", [1] * len(starts)))
    )
    index = [slice(None)] * arguments[0].ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        stop: int | None = int(end)
        if step < 0 and end < -arguments[0].shape[axis]:
            stop = None
        index[int(axis)] = slice(int(start), stop, int(step))
    return np.asarray(arguments[0][tuple(index)])


def _reshape(arguments: list[Any], given: dict[str, Any]) -> Array:
    shape = given.get("shape", arguments[1] if len(arguments) > 1 else None)
    sizes = [int(n) for n in np.atleast_1d(np.asarray(shape, np.int64))]
    old = arguments[0].shape
    if not given.get("allowzero"):
        sizes = [old[k] if n == 0 and k < len(old) else n for k, n in enumerate(sizes)]
    return np.asarray(arguments[0].reshape(sizes))


def _cast_type(array: Array, given: dict[str, Any]) -> np.dtype[Any]:
    import onnx

    to = given.get("to")
    if to not in (1, 10, 11, 16, 6, 7):
        raise ValueError(f"a Cast of weights goes to type {to}")
    if not is_floating(array) and to in (1, 10, 11, 16):
        raise ValueError(f"weights of {array.dtype} are cast: quantised weights cannot be loaded")
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(to))


def _cast(arguments: list[Any], given: dict[str, Any]) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(arguments[0].astype(_cast_type(arguments[0], given)))


_OPERATORS: dict[str, Any] = {
    "Identity": lambda arguments, given: arguments[0],
    "Unsqueeze": lambda arguments, given: np.expand_dims(arguments[0], _axes(arguments, given)),
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Slice": _slice,
    "Transpose": lambda arguments, given: np.transpose(arguments[0], given.get("perm")),
    "Reshape": _reshape,
    "Cast": _cast,
}
