"""Constructor options, validated, and the sizes that follow from them."""

from __future__ import annotations

import warnings
from typing import Any, Generic, NamedTuple, TypeVar, cast, overload

import numpy as np

from . import _check

Activation = str | tuple[str] | tuple[str, float] | tuple[str, float, float]

Value = TypeVar("Value")

# Default alpha and beta of each activation that has them.
ACTIVATIONS: dict[str, tuple[float, ...]] = {
    "sigmoid": (),
    "tanh": (),
    "relu": (),
    "hard_sigmoid": (0.2, 0.5),
    "affine": (1.0, 0.0),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "scaled_tanh": (1.0, 1.0),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}


class Options(NamedTuple):  # not a dataclass: that would be most of what importing quadgate costs
    """The arguments of `quadgate.LSTM` and `quadgate.RNN`, validated by `checked`.

    The defaults are those of both classes; `nonlinearity` is None in an LSTM and no argument of it.
    """

    input_size: int
    hidden_size: int
    num_layers: int = 1
    nonlinearity: str | None = None
    bias: bool = True
    batch_first: bool = False
    bidirectional: bool = False
    dropout: float = 0.0
    proj_size: int = 0
    peephole: bool = False
    coupled: bool = False
    activations: tuple[Activation, Activation, Activation] = ("sigmoid", "tanh", "tanh")
    cell_clip: float | None = None
    proj_clip: float | None = None
    gate_clip: float | None = None
    layer_norm: str | None = None
    layer_norm_eps: float = 1e-5
    recurrent_dropout: float = 0.0
    weight_drop: float = 0.0
    zoneout: tuple[float, float] = (0.0, 0.0)
    reverse: bool = False
    merge: str = "concat"
    shortcut: str | None = None
    initialization: str = "pytorch"
    forget_bias: float | None = None
    dtype: np.dtype[Any] = np.dtype(np.float32)

    def checked(self) -> Options:
        """Return the same with every value converted to its field's type, or raise what is wrong with it."""
        result = self._replace(**_converted(self))
        _refuse_unrepresentable(result)
        _refuse_pairs(result)
        return result

    @property
    def elman(self) -> bool:
        """True for a plain recurrent network, False for an LSTM."""
        return self.nonlinearity is not None

    @property
    def gates(self) -> int:
        """Blocks of H rows in weight_ih: 4, or 1 without gates."""
        return 1 if self.elman else 4

    @property
    def directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    @property
    def state_columns(self) -> int:
        """R: columns of h, the projection's if there is one."""
        return self.proj_size or self.hidden_size

    @property
    def cell_columns(self) -> int:
        """Columns of c: H, or 0 where there are no cells."""
        return 0 if self.elman else self.hidden_size

    @property
    def outputs(self) -> int:
        """O: columns of y and of every layer's output."""
        return self.state_columns * (self.directions if self.merge == "concat" else 1)

    @property
    def y_is_h(self) -> bool:
        """False if y is more than the last layer's h."""
        return self.num_layers == 1 or self.shortcut in (None, "dense")

    def inputs(self, layer: int) -> int:
        """Return the columns of a layer's input."""
        if self.shortcut == "dense":
            return self.input_size + layer * self.outputs
        return self.input_size if layer == 0 else self.outputs

    def suffixes(self, layer: int) -> tuple[str, ...]:
        """Return the endings of the names of a layer's parameters, one for each direction."""
        return (f"_l{layer}", f"_l{layer}_reverse")[: self.directions]

    def core(self) -> dict[str, Any] | None:
        """Return the options that the compiled core takes besides the sizes: those unlike their defaults, or None."""
        result = {name: value for name, value in self.changed().items() if name not in _NOT_IN_CORE}
        if self.num_layers == 1:  # dropout has no effect there
            result.pop("dropout", None)
        if self.elman:
            result["elman"] = True
            result["activations"] = [(self.nonlinearity, 0.0, 0.0)] * 3
        elif "activations" in result:
            result["activations"] = [(*of, 0.0, 0.0)[:3] for of in map(_whole, self.activations)]
        return result or None

    def changed(self) -> dict[str, Any]:
        """Return, by name, the options that differ from their defaults."""
        defaults = self._field_defaults  # the two sizes have none
        return {name: getattr(self, name) for name, default in defaults.items() if getattr(self, name) != default}

    def arguments(self) -> dict[str, Any]:
        """Return all by name, as plain Python values: ``Options.of(arguments)`` is an equal object."""
        return {**self._asdict(), "dtype": self.dtype.name}

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> Options:
        """Return checked options from a mapping of names to values. Raises TypeError, ValueError."""
        unknown = arguments.keys() - set(cls._fields)
        if unknown:
            raise ValueError(f"unknown options: {', '.join(sorted(map(str, unknown)))}")
        if not {"input_size", "hidden_size"} <= arguments.keys():
            raise ValueError("the options must have input_size and hidden_size")
        return cls(**arguments).checked()

    def warn(self, stacklevel: int) -> None:
        """Warn of options without effect, as PyTorch does."""
        if self.dropout and self.num_layers == 1:
            text = f"dropout={self.dropout} has no effect with num_layers=1: it acts between layers"
            warnings.warn(text, UserWarning, stacklevel=stacklevel + 1)


# The options that the core is given in other ways, or not at all.
_NOT_IN_CORE = frozenset(
    ("num_layers", "nonlinearity", "bias", "batch_first", "bidirectional", "initialization", "forget_bias", "dtype")
)

_LSTM_ONLY = frozenset(
    ("proj_size", "peephole", "coupled", "activations", "cell_clip", "proj_clip", "gate_clip", "layer_norm")
) | {"layer_norm_eps", "zoneout", "forget_bias"}


class Option(Generic[Value]):
    """A read-only property of a network: the option of the same name."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, net: None, owner: type | None = None) -> Option[Value]: ...
    @overload
    def __get__(self, net: object, owner: type | None = None) -> Value: ...
    def __get__(self, net: Any, owner: type | None = None) -> Option[Value] | Value:
        if net is None:
            return self
        return cast("Value", getattr(net._options, self._name))

    def __set__(self, net: object, value: Value) -> None:
        raise AttributeError(f"{self._name} of a network cannot be set: make another network")


def _converted(o: Options) -> dict[str, Any]:
    """Return every field's value, converted to its own type."""
    result: dict[str, Any] = {name: _check.size(getattr(o, name), name) for name in ("input_size", "hidden_size")}
    result["num_layers"] = _check.size(o.num_layers, "num_layers")
    result["proj_size"] = _check.size(o.proj_size, "proj_size", zero=True)
    for name in ("bias", "batch_first", "bidirectional", "peephole", "coupled", "reverse"):
        result[name] = _check.flag(getattr(o, name), name)
    for name in ("dropout", "recurrent_dropout", "weight_drop"):
        result[name] = _check.probability(getattr(o, name), name)
    for name in ("cell_clip", "proj_clip", "gate_clip"):
        value = getattr(o, name)
        result[name] = None if value is None else _check.positive(value, name)
    result["layer_norm_eps"] = _check.positive(o.layer_norm_eps, "layer_norm_eps")
    result["forget_bias"] = None if o.forget_bias is None else _check.number(o.forget_bias, "forget_bias")
    if o.elman:
        result["nonlinearity"] = _check.choice(o.nonlinearity, "nonlinearity", ("tanh", "relu"))
    result["layer_norm"] = _check.choice(o.layer_norm, "layer_norm", (None, "output", "cell"))
    result["merge"] = _check.choice(o.merge, "merge", ("concat", "sum", "mul", "mean"))
    result["shortcut"] = _check.choice(o.shortcut, "shortcut", (None, "residual", "highway", "dense"))
    result["initialization"] = _check.choice(o.initialization, "initialization", ("pytorch", "keras"))
    if not isinstance(o.zoneout, (tuple, list)) or len(o.zoneout) != 2:
        raise TypeError(f"zoneout must be a pair of probabilities (of h, of c), got {_check.shown(o.zoneout)}")
    result["zoneout"] = tuple(_check.probability(p, f"zoneout[{k}]") for k, p in enumerate(o.zoneout))
    if not isinstance(o.activations, (tuple, list)) or len(o.activations) != 3:
        raise TypeError(
            f"activations must be three: of the gates, the cell and the output; got {_check.shown(o.activations)}"
        )
    result["activations"] = tuple(_activation(a, f"activations[{k}]") for k, a in enumerate(o.activations))
    result["dtype"] = _check.float_type(o.dtype)
    return result


def _refuse_unrepresentable(o: Options) -> None:
    """Raise ValueError for a number that the network's type would make infinite or, where it must not be, 0."""
    info = np.finfo(o.dtype)
    most, least = float(info.max), float(info.tiny)
    numbers = {name: getattr(o, name) for name in ("cell_clip", "proj_clip", "gate_clip", "layer_norm_eps")}
    numbers["forget_bias"] = o.forget_bias
    for k, function in enumerate(o.activations):
        if not isinstance(function, str):
            numbers |= {f"activations[{k}]'s {n}": v for n, v in zip(("alpha", "beta"), function[1:], strict=False)}
    for name, value in numbers.items():
        positive = name.endswith(("clip", "eps"))
        if value is not None and (abs(value) > most or (positive and value < least)):
            raise ValueError(f"{name} must be a number that {o.dtype} can hold, got {value}")


def _refuse_pairs(o: Options) -> None:
    """Raise ValueError for two arguments that make no sense together."""
    if o.reverse and o.bidirectional:
        raise ValueError("reverse=True and bidirectional=True exclude each other: bidirectional reads both ways")
    if o.merge != "concat" and not o.bidirectional:
        raise ValueError(f"merge={o.merge!r} needs bidirectional=True: one direction has nothing to be joined with")
    if o.shortcut and o.num_layers == 1:
        raise ValueError(f"shortcut={o.shortcut!r} needs num_layers of 2 or more: it acts between layers, got 1")
    if o.elman:
        for name in _LSTM_ONLY & o.changed().keys():
            raise ValueError(f"{name} is an option of an LSTM, not of an RNN")
    if o.proj_clip is not None and not o.proj_size:
        raise ValueError(f"proj_clip={o.proj_clip} needs proj_size: there is no projection to clip")
    if o.forget_bias is not None and o.coupled:
        raise ValueError(f"forget_bias={o.forget_bias} and coupled=True exclude each other: f is 1 - i, without a bias")
    if o.forget_bias is not None and not o.bias:
        raise ValueError(f"forget_bias={o.forget_bias} and bias=False exclude each other: there are no biases")


def _activation(value: object, name: str) -> Activation:
    """Return an activation with the numbers that it needs: its name alone where they are the defaults."""
    parts = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not 1 <= len(parts) <= 3 or not isinstance(parts[0], str):
        raise TypeError(f"{name} must be a name, (name, alpha) or (name, alpha, beta), got {_check.shown(value)}")
    function = str(parts[0])  # not a subclass of it, which pickles would hold
    if function not in ACTIVATIONS:
        raise ValueError(f"{name} must be one of {', '.join(ACTIVATIONS)}, got {_check.shown(function)}")
    defaults = ACTIVATIONS[function]
    if len(parts) - 1 > len(defaults):
        takes = ("neither alpha nor beta", "alpha, but no beta")[len(defaults)]
        raise ValueError(f"{name}: {function} takes {takes}, got {_check.shown(value)}")
    given = tuple(_check.number(p, f"{name}'s {n}") for p, n in zip(parts[1:], ("alpha", "beta"), strict=False))
    numbers = given + defaults[len(given) :]
    if numbers == defaults:
        return function
    return (function, numbers[0]) if len(numbers) == 1 else (function, numbers[0], numbers[1])


def _whole(value: Activation) -> tuple[Any, ...]:
    """Return (name, alpha, ...) with all the numbers that the activation has."""
    return (value, *ACTIVATIONS[value]) if isinstance(value, str) else value
