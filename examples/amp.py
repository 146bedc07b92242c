"""A guitar amplifier as an LSTM: learnt from sound before and after, then played in blocks of 64 samples.

    pip install ".[gallery]"
    python examples/amp.py --wav amp.wav

The program makes both sounds itself: plucked strings (Karplus and Strong, 1983), and an amplifier of filters around a
tube-like tanh. Held out are other notes. The measure is the error-to-signal ratio; the baseline is the best linear
filter of 64 taps. The weights go to a file of the JSON form that RTNeural and AIDA-X read, and come back from it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np
import quadgate as qg
from command_line import at_least, output, picture
from quadgate import train

try:
    import matplotlib as mpl
    from scipy.signal import lfilter
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[gallery]" installs it')

RATE, BLOCK = 44100, 64


def guitar(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return plucked strings, now and then two at once, float32 (N,)."""
    sound = np.zeros(int(seconds * RATE))
    for begin in np.arange(0, seconds, 0.35):
        for _ in range(rng.integers(1, 3)):
            period, left = int(RATE / (82.4 * 2 ** (rng.integers(0, 30) / 12))), len(sound) - int(begin * RATE)
            pluck = np.zeros(min(left, RATE))
            pluck[:period] = rng.uniform(-1, 1, min(period, len(pluck)))
            string = lfilter([1.0], [1.0, *np.zeros(period - 1), -0.4975, -0.4975], pluck)
            sound[int(begin * RATE) : int(begin * RATE) + len(pluck)] += rng.uniform(0.1, 0.5) * string
    return (sound / np.abs(sound).max()).astype(np.float32)


def amplifier(x: np.ndarray) -> np.ndarray:
    """Return what comes out: less bass, an asymmetric tanh, and the low-pass of a cabinet."""
    driven = 6 * lfilter([1.0, -1.0], [1.0, -0.985], x)
    bent = np.tanh(driven + 0.25) - np.tanh(0.25)
    steady = lfilter([1.0, -1.0], [1.0, -0.997], bent)
    return (0.7 * lfilter([0.35], [1.0, -0.65], steady)).astype(np.float32)


def linear(x: np.ndarray, y: np.ndarray, taps: int = 64) -> np.ndarray:
    """Return the filter with the least square error."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, (taps - 1, 0)), taps)
    return np.linalg.lstsq(windows.T @ windows, windows.T @ y, rcond=None)[0][::-1]


def error_to_signal(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.square(found - true).sum() / np.square(true).sum())


class Effect:
    """An LSTM and a row of weights, played block by block."""

    def __init__(self, lstm: qg.LSTM, weight: np.ndarray, bias: np.ndarray) -> None:
        self.lstm, self.weight, self.bias, self.stream = lstm, weight, bias, lstm.stream()

    def play(self, x: np.ndarray) -> np.ndarray:
        """Return the sound of the next block."""
        return self.stream.run(x[:, None]) @ self.weight + self.bias

    def write(self, path: Path) -> None:
        """Write RTNeural's JSON; `in_skip` is AIDA-X's, for models that add their input."""
        keras = list(qg.io.to_keras(self.lstm).values())
        shapes = [None, None, self.lstm.hidden_size], [None, None, 1]
        lstm = {"type": "lstm", "activation": "", "shape": shapes[0], "weights": [a.tolist() for a in keras]}
        dense = {"type": "dense", "activation": "", "shape": shapes[1]}
        dense["weights"] = [self.weight[:, None].tolist(), self.bias.tolist()]
        path.write_text(json.dumps({"in_shape": [None, None, 1], "in_skip": 0, "layers": [lstm, dense]}))

    @classmethod
    def read(cls, path: Path) -> Effect:
        """Read such a file."""
        lstm, dense = json.loads(path.read_text())["layers"]
        if (lstm["type"], dense["type"]) != ("lstm", "dense"):
            raise ValueError(f"{path} must have one LSTM and one dense layer")
        weight, bias = (np.array(a, np.float32) for a in dense["weights"])
        return cls(qg.io.from_keras([np.array(a, np.float32) for a in lstm["weights"]]), weight[:, 0], bias)


def main() -> None:
    """Learn the amplifier, play the held-out notes, measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--epochs", type=at_least(1), default=40, help="(%(default)s)")
    parser.add_argument("--units", type=at_least(1), default=24, help="(%(default)s)")
    parser.add_argument("--wav", type=output, help="write the held-out notes, played, to this file")
    parser.add_argument("--quick", action="store_true", help="seconds: little sound, few epochs")
    parser.add_argument("--plot", type=picture, help="write a picture of the sounds to this file")
    args = parser.parse_args()
    seconds, epochs = (6.0, 12) if args.quick else (30.0, args.epochs)
    x, test_x = guitar(seconds, np.random.default_rng(0)), guitar(5.0, np.random.default_rng(1))
    y, test_y = amplifier(x), amplifier(test_x)
    plain = error_to_signal(np.convolve(test_x, linear(x, y))[: len(test_x)], test_y)

    rows, piece = 64 if not args.quick else 32, 512
    length = len(x) // rows // piece * piece
    pieces = [a[: rows * length].reshape(rows, -1, piece, 1).swapaxes(0, 1) for a in (x, y)]
    lstm = qg.LSTM(1, args.units, rng=0)
    model = train.Sequential([lstm, train.Dense(args.units, 1)], stateful=True, rng=0)
    steps = epochs * len(pieces[0])
    model.compile("mse", train.Adam(train.WarmupCosine(8e-3, steps // 20, steps, floor=1e-4), clip_norm=1.0))
    bar = tqdm(range(epochs), unit="epoch")
    for _ in bar:
        model.reset_states()
        losses = [model.train_on_batch(*both) for both in zip(*pieces, strict=True)]  # truncated backpropagation
        bar.set_postfix_str(f"error to signal {np.mean(losses) / np.square(y).mean():.4f}")

    effect = Effect(lstm, model.params["1.weight"][0], model.params["1.bias"])
    with tempfile.TemporaryDirectory() as folder:
        effect.write(Path(folder) / "amp.json")
        again = Effect.read(Path(folder) / "amp.json")
    qg.set_num_threads(1)
    begin, blocks = time.perf_counter(), range(0, len(test_x), BLOCK)
    played = np.concatenate([effect.play(test_x[at : at + BLOCK]) for at in blocks])
    factor = len(test_x) / RATE / (time.perf_counter() - begin)
    if not np.array_equal(played, np.concatenate([again.play(test_x[at : at + BLOCK]) for at in blocks])):
        sys.exit("the effect that was read back from JSON sounds different")
    ratio = error_to_signal(played, test_y)
    print(f"error to signal on held-out notes: {ratio:.4f}, linear filter {plain:.4f}")
    print(f"blocks of {BLOCK} samples on one thread: {factor:.1f} times real time; JSON gives the same bits back")
    if args.wav:
        with wave.open(str(args.wav), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes((np.clip(played, -1, 1) * 32767).astype("<i2").tobytes())
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        part, (_, axes) = slice(RATE, RATE + 600), plt.subplots(1, 1, figsize=(9, 3.5), layout="constrained")
        for name, sound in (("guitar", test_x), ("amplifier", test_y), ("LSTM", played)):
            axes.plot(np.arange(600) / RATE * 1e3, sound[part], label=name, ls="--" if name == "LSTM" else "-")
        axes.set(xlabel="ms", title=f"A held-out note, error to signal {ratio:.4f} (linear filter {plain:.3f})")
        axes.legend()
        plt.savefig(args.plot, dpi=120)
    print(f"RESULT error_to_signal={ratio:.5f} baseline={plain:.5f} real_time_factor={factor:.2f}")


if __name__ == "__main__":
    main()
