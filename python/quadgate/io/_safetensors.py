"""The format safetensors, and quadgate's own files, which are safetensors with the options in the metadata."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ._found import CLASSES, Found

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]

FORMAT = "quadgate 1"  # raised when a reader of the older one would misread a newer file
QUANTIZED_FORMAT = "quadgate 2"  # of networks with weights of fewer bytes
STORED = {"float16": "F16", "bfloat16": "BF16", "int8": "I8"}
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BOOL": "?"} | {
    f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)
}


def _package() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("files of safetensors need the package of that name: pip install safetensors") from error
    return safetensors


def read(data: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays by name, and the file's metadata.

    bfloat16 comes back as float32, exactly: NumPy itself does not have the type.
    """
    package = _package()
    try:
        entries = package.deserialize(data)
    except package.SafetensorError as error:
        raise ValueError(f"not a whole file of safetensors: {error}") from error
    arrays = {}
    for name, entry in entries:
        raw, kind = entry["data"], entry["dtype"]
        if kind == "BF16":
            values: Array = widen(np.frombuffer(raw, "<u2"))
        elif kind in DTYPES:
            values = np.frombuffer(raw, DTYPES[kind])
        else:
            raise ValueError(f"{name} has type {kind}; quantised and complex arrays cannot be read")
        arrays[name] = values.reshape(entry["shape"])
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return arrays, header.get("__metadata__") or {}


def widen(bits: Array) -> Array:
    """Return the float32 whose upper halves are these bfloat16."""
    return np.asarray((bits.astype(np.uint32) << np.uint32(16)).view(np.float32))


def save(net: Any) -> bytes:
    """Return a network as the bytes of a file: parameters under their own names, options as JSON."""
    kind = next((name for name, class_ in CLASSES.items() if isinstance(net, class_)), None)
    if kind is None:
        raise TypeError(f"net must be a quadgate.LSTM or quadgate.RNN, got {type(net).__name__}")
    package = _package()
    options = {name: getattr(net, name) for name in arguments(kind)}
    options["dtype"] = net.dtype.name
    metadata = {"format": FORMAT, "kind": kind, "options": json.dumps(options)}
    if net.weight_type in STORED:
        metadata |= {"format": QUANTIZED_FORMAT, "weights": net.weight_type}
        return _bytes(net._snapshot.stored, STORED[net.weight_type], metadata)
    arrays = {name: np.ascontiguousarray(value) for name, value in net.params.items()}
    return bytes(package.numpy.save(arrays, metadata))


def _bytes(arrays: Mapping[str, Array], matrices: str, metadata: dict[str, str]) -> bytes:
    """Return the bytes of a file; `matrices` is the type of those that are not float32, which NumPy may not have."""
    header: dict[str, Any] = {"__metadata__": metadata}
    data, at = [], 0
    for name, value in arrays.items():
        data.append(value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes())
        kind = "F32" if value.dtype == np.float32 else matrices
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [at, at + len(data[-1])]}
        at += len(data[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *data])


def _stored(arrays: Mapping[str, Array], kind: str) -> dict[str, Array]:
    """Return the arrays as a network with weights of this type keeps them."""
    if kind not in STORED:
        raise ValueError(f"its weights are {kind!r}; {', '.join(STORED)} can be read")
    result = dict(arrays)
    for name, value in arrays.items():
        if name.startswith("weight_") and kind == "bfloat16" and value.dtype == np.float32:
            result[name] = (value.view(np.uint32) >> np.uint32(16)).astype(np.uint16)  # as `read` widened it
        elif name.startswith("weight_") and kind == "float16" and value.dtype == np.float16:
            result[name] = value.astype(np.float16, copy=False).view(np.uint16)
    return result


def arguments(kind: str) -> list[str]:
    """Return the names of a class's options: the constructor's arguments, which its properties repeat."""
    return [name for name in inspect.signature(CLASSES[kind]).parameters if name != "rng"]


def own(arrays: Mapping[str, Array], metadata: Mapping[str, str], source: str) -> Found | None:
    """Return the network that `save` wrote, None if another program wrote the file."""
    if not metadata.get("format", "").startswith("quadgate "):
        return None
    if metadata["format"].startswith("quadgate model "):
        raise ValueError("it holds a whole model: quadgate.train.load reads it")
    if metadata["format"] != (QUANTIZED_FORMAT if "weights" in metadata else FORMAT):
        known = f"{FORMAT!r}, and {QUANTIZED_FORMAT!r} with weights of fewer bytes"
        raise ValueError(f"it was written by a newer version, as {metadata['format']!r}; this one reads {known}")
    weights = metadata.get("weights")
    if weights is not None:
        arrays = _stored(arrays, weights)
    kind = metadata.get("kind", "")
    if kind not in CLASSES:
        raise ValueError(f"it holds a network of kind {kind!r}; {' or '.join(CLASSES)} is needed")
    options = json.loads(metadata.get("options", "{}"))
    if not isinstance(options, dict):
        raise ValueError("its options are not a JSON object")
    unknown = options.keys() - set(arguments(kind))
    if unknown:
        raise ValueError(f"it has options that this version does not know: {', '.join(sorted(unknown))}")
    options = {name: tuples(value) for name, value in options.items()}
    sizes = {name: options.pop(name, default) for name, default in _SIZES.items()}
    directions = 2 if options.get("bidirectional") else 1
    if not all(type(n) is int and n > 0 for n in sizes.values()):
        raise ValueError(f"its sizes are {sizes}; positive whole numbers are needed")
    needed = 4 * sum(a.nbytes for a in arrays.values()) + 4096
    widths = sizes["input_size"], sizes["hidden_size"], options.get("proj_size")
    if any(type(n) is int and n * sizes["hidden_size"] > needed for n in widths):
        raise ValueError(f"its sizes are {sizes | {'proj_size': widths[2]}}, more than its arrays hold")
    return Found(
        kind, "", **sizes, directions=directions, options=options, source=source, arrays=arrays, weights=weights
    )


_SIZES = {"input_size": 0, "hidden_size": 0, "num_layers": 1}


def tuples(value: Any) -> Any:
    """Return a value of JSON with tuples in the place of lists."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value
