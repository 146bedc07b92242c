"""The recurrent nodes of an ONNX model, in branches and functions too, and what the names in its graphs stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

KINDS = {"LSTM": "", "RNN": "", "GRU": "", "DynamicQuantizeLSTM": "com.microsoft", "QLinearLSTM": "com.microsoft"}
DEPTH, VISITS, PATHS, LONG = 64, 1_000_000, 1 << 24, 1000


def quoted(name: Any) -> str:
    """Return a name for a message: thousands of messages may have it. One that is no UTF-8 comes as bytes."""
    return repr(name[:200])


class Budget:
    """Bytes that constants may take in all, those made by concatenating and the like too: eight times the model's own.

    Views take none. PyTorch's export without folding needs three times: the rows, a Concat of the gates (each a Slice,
    which is a view), and a Concat of the directions. After a Cast from float16 it is seven.
    """

    def __init__(self, model: Any) -> None:
        self.left = 8 * _held(model) + (1 << 20)
        self._names: dict[int, Names] = {}
        self.checked: dict[tuple[int, ...], Any] = {}  # by the constants, what is known of quantised matrices

    def names(self, proto: Any) -> Names:
        """Return a graph's or a function's names, which are gathered once for all calls."""
        if id(proto) not in self._names:  # whose object stays, as part of the names
            self._names[id(proto)] = Names(proto)
        return self._names[id(proto)]

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ValueError("its constants unfold to much more than the model holds")


class Names:
    """Definitions of a graph or a function: initializers, outputs of nodes, and inputs that are no initializers."""

    def __init__(self, proto: Any) -> None:
        self.proto = proto
        self.initializers = {tensor.name: tensor for tensor in getattr(proto, "initializer", ())}
        self.producers = {name: node for node in proto.node for name in node.output if name}
        inputs = [getattr(value, "name", value) for value in proto.input]  # of functions the names themselves
        self.inputs = set(inputs)
        count = Counter(name for node in proto.node for name in node.output if name)
        count.update(tensor.name for tensor in getattr(proto, "initializer", ()))
        count.update(tensor.values.name for tensor in getattr(proto, "sparse_initializer", ()))
        count.update(name for name in inputs if name not in self.initializers)  # which may be an input's default
        self.twice = {name for name, n in count.items() if n > 1}
        self._steps: list[tuple[Any, str, list[tuple[str, Any]]]] | None = None

    def steps(self, functions: Mapping[Any, Any]) -> list[tuple[Any, str, list[tuple[str, Any]]]]:
        """Return the recurrent nodes, calls and nodes with graphs, each with its label and the graphs by name."""
        if self._steps is None:
            self._steps = []
            for k, node in enumerate(self.proto.node):
                graphs = [(a.name, a.g) for a in node.attribute if a.HasField("g")]
                graphs += [(f"{a.name}_{n}", graph) for a in node.attribute for n, graph in enumerate(a.graphs)]
                if graphs or called(node) in functions or _is_recurrent(node):
                    label = node.name or next((name for name in node.output if name), f"{node.op_type}_{k}")
                    self._steps.append((node, label, graphs))
        return self._steps


class Frame:
    """Names within a graph, or within one call of a function, and where they lead."""

    def __init__(self, proto: Any, outer: Frame | None, budget: Budget, call: Any = None) -> None:
        self.proto, self.outer, self.budget, self.call = proto, outer, budget, call
        names = budget.names(proto)
        self.producers, self.initializers, self.inputs = names.producers, names.initializers, names.inputs
        self._twice = names.twice
        self.formal: dict[str, str] = {}
        self.arguments: dict[str, Any] = {}
        if call is not None:
            self.formal = {name: call.input[k] if k < len(call.input) else "" for k, name in enumerate(proto.input)}
            self.arguments = {attribute.name: attribute for attribute in proto.attribute_proto}
            refuse_twice(call, call.attribute)
            self.arguments |= {attribute.name: attribute for attribute in call.attribute}
            assert outer is not None
            for name, attribute in list(self.arguments.items()):
                if attribute.ref_attr_name:
                    self.arguments[name] = outer.argument(attribute.ref_attr_name)
        self.cache: dict[str, Array] = {}
        self.failed: dict[str, tuple[int, str]] = {}  # for names without a constant: the depth, and the reason

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
            frame._once(name)
            assert frame.outer is not None
            name, frame = frame.formal[name], frame.outer
        return frame, name

    def _once(self, name: str) -> None:
        if name in self._twice:  # the last one would win, or the first, as a program happens to look
            raise ValueError(f"weight {quoted(name)} is defined twice, in {quoted(self.proto.name)}")

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
            frame._once(name)
            if name in frame.initializers:
                return frame, frame.initializers[name]
            if name in frame.producers:
                return frame, frame.producers[name]
            if frame.call is None and name in frame.inputs:
                graph = quoted(frame.proto.name)
                raise ValueError(f"weight {quoted(name)} is an input of the graph {graph}, not a constant")
            if frame.call is not None or frame.outer is None:
                raise ValueError(f"weight {quoted(inner)} is defined nowhere")
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
    if len(functions) < len(model.functions):
        raise ValueError("it has two functions of the same name, domain and overload")
    left = {"nodes": VISITS, "characters": PATHS}
    budget = Budget(model)

    def walk(frame: Frame, path: str, depth: int) -> Iterator[Node]:
        if depth > DEPTH:
            raise ValueError(f"its graphs are nested more than {DEPTH} deep")
        left["nodes"] -= len(frame.proto.node) + (len(frame.formal) + len(frame.arguments)) // 4
        if left["nodes"] < 0:
            raise ValueError(f"it has more than {VISITS} nodes, each function counted once a call")
        for node, label, graphs in budget.names(frame.proto).steps(functions):
            here = f"{path}{label}"
            left["characters"] -= len(here)
            if left["characters"] < 0:
                raise ValueError(
                    f"the names of its nodes and of all that they are in have more than {PATHS} characters"
                )
            function = functions.get(called(node))
            if function is not None:
                yield from walk(Frame(function, frame, budget, node), f"{here}/", depth + 1)
            elif _is_recurrent(node):
                yield Node(frame, node, label, here)
            for name, graph in graphs:
                yield from walk(Frame(graph, frame, budget), f"{here}/{name}/", depth + 1)

    return list(walk(Frame(model.graph, None, budget), "", 0))


def called(node: Any) -> tuple[str, str, str]:
    """Return what tells a node's function from others: its domain, its name and its overload."""
    return node.domain, node.op_type, _overload(node)


def _is_recurrent(node: Any) -> bool:
    return KINDS.get(node.op_type) == domain_of(node)


def domain_of(node: Any) -> str:
    """Return a node's domain; that of ONNX itself has two names."""
    return "" if node.domain == "ai.onnx" else str(node.domain)


def _overload(proto: Any) -> str:
    """Return the overload of a node or function, which onnx has from its version 1.16 on."""
    return getattr(proto, "overload", "")


def refuse_twice(node: Any, found: Iterable[Any]) -> None:
    """Raise ValueError if a node has two attributes of one name."""
    twice = [name for name, n in Counter(attribute.name for attribute in found).items() if n > 1]
    if twice:
        raise ValueError(f"{node.op_type[:200]} {quoted(node.name)} has the attribute {quoted(twice[0])} twice")


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
    """Return a recurrent node's attributes as Python's values, those taken from a function's call too."""
    if len(node.proto.attribute) > LONG:
        raise ValueError(f"it has more than {LONG} attributes")
    for attribute in node.proto.attribute:  # which a function has once, and each call of it reads
        source = node.frame.argument(attribute.ref_attr_name) if attribute.ref_attr_name else attribute
        if source and max(map(len, (source.s, source.floats, source.ints, source.strings))) > LONG:
            raise ValueError(f"its attribute {quoted(attribute.name)} has more than {LONG} values")
    return attributes_of(node.frame, node.proto)


def attributes_of(frame: Frame, proto: Any) -> dict[str, Any]:
    import onnx

    refuse_twice(proto, proto.attribute)
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
