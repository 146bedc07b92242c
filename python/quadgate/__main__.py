"""``python -m quadgate``: version, machine and self-check.

``python -m quadgate bench`` times a network, ``python -m quadgate inspect FILE ...`` lists the networks of files.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import quadgate as qg
from quadgate import _check, reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

SECONDS = 2.0
USAGE = """usage: python -m quadgate                     version, machine and self-check
       python -m quadgate --version           version
       python -m quadgate bench T,B,I,H ...   times of shapes, beside torch and onnxruntime; bench --help has options
       python -m quadgate inspect FILE ...    networks in files"""


def check(rng: np.random.Generator) -> tuple[float, str]:
    """Run a random network forward, backward and as a stream, and compare the results with the reference.

    Returns
    -------
    error : float
        Largest error in units of its bound; infinity if two results that must have the same bits differ.
    description : str
        Description of the case.

    Notes
    -----
    The bound: a pre-activation is a sum of I + H + 1 terms, and its rounding error is at most that many eps times the
    size of the terms. A layer damps the error of the previous step (by half or more with initial weights), which
    doubles the bound at most, and propagates it to the next layer. Backward adds 4H terms in each step, and T * B rows
    in the gradient of a weight. The sizes of the terms add a factor of 2. Rounding errors are random walks, so the
    errors of correct code are far below.
    """
    dtype = np.dtype(rng.choice(["float32", "float64"]))
    layers, steps, batch = (int(rng.integers(1, n)) for n in (4, 21, 10))
    inputs, hidden = (int(rng.integers(1, 71)) for _ in range(2))
    bidirectional, bias, batch_first, padded = (bool(b) for b in rng.integers(0, 2, 4))
    lstm = qg.LSTM(
        inputs,
        hidden,
        layers,
        bias=bias,
        batch_first=batch_first,
        bidirectional=bidirectional,
        dtype=dtype,
        rng=rng,
    )
    rows = layers * (1 + bidirectional)

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape).astype(dtype)

    x, dy = normal(steps, batch, inputs), normal(steps, batch, hidden * (1 + bidirectional))
    state, dstate = (normal(rows, batch, hidden), normal(rows, batch, hidden)), (normal(rows, batch, hidden), None)
    lengths = rng.integers(0, steps + 1, batch) if padded else None

    def order(a: Array) -> Array:  # between time-major and the layout of the network
        return a.swapaxes(0, 1) if batch_first else a

    y, (h, c), tape = lstm.forward(order(x), state, lengths=lengths)
    grads = lstm.backward(tape, order(dy), dstate)
    y_ref, (h_ref, c_ref), tape_ref = reference.forward(
        lstm.params, x, state, lengths, num_layers=layers, bidirectional=bidirectional
    )
    grads_ref = reference.backward(lstm.params, tape_ref, dy, dstate)
    dx, dh0, dc0, dparams = grads
    assert dx is not None  # for the type checker: all gradients are asked for
    assert dh0 is not None
    assert dc0 is not None

    ahead = 4 * layers * (inputs + hidden + 1)
    back = ahead + 4 * layers * 4 * hidden
    results = [(order(y), y_ref, ahead), (h, h_ref, ahead), (c, c_ref, ahead)]
    results += [(order(dx), grads_ref.x, back), (dh0, grads_ref.h0, back), (dc0, grads_ref.c0, back)]
    results += [(dparams[k], v, back + steps * batch) for k, v in grads_ref.params.items()]
    worst = max(_error(got, want, terms) for got, want, terms in results)

    whole = lstm(order(x), state, lengths=lengths)
    same = _equal(whole, (y, (h, c)))
    if not bidirectional and not padded:
        stream = lstm.stream(batch)
        stream.state = state
        same = same and _equal((order(np.stack([stream.step(step) for step in x])), stream.state), whole)
    return worst if same else np.inf, f"{lstm!r}, {steps} steps, {batch} rows, lengths {lengths}"


def _error(got: Array, want: Array, terms: int) -> float:
    if got.shape != want.shape or not np.isfinite(got).all():
        return np.inf
    size = max(1.0, float(np.abs(want).max(initial=0.0)))
    return float(np.abs(got - want).max(initial=0.0)) / (terms * float(np.finfo(got.dtype).eps) * size)


def _equal(a: tuple[Array, tuple[Array, Array]], b: tuple[Array, tuple[Array, Array]]) -> bool:
    return all(np.array_equal(p, q) for p, q in zip((a[0], *a[1]), (b[0], *b[1]), strict=True))


def _bytes(n: int) -> str:
    return "unknown" if n == 0 else f"{n / 2**20:.4g} MiB" if n >= 2**20 else f"{n / 2**10:.4g} KiB"


def main(arguments: list[str]) -> int:
    """Run a subcommand, or the self-check without one; return the exit status."""
    if hasattr(sys.stdout, "reconfigure"):  # a name in a file may have letters that the terminal has not
        sys.stdout.reconfigure(errors="backslashreplace")
    asked = arguments[:1] == ["inspect"] and not {"-h", "--help"}.isdisjoint(arguments[1:])
    if arguments[:1] == ["bench"]:
        from quadgate import _bench

        return _bench.main(arguments[1:])
    if arguments[:1] == ["inspect"] and len(arguments) > 1 and not asked:
        from quadgate.io import _inspect

        return _inspect.main(arguments[1:])
    if arguments == ["--version"]:
        print(f"quadgate {qg.__version__}")
        return 0
    if asked or arguments[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    if arguments:
        print(f"{USAGE}\npython -m quadgate: error: {_wrong(*arguments)}", file=sys.stderr)
        return 2
    return report()


def _wrong(first: str, *others: str) -> str:
    """Return what is wrong with the arguments, of which no command can be made."""
    if first == "inspect":
        return "inspect needs a FILE"
    if first == "--version":
        return f"--version stands alone, got {' '.join(others)}"
    meant = _check.did_you_mean(first, ("bench", "inspect", "--version", "--help"))
    return f"there is no {'option' if first.startswith('-') else 'command'} {first!r}{meant}"


def report() -> int:
    """Print version, machine and the result of the self-check; return the exit status."""
    info = qg.cpu_info()
    print(f"quadgate         {qg.__version__}, NumPy {np.__version__}, Python {sys.version.split()[0]}")
    print(f"instruction set  {info['isa']} (works here: {', '.join(info['supported'])})")
    print(f"threads          {info['threads']}, on {info['cores']} cores")
    print(f"caches           L1d {_bytes(info['l1d'])}, L2 {_bytes(info['l2'])}, L3 {_bytes(info['l3'])}")

    seed = np.random.SeedSequence().entropy
    rng = np.random.default_rng(seed)
    worst, worst_case, cases = 0.0, "", 0
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or cases == 0:
        error, case = check(rng)
        cases += 1
        if error > worst:
            worst, worst_case = error, case
    passed = worst <= 1.0
    print(f"self-check       {cases} random networks against the reference: {'passed' if passed else 'FAILED'},")
    print(f"                 worst error {worst:.2g} of its bound")
    if not passed:
        print(f"                 in {worst_case}\n                 (seed {seed}; please report this)")
    return 0 if passed else 1


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # end quietly if `| head` has seen enough
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main(sys.argv[1:]))
