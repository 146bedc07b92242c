"""quadgate.torch.LSTM and RNN in the place of torch.nn's: same parameters, same calls, same results and gradients."""

from __future__ import annotations

import copy
import io
import itertools
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from support import bounds
from support.cases import DTYPES, Case, data, model, plain
from support.modules import module_of, theirs_of, trained

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed, its modules are not tested: install torch")
qt: Any = pytest.importorskip("quadgate.torch")

no_onednn = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
one_layer = pytest.mark.filterwarnings("ignore:dropout:UserWarning")


def check(case: Case) -> None:
    d = data(case)
    module = module_of(model(case))
    got, want = trained(case, module, d), trained(case, theirs_of(module), d)
    columns = case.columns + (case.hidden if "proj_size" in case.options else 0)
    # Two programs of the same precision: each may be as far off as the bound says.
    ahead = 2 * bounds.norm_bound(case.dtype, case.inputs + columns + 2, case.steps * case.layers)
    length = 9 * max(4 * case.hidden + columns, case.batch)
    back = 2 * bounds.norm_bound(case.dtype, length, case.steps * case.layers, backward=True)
    assert list(got) == list(want)
    for name, value in got.items():
        assert value.shape == want[name].shape
        assert value.dtype == want[name].dtype
        relative = ahead if name in ("y", "h", "c") else back
        bounds.assert_norm(value, want[name].astype(np.float64), relative, f"{case}: {name}", least=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_results_and_gradients(layers, bidirectional, dtype):
    layouts = ({}, {"batch_first": True}, {"unbatched": True, "batch_first": True})
    for n, (bias, state, layout) in enumerate(itertools.product((False, True), (False, True), layouts)):
        check(plain(6, 5, 7, 18, layers, bidirectional, bias, state=state, dtype=dtype, seed=n, **layout))


@pytest.mark.parametrize("given", [g for g in itertools.product((True, False), repeat=3) if any(g)])
def test_losses_of_some_results_only(given):
    check(plain(5, 4, 6, 9, 2, True, given=(*given, False), dtype="float64"))


@pytest.mark.parametrize("learned", [None, 0, 1])
def test_gradients_of_states_are_made_for_who_needs_them(learned, monkeypatch):
    asked, backward = [], qg.LSTM.backward

    def asking(*args: Any, **keywords: Any) -> qg.LSTMGrads:
        asked.append(keywords["state_grad"])
        return backward(*args, **keywords)

    monkeypatch.setattr(qg.LSTM, "backward", asking)
    state = torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)
    if learned is not None:
        state[learned].requires_grad_()
    y, _ = qt.LSTM(3, 4)(torch.ones(5, 2, 3), None if learned is None else state)
    y.sum().backward()
    assert asked == [learned is not None]
    assert [s.grad is not None for s in state] == [learned == 0, learned == 1]


@no_onednn
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_projection(bidirectional, dtype):
    check(Case(6, 5, 7, 17, {"num_layers": 2, "bidirectional": bidirectional, "proj_size": 5}, dtype=dtype))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_rnn(bidirectional):
    for nonlinearity, dtype in (("tanh", "float32"), ("tanh", "float64"), ("relu", "float64")):
        for layout in ({}, {"batch_first": True}, {"unbatched": True}):
            chosen = {"num_layers": 2, "bidirectional": bidirectional, "nonlinearity": nonlinearity}
            check(Case(6, 5, 7, 18, chosen, dtype=dtype, **layout))


ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((5, 7), {}),
    ((5, 7, 2, False, True, 0.5, True, 3), {}),  # all that may be given by place
    ((5, 7), {"num_layers": 3, "dropout": 0.25, "bidirectional": True, "dtype": torch.float64}),
    ((5, 7), {"bias": False, "device": "cpu", "proj_size": 2}),
]


@pytest.mark.parametrize(("places", "names"), ARGUMENTS)
def test_constructor_draws_what_torch_draws(places, names):
    for ours, theirs in ((qt.LSTM, torch.nn.LSTM), (qt.RNN, torch.nn.RNN)):
        if theirs is torch.nn.RNN:
            places = (*places[:3], "relu", *places[3:7]) if len(places) > 3 else places
            names = {name: value for name, value in names.items() if name != "proj_size"}
        torch.manual_seed(3)
        want = theirs(*places, **names)
        torch.manual_seed(3)
        got = ours(*places, **names)
        assert list(got.state_dict()) == list(want.state_dict())
        for name, value in want.state_dict().items():
            assert torch.equal(got.state_dict()[name], value)
            assert got.state_dict()[name].dtype == value.dtype
        for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"):
            assert getattr(got, name) == getattr(want, name)
        assert [[*map(torch.Tensor.size, w)] for w in got.all_weights] == [
            [*map(torch.Tensor.size, w)] for w in want.all_weights
        ]
        assert torch.rand(1) == torch.rand(1, generator=after(want, 3))  # no more and no less was drawn


def after(module: Any, seed: int) -> Any:
    """A generator from which a module's parameters were drawn."""
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        torch.empty_like(p).uniform_(generator=generator)
    return generator


def test_state_dicts_go_both_ways():
    ours, theirs = qt.LSTM(3, 5, 2, bidirectional=True), torch.nn.LSTM(3, 5, 2, bidirectional=True)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(torch.nn.LSTM(3, 5, 2, bidirectional=True).state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_packed_sequences(kind, enforce_sorted, batch_first):
    """In, out, and through: data, order, states and all gradients, in float64."""
    torch.manual_seed(1)
    options = {"num_layers": 2, "bidirectional": True, "batch_first": batch_first, "dtype": torch.float64}
    ours = getattr(qt, kind)(3, 9, **options)
    lengths = (6, 4, 4, 1) if enforce_sorted else (4, 1, 6, 4)
    rows = [torch.randn(n, 3, dtype=torch.float64) for n in lengths]
    state = [torch.randn(4, 4, 9, dtype=torch.float64) for _ in range(1 if kind == "RNN" else 2)]

    def results(module):
        inputs = [t.clone().requires_grad_() for t in (*rows, *state)]
        packed = torch.nn.utils.rnn.pack_sequence(inputs[:4], enforce_sorted=enforce_sorted)
        y, end = module(packed, inputs[4] if kind == "RNN" else tuple(inputs[4:]))
        ends = [end] if kind == "RNN" else [*end]
        module.zero_grad()
        sum((t**2).sum() for t in (y.data, *ends)).backward()
        order = [t for t in y[1:] if t is not None]
        return [y.data, *ends, *order, *(t.grad for t in inputs), *(p.grad for p in module.parameters())]

    for got, want in zip(results(ours), results(theirs_of(ours)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    y, _ = ours(torch.nn.utils.rnn.pack_sequence(rows, enforce_sorted=enforce_sorted))
    assert isinstance(y, torch.nn.utils.rnn.PackedSequence)


def test_any_strides():
    """Transposed, sliced, expanded and negative views are read as what they are; so are expanded gradients."""
    ours = qt.LSTM(3, 5, dtype=torch.float64)
    theirs = theirs_of(ours)
    base = torch.randn(4, 6, 8, dtype=torch.float64)
    views = [base[..., :3].transpose(0, 1), base[::2, 1::2, ::3], base[:1, :, :3].expand(7, 6, 3), base[..., :3].neg()]
    views += [torch._neg_view(base[..., :3]), torch.zeros(0, 2, 3, dtype=torch.float64)]
    for x in views:
        torch.testing.assert_close(ours(x)[0], theirs(x)[0] if len(x) else x.new_zeros(0, 2, 5), rtol=1e-11, atol=1e-11)
    for module in (ours, theirs):
        module(views[0])[0].sum().backward()  # whose gradient has strides of 0
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-11, atol=1e-11)


def test_a_type_of_its_own_and_back():
    ours = qt.LSTM(3, 5)
    x = torch.randn(4, 2, 3)
    before = ours(x)[0]
    assert ours.double()(x.double())[0].dtype == torch.float64
    assert torch.equal(ours.float()(x)[0], before)


def test_copies_and_files():
    ours = torch.nn.Sequential(qt.LSTM(3, 5, 2, peephole=True, dropout=0.25, batch_first=True)).eval()
    x = torch.randn(4, 2, 3)
    want = ours(x)[0]
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    for other in (copy.deepcopy(ours), torch.load(file, weights_only=False)):
        assert repr(other) == repr(ours)
        assert torch.equal(other(x)[0], want)
        with torch.no_grad():
            other[0].weight_hh_l0.zero_()
        assert not torch.equal(other(x)[0], want)
        assert torch.equal(ours(x)[0], want)
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    ours.load_state_dict(torch.load(file))


def test_a_pickle_of_another_format_is_refused():
    state = qt.LSTM(3, 5).__getstate__()
    with pytest.raises(ValueError, match="format 2"):
        qt.LSTM.__new__(qt.LSTM).__setstate__({**state, "_format": 2})


@one_layer
def test_to_a_network_and_back():
    """quadgate's own class computes the same bits, and a module of it has the same parameters."""
    for module in (qt.LSTM(3, 5, 2, peephole=True, merge="sum", bidirectional=True), qt.RNN(3, 5, dropout=0.5)):
        net = module.eval().network()
        x = torch.randn(4, 2, 3)
        assert np.array_equal(net(x.numpy())[0], module(x)[0].detach().numpy())
        back = type(module).from_network(net).eval()
        assert repr(back) == repr(module)
        assert torch.equal(back(x)[0], module(x)[0])
    with pytest.raises(TypeError, match=r"net must be a quadgate\.LSTM, got RNN"):
        qt.LSTM.from_network(net)


def test_attributes():
    lstm = qt.LSTM(3, 5, 2, dropout=0.5)
    assert repr(lstm) == "LSTM(3, 5, num_layers=2, dropout=0.5)"
    lstm.dropout = 0.25
    lstm.batch_first = True
    assert lstm.dropout == 0.25
    assert lstm.eval()(torch.zeros(2, 7, 3))[1][0].shape == (2, 2, 5)
    with pytest.raises(AttributeError, match="hidden_size"):
        lstm.hidden_size = 7
    with pytest.raises(ValueError, match="dropout"):
        lstm.dropout = 2.0
    lstm.flatten_parameters()
    assert not hasattr(lstm, "nonlinearity")
    assert not hasattr(qt.RNN(3, 5), "peephole")


class Sized(qt.LSTM):
    """As a subclass of torch.nn.LSTM may be written, which keeps the arguments in the attributes of the same names."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden)
        self.input_size, self.hidden_size, self.proj_size, self.bias = inputs, hidden, 0, True


def test_a_subclass_may_set_attributes_to_what_they_are():
    lstm = Sized(3, 5)
    assert lstm.hidden_size == 5
    assert lstm(torch.zeros(4, 2, 3))[0].shape == (4, 2, 5)
    for name, value in (("hidden_size", 6), ("hidden_size", 5.0), ("bias", False), ("nonlinearity", "tanh")):
        with pytest.raises(AttributeError, match=f"{name} of a module cannot be set"):
            setattr(lstm, name, value)


def test_what_is_documented_as_other_than_torchs():
    lstm, x = qt.LSTM(3, 5), torch.randn(4, 2, 3)
    assert lstm(x[:0])[0].shape == (0, 2, 5)
    h, c = torch.randn(2, 1, 2, 5)
    _, state = lstm(x[:0], (h, c))
    assert torch.equal(state[0], h)
    assert torch.equal(state[1], c)
    assert not isinstance(lstm, torch.nn.LSTM)
    given = x.clone()
    y = lstm(given, (h, c))[0].sum()
    given.zero_()
    h.zero_()
    y.backward()
    assert lstm.weight_ih_l0.grad.any()  # which at an x of zeros it would not have


def test_on_meta_first():
    lstm = qt.LSTM(3, 5, device="meta").to_empty(device="cpu")
    torch.manual_seed(0)
    lstm.reset_parameters()
    torch.manual_seed(0)
    assert torch.equal(torch.nn.LSTM(3, 5).weight_hh_l0, lstm.weight_hh_l0)


def test_the_same_bits_in_training_and_inference():
    lstm, x = qt.LSTM(3, 20, 2), torch.randn(9, 4, 3)
    with torch.no_grad():
        want = lstm(x)[0]
    assert torch.equal(lstm(x)[0], want)
