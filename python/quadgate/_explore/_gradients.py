"""Gradients of chosen outputs: of x, and their norms in every layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._layers import Chain, Inside, Seen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

MOST_NUMBERS = 1_500_000  # of gradients on a page
MOST_WORK = 1.5e11  # multiply-adds, some seconds on two cores
MOST_MEMORY = 200_000_000  # bytes of a tape


class Gradients(NamedTuple):
    """Gradients of chosen outputs.

    Attributes
    ----------
    names : list of str
        Of the outputs.
    steps : list of int
        Steps of which there are gradients; of a model with one output for the sequence, the last alone.
    x : array (outputs, steps, T)
        Norms of the output's gradient by x at every step.
    dh, dc : array (outputs, steps, states, T)
        Norms of its gradients by h and c.
    """

    names: list[str]
    steps: list[int]
    x: Array
    dh: Array
    dc: Array


def gradients(chain: Chain, x: Array, mask: Array | None, seen: Seen, columns: list[int]) -> Gradients:
    """Go back from the whole output of steps, and from some of its columns."""
    from ..train import Context

    y, steps = seen.y, x.shape[1]
    largest = chain.model and y.shape[-1] > 1
    names = ["largest output of the step" if largest else "norm of the output"]
    names += [f"output {column}" for column in columns]
    parameters = sum(layer.net.num_parameters for layer in chain.layers if isinstance(layer, Inside))
    starts = [steps - 1]
    if y.ndim == 2:
        number = MOST_NUMBERS // (len(names) * steps * (1 + 2 * len(seen.states)))
        number = min(number, int(MOST_WORK / (len(names) * steps * 3 * parameters)), steps)
        starts = np.unique(np.linspace(0, steps - 1, max(2, number)).round().astype(int)).tolist()
    starting = _starts(y, starts, columns, largest)
    units = sum(state.values["h"].shape[1] for state in seen.states)
    rows = int(max(1, min(32, len(starting), MOST_MEMORY // (8 * units * steps * y.dtype.itemsize))))
    context = Context(True, None, None if mask is None else np.repeat(mask, rows, axis=0))
    batch: Any = np.repeat(x, rows, axis=0)
    tapes = []
    for layer in chain.layers:
        batch, tape = layer.forward(batch, context)
        tapes.append(tape)
    parts: list[tuple[Array, Array, Array]] = []
    for at in range(0, len(starting), rows):
        some = starting[at : at + rows]
        d: Any = np.zeros((rows, *y.shape), y.dtype)
        for row, (step, vector) in enumerate(some):
            d[(row, step) if y.ndim == 2 else row] = vector
        for k in range(len(chain.layers) - 1, chain.first - 1, -1):
            d, _ = chain.layers[k].backward(tapes[k], d, need_x=True)
        pairs = zip(chain.layers, tapes, strict=True)
        norms = [layer.norms(tape) for layer, tape in pairs if isinstance(layer, Inside)]
        dh, dc = (np.concatenate([pair[n] for pair in norms]).transpose(2, 0, 1)[: len(some)] for n in (0, 1))
        parts.append((np.linalg.norm(d[: len(some)].astype(float), axis=2), dh.copy(), dc.copy()))
    shape = len(names), len(starts)
    of_x, dh, dc = (np.concatenate(each).reshape(*shape, *each[0].shape[1:]) for each in zip(*parts, strict=True))
    return Gradients(names, starts, of_x, dh, dc)


def _starts(y: Array, steps: list[int], columns: list[int], largest: bool) -> list[tuple[int, Array]]:
    """Return a step and the gradient of y there, for every output and step in the order of both."""
    values = y if y.ndim == 2 else y[None]
    unit = np.eye(values.shape[1], dtype=y.dtype) if values.shape[1] <= 4096 else None

    def column(n: int) -> Array:
        if unit is not None:
            result: Array = unit[n]
            return result
        vector = np.zeros(values.shape[1], y.dtype)
        vector[n] = 1
        return vector

    starts = []
    for step in steps:
        v = values[step if y.ndim == 2 else 0]
        norm = float(np.linalg.norm(v))
        starts.append((step, column(int(v.argmax())) if largest else v / norm if norm else v))
    return starts + [(step, column(n)) for n in columns for step in steps]
