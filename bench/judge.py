"""Comparison of a peer's outputs with quadgate.reference in float64."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers.base import STREAM_STEPS, parameter_names
from shapes import Shape

Array = NDArray[Any]


def _reference() -> ModuleType:
    """Import quadgate.reference; if quadgate is not installed, from the source tree."""
    try:
        import quadgate.reference as installed

        return installed
    except ImportError:
        path = Path(__file__).resolve().parents[1] / "python" / "quadgate" / "reference" / "__init__.py"
        spec = importlib.util.spec_from_file_location(
            "quadgate_reference", path, submodule_search_locations=[str(path.parent)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def expected(shape: Shape, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Compute the results of a peer's `setup` in float64."""
    reference = _reference()
    params = {name: arrays[name] for name in parameter_names(shape)}
    x = np.repeat(arrays["x"], STREAM_STEPS, axis=0) if shape.mode == "stream" else arrays["x"]
    bidirectional = shape.directions == 2
    y, (h, c), tape = reference.forward(params, x, num_layers=shape.layers, bidirectional=bidirectional)
    result: dict[str, Array] = {"y": y[-1:] if shape.mode == "stream" else y, "h": h, "c": c}
    if shape.mode == "training":
        grads = reference.backward(params, tape, arrays["dy"])
        result = {"y": y, "dx": grads.x, **{"d" + name: grads.params[name] for name in params}}
    return result


def terms(shape: Shape, key: str) -> int:
    """Return the number of rounded terms in the longest sum that one element of an output depends on.

    Forward, these are the products of one step and some twelve operations of the cell. A gradient adds the 4H products
    of one step back, and the gradient of a parameter adds the sum over all rows.
    """
    forward = max(shape.widths) + shape.H + 16
    if key in ("y", "h", "c"):
        return forward
    return forward + 4 * shape.H + (0 if key == "dx" else shape.T * shape.B)


def check(shape: Shape, wanted: Mapping[str, Array], got: Mapping[str, Array]) -> float:
    """Return the largest error of `got` as a fraction of the allowed error.

    The relative error of a float32 sum of n terms is at most n * eps. Relative to the largest element of the array this
    bound is loose for one step, since typical errors grow with the square root of n. The margin covers the errors that
    earlier steps and layers propagate.

    Raises
    ------
    AssertionError
        If an output is missing, has a wrong shape, or exceeds the allowed error.
    """
    worst = 0.0
    eps = float(np.finfo(np.float32).eps)
    for key, value in got.items():
        if value.shape != wanted[key].shape:
            raise AssertionError(f"{key} has shape {value.shape}, must have {wanted[key].shape}")
        allowed = terms(shape, key) * eps * float(np.abs(wanted[key]).max())
        error = float(np.abs(value - wanted[key]).max())
        if not error <= allowed:
            raise AssertionError(f"{key} is off by {error:.3g}, allowed is {allowed:.3g}")
        worst = max(worst, error / allowed if allowed > 0 else 0.0)
    missing = {"y", *(k for k in wanted if k.startswith("d"))} - set(got)
    if missing:
        raise AssertionError(f"outputs missing: {sorted(missing)}")
    return worst
