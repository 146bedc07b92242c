"""The number of threads: from the environment at import, and under threadpoolctl's control where that is loaded."""

from __future__ import annotations

import os
import sys
from typing import Any

from . import _core

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
        if not _is_count(asked):
            raise ValueError(f"QUADGATE_NUM_THREADS must be an integer of at least 1, got {asked!r}")
        _core.set_num_threads(int(asked))
        return
    others = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if _is_count(others):
        _core.set_num_threads(int(others))


def _is_count(text: str) -> bool:
    text = text.strip()
    return text.isascii() and text.isdigit() and 0 < int(text) < 2**31


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
