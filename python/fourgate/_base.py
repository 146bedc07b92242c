"""What a network is: its sizes, and its parameters, which change only as a whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _check, _params
from ._core import Network

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


class Base:
    """The part of `fourgate.LSTM` that has nothing to do with running it."""

    __slots__ = (
        "__weakref__",
        "_batch_first",
        "_bias",
        "_bidirectional",
        "_core_backward",
        "_core_forward",
        "_core_forward_tape",
        "_dtype",
        "_hidden_size",
        "_input_size",
        "_lock",
        "_net",
        "_num_layers",
        "_shapes",
        "_values",
        "_version",
    )

    def _configure(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        bidirectional: bool,
        dtype: np.dtype[Any],
    ) -> None:
        self._input_size, self._hidden_size, self._num_layers = input_size, hidden_size, num_layers
        self._bias, self._batch_first, self._bidirectional, self._dtype = bias, batch_first, bidirectional, dtype
        directions = 2 if bidirectional else 1
        self._shapes = _params.shapes(input_size, hidden_size, num_layers, directions, bias, dtype.itemsize)
        self._values: dict[str, Array] = {}
        self._version = 0
        self._lock = threading.Lock()
        self._net = Network(dtype.name, input_size, hidden_size, num_layers, directions, bias)
        # Bound once: a call then costs one attribute and one compiled call.
        self._core_forward = self._net.forward
        self._core_forward_tape = self._net.forward_tape
        self._core_backward = self._net.backward

    @property
    def params(self) -> Mapping[str, Array]:
        """The parameters by name, in arrays that cannot be written; `writable` and `load_state_dict` replace them.

        ``weight_ih_l{k}`` (4H, in), ``weight_hh_l{k}`` (4H, H) and ``bias_l{k}`` (4H,) for each layer k, with
        ``_reverse`` behind them for the second direction; "in" is I for layer 0, D*H for the others. An array taken
        from here keeps its numbers when the parameters change.
        """
        return MappingProxyType(self._values)

    @contextmanager
    def writable(self) -> Iterator[dict[str, Array]]:
        """Hand out copies of the parameters for a ``with`` block, and take them over when it ends.

        Both ``params[name] -= step`` and ``params[name] = array`` work. If the block raises, nothing changes. Tapes
        from before a change can no longer be used; streams go on with the new parameters.

        Yields
        ------
        dict
            From every parameter's name to a writable array.

        Raises
        ------
        TypeError, ValueError
            At the end of the block, if a name, shape or type is wrong. Nothing has changed then.
        RuntimeError
            At the end of the block, if the parameters were changed by other means meanwhile: those stay.

        Examples
        --------
        >>> with lstm.writable() as params:
        ...     params["weight_ih_l0"] -= 0.1 * grads.params["weight_ih_l0"]
        """
        version, scratch = self._version, {name: value.copy() for name, value in self._values.items()}
        yield scratch
        if scratch.keys() != self._shapes.keys():
            names = ", ".join(map(str, scratch.keys() ^ self._shapes.keys()))
            raise ValueError(f"a parameter was removed or invented in writable(): {names}")
        values = {name: _check.floats(scratch[name], name, self._shapes[name], self._dtype) for name in self._shapes}
        self._commit({name: _params.freeze(value) for name, value in values.items()}, version)

    def state_dict(self, *, prefix: str = "") -> dict[str, Array]:
        """Return copies of the parameters under PyTorch's names.

        Our ``bias_l{k}`` is its ``bias_ih_l{k}``; ``bias_hh_l{k}`` is zeros. With ``torch.from_numpy`` around each
        array ``torch.nn.LSTM.load_state_dict`` takes it as it is, and so does safetensors.

        Parameters
        ----------
        prefix : str
            Put in front of every name.
        """
        return _params.to_pytorch(self._values, prefix)

    def load_state_dict(self, values: Mapping[str, ArrayLike], *, prefix: str | None = None) -> None:
        """Replace all parameters by those of a state dict, PyTorch's or ours.

        Parameters
        ----------
        values : mapping from name to array
            PyTorch's names, as `state_dict` has them, where ``bias_ih_l{k}`` and ``bias_hh_l{k}`` are added; or
            ``bias_l{k}`` instead of the two. Tensors on the CPU will do for arrays.
        prefix : str, optional
            Load the names that begin so, and ignore all others. Without it every name must belong to this network, and
            all may begin with the same prefix, whatever it is.

        Raises
        ------
        TypeError, ValueError
            If a name is missing, unknown or doubled, or an array is wrong. Nothing has changed then.
        """
        new = _params.from_mapping(values, self._shapes, self._dtype, prefix)
        self._commit({name: _params.freeze(value) for name, value in new.items()})

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters are, counting one bias for each gate and unit."""
        return sum(value.size for value in self._values.values())

    @property
    def input_size(self) -> int:
        """I, the features of the input."""
        return self._input_size

    @property
    def hidden_size(self) -> int:
        """H, the units of each layer and direction."""
        return self._hidden_size

    @property
    def num_layers(self) -> int:
        """L, the number of layers."""
        return self._num_layers

    @property
    def bias(self) -> bool:
        """Whether there are biases."""
        return self._bias

    @property
    def batch_first(self) -> bool:
        """Whether batched x and y are (B, T, ...)."""
        return self._batch_first

    @property
    def bidirectional(self) -> bool:
        """Whether D is 2."""
        return self._bidirectional

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the parameters and results: float32 or float64."""
        return self._dtype

    def __repr__(self) -> str:
        parts = [str(self._input_size), str(self._hidden_size)]
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "bidirectional": False}
        for name, default in defaults.items():
            value = getattr(self, name)
            if value != default:
                parts.append(f"{name}={value}")
        return f"{type(self).__name__}({', '.join(parts)}, dtype={self._dtype.name})"

    def __getstate__(self) -> dict[str, Any]:
        sizes = (self._input_size, self._hidden_size, self._num_layers)
        flags = (self._bias, self._batch_first, self._bidirectional)
        own = getattr(self, "__dict__", {})  # a subclass's attributes
        return {"arguments": (*sizes, *flags, self._dtype), "params": dict(self._values), "attributes": own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._configure(*state["arguments"])
        self._commit({name: _params.freeze(value) for name, value in state["params"].items()})
        for name, value in state["attributes"].items():
            setattr(self, name, value)

    def _commit(self, frozen: dict[str, Array], version: int | None = None) -> None:
        """Take over new parameters, all at once; only if nobody else did since `version`, where that is given."""
        with self._lock:
            if version is not None and version != self._version:
                raise RuntimeError("the parameters were changed by other means within a writable() block")
            self._net.set_parameters([frozen[name] for name in self._shapes])
            self._values.update((name, frozen[name]) for name in self._shapes)
            self._version += 1
