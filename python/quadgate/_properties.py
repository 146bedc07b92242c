"""A network's options as read-only properties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from ._options import Activation, Options


class Properties:
    """Those that all networks have."""

    __slots__ = ("_options",)

    _options: Options

    @property
    def input_size(self) -> int:
        """I, the features of the input."""
        return self._options.input_size

    @property
    def hidden_size(self) -> int:
        """H, the units of each layer and direction."""
        return self._options.hidden_size

    @property
    def num_layers(self) -> int:
        """L, the number of layers."""
        return self._options.num_layers

    @property
    def bias(self) -> bool:
        """Whether there are biases."""
        return self._options.bias

    @property
    def batch_first(self) -> bool:
        """Whether batched x and y are (B, T, ...)."""
        return self._options.batch_first

    @property
    def bidirectional(self) -> bool:
        """Whether D is 2."""
        return self._options.bidirectional

    @property
    def dropout(self) -> float:
        """Probability of an output between layers to be dropped in training."""
        return self._options.dropout

    @property
    def recurrent_dropout(self) -> float:
        """Probability of a column of h to be dropped for a whole sequence in training."""
        return self._options.recurrent_dropout

    @property
    def weight_drop(self) -> float:
        """Probability of an element of weight_hh to be dropped for a whole call in training."""
        return self._options.weight_drop

    @property
    def reverse(self) -> bool:
        """Whether the one direction reads the sequence backwards."""
        return self._options.reverse

    @property
    def merge(self) -> str:
        """How two directions are joined."""
        return self._options.merge

    @property
    def shortcut(self) -> str | None:
        """What leads past the layers above the first."""
        return self._options.shortcut

    @property
    def initialization(self) -> str:
        """The scheme that the first parameters were drawn by."""
        return self._options.initialization

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the parameters and results: float32 or float64."""
        return self._options.dtype


class LSTMProperties:
    """Those that only an LSTM has."""

    __slots__ = ()

    _options: Options

    @property
    def proj_size(self) -> int:
        """P, the columns of the projected h; 0 without a projection."""
        return self._options.proj_size

    @property
    def peephole(self) -> bool:
        """Whether the gates see the cell."""
        return self._options.peephole

    @property
    def coupled(self) -> bool:
        """Whether f is 1 - i."""
        return self._options.coupled

    @property
    def activations(self) -> tuple[Activation, Activation, Activation]:
        """Functions of the gates, of the cell candidate, and of the cell on its way out."""
        return self._options.activations

    @property
    def cell_clip(self) -> float | None:
        """Bound of c."""
        return self._options.cell_clip

    @property
    def proj_clip(self) -> float | None:
        """Bound of the projected h."""
        return self._options.proj_clip

    @property
    def gate_clip(self) -> float | None:
        """Bound of every activation's input."""
        return self._options.gate_clip

    @property
    def layer_norm(self) -> str | None:
        """Which kind of layer normalisation there is."""
        return self._options.layer_norm

    @property
    def layer_norm_eps(self) -> float:
        """What is added to a variance before its root is divided by."""
        return self._options.layer_norm_eps

    @property
    def zoneout(self) -> tuple[float, float]:
        """Probabilities of h and of c to stay as they are for a step in training."""
        return self._options.zoneout

    @property
    def forget_bias(self) -> float | None:
        """What the forget gate's bias began with, where it was asked for."""
        return self._options.forget_bias
