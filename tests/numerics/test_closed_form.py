"""Networks whose output is known without a reference, and statements that every LSTM must satisfy."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from support import bounds
from support.cases import DTYPES, data, model, plain, same_bits

pytestmark = pytest.mark.numbers


def gates_by_bias(lstm, i=None, f=None, o=None, suffix="_l0"):
    """Drive gates to exactly 0 or 1 by biases of -1000 or 1000, without regard to their input."""
    hidden = len(lstm.params["bias" + suffix]) // 4
    with lstm.writable() as params:
        for place, value in ((0, i), (1, f), (3, o)):
            if value is not None:
                rows = slice(place * hidden, (place + 1) * hidden)
                params["weight_ih" + suffix][rows] = 0
                params["weight_hh" + suffix][rows] = 0
                params["bias" + suffix][rows] = 1000 if value else -1000


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hidden", [1, 4, 17, 33])
def test_forget_0_input_1_output_1(hidden, dtype):
    """h_t = tanh(tanh(W x_t + R h_{t-1} + b)), with the gates exactly 0 and 1."""
    case = plain(5, 3, 6, hidden, dtype=dtype)
    lstm, d = model(case), data(case)
    gates_by_bias(lstm, i=1, f=0, o=1)
    y, (h, c) = lstm(d.x, d.state)
    rows = slice(2 * hidden, 3 * hidden)
    w, r, b = (lstm.params[n][rows].astype(np.float64) for n in ("weight_ih_l0", "weight_hh_l0", "bias_l0"))
    weights = {name: np.asarray(value, np.float64) for name, value in lstm.params.items()}
    error, (h_error, c_error), _ = bounds.forward(dtype, weights, d.x, d.state, None, **case.kind)
    state = d.state[0][0].astype(np.float64)
    for t in range(5):
        cell = np.tanh(d.x[t] @ w.T + state @ r.T + b)
        state = np.tanh(cell)
        bounds.assert_within(y[t], state, error.e[t], f"y[{t}]")
    bounds.assert_within(h[0], state, h_error.e[0], "h")
    bounds.assert_within(c[0], cell, c_error.e[0], "c")


@pytest.mark.parametrize("dtype", DTYPES)
def test_forget_1_input_0_keeps_the_cell_exactly(dtype):
    case = plain(50, 4, 3, 19, 2, dtype=dtype)
    lstm, d = model(case), data(case)
    for suffix in ("_l0", "_l1"):
        gates_by_bias(lstm, i=0, f=1, suffix=suffix)
    _, (_, c) = lstm(d.x, d.state)
    assert same_bits(c, d.state[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_output_0_is_silent(dtype):
    case = plain(5, 4, 3, 19, 1, True, dtype=dtype)
    lstm, d = model(case), data(case)
    gates_by_bias(lstm, o=0)
    gates_by_bias(lstm, o=0, suffix="_l0_reverse")
    y, (h, c) = lstm(d.x, d.state)
    assert not y.any()
    assert not h.any()
    assert c.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_counting(dtype):
    """All gates 1 and g = tanh(1000) = 1: the cell counts the steps, exactly."""
    lstm = qg.LSTM(2, 5, dtype=dtype)
    gates_by_bias(lstm, i=1, f=1, o=1)
    with lstm.writable() as params:
        params["weight_ih_l0"][10:15] = 0
        params["weight_hh_l0"][10:15] = 0
        params["bias_l0"][10:15] = 1000
    _, (_, c) = lstm(np.ones((777, 3, 2), dtype))
    assert (c == 777).all()


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_no_state_is_a_state_of_zeros(bidirectional, lengths):
    case = plain(10, 32, 30, 20, 2, bidirectional, lengths=lengths)
    lstm, d = model(case), data(case)
    zeros = np.zeros_like(d.state[0])
    y, (h, c) = lstm(d.x, lengths=d.lengths)
    y0, (h0, c0) = lstm(d.x, (zeros, zeros), lengths=d.lengths)
    assert same_bits(y, y0)
    assert same_bits(h, h0)
    assert same_bits(c, c0)


def test_the_reverse_direction_is_the_forward_one_on_the_reversed_sequence():
    case = plain(7, 5, 6, 18, 1, True)
    both, d = model(case), data(case)
    one = qg.LSTM(6, 18)
    for suffix, part, flip in (("", 0, 1), ("_reverse", 1, -1)):
        with one.writable() as params:
            for name in params:
                params[name][...] = both.params[name + suffix]
        y, (h, c) = one(d.x[::flip], tuple(s[part : part + 1] for s in d.state))
        got, (h_both, c_both) = both(d.x, d.state)
        assert same_bits(np.ascontiguousarray(got[::flip, :, 18 * part : 18 * (part + 1)]), y)
        assert same_bits(h_both[part : part + 1], h)
        assert same_bits(c_both[part : part + 1], c)


def test_layers_are_networks_one_on_the_other():
    case = plain(6, 5, 7, 18, 3)
    lstm, d = model(case), data(case)
    want, (h, c) = lstm(d.x, d.state)
    y = d.x
    for layer in range(3):
        one = qg.LSTM(7 if layer == 0 else 18, 18)
        with one.writable() as params:
            for name in params:
                params[name][...] = lstm.params[name.replace("_l0", f"_l{layer}")]
        y, (h_one, c_one) = one(y, tuple(s[layer : layer + 1] for s in d.state))
        assert same_bits(h_one, h[layer : layer + 1])
        assert same_bits(c_one, c[layer : layer + 1])
    assert same_bits(y, want)


def test_no_bias_is_a_bias_of_zeros():
    case = plain(6, 5, 7, 18, 2, True, bias=False)
    lstm, d = model(case), data(case)
    zeros = qg.LSTM(7, 18, 2, bidirectional=True)
    with zeros.writable() as params:
        for name, value in params.items():
            value[...] = 0 if name.startswith("bias") else lstm.params[name]
    np.testing.assert_array_equal(lstm(d.x, d.state)[0], zeros(d.x, d.state)[0])


def test_number_of_parameters():
    """Embedding(1000, 64), LSTM(64, 128) and Linear(128, 10), with one bias each where there is one: 164106."""
    lstm = qg.LSTM(64, 128)
    assert lstm.num_parameters == 98816
    assert 1000 * 64 + lstm.num_parameters + (128 + 1) * 10 == 164106
    for case in (plain(1, 1, 3, 5, 2, True), plain(1, 1, 7, 2, 3, bias=False)):
        lstm = model(case)
        assert lstm.num_parameters == sum(value.size for value in lstm.params.values())


def test_names_and_shapes_of_parameters():
    lstm = qg.LSTM(3, 5, 2, bidirectional=True)
    assert {name: value.shape for name, value in lstm.params.items()} == {
        "weight_ih_l0": (20, 3),
        "weight_hh_l0": (20, 5),
        "bias_l0": (20,),
        "weight_ih_l0_reverse": (20, 3),
        "weight_hh_l0_reverse": (20, 5),
        "bias_l0_reverse": (20,),
        "weight_ih_l1": (20, 10),
        "weight_hh_l1": (20, 5),
        "bias_l1": (20,),
        "weight_ih_l1_reverse": (20, 10),
        "weight_hh_l1_reverse": (20, 5),
        "bias_l1_reverse": (20,),
    }
    assert list(qg.LSTM(3, 5, bias=False).params) == ["weight_ih_l0", "weight_hh_l0"]
