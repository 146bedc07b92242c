"""ONNX files: the recurrent nodes of a model as networks, and networks back into a model."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .._quantize import SCALE, is_matrix
from ..io._found import Found, choose
from . import _inputs, _quantised
from ._attributes import Attributes
from ._attributes import parse as parse_attributes
from ._constants import constant, is_floating, known, value_of
from ._nodes import Names, Node, attributes, literals, quoted, recurrent_nodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..lstm import LSTM
    from ..rnn import RNN

    Array = NDArray[Any]
    Model = str | os.PathLike[str] | bytes | IO[bytes] | Any

_UNUSED = {4: "sequence_lens", 5: "initial_h", 6: "initial_c"}  # inputs of the node that are no part of the network
QUANTISED = "DynamicQuantizeLSTM"


def _package() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ImportError("files of ONNX need the package onnx: pip install onnx") from error
    return onnx


def parse(data: bytes, folder: Path) -> Any:
    """Return the model of some bytes, with external data that lies within a folder.

    Raises ValueError for a file that is none, and for external data outside the folder or beyond its file's end.
    """
    onnx = _package()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # protobuf's own, which comes from one of several modules
        raise ValueError(f"not a model of ONNX: {error}") from error
    if not model.graph.node and not model.graph.initializer:
        raise ValueError("not a model of ONNX: it has no nodes")
    _embed_all(model, folder)
    return model


def _embed_all(model: Any, folder: Path) -> None:
    """Read all external data into a model's tensors: at most four times the bytes of its files, which may be shared."""
    files: dict[tuple[int, int], int] = {}
    total = 0
    for tensor in literals(model):
        if getattr(tensor, "data_location", 0) != 1:
            continue
        file, offset, length = _place(tensor, folder)
        status = file.stat()
        files[status.st_dev, status.st_ino] = status.st_size
        total += length
        if total > 4 * sum(files.values()):
            raise ValueError("its tensors have much more external data than their files hold")
        with file.open("rb") as stream:
            stream.seek(offset)
            tensor.raw_data = stream.read(length)
        tensor.data_location = 0
        del tensor.external_data[:]


def _place(tensor: Any, folder: Path) -> tuple[Path, int, int]:
    """Return the file, the offset and the length of a tensor's external data."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    root = folder.resolve()
    file = (root / location).resolve()
    if not location or not file.is_relative_to(root) or not file.is_file():
        why = "is no file in the model's folder"
        # Of a name that stays within the folder by itself, a symbolic link leads out.
        if location and Path(os.path.normpath(root / location)).is_relative_to(root) and not file.is_relative_to(root):
            why = f"is a symbolic link out of the model's folder, to {file}: put the file itself there"
        raise ValueError(f"tensor {tensor.name!r} has external data at {location!r}, which {why}")
    size = file.stat().st_size
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(size - offset)))
    except ValueError as error:
        raise ValueError(f"tensor {tensor.name!r} has external data at a senseless place") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise ValueError(
            f"tensor {tensor.name!r} has external data at {offset} + {length}, {location} has {size} bytes"
        )
    return file, offset, length


def initializers(model: Any) -> dict[str, Array]:
    """Return the initializers of a model's graph by name; raise ValueError for a name that is defined twice."""
    twice = Names(model.graph).twice
    for tensor in model.graph.initializer:
        if tensor.name in twice:
            raise ValueError(f"initializer {quoted(tensor.name)} is defined twice")
    return {tensor.name: known(value_of(tensor)) for tensor in model.graph.initializer if tensor.data_type in _NUMBERS}


_NUMBERS = (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16)  # TensorProto's numeric types but for complex and 8 bits


def networks(model: Any, source: str) -> list[Found]:
    """Return a model's LSTM, RNN and GRU nodes, wherever they are, with the weights that they would run with."""
    return [found for found, _ in _pairs(model, source)]


def _pairs(model: Any, source: str) -> list[tuple[Found, Node]]:
    nodes = recurrent_nodes(model)
    count = Counter(node.label for node in nodes)
    return [(_found(node, node.label if count[node.label] == 1 else node.path, source), node) for node in nodes]


def _found(node: Node, name: str, source: str) -> Found:
    kind = node.proto.op_type
    if kind == "QLinearLSTM":
        return Found("LSTM", name, 0, 0, problem=f"it is a {kind}, which quadgate does not have", source=source)
    try:
        if kind == QUANTISED:
            return _read_quantised(node, name, source)
        return _read(node, kind, name, source, lambda: _inputs.Weights(*(_constant(node, k) for k in (1, 2, 3, 7))))
    except (TypeError, ValueError) as error:
        problem = str(error)[:1000]  # thousands of nodes may have it
        return Found("LSTM" if kind == QUANTISED else kind, name, 0, 0, problem=problem, source=source)


def _constant(node: Node, k: int) -> Any:
    """Return an input of a node, None if it is absent."""
    return constant(node.frame, node.proto.input[k]) if k < len(node.proto.input) else None


class _Parameters(Mapping[str, Any]):
    """A node's parameters, made when one is read: so nodes that share their constants take no memory of their own."""

    def __init__(self, names: list[str], make: Callable[[], dict[str, Array]]) -> None:
        self._names, self._make = names, make

    @cached_property
    def _made(self) -> dict[str, Array]:
        return self._make()

    def __getitem__(self, name: str) -> Array:
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _read_quantised(node: Node, name: str, source: str) -> Found:
    """Return the record of a DynamicQuantizeLSTM: the integers as they are, or what to ask where these do not fit."""

    def matrices() -> tuple[_quantised.Matrix, _quantised.Matrix]:
        W, R = (
            _quantised.Matrix.of(_constant(node, place), _constant(node, scale), _constant(node, scale + 1), what)
            for place, scale, what in _quantised.PLACES
        )
        return W, R

    def given() -> _inputs.Weights:
        W, R = matrices()
        return _inputs.Weights(W.values, R.values, _constant(node, 3), _constant(node, 7))

    def plain() -> _inputs.Weights:
        W, R = (np.broadcast_to(np.float32(0), shape) for shape in shapes)
        return _inputs.Weights(W, R, _constant(node, 3), _constant(node, 7))

    # Many nodes may share large matrices: these are looked at once.
    constants = [_constant(node, k) for place, scale, _ in _quantised.PLACES for k in (place, scale, scale + 1)]
    key, checked = tuple(map(id, constants)), node.frame.budget.checked
    if key not in checked:
        both = matrices()
        checked[key] = constants, [m.integers.shape for m in both], all(m.fits for m in both)
    _, shapes, fit = checked[key]
    found = _read(node, "LSTM", name, source, given, plain)
    if not fit:
        reason = (
            "its integers less their zero points go beyond 127: 'float32' keeps the numbers that they stand for, "
            "'int8' quantises these again"
        )
        return replace(found, asks={"weights": reason})
    names = [n for own in found.arrays for n in ((own, own + SCALE) if is_matrix(own) else (own,))]
    arrays = _Parameters(names, lambda: _quantised.parameters(*matrices(), found.arrays))
    return replace(found, arrays=arrays, weights="int8")


def _read(
    node: Node,
    kind: str,
    name: str,
    source: str,
    weights: Callable[[], _inputs.Weights],
    plain: Callable[[], _inputs.Weights] | None = None,
) -> Found:
    """Return the record of one node; `weights` gives those that the operator `kind` has, `plain` others of their shape.

    Only their shapes and types are read here.
    """
    W, R, B, P = (plain or weights)()
    if W is None or R is None:
        raise ValueError("W and R must be given")
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    if W.ndim != 3 or R.ndim != 3 or R.shape[1] != gates * R.shape[2] or W.shape[:2] != R.shape[:2] or 0 in W.shape:
        raise ValueError(f"W must be (D, {gates}H, I) and R (D, {gates}H, H), found {W.shape} and {R.shape}")
    directions, _, inputs = W.shape
    hidden = R.shape[2]
    sizes = (inputs, hidden, 1, directions)
    given = attributes(node)
    notes = [f"its {what} is not a part of the network" for k, what in _UNUSED.items() if _has(node, k)]
    if kind == "GRU":
        return Found(
            kind, name, *sizes, notes=tuple(notes), problem="a GRU, which quadgate does not have", source=source
        )
    for what, array, shape in (("B", B, (directions, 2 * gates * hidden)), ("P", P, (directions, 3 * hidden))):
        if array is not None and array.shape != shape:
            raise ValueError(f"{what} must have shape {shape}, found {array.shape}")
    if not all(array is None or is_floating(array) for array in (W, R, B, P)):
        raise ValueError(f"W has type {W.dtype}: quantised weights cannot be loaded")
    options = _options(given, kind, directions, hidden)
    suffixes = ("", "_reverse")[:directions]
    parts = ["weight_ih", "weight_hh", *(["bias"] if B is not None else []), *(["peephole"] if P is not None else [])]
    parameters = _inputs.parameters if kind == "LSTM" else _inputs.elman_parameters

    def make() -> dict[str, Array]:
        plain = _inputs.Weights(*(None if array is None else known(array) for array in weights()))  # type: ignore[arg-type]
        return {n: array for d, suffix in enumerate(suffixes) for n, array in parameters(plain, d, suffix).items()}

    arrays = _Parameters([f"{part}_l0{suffix}" for suffix in suffixes for part in parts], make)
    return Found(kind, name, *sizes, options, tuple(notes), {}, None, source, arrays)


def _has(node: Node, k: int) -> bool:
    return len(node.proto.input) > k and node.frame.origin(node.proto.input[k])[1] != ""


_RNN_OWN = ("activations", "activation_alpha", "activation_beta")  # attributes that mean something else in an RNN
_KNOWN = frozenset((*inspect.signature(parse_attributes).parameters, "output_sequence"))


def _options(given: Mapping[str, Any], kind: str, directions: int, hidden: int) -> dict[str, Any]:
    """Return the network's options from a node's attributes."""
    unknown = given.keys() - _KNOWN
    if kind == "RNN":
        unknown |= given.keys() & {"input_forget"}
    if unknown:
        raise ValueError(f"its attributes {', '.join(sorted(unknown))} are none that {kind} has")
    left_out = {"output_sequence"} | set(_RNN_OWN if kind == "RNN" else ())
    found = parse_attributes(**{k: v for k, v in given.items() if k not in left_out})
    if len(found.directions) != directions:
        raise ValueError(f"its direction is {given.get('direction', 'forward')!r}, W has {directions} directions")
    if found.hidden_size not in (None, hidden):
        raise ValueError(f"its hidden_size is {found.hidden_size}, R has {hidden}")
    options = _rnn_options(given, found) if kind == "RNN" else _lstm_options(found)
    if found.directions == (True,):
        options["reverse"] = True
    return options


def _lstm_options(found: Attributes) -> dict[str, Any]:
    if any(cell != found.activations[0] for cell in found.activations):
        raise ValueError(f"its two directions have different activations, {found.activations}")
    options: dict[str, Any] = {"batch_first": found.batch_first}
    cells = tuple(cell[0] if len(cell) == 1 else cell for cell in found.activations[0])
    if cells != ("sigmoid", "tanh", "tanh"):
        options["activations"] = cells
    if found.clip is not None:
        options["gate_clip"] = found.clip
    if found.coupled:
        options["coupled"] = True
    return options


def _rnn_options(given: Mapping[str, Any], found: Attributes) -> dict[str, Any]:
    functions = {str(name).lower() for name in given.get("activations", ["Tanh"])}
    if len(functions) != 1 or not functions <= {"tanh", "relu"} or found.clip is not None:
        raise ValueError(f"its activations are {sorted(functions)}, clip {found.clip}; tanh or relu is needed")
    return {"nonlinearity": functions.pop(), "batch_first": found.batch_first}


def _model(model: Model) -> tuple[Any, str]:
    """Return a model and what messages call it."""
    from ..io._files import blamed, folder, read, title

    if isinstance(model, (str, os.PathLike)) or hasattr(model, "read"):
        file: Any = model
        source, data = title(file, "model"), read(file, "model")
        with blamed(source):
            return parse(data, folder(file)), source
    if isinstance(model, (bytes, bytearray)):
        with blamed("the model"):
            return parse(bytes(model), Path(os.devnull)), "the model"
    if isinstance(model, _package().ModelProto):
        return model, "the model"
    raise TypeError(f"model must be a path, a binary file, bytes or an onnx.ModelProto, got {type(model).__name__}")


def load(model: Model, name: str | None = None, **options: Any) -> LSTM | RNN:
    """Return the network of a node LSTM, RNN or DynamicQuantizeLSTM of an ONNX model.

    Parameters
    ----------
    model : str, path, binary file, bytes or onnx.ModelProto
    name : str, optional
        The node, where there are several: its name, or the name of its first output if it has none.
    **options
        Further arguments of `quadgate.LSTM` or `quadgate.RNN`, such as ``dropout``. For a quantised node also
        ``weights``: "int8", or "float32" for the numbers that its integers stand for, exactly.

    Returns
    -------
    LSTM or RNN
        One layer. Initial states and lengths of the node are not part of it. A DynamicQuantizeLSTM, which onnxruntime
        makes of every LSTM that it quantises, gives a network with weights of int8, as `quadgate.LSTM.quantize` does.

    Raises
    ------
    ValueError
        If there is no such node or there are several, its weights are computed from the model's inputs, quantised in
        another way, or outside the model's folder; and if ``weights`` must be given.

    Notes
    -----
    onnxruntime's quantisation, unless told otherwise, makes weights without zero points and with one scale for a
    direction or for each of its columns. These integers and scales are kept as they are. Other zero points make numbers
    that our weights of int8, from -127 to 127, cannot be: ``weights`` says whether to quantise these again.

    The arithmetic differs: onnxruntime quantises all of X at once, and h of all rows at each step, to 256 levels
    between their smallest and largest number; quadgate each row of x and of h alone. Over 20 LSTMs of 5 inputs and 7
    units with weights up to 0.5, y is off by up to 6e-3 from the model before its quantisation, onnxruntime's by up to
    9e-3, and the two differ by up to 7e-3.

    Examples
    --------
    >>> import quadgate as qg
    >>> lstm = qg.onnx.load("model.onnx", "y")  # a node without a name goes by its output's
    """
    from ..io._files import blamed

    proto, source = _model(model)
    with blamed(source):
        found = networks(proto, source)
    return choose(found, name, source).build(**options)


def store(model: Model, name: str | None, net: LSTM | RNN) -> Any:
    """Return a copy of an ONNX model in which a node has a network's parameters.

    Parameters
    ----------
    model : str, path, binary file, bytes or onnx.ModelProto
        Left as it is.
    name : str or None
        The node, as in `load`; None where there is only one.
    net : LSTM or RNN
        Of the node's sizes, directions and options. Its parameters are converted to the type of the node's. A
        DynamicQuantizeLSTM takes a network with weights of int8, and keeps their integers and scales. No other node
        takes one.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    ValueError
        If the network does not fit the node; the message says in what. Also if the node cannot be read, as in `load`.
    TypeError
        If `net` is no network of quadgate's.

    Examples
    --------
    >>> import onnx, quadgate as qg
    >>> lstm = qg.onnx.load("model.onnx")
    >>> onnx.save(qg.onnx.store("model.onnx", None, lstm), "tuned.onnx")
    """
    from ..io._files import blamed
    from ._store import fits, put

    proto, source = _model(model)
    changed = _package().ModelProto()
    changed.CopyFrom(proto)
    with blamed(source):
        pairs = _pairs(changed, source)
    found = choose([f for f, _ in pairs], name, source)
    node = next(node for f, node in pairs if f is found)
    fits(found, net, f"{source}: {found.name}", node.proto.op_type == QUANTISED)
    put(changed, node, net, np.asarray(_constant(node, 1)).dtype)
    return changed
