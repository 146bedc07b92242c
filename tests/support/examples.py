"""The number of examples that hypothesis draws."""

from __future__ import annotations

import os

TIMES = int(os.environ.get("QUADGATE_TEST_EXAMPLES", "1"))


def examples(number: int) -> int:
    """`number`, or as many times more as QUADGATE_TEST_EXAMPLES says."""
    return number * TIMES
