"""The models of whole_job.py in quadgate and in PyTorch, each trained by a worker process of its own.

    python bench/jobs.py PROGRAM THREADS

A worker reads commands as lines of JSON on standard input and answers each by a line of JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from command import positive

RATE, CLIP = 1e-3, 1.0


@dataclass(frozen=True)
class Job:
    """A model and its batch: symbols (vocabulary above 0) or features, an LSTM, and a dense layer."""

    name: str
    batch: int
    steps: int
    inputs: int  # columns of the embedding, or features
    hidden: int
    outputs: int
    vocabulary: int = 0
    layers: int = 1
    directions: int = 1
    final: bool = False  # the last state alone goes on
    classes: bool = True  # softmax cross-entropy, else mean squared error

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a training step's products: three times those of the forward pass."""
        positions, total, width = self.batch * self.steps, 0, self.inputs
        for _ in range(self.layers):
            total += positions * self.directions * 4 * self.hidden * (width + self.hidden)
            width = self.directions * self.hidden
        return 3 * (total + (self.batch if self.final else positions) * width * self.outputs)


JOBS = {
    job.name: job
    for job in (
        Job("readme", 32, 50, 48, 256, 96, vocabulary=96),
        Job("tagger", 32, 30, 100, 200, 20, vocabulary=5000, layers=2, directions=2),
        Job("forecast", 256, 365, 32, 128, 1, final=True, classes=False),
        Job("audio", 16, 2048, 1, 40, 1, classes=False),
        Job("ptb", 20, 35, 650, 650, 10_000, vocabulary=10_000, layers=2),
        Job("tiny", 3, 5, 4, 6, 7, vocabulary=7, layers=2, directions=2),
        Job("tiny_text", 3, 5, 4, 6, 7, vocabulary=7),
        Job("tiny_numbers", 3, 5, 4, 6, 2, final=True, classes=False),
    )
}


def weights(job: Job) -> dict[str, np.ndarray]:
    """Return the first weights, under PyTorch's names."""
    rng = np.random.default_rng(1)

    def draw(*shape: int) -> np.ndarray:
        return rng.uniform(-0.5, 0.5, shape).astype(np.float32) / np.float32(np.sqrt(shape[-1] / 4))

    result = {"embedding.weight": draw(job.vocabulary, job.inputs)} if job.vocabulary else {}
    width = job.inputs
    for layer in range(job.layers):
        for suffix in ("", "_reverse")[: job.directions]:
            end = f"_l{layer}{suffix}"
            result[f"lstm.weight_ih{end}"] = draw(4 * job.hidden, width)
            result[f"lstm.weight_hh{end}"] = draw(4 * job.hidden, job.hidden)
            result[f"lstm.bias_ih{end}"] = draw(4 * job.hidden)
            result[f"lstm.bias_hh{end}"] = np.zeros(4 * job.hidden, np.float32)
        width = job.directions * job.hidden
    return result | {"dense.weight": draw(job.outputs, width), "dense.bias": draw(job.outputs)}


def batches(job: Job, count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a few batches (x, y), batch first."""
    rng = np.random.default_rng(2)
    shape = (job.batch, job.steps)
    made = []
    for _ in range(count):
        x = rng.integers(0, job.vocabulary, shape) if job.vocabulary else None
        x = rng.normal(size=(*shape, job.inputs)).astype(np.float32) if x is None else x
        rows = (job.batch,) if job.final else shape
        y = rng.integers(0, job.outputs, rows) if job.classes else None
        made.append((x, rng.normal(size=(*rows, job.outputs)).astype(np.float32) if y is None else y))
    return made


class Quadgate:
    """A model of quadgate.train."""

    def __init__(self, job: Job, threads: int) -> None:
        import quadgate as qg
        from quadgate import train

        qg.set_num_threads(threads)
        arrays = weights(job)
        sizes = {"num_layers": job.layers, "bidirectional": job.directions == 2, "batch_first": True}
        net = qg.LSTM(job.inputs, job.hidden, **sizes, rng=0)
        net.load_state_dict(arrays, prefix="lstm.")
        dense = train.Dense(job.directions * job.hidden, job.outputs)
        layers = [train.Embedding(job.vocabulary, job.inputs)] if job.vocabulary else []
        layers += [net, train.FinalState(), dense] if job.final else [net, dense]
        self.model, self._train = train.Sequential(layers, rng=0), train
        values = dict(self.model.params)
        last = len(layers) - 1
        for name, array in arrays.items():
            layer, _, kind = name.partition(".")
            if layer != "lstm":
                values[f"{0 if layer == 'embedding' else last}.{kind}"] = array
        self.model.load_params(values)
        loss = "softmax_cross_entropy" if job.classes else "mse"
        self.model.compile(loss, train.Adam(RATE, clip_norm=CLIP))
        self._batches = batches(job)

    def step(self, k: int) -> float:
        """Take a training step and return its loss."""
        return self.model.train_on_batch(*self._batches[k % len(self._batches)])

    def generate(self, start: list[int], count: int, temperature: float) -> list[int]:
        """Continue a text letter by letter."""
        return self._train.generate(self.model, start, count, temperature=temperature, rng=0).tolist()


class Torch:
    """The same in PyTorch: eager, with fused Adam."""

    compiled = False

    def __init__(self, job: Job, threads: int) -> None:
        torch: Any = importlib.import_module("torch")
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)  # gradients that fade over hundreds of steps are ten times slower without it
        arrays = weights(job)
        sizes = {"num_layers": job.layers, "bidirectional": job.directions == 2, "batch_first": True}
        parts = {
            "lstm": torch.nn.LSTM(job.inputs, job.hidden, **sizes),
            "dense": torch.nn.Linear(job.directions * job.hidden, job.outputs),
        }
        if job.vocabulary:
            parts["embedding"] = torch.nn.Embedding(job.vocabulary, job.inputs)
        modules = torch.nn.ModuleDict(parts)
        modules.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        for name, value in modules.named_parameters():
            value.requires_grad_("bias_hh" not in name)  # whose gradient would count twice in the norm
        free = [value for value in modules.parameters() if value.requires_grad]
        optimizer = torch.optim.Adam(free, RATE, fused=True)
        cross = torch.nn.functional.cross_entropy if job.classes else torch.nn.functional.mse_loss
        self._torch, self._modules, self._states = torch, modules, None
        self._batches = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in batches(job)]

        def loss_of(x: Any, y: Any) -> Any:
            h = modules["embedding"](x) if job.vocabulary else x
            h, (state, _) = modules["lstm"](h)
            if job.final:
                h = state[-1] if job.directions == 1 else torch.cat((state[-2], state[-1]), -1)
            z = modules["dense"](h)
            return cross(z.reshape(-1, job.outputs), y.reshape(-1)) if job.classes else cross(z, y)

        if self.compiled:
            loss_of = torch.compile(loss_of)

        def step(k: int) -> float:
            loss = loss_of(*self._batches[k % len(self._batches)])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(free, CLIP)
            optimizer.step()
            return float(loss.item())

        self.step = step

    def generate(self, start: list[int], count: int, temperature: float) -> list[int]:
        """Continue a text letter by letter."""
        torch, m = self._torch, self._modules
        torch.manual_seed(0)
        with torch.inference_mode():
            state, letters = None, []
            y = torch.tensor([start])
            for _ in range(count):
                h, state = m["lstm"](m["embedding"](y), state)
                logits = m["dense"](h[:, -1])
                y = (
                    torch.multinomial(torch.softmax(logits / temperature, -1), 1)
                    if temperature
                    else logits.argmax(-1)[:, None]
                )
                letters.append(int(y))
        return letters

    def sgemm(self) -> float:
        """Return the multiply-adds a second of PyTorch's largest product, the best of some."""
        torch = self._torch
        a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
        best = 1e9
        for _ in range(20):
            begin = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - begin)
        return 1024**3 / best


class Compiled(Torch):
    """The same after torch.compile."""

    compiled = True


PROGRAMS: dict[str, Any] = {"quadgate": Quadgate, "torch": Torch, "torch.compile": Compiled}


def answer(state: dict[str, Any], command: dict[str, Any], program: str, threads: int) -> Any:
    """Carry out one command."""
    kind = command["do"]
    if kind == "make":
        state["job"] = PROGRAMS[program](JOBS[command["job"]], threads)
        return "made"
    job = state["job"]
    if kind == "losses":
        return [job.step(k) for k in range(command["count"])]
    if kind == "time":
        times = []
        end = time.perf_counter() + command["seconds"]
        while not times or time.perf_counter() < end:
            begin = time.perf_counter()
            job.step(len(times))
            times.append(time.perf_counter() - begin)
        return times
    if kind == "generate":
        return job.generate(command["start"], command["count"], command["temperature"])
    if kind == "time_generate":
        begin = time.perf_counter()
        job.generate([0], command["count"], 0.6)
        return time.perf_counter() - begin
    if kind == "sgemm":
        return job.sgemm()
    raise ValueError(kind)


def main(words: list[str] | None = None) -> None:
    """Answer commands until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=list(PROGRAMS))
    parser.add_argument("threads", type=positive)
    args = parser.parse_args(words)
    answers = os.fdopen(os.dup(1), "w")  # what libraries print must not get between the answers
    os.dup2(2, 1)
    sys.path.insert(0, str(Path(__file__).parent))
    state: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            reply: dict[str, Any] = {"result": answer(state, json.loads(line), args.program, args.threads)}
        except Exception as error:  # of a compiler, for example: the parent reports it
            reply = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
