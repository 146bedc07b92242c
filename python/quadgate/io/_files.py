"""Files by their content: the format, its reader, and one kind of error for all that can be wrong."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _check
from . import _builders, _gates, _hdf5, _keras, _npz, _pickle, _safetensors, _state_dict, _torch
from ._zip import Archive

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._found import Found

    Array = NDArray[Any]
    File = str | os.PathLike[str] | IO[bytes]

_NOTHING: Mapping[str, str] = {}
_OTHERS = {".onnx", ".keras", ".h5", ".hdf5", ".pt", ".pth", ".ckpt", ".npz", ".npy", ".pkl", ".pickle"}


class Contents(NamedTuple):
    """Contents of a file: its arrays, and all else that its format says of networks."""

    format: str
    arrays: dict[str, Array]
    metadata: Mapping[str, str] = _NOTHING
    keras: _keras.File | None = None
    onnx: Any = None


@contextmanager
def blamed(source: str) -> Iterator[None]:
    """Convert any error that a damaged or hostile file causes to a ValueError that names the file."""
    try:
        yield
    except (ImportError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # of many libraries, on untrusted bytes
        text = str(error) or type(error).__name__
        if text.startswith(f"{source}: "):
            raise
        kind = "" if isinstance(error, ValueError) else f"it cannot be read ({type(error).__name__}): "
        raise ValueError(f"{source}: {kind}{text}") from error


def _is_open(file: Any) -> bool:
    if isinstance(file, (str, os.PathLike, type)):  # some paths have such methods, too
        return False
    return any(callable(getattr(file, method, None)) for method in ("read", "write"))


def title(file: File, name: str = "path") -> str:
    """Return what messages call a file: its path, or the name that an open one has."""
    if _is_open(file):
        own = getattr(file, "name", None)
        return own if isinstance(own, str) and own else "the file"
    return _check.path(file, name)


def folder(file: Any) -> Path:
    """Return the folder of a file by its path; that of an open one holds nothing."""
    return Path(os.devnull) if _is_open(file) else Path(file).parent


def read(file: Any, name: str = "path") -> bytes:
    """Return the bytes of a file, those of an open one from where it is. `name`: the argument, for errors."""
    if not _is_open(file):
        return Path(file).read_bytes()
    try:
        data = file.read()
    except (AttributeError, io.UnsupportedOperation) as error:
        raise TypeError(f"{name} must be open for reading") from error
    except UnicodeDecodeError:  # bytes that are no text
        data = ""
    except OSError:
        raise
    except Exception as error:  # of many libraries, which unpack as they read
        raise ValueError(f"{title(file)}: it cannot be read ({type(error).__name__}): {error}") from error
    if not isinstance(data, bytes):
        raise TypeError(f"{name} must be open in binary mode, got a file that reads {_check.shown(type(data))}")
    return data


def contents(path: File, unknown: str = "error", name: str = "path") -> Contents:
    """Return what is in a file."""
    if unknown not in ("error", "skip"):
        raise ValueError(f"unknown must be 'error' or 'skip', got {unknown!r}")
    source, data = title(path, name), read(path, name)
    with blamed(source):
        return _recognised(data, folder(path), lambda name: unknown == "skip")


def _recognised(data: bytes, folder: Path, inert: Callable[[str], bool]) -> Contents:
    """Read bytes in the format that their beginning says."""
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _archive(Archive(data), inert)
    if data[:8] == _hdf5.SIGNATURE:
        return _from_hdf5(data)
    if data[:6] == b"\x93NUMPY":
        return Contents("npy", {"array": _npz.array(data, "array")})
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8:
        return Contents("safetensors", *_safetensors.read(data))
    if _torch.LEGACY in data[:16]:
        return Contents("torch", _pickle.flatten(_torch.read_legacy(data, inert), len(data)))
    if data[:1] == b"\x80" or (data[:1] in b"(}]c" and b"." in data[-2:]):
        names = _torch.NAMES if b"torch" in data[:4096] else _builders.NUMPY
        return Contents(
            "pickle", _pickle.flatten(_pickle.Machine(io.BytesIO(data), names, None, inert).load(), len(data))
        )
    if data[:1] in (b"\x08", b"\x12", b"\x3a", b"\x42"):  # the first field of ONNX's message: ir_version, as a rule
        from ..onnx import _files

        model = _files.parse(data, folder)
        return Contents("onnx", _files.initializers(model), onnx=model)
    raise ValueError(
        "none of the known formats (safetensors, PyTorch, TorchScript, .npz, .npy, pickle, Keras, ONNX); "
        f"it begins with {data[:8]!r}"
    )


def _archive(archive: Archive, inert: Callable[[str], bool]) -> Contents:
    if _torch.is_zip(archive):
        return Contents("torch", _pickle.flatten(_torch.read_zip(archive, inert), archive.size))
    if "model.weights.h5" in archive.entries:
        if "config.json" not in archive.entries:
            raise ValueError("the archive has model.weights.h5 without config.json")
        weights = _from_hdf5(archive.read("model.weights.h5"))
        config, metadata = (
            json.loads(archive.read(name)) if name in archive.entries else {}
            for name in ("config.json", "metadata.json")
        )
        version = str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""
        keras = weights.keras._replace(config=config, version=version) if weights.keras is not None else None
        return weights._replace(format="keras", keras=keras)
    if archive.entries and all(name.endswith(".npy") for name in archive.entries):
        return Contents("npz", _npz.read(archive))
    raise ValueError(
        f"an archive that is none of PyTorch's, Keras's or NumPy's: it has {', '.join(list(archive.entries)[:4])}"
    )


def _from_hdf5(data: bytes) -> Contents:
    arrays, attributes = _hdf5.read(data)
    return Contents("hdf5", arrays, keras=_keras.from_hdf5(arrays, attributes))


def networks(of: File | Mapping[str, Any], unknown: str, name: str) -> list[Found]:
    """Return the networks of a file, or among arrays by name."""
    if isinstance(of, Mapping):
        return among(of, "the arrays")
    if not isinstance(of, (str, os.PathLike)) and not _is_open(of):
        needed = "a str, an os.PathLike, a binary file, or a mapping from names to arrays"
        raise TypeError(f"{name} must be {needed}, got {_check.shown(of)}")
    source = title(of, name)
    found = contents(of, unknown, name)
    with blamed(source):
        own = _safetensors.own(found.arrays, found.metadata, source)
        if own is not None:
            return [own]
        if found.onnx is not None:
            from ..onnx import _files

            return _files.networks(found.onnx, source)
        if found.keras is not None:
            return _keras.networks(found.keras, source)
        return among(found.arrays, source)


def among(arrays: Mapping[str, Any], source: str) -> list[Found]:
    """Return the networks among arrays by name, PyTorch's, TensorFlow 1's or Keras's."""
    plain = {str(name): as_array(value, str(name)) for name, value in arrays.items() if hasattr(value, "shape")}
    found = _state_dict.networks(plain, source)
    found += _gates.tensorflow1_networks(plain, source)
    if not found:
        found = _keras.networks(_keras.File(plain, {}, None, ""), source)
    return found


def as_array(value: Any, name: str) -> Array:
    """Return an array of NumPy; tensors of PyTorch also where they require gradients, are negated or bfloat16."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "detach"):
        try:
            value = value.detach().cpu()
            if hasattr(value, "resolve_neg"):  # tensors of Paddle have no such method
                value = value.resolve_conj().resolve_neg()
                value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
        except (RuntimeError, TypeError) as error:  # one without data, or of a type that NumPy does not have
            raise ValueError(f"{name}, a tensor of {value.dtype} on {value.device}, cannot be read: {error}") from error
    result = np.asarray(value)
    return result.astype(np.float32) if result.dtype.name == "bfloat16" else result


def _write_open(data: bytes, file: Any) -> None:
    rest = data
    try:
        while rest:
            written = file.write(rest)
            if written is None and not isinstance(file, io.RawIOBase):
                return  # one that does not count
            if not written or written < 0:
                raise OSError(f"{title(file)}: only {len(data) - len(rest)} of {len(data)} bytes were written")
            rest = rest[written:]  # nothing, but for a file without a buffer
    except (AttributeError, TypeError, io.UnsupportedOperation) as error:
        raise TypeError(f"path must be open for writing in binary mode: {error}") from error


def write(data: bytes, path: Any, stacklevel: int = 3) -> None:
    """Write a file of safetensors as a whole: an interruption leaves the old one, or none. An open one is written to.

    A symbolic link stays one, and a file that is replaced keeps its permissions. A warning, at the caller `stacklevel`
    functions up, tells of a suffix that promises another format.
    """
    if _is_open(path):
        _write_open(data, path)
        return
    name = _check.path(path)
    suffix = Path(name).suffix.lower()
    if suffix in _OTHERS:
        warnings.warn(
            f"{name} has the format of safetensors, which programs that read {suffix} files do not expect: end its "
            f"name in .safetensors{', or see quadgate.onnx.export' if suffix == '.onnx' else ''}",
            stacklevel=stacklevel,
        )
    target = Path(os.path.realpath(name))
    # A name that nobody has: of another thread, or left by a process that was killed.
    scratch = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        file = scratch.open("xb")
        try:
            with file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with suppress(OSError):  # there is none yet, or modes are unknown here
                shutil.copymode(target, scratch)
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:  # of the scratch file, whose name means nothing to the caller
        raise OSError(error.errno, error.strerror, name) from error
