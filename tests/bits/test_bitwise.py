"""Results are equal to the last bit over threads, batch sizes, ways to cut a sequence, streams and output buffers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import quadgate as qg
from support.cases import data, infer, model, plain, run, same_bits, to_layout

pytestmark = pytest.mark.numbers

# One case for each way to split a call, over rows, hidden units, directions, layers, and some too small for that.
CASES = [
    plain(3, 2, 4, 5),
    plain(40, 1, 33, 256),
    plain(24, 1, 64, 320, dtype="float64"),
    plain(12, 37, 40, 100, lengths=True),
    plain(6, 64, 130, 200),
    plain(8, 19, 31, 65, 1, True, lengths=True, dtype="float64"),
    plain(10, 7, 24, 96, 3),
    plain(9, 6, 20, 63, 3, True, bias=False, batch_first=True),
    plain(50, 3, 17, 33, 4, dtype="float64", state=False),
]


def name_of(case):
    return (
        f"T{case.steps}-B{case.batch}-I{case.inputs}-H{case.hidden}-L{case.layers}-D{case.directions}-{case.dtype[5:]}"
    )


every_case = pytest.mark.parametrize("case", CASES, ids=name_of)


def assert_same(got, want):
    for name, value in want.items():
        assert same_bits(got[name], value), f"{name} differs in {np.sum(got[name] != value)} elements"


@every_case
def test_threads(case):
    """Outputs, states and every gradient."""
    lstm, d = model(case), data(case)
    qg.set_num_threads(1)
    want = run(case, lstm, d)
    for threads in (2, 3, 1, 5):
        qg.set_num_threads(threads)
        assert qg.get_num_threads() == threads
        for _ in range(3):  # the split over threads may differ from call to call
            assert_same(run(case, lstm, d), want)


@every_case
def test_calls(case):
    """With and without a tape, with the network's memory new and used."""
    lstm, d = model(case), data(case)
    want = run(case, lstm, d)
    for name, value in infer(case, lstm, d).items():
        assert same_bits(value, want[name])
    for other in (plain(2, 3, case.inputs, case.hidden), plain(70, 5, case.inputs, case.hidden)):
        kind = dataclasses.replace(case, steps=other.steps, batch=other.batch)
        infer(kind, lstm, data(kind))
    assert_same(run(case, lstm, d), want)


@pytest.mark.parametrize("threads", [1, 2])
@every_case
def test_a_row_is_the_same_in_every_batch(case, threads):
    """Alone, and in a smaller batch at another place: y, final state, gradients of x and of the initial state."""
    qg.set_num_threads(threads)
    lstm, d = model(case), data(case)
    want = run(case, lstm, d)
    groups = [[row] for row in sorted({0, case.batch // 2, case.batch - 1})]
    groups += [list(range(case.batch))[::-1], list(range(0, case.batch, 2)), list(range(case.batch // 3, case.batch))]
    for rows in groups:
        some = d._replace(
            x=np.ascontiguousarray(d.x[:, rows]),
            state=None if d.state is None else tuple(np.ascontiguousarray(s[:, rows]) for s in d.state),
            lengths=None if d.lengths is None else d.lengths[rows],
            dy=np.ascontiguousarray(d.dy[:, rows]),
            dstate=tuple(np.ascontiguousarray(s[:, rows]) for s in d.dstate),
        )
        got = run(dataclasses.replace(case, batch=len(rows)), lstm, some)
        for name in ("y", "h", "c", "dx", "dh0", "dc0"):
            assert same_bits(got[name], want[name][:, rows]), f"{name} of rows {rows}"


@pytest.mark.parametrize("case", [c for c in CASES if not c.bidirectional and not c.lengths], ids=name_of)
def test_a_sequence_is_the_same_in_chunks(case):
    """The state passed from call to call; chunks of 1, 2, 3, 5, ... steps cut the input in other ways."""
    lstm, d = model(case), data(case)
    y, h, c = infer(case, lstm, d).values()
    for sizes in ([1] * case.steps, [case.steps - 1, 1], [1, 2, 3, 5, 8, 13, 21]):
        state, start, parts = d.state, 0, []
        for size in sizes:
            if start < case.steps:
                y_part, state = lstm(to_layout(case, d.x[start : start + size]), state)
                parts.append(y_part)
                start += size
        assert same_bits(np.concatenate(parts, 1 if case.batch_first else 0), to_layout(case, y))
        assert same_bits(state[0], h)
        assert same_bits(state[1], c)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", [c for c in CASES if not c.bidirectional and not c.lengths], ids=name_of)
def test_a_stream_is_the_whole_call(case, threads):
    """step, run and a mixture of both."""
    qg.set_num_threads(threads)
    lstm, d = model(dataclasses.replace(case, batch_first=False)), data(case)
    y, (h, c) = lstm(d.x, d.state)
    stream = lstm.stream(case.batch)
    for cuts in ([1] * case.steps, [case.steps], [2, 1, 1, case.steps]):
        stream.reset()
        if d.state is not None:
            stream.state = d.state
        at = 0
        for size in cuts:
            part = d.x[at : at + size]
            if not len(part):
                break
            got = stream.step(part[0]) if size == 1 else stream.run(part)
            assert same_bits(got, y[at] if size == 1 else y[at : at + size])
            at += len(part)
        assert at == case.steps
        assert same_bits(stream.state[0], h)
        assert same_bits(stream.state[1], c)


@every_case
def test_out_is_what_is_returned(case):
    lstm, d = model(case), data(case)
    y, h, c = infer(case, lstm, d).values()
    wanted = to_layout(case, y)
    out = np.full_like(wanted, np.nan)
    keywords = {} if d.lengths is None else {"lengths": d.lengths}
    got, state = lstm(to_layout(case, d.x), d.state, out=out, **keywords)
    assert got is out
    assert same_bits(out, wanted)
    assert same_bits(state[0], h)
    assert same_bits(state[1], c)


def test_out_of_another_layout():
    """A part of a larger array, every second step, transposed, reversed: written in place, the rest unchanged."""
    case = plain(6, 4, 5, 17)
    lstm, d = model(case), data(case)
    y, _ = lstm(d.x, d.state)

    def views():
        wide = np.full((13, 6, 40), 7, np.float32)
        yield wide, wide[1:13:2, 1:5, 3:20]
        turned = np.full((17, 4, 6), 7, np.float32)
        yield turned, turned.T
        back = np.full((6, 4, 17), 7, np.float32)
        yield back, back[::-1, :, ::-1]

    for base, view in views():
        got, _ = lstm(d.x, d.state, out=view)
        assert got is view
        assert same_bits(np.ascontiguousarray(view), y)
        assert (base == 7).sum() == base.size - y.size


@pytest.mark.parametrize("case", CASES[:4] + CASES[7:], ids=name_of)
def test_layouts_of_the_input(case):
    """Strided, transposed and reversed arrays give what their contiguous copies give."""
    lstm, d = model(case), data(case)
    want = run(case, lstm, d)

    def spread(a):
        if a is None:
            return None
        wide = np.full([2 * n + 3 for n in a.shape], np.nan if a.dtype.kind == "f" else -9, a.dtype)
        view = wide[tuple(slice(1, 2 * n + 1, 2) for n in a.shape)]
        view[...] = a
        return view

    def last_axis_first(a):
        return None if a is None else np.moveaxis(np.ascontiguousarray(np.moveaxis(a, -1, 0)), 0, -1)

    def backwards(a):
        return None if a is None else np.ascontiguousarray(a[..., ::-1])[..., ::-1]

    def padded_rows(a):
        """Only the last axis contiguous: what the core reads in place."""
        if a is None or a.ndim < 2:
            return a
        wide = np.full((*a.shape[:-1], a.shape[-1] + 5), np.nan, a.dtype)
        wide[..., :-5] = a
        return wide[..., :-5]

    for change in (spread, last_axis_first, backwards, padded_rows):
        keywords = {} if d.lengths is None else {"lengths": change(d.lengths)}
        state = None if d.state is None else tuple(map(change, d.state))
        y, (h, c), tape = lstm.forward(change(to_layout(case, d.x)), state, **keywords)
        grads = lstm.backward(tape, change(to_layout(case, d.dy)), tuple(map(change, d.dstate)))
        assert same_bits(y, to_layout(case, want.y)), change.__name__
        assert same_bits(h, want.h)
        assert same_bits(c, want.c)
        assert same_bits(grads.x, to_layout(case, want.dx)), change.__name__
        for name, value in want.params.items():
            assert same_bits(grads.params[name], value), f"{change.__name__}: {name}"
