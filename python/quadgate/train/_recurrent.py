"""Recurrent layers of a model: a network as a layer, and its final state as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _run
from .._network import Network
from .._params import Params, Snapshot
from ..lstm import LSTM
from ..rnn import RNN
from ._commit import Swap
from ._layer import Context, FinalGradient, Layer, Sequence, _owned, values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Shape = tuple[int | None, ...]
    Values = Mapping[str, Array]


class FinalState(Layer):
    """The final h of the recurrent layer before it, (B, D*R): its top layer's, forward direction first.

    It is that of each row's last step that counts, under lengths and masks, and for the reverse direction that of the
    first. Going back it starts from the gradient of the final state, without a dy of zeros.
    """

    __slots__ = ("columns",)

    def __init__(self) -> None:
        super().__init__()
        self.columns = 0

    def bind(self, rng: np.random.Generator, dtype: np.dtype[Any], previous: Layer | None = None) -> None:
        """Check that a recurrent layer comes first."""
        super().bind(rng, dtype, previous)
        if not isinstance(previous, Recurrent):
            got = "nothing" if previous is None else repr(previous)
            raise ValueError(f"FinalState() must come directly behind an LSTM or an RNN, got {got} before it")
        self.columns = previous.final_columns

    def output_shape(self, shape: Shape) -> Shape:
        """Return (B, D*R)."""
        if len(shape) != 3:
            raise self._refuse(shape, "(B, T, O)")
        return (shape[0], self.columns)

    def forward(self, x: Any, context: Context) -> tuple[Any, Any]:
        """Return the final h."""
        if type(x) is not Sequence:
            raise TypeError(f"FinalState() must come directly behind an LSTM or an RNN, got {type(x).__name__}")
        return x.final, None

    def backward(
        self, tape: Any, dy: Any, *, need_x: bool, out: Mapping[str, Array] | None = None
    ) -> tuple[Any, dict[str, Array]]:
        """Return the gradient of the final h, for the layer before."""
        return FinalGradient(dy), {}


class Recurrent(Layer):
    """An `LSTM` or `RNN` in a model, batch first whatever its own ``batch_first``. A model makes it of the network.

    Attributes
    ----------
    net : quadgate.LSTM or quadgate.RNN
        The network itself: its parameters are those that are trained.
    padding_output : "zero" or "last"
        y at masked steps, as in `quadgate.LSTM.__call__`.

    Raises
    ------
    TypeError
        If net is no network.
    """

    __slots__ = ("net", "padding_output")

    def __init__(self, net: LSTM | RNN) -> None:
        super().__init__()
        if not isinstance(net, Network):
            raise TypeError(f"net must be a quadgate.LSTM or quadgate.RNN, got {type(net).__name__}")
        self.net, self.padding_output = net, "zero"
        self.dtype = net.dtype

    @property
    def params(self) -> Mapping[str, Array]:
        """Parameters of the network."""
        return self.net.params

    @property
    def final_columns(self) -> int:
        """D*R, the columns of the top layer's final h."""
        return self.net._options.directions * self.net._options.state_columns

    def bind(self, rng: np.random.Generator, dtype: np.dtype[Any], previous: Layer | None = None) -> None:
        """Check the type; the network has its parameters, and a generator of its own."""
        if self.net.dtype != dtype:
            raise ValueError(f"{self.net!r} must have the model's dtype {dtype}")

    def output_shape(self, shape: Shape) -> Shape:
        """Return (B, T, O)."""
        if len(shape) != 3 or shape[-1] != self.net.input_size:
            raise self._refuse(shape, f"(B, T, {self.net.input_size})")
        return (*shape[:-1], self.net._options.outputs)

    def forward(self, x: Any, context: Context) -> tuple[Any, Any]:
        """Return y (B, T, O) with the final h; with ``context.states`` from this layer's state, which is replaced."""
        net: Any = self.net
        x, mask = values(x), context.mask
        if not net.batch_first:
            x, mask = x.swapaxes(0, 1), None if mask is None else mask.T
        state = None if context.states is None else context.states.get(self)
        tape = None
        masked: dict[str, Any] = {"lengths": context.lengths, "mask": mask}
        if mask is not None:
            masked["padding_output"] = self.padding_output
        if not context.training:
            y, state = net(x, state, **masked)
        elif context.rows is not None and net._mask_plan:
            state_name = "h0" if isinstance(net, RNN) else None
            more = (context.lengths, None, False, False, None, state_name, mask, self.padding_output, context.rows)
            y, state, tape = _run.train(net, x, state, *more)
        else:
            y, state, tape = net.forward(x, state, **masked)
        if context.states is not None:
            context.states[self] = state
        h = state if isinstance(net, RNN) else state[0]
        directions = net._options.directions
        final = h[-1] if directions == 1 else np.concatenate((h[-2], h[-1]), -1)
        return Sequence(y if net.batch_first else y.swapaxes(0, 1), final), tape

    def backward(
        self, tape: Any, dy: Any, *, need_x: bool, out: Mapping[str, Array] | None = None
    ) -> tuple[Any, dict[str, Array]]:
        """Return the gradients of x and of the network's parameters."""
        net: Any = self.net
        o = net._options
        dstate: Any = None
        if type(dy) is FinalGradient:
            dh = np.zeros((o.num_layers * o.directions, len(dy.dh), o.state_columns), net.dtype)
            dh[-o.directions :] = dy.dh.reshape(len(dy.dh), o.directions, -1).swapaxes(0, 1)
            dy, dstate = None, dh if isinstance(net, RNN) else (dh, None)
        elif not net.batch_first:
            dy = dy.swapaxes(0, 1)
        grads = net.backward(tape, dy, dstate, input_grad=need_x, state_grad=False, out=out)
        dx = grads.x
        return dx if dx is None or net.batch_first else dx.swapaxes(0, 1), grads.params

    def successor(self, values: Values) -> list[Swap]:
        """Return the swap of the network's snapshot; raise TypeError if its weights are quantised."""
        net = self.net
        net._snapshot.refuse_change()
        read = _owned({name: values[name] for name in net._shapes})
        params = Params.gathered(read)
        return [(net, "_snapshot", Snapshot(net._snapshot.core.successor(list(params.values())), params))]

    def config(self) -> dict[str, Any]:
        """Return the network's options."""
        own = {} if self.padding_output == "zero" else {"padding_output": self.padding_output}
        kind = "RNN" if isinstance(self.net, RNN) else "LSTM"  # of a subclass, too: nobody may know that one
        return {"layer": kind, **self.net._options.arguments(), **own}

    def __repr__(self) -> str:
        return repr(self.net)


def mask_generators(layers: Iterable[Layer]) -> list[np.random.Generator | None]:
    """Return the generator that each layer draws its masks from, None for a layer without masks."""
    return [layer.net._generator if isinstance(layer, Recurrent) else layer.generator for layer in layers]
