"""Builds of the native programs of the benchmarks, cached by source and flags."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder of the build results: QUADGATE_BENCH_CACHE, or a folder in the user's cache."""
    given = os.environ.get("QUADGATE_BENCH_CACHE")
    cache = os.environ.get("XDG_CACHE_HOME")  # a user without a home folder can give either
    folder = Path(given) if given else (Path(cache) if cache else Path.home() / ".cache") / "quadgate-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def build(source: Path, suffix: str, flags: list[str]) -> Path:
    """Compile `source` with `flags` unless the cache has the result, and return its path.

    Parameters
    ----------
    source : Path
        One C++ file.
    suffix : str
        Suffix of the result's name ("" for a program).
    flags : list of str
        Further arguments of the compiler, libraries included.

    Raises
    ------
    subprocess.CalledProcessError
        If the compiler fails.
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
    """Return the suffix of extension modules of this Python."""
    return str(sysconfig.get_config_var("EXT_SUFFIX"))
