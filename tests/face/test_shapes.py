"""Names, order and shapes of the parameters of every kind of network, and shapes of the results of a call."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import quadgate as qg
from support.cases import same_bits


# With I = 3 and H = 5: what a network's parameters are, in their order.
def plain(layer, width, rows=20, columns=5, end=""):
    suffix = f"_l{layer}{end}"
    return {f"weight_ih{suffix}": (rows, width), f"weight_hh{suffix}": (rows, columns), f"bias{suffix}": (rows,)}


def both(layer, width, **sizes):
    return {**plain(layer, width, **sizes), **plain(layer, width, **sizes, end="_reverse")}


def highway(layer, outputs):
    return {f"weight_highway_l{layer}": (outputs, outputs), f"bias_highway_l{layer}": (outputs,)}


ALL_KINDS = {
    **plain(0, 3, columns=2),
    "weight_hr_l0": (2, 5),
    "peephole_l0": (3, 5),
    "norm_ih_l0": (20,),
    "norm_hh_l0": (20,),
    "norm_c_l0": (2, 5),
}
SHAPES = [
    ({}, plain(0, 3)),
    ({"bias": False}, {"weight_ih_l0": (20, 3), "weight_hh_l0": (20, 5)}),
    ({"num_layers": 2, "bidirectional": True}, {**both(0, 3), **both(1, 10)}),
    ({"num_layers": 2, "bidirectional": True, "merge": "sum"}, {**both(0, 3), **both(1, 5)}),
    ({"reverse": True}, plain(0, 3)),
    ({"proj_size": 2}, {**plain(0, 3, columns=2), "weight_hr_l0": (2, 5)}),
    ({"proj_size": 9}, {**plain(0, 3, columns=9), "weight_hr_l0": (9, 5)}),
    ({"peephole": True}, {**plain(0, 3), "peephole_l0": (3, 5)}),
    ({"coupled": True, "peephole": True}, {**plain(0, 3), "peephole_l0": (3, 5)}),
    ({"proj_size": 2, "peephole": True, "layer_norm": "output"}, ALL_KINDS),
    ({"proj_size": 2, "peephole": True, "layer_norm": "cell"}, ALL_KINDS),
    ({"num_layers": 2, "shortcut": "residual"}, {**plain(0, 3), **plain(1, 5)}),
    ({"num_layers": 3, "shortcut": "dense"}, {**plain(0, 3), **plain(1, 8), **plain(2, 13)}),
    ({"num_layers": 2, "shortcut": "dense", "bidirectional": True}, {**both(0, 3), **both(1, 13)}),
    (
        {"num_layers": 3, "shortcut": "highway"},
        {**plain(0, 3), **plain(1, 5), **highway(1, 5), **plain(2, 5), **highway(2, 5)},
    ),
    (
        {"num_layers": 2, "shortcut": "highway", "bidirectional": True, "merge": "mean", "proj_size": 2},
        {
            **plain(0, 3, columns=2),
            "weight_hr_l0": (2, 5),
            **plain(0, 3, columns=2, end="_reverse"),
            "weight_hr_l0_reverse": (2, 5),
            **plain(1, 2, columns=2),
            "weight_hr_l1": (2, 5),
            **plain(1, 2, columns=2, end="_reverse"),
            "weight_hr_l1_reverse": (2, 5),
            **highway(1, 2),
        },
    ),
]


@pytest.mark.parametrize(("options", "want"), SHAPES)
def test_parameters(options, want):
    """Names, shapes and order; and the size computed from them in advance is the size of the arrays."""
    lstm = qg.LSTM(3, 5, **options)
    got = {name: value.shape for name, value in lstm.params.items()}
    assert got == want
    assert list(got) == list(want)
    assert lstm.num_parameters == sum(math.prod(shape) for shape in want.values())
    assert lstm.load_state_dict(lstm.state_dict()) is None
    if "proj_size" not in options and "peephole" not in options:
        rnn = qg.RNN(3, 5, **options)
        rows = {name: (shape[0] // (1 if "highway" in name else 4), *shape[1:]) for name, shape in want.items()}
        assert {name: value.shape for name, value in rnn.params.items()} == rows


def test_highway_has_its_bias_without_biases():
    names = list(qg.LSTM(3, 5, 2, bias=False, shortcut="highway").params)
    assert names[-2:] == ["weight_highway_l1", "bias_highway_l1"]


@pytest.mark.parametrize(("options", "want"), SHAPES)
def test_shapes_of_a_call(options, want):
    """All results of forward and backward, with and without a batch axis."""
    lstm = qg.LSTM(3, 5, batch_first=True, **options)
    directions = 2 if lstm.bidirectional else 1
    states, columns = lstm.num_layers * directions, lstm.proj_size or 5
    outputs = columns * (directions if lstm.merge == "concat" else 1)
    for leading, rows in (((2, 4), (2,)), ((4,), ())):
        x = np.zeros((*leading, 3), np.float32)
        y, (h, c), tape = lstm.forward(x, return_cells=True)
        cells = tape.cells
        grads = lstm.backward(tape, y, (h, c), dcells=cells)
        assert y.shape == (*leading, outputs)
        assert h.shape == grads.h0.shape == (states, *rows, columns)
        assert c.shape == grads.c0.shape == (states, *rows, 5)
        assert cells.shape == (*leading, directions * 5)
        assert grads.x.shape == x.shape
        assert {name: value.shape for name, value in grads.params.items()} == want


def test_pytorch_names_of_a_projection():
    torch = pytest.importorskip("torch")
    ours = qg.LSTM(3, 5, 2, proj_size=2, bidirectional=True, rng=0)
    theirs = torch.nn.LSTM(3, 5, 2, proj_size=2, bidirectional=True)
    saved = ours.state_dict()
    assert {name: value.shape for name, value in saved.items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in saved.items()})
    ours.load_state_dict(theirs.state_dict())
    assert same_bits(ours.params["weight_hr_l1_reverse"], saved["weight_hr_l1_reverse"])


def test_state_dict_of_all_kinds():
    """Ours keep our names; two biases are halves of `bias` alone, not of the highway's."""
    options = {"peephole": True, "layer_norm": "output", "shortcut": "highway", "proj_size": 2}
    one, two = (qg.LSTM(3, 5, 2, **options, rng=seed) for seed in (0, 1))
    saved = one.state_dict(prefix="net.")
    assert {"net.peephole_l0", "net.norm_c_l1", "net.weight_highway_l1", "net.bias_highway_l1"} <= saved.keys()
    assert {"net.bias_ih_l0", "net.bias_hh_l0", "net.bias_ih_l1", "net.bias_hh_l1"} <= saved.keys()
    assert len(saved) == len(one.params) + 2
    two.load_state_dict(saved)
    for name, value in one.params.items():
        assert same_bits(two.params[name], value)
    for name in ("net.peephole_l0", "net.norm_c_l1", "net.bias_highway_l1"):
        with pytest.raises(ValueError, match=re.escape(name)):
            two.load_state_dict({key: value for key, value in saved.items() if key != name})


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((1, 16), {"proj_size": 2**58}),
        ((1, 16, 2), {"shortcut": "highway", "proj_size": 2**31}),
        ((1, 2, 2**31), {"shortcut": "dense"}),
        ((1, 2**29, 3), {"shortcut": "dense", "bidirectional": True}),
    ],
)
def test_too_large_for_any_memory(sizes, options):
    with pytest.raises(MemoryError):
        qg.LSTM(*sizes, **options)
