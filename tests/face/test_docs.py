"""The examples of the docstrings, the README and the pages of docs run as they stand, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import quadgate as qg

ROOT = Path(__file__).parents[2]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


PAGES = [page for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))) if blocks(page)]


def modules():
    """All of the package but what runs as a program."""
    found = [qg.__name__, *(m.name for m in pkgutil.walk_packages(qg.__path__, f"{qg.__name__}."))]
    return [name for name in found if not name.endswith("__main__")]


def examples(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:  # an optional package
        pytest.skip(f"{name} cannot be imported: {error}")
    tests = doctest.DocTestFinder(exclude_empty=True).find(module, name)
    return [test for test in tests if test.examples]


def namespace():
    """Names that examples use without defining them: the modules, a network, its gradients, and data that fit it."""
    rng = np.random.default_rng(0)
    lstm, x = qg.LSTM(64, 128, rng=0), rng.standard_normal((10, 1, 64)).astype(np.float32)
    y, _, tape = lstm.forward(x)
    names = {"np": np, "qg": qg, "quadgate": qg, "lstm": lstm, "x": x, "grads": lstm.backward(tape, y)}
    # ONNX: two directions, 5 units.
    names |= {"X": x, "B": np.zeros((2, 40), np.float32)}
    return names | {"W": np.ones((2, 20, 64), np.float32), "R": np.ones((2, 20, 5), np.float32)}


def write_model(path):
    """A model of one LSTM node whose input is called x."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed, its examples are not run: install onnx")
    weights = [onnx.numpy_helper.from_array(np.ones((1, 20, n), np.float32), name) for n, name in ((64, "W"), (5, "R"))]
    value = onnx.helper.make_tensor_value_info
    x = value("x", onnx.TensorProto.FLOAT, ("T", "B", 64))
    y = value("y", onnx.TensorProto.FLOAT, ("T", 1, "B", 5))
    node = onnx.helper.make_node("LSTM", ["x", "W", "R"], ["y"], hidden_size=5)
    graph = onnx.helper.make_graph([node], "graph", [x], [y], weights)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 22)]), path)


@pytest.mark.parametrize("name", modules())
def test_docstrings(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for test in examples(name):
        if "model.onnx" in test.docstring:
            write_model("model.onnx")
        said: list[str] = []
        test.globs = namespace()
        failed, attempted = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
        assert attempted == len(test.examples)
        assert not failed, "".join(said)


def test_there_are_examples():
    """The search finds those of the classes, not only those of modules."""
    found = [test.name for name in ("quadgate", "quadgate.lstm", "quadgate.rnn") for test in examples(name)]
    assert {"quadgate", "quadgate.LSTM", "quadgate.RNN"} <= set(found)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_pages(page, tmp_path, monkeypatch):
    """Each block continues the one before it. Blocks marked "prepared" are run by tests/io/test_coming_from.py."""
    monkeypatch.chdir(tmp_path)
    if page.name == "torch.md":
        pytest.importorskip("torch", reason="PyTorch is not installed, torch.md is not run: install torch")
    names: dict[str, object] = {}
    for number, block in enumerate(blocks(page), 1):
        exec(compile(block, f"{page}, block {number}", "exec"), names)


# Files that a page tells the reader to write, and places of other programs.
NOT_OURS = re.compile(r"NAME|\*|\$|basic_lstm_cell")
FOLDERS = "|".join(re.escape(f.name) for f in ROOT.iterdir() if f.is_dir() and f.name not in ("build", "dist"))
TEXTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(ROOT.glob("docs/**/*.md")))


@pytest.mark.parametrize("page", TEXTS, ids=[str(page.relative_to(ROOT)) for page in TEXTS])
def test_files_that_a_page_names_exist(page):
    """Links to files, links to headings of files, and paths in text: those from the root, or from csrc."""
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, heading = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", there.read_text(), re.M)
            assert heading in {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}, target
    rooms = "|".join(sorted(folder.name for folder in (ROOT / "csrc").iterdir() if folder.is_dir()))
    for path in re.findall(rf"(?<![\w/.])(?:(?:{FOLDERS}|{rooms})/[\w./*$-]+)", text):
        if not NOT_OURS.search(path):
            places = [ROOT / path, ROOT / "csrc" / path, ROOT / "python" / "quadgate" / path]
            assert any(p.exists() or list(p.parent.glob(f"{p.name}.*")) for p in map(with_no_dot, places)), path


def with_no_dot(path):
    """Take the full stop of a sentence off a path."""
    return path.with_name(path.name.rstrip("."))


def test_the_reference_has_every_public_name():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    named = set(re.findall(r"^\.\. auto\w+:: quadgate\.(\w+)", pages, re.M))
    assert set(qg.__all__) - {"__version__", "load", "save"} <= named  # load and save stand under io


def test_pictures_are_those_that_the_program_draws():
    drawings = runpy.run_path(str(ROOT / "docs" / "drawings.py"))
    drawn = {f"{name}.svg": str(drawing) for name, drawing in drawings["drawings"]().items()}
    assert drawn == {path.name: path.read_text() for path in drawings["FOLDER"].glob("*.svg")}
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert set(drawn) == set(re.findall(r"\(_static/drawings/([\w.]+)\)", pages))


def test_comments_begin_with_a_verb_or_a_noun():
    """No comment, docstring or description of a parameter begins with a question's word."""
    words = "(?:What|Where|How|Whether)\\b"
    start = re.compile(rf"""^\s*(?:#|//) {words}|^\s*r?\"\"\"{words}|^ {{4,}}{words}""", re.M)
    sources = [p for folder in ("python", "csrc", "tests", "bench", "examples") for p in (ROOT / folder).rglob("*")]
    texts = {p: p.read_text() for p in sources if p.suffix in (".py", ".pyi", ".h", ".cpp", ".sh")}
    assert len(texts) > 100
    assert not {str(p): found.group().strip() for p, text in texts.items() if (found := start.search(text))}


def test_there_are_blocks():
    assert "README.md" in [page.name for page in PAGES]


def public():
    """(name, object whose docstring counts, object whose body counts) for what users call."""
    for name in ("quadgate", "quadgate.io", "quadgate.reference", "quadgate.train"):
        module = importlib.import_module(name)
        for key in module.__all__:
            held = getattr(module, key)
            if not inspect.isclass(held):
                yield f"{name}.{key}", held, held
                continue
            yield f"{name}.{key}", held, held.__init__
            for method, function in vars(held).items():
                inherited = any(method in vars(base) for base in held.__mro__[1:])  # described there
                if inspect.isfunction(function) and not method.startswith("_") and not inherited:
                    yield f"{name}.{key}.{method}", function, function


def test_docstrings_name_the_errors_that_are_raised():
    looked, missing = 0, []
    for name, described, function in public():
        if not inspect.isfunction(function) or function.__code__.co_filename.startswith("<"):  # made by dataclass
            continue
        body = inspect.getsource(function).replace("raise NotImplementedError", "")
        if "raise " in body or "_check." in body:
            looked += 1
            if "Raises\n------" not in (inspect.getdoc(described) or ""):
                missing.append(name)
    assert missing == []
    assert looked > 40
