"""Many threads at once with networks of mixed sizes: every result right, and memory flat after a warm-up.

QUADGATE_SOAK_SECONDS sets how long it runs.
"""

from __future__ import annotations

import os
import sys

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("memory is read from /proc", allow_module_level=True)

SECONDS = float(os.environ.get("QUADGATE_SOAK_SECONDS", "3"))

SOAK = """
import gc, statistics, threading, time
import numpy as np
import quadgate as qg

THREADS, SECONDS = 32, {seconds}
qg.set_num_threads(2)
rng = np.random.default_rng(0)
SIZES = [(1, 1, 1, 1), (3, 2, 5, 7), (9, 4, 16, 24), (5, 33, 20, 48), (30, 1, 40, 64), (4, 60, 64, 128)]
OPTIONS = [{{}}, {{"num_layers": 2, "dropout": 0.3}}, {{"bidirectional": True}}, {{"proj_size": 3, "peephole": True}}]
cases = []
for k, (steps, batch, inputs, units) in enumerate(SIZES):
    for dtype in ("float32", "float64"):
        net = qg.LSTM(inputs, units, dtype=dtype, rng=k, **OPTIONS[k % len(OPTIONS)])
        cases.append((net, rng.normal(size=(steps, batch, inputs)).astype(dtype)))

def work(net, x):
    y, (h, c), tape = net.forward(x, rng=1)
    grads = net.backward(tape, y)
    parts = [y, h, c, grads.x, *grads.params.values(), net(x)[0]]
    if not net.bidirectional:
        parts.append(net.stream(x.shape[1]).run(x))
    return b"".join(part.tobytes() for part in parts)

want = [work(*case) for case in cases]
wrong, done, stop = [], [0] * THREADS, threading.Event()

def run(k):
    draw = np.random.default_rng(k)
    while not stop.is_set():
        # First each case once: then the thread's memory has its largest size.
        chosen = done[k] if done[k] < len(cases) else int(draw.integers(len(cases)))
        try:
            if work(*cases[chosen]) != want[chosen]:
                wrong.append(cases[chosen])
        except BaseException as error:
            wrong.append(error)
        if draw.random() < 0.02:
            qg.set_num_threads(int(draw.integers(1, 5)))
        done[k] += 1

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def usual(seconds):
    # The calls of 32 threads are 4 MB each at most: a single look varies by as much as the bound.
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        found.append(resident())
        time.sleep(0.02)
    return statistics.median(found)

threads = [threading.Thread(target=run, args=(k,)) for k in range(THREADS)]
for thread in threads:
    thread.start()
time.sleep(SECONDS / 3)
while min(done) < len(cases):
    time.sleep(0.05)
warm = usual(SECONDS / 6)
time.sleep(SECONDS / 3)
late = usual(SECONDS / 6)
stop.set()
for thread in threads:
    thread.join()
assert not wrong, wrong[:3]
assert late - warm < 64e6, (warm, late, sum(done))
print(sum(done), "calls,", (late - warm) / 1e6, "MB more")
"""


@pytest.mark.slow
def test_many_threads_of_mixed_sizes(run_script):
    run_script(SOAK.format(seconds=SECONDS), timeout=60 + 5 * SECONDS)
