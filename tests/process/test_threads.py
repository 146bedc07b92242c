"""Many Python threads at once: each with its own network, and all with one."""

from __future__ import annotations

import contextlib
import ctypes
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import quadgate as qg
from support.cases import data, model, plain, run, same_bits

CASES = [
    plain(12, 16, 24, 64, 2, lengths=True),
    plain(20, 1, 33, 100, dtype="float64"),
    plain(9, 7, 40, 65, 1, True),
    plain(3, 2, 4, 5, 3),
]


def together(work, count):
    """Run work(0), work(1), ... at the same time, each in its own thread, and hand on what they raise."""
    start = threading.Barrier(count)

    def one(k):
        start.wait()
        return work(k)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def all_of(case, lstm, d):
    return list(run(case, lstm, d).values())


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_results_are_those_of_one_thread(shared, threads):
    qg.set_num_threads(threads)
    lstms, several = [model(c) for c in CASES], [data(c) for c in CASES]
    want = [all_of(c, m, d) for c, m, d in zip(CASES, lstms, several, strict=True)]

    def work(k):
        mine = lstms if shared else [model(c) for c in CASES]
        for turn in range(12):
            at = (k + turn) % len(CASES)
            for value, expected in zip(all_of(CASES[at], mine[at], several[at]), want[at], strict=True):
                assert same_bits(value, expected)

    together(work, 6)


def test_the_first_call_comes_from_many_threads():
    """Parameters are packed when first needed; the threads must not trip over each other there."""
    case = CASES[0]
    want, d = all_of(case, model(case), data(case)), data(case)
    for _ in range(15):
        lstm = model(case)
        for got in together(lambda _, lstm=lstm: all_of(case, lstm, d), 4):
            for value, expected in zip(got, want, strict=True):
                assert same_bits(value, expected)


def test_one_thread_changes_parameters_under_the_others():
    """Each call is computed with the parameters from before a change or from after it, and never with a mixture."""
    case = plain(6, 3, 24, 64, 2)
    d = data(case)
    versions = [model(case), model(plain(6, 3, 24, 64, 2, seed=1))]
    wanted = [m(d.x, d.state)[0].tobytes() for m in versions]
    lstm = model(case)
    stop = threading.Event()
    seen = set()

    def work(k):
        if k == 0:
            for n in range(60):
                lstm.load_state_dict(dict(versions[n % 2].params))
                time.sleep(0.001)
            stop.set()
        while not stop.is_set():
            seen.add(wanted.index(lstm(d.x, d.state)[0].tobytes()))

    together(work, 3)
    assert seen == {0, 1}


def test_the_number_of_threads_changes_under_a_call():
    case = plain(10, 16, 40, 100)
    lstm, d = model(case), data(case)
    want = all_of(case, lstm, d)
    stop = threading.Event()

    def work(k):
        if k == 0:
            for n in range(60):
                qg.set_num_threads(1 + n % 3)
                time.sleep(0.001)
            stop.set()
        while not stop.is_set():
            for value, expected in zip(all_of(case, lstm, d), want, strict=True):
                assert same_bits(value, expected)

    together(work, 3)


def test_streams_in_threads_of_their_own():
    case = plain(40, 2, 24, 64, 2)
    lstm, d = model(case), data(case)
    want, _ = lstm(d.x)

    def work(_):
        stream = lstm.stream(2)
        return np.stack([stream.step(x) for x in d.x])

    for got in together(work, 5):
        assert same_bits(got, want)


def test_the_interpreter_runs_on_during_a_call():
    """The global lock is released: another thread gets to run often while a long call is computed."""
    lstm = qg.LSTM(64, 256, rng=0)
    x = np.zeros((1000, 16, 64), np.float32)
    begin = time.perf_counter()
    lstm(x)
    alone = time.perf_counter() - begin
    ticks = []
    done = threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    other = threading.Thread(target=tick)
    other.start()
    while not ticks:
        time.sleep(0.001)
    begin = time.perf_counter()
    lstm(x)
    end = time.perf_counter()
    done.set()
    other.join()
    within = sum(begin < at < end for at in ticks)
    assert within >= 3, f"{within} ticks within {end - begin:.3f} s (alone: {alone:.3f} s)"


def test_arguments_that_change_while_a_call_waits_its_turn():
    """A stream's second caller waits; what it was given is looked at when its turn comes."""
    stream = qg.LSTM(8, 64, rng=0).stream(batch_size=1)
    long_input, x = np.zeros((400_000, 1, 8), np.float32), np.ones((1000, 1, 8), np.float32)
    first = threading.Thread(target=stream.run, args=(long_input,))
    got: list[object] = []

    def second():
        try:
            got.append(stream.run(x).shape)
        except ValueError as error:
            got.append(str(error))

    waiting = threading.Thread(target=second)
    first.start()
    time.sleep(0.05)
    waiting.start()
    time.sleep(0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer NumPy would rather not
        x.shape = (8000, 1, 1)
    first.join()
    waiting.join()
    assert got == [(1000, 1, 64)] or "got (8000, 1, 1)" in str(got[0])


def test_the_shape_of_x_changes_during_forward():
    """The tape has the shape that the call began with."""
    lstm, x = qg.LSTM(8, 64, rng=0), np.zeros((20_000, 4, 8), np.float32)
    tapes: list[qg.Tape] = []
    thread = threading.Thread(target=lambda: tapes.append(lstm.forward(x)[2]))
    thread.start()
    time.sleep(0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        x.shape = (10, 8000, 8)
    thread.join()
    shape = tapes[0].x_shape
    assert shape in ((20_000, 4, 8), (10, 8000, 8))  # the thread may have begun late
    assert lstm.backward(tapes[0], np.ones((*shape[:2], 64), np.float32)).x.shape == shape


def test_lengths_that_another_thread_writes_to():
    """Each call sees lengths of some moment, and those are all checked."""
    lstm = qg.LSTM(1, 1, rng=0)
    good, bad = np.ones(100_000, np.int64), np.full(100_000, 10**6, np.int64)
    lengths, x = good.copy(), np.zeros((1, 100_000, 1), np.float32)
    done = threading.Event()

    def write():
        while not done.is_set():
            np.copyto(lengths, bad)
            np.copyto(lengths, good)

    writer = threading.Thread(target=write)
    writer.start()
    end = time.perf_counter() + 1
    while time.perf_counter() < end:
        with contextlib.suppress(ValueError):
            lstm(x, lengths=lengths)
    done.set()
    writer.join()


# Compiled, and registered first: nothing after it releases the GIL, so that a call which requests it meanwhile is
# overtaken by the end.
HOLD_THE_GIL = "import atexit; atexit.register(sum, range(20_000_000))"


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("at_exit", ["", HOLD_THE_GIL], ids=["plain", "overtaken"])
def test_the_process_may_end_during_a_call(run_script, threads, at_exit):
    run_script(
        f"""
{at_exit}
import threading, time
import numpy as np
import quadgate as qg
qg.set_num_threads({threads})
lstm, x = qg.LSTM(256, 256), np.zeros((3000, 32, 256), np.float32)
def work():
    while True:
        lstm(x)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.5)
"""
    )


def test_a_call_outside_of_the_main_thread_needs_no_gil_on_its_way(tmp_path):
    """Only the main thread runs signal handlers: a call of another thread ends while the main thread has the GIL."""
    lstm = qg.LSTM(64, 128, rng=0)
    x = np.ones((2000, 64, 64), np.float32)
    y = np.asarray(np.memmap(tmp_path / "y", np.float32, "w+", shape=(2000, 64, 128)))
    wait = f"""
        import sys, time
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with open({str(tmp_path / "y")!r}, "rb") as file:
                file.seek(-4, 2)
                if any(file.read()):
                    sys.exit(0)
            time.sleep(0.02)
        sys.exit(1)
    """
    (tmp_path / "wait.py").write_text(textwrap.dedent(wait))
    began = threading.Event()

    def work():
        began.set()
        lstm(x, out=y)

    before = qg.get_num_threads()
    qg.set_num_threads(1)  # or a worker would do what is left
    try:
        thread = threading.Thread(target=work)
        thread.start()
        began.wait()
        time.sleep(0.02)  # the call releases the GIL
        status = ctypes.PyDLL(None).system(f"{sys.executable} {tmp_path / 'wait.py'}".encode())  # keeps the GIL
        thread.join()
    finally:
        qg.set_num_threads(before)
    assert status == 0
