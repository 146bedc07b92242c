"""The package relies on this in the compiled core: methods that take plain arguments, and the errors they raise."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
import quadgate as qg
from quadgate import _core

NOTHING = (None, None, None, None, False)  # state, lengths, out, resets, cells


def network() -> _core.Network:
    """Return a network without parameters."""
    return _core.Network("float32", 3, 4, 1, 1, True, None, False)


@pytest.mark.parametrize("kind", [_core.Network, _core.Stream, _core.Tape])
def test_classes_are_final(kind):
    """Their methods rely on the type of `self`."""
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Derived", (kind,), {})


@pytest.mark.parametrize("kind", [_core.Network, _core.Stream])
def test_an_object_that_was_never_made(kind):
    method = kind.forward if kind is _core.Network else kind.step
    with pytest.raises(TypeError):
        method(kind.__new__(kind), *[None] * (6 if kind is _core.Network else 3))
    with pytest.raises(TypeError):
        method(object(), None, None)


def test_arguments_are_positional_and_all_there():
    net = qg.LSTM(3, 4)._snapshot.core
    x = np.zeros((2, 1, 3), np.float32)
    for call in (net.forward, net.forward_tape, _core.Stream(net, 1).step, _core.Stream(net, 1).run):
        for bad in ((), (x,), (x, *[None] * 9)):
            with pytest.raises(TypeError):
                call(*bad)
        with pytest.raises(TypeError):
            call(x=x)


def test_what_is_not_plain_is_refused_without_an_error():
    net = qg.LSTM(3, 4)._snapshot.core
    x = np.zeros((2, 1, 3), np.float32)
    assert net.forward(x.tolist(), *NOTHING) is None
    assert net.forward(x, *NOTHING[:-1], 0) is None
    assert net.forward_tape(x, None, None, None, 1, None) is None
    assert _core.Stream(net, 1).run(x, None, None, None, net) is None
    assert _core.Stream(net, 1).step(x.tolist(), None, net) is None


def test_exceptions_of_the_core():
    """C++ exceptions become Python's."""
    net, x = network(), np.zeros((2, 1, 3), np.float32)
    with pytest.raises(RuntimeError, match="no parameters yet"):
        net.forward(x, *NOTHING)
    with pytest.raises(RuntimeError, match="no parameters yet"):
        _core.Stream(net, 1).step(x[0], None, net)
    other = qg.LSTM(3, 4)._snapshot.core
    with pytest.raises(ValueError, match="another network"):
        _core.Stream(net, 1).step(x[0], None, other)
    for bad in (None, object()):
        with pytest.raises(TypeError, match="expected a network"):
            _core.Stream(net, 1).step(x[0], None, bad)
    wide = _core.Network("float32", 3, 2**62, 1, 1, True, None, False)
    with pytest.raises(MemoryError):
        wide.forward(x, *NOTHING)


def test_a_method_keeps_its_object():
    lstm, x = qg.LSTM(3, 4, rng=0), np.ones((2, 1, 3), np.float32)
    want = lstm(x)[0]
    forward = lstm._snapshot.core.forward
    del lstm
    assert (forward(x, *NOTHING)[0] == want).all()


def test_references_are_neither_kept_nor_lost():
    lstm = qg.LSTM(3, 4)
    stream, x, out = lstm.stream(), np.ones((1, 1, 3), np.float32), np.empty((1, 1, 4), np.float32)
    state = lstm(x)[1]
    held = (x, out, state, *state, lstm._snapshot.core, None, False)
    gc.collect()  # not in between, when it would free others' references to None
    before = [sys.getrefcount(item) for item in held]
    for _ in range(100):
        lstm(x, state, out=out)
        lstm.forward(x, state)
        stream.step(x[0], out[0])
        stream.run(x, out)
        lstm._snapshot.core.forward(x.tolist(), *NOTHING)
        with pytest.raises(TypeError):
            lstm._snapshot.core.forward(x)
    after = [sys.getrefcount(item) for item in held]
    assert all(abs(a - b) < 50 for a, b in zip(before, after, strict=True)), (before, after)
