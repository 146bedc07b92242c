"""The base of all networks: options, and parameters, which change only all at once."""

from __future__ import annotations

import copy
import math
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np

from . import _check, _core, _initial, _masks, _params, _pickling, _threadpools
from ._options import Option, Options
from ._params import Snapshot

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]

Net = TypeVar("Net", bound="Network")


class Network(_pickling.Pickled):
    """Base of `quadgate.LSTM` and `quadgate.RNN`: options, parameters, state dicts and pickles."""

    __slots__ = (
        "__weakref__",
        "_batch_first",
        "_generator",
        "_lock",
        "_mask_plan",
        "_options",
        "_shapes",
        "_snapshot",
    )

    _elman: ClassVar[bool]
    _options: Options
    _snapshot: Snapshot
    _generator: np.random.Generator | None
    _lock: tuple[int, threading.RLock]  # of the process with this number

    input_size = Option[int]("I, the features of the input.")
    hidden_size = Option[int]("H, the units of each layer and direction.")
    num_layers = Option[int]("L, the number of layers.")
    bias = Option[bool]("True if there are biases.")
    batch_first = Option[bool]("True if batched x and y are (B, T, ...).")
    bidirectional = Option[bool]("True if D is 2.")
    dropout = Option[float]("Probability of an output between layers to be dropped in training.")
    recurrent_dropout = Option[float]("Probability of a column of h to be dropped for a whole sequence in training.")
    weight_drop = Option[float]("Probability of an element of weight_hh to be dropped for a whole call in training.")
    reverse = Option[bool]("True if the one direction reads the sequence backwards.")
    merge = Option[str]("Way to join the two directions.")
    shortcut = Option["str | None"]("Connection past the layers above the first.")
    initialization = Option[str]("Scheme that the first parameters were drawn by.")
    dtype = Option["np.dtype[Any]"]("Type of the parameters and results: float32 or float64.")

    def __new__(cls: type[Net], *_: Any, **keywords: Any) -> Net:
        # Only to suggest the right spelling of a keyword. A subclass may have others.
        init: Any = cls.__init__
        if keywords and init.__module__.startswith(f"{__package__}."):
            code = init.__code__
            known = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
            refuse_unknown(keywords, known, f"{cls.__name__}()")
        return super().__new__(cls)

    def _create(self, arguments: dict[str, Any], rng: int | np.random.Generator | None) -> None:
        """Make a new network with random parameters; called by ``__init__``."""
        options = self._checked(arguments)
        options.warn(stacklevel=3)
        generator = _check.generator(rng)
        self._configure(options)
        self._start(_initial.draw(options, self._shapes, generator))
        self._seed(generator)

    @classmethod
    def _checked(cls, arguments: dict[str, Any]) -> Options:
        if cls._elman:
            _check.choice(arguments.setdefault("nonlinearity", "tanh"), "nonlinearity", ("tanh", "relu"))
        return Options(**{**arguments, "dtype": _check.float_type(arguments["dtype"])}).checked()

    def _configure(self, o: Options) -> None:
        """Set up all but the parameters and the generator."""
        self._options, self._batch_first = o, o.batch_first
        self._shapes = _params.shapes(o)
        self._mask_plan = _masks.plan(o)
        self._generator = None
        self._lock = (os.getpid(), threading.RLock())

    def _start(self, values: dict[str, Array]) -> None:
        """Take the first parameters."""
        o = self._options
        sizes = (o.input_size, o.hidden_size, o.num_layers, o.directions)
        core = _core.Network(o.dtype.name, *sizes, o.bias, o.core(), o.batch_first)
        params = _params.Params(values)
        self._snapshot = Snapshot(core.successor(list(params.values())), params)
        _threadpools.meet_threadpoolctl()

    def _seed(self, generator: np.random.Generator) -> None:
        """Start a generator of this network's own if there are masks to draw."""
        if self._mask_plan:
            seed = int.from_bytes(generator.bytes(16), "little")
            self._generator = np.random.Generator(np.random.PCG64(seed))

    @property
    def params(self) -> _params.Params:
        """The parameters by name, in arrays that cannot be written; `writable` and `load_state_dict` replace them.

        ``params.flat`` is one vector of all of them, in the order of the names, of which the arrays are views. They
        are shown as they are at this moment: ask again after a change.

        For each layer k, with ``_reverse`` behind the names for the second direction, and G = 4 (1 in an RNN):
        ``weight_ih_l{k}`` (G*H, in), ``weight_hh_l{k}`` (G*H, R) and ``bias_l{k}`` (G*H,), gates in the order i, f, g,
        o; with ``proj_size`` ``weight_hr_l{k}`` (R, H); with ``peephole`` ``peephole_l{k}`` (3, H), of i, f and o; with
        ``layer_norm`` the gains ``norm_ih_l{k}`` and ``norm_hh_l{k}`` (4H,) and ``norm_c_l{k}`` (2, H), gain and bias.
        With ``shortcut="highway"``, for k >= 1, ``weight_highway_l{k}`` (O, O) and ``bias_highway_l{k}`` (O,).

        Of a quantised network (see `quantize`) they are float32 copies of the values, made anew each time.

        R is P with a projection, else H. O is a layer's output: D*R, or R if ``merge`` is not "concat".
        "in" is I for layer 0 and O for the others; with ``shortcut="dense"`` it is I + k*O. With ``coupled`` the rows
        of f are there, and without effect but for the mean and variance of ``layer_norm``.
        """
        return self._snapshot.params

    @contextmanager
    def writable(self) -> Iterator[dict[str, Array]]:
        """Hand out copies of the parameters for a ``with`` block, and take them over when it ends.

        Both ``params[name] -= step`` and ``params[name] = array`` work. All parameters change at once: other threads
        see the old ones or the new ones, and if the block raises or is interrupted, nothing changes. Tapes from before
        go back through the old parameters; streams go on with the new ones.

        Yields
        ------
        dict
            From every parameter's name to a writable array.

        Raises
        ------
        TypeError
            At the start of the block, if the weights are quantised.
        TypeError, ValueError
            At the end of the block, if a name, shape or type is wrong. Nothing has changed then.
        RuntimeError
            At the end of the block, if the parameters were changed by other means meanwhile: those stay.

        Examples
        --------
        >>> import quadgate as qg
        >>> lstm = qg.LSTM(3, 4)
        >>> with lstm.writable() as params:
        ...     params["weight_ih_l0"] *= 0.5
        """
        before = self._snapshot
        before.refuse_change()  # at the start of the block already
        scratch = {name: value.copy() for name, value in before.params.items()}
        yield scratch
        if scratch.keys() != self._shapes.keys():
            names = ", ".join(map(str, scratch.keys() ^ self._shapes.keys()))
            raise ValueError(f"a parameter was removed or invented in writable(): {names}")
        dtype = self._options.dtype
        values = {name: _check.floats(scratch[name], name, self._shapes[name], dtype) for name in self._shapes}
        self._commit(_params.Params(values), before)

    def state_dict(self, *, prefix: str = "") -> dict[str, Array]:
        """Return copies of the parameters under PyTorch's names.

        Our ``bias_l{k}`` is its ``bias_ih_l{k}``; ``bias_hh_l{k}`` is zeros. Parameters that PyTorch does not have keep
        our name. With ``torch.from_numpy`` around each array ``load_state_dict`` of ``torch.nn.LSTM`` (or
        ``torch.nn.RNN``) takes it as it is, and so does safetensors.

        Parameters
        ----------
        prefix : str
            Put in front of every name.
        """
        return _params.to_pytorch(self._snapshot.params, prefix)

    def load_state_dict(self, values: Mapping[str, ArrayLike], *, prefix: str | None = None) -> None:
        """Replace all parameters by those of a state dict, PyTorch's or ours, all at once.

        Parameters
        ----------
        values : mapping from name to array
            PyTorch's names, as `state_dict` has them, where ``bias_ih_l{k}`` and ``bias_hh_l{k}`` are added; or
            ``bias_l{k}`` instead of the two. For one layer the names of ``torch.nn.LSTMCell`` will do, without
            ``_l0``. Tensors on the CPU will do for arrays.
        prefix : str, optional
            Load the names that begin so, and ignore all others. Without it every name must belong to this network, and
            all may begin with the same prefix, whatever it is.

        Raises
        ------
        TypeError, ValueError
            If a name is missing, unknown or doubled, or an array is wrong. Nothing has changed then.
        """
        self._snapshot.refuse_change()
        self._commit(_params.read(values, self._shapes, self._options.dtype, prefix))

    @classmethod
    def from_state_dict(
        cls: type[Net], arrays: Mapping[str, ArrayLike], *, name: str | None = None, **options: Any
    ) -> Net:
        """Return a network with the parameters of a state dict, and the sizes that follow from its names and shapes.

        Parameters
        ----------
        arrays : mapping from name to array
            As `load_state_dict` takes it. Arrays of other modules may be among them. Weights may be in parts: of
            weight_norm (``_g``, ``_v``, or ``parametrizations``), pruning (``_orig``, ``_mask``) or weight-drop
            (``_raw``).
        name : str, optional
            The network's name in the state dict, for example "encoder.lstm". It is needed only if there are several.
        **options
            More arguments of the constructor, ``batch_first`` for example. Sizes, ``num_layers``, ``bias``,
            ``bidirectional``, ``proj_size``, ``peephole``, highways and ``dtype`` (float64 if an array is, else
            float32) are taken from the arrays unless they are given. An RNN's ``nonlinearity`` must be given, and so
            must ``layer_norm`` where there are norms. ``forget_bias`` is kept as the option that the network was first
            made with: it changes no bias.

        Raises
        ------
        TypeError, ValueError
            If there is no such network, or several and no name, or the arrays do not fit each other or the options.

        Notes
        -----
        The ``__init__`` of a subclass is not called, as in unpickling.

        Examples
        --------
        >>> import quadgate as qg
        >>> lstm = qg.LSTM.from_state_dict(qg.LSTM(3, 4, num_layers=2).state_dict())
        >>> lstm
        LSTM(3, 4, num_layers=2, dtype='float32')
        """
        known = [n for n in Options._fields if isinstance(getattr(cls, n, None), Option)]
        refuse_unknown(options, [*known, "rng"], f"{cls.__name__}.from_state_dict()")
        generator = _check.generator(options.pop("rng", None))
        prefix, found = _params.select(*_whole(_params.checked_mapping(arrays)), name)
        arguments = {**_params.infer(found, prefix, elman=cls._elman), **options}
        if any(key[len(prefix) :].startswith("norm_") for key in found) and "layer_norm" not in options:
            raise ValueError("the arrays are of a network with layer_norm: pass layer_norm='output' or 'cell'")
        if cls._elman and "nonlinearity" not in options:
            raise ValueError("an RNN's weights do not tell its activation: pass nonlinearity='tanh' or 'relu'")
        o = cls._checked(arguments)
        o.warn(stacklevel=2)
        return cls._of_arrays(o, found, prefix, generator)

    @classmethod
    def _of_arrays(
        cls: type[Net], o: Options, arrays: Mapping[str, Any], prefix: str, generator: np.random.Generator
    ) -> Net:
        """Return a network with the parameters of a state dict. No memory is taken before their shapes are compared."""
        net = cls.__new__(cls)
        net._configure(o)
        try:
            values = _params.read(arrays, net._shapes, o.dtype, prefix)
        except ValueError as error:
            text = str(error)
            if "weight_ih_l1" in text and "must have shape" in text:  # as wide as the layer below makes it
                raise ValueError(f"{text}; if the network has a merge= or shortcut= of its own, give it") from error
            raise
        net._start(values)
        net._seed(generator)
        return net

    @property
    def num_parameters(self) -> int:
        """Number of elements of all parameters, with one bias for each gate and unit."""
        return sum(math.prod(shape) for shape in self._shapes.values())

    @property
    def weight_type(self) -> str:
        """Type that the matrices are stored in: "float32" or "float64", or what `quantize` was given."""
        return self._snapshot.weight_type or self._options.dtype.name

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the weights take: the parameters, and the packed ones that calls read.

        Training packs them for its backward pass, too, which then counts.
        """
        now = self._snapshot
        return sum(value.nbytes for value in now.held.values()) + now.core.nbytes

    def quantize(self: Net, weights: Literal["float16", "bfloat16", "int8"]) -> Net:
        """Return a network for inference and streams whose weights take fewer bytes.

        x, y, the state, the biases and the cell stay float32; the matrices (``weight_...``) are stored smaller.

        Parameters
        ----------
        weights : "float16", "bfloat16" or "int8"
            "float16" and "bfloat16": each weight is rounded to the nearest number of that type, to even where two are
            as near, and multiplied in float32. "int8": integers from -127 to 127 with one scale for each row of a
            matrix; each row of x and of h is quantised at each step to integers from 0 to 255, with a scale and a
            zero point of its own, and products are summed in integers, exactly.

        Returns
        -------
        LSTM or RNN
            Of the same class and options. Calls, streams, pickles, copies and `quadgate.save` work as before; training
            and changes of parameters raise TypeError. It shares nothing with this network, which does not change,
            but the attributes of a subclass, as in a shallow copy.

        Raises
        ------
        TypeError, ValueError
            If ``weights`` is none of these, or the network is quantised already or float64.
        ValueError
            If a weight is NaN or infinite, or too large for the type; the message names the parameter.

        Notes
        -----
        Results do not depend on the batch that a row is in, on the number of threads or on how a sequence is cut, as
        without quantisation. `quadgate.quantization_error` measures the change of y.

        Examples
        --------
        >>> import quadgate as qg
        >>> lstm = qg.LSTM(64, 128, rng=0)
        >>> half = lstm.quantize("float16")
        >>> half
        LSTM(64, 128, dtype='float32', weight_type='float16')
        >>> half.nbytes / lstm.nbytes < 0.55
        True
        """
        from . import _quantize  # most programs do not need it, and an import need not pay for it

        return _quantize.quantized(self, weights)

    @classmethod
    def _restored(cls: type[Net], o: Options, kind: str, arrays: Mapping[str, Array]) -> Net:
        """Return a network with the arrays that a quantised one stores."""
        from . import _quantize

        return _quantize.checked(cls, o, kind, arrays)

    def _take_stored(self, kind: str, stored: dict[str, Array]) -> None:
        """Take the first parameters, whose matrices are of a compact type."""
        from . import _quantize

        core = _quantize.core_of(self._options, kind).successor(list(stored.values()))
        self._snapshot = _quantize.QuantizedSnapshot(core, stored, kind)
        _threadpools.meet_threadpoolctl()

    def __repr__(self) -> str:
        changed = self._options.changed()
        if changed.get("nonlinearity") == "tanh":  # an RNN's default
            del changed["nonlinearity"]
        changed["dtype"] = self._options.dtype.name
        if self._snapshot.weight_type:
            changed["weight_type"] = self._snapshot.weight_type
        sizes = (str(self._options.input_size), str(self._options.hidden_size))
        return f"{type(self).__name__}({', '.join((*sizes, *(f'{k}={v!r}' for k, v in changed.items())))})"

    def __getstate__(self) -> dict[str, Any]:
        with self._own_lock():  # another thread could be drawing
            generator = None if self._generator is None else self._generator.bit_generator.state
        attributes = dict(getattr(self, "__dict__", {}))  # of a subclass
        return _pickling.network_state(self._options, self._snapshot, generator, attributes)

    def __setstate__(self, state: Any) -> None:
        if self._take_attributes(state):
            return
        own = _pickling.read_network_state(state, self._elman, type(self).__name__)
        o, values, kind, generator, attributes = own
        if attributes and not hasattr(self, "__dict__"):
            raise ValueError(f"the pickle of a {type(self).__name__} must have no attributes, got {len(attributes)}")
        self._configure(o)
        self._generator = generator
        if kind is None:
            self._start(values)
        else:
            self._take_stored(kind, values)
        if attributes:
            self.__dict__.update(attributes)  # never our own, which are no part of it

    def _own_lock(self) -> threading.RLock:
        """Return the lock of this process: a forked child may have inherited one that a thread of its parent held.

        It can be taken again by the thread that has it, for example in a signal handler that uses the network.
        """
        before, pid = self._lock, os.getpid()
        if before[0] != pid:  # of several threads the first one takes effect
            generator = copy.deepcopy(self._generator)  # which has a lock, too
            _core.replace_all([(self, "_lock", (pid, threading.RLock()), before), (self, "_generator", generator)])
        return self._lock[1]

    def _commit(self, values: Mapping[str, Array], before: Snapshot | None = None) -> None:
        """Take over new parameters; with `before` only if no other thread did since that snapshot.

        Everything is built first. Then one step swaps parameters and core together, so that no other thread and no
        interrupt finds some of them old and some new. It takes no lock, which an interrupt could leave behind.
        """
        new = self._successor(values)
        if before is None:
            self._snapshot = new
        elif not _core.replace_all([(self, "_snapshot", new, before)]):
            raise RuntimeError("the parameters were changed by other means within a writable() block")

    def _successor(self, values: Mapping[str, Array]) -> Snapshot:
        """Return the snapshot of new parameters."""
        if not isinstance(values, _params.Params):
            values = _params.Params({name: values[name] for name in self._shapes})
        return Snapshot(self._snapshot.core.successor(list(values.values())), values)


def _whole(values: Mapping[str, object]) -> tuple[Mapping[str, object], Mapping[str, str]]:
    """Return a state dict whose weights are not in parts, and problems by the names of those that cannot be joined."""
    parts = ("_g", "_v", "_raw", "_orig", "_mask", "_u")
    if not any(key.endswith(parts) or "parametrizations." in key for key in values):
        return values, {}
    from ._reparametrized import reparametrized

    whole, _, broken = reparametrized(values)
    return whole, broken


def refuse_unknown(keywords: Mapping[str, Any], known: Any, of: str) -> None:
    """Raise TypeError for a keyword argument that there is not."""
    for name in keywords:
        if name not in known:
            raise TypeError(f"{of} got an unexpected keyword argument {name!r}{_check.did_you_mean(name, known)}")
