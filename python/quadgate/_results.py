"""Results of a training pass: gradients, traces and tapes."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from . import _check, _params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from . import _core
    from ._masking import Masking

    Array = NDArray[Any]

NOTHING: Mapping[str, Any] = MappingProxyType({})


class NamedGrads(dict[str, "Array"]):
    """Gradients of parameters by name: a dict whose arrays are views of the vector `flat`.

    Attributes
    ----------
    flat : array (N,)
        All N numbers in the order of the names, as in ``params.flat`` of the network. A call of ``backward`` with
        ``out`` has it if ``out`` is such a dict; otherwise it raises AttributeError.
    """

    __slots__ = ("flat",)

    flat: Array

    @classmethod
    def of_flat(cls, flat: Array, shapes: _params.Shapes) -> NamedGrads:
        """Return the pieces of a vector by name."""
        self = cls(_params.split(flat, shapes))
        self.flat = flat
        return self

    def __getattr__(self, name: str) -> NoReturn:
        if name == "flat":
            raise AttributeError("there is no flat: these gradients were written into arrays of the caller's")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _named, (dict(self), hasattr(self, "flat"))


def _named(values: dict[str, Array], flat: bool = True) -> NamedGrads:
    """Return gradients by name in a vector of their own; of pickles, too."""
    if not flat:
        return NamedGrads(values)
    shapes = {name: value.shape for name, value in values.items()}
    pieces = [value.ravel() for value in values.values()]
    return NamedGrads.of_flat(np.concatenate(pieces) if pieces else np.empty(0, np.float32), shapes)


class LSTMGrads(NamedTuple):
    """Gradients from `LSTM.backward`.

    Attributes
    ----------
    x : array of x's shape, or None after ``input_grad=False``
    h0 : array (L*D, B, R), or (L*D, R) if x had no batch axis; or None after ``state_grad=False``
        Gradient of the initial h, also if none was given and zeros were used.
    c0 : array (L*D, B, H), or (L*D, H); or None
        The same for c.
    params : dict
        Gradients by parameter name, each of its parameter's shape: views of the vector ``params.flat``. After ``out``
        the arrays of ``out``, and with `flat` only if that had it.
    """

    x: Array | None
    h0: Array | None
    c0: Array | None
    params: NamedGrads

    def __repr__(self) -> str:
        return _line(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduced(self)


class RNNGrads(NamedTuple):
    """Gradients from `RNN.backward`.

    Attributes
    ----------
    x : array of x's shape, or None after ``input_grad=False``
    h0 : array (L*D, B, H), or (L*D, H) if x had no batch axis; or None after ``state_grad=False``
        Gradient of the initial state, also if none was given and zeros were used.
    params : dict
        Gradients by parameter name, each of its parameter's shape: views of the vector ``params.flat``. After ``out``
        the arrays of ``out``, and with `flat` only if that had it.
    """

    x: Array | None
    h0: Array | None
    params: NamedGrads

    def __repr__(self) -> str:
        return _line(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reduced(self)


class Trace:
    """Gates, cells and gradients of every step: ``tape.trace`` after ``lstm.forward(x, trace=True)``.

    All arrays are time-major, with a batch axis of 1 if x has none, whatever the network's ``batch_first``; layers and
    directions are in the order of the states. Masked steps and those past a row's length are zeros.

    Attributes
    ----------
    i, f, g, o : array (L*D, T, B, H)
        The input gate, forget gate, cell candidate and output gate, after their activations.
    c : array (L*D, T, B, H)
        The cell as it leaves the step.
    dh_norm : array (L*D, T, B), or None until `LSTM.backward` has run
        Euclidean norm of the loss's gradient by h as it leaves the step. `LSTM.backward` makes a new array each time.
    dc_norm : array (L*D, T, B), or None until then
        The same of the step's c, through all its uses in this step and later ones.
    """

    __slots__ = ("c", "dc_norm", "dh_norm", "f", "g", "i", "o")

    def __init__(self, i: Array, f: Array, g: Array, o: Array, c: Array) -> None:
        self.i, self.f, self.g, self.o, self.c = i, f, g, o, c
        self.dh_norm: Array | None = None
        self.dc_norm: Array | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, ("Trace", 1, _packed({name: getattr(self, name) for name in self.__slots__}))

    def __repr__(self) -> str:
        shape, dtype = getattr(self.c, "shape", None), getattr(self.c, "dtype", None)
        return f"Trace(shape={shape}, dtype={dtype}, backward={self.dh_norm is not None})"


class Tape:
    """Record of a training pass, from ``forward``, for ``backward``.

    It goes back any number of times, and always through the parameters that it was made with: an update of the network
    in between changes nothing. It belongs to its network and cannot be pickled or copied.
    """

    __slots__ = ("__weakref__", "_cells", "_core", "_dropped", "_masking", "_trace")

    def __init__(
        self,
        core: _core.Tape,
        cells: Array | None = None,
        dropped: Mapping[str, NDArray[np.bool_]] = NOTHING,
        trace: Trace | None = None,
        masking: Masking | None = None,
    ) -> None:
        self._core, self._cells, self._dropped, self._trace = core, cells, dropped, trace
        self._masking = masking

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the x that it was made from."""
        if self._masking is None:
            return self._core.x_shape
        return (*self._masking.leading, self._core.x_shape[-1])

    @property
    def nbytes(self) -> int:
        """Memory that it holds, in bytes, with cells, masks and trace, and without the parameters."""
        kept = [self._masking, self._cells, *(getattr(self._trace, name, None) for name in Trace.__slots__)]
        if self._masking is not None:  # then the core has copies of the masks, and counts those
            kept += self._dropped.values()
        return self._core.nbytes + sum(getattr(each, "nbytes", 0) for each in kept)

    @property
    def cells(self) -> Array | None:
        """Last layer's c at every step: after ``forward(x, return_cells=True)`` an array, otherwise None."""
        return self._cells

    @property
    def dropped(self) -> Mapping[str, NDArray[np.bool_]]:
        """Masks of this pass by name, arrays of bool that cannot be written: True dropped a number or kept an old one.

        For each layer k and direction, of which the second has ``_reverse`` behind its name, ``weight_drop_l{k}``
        (G*H, R), ``recurrent_dropout_l{k}`` (B, R),
        ``zoneout_h_l{k}`` (T, B, R) and ``zoneout_c_l{k}`` (T, B, H); for all layers but the last ``dropout_l{k}``
        (T, B, O). Only options above 0 have masks.
        """
        return MappingProxyType(dict(self._dropped))

    @property
    def trace(self) -> Trace | None:
        """Gates and cells of every step: after ``forward(x, trace=True)`` a `Trace`, otherwise None."""
        return self._trace

    def __repr__(self) -> str:
        parts = [f"x_shape={self.x_shape}", f"nbytes={self.nbytes}"]
        parts += [f"dropped={len(self._dropped)} masks"] if self._dropped else []
        parts += [f"cells={_brief(self._cells)}"] if self._cells is not None else []
        parts += [f"trace={self._trace!r}"] if self._trace is not None else []
        return f"Tape({', '.join(parts)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Tape cannot be pickled or copied: it is memory of the compiled core, of use to its own network only; "
            "save the gradients instead, or run forward again"
        )


def _reduced(grads: Any) -> tuple[Any, ...]:
    if not isinstance(grads.params, dict):
        raise TypeError(f"params must be a dict of arrays, got {_check.shown(grads.params)}")
    return _unpickled, (type(grads).__name__, 1, _packed(grads._asdict()))


def _packed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays by name, or dictionaries of them, for a pickle: no object of NumPy is among them."""
    packed: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            packed[name] = None
        elif isinstance(value, dict):
            packed[name] = _packed(value)
        else:
            array = _check.array(value, name, "floats", "f")
            _check.float_type(array.dtype.newbyteorder("="), name)  # refuses types that could not be read again
            packed[name] = _params.pack(array)
    return packed


def _unpacked(packed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `_packed` was given, in arrays of their own."""
    values: dict[str, Any] = {}
    for name, item in packed.items():
        if item is None:
            values[name] = None
        elif isinstance(item, dict):
            values[name] = _unpacked(item)
        else:
            if not isinstance(item, tuple) or len(item) != 3 or not _is_shape(item[1]):
                raise ValueError(f"{name} of a pickle must be a type, a shape and bytes")
            values[name] = _params.unpack(item, name, item[1], _check.float_type(item[0])).copy()
    return values


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(n) is int and n >= 0 for n in value)


def _unpickled(kind: str, number: int, packed: Any) -> LSTMGrads | RNNGrads | Trace:
    """Return the result in a pickle, of which this is the function: its name and arguments stay as they are.

    Raises
    ------
    ValueError
        If the pickle is of a newer format, or damaged.
    """
    known: dict[str, Any] = {"LSTMGrads": LSTMGrads, "RNNGrads": RNNGrads, "Trace": Trace}
    if number != 1 or not isinstance(kind, str) or kind not in known:
        raise ValueError(f"the pickle holds a {kind} of format {number}, which this quadgate does not know")
    cls = known[kind]
    fields = cls.__slots__ if cls is Trace else cls._fields
    if not isinstance(packed, dict) or packed.keys() != set(fields):
        raise ValueError(f"the pickle of a {kind} must have {', '.join(fields)}")
    values = _unpacked(packed)
    if cls is not Trace:
        if not isinstance(values["params"], dict):
            raise ValueError(f"the pickle of a {kind} must have gradients by name in params")
        values["params"] = _named(values["params"])
        result: LSTMGrads | RNNGrads = cls(**values)
        return result
    trace = Trace(**{name: values[name] for name in "ifgoc"})
    trace.dh_norm, trace.dc_norm = values["dh_norm"], values["dc_norm"]
    return trace


def _brief(value: Any) -> str:
    return f"<{value.dtype} {value.shape}>" if hasattr(value, "dtype") else repr(value)


def _line(grads: Any) -> str:
    """Return the repr of gradients: shapes and types instead of numbers."""
    arrays = [f"{name}={_brief(value)}" for name, value in grads._asdict().items() if name != "params"]
    return f"{type(grads).__name__}({', '.join(arrays)}, params=<{len(grads.params)} arrays>)"


for _public in (LSTMGrads, RNNGrads, Trace, Tape):
    _public.__module__ = "quadgate"  # the name that pickles and errors show
