"""Slowdown of a call while one busy process runs on every core.

    python bench/competition.py [--threads 1 2] [--rounds 9] [--json out.json]

Undisturbed and disturbed samples alternate. With a fair scheduler and as many busy processes as cores, a call that uses
every core gets half of each, so a slowdown of 2 is the minimum; up to 4 is allowed. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import quadgate as qg
from command import kept, output, positive
from peers.base import make_arrays
from peers.peer_quadgate import network
from shapes import Shape

SHAPES = (
    Shape("small", 100, 1, 40, 32),
    Shape("units are split", 100, 1, 256, 256),
    Shape("rows are split", 100, 16, 64, 128),
    Shape("training", 50, 32, 128, 128, "training"),
)
SAMPLE_SECONDS = 0.15  # many of the scheduler's time slices


def _burn() -> None:
    while True:
        sum(range(10000))


@contextmanager
def _running(pids: list[int]) -> Iterator[None]:
    """Continue the stopped processes inside the block."""
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    time.sleep(0.02)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)


def _call(shape: Shape) -> Callable[[], object]:
    arrays = make_arrays(shape)
    lstm = network(shape, arrays)
    if shape.mode == "inference":
        return lambda: lstm(arrays["x"])

    def step() -> object:
        _, _, tape = lstm.forward(arrays["x"])
        return lstm.backward(tape, arrays["dy"])

    return step


def _sample(call: Callable[[], object]) -> list[float]:
    """Return the seconds of each call; a sample has as many calls as fit into SAMPLE_SECONDS."""
    times: list[float] = []
    begin = last = time.perf_counter()
    while last - begin < SAMPLE_SECONDS:
        call()
        now = time.perf_counter()
        times.append(now - last)
        last = now
    return times


def measure(shape: Shape, threads: int, rounds: int, pids: list[int]) -> dict[str, object]:
    """Return the mean time of a call without busy processes, and the slowdown with them, over rounds."""
    qg.set_num_threads(threads)
    call = _call(shape)
    call()
    alone, disturbed, longest = [], [], 0.0
    for _ in range(rounds):
        alone.append(statistics.fmean(_sample(call)))
        with _running(pids):
            times = _sample(call)
        disturbed.append(statistics.fmean(times))
        longest = max(longest, *times)
    base = statistics.median(alone)
    ratios = [d / a for d, a in zip(disturbed, alone, strict=True)]
    return {
        "shape": shape.label,
        "mode": shape.mode,
        "threads": threads,
        "alone_us": 1e6 * base,
        "slowdown_median": statistics.median(ratios),
        "slowdown_worst_round": max(ratios),
        "longest_call_us": 1e6 * longest,
        "longest_call_ratio": longest / base,
    }


def main(words: list[str] | None = None) -> None:
    """Measure all shapes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", nargs="+", type=positive, default=[1, 2])
    parser.add_argument("--rounds", type=positive, default=9)
    parser.add_argument("--json", type=output)
    args = parser.parse_args(words)
    context = multiprocessing.get_context("spawn")
    busy = [context.Process(target=_burn, daemon=True) for _ in os.sched_getaffinity(0)]
    results: list[dict[str, object]] = []
    try:
        for process in busy:
            process.start()
        time.sleep(1)  # until their imports are done
        pids = [process.pid for process in busy if process.pid is not None]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        with kept(args.json, lambda: results):
            for shape in SHAPES:
                results += [measure(shape, n, args.rounds, pids) for n in args.threads]
    finally:
        for process in busy:
            process.kill()
    print(f"NumPy {np.__version__}, quadgate {qg.__version__}, {len(busy)} busy processes, {args.rounds} rounds\n")
    print("| mode | T,B,I,H | threads | alone, us | slower, median | slower, worst round | longest single call, us |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for r in results:
        cells = [str(r["mode"]), str(r["shape"]), str(r["threads"]), f"{r['alone_us']:.1f}"]
        cells += [f"{r['slowdown_median']:.2f}", f"{r['slowdown_worst_round']:.2f}", f"{r['longest_call_us']:.0f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
