"""Networks and data for them, and one call by the core: what all tests of numbers share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import quadgate as qg
from numpy.typing import NDArray

Array = NDArray[Any]
Options = dict[str, Any]

# Every tail: 4, 8 and 16 lanes, register tiles of up to 6 rows, groups of 4 blocks, each with one less and one more.
SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 65, 100)
DTYPES = ("float32", "float64")
CHANCE = ("dropout", "recurrent_dropout", "weight_drop", "zoneout")  # options that draw masks


@dataclass(frozen=True)
class Case:
    """One network, given by the constructor's keywords, and one call; `given` is for dy, dh, dc and dcells."""

    steps: int
    batch: int
    inputs: int
    hidden: int
    options: Options = field(default_factory=dict)
    lengths: bool = False
    resets: bool = False
    state: bool = True
    mask: str = ""  # left, right, any or none: which steps of a row are masked
    padding: str = "zero"
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
    def bidirectional(self) -> bool:
        return bool(self.options.get("bidirectional"))

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def bias(self) -> bool:
        return bool(self.options.get("bias", True))

    @property
    def kind(self) -> Options:
        """The options that `bounds` knows of."""
        return {"num_layers": self.layers, "bidirectional": self.bidirectional}

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
        """True if a stream and chunks in the order of time make sense."""
        return self.directions == 1 and not self.options.get("reverse")


def plain(
    steps: int,
    batch: int,
    inputs: int,
    hidden: int,
    layers: int = 1,
    bidirectional: bool = False,
    bias: bool = True,
    **call: Any,
) -> Case:
    """A case of the plain LSTM, whose layers, directions and biases are all there is to choose."""
    return Case(
        steps, batch, inputs, hidden, {"num_layers": layers, "bidirectional": bidirectional, "bias": bias}, **call
    )


class Data(NamedTuple):
    """Time-major and batched, whatever the layout of the case: x (T, B, I), states (L*D, B, H), dy (T, B, D*H)."""

    x: Array
    state: tuple[Array, Array] | None
    lengths: Array | None
    resets: Array | None
    dy: Array | None
    dstate: tuple[Array | None, Array | None]
    dcells: Array | None
    mask: Array | None = None


class Found(dict[str, Array]):
    """Arrays by name, time-major and batched: y, h, c, dx, dh0, dc0 and so on, then the parameters' gradients."""

    def __getattr__(self, name: str) -> Array:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def params(self) -> dict[str, Array]:
        """The gradients of the parameters alone: their names end in _l and a number."""
        return {name: value for name, value in self.items() if "_l" in name}


def model(case: Case) -> Any:
    """The network, all parameters random: gains around 1, peepholes of up to 1/2, all else uniform as by default."""
    make: Any = qg.RNN if case.rnn else qg.LSTM
    options = {"batch_first": case.batch_first, "dtype": np.dtype(case.dtype), "rng": case.seed, **case.options}
    net = make(case.inputs, case.hidden, **options)
    rng = np.random.default_rng([case.seed, 1])
    with net.writable() as params:
        for name, value in params.items():
            near = 1.0 if name.startswith("norm_") else 0.0
            end = 0.5 if name.startswith(("norm_", "peephole")) else 1 / np.sqrt(case.hidden)
            value[...] = near + rng.uniform(-end, end, value.shape)
            if name.startswith("norm_c"):
                value[1] -= 1
    return net


def data(case: Case, attempt: int = 0) -> Data:
    """Normal numbers; `attempt` gives others for the same case."""
    rng = np.random.default_rng([case.seed, 2, attempt])
    rows = case.layers * case.directions

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape).astype(case.dtype)

    states = [(rows, case.batch, case.columns), (rows, case.batch, 0 if case.rnn else case.hidden)]
    x = normal(case.steps, case.batch, case.inputs)
    state = tuple(normal(*shape) / 2 for shape in states)
    lengths = rng.integers(0, case.steps + 1, case.batch)
    resets = rng.random((case.steps, case.batch)) < 0.3
    grads = [normal(case.steps, case.batch, case.outputs), *(normal(*shape) for shape in states)]
    grads.append(normal(case.steps, case.batch, 0 if case.rnn else case.directions * case.hidden))
    mask = masked(case, rng) if case.mask else None
    dy, dh, dc, dcells = (g if use else None for g, use in zip(grads, case.given, strict=True))
    return Data(
        x,
        (state[0], state[1]) if case.state else None,
        lengths if case.lengths and not case.unbatched else None,
        resets if case.resets else None,
        dy,
        (dh, dc),
        None if case.rnn else dcells,
        mask,
    )


def masked(case: Case, rng: np.random.Generator) -> Array:
    """A mask (T, B), True for steps that are kept; one row in four has none at all."""
    steps, rows = np.arange(case.steps)[:, None], np.arange(case.batch)
    n = rng.integers(0, case.steps + 1, case.batch)
    kinds = {"right": steps < n, "left": steps >= n, "any": rng.random((case.steps, case.batch)) < 0.5}
    mask = kinds[case.mask] if case.mask in kinds else np.zeros((case.steps, case.batch), bool)
    return mask & (rows % 4 != 3)


def to_layout(case: Case, a: Array | None) -> Any:
    """A time-major (T, B, ...) array in the layout of the case's network."""
    if a is None:
        return None
    if case.unbatched:
        return a[:, 0]
    return np.ascontiguousarray(a.swapaxes(0, 1)) if case.batch_first else a


def from_layout(case: Case, a: Array) -> Array:
    if case.unbatched:
        return a[:, None]
    return np.ascontiguousarray(a.swapaxes(0, 1)) if case.batch_first else a


def states_to_layout(case: Case, states: Any) -> Any:
    """A pair of states as the network wants it; an RNN has only the first."""
    if states is None:
        return None
    parts = tuple(None if s is None else s[:, 0] if case.unbatched else s for s in states)
    return parts[0] if case.rnn else parts


def state_from_layout(case: Case, a: Array) -> Array:
    return a[:, None] if case.unbatched else a


def keywords(case: Case, d: Data) -> Options:
    some = {"lengths": d.lengths, "resets": to_layout(case, d.resets), "mask": to_layout(case, d.mask)}
    some["padding_output"] = case.padding if d.mask is not None else None
    return {name: value for name, value in some.items() if value is not None}


def outputs(case: Case, y: Array, state: Any, cells: Array | None = None) -> Found:
    found = Found(y=from_layout(case, y))
    for name, value in zip("hc", (state,) if case.rnn else state, strict=False):
        found[name] = state_from_layout(case, value)
    if cells is not None:
        found["cells"] = from_layout(case, cells)
    return found


def gradients(case: Case, grads: Any) -> Found:
    found = Found(dx=from_layout(case, grads.x), dh0=state_from_layout(case, grads.h0))
    if not case.rnn:
        found["dc0"] = state_from_layout(case, grads.c0)
    return found


def run(case: Case, net: Any, d: Data) -> Found:
    """Forward with a tape and backward, with none of the extras that a call may be asked for; dcells is not used."""
    y, state, tape = net.forward(
        to_layout(case, d.x), states_to_layout(case, d.state), rng=case.seed, **keywords(case, d)
    )
    grads = net.backward(tape, to_layout(case, d.dy), states_to_layout(case, d.dstate))
    return Found(outputs(case, y, state) | gradients(case, grads) | grads.params)


def train(case: Case, net: Any, d: Data, rng: Any = None) -> tuple[Found, Any]:
    """Forward and backward with cells, dcells and the trace, where there are any; the tape as well."""
    if case.rnn:
        y, state, tape = net.forward(
            to_layout(case, d.x),
            states_to_layout(case, d.state),
            rng=case.seed if rng is None else rng,
            **keywords(case, d),
        )
        grads = net.backward(tape, to_layout(case, d.dy), states_to_layout(case, d.dstate))
        return Found(outputs(case, y, state) | gradients(case, grads) | grads.params), tape
    y, state, tape = net.forward(
        to_layout(case, d.x),
        states_to_layout(case, d.state),
        return_cells=True,
        trace=True,
        rng=case.seed if rng is None else rng,
        **keywords(case, d),
    )
    dcells = to_layout(case, d.dcells)
    grads = net.backward(tape, to_layout(case, d.dy), states_to_layout(case, d.dstate), dcells=dcells)
    trace = {"dh_norm": tape.trace.dh_norm, "dc_norm": tape.trace.dc_norm}
    trace |= {f"trace_{name}": getattr(tape.trace, name) for name in "ifgoc"}
    return Found(outputs(case, y, state, tape.cells) | gradients(case, grads) | trace | grads.params), tape


def infer(case: Case, net: Any, d: Data, *, cells: bool = False) -> Found:
    """The call without a tape; with the last layer's cells if asked, which an RNN has not."""
    more = {"return_cells": True} if cells and not case.rnn else {}
    result = net(to_layout(case, d.x), states_to_layout(case, d.state), **more, **keywords(case, d))
    return outputs(case, *result)


def same_bits(a: Any, b: Any) -> bool:
    """Equal shape, dtype and bits, so that -0 differs from 0 and a NaN equals itself."""
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
