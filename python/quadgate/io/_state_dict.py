"""Networks among arrays with PyTorch's names: nn.LSTM, nn.LSTMCell and nn.RNN, also with reparametrized weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._found import Found

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_KINDS = "weight_ih|weight_hh|weight_hr|bias_ih|bias_hh|bias|peephole|norm_ih|norm_hh|norm_c"
_NAME = re.compile(rf"^(?P<prefix>(?:.*\.)?)(?P<kind>{_KINDS})(?P<layer>_l(?P<k>\d+))?(?P<reverse>_reverse)?$")
_WEIGHT = r"(?P<base>(?:.*\.)?)(?P<weight>(?:weight|bias)_[a-z]+(?:_l\d+)?(?:_reverse)?)"
_PARAMETRIZED = re.compile(r"^(?P<base>(?:.*\.)?)parametrizations\.(?P<weight>[^.]+)\.(?P<rest>.+)$")
_SUFFIXED = re.compile(rf"^{_WEIGHT}_(?P<rest>g|v|raw|orig|mask|u)$")
_PADDLE = re.compile(r"^(?P<base>(?:.*\.)?)\d+\.cell(?:_fw|_bw)?\.$")  # its cells, listed a second time
GATES = {4: "LSTM", 3: "GRU", 1: "RNN"}


def networks(arrays: Mapping[str, Any], source: str = "the arrays") -> list[Found]:
    """Return every network whose weights have PyTorch's names, in the order in which they appear."""
    whole, notes, broken = reparametrized(arrays)
    groups: dict[str, dict[tuple[str, int, bool], str]] = {}
    cells: set[str] = set()
    for name in whole:
        match = _NAME.match(name)
        if match is None or (match["layer"] is None and (match["kind"] == "bias" or match["reverse"])):
            continue
        groups.setdefault(match["prefix"], {})[match["kind"], int(match["k"] or 0), bool(match["reverse"])] = name
        if match["layer"] is None:
            cells.add(match["prefix"])
    problems: dict[str, str] = {}
    for name, text in broken.items():
        match = _NAME.match(name)
        if match is not None:
            problems.setdefault(match["prefix"], text)
            groups.setdefault(match["prefix"], {})
    result = []
    for prefix, names in groups.items():
        again = _PADDLE.match(prefix)
        if again is not None and ("weight_hh", 0, False) in groups.get(again["base"], {}):
            continue
        problem = problems.get(prefix)
        if problem is not None:
            result.append(Found("LSTM", prefix.rstrip("."), 0, 0, source=source, problem=problem))
            continue
        if ("weight_hh", 0, False) not in names or ("weight_ih", 0, False) not in names:
            continue
        more = [note for name, note in notes.items() if name in names.values()]
        result.append(_one(prefix, names, whole, tuple(more), source))
    return result


def _one(
    prefix: str,
    names: dict[tuple[str, int, bool], str],
    arrays: Mapping[str, Any],
    notes: tuple[str, ...],
    source: str,
) -> Found:
    """Return the network of one prefix, with a problem where its arrays do not fit together."""
    problem: str | None = None
    layers = 1 + max(k for _, k, _ in names)
    directions = 1 + any(reverse for *_, reverse in names)
    ih, hh = arrays[names["weight_ih", 0, False]], arrays[names["weight_hh", 0, False]]
    label = prefix.rstrip(".")
    if ih.ndim != 2 or hh.ndim != 2 or 0 in ih.shape or 0 in hh.shape:
        problem = problem or f"weight_ih and weight_hh must be matrices, found {ih.shape} and {hh.shape}"
        return Found("LSTM", label, 0, 0, source=source, notes=notes, problem=problem)
    projection = arrays.get(names.get(("weight_hr", 0, False), ""))
    hidden = projection.shape[-1] if projection is not None and projection.ndim == 2 else hh.shape[1]
    gates, rest = divmod(ih.shape[0], hidden)
    kind = "LSTM" if rest or gates not in GATES else GATES[gates]
    if rest or gates not in GATES:
        problem = problem or (
            f"weight_ih has shape {ih.shape} and weight_hh {hh.shape}: an LSTM has 4 * H = {4 * hidden} rows"
        )
    params: dict[str, Array] = {}
    for (what, k, reverse), name in names.items():
        value = arrays[name]
        suffix = f"_l{k}" + "_reverse" * reverse
        if value.dtype.kind in "iub" and problem is None:
            problem = f"{name} holds {value.dtype}: quantised weights cannot be loaded"
        params[what + suffix] = value
    if kind == "GRU":
        problem = problem or "a GRU, which quadgate does not have"
    asks = {"nonlinearity": 'an RNN\'s weights do not tell "tanh" from "relu"'} if kind == "RNN" else {}
    if any(what.startswith("norm_") for what, *_ in names):
        asks["layer_norm"] = "the arrays do not tell its two kinds apart"
    sizes = (ih.shape[1], hidden, layers, directions)
    return Found(kind, label, *sizes, {}, notes, asks, problem, source, params)


def reparametrized(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """Return the arrays with weights computed where only their parts are kept.

    Known are weight_norm (old ``_g`` and ``_v``, new ``parametrizations``), pruning (``_orig`` and ``_mask``) and
    weight-drop (``_raw``). Also returned are notes, and problems of what cannot be undone, each by the weight's name.
    """
    result = dict(arrays)
    parts: dict[str, dict[str, str]] = {}
    for name in arrays:
        match = _PARAMETRIZED.match(name) or _SUFFIXED.match(name)
        if match is not None:
            parts.setdefault(match["base"] + match["weight"], {})[match["rest"]] = name
    notes, broken = {}, {}
    for target, found in parts.items():
        keys = found.keys()
        if keys == {"g", "v"} or keys == {"original0", "original1"}:
            g, v = (arrays[found[part]] for part in sorted(keys))
            try:
                result[target] = normalised(g, v)
            except ValueError as error:
                broken[target] = f"{target}: {error}"
            notes[target] = f"{target} is g * v / |v| of weight_norm"
        elif keys == {"orig", "mask"}:
            result[target] = np.asarray(arrays[found["orig"]]) * np.asarray(arrays[found["mask"]])
            notes[target] = f"{target} is the pruned {found['orig']}"
        elif keys == {"raw"}:
            target = _dropped(target, arrays)
            result[target] = arrays[found["raw"]]
            notes[target] = f"{target} is {found['raw']}, without what weight_drop drops in training"
        else:
            broken[target] = (
                f"{target} is given by {', '.join(sorted(found.values()))}: no parametrization that is known"
            )
            continue
        for name in found.values():
            del result[name]
    return result, notes, broken


def _dropped(target: str, arrays: Mapping[str, Any]) -> str:
    """Return where weight-drop's raw weight belongs: fastai keeps the others one level deeper."""
    base, dot, weight = target.rpartition(".")
    inside = f"{base}{dot}module."
    return inside + weight if inside + weight.replace("weight_hh", "weight_ih") in arrays else target


def normalised(g: Any, v: Any) -> Array:
    """Return ``g * v / |v|``, the norm over the axes in which g has length 1, as PyTorch's weight_norm."""
    g, v = np.asarray(g), np.asarray(v)
    if g.ndim not in (0, v.ndim) or any(n not in (1, m) for n, m in zip(g.shape, v.shape, strict=False)):
        raise ValueError(f"weight_norm's g of shape {g.shape} does not fit v of {v.shape}")
    axes = tuple(k for k in range(v.ndim) if g.ndim == 0 or g.shape[k] == 1)
    wide = np.asarray(v, np.float64)
    norm = np.sqrt((wide * wide).sum(axes, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.asarray(g, np.float64) * wide / norm, v.dtype)
