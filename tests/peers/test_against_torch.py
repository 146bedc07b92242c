"""Outputs, final states and every gradient agree with torch.nn.LSTM and RNN, run live on the same numbers."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import quadgate as qg
from support import bounds, verdicts
from support.cases import DTYPES, SIZES, Case, Data, Found, data, model, plain, run, train
from support.examples import examples

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed, nothing is compared with it: install torch")


def by_torch(case: Case, weights: dict[str, Any], d: Data) -> Found:
    """The same call by torch; rows of length 0, which packed sequences refuse, must not occur."""
    dtype = getattr(torch, case.dtype)
    kind = {"bias": case.bias, "bidirectional": case.bidirectional, "dtype": dtype}
    net = torch.nn.LSTM(case.inputs, case.hidden, case.layers, **kind)
    tensors = {}
    for name, value in weights.items():
        tensors[name.replace("bias", "bias_ih")] = torch.tensor(np.array(value))
        if name.startswith("bias"):
            tensors[name.replace("bias", "bias_hh")] = torch.zeros(value.shape, dtype=dtype)
    net.load_state_dict(tensors)
    zeros = np.zeros((case.layers * case.directions, case.batch, case.hidden), case.dtype)
    x, h0, c0 = (torch.tensor(a, requires_grad=True) for a in (d.x, *(d.state or (zeros, zeros))))
    if d.lengths is None:
        y, (h, c) = net(x, (h0, c0))
    else:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(d.lengths), enforce_sorted=False)
        y, (h, c) = net(packed, (h0, c0))
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=case.steps)
    loss = sum((o * torch.tensor(g)).sum() for o, g in zip((y, h, c), (d.dy, *d.dstate), strict=True) if g is not None)
    loss.backward()
    # If only h or c receives a gradient, torch leaves the others out; they are zero.
    grads = [t.detach() * 0 if t.grad is None else t.grad for t in (x, h0, c0)]
    by_name = {name: p.grad.numpy() for name, p in net.named_parameters()}
    params = {name: by_name[name.replace("bias", "bias_ih")] for name in weights}
    names = ("y", "h", "c", "dx", "dh0", "dc0")
    found = {name: t.detach().numpy() for name, t in zip(names, (y, h, c, *grads), strict=True)}
    return Found(found | params)


def check(case: Case) -> None:
    lstm, d = model(case), data(case)
    if d.lengths is not None:
        d = d._replace(lengths=np.maximum(d.lengths, 1))
    got, want = run(case, lstm, d), by_torch(case, lstm.params, d)
    # Two programs of the same precision: each may be as far off as the bound says.
    ahead = 2 * bounds.norm_bound(case.dtype, case.inputs + case.hidden + 1, case.steps * case.layers)
    length = 9 * max(4 * case.hidden, case.batch)
    back = 2 * bounds.norm_bound(case.dtype, length, case.steps * case.layers, backward=True)
    assert list(got) == list(want)
    for name, value in got.items():
        relative = ahead if name in ("y", "h", "c") else back
        bounds.assert_norm(value, want[name].astype(np.float64), relative, f"{case}: {name}", least=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_combination(layers, bidirectional, dtype):
    flags = itertools.product((False, True), repeat=4)
    for n, (bias, batch_first, lengths, state) in enumerate(flags):
        some = {"bias": bias, "batch_first": batch_first, "lengths": lengths, "state": state}
        check(plain(7, 6, 10, 17, layers, bidirectional, dtype=dtype, seed=n, **some))


@pytest.mark.parametrize("given", [(*g, False) for g in itertools.product((True, False), repeat=3) if any(g)])
def test_only_some_gradients(given):
    check(plain(5, 4, 6, 9, 2, True, given=given, dtype="float64"))
    check(plain(5, 4, 6, 9, 2, True, given=given, lengths=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_large(dtype):
    check(plain(20, 32, 64, 128, 2, True, dtype=dtype, lengths=True))
    check(plain(60, 1, 40, 33, dtype=dtype))


def test_state_dicts_go_both_ways():
    """torch's own state dict, both biases random, gives torch's output; ours loads into torch and gives ours."""
    torch.manual_seed(3)
    net = torch.nn.LSTM(5, 12, 2, bidirectional=True)
    case = plain(6, 3, 5, 12, 2, True, state=False)
    lstm, d = model(case), data(case)
    relative = 2 * bounds.norm_bound("float32", 5 + 12 + 2, 12)
    lstm.load_state_dict({name: value.numpy() for name, value in net.state_dict().items()})
    with torch.no_grad():
        want, _ = net(torch.tensor(d.x))
    bounds.assert_norm(lstm(d.x)[0], want.numpy().astype(np.float64), relative, "torch's weights")

    other = model(plain(6, 3, 5, 12, 2, True, seed=9))
    net.load_state_dict({name: torch.tensor(value) for name, value in other.state_dict().items()})
    with torch.no_grad():
        got, _ = net(torch.tensor(d.x))
    bounds.assert_norm(other(d.x)[0], got.numpy().astype(np.float64), relative, "our weights")


def test_tensors_are_arrays_enough():
    """A tensor that needs no gradient can be passed as it is."""
    case = plain(4, 2, 3, 5, state=False)
    lstm, d = model(case), data(case)
    np.testing.assert_array_equal(lstm(torch.tensor(d.x))[0], lstm(d.x)[0])


def torch_of(v: Case, net: Any, d: Data) -> dict[str, Any]:
    """One training call of a projected LSTM or an RNN by torch, by the names of `train`."""
    chosen = {name: value for name, value in v.options.items() if name in ("bias", "bidirectional", "proj_size")}
    chosen |= {"nonlinearity": v.options["nonlinearity"]} if v.rnn else {}
    kind = torch.nn.RNN if v.rnn else torch.nn.LSTM
    module = kind(v.inputs, v.hidden, v.layers, **chosen, dtype=getattr(torch, v.dtype))
    module.load_state_dict({name: torch.tensor(value) for name, value in net.state_dict().items()})
    used = range(1 if v.rnn else 2)
    x, *start = (torch.tensor(a, requires_grad=True) for a in (d.x, *(d.state[k] for k in used)))
    given = x
    if d.lengths is not None:
        given = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(d.lengths), enforce_sorted=False)
    y, ends = module(given, start[0] if v.rnn else tuple(start))
    if d.lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=v.steps)
    results = [y, ends] if v.rnn else [y, *ends]
    wanted = [d.dy, *(d.dstate[k] for k in used)]
    sum((o * torch.tensor(g)).sum() for o, g in zip(results, wanted, strict=True)).backward()
    by_name = {name: p.grad.numpy() for name, p in module.named_parameters()}
    found = {name: by_name[name.replace("bias", "bias_ih")] for name in net.params}
    found |= {name: o.detach().numpy() for name, o in zip(("y", "h", "c"), results, strict=False)}
    return found | {name: t.grad.numpy() for name, t in zip(("dx", "dh0", "dc0"), (x, *start), strict=False)}


def check_variant(v: Case) -> None:
    net, d = model(v), data(v)._replace(dcells=None)
    if d.lengths is not None:
        d = d._replace(lengths=np.maximum(d.lengths, 1))
    found, _ = train(v, net, d)
    want, allowed = torch_of(v, net, d), verdicts.verdict(v, net, d).allowed
    for name, value in want.items():
        off = np.abs(found[name].astype(np.float64) - value).max()
        assert found[name].shape == value.shape
        assert off <= 2 * allowed[name], f"{v}: {name} is off by {off:.3g}, allowed {2 * allowed[name]:.3g}"


no_onednn = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@pytest.mark.slow
@no_onednn
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_projection(layers, bidirectional, dtype):
    for n, (bias, lengths) in enumerate(itertools.product((False, True), repeat=2)):
        for hidden, columns in ((17, 5), (12, 11)) if n % 3 else ((33, 16), (9, 1)):
            chosen = {"num_layers": layers, "bidirectional": bidirectional, "bias": bias, "proj_size": columns}
            check_variant(Case(6, 5, 7, hidden, chosen, lengths=lengths, dtype=dtype, seed=n))


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_rnn(layers, bidirectional, nonlinearity):
    """relu in float64 alone: in float32 two programs may disagree on which side of the kink a value lies."""
    for dtype in DTYPES if nonlinearity == "tanh" else DTYPES[1:]:
        for n, (bias, lengths) in enumerate(itertools.product((False, True), repeat=2)):
            chosen = {"num_layers": layers, "bidirectional": bidirectional, "bias": bias, "nonlinearity": nonlinearity}
            check_variant(Case(6, 5, 7, 18, chosen, lengths=lengths, dtype=dtype, seed=n))


@no_onednn
def test_state_dicts_of_a_projection_and_an_rnn_go_both_ways():
    torch.manual_seed(5)
    x = data(Case(5, 3, 4, 9)).x
    sizes = {"num_layers": 2, "bidirectional": True}
    for theirs, ours in (
        (torch.nn.LSTM(4, 9, proj_size=3, **sizes), qg.LSTM(4, 9, proj_size=3, rng=1, **sizes)),
        (torch.nn.RNN(4, 9, nonlinearity="relu", **sizes), qg.RNN(4, 9, nonlinearity="relu", rng=1, **sizes)),
    ):
        relative = 2 * bounds.norm_bound("float32", 4 + 9 + 9 + 2, 10)
        with torch.no_grad():
            back = {name: torch.tensor(value) for name, value in ours.state_dict().items()}
            ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
            bounds.assert_norm(ours(x)[0], theirs(torch.tensor(x))[0].numpy().astype(np.float64), relative, "theirs")
            ours.load_state_dict(back)
            theirs.load_state_dict(back)
            bounds.assert_norm(ours(x)[0], theirs(torch.tensor(x))[0].numpy().astype(np.float64), relative, "ours")


@pytest.mark.slow
@no_onednn
@hypothesis.settings(max_examples=examples(60), derandomize=True)
@hypothesis.given(st.data())
def test_drawn(draws):
    """Projections, layers, directions and packed rows as they come, at every tail."""
    hidden = draws.draw(st.sampled_from(SIZES[1:]))
    chosen = {
        "num_layers": draws.draw(st.integers(1, 3)),
        "bidirectional": draws.draw(st.booleans()),
        "bias": draws.draw(st.booleans()),
        "proj_size": draws.draw(st.integers(0, hidden - 1)),
    }
    sizes = (draws.draw(st.integers(1, 5)), draws.draw(st.integers(1, 14)), draws.draw(st.sampled_from(SIZES)))
    dtype, lengths = draws.draw(st.sampled_from(DTYPES)), draws.draw(st.booleans())
    seed = draws.draw(st.integers(0, 999))
    check_variant(Case(*sizes, hidden, chosen, lengths=lengths, dtype=dtype, seed=seed))
