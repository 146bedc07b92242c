"""Networks from arrays whose gates stand in any order: the way in from every framework that has no reader here."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _check
from ..lstm import LSTM
from ._found import Found, choose, forget_bias_of
from ._keras_weights import FLOATS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_SHAPES = {"weight_ih": "(4H, I)", "weight_hh": "(4H, R)", "bias": "(4H,)", "weight_hr": "(P, H)", "peephole": "(3, H)"}
_KNOWN = re.compile(r"((basic_|cudnn_compatible_)?lstm(_block|_fused|_block_fused)?_cell|lstm_block_wrapper)(_\d+)?")
_DIAGONALS = ("w_i_diag", "w_f_diag", "w_o_diag")


def from_gates(
    weight_ih: Any,
    weight_hh: Any,
    bias: Any = None,
    *,
    order: str = "ifgo",
    forget_bias: float = 0.0,
    weight_hr: Any = None,
    peephole: Any = None,
    **options: Any,
) -> LSTM:
    """Return an LSTM from its matrices, with their gates in any order.

    Parameters
    ----------
    weight_ih : array (4H, I), pair of arrays, or list of either
        Weights of the input: one block of H rows for each gate. A tuple of two is the two directions, a list is the
        layers. A framework that keeps (I, 4H) is transposed first.
    weight_hh : array (4H, R), likewise
        Weights of h.
    bias : array (4H,), likewise; optional
        One bias for each row; a framework that keeps two has them added first.
    order : str
        The order of the blocks, four letters of i, f, g, o; c, j and z are other letters for g.
    forget_bias : float
        Added to the biases of f: what the framework adds when it runs, and does not keep in the bias.
    weight_hr : array (P, H), likewise; optional
        A projection.
    peephole : array (3, H), likewise; optional
        Peepholes of i, f and o.
    **options
        Other arguments of `quadgate.LSTM`. Sizes, directions and biases follow from the arrays.

    Returns
    -------
    LSTM
        float64 if any array is, else float32, unless ``dtype`` is given.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, or an option contradicts them; the message names the array.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> kernel, recurrent = np.ones((5, 16), np.float32), np.ones((4, 16), np.float32)  # (I, 4H), (H, 4H): i, o, f, g
    >>> lstm = qg.io.from_gates(kernel.T, recurrent.T, np.zeros(16), order="iofg", forget_bias=1.0)
    >>> lstm.input_size, lstm.hidden_size
    (5, 4)
    """
    blocks = _order(order)
    forget_bias = forget_bias_of(forget_bias, options)
    given = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias": bias, "weight_hr": weight_hr, "peephole": peephole}
    layers = {name: _layers(value) for name, value in given.items() if value is not None}
    sizes = {name: [len(pair) for pair in value] for name, value in layers.items()}
    if "weight_ih" not in sizes or any(size != sizes["weight_ih"] for size in sizes.values()):
        raise ValueError(
            f"all arrays must be given for the same layers and directions, got (directions by layer) {sizes}"
        )
    if set(sizes["weight_ih"]) not in ({1}, {2}):
        raise ValueError(f"every layer must have the same number of directions, 1 or 2, got {sizes['weight_ih']}")
    params: dict[str, Array] = {}
    for name, value in layers.items():
        for k, pair in enumerate(value):
            for suffix, one in zip((f"_l{k}", f"_l{k}_reverse"), pair, strict=False):
                array = _check.array(one, name + suffix)
                if array.ndim != (1 if name == "bias" else 2):
                    raise ValueError(f"{name}{suffix} must have shape {_SHAPES[name]}, got {array.shape}")
                params[name + suffix] = (
                    array if name in ("weight_hr", "peephole") else _sorted(array, blocks, name + suffix)
                )
    first = params["weight_ih_l0"]
    hidden, directions = first.shape[0] // 4, sizes["weight_ih"][0]
    for name, array in params.items():
        rows = {"weight_hr": None, "peephole": 3}.get(name[: name.index("_l")], 4 * hidden)
        if rows is not None and array.shape[0] != rows:
            raise ValueError(f"{name} must have {rows} rows as weight_ih_l0 says, got shape {array.shape}")
    if forget_bias:
        if bias is None:
            params |= {
                f"bias{n[9:]}": np.zeros(4 * hidden, first.dtype) for n in list(params) if n.startswith("weight_ih")
            }
        for name in [name for name in params if name.startswith("bias")]:
            params[name] = _widened(params[name])
            params[name][hidden : 2 * hidden] += forget_bias
    found = Found(
        "LSTM", "", first.shape[1], hidden, len(layers["weight_ih"]), directions, source="from_gates", arrays=params
    )
    return found.build(**options)  # type: ignore[return-value]


def _widened(bias: Array) -> Array:
    """Return a copy to add to, in float32 where its type is float16, whose sum may have more digits or be infinite."""
    return bias.astype(np.result_type(bias, np.float32) if bias.dtype.kind == "f" else np.float32)


def _order(order: str) -> list[int]:
    """Return where i, f, g and o stand in a framework's order."""
    letters = order.translate(str.maketrans("cjz", "ggg")) if isinstance(order, str) else ""
    if sorted(letters) != sorted("ifgo"):
        raise ValueError(f'order must be the letters i, f, g and o in some order, such as "iofg", got {order!r}')
    return [letters.index(gate) for gate in "ifgo"]


def _layers(value: Any) -> list[tuple[Any, ...]]:
    """Return for each layer the arrays of its directions."""
    layers = (
        value
        if isinstance(value, list) and (not value or hasattr(value[0], "shape") or isinstance(value[0], tuple))
        else [value]
    )
    return [layer if isinstance(layer, tuple) else (layer,) for layer in layers]


def _sorted(array: Array, blocks: Sequence[int], name: str) -> Array:
    """Return the rows in the order i, f, g, o."""
    if array.shape[0] == 0 or array.shape[0] % 4:
        raise ValueError(f"{name} must have 4H rows, four equal blocks, got shape {array.shape}")
    quarters = array.reshape(4, array.shape[0] // 4, *array.shape[1:])
    return quarters[blocks].reshape(array.shape)


def from_tensorflow1(
    arrays: Any, *, forget_bias: float | None = None, order: str = "igfo", name: str | None = None, **options: Any
) -> LSTM:
    """Return an LSTM from the variables of a TensorFlow 1 cell: BasicLSTMCell, LSTMCell, LSTMBlockCell, BlockLSTM.

    Parameters
    ----------
    arrays : mapping, or (kernel, bias)
        The checkpoint's variables by name, among them ``.../kernel`` (I + R, 4H) and ``.../bias`` (4H,); with peepholes
        ``.../w_i_diag``, ``w_f_diag`` and ``w_o_diag``, with a projection ``.../projection/kernel``. Variables of the
        scopes ``fw`` and ``bw`` beside each other are the two directions. A cell is known by the name that its class
        gives it, such as ``basic_lstm_cell`` or ``lstm_cell_1``.
    forget_bias : float
        The cell's argument of that name. TensorFlow adds it in every step and does not save it, so it must be given;
        1.0 unless the model's author chose another.
    order : str
        The order of the gates: "igfo" of all cells but BlockLSTMV2, which has "ifgo".
    name : str, optional
        The cell, where there are several.
    **options
        Other arguments of `quadgate.LSTM`, such as ``cell_clip`` and ``proj_clip``, which are not saved either.

    Raises
    ------
    TypeError
        If `arrays` is neither a mapping from names nor a pair, or an argument is of another type.
    ValueError
        If `forget_bias` is not given, there are several cells, or shapes do not fit; if the cell is another one, such
        as ``layer_norm_basic_lstm_cell``, or has variables besides those above and an optimizer's.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> variables = {"rnn/basic_lstm_cell/kernel": np.ones((9, 16)), "rnn/basic_lstm_cell/bias": np.zeros(16)}
    >>> lstm = qg.io.from_tensorflow1(variables, forget_bias=1.0)
    """
    if forget_bias is None:
        raise ValueError(
            "forget_bias= must be given: TensorFlow adds it in every step and does not save it; 1.0 is usual"
        )
    forget_bias = forget_bias_of(forget_bias, options)
    if not isinstance(arrays, Mapping):
        try:
            kernel, bias = arrays
        except (TypeError, ValueError):
            got = f"{len(arrays)} items" if isinstance(arrays, (tuple, list)) else _check.shown(arrays)
            raise TypeError(f"arrays must be a mapping from names to arrays, or (kernel, bias), got {got}") from None
        arrays = {"lstm_cell/kernel": kernel, "lstm_cell/bias": bias}
    for key in arrays:
        _check.text(key, "every name in arrays")
    found = tensorflow1_networks(arrays, order=order)
    return choose(found, name, "the variables").build(forget_bias=forget_bias, **options)  # type: ignore[return-value]


def tensorflow1_networks(arrays: Mapping[str, Any], source: str = "the arrays", order: str = "igfo") -> list[Found]:
    """Return the cells among the variables of a TensorFlow 1 checkpoint."""
    blocks = _order(order)
    cells: dict[str, dict[str, str]] = {}
    for name in arrays:
        parts = _split(name)
        if parts and name.replace("/kernel", "/recurrent_kernel") not in arrays:
            base, direction, rest = parts
            both = direction and base + {"fw/": "bw/", "bw/": "fw/"}[direction] + rest in arrays
            key = base.rstrip("/") if both else name.rpartition("/")[0]
            cells.setdefault(key, {})["_reverse" if both and direction == "bw/" else ""] = name
    listed = sorted(arrays)
    return [_tensorflow1(key, names, arrays, listed, blocks, source) for key, names in cells.items()]


def _split(name: str) -> tuple[str, str, str] | None:
    """Return what a cell's kernel has in front, its direction ("fw/", "bw/" or ""), and the rest; None for others.

    A regular expression takes cubic time for the names that a hostile file may have.
    """
    scope, _, last = name.removesuffix(":0").rpartition("/")
    front, slash, cell = scope.rpartition("/")
    if last != "kernel" or "lstm" not in cell:
        return None
    front += slash
    direction = front[-3:] if front.endswith(("fw/", "bw/")) else ""
    base = front.removesuffix(direction)
    return base, direction, name[len(front) :]


def _tensorflow1(
    key: str, names: Mapping[str, str], arrays: Mapping[str, Any], listed: list[str], blocks: list[int], source: str
) -> Found:
    params: dict[str, Array] = {}
    sizes, problem = (0, 0), None
    try:
        for suffix, name in names.items():
            sizes, side = _cell(name, arrays, listed, blocks)
            params |= {f"{what}_l0{suffix}": value for what, value in side.items()}
    except ValueError as error:
        problem = str(error)
    asks = {"forget_bias": "TensorFlow adds it in every step and does not save it; 1.0 unless the author chose another"}
    notes = ("TensorFlow 1: cell_clip and proj_clip are not saved either",)
    return Found("LSTM", key, *sizes, 1, len(names), {}, notes, asks, problem, source, params)


def _cell(
    name: str, arrays: Mapping[str, Any], listed: list[str], blocks: list[int]
) -> tuple[tuple[int, int], dict[str, Array]]:
    """Return I, H and the parameters of the cell with that kernel; raise ValueError if it is none that is known."""
    scope, _, rest = name.rpartition("kernel")
    cell = scope.split("/")[-2]
    if not _KNOWN.fullmatch(cell):
        raise ValueError(
            f"its cell is {cell!r}, which need not compute an LSTM (known are BasicLSTMCell, LSTMCell, LSTMBlockCell, "
            "LSTMBlockFusedCell and CudnnCompatibleLSTMCell, under their own names); if it does, give from_tensorflow1 "
            "its variables as .../lstm_cell/kernel and so on"
        )
    parts = {}
    for part in ("kernel", "bias", "projection/kernel", *_DIAGONALS):
        full = f"{scope}{part}{rest}"
        if full in arrays:
            parts[part] = _check.array(arrays[full], full, kinds="fiubc")
            if parts[part].dtype.kind != "f":
                raise ValueError(f"{full} has type {parts[part].dtype}; {FLOATS}")
    slots = tuple(f"{scope}{part}/" for part in parts)  # an optimizer keeps its means under a variable's name
    for other in listed[bisect_left(listed, scope) : bisect_left(listed, f"{scope[:-1]}0")]:  # "0" follows "/"
        if other.removeprefix(scope).removesuffix(rest) not in parts and not other.startswith(slots):
            raise ValueError(f"its cell has {other}, which no LSTM that is known has")
    kernel, projection = parts["kernel"], parts.get("projection/kernel")
    bias = parts.get("bias", np.zeros(kernel.shape[-1:], kernel.dtype))
    hidden = kernel.shape[1] // 4 if kernel.ndim == 2 else 0
    if projection is not None and projection.shape[:-1] != (hidden,):
        raise ValueError(f"{scope}projection/kernel{rest} must have shape ({hidden}, P), found {projection.shape}")
    state = hidden if projection is None else projection.shape[1]
    if not hidden or kernel.shape[1] % 4 or kernel.shape[0] <= state or bias.shape != kernel.shape[1:]:
        raise ValueError(f"{name} must have shape (I + R, 4H) and a bias (4H,), found {kernel.shape} and {bias.shape}")
    inputs = kernel.shape[0] - state
    params = {
        "weight_ih": _sorted(kernel[:inputs].T, blocks, name),
        "weight_hh": _sorted(kernel[inputs:].T, blocks, name),
        "bias": _sorted(_widened(bias), blocks, name),
    }
    if projection is not None:
        params["weight_hr"] = projection.T
    diagonals = {part: parts[part].shape for part in _DIAGONALS if part in parts}
    if diagonals:
        if diagonals != dict.fromkeys(_DIAGONALS, (hidden,)):
            raise ValueError(f"{', '.join(_DIAGONALS)} must all be given with shape ({hidden},), found {diagonals}")
        params["peephole"] = np.stack([parts[part] for part in _DIAGONALS])
    return (inputs, hidden), params
