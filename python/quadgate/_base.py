"""What a network is: its options, and its parameters, which change only as a whole."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _check, _initial, _masks, _params
from ._core import Network
from ._options import Options
from ._properties import Properties

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


class Base(Properties):
    """The part of `quadgate.LSTM` and `quadgate.RNN` that has nothing to do with running them."""

    __slots__ = (
        "__weakref__",
        "_batch_first",
        "_core_backward",
        "_core_forward",
        "_core_forward_tape",
        "_generator",
        "_lock",
        "_mask_plan",
        "_net",
        "_pid",
        "_shapes",
        "_values",
        "_version",
    )

    _generator: np.random.Generator | None

    def _create(self, options: Options, rng: int | np.random.Generator | None) -> None:
        """Make a new network."""
        self._configure(options.checked())
        generator = _check.generator(rng)
        self._commit(_initial.draw(self._options, self._shapes, generator))
        if self._mask_plan:  # a generator of its own, which nobody else draws from
            self._generator = np.random.default_rng(int.from_bytes(generator.bytes(16), "little"))

    def _configure(self, o: Options) -> None:
        """Set up all but the parameters."""
        self._options, self._batch_first = o, o.batch_first
        self._shapes = _params.shapes(o)
        self._mask_plan = _masks.plan(o)
        self._generator = None
        self._values: dict[str, Array] = {}
        self._version = 0
        self._lock, self._pid = threading.RLock(), os.getpid()
        sizes = (o.input_size, o.hidden_size, o.num_layers, o.directions)
        self._net = Network(o.dtype.name, *sizes, o.bias, o.core(), o.batch_first)
        # Bound once: a call then costs one attribute and one compiled call. Where that counts, the attribute is loaded
        # by itself: in one expression with the call, the interpreter looks for a method first.
        self._core_forward = self._net.forward
        self._core_forward_tape = self._net.forward_tape
        self._core_backward = self._net.backward

    @property
    def params(self) -> Mapping[str, Array]:
        """The parameters by name, in arrays that cannot be written; `writable` and `load_state_dict` replace them.

        For each layer k, with ``_reverse`` behind the names for the second direction, and G = 4 (1 in an RNN):
        ``weight_ih_l{k}`` (G*H, in), ``weight_hh_l{k}`` (G*H, R) and ``bias_l{k}`` (G*H,), gates in the order i, f, g,
        o; with ``proj_size`` ``weight_hr_l{k}`` (R, H); with ``peephole`` ``peephole_l{k}`` (3, H), of i, f and o; with
        ``layer_norm`` the gains ``norm_ih_l{k}`` and ``norm_hh_l{k}`` (4H,) and ``norm_c_l{k}`` (2, H), gain and bias.
        With ``shortcut="highway"``, for k >= 1, ``weight_highway_l{k}`` (O, O) and ``bias_highway_l{k}`` (O,).

        R is P where there is a projection, else H. O is a layer's output: D*R, or R where ``merge`` is not "concat".
        "in" is I for layer 0 and O for the others; with ``shortcut="dense"`` it is I + k*O. With ``coupled`` the rows
        of f are there, and without effect. An array taken from here keeps its numbers when the parameters change.
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
        dtype = self._options.dtype
        values = {name: _check.floats(scratch[name], name, self._shapes[name], dtype) for name in self._shapes}
        self._commit({name: _params.freeze(value) for name, value in values.items()}, version)

    def state_dict(self, *, prefix: str = "") -> dict[str, Array]:
        """Return copies of the parameters under PyTorch's names.

        Our ``bias_l{k}`` is its ``bias_ih_l{k}``; ``bias_hh_l{k}`` is zeros. What PyTorch does not have keeps our name.
        With ``torch.from_numpy`` around each array ``load_state_dict`` of ``torch.nn.LSTM`` (or ``torch.nn.RNN``) takes
        it as it is, and so does safetensors.

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
        new = _params.from_mapping(values, self._shapes, self._options.dtype, prefix)
        self._commit({name: _params.freeze(value) for name, value in new.items()})

    @property
    def num_parameters(self) -> int:
        """How many numbers the parameters are, counting one bias for each gate and unit."""
        return sum(value.size for value in self._values.values())

    def __repr__(self) -> str:
        changed = self._options.changed()
        if changed.get("nonlinearity") == "tanh":  # the default of an RNN, which an LSTM does not have
            del changed["nonlinearity"]
        changed["dtype"] = self._options.dtype.name
        sizes = (str(self._options.input_size), str(self._options.hidden_size))
        named = (f"{k}={v}" if k == "dtype" else f"{k}={v!r}" for k, v in changed.items())
        return f"{type(self).__name__}({', '.join((*sizes, *named))})"

    def __getstate__(self) -> dict[str, Any]:
        own = getattr(self, "__dict__", {})  # a subclass's attributes
        with self._own_lock():  # another thread could be drawing
            generator = copy.deepcopy(self._generator)  # also where a mere copy is made: its masks are its own
        options = self._options.arguments()
        return {"options": options, "params": dict(self._values), "generator": generator, "attributes": own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._configure(Options(**state["options"]))
        self._generator = state["generator"]
        self._commit({name: _params.freeze(value) for name, value in state["params"].items()})
        for name, value in state["attributes"].items():
            setattr(self, name, value)

    def _own_lock(self) -> threading.RLock:
        """Return the lock of this process: a forked child may have inherited one that a thread of its parent held.

        It can be taken again by the thread that has it, which a signal handler does that uses the network.
        """
        if self._pid != os.getpid():
            self._generator = copy.deepcopy(self._generator)  # which has a lock, too
            self._lock, self._pid = threading.RLock(), os.getpid()
        return self._lock

    def _commit(self, frozen: dict[str, Array], version: int | None = None) -> None:
        """Take over new parameters, all at once; only if nobody else did since `version`, where that is given."""
        with self._own_lock():
            if version is not None and version != self._version:
                raise RuntimeError("the parameters were changed by other means within a writable() block")
            self._net.set_parameters([frozen[name] for name in self._shapes])
            self._values.update((name, frozen[name]) for name in self._shapes)
            self._version += 1
