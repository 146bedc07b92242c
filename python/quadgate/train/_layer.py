"""The base of all layers, the conditions of a pass, and what recurrent layers hand on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check
from .._params import freeze
from .._pickling import Slotted
from ._commit import Swap, replace_all

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]
    Shape = tuple[int | None, ...]
    Values = Mapping[str, Array]

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Context:
    """Conditions of one pass through a model.

    Parameters
    ----------
    training : bool
        True for a pass that goes back: layers draw dropout and keep a tape.
    lengths : array of int64 (B,), optional
        Steps of each row; all T if it is None.
    mask : array of bool (B, T), optional
        False for steps that are skipped.
    states : dict from layer to state, optional
        Initial states of recurrent layers, which put their final ones there. None: all start at zero.
    rows : (begin, end, total), optional
        Rows of the whole batch that this pass has, if it is a shard: dropout is drawn for all `total` rows.
    """

    __slots__ = ("lengths", "mask", "rows", "states", "training")

    def __init__(
        self,
        training: bool = False,
        lengths: Array | None = None,
        mask: Array | None = None,
        states: dict[Layer, Any] | None = None,
        rows: tuple[int, int, int] | None = None,
    ) -> None:
        self.training, self.lengths, self.mask, self.states, self.rows = training, lengths, mask, states, rows


class Sequence:
    """Output of a recurrent layer on its way to the next layer: y (B, T, O) and the final h (B, D*R)."""

    __slots__ = ("final", "y")

    def __init__(self, y: Array, final: Array) -> None:
        self.y, self.final = y, final


class FinalGradient:
    """Gradient of a `Sequence` whose final h alone was used: dh (B, D*R)."""

    __slots__ = ("dh",)

    def __init__(self, dh: Array) -> None:
        self.dh = dh


def values(x: Any) -> Array:
    """Return the array of a layer's output."""
    result: Array = x.y if type(x) is Sequence else x
    return result


class Layer(Slotted):
    """Base of all layers of a `Sequential`.

    Attributes
    ----------
    params : mapping from name to array
        The parameters as they are at this moment, in arrays that cannot be written.
    """

    __slots__ = ("__weakref__", "_snapshot", "dtype", "generator")

    _snapshot: Any
    dtype: np.dtype[Any]
    generator: np.random.Generator | None

    def __init__(self) -> None:
        self._snapshot = _Plain(NOTHING)
        self.dtype = np.dtype(np.float32)
        self.generator = None

    @property
    def params(self) -> Mapping[str, Array]:
        """Parameters by name; empty before `bind`."""
        result: Mapping[str, Array] = self._snapshot.params
        return result

    @property
    def trainable_names(self) -> tuple[str, ...]:
        """Names of the parameters that `backward` has gradients of, in the order of `params`."""
        return tuple(self.params)

    @property
    def num_parameters(self) -> int:
        """Number of elements of all parameters."""
        return sum(value.size for value in self.params.values())

    def bind(self, rng: np.random.Generator, dtype: np.dtype[Any], previous: Layer | None = None) -> None:
        """Draw missing parameters and take a generator. A model calls it once, layer by layer.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of parameters, and of the seed of this layer's own generator.
        dtype : float32 or float64
            Type of the model.
        previous : Layer, optional
            The layer before this one.

        Raises
        ------
        ValueError
            If the layer cannot follow the previous one, or has parameters of another type.
        """
        self.dtype = dtype

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the output for one of the input, with None for B and T.

        Raises
        ------
        ValueError
            If the layer does not take such an input.
        """
        return shape

    def forward(self, x: Any, context: Context) -> tuple[Any, Any]:
        """Return the output, and in training a tape for `backward` (otherwise None).

        Raises
        ------
        TypeError, ValueError
            If the layer cannot take x, by its type or shape.
        RuntimeError
            If the layer is in no model yet and has no parameters.
        """
        raise NotImplementedError

    def backward(
        self, tape: Any, dy: Any, *, need_x: bool, out: Mapping[str, Array] | None = None
    ) -> tuple[Any, dict[str, Array]]:
        """Return the gradients of the input, or None without `need_x`, and of the parameters by name.

        Parameters
        ----------
        tape : object
            From `forward`; with its parameters the pass goes back.
        dy : array or FinalGradient
            Gradient of the output.
        need_x : bool
            False if nothing before this layer has parameters.
        out : mapping from name to array, optional
            Arrays that the gradients are written to, instead of new ones.
        """
        raise NotImplementedError

    def successor(self, values: Values) -> list[Swap]:
        """Return what `replace_all` must swap to give this layer other parameters.

        Everything is built here. `values` has an array for each parameter, of the layer's type, that nothing writes to
        any more; arrays that could be written are copied.
        """
        return []

    def assign(self, values: Mapping[str, ArrayLike]) -> None:
        """Replace all parameters at once.

        Raises
        ------
        TypeError, ValueError
            If a name is missing or unknown, or an array has a wrong shape or type.
        RuntimeError
            If the layer belongs to no model yet, and so has no parameters.
        """
        known = self.params
        if not known and type(self).successor is not Layer.successor:
            raise self._unbound()
        if not isinstance(values, Mapping) or values.keys() != known.keys():
            got = ", ".join(map(str, values)) or "nothing" if isinstance(values, Mapping) else type(values).__name__
            raise ValueError(f"values must have {'the names ' + ', '.join(known) if known else 'no names'}, got {got}")
        read = {n: freeze(_check.floats(values[n], n, known[n].shape, self.dtype)) for n in known}
        replace_all(self.successor(read))

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments as plain values, with the class's name as "layer"."""
        return {"layer": type(self).__name__}

    def _seed(self, rng: np.random.Generator) -> None:
        """Start a generator of this layer's own."""
        self.generator = np.random.Generator(np.random.PCG64(int.from_bytes(rng.bytes(16), "little")))

    def _unbound(self) -> RuntimeError:
        return RuntimeError(f"{self!r} belongs to no model yet: put it into a Sequential, or call bind")

    def _refuse(self, shape: Shape, needed: str) -> ValueError:
        return ValueError(f"{self!r} needs {needed}, got the shape {_shown(shape)}")

    def __repr__(self) -> str:
        arguments = self.config()
        del arguments["layer"]
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in arguments.items())})"


class _Plain:
    """Parameters of a layer at one moment."""

    __slots__ = ("params",)

    def __init__(self, params: Values) -> None:
        self.params = MappingProxyType(dict(params))

    def __reduce__(self) -> tuple[Any, ...]:
        return _plain, (dict(self.params),)


def _plain(params: Values) -> _Plain:
    return _Plain(_owned(params))


def _rows(x: Array) -> tuple[Array, bool]:
    """Return x (..., N) as rows (n, N) in their order of memory; True if that is x's with two axes swapped.

    Raises ValueError if N is 0: such an array cannot tell how many rows it has. Only outputs of a model can be so.
    """
    if not x.shape[-1]:
        raise ValueError(f"outputs must have 1 column or more, got shape {x.shape}")
    if not x.flags.c_contiguous and x.ndim == 3 and x.swapaxes(0, 1).flags.c_contiguous:
        return x.swapaxes(0, 1).reshape(-1, x.shape[-1]), True
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1]), False


def _unrowed(rows: Array, shape: tuple[int, ...], swapped: bool) -> Array:
    """Return rows as an array of the leading axes of `shape`, the inverse of `_rows`."""
    result: Array
    if swapped:
        result = rows.reshape(shape[1], shape[0], rows.shape[-1]).swapaxes(0, 1)
    else:
        result = rows.reshape(*shape[:-1], rows.shape[-1])
    return result


def _target(out: Mapping[str, Array] | None, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return np.empty(shape, dtype) if out is None else out[name]


def _owned(values: Values) -> dict[str, Array]:
    """Return arrays that nothing can write to: those that could be written are copied."""
    return {name: freeze(value) if value.flags.writeable else value for name, value in values.items()}


def _shown(shape: Shape) -> str:
    return f"({', '.join('?' if n is None else str(n) for n in shape)})"
