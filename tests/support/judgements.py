"""Answers of the judges that runs of the tests share: they do not depend on the instruction set that is judged.

With QUADGATE_TEST_JUDGEMENTS=FOLDER an answer is written to that folder, and the next run, on another instruction set,
reads it there. Its name is a hash of the question, to the last bit, and of the judges' sources: another question has
another name, and is answered anew.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import TypeVar

import mpmath
import numpy as np
from quadgate import reference

Answer = TypeVar("Answer")

FOLDER = os.environ.get("QUADGATE_TEST_JUDGEMENTS", "")


@cache
def judges() -> bytes:
    """Return a hash of all that an answer follows from but the question."""
    tests = Path(__file__).parents[1]
    found = [*Path(reference.__file__).parent.glob("*.py"), *tests.glob("support/*.py"), *tests.glob("numerics/*.py")]
    versions = f"{np.__version__} {mpmath.__version__}".encode()
    return hashlib.sha256(versions + b"".join(path.read_bytes() for path in sorted(found))).digest()


def shared(judge: Callable[..., Answer]) -> Callable[..., Answer]:
    """Make a judge that answers a question once for all runs; arguments and answer are plain values and arrays."""
    if not FOLDER:
        return judge

    @wraps(judge)
    def answer(*question: object) -> Answer:
        asked = pickle.dumps((judge.__module__, judge.__qualname__, question), protocol=5)
        path = Path(FOLDER, hashlib.sha256(judges() + asked).hexdigest())
        try:
            known: Answer = pickle.loads(path.read_bytes())
        except FileNotFoundError:
            known = judge(*question)
            new = path.with_suffix(f".{os.getpid()}")  # several workers may write the same answer
            new.write_bytes(pickle.dumps(known, protocol=5))
            new.replace(path)
        return known

    return answer
