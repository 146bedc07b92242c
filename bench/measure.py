"""Interleaved timing of the peers, so that disturbances of the machine affect all of them equally."""

from __future__ import annotations

import math
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import judge
import numpy as np
from peers.base import Array, make_arrays
from peers.client import PEERS, QUANTISED, Client, PeerError
from shapes import Shape

SAMPLE_SECONDS = 0.004  # one sample lasts at least this long, or one call
WARM_SECONDS = 0.001  # untimed calls before each sample, if a call is short


@dataclass
class Result:
    """Times of one shape at one number of threads."""

    shape: Shape
    threads: int
    samples: dict[str, list[float]] = field(default_factory=dict)  # seconds of one call, by peer
    errors: dict[str, float] = field(default_factory=dict)  # largest error as a fraction of the allowed one, by peer

    def times(self, peer: str) -> list[float]:
        """Return a peer's samples in seconds, with the drift of the machine removed.

        The speed of the machine changes between rounds, while the samples of a round are neighbours. So each is divided
        by the slowness of its round: the median over all peers of sample / median of the peer's samples. Quotients of
        the medians of these times are then as robust as medians of each round's quotient, and agree with the times.
        """
        medians = {name: statistics.median(samples) for name, samples in self.samples.items()}
        rounds = zip(*([s / medians[name] for s in samples] for name, samples in self.samples.items()), strict=True)
        return [s / statistics.median(slowness) for s, slowness in zip(self.samples[peer], rounds, strict=True)]

    def median(self, peer: str) -> float:
        """Return the median of `times`: the seconds of one call."""
        return statistics.median(self.times(peer))

    def spread(self, peer: str) -> tuple[float, float]:
        """Return the 10th and 90th percentile of `times`."""
        return percentiles(self.times(peer))

    def as_json(self) -> dict[str, object]:
        """Return all fields, and the medians in microseconds."""
        medians = {peer: 1e6 * self.median(peer) for peer in self.samples}
        return {**asdict(self), "median_us": medians}


def percentiles(values: list[float]) -> tuple[float, float]:
    """Return the 10th and 90th percentile."""
    low, high = np.percentile(values, (10, 90))
    return float(low), float(high)


@contextmanager
def awake(client: Client) -> Iterator[None]:
    """Continue a peer's process inside the block; otherwise it is stopped, including threads that spin."""
    os.kill(client.process.pid, signal.SIGCONT)
    try:
        yield
    finally:
        if client.process.poll() is None:
            os.kill(client.process.pid, signal.SIGSTOP)


class Runner:
    """One process for each peer and number of threads, in which shape after shape is measured."""

    def __init__(self, peers: Iterable[str], say: Callable[[str], None]) -> None:
        self.peers, self.say = list(peers), say
        self.clients: dict[tuple[str, int], Client] = {}
        self.versions: dict[str, str] = {}
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="quadgate-bench-")))

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients.values():
            if client.process.poll() is None:
                os.kill(client.process.pid, signal.SIGCONT)
            client.close()
        self.stack.close()

    def _client(self, peer: str, threads: int) -> Client | None:
        """Start a peer; if that fails, report it and skip the peer for the rest of the run."""
        if (peer, threads) not in self.clients:
            try:
                self.clients[peer, threads] = Client(peer, threads)
            except PeerError as error:
                self.say(f"{peer} left out: {str(error).strip().splitlines()[-1]}")
                self.peers.remove(peer)
                return None
            self.versions[peer] = self.clients[peer, threads].version
        return self.clients[peer, threads]

    def measure(self, shape: Shape, threads: list[int], rounds: int) -> list[Result]:
        """Check every peer on one shape, then take `rounds` samples of each, in a new random order each round."""
        arrays = make_arrays(shape)
        path = self.folder / "arrays.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]
        wanted = judge.expected(shape, arrays)
        results = {n: Result(shape, n) for n in threads}
        modes = {**PEERS, **dict.fromkeys(QUANTISED, ("inference",))}
        calls: dict[tuple[str, int], tuple[int, int]] = {}
        for n in threads:
            for peer in [p for p in self.peers if shape.mode in modes[p]]:
                client = self._client(peer, n)
                if client is not None:
                    with awake(client):
                        results[n].errors[peer] = self._check(client, shape, path, wanted)
                        calls[peer, n] = self._calibrate(client)
                    results[n].samples[peer] = []
        turns = list(calls)
        shuffle = random.Random(0).shuffle
        for _ in range(rounds):
            shuffle(turns)
            for peer, n in turns:
                warm, timed = calls[peer, n]
                client = self.clients[peer, n]
                with awake(client):
                    if warm:
                        client.time(warm)
                    results[n].samples[peer].append(client.time(timed) / timed)
        return list(results.values())

    @staticmethod
    def _check(client: Client, shape: Shape, path: Path, wanted: dict[str, Array]) -> float:
        try:
            return judge.check(shape, wanted, client.setup(shape, path))
        except AssertionError as error:
            raise PeerError(f"{client.name} on {shape.name}, {client.threads} threads: {error}") from None

    @staticmethod
    def _calibrate(client: Client) -> tuple[int, int]:
        """Return the number of warm-up calls and the number of timed calls of a sample."""
        calls, one, begin = 1, math.inf, time.perf_counter()
        while True:
            seconds = client.time(calls)
            one = min(one, seconds / calls)  # the first calls may include the start of threads
            if calls * one >= SAMPLE_SECONDS / 2 or time.perf_counter() - begin > 1:
                break
            calls *= 2
        warm = 0 if one > 10 * SAMPLE_SECONDS else max(1, round(WARM_SECONDS / one))
        return warm, max(1, round(SAMPLE_SECONDS / one))
