"""Memory of an inference call as T grows, and of the tape of a training step.

    python bench/memory.py

Peak resident memory is measured in a fresh process for each T, relative to its value after x and y were allocated and
one step was run. The difference is the workspace, which must not grow with T. The kernel counts in units of 64 pages
for each thread, so differences of some hundred KiB are noise. Linux only (ru_maxrss in KiB).
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import numpy as np
import quadgate as qg
from command import positive

SIZES = ((1, 64, 128), (32, 64, 128), (1, 256, 256), (64, 256, 256))  # B, I, H
STEPS = (100, 1000, 4000)


def peak_bytes() -> int:
    """Return the peak resident memory of this process in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def workspace(steps: int, batch: int, inputs: int, hidden: int) -> int:
    """Return the bytes by which one call raises the peak of this process, without x and y."""
    lstm = qg.LSTM(inputs, hidden)
    x = np.ones((steps, batch, inputs), np.float32)
    y = np.ones((steps, batch, hidden), np.float32)
    lstm(x[:1], out=y[:1])
    before = peak_bytes()
    lstm(x, out=y)
    return peak_bytes() - before


def main(words: list[str] | None = None) -> None:
    """Print both tables; with four sizes as arguments, print the workspace of that call only."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", type=positive, metavar="SIZE", help="T B I H: four, or none")
    sizes = parser.parse_args(words).sizes
    if len(sizes) not in (0, 4):
        parser.error(f"SIZE must be given four times, T B I H, or not at all, got {len(sizes)}")
    if sizes:
        print(workspace(*sizes))
        return
    print("Inference: KiB of peak memory that a call adds, beyond x and y\n")
    print("| B,I,H | " + " | ".join(f"T = {t}" for t in STEPS) + " |\n|---|" + "---:|" * len(STEPS))
    for size in SIZES:
        cells = []
        for steps in STEPS:
            command = [sys.executable, __file__, *map(str, (steps, *size))]
            text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            cells.append(f"{int(text) / 1024:.0f}")
        print(f"| {','.join(map(str, size))} | " + " | ".join(cells) + " |")
    print("\nTraining: the tape, in floats for each step and row\n")
    print("| T,B,I,H | tape, KiB | floats per step and row | 6 H + I |\n|---|---:|---:|---:|")
    for batch, inputs, hidden in SIZES:
        for steps in STEPS[:1]:
            lstm = qg.LSTM(inputs, hidden)
            _, _, tape = lstm.forward(np.ones((steps, batch, inputs), np.float32))
            floats = tape.nbytes / 4 / (steps * batch)
            label = ",".join(map(str, (steps, batch, inputs, hidden)))
            print(f"| {label} | {tape.nbytes / 1024:.0f} | {floats:.1f} | {6 * hidden + inputs} |")


if __name__ == "__main__":
    main()
