"""Train on many processes or machines with MPI: the same bits on 1, 2, 4 or 8.

    pip install ".[gallery]" mpich          # or the MPI of your machines
    mpiexec -n 2 python examples/distributed/train_mpi.py
    mpiexec -n 2 python examples/distributed/train_mpi.py --resume     # after somebody killed a process

Each batch is cut into eight shards, whatever the number of processes. Gradients are added in one fixed binary tree: in
a process by `fit(shards=8)`, over processes by `TreeSum` below, since MPI's Allreduce fixes no order. So the
parameters are equal to the last bit. Process 0 writes a checkpoint after each epoch and shows progress. The task is
digits.py's; the rows do not divide evenly. The last line has a hash of all parameters; the baseline is logistic
regression.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import quadgate as qg
from quadgate import train

sys.path.append(str(Path(__file__).parents[1]))  # the folder of command_line.py
from command_line import at_least, can_write

try:
    import matplotlib as mpl
    import safetensors  # noqa: F401
    from mpi4py import MPI
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from tqdm import tqdm
except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py without an MPI
    missing = getattr(error, "name", None) or "MPI"
    sys.exit(f'{missing} is missing, which only this example needs: pip install ".[gallery]" mpich installs it')

SHARDS, BATCH, UNITS = 8, 60, 48


class TreeSum:
    """The sum of a vector over all processes in the order ((0 + 1) + (2 + 3)) + ..., by point-to-point messages."""

    def __init__(self, world: MPI.Intracomm) -> None:
        self.world, self.rank, self.size = world, world.Get_rank(), world.Get_size()

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """Return the sum, to every process."""
        total, other, step = np.array(vector), np.empty_like(vector), 1
        while step < self.size:
            if self.rank % (2 * step) == step:
                self.world.Send(total, self.rank - step)
                break
            self.world.Recv(other, self.rank + step)
            total = total + other
            step *= 2
        self.world.Bcast(total, 0)
        return total


def bits(model: train.Sequential) -> str:
    """Return a hash of all parameters."""
    return hashlib.sha256(model.params.flat.tobytes()).hexdigest()[:16]


def digits() -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Return images (N, 8, 8) and their digits (N,), and a pair of the same that is held out."""
    images, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = (images[order] / 16).astype(np.float32).reshape(-1, 8, 8), y[order]
    return x[450:], y[450:], (x[:450], y[:450])


def new_model(steps: int) -> train.Sequential:
    """Return an untrained model, the same in every process, for a number of steps."""
    net = qg.LSTM(8, UNITS, bidirectional=True, rng=0)
    model = train.Sequential([net, train.FinalState(), train.Dropout(0.3), train.Dense(2 * UNITS, 10)], rng=0)
    model.compile("softmax_cross_entropy", train.Adam(train.WarmupCosine(6e-3, steps // 20, steps), clip_norm=1.0))
    return model


def main() -> None:
    """Train; every process does its shards of every batch."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--epochs", type=at_least(1), default=40, help="(%(default)s)")
    parser.add_argument("--checkpoint", type=Path, default=Path("train_mpi.safetensors"), help="(%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument("--die-after", type=int, help="kill the last process after this epoch, to try --resume")
    parser.add_argument("--quick", action="store_true", help="seconds: few epochs")
    parser.add_argument("--plot", type=Path, help="write a picture of the accuracy to this file")
    args = parser.parse_args()
    if args.quick:
        args.epochs = 4
    together = TreeSum(MPI.COMM_WORLD)
    first = together.rank == 0
    if SHARDS % together.size:
        sys.exit(f"the number of processes must divide {SHARDS}, and it is {together.size}")
    for path in filter(None, (args.checkpoint, args.plot)):
        if not together.world.bcast(can_write(path)):  # as process 0 sees it, which writes
            sys.exit(f"{path} cannot be written")
    if args.resume and not together.world.bcast(args.checkpoint.is_file()):
        sys.exit(f"{args.checkpoint} does not exist: there is nothing to resume")
    x, y, test = digits()
    model = new_model(args.epochs * -(-len(x) // BATCH))
    initial, done = bits(model), 0
    if args.resume:
        model = train.load(args.checkpoint)
        done = model.step // -(-len(x) // BATCH)
    each = SHARDS // together.size
    cuts = np.arange(SHARDS + 1) * BATCH // SHARDS
    print(
        f"process {together.rank} of {together.size}: rows {cuts[together.rank * each]} to "
        f"{cuts[(together.rank + 1) * each] - 1} of each batch of {BATCH}",
        flush=True,
    )
    curve = []
    for epoch in tqdm(range(done, args.epochs), unit="epoch", disable=not first):
        model.fit(x, y, batch_size=BATCH, shards=SHARDS, reduce=together, progress=False)
        if first:
            model.save(args.checkpoint)  # a kill while it writes leaves the old one
        curve.append(model.evaluate(*test, metrics=["accuracy"])["accuracy"])
        if args.die_after == epoch + 1 and together.rank == together.size - 1:
            together.world.Barrier()  # the checkpoint is written
            os.kill(os.getpid(), 9)
        elif args.die_after == epoch + 1:
            together.world.Barrier()
    hashes = together.world.gather(bits(model))
    if not first:
        return
    if len(set(hashes)) > 1 or (hashes[0] == initial and args.epochs):
        sys.exit("the processes do not have the same parameters, or those of the beginning")
    flat = x.reshape(len(x), -1)
    plain = LogisticRegression(max_iter=1000).fit(flat, y).score(test[0].reshape(len(test[0]), -1), test[1])
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        plt.plot(np.arange(done, args.epochs) + 1, curve, label=f"LSTM on {together.size} processes")
        plt.axhline(plain, color="grey", ls=":", label="logistic regression")
        plt.gca().set(xlabel="epoch", ylabel="held-out accuracy", title="Digits, trained with MPI")
        plt.legend()
        plt.savefig(args.plot, dpi=120)
    accuracy = model.evaluate(*test, metrics=["accuracy"])["accuracy"]
    print(f"RESULT accuracy={accuracy:.4f} baseline={plain:.4f} processes={together.size}")
    print(f"BITS {hashes[0]}")


if __name__ == "__main__":
    main()
