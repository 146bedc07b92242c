"""Networks among arrays with PyTorch's names: nn.LSTM, nn.LSTMCell and nn.RNN, also with reparametrized weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .._reparametrized import reparametrized
from ._found import Found

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_KINDS = "weight_(?:ih|hh|hr|highway)|bias(?:_ih|_hh|_highway)?|peephole|norm_(?:ih|hh|c)"
_NAME = re.compile(rf"^(?P<prefix>(?:.*\.)?)(?P<kind>{_KINDS})(?P<layer>_l(?P<k>\d+))?(?P<reverse>_reverse)?$")
# Names that a plain layer does not have at its own level, nor anything beside it: parts of a cell that computes
# something else. The names of nn.LSTM are judged by the number of a layer only, since "norm.weight" may be beside it.
_PARTS = r"layer_?norm\w*|ln\d*(?:_\w+)?|norm_\w+|peephole\w*|gamma\w*|beta\w*"
_OF_LAYER = re.compile(r"^(?:weight|bias|layer_?norm|ln|norm|peephole|gamma|beta)\w*_l\d+(?:_reverse)?(?:\.\w+)?$")
_OF_CELL = re.compile(rf"^(?:(?:weight|bias)_(?!(?:out|output|ho|hy|fc)$)\w+|(?:{_PARTS})(?:\.\w+)?)$")
_PADDLE = re.compile(r"^(?P<base>(?:.*\.)?)\d+\.cell(?:_fw|_bw)?\.$")  # its cells, listed a second time
GATES = {4: "LSTM", 3: "GRU", 1: "RNN"}


def networks(arrays: Mapping[str, Any], source: str = "the arrays") -> list[Found]:
    """Return every network whose weights have PyTorch's names, in the order in which they appear."""
    whole, notes, broken = reparametrized(arrays)
    groups: dict[str, dict[tuple[str, int, bool], str]] = {}
    problems: dict[str, str] = {}
    for name in whole:
        match = _NAME.match(name)
        if match is None or (match["layer"] is None and match["reverse"]):
            continue
        if match["layer"] is None and match["kind"] == "bias" and f"{match['prefix']}weight_ih" not in whole:
            continue  # of a module of another kind
        group = groups.setdefault(match["prefix"], {})
        first = group.setdefault((match["kind"], int(match["k"] or 0), bool(match["reverse"])), name)
        if first != name:
            problems[match["prefix"]] = f"{first} and {name} are two names of one array"
    for name, text in broken.items():
        match = _NAME.match(name)
        if match is not None:
            problems.setdefault(match["prefix"], text)
            groups.setdefault(match["prefix"], {})
    others = _others(whole, groups)
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
        found = _one(prefix, names, whole, tuple(more), source)
        if prefix in others and found.problem is None:
            problem = (
                f"it has {', '.join(others[prefix][:4])} besides: a cell that computes something else. If they do not "
                "belong to it, give quadgate.io.from_state_dict the arrays without them"
            )
            found = replace(found, problem=problem)
        result.append(found)
    return result


def _others(arrays: Mapping[str, Any], groups: Mapping[str, Mapping[Any, str]]) -> dict[str, list[str]]:
    """Return the arrays that belong to the networks' cells and are none of theirs, by prefix."""
    known = {name for names in groups.values() for name in names.values()}
    result: dict[str, list[str]] = {}
    for name in arrays:
        module, dot, last = name.rpartition(".")
        around, above, part = module.rpartition(".")
        levels = [(module + dot, last)] + ([(around + above, f"{part}.{last}")] if dot else [])
        for prefix, rest in levels:
            names = groups.get(prefix, {})
            if name in known or ("weight_ih", 0, False) not in names:
                continue
            pattern = _OF_LAYER if names["weight_ih", 0, False].endswith("_l0") else _OF_CELL
            if pattern.match(rest):
                result.setdefault(prefix, []).append(name)
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
    projection = arrays.get(names.get(("weight_hr", 0, False), ""))
    shapes = [a.shape for a in (ih, hh, projection) if a is not None]
    if any(len(shape) != 2 or 0 in shape for shape in shapes):
        problem = f"weight_ih, weight_hh and weight_hr must be matrices, found {', '.join(map(str, shapes))}"
        return Found("LSTM", label, 0, 0, source=source, notes=notes, problem=problem)
    hidden = shapes[-1][1]
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
    options = {"shortcut": "highway"} if "weight_highway_l1" in params else {}
    return Found(kind, label, *sizes, options, notes, asks, problem, source, params)
