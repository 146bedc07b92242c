"""The base of both modules: parameters, arguments, and the choice between eager mode and operators."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar, cast

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from .. import _check
from .._options import Options
from ..lstm import LSTM
from ..rnn import RNN
from . import _engine, _function, _initial, _ops  # noqa: F401  # _ops registers the operators
from ._engine import Call, Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    Array = NDArray[Any]

Module = TypeVar("Module", bound="Recurrent")

STATE_FORMAT = 1
REDUCED = (torch.bfloat16, torch.float16)
FLOATS = (torch.float16, torch.float32, torch.float64)  # those that NumPy has

# Options that may change after construction: they change no parameter.
SETTABLE = ("batch_first", "dropout", "recurrent_dropout", "weight_drop", "zoneout")


class Recurrent(nn.Module):
    """Base of `quadgate.torch.LSTM` and `quadgate.torch.RNN`."""

    _elman: ClassVar[bool]
    _absent: ClassVar[tuple[str, ...]]  # options that are no attributes
    _options: Options
    _engine: Engine

    def _create(self, arguments: dict[str, Any], device: Any, dtype: Any) -> None:
        """Do what both constructors do; `arguments` are their local variables."""
        super().__init__()
        arguments = {n: value for n, value in arguments.items() if n in Options._fields and n != "dtype"}
        dtype = torch.get_default_dtype() if dtype is None else dtype
        _engine.check_dtype(dtype, "dtype is {}")
        if self._elman:
            _check.choice(arguments["nonlinearity"], "nonlinearity", ("tanh", "relu"))
        # The dtype here only says which numbers an option may have; that of the parameters decides at each call.
        self._configure(Options(**arguments, dtype=np.dtype(str(dtype).removeprefix("torch."))).checked())
        self._options.warn(stacklevel=3)
        for name, shape in _engine.shapes(self._options).items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
        self.reset_parameters()

    def _configure(self, options: Options) -> None:
        self._options, self._engine = options, Engine(options)
        self._number, self._spec = _engine.register(self._engine), self._engine.text
        self._names = tuple(_engine.names(options))
        self._seeded = _engine.seeded(options)
        self._state_sizes = _engine.state_sizes(options)  # torch 2.4 cannot compile properties of a NamedTuple

    def reset_parameters(self) -> None:
        """Draw all parameters again from torch's generator, as torch.nn.LSTM does unless ``initialization`` differs.

        Additions of a subclass stay as they are. Of a parametrized parameter the originals are drawn as torch.nn.LSTM
        draws them; where options ask for other numbers, the parametrization is assigned to.

        Raises
        ------
        RuntimeError
            If options ask for other numbers, and the former ``torch.nn.utils.weight_norm`` or the like has replaced
            the parameter. Nothing has changed then.
        """
        _initial.reset(self, self._options, self._names)

    def refresh(self) -> None:
        """Read the parameters again at the next call.

        Training calls, and calls of many steps, compare the contents of the parameters and see every change. Short
        calls without gradients see optimizers, ``load_state_dict``, and whatever else writes in place or replaces a
        tensor. Only after writing to the memory itself, through ``.data``, ``.numpy()``, a collective of
        torch.distributed or another process, must this be called before a short one. docs/torch.md has the whole list.
        """
        self._engine.refresh()

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.refresh()  # FSDP makes a new whole of loaded parts at the same addresses, with the same versions

    def flatten_parameters(self) -> None:
        """Do nothing; torch.nn.LSTM has this method for GPUs."""

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """Parameters in a list for each layer and direction, as in torch.nn.LSTM."""
        o = self._options
        suffixes = [suffix for layer in range(o.num_layers) for suffix in o.suffixes(layer)]
        return [[getattr(self, n) for n in self._names if n[n.rindex("_l") :] == suffix] for suffix in suffixes]

    def network(self) -> Any:
        """Return a `quadgate.LSTM` or `quadgate.RNN` with copies of the parameters, which does not need torch."""
        o = self._options.arguments()
        weights = {name: getattr(self, name).detach().to("cpu", copy=True) for name in self._names}
        _engine.check_dtype(weights[self._names[0]].dtype)
        o["dtype"] = str(weights[self._names[0]].dtype).removeprefix("torch.")
        kind = _network_class(self._elman)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of options without effect: this module's constructor has warned
            return kind.from_state_dict(weights, **{name: value for name, value in o.items() if hasattr(kind, name)})

    @classmethod
    def from_network(cls: type[Module], net: Any) -> Module:
        """Return a module with the options and copies of the parameters of a `quadgate.LSTM` or `quadgate.RNN`.

        Parameters
        ----------
        net : quadgate.LSTM or quadgate.RNN
            Of this module's kind.

        Raises
        ------
        TypeError
            If it is anything else.
        """
        kind = _network_class(cls._elman)
        if not isinstance(net, kind):
            raise TypeError(f"net must be a quadgate.{kind.__name__}, got {type(net).__name__}")
        o = net._options.arguments()
        dtype = getattr(torch, o.pop("dtype"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make: Any = nn.utils.skip_init
            module: Module = make(cls, dtype=dtype, **{n: v for n, v in o.items() if hasattr(kind, n)})
        module.load_state_dict({name: torch.from_numpy(value) for name, value in net.state_dict().items()})
        return module

    def _run(
        self, input: Any, hx: list[Any] | None, lengths: Any, resets: Any, mask: Any, padding: Any, cells: Any
    ) -> list[Any]:
        """Return y, the final states and, with `cells`, the cells; `input` may be a PackedSequence."""
        if isinstance(input, PackedSequence):
            _check.padding(padding)
            return cast("list[Any]", self._run_packed(input, hx, lengths, resets, mask, cells))
        parameters: Any = self._parameters
        try:
            weights = [parameters[name] for name in self._names]
        except KeyError:  # parametrized, or replaced by weight_norm
            weights = [getattr(self, name) for name in self._names]
        for weight in weights:
            if weight is None:
                name = next(n for n, w in zip(self._names, weights, strict=True) if w is None)
                raise TypeError(f"{name} must be a tensor, got None")
        input, hx = self._checked(input, hx, weights)
        chance = self.training and self._seeded
        if _tracing() or type(input) not in (torch.Tensor, nn.Parameter):
            return self._trace(input, hx, weights, lengths, resets, mask, padding, cells, chance)
        if torch._C._are_functorch_transforms_active():
            raise NotImplementedError(
                "quadgate.torch does not work within torch.func's transforms (grad, vmap, jvp, ...): use backward() or "
                "torch.autograd.grad, or torch.nn.LSTM with the same state_dict; torch.func.functional_call works"
            )
        seed = int(torch.randint(2**63 - 1, ())) if chance else None
        if lengths is not None:
            lengths = _array(lengths, "lengths", _check.WHOLE, "fiu")
            rows = 1 if input.dim() == 2 else input.shape[0 if self._options.batch_first else 1]
            if lengths.shape != (rows,) and (lengths.ndim or input.dim() == 3):
                raise ValueError(
                    f"lengths must have shape ({rows},), one for each row of input, got {tuple(lengths.shape)}"
                )
        if resets is not None:
            resets = _flags(resets, "resets", input)
        if mask is not None:
            mask = _flags(mask, "mask", input)
        call = Call(lengths, resets, mask, padding, cells, seed)
        state = hx or []
        wanted = torch.is_grad_enabled() and any(t.requires_grad for t in (input, *state, *weights))
        if wanted or torch.autograd.forward_ad._current_level >= 0:
            self._refuse_zoneout(chance)
            return _function.train(self._engine, call, input, state, weights, chance)
        return _function.infer(self._engine, call, input, state, weights, chance)

    def _trace(
        self,
        input: Tensor,
        hx: list[Tensor] | None,
        weights: list[Tensor],
        lengths: Any,
        resets: Any,
        mask: Any,
        padding: str,
        cells: bool,
        chance: bool,
    ) -> list[Tensor]:
        """Return the same through the operators of `_ops`."""
        if hx is None:
            batch = () if input.dim() == 2 else (input.shape[0 if self._options.batch_first else 1],)
            hx = [input.new_zeros((rows, *batch, columns)) for rows, columns in self._state_sizes]
        cells = _check.flag(cells, "return_cells")
        given = (("lengths", lengths), ("resets", resets), ("mask", mask))
        flags = [None if value is None else torch.as_tensor(_readable(value, name)) for name, value in given]
        seed = torch.randint(2**63 - 1, ()) if chance else None
        rest = (*flags, seed, padding, cells, chance, self._spec, self._number)
        if torch.is_grad_enabled() and any(t.requires_grad for t in (input, *hx, *weights)):
            self._refuse_zoneout(chance)
            results = cast("list[Tensor]", torch.ops.quadgate.train(input, hx, weights, *rest))
            return results[:-1]
        return cast("list[Tensor]", torch.ops.quadgate.infer(input, hx, weights, *rest))

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # no graph can have it, nor that of nn.LSTM
    def _run_packed(
        self, packed: PackedSequence, hx: list[Any] | None, lengths: Any, resets: Any, mask: Any, cells: Any
    ) -> list[Any]:
        for name, value in (("lengths", lengths), ("resets", resets), ("mask", mask)):
            if value is not None:
                raise ValueError(f"{name} must be None with a PackedSequence: pass padded input and lengths= instead")
        data, sizes, order, back = packed
        if data.dim() != 2:
            raise ValueError(f"the data of a PackedSequence must have 2 axes, got {data.dim()}")
        total = int(sizes.numel())
        x, rows = torch._VF._pad_packed_sequence(data, sizes, self._options.batch_first, 0.0, total)
        if hx is not None and order is not None:
            hx = [t.index_select(1, order) if _has_rows(t, order) else t for t in hx]  # _checked refuses the others
        y, *state = self._run(x, hx, rows, None, None, "zero", cells)
        state, rest = state[: 1 if self._elman else 2], state[1 if self._elman else 2 :]
        if back is not None:
            state = [t.index_select(1, back) for t in state]
        whole = [torch._VF._pack_padded_sequence(t, rows, self._options.batch_first)[0] for t in (y, *rest)]
        sequences = [PackedSequence(t, sizes, order, back) for t in whole]
        return [sequences[0], *state, *sequences[1:]]

    def _checked(self, x: Any, hx: list[Any] | None, weights: Sequence[Any]) -> tuple[Tensor, list[Tensor] | None]:
        """Return the input and the state, or raise an error that names the one that cannot be used."""
        o, dtype = self._options, weights[0].dtype
        if dtype is not torch.float32 and dtype is not torch.float64:  # rather than ask for an input of this type first
            _engine.check_dtype(dtype)
        x = _cast(x, "input", dtype)
        if x.dim() not in (2, 3) or x.shape[-1] != o.input_size:
            order = "B, T" if o.batch_first else "T, B"
            raise ValueError(
                f"input must have shape ({order}, {o.input_size}) or (T, {o.input_size}), got {tuple(x.shape)}"
            )
        if hx is None:
            return x, None
        batch = () if x.dim() == 2 else (x.shape[0 if o.batch_first else 1],)
        result = []
        for k, (value, (rows, columns)) in enumerate(zip(hx, self._state_sizes, strict=True)):
            name, shape = "hx" if len(hx) == 1 else f"hx[{k}]", (rows, *batch, columns)
            result.append(_cast(value, name, dtype))
            if tuple(value.shape) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
        return x, result

    def _refuse_zoneout(self, chance: bool) -> None:
        if not chance and any(self._options.zoneout):
            raise NotImplementedError(
                "gradients with zoneout need train(): in eval() it is a mean, which has no backward pass; "
                "use torch.no_grad() for inference"
            )

    def extra_repr(self) -> str:
        changed = self._options.changed()
        changed.pop("dtype", None)
        if changed.get("nonlinearity") == "tanh":
            del changed["nonlinearity"]
        sizes = (str(self._options.input_size), str(self._options.hidden_size))
        return ", ".join((*sizes, *(f"{name}={value!r}" for name, value in changed.items())))

    def __getattr__(self, name: str) -> Any:
        """Return options as attributes, as torch.nn.LSTM has them."""
        if name in Options._fields and name not in self._absent and "_options" in self.__dict__:
            return getattr(self._options, name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in Options._fields:
            if name not in SETTABLE:
                # A subclass of torch.nn.LSTM may write down its arguments once more.
                known = getattr(self._options, name, None) if "_options" in self.__dict__ else NotImplemented
                if name not in self._absent and type(value) is type(known) and value == known:
                    return
                raise AttributeError(f"{name} of a module cannot be set: make another module")
            self._configure(self._options._replace(**{name: value}).checked())
        else:
            super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        own = ("_options", "_engine", "_number", "_spec", "_names", "_seeded", "_state_sizes")
        state = {name: value for name, value in self.__dict__.items() if name not in own}
        return {**state, "_format": STATE_FORMAT, "_arguments": self._options.arguments()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        number = state.pop("_format", None)
        if number != STATE_FORMAT:
            raise ValueError(
                f"the pickle of {type(self).__name__} has format {number}, this quadgate reads {STATE_FORMAT}"
            )
        options = Options.of(state.pop("_arguments"))
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._configure(options)

    def __prepare_scriptable__(self) -> NoReturn:
        raise TypeError(
            f"torch.jit.script cannot compile quadgate.torch.{type(self).__name__}: use torch.compile, torch.export or "
            "torch.jit.trace under torch.no_grad(), or torch.nn.LSTM with the same state_dict"
        )


def _network_class(elman: bool) -> Any:
    return RNN if elman else LSTM


def _tracing() -> bool:
    """Return True if the call is recorded rather than made: by torch.compile, torch.jit.trace or a dispatch mode."""
    trace: Any = torch.jit
    return torch.compiler.is_compiling() or trace.is_tracing() or torch._C._len_torch_dispatch_stack() > 0


def _has_rows(value: Any, order: Tensor) -> bool:
    """Return True for a state of as many rows as a batch has."""
    return isinstance(value, torch.Tensor) and value.dim() == 3 and value.shape[1] == order.numel()


def _cast(value: Any, name: str, dtype: torch.dtype) -> Tensor:
    """Return a tensor of the parameters' type, or raise."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if value.device.type != "cpu":
        raise ValueError(f"{name} must be on the CPU, where quadgate computes, got a tensor on {value.device}")
    if value.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}")
    if value.dtype == dtype:
        return value
    if value.dtype in REDUCED and torch.is_autocast_enabled("cpu"):
        return value.to(dtype)
    raise TypeError(f"{name} must be {dtype} as the parameters are, got {value.dtype}: convert it by .to()")


def _readable(value: Any, name: str) -> Any:
    """Return an argument that is not differentiated, or raise if it is a tensor that has no plain memory."""
    if isinstance(value, torch.Tensor):
        if value.requires_grad:
            raise TypeError(f"{name} must not require a gradient: it has none")
        if value.device.type != "cpu":
            raise ValueError(f"{name} must be on the CPU, where quadgate computes, got a tensor on {value.device}")
        if value.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor, got layout {value.layout}")
        if value.dtype.is_floating_point and value.dtype not in FLOATS:
            raise TypeError(f"{name} must be of a type that NumPy has, got {value.dtype}")
    return value


def _array(value: Any, name: str, what: str, kinds: str) -> Array:
    """Return an argument that is not differentiated as an array of one of the kinds of types."""
    value = _readable(value, name)
    return _check.array(_function.view(value) if isinstance(value, torch.Tensor) else value, name, what, kinds)


def _flags(value: Any, name: str, input: Tensor) -> Array:
    """Return an argument that has a bool for each step."""
    result, shape = _array(value, name, _check.BOOLS, "biu"), tuple(input.shape[:-1])
    if result.shape != shape:  # the core would speak of x
        raise ValueError(f"{name} must have shape {shape}, input's without its last axis, got {result.shape}")
    return result
