"""Speed of quadgate's calls as a share of that of one plain matrix product of many rows, by PyTorch's BLAS (MKL).

    python bench/matmul.py                                  a few batched shapes, forward and training, one thread
    python bench/matmul.py --shapes 10,64,512,512 --mode training --rounds 31

The product is that of 3200 rows: (3200, 512) @ (512, 1024), or other sizes with --product. It is what a framework would
spend on the matrices alone if it had all steps at once, which a recurrent network never has. A round times one call and
the product right after each other; the share is the median of the rounds' quotients of their operations a second, with
the 10th and 90th percentile. Beside it stands the share of the peak rate of multiply-adds, which is measured once, at
the start: a machine that changes its speed meanwhile moves it.

Needs torch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from ceilings import fma_peak, measure
from command import positive
from grid import parse
from measure import percentiles
from peers.base import make_arrays
from peers.peer_quadgate import QuadgatePeer
from shapes import Shape

DEFAULT = ("10,32,512,128", "100,32,256,256", "10,64,512,512", "50,64,512,512", "60,7,90,200", "100,16,64,128")
MODES = ("inference", "training")
SAMPLE_SECONDS = 0.01  # a sample lasts at least this long, or one call


def repeated(run: Callable[[], object]) -> Callable[[], float]:
    """Return a function that gives the seconds of one call of `run`, from a sample of several if it is short."""
    run()
    begin = time.perf_counter()
    run()
    calls = max(1, round(SAMPLE_SECONDS / (time.perf_counter() - begin)))

    def sample() -> float:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls

    return sample


def rates(shape: Shape, product: tuple[int, int, int], threads: int, rounds: int) -> list[tuple[float, float]]:
    """Return operations a second of quadgate's call and of the product, of each round."""
    peer = QuadgatePeer()
    peer.setup(shape, threads, make_arrays(shape))
    m, k, n = product
    a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
    call, multiply = repeated(peer.run), repeated(lambda: torch.mm(a, b, out=out))
    result = []
    for i in range(rounds):
        times = [f() for f in ((call, multiply) if i % 2 else (multiply, call))]
        ours, plain = times if i % 2 else times[::-1]
        result.append((shape.flops / ours, 2 * m * k * n / plain))
    return result


def main() -> None:
    """Measure the shapes and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(DEFAULT), metavar="T,B,I,H")
    parser.add_argument("--mode", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--product", nargs=3, type=positive, default=(3200, 512, 1024), metavar=("M", "K", "N"))
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--rounds", type=positive, default=15)
    args = parser.parse_args()
    try:
        shapes = [(parse(text, mode), text) for text in args.shapes for mode in args.mode]
    except ValueError as error:
        parser.error(f"argument --shapes: {error}")
    torch.set_num_threads(args.threads)
    peak = 1e9 * fma_peak(measure(args.threads, 32), args.threads)
    print(f"{'':28} of the product           of the peak   GFLOP/s")
    for shape, text in shapes:
        found = rates(shape, tuple(args.product), args.threads, args.rounds)
        shares = [ours / plain for ours, plain in found]
        low, high = percentiles(shares)
        rate = statistics.median(ours for ours, _ in found)
        share = f"{statistics.median(shares):.2f} [{low:.2f}, {high:.2f}]"
        print(f"{shape.mode:10} {text:17} {share:24} {rate / peak:.2f} {rate / 1e9:16.1f}", flush=True)


if __name__ == "__main__":
    main()
