"""NumPy's own files, .npy and .npz, read without pickles and without trusting a declared size."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._zip import Archive

    Array = NDArray[Any]


def read(archive: Archive) -> dict[str, Array]:
    """Return the arrays of an .npz file by name."""
    return {name[:-4]: array(archive.read(name), name) for name in archive.entries if name.endswith(".npy")}


def array(data: bytes, name: str) -> Array:
    """Return the array of an .npy file, a view of its bytes."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name} has version {version} of the format; 1.0 or 2.0 is needed")
    shape, fortran, dtype = readers[version](stream)
    return from_bytes(data, stream.tell(), shape, dtype, name, fortran=fortran)


def from_bytes(
    data: bytes, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any], name: str, *, fortran: bool = False
) -> Array:
    """Return a view of bytes as an array, once its size is known to be there."""
    if dtype.hasobject or dtype.itemsize == 0 or dtype.kind == "V":
        raise ValueError(f"{name} has dtype {dtype}; numbers are needed")
    if any(type(n) is not int or n < 0 for n in shape) or len(shape) > 32:
        raise ValueError(f"{name} has the senseless shape {shape}")
    count = math.prod(shape)
    if count * dtype.itemsize > len(data) - offset:
        raise ValueError(f"{name} declares {count} numbers of {dtype}, found {max(len(data) - offset, 0)} bytes")
    flat = np.frombuffer(data, dtype, count, offset) if count else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")
