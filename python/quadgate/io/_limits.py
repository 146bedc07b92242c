"""Bounds of what an untrusted file may grow to beyond its size."""

from __future__ import annotations

FREE = 1 << 26  # bytes that a small file may grow to
GROWTH = 20  # and the growth of a larger one: weights hardly compress, but arrays may share memory


def most(size: int) -> int:
    """Return the bytes that a file of this size may grow to."""
    return max(FREE, GROWTH * size)
