"""Keras's arrays and ours: transposes, and the layout of CuDNNLSTM; there and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _check
from ..lstm import LSTM
from ..rnn import RNN
from ._found import Found

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

FLOATS = "floating-point numbers are needed (quantised weights cannot be loaded)"
KINDS = {4: "LSTM", 3: "GRU", 1: "RNN"}


class Weights(NamedTuple):
    """One direction's arrays, as a layer's ``get_weights`` lists them."""

    kernel: Array
    recurrent: Array
    bias: Array | None


def sizes(sides: Sequence[Weights]) -> tuple[str, int, int, str | None]:
    """Return the kind, I and H that the arrays say, and what is wrong with them, if anything."""
    first = sides[0]
    if first.recurrent.ndim != 2 or first.kernel.ndim != 2 or 0 in first.recurrent.shape or 0 in first.kernel.shape:
        return "LSTM", 0, 0, f"kernels must be matrices, found {first.kernel.shape} and {first.recurrent.shape}"
    (inputs, columns), hidden = first.kernel.shape, first.recurrent.shape[0]
    gates, rest = divmod(columns, hidden)
    kind = "LSTM" if rest else KINDS.get(gates, "LSTM")
    problem = None
    for side in sides:
        biases = [(4 * hidden,), (8 * hidden,)] if kind == "LSTM" else [(hidden,)]
        if rest or gates not in KINDS or side.kernel.shape != (inputs, columns):
            problem = f"kernel has shape {side.kernel.shape}; (I, 4H) with H = {hidden} is needed"
        elif side.recurrent.shape != (hidden, columns):
            problem = f"recurrent_kernel has shape {side.recurrent.shape}; {(hidden, columns)} is needed"
        elif kind != "GRU" and side.bias is not None and side.bias.shape not in biases:
            problem = f"bias has shape {side.bias.shape}; {biases[0]} is needed"
        for name, array in zip(("kernel", "recurrent_kernel", "bias"), side, strict=True):
            if problem is None and array is not None and array.dtype.kind != "f":
                problem = f"{name} has type {array.dtype}; {FLOATS}"
    return kind, inputs, hidden, problem


def parameters(side: Weights, suffix: str, *, cudnn: bool) -> dict[str, Array]:
    """Return one direction's arrays under our names."""
    kernel, recurrent, bias = side
    hidden = recurrent.shape[0]
    if cudnn:
        # Each block is cuDNN's matrix (H, I) with its bytes taken for (I, H): no transpose of the block.
        kernel, recurrent = (
            np.concatenate([np.ascontiguousarray(block).reshape(hidden, -1) for block in np.split(a, 4, axis=1)])
            for a in (kernel, recurrent)
        )
        if bias is not None:  # in float32 where it is float16: the sum may have more digits, or be infinite
            bias = np.add(*np.split(bias, 2), dtype=np.result_type(bias, np.float32))
    else:
        kernel, recurrent = kernel.T, recurrent.T
    result = {f"weight_ih{suffix}": kernel, f"weight_hh{suffix}": recurrent}
    return result if bias is None else result | {f"bias{suffix}": bias}


def from_keras(weights: Any, *, cudnn: bool = False, **options: Any) -> LSTM | RNN:
    """Return a network from the arrays of Keras layers, as ``layer.get_weights()`` returns them.

    Parameters
    ----------
    weights : list of arrays, or list of such lists
        [kernel (I, 4H), recurrent_kernel (H, 4H), bias (4H,)] of an LSTM, without the bias where ``use_bias=False``;
        twice as many of a Bidirectional one, the forward direction first. Three arrays (I, H), (H, H) and (H,) are a
        SimpleRNN. A list of such lists is a stack of layers of the same kind, units and directions.
    cudnn : bool
        True if the arrays are a CuDNNLSTM's of Keras 2, whose bias has 8H numbers.
    **options
        Arguments of `quadgate.LSTM` or `quadgate.RNN`. Weights do not tell a layer's options, and no error can tell a
        wrong one: give ``merge`` unless ``merge_mode`` is "concat", ``reverse`` for ``go_backwards``, ``activations``
        unless they are sigmoid and tanh (("hard_sigmoid", 1/6, 0.5) in Keras 3, ("hard_sigmoid", 0.2, 0.5) in Keras 2).
        ``nonlinearity`` of a SimpleRNN must be given. ``batch_first`` is True unless given, as in Keras.

    Returns
    -------
    LSTM or RNN

    Raises
    ------
    TypeError
        If `weights` is no list, or holds something else than arrays of real numbers.
    ValueError
        If the arrays are not a recurrent layer's, or layers differ. A bias of 8H without ``cudnn=True`` is refused: it
        is a CuDNNLSTM's, which computes gibberish when it is taken for a plain one.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> weights = [np.ones((5, 16), np.float32), np.ones((4, 16), np.float32), np.zeros(16, np.float32)]
    >>> lstm = qg.io.from_keras(weights)  # from layer.get_weights()
    >>> lstm.input_size, lstm.hidden_size, lstm.batch_first
    (5, 4, True)
    """
    _listed(weights, "weights", "arrays, or of such lists")
    layers = [weights] if len(weights) and hasattr(weights[0], "shape") else list(weights)
    params: dict[str, Array] = {}
    kind, inputs, hidden, directions = "", 0, 0, 0
    for k, layer in enumerate(layers):
        _listed(layer, f"layer {k} of the weights", "arrays")
        sides = _sides([_check.array(a, f"layer {k} of the weights, array {n},") for n, a in enumerate(layer)], k)
        this, width, units, problem = sizes(sides)
        if problem is None and k and (this, units, len(sides)) != (kind, hidden, directions):
            problem = (
                f"a network's layers must have the same kind, units and directions, got {this} of {units} units and "
                f"{len(sides)} directions above {kind} of {hidden} and {directions}: load each layer by itself"
            )
        doubled = any(s.bias is not None and s.bias.shape == (8 * units,) for s in sides)
        if problem is None and doubled and not cudnn:
            problem = f"bias has shape ({8 * units},), a CuDNNLSTM's; give cudnn=True if it is, else ({4 * units},)"
        if problem is None and cudnn and any(s.bias is None or s.bias.shape != (8 * units,) for s in sides):
            problem = f"a CuDNNLSTM has a bias of ({8 * units},) numbers"
        if problem is None and this == "GRU":
            problem = "a GRU, which quadgate does not have"
        if problem:
            raise ValueError(f"layer {k} of the weights: {problem}")
        kind, hidden, directions = this, units, len(sides)
        inputs = inputs or width
        for side, suffix in zip(sides, ("", "_reverse"), strict=False):
            params |= parameters(side, f"_l{k}{suffix}", cudnn=cudnn)
    if not layers:
        raise ValueError("weights must be a list of arrays, got an empty one")
    asks = {"nonlinearity": 'a SimpleRNN\'s weights do not tell "tanh" from "relu"'} if kind == "RNN" else {}
    shape = (inputs, hidden, len(layers), directions)
    found = Found(kind, "", *shape, {"batch_first": True}, asks=asks, source="from_keras", arrays=params)
    return found.build(**options)


def _listed(value: Any, name: str, what: str) -> None:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name} must be a list of {what}, got {_check.shown(value)}")


def _sides(arrays: list[Array], k: int) -> list[Weights]:
    """Cut a layer's list of arrays into its directions."""
    count = len(arrays)
    biased = count in (3, 6)
    each = 3 if biased else 2
    if count not in (each, 2 * each):
        raise ValueError(f"layer {k} of the weights has {count} arrays; 2 or 3 for each direction are needed")
    return [Weights(arrays[at], arrays[at + 1], arrays[at + 2] if biased else None) for at in range(0, count, each)]


# Options that every program has, in its arrays or as an argument, and those without effect on inference.
_EVERYWHERE = {"num_layers", "nonlinearity", "bias", "batch_first", "bidirectional", "dtype"}
_EVERYWHERE |= {"initialization", "forget_bias", "dropout", "recurrent_dropout", "weight_drop", "layer_norm_eps"}


def refuse_others(net: Any, program: str, allowed: set[str]) -> None:
    """Raise if `net` is no network, or has an option that changes outputs in a way that the program does not have."""
    if not isinstance(net, (LSTM, RNN)):
        raise TypeError(f"net must be a quadgate.LSTM or quadgate.RNN, got {type(net).__name__}")
    odd = [f"{k}={v!r}" for k, v in net._options.changed().items() if k not in _EVERYWHERE and k not in allowed]
    if odd:
        raise ValueError(f"{program} have no {', '.join(odd)}")


def to_keras(net: LSTM | RNN) -> dict[str, Array]:
    """Return a network's parameters as Keras's arrays, in the order of ``model.get_weights()``.

    Parameters
    ----------
    net : LSTM or RNN
        With options that Keras's layers have; each of its layers is one layer of Keras.

    Returns
    -------
    dict
        "lstm/kernel" (I, 4H), "lstm/recurrent_kernel" (H, 4H) and "lstm/bias" (4H,); with two directions
        "bidirectional/forward_lstm/kernel" and so on; "lstm_1/...", "lstm_2/..." for further layers; "simple_rnn" for
        an RNN. ``model.set_weights(list(result.values()))`` of a Sequential of these layers takes them over.

    Raises
    ------
    ValueError
        If the network has what Keras's layers do not: a projection, peepholes, layer normalisation, coupled gates,
        clipping, zoneout, shortcuts, or an activation of the cell other than that of the output.
    TypeError
        If `net` is no network.

    Examples
    --------
    >>> import quadgate as qg
    >>> {name: array.shape for name, array in qg.io.to_keras(qg.LSTM(5, 4, rng=0)).items()}
    {'lstm/kernel': (5, 16), 'lstm/recurrent_kernel': (4, 16), 'lstm/bias': (16,)}
    """
    refuse_others(net, "Keras's layers", {"merge", "reverse", "activations"})
    if isinstance(net, LSTM) and net.activations[1] != net.activations[2]:
        raise ValueError(f"Keras's layers have one activation for the cell and the output, got {net.activations[1:]}")
    base = "lstm" if isinstance(net, LSTM) else "simple_rnn"
    result = {}
    for k in range(net.num_layers):
        number = f"_{k}" if k else ""
        sides = (("", f"{base}{number}"),)
        if net.bidirectional:
            outer = f"bidirectional{number}"
            sides = (("", f"{outer}/forward_{base}"), ("_reverse", f"{outer}/backward_{base}"))  # type: ignore[assignment]
        for suffix, path in sides:
            for ours, theirs in (("weight_ih", "kernel"), ("weight_hh", "recurrent_kernel"), ("bias", "bias")):
                if f"{ours}_l{k}{suffix}" in net.params:
                    result[f"{path}/{theirs}"] = np.ascontiguousarray(net.params[f"{ours}_l{k}{suffix}"].T)
    return result
