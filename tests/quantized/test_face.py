"""A quantised network besides its numbers: memory, copies, files, refusals."""

from __future__ import annotations

import copy
import gc
import pickle
import tracemalloc

import numpy as np
import pytest
import quadgate as qg

KINDS = ("float16", "bfloat16", "int8")
NETWORKS = [
    lambda: qg.LSTM(5, 9, 2, bidirectional=True, rng=0),
    lambda: qg.LSTM(5, 9, 2, proj_size=4, peephole=True, layer_norm="cell", shortcut="highway", bias=False, rng=0),
    lambda: qg.RNN(5, 9, nonlinearity="relu", rng=0),
    lambda: qg.LSTM(5, 300, rng=0),  # packed in 16 bits
]
X = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
every_kind = pytest.mark.parametrize("kind", KINDS)


class Named(qg.LSTM):
    """A subclass with something of its own."""


class Slotted(qg.RNN):
    """A subclass with slots, of which a third is empty."""

    __slots__ = ("__private", "empty", "label")

    def keep(self, value):
        self.__private, self.label = value, "mine"
        return self

    def kept(self):
        return self.__private


def y_of(net):
    return net(X)[0].tobytes()


@every_kind
def test_type_and_repr(kind):
    lstm = qg.LSTM(5, 9, rng=0)
    small = lstm.quantize(kind)
    assert type(small) is qg.LSTM
    assert small.weight_type == kind
    assert lstm.weight_type == "float32"
    assert qg.LSTM(5, 9, dtype="float64").weight_type == "float64"
    assert repr(small) == f"LSTM(5, 9, dtype='float32', weight_type='{kind}')"
    assert small.dtype == np.float32
    assert small.num_parameters == lstm.num_parameters


@pytest.mark.parametrize(("kind", "most"), [("float16", 0.55), ("bfloat16", 0.55), ("int8", 0.32)])
@pytest.mark.parametrize("sizes", [(64, 128), (256, 256), (40, 96), (512, 512), (32, 32), (100, 72), (50, 50)])
def test_bytes(kind, most, sizes):
    lstm = qg.LSTM(*sizes, rng=0)
    assert lstm.nbytes >= 2 * sum(value.nbytes for value in lstm.params.values())  # the arrays and the packed ones
    assert lstm.quantize(kind).nbytes <= most * lstm.nbytes


@pytest.mark.parametrize("hidden", [24, 40, 72, 200])
def test_a_last_panel_that_is_half_full_takes_half_the_bytes(hidden):
    lstm = qg.LSTM(300, hidden, rng=0)
    assert lstm.nbytes < 2.03 * sum(value.nbytes for value in lstm.params.values())
    for kind in ("float16", "bfloat16"):
        assert lstm.quantize(kind).nbytes <= 0.55 * lstm.nbytes


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("sizes", [(300, 20), (800, 28)])
def test_padding_takes_little(kind, sizes):
    """One copy in float32, or two in 16 bits, whichever takes less, but for a tenth."""
    lstm = qg.LSTM(*sizes, rng=0)
    assert lstm.quantize(kind).nbytes <= 0.57 * lstm.nbytes


def test_bytes_are_there_and_no_others():
    """No array of float32 weights stays behind the network, not even one that its biases are views of."""
    gc.collect()
    tracemalloc.start()
    lstm = qg.LSTM(400, 400, rng=0)
    matrices = sum(v.nbytes for k, v in lstm.params.items() if k.startswith("weight"))
    small = lstm.quantize("int8")
    del lstm
    small(np.zeros((1, 1, 400), np.float32))
    assert small.params  # copies, which go
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 0.3 * matrices


def test_small_networks_of_16_bits_keep_no_second_copy():
    """Floats that calls read are their only copy of the matrices: nbytes counts it, and 16 bits are made from it."""
    lstm = qg.LSTM(64, 64, rng=0)
    matrices = sum(v.nbytes for k, v in lstm.params.items() if k.startswith("weight"))
    gc.collect()
    tracemalloc.start()
    small = lstm.quantize("float16")
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 0.2 * matrices
    assert matrices < small.nbytes < 1.1 * matrices


@every_kind
@pytest.mark.parametrize("make", NETWORKS)
def test_pickles_copies_and_files(make, kind, tmp_path):
    small = make().quantize(kind)
    want = y_of(small)
    others = [pickle.loads(pickle.dumps(small)), copy.copy(small), copy.deepcopy(small)]
    pytest.importorskip("safetensors")
    qg.save(small, tmp_path / "net.safetensors")
    others.append(qg.load(tmp_path / "net.safetensors"))
    for other in others:
        assert type(other) is type(small)
        assert other.weight_type == kind
        assert repr(other) == repr(small)
        assert y_of(other) == want
        for name, value in small.params.items():
            assert other.params[name].tobytes() == value.tobytes()


@every_kind
def test_a_stream_in_a_pickle(kind):
    stream = qg.LSTM(5, 9, rng=0).quantize(kind).stream(3)
    stream.step(X[0])
    other = pickle.loads(pickle.dumps(stream))
    assert np.array_equal(other.step(X[1]), stream.step(X[1]))


def test_files_have_the_types_of_their_arrays(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    for kind, stored in zip(KINDS, ("F16", "BF16", "I8"), strict=True):
        small = qg.LSTM(5, 9, rng=0).quantize(kind)
        qg.save(small, tmp_path / "net.safetensors")
        entries = dict(safetensors.deserialize((tmp_path / "net.safetensors").read_bytes()))
        assert entries["weight_ih_l0"]["dtype"] == stored
        assert entries["bias_l0"]["dtype"] == "F32"
        arrays = qg.io.read(tmp_path / "net.safetensors")
        scale = arrays.get("weight_ih_l0.scale", np.ones(1, np.float32))[:, None]
        assert np.array_equal(arrays["weight_ih_l0"].astype(np.float32) * scale, small.params["weight_ih_l0"])


def test_damaged_files_and_pickles(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "net.safetensors"
    qg.save(qg.LSTM(5, 9, rng=0).quantize("int8"), path)
    whole = path.read_bytes()
    for old, new in (
        (b'"int8"', b'"int4"'),
        (b"weight_ih_l0.scale", b"weight_ih_l0.skale"),
        (b"quadgate 2", b"quadgate 9"),
    ):
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(ValueError, match=r"net\.safetensors"):
            qg.load(path)
    state = qg.LSTM(5, 9, rng=0).quantize("int8").__getstate__()
    for wrong in (
        {"weight_type": "int4"},
        {"weight_type": None},
        {"format": 3},
        {"params": {**state["params"], "weight_ih_l0": state["params"]["weight_hh_l0"]}},
    ):
        with pytest.raises(ValueError, match=r"pickle|weight_type"):
            qg.LSTM.__new__(qg.LSTM).__setstate__({**state, **wrong})


UNMADE = [("float16", "weight_hh_l0", bits) for bits in (0x7C00, 0xFC00, 0x7E00)]  # infinity, its negative, NaN
UNMADE += [("bfloat16", "weight_hh_l0", bits) for bits in (0x7F80, 0xFF80, 0x7FC0)]
UNMADE += [("int8", "weight_hh_l0", -128)] + [("int8", "weight_hh_l0.scale", value) for value in (np.inf, np.nan)]


@pytest.mark.parametrize("hidden", [9, 300])  # packed as float32, and in 16 bits
@pytest.mark.parametrize(("kind", "name", "value"), UNMADE)
def test_numbers_that_quantize_never_makes(kind, name, value, hidden, tmp_path):
    """Files and pickles with NaN, infinity or -128 are refused when they are read, whatever the size."""
    pytest.importorskip("safetensors")
    small = qg.LSTM(5, hidden, rng=0).quantize(kind)
    arrays = {key: array.copy() for key, array in small._snapshot.stored.items()}
    arrays[name].flat[7] = value
    state = small.__getstate__()
    item = state["params"][name]
    state["params"][name] = (*item[:2], arrays[name].tobytes())
    with pytest.raises(ValueError, match=rf"^{name} has (NaN or infinity|-128): "):
        qg.LSTM.__new__(qg.LSTM).__setstate__(state)
    path = tmp_path / "net.safetensors"
    qg.save(small, path)
    whole = path.read_bytes()
    assert whole.count(item[2]) == 1
    path.write_bytes(whole.replace(item[2], arrays[name].tobytes()))
    with pytest.raises(ValueError, match=rf"net\.safetensors.*{name} has (NaN or infinity|-128)"):
        qg.load(path)


@every_kind
def test_subclasses_keep_what_is_theirs(kind):
    net = Named(5, 9, rng=0)
    net.label = "mine"
    small = net.quantize(kind)
    assert type(small) is Named
    assert small.label == "mine"
    thing = [1]
    slotted = Slotted(5, 9, rng=0).keep(thing).quantize(kind)
    assert type(slotted) is Slotted
    assert slotted.label == "mine"
    assert slotted.kept() is thing  # shared, as by copy.copy
    assert not hasattr(slotted, "empty")


@every_kind
def test_training_and_changes_are_refused(kind):
    lstm = qg.LSTM(5, 9, 2, dropout=0.5, rng=0)
    small = lstm.quantize(kind)
    _, _, tape = lstm.forward(X)
    before = y_of(small)
    for refused in (
        lambda: small.forward(X),
        lambda: small.forward(X, trace=True),
        lambda: qg.RNN(5, 9).quantize(kind).forward(X),
        lambda: small.backward(tape, np.zeros((4, 3, 9), np.float32)),
        lambda: small.load_state_dict(lstm.state_dict()),
        lambda: small.writable().__enter__(),
        lambda: small._snapshot.core.forward_tape(X, None, None, None, False, None),
    ):
        with pytest.raises(TypeError, match="weights"):
            refused()
    assert y_of(small) == before


@every_kind
def test_params_are_copies_of_the_values(kind):
    lstm = qg.LSTM(5, 9, rng=0)
    small = lstm.quantize(kind)
    assert all(value.dtype == np.float32 and not value.flags.writeable for value in small.params.values())
    assert list(small.params) == list(lstm.params)
    assert small.params["bias_l0"].tobytes() == lstm.params["bias_l0"].tobytes()
    again = qg.LSTM(5, 9)
    again.load_state_dict(small.state_dict())
    assert again.params["weight_hh_l0"].tobytes() == small.params["weight_hh_l0"].tobytes()
    with lstm.writable() as params:  # which the quantised network does not see
        params["weight_hh_l0"][...] = 0
    assert np.abs(small.params["weight_hh_l0"]).max() > 0
