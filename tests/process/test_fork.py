"""quadgate works on in a forked child, whatever the parent did with its threads before."""

from __future__ import annotations

import os

import pytest

if not hasattr(os, "fork"):
    pytest.skip("this system has no fork", allow_module_level=True)

# Python warns of fork in a process with threads; that it works here is what this file shows.
START = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np
import quadgate as qg

qg.set_num_threads(2)
lstm = qg.LSTM(64, 128, 2, bidirectional=True, rng=0)
x = np.random.default_rng(0).normal(size=(12, 32, 64)).astype(np.float32)
dy = np.ones((12, 32, 256), np.float32)

def work(model=lstm):
    y, (h, c), tape = model.forward(x)
    grads = model.backward(tape, dy)
    return b"".join(a.tobytes() for a in (y, h, c, grads.x, *grads.params.values()))

def in_child(check):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)  # a child that hangs is a child that fails
        try:
            ok = check()
        except BaseException as error:
            print("child:", repr(error), file=sys.stderr, flush=True)
            ok = False
        os._exit(0 if ok else 1)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"child ended with status {status}"
"""


def test_fork_after_use(run_script):
    run_script(
        START
        + """
want = work()
in_child(lambda: work() == want)
assert work() == want
in_child(lambda: work() == want and qg.get_num_threads() == 2)
"""
    )


def test_fork_before_use(run_script):
    run_script(
        START
        + """
results = os.pipe()
in_child(lambda: os.write(results[1], work()[:4096]) == 4096)
assert os.read(results[0], 4096) == work()[:4096]
"""
    )


def test_a_child_of_a_child(run_script):
    run_script(
        START
        + """
want = work()
def child():
    in_child(lambda: work() == want)
    first = work() == want
    in_child(lambda: work() == want)
    return first
in_child(child)
assert work() == want
"""
    )


def test_a_child_may_change_the_number_of_threads(run_script):
    run_script(
        START
        + """
want = work()
def child():
    for n in (3, 1, 2):
        qg.set_num_threads(n)
        if work() != want:
            return False
    return True
in_child(child)
assert qg.get_num_threads() == 2
assert work() == want
"""
    )


@pytest.mark.slow
def test_fork_while_other_threads_compute(run_script):
    """The child starts with whatever locks the other threads held at that moment."""
    run_script(
        START
        + """
want = work()
stop = threading.Event()
wrong = []
def busy(model):
    while not stop.is_set():
        if work(model) != want:
            wrong.append(1)
others = [threading.Thread(target=busy, args=(m,)) for m in (lstm, qg.LSTM(64, 128, 2, bidirectional=True, rng=0))]
for t in others:
    t.start()
def child():
    mine = qg.LSTM(64, 128, 2, bidirectional=True, rng=0)
    return work(mine) == want and work(lstm) == want
for _ in range(10):
    in_child(child)
stop.set()
for t in others:
    t.join()
assert not wrong
""",
        timeout=120,
    )


def test_streams_in_both(run_script):
    run_script(
        START
        + """
one = qg.LSTM(64, 128, rng=0)
want, _ = one(x)
stream = one.stream(32)
stream.run(x[:6])
def child():
    return all((stream.step(x[t]) == want[t]).all() for t in range(6, 12))
in_child(child)
assert child()
"""
    )


def test_multiprocessing(run_script):
    """A pool of forked workers, as data loaders use it."""
    run_script(
        START
        + """
import multiprocessing
want = work()
def same(_):
    return work() == want
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert all(pool.map(same, range(6)))
assert work() == want
"""
    )


def test_threads_of_a_child_take_one_lock(run_script):
    """Both find that the lock of a network, for its random numbers, is the parent's; the second one in between."""
    run_script(
        START
        + """
import copy
drops = qg.LSTM(4, 5, 2, dropout=0.5, rng=0)
deepcopy, taken = copy.deepcopy, []
def interrupted(value):
    copy.deepcopy = deepcopy
    thread = threading.Thread(target=lambda: taken.append(drops._own_lock()))
    thread.start()
    thread.join()
    return deepcopy(value)
def check():
    copy.deepcopy = interrupted
    first, generator = drops._own_lock(), drops._generator
    return taken == [first] and drops._own_lock() is first and drops._generator is generator
in_child(check)
"""
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("then", "ends"),
    [("sys.exit(3)", "SystemExit"), ("raise KeyboardInterrupt", "KeyboardInterrupt"), ("return", "RuntimeError")],
)
def test_fork_in_a_signal_handler_in_the_middle_of_a_call(run_script, then, ends):
    """The child has one of the call's threads: the call ends there, and goes on in the parent."""
    run_script(
        START
        + f"""
import time
parent, children, refused, over = os.getpid(), [], [], []
stream = qg.LSTM(64, 128, rng=0).stream(32)
def handler(*_):
    children.append(os.fork())
    if children[-1] == 0:
        signal.alarm(30)
        try:
            stream.state
        except RuntimeError as error:
            refused.append("in the middle of a call" in str(error))
        {then}
signal.signal(signal.SIGUSR1, handler)
# Much longer than the time to the signal and the 50 ms between two looks for one.
for call, steps in ((lstm, 3000), (stream.run, 12000)):
    long = np.zeros((steps, 32, 64), np.float32)
    threading.Timer(0.05, os.kill, (parent, signal.SIGUSR1)).start()
    ended = ""
    over.clear()
    try:
        call(long)
        over.append(True)
        while not children:
            time.sleep(0.01)
    except BaseException as error:
        ended = f"{{type(error).__name__}} {{error}}"
    if os.getpid() != parent:
        if ended and not over:  # else the signal came after the call
            assert ended.startswith("{ends}"), ended
            assert refused == ([] if call is lstm else [True])
            assert work() == work()
        os._exit(0)
    assert not ended, ended
    assert os.waitpid(children.pop(), 0)[1] == 0
"""
    )


@pytest.mark.slow
def test_fork_at_random_moments_of_first_uses(run_script):
    """A child must not wait for a lock or an initialisation that another thread was in the middle of.

    Each round is a fresh interpreter, since a first use happens once: one thread starts to use the network, and the
    other forks a moment later.
    """
    for delay in (0, 30e-6, 80e-6, 160e-6, 400e-6, 1e-3):
        run_script(
            START
            + f"""
import time
ready = threading.Barrier(2)
def first():
    ready.wait()
    work()
other = threading.Thread(target=first)
other.start()
ready.wait()
end = time.perf_counter() + {delay}
while time.perf_counter() < end:
    pass
results = os.pipe()
in_child(lambda: os.write(results[1], work()[:4096]) == 4096)
other.join()
assert os.read(results[0], 4096) == work()[:4096]
"""
        )


@pytest.mark.slow
def test_fork_at_random_moments_of_updates_and_first_backward_passes(run_script):
    """The other thread packs parameters, makes the panels for backward, and gives its tape's memory back."""
    run_script(
        START
        + """
import random, time
small = qg.LSTM(64, 96, rng=0)
x = x[:4, :8]
dy = np.ones((4, 8, 96), np.float32)
stream = small.stream(8)
start = stream.state
def work(model=small):
    y, _, tape = model.forward(x)
    grads = model.backward(tape, dy)
    return b"".join(a.tobytes() for a in (y, grads.x, *grads.params.values()))
want, same = work(), dict(small.params)
want_steps = small.stream(8).run(x).tobytes()
stop = threading.Event()
wrong = []
def busy():
    while not stop.is_set():
        small.load_state_dict(same)  # new weights: their first backward makes the panels
        if work() != want:
            wrong.append(1)
def streaming():
    while not stop.is_set():
        stream.run(x)
others = [threading.Thread(target=busy), threading.Thread(target=busy), threading.Thread(target=streaming)]
for t in others:
    t.start()
def child():
    small.load_state_dict(same)
    stream.state = start  # also where a thread that is gone was in the middle of a call
    return work() == want and stream.run(x).tobytes() == want_steps and work() == want
random.seed(0)
for _ in range(60):
    time.sleep(random.random() * 1e-3)
    in_child(child)
stop.set()
for t in others:
    t.join()
assert not wrong
""",
        timeout=120,
    )


def test_signals_in_the_child_of_another_thread(run_script):
    """The thread that called fork is the child's main thread, whose long calls run Python's signal handlers."""
    run_script(
        START
        + """
long = np.zeros((20_000_000, 1, 1), np.float32)

def raises(*_):
    raise InterruptedError

def check():
    signal.signal(signal.SIGALRM, raises)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        qg.LSTM(1, 1, 3, rng=0)(long)
    except InterruptedError:
        return True
    return False

work()
failed = []
def in_thread():
    try:
        in_child(check)
    except AssertionError as error:
        failed.append(error)
thread = threading.Thread(target=in_thread)
thread.start()
thread.join()
assert not failed, failed
"""
    )
