"""The page as text: its numbers in base64, and the parts of this folder that it is made of."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ._layers import Chain, Inside

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._gradients import Gradients
    from ._layers import Seen

    Array = NDArray[Any]

FINE = 1_000_000  # numbers that have 16 bits; more have 8
MOST = 20_000_000  # numbers on a page
TINY = 1e-30  # smaller norms are shown as zeros
COLUMNS = 256  # columns of an input on the page
SCRIPTS = ("base.js", "input.js", "units.js", "spans.js", "gradients.js")
HERE = Path(__file__).parent


def check_size(chain: Chain, steps: int) -> None:
    """Raise ValueError if a sequence of so many steps makes more numbers than a page should have."""
    all_options = [layer.net._options for layer in chain.layers if isinstance(layer, Inside)]
    count = steps * sum(o.num_layers * o.directions * o.hidden_size * (1 if o.elman else 6) for o in all_options)
    if count > MOST:
        raise ValueError(
            f"x is too long for a page: {count:,} numbers of h, c and gates, at most {MOST:,}; pass a part of it"
        )


def write(title: str, labels: list[str] | None, seen: Seen, back: Gradients) -> str:
    """Return the page."""
    count = sum(value.size for state in seen.states for value in state.values.values())
    bits = 16 if count <= FINE else 8
    floor, logs = _logarithms(back)
    total = sum(each.size for each in logs.values())
    kept = [_columns(seen, at) for at in range(len(seen.inputs))]
    data = {
        "title": title,
        "version": __version__,
        "bits": bits,
        "steps": seen.inputs[0][1].shape[0],
        "labels": labels,
        "notes": seen.notes,
        "inputs": [
            {
                "name": name,
                "width": values.shape[1],
                "columns": columns.tolist(),
                "data": packed(values[:, columns].T, bits),
            }
            for (name, values), columns in zip(seen.inputs, kept, strict=True)
        ],
        "states": [
            {
                "name": state.name,
                "input": state.input,
                "signals": {name: packed(value.T, bits) for name, value in state.values.items()},
                "periods": {name: _short(periods(value)) for name, value in state.values.items()},
                "sources": state.sources.tolist(),
                "strengths": [_short(row) for row in state.strengths],
                "means": {name: _short(value.mean(axis=0)) for name, value in state.values.items() if name in "ifo"},
            }
            for state in seen.states
        ],
        "gradients": {
            "names": back.names,
            "steps": back.steps,
            "floor": floor,
            **{name: packed(each, 16 if total <= FINE else 8) for name, each in logs.items()},
        },
    }
    page = (HERE / "page.html").read_text("utf-8")
    parts = {
        "TITLE": html.escape(title),
        "STYLE": (HERE / "page.css").read_text("utf-8"),
        "DATA": as_script(data),
        "SCRIPT": "\n".join((HERE / name).read_text("utf-8") for name in SCRIPTS),
    }
    pieces = page.split("%%")  # text, name, text, name, ...: what is filled in is not searched again
    return "".join(parts[piece] if n % 2 else piece for n, piece in enumerate(pieces))


def as_script(data: Any) -> str:
    """Return JSON that may stand in a script element: no text in it can end the element."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def packed(values: Array, bits: int) -> dict[str, Any]:
    """Return numbers as unsigned integers of 8 or 16 bits between their least and largest, in base64."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    top = 2**bits - 1
    scale = top / (high - low) if high > low else 0.0
    whole = np.rint((values.astype(np.float64) - low) * scale).clip(0, top).astype("<u2" if bits == 16 else "u1")
    text = base64.b64encode(np.ascontiguousarray(whole).tobytes()).decode("ascii")
    return {"shape": list(values.shape), "low": low, "high": high, "bits": bits, "data": text}


def periods(values: Array) -> Array:
    """Return the period in steps of each column's strongest oscillation, (H,); 0 for a column that is constant."""
    steps = len(values)
    if steps < 4:
        return np.zeros(values.shape[1])
    moved = values.astype(float) - values.mean(axis=0)
    power = np.abs(np.fft.rfft(moved, axis=0)[1:]) ** 2
    period = steps / (1.0 + power.argmax(axis=0))
    return np.where(np.abs(moved).max(axis=0) > 1e-6, period, 0.0)


def _logarithms(back: Gradients) -> tuple[float, dict[str, Array]]:
    """Return common logarithms of the norms, and a bound below all of them: what is lower stands for zeros."""
    norms = {name: getattr(back, name).astype(np.float64) for name in ("x", "dh", "dc")}
    least = min((float(each[each > TINY].min()) for each in norms.values() if (each > TINY).any()), default=1.0)
    low = float(np.log10(least))
    logs = {n: np.where(each > TINY, np.log10(np.maximum(each, TINY)), low - 1) for n, each in norms.items()}
    return low - 0.5, logs


def _columns(seen: Seen, at: int) -> Array:
    """Return the columns of an input that the page has: all, or the strongest sources and those that vary most."""
    values = seen.inputs[at][1]
    width = values.shape[1]
    if width <= COLUMNS:
        return np.arange(width)
    used = [state.sources[:, 0] for state in seen.states if state.input == at]
    used = np.unique(np.concatenate(used)) if used else np.zeros(0, int)  # type: ignore[assignment]
    first = np.array([column for column in used if column < width][:COLUMNS], int)
    rest = np.setdiff1d(np.argsort(-values.std(axis=0), kind="stable"), first, assume_unique=True)
    return np.sort(np.concatenate((first, rest[: COLUMNS - len(first)])))


def _short(values: Array) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]
