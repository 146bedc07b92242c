"""Values of a command line, refused before the work begins and not after it. For the other examples."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path


def at_least(least: float) -> Callable[[str], float]:
    """Return a `type` of argparse for finite numbers from `least` on, whole ones if it is whole."""
    kind, words = type(least), "whole number" if isinstance(least, int) else "number"

    def number(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"it must be a {words} of at least {least}, not {text!r}")
        return value

    return number


def folder(text: str) -> Path:
    """Return a path in which ~ is the home directory: a `type` of argparse, which reads defaults only if used."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text} is in no home directory that is known") from None


def source(text: str) -> Path:
    """Return the path of a file to be read: a `type` of argparse."""
    if not Path(text).is_file() or not os.access(text, os.R_OK):
        raise argparse.ArgumentTypeError(f"{text} is no file that can be read")
    return Path(text)


def can_write(path: Path) -> bool:
    """Return if a file of this name can be written."""
    return not path.is_dir() and os.access(path if path.exists() else path.parent, os.W_OK)


def output(text: str) -> Path:
    """Return the path of a file to be written: a `type` of argparse."""
    if not can_write(Path(text)):
        raise argparse.ArgumentTypeError(f"{text} cannot be written")
    return Path(text)


def picture(text: str) -> Path:
    """Return the path of a picture to be written: a `type` of argparse."""
    from matplotlib.backend_bases import FigureCanvasBase

    ending = Path(text).suffix[1:].lower()
    if ending and ending not in FigureCanvasBase.filetypes:
        raise argparse.ArgumentTypeError(f"{text} must end in .png or another of {sorted(FigureCanvasBase.filetypes)}")
    return output(text)
