"""Layers of a network or model as `explore` runs them, and the values inside them while they read a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _check, _options
from .._network import Network
from .._results import Trace
from ..lstm import LSTM
from ..rnn import RNN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]

WEIGHTS = ("weight_ih", "weight_hh")
SOURCES = 6  # strongest inputs that the page lists for a unit


class State(NamedTuple):
    """Values of one layer and direction.

    Attributes
    ----------
    name : str
    values : dict of array (T, H)
        Of h, c, i, f, g and o; of an RNN h alone. A projected h is there before its projection.
    input : int
        Place of the layer's input in `Seen.inputs`.
    sources : array of int (H, SOURCES)
        Columns that act most on each unit: below C they are of the input (T, C), from C on they are columns of h.
    strengths : array (H, SOURCES)
    """

    name: str
    values: dict[str, Array]
    input: int
    sources: Array
    strengths: Array


class Seen(NamedTuple):
    """Values inside a model: inputs (T, C) of layers by name, states, and the output y, (T, O) or (O,)."""

    inputs: list[tuple[str, Array]]
    states: list[State]
    y: Array
    notes: list[str]


class Chain(NamedTuple):
    """Layers in their order; `first` is the one whose input has gradients."""

    layers: list[Any]
    first: int
    model: bool
    stateful: bool


def chain_of(net: Any) -> Chain:
    """Return the layers of a network or a model without dropout.

    Raises
    ------
    TypeError, ValueError
        If it is neither, or has no network, or one with weights of a compact type.
    """
    from ..train import Dropout, Embedding, Recurrent, Sequential

    if isinstance(net, Network):
        return Chain([Inside(net)], 0, False, False)
    if not isinstance(net, Sequential):
        raise TypeError(
            f"net must be a quadgate.LSTM, a quadgate.RNN or a quadgate.train.Sequential, got {_check.shown(net)}"
        )
    layers: list[Any] = []
    for layer in net._layers:
        if isinstance(layer, Recurrent):
            layers.append(Inside(layer.net, layer.padding_output))
        elif not isinstance(layer, Dropout):
            layers.append(layer)
    if not any(isinstance(layer, Inside) for layer in layers):
        raise ValueError("net must have an LSTM or an RNN among its layers: there is nothing to look into")
    first = max((k + 1 for k, layer in enumerate(layers) if isinstance(layer, Embedding)), default=0)
    return Chain(layers, first, True, net.stateful)


class Inside:
    """A network in a chain: it runs batch first, in inference's arithmetic, and keeps a tape.

    The core draws zoneout's masks in every call with a tape. So a network with zoneout runs in `quadgate.reference`,
    whose passes can have its mean.
    """

    def __init__(self, net: Any, padding_output: str = "zero") -> None:
        from ..train import Recurrent

        if net._snapshot.weight_type:  # a copy without its dropout would be another network, with float32 weights
            kind = "RNN" if isinstance(net, RNN) else "LSTM"
            raise TypeError(
                f"net must have weights of float32 or float64, got {net.weight_type}: explore needs gradients, which "
                f"quantised networks do not have. Make a float32 network of the same weights: "
                f"{kind}.from_state_dict(net.state_dict()), with net's options"
            )
        self.mean = any(net._options.zoneout)
        self.net = net if self.mean else _without_dropout(net)
        self._layer = Recurrent(self.net)
        self._layer.padding_output = self._padding_output = padding_output

    def forward(self, x: Any, context: Any) -> tuple[Any, Any]:
        """Return the output and a tape."""
        if self.mean:
            return self._reference_forward(x, context)
        out, tape = self._layer.forward(x, context)
        if tape is not None:
            nothing = np.empty(0)
            tape._trace = Trace(nothing, nothing, nothing, nothing, nothing)  # asks `backward` for the norms
        return out, tape

    def backward(self, tape: Any, dy: Any, *, need_x: bool) -> tuple[Any, Any]:
        """Return the gradient of x, and of nothing else."""
        if not self.mean:
            return self._layer.backward(tape, dy, need_x=need_x)[0], {}
        from .. import reference
        from ..train._layer import FinalGradient

        o = self.net._options
        dstate: Any = (None, None)
        if type(dy) is FinalGradient:
            dh = np.zeros((o.num_layers * o.directions, len(dy.dh), o.state_columns))
            dh[-o.directions :] = dy.dh.reshape(len(dy.dh), o.directions, -1).swapaxes(0, 1)
            dy, dstate = None, (dh, None)
        else:
            dy = dy.swapaxes(0, 1)
        grads = reference.backward(self.net.params, tape.record, dy, dstate)
        tape.norms = grads.dh_norm, grads.dc_norm
        return grads.x.swapaxes(0, 1).astype(self.net.dtype), {}

    def norms(self, tape: Any) -> tuple[Array, Array]:
        """Return the norms of dh and dc of the last `backward`, (L*D, T, B)."""
        if self.mean:
            result: tuple[Array, Array] = tape.norms
            return result
        return tape._trace.dh_norm, tape._trace.dc_norm

    def _reference_forward(self, x: Any, context: Any) -> tuple[Any, Any]:
        from ..train._layer import Sequence, values

        y, (h, _), record = self._reference(values(x), context.mask)
        d = self.net._options.directions
        final = h[-1] if d == 1 else np.concatenate((h[-2], h[-1]), -1)
        dtype = self.net.dtype
        return Sequence(y.swapaxes(0, 1).astype(dtype), final.astype(dtype)), _ReferenceTape(record)

    def _reference(self, x: Array, mask: Array | None) -> Any:
        from .. import reference

        more = {} if mask is None else {"mask": mask.T, "padding_output": self._padding_output}
        arguments = self.net._options.arguments()
        del arguments["input_size"], arguments["hidden_size"]
        return reference.forward(self.net.params, x.swapaxes(0, 1), **arguments, **more)

    # -------------------------------------------------------------------------------------------------- values inside

    def look(self, x: Array, mask: Array | None) -> list[tuple[Array, list[dict[str, Array]]]]:
        """Return the input (T, C) of each layer, and the values (T, H) of each of its directions."""
        return self._look_reference(x, mask) if self.mean else self._look_core(x, mask)

    def _look_core(self, x: Array, mask: Array | None) -> list[tuple[Array, list[dict[str, Array]]]]:
        net, o = self.net, self.net._options
        masked = {} if mask is None else {"mask": mask if net.batch_first else mask.T}
        trace = None
        if not isinstance(net, RNN):
            ordered = x if net.batch_first else x.swapaxes(0, 1)
            trace = net.forward(ordered, trace=True, **masked)[2].trace
        below, result = x[0], []
        for k in range(o.num_layers):
            alone = _one_layer(net, k)
            y = alone(below, mask=None if mask is None else mask[0])[0]
            each = np.split(y, o.directions, axis=1)
            parts = []
            for d in range(o.directions):
                values = {"h": each[d]}
                if trace is not None:
                    rest = {name: getattr(trace, name)[k * o.directions + d, :, 0] for name in "cifgo"}
                    values = {"h": _unprojected(o, alone, d, rest) if o.proj_size else each[d], **rest}
                parts.append(values)
            result.append((below, parts))
            joined = _join(o, net.params, k, below, each)
            below = np.concatenate((below, joined), axis=1) if o.shortcut == "dense" else joined
        return result

    def _look_reference(self, x: Array, mask: Array | None) -> list[tuple[Array, list[dict[str, Array]]]]:
        record = self._reference(x, mask)[2]
        o, result = self.net._options, []
        steps = x.shape[1]
        active = record.active[:, 0]
        for k, join in enumerate(record.joins):
            parts = []
            for d in range(o.directions):
                tape = record.layers[k * o.directions + d]
                values = {name: np.zeros((steps, o.hidden_size)) for name in "hcifgo"}
                for t in np.flatnonzero(active):
                    step = tape.steps[t]
                    values["h"][t], values["c"][t] = (step.m if o.proj_size else step.h)[0], step.c[0]
                    for name, gate in zip("ifgo", step.gates, strict=True):
                        values[name][t] = gate[0]
                parts.append(values)
            result.append((join.x[:, 0], parts))
        return result


class _ReferenceTape:
    """Tape of a pass of `quadgate.reference`."""

    __slots__ = ("norms", "record")

    def __init__(self, record: Any) -> None:
        self.record, self.norms = record, None


def _without_dropout(net: Any) -> Any:
    """Return a network with the same parameters that drops nothing in training."""
    if not net._mask_plan:
        return net
    return _copied(net, net.params, {"dropout": 0.0, "recurrent_dropout": 0.0, "weight_drop": 0.0})


def _one_layer(net: Any, k: int) -> Any:
    """Return layer k as a network of its own, whose y are the h of its directions side by side."""
    o = net._options
    own = {"num_layers": 1, "input_size": o.inputs(k), "merge": "concat", "shortcut": None, "dropout": 0.0}
    values = {}
    for suffix in o.suffixes(k):
        for name, value in net.params.items():
            if name.endswith(suffix) and "highway" not in name:
                values[name.removesuffix(suffix) + suffix.replace(f"_l{k}", "_l0")] = value
    return _copied(net, values, {**own, "recurrent_dropout": 0.0, "weight_drop": 0.0})


def _copied(net: Any, values: Mapping[str, Array], options: dict[str, Any]) -> Any:
    arguments = {**net._options.arguments(), **options, "initialization": "pytorch", "forget_bias": None}
    kind: Any = RNN if isinstance(net, RNN) else LSTM
    for name in _options._LSTM_ONLY if kind is RNN else ("nonlinearity",):
        arguments.pop(name, None)
    result = kind(**arguments, rng=0)
    result.load_state_dict(values)
    return result


def _unprojected(o: Any, alone: Any, d: int, values: dict[str, Array]) -> Array:
    """Return o times the activated c, which the projection takes, (T, H)."""
    from ..reference.activations import Activation, activation

    c = values["c"].astype(float)
    if o.layer_norm == "output":
        gain, bias = alone.params[f"norm_c{alone._options.suffixes(0)[d]}"]
        centred = c - c.mean(axis=1, keepdims=True)
        c = gain * centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + o.layer_norm_eps) + bias
    if o.gate_clip is not None:
        c = np.clip(c, -o.gate_clip, o.gate_clip)
    return np.asarray(values["o"] * activation(Activation.read(o.activations[2]), c))


def _join(o: Any, params: Mapping[str, Array], k: int, x: Array, each: list[Array]) -> Array:
    """Return a layer's output (T, O) from its directions, with its shortcut."""
    if o.merge == "concat":
        y = np.concatenate(each, axis=1)
    elif o.merge == "mul":
        y = each[0] * each[1]
    else:
        y = (each[0] + each[1]) / (2 if o.merge == "mean" else 1)
    if k > 0 and o.shortcut == "residual":
        y = y + x
    elif k > 0 and o.shortcut == "highway":
        a = x @ params[f"weight_highway_l{k}"].T + params[f"bias_highway_l{k}"]
        gate = 0.5 + 0.5 * np.tanh(0.5 * a)
        y = gate * y + (1 - gate) * x
    return np.asarray(y, o.dtype)


def look(chain: Chain, x: Array, mask: Array | None) -> Seen:
    """Run a sequence (1, T, ...) and return the values inside all networks of a chain."""
    from ..train import Context
    from ..train._layer import values

    inputs: list[tuple[str, Array]] = []
    states: list[State] = []
    notes: list[str] = []
    context = Context(False, None, mask)
    y: Any = x
    networks = sum(isinstance(layer, Inside) for layer in chain.layers)
    seen = 0
    for place, layer in enumerate(chain.layers):
        if place == chain.first:
            inputs.append(("x" if chain.first == 0 else "embedding", values(y)[0]))
        if isinstance(layer, Inside):
            seen += 1
            own = "" if networks == 1 else f"network {seen}, "
            notes += _notes(layer.net)
            for k, (below, parts) in enumerate(layer.look(values(y), mask)):
                if k == 0 and place == chain.first:
                    at = len(inputs) - 1
                else:
                    at = len(inputs)
                    inputs.append((f"input of {own}layer {k}", below))
                names = _direction_names(layer.net)
                for name, suffix, value in zip(names, layer.net._options.suffixes(k), parts, strict=True):
                    _require_finite(value, f"{own}layer {k}{name}")
                    sources, strengths = _sources(layer.net, suffix, below.astype(float), value["h"].astype(float))
                    states.append(State(f"{own}layer {k}{name}", value, at, sources, strengths))
        y = layer.forward(y, context)[0]
    if chain.stateful:
        notes.append("The model is stateful. Here it starts from zeros.")
    if mask is not None and not mask.all():
        notes.append("Masked steps are zeros.")
    return Seen(inputs, states, values(y)[0], list(dict.fromkeys(notes)))


def _direction_names(net: Any) -> tuple[str, ...]:
    if net.bidirectional:
        return ", forwards", ", backwards"
    return (", backwards",) if net.reverse else ("",)


def _notes(net: Any) -> list[str]:
    o = net._options
    notes = []
    if o.proj_size:
        notes.append("h is shown before its projection, one number for each unit.")
    if any(o.zoneout):
        notes.append("Zoneout acts by its mean, as in inference.")
    if not o.elman and (o.activations[0] != "sigmoid"):
        notes.append("The gates' activation is no sigmoid, so they may lie outside of 0 to 1.")
    return notes


def _sources(net: Any, suffix: str, below: Array, h: Array) -> tuple[Array, Array]:
    """Return each unit's strongest sources: the norm of a weight over the gates, times the source's deviation."""
    units, gates = net.hidden_size, net._options.gates
    to_x, to_h = (net.params[name + suffix].astype(float).reshape(gates, units, -1) for name in WEIGHTS)
    of_x = np.linalg.norm(to_x, axis=0) * below.std(axis=0)
    # Columns of a projected h are no units.
    of_h = np.zeros((units, 0)) if net._options.proj_size else np.linalg.norm(to_h, axis=0) * h.std(axis=0)
    strength = np.concatenate((of_x, of_h), axis=1)
    order = np.argsort(-strength, axis=1, kind="stable")[:, :SOURCES]
    return order, np.take_along_axis(strength, order, axis=1)


def _require_finite(values: Mapping[str, Array], state: str) -> None:
    for name, value in values.items():
        if not np.isfinite(value).all():
            step = int(np.argmin(np.isfinite(value).all(axis=1)))
            raise ValueError(f"the network's {name} is not finite from step {step} on ({state})")
