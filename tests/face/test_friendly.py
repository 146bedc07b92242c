"""Small helps for users of NumPy and PyTorch: what is accepted, what is said, what is shown."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import quadgate as qg
from support.cases import same_bits

X = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)


@pytest.fixture
def lstm():
    return qg.LSTM(5, 6, 2, rng=0)


@pytest.mark.parametrize("x", [X, X.tolist()], ids=["array", "list"])
def test_forward_returns_three_things(lstm, x):
    """The cells are on the tape, and the tape is in its place, with any arguments."""
    y, (h, _), cells = lstm(X, return_cells=True)
    for keywords in ({}, {"return_cells": True}, {"return_cells": True, "trace": True}, {"trace": True}):
        got, (end, _), tape = lstm.forward(x, **keywords)
        assert same_bits(got, y)
        assert same_bits(end, h)
        assert type(tape) is qg.Tape
        if "return_cells" in keywords:
            assert same_bits(tape.cells, cells)
        else:
            assert tape.cells is None
        assert (tape.trace is not None) is ("trace" in keywords)


def test_half_a_state_is_zeros_for_the_other_half(lstm):
    h, c = np.random.default_rng(1).normal(size=(2, 2, 3, 6)).astype(np.float32)
    for half, whole in (((h, None), (h, c * 0)), ((None, c), (h * 0, c)), ((None, None), None)):
        want, got = lstm(X, whole), lstm(X, half)
        assert same_bits(got[0], want[0])
        assert same_bits(got[1][0], want[1][0])
        assert same_bits(got[1][1], want[1][1])
        assert same_bits(lstm.forward(X, half)[0], want[0])
        stream = lstm.stream(3)
        stream.run(X)
        stream.state = half
        assert same_bits(stream.run(X), want[0])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.int8])
def test_resets_of_ones_and_zeros(lstm, dtype):
    resets = np.random.default_rng(2).random((4, 3)) < 0.4
    want = lstm(X, resets=resets)[0]
    assert same_bits(lstm(X, resets=resets.astype(dtype))[0], want)
    assert same_bits(lstm.stream(3).run(X, resets=resets.astype(dtype).tolist()), want)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.uint8])
def test_lengths_that_are_whole_numbers(lstm, dtype):
    lengths = np.array([4, 0, 2])
    assert same_bits(lstm(X, lengths=lengths.astype(dtype))[0], lstm(X, lengths=lengths)[0])
    for bad in ([np.inf, 1, 1], [-1.0, 1, 1], [4.5, 1, 1], [2.5, 1, 1]):
        with pytest.raises(ValueError, match="lengths must be"):
            lstm(X, lengths=bad)


def test_numbers_beyond_the_type_become_infinite():
    """With a warning, as in NumPy."""
    x, lstm = np.zeros((1, 5)), qg.LSTM(5, 6, rng=0)
    x[0, 2] = 1e300
    want = lstm(np.where(x > 0, np.float32(np.inf), np.float32(0)))[0]
    with pytest.warns(RuntimeWarning, match="overflow"):
        assert same_bits(lstm(x)[0], want)


def test_dropout_of_one_layer_warns_and_is_kept():
    with pytest.warns(UserWarning, match=r"dropout=0\.5 has no effect with num_layers=1") as seen:
        lstm = qg.LSTM(5, 6, dropout=0.5, rng=0)
    assert seen[0].filename == __file__
    assert lstm.dropout == 0.5
    y, _, tape = lstm.forward(X)
    assert same_bits(y, qg.LSTM(5, 6, rng=0)(X)[0])
    assert not tape.dropped
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said again of a network that there is
        assert copy.deepcopy(lstm).dropout == 0.5
    with pytest.warns(UserWarning, match="dropout"):
        qg.RNN(5, 6, dropout=0.5)


@pytest.mark.parametrize("p", [6, 9])
def test_a_projection_may_be_as_wide_as_the_cell_and_wider(p):
    lstm = qg.LSTM(5, 6, proj_size=p, rng=0)
    assert lstm(X)[0].shape == (4, 3, p)


def test_rows_of_a_stream(lstm):
    stream = lstm.stream(batch_size=3)
    assert stream.batch_size == 3
    stream.run(X)
    before = stream.state[0]
    stream.reset(rows=[True, False, True])
    assert not stream.state[0][:, ::2].any()
    assert same_bits(stream.state[0][:, 1], before[:, 1])
    for chosen in ([0, 2], np.array([2, 0], np.uint8), (2, 0, 2)):
        stream.reset()
        stream.run(X)
        stream.reset(rows=chosen)
        assert not stream.state[0][:, ::2].any()
        assert same_bits(stream.state[0][:, 1], before[:, 1])
    stream.reset(rows=[])
    assert same_bits(stream.state[0][:, 1], before[:, 1])


def test_masks_are_what_was_dropped():
    lstm = qg.LSTM(5, 6, 2, dropout=0.5, rng=0)
    y, _, tape = lstm.forward(X, rng=1)
    (name,) = tape.dropped
    assert name == "dropout_l0"
    mask = tape.dropped[name]
    assert mask.dtype == np.bool_
    with pytest.raises(ValueError, match="read-only"):
        mask[...] = False
    first = qg.LSTM(5, 6, rng=0)
    first.load_state_dict({n: v for n, v in lstm.params.items() if n.endswith("_l0")})
    second = qg.LSTM(6, 6)
    second.load_state_dict({n.replace("_l1", "_l0"): v for n, v in lstm.params.items() if n.endswith("_l1")})
    np.testing.assert_allclose(second(np.where(mask, 0, first(X)[0] * 2))[0], y, rtol=1e-5, atol=1e-6)


def test_backward_needs_a_gradient(lstm):
    _, _, tape = lstm.forward(X)
    for keywords in ({}, {"dstate": (None, None)}, {"dstate": [None, None]}, {"input_grad": False}):
        with pytest.raises(ValueError, match=r"needs a gradient.*dy, dstate or dcells"):
            lstm.backward(tape, **keywords)
    rnn = qg.RNN(5, 6)
    _, _, tape = rnn.forward(X)
    with pytest.raises(ValueError, match=r"needs a gradient.*dy or dh"):
        rnn.backward(tape)


def test_gradients_are_shown_in_a_line():
    lstm, rnn = qg.LSTM(64, 256, rng=0), qg.RNN(5, 6)
    _, _, tape = lstm.forward(np.zeros((30, 8, 64), np.float32))
    grads = lstm.backward(tape, np.ones((30, 8, 256), np.float32), input_grad=False)
    shown = "h0=<float32 (1, 8, 256)>, c0=<float32 (1, 8, 256)>, params=<3 arrays>"
    assert repr(grads) == f"LSTMGrads(x=None, {shown})"
    grads = lstm.backward(tape, np.ones((30, 8, 256), np.float32), state_grad=False)
    assert repr(grads) == "LSTMGrads(x=<float32 (30, 8, 64)>, h0=None, c0=None, params=<3 arrays>)"
    _, _, tape = rnn.forward(X)
    assert repr(rnn.backward(tape, dh=np.ones((1, 3, 6)))).startswith("RNNGrads(x=<float32 (4, 3, 5)>, h0=<")


def test_tapes_are_shown_and_neither_pickled_nor_copied():
    lstm = qg.LSTM(5, 6, zoneout=(0.1, 0.1), rng=0)
    _, _, tape = lstm.forward(X, return_cells=True, trace=True)
    assert repr(tape).startswith(f"Tape(x_shape=(4, 3, 5), nbytes={tape.nbytes}, dropped=2 masks, cells=<float32 (4,")
    for again in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"Tape cannot be pickled or copied.*run forward again"):
            again(tape)
    for name in ("trace", "cells", "dropped", "x_shape", "nbytes"):
        with pytest.raises(AttributeError):
            setattr(tape, name, "x")


def test_a_changed_trace_does_no_harm(lstm):
    """The norms belong to the tape, even if the trace's arrays were changed."""
    y, _, tape = lstm.forward(X, trace=True)
    lstm.backward(tape, y)
    want = tape.trace.dh_norm
    tape.trace.c = np.zeros(3)
    tape.trace.dh_norm = tape.trace.dc_norm = None
    lstm.backward(tape, y)
    assert same_bits(tape.trace.dh_norm, want)


@pytest.mark.parametrize(
    ("make", "meant"),
    [
        (lambda: qg.LSTM(5, 6, bidirectionl=True), "bidirectional"),
        (lambda: qg.LSTM(5, hiden_size=6), "hidden_size"),
        (lambda: qg.RNN(5, 6, non_linearity="relu"), "nonlinearity"),
        (lambda: qg.LSTM.from_state_dict(qg.LSTM(5, 6).state_dict(), batchfirst=True), "batch_first"),
        (lambda: qg.LSTM(5, 6, merge="conkat", bidirectional=True), "concat"),
        (lambda: qg.LSTM(5, 6).load_state_dict(qg.LSTM(5, 6).state_dict(prefix="rnn."), prefix="rnn"), "rnn."),
        (
            lambda: qg.LSTM.from_state_dict(qg.LSTM(5, 6).state_dict(prefix="encoder.rnn."), name="encodr.rnn"),
            "encoder",
        ),
    ],
)
def test_did_you_mean(make, meant):
    with pytest.raises((TypeError, ValueError), match=f"did you mean .*{meant}"):
        make()


def test_a_keyword_that_resembles_none():
    with pytest.raises(TypeError, match=r"^LSTM\(\) got an unexpected keyword argument 'zzz'$"):
        qg.LSTM(5, 6, zzz=1)

    class Mine(qg.LSTM):
        def __init__(self, zzz):
            super().__init__(zzz, 6)

    assert Mine(zzz=5).input_size == 5


def test_the_documentation_of_options_is_there():
    """Of each option that is shown as a property; and none can be set."""
    for kind in (qg.LSTM, qg.RNN):
        for name in ("input_size", "dropout", "dtype", *(("zoneout",) if kind is qg.LSTM else ("nonlinearity",))):
            assert len(getattr(kind, name).__doc__) > 5
            with pytest.raises(AttributeError, match=name):
                setattr(kind(5, 6), name, 1)


class Twice:
    """An array of another library that answers differently each time."""

    def __init__(self, values, error=None):
        self.values, self.error, self.asked = values, error, 0

    def __array__(self, dtype=None, copy=None):
        self.asked += 1
        if self.error:
            raise self.error
        return self.values + (self.asked - 1)


def test_each_argument_is_read_once(lstm):
    state = (Twice(np.zeros((2, 3, 6))), Twice(np.zeros((2, 3, 6))))
    out = np.zeros((4, 3, 6), np.float32)
    resets, lengths, x = Twice(np.zeros((4, 3), int)), Twice(np.array([4, 0, 2])), Twice(X)
    y, _ = lstm(x, state, lengths=lengths, resets=resets, out=out)
    assert [a.asked for a in (x, *state, lengths, resets)] == [1] * 5
    assert same_bits(y, lstm(X, lengths=[4, 0, 2])[0])
    _, _, tape = lstm.forward(X)
    dy, dh = Twice(np.ones((4, 3, 6))), Twice(np.zeros((2, 3, 6)))
    lstm.backward(tape, dy, (dh, None), out={n: np.zeros(p.shape, np.float32) for n, p in lstm.params.items()})
    assert (dy.asked, dh.asked) == (1, 1)
    x = Twice(X)
    lstm.stream(3).run(x, out=out)
    assert x.asked == 1


def test_a_memory_error_stays_one(lstm):
    with pytest.raises(MemoryError, match="none left"):
        lstm(Twice(X, MemoryError("none left")))
    with pytest.raises(TypeError, match="x cannot be read"):
        lstm(Twice(X, KeyError("none left")))


class Frame:
    """A table whose columns NumPy reads as objects, as pandas' nullable ones."""

    def __init__(self, value):
        self.value = value

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.value).astype(object)

    def to_numpy(self, dtype):
        return np.asarray(self.value, dtype)


def test_a_table_of_objects_is_told_how(lstm):
    weights = {**qg.LSTM(5, 6).state_dict(), "weight_ih_l0": Frame(np.zeros((24, 5)))}
    calls = {
        "x": ("np.float32", lambda: lstm(Frame(X))),
        "weight_ih_l0": ("np.float32", lambda: qg.LSTM(5, 6).load_state_dict(weights)),
        "lengths": ("np.int64", lambda: lstm(X, lengths=Frame([1, 2, 3]))),
        "mask": ("bool", lambda: lstm(X, mask=Frame(np.ones((4, 3))))),
        "resets": ("bool", lambda: lstm.stream(3).run(X, resets=Frame(np.ones((4, 3))))),
    }
    for name, (needed, call) in calls.items():
        with pytest.raises(TypeError, match=rf"^{name} must hold .*: pass \.to_numpy\({needed}\)"):
            call()
    for value in ({1, 2}, (n for n in (1, 2, 3)), X.astype(object)):  # no tables
        with pytest.raises(TypeError, match=r"must hold .*, got dtype object$"):
            lstm(X, lengths=value)


class TestOtherLibraries:
    """bfloat16 and parameters that require gradients."""

    def test_bfloat16_arrays(self, lstm):
        bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
        x = X.astype(bfloat16)
        assert same_bits(lstm(x)[0], lstm(x.astype(np.float32))[0])
        values = {name: value.astype(bfloat16) for name, value in lstm.params.items()}
        other = qg.LSTM(5, 6, 2)
        other.load_state_dict(values)
        made = qg.LSTM.from_state_dict(values)
        assert made.dtype == np.float32
        for name, value in values.items():
            assert same_bits(other.params[name], value.astype(np.float32))
            assert same_bits(made.params[name], value.astype(np.float32))

    def test_bfloat16_tensors(self, lstm):
        torch = pytest.importorskip("torch")
        x = torch.from_numpy(X).bfloat16()
        assert same_bits(lstm(x)[0], lstm(x.float().numpy())[0])
        theirs = torch.nn.LSTM(5, 6, 2, dtype=torch.bfloat16)
        ours = qg.LSTM.from_state_dict(theirs.state_dict())
        for name, value in theirs.state_dict().items():
            if name.startswith("weight"):
                assert same_bits(ours.params[name], value.float().numpy())

    def test_parameters_that_require_gradients(self):
        torch = pytest.importorskip("torch")
        theirs = torch.nn.LSTM(5, 6, 2, bidirectional=True)
        ours = qg.LSTM(5, 6, 2, bidirectional=True)
        ours.load_state_dict(dict(theirs.named_parameters()))
        made = qg.LSTM.from_state_dict(dict(theirs.named_parameters()))
        for name, value in ours.params.items():
            assert same_bits(value, made.params[name])
        assert same_bits(ours.params["weight_hh_l1_reverse"], theirs.weight_hh_l1_reverse.detach().numpy())
        computed = torch.ones(4, 3, 5, requires_grad=True) * 2  # its graph would be lost silently
        with pytest.raises(TypeError, match="x cannot be read"):
            ours(computed)
