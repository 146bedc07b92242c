"""The float64 reference's results of a call with any options, and how far from it a correct program may be.

**The bound.** An array may be off by `bounds.norm_bound` times its condition. The bound's sum length is that of all
sums on the way through one step, which a projection, a normalisation or a highway lengthens; its steps are T * L. The
condition is what the reference says the array is good for: the larger of its own largest value (all that the rule has
in the plain cell) and of how far the array moves, by d, if every number that goes in (parameters, x, states, gradients)
and every slope of an activation is moved by d of itself, up or down at random. That second number counts a
normalisation that divides by a small deviation, an activation that magnifies, and a sum of which little is left;
random signs, several times over, add up as roundings do.

**Kinks.** Where a clip or an activation has a kink (or a jump), float32 could fall on its other side. Data of which the
reference finds a value nearer to a kink than the bound of that value are drawn anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from quadgate import reference
from quadgate.reference import cell
from support import bounds
from support.cases import Array, Case, Data, Found, data, infer, model, same_bits, train
from support.judgements import shared
from support.options import DEFAULT_ACTIVATIONS

FORWARD = ("y", "h", "c", "cells", *(f"trace_{name}" for name in "ifgoc"))


def judge(v: Case, params: Mapping[str, Array], d: Data, masks: Any = None, backward: bool = True) -> tuple[Found, Any]:
    """The answer of `quadgate.reference`, with the names of `train`, and its tape."""
    call = {"resets": d.resets, "mask": d.mask, "padding_output": v.padding}
    y, (h, c), tape = reference.forward(params, d.x, d.state, d.lengths, masks=masks, **call, **v.options)
    result = Found(y=y, h=h, c=c, cells=tape.cells)
    if not v.rnn:
        result |= {
            f"trace_{name}": np.stack([layer.gates[k] for layer in tape.layers]) for k, name in enumerate("ifgo")
        }
        result["trace_c"] = np.stack([layer.c for layer in tape.layers])
    if backward:
        grads = reference.backward(params, tape, d.dy, d.dstate, dcells=d.dcells)
        result |= {"dx": grads.x, "dh0": grads.h0, "dc0": grads.c0}
        result |= {"dh_norm": grads.dh_norm, "dc_norm": grads.dc_norm, **grads.params}
    return result, tape


def kinks(v: Case, tape: Any) -> Iterator[tuple[Array, list[float]]]:
    """Arrays of which a derivative jumps at some values, and these values; the arrays in a fixed order."""
    at = {"relu": (0.0,), "leaky_relu": (0.0,), "elu": (0.0,), "thresholded_relu": (1.0,), "hard_sigmoid": (-2.5, 2.5)}

    def of(kind: Any) -> list[float]:
        name, *numbers = (kind,) if isinstance(kind, str) else kind
        if numbers and name == "thresholded_relu":
            return [numbers[0]]
        if numbers and name == "hard_sigmoid":
            return [-numbers[1] / numbers[0], (1 - numbers[1]) / numbers[0]]
        return list(at.get(name, ()))

    s, t, u = map(of, v.options.get("activations", DEFAULT_ACTIVATIONS))
    gate, cell, proj = ([-n, n] if n else [] for n in (v.options.get(f"{k}_clip") for k in ("gate", "cell", "proj")))
    for layer in tape.layers:
        for step in layer.steps:
            if v.rnn:
                yield step.args[0], [0.0] if v.options["nonlinearity"] == "relu" else []
                continue
            for a, where in zip(step.args, (s, s, t, s), strict=True):
                yield a, where + gate
            yield step.v, u + gate
            yield step.raw, cell
            yield step.z, proj


class Unclear(Exception):
    """All data that were tried have values too near to a kink."""


class Verdict(NamedTuple):
    """The right arrays, the error allowed in each, and whether no value lies too near to a kink."""

    want: dict[str, Array]
    allowed: dict[str, float]
    clear: bool


@contextmanager
def moved_slopes(by: float, rng: np.random.Generator) -> Iterator[None]:
    """Move the reference's derivatives of smooth activations by `by` of the activation's size, up or down at random.

    A program may compute them from what it has kept, s - s s or 1 - t t, and then they are no more exact than s and t.
    """
    exact = cell.slope
    sizes = {"sigmoid": 1.0, "tanh": 1.0, "softsign": 1.0, "softplus": 1.0}

    def slope(kind: Any, a: Array) -> Array:
        size = {**sizes, "scaled_tanh": kind.alpha * kind.beta, "elu": kind.alpha}.get(kind.name, 0.0)
        return exact(kind, a) + by * size * rng.choice((-1.0, 1.0), a.shape)

    cell.slope = slope
    try:
        yield
    finally:
        cell.slope = exact


def verdict(v: Case, net: Any, d: Data, masks: Any = None, backward: bool = True) -> Verdict:
    params = {name: np.asarray(value, np.float64) for name, value in net.params.items()}
    return _verdict(v, params, d, None if masks is None else dict(masks), backward)


@shared
def _verdict(v: Case, params: dict[str, Array], d: Data, masks: Any, backward: bool) -> Verdict:
    want, tape = judge(v, params, d, masks, backward)
    length = v.inputs + v.layers * v.outputs + v.columns + 2
    length += v.hidden if "proj_size" in v.options else 0
    length += 5 * v.hidden if "layer_norm" in v.options else 0
    length += v.outputs if v.options.get("shortcut") == "highway" else 0
    ahead = bounds.norm_bound(v.dtype, length, v.steps * v.layers)
    # Backward: the gates' gradients times weights, or summed over rows; each is a product of up to nine numbers.
    back = bounds.norm_bound(v.dtype, 9 * (4 * v.hidden + v.batch + length), v.steps * v.layers, backward=True)

    condition = {name: size(value) for name, value in want.items()}
    corners = [(a, at, np.abs(a)) for a, at in kinks(v, tape) if at] if v.dtype == "float32" else []
    rng, by = np.random.default_rng([v.seed, 3]), 2.0**-26
    for _ in range(3 if v.batch * v.hidden > 15 else 6):  # in a few numbers, several moves may cancel by chance

        def moved(a: Any) -> Any:
            return None if a is None else a * (1 + by * rng.choice((-1.0, 1.0), np.shape(a)))

        start = None if d.state is None else (moved(d.state[0]), moved(d.state[1]))
        ends = (moved(d.dstate[0]), moved(d.dstate[1]))
        there = d._replace(x=moved(d.x), state=start, dy=moved(d.dy), dstate=ends, dcells=moved(d.dcells))
        with moved_slopes(by, rng):
            result, other = judge(v, {name: moved(value) for name, value in params.items()}, there, masks, backward)
        for name, value in result.items():
            condition[name] = max(condition[name], size(value - want[name]) / by)
        if corners:
            moves = zip(corners, [b for b, at in kinks(v, other) if at], strict=True)
            corners = [(a, at, np.maximum(n, np.abs(b - a) / by)) for (a, at, n), b in moves]
    forward_names = ("y", "h", "c", "cells")
    least = 2.0**20 * float(np.finfo(v.dtype).tiny)  # products that underflow, as many as a sum may have, are lost
    allowed = {name: (ahead if name in forward_names else back) * n + least for name, n in condition.items()}
    # On the kink itself lie only values that are exact in every precision: what is multiplied by a closed gate, say.
    near = (((np.abs(a - k) <= ahead * n + least) & (a != k)).any() for a, at, n in corners for k in at)
    return Verdict(want, allowed, not any(near))


def size(a: Array) -> float:
    return float(np.abs(a).max(initial=0))


def compare(found: Mapping[str, Array], right: Verdict, what: object) -> None:
    for name, value in found.items():
        want, allowed = right.want[name], right.allowed[name]
        assert value.shape == want.shape, f"{what}: {name} is {value.shape}, expected {want.shape}"
        off = size(value.astype(np.float64) - want)
        assert off <= allowed, f"{what}: {name} is off by {off:.3g} where {allowed:.3g} is allowed"


def check(v: Case, attempts: int = 60) -> None:
    """Hold training and inference of one variant against the reference."""
    net = model(v)
    for attempt in range(attempts):
        d = data(v, attempt)
        found, tape = train(v, net, d)
        right = verdict(v, net, d, tape.dropped if v.chance else None)
        if not right.clear:
            continue
        compare(found, right, v)
        assert all(value.dtype == v.dtype for value in found.values())
        without = infer(v, net, d, cells=True)
        if v.chance:
            compare(without, verdict(v, net, d, None, backward=False), f"{v}, inference")
            assert v.steps * v.batch == 0 or tape.dropped
        else:
            assert not tape.dropped
            for name, value in without.items():
                assert same_bits(value, found[name]), f"{v}: {name} differs between inference and training"
        return
    raise Unclear(str(v))
