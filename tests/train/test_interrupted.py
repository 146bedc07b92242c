"""An interrupt in front of any bytecode leaves states, parameters and optimizers all old, or all new."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from quadgate import train
from support.interrupts import run_until


def bits(value):
    return [bits(part) for part in value] if isinstance(value, (list, tuple)) else value.tobytes()


def seen(state, start, work):
    """Interrupt work() at each of its moments, from the state start() on; return the states found, each once."""
    found, totals = [], []
    for _ in range(3):  # a first use may add its own bytecodes
        start()
        totals.append(run_until(0, work))
    for n in range(1, min(totals) + 1):
        start()
        assert run_until(n, work) is None, n
        now = state()
        found += [] if now in found else [now]
    return found


def both(state, start, work):
    """The states before and after work()."""
    start()
    before = state()
    work()
    return [before, state()]


@pytest.mark.parametrize("call", ["step", "reset", "states"])
def test_a_stream_of_two_networks(call):
    model = train.Sequential([qg.LSTM(2, 3, rng=0), train.Dropout(0.5), qg.RNN(3, 2, rng=1), train.Dense(2, 2)], rng=0)
    stream = model.stream()
    x = np.ones((1, 2), np.float32)
    stream.step(x)
    first = stream.states
    other = [tuple(part + 1 for part in first[0]), first[1] + 1]

    def start():
        stream.states = first

    def work():
        if call == "step":
            stream.step(x)
        elif call == "reset":
            stream.reset()
        else:
            stream.states = other

    case = (lambda: bits(stream.states)), start, work
    assert seen(*case) == both(*case)


def test_an_error_in_the_second_network():
    model = train.Sequential([qg.LSTM(2, 3, rng=0), qg.LSTM(3, 3, rng=1)], rng=0)
    stream = model.stream()
    stream.step(np.ones((1, 2)))
    before = bits(stream.states)

    def fail(*_):
        raise MemoryError

    stream._steps[1] = fail
    with pytest.raises(MemoryError):
        stream.step(np.ones((1, 2)))
    assert bits(stream.states) == before


@pytest.mark.parametrize("call", ["learn", "step"])
def test_online_learning(call):
    made = []

    def start():
        made[:] = [train.rtrl(qg.LSTM(1, 2, rng=0), optimizer=train.SGD(0.1, momentum=0.5))]
        made[0].step([0.5])

    def work():
        if call == "learn":
            made[0].learn(np.ones(2))
        else:
            made[0].step([1.0])

    def state():
        learner = made[0]
        return bits([learner.state, learner.gradients(np.ones(2)).flat, learner.net.params.flat]), learner._memory.step

    assert seen(state, start, work) == both(state, start, work)
