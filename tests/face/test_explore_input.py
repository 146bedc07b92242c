"""`quadgate.explore`: labels, shapes and errors, and a page that refers to nothing outside of itself."""

from __future__ import annotations

import html
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import quadgate as qg
from quadgate import train

T, INPUTS, H = 9, 3, 4


def sequence(steps=T, columns=INPUTS):
    return np.random.default_rng(0).standard_normal((steps, columns)).astype(np.float32)


def data_of(page):
    """The JSON of a page, as its script reads it."""
    text = page.path.read_text("utf-8")
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert len(found) == 1
    return json.loads(found[0])


def model():
    layers = [train.Embedding(7, 5), qg.LSTM(5, H, dropout=0.0, rng=1), train.Dense(H, 6)]
    return train.Sequential(layers, rng=3)


EVIL = [
    "</script><script>window.hit=1</script>",
    "<!--",
    "<img src=x onerror=window.hit=1>",
    '"',
    "'",
    "&amp;",
    "\u2028",
]
EVIL += ["%%DATA%%", "\ud800"]


def test_page_refers_to_nothing_outside(tmp_path):
    """No address, import, request, form or frame; and a policy that refuses them."""
    page = qg.explore(qg.LSTM(INPUTS, H, rng=0), sequence(), "abcdefghi", tmp_path / "a.html")
    text = page.path.read_text("utf-8")
    for word in (
        "http:",
        "https:",
        "//cdn",
        "@import",
        "url(",
        "fetch(",
        "XMLHttpRequest",
        "WebSocket",
        "import(",
        "eval(",
    ):
        assert word not in text
    assert not re.search(r"\ssrc\s*=", text)
    assert set(re.findall(r'href="([^"#]*)', text)) == {"", "data:,"}
    assert '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';' in text
    assert "innerHTML" not in text
    assert "insertAdjacentHTML" not in text


def test_labels_cannot_leave_their_place(tmp_path):
    class Odd(qg.LSTM):
        def __repr__(self):
            return "<script>window.hit=1</script>%%DATA%%"

    page = qg.explore(Odd(INPUTS, H, rng=0), sequence(), EVIL, tmp_path / "a.html")
    text = page.path.read_text("utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "<!--" not in text
    assert "<img" not in text
    assert text.count("&lt;script&gt;window.hit=1&lt;/script&gt;%%DATA%%") == 2
    data = data_of(page)
    assert data["labels"] == [*EVIL[:-1], "?"]
    shown = page._repr_html_()
    found = re.fullmatch(
        r'<iframe title="[^"]*" sandbox="allow-scripts" style="[^"]*" srcdoc="([^"]*)"></iframe>', shown
    )
    assert found
    assert html.unescape(found[1]) == text


def test_labels(tmp_path):
    net, x = qg.RNN(2, 3, rng=0), sequence(3, 2)

    def labels(given):
        return data_of(qg.explore(net, x, given, tmp_path / "a.html"))["labels"]

    assert labels(None) is None
    assert labels("a\nß") == ["a", "\n", "ß"]
    assert labels(["un", "deux", "trois"]) == ["un", "deux", "trois"]
    assert labels(np.array(["a", "b", "c"])) == ["a", "b", "c"]
    assert labels(np.array([1, 2, -3])) == labels([1, 2, -3]) == ["1", "2", "-3"]
    assert labels(map(int, "123")) == ["1", "2", "3"]
    assert labels(iter("abc")) == ["a", "b", "c"]
    assert labels(["x" * 50, "", "b"]) == ["x" * 39 + "…", "", "b"]


def test_page_and_shapes_of_x(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = sequence()
    page = qg.explore(qg.LSTM(INPUTS, H, rng=0), x.tolist())
    assert page.path == Path("page.html")
    assert re.fullmatch(r"Page\('page.html', 0.\d\d MB\)", repr(page))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(page, protocol))
        assert (again.path, again._repr_html_()) == (page.path, page._repr_html_())
    first = page.path.read_bytes()
    qg.explore(qg.LSTM(INPUTS, H, rng=0), x[:, None], out="page.html")
    assert page.path.read_bytes() == first
    net = qg.LSTM(INPUTS, H, batch_first=True, rng=0)
    qg.explore(net, x[None], out="page.html")
    assert page.path.read_bytes().replace(b"batch_first=True, ", b"") == first
    ids = np.arange(T) % 7
    model_page = qg.explore(model(), ids, out="m.html").path.read_bytes()
    assert qg.explore(model(), ids[None], out="m.html").path.read_bytes() == model_page
    assert qg.explore.__module__ == "quadgate"


LSTM, X = qg.LSTM(INPUTS, H, rng=0), sequence()
DENSE = train.Sequential([train.Dense(INPUTS, 2)], rng=0)
DROPPING, ZONED = qg.LSTM(INPUTS, H, 2, dropout=0.2, rng=0), qg.LSTM(INPUTS, H, zoneout=(0.1, 0.1), rng=0)
QUANTIZED = r"got int8: explore needs gradients, .* a float32 network .*LSTM.from_state_dict\(net.state_dict\(\)\)"
ERRORS = [
    ((3, X), {}, TypeError, r"net must be a quadgate.LSTM, a quadgate.RNN or a quadgate.train.Sequential, got 3"),
    *[((net.quantize("int8"), X), {}, TypeError, QUANTIZED) for net in (LSTM, DROPPING, ZONED)],
    ((qg.RNN(INPUTS, H, rng=0).quantize("float16"), X), {}, TypeError, "got float16: explore .* RNN.from_state_dict"),
    ((train.Sequential([DROPPING.quantize("int8")]), X), {}, TypeError, QUANTIZED),
    ((DENSE, X), {}, ValueError, "net must have an LSTM or an RNN among its layers"),
    ((LSTM, "abc"), {}, TypeError, "x must hold"),
    ((LSTM, X[:, :2]), {}, ValueError, r"x must .*3"),
    ((LSTM, np.stack([X, X], 1)), {}, ValueError, "x must be one sequence, got a batch of 2: choose one"),
    ((LSTM, X[:0]), {}, ValueError, "x must have at least one step"),
    (
        (LSTM, np.zeros((20_001, INPUTS))),
        {},
        ValueError,
        "x is too long for a page: 20,001 steps, at most 20,000; pass",
    ),
    ((LSTM, X * np.nan), {}, ValueError, "x must be finite"),
    ((model(), X), {}, TypeError, "x must hold integers"),
    ((model(), [[[1]]]), {}, ValueError, r"x must have shape \(T,\) or \(1, T\), got \(1, 1, 1\)"),
    ((model(), [[1], [2]]), {}, ValueError, "x must be one sequence, got a batch of 2"),
    ((model(), [7]), {}, ValueError, "7"),
    ((train.Sequential([LSTM]), X[:, :2]), {}, ValueError, r"x must have 3 columns, got shape \(1, 9, 2\)"),
    ((train.Sequential([LSTM]), X[0]), {}, ValueError, r"x must have shape \(T, I\) or \(1, T, I\), got \(3,\)"),
    ((LSTM, X, "abc"), {}, ValueError, r"labels must be a str of T letters.* T = 9: got 3"),
    ((LSTM, X, ["a"] * 10), {}, ValueError, "labels must be .* T = 9: got 10"),
    ((LSTM, X, 5), {}, TypeError, "labels must be .* got 5"),
    ((LSTM, X, ["a", 1] * 4 + ["a"]), {}, TypeError, "labels must be .* got a mixture"),
    ((LSTM, X, np.zeros(9)), {}, TypeError, "labels must hold str or integers, got dtype float64"),
    ((LSTM, X, np.zeros((9, 1), int)), {}, ValueError, r"labels must be .* got shape \(9, 1\)"),
    ((LSTM, X, memoryview(np.zeros((9, 1), int))), {}, ValueError, r"labels must be .* got shape \(9, 1\)"),
    ((LSTM, X, np.array(5)), {}, ValueError, r"labels must be .* got shape \(\)"),
    ((LSTM, X, map(float, range(9))), {}, TypeError, "labels must hold str or integers, got dtype float64"),
    ((LSTM, X, None, 5), {}, TypeError, "out must be the path of a file, got 5"),
    ((LSTM, X), {"outputs": [4]}, ValueError, r"outputs must be a list of at most 8 numbers from 0 to 3, got \[4\]"),
    ((LSTM, X), {"outputs": 1}, ValueError, "outputs must be a list"),
    ((LSTM, X), {"outputs": [0.5]}, TypeError, "outputs must hold columns of the output"),
    ((LSTM, X), {"out": "no/such/folder.html"}, FileNotFoundError, "folder"),
]


@pytest.mark.parametrize(("args", "more", "error", "message"), ERRORS, ids=[e[3][:40] for e in ERRORS])
def test_errors(args, more, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        qg.explore(*args, **more)
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_finite(tmp_path):
    net = qg.RNN(INPUTS, H, nonlinearity="relu", rng=0)
    with net.writable() as params:
        params["weight_hh_l0"][:] = 1e30
        params["bias_l0"][:] = 1
    with pytest.raises(ValueError, match=r"the network's h is not finite from step 2 on \(layer 0\)"):
        qg.explore(net, np.ones((T, INPUTS)), out=tmp_path / "a.html")
