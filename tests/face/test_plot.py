"""`quadgate.plot`: pictures show the numbers of the trace; matplotlib is loaded when one is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed, nothing can be drawn: install it")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def trace(backward=True, steps=7):
    lstm = qg.LSTM(3, 5, 2, bidirectional=True, rng=0)
    x = np.random.default_rng(0).normal(size=(steps, 2, 3)).astype(np.float32)
    y, _, tape = lstm.forward(x, trace=True)
    if backward:
        dy = np.zeros_like(y)
        dy[-1] = 1
        lstm.backward(tape, dy)
    return tape.trace


def test_gates():
    t = trace()
    axes = qg.plot.gates(t, state=3, row=1, units=[4, 0])
    assert len(axes) == 5
    for ax, name in zip(axes, "ifgoc", strict=True):
        (image,) = ax.get_images()
        assert np.array_equal(image.get_array(), getattr(t, name)[3, :, 1, [4, 0]])
        low, high = image.get_clim()
        assert low <= image.get_array().min()
        assert high >= image.get_array().max()
    units = qg.plot.gates(t, units=iter([1]))[0].get_images()[0].get_array()
    assert np.array_equal(units, t.i[0, :, 0, [1]])
    assert qg.plot.gates(t)[0].get_images()[0].get_array().shape == (5, 7)


def test_gradient_norms():
    t = trace()
    ax = qg.plot.gradient_norms(t)
    lines = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    assert len(lines) == 8
    for name, norms in (("h", t.dh_norm), ("c", t.dc_norm)):
        for state in range(4):
            want = np.sqrt((norms[state].astype(np.float64) ** 2).sum(axis=1))
            got = lines[f"gradient of {name}, state {state}"]
            assert np.allclose(np.nan_to_num(got), want, rtol=1e-14)
    assert ax.get_yscale() == "log"
    own = plt.figure().add_subplot()
    assert qg.plot.gradient_norms(t, row=1, ax=own) is own
    assert np.allclose(np.nan_to_num(own.get_lines()[0].get_ydata()), t.dh_norm[0, :, 1])


def test_one_step_has_markers():
    """A line of one value would show nothing."""
    t = trace(steps=1)
    lines = qg.plot.gradient_norms(t, row=0).get_lines()
    assert lines
    assert all(line.get_marker() == "o" for line in lines)
    assert all(line.get_marker() == "None" for line in qg.plot.gradient_norms(trace()).get_lines())


@pytest.mark.filterwarnings("error")
def test_norms_of_zeros_have_no_lines():
    t = trace()
    t.dh_norm, t.dc_norm = np.zeros_like(t.dh_norm), np.zeros_like(t.dc_norm)
    assert not qg.plot.gradient_norms(t).get_lines()


def test_history_of_a_mapping():
    ax = qg.plot.history({"loss": [3.0, 2.0], "val_loss": [3.5, 2.5]})
    assert [line.get_label() for line in ax.get_lines()] == ["loss", "val_loss"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: qg.plot.gates(3), TypeError, r"trace must be tape\.trace after forward\(x, trace=True\), got int"),
        (lambda: qg.plot.gates(trace(), state=4), ValueError, "state must be one of 0 to 3, got 4"),
        (lambda: qg.plot.gates(trace(), row=2), ValueError, "row must be one of 0 to 1, got 2"),
        (lambda: qg.plot.gates(trace(), units=3), ValueError, "units must be a list of numbers from 0 to 4, got 3"),
        (lambda: qg.plot.gates(trace(), units=[9]), ValueError, r"units must be .*, got \[9\]"),
        (lambda: qg.plot.gates(trace(), units=[0.5]), TypeError, "units must hold numbers of units, got dtype float64"),
        (lambda: qg.plot.gradient_norms(trace(), row=False), TypeError, "row must be 0 or a positive int, got False"),
        (lambda: qg.plot.gradient_norms(trace(), row=[]), TypeError, r"row must be 0 or a positive int, got \[\]"),
        (lambda: qg.plot.gradient_norms(trace(), row=0.0), TypeError, r"row must be 0 or a positive int, got 0\.0"),
        (lambda: qg.plot.gradient_norms(trace(), row=2), ValueError, "row must be one of 0 to 1, got 2"),
        (lambda: qg.plot.gradient_norms(trace(), ax=3), TypeError, "ax must be None or axes of matplotlib, got 3"),
        (lambda: qg.plot.history(None), TypeError, "figures must be a History, or a mapping .*, got None"),
        (lambda: qg.plot.history([1.0]), TypeError, r"figures must be a History, or a mapping .*, got \[1\.0\]"),
        (lambda: qg.plot.history({1: [1.0]}), TypeError, "a name of figures must be a str, got 1"),
        (lambda: qg.plot.history({"loss": 3.0}), ValueError, r"figures\['loss'\] must be a list of numbers, got 3\.0"),
        (lambda: qg.plot.history({"loss": None}), TypeError, r"figures\['loss'\] must hold real numbers"),
        (lambda: qg.plot.history({}, ax="x"), TypeError, "ax must be None or axes of matplotlib, got 'x'"),
        (lambda: qg.plot.gradient_norms(trace(False)), ValueError, "call backward with its tape first"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_without_matplotlib(run_script):
    """Importing the package loads no matplotlib, and an error says what to install."""
    run_script(
        """
        import sys
        import quadgate as qg
        qg.plot
        assert "matplotlib" not in sys.modules
        sys.modules["matplotlib"] = sys.modules["matplotlib.pyplot"] = None
        try:
            qg.plot.history({})
        except ImportError as error:
            assert str(error).endswith("pip install matplotlib"), error
        else:
            raise SystemExit("no error")
        assert "pip install matplotlib``" in qg.train.History.plot.__doc__
        """
    )
