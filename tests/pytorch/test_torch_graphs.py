"""torch.compile, torch.export and torch.jit.trace: one operator a call, the same bits, and what opcheck asks."""

from __future__ import annotations

import io
from typing import Any

import pytest
import quadgate as qg

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed, its modules are not tested: install torch")
qt: Any = pytest.importorskip("quadgate.torch")

# torch warns of its own use of older parts of itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning"),
]


@pytest.fixture(autouse=True)
def no_graphs_left():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def results(call: Any, module: Any, x: Any, state: Any, **keywords: Any) -> list[Any]:
    """Results and all gradients of one training call."""
    x, *state = (t.detach().clone().requires_grad_() for t in (x, *state))
    y, end = call(x, tuple(state) if len(state) == 2 else state[0], **keywords)
    ends = [*end] if len(state) == 2 else [end]
    module.zero_grad()
    sum(t.square().sum() for t in (y, *ends)).backward()
    return [y, *ends, *(t.grad for t in (x, *state)), *(p.grad for p in module.parameters())]


def same(got: list[Any], want: list[Any]) -> bool:
    return len(got) == len(want) and all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def networks() -> list[tuple[Any, Any, list[Any], dict[str, Any]]]:
    torch.manual_seed(0)
    resets, lengths = torch.rand(6, 4) < 0.3, torch.tensor([6, 0, 2, 5])
    x = torch.randn(6, 4, 3)
    plain = qt.LSTM(3, 8, 2, bidirectional=True, peephole=True)
    rnn = qt.RNN(3, 8, batch_first=True)
    state = [torch.randn(4, 4, 8), torch.randn(4, 4, 8)]
    return [
        (plain, x, state, {"resets": resets, "lengths": lengths}),
        (rnn, x.transpose(0, 1), [torch.randn(1, 4, 8)], {"mask": ~resets.T}),
    ]


@pytest.mark.parametrize("which", [0, 1], ids=["LSTM", "RNN"])
def test_compile(which):
    module, x, state, keywords = networks()[which]
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    want = results(module, module, x, state, **keywords)
    assert same(results(compiled, module, x, state, **keywords), want)
    with torch.no_grad():
        assert torch.equal(compiled(x, **keywords)[0], module(x, **keywords)[0])
        for p in module.parameters():
            p.mul_(0.5)
        assert torch.equal(compiled(x, **keywords)[0], module(x, **keywords)[0])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo's, behind its graph break
def test_compiled_code_with_a_packed_sequence():
    """By a graph break, as torch.nn.LSTM: the same bits and gradients."""
    module = qt.LSTM(3, 5)
    parts = [torch.randn(n, 3) for n in (2, 6, 4)]
    packed = torch.nn.utils.rnn.pack_sequence(parts, enforce_sorted=False)

    def loss(p):
        y, (h, _) = module(p)
        return y.data.square().sum() + 2 * h.sum()

    found = []
    for call in (loss, torch.compile(loss, backend="aot_eager")):
        module.zero_grad()
        value = call(packed)
        value.backward()
        found.append([value, *(p.grad for p in module.parameters())])
    assert same(*found)


def test_compiled_calls_see_fused_optimizers():
    module, x, *_ = networks()[0]
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    optimizer = torch.optim.SGD(module.parameters(), 0.5, fused=True)
    for _ in range(2):
        module(x)[0].sum().backward()
        with torch.no_grad():
            before = compiled(x)[0]
            optimizer.step()
            got = compiled(x)[0]
            module.refresh()
            assert torch.equal(got, module(x)[0])
            assert not torch.equal(got, before)


@pytest.mark.slow
@pytest.mark.thorough
def test_compile_to_machine_code():
    module, x, state, keywords = networks()[0]
    head = torch.nn.Linear(16, 3)

    def loss(module):
        return lambda x, hx, **keywords: (torch.tanh(head(module(x, hx, **keywords)[0])), hx)

    compiled = torch.compile(loss(module), fullgraph=True)
    want = results(loss(module), module, x, state, **keywords)
    for got, right in zip(results(compiled, module, x, state, **keywords), want, strict=True):
        torch.testing.assert_close(got, right)


def test_compile_keeps_the_tape(monkeypatch):
    """Backward runs no second forward pass."""
    module, x, state, keywords = networks()[0]
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    results(compiled, module, x, state, **keywords)
    calls = []
    forward = qg.LSTM.forward
    monkeypatch.setattr(qg.LSTM, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    results(compiled, module, x, state, **keywords)
    assert calls == [1]


def test_backward_of_a_copied_handle_runs_forward_again():
    """The operators are functions of their tensors alone: with dropout, too."""
    torch.manual_seed(0)
    module, x = qt.LSTM(3, 8, 2, dropout=0.5), torch.randn(6, 4, 3)
    inputs = (x, [torch.zeros(2, 4, 8)] * 2, [*module.parameters()], None, None, None, torch.tensor(7))
    rest = ("zero", False, True, module._spec, module._number)
    with torch.no_grad():
        *found, handle = torch.ops.quadgate.train(*inputs, *rest)
        grads = [torch.ones_like(t) for t in found]
        want = torch.ops.quadgate.backward(handle, grads, *inputs, *rest)
        got = torch.ops.quadgate.backward(handle.clone(), grads, *inputs, *rest)
        none = torch.ops.quadgate.backward(handle, [None] * 3, *inputs, *rest)
    assert same(got, want)
    assert any(t.any() for t in want)
    assert not any(t.any() for t in none)


def test_dropout_in_a_graph():
    torch.manual_seed(0)
    module, x = qt.LSTM(3, 50, 2, dropout=0.5), torch.randn(6, 4, 3)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            found = []
            for _ in range(2):
                torch.manual_seed(1)
                found += [compiled(x)[0], compiled(x)[0]]
            assert torch.equal(found[0], found[2])
            assert not torch.equal(found[0], found[1])


def test_autocast_in_a_graph():
    module, x = qt.LSTM(3, 8), torch.randn(6, 4, 3, dtype=torch.bfloat16)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compiled(x)[0], module(x)[0])


@pytest.mark.parametrize("which", [0, 1], ids=["LSTM", "RNN"])
def test_opcheck(which):
    module, x, state, keywords = networks()[which]
    if which == 0:  # each size of each parameter is a symbol there: a few will do
        module, state = qt.LSTM(3, 8, peephole=True), [t[:1] for t in state]
    flags = [keywords.get(name) for name in ("lengths", "resets", "mask")]
    cells = which == 0
    for op, grad in ((torch.ops.quadgate.train.default, True), (torch.ops.quadgate.infer.default, False)):
        inputs = [t.detach().clone().requires_grad_(grad) for t in (x, *state, *module.parameters())]
        x_, state_, weights = inputs[0], inputs[1 : 1 + len(state)], inputs[1 + len(state) :]
        found = torch.library.opcheck(
            op, (x_, state_, weights, *flags, None, "zero", cells, False, module._spec, module._number)
        )
        assert set(found.values()) == {"SUCCESS"}
    inputs = (x, state, [p.detach() for p in module.parameters()], *flags, None, "zero", False, False, module._spec, 0)
    with torch.no_grad():
        *found, handle = torch.ops.quadgate.train(*inputs)
    torch.library.opcheck(torch.ops.quadgate.backward.default, (handle, [*found], *inputs))


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("which", [0, 1], ids=["LSTM", "RNN"])
def test_export(which, grad):
    """One operator: the one for training, or under no_grad() that for inference."""
    module, x, state, keywords = networks()[which]
    hx = tuple(state) if which == 0 else state[0]
    with torch.set_grad_enabled(grad):
        program = torch.export.export(module, (x, hx), keywords)
    ops = [node.target for node in program.graph.nodes if "quadgate" in str(node.target)]
    assert ops == [torch.ops.quadgate.train.default if grad else torch.ops.quadgate.infer.default]
    exported = program.module()
    if grad:
        want = results(module, module, x, state, **keywords)
        assert same(results(exported, module, x, state, **keywords)[: 1 + 2 * len(state)], want[: 1 + 2 * len(state)])
    else:
        with torch.no_grad():
            assert torch.equal(exported(x, hx, **keywords)[0], module(x, hx, **keywords)[0])


def test_export_of_any_batch_and_through_a_file():
    module, x = qt.LSTM(3, 8).eval(), torch.randn(6, 4, 3)
    shapes = ({0: torch.export.Dim("steps"), 1: torch.export.Dim("rows")},)
    program = torch.export.export(module, (x,), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    want = [module(t)[0] for t in (x, x[:2, :3])]
    del module, program
    loaded = torch.export.load(file).module()
    with torch.no_grad():
        assert same([loaded(t)[0] for t in (x, x[:2, :3])], want)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_jit_trace():
    """A traced call is an operator, not the numbers of the example."""
    module, x = qt.LSTM(3, 8).eval(), torch.randn(6, 4, 3)
    with torch.no_grad():
        traced = torch.jit.trace(module, (x,))
        for other in (torch.randn(6, 4, 3), torch.randn(2, 7, 3)):
            assert torch.equal(traced(other)[0], module(other)[0])


def test_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = qt.LSTM(3, 8, 2)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        y, (h, _) = module(mode.from_tensor(torch.zeros(6, 4, 3)))
    assert (*y.shape, *h.shape) == (6, 4, 8, 2, 4, 8)
