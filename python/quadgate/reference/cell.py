"""One forward and one backward step of the cell, for the active rows; the package docstring has the equations."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .activations import Activation, activation, slope

Array = NDArray[Any]


class Options(NamedTuple):
    """Options of the constructor that change the cell."""

    activations: tuple[Activation, Activation, Activation] = (
        Activation("sigmoid"),
        Activation("tanh"),
        Activation("tanh"),
    )
    coupled: bool = False
    cell_clip: float | None = None
    proj_clip: float | None = None
    gate_clip: float | None = None
    layer_norm: str | None = None
    layer_norm_eps: float = 1e-5
    elman: bool = False


class Weights(NamedTuple):
    """Parameters of one layer and direction; None for those that the network does not have."""

    weight_ih: Array
    weight_hh: Array
    bias: Array | None = None
    weight_hr: Array | None = None
    peephole: Array | None = None
    norm_ih: Array | None = None
    norm_hh: Array | None = None
    norm_c: Array | None = None


class Chance(NamedTuple):
    """Effect of dropout and zoneout on one step.

    Attributes
    ----------
    recurrent : ndarray, broadcastable to (B, R)
        Multiplier of h' ahead of the recurrent product.
    h : ndarray, broadcastable to (B, R)
    c : ndarray, broadcastable to (B, H)
        Weight of the old value in the new one: 0 or 1 from a mask, or the probability in inference.
    """

    recurrent: Array
    h: Array
    c: Array


class Norm(NamedTuple):
    """A normalised array, and the factor 1 / sqrt(var + eps) of each row."""

    value: Array
    scale: Array


class Step(NamedTuple):
    """Results of one step and the values that its backward step needs, named as in the equations (``_old``: primed)."""

    x: Array
    h_old: Array
    c_old: Array
    q: Norm | None
    r: Norm | None
    args: tuple[Array, ...]
    gates: tuple[Array, ...]
    raw: Array
    c_new_norm: Norm | None
    c_new: Array
    v_norm: Norm | None
    v: Array
    m: Array
    z: Array
    h: Array
    c: Array


def clip(a: Array, limit: float | None) -> Array:
    """Return a clipped to [-limit, limit]; None for no limit."""
    return a if limit is None else np.clip(a, -limit, limit)


def clip_back(da: Array, a: Array, limit: float | None) -> Array:
    """Return the gradient of a clip's argument: 0 for values outside the bounds."""
    return da if limit is None else np.where(np.abs(a) > limit, 0.0, da)


def normalise(a: Array, eps: float) -> Norm:
    """Return N(a): each row minus its mean, divided by sqrt(var + eps)."""
    centred = a - a.mean(axis=1, keepdims=True)
    scale = 1.0 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + eps)
    return Norm(centred * scale, scale)


def normalise_back(d: Array, norm: Norm) -> Array:
    """Return the gradient of the argument of `normalise`."""
    mean: Array = d.mean(axis=1, keepdims=True)
    along: Array = (d * norm.value).mean(axis=1, keepdims=True)
    across: Array = d - mean - norm.value * along
    return norm.scale * across


def mix(share: Array, old: Array | float, new: Array | float) -> Array:
    """Return share * old + (1 - share) * new; for a share of exactly 1 or 0 one operand, even if the other is NaN."""
    with np.errstate(invalid="ignore"):  # infinity times 0, in elements that are not selected
        return np.where(share == 1, old, np.where(share == 0, new, share * old + (1.0 - share) * new))


def forward(w: Weights, o: Options, chance: Chance, x: Array, h_old: Array, c_old: Array) -> Step:
    """Compute one step.

    Parameters
    ----------
    w, o, chance
        Parameters and options of the cell, and the effect of dropout and zoneout on this step.
    x : ndarray (B, I)
        Input.
    h_old, c_old : ndarray (B, R), (B, H)
        State after the previous step.

    Returns
    -------
    Step
    """
    s, t, u = o.activations
    q_norm = r_norm = c_new_norm = v_norm = None

    q = x @ w.weight_ih.T
    r = (h_old * chance.recurrent) @ w.weight_hh.T
    if o.layer_norm is not None:
        q_norm, r_norm = normalise(q, o.layer_norm_eps), normalise(r, o.layer_norm_eps)
        q, r = w.norm_ih * q_norm.value, w.norm_hh * r_norm.value
    a = q + r if w.bias is None else q + r + w.bias
    if o.elman:
        h = activation(s, a)
        return Step(x, h_old, c_old, None, None, (a,), (h,), c_old, None, c_old, None, c_old, h, h, h, c_old)

    a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
    if w.peephole is not None:
        a_i, a_f = a_i + w.peephole[0] * c_old, a_f + w.peephole[1] * c_old
    i = activation(s, clip(a_i, o.gate_clip))
    f = 1.0 - i if o.coupled else activation(s, clip(a_f, o.gate_clip))
    g = activation(t, clip(a_g, o.gate_clip))

    raw = f * c_old + i * g
    c_new = clip(raw, o.cell_clip)
    if o.layer_norm == "cell":
        assert w.norm_c is not None
        c_new_norm = normalise(c_new, o.layer_norm_eps)
        c_new = w.norm_c[0] * c_new_norm.value + w.norm_c[1]

    if w.peephole is not None:
        a_o = a_o + w.peephole[2] * c_new
    out = activation(s, clip(a_o, o.gate_clip))
    v = c_new
    if o.layer_norm == "output":
        assert w.norm_c is not None
        v_norm = normalise(c_new, o.layer_norm_eps)
        v = w.norm_c[0] * v_norm.value + w.norm_c[1]
    m = out * activation(u, clip(v, o.gate_clip))
    z = m if w.weight_hr is None else m @ w.weight_hr.T

    h = mix(chance.h, h_old, clip(z, o.proj_clip))
    c = mix(chance.c, c_old, c_new)
    args = (a_i, a_f, a_g, a_o)
    return Step(x, h_old, c_old, q_norm, r_norm, args, (i, f, g, out), raw, c_new_norm, c_new, v_norm, v, m, z, h, c)


def backward(
    w: Weights, o: Options, chance: Chance, step: Step, dh: Array, dc: Array, grads: dict[str, Array]
) -> tuple[Array, Array, Array, Array]:
    """Compute the gradients of one step.

    Parameters
    ----------
    w, o, chance, step
        Arguments of `forward`, and its result.
    dh, dc : ndarray (B, R), (B, H)
        Gradients of ``step.h`` and ``step.c``.
    grads : dict
        Gradients of the parameters by the names of `Weights`; this step's are added in place.

    Returns
    -------
    dx, dh_old, dc_old : ndarray (B, I), (B, R), (B, H)
        Gradients of x, h_old and c_old.
    dc_sum : ndarray (B, H)
        dc plus the gradient that reaches the new cell value through m.
    """
    s, t, u = o.activations
    if o.elman:
        da = dh * slope(s, step.args[0])
        dx, dh_old = _products_back(w, chance, step, da, grads)
        return dx, dh_old, dc, dc

    a_i, a_f, a_g, a_o = step.args
    i, f, g, out = step.gates
    dh_old, dz = mix(chance.h, dh, 0.0), mix(chance.h, 0.0, dh)
    dc_old, dc_new = mix(chance.c, dc, 0.0), mix(chance.c, 0.0, dc)

    dm = dz
    if w.weight_hr is not None:
        if o.proj_clip is not None:  # also on the bound: a clipped z lies exactly there
            dz = np.where(np.abs(step.z) >= o.proj_clip, 0.0, dz)
        grads["weight_hr"] += dz.T @ step.m
        dm = dz @ w.weight_hr
    do = dm * activation(u, clip(step.v, o.gate_clip))
    through_m = clip_back(dm * out * slope(u, clip(step.v, o.gate_clip)), step.v, o.gate_clip)
    if step.v_norm is not None:
        through_m = _scale_back(w.norm_c, step.v_norm, through_m, grads)
    da_o = clip_back(do * slope(s, clip(a_o, o.gate_clip)), a_o, o.gate_clip)
    if w.peephole is not None:
        grads["peephole"][2] += (da_o * step.c_new).sum(axis=0)
        through_m = through_m + w.peephole[2] * da_o
    dc_sum, dc_new = dc + through_m, dc_new + through_m

    if step.c_new_norm is not None:
        dc_new = _scale_back(w.norm_c, step.c_new_norm, dc_new, grads)
    dc_new = clip_back(dc_new, step.raw, o.cell_clip)
    dc_old = dc_old + dc_new * f
    di, df, dg = dc_new * g, dc_new * step.c_old, dc_new * i
    if o.coupled:
        di, df = di - df, np.zeros_like(df)
    da_i = clip_back(di * slope(s, clip(a_i, o.gate_clip)), a_i, o.gate_clip)
    da_f = clip_back(df * slope(s, clip(a_f, o.gate_clip)), a_f, o.gate_clip)
    da_g = clip_back(dg * slope(t, clip(a_g, o.gate_clip)), a_g, o.gate_clip)
    if w.peephole is not None:
        grads["peephole"][0] += (da_i * step.c_old).sum(axis=0)
        grads["peephole"][1] += (da_f * step.c_old).sum(axis=0)
        dc_old = dc_old + w.peephole[0] * da_i + w.peephole[1] * da_f

    dx, through_r = _products_back(w, chance, step, np.concatenate((da_i, da_f, da_g, da_o), axis=1), grads)
    return dx, dh_old + through_r, dc_old, dc_sum


def _products_back(w: Weights, chance: Chance, step: Step, da: Array, grads: dict[str, Array]) -> tuple[Array, Array]:
    """Return the gradients of x and h' from those of the gates' arguments; add those of the parameters to `grads`."""
    dq = dr = da
    if w.bias is not None:
        grads["bias"] += da.sum(axis=0)
    if step.q is not None and step.r is not None:
        grads["norm_ih"] += (da * step.q.value).sum(axis=0)
        grads["norm_hh"] += (da * step.r.value).sum(axis=0)
        dq, dr = normalise_back(da * w.norm_ih, step.q), normalise_back(da * w.norm_hh, step.r)
    grads["weight_ih"] += dq.T @ step.x
    grads["weight_hh"] += dr.T @ (step.h_old * chance.recurrent)
    return dq @ w.weight_ih, (dr @ w.weight_hh) * chance.recurrent


def _scale_back(norm_c: Array | None, norm: Norm, d: Array, grads: dict[str, Array]) -> Array:
    """Return the gradient of a in norm_c[0] * N(a) + norm_c[1]; add that of norm_c to `grads`."""
    assert norm_c is not None
    grads["norm_c"][0] += (d * norm.value).sum(axis=0)
    grads["norm_c"][1] += d.sum(axis=0)
    return normalise_back(d * norm_c[0], norm)
