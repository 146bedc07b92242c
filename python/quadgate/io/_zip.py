"""Untrusted ZIP archives: entries by name, sizes bounded before anything is decompressed."""

from __future__ import annotations

import io
import zipfile

from . import _limits

METHODS = {zipfile.ZIP_STORED: "stored", zipfile.ZIP_DEFLATED: "deflated"}


class Archive:
    """The entries of an archive in memory.

    The archive is refused as a whole with ValueError if an entry is encrypted or in another method than stored or
    deflated, or if the sizes that it declares are more than the bytes that are there can hold.
    """

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._zip = zipfile.ZipFile(io.BytesIO(data))
        total = 0
        self.entries: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            if info.flag_bits & 1:
                raise ValueError(f"entry {info.filename!r} is encrypted")
            if info.compress_type not in METHODS:
                raise ValueError(
                    f"entry {info.filename!r} has compression method {info.compress_type}; stored or deflated is needed"
                )
            if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
                raise ValueError(f"entry {info.filename!r} declares two sizes")
            total += info.file_size
            if info.filename in self.entries:
                raise ValueError(f"entry {info.filename!r} is there twice")
            self.entries[info.filename] = info
        most = _limits.most(len(data))
        if total > most:
            raise ValueError(
                f"the archive declares {total} bytes of contents; {len(data)} bytes may hold {most} at most"
            )

    def read(self, name: str, *, stored: bool = False) -> bytes:
        """Return an entry's bytes; with `stored` it must not be compressed."""
        info = self.entries.get(name)
        if info is None:
            raise ValueError(f"entry {name!r} is missing from the archive")
        if stored and info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"entry {name!r} is compressed; it must be stored")
        with self._zip.open(info) as entry:
            data = entry.read(info.file_size)
        if len(data) != info.file_size:
            raise ValueError(f"entry {name!r} declares {info.file_size} bytes, found {len(data)}")
        return data
