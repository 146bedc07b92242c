"""Validation of the attributes of the ONNX operator LSTM, and their conversion to options of `quadgate.LSTM`."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple, SupportsFloat, SupportsIndex

import numpy as np

from .. import _check
from .._options import ACTIVATIONS

Activation = tuple[str] | tuple[str, float] | tuple[str, float, float]  # (name, alpha, beta), without absent parameters

# ONNX's name in lower case -> (quadgate's name, default alpha, default beta), without absent parameters.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {name.replace("_", ""): (name, *of) for name, of in ACTIVATIONS.items()}
_PLAIN = ("Sigmoid", "Tanh", "Tanh")


class Attributes(NamedTuple):
    """Validated attributes of one node.

    Attributes
    ----------
    hidden_size : int or None
        None if the node does not have the attribute.
    directions : tuple of bool
        For each direction, True if it reads the sequence from its end.
    activations : tuple
        For each direction, the activations of the gates, the cell candidate and the output.
    clip : float or None
        Bound of the activations' arguments; None for no clip.
    coupled : bool
        True if the forget gate is 1 - i.
    batch_first : bool
        True for ``layout=1``.
    """

    hidden_size: int | None
    directions: tuple[bool, ...]
    activations: tuple[tuple[Activation, ...], ...]
    clip: float | None
    coupled: bool
    batch_first: bool

    def refuse_unrepresentable(self, dtype: np.dtype[Any]) -> None:
        """Raise ValueError for a number that the type of the arithmetic would make infinite or, for the clip, 0."""
        info = np.finfo(dtype)
        numbers = [] if self.clip is None else [("clip", self.clip)]
        for function in (function for cell in self.activations for function in cell):
            numbers += zip(("activation_alpha", "activation_beta"), function[1:], strict=False)
        for name, value in numbers:
            if abs(value) > float(info.max) or (name == "clip" and value < float(info.tiny)):
                raise ValueError(f"{name} must be of what {dtype} can hold, got {value}")


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
    """Validate the attributes of a node; None for an absent attribute.

    Raises
    ------
    TypeError, ValueError
        If an attribute has a wrong type or value; the message names it.
    """
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
    if isinstance(input_forget, (bool, np.bool_)):  # a switch by its name, while layout is a number
        input_forget = int(input_forget)
    return Attributes(
        hidden_size,
        directions,
        _activations(activations, activation_alpha, activation_beta, len(directions)),
        _clip(clip),
        _switch(input_forget, "input_forget"),
        _switch(layout, "layout"),
    )


def _activations(names: Any, alpha: Any, beta: Any, directions: int) -> tuple[tuple[Activation, ...], ...]:
    """Assign the values of alpha and beta, in the order of the functions, to the functions that have the parameter."""
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

    A list that no function takes values from is ignored, as in onnxruntime, if it has no more values than there are
    functions. A list with more values than functions that take one raises ValueError otherwise: its author may have
    meant one value for each function, which would shift all values.
    """
    if values is None:
        return iter(())
    none = isinstance(values, (str, bytes, Mapping, Set)) or not hasattr(values, "__iter__")
    if none or getattr(values, "ndim", 1) == 0:
        raise TypeError(f"{name} must be a list of numbers, got {_check.shown(values)}")
    found = [_check.number(value, name) for value in values]
    if len(found) > (sum(taken) or len(functions)):
        raise ValueError(f"{name} has {len(found)} values, but {sum(taken)} of {', '.join(functions)} take one")
    return iter(found)


def _clip(value: Any) -> float | None:
    """Return the bound, None for no clip. Exporters write 0 for no clip, since a bound of 0 would be meaningless."""
    if value is None or (isinstance(value, numbers.Real) and value in (0, math.inf)):
        return None
    return _check.positive(value, "clip")


def _int(value: Any, name: str) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {_check.shown(value)}")
    try:
        return operator.index(value)
    except TypeError as error:  # of an array, too, which has an __index__
        raise TypeError(f"{name} must be an integer, got {_check.shown(value)}") from error


def _switch(value: Any, name: str) -> bool:
    number = _int(value, name)
    if number not in (0, 1):
        raise ValueError(f"{name} must be 0 or 1, got {number}")
    return number == 1
