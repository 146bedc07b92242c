"""Metrics of `fit` and `evaluate`: what counts, what they refuse, and figures by hand."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from quadgate import train


@pytest.mark.parametrize(
    ("name", "loss", "y"),
    [("bits", "softmax_cross_entropy", np.full((4, 3), -100)), ("mse", "mse", np.full((4, 3, 2), np.nan))],
)
def test_metrics_ignore_what_has_no_weight(name, loss, y):
    m = train.Sequential([train.Dense(3, 2)], rng=0)
    m.compile(loss, "sgd")
    x, weights = np.ones((4, 3, 3)), np.zeros((4, 3))
    y[0], weights[0, :2] = 0, 1
    want = m.evaluate(x[:1, :2], y[:1, :2], metrics=[name])
    assert m.evaluate(x, y, sample_weight=weights, metrics=[name])[name] == pytest.approx(want[name])


@pytest.mark.parametrize(
    ("outputs", "loss", "metric", "y"),
    [
        (1, "mse", "bits", np.zeros(4)),
        (1, "softmax_cross_entropy", "bits", np.zeros(4, int)),
        (2, "softmax_cross_entropy", "bits", np.eye(2)[[0, 1, 0, 1]]),
        (2, "mse", "bits", np.zeros((4, 2))),
        (2, "softmax_cross_entropy", "mse", np.zeros(4, int)),
        (2, "softmax_cross_entropy", "mae", np.zeros(4, int)),
        (2, "softmax_cross_entropy", "binary_accuracy", np.zeros(4, int)),
    ],
)
def test_metrics_refuse_targets_that_are_not_theirs(outputs, loss, metric, y):
    m = train.Sequential([train.Dense(3, outputs)], rng=0)
    m.compile(loss, "sgd")
    with pytest.raises(ValueError, match=f"the metric {metric} needs"):
        m.fit(np.ones((4, 3)), y, metrics=[metric])
    assert m.step == 0


def test_figures_under_errstate():
    """Of a probability that underflows nothing is lost; NumPy's settings are the caller's."""
    m = train.Sequential([train.Dense(2, 2, bias=False)], rng=0)
    m.load_params({"0.weight": np.array([[2000.0, 0], [0, 2000.0]])})
    m.compile("softmax_cross_entropy", "sgd")
    with np.errstate(all="raise"):
        figures = m.evaluate([[1.0, 0.0]], [1], metrics=["bits"])
    assert figures["bits"] == pytest.approx(2000 / np.log(2))


def test_binary_accuracy_of_several_outputs_counts_each():
    m = train.Sequential([train.Dense(3, 3)], rng=0)
    m.load_params({"0.weight": np.eye(3, dtype=np.float32), "0.bias": np.zeros(3, np.float32)})
    m.compile("mse", "sgd")
    x, y = np.array([[-1.0, 2.0, -3.0], [4.0, 5.0, 6.0]]), np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    assert m.evaluate(x, y, metrics=["binary_accuracy"])["binary_accuracy"] == pytest.approx(4 / 6)


def test_metrics_of_numbers():
    m = train.Sequential([qg.LSTM(2, 3, rng=0), train.FinalState(), train.Dense(3, 1)], rng=0)
    m.compile("mse", "sgd")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 4, 2)), rng.normal(size=9)
    figures = m.evaluate(x, y, metrics=["mse", "mae"])
    error = m.predict(x)[:, 0].astype(np.float64) - y
    assert figures["mse"] == pytest.approx((error**2).mean(), rel=1e-6)
    assert figures["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-6)
    assert figures["loss"] == pytest.approx(figures["mse"], rel=1e-5)
