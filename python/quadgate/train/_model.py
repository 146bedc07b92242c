"""The class Sequential: layers one behind the other, trained and run as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from .. import _check
from .._params import Params, Snapshot
from .._results import NamedGrads
from . import _commit, _fit, _losses, _optimizers, _pass, _structure, _update
from ._batch import Batch
from ._masking import Masking
from ._recurrent import Recurrent

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

    from ..lstm import LSTM
    from ..rnn import RNN
    from ._history import History
    from ._layer import Layer
    from ._losses import Loss
    from ._optimizers import Optimizer
    from ._stream import ModelStream

    Array = NDArray[Any]

__all__ = ["Sequential"]


class Sequential:
    """A model of layers, each of which reads the output of the one before. Arrays are batch first: (B, T, ...).

    Parameters
    ----------
    layers : list of layers, `quadgate.LSTM` and `quadgate.RNN`
        A network in it stays the caller's object: its parameters are those that are trained. It runs batch first here,
        whatever its own ``batch_first``.
    stateful : bool
        True to start each batch from the final states of the one before, row by row, until `reset_states`: truncated
        backpropagation through time.
    head : "softmax" or "sigmoid", optional
        Activation of the outputs that `predict` applies. Losses do not see it: cross-entropies take logits.
    dtype : float32 or float64, optional
        Type of the parameters and results: by default that of the networks, or float32.
    rng : None, int or numpy.random.Generator
        Source of the parameters of all layers but the networks, which have theirs, of the dropout, and of the order in
        which `fit` shuffles.

    Attributes
    ----------
    stateful : bool
    head : str or None
    dtype : numpy.dtype
    history : History or None
        Figures of the last or running `fit`, also if it was interrupted.

    Raises
    ------
    TypeError, ValueError
        If an argument is none of the above, or a layer does not take the output of the one before it.

    Examples
    --------
    >>> import quadgate as qg
    >>> from quadgate import train
    >>> layers = [train.Embedding(1000, 64), qg.LSTM(64, 128), train.FinalState(), train.Dense(128, 10)]
    >>> model = train.Sequential(layers, rng=0)
    >>> model.num_parameters
    164106
    >>> model.layers[1] is layers[1]
    True
    """

    def __init__(
        self,
        layers: Iterable[Layer | LSTM | RNN],
        *,
        stateful: bool = False,
        head: str | None = None,
        dtype: DTypeLike | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        made = _structure.read_layers(layers)
        nets = [layer.net for layer in made if isinstance(layer, Recurrent)]
        self.dtype = _check.float_type((nets[0].dtype if nets else np.float32) if dtype is None else dtype)
        self.stateful, self.head = (
            _check.flag(stateful, "stateful"),
            _check.choice(head, "head", (None, *_losses.HEADS)),
        )
        self._generator = _check.generator(rng)
        self._layers = made
        _structure.bind(made, self._generator, self.dtype)
        self._integers = _structure.reads_integers(made)
        self._shapes = {f"{k}.{n}": v.shape for k, layer in enumerate(made) for n, v in layer.params.items()}
        self._input_shape = _structure.input_shape(made)
        self._output_shapes = _structure.output_shapes(made)
        if self.stateful:
            _structure.require_forwards(made)
        self._loss: Loss | None = None
        self._optimizer: Optimizer | None = None
        self._memory: Any = None
        self._states: Mapping[Layer, Any] | None = None
        self.history: History | None = None
        self._cached: tuple[list[Any], Params] | None = None

    # ------------------------------------------------------------------------------------------------------ parameters

    @property
    def layers(self) -> tuple[Any, ...]:
        """The layers; a network is the object itself that was passed."""
        return tuple(layer.net if isinstance(layer, Recurrent) else layer for layer in self._layers)

    @property
    def params(self) -> Params:
        """All parameters by name, as they are at this moment, in arrays that cannot be written.

        A name is that of the layer's parameter behind the layer's number: ``0.weight``, ``1.weight_ih_l0``.
        ``params.flat`` is one vector of all, of which the arrays are views.
        """
        parts = self._moment()[:-2]
        cached = self._cached
        if cached is not None and all(a is b for a, b in zip(cached[0], parts, strict=True)):
            return cached[1]
        params = Params.gathered({f"{k}.{n}": value for k, part in enumerate(parts) for n, value in part.items()})
        self._cached = parts, params
        return params

    def _moment(self) -> list[Any]:
        """Return the parameters of each layer, the optimizer's state and the states, as they were at one moment.

        Another thread may swap them between two reads: they are read until two readings in a row find the same objects.
        """
        seen: list[Any] = []
        while True:  # a quantised network makes params anew at each look
            own = [layer.net._snapshot if isinstance(layer, Recurrent) else layer.params for layer in self._layers]
            now = [*own, self._memory, self._states]
            if seen and all(a is b for a, b in zip(now, seen, strict=True)):
                return [item.params if isinstance(item, Snapshot) else item for item in now]
            seen = now

    @property
    def num_parameters(self) -> int:
        """Number of elements of all parameters."""
        return sum(math.prod(shape) for shape in self._shapes.values())

    def load_params(self, values: Mapping[str, ArrayLike]) -> None:
        """Replace all parameters at once; ``values`` has the names and shapes of `params`.

        Raises
        ------
        TypeError, ValueError
            If a name is missing or unknown, or an array is wrong. Nothing has changed then.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"values must be a mapping from names to arrays, got {type(values).__name__}")
        if values.keys() != self._shapes.keys():
            odd = ", ".join(sorted(map(str, values.keys() ^ self._shapes.keys())))
            raise ValueError(f"values must have the names of model.params; missing or unknown: {odd}")
        read = Params({n: _check.floats(values[n], n, shape, self.dtype) for n, shape in self._shapes.items()})
        _commit.replace_all(self._swaps(list(read.values())))

    def _swaps(self, arrays: Sequence[Array]) -> list[Any]:
        """Return what `replace_all` must swap to give all layers other parameters, in the order of `params`."""
        swaps, at = [], 0
        for layer in self._layers:
            names = list(layer.params)
            swaps += layer.successor(dict(zip(names, arrays[at : at + len(names)], strict=True))) if names else []
            at += len(names)
        return swaps

    # -------------------------------------------------------------------------------------------------------- training

    def compile(self, loss: str | Loss = "softmax_cross_entropy", optimizer: str | Optimizer = "adam") -> None:
        """Choose the loss and the optimizer; the optimizer's state starts anew.

        Parameters
        ----------
        loss : str or Loss
            "softmax_cross_entropy", "categorical_crossentropy", "mse", "mae", "huber", "binary_cross_entropy", or
            another of Keras's names; `Loss` has their formulas.
        optimizer : str or Optimizer
            `SGD`, `Adam` or `AdamW`; "sgd", "adam" or "adamw" are those with their default numbers.

        Raises
        ------
        TypeError, ValueError
            If there is no such loss or optimizer, or the loss does not fit the model's head, or is a cross-entropy
            behind a layer with a sigmoid.
        """
        chosen, new = _losses.get(loss), _optimizers.get(optimizer)
        _losses.require_logits(chosen, self._layers)
        self._compile(chosen, new)

    def _compile(self, chosen: Loss, new: Optimizer) -> None:
        """Take a loss and an optimizer, from a file perhaps that an earlier version wrote."""
        _losses.require_fitting(chosen, self.head)
        memory = new.start(list(self.params.values()))
        _commit.replace_all([(self, "_loss", chosen), (self, "_optimizer", new), (self, "_memory", memory)])

    def _compiled(self) -> tuple[Loss, Optimizer]:
        if self._loss is None or self._optimizer is None:
            raise RuntimeError("the model has no loss and no optimizer: call compile first")
        return self._loss, self._optimizer

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer of `compile`."""
        return self._optimizer

    @property
    def step(self) -> int:
        """Number of updates since `compile`."""
        return 0 if self._memory is None else int(self._memory.step)

    def _read(self, x: Any, y: Any = None, lengths: Any = None, mask: Any = None, weights: Any = None) -> Batch:
        batch = Batch.read(x, y, lengths, mask, weights, self._integers, self.dtype)
        if not self._integers and batch.x.ndim != 3 and any(isinstance(layer, Recurrent) for layer in self._layers):
            raise ValueError(f"x must have shape (B, T, I), got {batch.x.shape}")
        if not self._integers and batch.x.shape[-1] != self._input_shape[-1]:
            raise ValueError(f"x must have {self._input_shape[-1]} columns, got shape {batch.x.shape}")
        first = self._layers[0]
        if isinstance(first, Masking):
            if batch.x.ndim + self._integers != 3:
                raise ValueError(f"x must have shape (B, T, I) behind {first!r}, got {batch.x.shape}")
            own = first.mask(batch.x)
            batch = batch._replace(mask=own if batch.mask is None else own & batch.mask)
        return batch.without_padding()

    def gradients(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> tuple[float, NamedGrads]:
        """Return the loss of a batch and its gradients by the name of the parameter, without an update.

        The arguments are those of `train_on_batch`. A stateful model's states go on.

        Returns
        -------
        loss : float
        grads : dict
            Views of the vector ``grads.flat``, as in `params`.
        """
        result = _pass.step(self, [self._read(x, y, lengths, mask, sample_weight)])
        self._states = result.states
        return result.loss, result.grads

    def apply_gradients(self, grads: Mapping[str, ArrayLike]) -> None:
        """Take one step of the optimizer: parameters and the optimizer's state change together.

        Parameters
        ----------
        grads : mapping from name to array
            As from `gradients`.

        Raises
        ------
        TypeError, ValueError
            If a name is missing or unknown, or an array is wrong. Nothing has changed then.
        FloatingPointError
            If a gradient is NaN or infinite. Nothing has changed then.
        """
        if not isinstance(grads, Mapping):
            raise TypeError(f"grads must be a mapping from names to arrays, got {type(grads).__name__}")
        if grads.keys() != self._shapes.keys():
            odd = ", ".join(sorted(map(str, grads.keys() ^ self._shapes.keys())))
            raise ValueError(f"grads must have the names of model.params; missing or unknown: {odd}")
        read = [_check.floats(grads[n], f"grads[{n!r}]", shape, self.dtype) for n, shape in self._shapes.items()]
        _pass.require_finite(read, self.step)
        self._update(read, self._states)

    def _update(self, grads: Sequence[Array], states: Mapping[Layer, Any] | None) -> None:
        """Swap in the next parameters, the optimizer's next state and the states of a stateful model."""
        _update.update(self, grads, states)

    def train_on_batch(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        """Take one training step.

        Parameters
        ----------
        x : array of int (B, T), or array (B, T, I)
            Symbols for a model that begins with an Embedding, else features.
        y : array
            Targets: class numbers (B,) or (B, T), or numbers of the outputs' shape.
        lengths : array of int (B,), optional
            Number of steps of each row; later steps are ignored, by the loss too.
        mask : array of bool, or of ints 0 and 1, (B, T), optional
            False for steps to skip, by the loss too. An x (B, I), which a model of `Dense` layers takes as well, has no
            steps, and neither lengths nor a mask.
        sample_weight : array (B,) or (B, T), optional
            Weights of rows or steps in the loss, 0 or more. The loss is their weighted mean.

        Returns
        -------
        float
            Loss before the update. If no position counts, it is 0, and there is no update.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        RuntimeError
            If `compile` was not called, or the parameters were changed by other means. Nothing has changed then.
        FloatingPointError
            If the loss or a gradient is NaN or infinite. Nothing has changed then.
        """
        result = _pass.step(self, [self._read(x, y, lengths, mask, sample_weight)])
        _pass.learn(self, result)
        return result.loss

    fit = _fit.fit

    def reset_states(self) -> None:
        """Start the next batch of a stateful model from zeros."""
        self._states = None

    # ------------------------------------------------------------------------------------------------------------- use

    def predict(
        self,
        x: ArrayLike,
        *,
        batch_size: SupportsIndex = 32,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> Array:
        """Return the model's outputs.

        Parameters
        ----------
        x, lengths, mask
            As in `train_on_batch`.
        batch_size : int
            Rows that run together. The result does not depend on it, but in a stateful model, which takes all rows
            together and goes on from its states.

        Returns
        -------
        array (B, C) or (B, T, C)
            After the model's ``head``, if it has one. Each layer reads its parameters when its turn comes: beside a
            thread that trains the same model some layers may be of before a step and some of after it.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.
        """
        batch = self._read(x, None, lengths, mask)
        size = max(batch.rows, 1) if self.stateful else _check.size(batch_size, "batch_size")
        states = self._states
        outputs = []
        for at in range(0, max(batch.rows, 1), size):
            y, states = _pass.infer(self, batch.take(slice(at, at + size)), states)
            outputs.append(_pass.activated(y, self.head))
        self._states = states
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    evaluate = _fit.evaluate

    def stream(self, batch_size: SupportsIndex = 1) -> ModelStream:
        """Return the model as an object that is fed one step at a time, for `generate` and `beam_search`.

        Raises
        ------
        ValueError
            If a network is bidirectional or reverse.
        """
        from ._stream import ModelStream

        return ModelStream(self, batch_size)

    def save(self, path: Any) -> None:
        """Write all to a file of safetensors, from which `load` gives back a model that trains on to the same bits.

        Parameters
        ----------
        path : str, path or binary file
            The file to write or to replace. It is replaced as a whole: an interruption leaves the old one. One that is
            open is written to from where it is.

        Raises
        ------
        TypeError
            If a layer, the loss, the optimizer or its learning rate's function is not of this package, a network's
            weights are quantised, or a generator is no PCG64.
        ImportError
            If the package safetensors is not installed.
        OSError
            If the file cannot be written.

        Notes
        -----
        Parameters have the names of `params`. The file also has the loss, the optimizer and its running means, the
        states of a stateful model, and the states of all generators: of shuffling, dropout and the networks' masks.
        """
        from ._files import save

        save(self, path)

    def summary(self, print_fn: Any = print) -> None:
        """Print a table of the layers, their output shapes and numbers of parameters, as Keras does.

        Parameters
        ----------
        print_fn : callable
            Function that takes the table, a str.

        Raises
        ------
        TypeError
            If print_fn cannot be called.
        """
        from ._summary import table

        if not callable(print_fn):
            raise TypeError(f"print_fn must be callable, got {_check.shown(print_fn)}")
        print_fn(table(self))

    def __repr__(self) -> str:
        parts = [repr(layer) for layer in self._layers]
        parts += ["stateful=True"] if self.stateful else []
        return f"Sequential({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        from ._files import pickled

        return pickled(self)
