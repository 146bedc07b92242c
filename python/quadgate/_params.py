"""Parameters: names and shapes, read-only copies, snapshots, state dicts, and their form in pickles."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _check, _core

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


def empty_vector(n: int, dtype: np.dtype[Any]) -> Array:
    """Return an uninitialised vector that begins at a cache line, as the core makes those of gradients."""
    line = 64 // dtype.itemsize
    whole = np.empty(n + line - 1, dtype)
    skipped = -_address(whole) % 64 // dtype.itemsize
    return whole[skipped : skipped + n]


def freeze(value: Array) -> Array:
    """Return a copy that cannot be made writable: its memory belongs to an immutable bytes object."""
    return np.frombuffer(value.tobytes(), value.dtype).reshape(value.shape)


class Params(Mapping[str, "Array"]):
    """Parameters by name, in arrays that cannot be written, all of them views of the vector `flat`.

    They cannot be made writable either: their memory is an immutable bytes object, or a read-only block of the core.

    Attributes
    ----------
    flat : array (N,)
        All N numbers in the order of the names, each array in row-major order. It cannot be written.
    """

    __slots__ = ("_by_name", "flat")

    flat: Array

    def __init__(self, values: Mapping[str, Array]) -> None:
        dtype = next(iter(values.values())).dtype if values else np.dtype(np.float32)
        data = b"".join([np.ascontiguousarray(value).data for value in values.values()])
        self._view(np.frombuffer(data, dtype), {name: value.shape for name, value in values.items()})

    @classmethod
    def gathered(cls, values: Mapping[str, Array]) -> Params:
        """Return the parameters of arrays that nothing can write to: without a copy if they lie in one vector already.

        That is so if they are views of the same array, one behind the other, as an optimizer makes them.
        """
        if values:
            first = next(iter(values.values()))
            vector: Any = first.base
            if type(vector) is np.ndarray and vector.ndim == 1 and vector.dtype == first.dtype:
                begin = end = _address(first)
                for value in values.values():
                    if value.base is not vector or _address(value) != end or not value.flags.c_contiguous:
                        return cls(values)
                    end += value.nbytes
                start = (begin - _address(vector)) // vector.itemsize
                flat = vector[start : start + (end - begin) // vector.itemsize]
                return cls.of_flat(flat, {name: value.shape for name, value in values.items()})
        return cls(values)

    @classmethod
    def of_flat(cls, flat: Array, shapes: Shapes) -> Params:
        """Return the parameters that lie one behind the other in a vector that cannot be written: no copy is made."""
        self = cls.__new__(cls)
        self._view(flat, shapes)
        return self

    def _view(self, flat: Array, shapes: Shapes) -> None:
        self.flat, self._by_name = flat, dict(split(flat, shapes))

    def __getitem__(self, name: str) -> Array:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __or__(self, other: Mapping[str, Array]) -> dict[str, Array]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Array]) -> dict[str, Array]:
        return {**other, **self}

    def copy(self) -> dict[str, Array]:
        """Return a dict of the same arrays."""
        return dict(self._by_name)

    def __repr__(self) -> str:
        return f"Params({', '.join(f'{name}: {value.shape}' for name, value in self.items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Params, (dict(self._by_name),)


class Snapshot:
    """The parameters of a network at one moment, and the core that computes with them. Nothing in it ever changes."""

    __slots__ = ("_params", "backward", "core", "forward", "forward_tape", "weight_type")

    forward_tape: Callable[..., Any]
    backward: Callable[..., Any]

    def __init__(self, core: _core.Network, values: Mapping[str, Array]) -> None:
        self.core = core
        self._params = values if isinstance(values, Params) else Params(values)
        self.weight_type: str | None = None  # that of the network
        # Bound once: a call then costs two attributes and one compiled call.
        self.forward, self.forward_tape, self.backward = core.forward, core.forward_tape, core.backward

    @property
    def params(self) -> Params:
        """Parameters by name."""
        return self._params

    @property
    def held(self) -> Mapping[str, Array]:
        """Arrays that are kept."""
        return self._params

    @property
    def stored(self) -> Mapping[str, Array]:
        """Arrays as pickles have them."""
        return self._params

    def refuse_training(self, *_: Any) -> None:
        """Raise TypeError where the weights are for inference only."""

    def refuse_change(self) -> None:
        """Raise TypeError where parameters cannot be replaced."""


def _address(value: Array) -> int:
    address: int = value.__array_interface__["data"][0]
    return address


def split(flat: Array, shapes: Shapes) -> Iterator[tuple[str, Array]]:
    """Yield each name with its piece of a vector, in its shape."""
    start = 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        yield name, flat[start:stop].reshape(shape)
        start = stop


def to_pytorch(params: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return copies under PyTorch's names: our bias is its ``bias_ih``, its ``bias_hh`` is zeros."""
    _check.text(prefix, "prefix")
    result = {}
    for name, value in params.items():
        first, *second = _halves(name) or (name,)
        result[prefix + first] = value.copy()
        for other in second:
            result[prefix + other] = np.zeros_like(value)
    return result


def _halves(name: str) -> tuple[str, str] | None:
    """Return the names of PyTorch's two biases for our one, None for other parameters."""
    return (f"bias_ih{name[4:]}", f"bias_hh{name[4:]}") if name.startswith("bias_l") else None


def read(values: Mapping[str, object], of: Shapes, dtype: np.dtype[Any], prefix: str | None) -> dict[str, Array]:
    """Read all parameters from a mapping with PyTorch's names or ours, or raise all that is wrong with its keys."""
    values = checked_mapping(values)
    if prefix is None:
        prefix = _common_prefix(values)
        left = list(values)
    else:
        _check.text(prefix, "prefix")
        left = [key for key in values if key.startswith(prefix)]
    sources: dict[str, list[str]] = {}
    missing, twice = [], []
    for name in of:
        choices = [[prefix + name]]
        choices += [[prefix + half for half in halves] for halves in [_halves(name)] if halves]
        if name.endswith(_CELL) and f"{prefix}weight_ih" in values:  # the names of a cell
            choices += [[key.removesuffix(_CELL) for key in keys] for keys in choices]
        found = [keys for keys in choices if any(key in values for key in keys)]
        if len(found) > 1:
            twice.append(" and ".join(" + ".join(keys) for keys in found))
        elif not found:
            missing.append(" or ".join(" + ".join(keys) for keys in choices[:2]))
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
        problems.append("given twice: " + ", ".join(twice))
    if problems:
        dotted = prefix and any(key.startswith(f"{prefix}.") for key in values)
        meant = f": did you mean prefix={prefix + '.'!r}?" if dotted else ""
        raise ValueError(f"the state dict does not fit this network ({'; '.join(problems)}){meant}")
    result = {}
    for name, keys in sources.items():
        if len(keys) == 1:
            result[name] = _check.floats(values[keys[0]], keys[0], of[name], dtype)
        else:
            one, two = (_check.floats(values[key], key, of[name], np.dtype(np.float64)) for key in keys)
            result[name] = (one + two).astype(dtype)
    return result


_CELL = "_l0"  # at the end of the names of a layer, and not of a cell


def checked_mapping(values: object) -> Mapping[str, object]:
    """Return a state dict. Raises TypeError if it is no mapping, or a key no string."""
    if not isinstance(values, Mapping):
        raise TypeError(f"state dict must be a mapping from names to arrays, got {type(values).__name__}")
    if not all(isinstance(key, str) for key in values):
        raise TypeError("the keys of a state dict must be strings")
    return values


def _prefixes(values: Iterable[str]) -> list[str]:
    """Return the beginnings of the names of each network or cell in a state dict."""
    ends = ("weight_ih_l0", "weight_ih")
    return sorted({key[: -len(end)] for key in values for end in ends if key.endswith(end)})


def _common_prefix(values: Mapping[str, object]) -> str:
    """Return the beginning of the name before ``weight_ih_l0``: all keys must begin so."""
    found = _prefixes(values)
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


def select(values: Mapping[str, object], broken: Mapping[str, str], name: str | None) -> tuple[str, dict[str, Array]]:
    """Return the prefix and arrays of the one network in a state dict, or of the one with the given name.

    Keys of other modules are left out: those with another prefix, or with a dot behind it. `broken` are problems by the
    names of weights that could not be joined.
    """
    found = _prefixes([*values, *broken])
    if name is None:
        if len(found) != 1:
            listed = f"several networks: choose one by name=, of {', '.join(repr(p.rstrip('.')) for p in found)}"
            raise ValueError(f"the state dict holds {listed if found else 'no network: there is no weight_ih_l0'}")
        prefix = found[0]
    else:
        _check.text(name, "name")
        near = [prefix for prefix in found if name in (prefix, prefix.removesuffix("."))]
        if not near:
            names = [prefix.rstrip(".") for prefix in found]
            meant = _check.did_you_mean(name, names)
            raise ValueError(f"the state dict holds no network {name!r}, only {', '.join(map(repr, names))}{meant}")
        prefix = near[0]
    for key, problem in broken.items():
        if key.startswith(prefix) and "." not in key[len(prefix) :]:
            raise ValueError(problem)
    keys = [key for key in values if key.startswith(prefix) and "." not in key[len(prefix) :]]
    return prefix, {key: _check.array(values[key], key) for key in keys}


def infer(arrays: Mapping[str, Array], prefix: str, *, elman: bool) -> dict[str, Any]:
    """Return the constructor's arguments that follow from the names and shapes of a network's arrays."""
    shapes = {_layered(key[len(prefix) :]): value.shape for key, value in arrays.items()}
    if "weight_hh_l0" not in shapes or any(len(shapes[f"weight_{kind}_l0"]) != 2 for kind in ("ih", "hh")):
        raise ValueError(f"{prefix}weight_ih_l0 and {prefix}weight_hh_l0 must be there, and have two axes each")
    rows, inputs = shapes["weight_ih_l0"]
    columns = shapes["weight_hh_l0"][1]
    projection = shapes.get("weight_hr_l0", ())
    hidden = projection[1] if len(projection) == 2 else columns
    gates = 1 if elman else 4
    if rows != gates * hidden:
        others = {1: "a plain recurrent network (RNN)", 3: "a GRU", 4: "an LSTM"}
        other = others.get(rows // hidden if hidden and rows % hidden == 0 else 0)
        seems = f": these seem to be the weights of {other}" if other else ""
        raise ValueError(
            f"{prefix}weight_ih_l0 must have {gates} * hidden_size = {gates * hidden} rows, got {rows}{seems}"
        )
    result: dict[str, Any] = {"input_size": inputs, "hidden_size": hidden}
    layers = 1
    while f"weight_ih_l{layers}" in shapes:
        layers += 1
    result["num_layers"] = layers
    result["bidirectional"] = "weight_ih_l0_reverse" in shapes
    result["bias"] = any(name.startswith(("bias_l", "bias_ih_l", "bias_hh_l")) for name in shapes)
    if not elman:
        result["proj_size"] = columns if projection else 0
        result["peephole"] = "peephole_l0" in shapes
    if "weight_highway_l1" in shapes:
        result["shortcut"] = "highway"
    kinds = {value.dtype for value in arrays.values()}
    result["dtype"] = "float64" if np.dtype(np.float64) in kinds else "float32"
    return result


def _layered(name: str) -> str:
    return f"{name}{_CELL}" if name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "bias") else name


def pack(value: Array) -> tuple[str, tuple[int, ...], bytes]:
    """Return an array as plain Python values: its type's name, its shape and its bytes, in little-endian order."""
    return value.dtype.name, value.shape, value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()


def unpack(item: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return the array of `pack`, which cannot be written to. Raises ValueError if it is not of this shape and type."""
    want = dtype.name, shape, dtype.itemsize * math.prod(shape)
    if not isinstance(item, tuple) or len(item) != 3 or type(item[2]) is not bytes:
        raise ValueError(f"{name} of a pickle must be a type, a shape and bytes")
    got = item[0], item[1], len(item[2])
    if got != want:
        raise ValueError(f"{name} of a pickle must be {want[0]} {want[1]} of {want[2]} bytes, got {got}")
    value = np.frombuffer(item[2], dtype.newbyteorder("<")).reshape(shape)
    return value if value.dtype == dtype else value.astype(dtype)
