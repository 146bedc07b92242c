"""Layers of the Python package: what is built on the face imports it, never the reverse; and an import stays small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import quadgate

ROOT = Path(quadgate.__file__).parent
UPPER = (
    "io",
    "onnx",
    "torch",
    "train",
    "_explore",
    "plot",
)  # reference is separate: none of these imports it either
PROGRAM = ("__main__", "_bench")  # python -m quadgate: may import all
FACE = [path for path in sorted(ROOT.glob("*.py")) if path.stem not in (*PROGRAM, *UPPER)]


def imported(path: Path) -> set[str]:
    """Return the modules of the package that a file imports when it is itself imported."""
    tree = ast.parse(path.read_text())
    checked = {id(n) for node in ast.walk(tree) if isinstance(node, ast.If) for n in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in checked:  # under TYPE_CHECKING
            continue
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("quadgate")):
            module = (node.module or "").removeprefix("quadgate").strip(".")
            found |= {module.split(".")[0]} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("quadgate.")}
    return found


@pytest.mark.parametrize("path", FACE, ids=[path.stem for path in FACE])
def test_the_face_imports_nothing_that_is_built_on_it(path):
    found = imported(path)
    assert not found & set(UPPER)
    assert not found & {"reference", *PROGRAM}


def test_at_most_six_floors():
    """Each module of the face imports lower ones only, without a cycle."""
    names = {path.stem: imported(path) for path in FACE}
    floors: dict[str, int] = {}

    def floor(name: str, above: tuple[str, ...] = ()) -> int:
        assert name not in above, f"a circle: {(*above, name)}"
        if name not in floors:
            floors[name] = 1 + max((floor(n, (*above, name)) for n in names[name] if n in names), default=0)
        return floors[name]

    assert names["__init__"] >= {"lstm", "rnn", "stream"}
    assert max(map(floor, names["__init__"] & names.keys())) <= 6, floors


def test_modules_that_an_import_loads(run_script):
    """NumPy, what NumPy loads, and a few of the standard library; none of what is built on the face."""
    source = """
        import sys, numpy
        before = set(sys.modules)
        import quadgate
        print(*sorted(set(sys.modules) - before))
    """
    loaded = set(run_script(source).stdout.split())
    own = {name for name in loaded if name.partition(".")[0] == "quadgate"}
    # For calls with a mask, for networks of fewer bytes, and for weights in parts.
    late = {"__init__", "_masking", "_quantize", "_reparametrized"}
    assert own == {"quadgate", "quadgate._core", *(f"quadgate.{path.stem}" for path in FACE if path.stem not in late)}
    editable = {"importlib._abc", "importlib.util"}  # of an editable installation
    assert loaded - own - editable <= {"__future__", "copy", "threading"}


def test_public_names_of_the_package():
    assert dir(quadgate) == sorted(quadgate.__all__)
    assert not [name for name in dir(quadgate) if name.startswith("_") and name != "__version__"]
    for kind in (quadgate.LSTM, quadgate.RNN, quadgate.Stream, quadgate.RNNStream, quadgate.Tape, quadgate.Trace):
        assert kind.__module__ == "quadgate"
    for kind in (quadgate.LSTMGrads, quadgate.RNNGrads):
        assert kind.__module__ == "quadgate"
    with pytest.raises(AttributeError, match="LSTMs"):
        _ = quadgate.LSTMs
