"""``python -m quadgate bench``: time of one network here, beside torch and onnxruntime if they are installed.

The programs run in this process, and their samples are interleaved. ``bench/compare.py`` of the source distribution
runs each in its own process, and has more peers.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import quadgate as qg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

DESCRIPTION = "Time calls of one network here, beside torch and onnxruntime if they are installed."

SAMPLE_SECONDS = 0.004  # least duration of a sample, except for single calls that take longer
PAUSE_SECONDS = 0.01  # before a sample: threads of the previous program stop spinning
TOLERANCE = 1e-3  # largest difference between two programs, relative to the largest element


class Shape(NamedTuple):
    """Sizes of one network and its input."""

    T: int
    B: int
    I: int  # noqa: E741 - the project's word for the input size
    H: int
    layers: int
    directions: int
    mode: str

    def __str__(self) -> str:
        extra = f", {self.layers} layers" if self.layers > 1 else ""
        extra += ", both directions" if self.directions == 2 else ""
        return f"{self.mode} {self.T},{self.B},{self.I},{self.H}{extra}"


class Data(NamedTuple):
    """A network, its input x (T, B, I), and for training the gradient dy (T, B, D*H) of its output."""

    net: qg.LSTM
    x: Array
    dy: Array


Run = Callable[[], "Array"]  # one call; returns y, or dx for training; a stream's continues from the call before


def main(argv: Sequence[str]) -> int:
    """Measure, and print the times; return the exit status, 1 if the programs' results differ or memory ran out."""
    args = _arguments(argv)
    before = qg.get_num_threads()
    status = 0
    print(f"{', '.join(_versions())}; {qg.cpu_info()['isa']}, float32, {args.rounds} interleaved rounds.")
    print("Median time of a call [10th, 90th percentile]. Ratio: quotient of two medians [percentiles of each round's")
    print("quotient]; above 1, quadgate is faster.")
    try:
        for shape in args.shapes:
            for threads in args.threads or sorted({1, before}):
                status |= _measure(shape, threads, args.rounds)
    except MemoryError as error:
        print(f"{shape}: {error}", file=sys.stderr)
        status = 1
    finally:
        qg.set_num_threads(before)
    return status


def _versions() -> list[str]:
    """Return names and versions of the installed programs."""
    result = []
    for name in PROGRAMS:
        try:
            result.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return result


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m quadgate bench", description=DESCRIPTION)
    parser.add_argument("sizes", nargs="+", metavar="T,B,I,H", help="steps, batch, input size, hidden size")
    mode = "what a call does: training is forward and backward, stream one step (default: inference)"
    parser.add_argument("--mode", choices=("inference", "training", "stream"), default="inference", help=mode)
    parser.add_argument("--layers", type=int, default=1, help="layers of the network (default: 1)")
    directions = "2 for a bidirectional network (default: 1)"
    parser.add_argument("--directions", type=int, choices=(1, 2), default=1, help=directions)
    parser.add_argument("--threads", nargs="+", type=int, help="numbers (default: 1, and as many as quadgate uses)")
    parser.add_argument("--rounds", type=int, default=15, help="samples of each program (default: 15)")
    args = parser.parse_args(argv)
    try:
        args.shapes = [parse(text, args.layers, args.directions, args.mode) for text in args.sizes]
    except ValueError as error:
        parser.error(str(error))
    threads = args.threads or [1]
    if args.rounds < 1 or min(threads) < 1 or max(threads) >= 2**31:
        parser.error("--rounds and --threads must be positive, and --threads below 2**31")
    return args


def parse(text: str, layers: int, directions: int, mode: str) -> Shape:
    """Return the shape with the sizes T,B,I,H; raise ValueError unless they are positive integers, not too large."""
    sizes = [int(size) if size.strip().isdecimal() else 0 for size in text.split(",")]
    if len(sizes) != 4 or min(sizes) < 1:
        raise ValueError(f"T,B,I,H must be four positive integers, as in 200,16,12,96: got {text!r}")
    if layers < 1:
        raise ValueError(f"--layers must be positive, got {layers}")
    steps, batch, inputs, hidden = sizes
    if mode == "stream" and (steps, directions) != (1, 1):
        raise ValueError(
            f"--mode stream takes one step a call in one direction: T must be 1, got {text!r}, and --directions 1, "
            f"got {directions}"
        )
    largest = steps * batch * max(inputs, directions * hidden)  # of x or y
    if max(4 * largest, layers) > sys.maxsize:
        raise ValueError(f"{text!r} with {layers} layers is too large to be addressed")
    return Shape(steps, batch, inputs, hidden, layers, directions, mode)


def _measure(shape: Shape, threads: int, rounds: int) -> int:
    """Measure one shape, print the times, and return 1 if the results differ."""
    rng = np.random.default_rng(0)
    net = qg.LSTM(shape.I, shape.H, shape.layers, bidirectional=shape.directions == 2, rng=rng)
    x = rng.standard_normal((shape.T, shape.B, shape.I), np.float32)
    data = Data(net, x, rng.standard_normal((shape.T, shape.B, shape.directions * shape.H), np.float32))
    print(f"\n{shape}, {threads} thread{'s' if threads > 1 else ''}", flush=True)
    runs = {"quadgate": PROGRAMS["quadgate"](shape, data, threads)}
    wanted = _first(shape, runs["quadgate"])
    different, absent = [], []
    for name in [name for name in PROGRAMS if name != "quadgate"]:
        try:
            run = PROGRAMS[name](shape, data, threads)
            if not _close(_first(shape, run), wanted):
                different.append(name)
            runs[name] = run
        except NotImplementedError:
            continue
        except Exception as error:  # of any kind where an installation is broken
            missing = isinstance(error, ModuleNotFoundError) and error.name == name
            absent.append(f"{name} {'is not installed' if missing else f'cannot run: {error!r}'}")
    times = settled(interleave(runs, rounds))
    mine = times["quadgate"]
    for name, values in times.items():
        line = f"    {name:12}{_time(statistics.median(values)):>10} {_brackets(values, _time)} us"
        if name != "quadgate":
            quotients = [theirs / ours for theirs, ours in zip(values, mine, strict=True)]
            ratio = statistics.median(values) / statistics.median(mine)
            line += f"   ratio {ratio:.2f} {_brackets(quotients, '{:.2f}'.format)}"
        print(line + ("   RESULTS DIFFER" if name in different else ""))
    for text in absent:
        print(f"    {text}")
    return int(bool(different))


def _first(shape: Shape, run: Run) -> Array:
    """Return the result to compare: of a stream's second step, whose state is not zero."""
    if shape.mode == "stream":
        run()
    return run()


def _close(got: Array, wanted: Array) -> bool:
    return got.shape == wanted.shape and bool(np.abs(got - wanted).max() <= TOLERANCE * np.abs(wanted).max())


def interleave(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of one call of each program in each round; the order within a round is random."""
    calls = {name: _calibrate(run) for name, run in runs.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            time.sleep(PAUSE_SECONDS)
            _seconds(runs[name], max(1, calls[name] // 4))
            samples[name].append(_seconds(runs[name], calls[name]) / calls[name])
    return samples


def settled(samples: dict[str, list[float]]) -> dict[str, list[float]]:
    """Remove the drift of the machine from samples.

    Each round is divided by its slowness, the median over programs of sample / median of the program's samples. The
    quotient of each round is unchanged.
    """
    medians = {name: statistics.median(values) for name, values in samples.items()}
    each = zip(*([value / medians[name] for value in values] for name, values in samples.items()), strict=True)
    slowness = [statistics.median(values) for values in each]
    return {name: [v / s for v, s in zip(values, slowness, strict=True)] for name, values in samples.items()}


def _seconds(run: Run, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - begin


def _calibrate(run: Run) -> int:
    """Return the number of calls in a sample."""
    calls = 1
    while (seconds := _seconds(run, calls)) < SAMPLE_SECONDS / 2:
        calls *= 2
    return max(1, round(calls * SAMPLE_SECONDS / seconds))


def _time(seconds: float) -> str:
    us = 1e6 * seconds
    return f"{us:.{3 if us < 1 else 2 if us < 10 else 1 if us < 1000 else 0}f}"


def _brackets(values: Sequence[float], text: Callable[[float], str]) -> str:
    low, high = np.percentile(values, (10, 90))
    return f"[{text(float(low))}, {text(float(high))}]"


def _quadgate(shape: Shape, data: Data, threads: int) -> Run:
    qg.set_num_threads(threads)
    if shape.mode == "stream":
        step, x, y = data.net.stream(shape.B).step, data.x[0], np.empty((shape.B, shape.H), np.float32)
        return lambda: step(x, out=y)
    if shape.mode == "inference":
        return lambda: data.net(data.x)[0]
    grads = {name: np.empty_like(value) for name, value in data.net.params.items()}

    def train() -> Array:
        _, _, tape = data.net.forward(data.x)
        dx = data.net.backward(tape, data.dy, state_grad=False, out=grads).x
        assert dx is not None  # for the type checker: the gradient of x is asked for
        return dx

    return train


def _torch(shape: Shape, data: Data, threads: int) -> Run:
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    lstm = torch.nn.LSTM(shape.I, shape.H, shape.layers, bidirectional=shape.directions == 2)
    with torch.no_grad():
        for name, value in data.net.params.items():
            getattr(lstm, name.replace("bias", "bias_ih")).copy_(torch.from_numpy(np.array(value)))
            if name.startswith("bias"):
                getattr(lstm, name.replace("bias", "bias_hh")).zero_()
    x, dy = torch.from_numpy(data.x), torch.from_numpy(data.dy)
    if shape.mode == "training":
        leaves = [x.clone().requires_grad_(), *lstm.parameters()]
        return lambda: np.asarray(torch.autograd.grad(lstm(leaves[0])[0], leaves, dy)[0].numpy())

    state = None

    def infer() -> Array:
        nonlocal state
        with torch.inference_mode():
            y, after = lstm(x, state)
            if shape.mode == "stream":
                y, state = y[0], after
            return np.asarray(y.numpy())

    return infer


def _onnxruntime(shape: Shape, data: Data, threads: int) -> Run:
    if shape.mode == "training":
        raise NotImplementedError("onnxruntime has no training here")
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    model = _onnx_model(shape, data.net)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    if shape.mode == "inference":
        return lambda: np.asarray(session.run(names, {"x": data.x})[0])
    before = [value.name for value in session.get_inputs()][1:]
    states = [np.zeros((1, shape.B, shape.H), np.float32)] * len(before)

    def step() -> Array:
        nonlocal states
        y, *states = session.run(names, {"x": data.x, **dict(zip(before, states, strict=True))})
        return np.asarray(y[0])

    return step


PROGRAMS: dict[str, Callable[[Shape, Data, int], Run]] = {
    "quadgate": _quadgate,
    "torch": _torch,
    "onnxruntime": _onnxruntime,
}


def _onnx_model(shape: Shape, net: qg.LSTM) -> bytes:
    """Return a chain of ONNX LSTM nodes with the network's parameters, serialised without the package onnx.

    The graph maps x (T, B, I), for streams also h and c of each layer, to y (T, B, D*H), h and c. Numbers of fields are
    those of onnx.proto.
    """
    suffixes = ("", "_reverse")[: shape.directions]
    nodes: list[bytes] = []
    tensors: list[bytes] = []
    inputs = [_value_info("x", (shape.T, shape.B, shape.I))]
    outputs = [_value_info("y", (shape.T, shape.B, shape.directions * shape.H))]
    state = (shape.directions, shape.B, shape.H)
    source = "x"
    for k in range(shape.layers):
        for kind, name in (("weight_ih", "W"), ("weight_hh", "R"), ("bias", "B")):
            rows = [np.split(net.params[f"{kind}_l{k}{suffix}"], 4) for suffix in suffixes]
            rows = [[i, o, f, g] + [np.zeros_like(i)] * (4 if name == "B" else 0) for i, f, g, o in rows]
            tensors.append(_tensor(f"{name}{k}", np.stack([np.concatenate(parts) for parts in rows])))
        direction = "bidirectional" if shape.directions == 2 else "forward"
        attributes = [_field(1, "hidden_size") + _field(3, shape.H) + _field(20, 2)]
        attributes += [_field(1, "direction") + _field(4, direction) + _field(20, 3)]
        before = (f"h{k}_before", f"c{k}_before") if shape.mode == "stream" else ()
        inputs += [_value_info(name, state) for name in before]
        operands = (source, f"W{k}", f"R{k}", f"B{k}", *(("", *before) if before else ()))  # "": no lengths
        nodes.append(_node("LSTM", operands, (f"Y{k}", f"h{k}", f"c{k}"), attributes))
        outputs += [_value_info(f"h{k}", state), _value_info(f"c{k}", state)]
        source = f"y{k}" if k + 1 < shape.layers else "y"
        order = _field(1, "perm") + b"".join(_field(8, axis) for axis in (0, 2, 1, 3)) + _field(20, 7)
        nodes.append(_node("Transpose", (f"Y{k}",), (f"transposed{k}",), [order]))
        nodes.append(_node("Reshape", (f"transposed{k}", "sizes"), (source,), []))
    tensors.append(_tensor("sizes", np.array([shape.T, shape.B, shape.directions * shape.H])))
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "lstm")
    graph += b"".join(_field(5, tensor) for tensor in tensors)
    graph += b"".join(_field(11, value) for value in inputs)
    graph += b"".join(_field(12, value) for value in outputs)
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 17))  # IR version 8, opset 17


def _node(kind: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Sequence[bytes]) -> bytes:
    names = b"".join(_field(1, name) for name in inputs) + b"".join(_field(2, name) for name in outputs)
    return names + _field(4, kind) + b"".join(_field(5, attribute) for attribute in attributes)


def _tensor(name: str, value: Array) -> bytes:
    dims = b"".join(_field(1, size) for size in value.shape)
    return dims + _field(2, 1 if value.dtype == np.float32 else 7) + _field(8, name) + _field(9, value.tobytes())


def _value_info(name: str, shape: Sequence[int]) -> bytes:
    dims = b"".join(_field(1, _field(1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dims)))


def _field(number: int, value: int | str | bytes) -> bytes:
    """Return one field of a protocol buffer message: a varint, a string, or bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
