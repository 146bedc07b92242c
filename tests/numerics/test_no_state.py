"""Without a state the first h is zero: results are those of a state of zeros, though products with it are left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quadgate as qg
from support.cases import DTYPES, Case, Found, data, model, plain, run, same_bits
from support.verdicts import check, judge

pytestmark = pytest.mark.numbers

# One below, at and one above a vector, two, three and four of them, of each instruction set.
SIZES = (1, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40, 48, 63, 64, 65, 90, 128, 130)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3, "dropout": 0.3},
    {"num_layers": 2, "bidirectional": True, "merge": "mul"},
    {"reverse": True, "bias": False},
    {"proj_size": 5, "peephole": True},
    {"peephole": True, "zoneout": (0.1, 0.2), "recurrent_dropout": 0.2},
    {"weight_drop": 0.3},
    {"layer_norm": "cell"},
    {"num_layers": 2, "shortcut": "highway"},
    {"num_layers": 3, "shortcut": "dense", "coupled": True},
    {"num_layers": 2, "shortcut": "residual", "nonlinearity": "tanh"},
]
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def zero_state(case: Case) -> tuple[Any, Any]:
    rows = case.layers * case.directions
    columns = (case.columns, 0 if case.rnn else case.hidden)
    h, c = (np.zeros((rows, case.batch, n), case.dtype) for n in columns)
    return h, c


def equal(got: Found, want: Found, what: object) -> None:
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=f"{name}, {what}")


def both_ways(case: Case, net: Any, d: Any) -> None:
    """Train and infer twice: the first call with new weights may do what a later one leaves out."""
    zeros = d._replace(state=zero_state(case))
    want = run(case, net, zeros)
    state = zeros.state[0] if case.rnn else zeros.state
    kw = {} if d.lengths is None else {"lengths": d.lengths}
    for _ in range(2):
        equal(run(case, net, d), want, case)
        y, _ = net(d.x, **kw)
        np.testing.assert_array_equal(y, net(d.x, state, **kw)[0], err_msg=str(case))


@every_dtype
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_as_with_zeros(options, dtype):
    for steps, batch, lengths in ((1, 1, False), (1, 5, False), (1, 6, True), (4, 3, False), (4, 9, True)):
        case = Case(steps, batch, 19, 33, options, lengths, resets=steps > 1, state=False, dtype=dtype)
        both_ways(case, model(case), data(case))


@every_dtype
def test_as_with_zeros_in_many_blocks_of_rows(dtype):
    """The last block may be the first step alone, of which no row has an h."""
    for steps, batch, lengths in ((1, 1500, False), (2, 1100, False), (3, 700, True), (300, 5, False)):
        case = plain(steps, batch, 17, 24, 2, lengths=lengths, state=False, dtype=dtype)
        both_ways(case, model(case), data(case))


@every_dtype
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_against_the_reference(options, dtype):
    for steps, batch in ((1, 5), (3, 4)):
        check(Case(steps, batch, 9, 17, options, state=False, dtype=dtype))


@every_dtype
@pytest.mark.parametrize("layers", [1, 2])
def test_many_blocks_of_rows_against_the_reference(layers, dtype):
    """More than 1024 rows are several blocks; of one layer or more, with x in panels on the tape."""
    check(plain(5, 300, 130, 8, layers, state=False, dtype=dtype))
    check(plain(5, 300, 48, 16, layers, dtype=dtype))


@every_dtype
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"proj_size": 6}], ids=str)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_weights_that_are_not_finite(bad, options, dtype):
    """Zero times an infinite weight is NaN: the same elements are NaN as in the reference, in each of several calls."""
    for steps, batch in ((1, 1), (1, 4), (3, 4), (3, 1)):
        case = Case(steps, batch, 9, 17, options, state=False, dtype=dtype)
        last = case.layers - 1
        for name, at in (("weight_hh_l0", 0), (f"weight_hh_l{last}", -1)):
            net, d = model(case), data(case)
            with net.writable() as params:
                params[name].flat[at] = bad
            with np.errstate(all="ignore"):
                want, _ = judge(case, net.params, d, backward=False)
            for _ in range(3):
                y, (h, c) = net(d.x)
                for value, right in ((y, want.y), (h, want.h), (c, want.c)):
                    np.testing.assert_array_equal(np.isnan(value), np.isnan(right))
            both_ways(case, net, d)


@every_dtype
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"peephole": True}], ids=str)
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_gradients_that_are_not_finite(bad, options, dtype):
    """Zero times an infinite gradient is NaN, too: with gradients in panels, for (5, 40), and with x and h in them."""
    for steps in (1, 3):
        for inputs, hidden in ((40, 63), (5, 40), (130, 8)):
            case = Case(steps, 4, inputs, hidden, options, state=False, given=(True, False, False, False), dtype=dtype)
            net, d = model(case), data(case)
            d.dy[0, 1, hidden // 2] = bad
            with np.errstate(all="ignore"):
                want, _ = judge(case, net.params, d)
            got = run(case, net, d)
            for name, value in got.items():
                np.testing.assert_array_equal(np.isnan(value), np.isnan(want[name]), err_msg=name)
            both_ways(case, net, d)


@every_dtype
@pytest.mark.parametrize("layers", [1, 2])
def test_finite_gradients_whose_sum_overflows(layers, dtype):
    """The bias's gradient becomes infinite; that of weight_hh, a sum of products with zero, stays zero."""
    for inputs, hidden in ((16, 8), (40, 63), (5, 40)):
        case = plain(1, 300, inputs, hidden, layers, state=False, dtype=dtype)
        net, d = model(case), data(case)
        d.x[...], d.dy[...] = 1, np.finfo(dtype).max
        got = run(case, net, d)
        assert np.isinf(got[f"bias_l{layers - 1}"]).any()
        assert not got[f"weight_hh_l{layers - 1}"].any()
        both_ways(case, net, d)


def widened(net: Any, inputs: int, hidden: int) -> Any:
    """The same network with more inputs and hidden units, whose weights are zero."""
    wide = qg.LSTM(inputs, hidden, dtype=net.dtype)
    with wide.writable() as params:
        for name, value in params.items():
            value[...] = 0
            small = net.params[name]
            rows = small.shape[0] // 4
            gates = value.reshape(4, hidden, -1)
            gates[:, :rows, : small.shape[1] if small.ndim > 1 else 1] = small.reshape(4, rows, -1)
    return wide


@every_dtype
@pytest.mark.parametrize("steps", [1, 3])
def test_gradients_at_every_tail(steps, dtype):
    """Sums have one order for all sizes, so inputs and units that are zero change no bit of the others' gradients."""
    for fixed, sizes in (((None, 24), SIZES), ((40, None), SIZES)):
        for n in sizes:
            inputs, hidden = n if fixed[0] is None else fixed[0], n if fixed[1] is None else fixed[1]
            case = plain(steps, 3, inputs, hidden, state=False, dtype=dtype)
            net, d = model(case), data(case)
            wide = widened(net, 131, 132)
            x, dy = np.zeros((steps, 3, 131), dtype), np.zeros((steps, 3, 132), dtype)
            x[..., :inputs], dy[..., :hidden] = d.x, d.dy
            got = net.backward(net.forward(d.x)[-1], d.dy)
            want = wide.backward(wide.forward(x)[-1], dy)
            assert same_bits(got.x, np.ascontiguousarray(want.x[..., :inputs])), (inputs, hidden)
            for name, value in got.params.items():
                columns = value.shape[1] if value.ndim > 1 else 1
                right = want.params[name].reshape(4, 132, -1)[:, :hidden, :columns].reshape(value.shape)
                np.testing.assert_array_equal(value, right, err_msg=f"{name}, {inputs}, {hidden}")
