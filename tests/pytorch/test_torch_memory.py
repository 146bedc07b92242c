"""Life of a tape, views instead of copies, memory that may be resized, and modules in several threads."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from support.modules import theirs_of

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed, its modules are not tested: install torch")
qt: Any = pytest.importorskip("quadgate.torch")


@pytest.fixture
def calls(monkeypatch):
    """The arguments and results of calls of the core's face."""
    made: list[Any] = []

    def noted(name):
        function = getattr(qg.LSTM, name)

        def call(net, *arguments, **keywords):
            result = function(net, *arguments, **keywords)
            made.append((name, arguments, result))
            return result

        monkeypatch.setattr(qg.LSTM, name, call)

    for name in ("__call__", "forward", "backward"):
        noted(name)
    return made


def tapes() -> int:
    from quadgate.torch import _function

    gc.collect()
    return len(_function._carriers)


def test_x_and_y_are_not_copied(calls):
    lstm, x = qt.LSTM(3, 5), torch.randn(4, 2, 3, requires_grad=True)
    y, (h, c) = lstm(x)
    dy = torch.randn_like(y)
    dx, dw = torch.autograd.grad(y, (x, lstm.weight_hh_l0), dy)
    with torch.no_grad():
        z = lstm(x)[0]
    (_, given, made), (_, (_, d, *_), grads), (_, seen, found) = calls
    assert [name for name, *_ in calls] == ["forward", "backward", "__call__"]  # and no forward pass more
    pairs = [(x, given[0]), (y, made[0]), (h, made[1][0]), (c, made[1][1]), (dy, d), (dx, grads.x)]
    pairs += [(dw, grads.params["weight_hh_l0"]), (x, seen[0]), (z, found[0])]
    for t, a in pairs:
        assert t.data_ptr() == a.ctypes.data


def test_inputs_of_no_gradient_cost_none(calls):
    qt.LSTM(3, 5)(torch.randn(4, 2, 3))[0].sum().backward()
    assert calls[-1][2].x is None


def test_x_and_y_may_be_overwritten_before_backward():
    """The tape shares memory with neither."""
    lstm = qt.LSTM(3, 5, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    theirs = theirs_of(lstm)
    want = torch.autograd.grad((2 * theirs(x)[0]).square().sum(), [*theirs.parameters()])
    given = x.clone()
    y, (h, c) = lstm(given)
    given.zero_()
    loss = y.mul_(2).square().sum()
    with torch.no_grad():
        h.zero_()
        c.zero_()
    for got, right in zip(torch.autograd.grad(loss, [*lstm.parameters()]), want, strict=True):
        torch.testing.assert_close(got, right, rtol=1e-11, atol=1e-11)


def test_gradients_share_no_memory():
    """clip_grad_norm_ scales in place: two names for the same memory would be scaled twice."""
    lstm = qt.LSTM(3, 5, 2)
    lstm(torch.randn(4, 2, 3))[0].sum().backward()
    grads = [p.grad.numpy() for p in lstm.parameters()]
    assert not any(np.shares_memory(a, b) for n, a in enumerate(grads) for b in grads[:n])


def test_parameters_can_give_their_memory_back():
    """As sharded models do after each call; Tensor.numpy() would forbid it for good."""
    lstm, x = qt.LSTM(3, 5, 2), torch.randn(4, 2, 3)
    want, copy = lstm(x)[0], lstm.network()
    lstm(x)[0].sum().backward()
    for p in lstm.parameters():
        kept, storage = p.detach().clone(), p.untyped_storage()
        size = storage.nbytes()
        storage.resize_(0)
        with torch.no_grad(), pytest.raises(ValueError, match="its memory, got a tensor whose storage has been freed"):
            lstm(x)
        storage.resize_(size)
        p.data.copy_(kept)
    with torch.no_grad():
        assert torch.equal(lstm(x)[0], want)
    np.testing.assert_array_equal(copy(x.numpy())[0], want.detach().numpy())


def test_parameters_without_plain_memory():
    """Read negated, transposed, from within a larger tensor, or made in inference mode."""
    lstm, x = qt.LSTM(5, 5), torch.randn(4, 2, 5)
    values = {name: p.detach().clone() for name, p in lstm.named_parameters()}
    want = lstm(x)[0].detach()
    with torch.inference_mode():
        inferred = values["bias_ih_l0"].clone()
    changed = {
        "weight_ih_l0": torch._neg_view(-values["weight_ih_l0"]),
        "weight_hh_l0": values["weight_hh_l0"].T.contiguous().T,
        "bias_ih_l0": inferred,
        "bias_hh_l0": torch.stack([values["bias_hh_l0"], torch.zeros(20)], 1)[:, 0],
    }
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(torch.func.functional_call(lstm, changed, (x,))[0], want)


def test_a_tape_is_freed_by_backward():
    lstm, x = qt.LSTM(3, 5), torch.randn(4, 2, 3)
    before = tapes()
    y = lstm(x)[0].sum()
    assert tapes() == before + 1
    y.backward(retain_graph=True)
    assert tapes() == before + 1
    y.backward()
    assert tapes() == before  # although y is still there
    y = lstm(x)[0]
    del y
    assert tapes() == before


def test_checkpoints_keep_no_tape():
    from torch.utils.checkpoint import checkpoint

    lstm = qt.LSTM(3, 5, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    want = torch.autograd.grad(lstm(x)[0].square().sum(), [x, *lstm.parameters()])
    before = tapes()
    for reentrant in (False, True):
        y = checkpoint(lambda x: lstm(x)[0], x, use_reentrant=reentrant)
        assert tapes() == before
        lstm.zero_grad()
        x.grad = None
        y.square().sum().backward()
        for p, right in zip([x, *lstm.parameters()], want, strict=True):
            assert torch.equal(p.grad, right)
    assert tapes() == before


def test_one_module_in_many_threads():
    lstm, xs = qt.LSTM(3, 16), [torch.randn(9, 2, 3) for _ in range(8)]
    want = [lstm(x)[0].detach() for x in xs]
    wrong: list[int] = []

    def work(k: int) -> None:
        for n in range(30):
            with torch.set_grad_enabled(n % 2 == 0):
                if not torch.equal(lstm(xs[k])[0], want[k]):
                    wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_training_learns_as_torchs_own():
    """Some steps of Adam, with clipped gradients and a layer behind: the same losses in float64."""
    torch.manual_seed(0)
    ours = torch.nn.ModuleList([qt.LSTM(3, 8, 2, dtype=torch.float64), torch.nn.Linear(8, 1, dtype=torch.float64)])
    theirs = torch.nn.ModuleList([theirs_of(ours[0]), torch.nn.Linear(8, 1, dtype=torch.float64)])
    theirs[1].load_state_dict(ours[1].state_dict())
    x = torch.randn(10, 4, 3, dtype=torch.float64)
    target = x.cumsum(0).sum(2, keepdim=True)
    losses: list[list[float]] = []
    for modules in (ours, theirs):
        optimizer = torch.optim.Adam(modules.parameters(), 1e-2)
        losses.append([])
        for _ in range(10):
            optimizer.zero_grad()
            loss = (modules[1](modules[0](x)[0]) - target).square().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(modules.parameters(), 0.1)
            optimizer.step()
            losses[-1].append(float(loss.detach()))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-8)
    assert losses[0][-1] < losses[0][0]
