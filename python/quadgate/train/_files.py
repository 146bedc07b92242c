"""Models in files: safetensors, with all but the arrays as JSON in the metadata. Nothing in a file is executed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check, _params
from ..io import _files as io_files
from ..io import _safetensors
from ..lstm import LSTM
from ..rnn import RNN
from . import _losses, _optimizers
from ._layer import Layer
from ._layers import Dense, Dropout, Embedding
from ._masking import Halves, Masking
from ._model import Sequential
from ._recurrent import FinalState, Recurrent, mask_generators

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

FORMAT = "quadgate model 1"  # raised when a reader of the older one would misread a newer file
_PLAIN: dict[str, type[Layer]] = {
    kind.__name__: kind for kind in (Embedding, Dense, Dropout, FinalState, Masking, Halves)
}
_NETS: dict[str, Any] = {"LSTM": LSTM, "RNN": RNN}
_KEYS = {"layers", "dtype", "stateful", "head", "generators", "loss", "optimizer", "step", "states"}


def save(model: Sequential, path: io_files.File) -> None:
    """Write a model: `Sequential.save`."""
    io_files.title(path)  # refuses what is no file, before the work
    package = _safetensors._package()
    description, arrays = describe(model)
    metadata = {"format": FORMAT, "model": json.dumps(description)}
    contiguous = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    io_files.write(bytes(package.numpy.save(contiguous, metadata)), path, stacklevel=4)


def load(path: io_files.File) -> Sequential:
    """Return the model of a file that `Sequential.save` wrote.

    Parameters
    ----------
    path : str, path or binary file
        One that is open is read from where it is.

    Returns
    -------
    Sequential
        With the parameters, optimizer, states and generators of the saved one.

    Raises
    ------
    ValueError
        If the file is damaged, or was not written by `Sequential.save`; the message names it.
    ImportError
        If the package safetensors is not installed.
    OSError
        If it cannot be opened.

    Examples
    --------
    >>> import quadgate as qg
    >>> from quadgate import train
    >>> model = train.Sequential([qg.LSTM(3, 8, rng=0), train.FinalState(), train.Dense(8, 2)], rng=0)
    >>> model.save("m.safetensors")
    >>> bool((train.load("m.safetensors").params.flat == model.params.flat).all())
    True
    """
    source, data = io_files.title(path), io_files.read(path)
    with io_files.blamed(source):
        if data[8:9] != b"{":
            raise ValueError("it is no file of safetensors; load_keras reads whole models of Keras")
        arrays, metadata = _safetensors.read(data)
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"it is no model of quadgate.train: its format is {metadata.get('format')!r}, not {FORMAT!r}"
            )
        return build(json.loads(metadata.get("model", "null")), arrays)


def describe(model: Sequential) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return all of a model: a description of plain values, and arrays by name.

    Raises TypeError for what could not be loaded again: quantised weights, a layer, a loss or an optimizer of the
    user's. A network of a subclass is described as the `LSTM` or `RNN` in it.
    """
    for layer in model._layers:
        if type(layer) not in (Recurrent, *_PLAIN.values()):
            raise TypeError(
                f"the layer {layer!r} of the class {type(layer).__qualname__} is neither saved nor copied: it is not "
                "one of quadgate.train; keep model.params, and load_params into a model of the same layers"
            )
        if isinstance(layer, Recurrent) and layer.net._snapshot.weight_type:
            raise TypeError(
                f"a model with {layer.net.weight_type} weights is neither saved nor copied: save the float32 model, "
                "and quantize its networks where it is loaded; or save each network by qg.save"
            )
    *params, memory, states = model._moment()
    arrays: dict[str, Array] = {f"{k}.{name}": value for k, part in enumerate(params) for name, value in part.items()}
    description: dict[str, Any] = {
        "layers": [layer.config() for layer in model._layers],
        "dtype": model.dtype.name,
        "stateful": model.stateful,
        "head": model.head,
        "generators": [_generator_state(g) for g in (model._generator, *mask_generators(model._layers))],
        "loss": None,
        "optimizer": None,
        "step": 0,
        "states": [],
    }
    if model._loss is not None and model._optimizer is not None:
        end = "cannot be saved: it is not one of quadgate.train (a copy is made as a file is)"
        if _losses.LOSSES.get(model._loss.name) is not model._loss:
            raise TypeError(f"the loss {model._loss.name!r} {end}")
        if type(model._optimizer).__module__ != _optimizers.__name__:
            raise TypeError(f"the optimizer {model._optimizer!r} {end}")
        config = model._optimizer.config()
        _optimizers.from_config(config)  # raises for numbers that were set later, and no constructor takes
        description |= {"loss": model._loss.name, "optimizer": config, "step": memory.step}
        slots = model._optimizer.complete(memory.slots, list(model._shapes.values()), model.dtype)
        for slot, values in slots.items():
            arrays |= {f"optimizer.{slot}.{name}": v for name, v in zip(model._shapes, values, strict=True)}
    for layer, state in (states or {}).items():
        parts = state if isinstance(state, tuple) else (state,)
        place = model._layers.index(layer)
        description["states"].append([place, len(parts)])
        arrays |= {f"state.{place}.{k}": part for k, part in enumerate(parts)}
    return description, arrays


def _generator_state(generator: np.random.Generator | None) -> Any:
    if generator is None:
        return None
    state: dict[str, Any] = dict(generator.bit_generator.state)
    if state["bit_generator"] != "PCG64":
        raise TypeError(f"a generator of {state['bit_generator']} cannot be saved: pass a seed or a PCG64 as rng")
    return {"state": str(state["state"]["state"]), "inc": str(state["state"]["inc"])} | {
        name: state[name] for name in ("has_uint32", "uinteger")
    }


def build(description: Any, arrays: Mapping[str, Array]) -> Sequential:
    """Return the model of `describe`. Raises ValueError for what does not fit together."""
    if not isinstance(description, dict) or description.keys() != _KEYS:
        raise ValueError(f"the description of the model must have {', '.join(sorted(_KEYS))}")
    d = description
    for name, kind in (("layers", list), ("generators", list), ("states", list), ("stateful", bool), ("step", int)):
        if type(d[name]) is not kind:
            raise ValueError(f"{name} of the model must be of type {kind.__name__}, got {d[name]!r:.80}")
    dtype, head = _check.float_type(d["dtype"]), _check.choice(d["head"], "head", (None, *_losses.HEADS))
    odd = [name for name, value in arrays.items() if value.dtype != dtype]
    if odd:
        raise ValueError(f"{odd[0]} has dtype {arrays[odd[0]].dtype}, the model has {dtype}")
    layers = [_layer(item, k, arrays, dtype) for k, item in enumerate(d["layers"])]
    model = Sequential(layers, stateful=d["stateful"], head=head, dtype=dtype, rng=0)
    left = dict(arrays)
    model.load_params({name: _taken(left, name, shape) for name, shape in model._shapes.items()})
    if d["loss"] is not None:
        if not isinstance(d["optimizer"], dict):
            raise ValueError(f"optimizer of the model must be a mapping, got {d['optimizer']!r:.80}")
        loss, optimizer = _losses.get(d["loss"]), _optimizers.from_config(d["optimizer"])
        model._compile(loss, optimizer)
        if d["step"] < 0:
            raise ValueError(f"step of the model must not be negative, got {d['step']}")
        kept = [s for s in optimizer._slots if any(f"optimizer.{s}.{name}" in left for name in model._shapes)]
        slots = {
            slot: [_taken(left, f"optimizer.{slot}.{name}", shape) for name, shape in model._shapes.items()]
            for slot in dict.fromkeys((*optimizer._used(), *kept))
        }
        model._memory = optimizer.restore(list(model.params.values()), d["step"], slots)
    _restore_states(model, d["states"], left)
    if left:
        raise ValueError(f"the file has arrays that are not the model's: {', '.join(list(left)[:4])}")
    _restore_generators(model, d["generators"])
    return model


def _taken(arrays: dict[str, Array], name: str, shape: tuple[int, ...]) -> Array:
    value = arrays.pop(name, None)
    if value is None or value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {'no such array' if value is None else value.shape}")
    return value


def _layer(item: Any, k: int, arrays: Mapping[str, Array], dtype: np.dtype[Any]) -> Any:
    """Return a layer, after a look at its arrays: no size is believed that they do not have."""
    if not isinstance(item, dict) or not isinstance(item.get("layer"), str):
        raise ValueError(f"layer {k} must be a mapping with its kind, got {item!r:.80}")
    arguments = {name: _safetensors.tuples(value) for name, value in item.items() if name != "layer"}
    kind, own = item["layer"], f"{k}."
    try:
        if kind in _NETS:
            mine = {name.removeprefix(own): v for name, v in arrays.items() if name.startswith(own)}
            for option in ("nonlinearity",) if kind == "LSTM" else _lstm_options():
                arguments.pop(option, None)
            if type(arguments.get("num_layers")) is not int or arguments["num_layers"] > len(mine):
                raise ValueError(f"it has {len(mine)} arrays and num_layers={arguments.get('num_layers')!r:.80}")
            padding = _check.choice(arguments.pop("padding_output", "zero"), "padding_output", ("zero", "last"))
            layer = Recurrent(_NETS[kind].from_state_dict(mine, **(arguments | {"dtype": dtype, "rng": 0})))
            layer.padding_output = padding
            return layer
        if kind not in _PLAIN:
            raise ValueError(f"this version does not know the kind {kind!r:.80}")
        plain = _PLAIN[kind](**arguments)
        if isinstance(plain, (Embedding, Dense)):
            first = plain.num_embeddings if isinstance(plain, Embedding) else plain.units_out
            second = plain.embedding_dim if isinstance(plain, Embedding) else plain.units_in
            _taken(dict(arrays), f"{own}weight", (first, second))
        return plain
    except (TypeError, ValueError, MemoryError) as error:
        raise ValueError(f"layer {k}, {kind:.80}: {error}") from error


def _lstm_options() -> frozenset[str]:
    from .._options import _LSTM_ONLY

    return _LSTM_ONLY


def _restore_states(model: Sequential, places: list[Any], left: dict[str, Array]) -> None:
    states: dict[Layer, Any] = {}
    rows = set()
    for item in places:
        if not (isinstance(item, list) and len(item) == 2 and all(type(n) is int for n in item)):
            raise ValueError(f"states of the model must be pairs of numbers, got {item!r:.80}")
        place, count = item
        layer = model._layers[place] if 0 <= place < len(model._layers) else None
        if not isinstance(layer, Recurrent) or count != (1 if isinstance(layer.net, RNN) else 2) or not model.stateful:
            raise ValueError(f"the model has no states like {item}")
        o = layer.net._options
        parts = []
        for k, columns in zip(range(count), (o.state_columns, o.cell_columns), strict=False):
            value = left.pop(f"state.{place}.{k}", None)
            if value is None or value.ndim != 3 or value.shape[::2] != (o.num_layers * o.directions, columns):
                raise ValueError(f"state.{place}.{k} must have shape ({o.num_layers}, B, {columns})")
            parts.append(value)
            rows.add(value.shape[1])
        states[layer] = tuple(parts) if count == 2 else parts[0]
    if len(rows) > 1:
        raise ValueError(f"the states of the model have different numbers of rows: {sorted(rows)}")
    model._states = states or None


def _restore_generators(model: Sequential, saved: list[Any]) -> None:
    generators = [model._generator, *mask_generators(model._layers)]
    if [state is None for state in saved] != [generator is None for generator in generators]:
        raise ValueError("the generators of the model are not those of its layers")
    for generator, state in zip(generators, saved, strict=True):
        if generator is None:
            continue
        names = {"state", "inc", "has_uint32", "uinteger"}
        if not isinstance(state, dict) or state.keys() != names:
            raise ValueError(f"a generator must have {', '.join(sorted(names))}, got {state!r:.80}")
        numbers = {name: _number(state[name], 128 if name in ("state", "inc") else 32) for name in names}
        generator.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": numbers["state"], "inc": numbers["inc"]},
            "has_uint32": numbers["has_uint32"] & 1,
            "uinteger": numbers["uinteger"],
        }


def _number(value: Any, bits: int) -> int:
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 40:
        value = int(value)
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise ValueError(f"a generator must have numbers of {bits} bits, got {value!r:.80}")
    return value


def pickled(model: Sequential) -> tuple[Any, ...]:
    """Return the function and arguments that a pickle makes a model from: text and plain arrays."""
    if type(model) is not Sequential:
        raise TypeError(
            f"a {type(model).__qualname__} is neither copied nor pickled, since a plain Sequential would come back: "
            "give the subclass a __reduce__ of its own, or use save, load, params and load_params"
        )
    description, arrays = describe(model)
    return unpickled, (1, json.dumps(description), {name: _params.pack(value) for name, value in arrays.items()})


def unpickled(number: int, description: str, packed: Mapping[str, Any]) -> Sequential:
    """Return the model of a pickle, of which this is the function: its name and arguments stay as they are.

    Raises
    ------
    ValueError
        If the pickle is of a newer format, or damaged.
    """
    if number != 1 or not isinstance(packed, Mapping):
        raise ValueError(f"the pickle holds a model of format {number!r}, which this quadgate does not know")
    arrays = {}
    for name, item in packed.items():
        if not isinstance(item, tuple) or len(item) != 3 or not isinstance(item[1], tuple):
            raise ValueError(f"{name} of a pickle must be a type, a shape and bytes")
        arrays[name] = _params.unpack(item, name, item[1], _check.float_type(item[0]))
    return build(json.loads(description), arrays)
