"""Describe a picture in a sentence: random convolutions, and an LSTM that writes.

    pip install ".[gallery]"
    python examples/caption.py

A scene has one or two of scikit-learn's handwritten digits, side by side or one above the other, not quite in place.
Forty-eight random 5 x 5 convolutions, a ReLU and the maximum over patches make numbers of it, without any training.
They are the first step of a sequence, and the parts of the caption are the next ones: "a seven", "left of", "a two".
Held-out scenes are drawn from digits that no training scene has. The baseline copies the caption of the most similar
training scene, by the same numbers.
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
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[gallery]" installs it')

DIGITS = ["a zero", "a one", "a two", "a three", "a four", "a five", "a six", "a seven", "an eight", "a nine"]
WORDS = ["end", "left of", "above", "alone", *DIGITS]
SIDE, LONGEST = 22, 4  # pixels of a scene, words of a caption with its end


def scenes(
    count: int, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return scenes (count, SIDE, SIDE) and their captions as words (count, LONGEST), 0 behind their ends."""
    pictures, captions = np.zeros((count, SIDE, SIDE), np.float32), np.zeros((count, LONGEST), np.int64)
    for k in range(count):
        kind, chosen = rng.integers(0, 3), rng.integers(0, len(images), 2)
        if kind == 2:  # alone, anywhere
            places, said = [rng.integers(0, SIDE - 7, 2)], [DIGITS[labels[chosen[0]]], "alone"]
        else:
            far, first, second = rng.integers(11, SIDE - 7), rng.integers(0, 4), rng.integers(4, 10, 2)
            places = [(second[0], first), (second[1], far)] if kind == 0 else [(first, second[0]), (far, second[1])]
            said = [DIGITS[labels[chosen[0]]], ("left of", "above")[kind], DIGITS[labels[chosen[1]]]]
        for (row, column), image in zip(places, chosen, strict=False):
            pictures[k, row : row + 8, column : column + 8] = images[image]
        captions[k, : len(said)] = [WORDS.index(word) for word in said]
    return pictures, captions


class Encoder:
    """Random convolutions: a picture to numbers."""

    def __init__(self, rng: np.random.Generator, filters: int = 48) -> None:
        self.weight = rng.normal(0, 0.4, (25, filters)).astype(np.float32)
        self.weight -= self.weight.mean(axis=0)
        self.centre, self.width = np.float32(0), np.float32(1)

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        """Return the numbers (N, 36 filters), each the maximum of a filter over 3 x 3 places."""
        parts = []
        for some in np.array_split(pictures, -(-len(pictures) // 256)):
            windows = np.lib.stride_tricks.sliding_window_view(some, (5, 5), axis=(1, 2))  # 18 x 18 of them
            maps = np.maximum(windows.reshape(len(some), 18, 18, 25) @ self.weight, 0)
            parts.append(maps.reshape(len(some), 6, 3, 6, 3, -1).max(axis=(2, 4)).reshape(len(some), -1))
        return (np.concatenate(parts) - self.centre) / self.width


def inputs(features: np.ndarray, captions: np.ndarray) -> np.ndarray:
    """Return sequences (N, LONGEST, features + words): the picture, then the words before the last as one-hot rows."""
    size = features.shape[1]
    x = np.zeros((len(features), LONGEST, size + len(WORDS)), np.float32)
    x[:, 0, :size] = features
    x[:, 1:, size:] = np.eye(len(WORDS), dtype=np.float32)[captions[:, :-1]]
    return x


def describe(model: train.Sequential, features: np.ndarray) -> np.ndarray:
    """Return the captions that a model writes, word by word."""
    size, stream = features.shape[1], model.stream(len(features))
    x, said = np.zeros((len(features), size + len(WORDS)), np.float32), np.zeros((len(features), LONGEST), np.int64)
    x[:, :size] = features
    over = np.zeros(len(features), bool)
    for k in range(LONGEST):
        word = np.where(over, 0, stream.step(x).argmax(axis=1))
        said[:, k], over, x = word, over | (word == 0), np.zeros_like(x)
        x[np.arange(len(x)), size + word] = 1
    return said


def sentence(caption: np.ndarray) -> str:
    return " ".join(WORDS[word] for word in caption if word)


def main() -> None:
    """Learn to describe scenes, describe held-out ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--epochs", type=at_least(1), default=12, help="(%(default)s)")
    parser.add_argument("--scenes", type=at_least(1), default=20_000, help="to learn from (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="seconds: few scenes, few epochs")
    parser.add_argument("--plot", type=picture, help="write a picture of held-out scenes and captions to this file")
    args = parser.parse_args()
    tests = 1000
    if args.quick:
        args.scenes, args.epochs, tests = 4000, 8, 200
    rng = np.random.default_rng(0)
    images, labels = load_digits(return_X_y=True)
    order, images = rng.permutation(len(labels)), (images / 16).astype(np.float32).reshape(-1, 8, 8)
    known, unseen = order[450:], order[:450]
    pictures, captions = scenes(args.scenes, images[known], labels[known], rng)
    test_pictures, test_captions = scenes(tests, images[unseen], labels[unseen], rng)
    encoder = Encoder(rng)
    features = encoder(pictures)
    encoder.centre, encoder.width = features.mean(axis=0), features.std() * np.float32(np.sqrt(3))
    features, test_features = (features - encoder.centre) / encoder.width, encoder(test_pictures)
    distances = np.square(features).sum(axis=1) - 2 * test_features @ features.T
    plain = (captions[distances.argmin(axis=1)] == test_captions).all(axis=1).mean()
    print(f"{args.scenes} scenes to learn from, {tests} held out; the nearest scene's caption is right for {plain:.1%}")

    size, batch = features.shape[1] + len(WORDS), 64
    lstm = qg.LSTM(size, 128, forget_bias=1.0, initialization="keras", rng=0)
    layers = [train.Dropout(0.2), lstm, train.Dense(128, len(WORDS))]
    model, steps = train.Sequential(layers, rng=0), args.epochs * -(-args.scenes // batch)
    model.compile(
        "softmax_cross_entropy", train.Adam(train.WarmupCosine(3e-3, steps // 20, steps, floor=1e-5), clip_norm=1.0)
    )
    lengths = 1 + (captions > 0).sum(axis=1)  # with the end
    for epoch in range(args.epochs):
        parts = np.array_split(rng.permutation(args.scenes), -(-args.scenes // batch))
        for rows in tqdm(parts, desc=f"epoch {epoch + 1} of {args.epochs}", unit="step", leave=False):
            model.train_on_batch(inputs(features[rows], captions[rows]), captions[rows], lengths=lengths[rows])
    said = describe(model, test_features)
    right = (said == test_captions).all(axis=1)
    words = (said == test_captions)[test_captions > 0].mean()
    for k in range(5):
        print(f"{sentence(said[k]):28} {'right' if right[k] else 'wrong, it is ' + sentence(test_captions[k])}")
    print(f"held-out scenes with a right caption: {right.mean():.1%}, words {words:.1%}")
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(2, 4, figsize=(10, 5.4), layout="constrained")
        for k, at in enumerate(axes.flat):
            at.imshow(test_pictures[k], cmap="gray_r")
            at.set_title(sentence(said[k]), fontsize=9, color="black" if right[k] else "red")
            at.axis("off")
        figure.suptitle(f"Held-out scenes, {right.mean():.1%} of the captions right")
        plt.savefig(args.plot, dpi=120)
    print(f"RESULT exact={right.mean():.4f} words={words:.4f} baseline={plain:.4f}")


if __name__ == "__main__":
    main()
