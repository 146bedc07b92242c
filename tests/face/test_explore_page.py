"""The page of `quadgate.explore` in headless Chromium: every view is used, by mouse and by keys, without an error."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from quadgate import train
from support import chromium

PROGRAM = chromium.find()
pytestmark = pytest.mark.skipif(
    PROGRAM is None,
    reason="Chromium is not found, the page is not opened: install chromium, or name it in QUADGATE_CHROMIUM",
)
T, H = 24, 6
TEXT = "for a in b:\n  print(a)\n "
VIEWS = ("input", "map", "unit", "gates", "links", "spans", "norms")


@pytest.fixture(scope="module")
def browser():
    with chromium.Browser(PROGRAM) as found:
        yield found


@pytest.fixture
def tab(browser):
    """The tab, of which each test expects no problem and no request but for the page."""
    browser.problems.clear()
    browser.requests.clear()
    browser.look()
    yield browser
    assert not browser.problems
    assert len(browser.requests) == 1
    assert browser.requests[0].startswith("file:///")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of a model, an LSTM of two directions without labels, an RNN and a model with one output."""
    folder = tmp_path_factory.mktemp("pages")
    x = np.random.default_rng(0).standard_normal((T, 3)).astype(np.float32)
    ids = np.frombuffer(TEXT.encode(), np.uint8) % 11
    layers = [train.Embedding(11, 5), qg.LSTM(5, H, 2, forget_bias=1.0, rng=0), train.Dense(H, 11)]
    last = [qg.LSTM(3, H, rng=0), train.FinalState(), train.Dense(H, 1)]
    return {
        "model": qg.explore(train.Sequential(layers, rng=0), ids, TEXT, folder / "model.html"),
        "both": qg.explore(qg.LSTM(3, H, 2, bidirectional=True, rng=0), x, None, folder / "both.html"),
        "plain": qg.explore(qg.RNN(3, H, rng=0), x, [f"word {n}" for n in range(T)], folder / "plain.html"),
        "one": qg.explore(train.Sequential(last, rng=0), x, np.arange(T), folder / "one.html"),
        "column": qg.explore(qg.LSTM(1, 1, rng=0), x[:, :1], out=folder / "column.html"),
        "step": qg.explore(qg.LSTM(3, 2, rng=0), x[:1], out=folder / "step.html"),
    }


DRAWN = """
[...document.querySelectorAll("canvas")].filter((canvas) => !canvas.hidden).map((canvas) => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return [canvas.id, new Set(new Uint32Array(data.buffer)).size];
})
"""


@pytest.mark.parametrize("name", ["model", "both", "plain", "one", "column", "step"])
@pytest.mark.parametrize(("width", "dark"), [(1100, False), (390, True)], ids=["light", "dark phone"])
def test_every_view_is_drawn(tab, pages, name, width, dark):
    """Every canvas has a picture, each view can be photographed, and nothing is wider than the window."""
    tab.look(width=width, dark=dark)
    tab.open(pages[name].path)
    drawn = dict(tab.run(DRAWN))
    assert len(drawn) >= 8
    assert min(drawn.values()) > 3
    assert tab.run("document.documentElement.scrollWidth") <= width
    back = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, back[4:-1].split(","))) < 384) == dark
    for view in VIEWS:
        shot = tab.photograph(f"#{view}")
        assert shot.startswith(b"\x89PNG")
        assert len(shot) > 2000
    tab.run("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    tab.settle()
    assert tab.run("[...document.querySelectorAll('details table')].every((e) => e.rows.length > 1)")
    assert tab.run("document.documentElement.scrollWidth") <= width


def test_input(tab, pages):
    tab.open(pages["model"].path)
    assert tab.run("document.querySelectorAll('#letters span').length") == T
    tab.click("#letter-4")
    assert tab.run("chosen.step") == 4
    assert tab.run("document.querySelector('#letters [aria-selected=true]').textContent") == "a"
    assert tab.run("byId('where').textContent").startswith("step 4 “a”, unit 0: h = ")
    tab.press("ArrowRight")  # the click gave it the focus
    assert tab.run("chosen.step") in (4, 5)
    tab.run("byId('letters').focus()")
    tab.press("End")
    assert tab.run("chosen.step") == T - 1
    tab.press("ArrowLeft")
    assert tab.run("byId('letters').getAttribute('aria-activedescendant')") == f"letter-{T - 2}"
    tab.click("#input-map", 0.999)
    assert tab.run("chosen.step") == T - 1


def test_heat_map(tab, pages):
    """Signals, the orders, a click, keys, and a table."""
    tab.open(pages["model"].path)
    before = tab.run("byId('heat').toDataURL()")
    tab.click("#signal button:nth-child(4)")
    assert tab.run("chosen.signal") == "f"
    assert tab.run("byId('heat').toDataURL()") != before
    values = "Array.from(signal().row({}))"
    rows = np.array([tab.run(values.format(unit)) for unit in range(H)])
    tab.select("#sort", "variance")
    order = tab.run("chosen.order")
    assert order == np.argsort(-rows.var(axis=1), kind="stable").tolist()
    tab.select("#sort", "label")
    assert tab.run("byId('sort-label-label').hidden") is False
    wanted = tab.run("distinct.indexOf('a')")
    tab.select("#sort-label", str(wanted))
    marks = np.array([letter == "a" for letter in TEXT], float)
    expected = [np.corrcoef(row, marks)[0, 1] for row in rows]
    assert tab.run("chosen.order") == np.argsort(-np.array(expected), kind="stable").tolist()
    tab.select("#sort", "input")
    tab.select("#sort-input", "2")
    column = np.array(tab.run("Array.from(array(page.inputs[0].data).row(2))"))
    expected = [np.corrcoef(row, column)[0, 1] for row in rows]
    assert tab.run("chosen.order") == np.argsort(-np.array(expected), kind="stable").tolist()
    tab.select("#sort", "period")
    order = tab.run("chosen.order")
    periods = tab.run("page.states[0].periods.f")
    assert [periods[n] for n in order] == sorted(periods, reverse=True)
    tab.click("#heat", 0.999, 0.01)
    assert tab.run("[chosen.step, chosen.unit]") == [T - 1, order[0]]
    tab.run("byId('heat').focus()")
    tab.press("ArrowDown")
    assert tab.run("chosen.unit") == order[1]
    tab.press("Home")
    assert tab.run("chosen.step") == 0
    assert "selected: unit" in tab.run("byId('heat').getAttribute('aria-label')")
    tab.click("#own-scale")
    assert "over the unit's largest" in tab.run("byId('heat-key').textContent")
    tab.click("#first summary")
    assert tab.run("byId('first-table').rows.length") == H + 1
    assert tab.run("byId('first-table').rows[2].cells[0].textContent") == str(order[1])


def test_one_unit(tab, pages):
    tab.open(pages["model"].path)
    tab.click("#unit-more")
    tab.click("#unit-more")
    tab.click("#unit-less")
    assert tab.run("byId('unit-name').textContent") == "1 (layer 0)"
    before = tab.run("byId('unit-state').toDataURL()")
    tab.click("#sources button")
    assert tab.run("document.querySelector('#sources button').getAttribute('aria-pressed')") == "true"
    assert "scaled from" in tab.run("byId('unit-state-key').textContent")
    assert tab.run("byId('unit-state').toDataURL()") != before
    tab.click("#unit-labels span:nth-child(3)")
    assert tab.run("chosen.step") == 2
    tab.click("#values summary")
    cells = tab.run("[...byId('values-table').rows[3].cells].map((cell) => cell.textContent)")
    assert cells[:2] == ["2", "r"]
    assert len(cells) == 2 + 6
    tab.select("#state", "1")
    assert tab.run("byId('unit-name').textContent") == "1 (layer 1)"


def test_gates(tab, pages):
    """A unit's point is where its shares are, and its memory -1 / log(mean f)."""
    tab.open(pages["model"].path)
    tab.click("#memory", 0.999)
    length = [-1 / np.log(f) for f in tab.run("page.states[0].means.f")]
    assert tab.run("chosen.unit") == int(np.argmin(length))
    assert f"a memory of {min(length):.2f} steps" in tab.run("byId('memory-help').textContent")
    tab.click("#gates-plots canvas", 0.9, 0.1)
    assert "high in" in tab.run("document.querySelector('#gates-plots canvas').getAttribute('aria-label')")
    tab.run("document.querySelector('#memory').focus()")
    tab.press("Home")
    assert tab.run("chosen.unit") == int(np.argmax(length))


def test_connectivity(tab, pages):
    tab.open(pages["model"].path)
    assert tab.run("document.querySelectorAll('#output option').length") == 3
    tab.select("#output", "1")
    tab.click("#links-text span:nth-child(6)")
    assert tab.run("[chosen.output, chosen.outputStep]") == [1, 5]
    values = np.array(tab.run("Array.from(sensitivity(1, 5), linear)"))
    assert (values[:6] > 0).all()
    assert not values[6:].any()
    label = tab.run("byId('links-bars').getAttribute('aria-label')")
    assert f"depends most on the input of step {values.argmax()} “" in label
    tab.run("byId('links-map').focus()")
    tab.press("ArrowDown")
    assert tab.run("chosen.outputStep") == 6
    for _ in range(2):  # the first click may change the height of the text above the map
        tab.click("#links-map", 0.999, 0.01)
    assert tab.run("[chosen.step, chosen.outputStep]") == [T - 1, 0]


def test_spans(tab, pages):
    """A span dragged over the heat map, its units, and the other spans that share them, counted again here."""
    tab.open(pages["model"].path)
    for kind, x in (("mousePressed", 0.45), ("mouseMoved", 0.5), ("mouseMoved", 0.55), ("mouseReleased", 0.55)):
        tab.mouse(kind, tab.point("#heat", x))
    tab.settle()
    first, last = tab.run("[chosen.from, chosen.to]")
    assert 0 < first < last < T - 1
    tab.run("byId('threshold').value = 0.1")
    tab.run("byId('share').value = 50")
    tab.click("#find")
    h = np.array([tab.run(f"Array.from(signal('h').row({unit}))") for unit in range(H)])
    packed = tab.run("[signal('h').low, signal('h').high]")
    least = 0.1 * max(map(abs, packed))
    inside = h[:, first : last + 1]
    units = [u for u in range(H) if (inside[u] > least).all() or (inside[u] < -least).all()]
    assert units
    count = "one unit is" if len(units) == 1 else f"{len(units)} units are"
    assert f"{count} active: {units[0]}" in tab.run("byId('span-units').textContent")
    share = np.mean([np.sign(h[u, first]) * h[u] > least for u in units], axis=0)
    length = last - first + 1
    found = tab.run("chosen.found")
    assert found
    for span in found:
        assert span["to"] - span["from"] + 1 == length
        assert span["to"] < first or span["from"] > last
        assert span["quality"] == pytest.approx(share[span["from"] : span["to"] + 1].mean(), abs=1e-6)
        assert span["quality"] >= 0.5 - 1e-6
    apart = [k for k in range(T - length + 1) if k + length <= first or k > last]
    assert found[0]["quality"] == pytest.approx(max(share[k : k + length].mean() for k in apart), abs=1e-6)
    tab.click("#span-table button")
    assert tab.run("chosen.step") == found[0]["from"]


def test_spans_where_all_of_many_units_agree(tab, tmp_path):
    """All of 150 units are 100 %, however many terms a sum has."""
    net = qg.RNN(1, 150, rng=0)
    with net.writable() as params:
        for name, value in params.items():
            value[:] = name == "weight_ih_l0"
    x = np.tile(np.float32([1, 1, 0, -1]), 4)[:, None]
    tab.open(qg.explore(net, x, out=tmp_path / "a.html").path)
    tab.run("choose({ from: 4, to: 5 })")
    tab.run("byId('share').value = 100")
    tab.click("#find")
    assert "150 units are active" in tab.run("byId('span-units').textContent")
    found = tab.run("chosen.found")
    assert [(span["from"], span["to"], span["quality"]) for span in found] == [(k, k + 1, 1) for k in (0, 8, 12)]


def test_norms(tab, pages):
    tab.open(pages["both"].path)
    before = tab.run("byId('norm-plot').toDataURL()")
    tab.click("#norm-kind button:nth-child(2)")
    assert tab.run("chosen.norm") == "dc"
    assert tab.run("byId('norm-plot').toDataURL()") != before
    assert tab.run("byId('norm-key').children.length") == 4
    tab.click("#norm-plot", 0.999)
    assert "at step 23: layer 0, forwards" in tab.run("byId('norm-plot').getAttribute('aria-label')")
    tab.click("#norms summary")
    assert tab.run("byId('norm-table').rows.length") == T + 1


def test_everything_has_a_name(tab, pages):
    """Whatever takes the focus tells a screen reader its name, and Tab reaches all of it."""
    tab.open(pages["model"].path)
    tab.call("Accessibility.enable")
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    tab.call("Accessibility.disable")
    focusable = 0
    for node in nodes:
        if any(p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", ())):
            focusable += 1
            assert node.get("name", {}).get("value"), node
    assert focusable > 40
    reached = set()
    for _ in range(90):
        tab.press("Tab")
        reached.add(tab.run("document.activeElement.id || document.activeElement.textContent.slice(0, 20)"))
    needed = {"state", "unit-number", "step", "letters", "heat", "sort", "unit-state", "memory", "output", "links-map"}
    assert needed | {"find", "threshold", "norm-plot", "by c"} <= reached


EVIL = ["</script><script>window.hit = 1</script>", "<img src=x onerror='window.hit = 1'>", "<!--<script>", "\"'&amp;"]


def test_labels_are_text(tab, tmp_path):
    page = qg.explore(qg.LSTM(2, 3, rng=0), np.ones((4, 2)), EVIL, tmp_path / "a.html")
    tab.open(page.path)
    tab.run("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    tab.select("#sort", "label")
    tab.settle()
    assert tab.run("window.hit") is None
    shown = tab.run("[...document.querySelectorAll('#letters span')].map((e) => e.textContent)")
    assert shown == [label if len(label) <= 40 else label[:39] + "…" for label in EVIL]
    assert tab.run("document.images.length") == 0


def test_labels_that_name_parts_of_objects(tab, tmp_path):
    """Names that every object of JavaScript inherits are labels like others."""
    words = ["constructor", "toString", "__proto__", " "]
    tab.open(qg.explore(qg.LSTM(2, 3, rng=0), np.ones((4, 2)), words, tmp_path / "a.html").path)
    spans = tab.run("[...byId('letters').children].map((e) => [e.textContent, e.className === 'gap'])")
    assert spans == [["constructor", False], ["toString", False], ["__proto__", False], ["·", True]]
    tab.run("choose({ step: 0 })")
    tab.settle()
    assert tab.run("byId('where').textContent").startswith("step 0 “constructor”, ")


def test_notebook(tab, pages, tmp_path):
    """The frame of a notebook has the page, which works there without rights of its own."""
    path, empty = tmp_path / "notebook.html", tmp_path / "empty.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{pages['model']._repr_html_()}", "utf-8")
    empty.write_text("<!DOCTYPE html><meta charset=utf-8><body><p style='height: 900px'>empty", "utf-8")

    def wait_for_picture(drawn):  # a frame of its own is drawn late, and is empty in some pictures after that
        sizes = []
        for _ in range(50):
            sizes.append(len(tab.photograph()))
            if (sizes[-1] > 20_000) == drawn:
                return
            tab.settle()
        raise AssertionError(sizes)

    tab.open(empty)
    wait_for_picture(drawn=False)  # so that the next is no picture of an earlier page
    tab.requests.remove(empty.as_uri())
    tab.open(path)
    wait_for_picture(drawn=True)
    tab.requests[:] = [r for r in tab.requests if not r.startswith("about:")]
