"""Markdown tables and a plot of the results of compare.py."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ceilings import fma_peak, looks_of, read_bandwidth
from measure import Result, percentiles
from peers.client import OURS
from shapes import MODES

TITLES = {
    "quadgate": "quadgate",
    "quadgate_step": "stream.step",
    "torch": "torch",
    "onnxruntime": "onnxruntime",
    "onednn": "oneDNN",
    "openvino": "OpenVINO",
}
ABOUT = {
    "inference": "Inference: a whole sequence in one call, from a zero state, which quadgate does not multiply.",
    "training": "Training step: forward, and backward from a given dy to the gradients of x and of all parameters.",
    "stream": "Stream: one step with carried state, by `stream.step(x, out=y)` and by `lstm(x, state)`.",
}
Run = dict[str, Any]


def ours(result: Result) -> str | None:
    """Return the name of quadgate's call in the ratios: `stream.step` for a stream, otherwise `lstm`."""
    return next((name for name in reversed(OURS) if name in result.samples), None)


def best_peer(result: Result) -> str | None:
    """Return the name of the fastest other program."""
    return min((name for name in result.samples if name not in OURS), key=result.median, default=None)


def ratio(result: Result, other: str | None, mine: str | None) -> float | None:
    """Return the quotient of two medians, above 1 if `mine` is faster; None if one of them was not measured."""
    if other not in result.samples or mine not in result.samples:
        return None
    return result.median(other) / result.median(mine)


def ratio_spread(result: Result, other: str, mine: str) -> tuple[float, float]:
    """Return the 10th and 90th percentile over rounds of the quotient of the two samples of a round."""
    pairs = zip(result.samples[other], result.samples[mine], strict=True)
    return percentiles([theirs / our for theirs, our in pairs])


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def _time(result: Result, peer: str) -> str:
    if peer not in result.samples:
        return ""
    low, high = result.spread(peer)
    return f"{microseconds(result.median(peer))} [{microseconds(low)}, {microseconds(high)}]"


def microseconds(seconds: float) -> str:
    """Return the text of a time with at least three significant digits."""
    us = 1e6 * seconds
    return f"{us:.{3 if us < 1 else 2 if us < 10 else 1 if us < 1000 else 0}f}"


def _ratio(result: Result, other: str | None, mine: str | None) -> str:
    value = ratio(result, other, mine)
    if value is None or other is None or mine is None:
        return ""
    low, high = ratio_spread(result, other, mine)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def gflop_per_s(result: Result) -> float | None:
    """Return the rate of quadgate's call, or of the best peer if quadgate was not measured."""
    who = ours(result) or best_peer(result)
    return None if who is None else 1e-9 * result.shape.flops / result.median(who)


def _threads(n: int) -> str:
    return f"{n} thread{'s' if n > 1 else ''}"


def bandwidth_share(result: Result, ceilings: Run) -> float | None:
    """Return, for batch 1, the bandwidth of the reads of weights as a fraction of the read bandwidth."""
    shape, who = result.shape, ours(result) or best_peer(result)
    if shape.B != 1 or shape.mode == "training" or who is None:
        return None
    held = shape.weight_reads if shape.T == 1 else 4 * shape.recurrent_weights
    return 1e-9 * shape.weight_reads / result.median(who) / read_bandwidth(ceilings, held, result.threads)


def floor(result: Result, ceilings: Run) -> float:
    """Return a lower bound in seconds for any program: its multiply-adds at the FMA peak, or its reads of weights.

    With many steps, the input product can cover all of them at once; only the recurrent product must read its weights
    in every step but a first one without a state. Latencies, activations and the overhead of a call are not included.
    """
    s, peak = result.shape, 1e9 * fma_peak(ceilings, result.threads)

    def seconds(flops: float, held: float) -> float:
        return max(flops / peak, 1e-9 * held / read_bandwidth(ceilings, held, result.threads))

    if s.T == 1:
        return seconds(s.flops, 4 * s.weights if s.mode == "training" else s.weight_reads)
    steps = s.recurrent_steps + (s.T if s.mode == "training" else 0)  # forward, and backward
    states = s.layers * s.directions
    recurrent = steps * states * seconds(2 * s.B * s.recurrent_weights / states, 4 * s.recurrent_weights / states)
    return recurrent + (s.flops - 2 * steps * s.B * s.recurrent_weights) / peak


def _table(rows: list[Result], ceilings: Run) -> list[str]:
    peers = [p for p in TITLES if any(p in r.samples for r in rows)]
    mine = [p for p in peers if p in OURS]
    heads = ["T,B,I,H", "threads", *(TITLES[p] for p in peers)]
    heads += [f"best peer / {TITLES[p]}" for p in mine] + [f"torch / {TITLES[p]}" for p in mine[-1:]]
    heads += ["best peer / floor", "GFLOP/s", "% of FMA peak", "% of read bandwidth"]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for r in rows:
        plain = r.shape.listed or r.shape.name == r.shape.label
        name = r.shape.label if plain else f"{r.shape.label} ({r.shape.name.removesuffix('/stream')})"
        rate, share = gflop_per_s(r), bandwidth_share(r, ceilings)
        peak = None if rate is None or not r.shape.batched else 100 * rate / fma_peak(ceilings, r.threads)
        cells = [name, str(r.threads), *(_time(r, p) for p in peers)]
        cells += [_ratio(r, best_peer(r), p) for p in mine]
        cells += [_ratio(r, "torch", p) for p in mine[-1:]]
        best = best_peer(r)
        cells += [_number(None if best is None else r.median(best) / floor(r, ceilings))]
        cells += [_number(rate, 1), _number(peak, 0), _number(None if share is None else 100 * share, 0)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _means(rows: list[Result], ceilings: Run) -> list[str]:
    lines = []
    for n in sorted({r.threads for r in rows}):
        here = [(r, ratio(r, best_peer(r), ours(r)), ratio(r, "torch", ours(r))) for r in rows if r.threads == n]
        best = [b for _, b, _ in here if b is not None]
        if not best:
            continue
        torch = [t for _, _, t in here if t is not None]
        slower = sum(b < 1 for b in best)
        line = f"{_threads(n)}: geometric mean of best peer / quadgate {geometric_mean(best):.2f}"
        line += f" (least {min(best):.2f})" + (f", of torch / quadgate {geometric_mean(torch):.2f}" if torch else "")
        line += f", over {len(best)} shapes; below 1.00: {slower or 'none'}."
        room = [r.median(p) / floor(r, ceilings) for r, _, _ in here if r.shape.batched and (p := best_peer(r))]
        if room:
            line += f" Batched, the best peer is {geometric_mean(room):.2f} of the floor."
        lines.append("- " + line)
    speedups = {}
    for r in rows:
        who = ours(r)
        if who is not None and r.shape.batched:
            speedups[r.shape.label, r.threads] = r.median(who)
    pairs = [f"{k[0]}: {t / speedups[k[0], 2]:.2f}" for k, t in speedups.items() if k[1] == 1 and (k[0], 2) in speedups]
    if pairs:
        lines.append(f"- Two threads against one, batched: {'; '.join(pairs)}.")
    return lines


def losses(results: Iterable[Result]) -> list[tuple[Result, str, float]]:
    """Return the results in which the best peer is faster than quadgate, its name, and the ratio, least first."""
    found = [(r, peer, ratio(r, peer, ours(r))) for r in results if r.samples and (peer := best_peer(r)) is not None]
    below = [(r, peer, value) for r, peer, value in found if value is not None and value < 1]
    return sorted(below, key=lambda item: item[2])


def below_one(results: Sequence[Result], earlier: Iterable[Result] | None = None) -> list[str]:
    """Return the lines that list the shapes below 1.00; with an earlier run, those that were below 1.00 there, too."""
    lost = losses(results)
    if earlier is not None:
        before = {(r.shape.mode, r.shape.label, r.threads): value for r, _, value in losses(earlier)}
        lost = [item for item in lost if (item[0].shape.mode, item[0].shape.label, item[0].threads) in before]
    lines = [f"**Below 1.00{' in both runs' if earlier is not None else ''}: {len(lost)} of {len(results)}**", ""]
    for r, peer, _ in lost:
        line = f"- {r.shape.mode} {r.shape.label}, {_threads(r.threads)}: "
        lines.append(line + f"{_ratio(r, peer, ours(r))} against {TITLES[peer]}")
    return lines if lost else lines[:1]


def progress(result: Result) -> list[str]:
    """Return the lines that show one result on a terminal: a program each, with its time and ratio."""
    mine = ours(result)
    lines = [f"{result.shape.mode} {result.shape.label}, {_threads(result.threads)}"]
    for peer in result.samples:
        line = f"    {TITLES[peer]:12} {_time(result, peer):>26} us"
        lines.append(line + (f"   ratio {_ratio(result, peer, mine)}" if mine not in (peer, None) else ""))
    return lines


def _looks(ceilings: Run, threads: str) -> str:
    rates = looks_of(ceilings, threads)
    return f" (at the least {min(rates):.0f} in {len(rates)} looks)" if len(rates) > 1 else ""


def markdown(run: Run, results: Iterable[Result], earlier: Iterable[Result] | None = None) -> str:
    """Return the whole report; `earlier` has the results of an earlier run of the same shapes."""
    results, ceilings, head = [r for r in results if r.samples], run["ceilings"], run["header"]
    versions = ", ".join(f"{TITLES[p]} {v}" for p, v in head["versions"].items() if p != "quadgate_step")
    flops = ceilings["gflop_per_s"]["float32"]
    caches = ceilings["caches"]
    lines = [
        f"{head['cpu']}, {head['cores']} cores, {head['date']}; load average {head['load'][0]:.2f} at the start and "
        f"{head['load'][1]:.2f} at the end. {versions}; Python {head['python']}, NumPy {head['numpy']}.",
        "",
        f"Measured in the same run ({ceilings['isa']}): FMA peak "
        + ", ".join(f"{rate:.0f} GFLOP/s on {_threads(int(n))}{_looks(ceilings, n)}" for n, rate in flops.items())
        + ", float32; read bandwidth on one thread "
        + ", ".join(f"{read_bandwidth(ceilings, caches[c] / 2, 1):.0f} GB/s from {c.upper()}" for c in ("l1d", "l2"))
        + f", {read_bandwidth(ceilings, 8 * max(caches['l2'], 1 << 20), 1):.0f} GB/s beyond; "
        f"one round trip between two cores {ceilings['round_trip_ns']:.0f} ns.",
        "",
        f"Times are microseconds of one call in float32: the median and, in brackets, the 10th and 90th percentile of "
        f"{head['rounds']} interleaved rounds, each divided by the relative slowness of the machine in that round (the "
        "median over all programs of sample / median). Every peer runs in its own process, and its outputs are checked "
        "against the float64 reference. A ratio is the quotient of the two medians beside it; its brackets are the "
        "percentiles of each round's quotient. Above 1, quadgate is faster. The floor is the time of the "
        "multiply-adds at the FMA peak, or of the reads of weights at the read bandwidth: a program that did nothing "
        "else would be faster than the best peer by that ratio.",
    ]
    if head.get("shapes"):
        lines += ["", f"Shapes: {head['shapes']}."]
    for mode in MODES:
        rows = [r for r in results if r.shape.mode == mode and r.samples]
        if rows:
            lines += ["", f"**{ABOUT[mode]}**", "", *_table(rows, ceilings)]
            lines += ["", *means] if (means := _means(rows, ceilings)) else []
    if any(ours(r) and best_peer(r) for r in results):
        lines += ["", *below_one(results, earlier)]
    return "\n".join(lines).rstrip() + "\n"


def _plot_times(axes: Any, rows: list[Result], title: str) -> None:
    axes.set_title(title)
    for k, (peer, name) in enumerate(TITLES.items()):
        points = sorted((r.shape.flops, 1e6 * r.median(peer)) for r in rows if peer in r.samples)
        if points:
            mine = peer in OURS
            style = {"marker": "o" if mine else "x", "markersize": 5, "zorder": 3 if mine else 2, "color": f"C{k}"}
            axes.loglog(*zip(*points, strict=True), linestyle="none", label=name, **style)
    axes.set_xlabel("floating-point operations of the matrix products")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize=8)


def _plot_ratios(axes: Any, rows: list[Result]) -> None:
    counts = sorted({r.threads for r in rows})
    shapes = sorted({r.shape for r in rows}, key=lambda s: (s.flops, s.mode))
    lowest, highest = 1.0, 1.0
    for k, n in enumerate(counts):
        by_shape = {r.shape: ratio(r, best_peer(r), ours(r)) for r in rows if r.threads == n}
        found = [(i, value) for i, s in enumerate(shapes) if (value := by_shape.get(s)) is not None]
        if not found:
            continue
        places = [i + (k - (len(counts) - 1) / 2) * 0.8 / len(counts) for i, _ in found]
        values = [value for _, value in found]
        heights = [value - 1 for value in values]
        axes.bar(places, heights, 0.8 / len(counts), bottom=1, label=_threads(n))
        lowest, highest = min(lowest, *values), max(highest, *values)
    axes.set_yscale("log", base=2)
    axes.set_ylim(lowest / 1.15, highest * 1.15)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axhline(1, color="black", linewidth=1)
    labels = [s.label + (" stream" if s.mode == "stream" else "") for s in shapes]
    axes.set_xticks(range(len(shapes)), labels, rotation=90, fontsize=7)
    axes.set_xlabel("T,B,I,H")
    axes.grid(True, axis="y", alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def plot(run: Run, results: Iterable[Result], path: Path) -> None:
    """Draw times over work, for the smallest number of threads, and below them the ratios to the best peer."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = [r for r in results if r.samples]
    groups = {"inference and streams": ("inference", "stream"), "training step": ("training",)}
    sides = {title: [r for r in results if r.shape.mode in modes] for title, modes in groups.items()}
    sides = {title: rows for title, rows in sides.items() if rows}
    widths = [max(8, len({r.shape for r in rows})) for rows in sides.values()]
    size = (min(18, 2 + 0.45 * sum(widths)), 9)
    figure, grid = plt.subplots(2, len(sides), figsize=size, width_ratios=widths, squeeze=False, layout="constrained")
    least = min(r.threads for r in results)
    for column, (title, rows) in enumerate(sides.items()):
        shown = [r for r in rows if r.threads == least]
        _plot_times(grid[0, column], shown, f"{title}, {_threads(least)}")
        _plot_ratios(grid[1, column], rows)
    grid[0, 0].set_ylabel("microseconds of one call")
    grid[1, 0].set_ylabel("best peer's time / quadgate's")
    figure.suptitle(
        f"quadgate and its peers, float32: {run['header']['cpu']}, {run['header']['date'][:10]}", fontsize=11
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
