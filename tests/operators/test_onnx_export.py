"""Models that `quadgate.onnx.export` makes, run by onnxruntime: the same results as the networks they are made of."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import quadgate as qg
import quadgate.onnx
from quadgate import train
from support import bounds
from support.cases import same_bits
from support.options import ACTIVATIONS, SINGLE
from support.small_models import classifier, tagger

onnx: Any = pytest.importorskip("onnx", reason="there is nothing to export to without onnx: install onnx")
onnxruntime: Any = pytest.importorskip("onnxruntime", reason="models are not run without it: install onnxruntime")

T, B, IN, H = 5, 4, 5, 9
REFUSED = ("proj_size", "cell_clip", "proj_clip", "layer_norm", "zoneout", "shortcut")
FEEDS = [*itertools.product((False, True), repeat=2)]  # with states, with lengths


def run(made: Any, **feeds: Any) -> list[Any]:
    onnx.checker.check_model(made, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == list(feeds)
    found: list[Any] = session.run(None, feeds)
    for value, described in zip(found, session.get_outputs(), strict=True):
        sizes = [n if isinstance(n, int) else None for n in described.shape]
        assert all(n in (None, m) for n, m in zip(sizes, value.shape, strict=True))
    return found


def assert_near(got: Any, want: Any, what: str) -> None:
    """Two programs of float32: each as far off as the bound says."""
    assert got.shape == want.shape
    assert got.dtype == want.dtype == np.float32
    bounds.assert_norm(got, want.astype(np.float64), 2 * bounds.norm_bound("float32", IN + H + 2, 3 * T), what, least=1)


def network(options: dict[str, Any], **more: Any) -> Any:
    """A network with biases and peepholes that are not zero."""
    kind = qg.RNN if "nonlinearity" in options else qg.LSTM
    net = kind(IN, H, rng=1, **{k: H // 2 if v == "P" else v for k, v in options.items()}, **more)
    rng = np.random.default_rng(2)
    with net.writable() as params:
        for value in params.values():
            value[...] = rng.uniform(-0.5, 0.5, value.shape)
    return net


def compare(net: Any, state: bool, lengths: bool) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(B, T, IN) if net.batch_first else (T, B, IN)).astype(np.float32)
    rows = net.num_layers * (2 if net.bidirectional else 1)
    start = [rng.normal(size=(rows, B, H)).astype(np.float32) for _ in range(1 if isinstance(net, qg.RNN) else 2)]
    feeds = {"x": x}
    if lengths:
        feeds["lengths"] = np.array([3, 5, 1, 4], np.int32)
    if state:
        feeds |= dict(zip(("h0", "c0"), start, strict=False))
    given = (start[0] if len(start) == 1 else tuple(start)) if state else None
    y, end = net(x, given, lengths=feeds.get("lengths"))
    want = [y, end] if isinstance(net, qg.RNN) else [y, *end]
    found = run(qg.onnx.export(net, state=state, lengths=lengths), **feeds)
    for got, value, what in zip(found, want, "yhc"[: len(want)], strict=True):
        assert_near(got, value, f"{what} of {net!r}")


@pytest.mark.parametrize("name", [n for n, options in SINGLE.items() if not options.keys() & {*REFUSED, "gate_clip"}])
def test_each_option(name):
    for state, lengths in FEEDS:
        compare(network(SINGLE[name]), state, lengths)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_sizes(kind, layers, bidirectional, batch_first):
    options = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": batch_first, "bias": layers != 2}
    for state, lengths in FEEDS:
        compare(network(options | ({"nonlinearity": "relu"} if kind == "RNN" else {})), state, lengths)


@pytest.mark.parametrize(
    "options",
    [
        {"bidirectional": True, "peephole": True, "coupled": True, "activations": (("elu", 0.3), "softsign", "tanh")},
        {"reverse": True, "gate_clip": 0.7, "activations": ("hard_sigmoid", ("scaled_tanh", 1.7, 0.6), ("elu", 0.5))},
        {"nonlinearity": "relu", "bidirectional": True},
    ],
)
def test_what_is_read_back_has_the_same_bits(options):
    net = network(options)
    again = qg.onnx.load(qg.onnx.export(net), "l0")
    x = np.random.default_rng(3).normal(size=(T, B, IN)).astype(np.float32)
    assert same_bits(again(x)[0], net(x)[0])
    if "gate_clip" in options:
        assert again.gate_clip == pytest.approx(net.gate_clip, rel=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_clip_and_both_types_by_the_operators_definition(dtype):
    """onnxruntime runs no float64, and does without the clip in one place."""
    net = network({"gate_clip": 0.25, "num_layers": 2, "bidirectional": True, "dtype": dtype})
    x = np.random.default_rng(3).normal(size=(T, B, IN)).astype(dtype)
    y, (h, c) = net(x)
    made = qg.onnx.export(net)
    onnx.checker.check_model(made, full_check=True)
    for got, want in zip(quadgate.onnx.ReferenceEvaluator(made).run(None, {"x": x}), (y, h, c), strict=True):
        assert same_bits(got, want)


def test_step_by_step_with_the_states():
    net = network({"num_layers": 2})
    made = qg.onnx.export(net, state=True)
    x = np.random.default_rng(3).normal(size=(T, B, IN)).astype(np.float32)
    y, (h, c) = net(x)
    h0 = c0 = np.zeros_like(h)
    for t in range(T):
        step, h0, c0 = run(made, x=x[t : t + 1], h0=h0, c0=c0)
        assert_near(step[0], y[t], f"y at {t}")
    assert_near(h0, h, "h")
    assert_near(c0, c, "c")


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("make", [tagger, classifier])
def test_models(make, lengths):
    model = make()
    x = np.random.default_rng(3).integers(0, model.layers[0].num_embeddings, (B, T))
    given = {"lengths": np.array([3, 5, 1, 4], np.int32)} if lengths else {}
    (got,) = run(qg.onnx.export(model, lengths=lengths), x=x, **given)
    want = model.predict(x, **given)
    kept = slice(None) if want.ndim == 2 or not lengths else np.arange(T) < given["lengths"][:, None]
    assert_near(got[kept], want[kept], "y")


@pytest.mark.parametrize("head", [None, "softmax", "sigmoid"])
@pytest.mark.parametrize("activation", [*ACTIVATIONS, None])
def test_dense_layers_and_heads(activation, head):
    layers = [train.Dense(IN, 6, activation), qg.LSTM(6, H, rng=0), train.Dense(H, 3, activation, bias=False)]
    model = train.Sequential(layers, head=head, rng=0)
    x = np.random.default_rng(3).normal(size=(B, T, IN)).astype(np.float32)
    (got,) = run(qg.onnx.export(model), x=x)
    assert_near(got, model.predict(x), "y")


def test_a_stateful_model_with_its_states():
    layers = [qg.LSTM(IN, H, 2, rng=0), qg.RNN(H, 7, rng=0), train.FinalState(), train.Dropout(0.3), train.Dense(7, 3)]
    model = train.Sequential(layers, stateful=True, rng=0)
    made = qg.onnx.export(model, state=True)
    states = {"0.h0": (2, B, H), "0.c0": (2, B, H), "1.h0": (1, B, 7)}
    feeds = {name: np.zeros(shape, np.float32) for name, shape in states.items()}
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(B, T, IN)).astype(np.float32)
        got, *ends = run(made, x=x, **feeds)
        assert_near(got, model.predict(x), f"y of batch {seed}")
        feeds = dict(zip(states, ends, strict=True))


def test_joined_final_states():
    from quadgate.train._masking import Halves

    for merge in ("sum", "mul", "mean"):
        layers = [qg.LSTM(IN, H, bidirectional=True, rng=0), train.FinalState(), Halves(merge), train.Dense(H, 3)]
        model = train.Sequential(layers, rng=0)
        x = np.random.default_rng(3).normal(size=(B, T, IN)).astype(np.float32)
        (got,) = run(qg.onnx.export(model), x=x)
        assert_near(got, model.predict(x), merge)


@pytest.mark.parametrize("name", [n for n, options in SINGLE.items() if options.keys() & {*REFUSED}])
def test_options_without_a_form_are_refused_by_name(name):
    option = next(o for o in REFUSED if o in SINGLE[name])
    with pytest.raises(ValueError, match=rf"^{option}=.*cannot be exported to ONNX"):
        qg.onnx.export(network(SINGLE[name]))


def test_refusals():
    net = qg.LSTM(IN, H, rng=0)
    with pytest.raises(ValueError, match="int8: export the network"):
        qg.onnx.export(net.quantize("int8"))
    model = train.Sequential([qg.LSTM(IN, H, zoneout=(0.1, 0), rng=0), train.Dense(H, 2)], rng=0)
    with pytest.raises(ValueError, match=r"^zoneout=.*cannot be exported"):
        qg.onnx.export(model)
    model = train.Sequential([train.Masking(), qg.LSTM(IN, H, rng=0), train.Dense(H, 2)], rng=0)
    with pytest.raises(ValueError, match=r"layer 0, Masking.*cannot be exported"):
        qg.onnx.export(model)
    for bad in (None, net.params, train.Dense(3, 4), qg.LSTM):
        with pytest.raises(TypeError, match=r"^net must be a quadgate.LSTM, quadgate.RNN or train.Sequential, got"):
            qg.onnx.export(bad)
    model = train.Sequential([train.Embedding(5, 3), train.Dense(3, 2)], rng=0)
    for name in ("state", "lengths"):
        with pytest.raises(ValueError, match=rf"^{name}=True needs an LSTM"):
            qg.onnx.export(model, **{name: True})
        with pytest.raises(TypeError, match=rf"^{name} must be True or False"):
            qg.onnx.export(net, **{name: 1})


def test_classes_that_may_compute_something_else_are_refused():
    class Named(qg.LSTM):
        pass

    class Doubled(qg.LSTM):
        def __call__(self, *args: Any, **keywords: Any) -> Any:
            y, end = super().__call__(*args, **keywords)
            return 2 * y, end

    class Doubling(train.Dense):
        def forward(self, x: Any, context: Any) -> Any:
            y, tape = super().forward(x, context)
            return 2 * y, tape

    compare(Named(IN, H, rng=0), False, False)
    with pytest.raises(ValueError, match="has a __call__ of its own"):
        qg.onnx.export(Doubled(IN, H, rng=0))
    with pytest.raises(ValueError, match="layer 1, Doubling"):
        qg.onnx.export(train.Sequential([qg.LSTM(IN, H, rng=0), Doubling(H, 2)], rng=0))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", [qg.LSTM, qg.RNN])
def test_rows_without_steps_keep_their_states(kind, bidirectional):
    net = kind(IN, H, 2, bidirectional=bidirectional, rng=0)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(T, B, IN)).astype(np.float32)
    rows = (4 if bidirectional else 2, B, H)
    start = [rng.normal(size=rows).astype(np.float32) for _ in range(2 if kind is qg.LSTM else 1)]
    lengths = np.array([0, 5, 0, 2], np.int32)
    feeds = dict(zip(("h0", "c0"), start, strict=False))
    y, end = net(x, tuple(start) if kind is qg.LSTM else start[0], lengths=lengths)
    made = qg.onnx.export(net, state=True, lengths=True)
    got = run(made, x=x, lengths=lengths, **feeds)
    for a, b in zip(got, (y, *end) if kind is qg.LSTM else (y, end), strict=True):
        assert_near(a, b, "rows without steps")


def test_a_state_that_goes_on_through_rows_without_steps():
    model = train.Sequential([qg.LSTM(IN, H, rng=0), train.FinalState(), train.Dense(H, 3)], stateful=True, rng=0)
    made = qg.onnx.export(model, state=True, lengths=True)
    feeds = {"0.h0": np.zeros((1, B, H), np.float32), "0.c0": np.zeros((1, B, H), np.float32)}
    for lengths in ([5, 5, 3, 2], [0, 5, 1, 0], [0, 1, 5, 5]):
        x = np.random.default_rng(3).normal(size=(B, T, IN)).astype(np.float32)
        got, *ends = run(made, x=x, lengths=np.array(lengths, np.int32), **feeds)
        assert_near(got, model.predict(x, lengths=lengths), "y")
        feeds = dict(zip(feeds, ends, strict=True))


def test_shapes_without_steps_and_rows():
    """By onnx's evaluator: onnxruntime leaves the states of no steps undefined, and ends the process for no rows."""
    net = network({"num_layers": 2, "bidirectional": True})
    for steps, rows in ((0, B), (T, 0)):
        x = np.zeros((steps, rows, IN), np.float32)
        for got, want in zip(
            quadgate.onnx.ReferenceEvaluator(qg.onnx.export(net)).run(None, {"x": x}),
            (net(x)[0], *net(x)[1]),
            strict=True,
        ):
            np.testing.assert_array_equal(got, want)


def test_the_network_stays_as_it_was():
    net = network({})
    before = {name: value.copy() for name, value in net.params.items()}
    made = qg.onnx.export(net)
    with net.writable() as params:
        params["weight_ih_l0"][...] = 0
    again = qg.onnx.load(made, "l0")
    assert all(same_bits(again.params[name], value) for name, value in before.items())
