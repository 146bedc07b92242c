"""Scoring with Ray Data: `map_batches` with a class that loads its network once per worker.

    pip install ".[gallery]" "ray[data]"
    python examples/distributed/score_ray.py             # two workers on this machine; RAY_ADDRESS names a cluster

Ray is not part of the extra, being large. It gives each actor one core and sets OMP_NUM_THREADS=1, which quadgate
honours. The baseline is one process that does it all, and every bit must be equal to its.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import quadgate as qg

sys.path.append(str(Path(__file__).parents[1]))  # the folder of command_line.py
from command_line import at_least, picture

try:
    import matplotlib as mpl
    import ray
    import ray.data
    import safetensors  # noqa: F401
except ImportError as error:
    sys.exit(
        f'{error.name} is missing, which only this example needs: pip install ".[gallery]" "ray[data]" installs it'
    )


class Scorer:
    """Lives in one worker; its network is read once."""

    def __init__(self, path: str) -> None:
        self.lstm = qg.load(path, batch_first=True)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the last h (rows, H) of sequences (rows, T, I), with the rows' numbers and the worker's threads."""
        h = self.lstm(batch["data"])[1][0][-1]
        return {"row": batch["row"], "score": h, "threads": np.full(len(h), qg.get_num_threads())}


def main() -> None:
    """Score an array by Ray's workers and in this process, and compare the bits."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=at_least(1), default=8192, help="(%(default)s)")
    parser.add_argument("--workers", type=at_least(1), default=2, help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="seconds: few rows")
    parser.add_argument("--plot", type=picture, help="write a picture of the scores to this file")
    args = parser.parse_args()
    rows, steps = (256, 20) if args.quick else (args.rows, 100)
    lstm = qg.LSTM(64, 128, batch_first=True, rng=0)
    x = np.random.default_rng(0).standard_normal((rows, steps, 64), np.float32)
    begin = time.perf_counter()
    want = lstm(x)[1][0][-1]
    alone = time.perf_counter() - begin

    ray.init(num_cpus=args.workers, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/lstm.safetensors"  # on a cluster: a path that all machines see
        qg.save(lstm, path)
        begin = time.perf_counter()
        data = ray.data.from_items([{"row": k, "data": row} for k, row in enumerate(x)])  # Ray shows progress bars
        scored = data.map_batches(
            Scorer,
            fn_constructor_args=(path,),
            batch_size=max(16, rows // 16),
            compute=ray.data.ActorPoolStrategy(size=args.workers),
        ).take_all()
        together = time.perf_counter() - begin
    ray.shutdown()
    scored.sort(key=lambda one: one["row"])
    got = np.stack([one["score"] for one in scored])
    print(f"threads of quadgate in each worker: {sorted({int(one['threads']) for one in scored})}")
    if not np.array_equal(got, want):
        sys.exit("the workers' scores differ from those of one process")
    print(f"one process {alone:.2f} s, Ray {together:.2f} s with starting its workers; every bit is equal")
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        plt.imshow(got[:200].T, aspect="auto", cmap="RdBu_r")
        plt.gca().set(xlabel="sequence", ylabel="unit", title="Scores from Ray's workers")
        plt.savefig(args.plot, dpi=120)
    print(f"RESULT equal=1 workers={args.workers} rows_per_s={rows / together:.1f} alone_rows_per_s={rows / alone:.1f}")


if __name__ == "__main__":
    main()
