"""pad_sequences and unpad, and what a call says of a wrong mask."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from support.cases import same_bits


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", ">f4"])
def test_there_and_back(batch_first, dtype):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(n, 3, 2)).astype(dtype) for n in (4, 0, 7, 1)]
    x, lengths = qg.pad_sequences(arrays, batch_first=batch_first)
    assert x.shape == ((4, 7, 3, 2) if batch_first else (7, 4, 3, 2))
    assert x.flags.c_contiguous
    assert lengths.dtype == np.int64
    assert lengths.tolist() == [4, 0, 7, 1]
    rows = x if batch_first else x.swapaxes(0, 1)
    assert not any(row[n:].any() for row, n in zip(rows, lengths, strict=True))
    back = qg.unpad(x, lengths, batch_first=batch_first)
    for a, b in zip(arrays, back, strict=True):
        assert same_bits(a.astype(x.dtype), b)
        assert not np.shares_memory(b, x)


def test_types_are_joined_and_features_may_be_absent():
    x, _ = qg.pad_sequences([np.ones(2, np.float32), np.ones(3, np.float64), [1, 2, 3, 4]])
    assert x.shape == (4, 3)
    assert x.dtype == np.float64


def test_a_buffer_of_several_axes_is_an_array_of_sequences():
    whole = np.random.default_rng(0).normal(size=(2, 3, 4))
    for given, want in zip(qg.pad_sequences(memoryview(whole)), qg.pad_sequences(whole), strict=True):
        assert same_bits(given, want)


def test_with_a_network():
    lstm = qg.LSTM(3, 4, rng=0)
    arrays = [np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32) for n in (2, 5)]
    x, lengths = qg.pad_sequences(arrays)
    for a, y in zip(arrays, qg.unpad(lstm(x, lengths=lengths)[0], lengths), strict=True):
        assert same_bits(y, lstm(a)[0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: qg.pad_sequences([]), ValueError, "sequences must hold at least one array"),
        (
            lambda: qg.pad_sequences([np.ones((2, 3)), np.ones((2, 4))]),
            ValueError,
            r"sequences\[1\] must have shape \(T, 3\), got \(2, 4\)",
        ),
        (lambda: qg.pad_sequences([1.0]), ValueError, r"sequences\[0\] must have shape \(T\), got \(\)"),
        (lambda: qg.pad_sequences([np.ones(2), ["a"]]), TypeError, r"sequences\[1\] must hold real numbers"),
        (lambda: qg.pad_sequences([np.ones(2)], batch_first=1), TypeError, "batch_first must be True or False"),
        (lambda: qg.unpad(np.ones(3), [3]), ValueError, r"y must have shape \(T, B, \.\.\.\), got \(3,\)"),
        (lambda: qg.unpad(np.ones((3, 2)), [3]), ValueError, r"lengths must have shape \(2,\), one for each row of y"),
        (lambda: qg.unpad(np.ones((3, 2)), [3, 4]), ValueError, "lengths must be between 0 and T = 3, got 4 for row 1"),
    ],
)
def test_errors_of_padding(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("kind", [qg.LSTM, qg.RNN])
@pytest.mark.parametrize("method", ["__call__", "forward"])
def test_errors_of_masks(kind, method):
    call, x = getattr(kind(3, 4), method), np.ones((5, 2, 3), np.float32)
    with pytest.raises(ValueError, match=r"mask must have shape \(5, 2\), x's without its last axis, got \(2, 5\)"):
        call(x, mask=np.ones((2, 5), bool))
    with pytest.raises(ValueError, match=r"mask must have shape \(5,\)"):
        call(x[:, 0], mask=np.ones((5, 1), bool))
    with pytest.raises(ValueError, match="mask must hold bools, or integers 0 and 1, got other integers"):
        call(x, mask=np.full((5, 2), 2))
    with pytest.raises(TypeError, match="mask must hold bools, or integers 0 and 1, got dtype float64"):
        call(x, mask=np.ones((5, 2)))
    with pytest.raises(ValueError, match="padding_output must be 'zero' or 'last', got 'first'"):
        call(x, mask=np.ones((5, 2), bool), padding_output="first")
    both = getattr(kind(3, 4, bidirectional=True, merge="sum"), method)
    with pytest.raises(ValueError, match="padding_output='last' needs merge='concat', got 'sum'"):
        both(x, mask=np.ones((5, 2), bool), padding_output="last")


def test_errors_of_backward_have_the_shapes_of_the_call():
    lstm, x = qg.LSTM(3, 4), np.ones((5, 2, 3), np.float32)
    *_, tape = lstm.forward(x, mask=np.arange(5)[:, None] > [1, 2], return_cells=True)
    with pytest.raises(ValueError, match=r"dy must have shape \(5, 2, 4\), got \(3, 2, 4\)"):
        lstm.backward(tape, np.ones((3, 2, 4)))
    with pytest.raises(ValueError, match=r"dcells must have shape \(5, 2, 4\)"):
        lstm.backward(tape, dcells=np.ones((3, 2, 4)))
    with pytest.raises(ValueError, match=r"dstate\[1\] must have shape \(1, 2, 4\)"):
        lstm.backward(tape, dstate=(None, np.ones((2, 4))))


def test_out_shares_no_memory_with_the_mask():
    lstm = qg.LSTM(1, 1)
    memory = np.zeros((5, 2, 1), np.float32)
    mask = memory.view(np.bool_)[:, :, 0]
    with pytest.raises(ValueError, match="out must not share memory with mask"):
        lstm(np.ones((5, 2, 1), np.float32), mask=mask, out=memory)


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (0, 0, 3), (0, 3)])
def test_empty_calls(shape):
    lstm = qg.LSTM(3, 4, bidirectional=True)
    x = np.zeros(shape, np.float32)
    call = {"mask": np.ones(shape[:-1], bool), "resets": np.ones(shape[:-1], bool), "padding_output": "last"}
    y, (h, _) = lstm(x, **call)
    assert y.shape == (*shape[:-1], 8)
    assert not h.any()
    y, _, tape = lstm.forward(x, **call, return_cells=True)
    assert lstm.backward(tape, y, dcells=tape.cells).x.shape == shape
