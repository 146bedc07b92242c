"""PyTorch's files without PyTorch: state dicts and modules, zip and legacy, and the weights of TorchScript."""

from __future__ import annotations

import io
import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from ._builders import NUMPY
from ._pickle import Inert, Machine, Name, State, shown
from ._safetensors import widen

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ._zip import Archive

    Array = NDArray[Any]

MAGIC = 0x1950A86A20F9469CFC6C  # first number of the legacy format, pickled
LEGACY = b"\x8a\x0a" + MAGIC.to_bytes(10, "little")

# The types of storages that hold numbers; bfloat16 is read as its upper half of float32.
STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
DTYPES = {"float64": "f8", "double": "f8", "float32": "f4", "float": "f4", "float16": "f2", "half": "f2"}
DTYPES |= {"bfloat16": "bf16", "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1", "uint8": "u1", "bool": "?"}
DTYPES |= {"uint16": "u2", "uint32": "u4", "uint64": "u8"}


class Type(str):
    """The code of a type of numbers, "f4" and the like; "" for bytes that get their type later."""


class Storage:
    """The numbers of tensors; in the legacy format they come after all that refers to them."""

    def __init__(self, code: Type, count: int) -> None:
        self.code, self.count = code, count
        self.data: bytes | None = None
        self.order = "<"
        self._arrays: dict[str, Array] = {}
        self._negated: dict[str, Array] = {}

    def negated(self, code: str) -> Array:
        """Return minus all of it, once for all tensors that have the negative bit."""
        if code not in self._negated:
            self._negated[code] = np.negative(self.array(code))
        return self._negated[code]

    def array(self, code: str) -> Array:
        """Return all of it as numbers of a type."""
        if code not in self._arrays:
            if self.data is None:
                raise ValueError("a tensor has a storage that is not in the file")
            numpy_code = self.order + ("u2" if code == "bf16" else code) if code != "?" else code
            data = memoryview(self.data)[: len(self.data) - len(self.data) % np.dtype(numpy_code).itemsize]
            numbers: Array = np.frombuffer(data, numpy_code) if len(data) else np.empty(0, numpy_code)
            self._arrays[code] = widen(numbers) if code == "bf16" else numbers
        return self._arrays[code]


class Tensor(State):
    """A view of a storage, checked and made when everything has been read."""

    def __init__(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any = None,
        hooks: Any = None,
        metadata: Any = None,
        *,
        code: str | None = None,
    ) -> None:
        numbers = (offset, *size, *stride)
        if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("a tensor is not described by a storage and whole numbers")
        if len(size) != len(stride) or len(size) > 32:
            raise ValueError(f"a tensor has size {shown(tuple(size))} and stride {shown(tuple(stride))}")
        self._storage, self._offset, self._size, self._stride = storage, offset, tuple(size), tuple(stride)
        self._code = code or storage.code
        self._negative = _is_negative(metadata)

    def set_state(self, state: Any) -> None:
        """Ignore attributes of the Python object."""

    def finished(self) -> Array:
        whole = self._storage.negated(self._code) if self._negative else self._storage.array(self._code)
        count, last = math.prod(self._size), self._offset
        last += sum((n - 1) * s for n, s in zip(self._size, self._stride, strict=True)) if count else 0
        if count > whole.size or (count and last >= whole.size):
            raise ValueError(
                f"a tensor of size {self._size}, stride {self._stride} at {self._offset} is larger than its storage "
                f"of {whole.size} numbers"
            )
        if count == 0:
            return np.empty(self._size, whole.dtype)
        strides = [s * whole.itemsize for s in self._stride]
        return np.lib.stride_tricks.as_strided(whole[self._offset :], self._size, strides, writeable=False)


def _is_negative(metadata: Any) -> bool:
    """Return the negative bit: such a tensor has minus the numbers of its storage."""
    if not metadata:
        return False
    known = isinstance(metadata, dict) and all(type(value) is bool for value in metadata.values())
    odd = [key for key, value in metadata.items() if value and key != "neg"] if known else [metadata]
    if odd:
        raise ValueError(
            f"a tensor has the metadata {', '.join(f'{key!r:.80}' for key in odd)}, which are not known: save it as "
            "tensor.resolve_conj().clone()"
        )
    return bool(metadata.get("neg"))


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _typed(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """Rebuild a tensor whose type is given apart from its storage."""
    at = next((k for k, part in enumerate(rest) if isinstance(part, Type)), len(rest))
    code, metadata = next(iter(rest[at:]), None), next(iter(rest[at + 1 :]), None)
    return Tensor(storage, offset, size, stride, metadata=metadata, code=code)


def _subclass(function: Any, _: Any, args: Any, state: Any = None) -> Any:
    """Rebuild a tensor of a Python subclass as a plain one."""
    return function(args)


def _quantised(*_: Any) -> Any:
    raise ValueError("it holds a quantised tensor: quantised weights cannot be read")


def _sparse(*_: Any) -> Any:
    raise ValueError("it holds a sparse tensor, which cannot be read")


def _kept(*args: Any) -> Any:
    return args[0] if len(args) == 1 else args


TORCH: dict[str, Any] = {
    "torch._utils._rebuild_tensor": Tensor,
    "torch._utils._rebuild_tensor_v2": Tensor,
    "torch._utils._rebuild_tensor_v3": _typed,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.nn.parameter.Parameter": _parameter,
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_sparse_tensor": _sparse,
    "torch.Size": _kept,
    "torch.device": _kept,
    "torch.jit._pickle.build_intlist": _kept,
    "torch.jit._pickle.build_doublelist": _kept,
    "torch.jit._pickle.build_boollist": _kept,
    "torch.jit._pickle.build_tensorlist": _kept,
    "torch.jit._pickle.restore_type_tag": lambda value, _: value,
    "torch.serialization._get_layout": _kept,
    "torch.storage.UntypedStorage": Type(""),
    "torch.UntypedStorage": Type(""),
    "torch.Tensor": Type(""),
}
TORCH |= {f"torch.{name}": Type(code) for name, code in (STORAGES | DTYPES).items()}
NAMES = NUMPY | TORCH


EXPORTED = ("/archive_format", "serialized_exported_program.json")  # of torch.export.save, and of its first versions


def is_zip(archive: Archive) -> bool:
    """Return True if an archive is PyTorch's."""
    ends = ("/data.pkl", "/model.json", *EXPORTED)
    return any(name.endswith(ends) or name == "data.pkl" for name in archive.entries)


def read_zip(archive: Archive, unknown: Callable[[str], bool]) -> Any:
    """Return the objects of a zip file, state dict or TorchScript, tensors as `Tensor`."""
    pickles = [name for name in archive.entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if any(name.endswith(EXPORTED) for name in archive.entries):
        raise ValueError(
            "a program of torch.export (.pt2), which cannot be read here: save its weights with PyTorch, "
            "torch.save(torch.export.load(path).state_dict, other)"
        )
    if len(pickles) != 1:
        raise ValueError("the archive has no data.pkl: TorchScript of before PyTorch 1.4 cannot be read")
    root = pickles[0][: -len("data.pkl")]
    order = "<"
    if f"{root}byteorder" in archive.entries:
        order = {b"little": "<", b"big": ">"}.get(archive.read(f"{root}byteorder"), "")
        if not order:
            raise ValueError("the archive says no byte order that is known")
    storages: dict[str, Storage] = {}

    def persistent(key: Any) -> Storage:
        code, name, count = _identified(key)
        if name not in storages:
            storage = storages[name] = Storage(code, count)
            storage.data, storage.order = archive.read(f"{root}data/{name}", stored=True), order
            _fits(storage, name)
        return storages[name]

    scripted = f"{root}constants.pkl" in archive.entries

    def inert(name: str) -> bool:
        return (scripted and name.startswith("__torch__.")) or unknown(name)

    return Machine(io.BytesIO(archive.read(pickles[0])), NAMES, persistent, inert).load()


def read_legacy(data: bytes, unknown: Callable[[str], bool]) -> Any:
    """Return the object of a file as PyTorch wrote it before 1.6."""
    stream = io.BytesIO(data)
    storages: dict[str, Storage] = {}

    def persistent(key: Any) -> Any:
        if isinstance(key, tuple) and key and key[0] in ("module", b"module"):
            return key[1] if len(key) > 1 else None
        code, name, count = _identified(key)
        if isinstance(key, tuple) and len(key) > 5 and key[5] is not None:
            raise ValueError("it holds a view of a storage, which only PyTorch before 0.4 wrote")
        return storages.setdefault(name, Storage(code, count))

    if Machine(stream, {}).load() != MAGIC:
        raise ValueError("it does not begin as a file of PyTorch")
    version, system = Machine(stream, {}).load(), Machine(stream, {}).load()
    if version != 1001 or not isinstance(system, dict):
        raise ValueError(f"it has version {shown(version)} of the legacy format; 1001 is needed")
    order = "<" if system.get("little_endian", True) else ">"
    result = Machine(stream, NAMES, persistent, unknown).load()
    keys = Machine(stream, {}).load()
    if not isinstance(keys, list):
        raise ValueError("its list of storages is none")
    for key in keys:
        name = _text(key)
        storage = storages.get(name)
        if storage is None:
            raise ValueError(f"it has a storage {name!r} that nothing refers to")
        length = stream.read(8)
        if len(length) != 8:
            raise ValueError(f"it ends within storage {name}")
        (count,) = struct.unpack(order + "q", length)
        if count != storage.count:
            raise ValueError(f"storage {name} has {count} numbers, its tensors expect {storage.count}")
        size = _itemsize(storage.code) * count
        storage.data, storage.order = stream.read(size) if 0 <= size <= len(data) else b"", order
        _fits(storage, name)
    return result


def _identified(key: Any) -> tuple[Type, str, int]:
    """Return the type, name and count of a persistent id: ("storage", type, name, location, count, ...)."""
    if not isinstance(key, tuple) or len(key) < 5 or _text(key[0]) != "storage" or not isinstance(key[1], Type):
        named = isinstance(key, tuple) and len(key) > 1 and isinstance(key[1], (Inert, Name))
        kind = key[1].name if named else shown(key)
        raise ValueError(f"it refers to a storage that is not of a known type: {kind}")
    if type(key[4]) is not int or key[4] < 0:
        raise ValueError(f"it refers to a storage of {shown(key[4])} numbers")
    return key[1], _text(key[2]), key[4]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    return str(value) if isinstance(value, str) else shown(value)


def _itemsize(code: str) -> int:
    return {"": 1, "bf16": 2, "?": 1}.get(code) or np.dtype(code).itemsize


def _fits(storage: Storage, name: str) -> None:
    found, declared = len(storage.data or b""), storage.count * _itemsize(storage.code)
    if found < declared:
        raise ValueError(f"storage {name} declares {declared} bytes, found {found}")
