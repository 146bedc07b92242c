"""Networks and models of quadgate's as models of ONNX, made of the operators of its domain alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from .. import _check, _core, _options
from .._network import Network
from ..lstm import LSTM
from ..rnn import RNN
from ..train import Dense, Dropout, Embedding, FinalState, Recurrent, Sequential
from ..train._masking import Halves
from ._store import operator_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]

OPSET, IR = 18, 8  # of 2022
# Options that the operators have, or that change nothing in inference; a network with another one is refused.
_WRITTEN = {"num_layers", "nonlinearity", "bias", "batch_first", "bidirectional", "reverse", "merge", "peephole"}
_WRITTEN |= {"coupled", "activations", "gate_clip", "dropout", "recurrent_dropout", "weight_drop", "layer_norm_eps"}
_WRITTEN |= {"initialization", "forget_bias", "dtype"}
_JOINS = {"sum": "ReduceSum", "mul": "ReduceProd", "mean": "ReduceMean"}


class _Graph:
    """Nodes, constants, inputs and outputs of a graph in the making."""

    def __init__(self, dtype: np.dtype[Any], lengths: bool, state: bool) -> None:
        self.dtype, self.state = dtype, state
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.lengths = "lengths" if lengths else ""
        self.empty = ""  # (B, 1): True for rows without steps

    def value(self, name: str, shape: tuple[Any, ...], dtype: Any = None) -> Any:
        return helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype or self.dtype)), shape
        )

    def constant(self, name: str, array: Any, dtype: Any = None) -> str:
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array, dtype or self.dtype), name))
        return name

    def integers(self, name: str, values: list[int]) -> str:
        return self.constant(name, values, np.int64)

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node that goes by its output's name; return that."""
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def activation(self, x: str, activation: _options.Activation, name: str) -> str:
        """Add an activation of quadgate's."""
        function, *numbers = _options._whole(activation)
        if function in ("affine", "scaled_tanh"):  # operators that are none of their own
            outer, inner = numbers if function == "scaled_tanh" else (numbers[1], numbers[0])
            x = self.add("Mul", [x, self.constant(f"{name}_inner", inner)], f"{name}_scaled")
            if function == "affine":
                return self.add("Add", [x, self.constant(f"{name}_outer", outer)], name)
            x = self.add("Tanh", [x], f"{name}_tanh")
            return self.add("Mul", [x, self.constant(f"{name}_outer", outer)], name)
        return self.add(_camel(function), [x], name, **dict(zip(("alpha", "beta"), numbers, strict=False)))

    def model(self, name: str) -> Any:
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.constants)
        opsets = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=IR, producer_name="quadgate")
        made.producer_version = _core.__version__
        return made


def export(net: LSTM | RNN | Sequential, *, state: bool = False, lengths: bool = False) -> Any:
    """Return a network or a model as a model of ONNX, for other programs to run.

    Parameters
    ----------
    net : LSTM, RNN or quadgate.train.Sequential
        As it is at this moment; its later changes are not seen. Dropout is left out, as in any inference.
    state : bool
        True for initial states as inputs and final ones as outputs: ``h0``, ``c0``, ``h`` and ``c``, each (L*D, B, H).
        In a model a network's states have the number of its layer in front: ``1.h0``. False: all start at zero, and a
        network alone has its final states as outputs.
    lengths : bool
        True for an input ``lengths``, int32 (B,): later steps are ignored. There y of a network is 0, and that of a
        model without meaning.

    Returns
    -------
    onnx.ModelProto
        With the inputs ``x``, as the network takes it or (B, T, I) of a model, symbols as int64 (B, T), of any T and B,
        and those that were asked for. The outputs are ``y`` and states. Each layer of a network is a node LSTM or RNN:
        ``l0``, in a model ``1.l0``. Weights of 16 bits are written as float32.

    Raises
    ------
    TypeError
        If `net` is none of these.
    ValueError
        If it has what is not written: projections, clips of cells or projections, normalisation, zoneout, shortcuts,
        masks, layers and calls of the user's own, weights of int8. Also for `state` or `lengths` without a network.

    Notes
    -----
    The operators are those of opset 18, whose attributes are float32. onnxruntime's LSTM and RNN take float32 alone,
    and at least one row and step. It applies ``clip``, which is our ``gate_clip``, to fewer functions than the
    operator's definition says.

    Examples
    --------
    >>> import onnx, quadgate as qg
    >>> onnx.save(qg.onnx.export(qg.LSTM(8, 16)), "lstm.onnx")
    """
    state, lengths = _check.flag(state, "state"), _check.flag(lengths, "lengths")
    if isinstance(net, Sequential):
        return _sequential(net, state, lengths)
    if not isinstance(net, Network):
        got = f"{type(net).__module__}.{type(net).__qualname__}"
        raise TypeError(f"net must be a quadgate.LSTM, quadgate.RNN or train.Sequential, got {got}")
    o: _options.Options = net._options
    graph = _Graph(net.dtype, lengths, state)
    leading = ("B", "T") if o.batch_first else ("T", "B")
    graph.inputs.append(graph.value("x", (*leading, o.input_size)))
    _add_lengths(graph)
    y, finals = _recurrent(graph, net, net.params, "x", "", o.batch_first)
    graph.add("Identity", [y], "y")
    graph.outputs.append(graph.value("y", (*leading, o.outputs)))
    _add_states(graph, net, "", finals)
    return graph.model(type(net).__name__)


def _sequential(model: Sequential, state: bool, lengths: bool) -> Any:
    graph = _Graph(model.dtype, lengths, state)
    if (state or lengths) and not any(isinstance(layer, Recurrent) for layer in model._layers):
        raise ValueError(f"{'state' if state else 'lengths'}=True needs an LSTM or an RNN, {model!r} has none")
    graph.inputs.append(graph.value("x", ("B", "T", *model._input_shape[2:]), np.int64 if model._integers else None))
    _add_lengths(graph)
    params = model.params  # of one moment, also beside a thread that trains the model
    x, final, states = "x", "", []
    layer: Any
    columns: Any
    for k, layer in enumerate(model._layers):
        name, columns = f"{k}.y", model._output_shapes[k][-1]
        own = {n: params[f"{k}.{n}"] for n in layer.params}
        kind = type(layer)  # a subclass may compute something else
        if kind is Recurrent:
            x, finals = _recurrent(graph, layer.net, own, x, f"{k}.", True)
            final = finals[0][-1]
            states.append((layer.net, f"{k}.", finals))
        elif kind is FinalState:
            x = _joined(graph, final, columns, name)
        elif kind is Halves:
            pair = graph.add("Reshape", [x, graph.integers(f"{k}.halves", [0, 2, columns])], f"{k}.pair")
            x = graph.add(_JOINS[layer.merge], [pair, graph.integers(f"{k}.axis", [1])], name, keepdims=0)
        elif kind is Embedding:
            x = graph.add("Gather", [graph.constant(f"{k}.weight", own["weight"]), x], name)
        elif kind is Dense:
            x = _dense(graph, layer, own, x, k)
        elif kind is not Dropout:
            raise ValueError(f"layer {k}, {layer!r}, cannot be exported to ONNX")
    if model.head is not None:
        x = graph.add(_camel(model.head), [x], "head", **({"axis": -1} if model.head == "softmax" else {}))
    graph.add("Identity", [x], "y")
    shape = model._output_shapes[-1]
    leading = ("B", "T")[: len(shape) - 1]
    graph.outputs.append(graph.value("y", (*leading, shape[-1])))
    for net, prefix, finals in states if state else []:
        _add_states(graph, net, prefix, finals)
    return graph.model("Sequential")


def _dense(graph: _Graph, layer: Dense, params: Mapping[str, Array], x: str, k: int) -> str:
    name = f"{k}.y"
    linear = f"{k}.linear" if layer.activation else name
    product = f"{k}.product" if layer.bias else linear
    x = graph.add("MatMul", [x, graph.constant(f"{k}.weight", params["weight"].T)], product)
    if layer.bias:
        x = graph.add("Add", [x, graph.constant(f"{k}.bias", params["bias"])], linear)
    return x if layer.activation is None else graph.activation(x, layer.activation, name)


def _recurrent(
    graph: _Graph, net: Any, params: Mapping[str, Array], x: str, prefix: str, batch_first: bool
) -> tuple[str, list[list[str]]]:
    """Add a network; return its y in the layout of its x, and for h and c each layer's final state."""
    o: _options.Options = net._options
    for option, value in o.changed().items():
        if option not in _WRITTEN:
            raise ValueError(f"{option}={value!r} of {net!r} cannot be exported to ONNX")
    if type(net).__call__ is not (RNN if o.elman else LSTM).__call__:
        raise ValueError(f"{net!r} has a __call__ of its own, which cannot be exported to ONNX")
    if net.weight_type == "int8":
        raise ValueError(f"{net!r} has weights of int8: export the network that it was made of")
    kinds = "h" if o.elman else "hc"
    if graph.state:
        for kind in kinds:
            graph.inputs.append(graph.value(f"{prefix}{kind}0", (o.num_layers * o.directions, "B", o.hidden_size)))
    if batch_first:
        x = graph.add("Transpose", [x], f"{prefix}x_by_time", perm=[1, 0, 2])
    finals: list[list[str]] = [[] for _ in kinds]
    for layer in range(o.num_layers):
        here = f"{prefix}l{layer}."
        weights = operator_weights(params, o.suffixes(layer), o.elman)
        given = {what: graph.constant(f"{here}{what}", array) for what, array in weights.items()}
        starts = [_start(graph, o, layer, prefix, f"{kind}0") for kind in kinds] if graph.state else ["", ""]
        inputs = [x, given["W"], given["R"], given["B"], graph.lengths, *starts, given.get("P", "")]
        while not inputs[-1]:
            inputs.pop()
        outputs = [f"{here}{what}" for what in ("Y", *kinds)]
        kind_of_node = "RNN" if o.elman else "LSTM"
        graph.nodes.append(helper.make_node(kind_of_node, inputs, outputs, here[:-1], **_attributes(o)))
        for of_kind, end, start in zip(finals, outputs[1:], starts, strict=False):
            of_kind.append(_end(graph, end, start))
        x = _layer_output(graph, o, outputs[0], here)
    if batch_first:
        x = graph.add("Transpose", [x], f"{prefix}y_by_row", perm=[1, 0, 2])
    return x, finals


def _attributes(o: _options.Options) -> dict[str, Any]:
    """Return the attributes of a layer's node."""
    result: dict[str, Any] = {"hidden_size": o.hidden_size}
    if o.directions == 2 or o.reverse:
        result["direction"] = "bidirectional" if o.directions == 2 else "reverse"
    if o.elman:
        return {**result, "activations": [_camel(str(o.nonlinearity))] * o.directions}
    if "activations" in o.changed():
        functions = [_options._whole(activation) for activation in o.activations] * o.directions
        result["activations"] = [_camel(function[0]) for function in functions]
        for k, name in enumerate(("activation_alpha", "activation_beta"), 1):  # of the functions that have it, in order
            numbers = [float(function[k]) for function in functions if len(function) > k]
            result |= {name: numbers} if numbers else {}
    if o.gate_clip is not None:
        result["clip"] = o.gate_clip
    if o.coupled:
        result["input_forget"] = 1
    return result


def _start(graph: _Graph, o: _options.Options, layer: int, prefix: str, states: str) -> str:
    """Return a layer's initial state, of those of all layers: `states` is h0 or c0."""
    if o.num_layers == 1:
        return f"{prefix}{states}"
    own = f"{prefix}l{layer}.{states}"
    ends = [graph.integers(f"{own}_{what}", [k * o.directions]) for what, k in (("begin", layer), ("end", layer + 1))]
    return graph.add("Slice", [f"{prefix}{states}", *ends, graph.integers(f"{own}_axis", [0])], own)


def _end(graph: _Graph, end: str, start: str) -> str:
    """Return a final state: for rows without steps, where onnxruntime gives 0, the initial one."""
    if not start or not graph.lengths:
        return end
    if not graph.empty:
        none = graph.add("Equal", [graph.lengths, graph.constant("no_steps", 0, np.int32)], "without_steps")
        graph.empty = graph.add("Unsqueeze", [none, graph.integers("columns", [1])], "rows_without_steps")
    return graph.add("Where", [graph.empty, start, end], f"{end}_or_start")


def _layer_output(graph: _Graph, o: _options.Options, Y: str, here: str) -> str:
    """Return (T, B, O) of a node's Y (T, D, B, H)."""
    if o.directions == 1 or o.merge != "concat":
        axis, operator = graph.integers(f"{here}axis", [1]), _JOINS.get(o.merge, "Squeeze")
        return graph.add(operator, [Y, axis], f"{here}y", **({} if operator == "Squeeze" else {"keepdims": 0}))
    Y = graph.add("Transpose", [Y], f"{here}Y_by_row", perm=[0, 2, 1, 3])
    return graph.add("Reshape", [Y, graph.integers(f"{here}shape", [0, 0, 2 * o.hidden_size])], f"{here}y")


def _joined(graph: _Graph, final: str, columns: Any, name: str) -> str:
    """Return (B, D*H) of a node's final state (D, B, H)."""
    rows = graph.add("Transpose", [final], f"{name}_by_row", perm=[1, 0, 2])
    return graph.add("Reshape", [rows, graph.integers(f"{name}_shape", [0, columns])], name)


def _add_lengths(graph: _Graph) -> None:
    if graph.lengths:
        graph.inputs.append(graph.value(graph.lengths, ("B",), np.int32))


def _add_states(graph: _Graph, net: Any, prefix: str, finals: list[list[str]]) -> None:
    """Make a network's final states outputs."""
    o: _options.Options = net._options
    for kind, ends in zip("hc", finals, strict=False):
        name = f"{prefix}{kind}"
        graph.add("Concat", ends, name, axis=0)
        graph.outputs.append(graph.value(name, (o.num_layers * o.directions, "B", o.hidden_size)))


def _camel(name: str) -> str:
    """Return ONNX's form of a name: HardSigmoid of hard_sigmoid."""
    return "".join(part.capitalize() for part in name.split("_"))
