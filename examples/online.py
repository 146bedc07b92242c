"""Learn from a stream whose rule changes: RTRL beside truncated backpropagation.

    pip install ".[gallery]"
    python examples/online.py

Each step brings a number, -1 or 1, and asks for the one that came k steps before. A network answers first, is told
then, and learns at once; k changes twice on the way, and nobody says so. Real-time recurrent learning (Williams and
Zipser, 1989) has the exact gradient at each step, through all steps before. Truncated backpropagation looks back over
pieces of a few steps, and sees nothing that lies further back than its piece. The baseline always says 0, with an
error of 1. An answer is scored before its truth is learnt from, so every step of the stream is held out.
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

UNITS, RATE = 12, 5e-3
DELAYS = (2, 6, 4)


def stream(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and truths (steps,), with another delay in each third."""
    u = np.random.default_rng(0).choice(np.float32([-1, 1]), steps)
    delays = np.repeat(DELAYS, -(-steps // len(DELAYS)))[:steps]
    at = np.arange(steps) - delays
    return u, np.where(at >= 0, u[at], 0).astype(np.float32)


def by_rtrl(u: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the square errors (steps,) of an LSTM and a row of weights behind it, both learning at every step."""
    learner = train.rtrl(qg.LSTM(1, UNITS, rng=0), optimizer=train.Adam(RATE))
    head, adam = (
        [np.random.default_rng(0).normal(0, 0.3, UNITS).astype(np.float32), np.zeros(1, np.float32)],
        train.Adam(RATE),
    )
    memory, errors = adam.start(head), np.zeros(len(u))
    for k in tqdm(range(len(u)), desc="RTRL", unit="step"):
        h = learner.step(u[k : k + 1])
        error = h @ head[0] + head[1][0] - truth[k]
        errors[k] = error**2
        learner.learn(2 * error * head[0])
        head, memory = adam.update(head, [2 * error * h, np.float32([2 * error])], memory)
    return errors


def by_truncation(u: np.ndarray, truth: np.ndarray, piece: int) -> np.ndarray:
    """Return the square errors (steps,) of the same network that learns after each piece; its state goes on."""
    net = qg.LSTM(1, UNITS, rng=0)
    model = train.Sequential([net, train.Dense(UNITS, 1)], stateful=True, rng=0)
    model.load_params({**model.params, "1.weight": np.random.default_rng(0).normal(0, 0.3, (1, UNITS))})
    model.compile("mse", train.Adam(RATE))
    errors, ends = [], range(piece, len(u) + 1, piece)
    for end in tqdm(ends, desc=f"truncated to {piece}", unit="piece"):
        x, y = u[None, end - piece : end, None], truth[None, end - piece : end, None]
        errors += [model.train_on_batch(x, y)] * piece  # the mean over the piece, before the update
    return np.array(errors)


def main() -> None:
    """Let all of them learn from one stream."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    # From 180 on, a piece of 12 steps ends in the last fifth of each third.
    parser.add_argument("--steps", type=at_least(180), default=30_000, help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="seconds: a short stream")
    parser.add_argument("--plot", type=picture, help="write a picture of the errors over time to this file")
    args = parser.parse_args()
    steps = 6000 if args.quick else args.steps
    u, truth = stream(steps)
    errors = {"RTRL": by_rtrl(u, truth)} | {f"truncated_{k}": by_truncation(u, truth, k) for k in (1, 4, 12)}
    third = steps // len(DELAYS)
    print(f"mean square error over the last fifth of each rule; always saying 0: {np.square(truth).mean():.2f}")
    parts = []
    for name, error in errors.items():
        ends = [error[(k + 1) * third - third // 5 : (k + 1) * third].mean() for k in range(len(DELAYS))]
        print(f"{name:13}" + "".join(f"   k = {k}: {value:6.4f}" for k, value in zip(DELAYS, ends, strict=True)))
        parts.append(f"{name.lower()}={error.mean():.4f}")
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        width = steps // 60
        for name, error in errors.items():
            smooth = np.convolve(error, np.full(width, 1 / width), "valid")
            plt.plot(np.arange(len(smooth)) + width, smooth, label=name.replace("_", " to "))
        for k, delay in enumerate(DELAYS):
            plt.axvline(k * third, color="grey", lw=0.5)
            plt.text(k * third + third // 20, 1.05, f"k = {delay}")
        plt.gca().set(xlabel="step", ylabel="square error", ylim=(0, 1.2), title="A stream whose rule changes twice")
        plt.legend(loc="upper right")
        plt.savefig(args.plot, dpi=120)
    print("RESULT", *parts, f"baseline={np.square(truth).mean():.4f}")


if __name__ == "__main__":
    main()
