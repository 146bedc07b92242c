"""Hostile files of each format end in ValueError that names the file, execute nothing, and cost no memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import draw, zipped

MOST = 1 << 28  # bytes of memory that a small hostile file may cost


def refused(path: Path, data: bytes, match: str | None = None) -> None:
    path.write_bytes(data)
    with pytest.raises(ValueError, match=match) as error:
        qg.io.networks(path)
    assert str(error.value).startswith(str(path)), error.value


class Evil:
    """Its pickle runs a command when an ordinary unpickler reads it."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_executed(tmp_path, protocol):
    mark = tmp_path / "executed"
    for function, args in (
        (os.system, (f"touch {mark}",)),
        (eval, ("1",)),
        (os.mkdir, (str(mark),)),
        (getattr, (1, "a")),
    ):
        for value in (Evil(function, *args), {"a": [Evil(function, *args)]}, OrderedDict(b=Evil(function, *args))):
            data = pickle.dumps(value, protocol)
            refused(tmp_path / "f", data, rf"the pickle wants \w+\.{function.__name__}")
            assert qg.io.networks(tmp_path / "f", unknown="skip") == []
    assert not mark.exists()


def npy(shape: str, data: bytes = b"", dtype: str = "<f4") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.slow
def test_hostile_archives(tmp_path, memory):
    file = tmp_path / "f"
    bomb = bytes(1 << 27)
    refused(file, zipped({"a.npy": npy("(33554432,)") + bomb}, zipfile.ZIP_DEFLATED), "declares .* bytes of contents")
    refused(file, zipped({"x/data.pkl": bomb}, zipfile.ZIP_DEFLATED), "declares .* bytes of contents")
    refused(file, zipped({"a.npy": npy("(3,)") + bytes(12)}, zipfile.ZIP_BZIP2), "method")
    refused(file, zipped({"evil.py": b"import os"}), "none of PyTorch's, Keras's or NumPy's")
    refused(file, zipped({"model.weights.h5": b"x"}), "without config.json")
    sound = bytearray(zipped({"a.npy": npy("(3,)", bytes(12))}))
    flagged = bytearray(sound)
    flagged[6] |= 1
    flagged[flagged.index(b"PK\x01\x02") + 8] |= 1
    refused(file, bytes(flagged), "encrypted")
    twice = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(twice, "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("a.npy", npy("(3,)", bytes(12)))
    refused(file, twice.getvalue(), "twice")


@pytest.fixture
def memory():
    """The peak of Python's and NumPy's allocations stays small for any sizes that a file declares."""
    import tracemalloc

    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * MOST


def test_hostile_arrays_of_numpy(tmp_path, memory):
    file = tmp_path / "f"
    for shape in (
        "(1000000000000,)",
        "(4294967296, 4294967296)",
        "(-1,)",
        "(3, 'a')",
        "(" + "1, " * 40 + ")",
        "(2.5,)",
    ):
        refused(file, npy(shape, bytes(12)))
        refused(file, zipped({"a.npy": npy(shape, bytes(12))}))
    refused(file, npy("(4,)", bytes(12)), "array declares 4 numbers of float32, found 12 bytes")
    for dtype in ("|O", "V8"):
        refused(file, npy("(1,)", pickle.dumps([1]), dtype))
    refused(file, npy("__import__('os').system('true')"))


def array_pickle(shape: bytes, data: bytes, dtype: bytes = b"f4") -> bytes:
    """A pickle of an array with a state of one's own choice."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n"
        + shape
        + b"cnumpy\ndtype\n(S'"
        + dtype
        + b"'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'"
        + data
        + b"'\ntb."
    )


@pytest.mark.slow
def test_hostile_pickles(tmp_path, memory):
    file = tmp_path / "f"
    file.write_bytes(array_pickle(b"(I2\nt", b"abcdefgh"))
    assert qg.io.read(file)[""].shape == (2,)
    refused(file, array_pickle(b"(I1000000000000\nt", b"abcdefgh"), "found 8 bytes")
    refused(file, array_pickle(b"(I1\nt", b"abcdefgh"), "found 8 bytes")
    refused(file, array_pickle(b"(I-2\nI-1\nt", b"abcdefgh"))
    refused(file, array_pickle(b"(I2\nt", b"abcdefgh", b"f4,f4"))
    refused(file, array_pickle(b"I2\n", b"abcdefgh"))
    refused(file, b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"abc.")  # BINBYTES8 of 4 EiB
    refused(file, b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"abc.")  # LONG4 of 2 GiB
    refused(file, b"\x80\x02}r\xff\xff\xff\x7fj\xff\xff\xff\xff.", "memory")  # a memo of 2^31 entries costs one
    refused(file, b"\x80\x02c__builtin__\nbytearray\nK\x05\x85R.", "bytearray")
    refused(file, b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"}h\x07.", "memory")
    for data in (
        b"\x80\x02.",
        b"\x80\x02(.",
        b"\x80\x02}",
        b"\x80\x02]a.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02K\x01b.",
        b"\x80\x02R.",
    ):
        refused(file, data)
    refused(file, b"\x80\x02X\x03\x00\x00\x00abcQ.", "persistent")
    refused(file, b"\x80\x02\x82\x01.", "EXT1")
    doubled: Any = []
    for _ in range(60):
        doubled = [doubled, doubled]
    refused(file, pickle.dumps(doubled), "nested without end")
    circle: list[Any] = []
    circle.append(circle)
    refused(file, pickle.dumps({"a": circle}), "nested without end")
    deep = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    refused(file, deep, "nested without end")
    key = b"\x80\x02}K\x01K\x01\x86" + b"q\x00h\x00\x86" * 60 + b"K\x01s."  # a key whose hash takes 2^60 steps
    file.write_bytes(key)
    assert qg.io.networks(file) == []


def torch_zip(pickled: bytes, storages: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    return zipped({"m/data.pkl": pickled, **{f"m/data/{name}": data for name, data in storages.items()}}, method)


def tensor_pickle(
    numel: int, offset: int, size: tuple[int, ...], stride: tuple[int, ...], kind: str = "FloatStorage"
) -> bytes:
    """A state dict of one tensor, as PyTorch pickles it."""

    def number(n: int) -> bytes:
        return b"I%d\n" % n

    def numbers(ns: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, ns)) + b"t"

    return (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n"
        + kind.encode()
        + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + number(numel)
        + b"tQ"
        + number(offset)
        + numbers(size)
        + numbers(stride)
        + b"I00\nccollections\nOrderedDict\n)RtRs."
    )


@pytest.mark.parametrize(
    ("numel", "offset", "size", "stride"),
    [
        (5, 0, (4,), (1,)),  # the storage declares more than its bytes
        (1 << 60, 0, (4,), (1,)),
        (4, 1, (4,), (1,)),
        (4, 0, (5,), (1,)),
        (4, 0, (2, 2), (4, 1)),
        (4, -1, (2,), (1,)),
        (4, 0, (-2,), (1,)),
        (4, 3, (2,), (-1,)),
        (4, 0, (1000000, 1000000), (0, 0)),  # no step: a terabyte of the same number
        (4, 0, (1 << 62, 4), (1 << 62, 1)),
        (4, 0, (2, 2), (2,)),
        (4, 1 << 70, (1,), (1,)),
        (-4, 0, (4,), (1,)),
    ],
)
def test_hostile_tensors(tmp_path, memory, numel, offset, size, stride):
    refused(tmp_path / "f", torch_zip(tensor_pickle(numel, offset, size, stride), {"0": bytes(16)}))


def test_hostile_files_of_torch(tmp_path):
    file = tmp_path / "f"
    sound = tensor_pickle(4, 0, (4,), (1,))
    file.write_bytes(torch_zip(sound, {"0": np.arange(4, dtype="<f4").tobytes()}))
    assert qg.io.read(file)["w"].tolist() == [0, 1, 2, 3]
    refused(file, torch_zip(sound, {"0": bytes(16)}, zipfile.ZIP_DEFLATED), "compressed; it must be stored")
    refused(file, torch_zip(sound, {}), "missing from the archive")
    refused(file, torch_zip(tensor_pickle(4, 0, (4,), (1,), "QInt8Storage"), {"0": bytes(16)}), "QInt8Storage")
    refused(file, zipped({"a/data.pkl": sound, "b/data.pkl": sound}), "data.pkl")
    refused(file, zipped({"m/data.pkl": sound, "m/data/0": bytes(16), "m/byteorder": b"middle"}), "byte order")
    escape = sound.replace(b"X\x01\x00\x00\x000", b"X\x09\x00\x00\x00../../etc")
    refused(file, torch_zip(escape, {"0": bytes(16)}), "missing from the archive")


def test_hostile_safetensors(tmp_path, memory):
    file = tmp_path / "f"

    def written(header: Any, data: bytes = bytes(16), size: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return (len(text) if size is None else size).to_bytes(8, "little") + text + data

    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    file.write_bytes(written({"a": entry}))
    assert qg.io.read(file)["a"].shape == (4,)
    for change in (
        {"shape": [5]},
        {"shape": [1 << 40, 1 << 40]},
        {"data_offsets": [0, 20]},
        {"data_offsets": [4, 20]},
        {"data_offsets": [16, 0]},
        {"shape": [-4]},
        {"dtype": "F99"},
    ):
        refused(file, written({"a": entry | change}))
    refused(file, written({"a": entry | {"dtype": "F8_E4M3", "shape": [16]}}), "F8_E4M3")
    refused(file, written({"a": entry, "b": entry}))
    refused(file, written(b"{" * 50))
    refused(file, written({"a": entry}, size=1 << 62))
    refused(file, written(b'{"a":' + b"[" * 100_000))


def test_sizes_that_names_and_options_declare(tmp_path, memory):
    """No network is made of them before its shapes are compared with those of the arrays."""
    file = tmp_path / "f"
    arrays = qg.LSTM(128, 128, rng=0).state_dict()
    wide = {"weight_ih_l0": np.zeros((24000, 1), np.float32), "weight_hh_l0": np.zeros((1, 6000), np.float32)}
    cases: dict[str, dict[str, Any]] = {
        "it has 5001 layers and 5 arrays": arrays | {"weight_ih_l5000": draw(1, 1)},
        r"weight_hh_l0 must have shape \(24000, 6000\)": wide,
        r"must be matrices, found \(16, 3\), \(16, 4\), \(\)": {
            "weight_ih_l0": draw(16, 3),
            "weight_hh_l0": draw(16, 4),
            "weight_hr_l0": draw(),
        },
        r"must be matrices, found .*, \(100, 0\)": {
            "weight_ih_l0": draw(16, 3),
            "weight_hh_l0": draw(16, 4),
            "weight_hr_l0": draw(100, 0),
        },
    }
    for why, values in cases.items():
        np.savez(file.with_suffix(".npz"), **values)
        with pytest.raises(ValueError, match=rf"f\.npz: .*{why}"):
            qg.load(file.with_suffix(".npz"))
    qg.save(qg.LSTM(4, 8, proj_size=3, rng=0), file)
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    for proj_size in (5_000_000, 1 << 70):
        text = data[8 : 8 + size].replace(b'proj_size\\": 3', b'proj_size\\": %d' % proj_size)
        assert len(text) > size
        refused(file, len(text).to_bytes(8, "little") + text + data[8 + size :], "more than its arrays hold")


def test_hostile_hdf5(tmp_path):
    """References to data outside the file, unknown filters, cycles, and sizes without bytes."""
    h5py: Any = pytest.importorskip("h5py", reason="h5py is not installed: install h5py")
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["secret"] = draw(4)
    (tmp_path / "raw").write_bytes(bytes(64))
    path = tmp_path / "f.h5"

    def external(file: Any) -> None:
        file["a"] = h5py.ExternalLink(str(other), "secret")

    def soft(file: Any) -> None:
        file["a"] = h5py.SoftLink("/a")

    def circle(file: Any) -> None:
        file.create_group("a")["b"] = file["/"]

    def storage(file: Any) -> None:
        file.create_dataset("a", (16,), "f4", external=[(str(tmp_path / "raw"), 0, 64)])

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource(str(other), "secret", (4,))
        file.create_virtual_dataset("a", layout)

    def filtered(file: Any) -> None:
        file.create_dataset("a", data=draw(400), compression="lzf")

    def huge(file: Any) -> None:
        file.create_dataset("a", (1 << 40,), "f4", chunks=(1 << 10,), compression="gzip")

    def unwritten(file: Any) -> None:
        file.create_dataset("a", (1 << 30,), "f4")

    def bomb(file: Any) -> None:
        file.create_dataset(
            "a", data=np.zeros(1 << 25, "f4"), compression="gzip", compression_opts=9, chunks=(1 << 20,)
        )

    cases = {external: "link into another file", soft: "symbolic link", circle: "two names", storage: "another file"}
    cases |= {
        virtual: "virtual",
        filtered: "filter 32000",
        huge: "declares",
        unwritten: "declares",
        bomb: "grow|declares",
    }
    for make, why in cases.items():
        with h5py.File(path, "w") as file:
            make(file)
        refused(path, path.read_bytes(), why)
