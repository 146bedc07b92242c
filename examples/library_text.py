"""The text that examples learn from, Python's standard library, and a trigram model of it as a baseline."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import numpy as np

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"}  # tables, copies


def read_library() -> list[str]:
    """Return the texts of the standard library's files in the order of their names, restricted to ALPHABET."""
    texts, root = [], Path(sysconfig.get_path("stdlib"))
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(set(subfolders) - SKIPPED)
        for name in sorted(name for name in names if name.endswith(".py")):
            text = (Path(folder) / name).read_text("utf-8", errors="ignore").expandtabs(4)
            if text.isascii() and len(text) > 500:
                texts.append("".join(letter for letter in text if letter in ALPHABET))
    if sum(map(len, texts)) < 1_000_000:
        sys.exit(f"there is too little Python source in {root}: is the standard library zipped or stripped?")
    return texts


def encode(text: str) -> np.ndarray:
    """Return the index in ALPHABET of each letter, int64 (len(text),)."""
    places = np.zeros(128, np.int64)
    places[[ord(letter) for letter in ALPHABET]] = np.arange(len(ALPHABET))
    return places[np.frombuffer(text.encode("ascii"), np.uint8)]


def trigram_bits(text: np.ndarray, test: np.ndarray) -> float:
    """Return the bits per character of a trigram model with Witten-Bell interpolation (Witten and Bell, 1991).

    A letter seen n times after a context has weight n. The model of the shorter context has the number
    of distinct letters seen after the context as its weight. The shortest model is the uniform distribution.
    """
    size = len(ALPHABET)
    probability = np.full(len(test) - 2, 1.0 / size)
    for order in (1, 2, 3):
        context, hit = np.zeros(len(test) - 2, np.int64), np.zeros(len(text) - order + 1, np.int64)
        for back in range(order - 1, 0, -1):
            context = context * size + test[2 - back : len(test) - back]
        for place in range(order):
            hit = hit * size + text[place : len(text) - order + 1 + place]
        counts = np.bincount(hit, minlength=size**order).reshape(-1, size)
        total, kinds = counts.sum(axis=1)[context], (counts > 0).sum(axis=1)[context]
        seen = counts[context, test[2:]]
        probability = np.where(total > 0, (seen + kinds * probability) / np.maximum(total + kinds, 1), probability)
    return float(-np.log2(probability).mean())
