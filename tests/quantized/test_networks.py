"""Networks with weights of fewer bits: their numbers with every option, and the same bits in all ways to call them."""

from __future__ import annotations

import platform
import sys

import numpy as np
import pytest
import quadgate as qg
from quadgate import reference
from support.cases import data, infer, model, same_bits
from support.options import SINGLE, single

pytestmark = pytest.mark.numbers

KINDS = ("float16", "bfloat16", "int8")
ARGUMENTS = {
    "plain": {},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
    "projection and peepholes": {"num_layers": 2, "proj_size": 5, "peephole": True},
    "highway": {"num_layers": 3, "shortcut": "highway"},
    "dense": {"num_layers": 3, "shortcut": "dense"},
    "layer norm": {"layer_norm": "output"},
    "batch first": {"batch_first": True, "reverse": True},
    "no bias": {"bias": False, "coupled": True, "cell_clip": 0.3},
}
# T, B, I, H: one row and many; around the tails of vectors, of groups of four k and of tiles; past L2.
SHAPES = [(5, 1, 3, 5), (3, 2, 17, 16), (2, 7, 33, 40), (4, 13, 6, 33), (3, 200, 20, 17), (2, 3, 64, 65), (1, 9, 7, 31)]
LARGE = [(3, 1, 256, 512), (2, 30, 512, 600)]
# Hidden size of an LSTM whose floats fill half of L2: 16 bits are packed as such then, and the calling thread widens
# them; smaller networks are packed as floats.
L2 = qg.cpu_info()["l2"] or 1 << 20
PACKED_H = int((L2 / 64) ** 0.5) + 1


def network(shape, cls=qg.LSTM, **arguments):
    return cls(shape[2], shape[3], rng=1, **arguments)


def sequence(shape, **arguments):
    x = np.random.default_rng(shape[1]).standard_normal(shape[:3]).astype(np.float32)
    return np.ascontiguousarray(x.swapaxes(0, 1)) if arguments.get("batch_first") else x


def same(a, b):
    return all(np.array_equal(p, q) for p, q in zip(flat(a), flat(b), strict=True))


def flat(result):
    return [result] if isinstance(result, np.ndarray) else [a for part in result for a in flat(part)]


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES + LARGE, ids=str)
def test_16_bits_are_those_of_the_rounded_weights(shape, kind):
    """Each weight is widened exactly, so the network is a float32 network with the rounded weights, to the last bit."""
    small = network(shape).quantize(kind)
    plain = network(shape)
    plain.load_state_dict(small.params)
    assert same(small(sequence(shape)), plain(sequence(shape)))


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("size", ["small", "packed"])
@pytest.mark.parametrize("name", SINGLE)
def test_16_bits_with_each_option(name, size, kind):
    hidden = 17 if size == "small" else PACKED_H * (2 if name.startswith("rnn") else 1)
    case = single(name, hidden, lengths=True, resets=True)
    small, plain, d = model(case).quantize(kind), model(case), data(case)
    plain.load_state_dict(small.params)
    got, want = infer(case, small, d), infer(case, plain, d)
    assert got.keys() == want.keys()
    assert all(same_bits(got[key], want[key]) for key in want)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("units", [1, 3, 4, 5, 7, 8, 9, 12])
def test_16_bits_with_the_last_units_in_part_of_a_vector(units, kind):
    """Their floats end with a narrow panel, as a float32 network's do, in every way to get them."""
    for whole, arguments in ((16, {}), (PACKED_H // 16 * 16 + 16, {"num_layers": 2, "bidirectional": True})):
        for steps, batch in ((1, 1), (3, 2), (9, 5), (2, 20), (40, 30)):
            shape = (steps, batch, 24, whole + units)
            small, plain, x = network(shape, **arguments).quantize(kind), network(shape, **arguments), sequence(shape)
            plain.load_state_dict(small.params)
            for _ in range(3):
                assert same(small(x), plain(x)), shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arguments", [{}, {"num_layers": 2, "peephole": True}, {"proj_size": 40}], ids=str)
def test_without_a_state_as_with_zeros(arguments, kind):
    """A first step without a state may leave out its product with h, in first calls and where floats are kept."""
    for steps, batch in ((1, 1), (1, 2), (1, 4), (1, 30), (2, 5), (3, 1), (9, 100)):
        shape = (steps, batch, 17, PACKED_H)
        states = arguments.get("num_layers", 1), batch
        zeros = [np.zeros((*states, n), np.float32) for n in (arguments.get("proj_size", PACKED_H), PACKED_H)]
        net, x = network(shape, **arguments).quantize(kind), sequence(shape)
        want = net(x, tuple(zeros))
        for small in (net, network(shape, **arguments).quantize(kind)):
            for _ in range(3):
                assert same(small(x), want), shape


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("size", [17, PACKED_H])
def test_16_bits_in_calls_that_follow_each_other(kind, size):
    """A thread keeps the floats of the networks that it called last, and never takes them for another one's.

    Of the larger ones L2 holds two: the third gets room once the first was not called for a while.
    """
    plain = [qg.LSTM(size, size, rng=seed) for seed in range(3)]
    small = [net.quantize(kind) for net in plain]
    for net, other in zip(plain, small, strict=True):
        net.load_state_dict(other.params)
    for count, k in enumerate([0, 0, 0, 1, 0, 1, 2, 2, 0] + 14 * [1, 2] + [0, 0, 0, 1, 2]):
        x = sequence((1 + count % 3, 2 + count % 5, size))
        assert same(small[k](x), plain[k](x))


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("size", [17, PACKED_H])
def test_16_bits_in_streams_in_turn(kind, size):
    plain = [qg.LSTM(9, size, rng=seed) for seed in range(2)]
    small = [net.quantize(kind) for net in plain]
    for net, other in zip(plain, small, strict=True):
        net.load_state_dict(other.params)
    streams = [(a.stream(3), b.stream(3)) for a, b in zip(small, plain, strict=True)]
    for count, k in enumerate([0, 0, 0, 1, 0, 1, 1, 1, 0, 0]):
        x = sequence((1, 3, 9 + count))[0, :, count:]
        one, other = streams[k]
        assert same(one.step(x), other.step(x))


def test_float16_holds_its_smallest_numbers():
    """Widening must not flush those below 2^-14, as arithmetic of the core does below 2^-126."""
    lstm = qg.LSTM(4, 5, rng=0)
    with lstm.writable() as params:
        params["weight_ih_l0"][...] = 2.0**-24 * np.arange(80).reshape(20, 4)
        params["weight_hh_l0"][...] = 0
        params["bias_l0"][...] = 0
    x = np.full((2, 1, 4), 1e6, np.float32)
    assert same(lstm.quantize("float16")(x), lstm(x))
    for rows in (2, 9, 40):  # in tiles, and widened ahead of them
        x = np.full((1, rows, 4), 1e6, np.float32)
        assert same(lstm.quantize("float16")(x), lstm(x))


# ---- int8 ----


def quantized_rows(x):
    """Integers of rows, 0 for 0, their scales, and the quotients that were rounded: 255 steps from least to most."""
    scale = (np.maximum(x.max(-1, keepdims=True), 1e-30) - np.minimum(x.min(-1, keepdims=True), 0)) / 255
    return np.rint(x / scale), scale, x / scale


def exact_int8(small, x, h, c, *, elman=False):
    """y of every step in float64 from the quantised weights, and a bound on |y - that of the core| for one step.

    The judge quantises rows in float64. The core's quotient x * (127.5 / (range / 2)) has three roundings, each at most
    2^-24 of 255, so where the judge's is within 5e-5 of a half, the integer may be the neighbour: that counts as an
    error of one scale times the weight. Least and most both round away from 0 only if both are halves, but for that
    error; then the most is one less. All other errors are float32's: two scales, a product, two additions for each sum.
    """
    stored = small._snapshot.stored
    w = {name: stored[f"weight_{name}_l0"].astype(np.float64) for name in ("ih", "hh")}
    s = {name: stored[f"weight_{name}_l0.scale"].astype(np.float64) for name in ("ih", "hh")}
    a, error = stored["bias_l0"].astype(np.float64), 0.0
    size = np.abs(a)
    for name, rows in (("ih", x), ("hh", h)):
        z, t, quotient = quantized_rows(rows)
        unclear = np.abs(np.abs(quotient - np.floor(quotient)) - 0.5) < 255 * 3 * 2.0**-24
        part = t * s[name] * (z @ w[name].T)
        a = a + part
        size = size + np.abs(part)
        error = error + t * s[name] * (unclear @ np.abs(w[name]).T)
    error = error + 10 * 2.0**-24 * size
    if elman:
        return np.tanh(a), None, error + 2.0**-22
    i, f, g, o = np.split(a, 4, -1)
    i, f, o = (1 / (1 + np.exp(-v)) for v in (i, f, o))
    new = f * c + i * np.tanh(g)
    errors = np.split(error, 4, -1)
    # Slopes: sigmoid at most 1/4, tanh at most 1; |c| bounds f's share. Each function is good to 2 ULP, 2^-22.
    d = (errors[0] + 2.0**-20) * 0.25 * 1 + errors[1] * 0.25 * np.abs(c) + errors[2] + 2.0**-20 * (1 + np.abs(c))
    return o * np.tanh(new), new, d + errors[3] * 0.25 + 2.0**-20


@pytest.mark.parametrize("shape", SHAPES + LARGE, ids=str)
def test_int8_against_float64(shape):
    """Step by step, each from the core's own state, so that errors do not add up."""
    small, x = network(shape).quantize("int8"), sequence(shape)
    h = c = np.zeros((1, shape[1], shape[3]), np.float32)
    for t in range(shape[0]):
        y, (h_new, c_new) = small(x[t : t + 1], (h, c))
        want, cell, bound = exact_int8(small, x[t].astype(np.float64), h[0].astype(np.float64), c[0].astype(np.float64))
        assert (np.abs(y[0] - want) <= bound).all()
        assert (np.abs(c_new[0] - cell) <= bound).all()
        h, c = h_new, c_new


@pytest.mark.parametrize("rows", [1, 2, 20])
def test_int8_cells_alone(rows):
    """With weights of zero the gates' arguments are the biases: large, tiny, infinite, NaN and ordinary ones.

    The core divides once for i g and once for o tanh(c). A function that is good to 2 ULP has lost 1.5 of them before
    its division, and an operation loses half of one: 2 * 1.5 + 3 / 2 = 4.5 ULP for such a product, each at most 2^-23.
    """
    edges = [0, 1e-30, 1e-38, 0.3, 5, 9.1, 17, 30, 87.4, 104, 200, np.inf]
    edges = np.array([*edges, *(-v for v in edges), np.nan], np.float32)
    pairs = np.stack(np.meshgrid(edges, edges)).reshape(2, -1)
    drawn = np.random.default_rng(5).standard_normal((4, 400)).astype(np.float32) * 4
    a = np.concatenate([pairs[[0, 0, 1, 1]], drawn], 1)  # every i beside every g, every f beside every o
    hidden = a.shape[1]
    lstm = qg.LSTM(64, hidden, rng=0)
    with lstm.writable() as params:
        params["bias_l0"][...] = a.ravel()
        params["weight_ih_l0"][...] = params["weight_hh_l0"][...] = 0
    h, last = np.zeros((2, 1, rows, hidden), np.float32)
    last[..., 1::2] = np.random.default_rng(6).standard_normal((rows, hidden // 2)) * 2
    y, (_, new) = lstm.quantize("int8")(np.ones((1, rows, 64), np.float32), (h, last))

    ulp, least = 2.0**-23, 2.0**-126  # the core flushes smaller numbers
    with np.errstate(over="ignore"):
        i, f, o = 1 / (1 + np.exp(-a[[0, 1, 3]].astype(np.float64)))
    kept, added = f * last, i * np.tanh(a[2].astype(np.float64))
    for got, want, bound in (
        (new, kept + added, ulp * (2.5 * np.abs(kept) + 5 * np.abs(added)) + least * (1 + np.abs(last))),
        (y, o * np.tanh(new.astype(np.float64)), 4.5 * ulp * np.abs(o * np.tanh(new)) + least),
    ):
        assert np.array_equal(np.isnan(got), np.isnan(want))
        assert (np.abs(got - want) <= bound)[~np.isnan(want)].all()


@pytest.mark.parametrize("shape", SHAPES[:5], ids=str)
def test_int8_of_an_elman_network(shape):
    small, x = network(shape, qg.RNN).quantize("int8"), sequence(shape)
    h = np.zeros((1, shape[1], shape[3]), np.float32)
    for t in range(shape[0]):
        y, h_new = small(x[t : t + 1], h)
        want, _, bound = exact_int8(small, x[t].astype(np.float64), h[0].astype(np.float64), None, elman=True)
        assert (np.abs(y[0] - want) <= bound).all()
        h = h_new


@pytest.mark.parametrize("name", ARGUMENTS)
def test_int8_is_near_the_original(name):
    """Every option goes through the quantised product: y is near that of float32, and not equal to it."""
    shape, arguments = (4, 3, 24, 32), ARGUMENTS[name]
    lstm = network(shape, **arguments)
    error = qg.quantization_error(lstm, lstm.quantize("int8"), sequence(shape, **arguments))
    assert 0 < error.largest < 0.05


def test_int8_rows_that_are_not_finite_or_zero():
    small = qg.LSTM(20, 9, rng=0).quantize("int8")
    x = np.random.default_rng(0).standard_normal((1, 4, 20)).astype(np.float32)
    clean = small(x)[0]
    x[0, 1, 3], x[0, 2, 17] = np.nan, -np.inf
    y = small(x)[0]
    assert np.isnan(y[0, 1:3]).all()
    assert same(y[0, ::3], clean[0, ::3])
    zero = qg.LSTM(20, 9, rng=0)
    want = reference.forward(zero.params, np.zeros((1, 1, 20)), num_layers=1, bidirectional=False)[0]
    assert np.abs(small(np.zeros((1, 1, 20), np.float32))[0] - want).max() < 1e-6
    assert np.isfinite(small(np.full((1, 1, 20), 3e38, np.float32))[0]).all()


def test_int8_of_a_row_ignores_its_neighbours_outlier():
    small = qg.LSTM(40, 33, rng=0).quantize("int8")
    x = np.random.default_rng(0).standard_normal((6, 3, 40)).astype(np.float32)
    want = small(x)[0][:, ::2]
    x[:, 1] *= 1e4
    assert same(small(x)[0][:, ::2], want)


# ---- the same bits ----


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(6, 7, 33, 40), (5, 20, 9, 130), (3, 110, 20, 33)], ids=str)
def test_rows_threads_chunks_and_streams(shape, kind):
    small, x = network(shape, num_layers=2).quantize(kind), sequence(shape)
    qg.set_num_threads(1)
    want = small(x)
    for threads in (2, 3):
        qg.set_num_threads(threads)
        assert same(small(x), want)
    qg.set_num_threads(1)
    for b in (0, 3, shape[1] - 1):
        assert same(small(x[:, b : b + 1])[0], want[0][:, b : b + 1])
        assert same(small(x[:, b])[0], want[0][:, b])
    head, state = small(x[:2])
    tail, end = small(x[2:], state)
    assert same((np.concatenate([head, tail]), end), want)
    stream = small.stream(shape[1])
    steps = [stream.step(x[0]), stream.step(x[1])]
    assert same(np.concatenate([np.stack(steps), stream.run(x[2:])]), want[0])
    assert same(stream.state, want[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 2])
def test_large_ones_in_pieces(kind, threads):
    """Units split over threads; 16-bit weights widened once for many rows and steps, or within the product."""
    lstm, rng = qg.LSTM(64, 520, rng=0), np.random.default_rng(0)
    small, x = lstm.quantize(kind), rng.standard_normal((40, 16, 64)).astype(np.float32)
    qg.set_num_threads(1)
    want = np.concatenate([small(x[:, b : b + 1])[0] for b in (0, 9, 15)], 1)
    qg.set_num_threads(threads)
    assert same(small(x)[0][:, [0, 9, 15]], want)
    assert same(small(x[:1])[0][:, [0, 9, 15]], want[:1])
    assert same(small(x[:, 9:10])[0], want[:, 1:2])


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_resets_and_masks(kind):
    small = qg.LSTM(6, 17, bidirectional=True, rng=0).quantize(kind)
    x = np.random.default_rng(0).standard_normal((7, 4, 6)).astype(np.float32)
    y = small(x, lengths=[7, 5, 1, 0])[0]
    for b, n in enumerate([7, 5, 1]):
        assert same(y[:n, b : b + 1], small(x[:n, b : b + 1])[0])
        assert (y[n:, b] == 0).all()
    resets = np.zeros((7, 4), bool)
    resets[3, 1] = True
    y = small(x, resets=resets)[0]
    assert same(y[:3, 1:2], small(x[:3, 1:2])[0])
    assert same(y[3:, 1:2], small(x[3:, 1:2])[0])
    mask = np.ones((7, 4), bool)
    mask[2, 0] = mask[5, 0] = False
    y = small(x, mask=mask)[0]
    assert same(y[mask[:, 0], 0:1], small(x[mask[:, 0], 0:1])[0])


def test_int8_is_the_same_on_every_instruction_set_with_fused_multiply_add(run_script):
    sets = [name for name in qg.cpu_info()["supported"] if name != "baseline"]
    if len(sets) < 2:
        pytest.skip("this machine has one instruction set with a fused multiply-add")
    source = """
        import hashlib, numpy as np, quadgate as qg
        for h in (5, 16, 40, 130):
            for options in ({}, {"proj_size": 3}, {"num_layers": 2, "bidirectional": True, "peephole": True}):
                small = qg.LSTM(h + 2, h, rng=0, **options).quantize("int8")
                x = np.random.default_rng(0).standard_normal((4, 40, h + 2)).astype(np.float32)
                print(hashlib.sha256(b"".join(small(x[:, :b])[0].tobytes() for b in (1, 2, 9, 40))).hexdigest())
    """
    first, *others = (run_script(source, QUADGATE_ISA=name).stdout for name in sets)
    assert all(other == first for other in others)


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="AMX is asked for in Linux's way")
def test_int8_without_the_permission_to_use_amx(run_script):
    """Linux refuses it where a thread's alternate signal stack is too small: the same bits by other instructions."""
    source = """
        import ctypes, hashlib, os, numpy as np
        libc = ctypes.CDLL(None)
        class Stack(ctypes.Structure):
            _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
        small = Stack(ctypes.addressof(memory := ctypes.create_string_buffer(1 << 13)), 0, 1 << 13)
        if "SMALL_STACK" in os.environ:
            assert libc.sigaltstack(ctypes.byref(small), None) == 0
        import quadgate as qg
        net = qg.LSTM(70, 96, rng=0).quantize("int8")
        x = np.random.default_rng(0).standard_normal((3, 40, 70)).astype(np.float32)
        allowed = ctypes.c_uint64()
        libc.syscall(158, 0x1022, ctypes.byref(allowed))  # arch_prctl(ARCH_GET_XCOMP_PERM)
        print(hashlib.sha256(net(x)[0].tobytes()).hexdigest(), allowed.value >> 18 & 1)
    """
    bits, _ = run_script(source).stdout.split()
    assert run_script(source, SMALL_STACK="1").stdout.split() == [bits, "0"]
