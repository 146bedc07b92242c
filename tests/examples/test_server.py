"""The service of the examples serves only its own clients, and ends when it must."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

psutil = pytest.importorskip("psutil", reason="psutil is not installed, processes left behind are not looked for")
client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed, server.py is not run")
for name in ("matplotlib", "uvicorn", "starlette", "tqdm"):
    pytest.importorskip(name, reason=f"{name} is not installed, server.py is not run")

SERVER = Path(__file__).parents[2] / "examples" / "distributed" / "server.py"


@pytest.fixture(scope="module")
def server() -> Any:
    """The program as a module."""
    spec: Any = importlib.util.spec_from_file_location("server", SERVER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said(server: Any, service: Any, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a service sends to a client that sends these messages and then ends."""
    sent: list[dict[str, Any]] = []
    waiting = [{"type": "websocket.disconnect", "code": 1000}, *messages[::-1], {"type": "websocket.connect"}]

    async def receive() -> dict[str, Any]:
        return waiting.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    socket = server.WebSocket({"type": "websocket", "headers": []}, receive, send)
    asyncio.run(asyncio.wait_for(service.stream(socket), 60))
    return sent


def frame(data: Any) -> dict[str, Any]:
    return {"type": "websocket.receive", "text" if isinstance(data, str) else "bytes": data}


@contextlib.contextmanager
def started(*arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """Start the program; end it, and what it has started, in the end."""
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, SERVER, *map(str, arguments)], text=True, **pipes) as process:
        try:
            yield process
        finally:
            for one in [*children(process), process]:
                one.kill()


def children(process: subprocess.Popen[str]) -> list[Any]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def connected(port: int) -> Any:
    """Return a client of the server, which may take seconds to start."""
    for _ in range(600):
        with contextlib.suppress(ConnectionError):
            return client.connect(f"ws://127.0.0.1:{port}/stream", open_timeout=60)
        time.sleep(0.1)
    raise AssertionError("the server does not listen")


@pytest.mark.parametrize("data", [b"", b"abc", b"\0" * 508, b"\0" * 516, "0" * 512, ""])
def test_a_client_is_told_that_its_frame_is_none(server, data):
    service = server.Service(server.Quadgate(), 1)
    _, end = said(server, service, frame(data))
    assert (end["type"], end["code"]) == ("websocket.close", 1007)
    _, answer = said(server, service, frame(b"\0" * 512))  # the row is free again
    assert len(answer["bytes"]) == 4 * server.UNITS


def test_a_step_that_fails_ends_the_clients_that_wait_for_it_and_no_others(server, capsys):
    class Fails(server.Quadgate):
        def step(self, x, h, c):
            if x.any():
                raise MemoryError("no memory for a step")
            return super().step(x, h, c)

    service = server.Service(Fails(), 1)
    _, end = said(server, service, frame(b"\1" * 512))
    assert (end["type"], end["code"]) == ("websocket.close", 1011)
    assert "no memory for a step" in capsys.readouterr().err
    _, answer = said(server, service, frame(b"\0" * 512))
    assert len(answer["bytes"]) == 4 * server.UNITS


@pytest.mark.parametrize("more", [("--quick",), ("--serve",)])
def test_another_program_on_the_port_is_not_measured(more):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with started("--port", port, *more) as process:
            out, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"port {port} cannot be had, and --port names another" in errors
    assert "Traceback" not in errors
    assert "RESULT" not in out


@pytest.mark.slow
def test_the_server_ends_with_the_process_that_measures_it():
    port = free_port()
    with started("--port", port, "--seconds", 600, "--streams", 1) as process:
        with connected(port):
            left = children(process)
            assert left
            process.kill()
            process.wait(60)
        _, alive = psutil.wait_procs(left, timeout=30)
        for one in alive:
            one.kill()
        assert not alive
