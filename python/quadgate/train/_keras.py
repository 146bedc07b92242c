"""Whole models of Keras from files, without Keras: what `quadgate.io` reads of them, put together."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ..io import _files as io_files
from ..io import _keras as io_keras
from ..io import _keras_layers
from ._layers import Dense, Dropout, Embedding
from ._masking import Halves, Masking
from ._model import Sequential
from ._recurrent import FinalState, Recurrent

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_RECURRENT = ("LSTM", "CuDNNLSTM", "SimpleRNN", "Bidirectional", "RNN")
_LEADING = ("InputLayer", "Input")


def load_keras(path: io_files.File, *, rng: int | np.random.Generator | None = None) -> Sequential:
    """Return a Sequential model of Keras, whole: its predictions, and training that goes on from there.

    Read are files of Keras 3 (.keras) and whole models in HDF5 (.h5), with the layers Embedding, LSTM, SimpleRNN,
    Bidirectional, Dense (also in TimeDistributed), Activation, Dropout and Masking.

    Parameters
    ----------
    path : str, path or binary file
        The file.
    rng : None, int or numpy.random.Generator
        Source of the dropout, and of the order in which `Sequential.fit` shuffles.

    Returns
    -------
    Sequential
        Not compiled. A softmax or sigmoid at the end of Keras's model is its ``head``: `Sequential.predict` applies it,
        and losses take the logits before it.

    Raises
    ------
    ValueError
        If the file is damaged, has no whole Sequential model, or a layer that there is not here; the message names it.
    ImportError
        If h5py is not installed.
    OSError
        If it cannot be opened.

    Notes
    -----
    At masked steps y repeats the last one that counted, as in Keras; that of a Bidirectional layer is 0. Keras's
    dropout arguments of recurrent layers (``dropout``) act on x, which those here do not have: a Dropout layer stands
    in their place, with other masks at every step. All parameters are trained, by the loss alone: a warning names the
    layers with ``trainable=False``, regularizers or constraints, which are left out. Of a last layer with
    ``return_state`` `Sequential.predict` returns y alone, as another warning says.
    """
    source, read = io_files.title(path), io_files.contents(path)
    with io_files.blamed(source):
        if read.keras is None or not isinstance(read.keras.config, dict):
            raise ValueError("no whole model of Keras: its configuration is missing")
        return _Model(read.keras, source).build(rng)


class _Model:
    def __init__(self, file: io_keras.File, source: str) -> None:
        self._file, self._found = file, {found.name: found for found in io_keras.networks(file, source)}
        self._layers: list[Any] = []
        self._head: str | None = None
        self._masked = False

    def build(self, rng: int | np.random.Generator | None) -> Sequential:
        config: Any = self._file.config
        kind, inner = config.get("class_name"), config.get("config")
        layers = inner.get("layers") if isinstance(inner, dict) else inner
        if kind != "Sequential" or not isinstance(layers, list):
            raise ValueError(f"a {kind!s:.80} model; a Sequential one is needed")
        counts: dict[str, int] = {}
        lost: list[str] = []
        for layer in layers:
            if not isinstance(layer, dict) or not isinstance(layer.get("config"), dict):
                raise ValueError(f"its configuration has a layer that is none: {layer!r:.80}")
            name = str(layer.get("class_name", ""))
            if name in _LEADING:
                continue
            self._refuse_foreign(layer)
            snake = _keras_layers.snake_case(name)
            number = counts.get(snake, 0)
            counts[snake] = number + 1
            if name != "Dropout" and any(dense.activation == "softmax" for dense in self._denses()):
                raise ValueError(f"it has {name} behind a softmax, which can only be the last")
            if _is_trained_otherwise(layer["config"]):
                lost.append(repr(layer["config"].get("name", name)))
            self._add(name, layer["config"], f"layers/{snake}" + (f"_{number}" if number else ""))
        self._take_head()
        if lost:
            text = "trainable=False, regularizers and constraints are not kept: training here does without them in"
            warnings.warn(f"{text} {', '.join(lost):.200}", stacklevel=3)
        return self._made(rng)

    def _refuse_foreign(self, layer: dict[str, Any]) -> None:
        problem = _keras_layers.foreign(layer)
        if problem is not None:
            raise ValueError(f"it has a layer that cannot be read: {problem.partition(': if')[0]}")

    def _take_head(self) -> None:
        """Make a softmax or sigmoid of the last layer the model's head."""
        last = next((layer for layer in reversed(self._layers) if not isinstance(layer, Dropout)), None)
        if isinstance(last, _Dense) and last.activation in ("softmax", "sigmoid"):
            self._head, last.activation = last.activation, None

    def _denses(self) -> list[_Dense]:
        return [layer for layer in self._layers if isinstance(layer, _Dense)]

    def _made(self, rng: int | np.random.Generator | None) -> Sequential:
        dtypes = {value.dtype for layer in self._layers for value in getattr(layer, "weights", {}).values()}
        dtypes |= {layer.net.dtype for layer in self._layers if isinstance(layer, Recurrent)}
        dtype = np.dtype(np.float64 if np.dtype(np.float64) in dtypes else np.float32)
        made = [layer.made() if isinstance(layer, _Unbuilt) else layer for layer in self._layers]
        model = Sequential(made, head=self._head, dtype=dtype, rng=rng)
        values = dict(model.params)
        for k, layer in enumerate(self._layers):
            if isinstance(layer, _Unbuilt):
                values |= {f"{k}.{name}": value for name, value in layer.weights.items() if f"{k}.{name}" in values}
        model.load_params(values)
        return model

    def _add(self, kind: str, config: dict[str, Any], path: str) -> None:
        name = str(config.get("name", ""))
        if kind == "TimeDistributed" and isinstance(config.get("layer"), dict):
            inner = config["layer"]
            self._refuse_foreign(inner)
            kind, config, path = str(inner.get("class_name")), inner.get("config"), f"{path}/layer"
            if kind not in ("Dense", "Dropout", "Activation") or not isinstance(config, dict):
                raise ValueError(f"it has a TimeDistributed {kind:.80}; Dense is known")
            name = name or str(config.get("name", ""))
        if kind == "Embedding":
            self._embedding(config, name, path)
        elif kind in _RECURRENT:
            self._recurrent(kind, config, name)
        elif kind == "Dense":
            self._dense(config, name, path)
        elif kind == "Activation":
            self._activation(config.get("activation"), name)
        elif kind == "Dropout":
            self._layers.append(Dropout(config.get("rate", 0.0)))
        elif kind == "Masking" and not self._layers:
            self._layers.append(Masking(config.get("mask_value", 0.0)))
            self._masked = True
        else:
            raise ValueError(
                f"it has the layer {name!r:.80}, a {kind:.80}, which there is not here, or not in this place"
            )

    def _arrays(self, name: str, path: str, *kinds: str) -> list[Array]:
        """Return a layer's arrays: by its place in a .keras file, by its name in HDF5."""
        numbered = [self._file.arrays.get(f"{path}/vars/{k}") for k in range(len(kinds))]
        if numbered[0] is not None:
            return [value for value in numbered if value is not None]
        # Layers of HDF5 have their own name, then that of the model and theirs again. The optimizer's numbers, beside
        # them, have the same names.
        pattern = re.compile(rf"^(model_weights/)?{re.escape(name)}/(.*/)?({'|'.join(kinds)})(:0)?$")
        named = {match[3]: value for key, value in self._file.arrays.items() if (match := pattern.search(key))}
        return [named[kind] for kind in kinds if kind in named]

    def _embedding(self, config: dict[str, Any], name: str, path: str) -> None:
        arrays = self._arrays(name, path, "embeddings")
        if self._layers or len(arrays) != 1 or arrays[0].ndim != 2:
            raise ValueError(f"the Embedding {name!r:.80} must be the first layer and have a matrix")
        if config.get("mask_zero"):
            self._layers.append(Masking(0.0))
            self._masked = True
        weight = arrays[0]
        self._layers.append(_Embedding({"weight": weight}))

    def _dense(self, config: dict[str, Any], name: str, path: str) -> None:
        arrays = self._arrays(name, path, "kernel", "bias")
        bias = bool(config.get("use_bias", True))
        if len(arrays) != 1 + bias or arrays[0].ndim != 2 or (bias and arrays[1].shape != arrays[0].shape[1:]):
            raise ValueError(f"the Dense {name!r:.80} must have a kernel (I, O), and a bias (O,) unless it has none")
        weights = {"weight": np.ascontiguousarray(arrays[0].T)} | ({"bias": arrays[1]} if bias else {})
        self._layers.append(_Dense(weights, self._function(config.get("activation"), name)))

    def _activation(self, value: Any, name: str) -> None:
        function = self._function(value, name)
        last = self._layers[-1] if self._layers else None
        if function is None:
            return
        if not isinstance(last, _Dense) or last.activation is not None:
            raise ValueError(f"the Activation {name!r:.80} must be behind a Dense that has none")
        last.activation = function

    def _function(self, value: Any, name: str) -> Any:
        if value in ("softmax", "linear", None):
            return None if value in ("linear", None) else value
        function = _keras_layers._function(value)
        if function is None:
            raise ValueError(f"{name!r:.80} has the activation {value!r:.80}, which there is not here")
        if function == _keras_layers.HARD_SIGMOID:
            return ("hard_sigmoid", 0.2 if self._file.version.startswith("2") else 1 / 6, 0.5)
        return function

    def _recurrent(self, kind: str, config: dict[str, Any], name: str) -> None:
        found = self._found.get(name)
        if found is None:
            raise ValueError(f"the arrays of the layer {name!r:.80} are missing")
        inner = config["layer"].get("config", {}) if isinstance(config.get("layer"), dict) else config
        if inner.get("stateful"):
            raise ValueError(f"the layer {name!r:.80} is stateful: build the model with Sequential(stateful=True)")
        if not found.options.get("batch_first", True):
            raise ValueError(f"the layer {name!r:.80} is time_major: load it alone, by quadgate.io.load")
        if inner.get("dropout"):
            self._layers.append(Dropout(inner["dropout"]))
        if inner.get("return_state"):
            warnings.warn(f"the layer {name!r:.80} has return_state: the model here returns its y alone", stacklevel=5)
        whole = bool(inner.get("return_sequences", False))
        merge = found.options.get("merge", "concat")
        if whole and found.options.get("reverse"):
            raise ValueError(f"the layer {name!r:.80} has go_backwards and return_sequences: its y is in another order")
        if config.get("merge_mode", "concat") is None:
            raise ValueError(f"the layer {name!r:.80} has merge_mode None: two outputs")
        if not whole and self._masked and inner.get("zero_output_for_mask") and found.directions == 1:
            raise ValueError(
                f"the layer {name!r:.80} has zero_output_for_mask without return_sequences: 0 for some rows"
            )
        net = found.build(**({"merge": "concat"} if not whole and merge != "concat" else {}))
        layer = Recurrent(net)
        if self._masked and not net.bidirectional and not inner.get("zero_output_for_mask"):
            layer.padding_output = "last"
        self._layers.append(layer)
        if not whole:
            self._layers.append(FinalState())
            if found.directions == 2 and merge != "concat":
                self._layers.append(Halves(merge))


def _is_trained_otherwise(config: Any) -> bool:
    """Return True for a layer that Keras does not train, or by a rule that is not the loss's, also inside another."""
    if not isinstance(config, dict):
        return False
    rules = [key for key, value in config.items() if str(key).endswith(("_regularizer", "_constraint")) and value]
    inner = config.get("layer")
    return bool(
        rules
        or config.get("trainable") is False
        or (isinstance(inner, dict) and _is_trained_otherwise(inner.get("config")))
    )


class _Unbuilt:
    """A layer to be made, and its arrays."""

    def __init__(self, weights: dict[str, Array]) -> None:
        self.weights = weights

    def made(self) -> Any:
        raise NotImplementedError


class _Embedding(_Unbuilt):
    """An Embedding to be made."""

    def made(self) -> Any:
        return Embedding(*self.weights["weight"].shape)


class _Dense(_Unbuilt):
    """A Dense to be made, and its activation."""

    def __init__(self, weights: dict[str, Array], activation: Any) -> None:
        super().__init__(weights)
        self.activation = activation

    def made(self) -> Any:
        units_out, units_in = self.weights["weight"].shape
        return Dense(units_in, units_out, self.activation, bias="bias" in self.weights)
