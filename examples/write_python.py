"""Character-level language model: train an LSTM on the source of the standard library, then sample Python from it.

    pip install ".[examples]"
    python examples/write_python.py                     # two minutes of training, then a page of text
    python examples/write_python.py --load write_python.safetensors --sample 3000
    python examples/write_python.py --explore page.html # a page about how the model reads text, to look at
    python examples/write_python.py --compare           # letters per second beside PyTorch's, if that is installed

Every tenth file is held out, and the printed bits per character are those of held-out files. The baseline is a trigram
model counted from the same training text; it predicts a letter from the previous two.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import quadgate as qg
from command_line import at_least, can_write, output, source
from library_text import ALPHABET, encode, read_library, trigram_bits
from quadgate import train

try:
    import safetensors  # noqa: F401
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[examples]" installs it')

LOSS, BETAS, CLIP = "softmax_cross_entropy", (0.9, 0.99), 1.0


def pieces(text: np.ndarray, rows: int, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches (letters, following letters), each (rows, steps), of a text split into parallel sequences."""
    table = text[: len(text) // rows * rows].reshape(rows, -1)
    for at in range(0, table.shape[1] - 1, steps):
        part = table[:, at : at + steps + 1]
        yield part[:, :-1], part[:, 1:]


def new_model(args: argparse.Namespace, rng: np.random.Generator) -> train.Sequential:
    """Return an untrained model; open forget gates keep gradients from vanishing."""
    size, lstm = len(ALPHABET), qg.LSTM(48, args.hidden, args.layers, forget_bias=1.0, rng=rng)
    layers = [train.Embedding(size, 48), lstm, train.Dense(args.hidden, size)]
    model = train.Sequential(layers, stateful=True, rng=rng)  # states go on from batch to batch: truncated BPTT
    model.load_params({**model.params, "0.weight": rng.normal(size=(size, 48))})
    return model


def fit(model: train.Sequential, text: np.ndarray, held_out: np.ndarray, args: argparse.Namespace) -> None:
    """Train for `args.seconds`, with a cosine schedule of the learning rate down to 0 by the clock."""
    begin = time.perf_counter()

    def share() -> float:
        return min(1.0, (time.perf_counter() - begin) / args.seconds)

    def rate(step: int) -> float:
        return args.rate * min(1.0, step / 50) * (0.5 + 0.5 * np.cos(np.pi * share()))

    model.compile(LOSS, train.Adam(rate, *BETAS, clip_norm=CLIP))
    glance = held_out[: len(held_out) // 32 * 32].reshape(32, -1)[:, :1024].ravel()  # spread over all of it
    recent, marks, letters = None, 0, 0
    bar = tqdm(total=round(args.seconds), unit="s", bar_format="{l_bar}{bar}| {n:.0f}/{total} s {postfix}")
    for x, y in itertools.cycle(pieces(text, args.batch, args.steps)):
        bits = model.train_on_batch(x, y) / np.log(2)
        recent, letters = bits if recent is None else 0.98 * recent + 0.02 * bits, letters + x.size
        spent = time.perf_counter() - begin
        bar.n = min(spent, args.seconds)
        bar.set_postfix_str(f"{recent:.3f} bits/char, {letters / 1e6:.2f} M letters, {letters / spent:,.0f}/s")
        if share() * 6 >= marks + 1:
            marks += 1
            seen = bits_of(model, glance)
            bar.write(f"{spent:5.0f} s  {seen:.3f} bits per character on a part of the held-out files")
        if share() >= 1:
            break
    bar.close()


def bits_of(model: train.Sequential, text: np.ndarray) -> float:
    """Return the bits per character of a whole text, split into 32 parallel sequences."""
    return model.evaluate(list(pieces(text, 32, 256)))["loss"] / np.log(2)


def torch_step(model: train.Sequential) -> Callable[[np.ndarray, np.ndarray], None]:
    """Return a training step of the same model in PyTorch, with fused Adam."""
    import torch

    embedding, lstm, dense = model.layers
    sizes = embedding.num_embeddings, embedding.embedding_dim
    parts = torch.nn.ModuleList([torch.nn.Embedding(*sizes), torch.nn.LSTM(48, lstm.hidden_size, lstm.num_layers)])
    parts.append(torch.nn.Linear(dense.units_in, dense.units_out))
    adam, states = torch.optim.Adam(parts.parameters(), betas=BETAS, fused=True), [None]
    torch.set_num_threads(qg.get_num_threads())

    def step(x: np.ndarray, y: np.ndarray) -> None:
        h, state = parts[1](parts[0](torch.from_numpy(x.T.copy())), states[0])
        states[0] = tuple(part.detach() for part in state)
        loss = torch.nn.functional.cross_entropy(parts[2](h).flatten(0, 1), torch.from_numpy(y.T.copy()).flatten())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), CLIP)
        adam.step()

    return step


def compare(model: train.Sequential, text: np.ndarray, args: argparse.Namespace) -> None:
    """Print letters per second in training beside PyTorch's, each the median of five samples of a second in turn."""
    model.compile(LOSS, train.Adam(1e-4, *BETAS, clip_norm=CLIP))
    steps = {"quadgate": model.train_on_batch}
    try:
        steps["torch"] = torch_step(model)
    except ImportError:
        print("PyTorch is not installed: there is nothing to compare with")
    batches = itertools.cycle(list(itertools.islice(pieces(text, args.batch, args.steps), 20)))
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(6):  # the first round is left out
        for name, step in steps.items():
            letters, begin = 0, time.perf_counter()
            while time.perf_counter() - begin < 1:
                step(*next(batches))
                letters += args.batch * args.steps
            speeds[name].append(letters / (time.perf_counter() - begin))
    for name, values in speeds.items():
        print(f"{name:>10}: {np.median(values[1:]):9,.0f} letters per second, {qg.get_num_threads()} threads")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=at_least(0.0), help="training time (120, or 0 with --load)")
    parser.add_argument("--hidden", type=at_least(1), default=256, help="hidden size of each layer (%(default)s)")
    parser.add_argument("--layers", type=at_least(1), default=1, help="(%(default)s)")
    parser.add_argument("--batch", type=at_least(1), default=32, help="batch size (%(default)s)")
    parser.add_argument(
        "--steps", type=at_least(1), default=50, help="time steps of truncated backpropagation (%(default)s)"
    )
    parser.add_argument("--rate", type=at_least(0.0), default=4e-3, help="largest learning rate of Adam (%(default)s)")
    parser.add_argument(
        "--sample", type=at_least(0), default=2000, help="letters to sample after training (%(default)s)"
    )
    parser.add_argument("--temperature", type=at_least(0.0), default=0.6, help="sampling temperature (%(default)s)")
    parser.add_argument("--save", type=Path, default=Path("write_python.safetensors"), help="(%(default)s)")
    parser.add_argument("--load", type=source, help="start from this model, with its --hidden and --layers")
    parser.add_argument("--explore", type=output, help="write a page here about how the model reads held-out text")
    parser.add_argument("--compare", action="store_true", help="print letters per second beside PyTorch's, and end")
    parser.add_argument("--seed", type=at_least(0), default=0)
    args = parser.parse_args()
    if args.seconds is None:
        args.seconds = 0.0 if args.load else 120.0
    if args.seconds > 0 and not args.compare and not can_write(args.save):
        parser.error(f"argument --save: {args.save} cannot be written")
    return args


def loaded(path: Path) -> train.Sequential:
    """Return the model of --load."""
    try:
        return train.load(path)
    except ValueError as error:
        sys.exit(f"--load: {path}: {error}")


def main() -> None:
    """Read the library, evaluate the trigram model, train, evaluate, save, reload and sample."""
    args = arguments()
    saved = loaded(args.load) if args.load else None
    rng = np.random.default_rng(args.seed)
    files = read_library()
    unseen, files = files[::10], [text for place, text in enumerate(files) if place % 10]
    rng.shuffle(unseen)
    rng.shuffle(files)
    held_out, text = encode("\n".join(unseen))[:400_000], encode("\n".join(files))
    model = new_model(args, rng) if saved is None else saved
    if args.compare:
        return compare(model, text, args)
    trigram = trigram_bits(text, held_out)
    print(f"{len(text) / 1e6:.1f} M letters to learn from, {len(held_out) / 1e6:.1f} M held out")
    print(f"a trigram model needs {trigram:.3f} bits per character for the held-out files")
    threads = f"{qg.get_num_threads()} threads ({qg.cpu_info()['isa']})"
    print(f"{model.layers[1]!r}, {model.num_parameters:,} parameters in all, {threads}")
    if args.seconds > 0:
        try:
            fit(model, text, held_out, args)
        except KeyboardInterrupt:
            print("stopped; what it has learnt so far is saved")
    model.compile(LOSS)  # a schedule by the clock cannot be saved
    if args.seconds > 0:
        model.save(args.save)
    print(f"held-out files: {bits_of(model, held_out):.3f} bits per character, trigram {trigram:.3f}")
    if args.seconds > 0:
        piece = held_out[:10_000]
        if bits_of(train.load(args.save), piece) != bits_of(model, piece):
            sys.exit(f"{args.save} does not give back the same network")
        print(f"saved to {args.save}, read back, and found equal")
    if args.explore:
        begin = int(np.flatnonzero(held_out == ALPHABET.index("\n"))[0]) + 1
        piece = held_out[begin : begin + 200]
        print(qg.explore(model, piece, "".join(ALPHABET[letter] for letter in piece), args.explore))
    print("\nsample:\n")
    letters = train.generate(model, encode('"""'), args.sample, temperature=args.temperature, rng=rng)
    print('"""' + "".join(ALPHABET[letter] for letter in letters))
    return None


if __name__ == "__main__":
    main()
