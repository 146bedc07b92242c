"""Weights that a state dict holds in parts: of weight_norm, pruning and weight-drop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_WEIGHT = r"(?P<base>(?:.*\.)?)(?P<weight>(?:weight|bias)_[a-z]+(?:_l\d+)?(?:_reverse)?)"
_PARAMETRIZED = re.compile(r"^(?P<base>(?:.*\.)?)parametrizations\.(?P<weight>[^.]+)\.(?P<rest>.+)$")
_SUFFIXED = re.compile(rf"^{_WEIGHT}_(?P<rest>g|v|raw|orig|mask|u)$")


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
