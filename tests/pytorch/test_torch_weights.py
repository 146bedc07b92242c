"""A module computes with the parameters of this moment, whoever changed them, and packs them no more than needed."""

from __future__ import annotations

from typing import Any

import pytest
from support.modules import theirs_of

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed, its modules are not tested: install torch")
qt: Any = pytest.importorskip("quadgate.torch")

T = torch.float64
near = {"rtol": 1e-11, "atol": 1e-11}


def as_theirs(lstm: Any, x: Any) -> None:
    torch.testing.assert_close(lstm(x)[0], theirs_of(lstm)(x)[0], **near)


def step(lstm, optimizer):
    with torch.enable_grad():
        lstm(torch.randn(2, 2, 3, dtype=T))[0].sum().backward()
    optimizer.step()


def by_optimizer(lstm):
    step(lstm, torch.optim.Adam(lstm.parameters(), 0.1))


def by_fused_adamw(lstm):
    """Torch's fused kernels do not raise versions."""
    step(lstm, torch.optim.AdamW(lstm.parameters(), 0.1, fused=True))


def by_fused_sgd(lstm):
    step(lstm, torch.optim.SGD(lstm.parameters(), 0.1, fused=True))


class Older(torch.optim.Optimizer):
    """An optimizer of the time of ``.data``."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.data.sub_(0.1 * p.grad)


def by_older_optimizer(lstm):
    step(lstm, Older(lstm.parameters()))


def by_swap(lstm):
    lstm.weight_hh_l0 = torch.nn.Parameter(torch.randn(20, 5, dtype=T))


def by_data(lstm):
    lstm.weight_hh_l0.data = torch.randn(20, 5, dtype=T)


def by_data_twice(lstm):
    """The second tensor may be put where the first one was."""
    for _ in range(2):
        lstm.weight_hh_l0.data = torch.randn(20, 5, dtype=T)


def by_state_dict(lstm):
    lstm.load_state_dict(qt.LSTM(3, 5, dtype=T).state_dict())


def by_place(lstm):
    with torch.no_grad():
        lstm.bias_hh_l0.add_(1)


def by_vector(lstm):
    torch.nn.utils.vector_to_parameters(torch.randn(lstm.network().num_parameters + 20, dtype=T), lstm.parameters())


def by_assigned_state_dict(lstm):
    lstm.load_state_dict(qt.LSTM(3, 5, dtype=T).state_dict(), assign=True)


def by_swapped_tensors(lstm):
    torch.utils.swap_tensors(lstm.weight_hh_l0, torch.nn.Parameter(torch.randn(20, 5, dtype=T)))


def by_foreach(lstm):
    with torch.no_grad():
        torch._foreach_add_([*lstm.parameters()], 1)


KNOWN = [by_optimizer, by_fused_adamw, by_fused_sgd, by_older_optimizer, by_swap, by_data, by_data_twice]
KNOWN += [by_state_dict, by_assigned_state_dict, by_swapped_tensors, by_place, by_foreach, by_vector]


def by_data_in_place(lstm):
    lstm.weight_hh_l0.data.add_(1)


def by_numpy(lstm):
    lstm.weight_hh_l0.detach().numpy()[3] = 1


def by_nan(lstm):
    lstm.weight_hh_l0.data[0, 0] = float("nan")


def by_last_element(lstm):
    lstm.bias_hh_l0.data[-1] += 1e-9


def by_storage(lstm):
    lstm.bias_hh_l0.untyped_storage().copy_(torch.randn(20, dtype=T).untyped_storage())


UNKNOWN = [by_data_in_place, by_numpy, by_last_element, by_storage]


@pytest.mark.parametrize("change", [*KNOWN, *UNKNOWN])
def test_training_sees_every_change(change):
    lstm, x = qt.LSTM(3, 5, dtype=T), torch.randn(1, 1, 3, dtype=T)
    for _ in range(3):
        as_theirs(lstm, x)
        change(lstm)
        as_theirs(lstm, x)


@pytest.mark.parametrize("change", [*KNOWN, *UNKNOWN])
def test_long_calls_see_every_change(change):
    lstm, x = qt.LSTM(3, 5, dtype=T), torch.randn(16, 256, 3, dtype=T)
    with torch.no_grad():
        for _ in range(2):
            as_theirs(lstm, x)
            change(lstm)
            as_theirs(lstm, x)


@pytest.mark.parametrize("change", KNOWN)
def test_short_calls_see_changes_that_torch_knows(change):
    lstm, x = qt.LSTM(3, 5, dtype=T), torch.randn(1, 1, 3, dtype=T)
    with torch.no_grad():
        for _ in range(3):
            as_theirs(lstm, x)
            change(lstm)
            as_theirs(lstm, x)


@pytest.mark.parametrize("change", UNKNOWN)
def test_refresh_is_for_the_others(change):
    lstm, x = qt.LSTM(3, 5, dtype=T), torch.randn(1, 1, 3, dtype=T)
    with torch.no_grad():
        as_theirs(lstm, x)
        change(lstm)
        lstm.refresh()
        as_theirs(lstm, x)


def test_nan_arrives():
    lstm, x = qt.LSTM(3, 5), torch.randn(2, 1, 3)
    lstm(x)
    by_nan(lstm)
    assert lstm(x)[0].isnan().any()


def test_parameters_made_in_inference_mode():
    """They have no version: their contents are compared in every call."""
    with torch.inference_mode():
        lstm, x = qt.LSTM(3, 5, dtype=T), torch.randn(1, 1, 3, dtype=T)
        as_theirs(lstm, x)
        by_numpy(lstm)
        as_theirs(lstm, x)


def test_functional_call():
    lstm, x = qt.LSTM(3, 5, dtype=T), torch.randn(2, 2, 3, dtype=T)
    theirs = theirs_of(lstm)
    before = lstm(x)[0]
    others = {name: torch.randn_like(p) for name, p in lstm.named_parameters()}
    for _ in range(2):
        got, want = (torch.func.functional_call(m, others, (x,))[0] for m in (lstm, theirs))
        torch.testing.assert_close(got, want, **near)
        assert torch.equal(lstm(x)[0], before)


def transposed(rnn):
    rnn.weight_hh_l0 = torch.nn.Parameter(rnn.weight_hh_l0.detach().t())


def transposed_data(rnn):
    rnn.weight_hh_l0.data = rnn.weight_hh_l0.data.t()


def expanded(rnn):
    rnn.bias_ih_l0 = torch.nn.Parameter(rnn.bias_ih_l0.detach()[:1].expand(4))


@pytest.mark.parametrize("change", [transposed, transposed_data, expanded])
def test_the_same_memory_in_another_order(change):
    rnn, theirs = qt.RNN(3, 4, dtype=T), torch.nn.RNN(3, 4, dtype=T)
    theirs.load_state_dict(rnn.state_dict())
    x = torch.randn(5, 2, 3, dtype=T)
    with torch.no_grad():
        rnn(x)
        for module in (rnn, theirs):
            change(module)
        torch.testing.assert_close(rnn(x)[0], theirs(x)[0], **near)
        others = {"weight_hh_l0": rnn.weight_hh_l0.t(), "bias_ih_l0": rnn.bias_ih_l0}
        got, want = (torch.func.functional_call(m, others, (x,))[0] for m in (rnn, theirs))
        torch.testing.assert_close(got, want, **near)


@pytest.mark.parametrize("map_", ["cayley", "householder"])
def test_orthogonal(map_):
    """It makes a matrix with fewer rows than columns anew at each call, as the transpose of one."""
    lstm, x = qt.LSTM(100, 4, dtype=T), torch.randn(3, 2, 100, dtype=T)
    theirs = theirs_of(lstm)
    for module in (lstm, theirs):
        torch.nn.utils.parametrizations.orthogonal(module, "weight_ih_l0", map_)
    theirs.load_state_dict(lstm.state_dict())
    assert not lstm.weight_ih_l0.is_contiguous()
    with torch.no_grad():
        for _ in range(40):
            change = torch.randn_like(lstm.parametrizations.weight_ih_l0.original)
            for module in (lstm, theirs):
                module.parametrizations.weight_ih_l0.original.add_(change)
            torch.testing.assert_close(lstm(x)[0], theirs(x)[0], **near)


def test_memory_is_kept_in_any_order():
    """Otherwise the next tensor may get the same address and version."""
    lstm, x = qt.LSTM(3, 5), torch.randn(4, 2, 3)
    lstm.weight_ih_l0 = torch.nn.Parameter(torch.randn(3, 20).t())
    lstm(x)
    (last,) = lstm._engine._last.values()
    assert [v.data_ptr() for v in last.views] == [p.data_ptr() for p in lstm.parameters()]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", ["parametrized", "by hooks"])
def test_weight_norm(norm):
    lstm, x = qt.LSTM(3, 5, dtype=T), torch.randn(2, 2, 3, dtype=T)
    theirs = theirs_of(lstm)
    put = torch.nn.utils.parametrizations.weight_norm if norm == "parametrized" else torch.nn.utils.weight_norm
    modules = [put(module, "weight_hh_l0") for module in (lstm, theirs)]
    optimizers = [torch.optim.SGD(module.parameters(), 0.1) for module in modules]
    for _ in range(3):
        for module, optimizer in zip(modules, optimizers, strict=True):
            optimizer.zero_grad()
            module(x)[0].square().sum().backward()
            optimizer.step()
        for p, q in zip(lstm.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, **near)
        torch.testing.assert_close(lstm(x)[0], theirs(x)[0], **near)


def test_a_tape_keeps_its_weights():
    """Backward after a step gives the gradients at the old parameters; torch's own refuses, if it can tell."""
    lstm, x = qt.LSTM(3, 5, dtype=T), torch.randn(4, 2, 3, dtype=T)
    theirs = theirs_of(lstm)
    want = torch.autograd.grad(theirs(x)[0].square().sum(), [*theirs.parameters()])
    y = lstm(x)[0]
    for change in (by_place, by_numpy, by_state_dict):
        change(lstm)
    lstm(x)  # packs the new ones
    got = torch.autograd.grad(y.square().sum(), [*lstm.parameters()])
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, **near)


@pytest.fixture
def packed(monkeypatch):
    """The list of networks that are made of parameters."""
    from quadgate.torch import _engine

    made: list[Any] = []
    parameters = _engine._parameters
    monkeypatch.setattr(_engine, "_parameters", lambda net, views: made.append(net) or parameters(net, views))
    return made


@pytest.mark.parametrize("keywords", [{}, {"foreach": True}, {"fused": True}], ids=str)
def test_parameters_are_packed_once_a_step(packed, keywords):
    lstm, x = qt.LSTM(3, 5), torch.randn(4, 2, 3)
    optimizer = torch.optim.SGD(lstm.parameters(), 0.1, **keywords)
    for n in range(1, 4):
        for _ in range(3):
            lstm(x)[0].sum().backward()
            with torch.no_grad():
                lstm(x)
                lstm(x.repeat(1, 1000, 1))
        assert len(packed) == n
        optimizer.step()


def test_an_optimizer_of_other_modules_packs_nothing(packed, monkeypatch):
    """Contents are compared once after each of its steps."""
    from quadgate.torch import _engine

    lstm, head = qt.LSTM(3, 5), torch.nn.Linear(5, 1)
    optimizer = torch.optim.SGD(head.parameters(), 0.1, fused=True)
    compared: list[Any] = []
    equal = _engine._equal
    monkeypatch.setattr(_engine, "_equal", lambda *a: compared.append(1) or equal(*a))
    for n in range(4):
        for _ in range(3):
            with torch.no_grad():
                h = lstm(torch.randn(4, 2, 3))[0]
        assert (len(packed), len(compared)) == (1, n)
        head(h).sum().backward()
        optimizer.step()


def test_a_write_while_parameters_are_packed_is_found(monkeypatch):
    """Another thread or process may write, as in Hogwild: its value is there, at the latest in the call after."""
    from quadgate.torch import _engine

    lstm, x = qt.LSTM(3, 5, dtype=T), torch.randn(4, 2, 3, dtype=T)
    as_theirs(lstm, x)
    successor = _engine._successor

    def meanwhile(net, values):
        by_numpy(lstm)
        result = successor(net, values)
        by_data_in_place(lstm)
        return result

    by_place(lstm)
    with monkeypatch.context() as m:
        m.setattr(_engine, "_successor", meanwhile)
        lstm(x)
    as_theirs(lstm, x)


def test_parameters_are_copied_once(packed):
    """They are packed from the copy that later calls compare with, which a tape does not keep."""
    lstm, x = qt.LSTM(3, 5), torch.randn(4, 2, 3)
    for _ in range(2):
        lstm(x)
        (last,) = lstm._engine._last.values()
        assert not last.net.params
        assert [len(copy) for copy in last.copies] == [4 * p.numel() for p in lstm.parameters()]
        assert all(v.data_ptr() == p.data_ptr() for v, p in zip(last.views, lstm.parameters(), strict=True))
        by_place(lstm)
    assert len(packed) == 2


def test_old_parameters_are_freed():
    """Neither those of another type nor those of before a swap stay behind for longer than a call."""
    import weakref

    lstm, x = qt.LSTM(3, 5), torch.randn(4, 2, 3)
    lstm(x)
    last = weakref.ref(lstm._engine._last["float32", False].net)
    lstm.double()(x.double())
    assert last() is None
