"""Parameters: their names and shapes, how they begin, how they are kept, and PyTorch's state dicts."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _check

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Shapes = dict[str, tuple[int, ...]]


def shapes(input_size: int, hidden_size: int, num_layers: int, directions: int, bias: bool, itemsize: int) -> Shapes:
    """Return every parameter's name and shape, in the core's order: layers, directions, weight_ih, weight_hh, bias.

    Raises MemoryError where they could not be addressed, so that no later product of sizes overflows.
    """
    first, later = input_size + hidden_size + 1, (directions + 1) * hidden_size + 1
    total = 4 * hidden_size * directions * (first + (num_layers - 1) * later)
    if total * itemsize > sys.maxsize // 4:
        raise MemoryError(f"an LSTM of {total} parameters does not fit into memory")
    result: Shapes = {}
    for layer in range(num_layers):
        for reverse in ("", "_reverse")[:directions]:
            width = input_size if layer == 0 else directions * hidden_size
            result[f"weight_ih_l{layer}{reverse}"] = (4 * hidden_size, width)
            result[f"weight_hh_l{layer}{reverse}"] = (4 * hidden_size, hidden_size)
            if bias:
                result[f"bias_l{layer}{reverse}"] = (4 * hidden_size,)
    return result


def initial(
    of: Shapes, hidden_size: int, dtype: np.dtype[Any], rng: int | np.random.Generator | None
) -> dict[str, Array]:
    """Draw all parameters from the uniform distribution on (-1/sqrt(H), 1/sqrt(H)), as PyTorch does."""
    if rng is not None and not isinstance(rng, np.random.Generator):
        if isinstance(rng, (bool, np.bool_)) or not hasattr(rng, "__index__"):
            raise TypeError(f"rng must be None, an int or a numpy.random.Generator, got {type(rng).__name__}")
        if rng < 0:
            raise ValueError(f"rng must not be negative, got {rng}")
    generator = np.random.default_rng(rng)
    end = 1.0 / math.sqrt(hidden_size)
    # Drawn in float64 whatever the type, so that a seed gives one network, not one for each type.
    return {name: freeze(generator.uniform(-end, end, shape).astype(dtype)) for name, shape in of.items()}


def freeze(value: Array) -> Array:
    """Return a copy that nobody can make writable: its memory belongs to an immutable bytes object."""
    return np.frombuffer(value.tobytes(), value.dtype).reshape(value.shape)


def to_pytorch(params: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return copies under PyTorch's names: our bias is its ``bias_ih``, its ``bias_hh`` is zeros."""
    result = {}
    for name, value in params.items():
        if name.startswith("bias"):
            result[prefix + name.replace("bias", "bias_ih")] = value.copy()
            result[prefix + name.replace("bias", "bias_hh")] = np.zeros_like(value)
        else:
            result[prefix + name] = value.copy()
    return result


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
        if name.startswith("bias"):
            choices.append([prefix + name.replace("bias", part) for part in ("bias_ih", "bias_hh")])
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
        raise ValueError(f"the state dict does not fit this LSTM ({'; '.join(problems)})")
    result = {}
    for name, keys in sources.items():
        parts = [_check.floats(values[key], key, of[name], np.dtype(np.float64)) for key in keys]
        result[name] = (parts[0] if len(parts) == 1 else parts[0] + parts[1]).astype(dtype, copy=False)
    return result


def _common_prefix(values: Mapping[str, object]) -> str:
    """Return what stands before ``weight_ih_l0``: all keys must begin so, or be asked for by an explicit prefix."""
    found = [key[: -len("weight_ih_l0")] for key in values if key.endswith("weight_ih_l0")]
    if len(found) > 1:
        raise ValueError(f"the state dict holds several LSTMs: choose one by prefix=, of {', '.join(map(repr, found))}")
    prefix = found[0] if found else ""
    others = [key for key in values if not key.startswith(prefix)]
    if others:
        raise ValueError(
            f"the state dict holds more than an LSTM ({', '.join(others[:4])}{', ...' if len(others) > 4 else ''}): "
            f"pass prefix={prefix!r} to load only the keys that begin so"
        )
    return prefix
