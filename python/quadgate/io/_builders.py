"""Stand-ins for what pickles of NumPy arrays name: they build arrays of bytes that are there, and import nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ._npz import from_bytes
from ._pickle import State, plain_key, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

CORES = ("numpy.core", "numpy._core")  # the module's name before NumPy 2, and since


class Dtype(State):
    """A dtype of numbers: `numpy.dtype("f4", False, True)`, then a state with the byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(code, str):
            raise ValueError(f"the pickle has the dtype {shown(code)}")
        self.dtype: np.dtype[Any] | None = None
        if code.lstrip("<>|=")[:1] in ("O", "V"):
            return
        self.dtype = np.dtype(code)

    def set_state(self, state: Any) -> None:
        if self.dtype is not None and isinstance(state, tuple) and len(state) > 1:
            order = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
            if order == ">":
                self.dtype = self.dtype.newbyteorder(">")


class Pickled(State):
    """An array as NumPy pickles it: empty first, then its shape, dtype and bytes."""

    def __init__(self, *_: Any) -> None:
        self.value: Array | None = None

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 4:
            raise ValueError("the pickle gives an array a state that is none")
        shape, dtype, fortran, data = state[-4:]
        self.value = buffered(data, dtype, shape, "F" if fortran else "C")

    def finished(self) -> Array | None:
        return self.value


def buffered(data: Any, dtype: Any, shape: Any, order: Any = "C") -> Array | None:
    """Return the array of some bytes; None for one of objects, which is left out."""
    if not isinstance(dtype, Dtype) or not isinstance(shape, tuple) or order not in ("C", "F"):
        raise ValueError("the pickle gives an array a state that is none")
    if not all(type(n) is int for n in shape):
        raise ValueError("the pickle gives an array a shape that is no whole numbers")
    if dtype.dtype is None:
        return None
    if isinstance(data, str):  # written by Python 2
        data = data.encode("latin1")
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError(f"the pickle has an array of {dtype.dtype} without bytes")
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise ValueError(
            f"the pickle has an array of shape {shown(shape)} and {dtype.dtype}, found {len(data)} bytes of it"
        )
    return from_bytes(bytes(data), 0, shape, dtype.dtype, "an array", fortran=order == "F")


def scalar(dtype: Any, data: Any = b"") -> Any:
    """Return a NumPy scalar as an array without axes."""
    return buffered(data, dtype, ()) if data != b"" else None


def encode(text: str, encoding: str = "latin1") -> bytes:
    """Return bytes, which old protocols write as text of Latin-1."""
    if encoding.lower().replace("-", "") not in ("latin1", "iso88591"):
        raise ValueError(f"the pickle wants the codec {encoding}")
    return text.encode("latin1")


def ordered(items: Any = ()) -> dict[Any, Any]:
    """Return an OrderedDict's contents."""
    if isinstance(items, dict):
        return dict(items)
    pairs = [pair for pair in items if isinstance(pair, (list, tuple)) and len(pair) == 2]
    return {key if plain_key(key) else f"<{n}>": value for n, (key, value) in enumerate(pairs)}


def byte_array(*args: Any) -> bytes:
    """Return a bytearray's contents; a number would mean that many zeros, and is refused."""
    if not args:
        return b""
    if isinstance(args[0], str):
        return encode(*args)
    if isinstance(args[0], (bytes, bytearray)):
        return bytes(args[0])
    raise ValueError("the pickle makes a bytearray of something that is no bytes")


NUMPY: dict[str, Any] = {
    "numpy.ndarray": Pickled,
    "numpy.dtype": Dtype,
    "collections.OrderedDict": ordered,
    "collections.defaultdict": lambda *_: {},
    "collections.Counter": ordered,
    "_codecs.encode": encode,
}
for _core in CORES:
    NUMPY[f"{_core}.multiarray._reconstruct"] = Pickled
    NUMPY[f"{_core}.multiarray.scalar"] = scalar
    NUMPY[f"{_core}.numeric._frombuffer"] = buffered
for _module in ("builtins", "__builtin__"):
    NUMPY |= {f"{_module}.bytearray": byte_array, f"{_module}.bytes": byte_array, f"{_module}.dict": ordered}
    NUMPY |= {f"{_module}.list": lambda items=(): list(items), f"{_module}.set": lambda items=(): list(items)}
