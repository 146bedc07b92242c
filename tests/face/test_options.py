"""The constructor: every option is taken, kept, shown and copied; what is wrong or makes no sense is named."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import quadgate as qg
from support.cases import same_bits

# Every option with a value that is not its default, and what else it needs.
LSTM_OPTIONS = {
    "bias": (False, {}),
    "batch_first": (True, {}),
    "bidirectional": (True, {}),
    "dropout": (0.5, {"num_layers": 2}),
    "proj_size": (2, {}),
    "peephole": (True, {}),
    "coupled": (True, {}),
    "activations": (("hard_sigmoid", ("elu", 0.5), ("scaled_tanh", 1.7, 0.6)), {}),
    "cell_clip": (3.0, {}),
    "proj_clip": (0.5, {"proj_size": 2}),
    "gate_clip": (4.0, {}),
    "layer_norm": ("output", {}),
    "layer_norm_eps": (1e-3, {}),
    "recurrent_dropout": (0.25, {}),
    "weight_drop": (0.1, {}),
    "zoneout": ((0.05, 0.5), {}),
    "reverse": (True, {}),
    "merge": ("sum", {"bidirectional": True}),
    "shortcut": ("highway", {"num_layers": 2}),
    "initialization": ("keras", {}),
    "forget_bias": (1.5, {}),
}
RNN_ONLY = {"nonlinearity": ("relu", {})}
SHARED = ("bias", "batch_first", "bidirectional", "dropout", "recurrent_dropout", "weight_drop", "reverse", "merge")
RNN_OPTIONS = {**RNN_ONLY, **{name: LSTM_OPTIONS[name] for name in (*SHARED, "shortcut", "initialization")}}
EVERY = [(qg.LSTM, name) for name in LSTM_OPTIONS] + [(qg.RNN, name) for name in RNN_OPTIONS]
DEFAULTS = {
    "bias": True,
    "batch_first": False,
    "bidirectional": False,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
    "weight_drop": 0.0,
    "reverse": False,
    "merge": "concat",
    "shortcut": None,
    "initialization": "pytorch",
}
LSTM_DEFAULTS = {
    "proj_size": 0,
    "peephole": False,
    "coupled": False,
    "activations": ("sigmoid", "tanh", "tanh"),
    "cell_clip": None,
    "proj_clip": None,
    "gate_clip": None,
    "layer_norm": None,
    "layer_norm_eps": 1e-5,
    "zoneout": (0.0, 0.0),
    "forget_bias": None,
}


def table(kind):
    return LSTM_OPTIONS if kind is qg.LSTM else RNN_OPTIONS


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_option_is_kept_shown_and_copied(kind, name):
    """As a property that cannot be set, in repr if it is not the default, and by pickle and deepcopy."""
    value, needs = table(kind)[name]
    net = kind(3, 4, **needs, **{name: value}, rng=0)
    assert getattr(net, name) == value
    assert type(getattr(net, name)) is type(value)
    with pytest.raises(AttributeError):
        setattr(net, name, value)
    assert f"{name}={value!r}" in repr(net)
    assert name not in repr(kind(3, 4, **needs))
    again = eval(repr(net), {kind.__name__: kind})
    assert repr(again) == repr(net)
    for other in (copy.copy(net), copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert repr(other) == repr(net)
        assert list(other.params) == list(net.params)
        for key, parameter in net.params.items():
            assert same_bits(other.params[key], parameter)


def test_all_at_once():
    """Those that go together, the whole of a repr, and a copy that computes the same."""
    options = {name: value for name, (value, _) in LSTM_OPTIONS.items() if name not in ("bias", "coupled", "reverse")}
    lstm = qg.LSTM(3, 4, 3, **options, dtype=np.float64, rng=0)
    shown = ", ".join(f"{name}={value!r}" for name, value in options.items())
    assert repr(lstm) == f"LSTM(3, 4, num_layers=3, {shown}, dtype='float64')"
    x = np.random.default_rng(0).normal(size=(2, 5, 3))
    want, (h, c) = lstm(x)
    for other in (copy.deepcopy(lstm), pickle.loads(pickle.dumps(lstm))):
        y, state = other(x)
        assert same_bits(y, want)
        assert same_bits(state[0], h)
        assert same_bits(state[1], c)


def test_defaults():
    lstm, rnn = qg.LSTM(3, 4), qg.RNN(3, 4)
    for name, value in DEFAULTS.items():
        assert getattr(lstm, name) == getattr(rnn, name) == value
    for name, value in LSTM_DEFAULTS.items():
        assert getattr(lstm, name) == value
        assert not hasattr(rnn, name)
    assert rnn.nonlinearity == "tanh"
    assert repr(lstm) == "LSTM(3, 4, dtype='float32')"
    assert repr(rnn) == "RNN(3, 4, dtype='float32')"
    assert repr(qg.LSTM(3, 4, **DEFAULTS, **LSTM_DEFAULTS)) == repr(lstm)


def says(*parts):
    return "(?s)" + ".*".join(re.escape(str(p)) for p in parts)


PROBABILITIES = [
    *((v, ValueError) for v in (-0.1, 1.1, math.nan, math.inf, 2, -1)),
    *((v, TypeError) for v in (None, "0.5", True, 1j, [0.5], np.zeros(1), np.True_)),
]
CLIPS = [
    *((v, ValueError) for v in (0, 0.0, -1.0, math.nan, math.inf, 10**400)),
    *((v, TypeError) for v in ("1", True, 1j, (1.0,), np.ones(1))),
]
FLAGS = [(v, TypeError) for v in (None, 0, 1, "yes", 0.5, [True])]
WRONG = {
    **dict.fromkeys(("dropout", "recurrent_dropout", "weight_drop"), PROBABILITIES),
    **dict.fromkeys(("cell_clip", "proj_clip", "gate_clip", "layer_norm_eps"), CLIPS),
    **dict.fromkeys(("peephole", "coupled", "reverse", "bidirectional", "bias", "batch_first"), FLAGS),
    "proj_size": [(-1, ValueError), (2**70, ValueError), (2.0, TypeError), (None, TypeError), (True, TypeError)],
    "layer_norm": [("post", ValueError), ("", ValueError), (True, TypeError), (1, TypeError)],
    "merge": [("add", ValueError), ("ave", ValueError), (None, ValueError), (0, TypeError)],
    "shortcut": [("skip", ValueError), (True, TypeError)],
    "initialization": [("glorot", ValueError), (None, ValueError), (0, TypeError)],
    "nonlinearity": [("sigmoid", ValueError), (None, ValueError), (np.tanh, TypeError), (("relu", 1), TypeError)],
    "forget_bias": [(math.nan, ValueError), (math.inf, ValueError), ("1", TypeError), (True, TypeError)],
    "zoneout": [
        *((v, TypeError) for v in (0.5, None, "ab", (0.1,), (0.1, 0.1, 0.1), (None, 0.1), (True, 0.1), np.zeros(2))),
        *((v, ValueError) for v in ((0.1, 1.5), (-0.1, 0.0), [math.nan, 0.0])),
    ],
    "activations": [
        *((v, TypeError) for v in ("tanh", None, ("tanh",), ("sigmoid", "tanh"), ("tanh",) * 4, {1, 2, 3})),
        *((("sigmoid", v, "tanh"), TypeError) for v in (None, 1, (), ("elu", "1"), ("elu", None), ("elu", True))),
        *((("sigmoid", v, "tanh"), TypeError) for v in (("affine", 1, 2, 3), (1, "elu"), ("elu", 1j))),
        *((v, ValueError) for v in (("Sigmoid", "tanh", "tanh"), ("sigmoid", "tanh", "gelu"), (("",), "tanh", "tanh"))),
        *((("sigmoid", v, "tanh"), ValueError) for v in (("tanh", 1.0), ("elu", 1.0, 2.0), ("softplus", 1, 1))),
        *((("sigmoid", v, "tanh"), ValueError) for v in (("elu", math.nan), ("affine", 1.0, math.inf))),
    ],
}


@pytest.mark.parametrize(("name", "value", "error"), [(n, v, e) for n, cases in WRONG.items() for v, e in cases])
def test_wrong_values_are_named(name, value, error):
    """With the argument's name, and what came."""
    needs = {"num_layers": 2, "proj_size": 2, "bidirectional": name == "merge", name: value}
    for kind in (qg.LSTM, qg.RNN):
        if name not in table(kind):
            continue
        if kind is qg.RNN:
            del needs["proj_size"]
        with pytest.raises(error, match=says(name)):
            kind(3, 4, **needs)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer_norm": "post"}, "layer_norm must be None, 'output' or 'cell', got 'post'"),
        ({"merge": 3, "bidirectional": True}, "merge must be 'concat', 'sum', 'mul' or 'mean', got 3"),
        ({"cell_clip": -2}, "cell_clip must be a positive number, got -2.0"),
        ({"zoneout": (0, 3)}, "zoneout[1] must be a probability, from 0 to 1, got 3.0"),
        ({"proj_size": -1}, "proj_size must be 0 or a positive int, got -1"),
        ({"activations": ("sigmoid", "gelu", "tanh")}, "activations[1] must be one of sigmoid, tanh,"),
        ({"activations": ("sigmoid", "tanh", ("elu", 1, 1))}, "activations[2]: elu takes alpha, but no beta"),
        ({"activations": ("sigmoid", "tanh", ("relu", 1))}, "activations[2]: relu takes neither alpha nor beta"),
    ],
)
def test_what_is_said(options, said):
    with pytest.raises(TypeError if 3 in options.values() else ValueError, match=f"^{re.escape(said)}"):
        qg.LSTM(3, 4, **options)


PAIRS = [
    ("reverse", "bidirectional", {"reverse": True, "bidirectional": True}),
    *(("merge", "bidirectional", {"merge": merge}) for merge in ("sum", "mul", "mean")),
    *(("shortcut", "num_layers", {"shortcut": shortcut}) for shortcut in ("residual", "highway", "dense")),
    ("proj_clip", "proj_size", {"proj_clip": 1.0}),
    ("coupled", "forget_bias", {"coupled": True, "forget_bias": 1.0}),
    ("bias", "forget_bias", {"bias": False, "forget_bias": 1.0}),
]


@pytest.mark.parametrize(("one", "other", "options"), PAIRS)
def test_pairs_that_make_no_sense(one, other, options):
    for kind in (qg.LSTM, qg.RNN):
        if set(options) <= set(table(kind)):
            with pytest.raises(ValueError, match=rf"(?=.*\b{one}\b)(?=.*\b{other}\b)"):
                kind(3, 4, **options)


def test_all_other_pairs_work():
    """Every two options are taken together, and give a network that runs, but for those above."""
    refused = {frozenset(pair) for *pair, _ in PAIRS}
    x = np.zeros((2, 1, 3), np.float32)
    for one, (value, needs) in LSTM_OPTIONS.items():
        for other, (second, more) in LSTM_OPTIONS.items():
            if one < other and frozenset((one, other)) not in refused - {frozenset(("merge", "bidirectional"))}:
                options = {**needs, **more, one: value, other: second}
                if options.get("reverse") and options.get("bidirectional"):  # which merge needs
                    continue
                lstm = qg.LSTM(3, 4, **options)
                shape = (1, 2, 3) if options.get("batch_first") else (2, 1, 3)
                y, (h, c) = lstm(x.reshape(shape))
                assert y.shape[:2] == shape[:2]
                assert h.shape[-1] == options.get("proj_size", 4)
                assert c.shape[-1] == 4


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("hard_sigmoid", "hard_sigmoid"),
        (("hard_sigmoid",), "hard_sigmoid"),
        (["hard_sigmoid", 0.2], "hard_sigmoid"),
        (("hard_sigmoid", 0.2, 0.5), "hard_sigmoid"),
        (("hard_sigmoid", 0.25), ("hard_sigmoid", 0.25, 0.5)),
        (("hard_sigmoid", 0.2, np.float32(0.25)), ("hard_sigmoid", 0.2, 0.25)),
        (("elu", 1), "elu"),
        (("elu", 2), ("elu", 2.0)),
        (("thresholded_relu", 0), ("thresholded_relu", 0.0)),
    ],
)
def test_activations_are_shown_by_name_where_that_says_all(given, kept):
    assert qg.LSTM(3, 4, activations=[given, "tanh", "tanh"]).activations == (kept, "tanh", "tanh")


def test_numbers_of_other_types():
    """Python's and NumPy's ints and floats; what comes out is Python's."""
    lstm = qg.LSTM(
        np.int8(3),
        4,
        2,
        dropout=np.float32(0.5),
        cell_clip=2,
        zoneout=[np.float64(0.5), 1],
        proj_size=np.uint8(2),
        peephole=np.True_,
        forget_bias=np.int64(1),
    )
    kept = (
        lstm.input_size,
        lstm.dropout,
        lstm.cell_clip,
        lstm.zoneout,
        lstm.proj_size,
        lstm.peephole,
        lstm.forget_bias,
    )
    assert kept == (3, 0.5, 2.0, (0.5, 1.0), 2, True, 1.0)
    flat = [p for value in kept for p in (value if isinstance(value, tuple) else (value,))]
    assert [type(p) for p in flat] == [int, float, float, float, float, int, bool, float]


def test_streams_go_forward_only():
    for kind in (qg.LSTM, qg.RNN):
        for name in ("reverse", "bidirectional"):
            with pytest.raises(ValueError, match=name):
                kind(3, 4, **{name: True}).stream()


def test_the_documentation_names_every_option():
    """Among the parameters, and in the table of docs/options.md of what others call it."""
    for kind in (qg.LSTM, qg.RNN):
        text = inspect.getdoc(kind)
        heads = [line for line in text[: text.index("Raises")].splitlines() if not line.startswith(" ")]
        named = {name for line in heads for name in line.partition(" : ")[0].split(", ")}
        assert set(inspect.signature(kind).parameters) <= named
    page = (Path(__file__).parents[2] / "docs" / "options.md").read_text()
    table = page.partition("### Program by program")[2].partition("\n## ")[0]
    first = set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE))
    elsewhere = {"input_size", "hidden_size", "dtype", "rng"}
    calls = {"lengths", "resets", "mask", "padding_output", "return_cells", "trace"}
    assert first == set(inspect.signature(qg.LSTM).parameters) - elsewhere | calls
