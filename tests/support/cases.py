"""Random networks and data, and the comparison of one of them with the float64 reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import quadgate as qg
from numpy.typing import NDArray
from quadgate import reference
from support import bounds

Array = NDArray[Any]

# Every tail: 4, 8 and 16 lanes, register tiles of up to 6 rows, groups of 4 blocks, each with one less and one more.
SIZES = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 65, 100)
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Case:
    """One network and one call of it; `given` tells which of dy, dh, dc the backward pass receives."""

    steps: int
    batch: int
    inputs: int
    hidden: int
    layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    batch_first: bool = False
    unbatched: bool = False
    lengths: bool = False
    state: bool = True
    given: tuple[bool, bool, bool] = (True, True, True)
    dtype: str = "float32"
    seed: int = 0

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def kind(self) -> dict[str, Any]:
        return {"num_layers": self.layers, "bidirectional": self.bidirectional}


class Data(NamedTuple):
    """Time-major and batched, whatever the layout of the case: x (T, B, I), states (L*D, B, H), dy (T, B, D*H)."""

    x: Array
    state: tuple[Array, Array] | None
    lengths: Array | None
    dy: Array | None
    dstate: tuple[Array | None, Array | None]


class Result(NamedTuple):
    """Time-major and batched."""

    y: Array
    h: Array
    c: Array
    dx: Array
    dh0: Array
    dc0: Array
    params: dict[str, Array]

    def named(self) -> dict[str, Array]:
        return {**self._asdict(), **self.params}


def model(case: Case) -> qg.LSTM:
    """A network with every parameter, biases too, uniform in +-1/sqrt(H)."""
    lstm = qg.LSTM(
        case.inputs,
        case.hidden,
        case.layers,
        bias=case.bias,
        batch_first=case.batch_first,
        bidirectional=case.bidirectional,
        dtype=np.dtype(case.dtype),
    )
    rng = np.random.default_rng([case.seed, 1])
    with lstm.writable() as params:
        for value in params.values():
            value[...] = rng.uniform(-1, 1, value.shape) / np.sqrt(case.hidden)
    return lstm


def data(case: Case) -> Data:
    rng = np.random.default_rng([case.seed, 2])
    states = (case.layers * case.directions, case.batch, case.hidden)

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape).astype(case.dtype)

    x = normal(case.steps, case.batch, case.inputs)
    state = (normal(*states), normal(*states)) if case.state else None
    lengths = None
    if case.lengths and not case.unbatched:
        lengths = rng.integers(0, case.steps + 1, case.batch)
    dy = normal(case.steps, case.batch, case.directions * case.hidden)
    grads = (dy, normal(*states), normal(*states))
    dy_, dh, dc = (g if use else None for g, use in zip(grads, case.given, strict=True))
    return Data(x, state, lengths, dy_, (dh, dc))


def to_layout(case: Case, a: Array | None) -> Array | None:
    """A time-major (T, B, ...) array as the case's network wants or gives it; its own inverse but for `unbatched`."""
    if a is None:
        return None
    if case.unbatched:
        return a[:, 0]
    return np.ascontiguousarray(a.swapaxes(0, 1)) if case.batch_first else a


def from_layout(case: Case, a: Array) -> Array:
    if case.unbatched:
        return a[:, None]
    return a.swapaxes(0, 1) if case.batch_first else a


def states_to_layout(case: Case, pair: Any) -> Any:
    if pair is None or not case.unbatched:
        return pair
    return tuple(None if s is None else s[:, 0] for s in pair)


def state_from_layout(case: Case, a: Array) -> Array:
    return a[:, None] if case.unbatched else a


def run(case: Case, lstm: qg.LSTM, d: Data) -> Result:
    """Forward with a tape and backward; results back in the order of `Data`."""
    keywords = {} if d.lengths is None else {"lengths": d.lengths}
    y, (h, c), tape = lstm.forward(to_layout(case, d.x), states_to_layout(case, d.state), **keywords)
    grads = lstm.backward(tape, to_layout(case, d.dy), states_to_layout(case, d.dstate))
    return Result(
        from_layout(case, y),
        state_from_layout(case, h),
        state_from_layout(case, c),
        from_layout(case, grads.x),
        state_from_layout(case, grads.h0),
        state_from_layout(case, grads.c0),
        dict(grads.params),
    )


def infer(case: Case, lstm: qg.LSTM, d: Data) -> tuple[Array, Array, Array]:
    """The call without a tape; results back in the order of `Data`."""
    keywords = {} if d.lengths is None else {"lengths": d.lengths}
    y, (h, c) = lstm(to_layout(case, d.x), states_to_layout(case, d.state), **keywords)
    return from_layout(case, y), state_from_layout(case, h), state_from_layout(case, c)


def judge(case: Case, lstm: qg.LSTM, d: Data) -> Result:
    """What `quadgate.reference` says."""
    params = {name: np.asarray(value) for name, value in lstm.params.items()}
    y, (h, c), tape = reference.forward(params, d.x, d.state, d.lengths, **case.kind)
    grads = reference.backward(params, tape, d.dy, d.dstate)
    return Result(y, h, c, grads.x, grads.h0, grads.c0, grads.params)


def check(case: Case, *, running: bool = True, norm: bool = True) -> None:
    """Hold inference, training forward and backward of one case against the reference; see bounds.py for the judges."""
    lstm, d = model(case), data(case)
    got, want = run(case, lstm, d), judge(case, lstm, d)
    without_tape = dict(zip(("y", "h", "c"), infer(case, lstm, d), strict=True))
    named, expected = got.named(), want.named()
    del named["params"], expected["params"]
    assert list(named) == list(expected)
    for name, value in named.items():
        assert value.dtype == case.dtype, f"{case}: {name} is {value.dtype}"
    for name, value in without_tape.items():
        assert same_bits(value, named[name]), f"{case}: {name} differs between inference and training"
    if running:
        weights = {name: np.asarray(value, np.float64) for name, value in lstm.params.items()}
        y, (h, c), tapes = bounds.forward(case.dtype, weights, d.x, d.state, d.lengths, **case.kind)
        dx, dh0, dc0, dparams = bounds.backward(case.dtype, weights, tapes, d.dy, d.dstate, **case.kind)
        errors = {"y": y, "h": h, "c": c, "dx": dx, "dh0": dh0, "dc0": dc0, **dparams}
        for name, value in named.items():
            bounds.assert_within(value, expected[name], errors[name].e, f"{case}: {name}")
    if norm:
        depth = case.steps * case.layers
        ahead = bounds.norm_bound(case.dtype, case.inputs + case.hidden + 1, depth)
        back = bounds.norm_bound(case.dtype, 9 * max(4 * case.hidden, case.batch), depth, backward=True)
        for name, value in named.items():
            bounds.assert_norm(value, expected[name], ahead if name in without_tape else back, f"{case}: {name}")


def same_bits(a: Any, b: Any) -> bool:
    """Equal shape, dtype and bits, so that -0 differs from 0 and a NaN equals itself."""
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
