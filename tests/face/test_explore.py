"""`quadgate.explore`: the numbers on its page, its size, its independence of everything outside, and its errors."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import quadgate as qg
from quadgate import reference, train
from quadgate._explore import _gradients, _layers, _page

T, INPUTS, H = 9, 3, 4


def sequence(steps=T, columns=INPUTS, seed=0):
    return np.random.default_rng(seed).standard_normal((steps, columns)).astype(np.float32)


def data_of(page):
    """The JSON of a page, as its script reads it."""
    text = page.path.read_text("utf-8")
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert len(found) == 1
    return json.loads(found[0])


def unpacked(packed):
    raw = np.frombuffer(base64.b64decode(packed["data"]), "<u2" if packed["bits"] == 16 else "u1")
    scale = (packed["high"] - packed["low"]) / (2 ** packed["bits"] - 1)
    return (packed["low"] + scale * raw).reshape(packed["shape"])


def rounding(packed):
    """Half a step of a packed array, and the rounding of float64 and float32 arithmetic."""
    span = packed["high"] - packed["low"]
    return 0.5 * span / (2 ** packed["bits"] - 1) + 1e-6 * (abs(packed["low"]) + abs(packed["high"]))


def near(packed, expected):
    assert packed["shape"] == list(expected.shape)
    np.testing.assert_allclose(unpacked(packed), expected, rtol=0, atol=rounding(packed))


NETWORKS = {
    "plain": {},
    "layers": {"num_layers": 3},
    "both directions": {"num_layers": 2, "bidirectional": True},
    "reverse": {"reverse": True},
    "sum": {"num_layers": 2, "bidirectional": True, "merge": "sum"},
    "mul": {"num_layers": 2, "bidirectional": True, "merge": "mul"},
    "residual": {"num_layers": 3, "shortcut": "residual"},
    "highway": {"num_layers": 2, "bidirectional": True, "merge": "mean", "shortcut": "highway"},
    "dense": {"num_layers": 3, "shortcut": "dense"},
    "projection": {"num_layers": 2, "proj_size": 2, "layer_norm": "output", "gate_clip": 1.5},
    "peepholes": {"peephole": True, "cell_clip": 0.5, "layer_norm": "cell"},
    "no bias": {"num_layers": 2, "bias": False, "coupled": True},
    "softsign": {"activations": ("hard_sigmoid", "softsign", ("elu", 0.5))},
    "dropout": {"num_layers": 2, "dropout": 0.5, "recurrent_dropout": 0.4, "weight_drop": 0.3},
    "zoneout": {"num_layers": 2, "bidirectional": True, "zoneout": (0.2, 0.3), "recurrent_dropout": 0.5},
    "float64": {"dtype": np.float64, "initialization": "keras"},
    "batch first": {"batch_first": True, "num_layers": 2},
}
PLAIN = {
    "plain": {},
    "relu": {"nonlinearity": "relu", "num_layers": 2},
    "sides": {"num_layers": 2, "bidirectional": True, "merge": "sum"},
    "dense": {"num_layers": 2, "shortcut": "dense", "dropout": 0.5},
}
EVERY = [pytest.param(qg.LSTM, o, id=f"LSTM {n}") for n, o in NETWORKS.items()]
EVERY += [pytest.param(qg.RNN, o, id=f"RNN {n}") for n, o in PLAIN.items()]


def by_reference(net, x):
    """y, inputs, values, and the tape of the same pass in float64: no training, so nothing is dropped."""
    options = {n: v for n, v in net._options.arguments().items() if n not in ("input_size", "hidden_size")}
    y, _, tape = reference.forward(net.params, x[:, None], **options)
    values = []
    for of in tape.layers:
        steps = of.steps
        one = {"h": [(s.m if net._options.proj_size else s.h)[0] for s in steps]}
        if not net._options.elman:
            one["c"] = [s.c[0] for s in steps]
            one |= {name: [s.gates[n][0] for s in steps] for n, name in enumerate("ifgo")}
        values.append({name: np.array(value) for name, value in one.items()})
    return y[:, 0], [join.x[:, 0] for join in tape.joins], values, tape


@pytest.mark.parametrize(("kind", "options"), EVERY)
def test_values_are_the_networks(kind, options, tmp_path):
    """h, c and gates of every layer and direction, and every layer's input, against float64."""
    # With batch_first a network takes the same arrays without a batch.
    net, x = kind(INPUTS, H, **options, rng=1), sequence()
    _, inputs, values, _ = by_reference(net, x)
    data = data_of(qg.explore(net, x, out=tmp_path / "a.html"))
    assert data["steps"] == T
    assert len(data["states"]) == len(values)
    for state, expected in zip(data["states"], values, strict=True):
        assert state["signals"].keys() == expected.keys()
        for name, value in expected.items():
            near(state["signals"][name], value.T)
    directions = net._options.directions
    for at, state in enumerate(data["states"]):
        near(data["inputs"][state["input"]]["data"], inputs[at // directions].T)


@pytest.mark.parametrize(("kind", "options"), EVERY)
def test_gradients_are_the_networks(kind, options, tmp_path):
    """Norms of the gradients of every output and step, against the float64 reference."""
    net, x = kind(INPUTS, H, **{**options, "dtype": np.float64}, rng=1), sequence()
    y, _, _, tape = by_reference(net, x)
    data = data_of(qg.explore(net, x, out=tmp_path / "a.html", outputs=[1]))["gradients"]
    assert data["steps"] == list(range(T))
    assert data["names"] == ["norm of the output", "output 1"]
    logs = {name: unpacked(data[name]) for name in ("x", "dh", "dc")}
    for step in (0, 4, T - 1):
        for output in (0, 1):
            dy = np.zeros((T, 1, y.shape[1]))
            dy[step, 0] = y[step] / np.linalg.norm(y[step]) if output == 0 else np.arange(y.shape[1]) == 1
            grads = reference.backward(net.params, tape, dy)
            expected = {"x": np.linalg.norm(grads.x[:, 0], axis=1), "dh": grads.dh_norm[:, :, 0]}
            expected["dc"] = grads.dc_norm[:, :, 0]
            for name, value in expected.items():
                got = logs[name][output, step]
                zero = value < 1e-30  # outside of what the output depends on: exact zeros
                assert (got[zero] < data["floor"]).all()
                if not zero.all():
                    allowed = rounding(data[name])
                    np.testing.assert_allclose(got[~zero], np.log10(value[~zero]), rtol=0, atol=allowed)


def model(**more):
    layers = [
        train.Embedding(7, 5),
        qg.LSTM(5, H, 2, dropout=0.5, dtype=np.float64, rng=1),
        train.Dropout(0.5),
        qg.RNN(H, 3, dtype=np.float64, rng=2),
    ]
    return train.Sequential([*layers, train.Dense(3, 6)], rng=3, **more)


def test_model(tmp_path):
    """All networks of a model, from its own inputs, and gradients of its own outputs by the embedding's vectors."""
    net, ids = model(), np.arange(T) % 7
    data = data_of(qg.explore(net, ids, out=tmp_path / "a.html", outputs=[4]))
    assert [state["name"] for state in data["states"]] == [
        "network 1, layer 0",
        "network 1, layer 1",
        "network 2, layer 0",
    ]
    assert data["labels"] == [str(n) for n in ids]
    vectors = net.layers[0].params["weight"][ids]
    near(data["inputs"][0]["data"], vectors.T)
    first, second, dense = net.layers[1], net.layers[3], net.layers[4]
    y1 = by_reference(first, vectors)[0]
    y2 = by_reference(second, y1)[0]
    near(data["states"][1]["signals"]["h"], y1.T)
    near(data["states"][2]["signals"]["h"], y2.T)
    assert data["gradients"]["names"] == ["largest output of the step", "output 4"]
    weight = dense.params["weight"].astype(float)
    step = 5
    largest = int((y2[step] @ weight.T + dense.params["bias"]).argmax())
    for output, column in enumerate((largest, 4)):
        dy = np.zeros((T, 1, 3))
        dy[step, 0] = weight[column]
        after = reference.backward(second.params, by_reference(second, y1)[3], dy)
        before = reference.backward(first.params, by_reference(first, vectors)[3], after.x)
        value = np.linalg.norm(before.x[:, 0], axis=1)
        got = unpacked(data["gradients"]["x"])[output, step]
        allowed = rounding(data["gradients"]["x"])
        np.testing.assert_allclose(got[: step + 1], np.log10(value[: step + 1]), rtol=0, atol=allowed)
        assert (got[step + 1 :] < data["gradients"]["floor"]).all()


@pytest.mark.parametrize("zoneout", [0.0, 0.25])
def test_model_with_one_output(zoneout, tmp_path):
    """One output for the sequence has gradients for the last step alone."""
    lstm = qg.LSTM(INPUTS, H, 2, bidirectional=True, zoneout=(zoneout, 0.0), dtype=np.float64, rng=0)
    net = train.Sequential([lstm, train.FinalState(), train.Dense(2 * H, 1)], rng=0)
    x = sequence()
    data = data_of(qg.explore(net, x, out=tmp_path / "a.html", outputs=[0]))["gradients"]
    assert data["steps"] == [T - 1]
    tape = by_reference(lstm, x)[3]
    weight = net.layers[2].params["weight"].astype(float)
    dh = np.zeros((4, 1, H))
    dh[2:, 0] = weight.reshape(2, H)
    grads = reference.backward(lstm.params, tape, dstate=(dh, None))
    allowed = rounding(data["x"])
    got = unpacked(data["x"])[1, 0]
    np.testing.assert_allclose(got, np.log10(np.linalg.norm(grads.x[:, 0], axis=1)), rtol=0, atol=allowed)


def test_model_with_masking(tmp_path):
    """Skipped steps are zeros and do not act; a stateful model starts from zeros."""
    lstm = qg.LSTM(INPUTS, H, rng=0)
    net = train.Sequential([train.Masking(0.0), lstm], stateful=True, rng=0)
    x = sequence()
    x[3:5] = 0
    data = data_of(qg.explore(net, x, out=tmp_path / "a.html"))
    kept = np.r_[0:3, 5:T]
    y = by_reference(lstm, x[kept])[0]
    h = unpacked(data["states"][0]["signals"]["h"])
    allowed = rounding(data["states"][0]["signals"]["h"])
    np.testing.assert_allclose(h[:, kept], y.T, rtol=0, atol=allowed)
    np.testing.assert_allclose(h[:, 3:5], 0, rtol=0, atol=allowed)
    assert len(data["notes"]) == 2


def test_nothing_about_the_network_changes(tmp_path):
    net = qg.LSTM(INPUTS, H, 2, dropout=0.5, zoneout=(0.1, 0.1), rng=0)
    before = net._generator.bit_generator.state
    params = {name: value.copy() for name, value in net.params.items()}
    qg.explore(net, sequence(), out=tmp_path / "a.html")
    assert net._generator.bit_generator.state == before
    assert all(np.array_equal(net.params[name], value) for name, value in params.items())


def test_sources_are_the_strongest(tmp_path):
    net, x = qg.LSTM(INPUTS, H, rng=0), sequence()
    with net.writable() as params:
        params["weight_ih_l0"][:] = 0
        params["weight_hh_l0"][:] = 0
        params["weight_ih_l0"][2 * H + 1, 2] = 1.5  # g of unit 1 reads column 2
        params["weight_hh_l0"][3, 1] = -0.5  # i of unit 3 reads unit 1
    state = data_of(qg.explore(net, x, out=tmp_path / "a.html"))["states"][0]
    assert state["sources"][1][0] == 2
    assert state["strengths"][1][0] == pytest.approx(1.5 * x[:, 2].std(), rel=1e-3)
    assert state["sources"][3][0] == INPUTS + 1
    assert state["strengths"][3][0] == pytest.approx(0.5 * by_reference(net, x)[0][:, 1].std(), rel=1e-3)
    assert state["strengths"][1][1] == 0


def test_periods():
    t = np.arange(60)
    waves = np.stack([np.sin(2 * np.pi * t / 12), 3 + np.cos(2 * np.pi * t / 5), np.full(60, 0.7)], axis=1)
    np.testing.assert_allclose(_page.periods(waves), [12, 5, 0])
    assert not _page.periods(waves[:3]).any()


def test_size_of_a_page_and_of_the_package(tmp_path):
    """200 steps of 256 units are below 5 MB, and the package below 100 KB."""
    page = qg.explore(qg.LSTM(64, 256, rng=0), sequence(200, 64), "x" * 200, tmp_path / "a.html")
    assert page.path.stat().st_size < 5e6
    assert data_of(page)["bits"] == 16
    files = [path for path in Path(_page.__file__).parent.iterdir() if path.suffix in (".py", ".js", ".css", ".html")]
    assert sum(path.stat().st_size for path in files) < 100_000
    assert max(len(path.read_text("utf-8").splitlines()) for path in files) <= 400


def test_large_pages_have_8_bits_and_fewer_steps(monkeypatch, tmp_path):
    monkeypatch.setattr(_page, "FINE", 100)
    monkeypatch.setattr(_gradients, "MOST_NUMBERS", 4 * T * 3 * 3)
    net, x = qg.LSTM(INPUTS, H, rng=0), sequence()
    data = data_of(qg.explore(net, x, out=tmp_path / "a.html"))
    assert data["bits"] == 8
    assert data["gradients"]["steps"] == [0, 3, 5, 8]
    near(data["states"][0]["signals"]["h"], by_reference(net, x)[0].T)
    monkeypatch.setattr(_page, "MOST", 100)
    with pytest.raises(ValueError, match=r"x is too long for a page: 216 numbers.*at most 100; pass a part"):
        qg.explore(net, x, out=tmp_path / "b.html")
    assert not (tmp_path / "b.html").exists()


@pytest.mark.parametrize(
    ("net", "signals"),
    [
        (qg.RNN(INPUTS, H, 2, rng=0), 2 * H),
        (qg.LSTM(INPUTS, H, 2, bidirectional=True, proj_size=2, rng=0), 4 * 6 * H),
        (qg.LSTM(INPUTS, H, zoneout=(0.1, 0.1), rng=0), 6 * H),
        (train.Sequential([qg.LSTM(INPUTS, H), train.Dropout(0.5), qg.RNN(H, 2)], rng=0), 6 * H + 2),
    ],
)
def test_the_size_is_known_before_anything_runs(net, signals, monkeypatch, tmp_path):
    """The limit counts every number of a page; beyond it nothing is computed first."""
    monkeypatch.setattr(_page, "MOST", T * signals)
    page = data_of(qg.explore(net, sequence(), out=tmp_path / "a.html"))
    assert sum(np.prod(v["shape"]) for state in page["states"] for v in state["signals"].values()) == T * signals

    def refuse(*_):
        raise AssertionError("it ran")

    monkeypatch.setattr(_page, "MOST", T * signals - 1)
    monkeypatch.setattr(_layers.Inside, "forward", refuse)
    with pytest.raises(ValueError, match=f"x is too long for a page: {T * signals} numbers"):
        qg.explore(net, sequence(), out=tmp_path / "b.html")


def test_wide_inputs_keep_the_strongest_columns(monkeypatch, tmp_path):
    monkeypatch.setattr(_page, "COLUMNS", 4)
    net, x = qg.LSTM(40, H, rng=0), sequence(columns=40) * np.linspace(0.1, 3, 40, dtype=np.float32)
    data = data_of(qg.explore(net, x, out=tmp_path / "a.html"))
    columns = data["inputs"][0]["columns"]
    assert len(columns) == 4
    assert columns == sorted(columns)
    assert data["inputs"][0]["width"] == 40
    assert {row[0] for row in data["states"][0]["sources"]} <= {*columns, *range(40, 44)}
    near(data["inputs"][0]["data"], x[:, columns].T)


def test_one_step(tmp_path):
    data = data_of(qg.explore(qg.LSTM(INPUTS, 1, rng=0), sequence(1), "a", tmp_path / "a.html"))
    assert data["gradients"]["steps"] == [0]
    assert data["states"][0]["periods"]["h"] == [0.0]


def test_strongest_sources_of_few():
    """A network with fewer sources than the page lists has them all."""
    seen = _layers.look(_layers.chain_of(qg.LSTM(1, 2, rng=0)), sequence(4, 1)[None], None)
    assert seen.states[0].sources.shape == (2, 3)
