"""oneDNN's LSTM primitives, through a small extension module (onednn_module.cpp)."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import numpy as np
import pybind11
from native import build, extension_suffix
from shapes import Shape

from .base import STREAM_STEPS, Array, Arrays, parameter_names


def _installed(package: str, ending: str) -> Path:
    """Return the folder of the first file of an installed package whose path ends with `ending`."""
    for file in importlib.metadata.files(package) or []:
        if str(file).endswith(ending):
            return Path(str(file.locate())).resolve().parent
    raise RuntimeError(f"{package} has no {ending}")


def load(name: str = "_onednn") -> ModuleType:
    """Build a module of this folder if necessary, and import it."""
    libraries = _installed("onednn-cpu-gomp", "libdnnl.so")
    headers = _installed("onednn-devel-cpu-gomp", "oneapi/dnnl/dnnl.hpp").parents[1]
    includes = [f"-I{headers}", f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
    flags = [*includes, "-fPIC", "-shared", "-fvisibility=hidden", "-fopenmp"]
    flags += [f"-L{libraries}", "-ldnnl", f"-Wl,-rpath,{libraries}"]
    path = build(Path(__file__).with_name(f"{name[1:]}_module.cpp"), name + extension_suffix(), flags)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


class OneDnnPeer:
    """LSTM primitives and memory prepared before timing; the timed loop is C++, without Python's overhead."""

    def __init__(self) -> None:
        self.module = load()
        self.version = str(self.module.version())

    def setup(self, shape: Shape, threads: int, arrays: Arrays) -> dict[str, Array]:
        self.module.set_num_threads(threads)
        names = parameter_names(shape)
        sizes = (shape.T, shape.B, shape.I, shape.H, shape.layers, shape.directions)
        dy = arrays.get("dy", np.zeros(0, np.float32))
        self.net = self.module.Lstm(*sizes, shape.mode, [arrays[name] for name in names], arrays["x"], dy)
        self.net.time(STREAM_STEPS if shape.mode == "stream" else 1)
        result: dict[str, Array] = {"y": self.net.y()}
        if shape.mode == "training":
            self.net.time(1)  # shows that gradients overwrite and do not accumulate
            result["dx"] = self.net.dx()
            result.update({"d" + n: g for n, g in zip(names, self.net.gradients(), strict=True)})
            return result
        states = self.net.state()
        for k, key in enumerate("hc"):
            result[key] = np.concatenate([s[k].reshape(-1, shape.B, shape.H) for s in states])
        return result

    def time(self, calls: int) -> float:
        return float(self.net.time(calls))


Peer = OneDnnPeer
