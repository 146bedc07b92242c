"""Builds the small native programs of the benchmarks, once for each version of their source."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder that keeps what was built: QUADGATE_BENCH_CACHE, or one in the user's cache."""
    given = os.environ.get("QUADGATE_BENCH_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = Path(given) if given else base / "quadgate-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def build(source: Path, suffix: str, flags: list[str]) -> Path:
    """Compile `source` with `flags` and return the path of the result, from the cache when nothing changed.

    Parameters
    ----------
    source
        One C++ file.
    suffix
        How the name of the result ends ("" for a program).
    flags
        Further arguments of the compiler; libraries belong here too.
    """
    compiler = os.environ.get("CXX", "c++")
    command = [compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", str(source), *flags]
    machine = f"{sys.version_info} {os.uname().machine}"
    digest = hashlib.sha256(source.read_bytes() + "\0".join([*command, machine]).encode()).hexdigest()[:16]
    result = cache_folder() / digest / (source.stem.removesuffix("_module") + suffix)
    if not result.exists():
        result.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=result.parent) as scratch:
            made = Path(scratch) / result.name
            subprocess.run([*command, "-o", str(made)], check=True)
            made.replace(result)
    return result


def extension_suffix() -> str:
    """Return how the name of an extension module ends on this Python."""
    return str(sysconfig.get_config_var("EXT_SUFFIX"))
