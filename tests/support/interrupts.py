"""Interrupts at chosen moments."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any


def run_until(n: int, work: Callable[[], object]) -> int | None:
    """Call work() and raise KeyboardInterrupt in front of its n-th bytecode; return how many there were, or None."""
    count = 0

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        # Bytecodes without a line are the compiler's own, as when a generator closes. Python answers no signal there.
        if event == "opcode" and (frame.f_lineno or 0) > 0:
            count += 1
            if count == n:
                raise KeyboardInterrupt
        return trace

    # A collection of garbage runs callbacks of other packages, whose exceptions Python does not pass on.
    collecting = gc.isenabled()
    gc.disable()
    before = sys.gettrace()
    # Since Python 3.12, settrace reports bytecodes only if a frame asked for them beforehand.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return None
    finally:
        sys.settrace(before)
        if collecting:
            gc.enable()
    return count
