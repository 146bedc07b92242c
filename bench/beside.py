"""Measure calls beside neighbours that take CPU time: NumPy's pool, torch's, and busy processes.

    python bench/beside.py                        # all neighbours, on the README's model
    python bench/beside.py --shape 35,20,650,650 --neighbours numpy,busy

NumPy's OpenBLAS keeps its threads spinning for a tenth of a second after a product, so a call right after one shares
all cores but its own. Each row compares a call of two threads beside a neighbour with the same call when all is quiet,
and with one thread alone. Run it on a quiet machine; the first line says how quiet it was.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import quadgate as qg
from command import positive
from grid import parse
from shapes import Shape

NEIGHBOURS = ("numpy", "torch", "busy")
IDLE_SECONDS = 0.0005  # before a quiet call, so that it starts with sleeping workers, as the others do


def spin(until: float) -> None:
    while time.time() < until:
        pass


@contextmanager
def busy_processes(count: int, seconds: float) -> Iterator[None]:
    """Run one busy process per core."""
    until = time.time() + seconds
    workers = [multiprocessing.Process(target=spin, args=(until,), daemon=True) for _ in range(count)]
    for worker in workers:
        worker.start()
    time.sleep(0.2)
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def times(call: Callable[[], object], before: Callable[[], object], rounds: int) -> list[float]:
    """Return the sorted seconds of `call`, each right after `before`."""
    samples = []
    for _ in range(rounds):
        before()
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    return sorted(samples)


def product(library: str, threads: int) -> Callable[[], object]:
    """Return a matrix product on a library's own pool."""
    if library == "numpy":
        a = np.ones((512, 512), np.float32)
        return lambda: a @ a
    import torch

    torch.set_num_threads(threads)
    b = torch.ones(512, 512)
    return lambda: b @ b


def calls(shape: Shape) -> dict[str, Callable[[], object]]:
    """Return the calls of a network with that T, B, I, H, with kept result arrays."""
    lstm = qg.LSTM(shape.I, shape.H, rng=0)
    x = np.random.default_rng(0).standard_normal((shape.T, shape.B, shape.I)).astype(np.float32)
    y, _, tape = lstm.forward(x)
    grads = lstm.backward(tape, y).params
    out = np.empty_like(y)
    return {
        "inference": lambda: lstm(x, out=out),
        "forward": lambda: lstm.forward(x),
        "backward": lambda: lstm.backward(tape, y, out=grads),
    }


def main(words: list[str] | None = None) -> None:
    """Measure the calls beside each neighbour and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", default="50,32,48,256", help="T,B,I,H (%(default)s)")
    parser.add_argument("--neighbours", default=",".join(NEIGHBOURS), help="some of %(default)s")
    parser.add_argument("--rounds", type=positive, default=60, help="calls per figure (%(default)s)")
    parser.add_argument("--threads", type=positive, default=2, help="(%(default)s)")
    args = parser.parse_args(words)
    neighbours = args.neighbours.split(",")
    unknown = [name for name in neighbours if name not in NEIGHBOURS]
    if unknown:
        parser.error(f"unknown neighbour {unknown[0]!r}; there are {', '.join(NEIGHBOURS)}")
    try:
        shape = parse(args.shape)
    except ValueError as error:
        parser.error(f"argument --shape: {error}")
    print(f"load {os.getloadavg()[0]:.2f}, {qg.cpu_info()['isa']}, T,B,I,H = {args.shape}, milliseconds")
    print("call        neighbour   one thread   quiet   beside   of quiet   of one thread   worst of quiet")
    for name, call in calls(shape).items():
        for neighbour in neighbours:
            time.sleep(0.3)  # the last neighbour's threads go to sleep
            quiet = {}
            for threads in (1, args.threads):
                qg.set_num_threads(threads)
                call()
                quiet[threads] = statistics.median(times(call, lambda: time.sleep(IDLE_SECONDS), args.rounds))
            one, two = quiet[1], quiet[args.threads]
            if neighbour == "busy":
                with busy_processes(os.cpu_count() or 1, 600):
                    samples = times(call, lambda: None, args.rounds)
            else:
                before = product(neighbour, args.threads)
                before()
                samples = times(call, before, args.rounds)
            beside = statistics.median(samples)
            figures = f"{1e3 * one:10.2f}  {1e3 * two:6.2f}  {1e3 * beside:7.2f}  {beside / two:9.2f}"
            print(f"{name:<11} {neighbour:<9} {figures}  {beside / one:14.2f}  {samples[-1] / two:15.2f}", flush=True)


if __name__ == "__main__":
    main()
