"""Losses: a number and its gradient with respect to a model's outputs, in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _check, _core
from ._layer import _rows, _unrowed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


Result = tuple[float, "Array | None"]  # sum of w * l, and the gradient of that divided by the divisor
Function = Callable[["Array", Any, "Array | None", float, bool], Result]  # outputs, targets, w, divisor, gradient
Positions = tuple["Array", Callable[[], "Array"]]
Names = tuple[str, str]  # of the targets and of the weights, for errors

NAMES: Names = ("targets", "weights")


class Part(NamedTuple):
    """Loss of a part of a batch, not yet divided: a batch's is sum(total) / sum(weight) over its parts.

    Attributes
    ----------
    total : float
        Sum of w * l over the positions that count.
    weight : float
        Sum of w over them.
    doutputs : array of the outputs' shape and type, or None
        Gradient of total / divisor.
    """

    total: float
    weight: float
    doutputs: Array | None


class Loss:
    """A loss, the mean of l over the positions of a batch: ``sum(w * l) / sum(w)``.

    A position is a row, or a step of a row: outputs (B, C) have B positions, (B, T, C) have B * T. w is the weight of a
    position, 1 without ``weights``, and 0 where it is masked or past its row's length: what the outputs and targets
    hold there is ignored. If all weights are 0, the loss is 0. `Sequential.compile` takes one by its name.

    ============================================================ ==============================================
    name                                                         l of a position
    ============================================================ ==============================================
    softmax_cross_entropy, sparse_categorical_crossentropy       -log softmax(z)[target], z the logits
    categorical_crossentropy                                     -sum(p log softmax(z)), p the target
    mse, mean_squared_error                                      mean over C of (y - t)^2
    mae, mean_absolute_error                                     mean over C of abs(y - t)
    huber                                                        mean over C of d^2 / 2, beyond 1 abs(d) - 1/2
    binary_cross_entropy, binary_crossentropy                    mean over C of -t log s(z) - (1 - t) log(1 - s(z))
    ============================================================ ==============================================

    All cross-entropies take logits, as Keras's do with ``from_logits=True``: leave the softmax or sigmoid out of the
    last layer.

    ``softmax_cross_entropy`` takes probabilities of the outputs' shape as targets, too.

    Attributes
    ----------
    name : str
        Its first name.
    """

    __slots__ = ("_function", "name")

    def __init__(self, name: str, function: Function):
        self.name, self._function = name, function

    def __call__(
        self,
        outputs: Array,
        targets: Any,
        *,
        weights: Any = None,
        mask: Any = None,
        lengths: Any = None,
    ) -> tuple[float, Array]:
        """Return the loss and its gradient.

        Parameters
        ----------
        outputs : array (B, C) or (B, T, C), float32 or float64
            From the model; logits for the two cross-entropies.
        targets : array
            Of the outputs' shape, probabilities for the cross-entropies; or class numbers (B,) or (B, T) for
            ``softmax_cross_entropy``. With C = 1 the last axis may be left out.
        weights : array (B,) or of the positions' shape, optional
            Weights of rows or of positions, not negative.
        mask : array of bool of the positions' shape, optional
            False for positions that do not count.
        lengths : array of int (B,), optional
            Steps of each row that count; for outputs of three axes only.

        Returns
        -------
        value : float
        doutputs : array of the outputs' shape and type

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        """
        if not isinstance(outputs, np.ndarray) or outputs.dtype not in (np.float32, np.float64):
            got = outputs.dtype if isinstance(outputs, np.ndarray) else type(outputs).__name__
            raise TypeError(f"outputs must be an array of float32 or float64, got {got}")
        part = self.part(outputs, targets, weights=weights, mask=mask, lengths=lengths)
        assert part.doutputs is not None
        return (part.total / part.weight if part.weight else 0.0), part.doutputs

    def part(
        self,
        outputs: Array,
        targets: Any,
        *,
        weights: Any = None,
        mask: Any = None,
        lengths: Any = None,
        divisor: float | None = None,
        gradient: bool = True,
        names: Names = NAMES,
    ) -> Part:
        """Return the sums of a part of a batch, and the gradient divided by `divisor`: by default its own weight.

        Raises
        ------
        TypeError, ValueError
            If targets, weights, mask or lengths do not fit the outputs.
        """
        w = position_weights(outputs.shape[:-1], weights, mask, lengths, names)
        weight = float(math.prod(outputs.shape[:-1])) if w is None else float(w.sum())
        d = (weight if divisor is None else divisor) or 1.0
        if self._function in _FIRST.values():
            targets = _read(targets, outputs.shape, self._function is _softmax, names[0])
            if self.name in _OF_PROBABILITIES and targets.shape == outputs.shape:
                _require_probabilities(targets, w, names[0])
        try:
            total, doutputs = self._function(outputs, targets, w, d, gradient)
        except IndexError:
            if self._function is not _softmax:
                raise
            wrong = (targets < 0) | (targets >= outputs.shape[-1])
            first = targets[wrong if w is None else wrong & (w > 0)][0]
            needed = f"{names[0]} must be from 0 to {outputs.shape[-1] - 1}"
            raise ValueError(f"class numbers: {needed}, got {first}") from None
        return Part(total, weight, doutputs)

    def weight(
        self,
        shape: tuple[int, ...],
        *,
        weights: Any = None,
        mask: Any = None,
        lengths: Any = None,
        names: Names = NAMES,
    ) -> float:
        """Return the sum of w over positions of this shape, the outputs' without its last axis: a batch's divisor."""
        w = position_weights(shape, weights, mask, lengths, names)
        return float(math.prod(shape)) if w is None else float(w.sum())

    def __repr__(self) -> str:
        return f"<loss {self.name}>"


def position_weights(
    shape: tuple[int, ...], weights: Any, mask: Any, lengths: Any, names: Names = NAMES
) -> Array | None:
    """Return the weight of every position, float64 of this shape; None if all are 1."""
    result = None
    if weights is not None:
        given = _check.array(weights, names[1]).astype(np.float64)
        if given.shape not in (shape, shape[:1]):
            known = " or ".join(map(str, dict.fromkeys((shape[:1], shape))))
            raise ValueError(f"{names[1]} must have shape {known}, got {given.shape}")
        if not (given >= 0).all():
            raise ValueError(f"{names[1]} must be 0 or more, got {given[~(given >= 0)][0]}")
        result = np.array(np.broadcast_to(given.reshape(given.shape + (1,) * (len(shape) - given.ndim)), shape))
    if lengths is not None:
        if len(shape) != 2:
            raise ValueError(f"lengths need outputs (B, T, C), got positions {shape}")
        read = _check.array(lengths, "lengths", _check.WHOLE)
        n = _check.lengths(read, shape[1], shape[0], batched=True, of="outputs")
        counts = np.arange(shape[1]) < n[:, None]
        result = counts.astype(np.float64) if result is None else result * counts
    if mask is not None:
        counts = _check.bools(_check.array(mask, "mask", _check.BOOLS, "biu"), "mask", shape)
        result = counts.astype(np.float64) if result is None else result * counts
    return result


def get(loss: str | Loss) -> Loss:
    """Return a loss by its name or one of Keras's names, or the given one.

    `Loss` has the table of names.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or the name is unknown.
    """
    if isinstance(loss, Loss):
        return loss
    _check.choice(loss, "loss", tuple(LOSSES))
    return LOSSES[loss]


def _read(targets: Any, shape: tuple[int, ...], classes: bool, name: str) -> Array:
    """Return targets of the outputs' shape, or where `classes` are allowed of its leading axes."""
    if classes and np.shape(targets) != shape:
        t = _check.array(targets, name, "class numbers (integers)", "iu")
        if t.shape != shape[:-1]:
            raise ValueError(f"{name} must have shape {shape[:-1]}, got {t.shape}")
        return t
    t = _check.array(targets, name)
    if t.shape == shape[:-1] and shape[-1] == 1:
        t = t[..., None]
    if t.shape != shape:
        raise ValueError(f"{name} must have the outputs' shape {shape}, got {t.shape}")
    return t


def _require_probabilities(targets: Array, w: Array | None, name: str) -> None:
    """Raise ValueError for a target that counts and is none, as -1 for a class: the loss would fall without end."""
    wrong = (targets < -_ROUNDED) | (targets > 1 + _ROUNDED)  # NaN makes the loss NaN, which is refused later
    if w is not None:
        wrong &= w[..., None] > 0
    if wrong.any():
        raise ValueError(f"{name} must be probabilities, from 0 to 1, got {targets[wrong][0]}")


def _softmax(outputs: Array, targets: Array, w: Array | None, divisor: float, gradient: bool) -> Result:
    if targets.shape == outputs.shape:
        return _soft(outputs, targets, w, divisor, gradient)
    t = targets
    rows, swapped = _rows(outputs)
    if swapped:
        t, w = t.T, None if w is None else w.T
    t = np.ascontiguousarray(t, np.int64).reshape(-1)
    total, d = _core.softmax_cross_entropy(
        rows, t, None if w is None else np.ascontiguousarray(w).reshape(-1), divisor, gradient
    )
    return total, None if d is None else _unrowed(d, outputs.shape, swapped)


def _plain(function: Callable[[Array, Array], tuple[Array, Callable[[], Array]]]) -> Function:
    """Return the loss of a function (outputs, targets) -> (loss of each position, function that makes the slope)."""

    def apply(outputs: Array, t: Array, w: Array | None, divisor: float, gradient: bool) -> Result:
        if w is not None:  # nothing that the others hold may reach the result, NaN least of all
            outputs, t = (np.where(w[..., None] > 0, a, a.dtype.type(0)) for a in (outputs, t))
        with np.errstate(under="ignore"):
            each, slope = function(outputs, t.astype(outputs.dtype, copy=False))
            total = float((each if w is None else each * w).sum(dtype=np.float64))
            if not gradient:
                return total, None
            scale = 1.0 / divisor if w is None else (w / divisor)[..., None].astype(outputs.dtype)
            return total, (slope() * scale).astype(outputs.dtype, copy=False)

    return apply


def _soft_of(z: Array, t: Array) -> Positions:
    z = z - z.max(-1, keepdims=True)
    e = np.exp(z)
    s = e.sum(-1, keepdims=True)
    return (t * (np.log(s) - z)).sum(-1), lambda: e / s * t.sum(-1, keepdims=True) - t


def _mse(y: Array, t: Array) -> Positions:
    d = y - t
    return (d * d).mean(-1), lambda: d * (2.0 / d.shape[-1])


def _mae(y: Array, t: Array) -> Positions:
    d = y - t
    return np.abs(d).mean(-1), lambda: np.sign(d) / d.shape[-1]


def _huber(y: Array, t: Array) -> Positions:
    d = y - t
    near = np.clip(d, -1, 1)
    return (near * (d - near / 2)).mean(-1), lambda: near / d.shape[-1]


def _binary(z: Array, t: Array) -> Positions:
    e = np.exp(-np.abs(z))
    each = np.maximum(z, 0) - z * t + np.log1p(e)
    return each.mean(-1), lambda: (np.where(z >= 0, 1 / (1 + e), e / (1 + e)) - t) / z.shape[-1]


_soft = _plain(_soft_of)
_FIRST: dict[str, Function] = {
    "softmax_cross_entropy": _softmax,
    "categorical_crossentropy": _soft,
    "mse": _plain(_mse),
    "mae": _plain(_mae),
    "huber": _plain(_huber),
    "binary_cross_entropy": _plain(_binary),
}
LOSSES = {name: Loss(name, function) for name, function in _FIRST.items()}
LOSSES |= {
    "sparse_categorical_crossentropy": LOSSES["softmax_cross_entropy"],
    "mean_squared_error": LOSSES["mse"],
    "mean_absolute_error": LOSSES["mae"],
    "binary_crossentropy": LOSSES["binary_cross_entropy"],
}

# Losses whose targets of the outputs' shape are probabilities, and what rounding may add to one.
_OF_PROBABILITIES = ("softmax_cross_entropy", "categorical_crossentropy", "binary_cross_entropy")
_ROUNDED = 1e-3

# Head of a model -> names of the losses that take its logits.
HEADS = {
    "softmax": ("softmax_cross_entropy", "categorical_crossentropy"),
    "sigmoid": ("binary_cross_entropy",),
}


def require_fitting(loss: Loss, head: str | None) -> None:
    """Raise ValueError for a loss that does not take the logits of a model's head."""
    if head is not None and loss.name not in HEADS[head]:
        raise ValueError(f"a model with head={head!r} needs the loss {HEADS[head][0]}, got {loss.name}")


def require_logits(loss: Loss, layers: Sequence[Any]) -> None:
    """Raise ValueError for a cross-entropy behind a sigmoid: it applies its own, and hardly learns through two."""
    if loss.name in HEADS["softmax"] + HEADS["sigmoid"] and getattr(layers[-1], "activation", None) == "sigmoid":
        raise ValueError(
            f"the loss {loss.name} takes logits, and the last layer has activation='sigmoid': leave it out; "
            "Sequential(..., head='sigmoid') makes predict return probabilities"
        )
