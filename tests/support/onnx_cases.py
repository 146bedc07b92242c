"""Calls of ONNX's operator LSTM: random ones, the operator's equations in float64 to judge them by, and onnxruntime.

The judge keeps ONNX's own order and shapes throughout, so that it shares nothing with the conversion it judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support import bounds, onnx_int8

Array = NDArray[Any]
Inputs = dict[str, "Array | None"]
Shake = Callable[[Array], Array]

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
OUTPUTS = ("Y", "Y_h", "Y_c")
OPTIONAL = INPUTS[3:]


def elu(v: Array, alpha: float) -> Array:
    return np.where(v < 0, alpha * np.expm1(np.minimum(v, 0)), v)


# Name -> the function, and the defaults of alpha and beta where it takes them.
FUNCTIONS: dict[str, tuple[Callable[..., Array], tuple[float, ...]]] = {
    "Sigmoid": (lambda v: 0.5 * (1 + np.tanh(0.5 * v)), ()),
    "Tanh": (np.tanh, ()),
    "Relu": (lambda v: np.maximum(v, 0), ()),
    "LeakyRelu": (lambda v, alpha: np.where(v < 0, alpha * v, v), (0.01,)),
    "ThresholdedRelu": (lambda v, alpha: np.where(v > alpha, v, 0), (1.0,)),
    "Elu": (elu, (1.0,)),
    "HardSigmoid": (lambda v, alpha, beta: np.clip(alpha * v + beta, 0, 1), (0.2, 0.5)),
    "Affine": (lambda v, alpha, beta: alpha * v + beta, (1.0, 0.0)),
    "ScaledTanh": (lambda v, alpha, beta: alpha * np.tanh(beta * v), (1.0, 1.0)),
    "Softsign": (lambda v: v / (1 + np.abs(v)), ()),
    "Softplus": (lambda v: np.logaddexp(0, v), ()),
}


@dataclass(frozen=True)
class Call:
    """Sizes, which optional inputs there are, and attributes; `scale` is that of the weights times sqrt(H)."""

    steps: int = 5
    batch: int = 3
    inputs: int = 4
    hidden: int = 6
    direction: str = "forward"
    given: frozenset[str] = frozenset(OPTIONAL)
    activations: tuple[str, ...] | None = None
    alpha: tuple[float, ...] | None = None
    beta: tuple[float, ...] | None = None
    clip: float | None = None
    input_forget: int = 0
    layout: int = 0
    least_length: int = 0
    scale: float = 1.0
    dtype: str = "float32"
    seed: int = 0

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    @property
    def attributes(self) -> dict[str, Any]:
        """Those that differ from their defaults, as both `quadgate.onnx.lstm` and a node take them."""
        values: dict[str, Any] = {"direction": self.direction, "hidden_size": self.hidden}
        values |= {"activations": self.activations, "activation_alpha": self.alpha, "activation_beta": self.beta}
        values |= {"clip": self.clip, "input_forget": self.input_forget or None, "layout": self.layout or None}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items() if v is not None}

    def functions(self) -> list[tuple[str, tuple[float, ...]]]:
        """The functions' names and their alpha and beta, in the order of the attribute."""
        alpha, beta = iter(self.alpha or ()), iter(self.beta or ())
        found = []
        for name in self.activations or ("Sigmoid", "Tanh", "Tanh") * self.directions:
            defaults = FUNCTIONS[name][1]
            numbers = tuple(next(left, default) for left, default in zip((alpha, beta), defaults, strict=False))
            found.append((name, numbers))
        return found


def call_data(call: Call) -> Inputs:
    """The eight inputs in order, None where absent."""
    rng = np.random.default_rng(call.seed)
    d, hidden = call.directions, call.hidden
    state = (call.batch, d, hidden) if call.layout else (d, call.batch, hidden)
    x = (call.batch, call.steps, call.inputs) if call.layout else (call.steps, call.batch, call.inputs)
    shapes = {"X": x, "W": (d, 4 * hidden, call.inputs), "R": (d, 4 * hidden, hidden), "B": (d, 8 * hidden)}
    shapes |= {"initial_h": state, "initial_c": state, "P": (d, 3 * hidden)}
    values: Inputs = {}
    for name, shape in shapes.items():  # drawn whether given or not: what is left out changes nothing else
        value = rng.normal(size=shape) if len(shape) == 3 and name not in "WR" else rng.uniform(-1, 1, shape)
        values[name] = (value * (call.scale / np.sqrt(hidden) if name in "WRBP" else 1)).astype(call.dtype)
    values["sequence_lens"] = rng.integers(min(call.least_length, call.steps), call.steps + 1, call.batch).astype("i4")
    return {name: values[name] if name in INPUTS[:3] or name in call.given else None for name in INPUTS}


@dataclass
class Judged:
    """Results of the equations in float64, and the values met on the way."""

    outputs: tuple[Array, Array, Array]
    largest_cell: float = 0.0  # the largest |C|, which a clip below it cuts off before the output's function
    arguments: list[tuple[int, int, Array]] = field(
        default_factory=list
    )  # direction, which of the three functions, values


def call_kinks(call: Call) -> dict[tuple[int, int], list[float]]:
    """Arguments at which a direction's first to third function has no derivative, among them the bounds of the clip."""
    places = {}
    for at, (name, numbers) in enumerate(call.functions()):
        found = {"ThresholdedRelu": [*numbers], "Relu": [0.0], "LeakyRelu": [0.0], "Elu": [0.0]}.get(name, [])
        if name == "HardSigmoid" and numbers[0]:
            found = [-numbers[1] / numbers[0], (1 - numbers[1]) / numbers[0]]
        places[divmod(at, 3)] = [*found, -call.clip, call.clip] if call.clip else found
    return places


@np.errstate(over="ignore", invalid="ignore")  # functions without bounds, multiplied at every step, can leave it all
def judge_call(
    call: Call, inputs: Mapping[str, Array | None], *, clip_output: bool = True, shake: Shake | None = None
) -> Judged:
    """The operator's equations. `clip_output` tells whether clip is applied before the output's function too; `shake`
    is put on every function's values."""
    wide = {name: None if a is None or name == "sequence_lens" else a.astype(np.float64) for name, a in inputs.items()}
    x, w, r = wide["X"], wide["W"], wide["R"]
    assert x is not None
    assert w is not None
    assert r is not None
    n_directions, hidden = w.shape[0], r.shape[2]
    x = x.swapaxes(0, 1) if call.layout else x
    steps, batch, _ = x.shape
    lengths = inputs["sequence_lens"]
    lengths = np.full(batch, steps) if lengths is None else lengths

    def states(name: str) -> Array:
        s = wide[name]
        if s is None:
            return np.zeros((n_directions, batch, hidden))
        return s.swapaxes(0, 1) if call.layout else s

    h0, c0 = states("initial_h"), states("initial_c")
    b = np.zeros((n_directions, 8 * hidden)) if wide["B"] is None else wide["B"]
    p = np.zeros((n_directions, 3 * hidden)) if wide["P"] is None else wide["P"]
    y, y_h, y_c = np.zeros((steps, n_directions, batch, hidden)), h0.copy(), c0.copy()
    found = Judged((y, y_h, y_c))

    functions = call.functions()

    def applied(d: int, which: int, v: Array, on: Array, *, clip: bool = True) -> Array:
        cut = np.clip(v, -call.clip, call.clip) if call.clip and clip else v
        found.arguments.append((d, which, v[on]))
        name, numbers = functions[3 * d + which]
        value = FUNCTIONS[name][0](cut, *numbers)
        return value if shake is None else shake(value)

    for d in range(n_directions):
        backwards = d == 1 or call.direction == "reverse"
        p_i, p_o, p_f = np.split(p[d], 3)
        for t in reversed(range(steps)) if backwards else range(steps):
            on = t < lengths
            h, c = y_h[d], y_c[d]
            a_i, a_o, a_f, a_c = np.split(
                x[t] @ w[d].T + h @ r[d].T + b[d, : 4 * hidden] + b[d, 4 * hidden :], 4, axis=1
            )
            i = applied(d, 0, a_i + p_i * c, on)
            f = 1 - i if call.input_forget else applied(d, 0, a_f + p_f * c, on)
            new = f * c + i * applied(d, 1, a_c, on)
            o = applied(d, 0, a_o + p_o * new, on)
            out = o * applied(d, 2, new, on, clip=clip_output)
            found.largest_cell = max(found.largest_cell, float(np.abs(new[on]).max(initial=0)))
            y[t, d][on] = out[on]
            y_h[d], y_c[d] = np.where(on[:, None], out, h), np.where(on[:, None], new, c)
    if call.layout:
        found.outputs = y.transpose(2, 0, 1, 3), y_h.swapaxes(0, 1), y_c.swapaxes(0, 1)
    return found


def node_model(op_type: str, inputs: Mapping[str, Array | None], attributes: Mapping[str, Any], opset: int = 22) -> Any:
    """A model of one node, with an empty name for each absent input that stands before a present one."""
    import onnx
    from onnx import helper

    present = {name: a for name, a in inputs.items() if a is not None}
    names = [name if name in present else "" for name in inputs]
    while not names[-1]:
        names.pop()
    elements = {name: helper.np_dtype_to_tensor_dtype(a.dtype) for name, a in present.items()}
    graph = helper.make_graph(
        [helper.make_node(op_type, names, list(OUTPUTS), **attributes)],
        "one_node",
        [helper.make_tensor_value_info(name, elements[name], a.shape) for name, a in present.items()],
        [
            helper.make_tensor_value_info(name, elements["X"], [None] * rank)
            for name, rank in zip(OUTPUTS, (4, 3, 3), strict=True)
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(made)
    return made


def by_onnxruntime(made: Any, inputs: Mapping[str, Array | None]) -> list[Array]:
    """The model's outputs by onnxruntime's CPU kernels on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    made = onnx_int8.exact(made)
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {name: a for name, a in inputs.items() if a is not None}))


def conditions(
    call: Call, inputs: Mapping[str, Array | None], *, clip_output: bool = True, absolute: bool = False
) -> list[float]:
    """Error of each output for a relative error of 1.

    That is the size of its largest element; or more, where the outputs move by more when every number that goes in is
    moved by d of itself, up or down at random (three times). With `absolute`, values of functions are moved by d too:
    for a program that computes Elu by exp(x) - 1, Softplus by log(1 + exp(x)), ScaledTanh by 2 sigmoid(2x) - 1 or
    Sigmoid by a fraction plus 1/2, which loses all digits but those after 1.
    """
    want = judge_call(call, inputs, clip_output=clip_output).outputs
    worst = [float(np.abs(w).max(initial=0)) for w in want]
    rng = np.random.default_rng(call.seed)
    d = 1e-7

    def moved(a: Array, by: Array | float) -> Array:
        return a + d * rng.choice([-1, 1], a.shape) * by

    def shake(value: Array) -> Array:
        return moved(value, 1.0)

    for _ in range(3):
        near: Inputs = {}
        for name, a in inputs.items():
            near[name] = a if a is None or name == "sequence_lens" else moved(a.astype(np.float64), np.abs(a))
        outputs = judge_call(call, near, clip_output=clip_output, shake=shake if absolute else None).outputs
        for k, (v, w) in enumerate(zip(outputs, want, strict=True)):
            worst[k] = max(worst[k], float(np.abs(v - w).max(initial=0)) / d)
    return worst


def error(call: Call) -> float:
    """The relative error that is allowed; see `bounds.norm_bound`. The sum is that of one gate with its two biases."""
    return bounds.norm_bound(call.dtype, call.inputs + call.hidden + 3, call.steps)


def assert_near(call: Call, got: Iterable[Array], want: Iterable[Array], allowed: Iterable[float]) -> None:
    """Each output is as far off as allowed at most."""
    for name, g, w, most in zip(OUTPUTS, got, want, allowed, strict=True):
        assert g.shape == w.shape, f"{call}: {name} has shape {g.shape}, expected {w.shape}"
        off = float(np.abs(g.astype(np.float64) - w).max(initial=0))
        assert off <= most, f"{call}: {name} is off by {off:.3g} where {most:.3g} is allowed"
