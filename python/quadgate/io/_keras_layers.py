"""Keras's configuration of recurrent layers, as quadgate's options."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

HARD_SIGMOID = "hard_sigmoid"  # its slope depends on Keras's generation, which stands elsewhere in the file

_FUNCTIONS: dict[str, Any] = {
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "linear": "affine",
    "hard_sigmoid": HARD_SIGMOID,
    "elu": "elu",
    "softsign": "softsign",
    "softplus": "softplus",
}
_MERGES = {"concat": "concat", "sum": "sum", "mul": "mul", "ave": "mean"}
RECURRENT = ("LSTM", "CuDNNLSTM", "SimpleRNN", "GRU", "CuDNNGRU", "RNN")
CLASSES = {*RECURRENT, "Bidirectional"}
DEPTH = 50
# Packages of Keras's own classes, by its generation; a registered name that is not the class's own is a user's, too.
_MODULES = ("keras", "tf_keras", "tensorflow", "keras_core")


class Layer(NamedTuple):
    """A recurrent layer: its name, its place among the weights of a .keras file, and what it says.

    A Bidirectional one has the names that its forward layer may have in HDF5; the other layer may have any.
    """

    names: tuple[str, ...]  # of the models around it, from the outermost, then its own
    path: str
    options: dict[str, Any]
    notes: list[str]
    problem: str | None
    forward: frozenset[str] = frozenset()
    kind: str = "LSTM"  # or "RNN", or another that quadgate does not have

    @property
    def name(self) -> str:
        return self.names[-1]


def read_layers(config: Any) -> list[Layer]:
    """Return the recurrent layers of a model's configuration, those of inner models too."""
    result: list[Layer] = []
    if isinstance(config, dict):
        _walk(config, "", (), result)
    return result


def _walk(model: dict[str, Any], path: str, around: tuple[str, ...], result: list[Layer]) -> None:
    if len(around) > DEPTH:
        raise ValueError(f"its configuration nests models more than {DEPTH} deep")
    inner = model.get("config")
    layers = inner.get("layers") if isinstance(inner, dict) else inner  # Sequential of early Keras 2: a bare list
    counts: dict[str, int] = {}
    for layer in layers if isinstance(layers, list) else ():
        if not isinstance(layer, dict):
            continue
        kind, name = str(layer.get("class_name", "")), snake_case(str(layer.get("class_name", "")))
        number = counts.get(name, 0)
        counts[name] = number + 1
        here = f"{path}layers/{name}" + (f"_{number}" if number else "")
        config, names = layer.get("config"), (*around, _name(layer))
        while kind == "TimeDistributed" and isinstance(config, dict) and isinstance(config.get("layer"), dict):
            layer, here = config["layer"], f"{here}/layer"
            kind, config, names = str(layer.get("class_name", "")), layer.get("config"), (*names, _name(layer))
        if not isinstance(config, (dict, list)):
            continue
        if isinstance(config, dict) and kind.rpartition(">")[2] in CLASSES:
            result.append(_layer(layer, config, here, names))
        elif isinstance(config, list) or isinstance(config.get("layers"), list):
            _walk(layer, f"{here}/", names, result)


def _name(layer: dict[str, Any]) -> str:
    config = layer.get("config")
    return str((config if isinstance(config, dict) else {}).get("name", layer.get("name", "")))


def foreign(thing: dict[str, Any]) -> str | None:
    """Return a problem with a class that is a user's, not Keras's own of the same name."""
    kind, name, module = (thing.get(key) or "" for key in ("class_name", "registered_name", "module"))
    kind, name, module = str(kind), str(name), str(module)
    if ">" not in kind and name in ("", kind) and module.partition(".")[0] in ("", *_MODULES):
        return None
    return (
        f"its class {name or kind!r:.80} is the user's own, which may compute something else than Keras's: if it does "
        "not, give its arrays to quadgate.io.from_keras"
    )


def _layer(layer: dict[str, Any], config: dict[str, Any], path: str, names: tuple[str, ...]) -> Layer:
    options: dict[str, Any] = {}
    notes: list[str] = []
    if str(layer.get("class_name")).rpartition(">")[2] != "Bidirectional":
        problem = _one(layer, options, notes)
        return Layer(names, path, options, notes, problem, kind=_kind(layer))
    inner = config.get("layer")
    inner = inner if isinstance(inner, dict) else {}
    one = inner.get("config")
    problem = foreign(layer) or _one(inner, options, notes)
    if options.pop("reverse", False):
        problem = problem or "its forward layer has go_backwards"
    second = config.get("backward_layer")
    if isinstance(second, dict) and isinstance(second.get("config"), dict):
        other: dict[str, Any] = {}
        problem = problem or _one(second, other, [])
        if not other.pop("reverse", False):
            problem = problem or "its backward layer has no go_backwards"
        if other != options:
            problem = problem or f"its two layers have different options: {options} and {other}"
    notes[:] = [note for note in notes if not note.startswith("go_backwards")]
    merge = config.get("merge_mode", "concat")
    if merge is None:
        notes.append("merge_mode is None: y is the two directions side by side, to be cut in halves")
    elif merge not in _MERGES:
        problem = problem or f"merge_mode is {merge!r}; {', '.join(_MERGES)} are known"
    options["merge"] = _MERGES.get(merge, "concat")
    first = str(one.get("name", "")) if isinstance(one, dict) else ""
    # Keras 2 keeps the name without the prefix, Keras 3 with it.
    forward = {f"forward_{first}"} | ({first} if first.startswith("forward_") else set())
    return Layer(names, path, options, notes, problem, frozenset(forward), _kind(inner))


def _kind(layer: dict[str, Any]) -> str:
    """Return what a layer is to `Found`: "LSTM" or "RNN" also for one that is meant to be, but cannot be loaded."""
    config: Any = layer.get("config")
    cell = config.get("cell") if isinstance(config, dict) else None
    while isinstance(cell, dict):  # of an RNN; StackedRNNCells have a list
        layer, config = cell, cell.get("config")
        cells = config.get("cells") if isinstance(config, dict) else None
        cell = cells[0] if isinstance(cells, list) and cells else None
    kind = str(layer.get("class_name")).rpartition(">")[2]
    known = {"SimpleRNN": "RNN", "SimpleRNNCell": "RNN", "GRUCell": "GRU", "CuDNNGRU": "GRU"}
    return "LSTM" if "LSTM" in kind else known.get(kind, kind)


def _one(layer: dict[str, Any], options: dict[str, Any], notes: list[str]) -> str | None:
    """Add the options of one layer; return a problem, or None."""
    problem = foreign(layer)
    if problem is not None:
        return problem
    kind, config = str(layer.get("class_name")), layer.get("config")
    config = config if isinstance(config, dict) else {}
    if kind == "RNN":
        cell = config.get("cell")
        cell = cell if isinstance(cell, dict) else {}
        problem = foreign(cell)
        if problem is not None:
            return problem.replace("its class", "the class of its cell,", 1)
        inner = cell.get("config")
        if cell.get("class_name") not in ("LSTMCell", "SimpleRNNCell") or not isinstance(inner, dict):
            return f"an RNN of {cell.get('class_name')}, which quadgate does not have"
        config = inner | {name: config.get(name, False) for name in ("go_backwards", "time_major")}
        kind = str(cell["class_name"]).removesuffix("Cell")
    if kind not in ("LSTM", "CuDNNLSTM", "SimpleRNN"):
        return f"a {kind}, which quadgate does not have"
    if config.get("go_backwards"):
        options["reverse"] = True
        notes.append("go_backwards: Keras returns y in the order of reading, quadgate in that of x")
    if config.get("time_major"):  # of Keras 2
        options["batch_first"] = False
    if config.get("recurrent_dropout"):
        options["recurrent_dropout"] = float(config["recurrent_dropout"])
    if config.get("dropout"):
        notes.append(f"dropout={config['dropout']} acts on x, in training only: not taken over")
    if kind == "CuDNNLSTM":
        return None
    named = [
        config.get("recurrent_activation", "sigmoid"),
        config.get("activation", "tanh"),
        config.get("activation", "tanh"),
    ]
    if kind == "LSTM" and not {"recurrent_activation", "activation"} <= config.keys():
        return "its configuration does not say its activations"
    functions = [_function(value) for value in named]
    if None in functions:
        shown = " and ".join(map(_shown, named[:2]))
        return f"its activations are {shown}; Keras's own {', '.join(_FUNCTIONS)} and leaky_relu are known"
    options["activations"] = tuple(functions)
    return None


def _function(value: Any) -> Any:
    """Return an activation of ours, None for one that is not known."""
    if isinstance(value, dict):  # a layer, or a function of the user's, whatever its name: Keras's are plain strings
        if foreign(value) is not None:
            return None
        if value.get("class_name") == "LeakyReLU" and isinstance(value.get("config"), dict):
            slope = value["config"].get("negative_slope", value["config"].get("alpha"))
            return ("leaky_relu", float(slope)) if isinstance(slope, (int, float)) else None
        return None
    if value == "leaky_relu":
        return ("leaky_relu", 0.2)
    return _FUNCTIONS.get(value) if isinstance(value, str) else None


def _shown(value: Any) -> str:
    """Return an activation for a message; one that is no string by its class and name, without its options."""
    if isinstance(value, dict) and value.get("class_name") == "function":
        return f"the user's own function {value.get('config')!r:.80}"
    return f"{value.get('class_name') if isinstance(value, dict) else value!r:.80}"


def snake_case(name: str) -> str:
    """Return Keras's own spelling of a class in paths: "LSTM" is lstm, "SimpleRNN" simple_rnn."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
