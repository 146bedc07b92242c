"""Memory: flat over many calls, a workspace that does not grow with T, and a tape that is as large as it says."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import quadgate as qg
from support.cases import DTYPES, data, model, plain

needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is read from /proc")

START = """
import gc, pathlib, pickle
import numpy as np
import quadgate as qg

def resident():
    gc.collect()
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096

def highest():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

MB = 2**20
"""


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("threads", [1, 2])
def test_flat_over_10000_calls(run_script, threads):
    """Less than 1 MB in 10,000 rounds of everything: not even 100 bytes a round are kept."""
    run_script(
        START
        + f"""
qg.set_num_threads({threads})
lstm = qg.LSTM(8, 24, 2, bidirectional=True, rng=0)
one = qg.LSTM(8, 24, rng=0)
stream = one.stream(3)
rng = np.random.default_rng(0)
x, dy = rng.normal(size=(5, 3, 8)).astype(np.float32), rng.normal(size=(5, 3, 48)).astype(np.float32)
double, lengths = x.astype(np.float64), np.array([5, 0, 3])
out, out_step = np.empty((5, 3, 48), np.float32), np.empty((3, 24), np.float32)

def round_of_calls(n):
    lstm(x)
    lstm(double, lengths=lengths.tolist())  # converted
    lstm(x, out=out)
    y, state, tape = lstm.forward(x, lengths=lengths)
    grads = lstm.backward(tape, dy, state)
    stream.step(x[n % 5], out=out_step)
    stream.run(x)
    stream.state = stream.state
    stream.reset()
    for bad in (lambda: lstm(dy), lambda: lstm.backward(tape, x), lambda: stream.step(dy)):
        try:
            bad()
        except ValueError:
            pass
    if n % 10 == 0:
        with one.writable() as params:
            params["bias_l0"] *= np.float32(0.5)
        one.stream(2).step(x[0, :2])
        one(x)
        qg.LSTM(8, 24)(x)

for n in range(1500):
    round_of_calls(n)
before = resident()
for n in range(10_000):
    round_of_calls(n)
grown = resident() - before
assert grown < MB, f"grown by {{grown}} bytes"
""",
        timeout=120,
    )


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(
    "network",
    ["qg.LSTM(64, 64, rng=0)", "qg.LSTM(64, 64, bidirectional=True, rng=0)", "qg.LSTM(64, 64, 3, rng=0)"],
    ids=["plain", "two_directions", "three_layers"],
)
@pytest.mark.parametrize(("batch", "steps"), [(1, 40_000), (32, 1500)])
def test_the_workspace_of_inference_does_not_grow_with_the_steps(run_script, network, batch, steps):
    """The highest memory use before and after a long call differs by less than a tenth of a T*B*4H buffer."""
    run_script(
        START
        + f"""
qg.set_num_threads(2)
lstm = {network}
x = np.ones(({steps}, {batch}, 64), np.float32)
out = np.ones(({steps}, {batch}, 64 * (2 if lstm.bidirectional else 1)), np.float32)
lstm(x[:400], out=out[:400])
before = highest()
lstm(x, out=out)
grown, buffer = highest() - before, {steps} * {batch} * 4 * 64 * 4
assert grown < buffer / 10, f"grown by {{grown}} bytes, where the gates of all steps are {{buffer}}"
"""
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden", [33, 128])
@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (1, True), (3, False), (2, True)])
def test_a_tape_is_at_most_6_H_numbers_a_step_and_row_and_the_inputs(layers, bidirectional, hidden, dtype):
    case = plain(50, 4, 20, hidden, layers, bidirectional, lengths=True, dtype=dtype)
    lstm, d = model(case), data(case)
    _, _, tape = lstm.forward(d.x, d.state, lengths=d.lengths)
    cells = layers * case.directions
    per_step = 6 * hidden * cells + 20
    once = 2 * cells * 4 * hidden  # the initial state
    room = 64 * (6 * cells + 2) + 4096  # alignment of each array, lengths, the object itself
    assert tape.nbytes <= (50 * 4 * per_step + once) * d.x.itemsize + room
    assert tape.nbytes >= 50 * 4 * 5 * hidden * cells * d.x.itemsize  # i, f, g, o and c at least


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("inputs", [1, 20, 65, 130])
def test_a_tape_keeps_x_in_little_more_than_its_columns(inputs, dtype):
    """Without lengths, x may lie in panels: whole vectors of at most 64 bytes, and one more."""
    lstm = qg.LSTM(inputs, 33, dtype=dtype, rng=0)
    tape = lstm.forward(np.zeros((50, 4, inputs), dtype))[-1]
    lanes = 64 // np.dtype(dtype).itemsize
    columns = (-(-inputs // lanes) + 1) * lanes
    once = 2 * 4 * 33  # the initial state
    assert tape.nbytes <= (50 * 4 * (6 * 33 + columns) + once) * np.dtype(dtype).itemsize


def test_the_size_of_a_tape_follows_the_steps():
    lstm = qg.LSTM(20, 64, rng=0)
    sizes = [lstm.forward(np.zeros((steps, 2, 20), np.float32))[2].nbytes for steps in (100, 200, 300)]
    assert sizes[2] - sizes[1] == pytest.approx(sizes[1] - sizes[0], rel=0.01)


@needs_proc
def test_a_tape_is_as_large_as_it_says(run_script):
    run_script(
        START
        + """
import ctypes
lstm = qg.LSTM(16, 128, rng=0)
x = np.ones((2000, 16, 16), np.float32)
lstm.forward(x[:100])
before = resident()
y, _, tape = lstm.forward(x)
held = resident() - before - y.nbytes
assert tape.nbytes > 50 * MB
assert abs(held - tape.nbytes) < 0.1 * tape.nbytes, f"{held} bytes held, {tape.nbytes} said"
grads = lstm.backward(tape, np.ones_like(y))
said = tape.nbytes
del tape, y, grads
y, _, tape = lstm.forward(x)  # in the memory of the last one
held = resident() - before - y.nbytes
assert abs(held - said) < 0.1 * said, f"{held} bytes held by the second tape, {said} said"
del tape, y
lstm(x[:1])
trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)  # y's memory is the C library's to give back
trim(0)
left = resident() - before
assert left < 8 * MB, f"{left} bytes are left after the tape is gone and the network was used for inference"
y, _, tape = lstm.forward(x)
del tape, y, lstm
trim(0)
left = resident() - before
assert left < 8 * MB, f"{left} bytes are left after the network is gone"
"""
    )


@pytest.mark.slow
def test_a_tape_in_a_cycle_is_freed():
    """Through each of its attributes that can be made to point back at it."""

    class Back:
        pass

    lstm = qg.LSTM(3, 4, zoneout=(0.1, 0.1), rng=0)
    for way in ("trace", "norms", "cells", "dropped"):
        _, _, tape = lstm.forward(np.ones((5, 2, 3), np.float32), trace=True, return_cells=True)
        back = Back()
        back.tape = tape
        if way == "trace":
            tape.trace.c = back
        elif way == "norms":
            tape.trace.dh_norm = back
        elif way == "cells":
            back.cells = tape.cells
        else:
            back.dropped = tape.dropped
            with pytest.raises(TypeError):
                tape.dropped["back"] = back
        gone = weakref.ref(tape), weakref.ref(back)
        del tape, back
        gc.collect()
        assert [one() for one in gone] == [None, None], way
