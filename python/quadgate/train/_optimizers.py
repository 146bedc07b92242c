"""Optimizers: new parameters and a new state from gradients, in memory of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import _check, _core
from .._pickling import Slotted
from ._commit import lay_out, vector, views
from ._schedules import Rate, WarmupCosine
from ._state import State, _copied, spare  # noqa: F401  # _copied: former pickles name it by this module

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


_OF_TORCH = {"lr": "learning_rate", "betas": "beta_1 and beta_2", "eps": "epsilon"}


class Optimizer(Slotted):
    """Base of the optimizers: learning rate and clipping.

    Every parameter moves in every step, as in PyTorch. With ``clip_norm`` all gradients together are scaled down to
    this Euclidean norm if theirs is larger; Keras's ``global_clipnorm`` is another name for it. They are divided by
    their norm, where ``torch.nn.utils.clip_grad_norm_`` divides by the norm + 1e-6. Keras's ``clipnorm`` does so for
    each parameter by itself. ``clip_value`` (Keras's ``clipvalue``) bounds each number.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of its range, or if two bounds are given.
    """

    __slots__ = ("clip_each", "clip_norm", "clip_value", "learning_rate")

    _slots: ClassVar[tuple[str, ...]] = ()
    _needed: ClassVar[bool] = True  # False if a number decides: SGD has no slots while momentum is 0
    _numbers: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        learning_rate: float | Rate,
        clip_norm: float | None,
        clip_value: float | None,
        aliases: Mapping[str, float | None],
    ) -> None:
        if not callable(learning_rate):
            learning_rate = _check.number(learning_rate, "learning_rate", "a number of 0 or more, or a schedule")
            if learning_rate < 0:
                raise ValueError(f"learning_rate must be 0 or more, got {learning_rate}")
        self.learning_rate = learning_rate
        known = {"clipnorm": None, "clipvalue": None, "global_clipnorm": None}
        for name in aliases:
            if name not in known:
                names = [*known, "learning_rate", *self._numbers, "clip_norm", "clip_value"]
                ours = f": it is {_OF_TORCH[name]} here" if name in _OF_TORCH else _check.did_you_mean(name, names)
                raise TypeError(f"{type(self).__name__}() got an unexpected keyword argument {name!r}{ours}")
        given = {"clip_norm": clip_norm, "clip_value": clip_value, **known, **aliases}
        read = {name: None if value is None else _check.positive(value, name) for name, value in given.items()}
        for one, other in (("clip_norm", "global_clipnorm"), ("clip_value", "clipvalue")):
            if read[one] is not None and read[other] is not None:
                raise ValueError(f"{one} and {other} are two names for one bound: pass only one of them")
        self.clip_norm = read["clip_norm"] or read["global_clipnorm"]
        self.clip_value = read["clip_value"] or read["clipvalue"]
        self.clip_each = read["clipnorm"]
        if (self.clip_norm, self.clip_value, self.clip_each).count(None) < 2:
            raise ValueError("only one of clip_norm, clipnorm and clip_value can be given")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0.

        Raises
        ------
        TypeError, ValueError
            If it is, or a schedule returns, anything but a finite number of 0 or more.
        """
        given = self.learning_rate(step) if callable(self.learning_rate) else self.learning_rate
        rate = _check.number(given, f"the learning rate of step {step}", "a number of 0 or more")
        if rate < 0:
            raise ValueError(f"the learning rate of step {step} must be 0 or more, got {rate}")
        return rate

    def start(self, params: Sequence[Array]) -> State:
        """Return the state before the first step, for parameters of one type in this order."""
        return self.restore(params, 0, {name: [np.zeros_like(p) for p in params] for name in self._used()})

    def restore(self, params: Sequence[Array], step: int, slots: Mapping[str, Sequence[Array]]) -> State:
        """Return a state with the given step and running means, for example from a file.

        Raises
        ------
        ValueError
            If the names or shapes are not those of this optimizer and these parameters.
        """
        dtype, shapes = _type_and_shapes(params)
        whole = self.complete(slots, shapes, dtype)
        return State(step, {name: lay_out(means, dtype)[1] for name, means in whole.items()}, None)

    def complete(
        self, slots: Mapping[str, Sequence[Array]], shapes: list[tuple[int, ...]], dtype: np.dtype[Any]
    ) -> dict[str, list[Array]]:
        """Return the running means, with zeros for those that are needed only since a number was changed.

        SGD needs some once its momentum is above 0. Means that are no longer needed are kept, as in torch.

        Raises
        ------
        ValueError
            If the names or shapes are not those of this optimizer and these parameters, or their type cannot hold a
            number of the optimizer's.
        """
        self._refuse_unrepresentable(dtype)
        used, made = self._used(), {name: list(means) for name, means in slots.items()}
        if not made.keys() <= set(self._slots) or (self._needed and len(made) < len(self._slots)):
            wanted, got = (", ".join(names) or "no slots" for names in (used, slots))
            raise ValueError(f"the state must have {wanted}, got {got}: it is of another optimizer")
        for name, means in made.items():
            if [a.shape for a in means] != shapes:
                raise ValueError(f"{name} of the state must have the parameters' shapes")
        made.update((name, [np.zeros(shape, dtype) for shape in shapes]) for name in used if name not in made)
        return made

    def update(self, params: Sequence[Array], grads: Sequence[Array], state: State) -> tuple[list[Array], State]:
        """Return the next parameters and the next state; nothing that is passed in changes.

        Parameters
        ----------
        params, grads : sequences of arrays
            Parameters and gradients in the order of `start`, all of one type.
        state : State
            From `start` or the last update.

        Returns
        -------
        params : list of arrays
            Read-only, side by side in the vector ``state.flat``.
        state : State

        Raises
        ------
        ValueError
            If a gradient is missing or has another shape than its parameter, or the state is of another optimizer.
        """
        if not len(params) == len(grads) == len(next(iter(state.slots.values()), params)):
            raise ValueError(f"there must be a gradient and a state for each of {len(params)} parameters")
        dtype, shapes = _type_and_shapes(params)
        for k, (g, shape) in enumerate(zip(grads, shapes, strict=True)):
            if g.shape != shape:
                raise ValueError(f"gradient {k} must have its parameter's shape {shape}, got {g.shape}")
        self._refuse_unrepresentable(dtype)
        used, whole = self._used(), state.slots
        if tuple(whole) != used:  # seldom, and a look at all shapes is a tenth of a small step
            whole = self.complete(whole, shapes, dtype)
        size = sum(math.prod(shape) for shape in shapes) * dtype.itemsize
        if not size:
            return list(params), State(state.step + 1, state.slots, state.flat)
        plain = [_check.plain(g, dtype) for g in grads]
        slots = [whole[name] for name in used]
        blocks = [spare(state, size) for _ in range(1 + len(slots))]
        _core.optimize(self._numbers_of(state.step), list(params), plain, slots, self._scales(plain), blocks)
        flat, *means = (vector(block, dtype) for block in blocks)
        made = {name: views(mean, shapes) for name, mean in zip(used, means, strict=True)}
        new = State(state.step + 1, {**state.slots, **made}, flat)
        new._blocks, new._spare = blocks, list(state._blocks)
        return views(flat, shapes), new

    def _scales(self, grads: Sequence[Array]) -> list[float]:
        if self.clip_norm is None and self.clip_each is None:
            return [1.0] * len(grads)
        squares = _core.gradient_squares(list(grads))
        if self.clip_norm is not None:
            squares = [sum(squares)] * len(grads)
        bound = self.clip_norm or self.clip_each or 0.0
        return [bound / norm if (norm := math.sqrt(s)) > bound else 1.0 for s in squares]

    def _used(self) -> tuple[str, ...]:
        """Return the names of the running means that this optimizer updates."""
        return self._slots

    def _numbers_of(self, step: int) -> tuple[Any, ...]:
        """Return the numbers of a step for the core."""
        raise NotImplementedError

    def _refuse_unrepresentable(self, dtype: np.dtype[Any]) -> None:
        """Raise ValueError for a number that the parameters' type would make infinite or, where it must not be, 0."""

    def _bound(self) -> float:
        return math.inf if self.clip_value is None else self.clip_value

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values, with the class's name as "optimizer".

        Raises
        ------
        TypeError
            If the learning rate is a function that is not of this package: it cannot be saved.
        """
        rate: Any = self.learning_rate
        if isinstance(rate, WarmupCosine):
            rate = {"schedule": "WarmupCosine", **rate.config()}
        elif callable(rate):
            raise TypeError(
                f"the learning rate {rate!r} cannot be saved: use a number or train.WarmupCosine, to copy it too"
            )
        clips = {"clip_norm": self.clip_norm, "clip_value": self.clip_value, "clipnorm": self.clip_each}
        return {
            "optimizer": type(self).__name__,
            "learning_rate": rate,
            **{name: getattr(self, name) for name in self._numbers},
            **{name: value for name, value in clips.items() if value is not None},
        }

    def __repr__(self) -> str:
        arguments = {"learning_rate": self.learning_rate, **{name: getattr(self, name) for name in self._numbers}}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD``.

    ``u = momentum u + g``, then ``p -= rate u``; with ``nesterov`` ``p -= rate (g + momentum u)``.

    Parameters
    ----------
    learning_rate : float or callable
        Rate, or a schedule from the step (from 0) to the rate.
    momentum : float
        From 0 to below 1.
    nesterov : bool
        True for Nesterov's form.
    clip_norm, clip_value : float, optional
        Bounds of the gradient, see `Optimizer`; Keras's ``clipnorm``, ``clipvalue`` and ``global_clipnorm`` are taken
        too. Only one of them.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of its range, two bounds are given, or ``nesterov`` without momentum.
    """

    __slots__ = ("momentum", "nesterov")

    _slots = ("velocity",)
    _needed = False
    _numbers = ("momentum", "nesterov")

    def __init__(
        self,
        learning_rate: float | Rate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        **aliases: float | None,
    ) -> None:
        super().__init__(learning_rate, clip_norm, clip_value, aliases)
        self.momentum, self.nesterov = _fraction(momentum, "momentum"), _check.flag(nesterov, "nesterov")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov=True needs a momentum above 0")

    def _used(self) -> tuple[str, ...]:
        return self._slots if self.momentum else ()

    def _numbers_of(self, step: int) -> tuple[Any, ...]:
        return "sgd", self._bound(), self.momentum, self.rate(step), self.nesterov


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), as ``torch.optim.Adam``.

    ``m = beta_1 m + (1 - beta_1) g``, ``v = beta_2 v + (1 - beta_2) g^2``, and after step k (from 1)
    ``p -= rate / (1 - beta_1^k) m / (sqrt(v / (1 - beta_2^k)) + epsilon)``.

    Parameters
    ----------
    learning_rate : float or callable
        Rate, or a schedule from the step (from 0) to the rate.
    beta_1, beta_2 : float
        Decay of the running means of g and of g^2, from 0 to below 1.
    epsilon : float
        Added to the root; a number that the parameters' type can hold.
    clip_norm, clip_value : float, optional
        Bounds of the gradient, see `Optimizer`; Keras's ``clipnorm``, ``clipvalue`` and ``global_clipnorm`` are taken
        too. Only one of them.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of its range, or if two bounds are given.
    """

    __slots__ = ("beta_1", "beta_2", "epsilon")

    _slots = ("m", "v")
    _numbers: ClassVar[tuple[str, ...]] = ("beta_1", "beta_2", "epsilon")
    _decay = 0.0

    def __init__(
        self,
        learning_rate: float | Rate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        **aliases: float | None,
    ) -> None:
        super().__init__(learning_rate, clip_norm, clip_value, aliases)
        self.beta_1, self.beta_2 = _fraction(beta_1, "beta_1"), _fraction(beta_2, "beta_2")
        self.epsilon = _check.positive(epsilon, "epsilon")

    def _refuse_unrepresentable(self, dtype: np.dtype[Any]) -> None:
        info = np.finfo(dtype)
        if not float(info.tiny) <= self.epsilon <= float(info.max):  # as 0 it makes 0/0 of a gradient that is 0
            raise ValueError(f"epsilon must be a number that {dtype} can hold, got {self.epsilon}")

    def _numbers_of(self, step: int) -> tuple[Any, ...]:
        rate = self.rate(step)
        less = (1 - self.beta_1 ** (step + 1), 1 - self.beta_2 ** (step + 1))
        return "adam", self._bound(), self.beta_1, self.beta_2, self.epsilon, rate, 1 - rate * self._decay, *less


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), as ``torch.optim.AdamW``.

    Before Adam's move, ``p -= rate weight_decay p``, for every parameter.

    Parameters
    ----------
    learning_rate, beta_1, beta_2, epsilon, clip_norm, clip_value
        As in `Adam`.
    weight_decay : float
        0 or more.

    Raises
    ------
    TypeError, ValueError
        As `Adam`; also if ``weight_decay`` is below 0.
    """

    __slots__ = ("weight_decay",)

    _numbers = ("beta_1", "beta_2", "epsilon", "weight_decay")

    def __init__(
        self,
        learning_rate: float | Rate = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        **aliases: float | None,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, clip_norm=clip_norm, clip_value=clip_value, **aliases)
        self.weight_decay = _check.number(weight_decay, "weight_decay")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must be 0 or more, got {weight_decay}")

    @property
    def _decay(self) -> float:  # type: ignore[override]
        return self.weight_decay


OPTIMIZERS: dict[str, type[Any]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def get(optimizer: str | Optimizer) -> Optimizer:
    """Return an optimizer with its default numbers by its name, in any case, or the given one.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or the name is unknown.
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str):
        needed = f"{', '.join(map(repr, OPTIMIZERS))} or an optimizer, for example train.Adam(1e-3)"
        raise TypeError(f"optimizer must be {needed}, got {_check.shown(optimizer)}")
    made: Optimizer = OPTIMIZERS[_check.choice(optimizer.lower(), "optimizer", tuple(OPTIMIZERS))]()
    return made


def from_config(config: Mapping[str, Any]) -> Optimizer:
    """Return an optimizer from `Optimizer.config`.

    Raises
    ------
    ValueError
        If it is not from an optimizer of this module.
    """
    arguments = dict(config)
    name = arguments.pop("optimizer", None)
    kinds = {kind.__name__: kind for kind in OPTIMIZERS.values()}
    if name not in kinds:
        raise ValueError(f"unknown optimizer {name!r}")
    rate = arguments.get("learning_rate")
    if isinstance(rate, dict):
        rate = dict(rate)
        if rate.pop("schedule", None) != "WarmupCosine":
            raise ValueError(f"unknown schedule {arguments['learning_rate']!r}")
        arguments["learning_rate"] = WarmupCosine(**rate)
    # The constructor refuses it without a momentum, which may have been set to 0 later.
    nesterov = arguments.get("momentum") == 0 and arguments.get("nesterov") is True
    made: Any = kinds[name](**(arguments | {"nesterov": False} if nesterov else arguments))
    if nesterov:
        made.nesterov = True
    result: Optimizer = made
    return result


def _type_and_shapes(params: Sequence[Array]) -> tuple[np.dtype[Any], list[tuple[int, ...]]]:
    return params[0].dtype if params else np.dtype(np.float32), [p.shape for p in params]


def _fraction(value: float, name: str) -> float:
    result = _check.number(value, name, "a number from 0 to below 1")
    if not 0 <= result < 1:
        raise ValueError(f"{name} must be from 0 to below 1, got {result}")
    return result
