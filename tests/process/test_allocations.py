"""One allocation that fails is a MemoryError, wherever it happens, and everything is as it was."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("allocations are made to fail by LD_PRELOAD and glibc's own names", allow_module_level=True)

# Fails the n-th allocation from the moment that it is armed, of the C and of the C++ library alike.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static volatile long left = 0;  /* 0: not armed */
static volatile int ours = 0;   /* count those of C++ and of the module only */

void qg_only_ours(int only) { ours = only; }
void qg_arm(long n) { __atomic_store_n(&left, n, __ATOMIC_SEQ_CST); }
/* How many were left when it ended; 0 if one has failed. */
long qg_disarm(void) { return __atomic_exchange_n(&left, 0, __ATOMIC_SEQ_CST); }

static int fails(void *caller) {
  long n = __atomic_load_n(&left, __ATOMIC_SEQ_CST);
  Dl_info from;
  if (n > 0 && ours && !(dladdr(caller, &from) && from.dli_fname &&
                         (strstr(from.dli_fname, "libstdc++") || strstr(from.dli_fname, "_core."))))
    return 0;
  while (n > 0)
    if (__atomic_compare_exchange_n(&left, &n, n - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
      if (n == 1) errno = ENOMEM;
      return n == 1;
    }
  return 0;
}

#define FAILS fails(__builtin_return_address(0))
void *malloc(size_t n) { return FAILS ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return FAILS ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return FAILS ? NULL : __libc_realloc(p, n); }
void *memalign(size_t align, size_t n) { return FAILS ? NULL : __libc_memalign(align, n); }
void *aligned_alloc(size_t align, size_t n) { return FAILS ? NULL : __libc_memalign(align, n); }
int posix_memalign(void **p, size_t align, size_t n) {
  if (FAILS) return ENOMEM;
  *p = __libc_memalign(align, n);
  return *p ? 0 : ENOMEM;
}
"""

SCRIPT = """
import copy, ctypes, gc, os, pickle, signal, sys, threading
import numpy as np
import quadgate as qg
from quadgate import _core

signal.alarm(100)
shim = ctypes.CDLL({shim!r}, use_errno=False)
arm, disarm = shim.qg_arm, shim.qg_disarm
arm.argtypes, disarm.restype = [ctypes.c_long], ctypes.c_long

qg.set_num_threads({threads})
rng = np.random.default_rng(0)
lstm = qg.LSTM(6, 20, 2, dropout=0.5, weight_drop=0.2, zoneout=(0.1, 0.1), recurrent_dropout=0.1, rng=0)
plain = qg.LSTM(6, 20, rng=0)
x = rng.normal(size=(4, 3, 6)).astype(np.float32)
state = np.ones((1, 3, 20), np.float32), np.ones((1, 3, 20), np.float32)
lengths, resets = np.array([4, 0, 2]), np.zeros((4, 3), bool)
y, _, tape = plain.forward(x, state)
stream = plain.stream(3)
stream.run(x)
core = plain._snapshot.core
values = [np.array(v) for v in plain.params.values()]
numbers = ("float32", 6, 20, 1, 1, True, None, False)
masks = lstm.forward(x, rng=0)[2].dropped
wide, weight, bias = np.ones((40, 30), np.float32), np.ones((20, 30), np.float32), np.ones(20, np.float32)
outputs, rows = np.ones((40, 20), np.float32), np.arange(20).repeat(2)
grads_of = np.empty_like(weight), np.empty_like(bias)
head, act = _core.Dense(weight[:1].copy(), None, None), ("softplus", 0.0, 0.0)
adam = ("adam", 1.0, 0.9, 0.99, 1e-8, 0.1, 1.0, 0.1, 0.01)

class Holder:
    __slots__ = ("a",)

holder = Holder()
holder.a = 1

def dense_backward():
    layer = _core.Dense(weight, bias, act)
    y, z = layer.forward(wide, True)
    return layer.backward(wide, z, y, y, True, *grads_of)

bytes_core, many_x = qg.LSTM(200, 512, rng=0).quantize("int8")._snapshot.core, np.ones((7, 200), np.float32)

def steps_with_other_threads():
    "A step that needs more memory for more threads; the ones after it, with as many as before, go on."
    bytes_stream, failed = _core.Stream(bytes_core, 7), None
    try:
        for n in (1, 2, 1):
            qg.set_num_threads(n)
            try:
                bytes_stream.step(many_x, None, bytes_core)
            except MemoryError as error:
                failed = error
    finally:
        qg.set_num_threads({threads})
    if failed is not None:
        raise failed

mask = np.array([[True, False, True]] * 4)
masked_tape = plain.forward(x, state, mask=mask, trace=True)[2]
rnn = qg.RNN(6, 20, rng=0)
state_dict, grads = plain.state_dict(), plain.backward(tape, y)
pickles = [pickle.dumps(one) for one in (lstm, stream, grads)]
if {fresh}:  # with enough work for two threads
    plain, x = qg.LSTM(32, 96, rng=0), np.ones((6, 64, 32), np.float32)
    state, lengths, resets = tuple(np.ones((2, 1, 64, 96), np.float32)), np.full(64, 5), np.zeros((6, 64), bool)
    y, _, tape = plain.forward(x, state)
    stream, core, numbers = plain.stream(64), plain._snapshot.core, ("float32", 32, 96, 1, 1, True, None, False)
    values = [np.array(v) for v in plain.params.values()]

def write():
    with plain.writable() as params:
        params["bias_l0"] *= 1

def fingerprint():
    if {fresh}:
        return plain(x)[0].tobytes()
    s = plain.stream(3)
    grads = plain.backward(tape, y)
    parts = [plain(x)[0], lstm(x)[0], *stream.state, s.run(x), grads.x, *grads.params.values()]
    parts.append(lstm.forward(x, rng=0)[0])
    return b"".join(a.tobytes() for a in parts)

OPERATIONS = {{
    "core network": lambda: _core.Network(*numbers),
    "core network of options": lambda: _core.Network(*numbers[:-2], {{"zoneout": (0.1, 0.2)}}, False),
    "successor": lambda: core.successor(values),
    "core stream": lambda: _core.Stream(core, 3),
    "core forward": lambda: core.forward(x, state, lengths, None, resets, True),
    "core tape": lambda: core.forward_tape(x, state, lengths, resets, True, None),
    "core tape with masks": lambda: lstm._snapshot.core.forward_tape(x, None, None, None, False, dict(masks)),
    "core backward": lambda: core.backward(tape._core, y, None, True, True, None, plain._shapes, False, None, None),
    "core step": lambda: step(x[0], None, core),
    "steps with other threads": steps_with_other_threads,
    "core state": lambda: state_of(),
    "core gates": lambda: tape._core.gates(0),
    "core dense": lambda: _core.Dense(weight, bias, None),
    "core dense backward": dense_backward,
    "core narrow": lambda: head.backward(wide, None, None, head.forward(wide, True)[0], True, weight[1:2].copy(), None),
    "core embed": lambda: _core.embed(weight, rows),
    "core embed back": lambda: _core.embed_back(rows, outputs, np.empty((20, 20), np.float32)),
    "core cross entropy": lambda: _core.softmax_cross_entropy(outputs, rows // 2, np.ones(40), 1.0, True),
    "core squares": lambda: _core.gradient_squares([weight, bias]),
    "core optimize": lambda: _core.optimize(
        adam, [weight, bias], [weight, bias], [[weight, bias]] * 2, [1.0, 0.5], [_core.Block(2480) for _ in range(3)]
    ),
    "core replace all": lambda: _core.replace_all([(holder, "a", 2), (holder, "a", 3, 2)]),
    "network": lambda: qg.LSTM(6, 20, 2, rng=0),
    "network with generator": lambda: qg.LSTM(6, 20, 2, dropout=0.5, rng=0),
    "rnn": lambda: qg.RNN(6, 20, rng=0),
    "update": lambda: plain.load_state_dict(dict(plain.params)),
    "stream": lambda: plain.stream(3),
    "call": lambda: plain(x, state, lengths=lengths),
    "converted call": lambda: plain(x.tolist(), lengths=[4, 0, 2]),
    "forward": lambda: plain.forward(x, state, return_cells=True, trace=True),
    "forward with masks": lambda: lstm.forward(x, rng=0),
    "backward": lambda: plain.backward(tape, y),
    "step": lambda: stream.step(x[0]),
    "run": lambda: stream.run(x, resets=resets),
    "call with lengths, resets and a mask": lambda: plain(x, state, lengths=lengths, resets=resets, mask=mask),
    "forward with a mask": lambda: lstm.forward(x, lengths=lengths, mask=mask, trace=True, rng=0),
    "backward with a mask": lambda: plain.backward(masked_tape, y, state),
    "step with a mask": lambda: stream.step(x[0], mask=mask[0]),
    "run with a mask": lambda: stream.run(x, resets=resets, mask=mask),
    "state": lambda: setattr(stream, "state", stream.state),
    "reset": lambda: stream.reset([1]),
    "rnn call": lambda: rnn(x, lengths=lengths, resets=resets),
    "rnn training": lambda: rnn.backward((out := rnn.forward(x))[2], out[0]),
    "state dict": lambda: plain.state_dict(),
    "load": lambda: plain.load_state_dict(state_dict),
    "writable": lambda: write(),
    "from a state dict": lambda: qg.LSTM.from_state_dict(state_dict),
    "pickle": lambda: pickle.dumps(lstm),
    "unpickle": lambda: pickle.loads(pickles[0]),
    "pickle of a stream": lambda: pickle.dumps(stream),
    "unpickle a stream": lambda: pickle.loads(pickles[1]),
    "pickle of gradients": lambda: pickle.dumps(grads),
    "unpickle gradients": lambda: pickle.loads(pickles[2]),
    "copy": lambda: copy.deepcopy(lstm),
    "info": lambda: qg.cpu_info(),
    "threads": lambda: qg.set_num_threads({threads}),
}}
# Python's locks and NumPy's generators and reductions have errors of their own for it.
LOCK, NULL = "can't allocate lock", "without exception set"

def one(operation, n):
    "Make the n-th allocation fail; return the error, and whether all of it was done."
    failed = None
    arm(n)
    try:
        operation()
    except BaseException as error:
        failed = error
    return failed, disarm() != 0

def in_a_new_thread(operation, n):
    results = []
    thread = threading.Thread(target=lambda: results.append(one(operation, n)))
    thread.start()
    thread.join()
    return results[0]

OTHERS = {{
    **dict.fromkeys(("network", "network with generator", "rnn", "forward with masks"), (LOCK, NULL)),
    **dict.fromkeys(("from a state dict", "unpickle", "unpickle a stream", "copy"), (LOCK,)),
    "reset": (NULL,),
    "converted call": ("without setting an exception",),
}}
step, state_of = stream._core.step, stream._core.get_state
kept = stream.state
want = fingerprint()
failures = 0
gc.disable()
for name, operation in OPERATIONS.items():
    if ({core_only} or {fresh}) and not name.startswith("core"):
        continue
    shim.qg_only_ours(name.endswith(" a mask"))  # NumPy ends the process where its indexing finds no memory
    operation()  # once, for what is made on first use
    stream.state = kept
    n = done = 0
    while not done:
        n += 1
        error, done = (in_a_new_thread if {fresh} else one)(operation, n)
        if error is not None and not isinstance(error, MemoryError):
            if not (name in OTHERS and str(error).endswith(OTHERS[name])):
                print(f"{{name}}, allocation {{n}}: {{error!r}}", file=sys.stderr)
                failures += 1
        # A state moves on where the step was done: its result may be what found no memory.
        stream.state = kept
        assert n < 5000, name
    assert fingerprint() == want, name
    print(name, n)
sys.exit(1 if failures else 0)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    built = subprocess.run(
        [compiler, "-O1", "-fno-builtin", "-shared", "-fPIC", "-o", str(library), str(folder / "shim.c"), "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        pytest.skip(f"the shim cannot be built: {built.stderr}")
    return library


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("way", ["pymalloc", "malloc", "fresh threads"])
def test_every_allocation_of_every_operation_may_fail(run_script, shim, way, threads):
    """With PYTHONMALLOC=malloc Python's own small objects count, too; then only our core is looked at.

    In a fresh thread the first call makes what a thread keeps.
    """
    core_only, fresh = way == "malloc", way == "fresh threads"
    done = run_script(
        SCRIPT.format(shim=str(shim), threads=threads, core_only=core_only, fresh=fresh),
        LD_PRELOAD=str(shim),
        PYTHONMALLOC="malloc" if core_only else "pymalloc",
        PYTHONFAULTHANDLER="1",
        status=None,
        timeout=120,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"


STREAMS = """
import ctypes, threading
import numpy as np
import quadgate as qg

shim = ctypes.CDLL({shim!r})
shim.qg_disarm.restype = ctypes.c_long
shim.qg_only_ours(1)

def steps(net, batch):
    stream, x = net.stream(batch), np.ones((batch, 150), np.float32)
    out = stream.step(x)
    shim.qg_arm(ctypes.c_long(1000))
    for _ in range(4):
        stream.step(x, out=out)
    made = 1000 - shim.qg_disarm()
    if made:
        print(net, batch, made)

for options in ({{}}, {{"num_layers": 2}}, {{"proj_size": 40}}, {{"layer_norm": "output"}}):
    for weights in ("float32", "float16", "bfloat16", "int8"):
        net = qg.LSTM(150, 200, rng=0, **options)
        net = net if weights == "float32" else net.quantize(weights)
        for batch in (1, 8):  # in a thread that has no weights of other networks
            thread = threading.Thread(target=steps, args=(net, batch))
            thread.start()
            thread.join()
"""


def test_a_stream_allocates_nothing_after_its_first_step(run_script, shim):
    """On one thread, where no workers start; with weights of 16 bits the first step makes the thread's copy of them."""
    done = run_script(STREAMS.format(shim=str(shim)), LD_PRELOAD=str(shim), QUADGATE_NUM_THREADS="1")
    assert done.stdout == ""
