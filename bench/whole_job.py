"""Whole training steps of quadgate.train beside PyTorch: embedding, LSTM, output layer, loss, clipping, Adam.

    python bench/whole_job.py [--jobs readme tagger forecast audio ptb] [--threads 1 2] [--rounds 15] [--no-compile]

Each program runs in a process of its own, with the same weights and batches; the losses of the first steps must agree.
Samples alternate, the order changes from round to round, and ratios are medians of those within a round, of the faster
PyTorch (eager with fused Adam, or torch.compile) to quadgate. The floor is the time of the step's products at the rate
of a large product in PyTorch, by MKL. At the end 1,000 letters are generated one by one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from command import kept, output, positive
from jobs import JOBS, PROGRAMS

LISTED = ["readme", "tagger", "forecast", "audio", "ptb"]
STEPS = 5  # whose losses are compared
RELATIVE = 1e-3  # float32, after five steps


class Worker:
    """A process that trains one program's models."""

    def __init__(self, program: str, threads: int) -> None:
        self.program = program
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "QUADGATE_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        env = os.environ | dict.fromkeys(names, str(threads))
        script = str(Path(__file__).with_name("jobs.py"))
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
        self._process = subprocess.Popen([sys.executable, script, program, str(threads)], **pipes)

    def __call__(self, **command: Any) -> Any:
        """Send a command and return its result. Raises RuntimeError for the worker's errors."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        reply = json.loads(self._process.stdout.readline() or '{"error": "the process ended"}')
        if "error" in reply:
            raise RuntimeError(f"{self.program}: {reply['error']}")
        return reply["result"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def check_losses(losses: dict[str, list[float]]) -> float:
    """Return the largest relative difference to quadgate's losses; raise RuntimeError if that is too large."""
    mine = losses["quadgate"]
    worst = max(abs(a - b) / abs(b) for other in losses.values() for a, b in zip(other, mine, strict=True))
    if not worst <= RELATIVE:
        raise RuntimeError(f"the losses differ by {worst:.1e}: {losses}")
    return worst


def paired(times: dict[str, list[float]]) -> float:
    """Return how often as fast quadgate is as the faster PyTorch: the median of the ratios within rounds."""
    others = [name for name in times if name != "quadgate"]
    best = min(others, key=lambda name: statistics.median(times[name]))
    return statistics.median(a / b for a, b in zip(times[best], times["quadgate"], strict=True))


def measure(name: str, workers: dict[str, Worker], rounds: int, seconds: float) -> dict[str, Any]:
    """Return the times of one job's steps, ratios and the floor."""
    losses: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for program, worker in workers.items():
        try:
            worker(do="make", job=name)
            losses[program] = worker(do="losses", count=STEPS)
        except RuntimeError as error:
            if program != "torch.compile":
                raise
            failed[program] = str(error)
    difference = check_losses(losses)
    times: dict[str, list[float]] = {program: [] for program in losses}
    for k in range(rounds):
        order = list(losses)
        for program in order[k % len(order) :] + order[: k % len(order)]:
            times[program].append(statistics.median(workers[program](do="time", seconds=seconds)))
    return {
        "job": name,
        "ms": {program: 1e3 * statistics.median(values) for program, values in times.items()},
        "ratio": paired(times),
        "floor_ms": 1e3 * JOBS[name].multiply_adds / workers["torch"](do="sgemm"),
        "difference": difference,
        "failed": failed,
    }


def generation(name: str, workers: dict[str, Worker], rounds: int, count: int) -> dict[str, Any]:
    """Return the times of generating letters one by one, after a comparison of the likeliest ones."""
    two = {program: workers[program] for program in ("quadgate", "torch")}
    for worker in two.values():
        worker(do="make", job=name)
    greedy = [worker(do="generate", start=[0, 1, 2], count=50, temperature=0.0) for worker in two.values()]
    if greedy[0] != greedy[1]:
        raise RuntimeError(f"the likeliest letters differ: {greedy}")
    times: dict[str, list[float]] = {program: [] for program in two}
    for _ in range(rounds):
        for program, worker in two.items():
            times[program].append(worker(do="time_generate", count=count))
    ms = {program: 1e3 * statistics.median(values) for program, values in times.items()}
    return {"job": "generate", "ms": ms, "ratio": paired(times), "letters": count}


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as a table of Markdown."""
    lines = [
        "| job | threads | quadgate | torch | torch.compile | ratio | floor |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for r in results:
        cells = [f"{r['ms'][p]:.1f} ms" if p in r["ms"] else "-" for p in PROGRAMS]
        floor = f"{r['floor_ms']:.1f} ms" if "floor_ms" in r else "-"
        lines.append(f"| {r['job']} | {r['threads']} | {' | '.join(cells)} | {r['ratio']:.2f} | {floor} |")
    ratios = [r["ratio"] for r in results if r["job"] != "generate"]
    if ratios:
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        lines += ["", f"geometric mean of {len(ratios)} ratios of training steps: {mean:.2f}"]
    lines += [f"{r['job']}, {r['threads']} threads: {text}" for r in results for text in r.get("failed", {}).values()]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure all jobs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="*", choices=list(JOBS), default=LISTED)
    parser.add_argument("--threads", nargs="+", type=positive, default=[1, 2])
    parser.add_argument("--rounds", type=positive, default=15)
    parser.add_argument("--seconds", type=float, default=0.3, help="of one sample, at least one step (%(default)s)")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--letters", type=int, default=1000, help="to generate one by one; 0 for none (%(default)s)")
    parser.add_argument("--generate", choices=list(JOBS), default="readme", help="job that writes the letters")
    parser.add_argument("--json", type=output)
    args = parser.parse_args(arguments)
    programs = [program for program in PROGRAMS if program != "torch.compile" or not args.no_compile]
    results: list[dict[str, Any]] = []
    with kept(args.json, lambda: results):
        for threads in args.threads:
            workers = {program: Worker(program, threads) for program in programs}
            try:
                for job in args.jobs:
                    results.append({**measure(job, workers, args.rounds, args.seconds), "threads": threads})
                if args.letters:
                    written = generation(args.generate, workers, args.rounds, args.letters)
                    results.append({**written, "threads": threads})
            finally:
                for worker in workers.values():
                    worker.close()
    print(table(results))
    return results


if __name__ == "__main__":
    main()
