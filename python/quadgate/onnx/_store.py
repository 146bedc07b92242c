"""A network's parameters put into a model: new constants for a node, and the old ones removed where unused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from .._options import ACTIVATIONS
from ..io._found import CLASSES
from . import _inputs, _quantised
from ._files import QUANTISED
from ._nodes import Frame, Node, called

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ..io._found import Found
    from ..lstm import LSTM
    from ..rnn import RNN

    Array = NDArray[Any]


# Inputs of a node by their places, of DynamicQuantizeLSTM from the eighth on.
NAMES = {1: "W", 2: "R", 3: "B", 7: "P", 8: "W_scale", 9: "W_zero_point", 10: "R_scale", 11: "R_zero_point"}


def put(model: Any, node: Node, net: LSTM | RNN, dtype: np.dtype[Any]) -> None:
    """Give a node the parameters of a network that fits it."""
    _refuse_shared(model, node.frame)
    old = [node.frame.origin(node.proto.input[k]) for k in NAMES if _given(node.proto, k)]
    for k, array in _inputs_of(net, node.proto.op_type, dtype).items():
        if k != 3 or array.any() or _given(node.proto, k):
            _set(model, node.frame, node.proto, k, np.ascontiguousarray(array), NAMES[k])
    for frame, name in old:
        if name:
            _drop(model, frame, name)


def fits(found: Found, net: Any, where: str, quantised: bool) -> None:
    """Raise ValueError unless a network computes what a node computes."""
    if not isinstance(net, tuple(CLASSES.values())):
        got = f"{type(net).__module__}.{type(net).__qualname__}"
        raise TypeError(f"net must be a quadgate.LSTM or quadgate.RNN, got {got}")
    old = found.build(rng=0, **dict.fromkeys(found.asks, "float32"))
    if not isinstance(net, type(old)):
        raise ValueError(f"{where}: it is an {found.kind}, got {type(net).__name__}")
    if quantised and net.weight_type != "int8":
        got = net.weight_type or net.dtype.name
        raise ValueError(f"{where}: it is a {QUANTISED}, got weights of {got}: pass net.quantize('int8')")
    if not quantised and net.weight_type == "int8":
        raise ValueError(
            f"{where}: it is an {found.kind} with weights of floating point, got weights of int8: store the float32 "
            "network, or into a model that onnxruntime has quantised"
        )
    shapes = {name: value.shape for name, value in old.params.items()}
    given = {name: value.shape for name, value in net.params.items()}
    if any(given.get(name) != shape for name, shape in shapes.items() if not name.startswith("bias")):
        raise ValueError(f"{where}: its parameters have shapes {shapes}, got {given}")
    extra = [name for name in given if name not in shapes and not name.startswith("bias")]
    if extra:
        raise ValueError(f"{where}: it has no {', '.join(extra)}")
    for option in (
        "reverse",
        "bidirectional",
        "coupled",
        "activations",
        "gate_clip",
        "cell_clip",
        "layer_norm",
        "zoneout",
        "nonlinearity",
    ):
        there, here = getattr(old, option, None), getattr(net, option, None)
        if _attribute(option, there) != _attribute(option, here):
            raise ValueError(f"{where}: {option} is {there!r} there, {here!r} in the network")
    if net.bidirectional and net.merge != "concat":
        raise ValueError(f"{where}: merge is 'concat' there, {net.merge!r} in the network")


def _attribute(name: str, option: Any) -> Any:
    """Return an option as attributes of a node hold it: activations with their numbers, all numbers as float32."""
    if name == "activations" and option:
        option = tuple((a, *ACTIVATIONS[a]) if isinstance(a, str) else a for a in option)
    if isinstance(option, tuple):
        return tuple(_attribute("", part) for part in option)
    with np.errstate(over="ignore"):
        return float(np.float32(option)) if isinstance(option, float) else option


def _inputs_of(net: Any, kind: str, dtype: np.dtype[Any]) -> dict[int, Array]:
    """Return the node's inputs by their places."""
    made = operator_weights(net.params, net._options.suffixes(0), kind == "RNN")
    weights = {{"W": 1, "R": 2, "B": 3, "P": 7}[what]: array for what, array in made.items()}
    if net.weight_type != "int8":
        return {k: _converted(array, NAMES[k], dtype) for k, array in weights.items()}
    suffixes = ("", "_reverse")[: 2 if net.bidirectional else 1]
    return weights | _quantised.inputs(net._snapshot.stored, suffixes)


def _converted(array: Array, name: str, dtype: np.dtype[Any]) -> Array:
    """Return an array in the node's type; raise ValueError if that cannot hold it."""
    with np.errstate(over="ignore", under="ignore"):
        result = array.astype(dtype)
    if not np.isfinite(result[np.isfinite(array)]).all():
        raise ValueError(f"{name} has {np.abs(array).max():.6g}, which the node's {dtype} cannot hold")
    return result


def _refuse_shared(model: Any, frame: Frame) -> None:
    """Raise ValueError for a node within a function that is called more than once: all calls share its body."""
    while frame.outer is not None:
        if frame.call is not None:
            same = called(frame.call)
            calls = sum(called(n) == same for _, nodes in _scopes(model) for n in nodes)
            if calls > 1:
                raise ValueError(f"the node is in the function {same[1]!r}, which is called {calls} times")
        frame = frame.outer


def operator_weights(params: Mapping[str, Array], suffixes: tuple[str, ...], elman: bool) -> dict[str, Array]:
    """Return W, R, B and, if there are peepholes, P of the operator LSTM, or RNN for an Elman network.

    `suffixes` are the ends of the names of the layer's parameters, one for each direction. Without biases B is zeros.
    """
    rows: list[tuple[Array, ...]] = []
    for suffix in suffixes:
        own = {f"{name.removesuffix(suffix)}_l0": value for name, value in params.items() if name.endswith(suffix)}
        weight = own["weight_ih_l0"]
        bias = own.setdefault("bias_l0", np.zeros(weight.shape[0], weight.dtype))
        # The operator adds both halves of B: the bias is the first, the second zeros.
        if elman:
            rows.append((weight, own["weight_hh_l0"], np.append(bias, np.zeros_like(bias))))
            continue
        w = _inputs.from_parameters(own, "")
        half = w.W.shape[0]
        b = np.concatenate([np.asarray(w.B)[:half], np.zeros(half, bias.dtype)])
        rows.append((w.W, w.R, b) if w.P is None else (w.W, w.R, b, w.P))
    return dict(zip("WRBP", map(np.stack, zip(*rows, strict=True)), strict=False))


def _given(proto: Any, k: int) -> bool:
    return len(proto.input) > k and proto.input[k] != ""


def _set(model: Any, frame: Frame, proto: Any, k: int, value: Array, what: str) -> None:
    """Point an input of a node at a new constant."""
    name = proto.input[k] if len(proto.input) > k else ""
    if frame.call is not None and name in frame.formal and _uses(frame.proto, name) == 1:  # the call hands it in
        assert frame.outer is not None
        _set(model, frame.outer, frame.call, list(frame.proto.input).index(name), value, what)
        return
    base = name or f"{proto.output[0] if proto.output else proto.name}_{what}"
    taken, fresh, number = _names(model), f"{base}_quadgate", 0
    while fresh in taken:
        number += 1
        fresh = f"{base}_quadgate_{number}"
    tensor = onnx.numpy_helper.from_array(value, fresh)
    if frame.call is None and model.ir_version >= 4:  # before, an initializer had to be an input of the graph too
        frame.proto.initializer.append(tensor)
        frame.initializers[fresh] = frame.proto.initializer[-1]
    else:
        literal = onnx.helper.make_node("Constant", [], [fresh], value=tensor)
        frame.proto.node.insert(0, literal)
    while len(proto.input) <= k:
        proto.input.append("")
    proto.input[k] = fresh


def _uses(function: Any, name: str) -> int:
    """Return how often the nodes within a function read a name, or an output has it."""
    found = [n for scope, nodes in _within(function) for node in nodes for n in node.input]
    found += [_name(value) for scope, _ in _within(function) for value in scope.output]
    return found.count(name)


def _name(value: Any) -> Any:
    """Return the name of an input or output of a graph, or of a function, whose inputs and outputs are names."""
    return getattr(value, "name", value)  # a name that is no UTF-8 comes as bytes


def _names(model: Any) -> set[str]:
    """Return every name that is in use anywhere in a model."""
    used: set[str] = set()
    for graph, nodes in _scopes(model):
        used.update(tensor.name for tensor in getattr(graph, "initializer", ()))
        for node in nodes:
            used.update(node.input)
            used.update(node.output)
        used.update(map(_name, (*graph.input, *graph.output)))
    return used


def _scopes(model: Any) -> list[tuple[Any, Any]]:
    """Return all graphs and functions of a model with their nodes."""
    return _within(model.graph, *model.functions)


def _within(*scopes: Any) -> list[tuple[Any, Any]]:
    """Return graphs and functions with all graphs in them, each with its nodes."""
    found = [*scopes]
    for scope in found:  # which grows on the way
        for node in scope.node:
            for attribute in node.attribute:
                found.extend([attribute.g] if attribute.HasField("g") else [])
                found.extend(attribute.graphs)
    return [(scope, scope.node) for scope in found]


def _drop(model: Any, frame: Frame, name: str) -> None:
    """Take an initializer or a chain of nodes out of a graph if nothing uses it any more."""
    if any(name in node.input for _, nodes in _scopes(model) for node in nodes):
        return
    if name in (_name(value) for scope, _ in _scopes(model) for value in scope.output):
        return
    while name not in frame.initializers and name not in frame.producers:
        if frame.outer is None or frame.call is not None:
            return
        frame = frame.outer
    if name in frame.initializers:
        inputs = [value for value in frame.proto.input if value.name == name]
        if inputs and frame.outer is not None:  # the node around the graph counts its inputs
            return
        for value in inputs:
            frame.proto.input.remove(value)
        position = next(k for k, t in enumerate(frame.proto.initializer) if t.name == name)
        del frame.proto.initializer[position]
        del frame.initializers[name]
        return
    node = frame.producers[name]
    if len(node.output) > 1 or any(attribute.HasField("g") for attribute in node.attribute):
        return
    sources = [inner for inner in node.input if inner]
    position = next(k for k, n in enumerate(frame.proto.node) if name in n.output)
    del frame.proto.node[position]
    del frame.producers[name]
    for inner in sources:
        _drop(model, frame, inner)
