"""Interface of a peer, and the arrays that all peers receive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from shapes import Shape

Array = NDArray[Any]
Arrays = Mapping[str, Array]

# Number of steps of a stream in the comparison of outputs; the second step is the first with a carried state.
STREAM_STEPS = 3


class Peer(Protocol):
    """One library, prepared for one shape."""

    version: str

    def setup(self, shape: Shape, threads: int, arrays: Arrays) -> dict[str, Array]:
        """Build the network, run it once (a stream: STREAM_STEPS times) and return its outputs.

        The keys are "y" and, if the library returns them, "h" and "c" for inference and streams; "y", "dx" and "d" +
        the name of each parameter for training.
        """
        ...

    def time(self, calls: int) -> float:
        """Return the seconds of `calls` further runs."""
        ...


def parameter_names(shape: Shape) -> list[str]:
    """Return the parameters' names: for each layer, for each direction, weight_ih, weight_hh and bias."""
    return [
        f"{kind}_l{layer}{suffix}"
        for layer in range(shape.layers)
        for suffix in ("", "_reverse")[: shape.directions]
        for kind in ("weight_ih", "weight_hh", "bias")
    ]


def make_arrays(shape: Shape, seed: int = 1) -> dict[str, Array]:
    """Draw parameters, input "x" and, for training, the gradient "dy" of the output."""
    rng = np.random.default_rng(seed)
    limit = shape.H**-0.5
    width = dict(enumerate(shape.widths))
    arrays: dict[str, Array] = {}
    for name in parameter_names(shape):
        kind, rest = name.rsplit("_l", 1)
        columns = {"weight_ih": (width[int(rest.split("_")[0])],), "weight_hh": (shape.H,), "bias": ()}[kind]
        arrays[name] = rng.uniform(-limit, limit, (4 * shape.H, *columns)).astype(np.float32)
    arrays["x"] = rng.standard_normal((shape.T, shape.B, shape.I)).astype(np.float32)
    if shape.mode == "training":
        size = (shape.T, shape.B, shape.directions * shape.H)
        arrays["dy"] = rng.standard_normal(size).astype(np.float32)
    return arrays


def repeat(run: Callable[[], object], calls: int) -> float:
    """Return the seconds of `calls` calls of `run`."""
    begin = perf_counter()
    for _ in range(calls):
        run()
    return perf_counter() - begin
