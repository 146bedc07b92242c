"""Callbacks of `fit`, the ends of training before its time, and what it shows of its progress."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
import quadgate as qg
from quadgate import train
from support.fit_models import bits, data, model


def test_early_stopping_puts_the_best_parameters_back():
    x, y, _ = data()
    values = iter([3.0, 2.0, 2.5, 2.2, 1.0])
    seen = []

    class Scripted(train.EarlyStopping):
        def on_epoch_end(self, model, epoch, figures):
            seen.append(bits(model))
            return super().on_epoch_end(model, epoch, {"val_loss": next(values)})

    m = model()
    stop = Scripted(patience=2, restore_best=True)
    history = m.fit(x, y, epochs=9, callbacks=[stop])
    assert len(history.epoch) == 4
    assert stop.best_epoch == 1
    assert bits(m) == seen[1] != seen[3]
    assert stop.best_params.flat.tobytes() == seen[1]
    assert "patience=2" in history.stopped


@pytest.mark.parametrize(
    ("options", "figures", "epochs"),
    [
        ({"monitor": "accuracy"}, [0.1, 0.2, 0.2, 0.9], 3),
        ({"monitor": "loss", "min_delta": 0.1}, [1.0, 0.85, 0.8, 0.7], 3),
        ({"monitor": "loss", "mode": "max", "patience": 1}, [1.0, 2.0, 3.0, 2.0], 4),
        ({"monitor": "accumulated"}, [2.0, 1.0, 1.5, 0.5], 3),
        ({"monitor": "loss", "patience": 5}, [1.0, 2.0, 3.0, 2.0], 4),
        ({"monitor": "loss", "patience": 2}, [np.nan] * 4, 2),
        ({"monitor": "loss", "patience": 2}, [np.nan, 3.0, np.nan, np.nan, 1.0], 4),
    ],
)
def test_rules_of_early_stopping(options, figures, epochs):
    stop = train.EarlyStopping(**options)
    stop.on_train_begin(None)
    for epoch, value in enumerate(figures, 1):
        if stop.on_epoch_end(None, epoch, {options["monitor"]: value}):
            break
    assert epoch == epochs


def test_functions_as_callbacks():
    x, y, _ = data()
    seen = []

    def watch(model, epoch, figures):
        seen.append((epoch, figures["loss"]))
        return epoch == 2

    history = model().fit(x, y, epochs=9, callbacks=[watch])
    assert [epoch for epoch, _ in seen] == [0, 1, 2]
    assert [loss for _, loss in seen] == history["loss"]
    assert history.stopped == "watch"
    history = model().fit(x, y, epochs=9, callbacks=[lambda m, epoch, figures: np.float64(figures["loss"]) < 1e9])
    assert len(history.epoch) == 1


def test_nan_stops_training():
    m = train.Sequential([qg.LSTM(2, 3, rng=0), train.Dense(3, 1)], rng=0)
    m.compile("mse", "sgd")
    x, y = np.zeros((9, 4, 2)), np.zeros((9, 4, 1))
    y[5] = np.inf
    with pytest.raises(FloatingPointError, match="at step 5"):
        m.fit(x, y, batch_size=1, shuffle=False)
    assert np.isfinite(m.params.flat).all()


def test_a_batch_of_which_nothing_counts_is_no_step():
    """Not even one of momentum."""
    x, y, _ = data()
    one, other = (model(optimizer=train.SGD(0.1, momentum=0.9)) for _ in range(2))
    batches = [(x[:8], y[:8]), (x[8:16], y[8:16])]
    one.fit(batches)
    nothing = {"x": x[:2], "y": y[:2], "lengths": [0, 0]}
    other.fit([batches[0], nothing, batches[1], (*batches[0], np.zeros(8))])
    assert bits(one) == bits(other)
    assert other.step == 2
    assert other.train_on_batch(x, y, mask=np.zeros(x.shape, bool)) == 0.0
    with pytest.raises(ValueError, match="at least one row or batch that counts"):
        other.fit([nothing])
    assert bits(one) == bits(other)


def test_interrupted_by_an_error_keeps_history_and_parameters():
    x, y, _ = data()
    m = model()

    def interrupt(model, epoch, figures):
        if epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        m.fit(x, y, epochs=5, callbacks=[interrupt])
    assert len(m.history.epoch) == 2
    assert m.step == 2


def test_progress(capfd):
    x, y, _ = data()
    model().fit(x, y, progress=True)
    assert "epoch 1/1: loss" in capfd.readouterr().err
    model().fit(x, y)  # no terminal
    assert capfd.readouterr().err == ""


class Lines(list):
    """A stream that only writes, as programs with windows put in the place of standard error."""

    write = list.append


@pytest.mark.parametrize("bar", [True, False])
@pytest.mark.parametrize("progress", [None, True, False])
@pytest.mark.parametrize("kind", ["none", "closed", "only writes"])
def test_no_terminal_needed(kind, progress, bar, monkeypatch, capsys):
    """Training needs no standard error: there is none under pythonw, and daemons close or replace it."""
    x, y, _ = data()
    stream = {"none": None, "closed": io.StringIO(), "only writes": Lines()}[kind]
    if kind == "closed":
        stream.close()
    if not bar:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", stream)
    history = model().fit(x, y, progress=progress)
    monkeypatch.undo()
    assert len(history.history["loss"]) == 1
    assert capsys.readouterr() == ("", "")
    if kind == "only writes":
        assert ("epoch 1/1: loss" in "".join(stream)) == (progress is True)


def test_a_terminal_shows_progress_by_default(monkeypatch):
    x, y, _ = data()
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    model().fit(x, y)
    assert "epoch 1/1: loss" in terminal.getvalue()


def test_history_plots_itself():
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed: install it")
    matplotlib.use("Agg")
    x, y, _ = data()
    history = model().fit(x, y, epochs=3, validation_data=(x, y), metrics=["accuracy"])
    ax = history.plot()
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert set(lines) == set(history.history)
    assert list(lines["val_loss"].get_ydata()) == history["val_loss"]
    assert lines["val_loss"].get_color() == lines["loss"].get_color()
    assert lines["val_loss"].get_linestyle() != lines["loss"].get_linestyle()
    assert qg.plot.history(history.history, ax) is ax
    matplotlib.pyplot.close("all")
