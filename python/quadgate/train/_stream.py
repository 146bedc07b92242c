"""A model fed one step at a time, with the states of its networks inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from .. import _check
from ..rnn import RNN
from . import _pass
from ._layer import Context
from ._layers import Dropout, Embedding
from ._masking import Masking
from ._recurrent import FinalState, Recurrent

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ._model import Sequential

    Array = NDArray[Any]

_INFERENCE = Context()


class ModelStream:
    """A model that goes step by step, from `Sequential.stream`. It follows its model's parameters.

    Parameters
    ----------
    model : Sequential
        Its networks read forwards.
    batch_size : int
        B, the number of rows that run side by side.

    Raises
    ------
    ValueError
        If a network is bidirectional or reverse.
    """

    def __init__(self, model: Sequential, batch_size: SupportsIndex = 1) -> None:
        self.batch_size = _check.size(batch_size, "batch_size")
        self._model = model
        self._masking = model._layers[0] if isinstance(model._layers[0], Masking) else None
        first = model._layers[0]  # behind Masking there are other numbers, too
        self._symbols = first.num_embeddings if isinstance(first, Embedding) else None
        self._streams: dict[Any, Any] = {}
        self._steps: list[Any] = []
        layers = [layer for layer in model._layers if not isinstance(layer, (Dropout, Masking))]
        for k, layer in enumerate(layers):
            if isinstance(layer, Recurrent):
                stream = self._streams[layer] = layer.net.stream(self.batch_size)
                final = k + 1 < len(layers) and isinstance(layers[k + 1], FinalState)
                not_y = final and (layer.net._options.shortcut or self._masking is not None)
                self._steps.append(_final(stream) if not_y else _output(stream, layer.padding_output))
            elif isinstance(layer, Embedding):
                self._steps.append(_lookup(layer))
            elif not isinstance(layer, FinalState):
                self._steps.append(lambda x, _, layer=layer: layer.forward(x, _INFERENCE)[0])

    def step(self, x: ArrayLike) -> Array:
        """Take one step.

        Parameters
        ----------
        x : array of int (B,), or array (B, I)
            Symbols for a model that begins with an Embedding, else features.

        Returns
        -------
        array (B, C)
            Outputs of this step, before the model's head.

        Raises
        ------
        TypeError, ValueError
            If x has a wrong type, shape or value. No state has changed then, nor after an interrupt.
        """
        given = _check.array(x, "x", *(("integers", "iu") if self._model._integers else ()))
        if given.ndim != 2 - self._model._integers or len(given) != self.batch_size:
            shape = f"({self.batch_size},)" if self._model._integers else f"({self.batch_size}, I)"
            raise ValueError(f"x must have shape {shape}, got {given.shape}")
        if not self._model._integers:  # before it is compared with Masking's value, as in a batch
            given = _check.plain(given, self._model.dtype)
        mask = None if self._masking is None else self._masking.mask(given[:, None])[:, 0]
        y: Any = given
        if mask is not None:  # skipped steps may hold anything
            y = np.where(mask if self._model._integers else mask[:, None], given, given.dtype.type(0))
        return np.asarray(self._together(lambda: self._advance(y, mask)))

    def _advance(self, y: Any, mask: Array | None) -> Any:
        for step in self._steps:
            y = step(y, mask)
        return y

    def _together(self, work: Callable[[], Any]) -> Any:
        """Call a function that changes the states of all networks: an error or an interrupt puts all of them back."""
        before = self.states
        try:
            return work()
        except BaseException:
            for stream, value in zip(self._streams.values(), before, strict=True):
                stream.state = value
            raise

    def select(self, rows: ArrayLike) -> ModelStream:
        """Return a stream whose rows are copies of the given rows of this one.

        Parameters
        ----------
        rows : list of int
            Numbers of rows, in any order and number.

        Raises
        ------
        TypeError, ValueError
            If they are not integers from 0 to B - 1.
        """
        places = _check.array(rows, "rows", "numbers of rows", "iu")
        if places.ndim != 1 or (places.size and not 0 <= places.min() <= places.max() < self.batch_size):
            raise ValueError(f"rows must be numbers from 0 to {self.batch_size - 1}, got {_check.shown(rows)}")
        if not places.size:
            raise ValueError("rows must have one number or more, got none")
        other = ModelStream(self._model, len(places))
        for layer, stream in self._streams.items():
            state = stream.state
            parts = (state,) if isinstance(layer.net, RNN) else state
            cut = [np.ascontiguousarray(part[:, places]) for part in parts]
            other._streams[layer].state = cut[0] if isinstance(layer.net, RNN) else tuple(cut)
        return other

    @property
    def states(self) -> list[Any]:
        """The states of the networks in order, as `Stream.state` has them: copies. Set them to continue from there."""
        return [stream.state for stream in self._streams.values()]

    @states.setter
    def states(self, values: list[Any]) -> None:
        given = _check.items(values, "states", "a list of the networks' states")
        if len(given) != len(self._streams):
            raise ValueError(f"states must have one for each of {len(self._streams)} networks, got {len(given)}")

        def put() -> None:
            for stream, value in zip(self._streams.values(), given, strict=True):
                stream.state = value

        self._together(put)

    def reset(self) -> None:
        """Set all states to zeros."""
        self._together(lambda: [stream.reset() for stream in self._streams.values()])

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "a stream of a model is neither copied nor pickled: take select(range(batch_size)), or its states"
        )

    def probabilities(self, outputs: Array) -> Array:
        """Return outputs after the model's head."""
        return _pass.activated(outputs, self._model.head)


def _lookup(layer: Embedding) -> Any:
    count = layer.num_embeddings

    def step(x: Any, _: Any) -> Any:
        if len(x) and (int(x.min()) < 0 or int(x.max()) >= count):
            raise ValueError(f"x must hold integers from 0 to {count - 1}, got {x.min()} to {x.max()}")
        return layer._snapshot.params["weight"][x]

    return step


def _output(stream: Any, padding_output: str) -> Any:
    """Return a step whose result is y."""

    def step(x: Any, mask: Any) -> Any:
        return stream.step(x) if mask is None else stream.step(x, mask=mask, padding_output=padding_output)

    return step


def _final(stream: Any) -> Any:
    """Return a step whose result is the final h, which is not y under a shortcut or at a step that is skipped."""

    def step(x: Any, mask: Any) -> Any:
        stream.step(x, mask=mask)
        state = stream.state
        return (state if isinstance(state, np.ndarray) else state[0])[-1]

    return step
