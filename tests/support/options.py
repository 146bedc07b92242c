"""Networks with every option: what there is to choose, random parameters and data, and one call by the core."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import quadgate as qg
from numpy.typing import NDArray

Array = NDArray[Any]
Options = dict[str, Any]
Pick = Callable[[Sequence[Any]], Any]

ACTIVATIONS: list[Any] = ["sigmoid", "tanh", "relu", "hard_sigmoid", "affine", "leaky_relu", "thresholded_relu"]
ACTIVATIONS += ["scaled_tanh", "elu", "softsign", "softplus", ("hard_sigmoid", 0.4, 0.3), ("affine", 0.7, -0.2)]
ACTIVATIONS += [("leaky_relu", 0.3), ("thresholded_relu", 0.1), ("scaled_tanh", 1.7, 0.6), ("elu", 0.5)]
DEFAULT_ACTIVATIONS = ("sigmoid", "tanh", "tanh")
CHANCE = ("dropout", "recurrent_dropout", "weight_drop", "zoneout")  # what draws masks

# Each option alone, as little around it as it makes sense with; P stands for a projection size.
SINGLE: dict[str, Options] = {
    "plain": {},
    "peephole": {"peephole": True},
    "proj_size": {"proj_size": "P"},
    "coupled": {"coupled": True},
    "cell_clip": {"cell_clip": 0.4},
    "proj_clip": {"proj_clip": 0.1, "proj_size": "P"},
    "gate_clip": {"gate_clip": 0.6},
    "layer_norm_pre": {"layer_norm": "pre"},
    "layer_norm_carried": {"layer_norm": "carried"},
    "recurrent_dropout": {"recurrent_dropout": 0.4},
    "weight_drop": {"weight_drop": 0.3},
    "zoneout_h": {"zoneout": (0.3, 0.0)},
    "zoneout_c": {"zoneout": (0.0, 0.4)},
    "zoneout": {"zoneout": (0.2, 0.5)},
    "dropout": {"dropout": 0.3, "num_layers": 3},
    "reverse": {"reverse": True},
    "merge_sum": {"merge": "sum", "bidirectional": True},
    "merge_mul": {"merge": "mul", "bidirectional": True, "num_layers": 2},
    "merge_mean": {"merge": "mean", "bidirectional": True, "num_layers": 2},
    "residual": {"shortcut": "residual", "num_layers": 3},
    "highway": {"shortcut": "highway", "num_layers": 3},
    "dense": {"shortcut": "dense", "num_layers": 3},
    "rnn_tanh": {"nonlinearity": "tanh"},
    "rnn_relu": {"nonlinearity": "relu"},
}
for _place, _name in enumerate(("gate", "cell", "output")):
    for _kind in ACTIVATIONS:
        _chosen = (*DEFAULT_ACTIVATIONS[:_place], _kind, *DEFAULT_ACTIVATIONS[_place + 1 :])
        if _chosen != DEFAULT_ACTIVATIONS:
            _label = _kind if isinstance(_kind, str) else "_".join(map(str, _kind))
            SINGLE[f"{_name}_{_label}"] = {"activations": _chosen}


@dataclass(frozen=True)
class Variant:
    """One network, given by the constructor's keywords, and one call; `given` is for dy, dh, dc and dcells."""

    steps: int
    batch: int
    inputs: int
    hidden: int
    options: Options = field(default_factory=dict)
    lengths: bool = False
    resets: bool = False
    state: bool = True
    batch_first: bool = False
    unbatched: bool = False
    given: tuple[bool, bool, bool, bool] = (True, True, True, True)
    dtype: str = "float32"
    seed: int = 0

    @property
    def rnn(self) -> bool:
        return "nonlinearity" in self.options

    @property
    def layers(self) -> int:
        return int(self.options.get("num_layers", 1))

    @property
    def directions(self) -> int:
        return 2 if self.options.get("bidirectional") else 1

    @property
    def columns(self) -> int:
        """Of h, in one direction."""
        return self.options.get("proj_size") or self.hidden

    @property
    def outputs(self) -> int:
        return self.columns * (self.directions if self.options.get("merge", "concat") == "concat" else 1)

    @property
    def chance(self) -> bool:
        return any(np.any(self.options.get(name, 0)) for name in CHANCE)

    @property
    def one_way(self) -> bool:
        """Whether a stream and chunks in the order of time make sense."""
        return self.directions == 1 and not self.options.get("reverse")


class Data(NamedTuple):
    """Time-major and batched, whatever the layout of the variant."""

    x: Array
    state: tuple[Array, Array] | None
    lengths: Array | None
    resets: Array | None
    dy: Array | None
    dstate: tuple[Array | None, Array | None]
    dcells: Array | None


def single(name: str, hidden: int, proj_size: int | None = None, **call: Any) -> Variant:
    """One option alone."""
    options = dict(SINGLE[name])
    if options.get("proj_size"):
        options["proj_size"] = proj_size or max(1, hidden // 2)
    if options.get("layer_norm"):
        options["layer_norm_eps"] = norm_eps(hidden)
    return Variant(**{"steps": 4, "batch": 3, "inputs": 5, "hidden": hidden, "options": options, **call})


def norm_eps(*columns: int) -> float:
    """Two units normalised, or a column's multiples, are the same whatever they were: the slope is all cancellation.

    Not so with a large eps.
    """
    return 0.1 if min(columns) < 4 else 1e-5


def random_options(pick: Pick, hidden: int, inputs: int = 4) -> Options:
    """Any combination of options that makes sense; `pick` chooses from a sequence, whose first is the simplest."""
    rare, often = (False, False, False, True), (False, True)
    options: Options = {"num_layers": pick((1, 1, 2, 3)), "bias": not pick(rare)}
    way = pick(("forward", "forward", "reverse", "both"))
    if way != "forward":
        options |= {"reverse": True} if way == "reverse" else {"bidirectional": True}
        options |= {"merge": pick(("concat", "sum", "mul", "mean"))} if way == "both" else {}
    if options["num_layers"] > 1:
        options |= {"shortcut": pick((None, "residual", "highway", "dense")), "dropout": pick((0.0, 0.0, 0.3))}
    options |= {"recurrent_dropout": 0.4} if pick(rare) else {}
    options |= {"weight_drop": 0.3} if pick(rare) else {}
    if pick((False, False, False, False, False, True)):
        return options | {"nonlinearity": pick(("tanh", "relu"))}
    if pick(rare) and hidden > 1:
        options |= {"proj_size": pick([p for p in (1, 2, 3, 5, 8, 9, 16, 17, 31) if p < hidden])}
        options |= {"proj_clip": pick((None, 0.1))}
    for name in ("peephole", "coupled"):
        options |= {name: True} if pick(rare) else {}
    options |= {"cell_clip": 0.4} if pick(rare) else {}
    options |= {"gate_clip": 0.6} if pick(rare) else {}
    if pick(rare):
        options |= {"activations": tuple(pick([one, *ACTIVATIONS]) for one in DEFAULT_ACTIVATIONS)}
    if pick(rare):
        options |= {"layer_norm": pick(("pre", "carried")), "layer_norm_eps": 0.0}
        options["layer_norm_eps"] = norm_eps(hidden, inputs, options.get("proj_size", hidden))
    if pick(rare):
        options |= {"zoneout": (0.3 * pick(often), 0.4 * pick(often))}
    return options


def seeded(seed: int) -> Pick:
    rng = np.random.default_rng(seed)
    return lambda sequence: sequence[int(rng.integers(len(sequence)))]


def model(v: Variant) -> Any:
    """The network, all parameters random: gains around 1, peepholes of up to 1/2, all else uniform as by default."""
    make: Any = qg.RNN if v.rnn else qg.LSTM
    net = make(v.inputs, v.hidden, batch_first=v.batch_first, dtype=np.dtype(v.dtype), rng=v.seed, **v.options)
    rng = np.random.default_rng([v.seed, 1])
    with net.writable() as params:
        for name, value in params.items():
            near = 1.0 if name.startswith("norm_") else 0.0
            end = 0.5 if name.startswith(("norm_", "peephole")) else 1 / np.sqrt(v.hidden)
            value[...] = near + rng.uniform(-end, end, value.shape)
            if name.startswith("norm_c"):
                value[1] -= 1
    return net


def data(v: Variant, attempt: int = 0) -> Data:
    rng = np.random.default_rng([v.seed, 2, attempt])
    rows = v.layers * v.directions

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape).astype(v.dtype)

    states = [(rows, v.batch, v.columns), (rows, v.batch, 0 if v.rnn else v.hidden)]
    x = normal(v.steps, v.batch, v.inputs)
    state = tuple(normal(*shape) / 2 for shape in states)
    lengths = rng.integers(0, v.steps + 1, v.batch)
    resets = rng.random((v.steps, v.batch)) < 0.3
    grads = [normal(v.steps, v.batch, v.outputs), *(normal(*shape) for shape in states)]
    grads.append(normal(v.steps, v.batch, 0 if v.rnn else v.directions * v.hidden))
    dy, dh, dc, dcells = (g if use else None for g, use in zip(grads, v.given, strict=True))
    return Data(
        x,
        (state[0], state[1]) if v.state else None,
        lengths if v.lengths and not v.unbatched else None,
        resets if v.resets else None,
        dy,
        (dh, dc),
        None if v.rnn else dcells,
    )


def turned(v: Variant, a: Array | None) -> Any:
    """An array with axes (T, B, ...) as the network wants it, or back from there."""
    return a if a is None or not v.batch_first or v.unbatched else np.ascontiguousarray(a.swapaxes(0, 1))


def given(v: Variant, a: Array | None) -> Any:
    return a[:, 0] if a is not None and v.unbatched else turned(v, a)


def got(v: Variant, a: Array) -> Any:
    return a[:, None] if v.unbatched else turned(v, a)


def pair(v: Variant, states: Any) -> Any:
    """A pair of states as the network wants it; an RNN has only the first."""
    if states is None:
        return None
    parts = tuple(None if s is None else s[:, 0] if v.unbatched else s for s in states)
    return parts[0] if v.rnn else parts


def batched(v: Variant, a: Array) -> Array:
    return a[:, None] if v.unbatched else a


def keywords(v: Variant, d: Data) -> Options:
    some = {"lengths": d.lengths, "resets": given(v, d.resets)}
    return {name: value for name, value in some.items() if value is not None}


def train(v: Variant, net: Any, d: Data, rng: Any = None) -> tuple[dict[str, Array], Any]:
    """Forward and backward; everything that comes out by name, time-major and batched, and the tape."""
    rng = v.seed if rng is None else rng
    if v.rnn:
        y, h, tape = net.forward(given(v, d.x), pair(v, d.state), rng=rng, **keywords(v, d))
        result = {"y": got(v, y), "h": batched(v, h)}
        grads = net.backward(tape, given(v, d.dy), pair(v, d.dstate))
    else:
        y, (h, c), cells, tape = net.forward(
            given(v, d.x), pair(v, d.state), return_cells=True, trace=True, rng=rng, **keywords(v, d)
        )
        result = {"y": got(v, y), "h": batched(v, h), "c": batched(v, c), "cells": got(v, cells)}
        grads = net.backward(tape, given(v, d.dy), pair(v, d.dstate), dcells=given(v, d.dcells))
    result |= {"dx": got(v, grads.x), "dh0": batched(v, grads.h0)}
    if not v.rnn:
        result |= {"dc0": batched(v, grads.c0)}
        result |= {"dh_norm": tape.trace.dh_norm, "dc_norm": tape.trace.dc_norm}
        result |= {f"trace_{name}": getattr(tape.trace, name) for name in "ifgoc"}
    return result | dict(grads.params), tape


def infer(v: Variant, net: Any, d: Data) -> dict[str, Array]:
    """The call without a tape."""
    if v.rnn:
        y, h = net(given(v, d.x), pair(v, d.state), **keywords(v, d))
        return {"y": got(v, y), "h": batched(v, h)}
    y, (h, c), cells = net(given(v, d.x), pair(v, d.state), return_cells=True, **keywords(v, d))
    return {"y": got(v, y), "h": batched(v, h), "c": batched(v, c), "cells": got(v, cells)}
