"""A service: one process runs an LSTM for many clients at once, over websockets.

    pip install ".[gallery]"
    python examples/distributed/server.py                # loads itself on loopback, beside onnxruntime if installed
    python examples/distributed/server.py --serve        # only serves; frames go to ws://127.0.0.1:8765/stream

A client sends a frame of 128 float32 features each 32 ms, as a device that listens does, and gets the output of the
network for it, 256 float32. Its state is one row of a table in the server; the frames that have come in while a step
was running go through the network together in the next one. The results do not depend on that, to the last bit, which
the load test checks against one call over the whole sequence. A step leaves Python's lock to the event loop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import multiprocessing
import os
import socket
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import quadgate as qg

sys.path.append(str(Path(__file__).parents[1]))  # the folder of command_line.py
from command_line import at_least, picture

try:
    import matplotlib as mpl
    import uvicorn
    import websockets
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect
    from tqdm import tqdm
except ImportError as error:
    sys.exit(f'{error.name} is missing, which only this example needs: pip install ".[gallery]" installs it')

FEATURES, UNITS, LAYERS, FRAME = 128, 256, 2, 0.032  # FRAME in seconds


def new_network() -> qg.LSTM:
    """Return the network that is served; a real service loads one with `qg.load`."""
    return qg.LSTM(FEATURES, UNITS, LAYERS, rng=0)


class Quadgate:
    """One step of some rows: (B, I) and states (L, B, H) to (B, H) and the next states."""

    def __init__(self) -> None:
        self.lstm = new_network()

    def step(self, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        y, (h, c) = self.lstm(x[None], (h, c))
        return y[0], h, c


class OnnxRuntime:
    """The same step by onnxruntime, one node a layer."""

    def __init__(self) -> None:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper

        order, params = [0, 3, 1, 2], new_network().params  # ONNX has the gates as i, o, f, g
        sizes = {"x": (1, "B", FEATURES), "h": (LAYERS, "B", UNITS), "c": (LAYERS, "B", UNITS)}
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()]
        arrays, nodes, read = {}, [], "x"
        for k in range(LAYERS):
            for name, to in (("weight_ih", "W"), ("weight_hh", "R")):
                arrays[f"{to}{k}"] = params[f"{name}_l{k}"].reshape(4, UNITS, -1)[order].reshape(1, 4 * UNITS, -1)
            bias = params[f"bias_l{k}"].reshape(4, UNITS)[order].ravel()
            arrays[f"B{k}"] = np.concatenate([bias, np.zeros_like(bias)])[None]
            arrays[f"at{k}"] = np.array([k])
            nodes += [helper.make_node("Gather", [state, f"at{k}"], [f"{state}{k}"], axis=0) for state in "hc"]
            names = [read, f"W{k}", f"R{k}", f"B{k}", "", f"h{k}", f"c{k}"]
            nodes.append(helper.make_node("LSTM", names, [f"Y{k}", f"hn{k}", f"cn{k}"], hidden_size=UNITS))
            nodes.append(helper.make_node("Squeeze", [f"Y{k}", "one"], [f"y{k}"]))
            read = f"y{k}"
        arrays["one"] = np.array([1])
        nodes += [helper.make_node("Concat", [f"{s}n{k}" for k in range(LAYERS)], [f"{s}n"], axis=0) for s in "hc"]
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (read, "hn", "cn")]
        constants = [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items()]
        graph = helper.make_graph(nodes, "lstm", inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = qg.get_num_threads()
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])

    def step(self, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        y, h, c = self.session.run(None, {"x": x[None], "h": h, "c": c})
        return y[0], h, c


class Service:
    """The table of states and the frames that wait; all but the step itself happens in the event loop."""

    def __init__(self, engine: Quadgate | OnnxRuntime, capacity: int) -> None:
        self.engine, self.pool = engine, ThreadPoolExecutor(1)
        self.h, self.c = np.zeros((2, LAYERS, capacity, UNITS), np.float32)
        self.free = list(range(capacity))
        self.waiting: list[tuple[int, np.ndarray, asyncio.Future[np.ndarray | None]]] = []
        self.running: asyncio.Task[None] | None = None

    async def stream(self, socket: WebSocket) -> None:
        """Serve one client, from its first frame to its last."""
        await socket.accept()
        if not self.free:
            return await socket.close(1013, "all rows are taken")
        row = self.free.pop()
        self.h[:, row] = self.c[:, row] = 0
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return None
                data = message.get("bytes") or b""  # text has none
                if len(data) != 4 * FEATURES:
                    return await socket.close(1007, f"a frame is {FEATURES} float32")
                answer = asyncio.get_running_loop().create_future()
                self.waiting.append((row, np.frombuffer(data, np.float32), answer))
                if self.running is None or self.running.done():
                    self.running = asyncio.create_task(self.work())
                output = await answer
                if output is None:
                    return await socket.close(1011, "the step failed")
                await socket.send_bytes(output.tobytes())
        except WebSocketDisconnect:
            return None
        finally:
            self.free.append(row)

    async def work(self) -> None:
        """Take all frames that wait through the network together, as long as there are any."""
        loop = asyncio.get_running_loop()
        while self.waiting:
            batch, self.waiting = self.waiting, []
            rows = [row for row, _, _ in batch]
            x = np.stack([frame for _, frame, _ in batch])
            states = self.h[:, rows], self.c[:, rows]
            try:
                y, h, c = await loop.run_in_executor(self.pool, self.engine.step, x, *states)
                self.h[:, rows], self.c[:, rows] = h, c
            except Exception:  # ends these clients, not the service
                traceback.print_exc()
                y = [None] * len(rows)
            for k, (_, _, answer) in enumerate(batch):
                if not answer.done():
                    answer.set_result(y[k])


def listen(port: int) -> socket.socket:
    """Return a socket that listens on a port of this machine; end the program if the port cannot be had."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        sys.exit(f"port {port} cannot be had, and --port names another: {error}")


def serve(engine: str, listener: socket.socket, capacity: int = 4096) -> None:
    """Serve until the process ends, or the one that started it."""
    if parent := multiprocessing.parent_process():
        threading.Thread(target=lambda: (parent.join(), os._exit(0)), daemon=True).start()
    service = Service({"quadgate": Quadgate, "onnxruntime": OnnxRuntime}[engine](), capacity)
    app = Starlette(routes=[WebSocketRoute("/stream", service.stream)])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws_ping_interval=None))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


async def client(
    socket: websockets.ClientConnection, sound: np.ndarray, begin: float, times: list[float]
) -> np.ndarray:
    """Send one frame each 32 ms and wait for its answer; return the answers, and append the seconds to `times`.

    A frame's time runs from when it was due: a service that is too slow falls behind more and more, and it shows.
    """
    answers = []
    for due in begin + FRAME * np.arange(len(sound)):
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        await socket.send(sound[len(answers)].tobytes())
        answers.append(np.frombuffer(await socket.recv(), np.float32))
        times.append(time.perf_counter() - due)
    await socket.close()
    return np.stack(answers)


async def load(url: str, streams: int, seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the seconds from frame to answer of all frames, the frames of one client, and all clients' answers.

    All clients send the same frames, so all must get the same answers.
    """
    sound = np.random.default_rng(streams).standard_normal((max(4, round(seconds / FRAME)), FEATURES), np.float32)
    given = {"compression": None, "ping_interval": None, "open_timeout": 40}  # a server needs seconds to start
    sockets = [await websockets.connect(url, **given) for _ in range(streams)]
    times: list[float] = []
    begins = time.perf_counter() + 0.1 + FRAME * np.arange(streams) / streams  # devices do not speak in step
    clients = [client(socket, sound, begin, times) for socket, begin in zip(sockets, begins, strict=True)]
    answers = await asyncio.gather(*clients)
    return np.array(times), sound, np.stack(answers)


def measure(engine: str, args: argparse.Namespace) -> list[tuple[int, float, float]]:
    """Raise the number of streams until p99 passes 32 ms; return (streams, p50, p99) in ms."""
    with listen(args.port) as listener:  # clients of the next lines wait in its queue, and nobody else can answer them
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(engine, listener), daemon=True)
        process.start()
    url, results = f"ws://127.0.0.1:{args.port}/stream", []
    try:
        asyncio.run(load(url, 2, 0.1))  # the first call of each part is slower
        for streams in tqdm(args.streams, desc=engine, unit="load"):
            times, sound, answers = asyncio.run(load(url, streams, args.seconds))
            p50, p99 = np.percentile(times, [50, 99]) * 1e3
            results.append((streams, p50, p99))
            tqdm.write(f"{engine:12} {streams:5} streams: p50 {p50:7.2f} ms, p99 {p99:7.2f} ms")
            want = new_network()(sound[:, None])[0][:, 0]
            if engine == "quadgate" and not (answers == want).all():
                sys.exit("an answer is not that of one call over the whole sequence")
            if not np.allclose(answers, want, rtol=0, atol=1e-4):
                sys.exit(f"{engine} computes something else")
            if p99 > FRAME * 1e3:
                break
    except (OSError, websockets.WebSocketException) as error:
        sys.exit(f"the server of {engine} did not answer: {error!r}")
    finally:
        process.terminate()
        process.join()
    return results


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--serve", action="store_true", help="only serve, until stopped")
    parser.add_argument("--engine", choices=("quadgate", "onnxruntime"), default="quadgate", help="with --serve")
    parser.add_argument("--port", type=at_least(1), default=8765, help="(%(default)s)")
    parser.add_argument("--seconds", type=at_least(0.0), default=4.0, help="seconds of each load (%(default)s)")
    parser.add_argument(
        "--streams", type=at_least(1), nargs="+", default=[8, 16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 384]
    )
    parser.add_argument("--quick", action="store_true", help="seconds: two small loads")
    parser.add_argument("--plot", type=picture, help="write a picture of the latencies to this file")
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.streams = 0.5, [4, 16]
    return args


def main() -> None:
    """Serve, or measure each engine in turn."""
    args = arguments()
    if args.serve:
        return serve(args.engine, listen(args.port))
    engines = ["quadgate"]
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        engines.append("onnxruntime")
    figures = {engine: measure(engine, args) for engine in engines}
    parts = []
    for engine, rows in figures.items():
        held = [row for row in rows if row[2] <= FRAME * 1e3]
        print(f"{engine} held {held[-1][0] if held else 0} streams in real time (p99 below 32 ms)")
        name = "" if engine == "quadgate" else f"{engine}_"
        parts.append(
            f"{name}streams={held[-1][0] if held else 0} {name}p50_ms={rows[0][1]:.3f} {name}p99_ms={rows[0][2]:.3f}"
        )
    if args.plot:
        mpl.use("Agg")
        import matplotlib.pyplot as plt

        for engine, rows in figures.items():
            n, p50, p99 = zip(*rows, strict=True)
            (line,) = plt.plot(n, p99, "o-", label=f"{engine}, p99")
            plt.plot(n, p50, "o:", color=line.get_color(), label=f"{engine}, p50")
        plt.axhline(FRAME * 1e3, color="grey", lw=1)
        plt.gca().set(
            xlabel="streams", ylabel="ms from frame to answer", yscale="log", title="One process, many streams"
        )
        plt.legend()
        plt.savefig(args.plot, dpi=120)
    print("RESULT", *parts)
    return None


if __name__ == "__main__":
    main()
