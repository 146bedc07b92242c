"""The same calls as operators, for torch.compile, torch.export and all else that traces: `infer`, `train`, `backward`.

`train` returns the tape's handle as its last result. `backward` runs the forward pass again if it is given a copy of
the handle, so that both operators are functions of their tensors alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.library import custom_op, register_autograd

from . import _engine, _function
from ._engine import Call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .._network import Network
    from .._results import Tape
    from ._engine import Engine

# x, states and parameters; lengths, resets, mask and a seed, each a tensor or None; then the call's other arguments.
INPUTS = (
    "Tensor x, Tensor[] state, Tensor[] weights, Tensor? lengths, Tensor? resets, Tensor? mask, Tensor? seed, "
    "str padding, bool cells, bool chance, str spec, int owner"
)


class Rest(NamedTuple):
    """The arguments of all operators behind x, the states and the parameters."""

    lengths: Tensor | None
    resets: Tensor | None
    mask: Tensor | None
    seed: Tensor | None
    padding: str
    cells: bool
    chance: bool
    spec: str
    owner: int

    @property
    def engine(self) -> Engine:
        return _engine.engine_for(self.spec, self.owner)

    @property
    def call(self) -> Call:
        lengths, resets, mask = map(_function.array, (self.lengths, self.resets, self.mask))
        seed = None if self.seed is None else int(self.seed)
        return Call(lengths, resets, mask, self.padding, self.cells, seed)


def _record(
    x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], rest: Rest
) -> tuple[list[Any], Network, Tape]:
    """Return the results of a training call, its network and its tape."""
    net = rest.engine.network(weights, rest.chance, thorough=True)
    h0, c0 = (*map(_function.array, state), None, None)[:2]
    results, tape = _engine.train(net, rest.call, _function.view(x), (h0, c0))
    return results, net, tape


@custom_op("quadgate::infer", mutates_args=(), schema=f"({INPUTS}) -> Tensor[]")
def infer(x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], *others: Any) -> list[Tensor]:
    """Return y, the final states and, with `cells`, the cells."""
    rest = Rest(*others)
    return _function.infer(rest.engine, rest.call, x, state, weights, rest.chance)


@custom_op("quadgate::train", mutates_args=(), schema=f"({INPUTS}) -> Tensor[]")
def train(x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], *others: Any) -> list[Tensor]:
    """Return the results of `infer` and the handle of the tape."""
    results, net, tape = _record(x, state, weights, Rest(*others))
    return [*_function.tensors(results), _function.handle(net, tape)]


@custom_op("quadgate::backward", mutates_args=(), schema=f"(Tensor handle, Tensor?[] grads, {INPUTS}) -> Tensor[]")
def backward(
    handle: Tensor,
    grads: Sequence[Tensor | None],
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    *others: Any,
) -> list[Tensor]:
    """Return the gradients of x, the states and the parameters."""
    found = _function.held(handle)
    if found is None:
        found = _record(x, state, weights, Rest(*others))[1:]
    arrays = [_function.array(g) for g in grads]
    if all(a is None for a in arrays):
        return [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (x, *state, *weights)]
    dx, dstate, dweights = _engine.backward(*found, arrays, input_grad=True, state_grad=True)
    return _function.tensors([a for a in (dx, *dstate, *dweights) if a is not None])


@infer.register_fake
def _(x: Tensor, state: Any, weights: Any, *others: Any) -> list[Tensor]:
    rest = Rest(*others)
    o = _engine.options(rest.spec)
    leading = x.shape[:-1]
    results = [x.new_empty((*leading, o.outputs))]
    batch = state[0].shape[1:-1]
    results += [x.new_empty((rows, *batch, columns)) for rows, columns in _engine.state_sizes(o)]
    return [*results, x.new_empty((*leading, o.directions * o.hidden_size))] if rest.cells else results


@train.register_fake
def _(x: Tensor, *others: Any) -> list[Tensor]:
    return [*infer._opoverload(x, *others), x.new_empty(1, dtype=torch.uint8)]


@backward.register_fake
def _(handle: Tensor, grads: Any, x: Tensor, state: Any, weights: Any, *others: Any) -> list[Tensor]:
    return [t.new_empty(t.shape) for t in (x, *state, *weights)]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, state, weights, *rest = inputs
    ctx.set_materialize_grads(False)
    ctx.rest, ctx.counts = rest[4:], (len(state), len(weights))
    ctx.save_for_backward(output[-1], x, *state, *weights, *rest[:4])


def _autograd(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError(_function.SECOND)
    handle, x, *others = ctx.saved_tensors
    n, m = ctx.counts
    state, weights, optional = others[:n], others[n : n + m], others[n + m :]
    dx, *found = backward(handle, list(grads[:-1]), x, state, weights, *optional, *ctx.rest)
    return dx, found[:n], found[n:], *([None] * 9)


register_autograd("quadgate::train", _autograd, setup_context=_setup)
