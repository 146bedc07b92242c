"""The structure of a model: its layers, read and bound to each other, and the shapes between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _check
from .._network import Network
from ._layer import Layer
from ._layers import Embedding
from ._masking import Masking
from ._recurrent import Recurrent

if TYPE_CHECKING:
    import numpy as np

    Shape = tuple[int | None, ...]
    Layers = tuple[Layer, ...]


def read_layers(layers: Any) -> Layers:
    """Return the layers of a list, networks as `Recurrent` layers.

    Raises
    ------
    TypeError
        If it is no list of layers and networks.
    ValueError
        If it is empty, or a layer or a network is in it twice.
    """
    if isinstance(layers, (Layer, Network, str)):
        raise TypeError(f"layers must be a list of layers, got {type(layers).__name__}")
    made = tuple(_layer(layer, k) for k, layer in enumerate(_check.items(layers, "layers", "a list of layers")))
    if not made:
        raise ValueError("layers must have at least one layer, got an empty list")
    nets = [layer.net for layer in made if isinstance(layer, Recurrent)]
    for items in (made, nets):
        if len({id(item) for item in items}) != len(items):
            raise ValueError("layers must be different objects: one of them is there twice")
    return made


def _layer(layer: Any, k: int) -> Layer:
    if isinstance(layer, Network):
        net: Any = layer
        return Recurrent(net)
    if not isinstance(layer, Layer):
        raise TypeError(f"layers[{k}] must be a layer, a quadgate.LSTM or a quadgate.RNN, got {type(layer).__name__}")
    return layer


def bind(layers: Layers, rng: np.random.Generator, dtype: np.dtype[Any]) -> None:
    """Give the layers their parameters and generators, in order; those that have parameters keep them.

    Raises
    ------
    ValueError
        If a layer cannot follow the one before it, or has parameters of another type.
    """
    for k, layer in enumerate(layers):
        if not layer.params or isinstance(layer, Recurrent):
            layer.bind(rng, dtype, layers[k - 1] if k else None)
        elif layer.dtype != dtype:
            raise ValueError(f"layers[{k}], {layer!r}, has parameters of {layer.dtype}, the model has {dtype}")


def reads_integers(layers: Layers) -> bool:
    """Return True if x of the model holds symbols: its first layer, or the one behind a `Masking`, is an Embedding."""
    return isinstance(layers[1 if isinstance(layers[0], Masking) and layers[1:] else 0], Embedding)


def input_shape(layers: Layers) -> Shape:
    """Return the shape of x, with None for B and T.

    Raises
    ------
    ValueError
        If no layer says how many features it has.
    """
    if reads_integers(layers):
        return (None, None)
    for layer in layers:
        width = layer.net.input_size if isinstance(layer, Recurrent) else getattr(layer, "units_in", None)
        if width is not None:
            return (None, None, width)
    raise ValueError("layers must have one with parameters: an Embedding, a Dense, an LSTM or an RNN")


def output_shapes(layers: Layers) -> list[Shape]:
    """Return the shape of each layer's output, with None for B and T.

    Raises
    ------
    ValueError
        If a layer does not take the output of the one before it, or the last has no output of a model.
    """
    shapes: list[Shape] = []
    shape = input_shape(layers)
    for layer in layers:
        shape = layer.output_shape(shape)
        shapes.append(shape)
    if len(shape) not in (2, 3) or (len(shape) == 2 and reads_integers(layers) and len(layers) == 1):
        raise ValueError(f"the outputs of a model must be (B, C) or (B, T, C), got {shape}")
    return shapes


def require_forwards(layers: Layers) -> None:
    """Raise ValueError if a network reads backwards: it has no state that the next batch could start from."""
    for layer in layers:
        if isinstance(layer, Recurrent):
            for option in ("bidirectional", "reverse"):
                if getattr(layer.net, option):
                    raise ValueError(f"stateful=True needs networks that read forwards, got {layer!r}")
