"""Who speaks? Sequences of 7 to 29 steps: nine speakers of the Japanese vowels /ae/.

    pip install ".[gallery]"
    python examples/vowels.py

JapaneseVowels (Kudo, Toyama and Shimbo, 1999) has 270 utterances to learn from and 370 to test, each a sequence of 12
LPC cepstrum coefficients. The package sktime (BSD) ships it; its wheel is fetched once by pip, without what it
requires, version and hash pinned. Sequences of all lengths run together, with `lengths`, in both directions. The
baseline is logistic regression on each utterance's means and standard deviations.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import package_files
import quadgate as qg
from command_line import at_least, folder, picture
from quadgate import train

try:
    import matplotlib as mpl
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[gallery]" installs it')

PIN = "sktime==1.2.0 --hash=sha256:dbffc6731d2d683b668dceb5e2bbc5804bebc8446b4c580803a281684d90e4ae"
INSIDE = "sktime/datasets/data/JapaneseVowels"
FILES = ("JapaneseVowels_TRAIN.ts", "JapaneseVowels_TEST.ts")


def read(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the utterances (t, 12) of a .ts file, and their speakers, 0 to 8."""
    lines = path.read_text().split("@data", 1)[1].split("\n")
    rows = [line.split(":") for line in lines if ":" in line]
    # The features of some files are padded with NaN; a step counts where all 12 are there.
    tables = [
        np.array([np.array(part.replace("?", "nan").split(","), np.float32) for part in row[:-1]]).T for row in rows
    ]
    return [t[~np.isnan(t).any(axis=1)] for t in tables], np.array([int(row[-1]) - 1 for row in rows])


def summary(sequences: list[np.ndarray]) -> np.ndarray:
    return np.array([np.concatenate([s.mean(axis=0), s.std(axis=0)]) for s in sequences])


def main() -> None:
    """Train networks of one and of both directions."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--epochs", type=at_least(1), default=60, help="(%(default)s)")
    parser.add_argument("--folder", type=folder, default="~/.cache/quadgate-examples/vowels", help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="seconds: few epochs")
    parser.add_argument("--plot", type=picture, help="write a picture of the accuracies to this file")
    args = parser.parse_args()
    epochs = 25 if args.quick else args.epochs
    package_files.fetch(PIN, INSIDE, FILES, args.folder)
    (sequences, y), (tests, test_y) = (read(args.folder / name) for name in FILES)
    scaled = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(summary(sequences), y)
    plain = scaled.score(summary(tests), test_y)
    everything = np.concatenate(sequences)
    centre, width = everything.mean(axis=0), everything.std(axis=0)
    x, lengths = qg.pad_sequences([(s - centre) / width for s in sequences], batch_first=True)
    test_x, test_lengths = qg.pad_sequences([(s - centre) / width for s in tests], batch_first=True)
    held_out = {"x": test_x, "y": test_y, "lengths": test_lengths}
    print(f"{len(x)} utterances of {lengths.min()} to {lengths.max()} steps, {len(test_x)} held out")
    print(f"logistic regression on means and deviations: {plain:.2%} held out")
    curves = {}
    for name, both in (("forward", False), ("both", True)):
        net, directions = qg.LSTM(12, 64, bidirectional=both, rng=0), 1 + both
        layers = [train.Dropout(0.2), net, train.FinalState(), train.Dropout(0.5), train.Dense(64 * directions, 9)]
        model, steps = train.Sequential(layers, rng=0), epochs * -(-len(x) // 16)
        rate = train.WarmupCosine(5e-3, steps // 20, steps)
        model.compile("softmax_cross_entropy", train.AdamW(rate, weight_decay=1e-3, clip_norm=1.0))
        curve = curves[name] = []
        for _ in tqdm(range(epochs), desc=f"{name:8}", unit="epoch"):
            model.fit(x, y, lengths=lengths, batch_size=16, progress=False)
            curve.append(model.evaluate(**held_out, metrics=["accuracy"])["accuracy"])
        print(f"{name:8}: {curve[-1]:.2%} held out")
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        for name, curve in curves.items():
            plt.plot(range(1, epochs + 1), curve, label={"forward": "one direction", "both": "both directions"}[name])
        plt.axhline(plain, color="grey", ls=":", label="logistic regression")
        plt.gca().set(
            xlabel="epoch",
            ylabel="held-out accuracy",
            ylim=(0.8, 1.0),
            title="Nine speakers, sequences of 7 to 29 steps",
        )
        plt.legend()
        plt.savefig(args.plot, dpi=120)
    print(f"RESULT accuracy={curves['both'][-1]:.4f} forward={curves['forward'][-1]:.4f} baseline={plain:.4f}")


if __name__ == "__main__":
    main()
