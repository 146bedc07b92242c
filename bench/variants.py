"""Cost of each option of `quadgate.LSTM`: its time divided by the plain cell's, both in one interleaved run.

    python bench/variants.py                       # the shapes and options of the promise, one thread
    python bench/variants.py --threads 2 --rounds 15 --only peephole layer_norm

For every option, network and mode (forward: one inference call; training: forward with a tape, then backward) calls of
the plain network and of the variant alternate. The output is the median of the rounds' ratios, beside the bound that
the option was built to.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import quadgate as qg
from command import positive

SHAPES = [(100, 32, 256, 256), (100, 1, 256, 256)]


class Option(NamedTuple):
    name: str
    promise: float
    network: dict[str, Any]
    resets: bool = False
    lengths: bool = False
    layers: int = 1


OPTIONS = [
    Option("peephole", 1.10, {"peephole": True}),
    Option("cell_clip", 1.10, {"cell_clip": 3.0}),
    Option("gate_clip", 1.10, {"gate_clip": 3.0}),
    Option("coupled", 1.10, {"coupled": True}),
    Option("zoneout", 1.10, {"zoneout": (0.1, 0.1)}),
    Option("recurrent_dropout", 1.10, {"recurrent_dropout": 0.2}),
    Option("dropout", 1.10, {"dropout": 0.2}, layers=2),
    Option("weight_drop", float("nan"), {"weight_drop": 0.2}),
    Option("resets", 1.10, {}, resets=True),
    Option("lengths", 1.10, {}, lengths=True),
    Option("hard_sigmoid", 1.15, {"activations": ("hard_sigmoid", "tanh", "tanh")}),
    Option("relu", 1.15, {"activations": ("sigmoid", "relu", "relu")}),
    Option("softsign", 1.15, {"activations": ("sigmoid", "softsign", "softsign")}),
    Option("softplus", 1.15, {"activations": ("softplus", "softplus", "softplus")}),
    Option("elu", 1.15, {"activations": ("sigmoid", "elu", "elu")}),
    Option("scaled_tanh", 1.15, {"activations": ("sigmoid", ("scaled_tanh", 1.7, 0.66), "tanh")}),
    Option("proj_size H/2", 1.00, {"proj_size": 0.5}),
    Option("layer_norm output", 1.35, {"layer_norm": "output"}),
    Option("layer_norm cell", 1.35, {"layer_norm": "cell"}),
]


def call(net: qg.LSTM, shape: tuple[int, ...], option: Option | None, training: bool) -> Callable[[], object]:
    """Return a function that calls the network on random data."""
    steps, batch, inputs, hidden = shape
    rng = np.random.default_rng(1)
    x = rng.standard_normal((steps, batch, inputs), np.float32)
    more: dict[str, Any] = {}
    if option and option.resets:
        more["resets"] = rng.random((steps, batch)) < 0.02
    if option and option.lengths:
        more["lengths"] = np.full(batch, steps)  # all steps: measures the bookkeeping alone
    if not training:
        return lambda: net(x, **more)
    dy = rng.standard_normal((steps, batch, net.proj_size or hidden), np.float32)

    def train() -> object:
        _, _, tape = net.forward(x, **more)
        return net.backward(tape, dy)

    return train


def ratio(first: Callable[[], object], second: Callable[[], object], rounds: int) -> float:
    """Return the median over rounds of the time of `second` divided by that of `first`."""
    calls = 1
    for f in (first, second):
        f()
    start = time.perf_counter()
    first()
    calls = max(1, int(0.02 / (time.perf_counter() - start)))
    ratios = []
    for k in range(rounds):
        times = [0.0, 0.0]
        for i in (0, 1) if k % 2 else (1, 0):
            f = (first, second)[i]
            start = time.perf_counter()
            for _ in range(calls):
                f()
            times[i] = time.perf_counter() - start
        ratios.append(times[1] / times[0])
    return float(np.median(ratios))


def ragged(rounds: int) -> float:
    """Return the time of a batch of mean length T/2 divided by that of the padded one, at (200, 32, 256, 256)."""
    net = qg.LSTM(256, 256, rng=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 32, 256), np.float32)
    lengths = rng.permutation(np.linspace(1, 199, 32).round().astype(int))
    return ratio(lambda: net(x), lambda: net(x, lengths=lengths), rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--rounds", type=positive, default=11)
    parser.add_argument("--only", nargs="*", default=[], help="parts of options' names")
    args = parser.parse_args()
    qg.set_num_threads(args.threads)
    names = [f"{mode} {shape}" for shape in SHAPES for mode in ("forward", "training")]
    print("| option | promise | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 2) + "|")
    for option in OPTIONS:
        if args.only and not any(part in option.name for part in args.only):
            continue
        cells = []
        for shape in SHAPES:
            inputs, hidden = shape[2:]
            kind = dict(option.network)
            if "proj_size" in kind:
                kind["proj_size"] = int(kind["proj_size"] * hidden)
            plain, other = (qg.LSTM(inputs, hidden, option.layers, rng=0, **k) for k in ({}, kind))
            for training in (False, True):
                pair = call(plain, shape, None, training), call(other, shape, option, training)
                cells.append(f"{ratio(*pair, args.rounds):.2f}")
        print(f"| {option.name} | {option.promise:.2f} | ".replace("nan", "-") + " | ".join(cells) + " |", flush=True)
    if not args.only or "ragged" in args.only:
        print(f"\nlengths of mean T/2 against padded, (200, 32, 256, 256), forward: {ragged(args.rounds):.2f} (0.60)")


if __name__ == "__main__":
    main()
