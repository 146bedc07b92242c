"""One commit point: seen from a signal handler or another thread, parameters are all old or all new."""

from __future__ import annotations

import pickle
import random
import sys
import threading

import numpy as np
import pytest
import quadgate as qg
from support.cases import same_bits
from support.interrupts import run_until

X = np.random.default_rng(0).normal(size=(3, 2, 3)).astype(np.float32)


def versions():
    """Two sets of parameters, and what a network makes of X with each."""
    nets = [qg.LSTM(3, 4, 2, rng=seed) for seed in (1, 2)]
    return [{name: np.array(value) for name, value in net.params.items()} for net in nets], [net(X)[0] for net in nets]


def by_load(net, values):
    net.load_state_dict(values)


def by_writable(net, values):
    with net.writable() as params:
        for name, value in values.items():
            params[name][...] = value


@pytest.mark.parametrize("change", [by_load, by_writable])
def test_interrupts_at_any_bytecode(change):
    """At 300 random ones and at each of the last 150, among which is the one step that counts."""
    sets, wanted = versions()
    net = qg.LSTM(3, 4, 2, rng=1)
    total = run_until(0, lambda: change(net, sets[0]))
    assert total > 300
    rng = random.Random(0)
    old, seen = 0, set()
    for n in [*(rng.randint(1, total) for _ in range(300)), *range(total - 150, total + 1)]:
        new = 1 - old
        interrupted = run_until(n, lambda new=new: change(net, sets[new])) is None
        params, y = dict(net.params), net(X)[0]
        (now,) = (k for k in (0, 1) if same_bits(params["weight_ih_l0"], sets[k]["weight_ih_l0"]))
        for name, value in sets[now].items():
            assert same_bits(params[name], value), (n, name)
        assert same_bits(y, wanted[now]), n
        assert interrupted or now == new
        seen.add((interrupted, now == new))
        old = now
    assert seen >= {(True, False), (True, True)}
    done = threading.Thread(target=change, args=(net, sets[0]))  # no lock was left behind
    done.start()
    done.join(10)
    assert same_bits(net(X)[0], wanted[0])


def test_nobody_sees_a_mixture():
    """Of parameters, state dicts and pickles, while another thread changes them."""
    sets, _ = versions()
    net = qg.LSTM(3, 4, 2, rng=1)
    stop = threading.Event()
    looks = []

    def write():
        n = 0
        while n < 150 or len(looks) < 12:  # the others may begin late
            n += 1
            (by_load, by_writable)[n % 3 == 0](net, sets[n % 2])
        stop.set()

    def look():
        while not stop.is_set():
            looks.append(dict(net.params))
            state = net.state_dict()
            looks.append({name: state[name.replace("bias", "bias_ih")] for name in net.params})
            looks.append(dict(pickle.loads(pickle.dumps(net)).params))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=work) for work in (write, look, look)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(looks) > 10
    for values in looks:
        assert any(all(same_bits(values[name], one[name]) for name in one) for one in sets)


def test_a_mapping_of_parameters_is_of_one_moment():
    sets, _ = versions()
    net = qg.LSTM(3, 4, 2, rng=1)
    before = net.params
    net.load_state_dict(sets[1])
    for name, value in sets[0].items():
        assert same_bits(before[name], value)
        assert same_bits(net.params[name], sets[1][name])
