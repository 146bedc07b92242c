"""qg.LSTM and qg.RNN against Keras, run live on the same numbers, on its PyTorch backend.

Install both with: pip install keras torch
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import quadgate as qg
from support import bounds
from support.cases import SIZES
from support.examples import examples

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed, Keras has no backend: install torch")
os.environ["KERAS_BACKEND"] = "torch"
with tempfile.TemporaryDirectory() as folder:
    os.environ.setdefault("KERAS_HOME", folder)  # or Keras would leave its settings in the user's home
    keras: Any = pytest.importorskip("keras", reason="Keras is not installed, nothing to compare with: install keras")

BATCH, STEPS, INPUTS, UNITS = 4, 7, 5, 11
MERGES = {"concat": "concat", "sum": "sum", "mul": "mul", "ave": "mean"}
LENGTHS = np.array([3, 7, 0, 5])


def numbers(tensor: Any) -> Any:
    return tensor.detach().numpy().astype(np.float64)


def draw(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def built(layer: Any, inputs: int = INPUTS, seed: int = 3) -> Any:
    """The layer with its weights made, all of them random, the biases too."""
    layer.build((None, None, inputs))
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.uniform(-1, 1, tuple(w.shape)) / np.sqrt(UNITS) for w in layer.weights])
    return layer


def taken_over(lstm: qg.LSTM, *layers: Any) -> qg.LSTM:
    """Our network with the weights of Keras layers, one for each layer and direction."""
    values = [numbers(w.value) for layer in layers for w in layer.weights]
    with lstm.writable() as params:
        assert len(values) == len(params)
        for name, value in zip(params, values, strict=True):
            params[name] = value.T.astype(params[name].dtype)
    return lstm


def network(layers: int = 1, **options: Any) -> qg.LSTM:
    return qg.LSTM(INPUTS, UNITS, layers, batch_first=True, **options)


def mask_of(lengths: Any) -> Any:
    return np.arange(STEPS) < lengths[:, None]


def agree(got: Any, want: Any, what: str, layers: int = 1, backward: bool = False) -> None:
    """Two programs of the same precision: each may be as far off as the bound says."""
    relative = 2 * bounds.norm_bound(got.dtype, INPUTS + 3 * UNITS + 1, STEPS * layers, backward=backward)
    assert got.shape == want.shape, what
    bounds.assert_norm(got, want, relative, what, least=1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_states_and_gradients(bias, dtype):
    layer = built(keras.layers.LSTM(UNITS, use_bias=bias, return_sequences=True, return_state=True, dtype=dtype))
    lstm = taken_over(network(bias=bias, dtype=dtype), layer)
    arrays = [draw(BATCH, STEPS, INPUTS, dtype=dtype), *(draw(BATCH, UNITS, seed=k, dtype=dtype) for k in (1, 2))]
    dy, dh, dc = (
        draw(BATCH, STEPS, UNITS, seed=4, dtype=dtype),
        *(draw(BATCH, UNITS, seed=k, dtype=dtype) for k in (5, 6)),
    )
    x, h0, c0 = (torch.tensor(a, requires_grad=True) for a in arrays)
    y, h, c = layer(x, initial_state=[h0, c0])
    sum((o * torch.tensor(g)).sum() for o, g in zip((y, h, c), (dy, dh, dc), strict=True)).backward()

    got_y, (got_h, got_c), tape = lstm.forward(arrays[0], (arrays[1][None], arrays[2][None]))
    grads = lstm.backward(tape, dy, (dh[None], dc[None]))
    for name, got, want in (("y", got_y, y), ("h", got_h[0], h), ("c", got_c[0], c)):
        agree(got, numbers(want), name)
    for name, got, want in (("x", grads.x, x), ("h0", grads.h0[0], h0), ("c0", grads.c0[0], c0)):
        agree(got, numbers(want.grad), name, backward=True)
    for (name, got), weight in zip(grads.params.items(), layer.weights, strict=True):
        agree(got, numbers(weight.value.grad).T, name, backward=True)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("merge", MERGES)
def test_merge_modes(merge, masked):
    """Whole sequences, which Keras reverses again for the second direction, and last outputs."""
    mask, lengths = (mask_of(LENGTHS), LENGTHS) if masked else (None, None)
    x = draw(BATCH, STEPS, INPUTS)
    inner = keras.layers.LSTM(UNITS, return_sequences=True)
    layer = built(keras.layers.Bidirectional(inner, merge_mode=merge))
    lstm = taken_over(network(bidirectional=True, merge=MERGES[merge]), layer)
    y, (h, _) = lstm(x, lengths=lengths)
    agree(y, numbers(layer(x, mask=mask)), "y")

    last = built(keras.layers.Bidirectional(keras.layers.LSTM(UNITS), merge_mode=merge))
    join = {"concat": np.hstack, "sum": sum, "mul": np.prod, "ave": np.mean}[merge]
    ends = join(h) if merge in ("concat", "sum") else join(h, axis=0)
    agree(ends, numbers(last(x, mask=mask)), "last outputs")


def test_masking():
    """A mask of leading ones is a length. Keras repeats the last output past it; we have zeros there."""
    layer = built(keras.layers.LSTM(UNITS, return_sequences=True, return_state=True))
    lstm, x, mask = taken_over(network(), layer), draw(BATCH, STEPS, INPUTS), mask_of(LENGTHS)
    want = [numbers(part) for part in layer(x, mask=mask)]
    y, (h, c) = lstm(x, lengths=LENGTHS)
    agree(y, np.where(mask[:, :, None], want[0], 0), "y")
    agree(h[0], want[1], "h")
    agree(c[0], want[2], "c")


def test_a_masking_layer_over_two_layers():
    x = np.where(mask_of(LENGTHS)[:, :, None], draw(BATCH, STEPS, INPUTS), np.float32(0))
    first, second = keras.layers.LSTM(UNITS, return_sequences=True), keras.layers.LSTM(UNITS)
    both = keras.Sequential([keras.layers.Masking(), first, second])
    both.build((None, STEPS, INPUTS))
    built(first)
    built(second, UNITS, seed=4)
    lstm = taken_over(network(2), first, second)
    _, (h, _) = lstm(x, lengths=LENGTHS)
    agree(h[1], numbers(both(x)), "h", 2)


@pytest.mark.parametrize("masked", [False, True])
def test_go_backwards(masked):
    """Keras gives the outputs in the order of their making, we in that of the input."""
    mask, lengths = (mask_of(LENGTHS), LENGTHS) if masked else (None, None)
    layer = built(
        keras.layers.LSTM(
            UNITS, return_sequences=True, return_state=True, go_backwards=True, zero_output_for_mask=masked
        )
    )
    lstm, x = taken_over(network(reverse=True), layer), draw(BATCH, STEPS, INPUTS)
    y, (h, c) = lstm(x, lengths=lengths)
    want = [numbers(part) for part in layer(x, mask=mask)]
    agree(y[:, ::-1], want[0], "y")
    agree(h[0], want[1], "h")
    agree(c[0], want[2], "c")


def test_dropouts_do_nothing_at_inference():
    layer = built(keras.layers.LSTM(UNITS, dropout=0.3, recurrent_dropout=0.4, return_sequences=True))
    lstm, x = taken_over(network(recurrent_dropout=0.4), layer), draw(BATCH, STEPS, INPUTS)
    want = numbers(layer(x, training=False))
    agree(lstm(x)[0], want, "y")
    trained, *_ = lstm.forward(x, rng=1)
    assert np.abs(trained - want).max() > 0.01


HARD = ("hard_sigmoid", 1 / 6, 0.5)


@pytest.mark.parametrize(
    ("keras_gate", "keras_cell", "ours"),
    [
        ("sigmoid", "relu", ("sigmoid", "relu", "relu")),
        ("hard_sigmoid", "tanh", (HARD, "tanh", "tanh")),
        ("hard_sigmoid", "softsign", (HARD, "softsign", "softsign")),
        ("sigmoid", "elu", ("sigmoid", "elu", "elu")),
        ("sigmoid", "leaky_relu", ("sigmoid", ("leaky_relu", 0.2), ("leaky_relu", 0.2))),
        ("softplus", "linear", ("softplus", "affine", "affine")),
    ],
)
def test_activations(keras_gate, keras_cell, ours):
    layer = built(keras.layers.LSTM(UNITS, keras_cell, keras_gate, return_sequences=True))
    lstm, x = taken_over(network(activations=ours), layer), draw(BATCH, STEPS, INPUTS)
    agree(lstm(x)[0], numbers(layer(x)), "y")


@pytest.mark.parametrize("unit_forget_bias", [True, False])
def test_initial_values(unit_forget_bias):
    """Keras's promises about initial weights, checked on its own and on ours."""
    layer = keras.layers.LSTM(UNITS, unit_forget_bias=unit_forget_bias)
    layer.build((None, None, 200))
    forget_bias = None if unit_forget_bias else 0.0
    lstm = qg.LSTM(200, UNITS, initialization="keras", forget_bias=forget_bias, rng=0)
    end = np.sqrt(6 / (200 + 4 * UNITS))  # glorot: uniform, from the sizes of the whole matrix
    for kernel, recurrent, bias in ([numbers(w.value).T for w in layer.weights], list(lstm.params.values())):
        assert bias.tolist() == [0.0] * UNITS + [float(unit_forget_bias)] * UNITS + [0.0] * (2 * UNITS)
        np.testing.assert_allclose(recurrent.T @ recurrent, np.eye(UNITS), atol=1e-5)
        # 8800 draws: the largest is below 0.99 of the end once in e^88 times, the variance is off by 5 % once in e^9.
        assert 0.99 * end < np.abs(kernel).max() <= end * (1 + 1e-6)
        assert abs(kernel.var() / (end**2 / 3) - 1) < 0.05
        assert recurrent.min() < 0 < recurrent.max()


def test_simple_rnn():
    """qg.RNN against SimpleRNN."""
    for activation in ("tanh", "relu"):
        layer = built(keras.layers.SimpleRNN(UNITS, activation, return_sequences=True))
        rnn = taken_over(qg.RNN(INPUTS, UNITS, nonlinearity=activation, batch_first=True), layer)
        x = draw(BATCH, STEPS, INPUTS)
        agree(rnn(x)[0], numbers(layer(x)), activation)


@pytest.mark.slow
@hypothesis.settings(max_examples=examples(40), derandomize=True)
@hypothesis.given(st.data())
def test_drawn(draws):
    """Masks, merges, the forget gate's first bias and dropout at inference as they come, at every tail."""
    units, inputs = draws.draw(st.sampled_from(SIZES)), draws.draw(st.sampled_from(SIZES))
    steps, batch = draws.draw(st.integers(1, 9)), draws.draw(st.integers(1, 9))
    merge = draws.draw(st.sampled_from([None, *MERGES]))
    layer = keras.layers.LSTM(
        units,
        return_sequences=True,
        unit_forget_bias=draws.draw(st.booleans()),
        recurrent_dropout=draws.draw(st.sampled_from([0.0, 0.3])),
    )
    if merge:
        layer = keras.layers.Bidirectional(layer, merge_mode=merge)
    layer.build((None, None, inputs))
    both = {"bidirectional": True, "merge": MERGES[merge]} if merge else {}
    lstm = taken_over(qg.LSTM(inputs, units, batch_first=True, **both), layer)
    x = draw(batch, steps, inputs, seed=draws.draw(st.integers(0, 999)))
    lengths = np.array(draws.draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch)))
    mask = np.arange(steps) < lengths[:, None]
    relative = 2 * bounds.norm_bound(x.dtype, inputs + units + 1, steps)
    want = numbers(layer(x, mask=mask))
    if merge is None:
        want = np.where(mask[:, :, None], want, 0)  # Keras repeats the last output past a row's end
    bounds.assert_norm(lstm(x, lengths=lengths)[0], want, relative, f"{units} units, {inputs} inputs, {merge}")


MASKS = {
    "left": np.arange(STEPS) >= np.array([0, 3, 7, 2])[:, None],
    "right": mask_of(LENGTHS),
    "middle": np.array([[1, 1, 0, 0, 1, 0, 1], [0, 1, 0, 1, 1, 0, 0], [0] * 7, [1, 0, 1, 1, 1, 1, 0]], bool),
}


@pytest.mark.parametrize("padding", ["zero", "last"])
@pytest.mark.parametrize("place", MASKS)
def test_masked_steps(place, padding):
    """Outputs, states and gradients; Keras repeats y unless it is told not to."""
    layer = built(keras.layers.LSTM(UNITS, return_sequences=True, return_state=True))
    layer.zero_output_for_mask = padding == "zero"
    lstm, mask = taken_over(network(), layer), MASKS[place]
    x = draw(BATCH, STEPS, INPUTS)
    dy, dh, dc = draw(BATCH, STEPS, UNITS, seed=4), draw(BATCH, UNITS, seed=5), draw(BATCH, UNITS, seed=6)
    tensor = torch.tensor(x, requires_grad=True)
    want = layer(tensor, mask=torch.tensor(mask))
    sum((part * torch.tensor(d)).sum() for part, d in zip(want, (dy, dh, dc), strict=True)).backward()

    y, (h, c), tape = lstm.forward(x, mask=mask, padding_output=padding)
    grads = lstm.backward(tape, dy, (dh[None], dc[None]))
    for name, got, right in zip("yhc", (y, h[0], c[0]), want, strict=True):
        agree(got, numbers(right), name)
    agree(grads.x, numbers(tensor.grad), "dx", backward=True)
    for (name, got), variable in zip(grads.params.items(), layer.weights, strict=True):
        agree(got, numbers(variable.value.grad).T, name, backward=True)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("place", MASKS)
def test_masked_steps_in_both_directions(place, merge):
    layer = built(keras.layers.Bidirectional(keras.layers.LSTM(UNITS, return_sequences=True), merge_mode=merge))
    lstm, x, mask = (
        taken_over(network(bidirectional=True, merge=MERGES[merge]), layer),
        draw(BATCH, STEPS, INPUTS),
        MASKS[place],
    )
    agree(lstm(x, mask=mask)[0], numbers(layer(x, mask=mask)), "y")


@pytest.mark.parametrize("place", MASKS)
def test_masked_steps_of_two_layers_read_backwards(place):
    """go_backwards returns y in the order of reading."""
    first = built(keras.layers.LSTM(UNITS, return_sequences=True, go_backwards=True))
    lstm, x, mask = taken_over(network(reverse=True), first), draw(BATCH, STEPS, INPUTS), MASKS[place]
    y, _ = lstm(x, mask=mask, padding_output="last")
    agree(y, numbers(first(x, mask=mask))[:, ::-1], "y")


@pytest.mark.parametrize("place", MASKS)
def test_masked_steps_of_an_rnn(place):
    layer = built(keras.layers.SimpleRNN(UNITS, return_sequences=True, return_state=True))
    rnn, x, mask = taken_over(qg.RNN(INPUTS, UNITS, batch_first=True), layer), draw(BATCH, STEPS, INPUTS), MASKS[place]
    y, h = rnn(x, mask=mask, padding_output="last")
    want = [numbers(part) for part in layer(x, mask=mask)]
    agree(y, want[0], "y")
    agree(h[0], want[1], "h")


def test_a_masking_layer_with_left_padding_over_two_layers():
    mask = MASKS["left"]
    x = np.where(mask[:, :, None], draw(BATCH, STEPS, INPUTS), np.float32(0))
    first, second = keras.layers.LSTM(UNITS, return_sequences=True), keras.layers.LSTM(UNITS)
    both = keras.Sequential([keras.layers.Masking(), first, second])
    both.build((None, STEPS, INPUTS))
    built(first)
    built(second, UNITS, seed=4)
    _, (h, _) = taken_over(network(2), first, second)(x, mask=mask)
    agree(h[1], numbers(both(x)), "h", 2)
