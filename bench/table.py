"""The table of docs/benchmarks.md, written between its marks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ceilings import fma_peak
from measure import Result
from report import TITLES, Run, best_peer, floor, geometric_mean, ours, ratio

BEGIN, END = "<!-- table -->", "<!-- /table -->"
HEADINGS = {
    "stream": "streaming, `stream.step(x, out=y)`",
    "inference": "inference",
    "training": "training, forward and backward",
}


def time_text(seconds: float) -> str:
    """Return a time in microseconds or milliseconds, with two digits at least."""
    us = 1e6 * seconds
    return f"{us:.2f} us" if us < 10 else f"{us:.0f} us" if us < 1e4 else f"{us / 1000:.0f} ms"


def _cells(result: Result) -> list[str]:
    mine, best = ours(result), best_peer(result)
    if mine is None:
        return [""] * 3
    against_best, against_torch = ratio(result, best, mine), ratio(result, "torch", mine)
    return [
        time_text(result.median(mine)),
        "" if against_best is None or best is None else f"{against_best:.2f} ({TITLES[best]})",
        "" if against_torch is None else f"{against_torch:.{2 if against_torch < 2 else 1}f}",
    ]


def _means(rows: list[Result], run: Run) -> list[str]:
    """Return the cells of a line of geometric means: for each number of threads the room and the two ratios."""
    cells = []
    for n in sorted({r.threads for r in rows}):
        here = [r for r in rows if r.threads == n]
        best = [v for r in here if (v := ratio(r, best_peer(r), ours(r))) is not None]
        torch = [v for r in here if (v := ratio(r, "torch", ours(r))) is not None]
        room = [r.median(p) / floor(r, run["ceilings"]) for r in here if r.shape.batched and (p := best_peer(r))]
        note = f" (room {geometric_mean(room):.2f})" if room else ""
        cells += [note.strip(), f"**{geometric_mean(best):.2f}**", f"**{geometric_mean(torch):.1f}**"]
    return cells


def table(run: Run, results: Iterable[Result]) -> str:
    """Return the text between the marks: the conditions of the run, and the table."""
    results, head = list(results), run["header"]
    versions = [f"{TITLES[p]} {v}" for p, v in head["versions"].items() if p not in ("quadgate", "quadgate_step")]
    counts = sorted({r.threads for r in results})
    names = ["1 thread" if n == 1 else f"{n} threads" for n in counts]
    most = [(n, name) for n, name in zip(counts, names, strict=True) if n in (1, counts[-1])]
    peaks = " and ".join(f"{fma_peak(run['ceilings'], n):.0f} GFLOP/s with {name}" for n, name in most)
    lines = [
        f"{head['cpu']}, {head['cores']} virtual cores, shared; FMA peak {peaks};",
        f"{head['date'][:10]}; float32, against {', '.join(versions)}. Times are quadgate's. The other columns are",
        "the time of the best peer and of torch divided by it; 1.00 is a tie. A ratio is the quotient of two medians",
        f"over {head['rounds']} interleaved rounds, corrected for the machine's speed in each round. The last line of",
        'each part has geometric means. "Room" is the time of the best peer divided by that of the multiply-adds at',
        "the FMA peak in the batched shapes (B >= 32, H >= 256), an upper bound of the ratio for any program.",
        "",
        "| T, B, I, H | " + " | ".join(f"quadgate, {name} | best peer | torch" for name in names) + " |",
        "|---|" + "---:|" * (3 * len(counts)),
    ]
    for mode, heading in HEADINGS.items():
        rows = [r for r in results if r.shape.mode == mode and r.samples]
        if not rows:
            continue
        lines.append(f"| **{heading}** |" + "|" * (3 * len(counts)))
        for shape in dict.fromkeys(r.shape for r in rows):
            name = f"{shape.T}, {shape.B}, {shape.I}, {shape.H}"
            name += f", {shape.layers} layers" if shape.layers > 1 else ""
            name += ", both directions" if shape.directions == 2 else ""
            by_threads = {r.threads: r for r in rows if r.shape == shape}
            cells = [c for n in counts for c in (_cells(by_threads[n]) if n in by_threads else [""] * 3)]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("| **geometric mean** | " + " | ".join(_means(rows, run)) + " |")
    return "\n".join(lines)


def rewrite(path: Path, run: Run, results: Iterable[Result]) -> None:
    """Replace the text between the marks of a file by the table.

    Raises
    ------
    ValueError
        If the file has no marks.
    """
    replace_between(path, BEGIN, END, table(run, results))


def replace_between(path: Path, begin: str, end: str, new: str) -> None:
    """Replace the text between two marks of a file.

    Raises
    ------
    ValueError
        If the file has no marks.
    """
    before, after = around(path, begin, end)
    path.write_text(f"{before}{begin}\n\n{new}\n\n{end}{after}")


def around(path: Path, begin: str, end: str) -> tuple[str, str]:
    """Return the text before and after two marks of a file.

    Raises
    ------
    ValueError
        If the file has no marks.
    """
    before, found, rest = path.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{path} has no {begin} and {end}")
    return before, after
