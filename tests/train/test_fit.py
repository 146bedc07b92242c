"""`fit` and `evaluate`: batches, shuffling, accumulation, shards, validation, metrics, and wrong arguments."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from quadgate import train
from support.fit_models import N, T, bits, data, model


def test_an_epoch_is_its_batches():
    """Without shuffling, `fit` is a loop of `train_on_batch`, and its loss the mean over all positions."""
    one, other = model(0.3), model(0.3)
    x, y, lengths = data()
    history = one.fit(x, y, epochs=2, batch_size=8, lengths=lengths, shuffle=False)
    for epoch in range(2):
        total = 0.0
        for at in range(0, N, 8):
            rows = slice(at, at + 8)
            total += other.train_on_batch(x[rows], y[rows], lengths=lengths[rows]) * lengths[rows].sum()
        assert history["loss"][epoch] == pytest.approx(total / lengths.sum(), rel=1e-12)
    assert history.epoch == [0, 1]
    assert one.step == 6
    assert bits(one) == bits(other)
    assert one.history is history


def test_iterables_of_batches_are_the_same():
    x, y, lengths = data()
    weights = np.linspace(0.5, 2, N)
    pieces = [slice(at, at + 8) for at in range(0, N, 8)]
    arrays, mappings, tuples, stream = model(), model(), model(), model()
    arrays.fit(x, y, epochs=2, batch_size=8, lengths=lengths, sample_weight=weights, shuffle=False)
    items = [{"x": x[p], "y": y[p], "lengths": lengths[p], "sample_weight": weights[p]} for p in pieces]
    mappings.fit(items, epochs=2)
    assert bits(arrays) == bits(mappings)
    stream.fit(iter(items * 2), epochs=2, steps_per_epoch=3)
    assert bits(stream) == bits(arrays)
    tuples.fit([(x[p], y[p], weights[p]) for p in pieces])
    same = model()
    same.fit(x, y, batch_size=8, sample_weight=weights, shuffle=False)
    assert bits(tuples) == bits(same)
    with pytest.raises(ValueError, match="an iterator of batches ends after one epoch"):
        model().fit(iter(items), epochs=2)


def test_shuffling_is_seeded():
    x, y, _ = data()
    seen = []

    class Spy(train.Callback):
        def on_batch_end(self, model, batch, loss):
            seen.append(loss)

    for _ in range(2):
        model().fit(x, y, epochs=2, batch_size=8, callbacks=[Spy()])
    assert seen[:6] == seen[6:]
    model().fit(x, y, epochs=2, batch_size=8, shuffle=False, callbacks=[Spy()])
    assert seen[:6] != seen[12:]


@pytest.mark.parametrize("optimizer", [train.SGD(0.1), train.Adam(0.01)])
def test_accumulation_equals_the_large_batch(optimizer):
    """Gradients of 4 batches add up to those of one: the same bits as 4 shards of it, and the same up to rounding."""
    x, y, lengths = data(32)
    small, large, sharded = (model(optimizer=optimizer, dtype="float64") for _ in range(3))
    small.fit(x, y, batch_size=4, accumulate=4, lengths=lengths, shuffle=False)
    sharded.fit(x, y, batch_size=16, shards=4, lengths=lengths, shuffle=False)
    large.fit(x, y, batch_size=16, lengths=lengths, shuffle=False)
    assert small.step == large.step == 2
    assert bits(small) == bits(sharded)
    assert np.abs(small.params.flat - large.params.flat).max() <= 1e-12
    batches = [{"x": x[at : at + 4], "y": y[at : at + 4], "lengths": lengths[at : at + 4]} for at in range(0, 32, 4)]
    stream = model(optimizer=optimizer, dtype="float64")
    stream.fit(batches, accumulate=4)
    assert bits(stream) == bits(small)


class Ranks:
    """Processes as threads, which send each other vectors: the sums of a binary tree, point to point."""

    def __init__(self, size):
        self.size, self.sent, self.ready = size, {}, threading.Condition()

    def send(self, key, vector):
        with self.ready:
            self.sent[key] = vector.copy()
            self.ready.notify_all()

    def receive(self, key):
        with self.ready:
            assert self.ready.wait_for(lambda: key in self.sent, timeout=60)
            return self.sent[key]

    def reducer(self, rank):
        ranks, calls = self, iter(range(10**6))

        class Reduce:
            size = ranks.size

            def __call__(self, vector):
                call, total, distance = next(calls), vector.copy(), 1
                while distance < ranks.size:
                    if rank % (2 * distance):
                        ranks.send((call, rank), total)
                        break
                    total = total + ranks.receive((call, rank + distance))
                    distance *= 2
                if rank == 0:
                    ranks.send((call, "sum"), total)
                return ranks.receive((call, "sum"))

        reduce = Reduce()
        reduce.rank = rank
        return reduce


@pytest.mark.parametrize("size", [2, 4, 8])
def test_the_same_bits_on_any_number_of_processes(size):
    """With dropout between and inside layers, lengths, and batches that 8 does not divide."""
    x, y, lengths = data(29)
    fit = {"epochs": 2, "batch_size": 13, "lengths": lengths, "shards": 8, "metrics": ["accuracy"]}
    alone = model(0.3, 0.4)
    history = alone.fit(x, y, **fit)
    ranks, results = Ranks(size), {}

    def work(rank):
        own = model(0.3, 0.4)
        results[rank] = own.fit(x, y, **fit, reduce=ranks.reducer(rank)).history, bits(own)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) == set(range(size))
    for got, parameters in results.values():
        assert parameters == bits(alone)
        assert got["accuracy"] == history["accuracy"]
        assert got["loss"] == pytest.approx(history["loss"], rel=1e-14)  # sums of steps, in float64


def test_shards_draw_the_masks_of_the_whole_batch():
    """A batch in shards has the loss of the whole one, although layers and the network drop at random."""
    x, y, _ = data(16)
    losses = [model(0.5, 0.5).fit(x, y, batch_size=16, shards=n, shuffle=False)["loss"][0] for n in (None, 1, 2, 8, 16)]
    assert losses[1:] == pytest.approx(losses[:1] * 4, rel=1e-6)
    added = model(0.5, 0.5).fit(x, y, batch_size=4, shuffle=False, accumulate=4)["loss"]
    assert added == pytest.approx(losses[:1], rel=1e-6)


def test_a_stateful_model_goes_on_from_batch_to_batch():
    x, y, _ = data(8)
    one, other = model(stateful=True), model(stateful=True)
    one.fit([(x[:4], y[:4]), (x[4:], y[4:])], epochs=2)
    for _ in range(2):
        other.reset_states()
        for rows in (slice(4), slice(4, 8)):
            other.train_on_batch(x[rows], y[rows])
    assert bits(one) == bits(other)
    by_rows = model(stateful=True)
    by_rows.fit(x, y, epochs=2, batch_size=4)  # never shuffled
    assert bits(by_rows) == bits(one)
    states = {layer: [part.copy() for part in state] for layer, state in one._states.items()}
    one.evaluate(x, y, batch_size=4)
    assert all(np.array_equal(a, b) for layer in states for a, b in zip(states[layer], one._states[layer], strict=True))


def test_predictions_go_on_in_a_stateful_model():
    x, _, _ = data(4)
    whole, pieces = model(), model(stateful=True)
    want = whole.predict(x)
    assert np.concatenate([pieces.predict(x[:, :3]), pieces.predict(x[:, 3:])], axis=1).tobytes() == want.tobytes()
    pieces.reset_states()
    assert pieces.predict(x).tobytes() == want.tobytes()


def test_lists_of_numbers_of_numpy_are_an_array():
    x, y, _ = data()
    one, other = model(), model()
    one.fit([list(row) for row in x], [list(row) for row in y])
    other.fit(x, y)
    assert bits(one) == bits(other)
    assert one.evaluate([tuple(row[:2]) for row in x], y[:, :2]) == other.evaluate(x[:, :2], y[:, :2])


def test_one_batch_is_no_list_of_batches():
    x, y, lengths = data()
    for batch in ({"x": x, "y": y}, (x, y), (x, y[:, 0]), (x, y, lengths.astype(float))):
        for call in (model().fit, model().evaluate):
            with pytest.raises(TypeError, match="x must be an array or an iterable of batches, got one batch"):
                call(batch)


def test_a_stateful_model_needs_full_batches():
    x, y, _ = data()
    m, whole = model(stateful=True), model(stateful=True)
    before = bits(m)
    for call in (m.fit, m.evaluate):
        with pytest.raises(ValueError, match=r"batch_size must divide the number of rows, 22, .*: got 8"):
            call(x, y, batch_size=8)
    with pytest.raises(ValueError, match="batch_size must divide"):
        m.fit(x[:16], y[:16], batch_size=8, validation_data=(x, y))
    assert bits(m) == before
    m.fit(x, y, batch_size=32)
    whole.fit(x, y, batch_size=22)
    assert bits(m) == bits(whole)


def test_an_iterator_of_validation_data_is_for_one_epoch():
    x, y, _ = data()
    m = model()
    before = bits(m)
    with pytest.raises(ValueError, match=r"validation_data must be arrays or a list of batches.*got an iterator"):
        m.fit(x, y, epochs=2, validation_data=iter([(x, y)]))
    assert bits(m) == before
    one = m.fit(x, y, validation_data=iter([(x, y)]))
    assert one["val_loss"] == [m.evaluate(x, y)["loss"]]


def test_states_go_on_with_an_iterator():
    x, y, _ = data()
    m, loop = model(stateful=True), model(stateful=True)
    for each in (m, loop):
        each.train_on_batch(x, y)
    m.fit(iter([(x, y)] * 2), epochs=2, steps_per_epoch=1)
    for _ in range(2):
        loop.train_on_batch(x, y)
    assert bits(m) == bits(loop)


def test_validation_and_metrics():
    x, y, lengths = data()
    m = model()
    validation = {"x": x, "y": y, "lengths": lengths}
    history = m.fit(x, y, epochs=2, lengths=lengths, validation_data=validation, metrics=["accuracy", "bits", wrong])
    assert set(history.history) == {p + n for p in ("", "val_") for n in ("loss", "accuracy", "bits", "wrong")}
    figures = m.evaluate(x, y, lengths=lengths, metrics=["accuracy", "bits"])
    assert {f"val_{n}": v for n, v in figures.items()}.items() <= {n: v[-1] for n, v in history.history.items()}.items()
    outputs = m.predict(x, lengths=lengths).astype(np.float64)
    kept = np.arange(T) < lengths[:, None]
    p = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    at = np.take_along_axis(p, y[..., None], -1)[..., 0]
    assert figures["accuracy"] == (outputs.argmax(-1) == y)[kept].mean()
    assert figures["loss"] == pytest.approx(-np.log(at)[kept].mean(), rel=1e-6)
    assert figures["bits"] == pytest.approx(-np.log2(at)[kept].mean(), rel=1e-6)
    assert history["wrong"][0] == pytest.approx(1 - history["accuracy"][0])
    for small in (1, 5, 22):
        assert m.evaluate(x, y, batch_size=small, lengths=lengths)["loss"] == pytest.approx(figures["loss"], rel=1e-6)


def wrong(outputs, targets):
    return outputs.argmax(-1) != targets


def test_metrics_need_no_class_where_nothing_counts():
    x, y, lengths = data()
    padded = np.where(np.arange(T) < lengths[:, None], y, -100)
    m, names = model(), ["bits", "accuracy"]
    assert m.evaluate(x, padded, lengths=lengths, metrics=names) == m.evaluate(x, y, lengths=lengths, metrics=names)


REFUSED = [
    (lambda x, y: model().fit(x), ValueError, "y is missing"),
    (lambda x, y: model().fit([(x, y)], y), ValueError, "have their own y"),
    (lambda x, y: model().fit(3), TypeError, "x must be an array or an iterable of batches, got int"),
    (lambda x, y: model().fit(iter([3])), TypeError, r"a batch must be \(x, y\)"),
    (lambda x, y: model().fit([{"x": x, "z": y}]), ValueError, "got x, z"),
    (lambda x, y: model().fit(x[:0], y[:0]), ValueError, "at least one row"),
    (lambda x, y: model().fit(x, y, batch_size=0), ValueError, "batch_size must be a positive int"),
    (lambda x, y: model().fit(x, y, epochs=1.5), TypeError, "epochs must be"),
    (lambda x, y: model().fit(x, y, metrics="accuracy"), TypeError, "metrics must be a list"),
    (lambda x, y: model().fit(x, y, metrics=["acuracy"]), ValueError, "did you mean 'accuracy'"),
    (lambda x, y: model().evaluate(x, y, metrics=[lambda a, b: b, lambda a, b: a]), ValueError, "'<lambda>' again"),
    (lambda x, y: model().fit(x, y, callbacks=[3]), TypeError, "callbacks must be functions"),
    (lambda x, y: model().fit(x, y, callbacks=[train.EarlyStopping]), TypeError, "got the class EarlyStopping"),
    (lambda x, y: model().fit(x, y, shards=6), ValueError, "shards must be a power of two, got 6"),
    (lambda x, y: model().fit(x, y, reduce=sum), ValueError, "reduce needs shards"),
    (lambda x, y: model().fit(x, y, shards=2, reduce=lambda v: v[:1]), ValueError, "reduce must return a vector"),
    (lambda x, y: model().fit(x, y, shards=8, reduce=Ranks(3).reducer(0)), ValueError, "must divide shards=8, got 3"),
    (lambda x, y: model().fit(x, y, callbacks=[train.EarlyStopping("lost")]), ValueError, "monitor must be one of"),
    (lambda x, y: model().evaluate(x), ValueError, "y is missing"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refused(call, error, message):
    x, y, _ = data()
    with pytest.raises(error, match=message):
        call(x, y)
