"""Vanishing gradients: who can add two numbers that are hundreds of steps apart?

    pip install ".[gallery]"
    python examples/vanishing.py

In the adding problem (Hochreiter and Schmidhuber, 1997) two of T numbers are marked, one in each half, and the network
says their sum at the end. RNNs with tanh and ReLU, and LSTMs whose forget gates begin with a bias of 0 or 1, learn it
from new sequences for the same number of steps. The baseline always says 1, the mean, with an error of 1/6.

The norms of the gradients of h, step by step, come from `trace`. An RNN has no gates to trace, but it is an LSTM whose
gates are forced to f = 0 and i = o = 1, with the same weights; the program checks that. And it shows gradients that
explode: ReLU with recurrent weights above 1, with clipping and without.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import quadgate as qg
from command_line import at_least, picture
from quadgate import train

try:
    import matplotlib as mpl
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[gallery]" installs it')

UNITS, ROWS = 32, 32
NETWORKS = {
    "rnn_tanh": lambda: qg.RNN(2, UNITS, rng=0),
    "rnn_relu": lambda: qg.RNN(2, UNITS, nonlinearity="relu", rng=0),
    "lstm_forget_0": lambda: qg.LSTM(2, UNITS, forget_bias=0.0, rng=0),
    "lstm_forget_1": lambda: qg.LSTM(2, UNITS, forget_bias=1.0, rng=0),
}


def adding(rows: int, steps: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return sequences (rows, steps, 2) of numbers from 0 to 1 and marks, and the sums (rows, 1) of the marked."""
    x = np.zeros((rows, steps, 2), np.float32)
    x[..., 0] = rng.random((rows, steps))
    first, each = rng.integers(0, steps // 2, rows), np.arange(rows)
    second = rng.integers(steps // 2, steps, rows)
    x[each, first, 1] = x[each, second, 1] = 1.0
    return x, x[each, first, :1] + x[each, second, :1]


def as_lstm(rnn: qg.RNN) -> qg.LSTM:
    """Return an LSTM with the gates f = 0 and i = o = 1 that computes what an RNN does: h = c = tanh or relu."""
    lstm = qg.LSTM(rnn.input_size, rnn.hidden_size, activations=("sigmoid", rnn.nonlinearity, ("affine", 1.0, 0.0)))
    given = rnn.params
    with lstm.writable() as params:
        for name in params:
            params[name].reshape(4, UNITS, -1)[[0, 1, 3]] = 0
            params[name].reshape(4, UNITS, -1)[2] = given[name].reshape(UNITS, -1)
        params["bias_l0"].reshape(4, UNITS)[[0, 1, 3]] = np.array([[200.0], [-200.0], [200.0]])  # i, f, o
    return lstm


def gradient_norms(net: qg.LSTM | qg.RNN, steps: int) -> np.ndarray:
    """Return the norm of the last h's gradient by the h of each step (T,), a mean over sequences."""
    x = adding(ROWS, steps, np.random.default_rng(1))[0].swapaxes(0, 1)
    lstm = as_lstm(net) if isinstance(net, qg.RNN) else net
    y, (h, _), tape = lstm.forward(x, trace=True)
    if isinstance(net, qg.RNN) and not np.allclose(y, net(x)[0], rtol=1e-5, atol=1e-6):
        sys.exit("an LSTM with forced gates is not the RNN")
    lstm.backward(tape, dstate=(np.full_like(h, UNITS**-0.5), None))
    return tape.trace.dh_norm[0].mean(axis=1)


def learn(name: str, steps: int, updates: int) -> float:
    """Return the held-out mean square error after training on sequences of `steps` steps."""
    rng = np.random.default_rng(0)
    model = train.Sequential([NETWORKS[name](), train.FinalState(), train.Dense(UNITS, 1)], rng=0)
    model.compile("mse", train.Adam(train.WarmupCosine(1e-2, updates // 20, updates, floor=2e-4), clip_norm=1.0))
    for _ in tqdm(range(updates), desc=f"{name:13} T={steps}", unit="step", leave=False):
        model.train_on_batch(*adding(ROWS, steps, rng))
    return model.evaluate(*adding(512, steps, np.random.default_rng(10**6)))["loss"]


def exploding(clip: float | None) -> int:
    """Return the number of steps of SGD that a ReLU network with large recurrent weights takes until it breaks."""
    net, rng, updates = qg.RNN(2, UNITS, nonlinearity="relu", rng=0), np.random.default_rng(0), 100
    with net.writable() as params:
        params["weight_hh_l0"][...] = 1.1 * np.eye(UNITS)
    model = train.Sequential([net, train.FinalState(), train.Dense(UNITS, 1)], rng=0)
    model.compile("mse", train.SGD(1e-3, clip_norm=clip))
    for k in range(updates):
        try:
            model.train_on_batch(*adding(ROWS, 100, rng))
        except FloatingPointError:
            return k
    return updates


def main() -> None:
    """Trace gradients, train all networks at all lengths, break one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--lengths", type=at_least(2), nargs="+", default=[50, 150, 500], help="values of T (%(default)s)"
    )
    parser.add_argument("--updates", type=at_least(1), default=3000, help="steps of training (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="seconds: T = 20, few steps")
    parser.add_argument("--plot", type=picture, help="write a picture of gradients and errors to this file")
    args = parser.parse_args()
    if args.quick:
        args.lengths, args.updates = [20], 300
    norms = {name: gradient_norms(new(), max(args.lengths)) for name, new in NETWORKS.items()}
    for name, norm in norms.items():
        print(
            f"{name:13}: the gradient that reaches step 1 of {len(norm)} is {norm[0] / norm[-1]:.1e} of the last step's"
        )
    broken = {clip: exploding(clip) for clip in (None, 1.0)}
    print(
        f"exploding ReLU: {broken[None]} steps until the loss is not finite, with clipping {broken[1.0]} of 100 go well"
    )
    errors = {name: [learn(name, steps, args.updates) for steps in args.lengths] for name in NETWORKS}
    print(f"\nheld-out mean square error; always saying 1: {1 / 6:.4f}")
    print(" " * 14 + "".join(f"   T={steps:<5}" for steps in args.lengths))
    for name, row in errors.items():
        print(f"{name:13} " + "".join(f"{error:10.4f}" for error in row))
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        _, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
        for k, (name, norm) in enumerate(norms.items()):
            left.semilogy(np.maximum(norm, 1e-38), label=name)
            right.bar(np.arange(len(args.lengths)) + 0.2 * k - 0.3, errors[name], 0.2, label=name)
        right.axhline(1 / 6, color="grey", ls=":", label="always 1")
        left.set(xlabel="step", ylabel="norm of the gradient of h", title="Before training")
        right.set(yscale="log", ylabel="held-out mean square error", title=f"After {args.updates} steps")
        right.set_xticks(range(len(args.lengths)), [f"T = {steps}" for steps in args.lengths])
        left.legend()
        right.legend()
        plt.savefig(args.plot, dpi=120)
    figures = [f"{name}_{t}={e:.5f}" for name, row in errors.items() for t, e in zip(args.lengths, row, strict=True)]
    print("RESULT", *figures, f"baseline={1 / 6:.5f} exploded_after={broken[None]} clipped={broken[1.0]}")


if __name__ == "__main__":
    main()
