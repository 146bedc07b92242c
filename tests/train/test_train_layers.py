"""Layers one after the other, as a model runs them: gradients by central differences, final states, errors."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from quadgate import train
from quadgate.train import _files, _layers, _losses

pytestmark = pytest.mark.numbers

F64 = np.dtype("float64")


def bound(*layers, dtype=F64, seed=0):
    """The layers, bound one after the other."""
    rng, previous, result = np.random.default_rng(seed), None, []
    for layer in layers:
        made = train.Recurrent(layer) if isinstance(layer, (qg.LSTM, qg.RNN)) else layer
        made.bind(rng, np.dtype(dtype), previous)
        result.append(previous := made)
    return result


def forward(layers, x, context):
    tapes = []
    for layer in layers:
        x, tape = layer.forward(x, context)
        tapes.append(tape)
    return _layers.values(x), tapes


def backward(layers, tapes, d, *, need_x=False):
    grads = {}
    for k in reversed(range(len(layers))):
        d, own = layers[k].backward(tapes[k], d, need_x=need_x or k > 0)
        assert own.keys() == set(layers[k].trainable_names)
        grads |= {(k, name): g for name, g in own.items()}
    return d, grads


def set_one(layer, name, value):
    _layers.replace_all(layer.successor({**layer.params, name: value}))


def check_gradients(layers, x, context, loss=None, count=12):
    """Every parameter's gradient at a few places, and x's; the loss is a weighted sum of the outputs."""
    rng = np.random.default_rng(9)
    out, _ = forward(layers, x, train.Context(False, context.lengths, context.mask))
    weights = rng.standard_normal(out.shape)
    states = context.states

    def value(x):
        fresh = train.Context(True, context.lengths, context.mask, dict(states) if states is not None else None)
        return float((forward(layers, x, fresh)[0] * weights).sum())

    y, tapes = forward(
        layers, x, train.Context(True, context.lengths, context.mask, dict(states) if states else states)
    )
    dx, grads = backward(layers, tapes, weights.astype(y.dtype), need_x=True)
    step = 1e-6
    for (k, name), grad in grads.items():
        layer, whole = layers[k], layers[k].params[name]
        assert grad.shape == whole.shape
        for place in rng.choice(whole.size, min(count, whole.size), replace=False):
            slope = 0.0
            for sign in (1, -1):
                moved = whole.copy()
                moved.flat[place] += sign * step
                set_one(layer, name, moved)
                slope += sign * value(x) / (2 * step)
            set_one(layer, name, whole)
            assert abs(grad.flat[place] - slope) < 1e-7 * max(1, np.abs(weights).sum() / 100), (k, name)
    if dx is None:
        return
    for place in rng.choice(x.size, min(count, x.size), replace=False):
        slope = 0.0
        for sign in (1, -1):
            moved = x.copy()
            moved.flat[place] += sign * step
            slope += sign * value(moved) / (2 * step)
        assert abs(dx[np.unravel_index(place, x.shape)] - slope) < 1e-7 * max(1, np.abs(weights).sum() / 100)


LENGTHS = np.array([5, 0, 3, 1])
MASK = np.array([[1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [1, 0, 0, 0, 1]], bool)
CONTEXTS = [
    pytest.param(train.Context(True), id="whole"),
    pytest.param(train.Context(True, lengths=LENGTHS), id="lengths"),
    pytest.param(train.Context(True, mask=MASK), id="mask"),
    pytest.param(train.Context(True, lengths=LENGTHS, mask=MASK), id="both"),
]
NETS = {
    "lstm": lambda: qg.LSTM(4, 3, dtype=F64, rng=1),
    "batch first": lambda: qg.LSTM(4, 3, batch_first=True, dtype=F64, rng=1),
    "two layers, both directions": lambda: qg.LSTM(4, 3, 2, bidirectional=True, dtype=F64, rng=1),
    "projected, sum": lambda: qg.LSTM(4, 3, proj_size=2, bidirectional=True, merge="sum", dtype=F64, rng=1),
    "reverse": lambda: qg.LSTM(4, 3, reverse=True, batch_first=True, dtype=F64, rng=1),
    "rnn": lambda: qg.RNN(4, 3, 2, dtype=F64, rng=1),
    "rnn, both directions": lambda: qg.RNN(4, 3, bidirectional=True, batch_first=True, dtype=F64, rng=1),
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("net", NETS)
def test_gradients_of_a_tagger(net, context):
    net = NETS[net]()
    layers = bound(train.Embedding(7, 4), net, train.Dense(net._options.outputs, 5, "tanh"), train.Dense(5, 3))
    check_gradients(layers, np.random.default_rng(0).integers(0, 7, (4, 5)), context)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("net", NETS)
def test_gradients_through_the_final_state(net, context):
    net = NETS[net]()
    columns = net._options.directions * net._options.state_columns
    layers = bound(net, train.FinalState(), train.Dense(columns, 2, bias=False))
    x = np.random.default_rng(0).standard_normal((4, 5, 4))
    assert layers[1].output_shape(layers[0].output_shape((None, None, 4))) == (None, columns)
    check_gradients(layers, x, context)


@pytest.mark.parametrize("net", NETS)
def test_final_state_is_the_last_step_that_counts(net):
    """Row by row, each cut to its own steps, h of the network itself."""
    net = NETS[net]()
    layers = bound(net, train.FinalState())
    x = np.random.default_rng(0).standard_normal((4, 5, 4))
    got, _ = forward(layers, x, train.Context(False, LENGTHS, MASK))
    for row in range(4):
        steps = np.flatnonzero(MASK[row] & (np.arange(5) < LENGTHS[row]))
        _, state = net(x[row, steps])
        h = state if isinstance(net, qg.RNN) else state[0]
        directions = net._options.directions
        np.testing.assert_array_equal(got[row], h[-directions:].ravel())


@pytest.mark.parametrize("activation", [None, "sigmoid", "relu", "softplus", ("leaky_relu", 0.3), "elu"])
@pytest.mark.parametrize("shape", [(6, 4), (3, 5, 4), (0, 4)])
def test_dense(shape, activation):
    layers = bound(train.Dense(4, 3, activation))
    x = np.random.default_rng(0).standard_normal(shape)
    y, _ = forward(layers, x, train.Context())
    assert y.shape == (*shape[:-1], 3) == layers[0].output_shape(shape)
    check_gradients(layers, x, train.Context(True))


def test_dense_keeps_the_order_of_memory():
    """A swapped view goes through without a copy, and comes back with the same bits as its copy."""
    (layer,) = bound(train.Dense(4, 3))
    x = np.random.default_rng(0).standard_normal((5, 2, 4)).swapaxes(0, 1)
    y, tape = layer.forward(x, train.Context(True))
    assert y.swapaxes(0, 1).flags.c_contiguous
    np.testing.assert_array_equal(y, layer.forward(x.copy(), train.Context())[0])
    dx, _ = layer.backward(tape, y, need_x=True)
    assert dx.shape == x.shape
    np.testing.assert_allclose(dx, y @ layer.params["weight"], rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(layer.forward(x[:, ::2], train.Context())[0], y[:, ::2])
    out = {"weight": np.empty((3, 4)), "bias": np.empty(3)}
    _, grads = layer.backward(tape, y, need_x=False, out=out)
    assert grads["weight"] is out["weight"]


def test_dropout():
    """A share of the elements, the others scaled up; the same for a shard as for its rows of the whole batch."""
    x = np.ones((400, 50), np.float32)
    (layer,) = bound(train.Dropout(0.25), dtype="float32")
    y, tape = layer.forward(x, train.Context(True))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    dropped = (y == 0).mean()
    assert abs(dropped - 0.25) < 5 * np.sqrt(0.25 * 0.75 / y.size)
    np.testing.assert_array_equal(layer.backward(tape, x, need_x=True)[0], y)
    np.testing.assert_array_equal(layer.forward(x, train.Context(False))[0], x)
    (again,) = bound(train.Dropout(0.25), dtype="float32")
    np.testing.assert_array_equal(again.forward(x[100:150], train.Context(True, rows=(100, 150, 400)))[0], y[100:150])
    for rate, want in ((0.0, 1), (1.0, 0)):
        (layer,) = bound(train.Dropout(rate), dtype="float32")
        assert (layer.forward(x, train.Context(True))[0] == want).all()


def test_states_go_on():
    """Two halves with states are one whole, LSTM and RNN."""
    x = np.random.default_rng(0).standard_normal((4, 6, 4))
    for net in (NETS["lstm"](), NETS["rnn"]()):
        layers = bound(net)
        whole, _ = forward(layers, x, train.Context())
        states = {}
        parts = [forward(layers, x[:, part], train.Context(states=states))[0] for part in (slice(0, 2), slice(2, 6))]
        np.testing.assert_array_equal(np.concatenate(parts, 1), whole)
        check_gradients(layers, x, train.Context(True, states=states))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters(dtype):
    net = qg.LSTM(48, 8, dtype=dtype, rng=3)
    embedding, recurrent, dense = bound(train.Embedding(500, 48), net, train.Dense(8, 300), dtype=dtype)
    assert embedding.num_parameters == 500 * 48
    assert dense.num_parameters == 8 * 300 + 300
    assert recurrent.num_parameters == net.num_parameters
    assert recurrent.params is net.params or recurrent.params == net.params
    assert np.abs(embedding.params["weight"]).max() <= 0.05
    assert abs(embedding.params["weight"].std() - 0.05 / np.sqrt(3)) < 1e-3
    end = np.sqrt(6 / 308)
    assert np.abs(dense.params["weight"]).max() <= end
    assert abs(dense.params["weight"].std() - end / np.sqrt(3)) < 0.05 * end
    assert not dense.params["bias"].any()
    for layer in (embedding, recurrent, dense):
        assert layer.trainable_names == tuple(layer.params)
        for value in layer.params.values():
            assert value.dtype == np.dtype(dtype)
            with pytest.raises(ValueError, match="WRITEABLE"):
                value.flags.writeable = True
    # Values that were writable are copied, and a network's own parameters are those that change.
    mine = {name: np.full_like(value, 0.5) for name, value in net.params.items()}
    _layers.replace_all(recurrent.successor(mine))
    mine["weight_hh_l0"][...] = 7
    assert (net.params["weight_hh_l0"] == 0.5).all()
    dense.assign({"weight": np.ones((300, 8)), "bias": np.zeros(300)})
    y, _ = dense.forward(np.ones((1, 8), dtype), train.Context())
    assert (y == 8).all()


def test_a_tape_goes_back_with_its_own_parameters():
    (dense,) = bound(train.Dense(4, 3))
    x = np.random.default_rng(0).standard_normal((5, 4))
    y, tape = dense.forward(x, train.Context(True))
    want, _ = dense.backward(tape, y, need_x=True)
    dense.assign({"weight": np.zeros((3, 4)), "bias": np.zeros(3)})
    np.testing.assert_array_equal(dense.backward(tape, y, need_x=True)[0], want)


def test_config():
    """A layer of a file is made again from its config and its arrays."""
    for layer, weight in (
        (train.Embedding(5, 3), (5, 3)),
        (train.Dense(3, 2, ("elu", 0.5), bias=False), (2, 3)),
        (train.Dropout(0.1), None),
        (train.FinalState(), None),
        (
            train.Recurrent(qg.LSTM(3, 4, 2, bidirectional=True, merge="sum", zoneout=(0.1, 0.2), batch_first=True)),
            None,
        ),
        (train.Recurrent(qg.RNN(3, 4, nonlinearity="relu", dtype="float64")), None),
    ):
        own = layer.params if weight is None else {"weight": np.zeros(weight, np.float32)}
        dtype = np.dtype("float64" if "RNN" in repr(layer) else "float32")
        again = _files._layer(layer.config(), 0, {f"0.{name}": value for name, value in own.items()}, dtype)
        assert again.config() == layer.config()
        assert repr(again) == repr(layer)
    with pytest.raises(ValueError, match="this version does not know the kind 'GRU'"):
        _files._layer({"layer": "GRU"}, 0, {}, np.dtype("float32"))


def test_bad_arguments():
    lstm = qg.LSTM(4, 3)
    f32 = np.dtype("float32")
    rng = np.random.default_rng(0)
    embedding, dense = bound(train.Embedding(4, 2), train.Dense(2, 3))
    for call, message in (
        (lambda: train.Embedding(0, 3), "num_embeddings must be a positive int, got 0"),
        (lambda: train.Embedding(3, 2.0), "embedding_dim must be a positive int, got 2.0"),
        (lambda: train.Dense(3, -1), "units_out must be a positive int"),
        (lambda: train.Dense(3, 2, "softmax"), "the loss softmax_cross_entropy takes the logits"),
        (lambda: train.Dense(3, 2, "gelu"), "activation must be one of sigmoid"),
        (lambda: train.Dense(3, 2, bias=1), "bias must be True or False"),
        (lambda: train.Dropout(1.5), "rate must be a probability"),
        (lambda: train.Recurrent(3), "net must be a quadgate.LSTM or quadgate.RNN, got int"),
        (lambda: train.Recurrent(lstm).bind(rng, F64), "must have the model's dtype float64"),
        (lambda: train.FinalState().bind(rng, f32, None), "must come directly behind an LSTM or an RNN, got nothing"),
        (lambda: train.FinalState().bind(rng, f32, dense), r"got Dense\("),
        (
            lambda: dense.output_shape((None, None, 3)),
            r"Dense\(units_in=2, .*needs \(..., 2\), got the shape \(\?, \?, 3",
        ),
        (lambda: dense.forward(np.zeros((2, 3)), train.Context()), r"needs \(..., 2\), got the shape \(2, 3\)"),
        (lambda: train.Recurrent(lstm).output_shape((None, 4)), r"needs \(B, T, 4\), got the shape \(\?, 4\)"),
        (lambda: embedding.forward(np.array([[0, 4]]), train.Context()), "x must be from 0 to 3, got 4"),
        (lambda: embedding.forward(np.array([[0, -1]]), train.Context()), "x must be from 0 to 3, got -1"),
        (lambda: embedding.forward(np.zeros((1, 2)), train.Context()), "x must hold integers, got dtype float64"),
        (lambda: dense.assign({"weight": np.zeros((3, 2))}), "values must have the names weight, bias, got weight"),
        (lambda: dense.assign({"weight": np.zeros((2, 3)), "bias": np.zeros(3)}), r"weight must have shape \(3, 2\)"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()


def test_bits_do_not_depend_on_threads_nor_layout():
    """A step's loss and gradients, with threads 1 to 3; and whatever the network's own batch_first is."""
    x = np.random.default_rng(0).integers(0, 96, (32, 40))
    found = []
    for threads in (1, 2, 3):
        for first in (False, True):
            qg.set_num_threads(threads)
            net = qg.LSTM(48, 40, batch_first=first, rng=1)
            layers = bound(train.Embedding(96, 48), net, train.Dense(40, 96), dtype="float32")
            y, tapes = forward(layers, x, train.Context(True))
            value, d = _losses.get("softmax_cross_entropy")(y, x)
            _, grads = backward(layers, tapes, d)
            found.append((first, value, {key: g.tobytes() for key, g in grads.items()}))
    assert found[0] == found[2] == found[4]
    assert found[1] == found[3] == found[5]


@pytest.mark.parametrize("layer", [train.Dense(3, 4), train.Embedding(5, 4), train.Dropout(0.5)], ids=repr)
def test_a_layer_of_no_model_has_no_forward(layer):
    with pytest.raises(RuntimeError, match="belongs to no model yet: put it into a Sequential, or call bind"):
        layer.forward(
            np.zeros((2, 3), np.int64 if isinstance(layer, train.Embedding) else np.float32), train.Context(True)
        )


@pytest.mark.parametrize("values", [{}, {"weight": np.zeros((4, 3), np.float32)}], ids=["nothing", "a weight"])
@pytest.mark.parametrize("layer", [train.Dense(3, 4), train.Embedding(5, 4)], ids=repr)
def test_a_layer_of_no_model_has_no_parameters_to_replace(layer, values):
    with pytest.raises(RuntimeError, match="belongs to no model yet"):
        layer.assign(values)


def test_a_layer_without_parameters_is_assigned_none():
    layer = train.Dropout(0.5)
    layer.assign({})
    with pytest.raises(ValueError, match="values must have no names, got weight"):
        layer.assign({"weight": np.zeros(3, np.float32)})


@pytest.mark.parametrize("outputs", [np.array([[1, 2]]), np.array([[1, 2]], np.float16), [[1.0, 2.0]]])
@pytest.mark.parametrize("name", ["mse", "categorical_crossentropy", "softmax_cross_entropy"])
def test_losses_of_other_types_than_floats_are_refused(name, outputs):
    with pytest.raises(TypeError, match="outputs must be an array of float32 or float64, got"):
        _losses.get(name)(outputs, np.array([[0.5, 0.5]]))
