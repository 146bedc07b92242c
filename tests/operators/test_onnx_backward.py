"""The gradients of `quadgate.onnx` are the derivatives of `quadgate.onnx.lstm`, for every input and attribute.

Central differences in float64: a step e = 1e-5 leaves e^2/6 times the third derivative, and at most eps/e times the
loss's size, some hundreds, from rounding: some 1e-8 together (test_gradients.py has the sum). 1e-6 of the gradient's
length, and of 1, leaves room for third derivatives of some thousands. No argument of a function lies within 1e-3 of a
kink, which no step of 1e-5 then crosses.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from quadgate.onnx import Gradients, lstm, lstm_backward, lstm_grad, lstm_training
from support import bounds, onnx_cases
from support.onnx_cases import FUNCTIONS, INPUTS, OPTIONAL, Call, call_data, call_kinks, judge_call

E = 1e-5
FAR = 1e-3
DIRECTIONS = ("forward", "reverse", "bidirectional")
REAL = [name for name in INPUTS if name != "sequence_lens"]


def clear(call: Call) -> bool:
    """True if no argument is near a kink. One exactly on a kink is kept at 0 by another function, moved or not."""
    places = call_kinks(call)
    return all(
        (np.abs(v - kink)[v != kink] > FAR).all()
        for d, k, v in judge_call(call, call_data(call)).arguments
        for kink in places[d, k]
    )


def prepared(call: Call) -> Call:
    """The call with the first seed from its own on that keeps clear of all kinks."""
    return next(c for c in (replace(call, seed=call.seed + 1000 * n) for n in range(400)) if clear(c))


def weights_of_outputs(call: Call) -> list[Any]:
    rng = np.random.default_rng([call.seed, 9])
    return [rng.normal(size=a.shape).astype(call.dtype) for a in judge_call(call, call_data(call)).outputs]


def loss(call: Call, inputs: onnx_cases.Inputs, weights: list[Any]) -> float:
    outputs = lstm(*inputs.values(), **call.attributes)
    return float(sum((a * w).sum() for a, w in zip(outputs, weights, strict=True)))


def backward(call: Call, inputs: onnx_cases.Inputs, weights: list[Any]) -> Gradients:
    *_, tape = lstm_training(*inputs.values(), **call.attributes)
    return lstm_backward(tape, *weights)


def assert_slopes(call: Call, directions: Any) -> None:
    """Derivatives of the loss along directions of length 1, against the gradients."""
    call = prepared(replace(call, dtype="float64"))
    inputs, weights = call_data(call), weights_of_outputs(call)
    grads = backward(call, inputs, weights)._asdict()
    for name in REAL:
        value, grad = inputs[name], grads[name]
        if value is None:
            assert grad is None, f"{call}: {name} was absent"
            continue
        assert grad.shape == value.shape
        assert grad.dtype == value.dtype
        for direction in directions(value.shape):
            up, down = (loss(call, inputs | {name: value + by * direction}, weights) for by in (E, -E))
            want, have = (up - down) / (2 * E), float((grad * direction).sum())
            size = max(1.0, float(np.linalg.norm(grad)))
            assert abs(want - have) <= 1e-6 * size, f"{call}: {name}: {have}, by differences {want}"


def each_element(shape: tuple[int, ...]) -> Any:
    for at in np.ndindex(shape):
        unit = np.zeros(shape)
        unit[at] = 1
        yield unit


def at_random(seed: int) -> Any:
    rng = np.random.default_rng(seed)

    def two(shape: tuple[int, ...]) -> Any:
        for _ in range(2):
            direction = rng.normal(size=shape)
            yield direction / np.linalg.norm(direction)

    return two


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"given": frozenset({"B", "initial_h", "initial_c"})},
    "bare": {"given": frozenset()},
    "peepholes": {},
    "clip": {"clip": 0.5},
    "coupled": {"input_forget": 1},
    "functions": {"activations": ("HardSigmoid", "Softsign", "ScaledTanh"), "alpha": (0.3, 1.5), "beta": (0.4, 0.8)},
    "all": {"activations": ("HardSigmoid", "Elu", "Softplus"), "clip": 0.75, "input_forget": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_element(variant, direction, layout):
    call = Call(3, 2, 2, 3, direction=direction, layout=layout, **VARIANTS[variant])
    if call.activations and call.directions == 2:
        call = replace(call, activations=call.activations * 2, alpha=(call.alpha or ()) * 2, beta=(call.beta or ()) * 2)
    assert_slopes(call, each_element)


def test_directions_with_functions_of_their_own():
    names = ("HardSigmoid", "Tanh", "Softsign", "Sigmoid", "Elu", "ScaledTanh")
    for layout in (0, 1):
        call = Call(3, 2, 2, 3, direction="bidirectional", activations=names, alpha=(0.3, 0.7, 1.2), layout=layout)
        assert_slopes(call, each_element)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60))
def test_combinations(seed):
    """Random attributes, functions and absent inputs; along random directions, each of which takes in every element."""
    rng = np.random.default_rng([seed, 5])
    direction = DIRECTIONS[seed % 3]
    count = 6 if seed % 3 == 2 else 3
    names = tuple(str(name) for name in rng.choice(sorted(FUNCTIONS), count))
    alpha, beta = (
        tuple(rng.uniform(0.2, 1.2, sum(len(FUNCTIONS[name][1]) > k for name in names)).tolist()) for k in (0, 1)
    )
    call = Call(
        steps=3,
        batch=3,
        inputs=3,
        hidden=5,
        direction=direction,
        given=frozenset(name for name in OPTIONAL if rng.random() < 0.7),
        activations=names if rng.random() < 0.8 else None,
        alpha=alpha,
        beta=beta,
        clip=float(rng.choice([0.4, 0.8, 2.0])) if rng.random() < 0.5 else None,
        input_forget=int(rng.integers(2)),
        layout=int(rng.integers(2)),
        scale=0.75,
        seed=seed,
    )
    if call.activations is None:
        call = replace(call, alpha=None, beta=None)
    assert_slopes(call, at_random(seed))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gradients_left_out_are_zeros(direction):
    call = Call(direction=direction, dtype="float64")
    inputs, weights = call_data(call), weights_of_outputs(call)
    *_, tape = lstm_training(*inputs.values(), **call.attributes)
    for k in range(4):  # each alone, then none
        only = [w if k == n else None for n, w in enumerate(weights)]
        zeros = [w * (k == n) for n, w in enumerate(weights)]
        for a, b in zip(lstm_backward(tape, *only), lstm_backward(tape, *zeros), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not any(g.any() for g in lstm_backward(tape))


def test_a_tape_serves_more_than_once():
    call = Call(direction="bidirectional")
    inputs, weights = call_data(call), weights_of_outputs(call)
    *_, tape = lstm_training(*inputs.values(), **call.attributes)
    assert tape.nbytes > 5 * 3 * 2 * 6 * 4
    first = lstm_backward(tape, *weights)
    for value in inputs.values():  # what was passed in may be used for something else meanwhile
        value[...] = 0
    for a, b in zip(first, lstm_backward(tape, *weights), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_float32_is_near_float64(direction):
    """The gradients' types and their rounding, at a size with whole vectors and tails."""
    call = Call(6, 5, 9, 37, direction=direction, clip=1.0)
    inputs, weights = call_data(call), weights_of_outputs(call)
    wide = {k: v if k == "sequence_lens" else v.astype(np.float64) for k, v in inputs.items()}
    want = backward(call, wide, [w.astype(np.float64) for w in weights])
    got = backward(call, inputs, weights)
    relative = bounds.norm_bound("float32", 9 * 4 * 37, 6, backward=True)
    for name, a, b in zip(Gradients._fields, got, want, strict=True):
        assert a.dtype == np.float32
        bounds.assert_norm(a, b, relative, name)


def test_both_biases_have_the_gradient_of_their_sum():
    call = Call(direction="bidirectional")
    grads = backward(call, call_data(call), weights_of_outputs(call))
    np.testing.assert_array_equal(grads.B[:, :24], grads.B[:, 24:])


def test_rows_of_f_have_no_gradient_when_coupled():
    call = Call(input_forget=1)
    grads = backward(call, call_data(call), weights_of_outputs(call))
    for rows in (grads.W[:, 12:18], grads.R[:, 12:18], grads.B[:, 12:18], grads.P[:, 12:18]):
        assert not rows.any()
    assert grads.W.any()


def test_descent():
    """Steps against the gradients make the loss of a small task fall to less than a tenth."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 32, 3)).astype(np.float32)
    want = np.tanh(np.cumsum(x[:, :, 0], axis=0) / 2) * np.float32(0.9)
    inputs = call_data(Call(8, 32, 3, 16, given=frozenset({"B", "P"}))) | {"X": x}
    losses = []
    for _ in range(200):
        y, _, _, tape = lstm_training(*inputs.values())
        off = y[:, 0, :, 0] - want
        dy = np.zeros_like(y)
        dy[:, 0, :, 0] = off * np.float32(2 / off.size)
        losses.append(float((off**2).mean()))
        grads = lstm_backward(tape, dy)._asdict()
        for name in ("W", "R", "B", "P"):
            inputs[name] = inputs[name] - np.float32(0.5) * grads[name]
    assert losses[-1] < losses[0] / 10


def saved_by_another_program(call: Call, inputs: onnx_cases.Inputs) -> tuple[Any, Any, Any]:
    """H_all, C_all and iofc from the equations, in float64, as a program that keeps them would have them."""
    x, w, r, b = (np.asarray(inputs[name], np.float64) for name in ("X", "W", "R", "B"))
    starts = [np.zeros((call.batch, call.hidden)) if inputs[n] is None else inputs[n][0] for n in OPTIONAL[2:4]]
    h, c = (np.asarray(s, np.float64) for s in starts)
    kept: tuple[list[Any], ...] = ([], [], [])
    for x_t in x:
        a = x_t @ w[0].T + h @ r[0].T + b[0, : 4 * call.hidden] + b[0, 4 * call.hidden :]
        i, o, f, g = (
            v if k < 0 else 1 / (1 + np.exp(-v)) for k, v in zip((0, 0, 0, -1), np.split(a, 4, 1), strict=True)
        )
        g = np.tanh(g)
        c = f * c + i * g
        h = o * np.tanh(c)
        for keep, value in zip(kept, (h, c, np.concatenate([i, o, f, g], 1)), strict=True):
            keep.append(value[None].astype(call.dtype))
    h_all, c_all, iofc = (np.stack(keep) for keep in kept)
    return h_all, c_all, iofc


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("state", [(), ("initial_h",), ("initial_h", "initial_c")])
def test_gradients_from_saved_values(state, dtype):
    """Equal to those of this package's own training, with values saved by any program."""
    call = Call(6, 5, 9, 19, given=frozenset({"B", *state}), dtype=dtype)
    inputs, weights = call_data(call), weights_of_outputs(call)
    want = backward(call, inputs, weights)
    saved = saved_by_another_program(call, inputs)
    starts = {name: inputs[name] for name in state}
    got = lstm_grad(inputs["X"], inputs["W"], inputs["R"], *saved, *weights, **starts)
    relative = 2 * bounds.norm_bound(dtype, 9 * 4 * 19, 6, backward=True)
    for name, a, b in zip(Gradients._fields, got, want, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == dtype
            bounds.assert_norm(a, b.astype(np.float64), relative, name)
    # The loss of the outputs' last gradients alone, and none at all.
    for some in ((None, weights[1]), (None, None, weights[2]), ()):
        *_, tape = lstm_training(*inputs.values())
        for a, b in zip(
            lstm_grad(*list(inputs.values())[:3], *saved, *some, **starts), lstm_backward(tape, *some), strict=True
        ):
            if a is not None:
                bounds.assert_norm(a, b.astype(np.float64), relative, "some")


def test_wrong_arguments_of_backward():
    call = Call(layout=1)
    *outputs, tape = lstm_training(*call_data(call).values(), **call.attributes)
    y, y_h, y_c = outputs
    with pytest.raises(TypeError, match=r"^tape must"):
        lstm_backward(y)
    _, _, core_tape = qg.LSTM(4, 6).forward(np.zeros((5, 3, 4), np.float32))
    with pytest.raises(TypeError, match=r"^tape must"):
        lstm_backward(core_tape)
    for name, args in {"dY": (y[:, :-1],), "dY_h": (y, y_h[:, 0]), "dY_c": (y, y_h, y_c.swapaxes(0, 1))}.items():
        with pytest.raises(ValueError, match=rf"^{name} must have shape"):
            lstm_backward(tape, *args)
    with pytest.raises(TypeError, match=r"^dY must"):
        lstm_backward(tape, y.astype(complex))


def test_wrong_arguments_of_grad():
    call = Call(given=frozenset({"B"}))
    inputs = call_data(call)
    right = dict(zip(("H_all", "C_all", "iofc"), saved_by_another_program(call, inputs), strict=True))
    right |= {name: inputs[name] for name in ("X", "W", "R")}
    state = np.zeros((1, 3, 6), np.float32)
    right |= {"dH_all": right["H_all"], "dY_h": state, "dY_c": state, "initial_h": state, "initial_c": state}
    lstm_grad(**right)
    for name, value in right.items():
        if name != "X":
            with pytest.raises(ValueError, match=rf"^{name} must have shape"):
                lstm_grad(**right | {name: value[..., :-1]})
        with pytest.raises(TypeError, match=rf"^{name} must"):
            lstm_grad(**right | {name: value.astype(complex)})
