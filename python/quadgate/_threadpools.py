"""The number of threads: from the environment at import, and under threadpoolctl's control where that is loaded."""

from __future__ import annotations

import os
import sys
from typing import Any

from . import _check, _core

_registered = False


def from_environment() -> None:
    """Set the number of threads from QUADGATE_NUM_THREADS or, if that is not set, from OMP_NUM_THREADS.

    OMP_NUM_THREADS may list a number for each nesting level, of which the first counts; values that are no positive
    integers are ignored, as they are not meant for quadgate.

    Raises
    ------
    ValueError
        If QUADGATE_NUM_THREADS is not an integer from 1 to 2**31 - 1.
    """
    asked = os.environ.get("QUADGATE_NUM_THREADS", "")
    if asked.strip():
        n = _count(asked)
        if not n:
            raise ValueError(f"QUADGATE_NUM_THREADS must be an integer from 1 to 2**31 - 1, got {_check.shown(asked)}")
        _core.set_num_threads(n)
        return
    others = _count(os.environ.get("OMP_NUM_THREADS", "").split(",")[0])
    if others:
        _core.set_num_threads(others)


def _count(text: str) -> int:
    """Return the positive integer below 2**31 that a text is, or 0."""
    digits = text.strip().lstrip("0")
    if digits.isascii() and digits.isdigit() and len(digits) < 11:  # Python refuses to read thousands of them
        return int(digits) if int(digits) < 2**31 else 0
    return 0


def meet_threadpoolctl() -> None:
    """Register a controller with threadpoolctl if the program has loaded it, so that its limits hold here too."""
    global _registered
    if _registered or "threadpoolctl" not in sys.modules:
        return
    module: Any = sys.modules["threadpoolctl"]
    if not hasattr(module, "register"):  # before 3.2, or still being imported
        return

    class QuadgateController(module.LibController):  # type: ignore[misc]
        """The pool of quadgate's compiled core, found by the names that it exports."""

        user_api = internal_api = "quadgate"
        filename_prefixes = ("_core.",)
        check_symbols = ("quadgate_get_num_threads", "quadgate_set_num_threads")

        def get_num_threads(self) -> int:
            return int(self.dynlib.quadgate_get_num_threads())

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.quadgate_set_num_threads(num_threads)

        def get_version(self) -> str:
            return _core.__version__

    module.register(QuadgateController)
    _registered = True
