"""Parameters: their names and shapes, how they are kept, and PyTorch's state dicts."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _check

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._options import Options

    Array = NDArray[Any]
    Shapes = dict[str, tuple[int, ...]]


MOST_LAYERS = 1 << 20  # the names alone of more would fill the memory


def shapes(o: Options) -> Shapes:
    """Return every parameter's name and shape, in the core's order: layers, directions, and what `_own` lists for each.

    Raises MemoryError where they could not be addressed, so that no later product of sizes overflows.
    """
    later = o.num_layers - 1
    total = _count(o, o.input_size) + later * _count(o, o.inputs(1))
    if o.shortcut == "dense":  # each layer reads O columns more than the one below
        total += o.directions * o.gates * o.hidden_size * o.outputs * (later * (later - 1) // 2)
    elif o.shortcut == "highway":
        total += later * o.outputs * (o.outputs + 1)
    if total * o.dtype.itemsize > sys.maxsize // 4 or o.num_layers > MOST_LAYERS:
        raise MemoryError(f"a network of {total} parameters does not fit into memory")
    result: Shapes = {}
    for layer in range(o.num_layers):
        for suffix in o.suffixes(layer):
            result.update((kind + suffix, shape) for kind, shape in _own(o, o.inputs(layer)).items())
        if o.shortcut == "highway" and layer > 0:
            result[f"weight_highway_l{layer}"] = (o.outputs, o.outputs)
            result[f"bias_highway_l{layer}"] = (o.outputs,)
    return result


def _own(o: Options, width: int) -> Shapes:
    """Return the parameters of one direction of a layer that reads `width` columns."""
    rows, units, columns = o.gates * o.hidden_size, o.hidden_size, o.state_columns
    result: Shapes = {"weight_ih": (rows, width), "weight_hh": (rows, columns)}
    if o.bias:
        result["bias"] = (rows,)
    if o.proj_size:
        result["weight_hr"] = (columns, units)
    if o.peephole:
        result["peephole"] = (3, units)
    if o.layer_norm:
        result.update(norm_ih=(rows,), norm_hh=(rows,), norm_c=(2, units))
    return result


def _count(o: Options, width: int) -> int:
    return o.directions * sum(math.prod(shape) for shape in _own(o, width).values())


def freeze(value: Array) -> Array:
    """Return a copy that nobody can make writable: its memory belongs to an immutable bytes object."""
    return np.frombuffer(value.tobytes(), value.dtype).reshape(value.shape)


def to_pytorch(params: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return copies under PyTorch's names: our bias is its ``bias_ih``, its ``bias_hh`` is zeros."""
    result = {}
    for name, value in params.items():
        first, *second = _halves(name) or (name,)
        result[prefix + first] = value.copy()
        for other in second:
            result[prefix + other] = np.zeros_like(value)
    return result


def _halves(name: str) -> tuple[str, str] | None:
    """Return the names of PyTorch's two biases where it has two for our one."""
    return (f"bias_ih{name[4:]}", f"bias_hh{name[4:]}") if name.startswith("bias_l") else None


def from_mapping(
    values: Mapping[str, object], of: Shapes, dtype: np.dtype[Any], prefix: str | None
) -> dict[str, Array]:
    """Read all parameters from a mapping with PyTorch's names or ours, or say all that is wrong with its keys."""
    if not isinstance(values, Mapping):
        raise TypeError(f"state dict must be a mapping from names to arrays, got {type(values).__name__}")
    if not all(isinstance(key, str) for key in values):
        raise TypeError("the keys of a state dict must be strings")
    if prefix is None:
        prefix = _common_prefix(values)
        left = list(values)
    else:
        left = [key for key in values if key.startswith(prefix)]
    sources: dict[str, list[str]] = {}
    missing, twice = [], []
    for name in of:
        choices = [[prefix + name]]
        choices += [[prefix + half for half in halves] for halves in [_halves(name)] if halves]
        found = [keys for keys in choices if any(key in values for key in keys)]
        if len(found) > 1:
            twice.append(name)
        elif not found:
            missing.append(" or ".join(" + ".join(keys) for keys in choices))
        else:
            missing += [key for key in found[0] if key not in values]
            sources[name] = found[0]
    used = {key for keys in sources.values() for key in keys}
    unknown = [] if twice else [key for key in left if key not in used]
    problems = []
    if missing:
        problems.append("missing: " + ", ".join(missing))
    if unknown:
        problems.append("unknown: " + ", ".join(map(str, unknown)))
    if twice:
        problems.append("given both whole and in two parts: " + ", ".join(twice))
    if problems:
        raise ValueError(f"the state dict does not fit this network ({'; '.join(problems)})")
    result = {}
    for name, keys in sources.items():
        parts = [_check.floats(values[key], key, of[name], np.dtype(np.float64)) for key in keys]
        result[name] = (parts[0] if len(parts) == 1 else parts[0] + parts[1]).astype(dtype, copy=False)
    return result


def _common_prefix(values: Mapping[str, object]) -> str:
    """Return what stands before ``weight_ih_l0``: all keys must begin so, or be asked for by an explicit prefix."""
    found = [key[: -len("weight_ih_l0")] for key in values if key.endswith("weight_ih_l0")]
    if len(found) > 1:
        raise ValueError(
            f"the state dict holds several networks: choose one by prefix=, of {', '.join(map(repr, found))}"
        )
    prefix = found[0] if found else ""
    others = [key for key in values if not key.startswith(prefix)]
    if others:
        raise ValueError(
            f"the state dict holds more than a network ({', '.join(others[:4])}{', ...' if len(others) > 4 else ''}): "
            f"pass prefix={prefix!r} to load only the keys that begin so"
        )
    return prefix
