"""Networks with weights of 8 and 16 bits beside the int8 LSTMs of other programs.

    python bench/quantised.py                                 a few shapes, 1 and 2 threads
    python bench/quantised.py --shapes 10/100,1/8/32,64/H,128/256 --threads 1
    python bench/quantised.py --shapes 100,7,256,256 --rounds 31 --json out.json

A shape is T,B,I,H: steps, batch, input and hidden size. Several numbers in one place, separated by "/", stand for all
combinations; the input size H is the hidden one. Peers are onnxruntime's DynamicQuantizeLSTM (int8 weights with a scale
for each row) and oneDNN's LSTM primitive of u8 rows and s8 weights, which gets and returns bytes, so that its time is
without the conversion of x and y. Each runs in its own process and is stopped while another one is timed; rounds
alternate between them.

On x86 processors without VNNI oneDNN's sums saturate. A peer whose error is more than ten times quadgate's is shown,
but not compared with.

Beside each time stand its 10th and 90th percentile over rounds, and the largest error of y against float64. The last
column is the time of the fastest such peer over quadgate's with int8, with the percentiles of that ratio. Linux only.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from command import kept, output, positive
from measure import Result, Runner
from peers.base import Array
from peers.client import QUANTISED, Client
from report import geometric_mean, microseconds, ratio, ratio_spread
from shapes import Shape

MINE, TITLES = "quadgate_int8", ("int8", "float16", "onnxruntime int8", "oneDNN u8s8")
DEFAULT = ("100,1/4/8/16/32/64,H,256", "100,1/8/32,64,128", "100,1/8/32,H,512")


class QuantisedRunner(Runner):
    """As Runner, but an error of a Result is the largest one of y against float64, of any size."""

    @staticmethod
    def _check(client: Client, shape: Shape, path: Path, wanted: Mapping[str, Array]) -> float:
        return float(np.abs(client.setup(shape, path)["y"] - wanted["y"]).max())


def parse(text: str) -> list[Shape]:
    """Return the shapes of one argument of --shapes.

    Raises
    ------
    ValueError
        If it has not four places of positive integers.
    """
    places = [place.split("/") for place in text.split(",")]
    message = f"{text!r} is not T,B,I,H: four positive integers, or several in a place, separated by /; I may be H"
    if len(places) != 4:
        raise ValueError(message)
    shapes = []
    for steps, rows, width, hidden in itertools.product(*places):
        sizes = [steps, rows, hidden if width == "H" else width, hidden]
        if not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise ValueError(message)
        T, B, I, H = map(int, sizes)  # noqa: E741 - the project's words for them
        shape = Shape(",".join(sizes), T, B, I, H)
        if shape not in shapes:
            shapes.append(shape)
    return shapes


def best_peer(result: Result) -> str | None:
    """Return the name of the fastest other program whose error is at most ten times quadgate's."""
    most = 10 * result.errors.get(MINE, float("inf"))
    peers = (p for p in result.samples if not p.startswith("quadgate") and result.errors[p] <= most)
    return min(peers, key=result.median, default=None)


def best_ratio(result: Result) -> float | None:
    """Return the time of the fastest other program over that of quadgate's int8."""
    return ratio(result, best_peer(result), MINE)


def cells(result: Result, peers: list[str]) -> list[str]:
    """Return the texts of one row of the table."""
    row = [result.shape.label, str(result.threads)]
    for peer in peers:
        if peer not in result.samples:
            row.append("")
            continue
        low, high = (microseconds(seconds) for seconds in result.spread(peer))
        row.append(f"{microseconds(result.median(peer))} [{low}, {high}] ({result.errors[peer]:.1e})")
    best, value = best_peer(result), best_ratio(result)
    if best is None or value is None:
        return [*row, ""]
    low_ratio, high_ratio = ratio_spread(result, best, MINE)
    title = TITLES[QUANTISED.index(best)].split()[0]
    return [*row, f"{value:.2f} [{low_ratio:.2f}, {high_ratio:.2f}] ({title})"]


def table(results: list[Result]) -> str:
    """Return a Markdown table, and the geometric mean and the least of the ratios."""
    peers = [p for p in QUANTISED if any(p in r.samples for r in results)]
    heads = ["T,B,I,H", "threads", *(f"{TITLES[QUANTISED.index(p)]}, us (error)" for p in peers), "best peer / int8"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    lines += ["| " + " | ".join(cells(r, peers)) + " |" for r in results]
    ratios = [value for value in map(best_ratio, results) if value is not None]
    if ratios:
        lines += ["", f"best peer / int8: geometric mean {geometric_mean(ratios):.2f}, least {min(ratios):.2f}"]
    return "\n".join(lines)


def main(words: list[str] | None = None) -> list[Result]:
    """Measure the shapes of the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=DEFAULT, metavar="T,B,I,H")
    parser.add_argument("--threads", nargs="+", type=positive, default=[1, 2])
    parser.add_argument("--peers", nargs="+", choices=QUANTISED, default=list(QUANTISED))
    parser.add_argument("--rounds", type=positive, default=15, help="samples of each program (%(default)s)")
    parser.add_argument("--json", type=output, help="write every sample, also those before an error")
    args = parser.parse_args(words)
    try:
        shapes = [shape for text in args.shapes for shape in parse(text)]
    except ValueError as error:
        parser.error(str(error))
    if os.getloadavg()[0] > 0.5:
        print(f"The machine is busy (load average {os.getloadavg()[0]:.2f}): figures are unreliable.", file=sys.stderr)
    results: list[Result] = []
    with (
        kept(args.json, lambda: [r.as_json() for r in results]),
        QuantisedRunner(args.peers, lambda text: print(text, file=sys.stderr)) as runner,
    ):
        for shape in shapes:
            results += runner.measure(shape, args.threads, args.rounds)
            print(f"{shape.label}: " + ", ".join(f"{best_ratio(r) or 0:.2f}" for r in results[-len(args.threads) :]))
    print(table(results))
    return results


if __name__ == "__main__":
    main()
