"""Scoring on many cores or machines with Dask: the same bits as one process.

    pip install ".[gallery]"
    python examples/distributed/score_dask.py            # two worker processes on this machine
    python examples/distributed/score_dask.py --scheduler tcp://host:8786   # your cluster

First an array (rows, T, I) is scored block by block with `map_blocks`, then partitions of sequences of different
lengths, as a data set of files has them. A network is sent to a worker as a pickle. Each worker takes the cores that
Dask gave it: its nanny sets OMP_NUM_THREADS=1, which quadgate honours. The baseline is one process that does it all.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import quadgate as qg

sys.path.append(str(Path(__file__).parents[1]))  # the folder of command_line.py
from command_line import at_least, picture

try:
    import dask
    import dask.array as da
    import matplotlib as mpl
    from dask.distributed import Client, LocalCluster, as_completed
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[gallery]" installs it')


def score(block: np.ndarray, lstm: qg.LSTM) -> np.ndarray:
    """Return one vector (rows, H) for each sequence of a block (rows, T, I): the last h."""
    return lstm(block)[1][0][-1]


def score_sequences(sequences: list[np.ndarray], lstm: qg.LSTM) -> np.ndarray:
    """Return one vector (rows, H) for each sequence (t, I) of a partition, whatever its t."""
    x, lengths = qg.pad_sequences(sequences, batch_first=True)
    return lstm(x, lengths=lengths)[1][0][-1]


def threads() -> int:
    return qg.get_num_threads()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--scheduler", help="address of a running cluster instead of a new one on this machine")
    parser.add_argument("--workers", type=at_least(1), default=2, help="worker processes of the new one (%(default)s)")
    parser.add_argument("--rows", type=at_least(1), default=8192, help="(%(default)s)")
    parser.add_argument("--steps", type=at_least(1), default=100, help="T (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="seconds: few rows")
    parser.add_argument("--plot", type=picture, help="write a picture of who did which block when to this file")
    args = parser.parse_args()
    if args.rows % 16:
        parser.error(f"argument --rows: it must be a multiple of 16, the number of blocks, not {args.rows}")
    if args.quick:
        args.rows, args.steps = 256, 20
    return args


def timed(block: np.ndarray, lstm: qg.LSTM) -> tuple[str, float, float]:
    """Score a block; return the worker and the seconds of begin and end."""
    from dask.distributed import get_worker

    begin = time.time()
    score(block, lstm)
    return get_worker().address, begin, time.time()


def main() -> None:
    """Score both kinds of data in the cluster and in this process, and compare the bits."""
    args = arguments()
    rng = np.random.default_rng(0)
    lstm = qg.LSTM(64, 128, batch_first=True, rng=0)
    x = rng.standard_normal((args.rows, args.steps, 64), np.float32)
    sequences = [rng.standard_normal((t, 64), np.float32) for t in rng.integers(1, args.steps + 1, args.rows)]
    parts = [sequences[at : at + args.rows // 16] for at in range(0, args.rows, args.rows // 16)]

    begin = time.perf_counter()
    want, want_parts = score(x, lstm), [score_sequences(part, lstm) for part in parts]
    alone = time.perf_counter() - begin

    dask.config.set({"distributed.comm.timeouts.connect": "60s"})
    cluster = None if args.scheduler else LocalCluster(args.workers, threads_per_worker=1, dashboard_address=None)
    with Client(args.scheduler or cluster) as client:
        spread = client.run(threads)
        print(f"{len(spread)} worker processes, threads of quadgate in each: {sorted(spread.values())}")
        network = client.scatter(lstm, broadcast=True)
        begin = time.perf_counter()
        blocks = da.from_array(x, chunks=(args.rows // 16, args.steps, 64))
        scores = blocks.map_blocks(
            score, lstm, dtype=np.float32, drop_axis=(1, 2), new_axis=1, chunks=((args.rows // 16,) * 16, (128,))
        )
        got = scores.compute()
        futures = [client.submit(score_sequences, part, network, pure=False) for part in parts]
        for _ in tqdm(as_completed(futures), total=len(futures), unit="partition"):
            pass
        got_parts = client.gather(futures)
        together = time.perf_counter() - begin
        spans = (
            client.gather([client.submit(timed, part, network, pure=False) for part in np.split(x, 16)])
            if args.plot
            else []
        )
    if cluster is not None:
        cluster.close()
    equal = np.array_equal(got, want) and all(map(np.array_equal, got_parts, want_parts))
    if not equal:
        sys.exit("the cluster's scores differ from those of one process")
    print(f"one process {alone:.2f} s, the cluster {together:.2f} s with sending all data there; every bit is equal")
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        workers, first = sorted({address for address, _, _ in spans}), min(begin for _, begin, _ in spans)
        for address, begin, end in spans:
            plt.barh(workers.index(address), end - begin, left=begin - first, edgecolor="white")
        plt.yticks(range(len(workers)), [f"worker {k}" for k in range(len(workers))])
        plt.xlabel("seconds")
        plt.title("Blocks of one array, scored by Dask's workers")
        plt.savefig(args.plot, dpi=120)
    rates = f"rows_per_s={2 * args.rows / together:.1f} alone_rows_per_s={2 * args.rows / alone:.1f}"
    print(f"RESULT equal={int(equal)} workers={len(spread)} {rates}")


if __name__ == "__main__":
    main()
