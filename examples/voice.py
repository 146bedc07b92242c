"""Voice activity: Silero's published model in NumPy and quadgate, beside onnxruntime.

    pip install ".[gallery]"
    python examples/voice.py                          # a clip that it makes itself
    python examples/voice.py --wav talk.wav           # 16 kHz, mono, 16 bits

The package silero-vad (MIT) is fetched once by pip, without what it requires, its version and hash pinned. Its weights
are read without PyTorch; the rest of the model, a Fourier transform and four convolutions, is the page of NumPy below.
Each frame of 32 ms gets the probability that somebody speaks, frame by frame as a microphone gives them, or for a
whole recording in one call: with the same bits. The baseline is the package's own model in onnxruntime; the
probabilities are its, up to 1e-5.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import wave
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import package_files
import quadgate as qg
from command_line import at_least, folder, picture, source

try:
    import matplotlib as mpl
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[gallery]" installs it')

PIN = "silero-vad==6.2.3 --hash=sha256:7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8"
INSIDE = "silero_vad/data"
FILES = ("silero_vad.jit", "silero_vad.onnx")
RATE, FRAME, CONTEXT = 16000, 512, 64  # samples a second, of a frame, and of the frame before that are seen again
MIRRORED = np.r_[0 : CONTEXT + FRAME, CONTEXT + FRAME - 2 : FRAME - 2 : -1]  # the end of a frame is mirrored
WINDOWS = MIRRORED[np.arange(4)[:, None] * 128 + np.arange(256)]  # samples of each of four windows
# Inputs of each output of the four convolutions, of three taps; -1 is a zero behind the last, for the padding.
TAPS = [
    np.array(taps)
    for taps in ([[-1, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, -1]], [[-1, 0, 1], [1, 2, 3]], [[-1, 0, 1]], [[-1, 0, -1]])
]


def make_clip(seconds: float) -> np.ndarray:
    """Return something like speech: syllables of a hiss and a vowel, with pauses, and noise.

    A vowel is a train of pulses of a falling pitch through three formants (Peterson and Barney, 1952).
    """
    rng, t = np.random.default_rng(0), np.arange(int(seconds * RATE)) / RATE
    pulses = np.diff(np.floor(np.cumsum(135 - 30 * (t % 2.0) + 8 * np.sin(2 * np.pi * 2.3 * t)) / RATE), prepend=0.0)
    hiss, n = np.diff(rng.normal(size=len(t)), prepend=0.0), np.arange(800) / RATE
    vowels = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))
    voiced = []
    for formants in vowels:
        sound = pulses
        for formant, width in zip(formants, (70, 90, 130), strict=True):
            sound = np.convolve(sound, np.exp(-np.pi * width * n) * np.sin(2 * np.pi * formant * n))[: len(t)]
        voiced.append(0.2 * sound / np.abs(sound).max())
    sound, place = 0.002 * rng.normal(size=len(t)), t % 0.23 / 0.23  # five syllables, then a pause
    vowel = rng.integers(0, 5, int(seconds / 0.23) + 1)[(t / 0.23).astype(int)]
    speaks = t % 2.0 < 1.2
    for k, one in enumerate(voiced):
        sound += one * (vowel == k) * speaks * np.clip(8 * np.minimum(place - 0.2, 1 - place), 0, 1)
    return (sound + 0.01 * hiss * speaks * (place < 0.2)).astype(np.float32)


def read_wav(path: Path) -> np.ndarray:
    try:
        with wave.open(str(path)) as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE, 1, 2):
                sys.exit(f"{path} must have 16000 samples a second, one channel and 16 bits")
            if file.getnframes() < FRAME:
                sys.exit(f"{path} must have at least {FRAME} samples")
            return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    except (wave.Error, EOFError) as error:
        sys.exit(f"{path} cannot be read as a WAV file: {error or 'it ends too early'}")


class Voice:
    """The model at 16 kHz."""

    def __init__(self, path: Path) -> None:
        arrays = qg.io.read(path)
        self.lstm = qg.load(path, name="_model.decoder.rnn")
        self.basis = arrays["_model.stft.forward_basis_buffer"][:, 0].T.copy()  # (256, 258): cosines, then sines
        names = [f"_model.encoder.{k}.reparam_conv" for k in range(4)]
        self.convolutions = [
            (
                np.ascontiguousarray(arrays[f"{n}.weight"].transpose(2, 1, 0)).reshape(-1, arrays[f"{n}.bias"].size),
                arrays[f"{n}.bias"],
            )
            for n in names
        ]
        self.weight = arrays["_model.decoder.decoder.2.weight"][0, :, 0]
        self.bias = arrays["_model.decoder.decoder.2.bias"][0]

    def features(self, frames: np.ndarray) -> np.ndarray:
        """Return the input of the LSTM (T, 128) for frames with what came before (T, 576).

        Each frame is a product of its own in `@`, so its bits do not depend on how many there are.
        """
        spectrum = frames[:, WINDOWS] @ self.basis  # (T, 4, 258)
        y = np.hypot(spectrum[..., :129], spectrum[..., 129:])
        for (weight, bias), taps in zip(self.convolutions, TAPS, strict=True):
            padded = np.concatenate([y, np.zeros_like(y[:, :1])], axis=1)
            y = np.maximum(padded[:, taps].reshape(len(y), len(taps), -1) @ weight + bias, 0)
        return y[:, 0]

    def probabilities(self, y: np.ndarray) -> np.ndarray:
        """Return the probability of speech (T,) from the LSTM's output (T, 128)."""
        logits = (np.maximum(y, 0) * self.weight).sum(axis=-1) + self.bias
        return 1 / (1 + np.exp(-logits))

    def whole(self, audio: np.ndarray) -> np.ndarray:
        """Return the probabilities of a recording in one call."""
        return self.probabilities(self.lstm(self.features(frames_of(audio)))[0])

    def stream(self, audio: np.ndarray) -> np.ndarray:
        """Return the same, frame by frame."""
        stream, frames = self.lstm.stream(), frames_of(audio)
        return np.concatenate([self.probabilities(stream.step(self.features(f[None])[0])[None]) for f in frames])


def frames_of(audio: np.ndarray) -> np.ndarray:
    """Return frames (T, 576): each begins with the last 64 samples before it."""
    padded = np.pad(audio[: len(audio) // FRAME * FRAME], (CONTEXT, 0))
    return np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + FRAME)[::FRAME]


class OnnxRuntime:
    """The package's model in onnxruntime, one frame a call, as it is made."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def stream(self, audio: np.ndarray) -> np.ndarray:
        state, rate, result = np.zeros((2, 1, 128), np.float32), np.array(RATE), []
        for frame in frames_of(audio):
            p, state = self.session.run(None, {"input": frame[None], "state": state, "sr": rate})
            result.append(float(p[0, 0]))
        return np.array(result)


def frames_a_second(run, audio: np.ndarray, callers: int, seconds: float) -> float:
    """Return the frames a second of `callers` threads, each with recordings of its own."""
    count, begin = 0, time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        while time.perf_counter() - begin < seconds:
            count += sum(map(len, pool.map(run, [audio] * callers)))
    return count / (time.perf_counter() - begin)


def main() -> None:
    """Compare the probabilities, measure, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--wav", type=source, help="a recording instead of the clip made here")
    parser.add_argument("--folder", type=folder, default="~/.cache/quadgate-examples/silero", help="(%(default)s)")
    parser.add_argument(
        "--callers",
        type=at_least(1),
        nargs="+",
        default=[1, 2, 4],
        help="numbers of threads (%(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="seconds: a short clip, short measurements")
    parser.add_argument("--plot", type=picture, help="write a picture of waveform and probability to this file")
    args = parser.parse_args()
    audio = read_wav(args.wav) if args.wav else make_clip(4.0 if args.quick else 20.0)
    package_files.fetch(PIN, INSIDE, FILES, args.folder)
    voice = Voice(args.folder / FILES[0])
    qg.set_num_threads(1)  # each caller has one thread
    got = voice.stream(audio)
    equal = np.array_equal(got, voice.whole(audio))
    if not equal:
        sys.exit("one call and frame by frame differ")
    print(f"{len(got)} frames, speech in {np.mean(got > 0.5):.0%}; one call and frame by frame have the same bits")
    runs = {"frame by frame": voice.stream, "one call": voice.whole}
    parts = [f"equal={int(equal)}", f"spread={got.max() - got.min():.4f}"]
    if importlib.util.find_spec("onnxruntime"):
        peer = OnnxRuntime(args.folder / FILES[1])
        difference = np.abs(got - peer.stream(audio)).max()
        print(f"largest difference to onnxruntime's probabilities: {difference:.1e}")
        if difference > 1e-5:
            sys.exit("the probabilities are not onnxruntime's")
        runs["onnxruntime"] = peer.stream
        parts.append(f"difference={difference:.3e}")
    jobs = [(name, callers) for callers in args.callers for name in runs]
    for name, callers in tqdm(jobs, unit="measurement"):
        rate = frames_a_second(runs[name], audio, callers, 0.3 if args.quick else 4.0)
        tqdm.write(
            f"{name:15} {callers} callers: {rate:9,.0f} frames a second, {rate * FRAME / RATE:7,.0f} times real time"
        )
        parts.append(f"{name.replace(' ', '_')}_{callers}={rate:.0f}")
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        _, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 4), layout="constrained")
        above.plot(np.arange(len(audio)) / RATE, audio, lw=0.5)
        below.step(np.arange(len(got)) * FRAME / RATE, got, where="post", color="C1")
        above.set(ylabel="waveform", title="Voice activity: Silero's model in quadgate")
        below.set(ylabel="probability", xlabel="seconds", ylim=(0, 1))
        plt.savefig(args.plot, dpi=120)
    print("RESULT", *parts)


if __name__ == "__main__":
    main()
