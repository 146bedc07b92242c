"""Single steps, by streams and by calls: the same bits with every number of threads and in every kind of call."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import quadgate as qg

pytestmark = pytest.mark.numbers

STEPS = 12  # in quick succession: after the first ones the pool's threads are awake

NETWORKS = {
    "one row": (qg.LSTM, 1, 64, 256, {}),
    "rows": (qg.LSTM, 7, 90, 200, {}),
    "many rows": (qg.LSTM, 33, 24, 130, {}),
    "layers": (qg.LSTM, 3, 40, 256, {"num_layers": 3, "peephole": True, "bias": False}),
    "coupled": (qg.LSTM, 2, 300, 150, {"coupled": True}),
    "double": (qg.LSTM, 4, 64, 120, {"dtype": "float64"}),
    "rnn": (qg.RNN, 5, 256, 512, {}),
    "projection": (qg.LSTM, 2, 64, 256, {"proj_size": 100}),
}


@pytest.fixture(params=NETWORKS, name="case")
def _case(request):
    kind, batch, inputs, hidden, options = NETWORKS[request.param]
    net = kind(inputs, hidden, rng=0, **options)
    x = np.random.default_rng(1).standard_normal((STEPS, batch, inputs)).astype(net.dtype)
    return net, x


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def by_stream(net, x):
    stream = net.stream(x.shape[1])
    y = np.stack([stream.step(row) for row in x])
    return [y, *parts(stream.state)]


def by_calls(net, x, **arguments):
    state, y = None, []
    for t in range(len(x)):
        one, state = net(x[t : t + 1], state, **arguments)
        y.append(one[0])
    return [np.stack(y), *parts(state)]


def assert_same(got, want):
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_threads(case):
    net, x = case
    qg.set_num_threads(1)
    y, state = net(x)
    want = [y, *parts(state)]
    for threads in (1, 2, 3, 5):
        qg.set_num_threads(threads)
        assert_same(by_stream(net, x), want)
        assert_same(by_calls(net, x), want)


@pytest.mark.parametrize("scheme", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize("batch", [1, 3, 20])
def test_compact_weights(scheme, batch):
    net = qg.LSTM(200, 300, num_layers=2, rng=0).quantize(scheme)
    x = np.random.default_rng(1).standard_normal((STEPS, batch, 200)).astype(np.float32)
    qg.set_num_threads(1)
    y, state = net(x)
    for threads in (1, 2, 3):
        qg.set_num_threads(threads)
        assert_same(by_stream(net, x), [y, *state])
        assert_same(by_calls(net, x), [y, *state])


def test_other_calls(case):
    """Lengths and resets, which take another way, change nothing where they say what is so anyway."""
    net, x = case
    qg.set_num_threads(2)
    want = by_calls(net, x)
    batch = x.shape[1]
    assert_same(by_calls(net, x, lengths=np.ones(batch, int)), want)
    assert_same(by_calls(net, x, resets=np.zeros((1, batch), bool)), want)


@pytest.mark.parametrize("given", [False, True], ids=["no state", "a state"])
def test_training(case, given):
    """Outputs and all gradients of a step, as those of a call with lengths, which takes another way."""
    net, x = case
    one = np.ones(x.shape[1], int)
    _, state = net(x[:1]) if given else (None, None)
    dy = np.random.default_rng(2).standard_normal(net(x[1:2])[0].shape).astype(net.dtype)

    def trained(**arguments):
        y, after, tape = net.forward(x[1:2], state, **arguments)
        grads = net.backward(tape, dy)
        zeros = (grads.h0, grads.c0) if isinstance(net, qg.LSTM) else (grads.h0,)
        return [y, *parts(after), grads.x, *zeros, *grads.params.values()]

    qg.set_num_threads(1)
    want = trained(lengths=one)
    for threads in (1, 2, 3, 5):
        qg.set_num_threads(threads)
        for _ in range(3):
            assert_same(trained(), want)


def test_a_tape_keeps_its_input():
    """Backward reads the x of the call, whatever the caller writes there afterwards, and no other call's."""
    lstm = qg.LSTM(400, 512, rng=0)  # more than one thread's work
    x = np.random.default_rng(1).standard_normal((1, 6, 400)).astype(np.float32)
    dy = np.ones((1, 6, 512), np.float32)
    _, _, tape = lstm.forward(x, lengths=np.ones(6, int))
    want = lstm.backward(tape, dy).params
    for threads in (1, 2, 3):
        qg.set_num_threads(threads)
        lstm.forward(x + 1)
        mine = x.copy()
        _, _, tape = lstm.forward(mine)
        mine[:] = np.nan
        assert_same(lstm.backward(tape, dy).params.values(), want.values())


MASKED = [
    {"zoneout": (0.0, 0.5)},
    {"zoneout": (0.5, 0.0)},
    {"recurrent_dropout": 0.5},
    {"weight_drop": 0.5},
    {"dropout": 0.5, "num_layers": 2},
]


@pytest.mark.parametrize("options", MASKED, ids=str)
def test_masks_of_training(options):
    """A training call of one step draws its masks, and drops with them, as one with lengths."""
    lstm = qg.LSTM(40, 130, rng=0, **options)
    x = np.random.default_rng(1).standard_normal((1, 5, 40)).astype(np.float32)
    _, state = lstm(x)
    dy = np.ones((1, 5, 130), np.float32)

    def trained(seed, **arguments):
        y, (h, c), tape = lstm.forward(x, state, rng=seed, **arguments)
        return [y, h, c, *lstm.backward(tape, dy).params.values()]

    want = trained(7, lengths=np.ones(5, int))
    assert not all(np.array_equal(*pair) for pair in zip(trained(8), want, strict=True))
    for threads in (1, 2, 3):
        qg.set_num_threads(threads)
        assert_same(trained(7), want)


def test_a_part_of_a_state(case):
    """A state of zeros is none; h or c alone is the same as with zeros beside it."""
    net, x = case
    qg.set_num_threads(2)
    y, state = net(x[:1])
    zeros = tuple(np.zeros_like(part) for part in parts(state))
    got, _ = net(x[:1], zeros if len(zeros) > 1 else zeros[0])
    np.testing.assert_array_equal(got, y)
    if isinstance(net, qg.RNN):
        return
    h, c = state
    for given, whole in (((h, None), (h, zeros[1])), ((None, c), (zeros[0], c))):
        got, got_state = net(x[1:2], given)
        want, want_state = net(x[1:2], whole)
        assert_same([got, *got_state], [want, *want_state])


def test_infinite_weights():
    """Zero times infinity stays NaN in a first step."""
    lstm = qg.LSTM(64, 256, rng=0)
    with lstm.writable() as params:
        params["weight_hh_l0"][5, 7] = np.inf
    x = np.ones((1, 6, 64), np.float32)
    for threads in (1, 2):
        qg.set_num_threads(threads)
        for _ in range(3):
            y, (h, c) = lstm(x)
            assert np.isnan(y[0, :, 5]).all()
            assert np.isnan(h[0, :, 5]).all()
            assert np.isnan(c[0, :, 5]).all()
            assert np.isfinite(np.delete(y, 5, axis=2)).all()


def test_number_of_threads_between_steps():
    lstm = qg.LSTM(64, 256, rng=0)
    x = np.random.default_rng(1).standard_normal((30, 4, 64)).astype(np.float32)
    qg.set_num_threads(1)
    want, _ = lstm(x)
    stream = lstm.stream(4)
    for t, row in enumerate(x):
        qg.set_num_threads(1 + t % 4)
        np.testing.assert_array_equal(stream.step(row), want[t])


def test_streams_in_several_threads(case):
    """Each gets as many of the pool's threads as are free."""
    net, x = case
    qg.set_num_threads(1)
    want = by_stream(net, x)
    qg.set_num_threads(3)
    with ThreadPoolExecutor(3) as pool:
        for got in pool.map(lambda way: way(net, x), [by_stream, by_calls] * 6):
            assert_same(got, want)
