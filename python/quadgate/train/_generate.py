"""Sequences out of a model, one symbol at a time: sampling and beam search."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from .. import _check

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]


class Steps(Protocol):
    """One symbol in, the scores of the next one out; `Sequential.stream` returns such an object.

    ``step(symbols)`` takes an int64 array (B,) and returns unnormalised log probabilities (B, V). ``select(rows)``
    returns another such object, whose rows are copies of the given rows of this one.
    """

    batch_size: int

    def step(self, symbols: Array, /) -> Array: ...
    def select(self, rows: Array, /) -> Steps: ...


class Beam(NamedTuple):
    """A sequence that `beam_search` found.

    Attributes
    ----------
    symbols : array of int64 (n,)
        The sequence behind the start, with the end symbol if it has one.
    score : float
        ``log_probability / n ** length_penalty``, by which beams are ordered.
    log_probability : float
        Natural logarithm of the probability of the symbols after the start.
    """

    symbols: Array
    score: float
    log_probability: float


def generate(
    model: Any,
    start: ArrayLike,
    count: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    end: int | None = None,
    rng: int | np.random.Generator | None = None,
) -> Array:
    """Continue sequences by symbols that are drawn from the model's distribution of the next one.

    Parameters
    ----------
    model : Sequential, or a stream of one
        The last layer's outputs are unnormalised log probabilities of V symbols. A stream continues from its state,
        and has as many rows as ``start``; of a model a new stream is made.
    start : array of int (S,) or (B, S)
        The symbols that are there already, at least one of each row.
    count : int
        Number of symbols to draw for each row.
    temperature : float
        Divides the log probabilities: below 1 likely symbols become likelier. 0 takes the likeliest, the first of equal
        ones.
    top_k : int, optional
        Draw from the k likeliest symbols only; of equal ones the first are taken.
    top_p : float, optional
        Draw from the smallest set of likeliest symbols whose probability is at least p (Holtzman et al. 2020). With
        ``top_k`` it is the smaller set.
    end : int, optional
        A symbol that ends a row: the rest of the row is filled with it. Once all rows ended the result is cut there.
    rng : None, int or numpy.random.Generator
        Source of the draws: one number for each symbol and row, whatever the options.

    Returns
    -------
    array of int64 (n,) or (B, n)
        The symbols behind the start; n is ``count``, or less if all rows ended.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.
    FloatingPointError
        If all scores of the next symbol are -inf, or one is NaN or +inf.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> from quadgate import train
    >>> model = train.Sequential([train.Embedding(20, 8), qg.LSTM(8, 16), train.Dense(16, 20)], rng=0)
    >>> train.generate(model, [3, 1, 4], 10, temperature=0.8, top_k=5, rng=0).shape
    (10,)
    """
    symbols, single = _start(start)
    count = _check.size(count, "count", zero=True)
    choose = _Chooser(temperature, top_k, top_p)
    draws = _check.generator(rng)
    rows = len(symbols)
    steps = _stream(model, symbols)
    result = np.empty((rows, count), np.int64)
    ended = np.zeros(rows, np.bool_)
    if count:
        for symbol in symbols.T[:-1]:
            steps.step(symbol)
    symbol, done = np.ascontiguousarray(symbols[:, -1]), 0
    while done < count:
        logits = steps.step(symbol)
        if done == 0:
            _check_end(end, logits.shape[1])
        _require_finite(logits[~ended])
        symbol = choose(logits, draws.random(rows))
        if end is not None:
            symbol[ended] = end
            ended |= symbol == end
        result[:, done] = symbol
        done += 1
        if end is not None and ended.all():
            break
    result = np.ascontiguousarray(result[:, :done])
    return result[0] if single else result


def beam_search(
    model: Any,
    start: ArrayLike,
    count: int,
    *,
    beams: int = 4,
    length_penalty: float = 0.0,
    end: int | None = None,
) -> list[Beam] | list[list[Beam]]:
    """Search for the likeliest continuations, keeping the best few at each step.

    Parameters
    ----------
    model : Sequential, or a stream of one
        As in `generate`. All beams of all rows run as one batch.
    start : array of int (S,) or (B, S)
        The symbols that are there already, at least one of each row.
    count : int
        Most symbols of a continuation.
    beams : int
        K, how many unfinished sequences are kept for each row, and how many are returned.
    length_penalty : float
        Exponent of the length that a log probability is divided by: 0 prefers short sequences, 1 the best mean for each
        symbol.
    end : int, optional
        A symbol that finishes a sequence. Without it, or where none comes, a sequence has ``count`` symbols.

    Returns
    -------
    list of Beam, or for each row of a 2-d start such a list
        The best K, the best first.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.
    FloatingPointError
        If all scores of the next symbol are -inf, or one is NaN or +inf.

    Notes
    -----
    The search of a row stops once no unfinished sequence can become better than the K finished ones. With K of at least
    V ** count it is exhaustive. Of equal scores the first stays first, so that a result depends on its arguments only.

    Examples
    --------
    >>> import numpy as np, quadgate as qg
    >>> from quadgate import train
    >>> model = train.Sequential([train.Embedding(20, 8), qg.LSTM(8, 16), train.Dense(16, 20)], rng=0)
    >>> best, *others = train.beam_search(model, [3, 1, 4], 6, beams=3, length_penalty=1.0, end=0)
    >>> len(others), best.score >= others[0].score
    (2, True)
    """
    symbols, single = _start(start)
    count = _check.size(count, "count")
    beams = _check.size(beams, "beams")
    penalty = _check.number(length_penalty, "length_penalty")
    if abs(penalty) * math.log(count) > 600:
        raise ValueError(f"length_penalty must be nearer to 0: {count} ** {penalty} is no number of float64")
    steps = _stream(model, symbols)
    for symbol in symbols.T[:-1]:
        steps.step(symbol)
    logits = _log_softmax(steps.step(np.ascontiguousarray(symbols[:, -1])))
    _check_end(end, logits.shape[1])
    searches = [_Search(beams, penalty, end, count) for _ in symbols]
    owners = np.arange(len(symbols))  # the search of each row of the stream
    for length in range(1, count + 1):
        rows: list[int] = []
        following: list[int] = []
        for place, search in enumerate(searches):
            mine = np.flatnonzero(owners == place)
            if mine.size and not search.done:
                parents, chosen = search.extend(logits[mine], length)
                rows += mine[parents].tolist()
                following += chosen
        if not rows or length == count:
            break
        kept = np.array(rows)
        steps, owners = steps.select(kept), owners[kept]
        logits = _log_softmax(steps.step(np.array(following, np.int64)))
    results = [search.results() for search in searches]
    return results[0] if single else results


class _Search:
    """The beams of one row: unfinished ones in the order of the stream's rows, and finished ones."""

    def __init__(self, beams: int, penalty: float, end: int | None, count: int) -> None:
        self._beams, self._penalty, self._end, self._count = beams, penalty, end, count
        self._alive: list[tuple[float, list[int]]] = [(0.0, [])]
        self._finished: list[Beam] = []
        self.done = False

    def extend(self, logits: Array, length: int) -> tuple[list[int], list[int]]:
        """Add a symbol to the unfinished beams; return the parents of those that go on, and their new symbols."""
        totals = np.array([total for total, _ in self._alive])[:, None] + logits
        order = np.argsort(-totals.ravel(), kind="stable")
        alive: list[tuple[float, list[int]]] = []
        parents: list[int] = []
        for rank, place in enumerate(order[: 2 * self._beams].tolist()):
            parent, symbol = divmod(place, logits.shape[1])
            total, sequence = float(totals[parent, symbol]), [*self._alive[parent][1], symbol]
            if total == -math.inf:
                break
            if symbol == self._end or length == self._count:
                # A finished sequence must be among the best K, as if it were one that goes on.
                if rank < self._beams or length == self._count:
                    self._finish(total, sequence)
            elif len(alive) < self._beams:
                alive.append((total, sequence))
                parents.append(parent)
        self._alive = alive
        self.done = not alive or self._cannot_improve(length)
        if self.done:
            return [], []
        return parents, [sequence[-1] for _, sequence in alive]

    def _finish(self, total: float, sequence: list[int]) -> None:
        score = total / len(sequence) ** self._penalty
        self._finished.append(Beam(np.array(sequence, np.int64), score, total))
        self._finished.sort(key=lambda beam: -beam.score)  # stable: of equal ones the first stays first
        del self._finished[self._beams :]

    def _cannot_improve(self, length: int) -> bool:
        """Return True if K are finished and no longer sequence can beat the worst: a log probability never rises."""
        if len(self._finished) < self._beams:
            return False
        best = self._alive[0][0]
        most = max(best / (length + 1) ** self._penalty, best / self._count**self._penalty)
        return bool(most <= self._finished[-1].score)

    def results(self) -> list[Beam]:
        return self._finished


class _Chooser:
    """Draw a symbol for each row, from log probabilities and one uniform number for each."""

    def __init__(self, temperature: float, top_k: int | None, top_p: float | None) -> None:
        self._temperature = _check.number(temperature, "temperature", "0 or a positive number")
        if self._temperature < 0:
            raise ValueError(f"temperature must be 0 or a positive number, got {temperature}")
        self._top_k = None if top_k is None else _check.size(top_k, "top_k")
        self._top_p = None if top_p is None else _check.probability(top_p, "top_p")

    def __call__(self, logits: Array, uniform: Array) -> Array:
        if self._temperature == 0:
            return np.asarray(logits.argmax(axis=1))
        scaled = logits.astype(np.float64)
        scaled -= scaled.max(axis=1, keepdims=True)
        with np.errstate(over="ignore", under="ignore"):
            scaled /= self._temperature
            p = np.exp(scaled, out=scaled)
            if self._top_k is not None or self._top_p is not None:
                p = self._truncated(p)
            cumulative = np.cumsum(p, axis=1)
            mark = uniform * cumulative[:, -1]
        chosen = (cumulative <= mark[:, None]).sum(axis=1)  # symbols of probability 0 are never the first above
        return np.asarray(np.minimum(chosen, logits.shape[1] - 1))

    def _truncated(self, p: Array) -> Array:
        """Set the probability of all but the likeliest to 0."""
        order = np.argsort(-p, axis=1, kind="stable")
        ranked = np.take_along_axis(p, order, axis=1)
        if self._top_k is not None:
            ranked[:, self._top_k :] = 0
        if self._top_p is not None:
            before = np.cumsum(ranked, axis=1) - ranked
            total = ranked.sum(axis=1, keepdims=True)
            beyond = before >= self._top_p * total
            beyond[:, 0] = False
            ranked[beyond] = 0
        result = np.empty_like(p)
        np.put_along_axis(result, order, ranked, axis=1)
        return result


def _start(start: ArrayLike) -> tuple[Array, bool]:
    given = _check.array(start, "start", "integers", "iu")
    if given.ndim not in (1, 2) or given.size == 0:
        raise ValueError(f"start must have shape (S,) or (B, S), with one symbol or more, got {given.shape}")
    return np.atleast_2d(given).astype(np.int64), given.ndim == 1


def _stream(model: Any, start: Array) -> Steps:
    rows = len(start)
    steps: Steps = model.stream(rows) if hasattr(model, "stream") else model
    if not hasattr(steps, "step") or not hasattr(steps, "select"):
        raise TypeError(f"model must be a Sequential or a stream of one, got {type(model).__name__}")
    if steps.batch_size != rows:
        raise ValueError(f"start must have a row for each of the stream's {steps.batch_size}, got {rows}")
    known = getattr(steps, "_symbols", None)
    if known is not None and not 0 <= start.min() <= start.max() < known:
        raise ValueError(f"start must hold symbols from 0 to {known - 1}, got {start.min()} to {start.max()}")
    return steps


def _check_end(end: int | None, symbols: int) -> None:
    if end is not None and not 0 <= _check.size(end, "end", zero=True) < symbols:
        raise ValueError(f"end must be one of the {symbols} symbols, 0 to {symbols - 1}, got {end}")


def _require_finite(logits: Array) -> None:
    """Raise FloatingPointError for rows without a largest score; -inf for some symbols rules those out."""
    most = logits.max(axis=1)
    if not np.isfinite(most).all():
        raise FloatingPointError(
            f"the model's largest score of the next symbol is {most[~np.isfinite(most)][0]}: look for NaN in its "
            "parameters, and for the state of its stream"
        )


def _log_softmax(logits: Array) -> Array:
    _require_finite(logits)
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    with np.errstate(under="ignore"):
        values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
    return values
