"""`python -m quadgate` and `import quadgate`, as a user's shell sees them."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import time

import quadgate as qg


def test_self_check():
    """It says what is in use, checks itself against the reference in a few seconds, and exits with 0."""
    begin = time.monotonic()
    command = [sys.executable, "-W", "error", "-m", "quadgate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    assert time.monotonic() - begin < 15  # two seconds, and as much again for a busy machine, several times over
    assert importlib.metadata.version("quadgate") in done.stdout
    assert qg.cpu_info()["isa"] in done.stdout
    for word in ("thread", "cache"):
        assert word in done.stdout.lower()


def test_version():
    assert qg.__version__ == importlib.metadata.version("quadgate")


def test_import_costs_less_than_15_ms_beyond_numpy(run_script, tmp_path):
    """The least of 9 imports, each in a fresh process that has NumPy already: noise only ever adds to it.

    As installed, with compiled bytecode, whatever the environment of the tests says about writing it.
    """
    source = """
        import time
        import numpy
        begin = time.perf_counter()
        import quadgate
        print(time.perf_counter() - begin)
    """
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}
    run_script(source, **bytecode)  # compiles it
    times = [float(run_script(source, **bytecode).stdout) for _ in range(9)]
    assert min(times) < 0.015, f"{min(times) * 1000:.1f} ms"


def test_import_loads_no_other_package(run_script):
    """NumPy is the only dependency, and nothing heavy of Python's own comes along."""
    source = """
        import sys
        import numpy
        before = set(sys.modules)
        import quadgate
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(*sorted(new - {"quadgate"} - set(sys.stdlib_module_names)))
    """
    assert run_script(source).stdout.split() == []


def test_public_names():
    for name in ("LSTM", "Grads", "Stream", "set_num_threads", "get_num_threads", "cpu_info", "reference"):
        assert hasattr(qg, name), name


def test_machine():
    info = qg.cpu_info()
    assert set(info) == {"isa", "supported", "cores", "threads", "l1d", "l2", "l3"}
    assert info["cores"] >= 1
    assert info["threads"] == qg.get_num_threads()
    for cache in ("l1d", "l2", "l3"):
        assert info[cache] >= 0
    qg.set_num_threads(3)
    assert qg.get_num_threads() == qg.cpu_info()["threads"] == 3


def test_the_first_number_of_threads_is_that_of_the_cores(run_script):
    """Of those that the process may use: restricted to one core it starts with one thread."""
    run_script(
        """
        import os
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            import quadgate
            assert quadgate.get_num_threads() == 1
            assert quadgate.cpu_info()["cores"] == 1
        """
    )
