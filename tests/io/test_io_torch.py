"""PyTorch's files, read without PyTorch, against PyTorch itself."""

from __future__ import annotations

import importlib
import io
import re
import warnings
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import agree, draw, lstm, randomised

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed, nothing to compare with: install torch")

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "both": {"num_layers": 2, "bidirectional": True},
    "projection": {"num_layers": 2, "bidirectional": True, "proj_size": 3},
    "no bias": {"bias": False, "num_layers": 3},
}

LOADERS = (qg.io.from_state_dict, qg.LSTM.from_state_dict)


def module(kind: str = "LSTM", *, seed: int = 3, dtype: Any = None, **options: Any) -> Any:
    torch.manual_seed(seed)
    return getattr(torch.nn, kind)(5, 7, dtype=dtype, **options)


def save(path: Any, value: Any, form: str = "zip") -> Any:
    torch.save(value, path, _use_new_zipfile_serialization=form == "zip")
    return path


def outputs(net: Any, x: Any) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that projections are slower there
        return net(torch.from_numpy(x))


def compare(ours: Any, theirs: Any, x: Any) -> None:
    y, state = ours(x)
    want, wanted = outputs(theirs, x)
    agree(y, want, 4 * (5 + 14 + 1), len(x), "y")
    for got, w in zip(state, wanted, strict=True):
        agree(got, w, 4 * (5 + 14 + 1), len(x), "state")


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_state_dict(tmp_path, options, dtype, form):
    net = module(dtype=getattr(torch, dtype), **options)
    path = save(
        tmp_path / "model.anything",
        {"epoch": 3, "state_dict": {f"enc.{k}": v for k, v in net.state_dict().items()}},
        form,
    )
    (found,) = qg.io.networks(path)
    assert (found.kind, found.name, found.input_size, found.hidden_size) == ("LSTM", "state_dict.enc", 5, 7)
    assert (found.num_layers, found.directions) == (options.get("num_layers", 1), 1 + ("bidirectional" in options))
    ours = qg.io.load(path)
    assert ours.dtype == dtype
    compare(ours, net, draw(6, 3, 5, dtype=dtype))


def test_round_trip():
    """Ours into PyTorch and back: the same outputs, then the same bits."""
    net = lstm(5, 7, 2, bidirectional=True, proj_size=3)
    theirs = torch.nn.LSTM(5, 7, 2, bidirectional=True, proj_size=3)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in qg.io.to_torch(net).items()})
    compare(net, theirs, draw(6, 3, 5))
    back = qg.io.from_state_dict(theirs.state_dict())
    assert all(np.array_equal(back.params[k], v) for k, v in net.params.items())


@pytest.mark.parametrize(
    "options",
    [
        {"peephole": True},
        {"layer_norm": "cell"},
        {"coupled": True},
        {"reverse": True},
        {"bidirectional": True, "merge": "sum"},
        {"activations": ("hard_sigmoid", "tanh", "tanh")},
        {"cell_clip": 1.0},
        {"gate_clip": 1.0},
        {"proj_size": 3, "proj_clip": 1.0},
        {"zoneout": (0.0, 0.1)},
        *({"num_layers": 2, "shortcut": shortcut} for shortcut in ("residual", "highway", "dense")),
    ],
    ids=str,
)
def test_to_torch_refuses_what_pytorch_has_not(options):
    """Such a network's outputs would be others there, whatever its parameters."""
    name, value = list(options.items())[-1]
    with pytest.raises(ValueError, match=re.escape(f"PyTorch's networks have no {name}={value!r}")):
        qg.io.to_torch(lstm(5, 7, **options))


@pytest.mark.parametrize("columns", [6, 7, 8])
def test_to_torch_refuses_wide_projections(columns):
    """It passes what torch.nn.LSTM takes, and nothing else."""
    net = lstm(5, 7, proj_size=columns)
    if columns < 7:
        torch.nn.LSTM(5, 7, proj_size=columns)
        qg.io.to_torch(net)
        return
    with pytest.raises(ValueError, match="smaller than hidden_size"):
        torch.nn.LSTM(5, 7, proj_size=columns)
    with pytest.raises(ValueError, match=f"proj_size must be less than hidden_size=7, got {columns}"):
        qg.io.to_torch(net)


def test_to_torch_takes_networks():
    for net in (None, qg.LSTM(5, 7).stream()):
        with pytest.raises(TypeError, match=r"net must be a quadgate\.LSTM or quadgate\.RNN, got"):
            qg.io.to_torch(net)
    with pytest.raises(ValueError, match="reverse=True"):
        qg.io.to_torch(qg.RNN(5, 7, reverse=True))


def test_options_of_pytorch_pass():
    """Masks of training, and the start of it, have no effect on inference."""
    net = lstm(5, 7, 2, bias=False, batch_first=True, dropout=0.2, recurrent_dropout=0.2, weight_drop=0.1)
    theirs = torch.nn.LSTM(5, 7, 2, bias=False)
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in qg.io.to_torch(net).items()})
    x = draw(6, 3, 5)
    agree(net(x.swapaxes(0, 1).copy())[0].swapaxes(0, 1), outputs(theirs, x)[0], 4 * 20, 6, "y")
    plain = randomised(qg.RNN(5, 7, 2, bidirectional=True, nonlinearity="relu", dtype="float64"))
    other = torch.nn.RNN(5, 7, 2, bidirectional=True, nonlinearity="relu", dtype=torch.float64)
    other.load_state_dict({k: torch.from_numpy(v) for k, v in qg.io.to_torch(plain).items()})
    x = draw(6, 3, 5, dtype=np.float64)
    agree(plain(x)[0], outputs(other, x)[0], 20, 6, "y")
    assert qg.io.to_torch(qg.LSTM(5, 7, initialization="keras", forget_bias=2.0, layer_norm_eps=1e-3))


def test_trained_module_with_gradients():
    """Parameters that require gradients are read where they are."""
    net = module()
    assert all(p.requires_grad for p in net.parameters())
    compare(qg.io.from_state_dict({k: v.detach() for k, v in net.named_parameters()}), net, draw(4, 2, 5))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_for_the_other_ways_in(dtype):
    """Parameters that require gradients, and bfloat16, which NumPy does not know, among gates, Keras's and TF1's."""
    net = module(bidirectional=True, dtype=getattr(torch, dtype))
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0")
    given = [tuple(getattr(net, name + side) for side in ("", "_reverse")) for name in names]
    got = qg.io.from_gates(*given)
    for name, pair in zip(("weight_ih_l0", "weight_hh_l0", "bias_l0"), given, strict=True):
        for side, value in zip(("", "_reverse"), pair, strict=True):
            assert np.array_equal(got.params[name + side], value.detach().float().numpy())
    kernel, recurrent = (torch.nn.Parameter(value.detach().T.contiguous()) for value, _ in given[:2])
    same = qg.io.from_keras([kernel, recurrent, given[2][0]]).params
    both = torch.nn.Parameter(torch.cat([kernel, recurrent]).detach())
    other = qg.io.from_tensorflow1((both, given[2][0]), forget_bias=0.0, order="ifgo").params
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_l0"):
        assert np.array_equal(same[name], got.params[name])
        assert np.array_equal(other[name], got.params[name])


def test_cell(tmp_path):
    cell = module("LSTMCell")
    ours = qg.io.load(save(tmp_path / "cell.pt", cell.state_dict()))
    x, h, c = draw(3, 5), draw(3, 7, seed=2), draw(3, 7, seed=3)
    with torch.no_grad():
        want = cell(torch.from_numpy(x), (torch.from_numpy(h), torch.from_numpy(c)))
    _, state = ours(x[None], (h[None], c[None]))
    for got, w in zip(state, want, strict=True):
        agree(got[0], w, 4 * 13, 1, "state")


def test_rnn_is_asked_for_its_nonlinearity(tmp_path):
    net = module("RNN", nonlinearity="relu", num_layers=2, bidirectional=True)
    path = save(tmp_path / "rnn.pt", net.state_dict())
    with pytest.raises(ValueError, match="nonlinearity="):
        qg.io.load(path)
    ours = qg.io.load(path, nonlinearity="relu")
    x = draw(5, 2, 5)
    agree(ours(x)[0], outputs(net, x)[0], 20, 5, "y")


def test_gru_is_listed_and_refused(tmp_path):
    path = save(tmp_path / "gru.pt", module("GRU").state_dict())
    (found,) = qg.io.networks(path)
    assert found.kind == "GRU"
    with pytest.raises(ValueError, match="GRU"):
        qg.io.load(path)


def test_several_networks_are_listed(tmp_path):
    model = torch.nn.ModuleDict({"enc": module(), "dec": module("LSTMCell", seed=5)})
    path = save(tmp_path / "two.pt", model.state_dict())
    with pytest.raises(ValueError, match=r"two\.pt: several networks: choose one by name=, of 'enc' .*, 'dec'"):
        qg.io.load(path)
    with pytest.raises(ValueError, match="no network is named 'x'"):
        qg.io.load(path, name="x")
    compare(qg.io.load(path, name="enc"), model["enc"], draw(4, 2, 5))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_short_floats_are_exact(tmp_path, dtype, form):
    net = module().to(getattr(torch, dtype))
    arrays = qg.io.read(save(tmp_path / "half.pt", net.state_dict(), form))
    for name, value in net.state_dict().items():
        assert np.array_equal(arrays[name], value.to(torch.float32).numpy()), name


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_views(tmp_path, form):
    """Transposed, cut and shared tensors, empty ones, scalars, and every type."""
    base = torch.arange(24.0).reshape(4, 6)
    value = {"t": base.T, "cut": base[1:, ::2], "same": base, "none": torch.empty(0, 3), "one": torch.tensor(3.5)}
    kinds = ("uint8", "int8", "int16", "int32", "int64", "bool", "float64")
    value |= {kind: torch.ones(3, dtype=getattr(torch, kind)) for kind in kinds}
    arrays = qg.io.read(save(tmp_path / "views.pt", [value], form))
    assert set(arrays) == {f"0.{name}" for name in value}
    for name, tensor in value.items():
        assert np.array_equal(arrays[f"0.{name}"], tensor.numpy()), name
        assert arrays[f"0.{name}"].dtype == tensor.numpy().dtype


def test_parameters_and_checkpoints(tmp_path):
    """nn.Parameter, optimizer states and numbers beside the weights."""
    net = module()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.zeros(2, 1, 5))[0].sum().backward()
    optimizer.step()
    value = {"model": dict(net.named_parameters()), "optimizer": optimizer.state_dict(), "size": net.weight_ih_l0.shape}
    compare(qg.io.load(save(tmp_path / "check.ckpt", value)), net, draw(4, 2, 5))


def test_whole_module_needs_skip(tmp_path):
    """A pickled module names its classes: refused by name, or passed over."""
    model = torch.nn.Sequential(torch.nn.Linear(5, 5), module(num_layers=2))
    for form in ("zip", "legacy"):
        path = save(tmp_path / f"{form}.pt", model, form)
        with pytest.raises(ValueError, match=r"torch\.nn\.modules\.container\.Sequential"):
            qg.io.load(path)
        (found,) = qg.io.networks(path, unknown="skip")
        assert found.name == "1"
        compare(qg.io.load(path, unknown="skip"), model[1], draw(4, 2, 5))


def test_torchscript(tmp_path):
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front = torch.nn.Linear(5, 5)
            self.rnn = module(num_layers=2, bidirectional=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(self.front(x))[0]

    model = Model()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; its files are not
        scripted = torch.jit.trace(model, torch.zeros(3, 2, 5))
        torch.jit.save(scripted, tmp_path / "script.pt")
    arrays = qg.io.read(tmp_path / "script.pt")
    assert np.array_equal(arrays["front.weight"], model.front.weight.detach())
    compare(qg.io.load(tmp_path / "script.pt", name="rnn"), model.rnn, draw(4, 2, 5))


def test_weight_norm(tmp_path):
    for norm in (torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm):
        net = module(num_layers=2, bidirectional=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            for name in [n for n, _ in net.named_parameters() if n.startswith("weight")]:
                norm(net, name)
        with torch.no_grad():
            for value in net.parameters():
                value.mul_(1.3)
        net(torch.zeros(2, 1, 5))  # the old one computes its weights in a forward
        path = save(tmp_path / "norm.pt", net.state_dict())
        (found,) = qg.io.networks(path)
        assert any("weight_norm" in note for note in found.notes)
        compare(qg.io.load(path), net, draw(4, 2, 5))
        compare(qg.LSTM.from_state_dict(net.state_dict()), net, draw(4, 2, 5))


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_of_every_axis(dim):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net = torch.nn.utils.weight_norm(module(), "weight_hh_l0", dim=dim)
    with torch.no_grad():
        net.weight_hh_l0_g.mul_(0.6)
    net(torch.zeros(2, 1, 5))
    compare(qg.io.from_state_dict(net.state_dict()), net, draw(4, 2, 5))


def test_pruned():
    net = module()
    prune = importlib.import_module("torch.nn.utils.prune")
    prune.random_unstructured(net, "weight_hh_l0", 0.5)
    want = net.weight_hh_l0.detach().numpy()
    for load in LOADERS:
        assert np.array_equal(load(net.state_dict()).params["weight_hh_l0"], want)


def test_spectral_norm_is_refused():
    net = torch.nn.utils.parametrizations.spectral_norm(module(), "weight_hh_l0")
    for load in LOADERS:
        with pytest.raises(ValueError, match=r"weight_hh_l0 is given by .*no parametrization that is known"):
            load(net.state_dict())


def replaced(**parts: Any) -> dict[str, Any]:
    """A state dict, float32, with weight_hh_l0 in parts; one of these may be called weight_hh_l0 itself."""
    rest = {k: v.numpy() for k, v in module().state_dict().items() if k != "weight_hh_l0"}
    return rest | {"weight_hh_l0" + k.removeprefix("whole"): v for k, v in parts.items()}


def test_parts_of_integers_and_bools_give_floats():
    v, g = draw(28, 7).round().astype(np.int64) + 5, 2 * np.ones((28, 1), np.int8)
    exact = g * v / np.sqrt((v.astype(np.float64) ** 2).sum(1, keepdims=True))
    orig, mask = draw(28, 7, seed=3), draw(28, 7) > 0
    for load in LOADERS:
        for parts, want in (
            ({"_g": g, "_v": v}, exact),
            ({"_g": g.astype(np.float32), "_v": v}, exact),
            ({"_orig": orig, "_mask": mask}, orig * mask),
            ({"_orig": orig, "_mask": mask.astype(np.int64)}, orig * mask),
            ({"_orig": v, "_mask": mask}, v * mask),
        ):
            net = load(replaced(**parts))
            assert net.dtype == np.float32
            assert np.array_equal(net.params["weight_hh_l0"], want.astype(np.float32))


@pytest.mark.parametrize("load", LOADERS)
def test_parts_that_do_not_fit_are_refused(load):
    whole, ones = draw(28, 7), np.ones((28, 1), np.float32)
    for parts, why in (
        ({"_g": ones.astype(np.complex64), "_v": whole}, "weight_hh_l0_g must hold real numbers"),
        ({"_g": ones, "_v": whole.astype(str)}, "weight_hh_l0_v must hold real numbers"),
        ({"_orig": whole, "_mask": ones}, r"the mask of shape \(28, 1\) does not fit the weight of \(28, 7\)"),
        ({"_orig": whole[:1], "_mask": ones}, "does not fit"),
        ({"_orig": whole, "_mask": np.ones((), np.float32)}, "does not fit"),
        ({"_orig": whole, "_mask": whole > 0, "whole": whole}, "given twice, once by weight_hh_l0_mask, weight"),
        ({"_g": ones, "_v": whole, "whole": whole}, "given twice, once by weight_hh_l0_g, weight_hh_l0_v"),
    ):
        with pytest.raises(ValueError, match=f"weight_hh_l0.*{why}" if why.startswith("given") else why):
            load(replaced(**parts))
    with pytest.raises(ValueError, match="weight_ih_l0 is given by weight_ih_l0_g: no parametrization"):
        load({k.replace("ih_l0", "ih_l0_g"): v for k, v in replaced(whole=whole).items() if k.startswith("weight")})
    raws = {f"a.{k}weight_hh_l0_raw": whole for k in ("", "module.")}
    inside = {f"a.module.{k}": v for k, v in replaced().items()}
    with pytest.raises(ValueError, match=r"a\.module\.weight_hh_l0 is given twice, once by a\..*weight_hh_l0_raw"):
        load(raws | inside)


@pytest.mark.parametrize("load", LOADERS)
def test_parts_of_bfloat16_and_of_parameters(load):
    """As a module's named_parameters are, which require gradients."""
    prune = importlib.import_module("torch.nn.utils.prune")
    for kind in ("norm", "pruned"):
        net = module()
        if kind == "norm":
            net = torch.nn.utils.parametrizations.weight_norm(net, "weight_hh_l0")
        else:
            prune.random_unstructured(net, "weight_hh_l0", 0.5)
        given = dict(net.named_parameters()) | dict(net.named_buffers())
        compare(load(given), net, draw(4, 2, 5))
        short = net.bfloat16()
        with torch.no_grad():
            short(torch.zeros(2, 1, 5, dtype=torch.bfloat16))
            parts = {k: v.double().numpy() for k, v in short.state_dict().items() if "weight_hh" in k}
        a, b = (parts[k] for k in sorted(parts, reverse=kind == "norm"))
        want = b * a / np.sqrt((a * a).sum(1, keepdims=True)) if kind == "norm" else a * b
        got = load(short.state_dict()).params["weight_hh_l0"]
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize(
    "names", [("rnn.weight_hh_l0_raw", "rnn.module."), ("rnn.module.weight_hh_l0_raw", "rnn.module.")]
)
def test_weight_drop(names):
    """fastai's names, with a dropped copy beside the raw weight, and those of Salesforce's AWD-LSTM."""
    net = module()
    raw, inside = names
    arrays = {inside + k: v for k, v in net.state_dict().items()}
    arrays[raw] = arrays[f"{inside}weight_hh_l0"]
    arrays[f"{inside}weight_hh_l0"] = torch.zeros(28, 7)  # what the last training step left
    for load in LOADERS:
        compare(load(arrays), net, draw(4, 2, 5))


def test_options_that_contradict_the_arrays():
    arrays = module().state_dict()
    with pytest.raises(ValueError, match="hidden_size=7, got hidden_size=8"):
        qg.io.from_state_dict(arrays, hidden_size=8)
    with pytest.raises(ValueError, match="num_layers"):
        qg.io.from_state_dict(arrays, num_layers=2)
    assert qg.io.from_state_dict(arrays, batch_first=True, dtype="float64").batch_first
    del arrays["bias_hh_l0"]
    with pytest.raises(ValueError, match="bias_hh_l0"):
        qg.io.from_state_dict(arrays)


def test_quantised_tensors_are_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensor = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    with pytest.raises(ValueError, match="quantised"):
        qg.io.read(save(tmp_path / "q.pt", {"w": tensor}))


def test_nothing_of_torch_is_imported(tmp_path, run_script):
    path = save(tmp_path / "model.pt", module().state_dict())
    done = run_script(f"import sys, quadgate as qg; qg.io.load({str(path)!r}); print('torch' in sys.modules)")
    assert done.stdout.strip() == "False"


def test_two_protocols(tmp_path):
    """Files written with a newer pickle protocol than PyTorch's own."""
    net = module()
    for protocol in (2, 3, 4, 5):
        buffer = io.BytesIO()
        torch.save(net.state_dict(), buffer, pickle_protocol=protocol)
        (tmp_path / "p.pt").write_bytes(buffer.getvalue())
        compare(qg.io.load(tmp_path / "p.pt"), net, draw(2, 1, 5))
