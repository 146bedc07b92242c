"""Random calls of the public face with fixed seeds: the same bits for the same values, or a documented error.

Each case draws a network and a number of calls. A disguised argument (another type, layout or byte order of the same
values) must give the bits of the plain call. A spoiled argument must raise TypeError or ValueError, and must leave the
network and its streams as they were. QUADGATE_FUZZ_CASES sets the number of cases; the number of a failing one is in
its message, and draws the same again.
"""

from __future__ import annotations

import math
import os
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import quadgate as qg

CASES = int(os.environ.get("QUADGATE_FUZZ_CASES", "1000"))
Rng = np.random.Generator
Array = Any
Network = Any


class HasArray:
    """An object that NumPy reads through ``__array__``; a second call gives other values."""

    def __init__(self, value: Array) -> None:
        self.value, self.calls = value, 0

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        self.calls += 1
        return self.value if self.calls == 1 else self.value + 1


class Raises:
    """An object whose conversion fails."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        raise ValueError("hostile")


class Subclass(np.ndarray):
    """An ndarray subclass without a rule of its own."""


def _strided(a: Array) -> Array:
    room = np.full(tuple(2 * n + 1 for n in a.shape), np.nan, a.dtype)
    view = room[tuple(slice(1, 1 + 2 * n, 2) for n in a.shape)]
    view[...] = a
    return view


def _strided_integers(a: Array) -> Array:
    return np.repeat(a, 2, axis=-1)[..., ::2]


def _read_only(a: Array) -> Array:
    a = a.copy()
    a.setflags(write=False)
    return a


def _unaligned(a: Array) -> Array:
    raw = np.empty(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape) if a.size else a
    view[...] = a
    return view


DISGUISES: list[Callable[[Array], Any]] = [
    lambda a: a.tolist() if a.size else a,
    _strided,
    np.asfortranarray,
    lambda a: a.astype(a.dtype.newbyteorder()),
    lambda a: a.astype(np.float64),
    _read_only,
    _unaligned,
    lambda a: a.view(Subclass),
    HasArray,
    lambda a: a[::-1].copy()[::-1],
    lambda a: memoryview(np.ascontiguousarray(a)),
]


def _masked(a: Array) -> Any:
    return np.ma.masked_array(a, mask=np.zeros(a.shape, bool))


SPOILS: list[Callable[[Array], Any]] = [
    lambda a: a[..., None],
    lambda a: np.concatenate([a, a[..., :1]], axis=-1) if a.shape[-1] else a[..., None],
    lambda a: a.astype(complex),
    lambda a: a.astype(object),
    lambda a: a.astype(str),
    lambda a: a > 0,
    _masked,
    lambda a: Raises(),
    lambda a: "text",
    lambda a: {1: 2},
    lambda a: 3.0,
]
STREAM_SPOILS: list[Callable[[Array], Any]] = [
    lambda a: a.astype(complex),
    lambda a: a.astype(object),
    _masked,
    lambda a: Raises(),
    lambda a: "text",
    lambda a: {1: 2},
    lambda a: a[None, None, None],
]

# Of lengths and resets: other types and layouts of the same values.
OF_INTEGERS: list[Callable[[Array], Any]] = [
    lambda a: a.tolist(),
    _strided_integers,
    np.asfortranarray,
    lambda a: a.astype(np.uint8),
    lambda a: a.astype(">i4"),
    HasArray,
    _read_only,
    lambda a: a.view(Subclass),
]
LENGTHS: list[Callable[[Array], Any]] = [
    lambda a: -np.ones(a.shape[:1], int),
    lambda a: np.full(a.shape, 1 << 62),
    lambda a: np.full(a.shape[:1], 0.5),
    lambda a: np.full(a.shape[:1], np.nan),
    lambda a: np.zeros(99, int),
    lambda a: "text",
    lambda a: Raises(),
    lambda a: 1j,
]
RESETS: list[Callable[[Array], Any]] = [
    lambda a: np.full(a.shape[:2], 2),
    lambda a: np.zeros((99, 99), bool),
    lambda a: np.zeros(a.shape[:2]),
    lambda a: a.astype(str),
    lambda a: Raises(),
    lambda a: True,
]


# Options of LSTM, each drawn now and then, and which of them RNN has, too.
OPTIONS: dict[str, Callable[[Rng], Any]] = {
    "bias": lambda rng: False,
    "batch_first": lambda rng: True,
    "bidirectional": lambda rng: True,
    "reverse": lambda rng: True,
    "merge": lambda rng: str(rng.choice(["sum", "mul", "mean"])),
    "shortcut": lambda rng: str(rng.choice(["residual", "highway", "dense"])),
    "dropout": lambda rng: 0.3,
    "recurrent_dropout": lambda rng: 0.2,
    "weight_drop": lambda rng: 0.1,
    "peephole": lambda rng: True,
    "coupled": lambda rng: True,
    "cell_clip": lambda rng: 0.5,
    "gate_clip": lambda rng: 2.0,
    "proj_size": lambda rng: int(rng.integers(1, 9)),
    "layer_norm": lambda rng: str(rng.choice(["output", "cell"])),
    "zoneout": lambda rng: (0.1, 0.2),
    "activations": lambda rng: ("hard_sigmoid", "softsign", ("elu", 0.5)),
}
OF_RNN = list(OPTIONS)[:9]


def draw_network(rng: Rng) -> Network | None:
    """Return a network, or None where the options do not fit each other."""
    kind = qg.RNN if rng.random() < 0.2 else qg.LSTM
    sizes = [int(n) for n in rng.integers(1, 20, 2)] + [int(rng.integers(1, 4))]
    options: dict[str, Any] = {"dtype": str(rng.choice(["float32", "float64"])), "rng": int(rng.integers(99))}
    for name in OF_RNN if kind is qg.RNN else OPTIONS:
        if rng.random() < 0.15:
            options[name] = OPTIONS[name](rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dropout that has no effect
        try:
            return kind(*sizes, **options)
        except ValueError:
            return None


def draw_input(rng: Rng, net: Network) -> dict[str, Any]:
    steps, batch = int(rng.integers(1, 9)), int(rng.integers(1, 9))
    leading = (batch, steps) if net.batch_first else (steps, batch)

    def real(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32).astype(net.dtype)

    state = net.stream(batch).state if streamable(net) else net(real(*leading, net.input_size))[1]
    shapes = [part.shape for part in ([state] if isinstance(net, qg.RNN) else state)]
    return {
        "x": real(*leading, net.input_size),
        "h": real(*shapes[0]),
        "c": real(*shapes[-1]),
        "lengths": rng.integers(0, steps + 1, batch) if rng.random() < 0.4 else None,
        "resets": rng.random(leading) < 0.2 if rng.random() < 0.4 else None,
        "dy": real(*leading, net(real(*leading, net.input_size))[0].shape[-1]),
    }


def streamable(net: Network) -> bool:
    return not (net.bidirectional or net.reverse)


def state_of(net: Network, a: dict[str, Any]) -> Any:
    return a["h"] if isinstance(net, qg.RNN) else (a["h"], a["c"])


def flat(result: tuple[Any, ...]) -> list[Array]:
    y, state = result[:2]
    return [y, *([state] if isinstance(state, np.ndarray) else state)]


def infer(net: Network, a: dict[str, Any]) -> list[Array]:
    return flat(net(a["x"], state_of(net, a), lengths=a["lengths"], resets=a["resets"]))


def train(net: Network, a: dict[str, Any]) -> list[Array]:
    result = net.forward(a["x"], state_of(net, a), lengths=a["lengths"], resets=a["resets"], rng=3)
    grads = net.backward(result[2], a["dy"])
    states = [grads.h0] if isinstance(net, qg.RNN) else [grads.h0, grads.c0]
    return [*flat(result), grads.x, *states, *grads.params.values()]


def same(first: list[Array], second: list[Array]) -> bool:
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def pick(rng: Rng, choices: list[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_random_calls(block):
    made = 0
    for case in range(block, CASES, 10):
        rng = np.random.default_rng([20261126, case])
        net = draw_network(rng)
        if net is None:
            continue
        made += 1
        given = draw_input(rng, net)
        calls(rng, net, given, case)
        overlaps(net, given, case)
        parameters(rng, net, given, case)
        if streamable(net):
            streams(rng, net, given, case)
    assert made > CASES / 40  # not all options were refused


def calls(rng: Rng, net: Network, given: dict[str, Any], case: int) -> None:
    """Other numbers of threads, disguised arguments, and spoiled ones."""
    for run, names in ((infer, ["x", "h", "c"]), (train, ["x", "h", "c", "dy"])):
        if isinstance(net, qg.RNN):
            names.remove("c")
        qg.set_num_threads(1)
        wanted = run(net, given)
        qg.set_num_threads(int(rng.integers(1, 5)))
        assert same(run(net, given), wanted), f"case {case}: threads"
        for _ in range(3):
            name = pick(rng, names)
            disguised = pick(rng, DISGUISES)(given[name])
            assert same(run(net, {**given, name: disguised}), wanted), f"case {case}: {name}"
        for name in ("lengths", "resets"):
            if given[name] is not None:
                disguised = pick(rng, OF_INTEGERS)(given[name])
                assert same(run(net, {**given, name: disguised}), wanted), f"case {case}: {name}"
        for _ in range(3):
            name = pick(rng, [*names, "lengths", "resets"])
            spoiled = {"lengths": LENGTHS, "resets": RESETS}.get(name, SPOILS)
            value = pick(rng, spoiled)(given["x"] if given[name] is None else given[name])
            refused(f"case {case}: {name} = {value!r}", run, net, {**given, name: value})
            assert same(run(net, given), wanted), f"case {case}: after an error in {name}"


def refused(what: str, call: Callable[..., object], *arguments: Any) -> None:
    """Make a call that must raise an error of the documented types."""
    try:
        call(*arguments)
    except (TypeError, ValueError):
        return
    pytest.fail(f"{what} was accepted")


def parameters(rng: Rng, net: Network, given: dict[str, Any], case: int) -> None:
    """A state dict in disguise changes nothing, a spoiled one is refused; pickles give the same bits."""
    wanted = infer(net, given)
    before = dict(net.params)
    name = pick(rng, list(before))
    net.load_state_dict({**before, name: pick(rng, DISGUISES)(before[name])})
    assert same(infer(net, given), wanted), f"case {case}: loaded {name}"
    for change in (net.load_state_dict, lambda values: write(net, values)):
        refused(f"case {case}: {name}", change, {**before, name: pick(rng, SPOILS)(before[name])})
        assert same(list(net.params.values()), list(before.values())), f"case {case}: parameters after an error"
        assert same(infer(net, given), wanted), f"case {case}: after an error in {name}"
    assert same(infer(pickle.loads(pickle.dumps(net)), given), wanted), f"case {case}: pickle"


def write(net: Network, values: dict[str, Any]) -> None:
    with net.writable() as params:
        params.update(values)


def overlaps(net: Network, given: dict[str, Any], case: int) -> None:
    """Arrays to write into that share memory with themselves, with an input, or with each other."""
    y, _, tape = net.forward(given["x"], rng=3)
    if y.shape[0] > 1:
        itself = np.lib.stride_tricks.as_strided(np.zeros_like(y), y.shape, (0, *y.strides[1:]))
        with pytest.raises(ValueError, match="out must not overlap itself"):
            net(given["x"], out=itself)
    if net.input_size == y.shape[-1]:
        with pytest.raises(ValueError, match="out must not share memory with x"):
            net(given["x"], out=given["x"])
    shapes = {name: value.shape for name, value in net.params.items()}
    room = np.zeros(sum(math.prod(shape) for shape in shapes.values()), net.dtype)
    out, at = {}, 0
    for name, shape in shapes.items():
        out[name] = room[at : at + math.prod(shape)].reshape(shape)
        at += math.prod(shape)
    wanted = net.backward(tape, given["dy"]).params
    net.backward(tape, given["dy"], out=out)
    assert same(list(out.values()), list(wanted.values())), f"case {case}: gradients side by side"
    first, second, *_ = shapes
    n = math.prod(shapes[second])
    at = math.prod(shapes[first]) - 1
    out[second] = room[at : at + n].reshape(shapes[second])
    kept = room.copy()
    with pytest.raises(ValueError, match="must not share memory with"):
        net.backward(tape, given["dy"], out=out)
    assert same([room], [kept]), f"case {case}: gradients after an error"


def streams(rng: Rng, net: Network, given: dict[str, Any], case: int) -> None:
    """Steps and pieces give the bits of one run, with errors in between."""
    x = np.swapaxes(given["x"], 0, 1) if net.batch_first else given["x"]
    whole = net.stream(batch_size=x.shape[1])
    wanted = whole.run(given["x"])
    pieces, cut = net.stream(batch_size=x.shape[1]), int(rng.integers(0, x.shape[0] + 1))
    got = [pieces.step(pick(rng, DISGUISES)(row)) for row in x[:cut]]
    before = states(pieces)
    for call in (pieces.step, pieces.run, pieces.reset, lambda value: setattr(pieces, "state", value)):
        refused(f"case {case}: {call}", call, pick(rng, STREAM_SPOILS)(x[0]))
        assert same(states(pieces), before), f"case {case}: a stream's state after an error"
    other = pickle.loads(pickle.dumps(pieces))
    got += [pieces.step(row) for row in x[cut:]]
    steps = np.stack(got, 1 if net.batch_first else 0)
    assert same([steps, *states(pieces)], [wanted, *states(whole)]), f"case {case}: steps"
    rest = np.swapaxes(x[cut:], 0, 1) if net.batch_first else x[cut:]
    assert same([other.run(rest)], [np.ascontiguousarray(wanted[:, cut:] if net.batch_first else wanted[cut:])])
    assert same(states(other), states(whole)), f"case {case}: a stream's pickle"


def states(stream: Any) -> list[Array]:
    state = stream.state
    return [part.copy() for part in ([state] if isinstance(state, np.ndarray) else state)]
