"""Shapes of the command line: sizes written as T,B,I,H, and random grids."""

from __future__ import annotations

import random
import re
from itertools import chain, product, zip_longest

from shapes import MODES, Shape

MAX_FLOPS = 5e9  # of one call of a grid's shape; a training step counts three times its forward pass
STEPS = (1, 10, 100)
BATCHES = (1, 2, 4, 7, 10, 16, 20, 33, 64, 256, 640)
WIDTHS = (24, 40, 90, 128, 200, 256, 500, 512, 650, 1024, 2048)  # of I and of H


def is_sizes(text: str) -> bool:
    """Return True if the text is a list of integers, and not the name of a shape."""
    return re.fullmatch(r"-?\d+(,-?\d+)*,?", text) is not None


def parse(text: str, mode: str = "inference", layers: int = 1, directions: int = 1) -> Shape:
    """Return the shape with the sizes T,B,I,H.

    Parameters
    ----------
    text : str
        Four positive integers, separated by commas.
    mode : {"inference", "training", "stream"}
    layers : int
    directions : {1, 2}

    Raises
    ------
    ValueError
        If a size is missing or not positive, or a stream has more than one step or direction.
    """
    sizes = [int(size) if size.isdecimal() else 0 for size in text.split(",") if size]
    if len(sizes) != 4 or min(sizes) < 1:
        raise ValueError(f"sizes must be four positive integers T,B,I,H, got {text!r}")
    if layers < 1 or directions not in (1, 2):
        raise ValueError(f"layers must be positive and directions 1 or 2, got {layers} and {directions}")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if mode == "stream" and sizes[0] != 1:
        raise ValueError(f"a stream takes one step at a time: T must be 1, got {text!r}")
    if mode == "stream" and directions != 1:
        raise ValueError(f"a stream takes one step at a time, in one direction: directions must be 1, got {directions}")
    shape = Shape("", *sizes, mode, layers, directions)
    return Shape(shape.label, *sizes, mode, layers, directions)


def candidates(mode: str, layers: int = 1, directions: int = 1) -> list[Shape]:
    """Return all shapes of the grid in a mode, of at most MAX_FLOPS a call."""
    sizes = (",".join(map(str, four)) for four in product(STEPS, BATCHES, WIDTHS, WIDTHS))
    every = (parse(four, mode, layers, directions) for four in sizes)
    return [shape for shape in every if shape.all_flops <= MAX_FLOPS]


def draw(count: int, seed: int, layers: int = 1, directions: int = 1) -> list[Shape]:
    """Draw distinct shapes from the grid, half of them inference and half training, in turn.

    A larger count with the same seed extends the list.

    Parameters
    ----------
    count : int
        Number of shapes; of an odd number, one more is inference.
    seed : int
        Sizes depend on nothing else but the layers and directions, by which fewer are within MAX_FLOPS:
        `random.Random.random` is the same in all versions of Python.
    layers : int
    directions : {1, 2}

    Raises
    ------
    ValueError
        If the grid has fewer shapes.
    """
    generator = random.Random(seed)
    halves = []
    for mode, wanted in (("inference", (count + 1) // 2), ("training", count // 2)):
        shuffled = sorted(candidates(mode, layers, directions), key=lambda _: generator.random())
        if not 0 <= wanted <= len(shuffled):
            raise ValueError(f"a grid has 0 to {2 * len(shuffled)} shapes, got {count}")
        halves.append(shuffled[:wanted])
    return [shape for shape in chain.from_iterable(zip_longest(*halves)) if shape is not None]
