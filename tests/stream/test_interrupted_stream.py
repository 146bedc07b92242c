"""Ctrl-C in front of any bytecode of a stream's methods leaves its state as it was, or as it is afterwards."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import quadgate as qg
from support.interrupts import run_until

rng = np.random.default_rng(0)
X = rng.normal(size=(4, 2, 3)).astype(np.float32)
MASK = np.array([[True, False], [False, True], [True, True], [False, False]])


def state_of(stream):
    state = stream.state
    return b"".join(a.tobytes() for a in ([state] if isinstance(state, np.ndarray) else state))


CALLS = {
    "step": lambda s: s.step(X[0].tolist()),
    "masked step": lambda s: s.step(X[0], mask=MASK[0]),
    "repeating step": lambda s: s.step(X[0], mask=MASK[1], padding_output="last"),
    "run": lambda s: s.run(X.tolist(), resets=MASK.tolist()),
    "masked run": lambda s: s.run(X, np.empty((4, 2, 4), np.float32), mask=MASK, resets=~MASK),
    "reset": lambda s: s.reset([1]),
}


def test_no_interrupt_hits_a_collection_of_garbage():
    """Whose callbacks would keep it to themselves: so there is none during the work."""
    seen = []

    def callback(phase, info):
        seen.append(phase)

    def work():
        kept = []
        for _ in range(2000):
            kept.append([])

    gc.callbacks.append(callback)
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        work()
        assert seen  # without it
        total = run_until(0, work)
        assert total == run_until(0, work)
        assert all(run_until(n, work) is None for n in (1, total // 2, total))
        assert gc.isenabled()
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(callback)


@pytest.mark.parametrize("kind", [qg.LSTM, qg.RNN])
@pytest.mark.parametrize("call", [*CALLS, "state"])
def test_all_or_nothing(kind, call):
    stream = kind(3, 4, 2, rng=0).stream(2)
    stream.run(X)
    start = stream.state
    other = start + 1 if isinstance(start, np.ndarray) else tuple(a + 1 for a in start)

    def work():
        if call == "state":
            stream.state = other
        else:
            CALLS[call](stream)

    before = state_of(stream)
    work()
    after = state_of(stream)
    # A first use may add its own bytecodes to a run.
    total = min(run_until(0, work) for _ in range(3))
    # Each bytecode of the last 300, where the state is put in place, and each seventh before them.
    seen = set()
    for n in [*range(1, max(1, total - 300), 7), *range(max(1, total - 300), total + 1)]:
        stream.state = start
        assert run_until(n, work) is None
        now = state_of(stream)
        assert now in (before, after), n
        seen.add(now)
    assert seen == {before, after}
