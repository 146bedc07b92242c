"""Comparison of quadgate with its peers on this machine.

    python bench/compare.py                                   the table's shapes, 1 and 2 threads
    python bench/compare.py --shapes 200,16,12,96             one shape T,B,I,H (steps, batch, input, hidden size)
    python bench/compare.py --shapes 200,16,12,96 --mode inference training --layers 2 --directions 2 --threads 1
    python bench/compare.py --shapes 1,8,64,128 --mode stream --peers quadgate quadgate_step torch
    python bench/compare.py --shapes all --markdown out.md --plot out.png --json out.json
    python bench/compare.py --grid 40 --seed 7 --json b.json --earlier a.json
    python bench/compare.py --read out.json --plot out.png    renders an earlier run again

Every peer runs in its own process, is checked against the float64 reference, and is stopped while another one is timed.
Peers that are not installed are skipped with a message. Beside each figure stand its 10th and 90th percentile over
rounds. The report ends with the shapes whose ratio to the best peer is below 1.00. Linux only.
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
import grid
import numpy as np
import report
import table
import uses
from command import kept, output, positive
from measure import Result, Runner
from peers.client import PEERS
from shapes import DEFAULT_FILE, MODES, Shape, choose

LOOK_EVERY = 4  # shapes, between looks at the machine: a host may have both of its cores on one for seconds


def cpu_model() -> str:
    """Return the name of the processor as the system reports it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = found.get("model name") or f"{platform.machine()} part {found.get('CPU part', 'unknown')}"
    return name + (f", model {found['model']}" if "model" in found else "")


def run(args: argparse.Namespace, shapes: list[Shape]) -> tuple[report.Run, list[Result]]:
    """Measure all shapes; return the report's head and the results.

    Whatever ends the run, the file of --json gets the samples of all shapes that were measured until then.
    """
    load = [os.getloadavg()[0]]
    if load[0] > 0.5:
        print(f"The machine is busy (load average {load[0]:.2f}): figures are unreliable.", file=sys.stderr)
    largest = 32 if args.quick else 256
    results: list[Result] = []
    header = {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "load": load,
        "versions": {},
        "python": platform.python_version(),
        "numpy": np.__version__,
        "rounds": args.rounds,
        "shapes": f"grid of {args.grid}, seed {args.seed}" if args.grid else ", ".join(args.shapes),
    }
    content = {"header": header, "ceilings": machine.measure(max(args.threads), largest)}
    with kept(args.json, lambda: as_json(content, results)):
        with Runner(args.peers, lambda text: print(text, file=sys.stderr)) as runner:
            header["versions"] = runner.versions  # filled in as the peers start
            for k, shape in enumerate(shapes):
                begin = time.perf_counter()
                measured = runner.measure(shape, args.threads, args.rounds)
                results += measured
                load[1:] = [os.getloadavg()[0]]  # at the end, if no other shape follows
                print(f"[{k + 1}/{len(shapes)}] {time.perf_counter() - begin:.1f} s")
                print("\n".join(line for result in measured for line in report.progress(result)), flush=True)
                if k % LOOK_EVERY == LOOK_EVERY - 1:
                    content["ceilings"] = machine.best(content["ceilings"], machine.measure(max(args.threads), 1))
        content["ceilings"] = machine.best(content["ceilings"], machine.measure(max(args.threads), largest))
    return content, results


def as_json(content: report.Run, results: list[Result]) -> report.Run:
    """Return the content of the file of --json, empty without results."""
    return {**content, "results": [r.as_json() for r in results]} if results else {}


def read(path: Path) -> tuple[report.Run, list[Result]]:
    """Read the results of an earlier run, from the file of --json."""
    content = json.loads(path.read_text())
    results = [Result(Shape(**r["shape"]), r["threads"], r["samples"], r["errors"]) for r in content.pop("results")]
    return content, results


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--shapes", nargs="+", default=[], metavar="SHAPE", help='T,B,I,H, "table" (default), "all", or parts of names')
    add("--mode", nargs="+", choices=MODES, default=["inference"], help="modes of the shapes given as T,B,I,H")
    add("--layers", type=int, default=1, help="number of layers of these shapes, and of a grid's")
    add(
        "--directions",
        type=int,
        choices=(1, 2),
        default=1,
        help="number of directions of these shapes, and of a grid's",
    )
    add("--grid", type=int, default=0, metavar="N", help="draw N shapes of at most 5 GFLOP, half of them training")
    add("--seed", type=int, default=0, help="seed of --grid: the same seed draws the same shapes")
    add("--shapes-file", type=Path, default=DEFAULT_FILE, help="list of named shapes (JSON)")
    add("--threads", nargs="+", type=positive, default=[1, 2])
    add("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    add("--rounds", type=positive, default=15, help="samples of each peer, shape and number of threads")
    add("--quick", action="store_true", help="read arrays of at most 32 MiB when measuring the machine")
    add("--read", type=Path, help="measure nothing, render this earlier --json")
    add("--earlier", type=Path, help="list only the shapes below 1.00 in this earlier --json, too")
    add("--json", type=output, help="write every sample, also those before an error")
    add("--markdown", type=output, help="write the report to this file instead of standard output")
    add("--plot", type=output, help="write a PNG")
    add("--table", type=output, help="rewrite the table in this file (docs/benchmarks.md)")
    add("--uses", type=output, help="rewrite the table of uses in this file (README.md); needs --shapes all")
    add("--picture", type=output, help="write a PNG of the table of uses")
    return parser


def selected(args: argparse.Namespace) -> list[Shape]:
    """Return the shapes that the command line selects.

    Raises
    ------
    ValueError
        If a name is unknown, sizes are not valid, or the grid has fewer shapes.
    """
    names = args.shapes or ([] if args.grid else ["table"])
    result: list[Shape] = []
    for name in names:
        if grid.is_sizes(name):
            found = [grid.parse(name, mode, args.layers, args.directions) for mode in args.mode]
        else:
            found = choose([name], args.shapes_file)
        result += [shape for shape in found if shape not in result]
    return result + [
        shape for shape in grid.draw(args.grid, args.seed, args.layers, args.directions) if shape not in result
    ]


def main(words: list[str] | None = None) -> None:
    """Measure the selected shapes, and write the requested files."""
    parser = arguments()
    args = parser.parse_args(words)
    try:  # before the first measurement
        earlier = read(args.earlier)[1] if args.earlier else None
        shapes = selected(args) if args.read is None else []
        if args.table is not None:
            table.around(args.table, table.BEGIN, table.END)
        if args.uses is not None:
            table.around(args.uses, uses.BEGIN, uses.END)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if args.read is None:
        content, results = run(args, shapes)
    else:
        content, results = read(args.read)
        with kept(args.json, lambda: as_json(content, results)):
            pass
    text = report.markdown(content, results, earlier)
    if args.markdown is not None:
        args.markdown.write_text(text)
    else:
        print(text)
    if args.table is not None:
        table.rewrite(args.table, content, results)
    if args.uses is not None:
        uses.rewrite(args.uses, content, results)
    if args.picture is not None:
        uses.picture(content, results, args.picture)
    if args.plot is not None:
        report.plot(content, results, args.plot)


if __name__ == "__main__":
    main()
