"""Untrusted HDF5 files, by h5py: arrays and attributes, nothing outside the file, nothing larger than its bytes."""

from __future__ import annotations

import importlib
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _limits
from ._safetensors import widen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32"}
RATIO = 1032  # no deflated stream grows by more
OBJECTS = 100_000
ATTRIBUTES = ("keras_version", "model_config", "name", "dtype")  # all that is needed; the others are not even read


def read(data: bytes) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
    """Return the datasets by path, and the attributes of all objects by path, "" for the file's own.

    Keras's bfloat16 comes back as float32, exactly: NumPy itself does not have the type.

    Raises ValueError for whatever reaches outside the file (external links and storage, virtual datasets), for other
    filters than deflate, shuffle and fletcher32, and for sizes that the stored bytes cannot have.
    """
    try:
        h5py: Any = importlib.import_module("h5py")  # without type hints
    except ImportError as error:
        raise ImportError("files of HDF5 need the package h5py: pip install h5py") from error
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            return _Reader(h5py, len(data)).read(file)
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:  # as h5py passes libhdf5's on
        raise ValueError(f"not a sound file of HDF5: {error}") from error


class _Reader:
    def __init__(self, h5py: Any, size: int) -> None:
        self._h5py, self._size, self._total = h5py, size, 0
        self._arrays: dict[str, Array] = {}
        self._attributes: dict[str, dict[str, Any]] = {}
        self._seen: set[Any] = set()

    def read(self, file: Any) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
        self._group(file, "")
        return self._arrays, self._attributes

    def _group(self, group: Any, path: str) -> None:
        self._count(group, path)
        for name in group:
            inner = f"{path}/{name}" if path else name
            link = group.get(name, getlink=True)
            if isinstance(link, self._h5py.ExternalLink):
                raise ValueError(f"{inner} is a link into another file, {link.filename!r}")
            if not isinstance(link, self._h5py.HardLink):
                raise ValueError(f"{inner} is a symbolic link; files of Keras have none")
            kind = group.get(name, getclass=True)
            if kind is self._h5py.Group:
                self._group(group[name], inner)
            elif kind is self._h5py.Dataset:
                dataset = group[name]
                self._count(dataset, inner)
                if dataset.dtype.kind in "fiub":
                    self._arrays[inner] = self._dataset(dataset, inner)
                elif dataset.dtype == "V2" and text(self._attributes[inner].get("dtype")) == "bfloat16":  # as Keras 3
                    self._arrays[inner] = widen(self._dataset(dataset, inner).view("<u2"))

    def _count(self, thing: Any, path: str) -> None:
        """Note an object and its attributes; refuse one that is met twice, as in a circle of groups."""
        address = self._h5py.h5o.get_info(thing.id).addr
        if address in self._seen:
            raise ValueError(f"{path} is in the file under two names")
        self._seen.add(address)
        if len(self._seen) > OBJECTS:
            raise ValueError(f"it has more than {OBJECTS} objects")
        attributes = {}
        for name in ATTRIBUTES:
            if name not in thing.attrs:
                continue
            identity = thing.attrs.get_id(name)
            size = math.prod(identity.shape or (0,)) * identity.dtype.itemsize
            if size > self._size:
                raise ValueError(f"attribute {name} of {path or 'the file'} declares {size} bytes")
            attributes[name] = thing.attrs[name]
        self._attributes[path] = attributes

    def _dataset(self, dataset: Any, path: str) -> Array:
        properties = dataset.id.get_create_plist()
        if properties.get_external_count():
            raise ValueError(f"{path} is stored in another file")
        if dataset.is_virtual:
            raise ValueError(f"{path} is a virtual dataset")
        filters = [properties.get_filter(k)[0] for k in range(properties.get_nfilters())]
        for code in filters:
            if code not in FILTERS:
                raise ValueError(f"{path} has filter {code}; {', '.join(FILTERS.values())} are read")
        stored, declared = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
        grows = 1 in filters
        if declared > (stored * RATIO if grows else stored) or stored > self._size:
            raise ValueError(f"{path} declares {declared} bytes, found {stored}")
        self._total += declared
        if self._total > _limits.most(self._size):
            raise ValueError(f"its arrays grow to more than {self._total} bytes")
        return np.asarray(dataset[()])


def text(value: Any) -> str:
    """Return an attribute as text, "" for one that is none."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
