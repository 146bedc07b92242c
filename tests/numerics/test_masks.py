"""Masks: their values, names and order, the generator they are drawn from; and calls that draw none."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
import quadgate as qg
from support.cases import same_bits

STEPS, ROWS = 6, 3
CHANCES = {"dropout": 0.3, "recurrent_dropout": 0.4, "weight_drop": 0.2, "zoneout": (0.1, 0.5)}


def make(**options):
    options = {**CHANCES, "num_layers": 2, "rng": 0, **options}
    return qg.LSTM(5, 7, **options)


def x_for(lstm, seed=0):
    shape = (ROWS, STEPS, 5) if lstm.batch_first else (STEPS, ROWS, 5)
    return np.random.default_rng(seed).normal(size=shape).astype(lstm.dtype)


def masks_of(lstm, rng=None, x=None):
    return lstm.forward(x_for(lstm) if x is None else x, rng=rng)[-1].dropped


def assert_same(one, two):
    assert list(one) == list(two)
    assert all(same_bits(one[name], two[name]) for name in one)


def by_hand(wanted, rng):
    """The contract: two elements from each uint64, the low half first, True below p * 2**32."""
    result = {}
    for name, (p, shape) in wanted.items():
        size = int(np.prod(shape))
        drawn = rng.integers(0, 2**64, (size + 1) // 2, np.uint64).view("<u4")[:size].astype(np.uint64)
        result[name] = (drawn < round(p * 2**32)).reshape(shape)
    return result


def wanted(suffixes, layers=2, units=7, columns=7, outputs=7, steps=STEPS, rows=ROWS):
    result = {}
    for k in range(layers):
        for end in suffixes:
            result[f"weight_drop_l{k}{end}"] = 0.2, (4 * units, columns)
            result[f"recurrent_dropout_l{k}{end}"] = 0.4, (rows, columns)
            result[f"zoneout_h_l{k}{end}"] = 0.1, (steps, rows, columns)
            result[f"zoneout_c_l{k}{end}"] = 0.5, (steps, rows, units)
        if k < layers - 1:
            result[f"dropout_l{k}"] = 0.3, (steps, rows, outputs)
    return result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, wanted([""])),
        ({"batch_first": True}, wanted([""])),
        ({"reverse": True}, wanted([""])),
        ({"bidirectional": True}, wanted(["", "_reverse"], outputs=14)),
        ({"bidirectional": True, "merge": "mul"}, wanted(["", "_reverse"], outputs=7)),
        ({"proj_size": 4}, wanted([""], columns=4, outputs=4)),
        ({"num_layers": 3, "shortcut": "dense"}, wanted([""], layers=3)),
    ],
)
def test_what_is_drawn(options, want, dtype):
    """Names, order and every bit, from an int and from a generator; time-major; arrays that cannot be written."""
    lstm = make(**options, dtype=dtype)
    expected = by_hand(want, np.random.default_rng(11))
    for rng in (11, np.int64(11), np.random.default_rng(11)):
        masks = masks_of(lstm, rng)
        assert_same(masks, expected)
        for mask in masks.values():
            assert mask.flags.c_contiguous
            assert not mask.flags.writeable
            with pytest.raises(ValueError, match="WRITEABLE"):
                mask.flags.writeable = True


@pytest.mark.parametrize("batch_first", [False, True])
def test_without_a_batch_axis(batch_first):
    """As for one row."""
    lstm = make(batch_first=batch_first)
    x = np.zeros((STEPS, 5), np.float32)
    assert_same(masks_of(lstm, 11, x), by_hand(wanted([""], rows=1), np.random.default_rng(11)))


def test_large_masks_are_drawn_in_the_same_order():
    """More elements than are drawn at a time; with each of NumPy's bit generators."""
    lstm = qg.LSTM(1, 100, zoneout=(0.5, 0.25))
    x = np.zeros((701, 1, 1), np.float32)
    for kind in (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64):
        got = masks_of(lstm, np.random.Generator(kind(5)), x)
        rng = np.random.Generator(kind(5))
        want = by_hand({"zoneout_h_l0": (0.5, (701, 1, 100)), "zoneout_c_l0": (0.25, (701, 1, 100))}, rng)
        assert_same(got, want)


@pytest.mark.parametrize("p", [0.03, 0.5, 0.9])
def test_how_many(p):
    """n draws hit p n times, give or take 5 standard deviations."""
    masks = masks_of(qg.LSTM(1, 50, zoneout=(p, 0)), 0, np.zeros((20, 20, 1), np.float32))
    (mask,) = masks.values()
    assert abs(mask.sum() - p * mask.size) < 5 * np.sqrt(p * (1 - p) * mask.size)


def test_all_and_none():
    """p = 1 has every element; p = 0 has no mask, and takes no draw."""
    masks = masks_of(make(zoneout=(1.0, 0.0), weight_drop=1.0), 0)
    assert masks["zoneout_h_l0"].all()
    assert masks["weight_drop_l1"].all()
    assert not any("zoneout_c" in name for name in masks)
    tiny = masks_of(make(zoneout=(2.0**-40, 0.0)), 0)  # rounds to 0, but is requested
    assert not tiny["zoneout_h_l0"].any()
    only = masks_of(qg.LSTM(5, 7, 2, dropout=0.3), 3)
    assert_same(only, by_hand({"dropout_l0": (0.3, (STEPS, ROWS, 7))}, np.random.default_rng(3)))


def test_networks_without():
    """No masks for any generator, which is checked nevertheless."""
    lstm = qg.LSTM(5, 7)
    rng = np.random.default_rng(0)
    before = repr(rng.bit_generator.state)
    for given in (None, 3, rng):
        assert lstm.forward(x_for(lstm), rng=given)[-1].dropped == {}
    assert repr(rng.bit_generator.state) == before
    for net in (lstm, make(), qg.RNN(5, 7)):
        for bad in ("seed", 1.5, -1, True, np.random.RandomState(0)):
            with pytest.raises(ValueError if bad == -1 else TypeError, match=r"^rng must"):
                net.forward(x_for(lstm), rng=bad)


def test_rnn():
    rnn = qg.RNN(5, 7, 2, dropout=0.3, recurrent_dropout=0.4, weight_drop=0.2)
    want = {name: entry for name, entry in wanted([""]).items() if "zoneout" not in name}
    want = {name: (p, (7, 7) if "weight" in name else shape) for name, (p, shape) in want.items()}
    x = np.zeros((STEPS, ROWS, 5), np.float32)
    assert_same(rnn.forward(x, rng=2)[-1].dropped, by_hand(want, np.random.default_rng(2)))


def test_the_networks_own_generator():
    """From the constructor's seed: the same for two networks, other masks in every call, and none taken by others."""
    one, two, other = make(), make(), make(rng=1)
    first = masks_of(one)
    assert_same(first, masks_of(two))
    assert not same_bits(first["zoneout_h_l0"], masks_of(other)["zoneout_h_l0"])
    second = masks_of(one)
    assert not same_bits(first["zoneout_h_l0"], second["zoneout_h_l0"])

    x = x_for(two)
    two(x)  # inference, streams, a given generator, and calls that are refused draw nothing from it
    two.stream(ROWS).run(x)
    masks_of(two, 5)
    refused = [({"x": x[..., :4]}, ValueError), ({"x": x, "lengths": [9, 9, 9]}, ValueError)]
    refused += [({"x": x, "state": 3}, TypeError), ({"x": x, "resets": "1"}, TypeError)]
    for arguments, error in refused:
        with pytest.raises(error, match=" must "):
            two.forward(**arguments)
    assert_same(second, masks_of(two))


def test_the_given_generator_moves_on_and_is_left_to_its_owner():
    rng = np.random.default_rng(7)
    lstm = make(rng=rng)
    before = repr(rng.bit_generator.state)
    masks_of(lstm)
    assert repr(rng.bit_generator.state) == before
    one, two = masks_of(lstm, rng), masks_of(lstm, rng)
    assert not same_bits(one["zoneout_h_l0"], two["zoneout_h_l0"])
    assert repr(rng.bit_generator.state) != before


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_go_on_alike_and_apart(again):
    lstm = make()
    masks_of(lstm)
    other = again(lstm)
    for _ in range(2):
        assert_same(masks_of(lstm), masks_of(other))


def test_masks_and_results_do_not_depend_on_the_number_of_threads():
    lstm = make(bidirectional=True)
    results = []
    for threads in (1, 3):
        qg.set_num_threads(threads)
        y, (h, c), tape = lstm.forward(x_for(lstm), rng=1)
        grads = lstm.backward(tape, np.ones_like(y))
        results.append([y, h, c, grads.x, *tape.dropped.values(), *grads.params.values()])
    assert all(same_bits(a, b) for a, b in zip(*results, strict=True))


def test_calls_in_many_threads_share_no_masks():
    """Threads draw together the masks that one thread would have drawn, each call in one piece."""
    want = {masks_of(twin)["zoneout_c_l1"].tobytes() for twin in [make()] for _ in range(12)}
    lstm, found = make(), []
    threads = [
        threading.Thread(target=lambda: found.extend(masks_of(lstm)["zoneout_c_l1"].tobytes() for _ in range(3)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(want) == 12
    assert set(found) == want


def test_a_seed_gives_a_training_step():
    """The same seed, the same result; another, another; and inference is neither."""
    lstm = make()
    x = x_for(lstm)
    one, same, other = (lstm.forward(x, rng=seed)[0] for seed in (1, 1, 2))
    assert same_bits(one, same)
    assert not same_bits(one, other)
    assert not same_bits(one, lstm(x)[0])


def test_arguments_of_any_kind():
    """Lists and other types get the masks of their shape."""
    lstm = make()
    x = x_for(lstm)
    y, _, tape = lstm.forward(x.tolist(), rng=1)
    assert same_bits(y, lstm.forward(x, rng=1)[0])
    assert tape.dropped["zoneout_h_l0"].shape == (STEPS, ROWS, 7)
    for shape in ((0, 3, 5), (4, 0, 5)):
        _, _, tape = lstm.forward(np.zeros(shape, np.float32), rng=1)
        assert tape.dropped["zoneout_h_l0"].shape == (*shape[:2], 7)


def test_masks_that_no_memory_holds():
    x = np.zeros((0, 2**58, 1), np.float32)
    with pytest.raises(MemoryError):
        qg.LSTM(1, 64, recurrent_dropout=0.5).forward(x)


def test_a_tape_keeps_its_masks():
    """Changes to the dictionary do not matter: the compiled core reads the masks again in backward."""
    lstm = make()
    y, _, tape = lstm.forward(x_for(lstm), rng=4)
    before = lstm.backward(tape, np.ones_like(y))
    with pytest.raises(AttributeError):
        tape.dropped = {}
    with pytest.raises(AttributeError):
        tape.dropped.clear()
    junk = [np.ones(1 << k, bool) for k in range(12)]  # what would lie in memory that was given back
    after = lstm.backward(tape, np.ones_like(y))
    assert same_bits(before.x, after.x)
    assert_same(before.params, after.params)
    assert len(junk) == 12


def test_a_tape_says_what_masks_and_dropped_weights_hold():
    plain, masked = (
        qg.LSTM(8, 64, rng=0, **kind).forward(np.zeros((50, 4, 8)))[-1] for kind in ({}, {"zoneout": (0.1, 0.1)})
    )
    assert masked.nbytes == plain.nbytes + 2 * 50 * 4 * 64
    dropped = qg.LSTM(8, 64, rng=0, weight_drop=0.1).forward(np.zeros((50, 4, 8)))[-1]
    of_hh = 4 * 64 * 64
    assert plain.nbytes + of_hh * 5 <= dropped.nbytes < plain.nbytes + of_hh * 6  # masks are bytes, weights floats


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("steps", "rows", "inputs", "units"),
    [(1, 2, 9, 17), (5, 3, 300, 24), (6, 4, 7, 40), (40, 16, 33, 64), (40, 16, 64, 72)],
)
@pytest.mark.parametrize("options", [{}, {"proj_size": 11}, {"peephole": True, "num_layers": 2, "bidirectional": True}])
def test_dropped_weights_are_zeros_and_have_no_gradient(steps, rows, inputs, units, options, dtype):
    """As in a network whose weights were set to 0 or scaled, to the last bit; for gradients in panels and by rows."""
    rate, rng = 0.3, np.random.default_rng(units)
    lstm = qg.LSTM(inputs, units, **options, weight_drop=rate, dtype=dtype, rng=1)
    plain = qg.LSTM(inputs, units, **options, dtype=dtype)
    x = rng.normal(size=(steps, rows, inputs)).astype(dtype)
    state = tuple(rng.normal(size=s.shape).astype(dtype) for s in lstm(x)[1])
    y, after, tape = lstm.forward(x, state)
    scales = {
        name.replace("weight_drop", "weight_hh"): np.where(dropped, 0, 1 / (1 - rate)).astype(dtype)
        for name, dropped in tape.dropped.items()
    }
    plain.load_state_dict({name: value * scales.get(name, 1) for name, value in lstm.params.items()})
    want_y, want_after, want_tape = plain.forward(x, state)
    assert same_bits(y, want_y)
    assert all(map(same_bits, after, want_after))
    dy = rng.normal(size=y.shape).astype(dtype)
    got, want = lstm.backward(tape, dy), plain.backward(want_tape, dy)
    assert all(map(same_bits, (got.x, got.h0, got.c0), (want.x, want.h0, want.c0)))
    for name, value in want.params.items():
        assert np.array_equal(got.params[name], value * scales.get(name, 1))  # the sign of a dropped one's 0 is free


def test_drawing_survives_a_fork_and_a_signal_handler(run_script):
    """Neither a child of a process that draws in another thread nor a handler that draws itself hangs."""
    run_script(
        """
        import os, signal, threading, time, warnings
        import numpy as np
        import quadgate as qg
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of fork beside threads
        net = qg.LSTM(4, 8, 2, dropout=0.3, zoneout=(0.2, 0.2), rng=0)
        x = np.zeros((2000, 64, 4), np.float32)
        signal.signal(signal.SIGALRM, lambda *_: net.forward(x[:2]))
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        for _ in range(5):
            net.forward(x)
        signal.setitimer(signal.ITIMER_REAL, 0)
        stop = threading.Event()
        def draw():
            while not stop.is_set():
                net.forward(x)
        thread = threading.Thread(target=draw)
        thread.start()
        children = []
        for _ in range(8):
            time.sleep(0.02)
            pid = os.fork()
            if pid == 0:
                signal.alarm(0)
                net.forward(x[:3])
                os._exit(0)
            children.append(pid)
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
        stop.set()
        thread.join()
        """,
        timeout=60,
    )
