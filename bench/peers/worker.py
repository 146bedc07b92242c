"""Process of one peer: `python worker.py NAME`.

Requests and replies are pickles after their length (8 bytes, little-endian) on standard input and output. A request is
a tuple of a word and its arguments; a reply is ("ok", value) or ("error", text).
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import IO, Any

sys.path[0] = str(Path(__file__).resolve().parents[1])  # bench/; not this folder


def send(stream: IO[bytes], value: Any) -> None:
    """Write one pickle."""
    data = pickle.dumps(value, protocol=5)
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one pickle, or raise EOFError at the end."""
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    return pickle.loads(stream.read(int.from_bytes(head, "little")))


def main() -> None:
    """Answer requests until the end of standard input."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of a library must not mix with the replies
    requests = sys.stdin.buffer
    try:
        peer = importlib.import_module(f"peers.peer_{sys.argv[1]}").Peer()
        send(replies, ("ok", peer.version))
    except Exception:
        send(replies, ("error", traceback.format_exc()))
        return
    import numpy as np

    while True:
        try:
            word, *arguments = receive(requests)
        except EOFError:
            return
        try:
            value: Any
            if word == "setup":
                shape, threads, path = arguments
                with np.load(path) as file:
                    arrays = {name: file[name] for name in file.files}
                value = {name: np.array(array) for name, array in peer.setup(shape, threads, arrays).items()}
            elif word == "time":
                value = peer.time(*arguments)
            else:
                raise ValueError(f"unknown request {word!r}")
            send(replies, ("ok", value))
        except Exception:
            send(replies, ("error", traceback.format_exc()))


if __name__ == "__main__":
    main()
