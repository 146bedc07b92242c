"""Shared by the tests of files: random networks with every option, and one comparison."""

from __future__ import annotations

import io
import warnings
import zipfile
from typing import Any

import numpy as np
import quadgate as qg
from support import bounds

RNG = np.random.default_rng


def randomised(net: Any, seed: int = 0) -> Any:
    """The network with all its parameters drawn, the biases too."""
    rng = RNG(seed)
    with net.writable() as params:
        for value in params.values():
            value[...] = rng.uniform(-0.7, 0.7, value.shape)
    return net


def draw(*shape: int, seed: int = 1, dtype: Any = np.float32) -> Any:
    return RNG(seed).normal(size=shape).astype(dtype)


def agree(got: Any, want: Any, terms: int, steps: int, what: str) -> None:
    """Equal within rounding: sums of `terms` products, carried over `steps`."""
    got, want = np.asarray(got), np.asarray(want, np.float64)
    bounds.assert_norm(got, want, 2 * bounds.norm_bound(got.dtype, terms, steps), what, least=8)


def same_bits(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    assert repr(a) == repr(b)
    assert list(a.params) == list(b.params)
    for name, value in a.params.items():
        assert value.tobytes() == b.params[name].tobytes(), name


def lstm(*args: Any, **options: Any) -> Any:
    return randomised(qg.LSTM(*args, rng=0, **options))


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
    return buffer.getvalue()
