"""A module says clearly what it cannot do, and never computes something else instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed, its modules are not tested: install torch")
qt: Any = pytest.importorskip("quadgate.torch")

# torch warns of its own use of it.
scripted = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def test_a_gradient_penalty_raises():
    """Without an error the penalty would be a constant, and its gradient silently too small."""
    lstm = qt.LSTM(3, 5)
    x = torch.randn(4, 2, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(lstm(x)[0].sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        lstm(x)[0].sum().backward(create_graph=True)
    results = torch.ops.quadgate.train(
        x, [torch.zeros(1, 2, 5)] * 2, [*lstm.parameters()], *[None] * 4, "zero", False, False, lstm._spec, 0
    )
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(results[0].sum(), x, create_graph=True)


def test_a_second_backward_needs_retain_graph():
    lstm, x = qt.LSTM(3, 5), torch.randn(4, 2, 3)
    y = lstm(x)[0].sum()
    y.backward(retain_graph=True)
    once = lstm.weight_hh_l0.grad.clone()
    y.backward()
    assert torch.equal(lstm.weight_hh_l0.grad, 2 * once)
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


@scripted
def test_transforms_of_torch_func():
    lstm, x = qt.LSTM(3, 5), torch.randn(4, 2, 3)
    f, vectors = (lambda x: lstm(x)[0].sum()), torch.randn(6, 4, 2, 3)
    calls = [lambda: torch.func.grad(f)(x), lambda: torch.func.vmap(f)(vectors), lambda: torch.func.jacrev(f)(x)]
    calls += [lambda: torch.func.jvp(f, (x,), (x,)), lambda: torch.func.vjp(f, x), lambda: torch.func.hessian(f)(x)]
    for call in calls:
        with pytest.raises(NotImplementedError, match=r"torch\.func's transforms"):
            call()


@scripted
@pytest.mark.parametrize("grad", [True, False])
def test_forward_mode(grad):
    import torch.autograd.forward_ad as forward_ad

    lstm, x = qt.LSTM(3, 5), torch.randn(4, 2, 3)
    with forward_ad.dual_level(), torch.set_grad_enabled(grad):
        lstm(x)
        with pytest.raises(NotImplementedError, match="jvp"):
            lstm(forward_ad.make_dual(x, x))


@scripted
def test_jit_script():
    with pytest.raises(TypeError, match=r"torch\.jit\.script cannot compile quadgate\.torch\.LSTM"):
        torch.jit.script(torch.nn.Sequential(qt.LSTM(3, 5)))


def test_autocast_converts_to_the_parameters_type():
    lstm, x = qt.LSTM(3, 5), torch.randn(4, 2, 3, dtype=torch.bfloat16, requires_grad=True)
    state = (torch.zeros(1, 2, 5, dtype=torch.bfloat16),) * 2
    with torch.autocast("cpu", torch.bfloat16):
        y = lstm(x, state)[0]
    assert y.dtype == torch.float32
    assert torch.equal(y, lstm(x.float())[0])
    y.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    with pytest.raises(TypeError, match=r"input must be torch\.float32 as the parameters are, got torch\.bfloat16"):
        lstm(x)


class Hook(torch.autograd.graph.saved_tensors_hooks):
    def __init__(self) -> None:
        super().__init__(torch.clone, lambda t: t)


def test_hooks_that_copy_saved_tensors():
    lstm, x = qt.LSTM(3, 5), torch.randn(4, 2, 3)
    with Hook():
        y = lstm(x)[0].sum()
    with pytest.raises(RuntimeError, match="hook of saved tensors copied the tape"):
        y.backward()


X = torch.zeros(4, 2, 3)
H = torch.zeros(1, 2, 5)

BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (X.int(), {}, TypeError, r"input must be torch\.float32 as the parameters are, got torch\.int32"),
    (X.double(), {}, TypeError, r"input must be torch\.float32 as the parameters are, got torch\.float64"),
    (X.to("meta"), {}, ValueError, "input must be on the CPU.*got a tensor on meta"),
    (X.to_sparse(), {}, TypeError, "input must be a dense tensor, got layout torch.sparse_coo"),
    (X.numpy(), {}, TypeError, "input must be a tensor, got ndarray"),
    (X[0, 0], {}, ValueError, r"input must have shape \(T, B, 3\) or \(T, 3\), got \(3,\)"),
    (X[..., :2], {}, ValueError, r"input must have shape \(T, B, 3\) or \(T, 3\), got \(4, 2, 2\)"),
    (X, {"hx": H}, TypeError, r"hx must be None or a pair \(h0, c0\) of tensors, got Tensor"),
    (X, {"hx": (H,)}, TypeError, r"a pair \(h0, c0\) of tensors, got tuple of 1$"),
    (X, {"hx": [H, H, H]}, TypeError, r"a pair \(h0, c0\) of tensors, got list of 3$"),
    (X, {"hx": (H, None)}, TypeError, r"hx\[1\] must be a tensor, got NoneType"),
    (X, {"hx": (H, H[0])}, ValueError, r"hx\[1\] must have shape \(1, 2, 5\), got \(2, 5\)"),
    (X, {"hx": (H.double(), H)}, TypeError, r"hx\[0\] must be torch\.float32"),
    (X, {"lengths": [5, 1]}, ValueError, "lengths must be between 0 and T = 4"),
    (X, {"lengths": torch.ones(2, requires_grad=True)}, TypeError, "lengths must not require a gradient"),
    (
        X,
        {"lengths": torch.ones(2).bfloat16()},
        TypeError,
        "lengths must be of a type that NumPy has, got torch.bfloat16",
    ),
    (
        X,
        {"lengths": torch.ones(2).to_sparse()},
        TypeError,
        "lengths must be a dense tensor, got layout torch.sparse_coo",
    ),
    (X, {"lengths": torch.ones(2) * 1j}, TypeError, "lengths must hold integers.*, got dtype complex64"),
    (X, {"lengths": (torch.ones(2) * 1j).conj()}, TypeError, "lengths must hold integers.*, got dtype complex64"),
    (
        X,
        {"resets": torch.zeros(4, dtype=torch.bool)},
        ValueError,
        r"resets must have shape \(4, 2\), input's without its last axis, got \(4,\)",
    ),
    (
        X[:, 0],
        {"mask": torch.zeros(4, 1, dtype=torch.bool)},
        ValueError,
        r"mask must have shape \(4,\), input's without its last axis, got \(4, 1\)",
    ),
    (X, {"resets": torch.zeros(4, 2)}, TypeError, "resets must hold bools"),
    (X, {"mask": torch.zeros(4, 2, device="meta")}, ValueError, "mask must be on the CPU"),
    (X, {"mask": np.zeros((4, 2), bool), "padding_output": "first"}, ValueError, "padding_output must be"),
    (X, {"return_cells": 1}, TypeError, "return_cells must be True or False"),
]


@pytest.mark.parametrize(("x", "keywords", "error", "text"), BAD)
def test_bad_arguments(x, keywords, error, text):
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(error, match=text):
            qt.LSTM(3, 5)(x, **keywords)


@scripted
@pytest.mark.parametrize(
    ("x", "keywords", "error", "text"), [bad for bad in BAD if bad[1].keys() & {"lengths", "return_cells"}]
)
def test_bad_arguments_of_compiled_calls(x, keywords, error, text):
    compiled = torch.compile(qt.LSTM(3, 5), backend="eager")
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(error, match=text):
            compiled(x, **keywords)
    torch.compiler.reset()


def test_lengths_of_another_number_of_rows():
    for options, x, lengths, rows, got in (
        ({}, X, [4], 2, r"\(1,\)"),
        ({}, X, 4, 2, r"\(\)"),
        ({"batch_first": True}, X, torch.ones(2), 4, r"\(2,\)"),
        ({}, X[:, 0], np.ones(2), 1, r"\(2,\)"),
    ):
        with pytest.raises(ValueError, match=rf"shape \({rows},\), one for each row of input, got {got}"):
            qt.LSTM(3, 5, **options)(x, lengths=lengths)
    lstm = qt.LSTM(3, 5)
    for lengths in (2, [2], torch.tensor(2)):  # a sequence without a batch has one
        y = lstm(X[:, 0] + 1, lengths=lengths)[0]
        assert y[:2].all()
        assert not y[2:].any()


def test_packed_sequences_have_lengths_of_their_own():
    packed = torch.nn.utils.rnn.pack_sequence([X[:, 0], X[:2, 1]])
    for name in ("lengths", "resets", "mask"):
        with pytest.raises(ValueError, match=f"{name} must be None with a PackedSequence"):
            qt.LSTM(3, 5)(packed, **{name: torch.ones(2)})
    with pytest.raises(ValueError, match="padding_output must be 'zero' or 'last', got 'lats'"):
        qt.LSTM(3, 5)(packed, padding_output="lats")


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_states_of_packed_sequences_have_their_rows(rows):
    """The rows of an unsorted batch are put in another order, which must not choose among too many."""
    packed = torch.nn.utils.rnn.pack_sequence([X[:2, 0], X[:, 1]], enforce_sorted=False)
    h = torch.zeros(1, rows, 5)
    for k, state in enumerate(((h, H), (H, h))):
        with pytest.raises(ValueError, match=rf"hx\[{k}\] must have shape \(1, 2, 5\), got \(1, {rows}, 5\)"):
            qt.LSTM(3, 5)(packed, state)
    with pytest.raises(ValueError, match=rf"hx must have shape \(1, 2, 5\), got \(1, {rows}, 5\)"):
        qt.RNN(3, 5)(packed, h)


@pytest.mark.parametrize("name", ["weight_ih_l0", "bias_hh_l0"])
def test_parameters_that_are_none(name):
    lstm = qt.LSTM(3, 5)
    lstm(X)
    setattr(lstm, name, None)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(TypeError, match=f"{name} must be a tensor, got None"):
            lstm(X)


def test_bad_parameters():
    for change, error, text in (
        (lambda m: m.bfloat16(), TypeError, r"in float32 or float64, and the parameters are torch\.bfloat16"),
        (lambda m: m.to("meta"), ValueError, "weight_ih_l0 must be on the CPU"),
        (
            lambda m: setattr(m.bias_hh_l0, "data", torch.zeros(20).double()),
            TypeError,
            "bias_hh_l0 must be torch.float32",
        ),
        (
            lambda m: setattr(m, "weight_hh_l0", torch.nn.Parameter(torch.zeros(20, 5).to_sparse())),
            TypeError,
            "weight_hh_l0 must be a dense tensor, got layout torch.sparse_coo",
        ),
        (lambda m: setattr(m.bias_hh_l0, "data", torch.zeros(5)), ValueError, r"bias_hh_l0 must have shape \(20,\)"),
    ):
        lstm = qt.LSTM(3, 5)
        lstm(X)
        change(lstm)
        for x in (X, X.to(lstm.weight_ih_l0.dtype)):
            with pytest.raises(error, match=text):
                lstm(x)


def test_bad_constructor_arguments():
    for arguments, error, text in (
        ({"dtype": torch.bfloat16}, TypeError, r"computes in float32 or float64, and dtype is torch\.bfloat16"),
        ({"hidden_size": 0}, ValueError, "hidden_size"),
        ({"dropout": 2.0}, ValueError, "dropout"),
        ({"merge": "sum"}, ValueError, "merge='sum' needs bidirectional=True"),
        ({"peephole": 1}, TypeError, "peephole"),
    ):
        with pytest.raises(error, match=text):
            qt.LSTM(**{"input_size": 3, "hidden_size": 5, **arguments})
    with pytest.raises(ValueError, match="nonlinearity"):
        qt.RNN(3, 5, nonlinearity="sine")
    with pytest.warns(UserWarning, match="dropout=0.5 has no effect"):
        qt.LSTM(3, 5, dropout=0.5)


def test_without_torch(run_script):
    """`import quadgate` does not load torch, and the error of quadgate.torch says what to install."""
    run_script(
        """
        import sys
        import quadgate
        assert "torch" not in sys.modules
        sys.modules["torch"] = None
        try:
            import quadgate.torch
        except ImportError as error:
            assert "pip install torch" in str(error)
        else:
            raise AssertionError
        """
    )
