"""Weights that a state dict holds in parts: of weight_norm, pruning and weight-drop."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _check

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
        known = _KNOWN.get(frozenset(found))
        names = ", ".join(sorted(found.values()))
        if known is None:
            broken[target] = f"{target} is given by {names}: no parametrization that is known"
            continue
        if "raw" in found:
            target = _dropped(target, arrays)
        for name in found.values():
            del result[name]
        join, note = known
        # Weight-drop leaves a dropped copy in the weight's own place.
        if target in notes or (target in arrays and "raw" not in found):
            broken[target] = f"{target} is given twice, once by {names}"
            continue
        try:
            ordered = sorted(found.items())
            result[target] = join(*(_check.array(arrays[n], n, kinds=_KINDS.get(part, "fiu")) for part, n in ordered))
        except (TypeError, ValueError) as error:
            broken[target] = f"{target}: {error}"
        notes[target] = f"{target} is {note.format(**found)}"
    return result, notes, broken


def _dropped(target: str, arrays: Mapping[str, Any]) -> str:
    """Return where weight-drop's raw weight belongs: fastai keeps the others one level deeper."""
    base, dot, weight = target.rpartition(".")
    inside = f"{base}{dot}module."
    return inside + weight if inside + weight.replace("weight_hh", "weight_ih") in arrays else target


def _normalised(g: Array, v: Array) -> Array:
    """Return ``g * v / |v|``, the norm over the axes in which g has length 1, as PyTorch's weight_norm."""
    if g.ndim not in (0, v.ndim) or any(n not in (1, m) for n, m in zip(g.shape, v.shape, strict=False)):
        raise ValueError(f"weight_norm's g of shape {g.shape} does not fit v of {v.shape}")
    axes = tuple(k for k in range(v.ndim) if g.ndim == 0 or g.shape[k] == 1)
    wide = np.asarray(v, np.float64)
    norm = np.sqrt((wide * wide).sum(axes, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.asarray(g, np.float64) * wide / norm, _float_of(v, g))


def _pruned(mask: Array, orig: Array) -> Array:
    """Return the product; nothing is broadcast, and the mask's type does not change the weight's."""
    if orig.shape != mask.shape:
        raise ValueError(f"the mask of shape {mask.shape} does not fit the weight of {orig.shape}")
    dtype = _float_of(orig)
    return np.asarray(orig.astype(dtype) * mask.astype(dtype))


def _float_of(*arrays: Array) -> np.dtype[Any]:
    """Return the type of the first array that has a floating one, float32 if none does."""
    return next((a.dtype for a in arrays if a.dtype.kind == "f"), np.dtype(np.float32))


_KINDS = {"mask": "bfiu"}
_NORM = "g * v / |v| of weight_norm"
# From the names of the parts to the function that takes them in their alphabetical order, and a note.
_KNOWN: dict[frozenset[str], tuple[Callable[..., Array], str]] = {
    frozenset(("g", "v")): (_normalised, _NORM),
    frozenset(("original0", "original1")): (_normalised, _NORM),
    frozenset(("mask", "orig")): (_pruned, "the pruned {orig}"),
    frozenset(("raw",)): (np.asarray, "{raw}, without what weight_drop drops in training"),
}
