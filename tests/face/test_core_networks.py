"""Networks of the compiled core: refused options, successors, and tapes that keep the weights they began with."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import weakref

import numpy as np
import pytest
import quadgate as qg
from quadgate import _core

SIZES = ("float32", 3, 4, 1, 1, True)
GATELESS = {"elman": True, "activations": [("tanh", 0.0, 0.0)] * 3}

# Options that Python would refuse, as a damaged or hostile pickle may have them.
REFUSED = {
    "peephole": {**GATELESS, "peephole": True},
    "layer_norm": {**GATELESS, "layer_norm": "output"},
    "cell_norm": {**GATELESS, "layer_norm": "cell"},
    "coupled": {**GATELESS, "coupled": True},
    "projection": {**GATELESS, "proj_size": 2},
    "zoneout": {**GATELESS, "zoneout": (0.5, 0.5)},
    "cell_clip": {**GATELESS, "cell_clip": 1.0},
    "gate_clip": {**GATELESS, "gate_clip": 1.0},
    "negative_clip": {"cell_clip": -1.0},
    "zero_clip": {"gate_clip": 0.0},
    "nan_clip": {"proj_size": 2, "proj_clip": math.nan},
    "dropout": {"dropout": 1.5},
    "negative_dropout": {"recurrent_dropout": -0.1},
    "nan_dropout": {"weight_drop": math.nan},
    "zoneout_rate": {"zoneout": (0.0, 2.0)},
    "eps": {"layer_norm": "cell", "layer_norm_eps": 0.0},
    "infinite_eps": {"layer_norm": "cell", "layer_norm_eps": math.inf},
    "alpha": {"activations": [("elu", math.inf, 0.0), ("tanh", 0.0, 0.0), ("tanh", 0.0, 0.0)]},
    "merge": {"merge": "sum"},
    "unknown_option": {"peepholes": True},
    "unknown_merge": {"merge": "other"},
    "unknown_activation": {"activations": [("other", 0.0, 0.0)] * 3},
}


@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED)
def test_options_that_the_core_cannot_compute(options):
    with pytest.raises(ValueError, match=r"\w"):
        _core.Network(*SIZES, options, False)


def test_reverse_with_two_directions():
    with pytest.raises(ValueError, match="reverse"):
        _core.Network("float32", 3, 4, 1, 2, True, {"reverse": True}, False)


@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize("size", [0, -1, -(2**62)])
def test_sizes_that_are_not_positive(at, size):
    numbers = list(SIZES)
    numbers[at] = size
    with pytest.raises(ValueError, match="size"):
        _core.Network(*numbers, None, False)


def test_three_directions():
    with pytest.raises(ValueError, match="directions"):
        _core.Network("float32", 3, 4, 1, 3, True, None, False)


@pytest.mark.parametrize("dtype", ["float16", "int32", ""])
def test_other_types(dtype):
    with pytest.raises(ValueError, match="dtype"):
        _core.Network(dtype, *SIZES[1:], None, False)


@pytest.mark.parametrize(
    "numbers", [(), SIZES, (1, *SIZES[1:], None, False), ("float32", 3.5, *SIZES[2:], None, False)]
)
def test_other_arguments(numbers):
    with pytest.raises(TypeError):
        _core.Network(*numbers)


def test_an_overlong_size():
    with pytest.raises(OverflowError):
        _core.Network("float32", 2**80, *SIZES[2:], None, False)
    with pytest.raises(MemoryError):
        _core.Network("float32", 3, 4, 2**62, 1, True, None, False).successor([])


@pytest.mark.parametrize("kind", [_core.Network, _core.Stream, _core.Tape])
def test_objects_cannot_be_copied_or_pickled(kind):
    lstm = qg.LSTM(3, 4, rng=0)
    core = lstm._snapshot.core
    _, _, tape = lstm.forward(np.ones((2, 1, 3), np.float32))
    thing = {_core.Network: core, _core.Stream: _core.Stream(core, 1), _core.Tape: tape._core}[kind]
    assert type(thing) is kind
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot pickle"):
            attempt(thing)


def test_a_tape_cannot_be_made_from_python():
    with pytest.raises(TypeError, match="cannot create"):
        _core.Tape()


def test_a_successor_is_the_same_network_with_other_parameters():
    lstm, other = qg.LSTM(3, 4, rng=0), qg.LSTM(3, 4, rng=1)
    x = np.ones((5, 2, 3), np.float32)
    first = lstm._snapshot.core
    second = first.successor(list(other.params.values()))
    assert first.id == second.id != other._snapshot.core.id
    rest = (None, None, None, None, False)
    assert (first.forward(x, *rest)[0] == lstm(x)[0]).all()
    assert (second.forward(x, *rest)[0] == other(x)[0]).all()


def test_a_successor_of_wrong_parameters_is_an_error():
    core = qg.LSTM(3, 4, rng=0)._snapshot.core
    values = list(qg.LSTM(3, 4, rng=1).params.values())
    for wrong in (values[:-1], [*values, values[0]], [values[0].T, *values[1:]], [None, *values[1:]], []):
        with pytest.raises(ValueError, match="parameters"):
            core.successor(wrong)
    with pytest.raises(TypeError, match="list"):
        core.successor(tuple(values))


def test_a_tape_goes_back_through_the_weights_that_it_was_made_with():
    lstm = qg.LSTM(3, 4, 2, weight_drop=0.2, rng=0)
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    y, _, tape = lstm.forward(x, rng=0)
    want = lstm.backward(tape, y)
    lstm.load_state_dict(dict(qg.LSTM(3, 4, 2, weight_drop=0.2, rng=1).params))
    got = lstm.backward(tape, y)
    assert (got.x == want.x).all()
    assert all((got.params[name] == want.params[name]).all() for name in want.params)


def test_tapes_and_streams_of_another_network_are_refused():
    lstm, other = qg.LSTM(3, 4, rng=0), qg.LSTM(3, 4, rng=0)
    x = np.ones((5, 1, 3), np.float32)
    y, _, tape = lstm.forward(x)
    with pytest.raises(ValueError, match="another network"):
        other.backward(tape, y)
    stream = _core.Stream(lstm._snapshot.core, 1)
    with pytest.raises(ValueError, match="another network"):
        stream.step(x[0], None, other._snapshot.core)
    with pytest.raises(TypeError, match="network"):
        stream.step(x[0], None, lstm)


def test_a_tape_in_a_reference_cycle_is_freed():
    """The core's tape holds no Python objects that lead back to it."""

    class Holder:
        pass

    lstm = qg.LSTM(3, 4, 2, dropout=0.5, rng=0)
    _, _, tape = lstm.forward(np.ones((5, 2, 3), np.float32), trace=True)
    holder = Holder()
    holder.tape, holder.trace, holder.dropped = tape, tape.trace, tape.dropped
    holder.self = holder
    gone = weakref.ref(holder)
    assert not hasattr(tape._core, "trace")
    with pytest.raises(AttributeError):
        tape._core.anything = holder
    del holder, tape
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("n", [2**31, 2**40, 2**63 - 1])
def test_too_many_threads_for_an_int(n):
    with pytest.raises(ValueError, match=rf"^n must be .*{n}$"):
        qg.set_num_threads(n)


def test_an_instruction_set_that_is_no_text(run_script):
    """The name in the error is readable, with any bytes in it."""
    run_script(
        r"""
import os, subprocess, sys
env = {**os.environb, b"QUADGATE_ISA": b"av\xff\n512"}
done = subprocess.run([sys.executable, "-c", "import quadgate"], env=env, capture_output=True, check=False)
assert done.returncode == 1
assert b"ImportError: QUADGATE_ISA is 'av\\xff\\x0a512'" in done.stderr, done.stderr
"""
    )
