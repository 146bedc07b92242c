"""The shapes that the benchmarks run: a table of small to large ones, and ones that programs in use have.

`shapes.json` names for each of its shapes the program that it was taken from. Another list is read only when it is
asked for, by `compare.py --shapes-file`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MODES = ("inference", "training", "stream")
DEFAULT_FILE = Path(__file__).resolve().parent / "shapes.json"


@dataclass(frozen=True)
class Shape:
    """One network, the size of its input, and what is done with it."""

    name: str
    T: int
    B: int
    I: int  # noqa: E741 - the project's word for the input size
    H: int
    mode: str = "inference"
    layers: int = 1
    directions: int = 1
    listed: bool = False  # in the table

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode of {self.name}: {self.mode!r}, must be one of {MODES}")

    @property
    def widths(self) -> list[int]:
        """Input width of every layer."""
        return [self.I] + [self.directions * self.H] * (self.layers - 1)

    @property
    def weights(self) -> int:
        """Number of weights, biases left out."""
        return sum(self.directions * 4 * self.H * (width + self.H) for width in self.widths)

    @property
    def recurrent_weights(self) -> int:
        """Number of weights of h."""
        return self.layers * self.directions * 4 * self.H * self.H

    @property
    def recurrent_steps(self) -> int:
        """Number of forward steps whose h is not known to be zero: all of a stream's, else all but the first."""
        return self.T if self.mode == "stream" else self.T - 1

    @property
    def all_flops(self) -> int:
        """Operations of all matrix products; a training step has three times those of its forward pass."""
        return 2 * self.T * self.B * self.weights * (3 if self.mode == "training" else 1)

    @property
    def flops(self) -> int:
        """Operations of the products that a result depends on: of weights with an h of zeros there is none.

        A training step has two of these: in its forward pass, and in the gradient of the weights.
        """
        zeros = 2 * (self.T - self.recurrent_steps) * self.B * self.recurrent_weights
        return self.all_flops - zeros * (2 if self.mode == "training" else 1)

    @property
    def batched(self) -> bool:
        """True if the bar that is set in parts of the FMA peak applies."""
        return self.B >= 32 and self.H >= 256

    @property
    def weight_reads(self) -> int:
        """Bytes of float32 weights that a forward pass at batch 1 cannot help reading, each step's recurrence anew.

        The weights of the input are counted once: their product can be taken over many steps at a time.
        """
        return 4 * (self.recurrent_steps * self.recurrent_weights + (self.weights - self.recurrent_weights))

    @property
    def label(self) -> str:
        """The sizes, with layers and directions where there is more than one."""
        extra = (f" L{self.layers}" if self.layers > 1 else "") + (" bi" if self.directions == 2 else "")
        return f"{self.T},{self.B},{self.I},{self.H}{extra}"


def _listed(mode: str, *sizes: tuple[int, int, int, int]) -> list[Shape]:
    return [Shape(f"{mode}_{t}_{b}_{i}_{h}", t, b, i, h, mode, listed=True) for t, b, i, h in sizes]


TABLE = _listed(
    "inference",
    (1, 1, 16, 16),
    (1, 1, 64, 128),
    (1, 1, 256, 256),
    (1, 1, 1024, 1024),
    (100, 1, 40, 32),
    (100, 1, 64, 128),
    (100, 1, 256, 256),
    (100, 1, 512, 512),
    (100, 16, 64, 128),
    (100, 32, 256, 256),
    (50, 64, 512, 512),
    (25, 64, 1024, 1024),
) + _listed(
    "training",
    (100, 1, 40, 32),
    (100, 1, 256, 256),
    (100, 16, 64, 128),
    (100, 32, 256, 256),
    (50, 64, 512, 512),
)


def read_file(path: Path) -> list[Shape]:
    """Read a list of shapes with the keys name, T, B, I, H, layers, direction and mode."""
    return [
        Shape(
            name=entry["name"],
            T=entry["T"],
            B=entry["B"],
            I=entry["I"],
            H=entry["H"],
            mode=entry["mode"],
            layers=entry["layers"],
            directions=2 if entry["direction"] == "bidirectional" else 1,
        )
        for entry in json.loads(path.read_text())
    ]


def with_stream(shapes: Iterable[Shape]) -> list[Shape]:
    """Add, for each unidirectional inference shape of one step, the same step with carried state."""
    result = list(shapes)
    for s in list(result):
        if s.T == 1 and s.mode == "inference" and s.directions == 1:
            name = s.name.replace("inference", "stream") if s.listed else f"{s.name}/stream"
            result.append(Shape(name, s.T, s.B, s.I, s.H, "stream", s.layers, 1, s.listed))
    return result


def choose(names: list[str], file: Path = DEFAULT_FILE) -> list[Shape]:
    """Return the shapes of "table", "all" (the table and the file), or those with the given names or parts of them."""
    table, every = with_stream(TABLE), with_stream([*TABLE, *read_file(file)])
    result: list[Shape] = []
    for name in names:
        found = {"table": table, "all": every}.get(name) or [s for s in every if name in (s.name, s.label)]
        if not found and len(name) > 3:  # a part of a name, but not a stray number
            found = [s for s in every if name in s.name]
        if not found:
            raise ValueError(f"no shape named {name!r}; there are: {', '.join(s.name for s in every)}")
        result += [s for s in found if s not in result]
    return result
