"""Bounds on the distance of a correct result from the exact one: from the lengths of the sums and eps, not tuned.

Two judges, which see different things.

**Running bound** (`forward`, `backward`): every number is carried as a value and a bound of its error (`Num`), through
the LSTM's own equations. It holds for any order of summation, with or without fused multiply-adds, so a correct program
never breaks it, whatever the data. Its pieces, with u = eps / 2 and the products of two errors kept:

- a sum of n products: n u / (1 - n u) times the sum of the terms' sizes (Higham, Accuracy and Stability of Numerical
  Algorithms, section 3.1), plus the terms' own errors;
- sigmoid and tanh: the largest slope over the interval in which the argument may lie, times the argument's error,
  plus the promised 2 ULP (an ULP is at most 2 u of the value);
- one rounding, u of the result, for each product and sum elsewhere.

The judge is a float64 computation itself: its roundings obey the same bounds with its own u, so both are added.
Worst cases multiply from step to step (each step's error passes through |weight_hh|), hence this judge is sharp for few
steps, of any size, and blunt for many.

**Norm bound** (`norm_bound`): 4 (8 backward) * ceil(log2(sum length * steps)) * eps of the array's largest value, the
rule that oneDNN's own tests use for its LSTM. Roundings of a long sum largely cancel, and this speaks about that usual
case; so it is for many steps, for normal data and for arrays of more than a few elements only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]

U64 = np.finfo(np.float64).eps / 2
ULPS = 2  # what the compiled sigmoid and tanh promise
NUMPY_ULPS = 8  # NumPy's exp and tanh are good to 4 ULP; the judge's sigmoid adds two roundings


class Num(NamedTuple):
    """A value and a bound of the distance between it and what a correct program computes."""

    v: Array
    e: Array


class Rounding:
    """The arithmetic of one data type, on `Num`."""

    def __init__(self, dtype: DTypeLike) -> None:
        info = np.finfo(np.dtype(dtype))
        self.u = float(info.eps) / 2 + U64
        self.activation = ULPS * float(info.eps) + NUMPY_ULPS * 2 * U64
        self.tiny = float(info.tiny)  # where products underflow there is no relative accuracy

    def exact(self, value: Any) -> Num:
        v = np.asarray(value, np.float64)
        return Num(v, np.zeros_like(v))

    def rounded(self, v: Array, e: Array, size: Array | None = None) -> Num:
        """One more rounding of a result whose size is |v| unless `size` says otherwise."""
        size = np.abs(v) if size is None else size
        return Num(v, e + self.u * (size + e) + self.tiny)

    def add(self, a: Num, b: Num) -> Num:
        return self.rounded(a.v + b.v, a.e + b.e)

    def mul(self, a: Num, b: Num) -> Num:
        return self.rounded(a.v * b.v, np.abs(a.v) * b.e + np.abs(b.v) * a.e + a.e * b.e)

    def mul_add(self, a: Num, b: Num, c: Num) -> Num:
        return self.add(self.mul(a, b), c)

    def products(self, pairs: list[tuple[Num, Num]], start: Num | None = None) -> Num:
        """start + the sum of the matrix products a @ b, added up in any order."""
        zero = np.zeros((pairs[0][0].v.shape[0], pairs[0][1].v.shape[1]))
        v, e, size = zero, zero, zero
        if start is not None:
            v, e, size = start.v + zero, start.e + zero, np.abs(start.v) + start.e
        n = 2  # the bias, and a sum that starts from zero
        for a, b in pairs:
            v = v + a.v @ b.v
            e = e + np.abs(a.v) @ b.e + a.e @ (np.abs(b.v) + b.e)
            size = size + (np.abs(a.v) + a.e) @ (np.abs(b.v) + b.e)
            n += a.v.shape[1]
        return Num(v, e + n * self.u / (1 - n * self.u) * size + n * self.tiny)

    def sigmoid(self, a: Num) -> Num:
        far = np.exp(-np.abs(a.v))
        v = np.where(a.v >= 0, 1, far) / (1 + far)
        near = np.exp(-np.maximum(np.abs(a.v) - a.e, 0))  # the slope, near / (1 + near)^2, is largest nearest to 0
        e = np.minimum(near / (1 + near) ** 2 * a.e, 1)
        return Num(v, e + self.activation * (v + e) + self.tiny)

    def tanh(self, a: Num) -> Num:
        v = np.tanh(a.v)
        near = np.tanh(np.maximum(np.abs(a.v) - a.e, 0))
        e = np.minimum((1 - near**2) * a.e, 2)
        return Num(v, e + self.activation * (np.abs(v) + e) + self.tiny)

    def sigmoid_slope(self, s: Num) -> Num:
        """s (1 - s), also where it is computed as s - s s: that rounds s s, which may be larger than the result."""
        e = (np.abs(1 - 2 * s.v) + s.e) * s.e
        return Num(s.v - s.v**2, e + self.u * 2 * (s.v + s.e) + self.tiny)

    def tanh_slope(self, t: Num) -> Num:
        """1 - t t, in whichever way it is computed."""
        e = (2 * np.abs(t.v) + t.e) * t.e
        return Num(1 - t.v**2, e + self.u * 2 * (1 + t.e) + self.tiny)


class Tape(NamedTuple):
    active: Array
    x: list[Num]
    h_prev: list[Num]
    c_prev: list[Num]
    c: list[Num]
    gates: list[list[Num]]
    reverse: bool


def where(on: Array, a: Num, b: Num) -> Num:
    return Num(np.where(on, a.v, b.v), np.where(on, a.e, b.e))


def step_order(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


def suffixes(layers: int, bidirectional: bool) -> list[str]:
    """The endings of the parameters' names, in the order of the states."""
    return [f"_l{k}{d}" for k in range(layers) for d in (("", "_reverse") if bidirectional else ("",))]


def forward(
    dtype: DTypeLike,
    params: Mapping[str, Array],
    x: Array,
    state: tuple[Array, Array] | None,
    lengths: Array | None,
    *,
    num_layers: int,
    bidirectional: bool,
) -> tuple[Num, tuple[Num, Num], list[Tape]]:
    """`quadgate.reference.forward` with a bound on every element; x (T, B, I), T at least 1."""
    r = Rounding(dtype)
    w = {name: r.exact(value) for name, value in params.items()}
    steps, batch, _ = x.shape
    hidden = params["weight_hh_l0"].shape[1]
    active = np.arange(steps)[:, None] < (np.full(batch, steps) if lengths is None else np.asarray(lengths))[None, :]
    zero = r.exact(np.zeros((batch, hidden)))
    directions = 2 if bidirectional else 1
    below = [r.exact(x[t]) for t in range(steps)]
    above: list[list[Num]] = []
    ends, tapes = [], []
    for k, suffix in enumerate(suffixes(num_layers, bidirectional)):
        h, c = (zero, zero) if state is None else (r.exact(state[0][k]), r.exact(state[1][k]))
        weights = [Num(w[name + suffix].v.T, w[name + suffix].e.T) for name in ("weight_ih", "weight_hh")]
        tape = Tape(active, below, [zero] * steps, [zero] * steps, [zero] * steps, [[]] * steps, suffix[-1] == "e")
        y = [zero] * steps
        for t in step_order(steps, tape.reverse):
            on = active[t][:, None]
            a = r.products([(below[t], weights[0]), (h, weights[1])], w.get("bias" + suffix))
            i, f, g, o = (Num(*p) for p in zip(np.split(a.v, 4, 1), np.split(a.e, 4, 1), strict=True))
            i, f, g, o = r.sigmoid(i), r.sigmoid(f), r.tanh(g), r.sigmoid(o)
            c_new = r.mul_add(f, c, r.mul(i, g))
            h_new = r.mul(o, r.tanh(c_new))
            tape.h_prev[t], tape.c_prev[t], tape.c[t], tape.gates[t] = h, c, c_new, [i, f, g, o]
            y[t] = where(on, h_new, zero)
            h, c = where(on, h_new, h), where(on, c_new, c)
        ends.append((h, c))
        tapes.append(tape)
        above.append(y)
        if len(above) == directions:
            below = [join([part[t] for part in above], 1) for t in range(steps)]
            above = []
    return stack(below), (stack([h for h, _ in ends]), stack([c for _, c in ends])), tapes


def backward(
    dtype: DTypeLike,
    params: Mapping[str, Array],
    tapes: list[Tape],
    dy: Array | None,
    dstate: tuple[Array | None, Array | None],
    *,
    num_layers: int,
    bidirectional: bool,
) -> tuple[Num, Num, Num, dict[str, Num]]:
    """`quadgate.reference.backward` with a bound on every element: dx, dh0, dc0, dparams."""
    r = Rounding(dtype)
    w = {name: r.exact(value) for name, value in params.items()}
    steps, batch = tapes[0].active.shape
    hidden = params["weight_hh_l0"].shape[1]
    directions = 2 if bidirectional else 1
    zero = r.exact(np.zeros((batch, hidden)))
    last = np.zeros((steps, batch, directions * hidden)) if dy is None else dy
    dout = [r.exact(last[t]) for t in range(steps)]
    names = suffixes(num_layers, bidirectional)
    starts: list[tuple[Num, Num]] = [(zero, zero)] * len(names)
    grads: dict[str, Num] = {}
    for layer in reversed(range(num_layers)):
        parts: list[list[Num]] = []
        for d in range(directions):
            k = layer * directions + d
            tape, w_ih, w_hh = tapes[k], w["weight_ih" + names[k]], w["weight_hh" + names[k]]
            dh, dc = (zero if s is None else r.exact(s[k]) for s in dstate)
            da = [zero] * steps
            for t in step_order(steps, not tape.reverse):
                on = tape.active[t][:, None]
                i, f, g, o = tape.gates[t]
                dy_t = Num(*(p[:, d * hidden : (d + 1) * hidden] for p in dout[t]))
                tanh_c = r.tanh(tape.c[t])
                dh_t = r.add(dh, dy_t)
                dc_t = r.mul_add(r.mul(dh_t, o), r.tanh_slope(tanh_c), dc)
                gates = [
                    r.mul(r.mul(dc_t, g), r.sigmoid_slope(i)),
                    r.mul(r.mul(dc_t, tape.c_prev[t]), r.sigmoid_slope(f)),
                    r.mul(r.mul(dc_t, i), r.tanh_slope(g)),
                    r.mul(r.mul(dh_t, tanh_c), r.sigmoid_slope(o)),
                ]
                together = join(gates, 1)
                da[t] = where(on, together, r.exact(np.zeros_like(together.v)))
                dh, dc = where(on, r.products([(da[t], w_hh)]), dh), where(on, r.mul(dc_t, f), dc)
            starts[k] = (dh, dc)
            parts.append([r.products([(a, w_ih)]) for a in da])
            rows = Num(*(p.T for p in join(da, 0)))
            grads["weight_ih" + names[k]] = r.products([(rows, join(tape.x, 0))])
            grads["weight_hh" + names[k]] = r.products([(rows, join(tape.h_prev, 0))])
            total = r.products([(rows, r.exact(np.ones((steps * batch, 1))))])
            grads["bias" + names[k]] = Num(total.v[:, 0], total.e[:, 0])
        dout = parts[0] if directions == 1 else [r.add(a, b) for a, b in zip(*parts, strict=True)]
    dh0, dc0 = stack([h for h, _ in starts]), stack([c for _, c in starts])
    return stack(dout), dh0, dc0, {name: grads[name] for name in params}


def join(parts: list[Num], axis: int) -> Num:
    return Num(np.concatenate([p.v for p in parts], axis), np.concatenate([p.e for p in parts], axis))


def stack(parts: list[Num]) -> Num:
    return Num(np.stack([p.v for p in parts]), np.stack([p.e for p in parts]))


def norm_bound(dtype: DTypeLike, sum_length: int, steps: int, *, backward: bool = False) -> float:
    """Largest error allowed of an array, relative to its largest value; see the top of this file."""
    return 4 * (2 if backward else 1) * math.ceil(math.log2(max(2, sum_length * steps))) * float(np.finfo(dtype).eps)


def assert_within(got: Array, want: Array, error: Array, what: str) -> None:
    """Every element of `got` lies within `error` of `want`."""
    assert got.shape == want.shape == error.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    off = np.abs(got.astype(np.float64) - want)
    wrong = ~(off <= error)
    if wrong.any():
        at = tuple(int(k) for k in np.unravel_index(np.argmax(np.where(wrong, off - error, -np.inf)), off.shape))
        raise AssertionError(
            f"{what}: {wrong.sum()} of {wrong.size} elements too far off, worst at {at}: "
            f"{got[at]!r}, expected {want[at]!r} within {error[at]:.3g}"
        )


def assert_norm(got: Array, want: Array, relative: float, what: str, *, least: int = 32) -> None:
    """The largest difference is at most `relative` of the largest value; fewer than `least` elements are not judged.

    In a handful of elements the largest may itself be the rest of a cancellation, and nothing to measure against.
    """
    if want.size >= least:
        off, size = float(np.abs(got.astype(np.float64) - want).max()), float(np.abs(want).max())
        assert off <= relative * size, f"{what}: off by {off:.3g} where {relative:.3g} of {size:.3g} is allowed"
