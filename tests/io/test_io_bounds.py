"""Small files that are made to take hours or all the memory end in ValueError that names the file.

Without the bounds, each of them would.
"""

from __future__ import annotations

import pickle
from collections import Counter, OrderedDict

import numpy as np
import pytest
import quadgate as qg
from test_io_hostile import refused, torch_zip

DOUBLED = b")" + b"2\x86" * 60  # a tuple of the last one twice, 60 times: a text of 2^60 characters

BUFFER = b"cnumpy.core.numeric\n_frombuffer\n(C\x01acnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R"


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (DOUBLED + b")R", "calls tuple, which is no function"),
        (b"]" + DOUBLED + b"a)R", "calls list, which is no function"),
        (b"}K\x01" + DOUBLED + b"s)R", "calls dict, which is no function"),
        (b"cnumpy\ndtype\n" + DOUBLED + b"R", r"calls numpy\.dtype with arguments|has the dtype tuple"),
        (b"cnumpy\ndtype\n" + DOUBLED + b"\x85R", "has the dtype tuple"),
        (b"cnumpy\ndtype\n]" + DOUBLED + b"aR", r"calls numpy\.dtype with list, which is no tuple"),
        (BUFFER + DOUBLED + b"tR", "a shape that is no whole numbers"),
        (BUFFER + DOUBLED + b"\x85tR", "a shape that is no whole numbers"),
        (b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R" + DOUBLED + b"b.", None),
    ],
)
def test_values_without_end_in_messages(tmp_path, data, match):
    if match is None:  # of a state that is ignored nothing is printed
        (tmp_path / "f").write_bytes(b"\x80\x02" + data)
        assert qg.io.networks(tmp_path / "f") == []
    else:
        refused(tmp_path / "f", b"\x80\x02" + data + b".", match)


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def test_keys_without_end_in_files_of_torch(tmp_path):
    """A storage's id: all of it, and each of its parts."""
    float32 = b"ctorch\nFloatStorage\n"
    sound = [text("storage"), float32, text("0"), text("cpu"), b"K\x04"]
    refused(tmp_path / "f", torch_zip(b"\x80\x02" + DOUBLED + b"Q.", {}), "not of a known type: tuple")
    for place, why in (
        (0, "known type: tuple"),
        (1, "known type: tuple"),
        (2, "'m/data/tuple'"),
        (4, "of tuple numbers"),
    ):
        parts = [*sound[:place], DOUBLED, *sound[place + 1 :]]
        refused(tmp_path / "f", torch_zip(b"\x80\x02(" + b"".join(parts) + b"tQ.", {}), why)
    magic = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little") + b"."
    refused(tmp_path / "f", magic + b"\x80\x02" + DOUBLED + b".\x80\x02}.", "has version tuple of the legacy format")
    keys = b"\x80\x02]" + DOUBLED + b"a."
    legacy = magic + b"\x80\x02M\xe9\x03.\x80\x02}.\x80\x02}." + keys
    refused(tmp_path / "f", legacy, "a storage 'tuple' that nothing refers to")


@pytest.mark.parametrize("name", ["lstm" * 100_000, "a" * 1_000_000, "a/fw/" * 200_000, "/kernel" * 100_000])
def test_names_that_a_pattern_would_try_at_every_place(name):
    assert qg.io.networks({name: np.zeros((5, 16), np.float32), f"{name}/kernel": np.zeros(3)})[1:] == []


def test_directions_of_tensorflow1_by_their_scopes():
    """ "fw/" and "bw/" in front of a cell are directions where both are there, and parts of its name where not."""
    kernel = np.zeros((9, 16), np.float32)
    names = [f"rnn/{way}/lstm_cell/kernel:0" for way in ("fw", "bw")] + ["fw/basic_lstm_cell/kernel", "x/lstm/kern"]
    found = qg.io.networks(dict.fromkeys([*names, "a/kernel", "lstm_cell/kernel"], kernel))
    assert [(f.name, f.directions) for f in found] == [("rnn", 2), ("fw/basic_lstm_cell", 1), ("lstm_cell", 1)]


MANY = 100_000
NUMBERS, LETTERS, ZEROS = (
    b"(" + b"N" * MANY + b"l",
    text("a" * MANY),
    b"\x96" + MANY.to_bytes(8, "little") + bytes(MANY),
)
BYTES = b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R"  # the dtype
SHAPE = b"J" + MANY.to_bytes(4, "little") + b"\x85"


def repeated(function: bytes, arguments: bytes, after: bytes = b"") -> bytes:
    """A pickle that calls a function 1000 times with the same arguments, which it has once."""
    kept = arguments + b"q\x000" + function + b"q\x010"
    return b"\x80\x02" + kept + b"(" + (b"h\x01h\x00R" + after) * 1000 + b"l."


@pytest.mark.parametrize(
    "data",
    [
        repeated(b"cbuiltins\nlist\n", NUMBERS + b"\x85"),
        repeated(b"c__builtin__\nset\n", NUMBERS + b"\x85"),
        repeated(b"ccollections\nOrderedDict\n", NUMBERS + b"\x85"),
        repeated(b"ccollections\nCounter\n", b"}(" + b"".join(b"J%cabcN" % k for k in range(256)) * 8 + b"u\x85"),
        repeated(b"ccollections\ndefaultdict\n", b"(" + b"N" * MANY + b"t"),
        repeated(b"c_codecs\nencode\n", LETTERS + b"\x85"),
        repeated(b"cbuiltins\nbytes\n", ZEROS + b"\x85"),
        repeated(b"cbuiltins\nbytearray\n", LETTERS + text("latin1") + b"\x86"),
        repeated(b"cnumpy.core.numeric\n_frombuffer\n", ZEROS + BYTES + SHAPE + b"\x87"),
        repeated(b"cnumpy\nndarray\n", b"(K\x01" + SHAPE + BYTES + b"\x89" + ZEROS + b"tq\x020)", b"h\x02b"),
        b"\x80\x02" + LETTERS + b"q\x000(" + b"h\x00h\x00\x93" * 1000 + b"l.",
    ],
)  # fmt: skip
def test_calls_that_copy_the_same_again_and_again(tmp_path, data):
    (tmp_path / "f").write_bytes(data)
    with pytest.raises(ValueError, match="f: the pickle copies its parts to much more than it holds"):
        qg.io.networks(tmp_path / "f", unknown="skip")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_sound_pickles_are_far_from_the_bounds(tmp_path, monkeypatch, protocol):
    """Arrays of bytes that every protocol writes as shortly as it can, many small ones, and many entries."""
    monkeypatch.setattr("quadgate.io._pickle.FREE", 0)
    value = {
        "large": np.full(1 << 20, 65, np.uint8),
        "small": [np.full(k % 3, k) for k in range(3000)],
        "numbers": [np.float32(k) for k in range(3000)],
        "ordered": OrderedDict((k, (k, str(k))) for k in range(3000)),
        "counter": Counter(range(3000)),
        "set": set(range(3000)),
    }
    for part in (value, *value.values()):
        (tmp_path / "f").write_bytes(pickle.dumps(part, protocol))
        arrays = qg.io.read(tmp_path / "f")
        assert len(arrays) == {dict: 6001, list: 3000, np.ndarray: 1}.get(type(part), 0)
    (tmp_path / "f").write_bytes(pickle.dumps(value, protocol))
    arrays = qg.io.read(tmp_path / "f")
    assert np.array_equal(arrays["large"], value["large"])
    assert np.array_equal(arrays["small.2999"], value["small"][-1])
    assert arrays["numbers.2999"] == 2999


def test_names_that_fill_the_memory(tmp_path, monkeypatch):
    """20,000 arrays, or one, under a key of 200,000 letters: 3.8 GB of names. Leaves without arrays take none."""
    long, file = "a" * 200_000, tmp_path / "f"
    array = np.zeros(1)
    for value in ({long: [array] * 20_000}, {long: {long + "b": {long + "c": [{long: array}] * 20_000}}}):
        refused(file, pickle.dumps(value), "the names of its arrays have more than 1[67][0-9]{6} characters")
    file.write_bytes(pickle.dumps({long: [1, "a", (2, [])] * 20_000, "b": array}))
    assert list(qg.io.read(file)) == ["b"]
    monkeypatch.setattr("quadgate.io._pickle.NAMES", 100)
    file.write_bytes(pickle.dumps({f"layer.{k}.weight": array.copy() for k in range(50)}))
    assert len(qg.io.read(file)) == 50


def test_keys_that_take_long_to_hash(tmp_path):
    """Of one tuple and one number, 100,000 times: the hash is made anew each time. They stand for no name of arrays."""
    for key in (b"(" + b"N" * MANY + b"t", b"\x8b" + MANY.to_bytes(4, "little") + b"\x01" * MANY):
        (tmp_path / "f").write_bytes(b"\x80\x02" + key + b"q\x000}(" + b"h\x00N" * MANY + b"u.")
        assert qg.io.read(tmp_path / "f") == {}


def test_two_arrays_of_one_name_are_refused(tmp_path):
    """The last one silently won; the same array under one name twice is one array."""
    one, other = np.ones(2), np.zeros(2)
    for value, name in (
        ({"a": {"weight_ih_l0": one}, "a.weight_ih_l0": other}, "a.weight_ih_l0"),
        ({"a": {0: one, "0": other}}, "a.0"),
        ({"a": [one], "a.0": other}, "a.0"),
        ({"": {"a": one}, "a": other}, "a"),
        ({None: one, "None": other}, "None"),
    ):
        refused(tmp_path / "f", pickle.dumps(value), f"it has two arrays of the name '{name}'")
    (tmp_path / "f").write_bytes(pickle.dumps({"a": {"b": one}, "a.b": one, ("x", (1,)): other, ("y", (1,)): other}))
    assert len(qg.io.read(tmp_path / "f")) == 3


def test_names_of_arrays(tmp_path):
    """Keys joined by dots, but for empty ones in front."""
    value = {"": {"a": [np.ones(1)]}, 1: {"": {"x": np.ones(1)}}, b"k": {("t", 2): np.ones(1)}, None: {2.5: np.ones(1)}}
    (tmp_path / "f").write_bytes(pickle.dumps(value))
    assert list(qg.io.read(tmp_path / "f")) == ["a.0", "1..x", "b'k'.('t', 2)", "None.2.5"]
