"""Pickles of networks, streams and results: written under one NumPy, and read under another.

``pickles.py write FILE`` writes; ``pickles.py read FILE...`` reads each, and compares with what it computes itself.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import quadgate as qg

X = np.linspace(-1, 1, 4 * 2 * 3, dtype=np.float32).reshape(4, 2, 3)


def made() -> list[object]:
    """Networks with and without a generator, streams, gradients and a trace: the same everywhere."""
    lstm, rnn = qg.LSTM(3, 4, 2, dropout=0.5, peephole=True, rng=0), qg.RNN(3, 4, dtype=np.float64, rng=0)
    for net in (lstm, rnn):
        net.load_state_dict({n: np.linspace(-1, 1, v.size).reshape(v.shape) for n, v in net.params.items()})
    streams = [net.stream(2) for net in (lstm, rnn)]
    for stream in streams:
        stream.run(X)
    y, _, tape = lstm.forward(X, trace=True, rng=1)
    return [lstm, rnn, *streams, lstm.backward(tape, y), tape.trace]


def numbers(value: object) -> list[object]:
    """Return what a pickle must keep, as plain arrays."""
    if isinstance(value, (qg.LSTM, qg.RNN)):
        masks = value.forward(X)[2].dropped  # by the network's own generator
        return [value(X)[0], *value.params.values(), *masks.values()]
    if isinstance(value, (qg.Stream, qg.RNNStream)):
        return [*np.atleast_1d(value.state), value.run(X)]
    if isinstance(value, qg.LSTMGrads):
        return [value.x, value.h0, value.c0, *value.params.values()]
    assert isinstance(value, qg.Trace)
    return [getattr(value, name) for name in value.__slots__]


def main(what: str, *files: str) -> None:
    """Write one file, or read all."""
    if what == "write":
        Path(files[0]).write_bytes(pickle.dumps(made(), 4))
        return
    for file in files:
        for value, want in zip(pickle.loads(Path(file).read_bytes()), made(), strict=True):
            assert type(value) is type(want), (file, type(value))
            for got, number in zip(numbers(value), numbers(want), strict=True):
                assert np.array_equal(got, number), (file, type(value))
        print(f"NumPy {np.__version__} reads {Path(file).name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
