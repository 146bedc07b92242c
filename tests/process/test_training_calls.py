"""Training's compiled calls in a process: Ctrl-C, a fork, the caller's floating-point environment, memory."""

from __future__ import annotations

import pytest

threads = pytest.mark.parametrize("threads", [1, 2])


@pytest.mark.slow
@threads
def test_ctrl_c_in_a_long_dense_layer(run_script, threads):
    """Forward and backward stop within a second; they are made so long that they would take some 3 s."""
    run_script(f"""
        import os, signal, threading, time
        import numpy as np
        import quadgate as qg
        from quadgate import _core

        qg.set_num_threads({threads})
        weight = np.full((4096, 4096), 0.01, np.float32)
        layer, dw = _core.Dense(weight, None, None), np.empty_like(weight)

        def forward(x):
            layer.forward(x, True)

        def backward(x):
            layer.backward(x, None, None, x, True, dw, None)

        def interrupted(call):
            short = np.zeros((384, 4096), np.float32)
            call(short)
            begin = time.perf_counter()
            call(short)
            rows = 384 * 3.0 / (time.perf_counter() - begin)
            x, at = np.zeros((int(min(rows, 60_000)), 4096), np.float32), []
            def ctrl_c():
                at.append(time.perf_counter())
                os.kill(os.getpid(), signal.SIGINT)
            timer = threading.Timer(0.3, ctrl_c)
            timer.start()
            try:
                call(x)
            except KeyboardInterrupt:
                late = time.perf_counter() - at[0]
                timer.join()
                assert late < 1.0, f"it took {{late:.2f}} s"
                return
            raise SystemExit("the call ended before it was interrupted, or ignored it")

        interrupted(forward)
        interrupted(backward)
    """)


def test_a_forked_child_goes_on(run_script):
    """A layer whose packed weights the parent made, on threads that the child has to start."""
    run_script("""
        import os, sys
        import numpy as np
        import quadgate as qg
        from quadgate import _core

        qg.set_num_threads(2)
        rng = np.random.default_rng(0)
        x, w = (rng.standard_normal(s).astype(np.float32) for s in ((900, 70), (50, 70)))
        layer, dw = _core.Dense(w, None, None), np.empty_like(w)

        def everything():
            y, _ = layer.forward(x, True)
            return y.tobytes() + layer.backward(x, None, None, y, True, dw, None).tobytes() + dw.tobytes()

        want = everything()
        child = os.fork()
        if child == 0:
            os._exit(0 if everything() == want else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert everything() == want
    """)


@pytest.mark.slow
@threads
def test_a_fork_in_the_middle_of_a_dense_layer(run_script, threads):
    """A signal handler forks: the child goes on with the call, unless it needs threads that only its parent has."""
    run_script(f"""
        import os, signal, time
        import numpy as np
        import quadgate as qg
        from quadgate import _core

        qg.set_num_threads({threads})
        layer = _core.Dense(np.full((4096, 4096), 0.01, np.float32), None, None)
        short = np.ones((384, 4096), np.float32)
        layer.forward(short, True)
        begin = time.perf_counter()
        layer.forward(short, True)
        rows = 384 * 1.0 / (time.perf_counter() - begin)
        x = np.ones((int(min(rows, 20_000)), 4096), np.float32)
        want, _ = layer.forward(x, True)

        children = []
        signal.signal(signal.SIGALRM, lambda *_: children.append(os.fork()))
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            y, _ = layer.forward(x, True)
            result = "done" if np.array_equal(y, want) else "wrong"
        except RuntimeError as error:
            result = str(error)
        if children == [0]:
            os._exit(0 if ("in the middle of a call" in result) == ({threads} > 1) and result != "wrong" else 1)
        assert len(children) == 1 and result == "done", (children, result)
        assert os.waitpid(children[0], 0)[1] == 0
    """)


@pytest.mark.numbers
def test_the_callers_floating_point_environment(run_script):
    """Results are the same bits under another rounding mode, and that mode is there again afterwards."""
    run_script("""
        import ctypes, ctypes.util, platform
        import numpy as np
        import quadgate as qg
        from quadgate import _core
        from quadgate.train import _losses, Adam

        libm = ctypes.CDLL(ctypes.util.find_library("m"))
        rng = np.random.default_rng(0)
        x, w, b = (rng.standard_normal(s).astype(np.float32) for s in ((900, 70), (50, 70), (50,)))
        t = rng.integers(0, 50, 900)

        def everything():
            layer = _core.Dense(w, b, ("tanh", 0.0, 0.0))
            y, _ = layer.forward(x, True)
            total, d = _core.softmax_cross_entropy(y, t, None, 900.0, True)
            dw, db = np.empty_like(w), np.empty_like(b)
            dx = layer.backward(x, None, y, d, True, dw, db)
            opt = Adam(0.1, clip_norm=0.1)
            p, state = opt.update([w, b], [dw, db], opt.start([w, b]))
            return [a.tobytes() for a in (y, np.array(total), d, dx, dw, db, *p, *state.slots["v"])]

        for threads in (1, 2):
            qg.set_num_threads(threads)
            want, before = everything(), libm.fegetround()
            for mode in (0x400, 0x800, 0xC00) if platform.machine() == "x86_64" else ():
                assert libm.fesetround(mode) == 0
                got = everything()
                assert libm.fegetround() == mode
                libm.fesetround(before)
                assert got == want, hex(mode)
    """)


@pytest.mark.slow
def test_memory_of_many_steps_stays_the_same(run_script):
    """A step's blocks, packed weights and swaps leave nothing behind."""
    pytest.importorskip("psutil")
    run_script("""
        import gc
        import numpy as np
        import psutil
        from quadgate import train
        from quadgate.train import _commit

        rng, layer, opt = np.random.default_rng(0), train.Dense(300, 200), train.Adam(1e-3, clip_norm=1.0)
        layer.bind(rng, np.dtype("float32"))
        x = rng.standard_normal((64, 300)).astype(np.float32)
        state, params = opt.start(list(layer.params.values())), list(layer.params.values())

        def step():
            global params, state
            y, tape = layer.forward(x, train.Context(True))
            _, grads = layer.backward(tape, y, need_x=True)
            params, state = opt.update(params, list(grads.values()), state)
            _commit.replace_all(layer.successor(dict(zip(("weight", "bias"), params))))

        def steps(n):
            for _ in range(n):
                step()
            gc.collect()
            return psutil.Process().memory_info().rss

        before = steps(200)
        assert steps(800) - before < 8 << 20  # one set of blocks and packed weights is 1.2 MB
    """)
