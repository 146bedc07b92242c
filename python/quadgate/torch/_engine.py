"""Parameters of a module as networks of the core, packed again only when they have changed.

Everything here computes on NumPy's views of tensors, which share their memory.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from .. import _params
from .._network import Network
from .._options import Options
from .._params import Snapshot
from ..lstm import LSTM
from ..rnn import RNN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .._results import Tape

    Array = NDArray[Any]

# Steps times rows from which inference compares the parameters' contents: reading them then takes 1 to 3 % of the
# call's time, whatever the network.
THOROUGH = 4096

NAMES = {torch.float32: "float32", torch.float64: "float64"}  # the types that the core computes in

CHANCE: dict[str, Any] = {"dropout": 0.0, "recurrent_dropout": 0.0, "weight_drop": 0.0}  # options that eval() turns off


class Call(NamedTuple):
    """Arguments of one call besides x, the state and the parameters.

    Attributes
    ----------
    lengths, resets, mask : as in `quadgate.LSTM`
    padding : str
        ``padding_output``.
    cells : bool
        True to return the last layer's c at every step.
    seed : int or None
        Seed of the masks of dropout and zoneout; None where there are none.
    """

    lengths: Any = None
    resets: Any = None
    mask: Any = None
    padding: Any = "zero"
    cells: bool = False
    seed: int | None = None


class Packed(NamedTuple):
    """The parameters of one moment.

    Attributes
    ----------
    net : Network
    marks : list
        Address and version of each parameter, and strides where they say more than the shape.
    views : list of tensors
        Their memory, kept so that no other tensor can get the same address.
    copies : list of bytearray
        Their contents.
    step : object
        `Engine.step` of the moment.
    """

    net: Network
    marks: list[Any]
    views: list[torch.Tensor]
    copies: list[bytearray]
    step: object


class Engine:
    """Network of one module: options, and the packed parameters of the last call.

    Another thread may call at the same time. Each call uses the `Packed` that it found or made.
    """

    step: ClassVar[object] = None  # another object after each step of any optimizer

    def __init__(self, options: Options) -> None:
        self.options, self.text = options, spec(options)
        self._last: dict[tuple[str, bool], Packed] = {}

    def refresh(self) -> None:
        """Forget the packed parameters."""
        self._last = {}

    def network(self, weights: Sequence[torch.Tensor], chance: bool, thorough: bool) -> Network:
        """Return a network with these parameters.

        Parameters
        ----------
        weights : list of tensors
            In the order of `names`, of one dtype.
        chance : bool
            False to leave out dropout.
        thorough : bool
            True to compare contents where addresses and versions are those of the last call.
        """
        key = NAMES.get(weights[0].dtype, ""), chance
        last, step = self._last.get(key), Engine.step
        marks: list[Any] = []
        for weight in weights:
            try:
                marks.append(weight.data_ptr())
                if not weight.is_contiguous():
                    marks.append(weight.stride())
                marks.append(weight._version)
            except RuntimeError:  # an inference tensor has no version, a sparse one no address
                marks.append(None)
                thorough = True
        if last is not None and last.marks == marks:
            if last.step is step and not thorough:
                return last.net
            if _equal(last.copies, weights):
                if last.step is not step:
                    self._last = {**self._last, key: last._replace(step=step)}
                return last.net
        _check_weights(self.options, weights)
        # Packed from the copies: if another thread or process writes meanwhile, the next comparison finds it.
        copies = [bytearray(_plain(weight)) for weight in weights]
        arrays = [np.frombuffer(copy, key[0]).reshape(w.shape) for copy, w in zip(copies, weights, strict=True)]
        net = self._make(key, arrays) if last is None else _successor(last.net, _parameters(last.net, arrays))
        others = {k: v for k, v in self._last.items() if k[0] == key[0]}  # not those of before .to()
        self._last = {**others, key: Packed(net, marks, [weight.detach() for weight in weights], copies, step)}
        return net

    def _make(self, key: tuple[str, bool], arrays: list[Array]) -> Network:
        """Return the first network of a type."""
        dtype, chance = key
        o = self.options._replace(dtype=np.dtype(dtype), **({} if chance else CHANCE)).checked()
        kind: type[Network] = RNN if o.elman else LSTM
        net = kind.__new__(kind)
        net._configure(o)
        net._start(_parameters(net, arrays))
        net._snapshot = Snapshot(net._snapshot.core, {})
        return net


def _stepped(*_: object) -> None:
    """Let the next calls compare contents: torch's fused optimizers do not raise the version of what they write."""
    Engine.step = object()


register_optimizer_step_post_hook(_stepped)


def _check_weights(o: Options, weights: Sequence[torch.Tensor]) -> None:
    """Raise unless the parameters are on the CPU and have one type and their shapes."""
    dtype = weights[0].dtype
    for (name, shape), weight in zip(shapes(o).items(), weights, strict=True):
        if weight.device.type != "cpu":
            raise ValueError(f"{name} must be on the CPU, where quadgate computes, got a parameter on {weight.device}")
        if weight.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor, got layout {weight.layout}")
        check_dtype(weight.dtype)
        if weight.dtype != dtype:
            raise TypeError(f"{name} must be {dtype} as the first parameter is, got {weight.dtype}")
        if tuple(weight.shape) != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(weight.shape)}")
        # A tensor of a sharded or offloaded model outlives its memory, which would be read all the same.
        last = weight.storage_offset() + sum((n - 1) * s for n, s in zip(weight.shape, weight.stride(), strict=True))
        if weight.untyped_storage().nbytes() < (last + 1) * weight.itemsize:
            raise ValueError(f"{name} must have its memory, got a tensor whose storage has been freed or made smaller")


def _equal(copies: list[bytearray], weights: Sequence[torch.Tensor]) -> bool:
    """Compare contents, NaN included: a bytearray compares by memcmp, which NumPy does not offer."""
    return all(copy == _plain(weight) for copy, weight in zip(copies, weights, strict=True))


def _plain(weight: torch.Tensor) -> Any:
    """Return a tensor's memory as an object with a buffer; a copy if it is not contiguous. For a use at once only.

    Not by `Tensor.numpy`, which is slower, and after which the storage can never be resized: FSDP does so each step.
    """
    if weight.is_contiguous() and not weight.is_neg() and (address := weight.data_ptr()):
        return (ctypes.c_char * weight.nbytes).from_address(address)
    return weight.detach().clone(memory_format=torch.contiguous_format).numpy(force=True)


def _successor(net: Network, values: dict[str, Array]) -> Network:
    """Return a network with other parameters that shares the options and the spare memory of the last tape."""
    new = type(net).__new__(type(net))
    for name in ("_batch_first", "_generator", "_lock", "_mask_plan", "_options", "_shapes"):
        setattr(new, name, getattr(net, name))
    new._snapshot = Snapshot(net._snapshot.core.successor(list(values.values())), {})  # no need to keep the arrays
    return new


def names(o: Options) -> list[str]:
    """Return the names of a module's parameters: ours, but for each bias PyTorch's two.

    The order is PyTorch's: ``weight_ih``, ``weight_hh``, ``bias_ih``, ``bias_hh``, ``weight_hr`` for each layer and
    direction, then the parameters that PyTorch does not have.
    """
    result: list[str] = []
    for name in _params.shapes(o):
        result += _params._halves(name) or (name,)
    return result


def _parameters(net: Network, arrays: Sequence[Array]) -> dict[str, Array]:
    """Return the core's parameters by name from the arrays in the order of `names`."""
    rest = iter(arrays)
    values = {}
    for name in net._shapes:
        value = next(rest)
        values[name] = value + next(rest) if name.startswith("bias_l") else value
    return values


def gradients(net: Network, params: dict[str, Array]) -> list[Array]:
    """Return the gradients in the order of `names`, no two of which share memory."""
    result = []
    for name in net._shapes:
        result.append(params[name])
        if name.startswith("bias_l"):
            result.append(params[name].copy())
    return result


def infer(net: Network, call: Call, x: Array, state: Sequence[Array | None]) -> list[Array]:
    """Return y, the final states, and the cells if the call wants them."""
    keywords = {"lengths": call.lengths, "resets": call.resets, "mask": call.mask, "padding_output": call.padding}
    if isinstance(net, RNN):
        return list(net(x, state[0], **keywords))
    assert isinstance(net, LSTM)
    pair: Any = None if state[0] is None else (state[0], state[1])
    y, (h, c), *cells = net(x, pair, **keywords, return_cells=call.cells)
    return [y, h, c, *cells]


def train(net: Network, call: Call, x: Array, state: Sequence[Array | None]) -> tuple[list[Array], Tape]:
    """Return the results of `infer` and the tape."""
    keywords = {"lengths": call.lengths, "resets": call.resets, "mask": call.mask, "padding_output": call.padding}
    rng = None if call.seed is None else np.random.Generator(np.random.PCG64(call.seed))
    if isinstance(net, RNN):
        y, h, tape = net.forward(x, state[0], **keywords, rng=rng)
        return [y, h], tape
    assert isinstance(net, LSTM)
    pair: Any = None if state[0] is None else (state[0], state[1])
    y, (h, c), tape = net.forward(x, pair, **keywords, rng=rng, return_cells=call.cells)
    return [y, h, c, *([tape.cells] if tape.cells is not None else [])], tape


def backward(
    net: Network, tape: Tape, grads: Sequence[Array | None], input_grad: bool, state_grad: bool
) -> tuple[Array | None, list[Array | None], list[Array]]:
    """Return the gradients of x, of the states, and of the parameters in the order of `names`."""
    dy, dh, *rest = grads
    if isinstance(net, RNN):
        r = net.backward(tape, dy, dh, input_grad=input_grad, state_grad=state_grad)
        return r.x, [r.h0], gradients(net, r.params)
    assert isinstance(net, LSTM)
    dstate = None if dh is None and rest[0] is None else (dh, rest[0])
    dcells = rest[1] if len(rest) > 1 else None
    found = net.backward(tape, dy, dstate, dcells=dcells, input_grad=input_grad, state_grad=state_grad)
    return found.x, [found.h0, found.c0], gradients(net, found.params)


# Engines by the numbers that stand in compiled graphs. A module keeps its own; exported programs, which outlive
# modules, share a few.
_live: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()
_adopted: OrderedDict[tuple[str, int], Engine] = OrderedDict()
_ADOPTED = 16
_numbers = itertools.count(1)


def register(engine: Engine) -> int:
    """Register an engine and return its number."""
    result = next(_numbers)
    _live[result] = engine
    return result


def spec(o: Options) -> str:
    """Return the options as text, for graphs; the dtype is that of the tensors."""
    return json.dumps({name: value for name, value in o.arguments().items() if name != "dtype"})


def engine_for(text: str, owner: int) -> Engine:
    """Return the engine of a number, or another one with the same options if its module is gone."""
    engine = _live.get(owner)
    if engine is not None and engine.text == text:
        return engine
    key = text, owner
    engine = _adopted.get(key)
    if engine is None:
        engine = _adopted[key] = Engine(options(text))
        while len(_adopted) > _ADOPTED:
            _adopted.popitem(last=False)
    return engine


def options(text: str) -> Options:
    """Return the options of `spec`."""
    return Options.of(json.loads(text))


def seeded(o: Options) -> bool:
    """Return True if the options draw masks in training."""
    return any(getattr(o, name) for name in CHANCE) or any(o.zoneout)


def check_dtype(dtype: object, found: str = "the parameters are {}: use .float()") -> None:
    """Raise TypeError unless the core computes in this type."""
    if str(dtype) not in ("torch.float32", "torch.float64"):
        raise TypeError(f"quadgate computes in float32 or float64, and {found.format(dtype)}")


def state_sizes(o: Options) -> tuple[tuple[int, int], ...]:
    """Return the first and the last axis of the states: of h, and in an LSTM of c."""
    rows = o.num_layers * o.directions
    h, c = (rows, o.state_columns), (rows, o.hidden_size)
    return (h,) if o.elman else (h, c)


def shapes(o: Options) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a module's parameters by `names`."""
    result: dict[str, tuple[int, ...]] = {}
    for name, shape in _params.shapes(o).items():
        result.update((own, shape) for own in _params._halves(name) or (name,))
    return result
