"""Memory is freed with the last name of an object, not when Python's collector comes by; a tape says what it holds."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import quadgate as qg
from quadgate import train

X = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)


def lstm(**options):
    return qg.LSTM(5, 9, 2, rng=0, **options)


def taped(net, x=X, **arguments):
    y, *_, tape = net.forward(x, **arguments)
    net.backward(tape, np.ones_like(y))
    return tape


def model():
    result = train.Sequential([qg.LSTM(5, 9, rng=0), train.Dropout(0.1), train.Dense(9, 2)], rng=0)
    result.compile("mse")
    result.fit(X, np.zeros((4, 3, 2), np.float32), epochs=1)
    result.predict(X)
    return result


def streamed(stream, x=X):
    stream.step(x[0])
    return stream


def module():
    torch = pytest.importorskip("torch")
    import quadgate.torch

    net = quadgate.torch.LSTM(5, 9)
    net(torch.from_numpy(X).requires_grad_())[0].sum().backward()
    with torch.no_grad():
        net.eval()(torch.from_numpy(X))
    return net


THINGS = {
    "network": lambda: lstm()(X),
    "network that drops": lambda: taped(lstm(dropout=0.2, recurrent_dropout=0.2)),
    "float16": lambda: lstm().quantize("float16")(X),
    "int8": lambda: qg.RNN(5, 9, rng=0).quantize("int8")(X),
    "stream": lambda: streamed(lstm().stream(3)),
    "stream of int8": lambda: streamed(lstm().quantize("int8").stream(3)),
    "trace": lambda: taped(lstm(), trace=True, return_cells=True),
    "masked": lambda: taped(lstm(), mask=X[:, :, 0] > 0),
    "model": model,
    "stream of a model": lambda: streamed(model().stream(3)),
    "module": module,
}


@pytest.mark.parametrize("name", THINGS)
def test_no_cycle(name):
    """The collector finds nothing of ours, and no function of ours, that only a cycle kept."""
    THINGS[name]()  # imports, and what they leave, are not its own
    gc.disable()
    gc.freeze()  # the collector need not look at what there was before
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        THINGS[name]()
        gc.collect()
        places = [getattr(thing, "__module__", None) or "" for thing in gc.garbage]
        ours = [thing for thing, place in zip(gc.garbage, places, strict=True) if place.startswith("quadgate")]
        assert not ours
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


def test_a_tape_counts_all_that_it_holds():
    """The trace with its norms, and cells; tests/numerics/test_masks.py has the masks."""
    net = lstm(recurrent_dropout=0.1, dropout=0.1)
    plain, full = (net.forward(X, return_cells=more, trace=more)[-1] for more in (False, True))
    steps, rows, layers, hidden = 4, 3, 2, 9
    of_step = layers * steps * rows * 4
    own = 5 * of_step * hidden + steps * rows * hidden * 4
    assert full.nbytes == plain.nbytes + own
    net.backward(full, np.ones_like(X[:, :, :1]).repeat(hidden, axis=2))
    net.backward(plain, np.ones_like(X[:, :, :1]).repeat(hidden, axis=2))
    assert full.nbytes == plain.nbytes + own + 2 * of_step
