"""Handwritten digits read row by row: RNN, LSTM, and LSTM with peepholes side by side.

    pip install ".[gallery]"
    python examples/digits.py

An image of scikit-learn's digits (1,797 of them, 8 x 8) is a sequence of eight rows. A network reads them from above
and from below, and its last states say which digit it was. A quarter of the images is held out, the same for all. The
baseline is logistic regression on all 64 numbers.
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
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[gallery]" installs it')

UNITS = 64
NETWORKS = {
    "rnn": lambda: qg.RNN(8, UNITS, bidirectional=True, rng=0),
    "lstm": lambda: qg.LSTM(8, UNITS, bidirectional=True, rng=0),
    "peephole": lambda: qg.LSTM(8, UNITS, bidirectional=True, peephole=True, rng=0),
}


def shifted(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return images (N, 8, 8), each moved to the left, to the right or not at all: more to learn from."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1)))
    at = rng.integers(0, 3, len(x))
    return np.take_along_axis(padded, (at[:, None] + np.arange(8))[:, None], axis=2)


def learn(name: str, x: np.ndarray, y: np.ndarray, test: tuple[np.ndarray, np.ndarray], epochs: int) -> tuple:
    """Return the held-out classes of a network and its held-out accuracy after each epoch."""
    rng, batch = np.random.default_rng(0), 32
    model = train.Sequential(
        [NETWORKS[name](), train.FinalState(), train.Dropout(0.3), train.Dense(2 * UNITS, 10)], rng=0
    )
    steps = epochs * -(-len(x) // batch)
    model.compile("softmax_cross_entropy", train.Adam(train.WarmupCosine(6e-3, steps // 20, steps), clip_norm=1.0))
    curve = []
    for _ in tqdm(range(epochs), desc=f"{name:8}", unit="epoch"):
        model.fit(shifted(x, rng), y, batch_size=batch, progress=False)
        curve.append(model.evaluate(*test, metrics=["accuracy"])["accuracy"])
    return model.predict(test[0]).argmax(axis=1), curve


def main() -> None:
    """Train the three, print the confusion matrix of the LSTM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--epochs", type=at_least(1), default=40, help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="seconds: few epochs")
    parser.add_argument("--plot", type=picture, help="write a picture of accuracies and confusions to this file")
    args = parser.parse_args()
    epochs = 10 if args.quick else args.epochs
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    x, test_x, y, test_y = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    plain = LogisticRegression(max_iter=1000).fit(x, y).score(test_x, test_y)
    x, test_x = x.reshape(-1, 8, 8), test_x.reshape(-1, 8, 8)
    print(f"{len(x)} images to learn from, {len(test_x)} held out; logistic regression: {plain:.2%} held out")
    found = {name: learn(name, x, y, (test_x, test_y), epochs) for name in NETWORKS}
    for name, (_, curve) in found.items():
        print(f"{name:8}: {curve[-1]:.2%} held out")
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (test_y, found["lstm"][0]), 1)
    print("the LSTM's confusion matrix, true digits down, found ones across:")
    print("\n".join(f"{k}  " + " ".join(f"{n:3}" if n else "  ." for n in row) for k, row in enumerate(confusion)))
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        _, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
        for name, (_, curve) in found.items():
            left.plot(range(1, epochs + 1), curve, label=name)
        left.axhline(plain, color="grey", ls=":", label="logistic regression")
        left.set(xlabel="epoch", ylabel="held-out accuracy", ylim=(min(0.9, plain), 1.0), title="Digits, row by row")
        left.legend()
        right.imshow(confusion, cmap="Blues", norm="symlog")
        for (k, j), n in np.ndenumerate(confusion):
            right.text(j, k, n or "", ha="center", va="center", color="white" if n > 5 else "black", fontsize=8)
        right.set(xlabel="found", ylabel="true", xticks=range(10), yticks=range(10), title="LSTM")
        plt.savefig(args.plot, dpi=120)
    print("RESULT", *(f"{name}={curve[-1]:.4f}" for name, (_, curve) in found.items()), f"baseline={plain:.4f}")


if __name__ == "__main__":
    main()
