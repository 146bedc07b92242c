"""Compare quadgate.torch.LSTM with torch.nn.LSTM: inference, and a training step with both thread pools at work.

    python bench/torch_module.py --threads 1 2 --seconds 1

A training step is the module, a linear layer, the mean squared error, backward, and SGD. The linear layer, the loss and
the optimizer run on torch's threads in both cases; quadgate's own threads stand beside those. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import quadgate as qg
import quadgate.torch
import torch
from command import positive

# The README's table: T, B, I, H, layers, directions, training.
SHAPES = {
    "control": (1, 1, 16, 16, 1, 1, False),
    "audio": (1, 1, 1, 40, 1, 1, False),
    "voice": (1, 1, 128, 128, 1, 1, False),
    "service": (1, 8, 512, 128, 1, 1, False),
    "sequence-small": (100, 1, 40, 32, 1, 1, False),
    "sequence-large": (100, 1, 512, 512, 1, 1, False),
    "tagging": (589, 32, 60, 128, 2, 2, False),
    "train-small": (72, 32, 16, 40, 2, 1, True),
    "train-forecaster": (365, 256, 32, 128, 1, 1, True),
    "train-large": (25, 64, 1024, 1024, 1, 1, True),
}


def step(kind: Any, shape: tuple[Any, ...], compiled: bool) -> Callable[[], None]:
    """Return a function that makes one call or one training step."""
    steps, batch, inputs, hidden, layers, directions, training = shape
    torch.manual_seed(0)
    module = kind(inputs, hidden, layers, bidirectional=directions == 2)
    head = torch.nn.Linear(hidden * directions, 8)
    x, target = torch.randn(steps, batch, inputs), torch.randn(steps, batch, 8)
    sgd = torch.optim.SGD([*module.parameters(), *head.parameters()], 1e-4)
    run = torch.compile(module, fullgraph=True, backend="aot_eager") if compiled else module

    def infer() -> None:
        with torch.no_grad():
            run(x)

    def train() -> None:
        sgd.zero_grad()
        y, _ = run(x)
        torch.nn.functional.mse_loss(head(y), target).backward()
        sgd.step()

    return train if training else infer


def measure(functions: list[Callable[[], None]], seconds: float, rounds: int = 11) -> list[list[float]]:
    """Return the seconds of each function in interleaved rounds."""
    counts = []
    for f in functions:
        f()
        start = time.perf_counter()
        f()
        once = time.perf_counter() - start
        counts.append(max(1, int(seconds / rounds / len(functions) / max(once, 1e-6))))
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for f, n, found in zip(functions, counts, times, strict=True):
            start = time.perf_counter()
            for _ in range(n):
                f()
            found.append((time.perf_counter() - start) / n)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=positive, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each shape and number of threads")
    parser.add_argument("--shapes", nargs="+", default=[*SHAPES], choices=[*SHAPES])
    parser.add_argument("--compiled", action="store_true", help="also the operators, by torch.compile")
    chosen = parser.parse_args()
    print(f"{'case':18}{'threads':>8}{'quadgate':>12}{'torch':>12}{'ratio':>8}")
    for name in chosen.shapes:
        for threads in chosen.threads:
            torch.set_num_threads(threads)
            qg.set_num_threads(threads)
            torch.compiler.reset()
            functions = [step(quadgate.torch.LSTM, SHAPES[name], False), step(torch.nn.LSTM, SHAPES[name], False)]
            if chosen.compiled:
                functions.append(step(quadgate.torch.LSTM, SHAPES[name], True))
            times = measure(functions, chosen.seconds)
            ours, theirs = (statistics.median(t) * 1e6 for t in times[:2])
            ratio = statistics.median(b / a for a, b in zip(times[0], times[1], strict=True))
            more = f"  compiled {statistics.median(times[2]) * 1e6:.1f} us" if chosen.compiled else ""
            print(f"{name:18}{threads:8}{ours:9.1f} us{theirs:9.1f} us{ratio:8.2f}{more}", flush=True)


if __name__ == "__main__":
    main()
