"""Arguments and results of a call beside x, y and the states: resets, cells, traces."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import quadgate as qg
from support.cases import same_bits


def test_a_trace():
    """Gates and cells of every step, time-major; norms after backward, new ones each time."""
    lstm = qg.LSTM(3, 5, 2, batch_first=True, bidirectional=True, rng=0)
    x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    y, _, tape = lstm.forward(x, lengths=[6, 2, 0, 4], return_cells=True, trace=True)
    trace, cells = tape.trace, tape.cells
    assert type(trace) is qg.Trace
    for value in (trace.i, trace.f, trace.g, trace.o, trace.c):
        assert value.shape == (4, 6, 4, 5)
        assert value.dtype == np.float32
        assert not value[:, 2:, 1].any()
        assert not value[:, :, 2].any()
        assert value[:, :2, 1].all()
    assert (trace.i[:, 0, 0] > 0).all()
    assert same_bits(np.ascontiguousarray(cells[..., :5].swapaxes(0, 1)), trace.c[2])
    assert same_bits(np.ascontiguousarray(cells[..., 5:].swapaxes(0, 1)), trace.c[3])
    # c = f c' + i g, rounded three times at most, of terms below 2 in size
    made = trace.f[2, 1:, 0] * trace.c[2, :-1, 0] + trace.i[2, 1:, 0] * trace.g[2, 1:, 0]
    np.testing.assert_allclose(made, trace.c[2, 1:, 0], atol=6 * np.finfo(np.float32).eps, rtol=0)
    h = trace.o[2] * np.tanh(trace.c[2])
    np.testing.assert_allclose(h, y[..., :5].swapaxes(0, 1), atol=8 * np.finfo(np.float32).eps, rtol=0)
    assert trace.dh_norm is None
    assert trace.dc_norm is None
    lstm.backward(tape, np.ones_like(y))
    first = trace.dh_norm, trace.dc_norm
    assert first[0].shape == first[1].shape == (4, 6, 4)
    assert not first[0][:, 2:, 1].any()
    np.testing.assert_allclose(first[0][2, 5, 0], np.sqrt(5), rtol=8 * np.finfo(np.float32).eps)
    lstm.backward(tape, np.ones_like(y).tolist())
    assert trace.dh_norm is not first[0]
    assert same_bits(trace.dh_norm, first[0])
    assert same_bits(trace.dc_norm, first[1])
    assert lstm.forward(x)[-1].trace is None
    assert pickle.loads(pickle.dumps(trace)).c.shape == trace.c.shape
    _, _, tape = lstm.forward(x[0], trace=True)
    assert tape.trace.o.shape == (4, 6, 1, 5)


@pytest.mark.parametrize("change", [np.asarray, np.ndarray.tolist, np.asfortranarray, lambda a: a[:, ::-1][:, ::-1]])
def test_resets_and_dcells_of_any_kind(change):
    lstm = qg.LSTM(3, 5, rng=0)
    rng = np.random.default_rng(1)
    x, resets = rng.normal(size=(4, 2, 3)).astype(np.float32), rng.random((4, 2)) < 0.5
    y, (h, c), tape = lstm.forward(x, resets=resets, return_cells=True)
    cells = tape.cells
    want = lstm.backward(tape, dcells=cells)
    for got in (lstm(x, resets=change(resets), return_cells=True), lstm(x.tolist(), resets=resets, return_cells=True)):
        assert same_bits(got[0], y)
        assert same_bits(got[1][0], h)
        assert same_bits(got[1][1], c)
        assert same_bits(got[2], cells)
    assert not same_bits(lstm(x)[0], y)
    grads = lstm.backward(tape, dcells=change(cells))
    assert same_bits(grads.x, want.x)
    assert same_bits(grads.params["weight_hh_l0"], want.params["weight_hh_l0"])
    stream = lstm.stream(2)
    assert same_bits(stream.run(x, resets=change(resets)), y)
    out = np.zeros_like(y)
    assert lstm(x, resets=change(resets), return_cells=True, out=out)[0] is out
    assert same_bits(out, y)


def test_resets_of_a_stream_in_every_layout():
    rng = np.random.default_rng(1)
    x, resets = rng.normal(size=(4, 2, 3)).astype(np.float32), rng.random((4, 2)) < 0.5
    lstm = qg.LSTM(3, 5, rng=0)
    first = qg.LSTM(3, 5, batch_first=True, rng=0)
    want, _ = lstm(x, resets=resets)
    stream = first.stream(2)
    y = stream.run(np.ascontiguousarray(x.swapaxes(0, 1)), resets=resets.T)
    assert same_bits(np.ascontiguousarray(y.swapaxes(0, 1)), want)
    assert same_bits(lstm.stream().run(x[:, 0], resets=resets[:, 0]), np.ascontiguousarray(want[:, 0]))
    before = stream.state
    for bad in (resets, resets.T[0], resets.T.astype(np.float32)):
        with pytest.raises(ValueError if bad.dtype == bool else TypeError, match=r"^resets must"):
            stream.run(np.ascontiguousarray(x.swapaxes(0, 1)), resets=bad)
    assert all(same_bits(a, b) for a, b in zip(stream.state, before, strict=True))
