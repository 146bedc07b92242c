"""Compares quadgate with its peers on this machine.

    python bench/compare.py                                  the table's shapes, 1 and 2 threads
    python bench/compare.py --shapes all --markdown out.md --plot out.png --json out.json
    python bench/compare.py --shapes 100,1,40,32 --threads 1 --peers quadgate onednn
    python bench/compare.py --read out.json --plot out.png   renders an earlier run again

Every peer runs in a process of its own, is checked against the float64 reference, and is stopped while another one is
timed. A peer that is not installed is left out, and that is said. Linux only.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from pathlib import Path

import ceilings as machine
import numpy as np
import readme
import report
from measure import Result, Runner
from peers.client import PEERS
from shapes import DEFAULT_FILE, Shape, choose


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = found.get("model name") or f"{platform.machine()} part {found.get('CPU part', 'unknown')}"
    return name + (f", model {found['model']}" if "model" in found else "")


def run(
    shapes: list[Shape], threads: list[int], peers: list[str], rounds: int, quick: bool
) -> tuple[report.Run, list[Result]]:
    """Measure everything and return the report's head and the results."""
    load = [os.getloadavg()[0]]
    if load[0] > 0.5:
        print(f"The machine is busy (load average {load[0]:.2f}): expect figures of little worth.", file=sys.stderr)
    largest = 32 if quick else 256
    figures = machine.measure(max(threads), largest)
    results: list[Result] = []
    with Runner(peers, lambda text: print(text, file=sys.stderr)) as runner:
        for k, shape in enumerate(shapes):
            begin = time.perf_counter()
            for result in runner.measure(shape, threads, rounds):
                results.append(result)
                times = "  ".join(f"{peer} {1e6 * result.median(peer):.4g}" for peer in result.samples)
                print(f"[{k + 1}/{len(shapes)}] {shape.mode} {shape.label}, {result.threads} threads: {times} us")
            print(f"    {time.perf_counter() - begin:.1f} s", flush=True)
        versions = dict(runner.versions)
    figures = machine.best(figures, machine.measure(max(threads), largest))
    load.append(os.getloadavg()[0])
    header = {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "load": load,
        "versions": versions,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rounds": rounds,
    }
    return {"header": header, "ceilings": figures}, results


def read(path: Path) -> tuple[report.Run, list[Result]]:
    """Read what an earlier run wrote with --json."""
    content = json.loads(path.read_text())
    results = [Result(Shape(**r["shape"]), r["threads"], r["samples"], r["errors"]) for r in content.pop("results")]
    return content, results


def main() -> None:
    """Read the command line, measure, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--shapes", nargs="+", default=["table"], help='"table", "all", names, parts of names, or T,B,I,H')
    add("--shapes-file", type=Path, default=DEFAULT_FILE, help="more shapes (JSON)")
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    add("--rounds", type=int, default=15, help="samples of each peer, shape and number of threads")
    add("--quick", action="store_true", help="read arrays of at most 32 MiB when measuring the machine")
    add("--read", type=Path, help="measure nothing, render this earlier --json")
    add("--json", type=Path, help="write every sample")
    add("--markdown", type=Path, help="write the report here rather than to standard output")
    add("--plot", type=Path, help="write a PNG")
    add("--readme", type=Path, help="rewrite the table in this file")
    args = parser.parse_args()
    if args.read is not None:
        content, results = read(args.read)
    else:
        try:
            shapes = choose(args.shapes, args.shapes_file)
        except ValueError as error:
            parser.error(str(error))
        content, results = run(shapes, args.threads, args.peers, args.rounds, args.quick)
    if args.json is not None:
        args.json.write_text(json.dumps({**content, "results": [r.as_json() for r in results]}, indent=1) + "\n")
    text = report.markdown(content, results)
    if args.markdown is not None:
        args.markdown.write_text(text)
    else:
        print(text)
    if args.readme is not None:
        readme.rewrite(args.readme, content, results)
    if args.plot is not None:
        report.plot(content, results, args.plot)


if __name__ == "__main__":
    main()
