"""Tensors with more than their numbers, cells with more arrays than an LSTM, and files that are no state dicts."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import zipped
from test_io_torch import compare, draw, module, save, torch  # skips without PyTorch


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_negative_bit(tmp_path, form, dtype):
    """Such a tensor has minus the numbers that are stored; beside it one without the bit has the same storage."""
    net = module(dtype=torch.float64)
    weights = {k: v.to(getattr(torch, dtype)) for k, v in net.state_dict().items()}
    negative = {k: torch._neg_view(-v) for k, v in weights.items()}
    assert all(v.is_neg() for v in negative.values())
    also = torch._neg_view(negative["weight_ih_l0"])
    assert not also.is_neg()
    path = save(tmp_path / "m.pt", negative | {"minus": also}, form)
    arrays = qg.io.read(path)
    for name, value in torch.load(path).items():
        assert np.array_equal(arrays[name], value.resolve_neg().to(torch.float64).numpy()), name
    net.load_state_dict(weights)
    compare(qg.io.load(path, dtype="float64"), net, draw(4, 2, 5, dtype="float64"))


@pytest.mark.parametrize("unsigned", ["uint16", "uint32"])
def test_the_negative_bit_of_tensors_with_a_type_of_their_own(tmp_path, unsigned):
    """These PyTorch rebuilds by another function, which has the type before the bit."""
    negative = torch._neg_view(torch.tensor([1, 2, 3], dtype=getattr(torch, unsigned)))
    array = qg.io.read(save(tmp_path / "m.pt", {"a": negative, "b": torch.ones(2, dtype=negative.dtype)}))
    largest = np.iinfo(unsigned).max
    assert array["a"].tolist() == [largest, largest - 1, largest - 2]
    assert array["b"].tolist() == [1, 1]


class Told:
    """Pickles as a tensor with metadata."""

    def __init__(self, metadata: Any) -> None:
        self.metadata = metadata

    def __reduce__(self) -> Any:
        storage = torch.ones(2)._typed_storage()
        return torch._utils._rebuild_tensor_v2, (storage, 0, (2,), (1,), False, {}, self.metadata)


@pytest.mark.parametrize("metadata", [{"conj": True}, {"neg": True, "else": True}, {"neg": 2}, ["neg"]])
def test_metadata_that_are_not_known_are_refused(tmp_path, metadata):
    with pytest.raises(ValueError, match=r"m\.pt: a tensor has the metadata .*(conj|else|neg).*resolve_conj"):
        qg.io.read(save(tmp_path / "m.pt", {"a": Told(metadata)}))


@pytest.mark.parametrize("metadata", [None, {}, {"neg": False, "conj": False}])
def test_metadata_that_say_nothing(tmp_path, metadata):
    assert qg.io.read(save(tmp_path / "m.pt", {"a": Told(metadata)}))["a"].tolist() == [1, 1]


def cell(**others: tuple[int, ...]) -> Any:
    """State of a cell that a user wrote, with more than LSTMCell has."""
    shapes = {"weight_ih": (28, 5), "weight_hh": (28, 7), "bias_ih": (28,), "bias_hh": (28,)} | others
    return {name: draw(*shape) for name, shape in shapes.items()}


OTHERS = ["weight_ch", "weight_peephole", "bias_c", "peephole_i", "layernorm_i.weight", "layer_norm.bias", "gamma_i"]
OTHERS += ["ln.weight", "ln_ih.weight", "norm_h.weight", "peepholes.weight"]


@pytest.mark.parametrize("prefix", ["", "net.0.", "layers.0.cell."])
@pytest.mark.parametrize("other", OTHERS)
def test_a_cell_that_has_more_arrays_is_no_lstm(tmp_path, prefix, other):
    arrays = {prefix + name: torch.from_numpy(value) for name, value in cell(**{other: (28,)}).items()}
    (found,) = qg.io.networks(save(tmp_path / "m.pt", arrays))
    assert (found.input_size, found.hidden_size) == (5, 7)
    for load in (lambda: qg.io.from_state_dict(arrays), lambda: qg.io.load(tmp_path / "m.pt"), found.build):
        with pytest.raises(ValueError, match=rf"it has {re.escape(prefix + other)} besides: a cell .* without them"):
            load()
    del arrays[prefix + other]
    assert qg.io.from_state_dict(arrays).hidden_size == 7


@pytest.mark.parametrize("prefix", ["", "encoder."])
@pytest.mark.parametrize("other", ["weight_ch_l0", "peephole_i_l0", "layernorm_i_l0.weight", "ln_l1_reverse.bias"])
def test_layers_that_have_more_arrays_are_no_lstm(prefix, other):
    arrays = {prefix + name: value for name, value in (module().state_dict() | {other: torch.zeros(28)}).items()}
    with pytest.raises(ValueError, match=rf"it has {re.escape(prefix + other)} besides"):
        qg.io.from_state_dict(arrays)


@pytest.mark.parametrize("prefix", ["", "net."])
def test_arrays_beside_a_network_are_no_part_of_it(prefix):
    """A state dict has other layers beside, also at the same level where a user joined several."""
    net = module(dtype=torch.float64)
    beside = ["fc.weight", "hidden_init", "h0", "norm.weight", "layer_norm.bias", "ln.weight", "weight_out", "gamma"]
    beside += ["bias_fc", "emb.weight", "crf.weight_ch", "head.l0.weight", "norm.layer_norm_l0.weight", "weight"]
    arrays = dict(net.state_dict()) | {name: torch.ones(3) for name in beside}
    arrays = {prefix + name: value for name, value in arrays.items()}
    compare(qg.io.from_state_dict(arrays), net, draw(4, 2, 5, dtype="float64"))
    plain = cell() | {name: draw(3) for name in ("fc.weight", "hidden_init", "weight", "weight_out", "norm.weight")}
    assert qg.io.from_state_dict({prefix + name: value for name, value in plain.items()}).hidden_size == 7


@pytest.mark.filterwarnings("ignore:The tensor attributes self._flat_weights:UserWarning")
def test_an_exported_program_is_named_as_one(tmp_path):
    """And what the error says to do gives a file that is read."""
    net = module()
    program = torch.export.export(net, (torch.zeros(4, 2, 5),))
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(ValueError, match=r"m\.pt2: a program of torch\.export .* torch\.save\("):
        qg.io.load(tmp_path / "m.pt2")
    torch.save(torch.export.load(tmp_path / "m.pt2").state_dict, tmp_path / "m.pt")
    compare(qg.io.load(tmp_path / "m.pt"), net, draw(4, 2, 5))


def test_an_exported_program_of_older_versions(tmp_path):
    entries = {"serialized_exported_program.json": b"{}", "serialized_state_dict.pt": b"", "version": b"8.8"}
    (tmp_path / "m.pt2").write_bytes(zipped(entries))
    with pytest.raises(ValueError, match=r"a program of torch\.export"):
        qg.io.read(tmp_path / "m.pt2")


@pytest.mark.parametrize("code", ["c8", "U5", "S5", "M8[s]", "m8[s]"])
@pytest.mark.parametrize("which", ["weight_hh_l0", "bias_hh_l0"])
def test_weights_that_are_no_real_numbers(tmp_path, code, which):
    """From a file a ValueError that names it, as for all else that is wrong with one."""
    arrays = qg.LSTM(5, 7, rng=0).state_dict()
    wrong = arrays | {which: np.zeros(arrays[which].shape, code)}
    np.savez(tmp_path / "m.npz", **{f"a.{name}": value for name, value in wrong.items()})
    with pytest.raises(ValueError, match=rf"m\.npz: a: {which} holds .*; real numbers are needed"):
        qg.io.load(tmp_path / "m.npz")
    with pytest.raises(TypeError, match=f"{which} must hold real numbers"):
        qg.io.from_state_dict(wrong)


def test_a_storage_that_many_layers_share(tmp_path):
    """A small file does not fill the memory, and a few layers may share theirs."""
    matrix = torch.ones(512, 128)
    for layers in (20, 300):
        names = [f"weight_{part}_l{k}" for k in range(layers) for part in ("ih", "hh")]
        path = save(tmp_path / "m.pt", dict.fromkeys(names, matrix))
        if layers == 20:
            assert qg.io.load(path).num_layers == layers
            continue
        with pytest.raises(ValueError, match=r"m\.pt: .* its arrays need 157286400 bytes, and the file has 262144"):
            qg.io.load(path)


def test_state_dicts_of_tensors_that_numpy_cannot_read():
    """Negated ones are read; those without numbers are named."""
    net = module(dtype=torch.float64)
    weights = net.state_dict()
    negative = {k: torch._neg_view(-v) for k, v in weights.items()}
    compare(qg.io.from_state_dict(negative, dtype="float64"), net, draw(4, 2, 5, dtype="float64"))
    for other in (
        torch.nn.LSTM(3, 5, device="meta").state_dict(),
        {k: v.to(torch.float8_e4m3fn) for k, v in weights.items()},
    ):
        with pytest.raises(
            ValueError, match=r"weight_ih_l0, a tensor of torch\.float\S+ on (meta|cpu), cannot be read"
        ):
            qg.io.from_state_dict(other)


def test_tensors_of_another_library():
    """Paddle's have detach and cpu, and none of PyTorch's bits."""

    class Tensor:
        def __init__(self, array):
            self.array, self.shape, self.dtype = array, array.shape, array.dtype

        def detach(self):
            return self

        cpu = detach

        def __array__(self, dtype=None, copy=None):
            return np.array(self.array, dtype)

    weights = {k: v.numpy() for k, v in module().state_dict().items()}
    got = qg.io.from_state_dict({k: Tensor(v) for k, v in weights.items()})
    want = qg.io.from_state_dict(weights)
    assert all(np.array_equal(got.params[name], value) for name, value in want.params.items())
