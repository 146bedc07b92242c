"""Pickles of networks and streams: plain Python values, which any NumPy reads, and checks of what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import _check, _masks, _params
from ._options import Options

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._params import Snapshot

    Array = NDArray[Any]

FORMAT = 1
QUANTIZED_FORMAT = 2  # of networks with compact weights


class Slotted:
    """Base of classes with slots, which Python itself pickles from protocol 2 on only."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return super().__reduce_ex__(max(protocol, 2))


class Pickled:
    """Base of classes with a state of their own, and perhaps attributes that a subclass keeps beside it.

    An object is whole before its attributes are read, which may refer to it: a network may have its own stream.
    """

    __slots__ = ()

    def __getstate__(self) -> Any:
        raise NotImplementedError

    def __setstate__(self, state: Any) -> None:
        raise NotImplementedError

    def __reduce_ex__(self, protocol: Any) -> Any:
        kind, state = type(self), self.__getstate__()
        attributes = self._kept_attributes()
        # A subclass with its own way of pickling has that.
        if not attributes or kind.__reduce__ is not object.__reduce__ or not isinstance(state, dict):
            return super().__reduce_ex__(protocol)
        own = {name: {} if name == "attributes" else value for name, value in state.items()}
        return _rebuilt, (kind, own), {"attributes": attributes}

    def _kept_attributes(self) -> dict[str, Any]:
        """Return what a subclass keeps, in slots, too."""
        slots = {name: getattr(self, name) for name in _slots(type(self)) if hasattr(self, name)}
        return dict(getattr(self, "__dict__", {})) | slots

    def _take_attributes(self, state: Any) -> bool:
        """Set what a subclass keeps, never what is our own; return False for a state that has more than that."""
        if not isinstance(state, dict) or state.keys() != {"attributes"} or not isinstance(state["attributes"], dict):
            return False
        slots = _slots(type(self))
        for name, value in state["attributes"].items():
            if name in slots:
                setattr(self, name, value)
            elif hasattr(self, "__dict__"):
                self.__dict__[name] = value
            else:
                raise ValueError(f"the pickle of a {type(self).__name__} has {name!r}, for which there is no place")
        return True


def _rebuilt(kind: Any, state: Any) -> Any:
    thing = kind.__new__(kind)
    thing.__setstate__(state)
    return thing


def _slots(kind: type) -> set[str]:
    """Return the names of the slots of subclasses outside of this package."""
    found = set()
    for base in kind.__mro__:
        names = () if base.__module__.partition(".")[0] in ("quadgate", "typing") else vars(base).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            private = name.startswith("__") and not name.endswith("__")
            found.add(f"_{base.__name__.lstrip('_')}{name}" if private else name)
    return found - {"__dict__", "__weakref__"}


class NetworkState(NamedTuple):
    """The parts of a network's pickle, checked."""

    options: Options
    values: dict[str, Array]
    weight_type: str | None  # of compact weights
    generator: np.random.Generator | None
    attributes: dict[str, Any]  # of a subclass


def check_format(state: Any, keys: tuple[str, ...], newest: int = FORMAT) -> None:
    """Raise ValueError if this is not the state of a pickle that this version can read."""
    if not isinstance(state, dict) or not isinstance(state.get("format"), int):
        raise ValueError("this is no pickle of quadgate, or it is damaged")
    if state["format"] > newest:
        raise ValueError(f"the pickle has format {state['format']}, of a newer quadgate: this one reads {newest}")
    if state.keys() != {"format", *keys}:
        raise ValueError(f"the pickle must have {', '.join(keys)}, got {', '.join(map(str, state))}")


def network_state(o: Options, snapshot: Snapshot, generator: Any, attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a network; `generator` is the state of its bit generator, or None."""
    state = {
        "format": QUANTIZED_FORMAT if snapshot.weight_type else FORMAT,
        "options": o.arguments(),
        "params": {name: _params.pack(value) for name, value in snapshot.stored.items()},
        "generator": generator,
        "attributes": attributes,
    }
    return {**state, "weight_type": snapshot.weight_type} if snapshot.weight_type else state


def read_network_state(state: Any, elman: bool, name: str) -> NetworkState:
    """Return the parts of `network_state`.

    Raises
    ------
    ValueError
        If it is damaged, of a newer version, or of another kind of network than the class `name`, which is an Elman
        network or not.
    """
    keys = ("options", "params", "generator", "attributes")
    kind = state.get("weight_type") if isinstance(state, dict) else None
    newest = FORMAT if kind is None else QUANTIZED_FORMAT
    check_format(state, keys if kind is None else (*keys, "weight_type"), newest)
    options, attributes = state["options"], state["attributes"]
    if not isinstance(options, dict) or not isinstance(attributes, dict):
        raise ValueError("the options and attributes of a pickle must be dictionaries")
    o = Options.of(options)
    if o.elman != elman:
        raise ValueError(f"a pickle of another kind of network than {name}")
    shapes, items = {key: (shape, o.dtype) for key, shape in _params.shapes(o).items()}, state["params"]
    if kind is not None:
        from . import _quantize

        _check.choice(kind, "weight_type", _quantize.TYPES)
        shapes = _quantize.shapes(_params.shapes(o), kind)
    if not isinstance(items, dict) or items.keys() != shapes.keys():
        raise ValueError("the parameters of a pickle do not fit its options")
    values = {key: _params.unpack(items[key], key, *form) for key, form in shapes.items()}
    generator = None
    if _masks.plan(o) and kind is None:
        bits = np.random.PCG64(0)
        try:
            bits.state = state["generator"]
        except Exception as error:  # NumPy raises almost anything
            raise ValueError(f"the generator of a pickle cannot be read: {error}") from error
        generator = np.random.Generator(bits)
    return NetworkState(o, values, kind, generator, attributes)
