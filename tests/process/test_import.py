"""The core's module is made once in a process."""

from __future__ import annotations

AGAIN = """
import sys
import numpy as np
import quadgate
first = quadgate._core
x = np.zeros((2, 1, 3), np.float32)
lstm = quadgate.LSTM(3, 4, rng=0)
y, state = lstm(x)
for name in [name for name in sys.modules if name.partition(".")[0] == "quadgate"]:
    del sys.modules[name]
import quadgate as again
assert again is not quadgate
assert again._core is first
assert again._core.Network is first.Network
assert np.array_equal(again.LSTM(3, 4, rng=0)(x)[0], y)
assert np.array_equal(lstm(x)[0], y)
"""


def test_a_second_import_gets_the_first_module(run_script):
    run_script(AGAIN)
