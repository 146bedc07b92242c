"""`train.Sequential` by itself: gradients, weights, masks, states, changes that fail; and what it refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import quadgate as qg
from quadgate import train
from support.small_models import LENGTHS, SYMBOLS, B, T, classifier, data, tagger

U32 = 2.0**-24


@pytest.mark.parametrize("make", [tagger, classifier])
def test_gradients_by_central_differences(make):
    model = make("float64", rng=3)
    model.compile("softmax_cross_entropy", "sgd")
    x, y = data(make is tagger)
    weights = np.random.default_rng(0).uniform(0.5, 2, B)
    arguments = {"lengths": LENGTHS, "sample_weight": weights}
    _, grads = model.gradients(x, y, **arguments)
    at = model.params.flat.copy()
    direction = np.random.default_rng(1).normal(size=at.size)

    def loss(step):
        moved, start, values = at + step * direction, 0, {}
        for name, value in model.params.items():
            values[name] = moved[start : start + value.size].reshape(value.shape)
            start += value.size
        model.load_params(values)
        return model.gradients(x, y, **arguments)[0]

    step = 1e-3 / np.linalg.norm(direction)
    slope = (8 * (loss(step) - loss(-step)) - (loss(2 * step) - loss(-2 * step))) / (12 * step)
    # Order 4: the rest is step^4 times the fifth derivative along a unit vector, of order 1, and roundings / step.
    assert abs(slope - grads.flat @ direction) <= 1e-10 * np.linalg.norm(direction) * 10


def test_weights_masks_and_lengths_agree():
    """A weight of 0, a masked step and one past the length are the same to the loss where the state is not read."""
    model = tagger()
    model.compile("softmax_cross_entropy", "sgd")
    x, y = data()
    kept = np.arange(T) < LENGTHS[:, None]
    by_length = model.gradients(x, y, lengths=LENGTHS)
    by_mask = model.gradients(x, y, mask=kept)
    both = model.gradients(x, y, lengths=LENGTHS, sample_weight=kept.astype(float))
    for other in (by_mask, both):
        assert other[0] == by_length[0]
        assert other[1].flat.tobytes() == by_length[1].flat.tobytes()
    poisoned = np.where(kept, y, 0)
    assert model.gradients(np.where(kept, x, 3), poisoned, lengths=LENGTHS)[0] == by_length[0]
    twice = model.gradients(x, y, sample_weight=np.full(B, 2.0))
    assert twice[0] == model.gradients(x, y)[0]


def test_the_same_bits_over_threads():
    results = []
    for threads in (1, 2, 3):
        qg.set_num_threads(threads)
        model = tagger(dropout=0.3)
        model.compile("softmax_cross_entropy", train.AdamW(0.01, clip_norm=0.3))
        losses = [model.train_on_batch(*data(seed=k), lengths=LENGTHS) for k in range(4)]
        results.append((losses, model.params.flat.tobytes(), model.predict(data()[0], batch_size=threads).tobytes()))
    assert results[0] == results[1] == results[2]


def test_layers_are_the_callers_objects():
    lstm = qg.LSTM(8, 10, rng=0)
    model = train.Sequential([train.Embedding(SYMBOLS, 8), lstm, train.Dense(10, 5)], rng=0)
    assert model.layers[1] is lstm
    model.compile("softmax_cross_entropy", "adam")
    before = lstm.params.flat.copy()
    model.train_on_batch(*data())
    assert (lstm.params.flat != before).any()
    x = np.zeros((B, T, 8), np.float32)
    with lstm.writable() as params:
        params["bias_l0"][...] = 0
    assert not model.params["1.bias_l0"].any()
    assert not lstm(x.swapaxes(0, 1))[0].any()


def test_params_are_one_vector():
    model = tagger()
    model.compile("softmax_cross_entropy", "adam")
    for _ in range(2):
        params = model.params
        assert params is model.params
        assert list(params)[:2] == ["0.weight", "1.weight_ih_l0"]
        assert params.flat.size == model.num_parameters
        assert np.array_equal(params.flat, np.concatenate([v.ravel() for v in params.values()]))
        assert all(np.shares_memory(v, params.flat) for v in params.values())
        with pytest.raises(ValueError, match="WRITEABLE"):
            params.flat.flags.writeable = True
        _, grads = model.gradients(*data())
        assert list(grads) == list(params)
        assert np.array_equal(grads.flat, np.concatenate([v.ravel() for v in grads.values()]))
        model.train_on_batch(*data())


def test_own_loop_equals_train_on_batch():
    one, other = tagger(), tagger()
    for model in (one, other):
        model.compile("softmax_cross_entropy", train.Adam(0.01))
    for k in range(3):
        loss, grads = one.gradients(*data(seed=k))
        one.apply_gradients(grads)
        assert loss == other.train_on_batch(*data(seed=k))
    assert one.step == other.step == 3
    assert one.params.flat.tobytes() == other.params.flat.tobytes()


def test_own_loop_of_a_stateful_model():
    one, other = (
        train.Sequential([train.Embedding(SYMBOLS, 8), qg.LSTM(8, 10, rng=0), train.Dense(10, 5)], stateful=True, rng=0)
        for _ in range(2)
    )
    for model in (one, other):
        model.compile("softmax_cross_entropy", "adam")
    for k in range(3):
        loss, grads = one.gradients(*data(seed=k))
        one.apply_gradients(grads)
        assert loss == other.train_on_batch(*data(seed=k))


def test_dropout_acts_in_training_only():
    model = classifier(rate=0.5)
    model.compile("softmax_cross_entropy", train.SGD(0.0))
    x, y = data(False)
    losses = {model.train_on_batch(x, y) for _ in range(4)}
    assert len(losses) == 4
    assert model.predict(x).tobytes() == model.predict(x).tobytes()
    assert abs(model.evaluate(x, y)["loss"] - np.mean(list(losses))) < 1


def test_a_head_is_applied_by_predict_alone():
    x, y = data()
    plain = tagger()
    layers = [train.Embedding(SYMBOLS, 8), plain.layers[1], train.Dense(20, 5)]
    model = train.Sequential(layers, head="softmax", rng=0)
    p, z = model.predict(x), plain.predict(x)
    want = np.exp(z.astype(np.float64))
    want /= want.sum(-1, keepdims=True)
    assert np.abs(p - want).max() <= 40 * U32
    for m in (model, plain):
        m.compile("sparse_categorical_crossentropy", "sgd")
    assert model.evaluate(x, y) == plain.evaluate(x, y)
    with pytest.raises(ValueError, match="head='softmax' needs the loss softmax_cross_entropy, got mse"):
        model.compile("mse")


@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_a_head_under_numpys_strict_errors(head):
    """A probability below the least number is 0, which is no error."""
    model = train.Sequential([train.Dense(2, 2, bias=False)], head=head, rng=0)
    model.load_params({"0.weight": np.eye(2)})
    model.compile("categorical_crossentropy" if head == "softmax" else "binary_cross_entropy")
    with np.errstate(all="raise"):
        assert model.predict([[500.0, -500.0]]).tolist() == [[1.0, 0.0]]
        assert model.train_on_batch([[500.0, -500.0]], [[1.0, 0.0]]) == 0.0


def test_nan_stops_with_nothing_changed():
    model = train.Sequential([qg.LSTM(3, 4, rng=0), train.Dense(4, 1)], rng=0)
    model.compile("mse", "adam")
    x, y = np.zeros((2, 5, 3)), np.zeros((2, 5, 1))
    before = model.params.flat.tobytes()
    y[0, 2] = np.nan
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 0.*clip_norm"):
        model.train_on_batch(x, y)
    assert model.step == 0
    assert model.params.flat.tobytes() == before


def test_gradients_that_are_not_finite_stop_with_nothing_changed():
    """The loss ignores the row of weight 0, its gradient is 0 times NaN."""
    model = train.Sequential([qg.LSTM(3, 4, rng=0), train.Dense(4, 1)], rng=0)
    model.compile("mse", "adam")
    x, y = np.ones((2, 5, 3)), np.zeros((2, 5, 1))
    x[1, 2] = np.nan
    before = model.params.flat.tobytes()
    for call in (model.train_on_batch, model.fit):
        with pytest.raises(FloatingPointError, match="a gradient is NaN or infinite at step 0"):
            call(x, y, sample_weight=[1.0, 0.0])
    assert model.step == 0
    assert model.params.flat.tobytes() == before


def test_large_gradients_whose_sum_overflows_are_clipped():
    model = train.Sequential([train.Dense(3, 1, bias=False)], rng=0)
    model.load_params({"0.weight": np.zeros((1, 3))})
    model.compile("mae", train.SGD(1.0, clip_value=3.0))
    assert model.train_on_batch(np.full((1, 3), 3e38), [[1.0]]) == 1.0
    assert model.params["0.weight"].tolist() == [[3.0] * 3]


def test_gradients_of_the_callers_own():
    """Anything that NumPy reads as real numbers of the right shape; the result is that of plain arrays."""
    one, other = compiled(), compiled()
    _, grads = one.gradients(*data())
    one.apply_gradients(grads)
    other.apply_gradients({name: np.asfortranarray(g, np.float64).tolist() for name, g in grads.items()})
    assert one.params.flat.tobytes() == other.params.flat.tobytes()


def test_summary(capsys):
    layers = [train.Embedding(1000, 64), qg.LSTM(64, 128), train.FinalState(), train.Dense(128, 10)]
    model = train.Sequential(layers, stateful=False, rng=0)
    model.summary()
    said = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")]
    assert rows == [
        ["embedding (Embedding)", "(None, None, 64)", "64,000"],
        ["lstm (LSTM)", "(None, None, 128)", "98,816"],
        ["final_state (FinalState)", "(None, 128)", "0"],
        ["dense (Dense)", "(None, 10)", "1,290"],
    ]
    assert "Total params: 164,106 (641.04 KB)" in said
    assert model.num_parameters == 164_106


@pytest.mark.parametrize("stateful", [False, True])
def test_pickle(stateful):
    lstm = qg.LSTM(8, 10, rng=0)
    model = train.Sequential([train.Embedding(SYMBOLS, 8), lstm, train.Dense(10, 5)], stateful=stateful, rng=0)
    model.compile("softmax_cross_entropy", "adam")
    model.train_on_batch(*data())
    other = pickle.loads(pickle.dumps(model))
    assert model.train_on_batch(*data(seed=2)) == other.train_on_batch(*data(seed=2))
    assert model.params.flat.tobytes() == other.params.flat.tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_update_by_given_gradients_that_are_not_finite(bad):
    model = compiled()
    model.train_on_batch(*data())
    before, memory = model.params, model._memory
    with pytest.raises(FloatingPointError, match="a gradient is NaN or infinite at step 1"):
        model.apply_gradients(other(np.full(before["0.weight"].shape, bad)))
    assert model.params is before
    assert model._memory is memory


def test_no_update_is_lost(monkeypatch):
    """Another thread's step, or its new parameters, between the reading and the swap: an error, and theirs stay."""
    for change in (
        lambda model: model.train_on_batch(*data()),
        lambda model: model.load_params({name: value + 1 for name, value in model.params.items()}),
    ):
        model, seen = compiled(), []
        own = train.Optimizer.update

        def between(*arguments, model=model, change=change, seen=seen, own=own):
            result = own(*arguments)
            monkeypatch.setattr(train.Optimizer, "update", own)
            change(model)
            seen += [model.params.flat.copy(), model.step]
            return result

        monkeypatch.setattr(train.Optimizer, "update", between)
        with pytest.raises(RuntimeError, match="changed by other means during a training step"):
            model.train_on_batch(*data())
        assert model.params.flat.tobytes() == seen[0].tobytes()
        assert model.step == seen[1]
        model.train_on_batch(*data())


def test_compile_changes_all_or_nothing(monkeypatch):
    """An optimizer without its own state would read that of the one before."""
    model = compiled()
    before = model._loss, model.optimizer, model._memory
    monkeypatch.setattr(train.Adam, "start", lambda *_: {}["no memory"])
    with pytest.raises(KeyError, match="no memory"):
        model.compile("mse", "adam")
    assert (model._loss, model.optimizer, model._memory) == before


def test_parameters_are_of_one_moment(monkeypatch):
    """Another thread's step between the reads of two layers: `params` and copies have all of it or nothing."""
    model = train.Sequential([train.Dense(3, 4), train.Dropout(0.0), train.Dense(4, 2)], rng=0)
    model.compile("mse", train.SGD(0.1, momentum=0.9))
    plain, steps = train.Dropout.params, []

    def params(layer):
        if steps:
            steps.pop()
            model.train_on_batch(np.ones((2, 3)), np.ones((2, 2)))
        return plain.__get__(layer)

    monkeypatch.setattr(train.Dropout, "params", property(params))
    for read in (lambda: model.params, lambda: pickle.loads(pickle.dumps(model)).params):
        before = {name: value.copy() for name, value in model.params.items()}
        steps.append(1)
        got = read()
        changed = {name: not np.array_equal(value, before[name]) for name, value in got.items()}
        assert len(set(changed.values())) == 1, changed
    steps.append(1)
    other = pickle.loads(pickle.dumps(model))
    rest = [np.ones((2, 3)), np.zeros((2, 2))]
    assert other.step == model.step == 3
    assert other.train_on_batch(*rest) == model.train_on_batch(*rest)
    assert np.array_equal(other.params.flat, model.params.flat)


def sequential(*layers, **options):
    return train.Sequential(layers, rng=0, **options)


REFUSED = [
    (lambda: train.Sequential([]), ValueError, "at least one layer"),
    (lambda: train.Sequential(qg.LSTM(3, 4)), TypeError, "layers must be a list of layers, got LSTM"),
    (lambda: sequential(3), TypeError, r"layers\[0\] must be a layer, .* got int"),
    (lambda: sequential(train.Dropout(0.5)), ValueError, "one with parameters"),
    (lambda: sequential(*[qg.LSTM(4, 4, rng=0)] * 2), ValueError, "one of them is there twice"),
    (
        lambda: sequential(qg.LSTM(3, 4), train.Dense(5, 2)),
        ValueError,
        r"Dense\(units_in=5.* got the shape \(\?, \?, 4\)",
    ),
    (lambda: sequential(qg.LSTM(3, 4), qg.LSTM(3, 4, dtype="float64")), ValueError, "must have the model's dtype"),
    (lambda: sequential(train.Dense(3, 4), train.FinalState()), ValueError, "directly behind an LSTM or an RNN"),
    (lambda: sequential(train.Dense(3, 4), train.Masking()), ValueError, "must be the first layer"),
    (lambda: sequential(qg.LSTM(3, 4, bidirectional=True), stateful=True), ValueError, "networks that read forwards"),
    (lambda: sequential(qg.LSTM(3, 4), head="tanh"), ValueError, "head must be"),
    (lambda: tagger().train_on_batch(*data()), RuntimeError, "call compile first"),
    (lambda: tagger().compile("mean"), ValueError, "loss must be"),
    (lambda: tagger().compile(optimizer="rmsprop"), ValueError, "optimizer must be"),
    (lambda: tagger().predict(np.zeros((2, 3))), TypeError, "x must hold integers"),
    (lambda: tagger().predict(np.full((2, 3), SYMBOLS)), ValueError, f"{SYMBOLS - 1}"),
    (lambda: tagger().predict(np.zeros(3, int)), ValueError, r"x must have shape \(B, T\)"),
    (lambda: tagger().predict(np.zeros((2, 3), int), lengths=[1]), ValueError, r"lengths must have shape \(2,\)"),
    (lambda: tagger().predict(np.zeros((2, 3), int), mask=[True]), ValueError, "mask must have shape"),
    (lambda: compiled().train_on_batch(data()[0], np.zeros(4, int)), ValueError, "y must have a row for each of x's 6"),
    (lambda: compiled().train_on_batch(*data(), sample_weight=[1.0]), ValueError, "sample_weight must have shape"),
    (lambda: compiled().apply_gradients({}), ValueError, "missing or unknown: 0.weight"),
    (lambda: compiled().apply_gradients([]), TypeError, "grads must be a mapping from names to arrays, got list"),
    (lambda: compiled().apply_gradients(other(np.zeros(2))), ValueError, r"grads\['0.weight'\] must have shape"),
    (lambda: compiled().apply_gradients(other([1j])), TypeError, r"grads\['0.weight'\] must hold real numbers"),
    (
        lambda: sequential(qg.LSTM(3, 4)).predict(np.ones((2, 5, 4))),
        ValueError,
        r"x must have 3 columns, got shape \(2, 5, 4\)",
    ),
    (lambda: at_rate(-1), ValueError, "learning rate of step 0 must be 0 or more, got -1"),
    (lambda: at_rate("fast"), TypeError, "learning rate of step 0 must be a number"),
    (
        lambda: fitted(np.ones((2, 5, 3)), np.zeros((2, 4)), sample_weight=np.ones((2, 5))),
        ValueError,
        r"^sample_weight must have shape \(2,\), got",
    ),
    (
        lambda: fitted(np.ones((2, 5, 3)), np.zeros((2, 4)), shards=2, reduce=Ranks(0, 0)),
        ValueError,
        "reduce.size must",
    ),
    (
        lambda: fitted(np.ones((2, 5, 3)), np.zeros((2, 4)), shards=2, reduce=Ranks(2, 2)),
        ValueError,
        "below reduce.size",
    ),
    (lambda: tagger().load_params({"0.weight": 0}), ValueError, "missing or unknown"),
    (lambda: tagger().stream(), ValueError, "has no stream"),
]


def other(value):
    return dict(compiled().params) | {"0.weight": value}


class Ranks:
    def __init__(self, rank, size):
        self.rank, self.size = rank, size

    def __call__(self, vector):
        return vector


def at_rate(rate):
    model = compiled()
    model.optimizer.learning_rate = rate
    model.train_on_batch(*data())


def fitted(*arguments, **options):
    model = sequential(qg.LSTM(3, 4, rng=0), train.FinalState())
    model.compile("mse")
    model.fit(*arguments, **options)


def compiled():
    model = tagger()
    model.compile("softmax_cross_entropy", "sgd")
    return model


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
