"""Networks that others published, out of their packages: pinned, downloaded once, read without their frameworks.

The packages (MIT and Apache licences) are kept in the folder that QUADGATE_PUBLISHED names, else in pytest's cache.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quadgate as qg

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


def fetched(cache: Any, pins: str) -> Path:
    """Return the folder with the unpacked packages of a file of pins; skip the tests where they cannot be had."""
    chosen = os.environ.get("QUADGATE_PUBLISHED")
    folder = Path(chosen) / pins if chosen else cache.mkdir(pins)
    unpacked = folder / "unpacked"
    if not unpacked.is_dir():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes"]
        command += ["-d", str(folder), "-r", str(HERE / f"{pins}.txt")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = next((line for line in done.stderr.splitlines() if "error" in line.lower()), "no reason given")
            pytest.skip(f"the published packages could not be downloaded: {reason}")
        scratch = folder / "scratch"
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(scratch)
        for source in folder.glob("*.tar.gz"):
            with tarfile.open(source) as archive:
                # Python 3.11.2, of Debian 12, has no filters yet.
                archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
                archive.extractall(scratch)
        scratch.rename(unpacked)
    return unpacked


@pytest.fixture(scope="module")
def packages(request) -> Path:
    return fetched(request.config.cache, "published")


@pytest.fixture(scope="module")
def large_packages(request) -> Path:
    """Those of 76 MB, which .ci/full asks for."""
    if not os.environ.get("QUADGATE_LARGE_DOWNLOADS"):
        pytest.skip("76 MB: set QUADGATE_LARGE_DOWNLOADS=1 to download them")
    return fetched(request.config.cache, "published_large")


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def clip(seconds: float = 4.0) -> Any:
    """Something like speech: pulses of a changing pitch through three formants, in syllables, and noise."""
    rng, rate = np.random.default_rng(0), 16000
    t = np.arange(int(seconds * rate)) / rate
    pitch = np.cumsum(120 + 25 * np.sin(2 * np.pi * 1.7 * t)) / rate
    pulses = np.diff(np.floor(pitch), prepend=0.0)
    sound = np.zeros_like(t)
    for formant, width in ((650, 80), (1150, 100), (2600, 160)):
        n = np.arange(600) / rate
        response = np.exp(-np.pi * width * n) * np.sin(2 * np.pi * formant * n)
        sound += np.convolve(pulses, response)[: len(t)]
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * t), 0, 1) * (np.abs(t % 2.0 - 0.7) < 0.6)
    return (0.3 * sound * syllables + 0.003 * rng.normal(size=len(t))).astype(np.float32)


def convolved(x: Any, weight: Any, bias: Any, stride: int, padding: int) -> Any:
    """Return relu of a convolution: x (C, T), weight (K, C, W)."""
    x = np.pad(x, ((0, 0), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2], axis=1)[:, ::stride]
    return np.maximum(np.einsum("ctw,kcw->kt", windows, weight) + bias[:, None], 0)


def silero(arrays: Any, prefix: str, lstm: Any, audio: Any) -> Any:
    """Silero's network at 16 kHz on whole audio: probabilities, one for 512 samples."""
    w = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    audio = np.pad(audio[: len(audio) // 512 * 512], (64, 0))
    stream, result = lstm.stream(1), []
    for start in range(64, len(audio), 512):
        x = np.pad(audio[start - 64 : start + 512], (0, 64), "reflect")
        frames = np.lib.stride_tricks.sliding_window_view(x, 256)[::128]
        spectrum = frames @ w["stft.forward_basis_buffer"][:, 0].T
        y = np.hypot(spectrum[:, :129], spectrum[:, 129:]).T
        for k, stride in enumerate((1, 2, 2, 1)):
            layer = f"encoder.{k}.reparam_conv"
            y = convolved(y, w[f"{layer}.weight"], w[f"{layer}.bias"], stride, 1)
        h = np.maximum(stream.step(y.T)[0], 0)
        result.append(float(sigmoid(h @ w["decoder.decoder.2.weight"][0, :, 0] + w["decoder.decoder.2.bias"][0])))
    return np.array(result)


def test_silero_vad(packages):
    """TorchScript and three ONNX files hold the same cell; its probabilities are onnxruntime's within 1e-5."""
    ort: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: install onnxruntime")
    data = packages / "silero_vad" / "data"
    assert [f.name for f in qg.io.networks(data / "silero_vad.jit")] == ["_model.decoder.rnn", "_model_8k.decoder.rnn"]
    lstm = qg.io.load(data / "silero_vad.jit", name="_model.decoder.rnn")
    others = [qg.onnx.load(data / "silero_vad.onnx", "If_0_then_branch__Inline_0__/decoder/rnn/LSTM")]
    others.append(qg.onnx.load(data / "silero_vad_16k_op15.onnx", "/model/decoder/rnn/LSTM"))
    others.append(qg.io.load(data / "silero_vad_16k_sequence.onnx"))
    for other in others:
        for name, value in lstm.params.items():
            np.testing.assert_array_equal(other.params[name], value)
    (older,) = qg.io.networks(data / "silero_vad_16k.safetensors")  # another model than the rest of the package
    assert (older.name, older.input_size, older.hidden_size) == ("lstm_cell", 128, 128)

    audio = clip()
    session = ort.InferenceSession(data / "silero_vad.onnx", providers=["CPUExecutionProvider"])
    state, context, want = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32), []
    for start in range(0, len(audio) - 511, 512):
        x = np.concatenate([context, audio[None, start : start + 512]], 1)
        probability, state = session.run(None, {"input": x, "state": state, "sr": np.array(16000)})
        context, want = x[:, -64:], [*want, float(probability[0, 0])]
    got = silero(qg.io.read(data / "silero_vad.jit"), "_model.", lstm, audio)
    assert max(want) - min(want) > 0.3  # it hears something, and silence
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def speech(packages) -> Any:
    """Silero's arrays, its LSTM, a clip with much speech in it, and the probabilities in float32."""
    for module in ("matplotlib", "tqdm"):
        pytest.importorskip(module, reason=f"{module} is not installed: the example that makes the clip needs it")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "examples")
        voice: Any = importlib.import_module("voice")
    path, audio = packages / "silero_vad" / "data" / "silero_vad.jit", voice.make_clip(12.0)
    arrays, lstm = qg.io.read(path), qg.io.load(path, name="_model.decoder.rnn")
    want = silero(arrays, "_model.", lstm, audio)
    assert 0.3 < (want > 0.5).mean() < 0.7
    return arrays, lstm, audio, want


@pytest.mark.parametrize(("kind", "most"), [("float16", 0.0015), ("bfloat16", 0.01), ("int8", 0.04)])
def test_silero_vad_in_fewer_bits(speech, kind, most):
    """With the LSTM's weights in fewer bits, probabilities change little, and no decision at 0.5 does."""
    arrays, lstm, audio, want = speech
    got = silero(arrays, "_model.", lstm.quantize(kind), audio)
    assert 0 < np.abs(got - want).max() <= most
    np.testing.assert_array_equal(got > 0.5, want > 0.5)


SENTENCES = (
    "然而，他红了20年以后，他竟退出了大家的视线。",  # noqa: RUF001
    "银行行长在长江边散步，重重地叹了一口气。",  # noqa: RUF001
    "他得去得到那只还没还的碟子。",
)


@pytest.mark.filterwarnings("ignore")  # the package leaves its files open
def test_g2pm(packages):
    """A pickle of NumPy arrays; the package's pinyin with our network in place of its own loop."""
    sys.path.insert(0, str(packages))
    try:
        from g2pM import G2pM
    finally:
        sys.path.pop(0)

    path = packages / "g2pM" / "np_ckpt.pkl"
    lstm = qg.io.load(path, batch_first=True)
    assert (lstm.input_size, lstm.hidden_size, lstm.bidirectional) == (64, 32, True)
    converter = G2pM()
    want = [converter(sentence) for sentence in SENTENCES]
    arrays, calls = qg.io.read(path), []

    def predict(inputs: Any, targets: Any) -> Any:
        y, _ = lstm(arrays["embedding.weight"][inputs])
        hidden = np.maximum(y[0, targets] @ arrays["logit_layer.0.weight"].T + arrays["logit_layer.0.bias"], 0)
        calls.append(len(targets))
        return np.argmax(hidden @ arrays["logit_layer.2.weight"].T + arrays["logit_layer.2.bias"], 1)

    converter.predict = predict
    assert [converter(sentence) for sentence in SENTENCES] == want
    assert sum(calls) > 10  # characters that are read in several ways


# The text that Keras 2.21 itself writes with this file, its own conversion of CuDNNLSTM included, always the likeliest
# letter.
GREEDY = "My friend is a bad day of the same to the state of the state of the state of the state of the state of "


def test_textgenrnn(packages):
    """Weights of two CuDNNLSTM layers in Keras 2's layout."""
    pytest.importorskip("h5py", reason="h5py is not installed: install h5py")
    folder = packages / "textgenrnn-2.0.0" / "textgenrnn"
    path = folder / "textgenrnn_weights.hdf5"
    first, second = (qg.io.load(path, name=name) for name in ("rnn_1", "rnn_2"))
    arrays = {name.rpartition("/")[2]: value for name, value in qg.io.read(path).items() if "rnn" not in name}
    vocabulary = json.loads((folder / "textgenrnn_vocab.json").read_text())
    letters = {index: letter for letter, index in vocabulary.items()}
    text = ["<s>", *"My "]
    while len(text) < len(GREEDY) + 1:
        codes = [vocabulary.get(letter, 0) for letter in text[-40:]]
        x = arrays["embeddings:0"][np.pad(codes, (40 - len(codes), 0))][None]
        one, _ = first(x)
        two, _ = second(one)
        joined = np.concatenate([x, one, two], 2)[0]
        weights = np.exp(joined @ arrays["attention_W:0"])
        mean = (joined * weights / weights.sum()).sum(0)
        text.append(letters[int(np.argmax(mean @ arrays["kernel:0"] + arrays["bias:0"]))])
    assert "".join(text[1:]) == GREEDY


DIGITS = {  # five rows of bits for each column of a digit 7 high
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "3": "11111 00010 00100 00010 00001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "2": "01110 10001 00001 00010 00100 01000 11111",
}


def drawn(text: str) -> Any:
    """An image (1, 1, 64, W) of digits, black on white."""
    signs = [np.array([[int(bit) for bit in row] for row in DIGITS[sign].split()]) for sign in text]
    line = np.concatenate([np.pad(sign, 1) for sign in signs], 1)
    return (1 - np.pad(np.kron(line, np.ones((6, 6))), ((5, 5), (10, 10)))).astype(np.float32)[None, None]


def text_of(y: Any, letters: Any) -> str:
    """The likeliest letters at each step, repetitions and blanks left out."""
    best = y[:, 0].argmax(1)
    return "".join(letters[k] for k, before in zip(best, [0, *best], strict=False) if k not in (0, before))


@pytest.mark.parametrize(("file", "letters"), [("common.onnx", "CHARSET_BETA"), ("common_old.onnx", "CHARSET_OLD")])
def test_ddddocr(large_packages, file, letters):
    """Two whole models, the second quantised, read digits in the evaluator, and with our network put into them."""
    onnx: Any = pytest.importorskip("onnx", reason="onnx is not installed: install onnx")
    ort: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: install onnxruntime")
    import quadgate.onnx

    path, image = large_packages / "ddddocr" / file, drawn("7342")
    letters = runpy.run_path(str(path.with_name("charsets.py")))[letters]
    options = ort.SessionOptions()
    options.log_severity_level = 3  # the model declares another shape of its output

    def by_onnxruntime(model: bytes) -> Any:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, {"input1": image})[0]

    want = by_onnxruntime(path.read_bytes())
    assert text_of(want, letters) == "7342"
    (found,) = qg.io.networks(path)
    assert (found.input_size, found.hidden_size, found.directions) == (512, 512, 2)
    net, model = qg.io.load(path), onnx.load(path)
    quantised = file == "common_old.onnx"
    assert net.weight_type == ("int8" if quantised else "float32")

    (got,) = quadgate.onnx.ReferenceEvaluator(model).run(None, {"input1": image})
    assert text_of(got, letters) == "7342"
    if not quantised:  # two programs of float32, through 24 layers
        np.testing.assert_allclose(got, want, rtol=0, atol=32 * np.finfo(np.float32).eps * np.abs(want).max())

    class Ours(onnx.reference.op_run.OpRun):
        op_domain = "com.microsoft" if quantised else ""

        def _run(self, X: Any, *_: Any, **__: Any) -> Any:
            y, (h, c) = net(X)
            return y.reshape(*X.shape[:2], 2, 512).swapaxes(1, 2), h, c

    Ours.__name__ = "DynamicQuantizeLSTM" if quantised else "LSTM"
    (put_in,) = quadgate.onnx.ReferenceEvaluator(model, new_ops=[Ours]).run(None, {"input1": image})
    assert text_of(put_in, letters) == "7342"
    stored = by_onnxruntime(qg.onnx.store(model, None, net).SerializeToString())
    assert text_of(stored, letters) == "7342"
