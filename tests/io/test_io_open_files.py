"""Files that are open, or in memory, in the place of paths."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import draw, lstm, same_bits
from quadgate import train

NET = lstm(5, 7, 2, batch_first=True)


def in_memory(net: Any = NET) -> io.BytesIO:
    file = io.BytesIO()
    qg.save(net, file)
    file.seek(0)
    return file


def model() -> train.Sequential:
    return train.Sequential([qg.LSTM(3, 8, rng=0), train.FinalState(), train.Dense(8, 2)], rng=0)


def test_saved_in_memory_and_loaded():
    same_bits(NET, qg.load(in_memory()))
    assert set(qg.io.read(in_memory())) == set(NET.params)
    (found,) = qg.io.networks(in_memory())
    same_bits(NET, found.build())


def test_an_open_file(tmp_path):
    path = tmp_path / "net.safetensors"
    with path.open("wb") as file:
        qg.save(NET, file)
        assert not file.closed
    with path.open("rb") as file:
        same_bits(NET, qg.load(file))


def test_a_file_is_read_and_written_from_where_it_is():
    file = io.BytesIO(b"before")
    file.seek(6)
    qg.save(NET, file)
    assert file.getvalue().startswith(b"before")
    file.seek(6)
    same_bits(NET, qg.load(file))
    assert file.read() == b""


def test_a_member_of_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive, archive.open("net", "w") as member:
        qg.save(NET, member)
    with zipfile.ZipFile(tmp_path / "all.zip") as archive, archive.open("net") as member:
        same_bits(NET, qg.load(member))


def test_other_formats():
    arrays = NET.state_dict(prefix="encoder.")
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    same_bits(NET, qg.load(file, batch_first=True))
    path = Path(__file__).parent / "data" / "keras2.h5"
    with path.open("rb") as file_of_keras:
        names = list(map(str, qg.io.networks(file_of_keras)))
    assert names == list(map(str, qg.io.networks(path)))


def test_models():
    file = io.BytesIO()
    first = model()
    first.save(file)
    file.seek(0)
    x = draw(4, 2, 3)
    assert np.array_equal(train.load(file).predict(x), first.predict(x))


def test_onnx():
    onnx_models = pytest.importorskip("onnx_models")
    proto = onnx_models.simple()
    for call in (qg.onnx.load, qg.io.load):
        same_bits(call(io.BytesIO(proto.SerializeToString())), qg.onnx.load(proto))


def test_external_data_lies_beside_no_open_file(tmp_path, monkeypatch):
    """A name, which may be that of anything, is no folder to look into."""
    onnx_models = pytest.importorskip("onnx_models")
    path = tmp_path / "m.onnx"
    onnx_models.onnx.save(
        onnx_models.simple(), path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    monkeypatch.chdir(tmp_path)
    for call in (qg.onnx.load, qg.io.load):
        call(path)
        with path.open("rb") as file, pytest.raises(ValueError, match=r"m\.onnx: .* which is no file in the model's"):
            call(file)


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "none.pt"
    path.write_bytes(b"no network")
    for call in (qg.load, qg.io.read, qg.io.networks, train.load, train.load_keras):
        with path.open("rb") as file, pytest.raises(ValueError, match=r"none\.pt: "):
            call(file)
        with pytest.raises(ValueError, match=r"^the file: "):
            call(io.BytesIO(b"no network"))


def test_files_of_text_are_refused(tmp_path):
    path = tmp_path / "text"
    with path.open("w") as file:
        for call in (qg.save, lambda net, to: model().save(to)):
            with pytest.raises(TypeError, match=r"^path must be open for writing in binary mode: "):
                call(NET, file)
    binary = tmp_path / "net.safetensors"
    qg.save(NET, binary)
    for each in (path, binary):  # text, and what is none
        for name, call in (("path", qg.load), ("path_or_arrays", qg.io.networks), ("model", qg.onnx.load)):
            with (
                each.open() as file,
                pytest.raises(TypeError, match=rf"^{name} must be open in binary mode, got .* str"),
            ):
                call(file)


def test_files_that_are_open_for_the_other_thing_are_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    qg.save(NET, path)
    with path.open("rb") as file:
        for call in (qg.save, lambda net, to: model().save(to)):
            with pytest.raises(TypeError, match=r"^path must be open for writing in binary mode: "):
                call(NET, file)
    same_bits(NET, qg.load(path))
    with path.open("ab") as file:
        for call in (qg.load, qg.io.read, train.load):
            with pytest.raises(TypeError, match=r"^path must be open for reading$"):
                call(file)


def test_a_path_that_can_read_and_write_is_a_path(tmp_path):
    """Those of the package py, as old tests have them, read and write text."""

    class Both(type(tmp_path)):
        def read(self) -> str:
            return "text"

        def write(self, data: str) -> None:
            raise AssertionError

    path = Both(tmp_path / "net.safetensors")
    qg.save(NET, path)
    same_bits(NET, qg.load(path))
    (found,) = qg.io.networks(path)
    same_bits(NET, found.build())


def test_damaged_files_of_other_libraries_are_named(tmp_path):
    path = tmp_path / "net.gz"
    path.write_bytes(gzip.compress(in_memory().getvalue())[:-20])
    with gzip.open(path) as file, pytest.raises(ValueError, match=r"net\.gz: it cannot be read \(EOFError\): "):
        qg.load(file)
    closed = in_memory()
    closed.close()
    with pytest.raises(ValueError, match=r"^the file: .* closed file"):
        qg.load(closed)


def test_what_is_no_file_is_refused(tmp_path):
    for call in (qg.load, qg.io.networks, qg.onnx.load, train.load):
        with pytest.raises(TypeError, match=r"^(path|path_or_arrays|model) must be a "):
            call(io.BytesIO)
    with (
        zipfile.ZipFile(tmp_path / "all.zip", "w") as archive,
        pytest.raises(ValueError, match=r"^the file: .* 'name'"),
    ):
        qg.load(archive)


def test_files_without_a_buffer(tmp_path):
    """They may write a part at a time, or nothing and say None."""

    class Part(io.RawIOBase):
        def __init__(self) -> None:
            self.parts: list[bytes] = []

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.parts.append(bytes(data[:1000]))
            return len(self.parts[-1])

    part = Part()
    qg.save(NET, part)
    assert len(part.parts) > 2
    same_bits(NET, qg.load(io.BytesIO(b"".join(part.parts))))
    read, write = os.pipe()
    os.set_blocking(write, False)
    large = qg.LSTM(200, 200, rng=0)
    with (
        os.fdopen(read, "rb", buffering=0),
        os.fdopen(write, "wb", buffering=0) as file,
        pytest.raises(OSError, match=r"^the file: only \d+ of \d+ bytes were written"),
    ):
        qg.save(large, file)


def test_a_short_write_is_an_error():
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            return len(data) - 1

    with pytest.raises(OSError, match=r"^the file: only \d+ of \d+ bytes were written"):
        qg.save(NET, Full())
