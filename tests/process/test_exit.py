"""The end of the interpreter: what still runs then computes, and the process ends."""

from __future__ import annotations

import pytest

# An object that outlives its module: Python drops sys.modules while it finalizes, while one thread holds the GIL.
START = """
import sys
import numpy as np
import quadgate as qg

qg.set_num_threads({threads})
lstm = qg.LSTM(64, 128, rng=0)
x = np.random.default_rng(0).normal(size=(40, 8, 64)).astype(np.float32)
y, state, tape = lstm.forward(x)
want = y.tobytes()
want_gradient = lstm.backward(tape, y).params["weight_hh_l0"].tobytes()
stream = lstm.stream(8)
"""

AT_THE_END = """
class Late:
    def __init__(self, **things):
        self.__dict__.update(things)
    def __del__(self):
        {work}
        self.write(1, b"done")
"""

WORK = {
    "call": "assert self.lstm(self.x)[0].tobytes() == self.want",
    "training": """
        y, _, tape = self.lstm.forward(self.x)
        assert self.lstm.backward(tape, y).params["weight_hh_l0"].tobytes() == self.want_gradient""",
    "update": """
        self.lstm.load_state_dict(dict(self.lstm.params))
        assert self.lstm(self.x)[0].tobytes() == self.want""",
    "stream": "assert self.stream.run(self.x).tobytes() == self.want",
}


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("work", WORK)
def test_a_destructor_may_compute_while_the_interpreter_ends(run_script, work, threads):
    done = run_script(
        START.format(threads=threads)
        + AT_THE_END.format(work=WORK[work])
        + """
import os
sys.modules["late"] = Late(
    write=os.write, lstm=lstm, x=x, want=want, want_gradient=want_gradient, stream=stream
)
"""
    )
    assert done.stdout == "done", done.stderr
    assert not done.stderr


def test_an_atexit_function_may_compute(run_script):
    run_script(
        START.format(threads=2)
        + """
import atexit
def late():
    assert lstm(x)[0].tobytes() == want
atexit.register(late)
"""
    )


def test_a_stream_that_a_stopped_thread_holds_is_an_error_at_the_end(run_script):
    """A daemon thread is stopped in the middle of a call: exit does not wait for it."""
    done = run_script(
        START.format(threads=1)
        + AT_THE_END.format(
            work="""
        try:
            self.stream.run(self.x)
        except RuntimeError as error:
            self.write(1, str(error).encode())"""
        )
        + """
import os, threading, time
big = qg.LSTM(64, 512, rng=0).stream(8)
long = np.zeros((4000, 8, 64), np.float32)
threading.Thread(target=big.run, args=(long,), daemon=True).start()
time.sleep(0.3)
sys.modules["late"] = Late(write=os.write, stream=big, x=x)
"""
    )
    assert "the interpreter's end" in done.stdout, done.stderr
