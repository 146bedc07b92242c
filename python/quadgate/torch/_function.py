"""The autograd function of eager mode, and tapes as tensors, by which autograd decides how long a tape lives."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from . import _engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._network import Network
    from .._results import Tape
    from ._engine import Call, Engine

    Array = NDArray[Any]

SECOND = (
    "quadgate.torch has no second derivatives: backward ran with create_graph=True, as a gradient penalty does. "
    "Use torch.nn.LSTM with the same state_dict for these"
)


class _Carrier(np.ndarray):
    """Memory of a handle."""

    held: tuple[Network, Tape]


_carriers: weakref.WeakValueDictionary[int, _Carrier] = weakref.WeakValueDictionary()


def handle(net: Network, tape: Tape) -> torch.Tensor:
    """Return a tensor whose memory holds a tape, so that the tape is freed with it.

    Autograd keeps and frees it as any saved tensor: at the end of backward, or not with ``retain_graph``, and
    `torch.utils.checkpoint` drops it. Tensors that share its memory will do for it. It holds a zero, so that a graph's
    results do not depend on it.
    """
    carrier = np.zeros(1, np.uint8).view(_Carrier)
    carrier.held = net, tape
    result: torch.Tensor = torch.from_numpy(carrier)
    _carriers[result.data_ptr()] = carrier
    return result


def held(tensor: torch.Tensor) -> tuple[Network, Tape] | None:
    """Return the network and the tape of a handle, None if this is a copy of one."""
    carrier = _carriers.get(tensor.data_ptr())
    return None if carrier is None else carrier.held


def view(tensor: torch.Tensor) -> Array:
    """Return an array that shares a tensor's memory, unless that is to be read negated."""
    result: Array = tensor.numpy(force=True)  # half the time of detach().resolve_neg().numpy()
    return result


def array(tensor: torch.Tensor | None) -> Array | None:
    """Return the same, or None for None."""
    return None if tensor is None else view(tensor)


def tensors(arrays: Sequence[Array]) -> list[torch.Tensor]:
    """Return tensors that share the arrays' memory."""
    return [torch.from_numpy(a) for a in arrays]


class Recurrence(torch.autograd.Function):
    """A training call: the forward pass keeps its tape, so that backward runs no second one.

    The inputs are the network of this call, its `Call`, x, h0 and c0 (or None), and the parameters.
    """

    @staticmethod
    def forward(
        ctx: Any,
        net: Network,
        call: Call,
        x: torch.Tensor,
        h0: torch.Tensor | None,
        c0: torch.Tensor | None,
        *weights: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        results, tape = _engine.train(net, call, view(x), (array(h0), array(c0)))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(handle(net, tape))
        return tuple(tensors(results))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(SECOND)
        found = held(*ctx.saved_tensors)
        if found is None:
            raise RuntimeError(
                "a hook of saved tensors copied the tape of quadgate.torch, which it cannot do: leave the hook off "
                "around this module"
            )
        if all(g is None for g in grads):
            return (None,) * len(ctx.needs_input_grad)
        needs = ctx.needs_input_grad[2:]
        dx, dstate, dweights = _engine.backward(*found, [array(g) for g in grads], needs[0], any(needs[1:3]))
        every: list[Array | None] = [dx, *dstate, *([None] * (2 - len(dstate))), *dweights]
        return (
            None,
            None,
            *(torch.from_numpy(a) if a is not None and need else None for a, need in zip(every, needs, strict=True)),
        )


def train(
    engine: Engine,
    call: Call,
    x: torch.Tensor,
    state: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
    chance: bool,
) -> list[torch.Tensor]:
    """Return y, the final states and, if the call wants them, the cells, as results that backward goes through."""
    net = engine.network(weights, chance, thorough=True)
    h0, c0 = (*state, None, None)[:2]
    apply: Any = Recurrence.apply
    return list(apply(net, call, x, h0, c0, *weights))


def infer(
    engine: Engine,
    call: Call,
    x: torch.Tensor,
    state: Sequence[torch.Tensor | None],
    weights: Sequence[torch.Tensor],
    chance: bool,
) -> list[torch.Tensor]:
    """Return the same without a tape."""
    net = engine.network(weights, chance, x.numel() >= _engine.THOROUGH * engine.options.input_size)
    h0, c0 = (*map(array, state), None, None)[:2]
    if call.seed is not None:  # dropout in train() under no_grad()
        return tensors(_engine.train(net, call, view(x), (h0, c0))[0])
    return tensors(_engine.infer(net, call, view(x), (h0, c0)))
