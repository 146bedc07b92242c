"""All works in a thread with the smallest stack that Python gives."""

from __future__ import annotations


def test_training_with_a_stack_of_32_kb(run_script):
    run_script(
        """
import threading
import numpy as np
import quadgate as qg

qg.set_num_threads(1)
rng = np.random.default_rng(0)
cases = []
for dtype in ("float32", "float64"):
    for batch, options in (
        (130, {}),
        (130, {"num_layers": 2, "shortcut": "highway", "dropout": 0.2}),
        (130, {"num_layers": 2, "bidirectional": True, "merge": "mul", "shortcut": "dense"}),
        (100, {"proj_size": 16, "layer_norm": "cell", "peephole": True}),
        (3, {}),
    ):
        x = rng.normal(size=(4, batch, 20)).astype(dtype)
        lstm = qg.LSTM(20, 48, dtype=dtype, rng=0, **options)
        cases.append((lstm, x))

def work(results):
    for lstm, x in cases:
        y, _, tape = lstm.forward(x, rng=0)
        grads = lstm.backward(tape, y)
        results.append(b"".join(a.tobytes() for a in (y, grads.x, *grads.params.values())))
        results.append(lstm(x)[0].tobytes())

want, got = [], []
work(want)
threading.stack_size(32 * 1024)
thread = threading.Thread(target=work, args=(got,))
thread.start()
thread.join()
assert got == want
"""
    )
