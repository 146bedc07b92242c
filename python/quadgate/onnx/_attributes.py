"""The attributes of the ONNX operator LSTM, from what a model may say to what `quadgate.LSTM` takes."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex

from .. import _check
from .._options import ACTIVATIONS

Activation = tuple[str] | tuple[str, float] | tuple[str, float, float]  # a name, then alpha, then beta where it has one

# ONNX's name in lower case -> ours, then the defaults of alpha and beta, for those that the function takes.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {name.replace("_", ""): (name, *of) for name, of in ACTIVATIONS.items()}
_PLAIN = ("Sigmoid", "Tanh", "Tanh")


class Attributes(NamedTuple):
    """One node's attributes, checked.

    Attributes
    ----------
    directions : tuple of bool
        For each direction whether it reads from the end.
    activations : tuple
        For each direction the functions of the gates, of the cell's input and of the output.
    clip : float or None
        None where nothing is clipped.
    """

    hidden_size: int | None
    directions: tuple[bool, ...]
    activations: tuple[tuple[Activation, ...], ...]
    clip: float | None
    coupled: bool
    batch_first: bool


def parse(
    direction: str = "forward",
    hidden_size: SupportsIndex | None = None,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[SupportsFloat] | None = None,
    activation_beta: Sequence[SupportsFloat] | None = None,
    clip: SupportsFloat | None = None,
    input_forget: SupportsIndex = 0,
    layout: SupportsIndex = 0,
) -> Attributes:
    """Check the attributes; None stands for one that is absent."""
    known = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    if not isinstance(direction, str):
        raise TypeError(f"direction must be one of {', '.join(known)}, got {direction!r}")
    if direction not in known:
        raise ValueError(f"direction must be one of {', '.join(known)}, got {direction!r}")
    directions = known[direction]
    if hidden_size is not None:
        hidden_size = _int(hidden_size, "hidden_size")
        if hidden_size < 1:
            raise ValueError(f"hidden_size must be positive, got {hidden_size}")
    return Attributes(
        hidden_size,
        directions,
        _activations(activations, activation_alpha, activation_beta, len(directions)),
        _clip(clip),
        _switch(input_forget, "input_forget"),
        _switch(layout, "layout"),
    )


def _activations(names: Any, alpha: Any, beta: Any, directions: int) -> tuple[tuple[Activation, ...], ...]:
    """Hand out alpha and beta, each list in the order of the functions, to those functions that have the parameter."""
    if names is None or (isinstance(names, Sequence) and len(names) == 0):
        names = _PLAIN * directions
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"activations must be a list of names, got {names!r}")
    if len(names) != 3 * directions:
        raise ValueError(f"activations must be {3 * directions} names, three for each direction, got {len(names)}")
    functions = []
    for name in names:
        if name.lower() not in _FUNCTIONS:
            raise ValueError(f"activations has {name!r}, which is none of the functions of ONNX's LSTM")
        functions.append(_FUNCTIONS[name.lower()])
    alphas = _numbers(alpha, "activation_alpha", names, [len(f) > 1 for f in functions])
    betas = _numbers(beta, "activation_beta", names, [len(f) > 2 for f in functions])
    done: list[Activation] = []
    for function in functions:
        if len(function) == 1:
            done.append(function)
        elif len(function) == 2:
            done.append((function[0], next(alphas, function[1])))
        else:
            done.append((function[0], next(alphas, function[1]), next(betas, function[2])))
    return tuple(tuple(done[k : k + 3]) for k in range(0, len(done), 3))


def _numbers(values: Any, name: str, functions: Sequence[str], taken: list[bool]) -> Any:
    """Return an iterator over the values of an attribute.

    A list that no function has a use for says nothing and is passed over, as onnxruntime does. More numbers than uses
    are refused: such a list may have been meant to have one number for each function, whether it takes it or not.
    """
    if values is None or not any(taken):
        return iter(())
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise TypeError(f"{name} must be a list of numbers, got {values!r}")
    numbers = [_check.number(value, name) for value in values]
    if len(numbers) > sum(taken):
        raise ValueError(f"{name} has {len(numbers)} values, but {sum(taken)} of {', '.join(functions)} take one")
    return iter(numbers)


def _clip(value: Any) -> float | None:
    """Return the bound. 0, which would leave nothing of any number, is what exporters write for no clip at all."""
    if value is None or value == 0 or value == math.inf:
        return None
    return _check.positive(value, "clip")


def _int(value: Any, name: str) -> int:
    if not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return operator.index(value)


def _switch(value: Any, name: str) -> bool:
    number = _int(value, name)
    if number not in (0, 1):
        raise ValueError(f"{name} must be 0 or 1, got {number}")
    return number == 1
