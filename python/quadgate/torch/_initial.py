"""First parameters, drawn from torch's generator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize

from .._initial import HIGHWAY_BIAS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._options import Options


def reset(module: nn.Module, o: Options, names: Sequence[str]) -> None:
    """Draw the parameters of these names, and leave all others of the module as they are.

    Raises
    ------
    RuntimeError
        If a parameter with numbers of its own is none any more and cannot be assigned to.
    """
    replaced = [name for name in names if name not in module._parameters]
    assigned = [name for name in replaced if not _as_torch(o, name)]
    for name in assigned:
        if not parametrize.is_parametrized(module, name):
            raise RuntimeError(f"{name} cannot be drawn, since it is no parameter any more: undo what has replaced it")
    with torch.no_grad():
        for full, value in module.named_parameters():
            if full in names:
                _draw(o, full, value)
            elif any(full.startswith((f"parametrizations.{n}.", f"{n}_")) for n in replaced if n not in assigned):
                _uniform(o, value)
        for name in assigned:
            drawn = torch.empty_like(getattr(module, name))
            _draw(o, name, drawn)
            setattr(module, name, drawn)


def _kind(name: str) -> str:
    return name[: name.rindex("_l")]


def _as_torch(o: Options, name: str) -> bool:
    """Return True if torch.nn.LSTM would draw the parameter in the same way."""
    if _kind(name) == "bias_highway" or name.startswith("norm") or o.initialization != "pytorch":
        return False
    return o.forget_bias is None or _kind(name) not in ("bias_ih", "bias_hh")


def _uniform(o: Options, value: torch.Tensor) -> None:
    end = 1.0 / math.sqrt(o.hidden_size)
    nn.init.uniform_(value, -end, end)


def _draw(o: Options, name: str, value: torch.Tensor) -> None:
    kind = _kind(name)
    if kind == "bias_highway":
        nn.init.constant_(value, HIGHWAY_BIAS)
    elif kind.startswith("norm"):  # norm_c is a gain and a bias
        nn.init.ones_(value)
        if kind == "norm_c":
            nn.init.zeros_(value[1])
    elif o.initialization == "pytorch":
        _uniform(o, value)
    elif kind == "weight_hh":
        nn.init.orthogonal_(value)
    elif kind.startswith("weight"):
        nn.init.xavier_uniform_(value)
    else:
        nn.init.zeros_(value)
        if kind == "bias_ih" and not o.elman and not o.coupled:
            nn.init.ones_(value[o.hidden_size : 2 * o.hidden_size])
    if kind in ("bias_ih", "bias_hh") and o.forget_bias is not None:
        first = o.forget_bias if kind == "bias_ih" else 0.0  # the two are added
        nn.init.constant_(value[o.hidden_size : 2 * o.hidden_size], first)
