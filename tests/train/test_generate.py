"""`generate` and `beam_search`: against predictions of whole sequences, exhaustive search, and the distributions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import quadgate as qg
from quadgate import train

V = 5


def model(net=None, scale=3.0, head=None):
    net = net or qg.LSTM(4, 8, rng=1)
    layers = [train.Embedding(V, 4), net, train.Dropout(0.5), train.Dense(net._options.outputs, V)]
    result = train.Sequential(layers, head=head, rng=0)
    rng = np.random.default_rng(2)
    values = {name: rng.normal(0, 0.5, v.shape) for name, v in result.params.items()}
    values["3.weight"] *= scale
    result.load_params(values)
    return result


NETS = {
    "lstm": lambda: qg.LSTM(4, 8, rng=1),
    "stack": lambda: qg.LSTM(4, 6, 2, peephole=True, proj_size=3, batch_first=True, shortcut="residual", rng=1),
    "rnn": lambda: qg.RNN(4, 8, 2, rng=1),
}


def log_probabilities(m, symbols):
    """float64 (B, T, V): the next symbol's, from one prediction of the whole sequences."""
    z = m.predict(symbols).astype(np.float64)
    z -= z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@pytest.mark.parametrize("name", NETS)
def test_steps_equal_the_whole_sequence(name):
    m, x = model(NETS[name]()), np.random.default_rng(0).integers(0, V, (3, 7))
    stream = m.stream(3)
    got = np.stack([stream.step(column) for column in x.T], axis=1)
    assert got.tobytes() == m.predict(x).tobytes()
    stream.reset()
    assert stream.step(x[:, 0]).tobytes() == np.ascontiguousarray(got[:, 0]).tobytes()


@pytest.mark.parametrize("name", NETS)
def test_selected_rows_go_on(name):
    m, x = model(NETS[name]()), np.random.default_rng(0).integers(0, V, (3, 4))
    stream = m.stream(3)
    for column in x.T:
        stream.step(column)
    rows = [2, 2, 0, 1, 1]
    chosen = stream.select(rows)
    assert chosen.batch_size == 5
    symbols = np.arange(5)
    want = m.predict(np.concatenate([x[rows], symbols[:, None]], axis=1))[:, -1]
    assert chosen.step(symbols).tobytes() == np.ascontiguousarray(want).tobytes()
    other = m.stream(3)
    other.states = stream.states
    assert other.step(x[:, 0]).tobytes() == stream.step(x[:, 0]).tobytes()


def test_a_final_state_in_a_stream():
    """With a residual shortcut the final h is not y."""
    net = qg.LSTM(4, 4, 2, shortcut="residual", rng=0)
    m = train.Sequential([train.Embedding(V, 4), net, train.FinalState(), train.Dense(4, 3)], rng=0)
    x = np.random.default_rng(0).integers(0, V, (2, 5))
    stream = m.stream(2)
    for column in x.T:
        got = stream.step(column)
    assert got.tobytes() == m.predict(x).tobytes()


@pytest.mark.parametrize(
    ("first", "x", "message"),
    [
        (train.Dense(2, 4), [["a", "b"]], "x must hold real numbers"),
        (train.Dense(2, 4), [[1j, 2]], "x must hold real numbers"),
        (train.Embedding(V, 4), [1.0], "x must hold integers"),
    ],
)
def test_steps_of_a_wrong_type(first, x, message):
    stream = train.Sequential([first, qg.LSTM(4, 3)], rng=0).stream()
    with pytest.raises(TypeError, match=message):
        stream.step(x)


# ------------------------------------------------------------------------------------------------------------- sampling


def test_greedy_takes_the_likeliest():
    m = model()
    start = np.array([[1, 2], [3, 0]])
    got = train.generate(m, start, 6, temperature=0)
    symbols = start
    for k in range(6):
        following = m.predict(symbols)[:, -1].argmax(-1)
        assert np.array_equal(got[:, k], following)
        symbols = np.concatenate([symbols, following[:, None]], axis=1)
    assert train.generate(m, start[0], 6, temperature=0).tolist() == got[0].tolist()


def expected(p, temperature, top_k, top_p):
    """The distribution to draw from, symbol by symbol."""
    p = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
    order = sorted(range(V), key=lambda s: (-p[s], s))
    kept = order[:top_k]
    total, nucleus = sum(p[s] for s in kept), []
    for s in kept:
        nucleus.append(s)
        if top_p is not None and sum(p[s] for s in nucleus) >= top_p * total:
            break
    result = np.zeros(V)
    result[nucleus] = p[nucleus]
    return result / result.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1, None, None), (0.5, None, None), (2.0, 3, None), (1, None, 0.6), (1, None, 0.0), (1.5, 4, 0.7)],
)
def test_symbols_come_as_often_as_they_should(temperature, top_k, top_p):
    """Counts of 20,000 draws are within 5 standard deviations of the distribution's."""
    m, draws = model(scale=1.5), 20_000
    start = np.tile([[1, 4]], (draws, 1))
    got = train.generate(m, start, 1, temperature=temperature, top_k=top_k, top_p=top_p, rng=3)[:, 0]
    p = expected(np.exp(log_probabilities(m, start[:1])[0, -1]), temperature, top_k, top_p)
    counts = np.bincount(got, minlength=V)
    assert not counts[p == 0].any()
    assert (np.abs(counts - draws * p) <= 5 * np.sqrt(draws * p * (1 - p)) + 1e-9).all()


def test_draws_are_seeded_and_rows_apart():
    m = model(scale=1.0)
    start = [[1], [2], [3]]
    got = train.generate(m, start, 40, rng=5)
    assert np.array_equal(got, train.generate(m, start, 40, rng=np.random.default_rng(5)))
    assert not np.array_equal(got, train.generate(m, start, 40, rng=6))
    for threads in (1, 2, 3):
        qg.set_num_threads(threads)
        assert np.array_equal(got, train.generate(m, start, 40, rng=5))


class Scores:
    """A stream of which the scores of every step are the same."""

    def __init__(self, scores):
        self.scores, self.batch_size = np.array(scores), len(scores)

    def step(self, symbols):
        return self.scores

    def select(self, rows):
        return Scores(self.scores[rows])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_scores_that_are_not_finite_have_no_symbols(bad, temperature):
    for row in ([0.0, bad, 1.0], [-np.inf] * 3):
        steps = Scores([[0.0, 1.0, 2.0], row])
        with pytest.raises(FloatingPointError, match="largest score of the next symbol is"):
            train.generate(steps, [[1], [1]], 3, temperature=temperature)
        with pytest.raises(FloatingPointError, match="largest score of the next symbol is"):
            train.beam_search(steps, [[1], [1]], 3)


def test_scores_of_minus_infinity_rule_symbols_out_under_any_errstate():
    steps = Scores([[-np.inf, 0.0, -1000.0]])
    with np.errstate(all="raise"):
        assert (train.generate(steps, [0], 50, top_k=3, top_p=0.9, rng=0) == 1).all()
        assert (train.generate(steps, [0], 50, rng=0, temperature=0.5) == 1).all()
        assert train.beam_search(steps, [0], 3, beams=1)[0].symbols.tolist() == [1, 1, 1]


def test_end_fills_the_row_and_cuts_the_result():
    m = model(scale=1.0)
    got = train.generate(m, [[1]] * 6, 200, end=0, rng=0)
    assert got.shape[1] < 200
    for row in got:
        first = row.tolist().index(0)
        assert not row[first:].any()
    assert max(row.tolist().index(0) for row in got) == got.shape[1] - 1


def test_a_stream_goes_on_from_its_state():
    m = model(scale=1.0)
    whole = train.generate(m, [1, 2, 3], 8, temperature=0)
    stream = m.stream(1)
    for symbol in (1, 2):
        stream.step([symbol])
    assert np.array_equal(train.generate(stream, [3], 8, temperature=0), whole)
    assert train.generate(m, [1], 0).shape == (0,)


# ---------------------------------------------------------------------------------------------------------- beam search


def exhaustive(m, start, count, end, penalty):
    """All continuations with their scores, the best first."""
    found = []
    for n in range(1, count + 1):
        for symbols in itertools.product(range(V), repeat=n):
            if (end in symbols[:-1]) or (n < count and symbols[-1] != end):
                continue
            sequence = np.array([[*start, *symbols]])
            logs = log_probabilities(m, sequence)[0]
            total = sum(logs[len(start) - 1 + k, s] for k, s in enumerate(symbols))
            found.append((total / n**penalty, symbols))
    return sorted(found, key=lambda item: -item[0])


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, -0.5])
@pytest.mark.parametrize("end", [None, 2])
def test_wide_beams_search_everything(end, penalty):
    m = model(scale=1.0)
    beams = train.beam_search(m, [1, 0], 3, beams=V**3, length_penalty=penalty, end=end)
    want = exhaustive(m, [1, 0], 3, end, penalty)
    assert len(beams) == len(want)
    for beam, (score, symbols) in zip(beams, want, strict=True):
        assert tuple(beam.symbols) == symbols
        assert beam.score == pytest.approx(score, rel=1e-5)
        assert beam.log_probability == pytest.approx(score * len(symbols) ** penalty, rel=1e-5)


def by_hand(m, start, count, width):
    """The textbook's beam search without an end symbol."""
    beams = [((), 0.0)]
    for _ in range(count):
        grown = []
        for symbols, total in beams:
            logs = log_probabilities(m, np.array([[*start, *symbols]]))[0, -1]
            grown += [((*symbols, s), total + logs[s]) for s in range(V)]
        beams = sorted(grown, key=lambda item: -item[1])[:width]
    return beams


def by_hand_with_end(m, start, count, width, end, penalty):
    """The same with one: of the best 2K continuations those that end among the best K are finished."""
    beams, finished = [((), 0.0)], []
    for n in range(1, count + 1):
        grown = []
        for symbols, total in beams:
            logs = log_probabilities(m, np.array([[*start, *symbols]]))[0, -1]
            grown += [((*symbols, s), total + logs[s]) for s in range(V)]
        grown = sorted(grown, key=lambda item: -item[1])
        finished += [item for item in grown[: width if n < count else 2 * width] if item[0][-1] == end or n == count]
        beams = [item for item in grown[: 2 * width] if item[0][-1] != end][:width]
    return sorted([(total / len(s) ** penalty, s) for s, total in finished], key=lambda item: -item[0])[:width]


@pytest.mark.parametrize("penalty", [-0.5, 0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("end", range(V))
def test_the_search_stops_only_when_nothing_better_can_come(end, penalty):
    m = model(scale=1.0)
    for start in ([1, 2], [0, 4], [3, 3]):
        got = train.beam_search(m, start, 7, beams=2, end=end, length_penalty=penalty)
        want = by_hand_with_end(m, start, 7, 2, end, penalty)
        assert [tuple(beam.symbols) for beam in got] == [symbols for _, symbols in want]
        assert [beam.score for beam in got] == pytest.approx([score for score, _ in want], rel=1e-5)


def test_narrow_beams_and_batches():
    m = model(scale=1.0)
    starts = np.array([[1, 2], [0, 4], [3, 3]])
    together = train.beam_search(m, starts, 6, beams=3)
    for start, beams in zip(starts, together, strict=True):
        want = by_hand(m, start, 6, 3)
        assert [tuple(beam.symbols) for beam in beams] == [symbols for symbols, _ in want]
        assert [beam.score for beam in beams] == pytest.approx([total for _, total in want], rel=1e-5)
        alone = train.beam_search(m, start, 6, beams=3)
        assert [tuple(b.symbols) for b in alone] == [tuple(b.symbols) for b in beams]
    (one,) = train.beam_search(m, starts[0], 6, beams=1)
    assert np.array_equal(one.symbols, train.generate(m, starts[0], 6, temperature=0))


def test_rows_end_apart():
    """Rows whose search ended leave the batch; the others are not changed by that."""
    m = model(scale=1.0)
    starts = np.array([[1, 2], [0, 4], [3, 3], [2, 2]])
    together = train.beam_search(m, starts, 12, beams=2, end=0, length_penalty=0.6)
    for start, beams in zip(starts, together, strict=True):
        alone = train.beam_search(m, start, 12, beams=2, end=0, length_penalty=0.6)
        assert [(tuple(b.symbols), b.score) for b in alone] == [(tuple(b.symbols), b.score) for b in beams]
        assert all(0 not in beam.symbols[:-1] for beam in beams)
        assert beams[0].score >= beams[-1].score


REFUSED = [
    (lambda m: train.generate(m, [[1, 99]], 2), ValueError, "start must hold symbols from 0 to .*, got 1 to 99"),
    (lambda m: train.beam_search(m, [-1, 1], 2), ValueError, "start must hold symbols from 0 to .*, got -1 to 1"),
    (
        lambda m: train.beam_search(m, [1], 5, length_penalty=1e4),
        ValueError,
        r"length_penalty must be nearer to 0: 5 \*\*",
    ),
    (lambda m: train.beam_search(m, [1], 5, length_penalty=-1e4), ValueError, "length_penalty must be nearer to 0"),
    (lambda m: m.stream(2).select([]), ValueError, "rows must have one number or more"),
    (lambda m: train.generate(3, [1], 2), TypeError, "model must be a Sequential or a stream of one"),
    (lambda m: train.generate(m.stream(2), [1], 2), ValueError, "a row for each of the stream's 2, got 1"),
    (lambda m: train.generate(m, [], 2), ValueError, "start must have shape"),
    (lambda m: train.generate(m, [0.5], 2), TypeError, "start must hold integers"),
    (lambda m: train.generate(m, [V], 2), ValueError, "0 to 4"),
    (lambda m: train.generate(m, [1], -2), ValueError, "count must be"),
    (lambda m: train.generate(m, [1], 2, temperature=-1), ValueError, "temperature must be 0 or a positive number"),
    (lambda m: train.generate(m, [1], 2, top_k=0), ValueError, "top_k must be a positive int"),
    (lambda m: train.generate(m, [1], 2, top_p=2), ValueError, "top_p must be a probability"),
    (lambda m: train.generate(m, [1], 2, end=V), ValueError, "end must be one of the 5 symbols"),
    (lambda m: train.beam_search(m, [1], 2, beams=0), ValueError, "beams must be a positive int"),
    (lambda m: train.beam_search(m, [1], 2, end=-1), ValueError, "end must be"),
    (lambda m: m.stream(1).step([[1]]), ValueError, r"x must have shape \(1,\)"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(model())
