"""A tape has a copy of x of its own: what the caller does to x after forward changes no gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quadgate as qg
from support.cases import DTYPES, Array, Case, data, keywords, model, same_bits

pytestmark = pytest.mark.numbers

OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2},
    {"num_layers": 2, "shortcut": "dense"},
    {"reverse": True},
    {"bidirectional": True},
    {"layer_norm": "output"},
]


def layouts(x: Array) -> dict[str, Array]:
    """The same numbers in memory of other orders, none of which is x."""
    wide = np.zeros((*x.shape[:2], x.shape[2] + 3), x.dtype)
    wide[..., 1:-2] = x
    return {
        "plain": x.copy(),
        "batch outside": x.swapaxes(0, 1).copy().swapaxes(0, 1),
        "backwards": x[::-1].copy()[::-1],
        "gaps": wide[..., 1:-2],
        "columns": x.copy(order="F"),
    }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("lengths", [False, True])
def test_x_may_change_after_forward(lengths, options, dtype):
    """By one thread and by two, which share the rows or, of one row, the units; I in whole panels and in parts."""
    sizes = ((1, 4, 40, 33), (7, 5, 64, 17), (6, 30, 70, 40), (40, 1, 130, 200), (3, 700, 17, 9))
    for steps, batch, inputs, hidden in sizes:
        case = Case(steps, batch, inputs, hidden, options, lengths, state=False, dtype=dtype)
        net, d = model(case), data(case)
        want = net.backward(net.forward(d.x, **keywords(case, d))[-1], d.dy)
        for name, x in {**layouts(d.x), "two threads": d.x}.items():
            qg.set_num_threads(2 if name == "two threads" else 1)
            tape = net.forward(x, **keywords(case, d))[-1]
            x[...] = np.nan
            got = net.backward(tape, d.dy)
            assert same_bits(got.x, want.x), (name, case)
            for key, value in want.params.items():
                assert same_bits(got.params[key], value), (key, name, case)


def test_a_tape_goes_back_twice_and_after_other_calls():
    """Its memory is its own, also where the network gave it that of an earlier tape of another shape."""
    net = qg.LSTM(40, 33, rng=0)
    rng = np.random.default_rng(1)
    shapes = [(6, 30), (1, 5), (20, 9), (6, 30), (1, 700), (2, 3)]
    calls = [[rng.normal(size=(*shape, n)).astype(np.float32) for n in (40, 33)] for shape in shapes]
    want = [qg.LSTM(40, 33, rng=0) for _ in calls]
    alone = [one.backward(one.forward(x)[-1], dy) for one, (x, dy) in zip(want, calls, strict=True)]
    tapes = [net.forward(x)[-1] for x, _ in calls]
    for _ in range(2):
        for tape, (_, dy), right in zip(tapes, calls, alone, strict=True):
            got = net.backward(tape, dy)
            assert same_bits(got.x, right.x)
            assert all(same_bits(got.params[name], value) for name, value in right.params.items())
    for (x, dy), right in zip(calls, alone, strict=True):  # each tape in the memory of the last
        tapes.clear()
        tapes.append(net.forward(x)[-1])
        got = net.backward(tapes[0], dy)
        assert all(same_bits(got.params[name], value) for name, value in right.params.items())
