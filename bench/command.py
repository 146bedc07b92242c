"""Arguments of the command line, checked before anything is measured, and files of samples."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def positive(text: str) -> int:
    """Return the integer of an argument, for `type=` of argparse; refuse one below 1 or beyond C's int."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 0 < number < 2**31:
        raise argparse.ArgumentTypeError(f"must be a positive integer below 2**31, got {text!r}")
    return number


def output(text: str) -> Path:
    """Return the path of a file to write, for `type=` of argparse; refuse one that cannot be written."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in a folder that exists, got {text!r}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"must be a file that can be written, got {text!r}")
    return path


@contextmanager
def kept(path: Path | None, content: Callable[[], Any]) -> Iterator[None]:
    """Write `content()` as JSON at the end of the block, whatever ends it; nothing if it is empty or path is None."""
    try:
        yield
    finally:
        measured = content()
        if path is not None and measured:
            path.write_text(json.dumps(measured, indent=1) + "\n")
