"""Peak rates of this machine, measured by `ceilings/ceilings.cpp`.

python bench/ceilings.py            prints the figures as JSON
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

from native import build

Ceilings = dict[str, Any]


def measure(threads: int = 2, largest_mib: int = 256) -> Ceilings:
    """Build the program if necessary, run it, and return its figures.

    Parameters
    ----------
    threads : int
        Number of threads measured in addition to one; at most the number of cores that this process may use.
    largest_mib : int
        Size of the largest array that each thread reads.

    Returns
    -------
    dict
        "isa"; "caches" with l1d, l2 and l3 in bytes (0: unknown); "gflop_per_s" by dtype and number of threads (a
        string), the sum of all threads; "read", a list with threads, bytes (of each thread) and gb_per_s (the sum of
        all threads); "round_trip_ns" between two cores (0 for one thread).
    """
    threads = max(1, min(threads, len(os.sched_getaffinity(0))))
    program = build(Path(__file__).resolve().parent / "ceilings" / "ceilings.cpp", "", ["-pthread"])
    text = subprocess.run([str(program), str(threads), str(largest_mib)], check=True, stdout=subprocess.PIPE).stdout
    result: Ceilings = json.loads(text)
    return result


def best(one: Ceilings, other: Ceilings) -> Ceilings:
    """Merge two runs: the larger of each pair of rates, the smaller of the two times.

    `other` may have read smaller arrays only. The result's "looks" are the float32 rates of all runs that were merged
    into it, by number of threads: they show what a shared machine gave at different times.
    """
    rates = {
        dtype: {n: max(rate, other["gflop_per_s"][dtype][n]) for n, rate in by_threads.items()}
        for dtype, by_threads in one["gflop_per_s"].items()
    }
    reads = {(r["threads"], r["bytes"]): r["gb_per_s"] for r in other["read"]}
    read = [{**r, "gb_per_s": max(r["gb_per_s"], reads.get((r["threads"], r["bytes"]), 0))} for r in one["read"]]
    looks = {n: looks_of(one, n) + looks_of(other, n) for n in one["gflop_per_s"]["float32"]}
    trip = min(one["round_trip_ns"], other["round_trip_ns"])
    return {**one, "gflop_per_s": rates, "read": read, "looks": looks, "round_trip_ns": trip}


def looks_of(ceilings: Ceilings, threads: str) -> list[float]:
    """Return the float32 rates of all runs that `best` has merged, in order of time."""
    looks: list[float] = ceilings.get("looks", {}).get(threads, [ceilings["gflop_per_s"]["float32"][threads]])
    return looks


def fma_peak(ceilings: Ceilings, threads: int, dtype: str = "float32") -> float:
    """Return GFLOP/s of all threads, scaled from one thread if that number of threads was not measured."""
    by_threads: dict[str, float] = ceilings["gflop_per_s"][dtype]
    return by_threads.get(str(threads), by_threads["1"] * threads)


def read_bandwidth(ceilings: Ceilings, total_bytes: float, threads: int) -> float:
    """Return GB/s of all threads that read `total_bytes` together, an equal part each, repeatedly."""
    count = threads if any(r["threads"] == threads for r in ceilings["read"]) else 1
    points = [(r["bytes"] * count, r["gb_per_s"]) for r in ceilings["read"] if r["threads"] == count]
    scale = threads / count
    total_bytes /= scale
    if total_bytes <= points[0][0]:
        return float(points[0][1] * scale)
    for (low, low_rate), (high, high_rate) in pairwise(points):
        if total_bytes <= high:
            part = math.log(total_bytes / low) / math.log(high / low)
            return float((low_rate + part * (high_rate - low_rate)) * scale)
    return float(points[-1][1] * scale)


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
