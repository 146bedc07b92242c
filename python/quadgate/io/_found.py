"""Contents of a file: one record for each network, and the way from a record to a network."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check
from .._network import refuse_unknown
from ..lstm import LSTM
from ..rnn import RNN
from . import _limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

IN_MEMORY = ("the arrays", "from_keras")  # sources that are no files: a wrong type is the caller's mistake
CLASSES: dict[str, Any] = {"LSTM": LSTM, "RNN": RNN}


@dataclass(frozen=True)
class Found:
    """A network in a file: its sizes, the options that the file has, and its parameters.

    Attributes
    ----------
    kind : str
        "LSTM" or "RNN", which `build` makes; or another kind of layer ("GRU", ...), which is listed only.
    name : str
        Value of ``name`` for `quadgate.io.load`: the prefix of the arrays, the layer or the node.
    input_size, hidden_size, num_layers, directions : int
        I, H, L and D.
    options : dict
        Other arguments of the constructor that the file tells.
    asks : dict
        From each argument that the file does not say, and that has no safe default, to the reason.
        `build` raises ValueError until it is given.
    notes : tuple of str
        Notes for the reader: arrays that were added together, assumptions, parts that quadgate does not do by itself.
    problem : str or None
        Why `build` cannot make this network.
    source : str
        The file's name, for messages.
    weights : str or None
        Type of the matrices of a quantised network, which `build` keeps as they are.

    Examples
    --------
    >>> import quadgate as qg
    >>> (found,) = qg.io.networks(qg.LSTM(64, 128, rng=0).state_dict())
    >>> found.kind, found.hidden_size
    ('LSTM', 128)
    >>> lstm = found.build(batch_first=True)
    """

    kind: str
    name: str
    input_size: int
    hidden_size: int
    num_layers: int = 1
    directions: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    asks: dict[str, str] = field(default_factory=dict)
    problem: str | None = None
    source: str = ""
    arrays: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    weights: str | None = None

    def build(self, **options: Any) -> LSTM | RNN:
        """Return the network.

        Parameters
        ----------
        **options
            Arguments of `quadgate.LSTM` or `quadgate.RNN` that the file does not say, or says otherwise, and what
            `asks` lists. The type of the arithmetic is that of the arrays, float64 or else float32, unless ``dtype`` is
            given. For a quantised network also ``weights``: "float32" for the numbers that its matrices stand for,
            exactly, in a network that can be trained. What follows from the arrays' shapes cannot be changed.

        Raises
        ------
        ValueError
            If something is missing that `asks` lists, the network has a `problem`, or an option contradicts the arrays.
        TypeError
            If an option is none that the class has.
        """
        where = f"{self.source}: {self.name or 'the network'}"
        if self.problem is not None:
            raise ValueError(f"{where}: {self.problem}")
        missing = [f"{option}= ({reason})" for option, reason in self.asks.items() if option not in options]
        if missing:
            raise ValueError(f"{where}: the file does not say, and it must be given: {'; '.join(missing)}")
        for name, array in self.arrays.items():
            if self.source not in IN_MEMORY and array.dtype.kind in "cSUOMm":
                raise ValueError(f"{where}: {name} holds {array.dtype}; real numbers are needed")
        needed, stored = _extent(self.arrays.values())
        if self.source not in IN_MEMORY and needed > _limits.most(stored):
            raise ValueError(f"{where}: its arrays need {needed} bytes, and the file has {stored} of them, many times")
        class_ = CLASSES[self.kind]
        weights = self.weights
        if weights is not None or "weights" in self.asks:
            types = ("float32", weights or "int8")
            weights = _check.choice(options.pop("weights", weights), "weights", types)
        known = inspect.signature(class_).parameters
        shape = self._sizes()
        refuse_unknown(options, known, f"{self.kind}()")
        for option in shape.keys() & options.keys():
            is_flag = isinstance(shape[option], bool)
            given = options[option]
            value = _check.flag(given, option) if is_flag else _check.size(given, option, zero=True)
            if value != shape[option]:
                raise ValueError(f"{where}: the arrays have {option}={shape[option]!r}, got {option}={value!r}")
        arrays = dict(self.arrays)
        if "forget_bias" in self.asks:
            forget_bias = forget_bias_of(options.pop("forget_bias"), options)
            arrays = add_to_forget(arrays, self.hidden_size, forget_bias)
        from_file_alone = not options
        generator = _check.generator(options.pop("rng", None))
        dtype = options.pop("dtype", None)
        if dtype is None:
            dtype = self.options.get("dtype") or dtype_of(self.arrays.values())
        merged = {k: v for k, v in shape.items() if k in known} | self.options | options
        try:
            o = class_._checked(merged | {"dtype": dtype})
        except (TypeError, ValueError) as error:
            if not from_file_alone:  # as likely the caller's mistake, which the message names
                raise
            raise ValueError(f"{where}: {error}") from error
        if o.forget_bias not in (None, self.options.get("forget_bias")):
            raise ValueError(
                f"{where}: forget_bias={o.forget_bias} is for the first biases of a new network, and these are there "
                "already: leave it out, or add it to their rows of f"
            )
        o.warn(stacklevel=2)
        try:
            if o.num_layers > len(arrays):  # of which the shapes alone could fill the memory
                raise ValueError(f"it has {o.num_layers} layers and {len(arrays)} arrays")
            if self.weights is not None:
                if weights == self.weights:
                    return class_._restored(o, weights, arrays)  # type: ignore[no-any-return]
                arrays = class_._restored(o._replace(dtype=np.dtype(np.float32)), self.weights, arrays).params
            net = class_._of_arrays(o, arrays, "", generator)
            return net.quantize(weights) if weights == "int8" else net  # type: ignore[no-any-return]
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    def _sizes(self) -> dict[str, Any]:
        """Return the arguments that follow from the arrays."""
        return {
            "input_size": self.input_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "bidirectional": self.directions == 2,
            "bias": any(map(_is_bias, self.arrays)),
            "proj_size": self.arrays["weight_hr_l0"].shape[0] if "weight_hr_l0" in self.arrays else 0,
            "peephole": "peephole_l0" in self.arrays,
        }

    def __str__(self) -> str:
        """Return what `python -m quadgate inspect` prints."""
        both = "" if self.directions == 1 else ", both directions"
        layers = "1 layer" if self.num_layers == 1 else f"{self.num_layers} layers"
        stored = "" if self.weights is None else f", weights of {self.weights}"
        lines = [f"{self.kind} {self.name!r}: {self.input_size} -> {self.hidden_size}, {layers}{both}{stored}"]
        lines += [f"  {name} = {value!r}" for name, value in self.options.items()]
        lines += [f"  give {name}=: {reason}" for name, reason in self.asks.items()]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  cannot be loaded: {self.problem}"] if self.problem else []
        return "\n".join(lines)


def choose(found: list[Found], name: str | None, source: str) -> Found:
    """Return the network of that name, or the only one; raise ValueError that lists them otherwise.

    An LSTM or RNN that cannot be loaded counts too: it may be the one that is meant.
    """
    usable = [f for f in found if f.problem is None]
    if name is not None:
        same = [f for f in found if f.name == name]
        if len(same) != 1:
            raise ValueError(f"{source}: no network is named {name!r}; there are: {_listed(found)}")
        return same[0]
    broken = [f for f in found if f.problem is not None and f.kind in CLASSES]
    if len(usable) == 1 and not broken:
        return usable[0]
    if not found:
        raise ValueError(f"{source}: no LSTM and no RNN was found in it")
    if not usable:
        why = "; ".join(f"{f.name or 'the network'}: {f.problem}" for f in found)
        raise ValueError(f"{source}: nothing that can be loaded: {why}")
    unread = "".join(f"; {f.name!r} cannot be loaded: {f.problem}" for f in broken)
    raise ValueError(f"{source}: several networks: choose one by name=, of {_listed(usable)}{unread}")


def _listed(found: Iterable[Found]) -> str:
    sizes = (f"{f.name!r} ({f.kind}, {f.input_size} -> {f.hidden_size})" for f in found)
    return ", ".join(sizes) or "none"


def dtype_of(arrays: Iterable[Any]) -> np.dtype[Any]:
    """Return float64 if any array is, else float32."""
    return np.dtype(np.float64 if any(a.dtype.newbyteorder("=") == np.float64 for a in arrays) else np.float32)


def forget_bias_of(value: Any, options: Mapping[str, Any]) -> float:
    """Return the number to add to the biases of f, where there is one."""
    result = _check.number(value, "forget_bias")
    if result and options.get("coupled"):
        raise ValueError(f"forget_bias={result} and coupled=True exclude each other: f is 1 - i, without a bias")
    return result


def _extent(arrays: Iterable[Any]) -> tuple[int, int]:
    """Return the bytes that arrays have by themselves, and those of the memory in which they lie, shared or not."""
    needed = stored = end = 0
    for low, high, size in sorted((*_bounds(a), a.nbytes) for a in arrays if a.size):
        needed, stored, end = needed + size, stored + max(0, high - max(low, end)), max(end, high)
    return needed, stored


def _bounds(array: Any) -> tuple[int, int]:
    """Return the first address of an array, and the one behind the last."""
    start = int(array.__array_interface__["data"][0])
    reach = [(n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)]
    return start + sum(min(0, r) for r in reach), start + sum(max(0, r) for r in reach) + int(array.itemsize)


def _is_bias(name: str) -> bool:
    """Return True for the gates' biases, whole or PyTorch's halves, and not for those of highways."""
    return name.startswith(("bias_l", "bias_ih_l", "bias_hh_l"))


def add_to_forget(arrays: Mapping[str, Array], hidden: int, forget_bias: float) -> dict[str, Array]:
    """Return the same parameters with a number added to the forget gate's biases, to those of float16 in float32."""
    result = dict(arrays)
    for name, value in arrays.items():
        if _is_bias(name):
            added = value.astype(np.result_type(value, np.float32))
            added[hidden : 2 * hidden] += forget_bias
            result[name] = added
    return result
