"""Errors of constructors, and of numbers of things, name the argument, its value and what it must be."""

from __future__ import annotations

import inspect
import re
from functools import partial

import numpy as np
import pytest
import quadgate as qg

# Values that no number of things takes: ints that are not positive or too large, and what is no int.
NOT_COUNTS = [(0, ValueError), (-1, ValueError), (2**70, ValueError)]
NOT_COUNTS += [(value, TypeError) for value in (2.0, 1.5, "3", None, True, np.nan)]


def test_numbers_that_python_does_not_print():
    for name, call in {
        "hidden_size": lambda n: qg.LSTM(3, n),
        "batch_size": lambda n: qg.LSTM(3, 4).stream(n),
        "n": qg.set_num_threads,
    }.items():
        for n in (1 << 20000, -1 << 20000):
            with pytest.raises(ValueError, match=f"^{name} must be a positive int, got an int of 2000. bits"):
                call(n)


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
@pytest.mark.parametrize(("value", "error"), NOT_COUNTS)
def test_sizes_of_a_network(name, value, error):
    arguments = {"input_size": 2, "hidden_size": 3, "num_layers": 1, name: value}
    with pytest.raises(error, match=f"^{name} must be a positive int, got "):
        qg.LSTM(**arguments)


@pytest.mark.parametrize("name", ["bias", "batch_first", "bidirectional"])
@pytest.mark.parametrize("value", [None, "yes", 2, 0.5])
def test_flags_of_a_network(name, value):
    with pytest.raises(TypeError, match=name):
        qg.LSTM(2, 3, **{name: value})


@pytest.mark.parametrize(
    ("dtype", "error"),
    [(t, ValueError) for t in (np.float16, np.int32, np.complex64, np.longdouble, bool)]
    + [(t, TypeError) for t in ("no type", 7, None)],
)
def test_type_of_a_network(dtype, error):
    with pytest.raises(error, match=r"^dtype must be float32 or float64, got "):
        qg.LSTM(2, 3, dtype=dtype)


def test_type_of_another_library_is_shown():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^dtype must be float32 or float64, got torch\.float32$"):
        qg.LSTM(2, 3, dtype=torch.float32)


@pytest.mark.parametrize("rng", ["seed", 1.5, -1, True, np.random.RandomState(0)])
def test_rng(rng):
    with pytest.raises(ValueError if rng == -1 else TypeError, match=r"^rng must"):
        qg.LSTM(2, 3, rng=rng)


@pytest.mark.parametrize(("n", "error"), [*NOT_COUNTS, (10**12, ValueError)])
def test_number_of_threads(n, error):
    before = qg.get_num_threads()
    with pytest.raises(error, match=r"^n must be "):
        qg.set_num_threads(n)
    assert qg.get_num_threads() == before


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("layer_norm_eps", {"layer_norm": "output", "layer_norm_eps": 1e-50}),
        ("gate_clip", {"gate_clip": 1e-50}),
        ("cell_clip", {"cell_clip": 1e50}),
        ("forget_bias", {"forget_bias": -1e300}),
        (r"activations\[1\]'s beta", {"activations": ("sigmoid", ("affine", 1.0, 1e300), "tanh")}),
    ],
)
def test_numbers_that_the_type_cannot_hold(name, options):
    with pytest.raises(ValueError, match=rf"^{name} must be a number that float32 can hold"):
        qg.LSTM(2, 3, **options)
    qg.LSTM(2, 3, dtype=np.float64, **options)


@pytest.mark.parametrize("name", ["merge", "shortcut", "layer_norm", "initialization", "nonlinearity", "weights"])
def test_hints_name_what_is_taken(name):
    """A type checker refuses the strings that the call refuses, and no others."""
    of = {"weights": qg.LSTM.quantize, "nonlinearity": qg.RNN}.get(name, qg.LSTM)
    hint = inspect.signature(of).parameters[name].annotation
    call = qg.LSTM(2, 3).quantize if name == "weights" else partial(of, 2, 3)
    with pytest.raises(ValueError, match=f"^{name} must be ") as caught:
        call(**{name: "x"})
    taken = re.findall(r"'(\w+)'", str(caught.value).rpartition(", got ")[0])
    assert re.findall(r"'(\w+)'", hint) == taken
    assert ("None" in hint) == ("None" in str(caught.value))


@pytest.mark.parametrize("n", [np.int64(3), np.uint8(3)])
def test_sizes_of_numpy(n):
    """As type checkers may believe, too."""
    net = qg.LSTM(n, n, n, proj_size=n)
    assert (net.input_size, net.hidden_size, net.num_layers, net.proj_size) == (3, 3, 3, 3)
    assert type(net.hidden_size) is int
    assert net.stream(n).batch_size == 3
    hints = {name: each.annotation for name, each in inspect.signature(qg.LSTM).parameters.items()}
    sizes = ("input_size", "hidden_size", "num_layers", "proj_size")
    assert {hints[name] for name in sizes} == {"SupportsIndex"}
