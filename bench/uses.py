"""README.md's table and picture: ten uses, and how many times as long the others take for each on one thread."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from measure import Result
from report import Run, best_peer, ours, ratio
from table import replace_between, time_text

BEGIN, END = "<!-- uses -->", "<!-- /uses -->"
# A person's words for a shape: mode, T, B, I, H, layers.
USES: dict[str, tuple[str, int, int, int, int, int]] = {
    "control, a step of a small policy": ("stream", 1, 1, 16, 16, 1),
    "audio effect, a sample": ("stream", 1, 1, 1, 40, 1),
    "voice activity, a frame": ("stream", 1, 1, 128, 128, 1),
    "a service's step, eight callers": ("stream", 1, 8, 512, 128, 1),
    "one sequence, small network": ("inference", 100, 1, 40, 32, 1),
    "one sequence, large network": ("inference", 100, 1, 512, 512, 1),
    "tagging a batch, 2 layers, both directions": ("inference", 589, 32, 60, 128, 2),
    "training a small network, 2 layers": ("training", 72, 32, 16, 40, 2),
    "training a forecaster": ("training", 365, 256, 32, 128, 1),
    "training a large network": ("training", 25, 64, 1024, 1024, 1),
}


def rows(results: Iterable[Result]) -> dict[str, Result]:
    """Return the result of each use on one thread, in the order of the table.

    Raises
    ------
    ValueError
        If the run has not measured one of them.
    """
    found = {}
    for result in results:
        s = result.shape
        if result.threads == 1 and result.samples:
            found[s.mode, s.T, s.B, s.I, s.H, s.layers] = result
    missing = [name for name, shape in USES.items() if shape not in found]
    if missing:
        raise ValueError(f"the run has no {', '.join(missing)}: measure with --shapes all")
    return {name: found[shape] for name, shape in USES.items()}


def _ratios(result: Result) -> tuple[float | None, float | None]:
    """Return the times of torch and of the best peer, divided by ours."""
    mine = ours(result)
    return ratio(result, "torch", mine), ratio(result, best_peer(result), mine)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 3 else f"{value:.2f}"


def table(run: Run, results: Iterable[Result]) -> str:
    """Return the text between README.md's marks: the conditions of the run, and the table."""
    head = run["header"]
    lines = [
        "Time of one call on one thread, and how many times as long torch and the best of torch, onnxruntime, oneDNN",
        f"and OpenVINO take: {head['cpu']}, {head['cores']} virtual cores, {head['date'][:10]}, medians of",
        f"{head['rounds']} interleaved rounds. A value below 1 is a loss.",
        "",
        "| your case | T, B, I, H | quadgate | torch | best peer |",
        "|---|---|---:|---:|---:|",
    ]
    for name, result in rows(results).items():
        s, mine = result.shape, ours(result)
        assert mine is not None
        cells = [time_text(result.median(mine)), *(_text(value) for value in _ratios(result))]
        lines.append(f"| {name} | {s.T}, {s.B}, {s.I}, {s.H} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rewrite(path: Path, run: Run, results: Iterable[Result]) -> None:
    """Replace the table in README.md.

    Raises
    ------
    ValueError
        If the file has no marks, or the run misses a use.
    """
    replace_between(path, BEGIN, END, table(run, results))


def picture(run: Run, results: Iterable[Result], path: Path) -> None:
    """Draw the table's ratios as bars from 1; losses, on the other side of 1, in red."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    uses = rows(results)
    figure, axes = plt.subplots(figsize=(9, 4.6), layout="constrained")
    colours = {"torch": "#f0a35e", "best peer": "#3b78b5"}
    for k, result in enumerate(uses.values()):
        for place, (title, value) in enumerate(zip(colours, _ratios(result), strict=True)):
            if value is None:
                continue
            y, colour = k + 0.4 * (place - 0.5), colours[title] if value >= 1 else "#c0392b"
            axes.barh(y, value - 1, height=0.38, left=1, color=colour, label=title if k == 0 else None)
            axes.annotate(_text(value), (max(value, 1), y), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100, 200], ["1", "2", "5", "10", "20", "50", "100", "200"])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(uses)), list(uses))
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("time of the other program / time of quadgate, one thread, float32")
    axes.legend(loc="lower right", frameon=False)
    head = run["header"]
    axes.set_title(f"{head['cpu']}, {head['date'][:10]}", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
