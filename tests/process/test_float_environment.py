"""The floating-point environment of the caller changes no bit, and is the caller's again after every call.

Libraries set it without the user's knowledge: ``torch.set_flush_denormal(True)``, or a plug-in built with -ffast-math.
"""

from __future__ import annotations

import platform

import pytest

if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
    pytest.skip("the layout of the C library's fenv_t is not known here", allow_module_level=True)

START = """
import ctypes, platform, struct
import numpy as np
import quadgate as qg

libm = ctypes.CDLL("libm.so.6")
X86 = platform.machine() == "x86_64"

def control():
    "The control bits of this thread."
    state = ctypes.create_string_buffer(64)
    assert libm.fegetenv(state) == 0
    return struct.unpack_from("I", state, 28 if X86 else 0)[0] & (0xFFC0 if X86 else 0xFFFFFFFF)

def set_control(value):
    state = ctypes.create_string_buffer(64)
    assert libm.fegetenv(state) == 0
    struct.pack_into("I", state, 28 if X86 else 0, value)
    assert libm.fesetenv(state) == 0

STANDARD = control()
ROUNDING = {"down": 1, "up": 2, "zero": 3} if X86 else {"up": 1, "down": 2, "zero": 3}
ENVIRONMENTS = {name: STANDARD | mode << (13 if X86 else 22) for name, mode in ROUNDING.items()}
ENVIRONMENTS["flush"] = STANDARD | (0x8040 if X86 else 1 << 24)

rng = np.random.default_rng(0)

def network(dtype, **options):
    return qg.LSTM(24, 40, 2, dtype=dtype, rng=0, **options)

def inputs(dtype):
    "Numbers of all sizes, so that gates, cells and gradients meet denormals."
    tiny = np.finfo(dtype).tiny
    x = rng.normal(size=(9, 32, 24)).astype(dtype)
    x[:, ::2] *= tiny
    dy = rng.normal(size=(9, 32, 40)).astype(dtype)
    dy[:, 1::2] *= tiny
    return x, dy

def everything(model, x, dy):
    y, (h, c), tape = model.forward(x, rng=1)
    grads = model.backward(tape, dy)
    stream = model.stream(32)
    steps = [stream.step(v) for v in x[:3]]
    out = [y, h, c, grads.x, grads.h0, grads.c0, *grads.params.values(), *steps, stream.run(x), model(x)[0]]
    return b"".join(a.tobytes() for a in out)
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_are_the_same_in_every_environment(run_script, dtype, threads):
    run_script(
        START
        + f"""
qg.set_num_threads({threads})
for options in (
    {{}},
    {{"layer_norm": "cell", "proj_size": 24, "zoneout": (0.1, 0.2)}},
    {{"weight_drop": 0.3, "recurrent_dropout": 0.2, "dropout": 0.3}},
    {{"activations": ("hard_sigmoid", "elu", "softsign"), "cell_clip": 3.3}},
):
    model = network("{dtype}", **options)
    if options.get("proj_size"):
        x, dy = inputs("{dtype}")
        dy = np.ascontiguousarray(dy[..., :24])
    else:
        x, dy = inputs("{dtype}")
    want = everything(model, x, dy)
    for name, value in ENVIRONMENTS.items():
        set_control(value)
        got = everything(model, x, dy)
        after = control()
        set_control(STANDARD)
        assert got == want, (name, options)
        assert after == value, name
"""
    )


def test_a_pool_started_under_another_environment_does_not_keep_it(run_script):
    run_script(
        START
        + """
qg.set_num_threads(1)
model = network("float32")
x, dy = inputs("float32")
want = everything(model, x, dy)
qg.set_num_threads(2)
big = qg.LSTM(64, 128, rng=0)
set_control(ENVIRONMENTS["flush"])
big(np.ones((20, 64, 64), np.float32))  # starts the pool
assert everything(model, x, dy) == want
set_control(STANDARD)
assert everything(model, x, dy) == want
"""
    )


def test_parameters_and_pickles_are_made_in_the_standard_environment(run_script):
    run_script(
        START
        + """
import pickle
model = network("float32", layer_norm="output", cell_clip=0.7)
x, dy = inputs("float32")
want = everything(model, x, dy)
packed = pickle.dumps(model)
for name, value in ENVIRONMENTS.items():
    set_control(value)
    again = pickle.loads(packed)
    again.load_state_dict(dict(model.params))
    set_control(STANDARD)
    assert everything(again, x, dy) == want, name
"""
    )


def test_a_signal_handler_cannot_change_the_bits_of_the_call_it_interrupts(run_script):
    run_script(
        START
        + """
import signal
model = qg.LSTM(1, 512, rng=0)
x = np.random.default_rng(0).normal(size=(1500, 1, 1)).astype(np.float32)
want = model(x)[0].tobytes()
seen = []
def handler(*_):
    seen.append(1)
    set_control(ENVIRONMENTS["up"])
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.02)
got = model(x)[0].tobytes()
while not seen:
    pass
set_control(STANDARD)
assert got == want
"""
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_long_silence_in_a_stream(run_script, kind, dtype):
    """After a sound the state decays to zero, not to denormals: those make every later step many times slower."""
    run_script(
        START
        + f"""
dtype = np.dtype("{dtype}")
tiny = np.finfo(dtype).tiny
def decay(value):
    model = qg.{kind}(2, 3, dtype=dtype, rng=0)
    with model.writable() as params:
        gates = [[0] * 3, [3] * 3, [0] * 3, [1] * 3] if "{kind}" == "LSTM" else [[0] * 3]
        params["bias_l0"][:] = np.ravel(gates)
        params["weight_hh_l0"][:] = 0.9 * np.eye(3) if "{kind}" == "RNN" else 0.01 * params["weight_hh_l0"]
    stream = model.stream()
    set_control(value)
    out = [stream.run(np.ones((20, 1, 2), dtype))]
    silence = np.zeros((10_000, 1, 2), dtype)
    for _ in range(100):
        out.append(stream.run(silence))
    set_control(STANDARD)
    out += [np.ravel(part)[:, None, None] * np.ones((1, 1, 3)) for part in np.atleast_1d(stream.state)]
    return np.concatenate(out)
want = decay(STANDARD)
assert want[19].all() and not want[-1].any()
assert not ((0 < np.abs(want)) & (np.abs(want) < tiny)).any()
for value in ENVIRONMENTS.values():
    assert decay(value).tobytes() == want.tobytes()
"""
    )
