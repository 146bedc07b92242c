"""Steps that do not count, in models: x there may hold anything, in batches and step by step."""

import numpy as np
import pytest
import quadgate as qg
from quadgate import train

LENGTHS = np.array([6, 3, 2, 5])
MASK = np.arange(6) < LENGTHS[:, None]


def features():
    return np.random.default_rng(1).standard_normal((4, 6, 3))


def new_model(*layers):
    model = train.Sequential([*layers, train.FinalState(), train.Dense(5, 2)], rng=0)
    model.compile("softmax_cross_entropy", train.SGD(0.1))
    return model


@pytest.mark.parametrize("given", [{"lengths": LENGTHS}, {"mask": MASK}], ids=["lengths", "mask"])
@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e30])
def test_junk_in_front_of_a_dense(given, junk):
    """Its weights' gradient is x times dy: a NaN there times the zero of a step that does not count is NaN."""
    x, y = features(), [0, 1, 0, 1]
    clean, dirty = (new_model(train.Dense(3, 4), qg.LSTM(4, 5, rng=0)) for _ in range(2))
    loss = clean.train_on_batch(np.where(MASK[..., None], x, 0), y, **given)
    assert dirty.train_on_batch(np.where(MASK[..., None], x, junk), y, **given) == loss
    assert dirty.params.flat.tobytes() == clean.params.flat.tobytes()
    assert np.isfinite(dirty.params.flat).all()


def test_no_symbol_need_be_there():
    x = np.where(MASK, np.arange(24).reshape(4, 6) % 10, -100)
    model = new_model(train.Embedding(10, 4), qg.LSTM(4, 5, rng=0))
    want = model.predict(np.where(MASK, x, 3), lengths=LENGTHS)
    assert np.array_equal(model.predict(x, lengths=LENGTHS), want)
    masked = new_model(train.Masking(-100), train.Embedding(10, 4), qg.LSTM(4, 5, rng=0))
    masked.load_params(dict(zip(masked.params, model.params.values(), strict=True)))
    assert np.array_equal(masked.predict(x), want)
    with pytest.raises(ValueError, match="x must"):
        model.predict(x)


@pytest.mark.parametrize("net", [qg.LSTM(3, 5, rng=0), qg.RNN(3, 5, rng=0)], ids=["lstm", "rnn"])
def test_a_stream_skips_what_a_mask_skips(net):
    model = new_model(train.Masking(0.0), net)
    x = features()
    x[1, 2] = x[:, 4] = x[2, 5] = 0
    stream = model.stream(4)
    for t in range(6):
        y = stream.step(x[:, t].astype(np.float32))
        assert np.array_equal(y, model.predict(x[:, : t + 1]))


def test_a_stream_compares_in_the_type_of_the_model():
    """0.1 in float32 is another number than in float64: x is converted first, in a stream as in a batch."""
    model = new_model(train.Masking(0.1), qg.LSTM(1, 5, rng=0))
    x = np.full((1, 2, 1), np.float32(0.1)).astype(np.float64)
    stream = model.stream()
    for t in range(2):
        y = stream.step(x[:, t])
    assert np.array_equal(y, model.predict(x))
    assert not stream.states[0][0].any()


def test_numbers_without_steps_have_nothing_to_skip():
    """x (B, I): a length or a mask would cut features off."""
    dense = train.Sequential([train.Dense(4, 2)], rng=0)
    masked = train.Sequential([train.Masking(), train.Dense(4, 2)], rng=0)
    x = np.ones((3, 4))
    with pytest.raises(ValueError, match=r"lengths must be left out for x without steps.*got \(3, 4\)"):
        dense.predict(x, lengths=[1, 2, 3])
    with pytest.raises(ValueError, match="mask must be left out"):
        dense.predict(x, mask=np.ones((3, 4), bool))
    with pytest.raises(ValueError, match=r"x must have shape \(B, T, I\) behind Masking"):
        masked.predict(x)
    assert masked.predict(x[:, None]).shape == (3, 1, 2)


def test_a_stream_of_every_step():
    model = train.Sequential([train.Masking(-1), train.Embedding(9, 3), qg.LSTM(3, 5, rng=0), train.Dense(5, 2)], rng=0)
    x = np.array([[4, -1, 5, 2, -1, 8], [-1, 1, 2, 3, 0, -1]])
    stream = model.stream(2)
    got = np.stack([stream.step(x[:, t]) for t in range(6)], axis=1)
    assert np.array_equal(got, model.predict(x))


@pytest.mark.parametrize("first", [[], [train.Dense(3, 3)]], ids=["lstm", "dense"])
def test_x_without_steps_is_refused(first):
    model = train.Sequential([*first, qg.LSTM(3, 5, batch_first=True, rng=0), train.Dense(5, 2)], rng=0)
    with pytest.raises(ValueError, match=r"x must have shape \(B, T, I\), got \(4, 3\)"):
        model.predict(features()[:, 0])


def test_rows_and_states_of_a_stream():
    model = new_model(qg.LSTM(3, 5, rng=0))
    stream = model.stream(3)
    stream.step(features()[:3, 0].astype(np.float32))
    for rows in ([False, False, True], [1.9], [-1], [3], [[0]]):
        with pytest.raises((TypeError, ValueError), match="rows must"):
            stream.select(rows)
    two = train.Sequential([qg.LSTM(3, 4, rng=0), qg.LSTM(4, 5, rng=0), train.FinalState(), train.Dense(5, 2)], rng=0)
    stream = two.stream(3)
    stream.step(features()[:3, 0].astype(np.float32))
    before = stream.states
    with pytest.raises(ValueError, match="states must have one"):
        stream.states = before[:1]
    with pytest.raises(ValueError, match="must have shape"):
        stream.states = [tuple(np.zeros_like(part) for part in before[0]), tuple(part[:, :1] for part in before[1])]
    for a, b in zip(before, stream.states, strict=True):
        assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))
