"""Calls of PyTorch modules, torch's own and ours, with results by the names of `support.cases`."""

from __future__ import annotations

from typing import Any

import numpy as np
import quadgate as qg
from support.cases import (
    Array,
    Case,
    Data,
    Found,
    from_layout,
    keywords,
    state_from_layout,
    states_to_layout,
    to_layout,
)


def module_of(net: Any) -> Any:
    """Our module with the options and parameters of a network."""
    import quadgate.torch

    kind: Any = quadgate.torch.RNN if isinstance(net, qg.RNN) else quadgate.torch.LSTM
    return kind.from_network(net)


def theirs_of(module: Any) -> Any:
    """torch's module with the sizes and parameters of one of ours."""
    import torch

    o = {name: getattr(module, name) for name in ("num_layers", "bias", "batch_first", "bidirectional")}
    rnn = not hasattr(module, "proj_size")
    o |= {"nonlinearity": module.nonlinearity} if rnn else {"proj_size": module.proj_size}
    kind = torch.nn.RNN if rnn else torch.nn.LSTM
    net = kind(module.input_size, module.hidden_size, **o, dtype=next(module.parameters()).dtype)
    net.load_state_dict(module.state_dict())
    return net


def tensor(a: Any, *, grad: bool = False) -> Any:
    import torch

    return None if a is None else torch.tensor(np.asarray(a), requires_grad=grad)


def trained(case: Case, module: Any, d: Data, *, cells: bool = False) -> Found:
    """One training call by a module: results and gradients, by the names of `train`, zeros where there are none."""
    x = tensor(to_layout(case, d.x), grad=True)
    given = states_to_layout(case, d.state)
    parts = [] if given is None else [given] if case.rnn else list(given)
    start = [tensor(a, grad=True) for a in parts]
    hx = None if not start else start[0] if case.rnn else tuple(start)
    extra = {"return_cells": True} if cells else {}
    y, state, *rest = module(
        x, hx, **{n: v if n == "padding_output" else tensor(v) for n, v in keywords(case, d).items()}, **extra
    )
    ends = [state] if case.rnn else list(state)
    wanted = states_to_layout(case, d.dstate)
    grads = [
        to_layout(case, d.dy),
        *([wanted] if case.rnn else wanted),
        *([to_layout(case, d.dcells)] if cells else []),
    ]
    pairs = [(t, g) for t, g in zip([y, *ends, *rest], grads, strict=True) if g is not None]
    module.zero_grad()
    sum((t * tensor(g)).sum() for t, g in pairs).backward()
    found = Found(y=from_layout(case, numpy(y)))
    for name, value in zip("hc", ends, strict=False):
        found[name] = state_from_layout(case, numpy(value))
    if rest:
        found["cells"] = from_layout(case, numpy(rest[0]))
    found["dx"] = from_layout(case, gradient(x))
    for name, value in zip(("dh0", "dc0"), start, strict=False):
        found[name] = state_from_layout(case, gradient(value))
    return Found(found | {name: gradient(p) for name, p in module.named_parameters()})


def numpy(t: Any) -> Array:
    return np.array(t.detach().numpy())


def gradient(t: Any) -> Array:
    return np.zeros(t.shape, str(t.dtype).removeprefix("torch.")) if t.grad is None else np.array(t.grad.numpy())
