"""Times of single calls: `pytest bench --benchmark-only`. compare.py compares with other libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from numpy.typing import NDArray
from peers.base import make_arrays
from peers.peer_quadgate import network
from pytest_benchmark.fixture import BenchmarkFixture
from shapes import TABLE, Shape

Array = NDArray[Any]
SMALL_WORK = 1e9  # floating-point operations of one call; larger shapes take too long for a smoke run
INFERENCE = [s for s in TABLE if s.mode == "inference" and s.flops < SMALL_WORK]
TRAINING = [s for s in TABLE if s.mode == "training" and s.flops < SMALL_WORK]
SMALLEST = Shape("smallest", 1, 1, 16, 16)


@pytest.fixture(params=[1, 2], ids=["1thread", "2threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run with one thread and with two."""
    before = qg.get_num_threads()
    qg.set_num_threads(request.param)
    yield request.param
    qg.set_num_threads(before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run with one thread."""
    before = qg.get_num_threads()
    qg.set_num_threads(1)
    yield
    qg.set_num_threads(before)


def timed(benchmark: BenchmarkFixture, call: Callable[[], object], flops: int = 0) -> None:
    """Time `call` for about half a second at most."""
    benchmark._max_time = 0.4
    benchmark._min_rounds = 3
    if flops:
        benchmark.extra_info["flops"] = flops
    benchmark(call)


@pytest.mark.parametrize("shape", INFERENCE, ids=lambda s: s.label)
def test_inference(benchmark: BenchmarkFixture, shape: Shape, threads: int) -> None:
    """A whole sequence in one call."""
    arrays = make_arrays(shape)
    lstm = network(shape, arrays)
    timed(benchmark, partial(lstm, arrays["x"]), shape.flops)


@pytest.mark.parametrize("shape", TRAINING, ids=lambda s: s.label)
def test_training(benchmark: BenchmarkFixture, shape: Shape, threads: int) -> None:
    """Forward with a tape, then backward to all gradients."""
    arrays = make_arrays(shape)
    lstm = network(shape, arrays)

    def step() -> None:
        _, _, tape = lstm.forward(arrays["x"])
        lstm.backward(tape, arrays["dy"])

    timed(benchmark, step, shape.flops)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("given", ["out", "new"])
def test_step_overhead(benchmark: BenchmarkFixture, given: str) -> None:
    """Overhead of `stream.step`: almost nothing is computed."""
    arrays = make_arrays(SMALLEST)
    stream = network(SMALLEST, arrays).stream(batch_size=1)
    x, out = np.array(arrays["x"][0]), np.zeros((1, SMALLEST.H), np.float32)
    timed(benchmark, partial(stream.step, x, out=out) if given == "out" else partial(stream.step, x))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("given", ["x", "state", "list"])
def test_call_overhead(benchmark: BenchmarkFixture, given: str) -> None:
    """Overhead of `lstm(x)`: almost nothing is computed; a list is converted first."""
    arrays = make_arrays(SMALLEST)
    lstm = network(SMALLEST, arrays)
    x: Any = arrays["x"].tolist() if given == "list" else arrays["x"]
    state = (np.zeros((1, 1, SMALLEST.H), np.float32),) * 2
    timed(benchmark, partial(lstm, x, state) if given == "state" else partial(lstm, x))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("hidden", [32, 256, 512])
def test_packing(benchmark: BenchmarkFixture, hidden: int) -> None:
    """Change of a parameter, and the next call, which packs all parameters."""
    shape = Shape("packing", 1, 1, hidden, hidden)
    arrays = make_arrays(shape)
    lstm = network(shape, arrays)

    def write() -> None:
        with lstm.writable() as params:
            params["bias_l0"][0] += 1
        lstm(arrays["x"])

    timed(benchmark, write)
    benchmark.extra_info["bytes"] = 4 * shape.weights


@pytest.mark.parametrize("kind", ["lstm", "rnn"])
@pytest.mark.parametrize("silent", [False, True], ids=["sound", "silence"])
def test_silence(benchmark: BenchmarkFixture, kind: str, silent: bool, one_thread: None) -> None:
    """Steps of zeros after a sound, and ordinary ones: a state that decays must not make them slow."""
    net = (qg.LSTM if kind == "lstm" else qg.RNN)(40, 64, rng=0)
    with net.writable() as params:
        params["bias_l0"][...] = 0
        if kind == "lstm":
            params["bias_l0"][64:128] = 3
        params["weight_hh_l0"][...] = 0.01 * params["weight_hh_l0"] if kind == "lstm" else 0.95 * np.eye(64)
    stream = net.stream()
    rows = np.random.default_rng(0).normal(size=(2000, 1, 40)).astype(np.float32)
    stream.run(rows)
    quiet = np.zeros_like(rows)
    stream.run(quiet)
    timed(benchmark, partial(stream.run, quiet if silent else rows))


def test_import(benchmark: BenchmarkFixture) -> None:
    """Import in a process of its own that has NumPy already; bytecode is compiled in the first, which warms up."""
    source = "import time, numpy; t = time.perf_counter(); import quadgate; print(time.perf_counter() - t)"

    def imported() -> float:
        return float(subprocess.run([sys.executable, "-c", source], capture_output=True, check=True, text=True).stdout)

    benchmark.extra_info["import_seconds"] = min(imported() for _ in range(5))
    benchmark.pedantic(imported, rounds=3, warmup_rounds=1)
