"""Character-level language model: train an LSTM on the source of the standard library, then sample Python from it.

    pip install ".[examples]"
    python examples/write_python.py                     # two minutes of training, then a page of text
    python examples/write_python.py --load write_python.safetensors --sample 3000

Every tenth file is held out, and the printed bits per character are those of held-out files. The baseline is a trigram
model counted from the same training text; it predicts a letter from the previous two.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import quadgate as qg

try:
    from safetensors import safe_open
    from safetensors.numpy import save_file
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[examples]" installs it')

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings", "pydoc_data"}  # tables, copies


# ---------------------------------------------------------------------------------------------------------------- text


def read_library() -> list[str]:
    """Return the texts of the standard library's files in the order of their names, restricted to ALPHABET."""
    texts = []
    root = Path(sysconfig.get_path("stdlib"))
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(set(subfolders) - SKIPPED)
        for name in sorted(names):
            if name.endswith(".py"):
                text = (Path(folder) / name).read_text("utf-8", errors="ignore").expandtabs(4)
                if text.isascii() and len(text) > 500:
                    texts.append("".join(letter for letter in text if letter in ALPHABET))
    if sum(map(len, texts)) < 1_000_000:
        sys.exit(f"there is too little Python source in {root}: is the standard library zipped or stripped?")
    return texts


def encode(text: str) -> np.ndarray:
    """Return the index in ALPHABET of each letter, int64 (len(text),)."""
    places = np.zeros(128, np.int64)
    places[[ord(letter) for letter in ALPHABET]] = np.arange(len(ALPHABET))
    return places[np.frombuffer(text.encode("ascii"), np.uint8)]


def trigram_bits(train: np.ndarray, test: np.ndarray) -> float:
    """Return the bits per character of a trigram model with Witten-Bell interpolation (Witten and Bell, 1991).

    A letter seen n times after a context has weight n. The model of the shorter context has the number
    of distinct letters seen after the context as its weight. The shortest model is the uniform distribution.
    """
    size = len(ALPHABET)
    probability = np.full(len(test) - 2, 1.0 / size)
    for order in (1, 2, 3):
        context, hit = np.zeros(len(test) - 2, np.int64), np.zeros(len(train) - order + 1, np.int64)
        for back in range(order - 1, 0, -1):
            context = context * size + test[2 - back : len(test) - back]
        for place in range(order):
            hit = hit * size + train[place : len(train) - order + 1 + place]
        counts = np.bincount(hit, minlength=size**order).reshape(-1, size)
        total, kinds = counts.sum(axis=1)[context], (counts > 0).sum(axis=1)[context]
        seen = counts[context, test[2:]]
        probability = np.where(total > 0, (seen + kinds * probability) / np.maximum(total + kinds, 1), probability)
    return float(-np.log2(probability).mean())


# --------------------------------------------------------------------------------------------------------------- model


class Writer:
    """Embedding, LSTM, and an output layer with softmax; all but the LSTM is plain NumPy."""

    def __init__(self, hidden: int, layers: int, rng: np.random.Generator, embedding: int = 48) -> None:
        size = len(ALPHABET)
        self.lstm = qg.LSTM(embedding, hidden, layers, rng=rng)
        with self.lstm.writable() as params:
            for layer in range(layers):
                params[f"bias_l{layer}"][hidden : 2 * hidden] = 1.0  # open forget gates: gradients do not vanish
        self.other = {
            "embedding": rng.normal(size=(size, embedding)).astype(np.float32),
            "output.weight": rng.normal(size=(hidden, size)).astype(np.float32) / np.float32(np.sqrt(hidden)),
            "output.bias": np.zeros(size, np.float32),
        }

    def logits(self, y: np.ndarray) -> np.ndarray:
        """Return the unnormalised log probabilities (..., letters) of the next letter from y (..., H)."""
        return y @ self.other["output.weight"] + self.other["output.bias"]

    def gradients(self, text: np.ndarray, state: tuple | None) -> tuple[float, tuple, dict[str, np.ndarray]]:
        """Return the bits per character of text (T + 1, B), the final state, and the gradients of nats per character.

        Backpropagation through time is truncated: the gradient covers these T steps, while the state carries over to
        the next segment of text.
        """
        now, following = text[:-1], text[1:].ravel()
        y, state, tape = self.lstm.forward(self.other["embedding"][now], state)
        flat = y.reshape(-1, y.shape[-1])
        p = softmax(self.logits(flat))
        each = np.arange(len(following))
        bits = -np.log2(p[each, following] + 1e-30).mean()

        p[each, following] -= 1.0
        p /= len(following)
        grads = self.lstm.backward(tape, (p @ self.other["output.weight"].T).reshape(y.shape))
        one_hot = np.zeros((len(following), len(ALPHABET)), np.float32)
        one_hot[each, now.ravel()] = 1.0
        other = {
            "embedding": one_hot.T @ grads.x.reshape(len(following), -1),
            "output.weight": flat.T @ p,
            "output.bias": p.sum(axis=0),
        }
        return float(bits), state, {**grads.params, **other}

    def bits(self, text: np.ndarray, rows: int = 32, piece: int = 256) -> float:
        """Return the bits per character of a whole text, split into `rows` parallel sequences."""
        length = len(text) // rows
        columns = text[: length * rows].reshape(rows, length).T
        total, state = 0.0, None
        for at in range(0, length - 1, piece):
            part = columns[at : at + piece + 1]
            y, state = self.lstm(self.other["embedding"][part[:-1]], state)
            p = softmax(self.logits(y))
            total -= np.log2(np.take_along_axis(p, part[1:, :, None], axis=2) + 1e-30).sum()
        return float(total / ((length - 1) * rows))

    def write(self, start: str, count: int, temperature: float, rng: np.random.Generator) -> str:
        """Return `start` and `count` more letters, each sampled from the predicted distribution."""
        stream = self.lstm.stream()
        y = stream.run(self.other["embedding"][encode(start)])[-1]
        letters = [start]
        for _ in range(count):
            p = softmax(self.logits(y) / np.float32(temperature)).astype(np.float64)
            letter = int(rng.choice(len(p), p=p / p.sum()))
            letters.append(ALPHABET[letter])
            y = stream.step(self.other["embedding"][letter])
        return "".join(letters)

    def save(self, path: Path) -> None:
        """Write all weights; those of the LSTM have PyTorch's names."""
        sizes = {"hidden": str(self.lstm.hidden_size), "layers": str(self.lstm.num_layers)}
        save_file({**self.other, **self.lstm.state_dict(prefix="lstm.")}, path, metadata=sizes)

    @classmethod
    def load(cls, path: Path) -> Writer:
        """Read a file that `save` wrote."""
        with safe_open(path, framework="numpy") as file:
            sizes, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        embedding = tensors["embedding"].shape[1]
        writer = cls(int(sizes["hidden"]), int(sizes["layers"]), np.random.default_rng(0), embedding)
        writer.lstm.load_state_dict(tensors, prefix="lstm.")
        writer.other = {name: tensors[name] for name in writer.other}
        return writer


def softmax(a: np.ndarray) -> np.ndarray:
    e = np.exp(a - a.max(axis=-1, keepdims=True))
    e /= e.sum(axis=-1, keepdims=True)
    return e


class Adam:
    """Adam (Kingma and Ba, 2015), with the norm of the gradient clipped."""

    def __init__(self, clip: float = 1.0) -> None:
        self.clip, self.count = clip, 0
        self.mean: dict[str, np.ndarray] = {}
        self.square: dict[str, np.ndarray] = {}

    def step(self, params: dict[str, np.ndarray], grads: dict[str, np.ndarray], rate: float) -> None:
        """Update `params` in place; `grads` is overwritten."""
        self.count += 1
        norm = np.sqrt(sum(float(np.vdot(g, g)) for g in grads.values()))
        scale = np.float32(min(1.0, self.clip / (norm + 1e-12)))
        rate = rate * np.sqrt(1 - 0.99**self.count) / (1 - 0.9**self.count)
        for name, grad in grads.items():
            m = self.mean.setdefault(name, np.zeros_like(grad))
            v = self.square.setdefault(name, np.zeros_like(grad))
            grad *= scale
            m += np.float32(0.1) * (grad - m)
            v += np.float32(0.01) * (grad * grad - v)
            params[name] -= np.float32(rate) * m / (np.sqrt(v) + np.float32(1e-8))


# ------------------------------------------------------------------------------------------------------------ training


def train(writer: Writer, text: np.ndarray, held_out: np.ndarray, args: argparse.Namespace) -> None:
    """Train for `args.seconds`, with a cosine schedule of the learning rate down to 0."""
    length = len(text) // args.batch
    columns = np.ascontiguousarray(text[: length * args.batch].reshape(args.batch, length).T)  # (steps, rows)
    adam, state, recent, letters = Adam(), None, None, 0
    begin, marks = time.perf_counter(), 0
    pieces = itertools.cycle(range(0, length - args.steps, args.steps))
    glance = held_out[: len(held_out) // 32 * 32].reshape(32, -1)[:, :1024].ravel()  # spread over all of it
    bar = tqdm(total=round(args.seconds), unit="s", bar_format="{l_bar}{bar}| {n:.0f}/{total} s {postfix}")
    while (spent := time.perf_counter() - begin) < args.seconds:
        at = next(pieces)
        if at == 0:
            state = None
        bits, state, grads = writer.gradients(columns[at : at + args.steps + 1], state)
        letters += args.steps * args.batch
        recent = bits if recent is None else 0.98 * recent + 0.02 * bits
        share = spent / args.seconds
        rate = args.rate * min(1.0, adam.count / 50) * (0.5 + 0.5 * np.cos(np.pi * share))
        with writer.lstm.writable() as params:
            params.update(writer.other)
            adam.step(params, grads, rate)
            for name in writer.other:
                del params[name]
        bar.n = min(spent, args.seconds)
        bar.set_postfix_str(f"{recent:.3f} bits/char, {letters / 1e6:.2f} M letters, {letters / (spent + 1e-9):,.0f}/s")
        if share * 6 >= marks + 1:
            marks += 1
            seen = writer.bits(glance)
            bar.write(f"{spent:5.0f} s  {seen:.3f} bits per character on a part of the held-out files")
    bar.n = round(args.seconds)
    bar.close()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, help="training time (120, or 0 with --load)")
    parser.add_argument("--hidden", type=int, default=256, help="hidden size of each layer (%(default)s)")
    parser.add_argument("--layers", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="batch size (%(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="time steps of truncated backpropagation (%(default)s)")
    parser.add_argument("--rate", type=float, default=4e-3, help="largest learning rate of Adam (%(default)s)")
    parser.add_argument("--sample", type=int, default=2000, help="letters to sample after training (%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.6, help="sampling temperature (%(default)s)")
    parser.add_argument("--save", type=Path, default=Path("write_python.safetensors"), help="(%(default)s)")
    parser.add_argument("--load", type=Path, help="start from these weights, with their --hidden and --layers")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.seconds is None:
        args.seconds = 0.0 if args.load else 120.0
    return args


def main() -> None:
    """Read the library, evaluate the trigram model, train, evaluate, save, reload and sample."""
    args = arguments()
    rng = np.random.default_rng(args.seed)
    files = read_library()
    unseen = files[::10]
    files = [text for place, text in enumerate(files) if place % 10]
    rng.shuffle(unseen)
    rng.shuffle(files)
    held_out, text = encode("\n".join(unseen))[:400_000], encode("\n".join(files))
    trigram = trigram_bits(text, held_out)
    print(f"{len(text) / 1e6:.1f} M letters to learn from, {len(held_out) / 1e6:.1f} M held out")
    print(f"a trigram model needs {trigram:.3f} bits per character for the held-out files")

    writer = Writer.load(args.load) if args.load else Writer(args.hidden, args.layers, rng)
    numbers = writer.lstm.num_parameters + sum(value.size for value in writer.other.values())
    print(f"{writer.lstm!r}, {numbers:,} parameters in all, {qg.get_num_threads()} threads ({qg.cpu_info()['isa']})")
    if args.seconds > 0:
        train(writer, text, held_out, args)
    bits = writer.bits(held_out)
    print(f"held-out files: {bits:.3f} bits per character, trigram {trigram:.3f}")

    if args.seconds > 0:
        writer.save(args.save)
        piece = held_out[:10_000]
        if Writer.load(args.save).bits(piece) != writer.bits(piece):
            sys.exit(f"{args.save} does not give back the same network")
        print(f"saved to {args.save}, read back, and found equal")
    print("\nsample:\n")
    print(writer.write('"""', args.sample, args.temperature, rng))


if __name__ == "__main__":
    main()
