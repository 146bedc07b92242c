"""Client of a peer's process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

from shapes import Shape

from .base import Array
from .worker import receive, send

# Modes of each peer.
PEERS: dict[str, tuple[str, ...]] = {
    "quadgate": ("inference", "training", "stream"),
    "quadgate_step": ("stream",),
    "torch": ("inference", "training", "stream"),
    "onnxruntime": ("inference", "stream"),
    "onednn": ("inference", "training", "stream"),
    "openvino": ("inference", "stream"),
}
# Those of bench/quantised.py, of one layer and direction.
QUANTISED = ("quadgate_int8", "quadgate_float16", "onnxruntime_int8", "onednn_int8")
OURS = ("quadgate", "quadgate_step")


class PeerError(RuntimeError):
    """Failure of a peer, at its start or later."""


@contextmanager
def one_cpu() -> Iterator[None]:
    """Let processes that start inside the block run on the same CPU: others may be faster or slower for minutes."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class Client:
    """One peer in its own process with `threads` threads, a single one on the first CPU. Ends with the `with` block."""

    def __init__(self, name: str, threads: int) -> None:
        self.name, self.threads = name, threads
        limits = {key: str(threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        with one_cpu() if threads == 1 else nullcontext():
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("worker.py")), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **limits},
            )
        try:
            self.version: str = self._reply()
        except BaseException:
            self.close()
            raise

    def _reply(self) -> Any:
        assert self.process.stdout is not None
        try:
            state, value = receive(self.process.stdout)
        except EOFError:
            raise PeerError(f"{self.name} ended with status {self.process.wait()}") from None
        if state != "ok":
            raise PeerError(f"{self.name}: {value}")
        return value

    def _ask(self, *request: Any) -> Any:
        assert self.process.stdin is not None
        send(self.process.stdin, request)
        return self._reply()

    def setup(self, shape: Shape, path: Path) -> dict[str, Array]:
        """Prepare the peer with the arrays in the .npz file at `path`; return its outputs."""
        result: dict[str, Array] = self._ask("setup", shape, self.threads, str(path))
        return result

    def time(self, calls: int) -> float:
        """Return the seconds of `calls` runs."""
        return float(self._ask("time", calls))

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
