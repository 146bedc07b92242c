"""The recurrent nodes of an ONNX model, in branches and functions too, and the constants that are their weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

KINDS = {"LSTM": "", "RNN": "", "GRU": "", "DynamicQuantizeLSTM": "com.microsoft", "QLinearLSTM": "com.microsoft"}
DEPTH, VISITS, PATHS = 64, 1_000_000, 1 << 24


class Budget:
    """Bytes that constants may take in all, those made by concatenating and the like too: eight times the model's own.

    Views take none. PyTorch's export without folding needs three times: the rows, a Concat of the gates (each a Slice,
    which is a view), and a Concat of the directions. After a Cast from float16 it is seven.
    """

    def __init__(self, model: Any) -> None:
        self.left = 8 * _held(model) + (1 << 20)

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ValueError("its constants unfold to much more than the model holds")


class Frame:
    """Names within a graph, or within one call of a function, and where they lead."""

    def __init__(self, proto: Any, outer: Frame | None, budget: Budget, call: Any = None) -> None:
        self.proto, self.outer, self.budget, self.call = proto, outer, budget, call
        self.producers = {name: node for node in proto.node for name in node.output if name}
        self.initializers = {} if call is not None else {tensor.name: tensor for tensor in proto.initializer}
        self.formal: dict[str, str] = {}
        self.arguments: dict[str, Any] = {}
        if call is not None:
            self.formal = {name: call.input[k] if k < len(call.input) else "" for k, name in enumerate(proto.input)}
            self.arguments = {attribute.name: attribute for attribute in proto.attribute_proto}
            self.arguments |= {attribute.name: attribute for attribute in call.attribute}
            assert outer is not None
            for name, attribute in list(self.arguments.items()):
                if attribute.ref_attr_name:
                    self.arguments[name] = outer.argument(attribute.ref_attr_name)
        self.cache: dict[str, Array] = {}

    def argument(self, name: str) -> Any:
        """Return the attribute of the call that a name refers to, None for one that was not given."""
        frame: Frame | None = self
        while frame is not None and frame.call is None:
            frame = frame.outer
        return None if frame is None else frame.arguments.get(name)

    def origin(self, name: str) -> tuple[Frame, str]:
        """Return the frame and the name that a name stands for outside of calls; no name if a call leaves it out."""
        frame: Frame = self
        while frame.call is not None and name in frame.formal:
            assert frame.outer is not None
            name, frame = frame.formal[name], frame.outer
        return frame, name

    def find(self, name: str) -> tuple[Frame, Any]:
        """Return where a name is defined, and by which initializer or node: None if a call leaves it out.

        Raises ValueError if nothing defines it.
        """
        frame: Frame = self
        inner = name
        while True:
            frame, name = frame.origin(name)
            if not name:
                return frame, None
            if name in frame.initializers:
                return frame, frame.initializers[name]
            if name in frame.producers:
                return frame, frame.producers[name]
            if frame.call is None and any(value.name == name for value in frame.proto.input):
                raise ValueError(f"weight {name!r} is an input of the graph {frame.proto.name!r}, not a constant")
            if frame.call is not None or frame.outer is None:
                raise ValueError(f"weight {inner!r} is defined nowhere")
            frame = frame.outer


class Node(NamedTuple):
    """A recurrent node: where it is, its own name, and its name with those of all that it is in."""

    frame: Frame
    proto: Any
    label: str
    path: str


def recurrent_nodes(model: Any) -> list[Node]:
    """Return all recurrent nodes, those of a function once for each call of it."""
    functions = {(f.domain, f.name, _overload(f)): f for f in model.functions}
    left = {"nodes": VISITS, "characters": PATHS}
    budget = Budget(model)

    def walk(frame: Frame, path: str, depth: int) -> Iterator[Node]:
        if depth > DEPTH:
            raise ValueError(f"its graphs are nested more than {DEPTH} deep")
        for k, node in enumerate(frame.proto.node):
            left["nodes"] -= 1
            if left["nodes"] < 0:
                raise ValueError(f"it has more than {VISITS} nodes, each function counted once a call")
            function = functions.get(called(node))
            graphs = [(a.name, a.g) for a in node.attribute if a.HasField("g")]
            graphs += [(f"{a.name}_{number}", graph) for a in node.attribute for number, graph in enumerate(a.graphs)]
            recurrent = function is None and KINDS.get(node.op_type) == _domain(node)
            if function is None and not graphs and not recurrent:
                continue
            label = node.name or next((name for name in node.output if name), f"{node.op_type}_{k}")
            here = f"{path}{label}"
            left["characters"] -= len(here)
            if left["characters"] < 0:
                raise ValueError(
                    f"the names of its nodes and of all that they are in have more than {PATHS} characters"
                )
            if function is not None:
                yield from walk(Frame(function, frame, budget, node), f"{here}/", depth + 1)
            elif recurrent:
                yield Node(frame, node, label, here)
            for name, graph in graphs:
                yield from walk(Frame(graph, frame, budget), f"{here}/{name}/", depth + 1)

    return list(walk(Frame(model.graph, None, budget), "", 0))


def called(node: Any) -> tuple[str, str, str]:
    """Return what tells a node's function from others: its domain, its name and its overload."""
    return node.domain, node.op_type, _overload(node)


def _domain(node: Any) -> str:
    """Return a node's domain; that of ONNX itself has two names."""
    return "" if node.domain == "ai.onnx" else str(node.domain)


def _overload(proto: Any) -> str:
    """Return the overload of a node or function, which onnx has from its version 1.16 on."""
    return getattr(proto, "overload", "")


def literals(model: Any) -> Iterator[Any]:
    """Iterate over all tensors and attributes of a model, those in subgraphs and functions too."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    given = [attribute for function in model.functions for attribute in function.attribute_proto]  # the defaults
    while graphs or nodes or given:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
        elif nodes:
            given.extend(nodes.pop().attribute)
        else:
            attribute = given.pop()
            yield attribute
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            graphs += [attribute.g] if attribute.HasField("g") else []
            graphs += attribute.graphs


_NUMBERS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "floats", "ints")


def _held(model: Any) -> int:
    """Return about the bytes of a model's numbers. Its ByteSize would copy them all, and fails beyond 2 GiB."""
    return sum(
        len(getattr(part, "raw_data", b"")) + 8 * sum(len(getattr(part, field, ())) for field in _NUMBERS)
        for part in literals(model)
    )


def attributes(node: Node) -> dict[str, Any]:
    """Return a node's attributes as Python's values, those taken from a function's call too."""
    return _attributes(node.frame, node.proto)


def _attributes(frame: Frame, proto: Any) -> dict[str, Any]:
    import onnx

    result = {}
    for attribute in proto.attribute:
        source = frame.argument(attribute.ref_attr_name) if attribute.ref_attr_name else attribute
        if source is None:
            continue
        value = onnx.helper.get_attribute_value(source)
        if isinstance(value, bytes):
            value = value.decode()
        elif not isinstance(value, (int, float)) and not hasattr(value, "SerializeToString"):
            value = [v.decode() if isinstance(v, bytes) else v for v in value]
        result[attribute.name] = value
    return result


def value_of(tensor: Any) -> Array:
    """Return a tensor as an array of its own type."""
    import onnx

    return np.asarray(onnx.numpy_helper.to_array(tensor))


def is_floating(array: Array) -> bool:
    """Return True for floating point; NumPy has bfloat16 from another package, and does not know its kind."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def known(array: Array) -> Array:
    """Return an array of a type that is NumPy's own: bfloat16 as float32."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def constant(frame: Frame, name: str, depth: int = 0) -> Array | None:
    """Return a constant of a graph, None for an empty name and for an input that a function's call leaves out.

    Followed are initializers, Constant, and what exporters put between them and a node: Identity, Unsqueeze, Squeeze,
    Concat, Slice, Transpose, Reshape and Cast. Raises ValueError for what is computed in any other way.
    """
    if not name:
        return None
    if depth > DEPTH:
        raise ValueError(f"weight {name!r} is computed by more than {DEPTH} nodes")
    where, source = frame.find(name)
    arguments: list[Any] = []
    made = 0
    if source is None:
        return None
    key = source.output[0] if hasattr(source, "op_type") and source.output else name
    if key in where.cache:
        return where.cache[key]
    if not hasattr(source, "op_type"):
        value = value_of(source)
    elif source.op_type == "Constant" and not _domain(source):
        value = _literal(_attributes(where, source), name)
    elif source.op_type == "DequantizeLinear":
        raise ValueError(f"weight {name!r} is dequantised: quantised weights cannot be loaded")
    elif source.op_type in _OPERATORS and not _domain(source):
        arguments = [constant(where, inner, depth + 1) for inner in source.input]
        if not arguments or arguments[0] is None:
            raise ValueError(f"weight {name!r} comes from {source.op_type} {source.name!r} without an input")
        given = _attributes(where, source)
        made = _size(source.op_type, arguments, given)
        where.budget.take(made)  # before it is made, which may be more than there is memory
        value = np.asarray(_OPERATORS[source.op_type](arguments, given))
        if source.op_type != "Concat" and value.size > arguments[0].size:
            raise ValueError(f"weight {name!r} is more than the input of {source.op_type} {source.name!r}")
    else:
        raise ValueError(f"weight {name!r} is computed by {source.op_type} {source.name!r}, not a constant")
    if not made and not (arguments and np.may_share_memory(value, arguments[0])):
        where.budget.take(value.nbytes)
    where.cache[key] = value
    return value


def _size(operator: str, arguments: list[Any], given: dict[str, Any]) -> int:
    """Return the bytes of what Concat and Cast make; 0 for the others, which make a view or as much as they take."""
    if operator == "Concat":
        if any(a is None or a.dtype != arguments[0].dtype for a in arguments):
            raise ValueError("a Concat of weights lacks an input, or has inputs of several types")
        return sum(a.nbytes for a in arguments)
    return int(arguments[0].size * _cast_type(arguments[0], given).itemsize) if operator == "Cast" else 0


def _literal(given: dict[str, Any], name: str) -> Array:
    """Return the value of a node Constant."""
    if "value" in given:
        return value_of(given["value"])
    for attribute in ("value_float", "value_floats"):
        if attribute in given:
            return np.asarray(given[attribute], np.float32)
    for attribute in ("value_int", "value_ints"):
        if attribute in given:
            return np.asarray(given[attribute], np.int64)
    raise ValueError(f"weight {name!r} is a Constant without numbers")


def _axes(arguments: list[Any], given: dict[str, Any]) -> tuple[int, ...]:
    """Return the axes of Unsqueeze and Squeeze: an input since opset 13, an attribute before."""
    axes = arguments[1] if len(arguments) > 1 and arguments[1] is not None else given.get("axes", ())
    return tuple(int(axis) for axis in np.atleast_1d(np.asarray(axes, np.int64)))


def _squeeze(arguments: list[Any], given: dict[str, Any]) -> Array:
    axes = _axes(arguments, given)
    return np.asarray(np.squeeze(arguments[0], axes or None))


def _concat(arguments: list[Any], given: dict[str, Any]) -> Array:
    return np.concatenate(arguments, int(given["axis"]))


def _slice(arguments: list[Any], given: dict[str, Any]) -> Array:
    names = ("starts", "ends", "axes", "steps")
    found = dict(zip(names, arguments[1:], strict=False)) if len(arguments) > 1 else {n: given.get(n) for n in names}
    starts, ends = (np.atleast_1d(np.asarray(found[n], np.int64)) for n in ("starts", "ends"))
    axes, steps = (
        np.atleast_1d(np.asarray(default if found.get(n) is None else found[n], np.int64))
        for n, default in (("axes", range(len(starts))), ("steps", [1] * len(starts)))
    )
    index = [slice(None)] * arguments[0].ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        stop: int | None = int(end)
        if step < 0 and end < -arguments[0].shape[axis]:
            stop = None
        index[int(axis)] = slice(int(start), stop, int(step))
    return np.asarray(arguments[0][tuple(index)])


def _reshape(arguments: list[Any], given: dict[str, Any]) -> Array:
    shape = given.get("shape", arguments[1] if len(arguments) > 1 else None)
    sizes = [int(n) for n in np.atleast_1d(np.asarray(shape, np.int64))]
    old = arguments[0].shape
    if not given.get("allowzero"):
        sizes = [old[k] if n == 0 and k < len(old) else n for k, n in enumerate(sizes)]
    return np.asarray(arguments[0].reshape(sizes))


def _cast_type(array: Array, given: dict[str, Any]) -> np.dtype[Any]:
    import onnx

    to = given.get("to")
    if to not in (1, 10, 11, 16, 6, 7):
        raise ValueError(f"a Cast of weights goes to type {to}")
    if not is_floating(array) and to in (1, 10, 11, 16):
        raise ValueError(f"weights of {array.dtype} are cast: quantised weights cannot be loaded")
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(to))


def _cast(arguments: list[Any], given: dict[str, Any]) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(arguments[0].astype(_cast_type(arguments[0], given)))


_OPERATORS: dict[str, Any] = {
    "Identity": lambda arguments, given: arguments[0],
    "Unsqueeze": lambda arguments, given: np.expand_dims(arguments[0], _axes(arguments, given)),
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Slice": _slice,
    "Transpose": lambda arguments, given: np.transpose(arguments[0], given.get("perm")),
    "Reshape": _reshape,
    "Cast": _cast,
}
