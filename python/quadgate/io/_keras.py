"""Networks in files of Keras 2 and 3: what their configuration says, and whose arrays are whose."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ._found import Found
from ._hdf5 import text
from ._keras_layers import HARD_SIGMOID, Layer, read_layers
from ._keras_weights import Weights, parameters, sizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_VARS = re.compile(r"^(?P<base>.+?)/(?P<side>forward_layer|backward_layer)?/?(?:cell/)?vars/(?P<index>\d+)$")
_STACKED = re.compile(r"^(?P<base>.+?)(?:/(?:forward|backward)_layer)?/cell/cells/(?P<kind>\w+)/vars/\d+$")
_NAMED = re.compile(r"^(?P<base>.+)/(?P<what>kernel|recurrent_kernel|bias)(?::0)?$")
_OPTIMIZER = re.compile(r"^optimizer_weights/|^optimizer/vars/")  # of HDF5, where layers may be named so, too
FORMER = "_layer_checkpoint_dependencies/"  # before the layers in the files of TensorFlow 2.12 to 2.14
SEVERAL = "an RNN of several cells, which quadgate does not have: give each cell's arrays to quadgate.io.from_keras"
_CELL = re.compile(r"^(lstm|simple_rnn|gru)_cell(_\d+)?$")
_SIDE = re.compile(r"^(?P<side>forward|backward)_")


class Group(NamedTuple):
    """The arrays of one layer: for each direction its kernel, recurrent kernel and bias."""

    path: str  # in the file
    name: str  # the layer's own, if the file has it
    layer: Layer | None  # what the configuration says of it
    sides: dict[str, dict[str, Array]]
    problem: str | None = None


class File(NamedTuple):
    """A file's arrays, HDF5 attributes, configuration and Keras's version, "" where it is not known."""

    arrays: Mapping[str, Array]
    attributes: Mapping[str, Mapping[str, Any]]
    config: Any
    version: str


def from_hdf5(arrays: Mapping[str, Array], attributes: Mapping[str, Mapping[str, Any]]) -> File:
    """Return what an HDF5 file is to Keras: a whole model (.h5) or weights alone."""
    root = attributes.get("", {})
    config = text(root.get("model_config"))
    version = text(root.get("keras_version"))
    if not version and "model_weights" in attributes:
        version = text(attributes["model_weights"].get("keras_version"))
    if not version and any(_VARS.match(name) for name in arrays):
        version = "3"
    return File(arrays, attributes, json.loads(config) if config else None, version)


def networks(file: File, source: str) -> list[Found]:
    """Return the recurrent layers of a file, one record each: Keras stacks layers of one level."""
    layers = read_layers(file.config)
    result = []
    groups = _groups(file, layers)
    for group in groups:
        place = layers.index(group.layer) if group.layer is not None else len(layers)
        result.append((place, group, _found(group, file, source)))
    for group, found in [*_missing(layers, groups, source), *_stacked(file, layers, source)]:
        result.append((layers.index(group.layer) if group.layer is not None else len(layers), group, found))
    result.sort(key=lambda entry: entry[0])
    return _named_apart([(group, found) for _, group, found in result])


def _missing(layers: list[Layer], groups: list[Group], source: str) -> list[tuple[Group, Found]]:
    """Return the layers without arrays that can be read: one of them may be the network that is meant."""
    used = {group.layer.path for group in groups if group.layer is not None}
    # One that two models share is in the configuration twice, and its arrays are once in the file.
    said = [(layer.name, layer.kind, layer.options, layer.problem) for layer in layers if layer.path in used]
    unclear = {group.name for group in groups if group.layer is None}
    if any(group.layer is None and FORMER in group.path for group in groups):
        return []
    result = []
    for layer in layers:
        shared = (layer.name, layer.kind, layer.options, layer.problem) in said
        if layer.path not in used and not shared and layer.name not in unclear:
            problem = layer.problem or "the file does not have its arrays, or not in a type that can be read"
            found = Found(layer.kind, layer.name, 0, 0, source=source, problem=problem)
            result.append((Group(layer.path, layer.name, layer, {}), found))
    return result


def _stacked(file: File, layers: list[Layer], source: str) -> list[tuple[Group, Found]]:
    """Return the layers of several cells that no configuration describes."""
    described = {layer.path for layer in layers}
    result = {}
    for match in map(_STACKED.match, file.arrays):
        if match is not None and match["base"] not in described and match["base"] not in result:
            base, kind = match["base"], "GRU" if match["kind"].startswith("gru") else "LSTM"
            name = text(file.attributes.get(f"{base}/vars", {}).get("name")) or base.removeprefix("layers/")
            group = Group(base, name, None, {})
            result[base] = group, Found(kind, name, 0, 0, source=source, problem=SEVERAL)
    return list(result.values())


def _named_apart(pairs: list[tuple[Group, Found]]) -> list[Found]:
    """Return the networks, those of one name under their paths: layers of two inner models may have the same."""
    counts = Counter(found.name for _, found in pairs)
    result = []
    for group, found in pairs:
        path = "/".join(group.layer.names) if group.layer is not None else group.path
        result.append(replace(found, name=path) if counts[found.name] > 1 and path not in counts else found)
    return result


def _in_path(layers: list[Layer], parts: Sequence[str]) -> list[Layer]:
    """Return the layers that a path of HDF5 may mean: those in the outermost model, in all of theirs if possible."""
    outermost = [layer for layer in layers if layer.names[0] == parts[0]]
    return [layer for layer in outermost if _within(layer.names, parts)] or outermost


def _within(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Return True if a path has these names, in this order."""
    rest = iter(parts)
    return all(name in rest for name in names)


def _agreed(layers: list[Layer]) -> Layer | None:
    """Return the first of the layers that may be meant, None if they say different things."""
    said = [(layer.options, layer.problem) for layer in layers]
    return layers[0] if layers and all(one == said[0] for one in said) else None


def _groups(file: File, layers: list[Layer]) -> list[Group]:
    """Return the arrays that belong to recurrent layers, layer by layer."""
    by_name: dict[str, list[Layer]] = {}
    for layer in layers:
        by_name.setdefault(layer.name, []).append(layer)
    by_path = {layer.path: layer for layer in layers}
    outermost = {layer.name for layer in layers if layer.path.count("layers/") == 1}
    groups: dict[str, Group] = {}
    bases = {match["base"] for path in file.arrays if (match := _VARS.match(path))}
    for path, array in file.arrays.items():
        stated: Layer | None = None
        if _OPTIMIZER.match(path) or (not file.attributes and (path.startswith("optimizer") or "/optimizer" in path)):
            continue
        match = _VARS.match(path)
        if match:
            base, side, what = match["base"], match["side"] or "", match["index"]
            if "/cell/vars/" not in path:
                continue
            name = text(file.attributes.get(f"{base}/vars", {}).get("name"))
            what = {"0": "kernel", "1": "recurrent_kernel", "2": "bias"}.get(what, "")
            side = side.removesuffix("_layer")
            stated = by_path.get(base.replace(FORMER, "layers/"))
            named = [layer for layer in by_name.get(name, ()) if layer.path not in bases]
            if named and (stated is None or stated.name != name):
                stated = _agreed(named)
        else:
            match = _NAMED.match(path)
            if match is None:
                continue
            parts, what = match["base"].removeprefix("model_weights/").split("/"), match["what"]
            # A user may give any name to a layer, and to those within Bidirectional: the configuration decides.
            at = 0 if parts[0] in outermost else max((k for k, part in enumerate(parts) if part in by_name), default=-1)
            candidates = _in_path(by_name[parts[at]], parts) if at >= 0 else []
            if candidates:
                stated, forward = _agreed(candidates), candidates[0].forward
                side = "" if not forward else "forward" if forward & {*parts[at + 1 :][-2:]} else "backward"
                parts = parts[: at + 1]
            else:
                if _CELL.match(parts[-1]):
                    parts.pop()
                sided = _SIDE.match(parts[-1]) if len(parts) > 1 else None
                side = sided["side"] if sided else ""
                if sided:
                    parts.pop()
            base, name = "/".join(parts), parts[-1]
        group = groups.setdefault(base, Group(base, name, stated, {}))
        arrays = group.sides.setdefault(side, {})
        if not what:
            groups[base] = group._replace(problem="its cell has more arrays than Keras's own: it is another")
        elif what in arrays:
            groups[base] = group._replace(problem=SEVERAL)
        arrays[what] = array
    claims = Counter(group.layer.path for group in groups.values() if group.layer is not None)
    return [
        # Of two that one configuration may mean, one is in a class of the user's, where layers may have any name.
        group._replace(layer=None) if group.layer is not None and claims[group.layer.path] > 1 else group
        for group in groups.values()
        if all({"kernel", "recurrent_kernel"} <= side.keys() for side in group.sides.values())
    ]


def _found(group: Group, file: File, source: str) -> Found:
    layer, former = group.layer, FORMER in group.path
    sides = [group.sides[side] for side in ("", "forward", "backward") if side in group.sides]
    name = group.name or (layer.name if layer is not None and former else "")
    name = name or group.path.removeprefix("layers/").removeprefix(FORMER)
    weights = [Weights(side["kernel"], side["recurrent_kernel"], side.get("bias")) for side in sides]
    kind, inputs, hidden, problem = sizes(weights)
    options: dict[str, Any] = dict(layer.options) if layer is not None else {}
    notes, asks = list(layer.notes) if layer is not None else [], {}
    problem = (layer.problem if layer is not None else None) or group.problem or problem
    if layer is not None and bool(layer.forward) != (len(sides) == 2):
        problem = problem or f"its configuration has {1 + bool(layer.forward)} directions, its arrays {len(sides)}"
    cudnn = kind == "LSTM" and any(w.bias is not None and w.bias.shape == (8 * hidden,) for w in weights)
    if kind == "GRU":
        problem = problem or "a GRU, which quadgate does not have"
    options.setdefault("batch_first", True)
    if len(sides) == 2 and layer is None:
        asks["merge"] = 'the file has weights only; "concat" unless the model has another merge_mode'
    if layer is None and file.config is not None and not former:
        asks |= _within_own(kind, len(sides), cudnn)
        notes.append("within a class of the user's own: what that does besides is not known")
    if cudnn:
        notes.append("CuDNNLSTM: gates transposed block by block, the two halves of its bias added")
        options.pop("activations", None)
    elif layer is None and (file.config is None or former):
        _weights_only(kind, file.version, asks, notes)
    elif problem is None and any(a == HARD_SIGMOID for a in _activations(options)):
        generation = file.version.partition(".")[0]
        if generation in ("2", "3"):
            hard = ("hard_sigmoid", 0.2 if generation == "2" else 1 / 6, 0.5)
            options["activations"] = tuple(hard if a == HARD_SIGMOID else a for a in _activations(options))
        else:
            del options["activations"]
            asks["activations"] = (
                '"hard_sigmoid" is ("hard_sigmoid", 0.2, 0.5) in Keras 2 and ("hard_sigmoid", 1/6, 0.5) in Keras 3; '
                f"the file does not say which (version {file.version!r})"
            )
    if kind == "RNN":
        _simple(options, asks)
        problem = problem or options.pop("problem", None)
    if kind != "LSTM" and kind != "RNN":
        options = {}
    params: dict[str, Array] = {}
    if problem is None:
        for side, suffix in zip(weights, ("", "_reverse"), strict=False):
            params |= parameters(side, f"_l0{suffix}", cudnn=cudnn)
    notes = list(dict.fromkeys(notes))
    return Found(kind, name, inputs, hidden, 1, len(sides), options, tuple(notes), asks, problem, source, params)


def _within_own(kind: str, directions: int, cudnn: bool) -> dict[str, str]:
    """Return what must be given for a layer that a whole model's configuration does not describe."""
    why = "the layer is of, or within, a class of the user's own, and the file does not have its options"
    needed = {"LSTM": "activations", "RNN": "nonlinearity"}.get(kind, "")
    asks = {needed: why} if needed and not cudnn else {}
    if directions == 1:
        asks["reverse"] = f"{why}; True for go_backwards" if not asks else "True for go_backwards"
    return asks


def _weights_only(kind: str, version: str, asks: dict[str, str], notes: list[str]) -> None:
    """Note what a file without a configuration does not say, or raise if it must be given."""
    notes.append("weights without a configuration: go_backwards is not known, False is assumed")
    if kind == "LSTM":
        if version.startswith("3"):
            notes.append("activations are not known, Keras 3's defaults are assumed: sigmoid and tanh")
        else:
            asks["activations"] = (
                'the file has weights only, and Keras changed its default: ("sigmoid", "tanh", "tanh"), or '
                'before Keras 2.3 (("hard_sigmoid", 0.2, 0.5), "tanh", "tanh")'
            )
    elif kind == "RNN":
        asks["nonlinearity"] = "the file has weights only"


def _activations(options: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(options.get("activations", ()))


def _simple(options: dict[str, Any], asks: dict[str, str]) -> None:
    """Convert an LSTM's options to those of a plain recurrent network."""
    _, function, _ = options.pop("activations", (None, "tanh", None))
    if function not in ("tanh", "relu"):
        options["problem"] = f"a SimpleRNN with activation {function!r}; tanh or relu is needed"
    if "nonlinearity" not in asks:
        options["nonlinearity"] = function
