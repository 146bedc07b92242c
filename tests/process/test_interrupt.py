"""Ctrl-C stops a long call within a second, and everything is as it was before the call."""

from __future__ import annotations

import pytest

# A call is made so long that it would take some 4 s here, whatever the machine; SIGINT comes after 0.3 s.
START = """
import os, signal, threading, time
import numpy as np
import quadgate as qg

qg.set_num_threads({threads})
lstm = qg.LSTM(1, 1024, rng=0)
short = np.random.default_rng(0).normal(size=(40, 1, 1)).astype(np.float32)

def measured(call):
    call(short)
    begin = time.perf_counter()
    call(short)
    return (time.perf_counter() - begin) / len(short)

def long_input(call, seconds=4.0, most=60_000):
    steps = int(min(most, max(1000, seconds / measured(call))))
    return np.random.default_rng(1).normal(size=(steps, 1, 1)).astype(np.float32)

def interrupted(call):
    "Seconds from SIGINT to the exception."
    at = []
    def ctrl_c():
        at.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    timer = threading.Timer(0.3, ctrl_c)
    timer.start()
    try:
        call()
    except KeyboardInterrupt:
        late = time.perf_counter() - at[0]
        timer.join()
        assert late < 1.0, f"it took {{late:.2f}} s"
        return
    raise SystemExit("the call ended before it was interrupted, or ignored it")

want = lstm(short)[0].tobytes()
"""
END = """
assert lstm(short)[0].tobytes() == want
"""
threads = pytest.mark.parametrize("threads", [1, 2])


@pytest.mark.slow
@threads
def test_inference(run_script, threads):
    run_script(
        START.format(threads=threads)
        + """
x = long_input(lstm)
interrupted(lambda: lstm(x))
interrupted(lambda: lstm(x, out=np.zeros((len(x), 1, 1024), np.float32)))
"""
        + END
    )


@pytest.mark.slow
@threads
def test_many_small_steps(run_script, threads):
    """Steps that are done together are counted, or the clock would not be looked at for minutes."""
    run_script(
        START.format(threads=threads)
        + """
small = qg.LSTM(1, 1, num_layers=3, rng=0)
x = np.zeros((20_000_000, 1, 1), np.float32)
interrupted(lambda: small(x))
"""
        + END
    )


@pytest.mark.slow
@threads
def test_training(run_script, threads):
    """Forward with a tape and backward; arrays that gradients are added to stay as they were."""
    run_script(
        START.format(threads=threads)
        + """
x = long_input(lstm.forward, seconds=1.5, most=15_000)
interrupted(lambda: lstm.forward(x))
y, _, tape = lstm.forward(x)
y, _, short_tape = lstm.forward(short)
want_grads = lstm.backward(short_tape, y).params["weight_hh_l0"].tobytes()
dy = np.ones((len(x), 1, 1024), np.float32)
interrupted(lambda: lstm.backward(tape, dy))
out = {name: np.full(value.shape, 3, np.float32) for name, value in lstm.params.items()}
interrupted(lambda: lstm.backward(tape, dy, out=out, accumulate=True))
assert all((value == 3).all() for value in out.values())
assert lstm.backward(short_tape, y).params["weight_hh_l0"].tobytes() == want_grads
"""
        + END,
        timeout=120,
    )


@pytest.mark.slow
@threads
def test_a_stream_keeps_the_state_from_before_the_call(run_script, threads):
    run_script(
        START.format(threads=threads)
        + """
stream = lstm.stream()
stream.run(short[:20])
h, c = stream.state
x = long_input(lstm)
interrupted(lambda: stream.run(x))
assert stream.state[0].tobytes() == h.tobytes()
assert stream.state[1].tobytes() == c.tobytes()
assert stream.run(short[20:]).tobytes() == lstm(short)[0][20:].tobytes()
"""
        + END
    )


@pytest.mark.slow
def test_a_handler_that_does_not_raise_lets_the_call_go_on(run_script):
    """A signal's Python handler decides what it does."""
    run_script(
        START.format(threads=2)
        + """
x = long_input(lstm, seconds=1.0)
want_long = lstm(x)[0].tobytes()
count = []
signal.signal(signal.SIGINT, lambda *_: count.append(1))
timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
timer.start()
assert lstm(x)[0].tobytes() == want_long
timer.join()
assert count == [1]
"""
        + END
    )


@pytest.mark.slow
def test_a_signal_handler_may_use_the_network_but_not_the_running_stream(run_script):
    run_script(
        START.format(threads=1)
        + """
stream = lstm.stream(batch_size=1)
x = long_input(stream.run, 2.0)
said = []
def handler(*_):
    said.append(lstm(short)[0].tobytes() == want)
    try:
        stream.state
    except RuntimeError as error:
        said.append(str(error))
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.3)
y = stream.run(x)
assert len(said) == 2 and said[0] is True and "in the middle of a call" in said[1], said
assert stream.state[0].tobytes() == y[-1:].tobytes()
"""
        + END
    )
