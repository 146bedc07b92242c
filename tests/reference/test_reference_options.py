"""The judge of the options is judged: every one alone and in random combinations.

Central differences hold the backward pass to the forward pass. The forward pass is held by PyTorch for what it has, by
what an option must be equal to without it, and by numbers worked out by hand (test_reference_by_hand.py).
"""

from __future__ import annotations

import functools
import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from quadgate import reference
from quadgate.reference.activations import DEFAULTS
from support.examples import examples
from support.reference_cases import CLOSE, EXTENDED, Problem

ACTIVATIONS = [
    "sigmoid",
    "tanh",
    "relu",
    "hard_sigmoid",
    "affine",
    "leaky_relu",
    "thresholded_relu",
    "scaled_tanh",
    "elu",
    "softsign",
    "softplus",
]


def cut(*where, steps=3, batch=2):
    resets = np.zeros((steps, batch), bool)
    resets[tuple(np.transpose(where))] = True
    return resets


CUTS = cut((0, 0), (1, 1), (2, 0))
ALONE = [
    {},
    {"bias": False},
    {"peephole": True},
    {"proj_size": 2},
    {"cell_clip": 0.4},
    {"proj_size": 2, "proj_clip": 0.1},
    {"gate_clip": 0.5},
    {"coupled": True},
    {"layer_norm": "output"},
    {"layer_norm": "cell", "layer_norm_eps": 0.01},
    {"num_layers": 2, "dropout": 0.4},
    {"recurrent_dropout": 0.4},
    {"weight_drop": 0.4},
    {"zoneout": (0.4, 0.0)},
    {"zoneout": (0.0, 0.4)},
    {"zoneout": (0.3, 0.6), "train": False},
    {"reverse": True},
    {"bidirectional": True},
    {"bidirectional": True, "merge": "sum"},
    {"bidirectional": True, "merge": "mul"},
    {"bidirectional": True, "merge": "mean"},
    {"num_layers": 3, "shortcut": "residual"},
    {"num_layers": 3, "shortcut": "highway", "batch": 1},
    {"num_layers": 3, "shortcut": "dense", "dropout": 0.4, "batch": 1},
    {"lengths": np.array([1, 3])},
    {"resets": CUTS},
    {"resets": CUTS, "reverse": True, "lengths": np.array([2, 3])},
    {"nonlinearity": "tanh"},
    {"nonlinearity": "relu"},
]
ALONE += [{"activations": (name, ("leaky_relu", 0.3), name)} for name in ACTIVATIONS]
ALONE += [{"activations": ("sigmoid", name, "tanh")} for name in ACTIVATIONS]


@pytest.mark.slow
@pytest.mark.parametrize("options", ALONE, ids=str)
def test_gradient_of_one_option(options):
    Problem(7, **options).check_gradients()


@st.composite
def cases(draw):
    def maybe(value):
        return draw(st.none() | value)

    def p():
        return draw(st.sampled_from([0.0, 0.0, 0.3, 1.0]))

    layers, batch, steps, units = (draw(st.integers(1, n)) for n in (3, 3, 4, 4))
    sizes = {"batch": batch, "steps": steps, "units": units, "inputs": draw(st.integers(1, 3))}
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    if draw(st.booleans()):
        sizes["lengths"] = rng.integers(0, steps + 1, batch)
    if draw(st.booleans()):
        sizes["resets"] = rng.random((steps, batch)) < 0.4
    direction = draw(st.sampled_from(["forward", "reverse", "both"]))
    both = direction == "both"
    options = {
        "num_layers": layers,
        "bias": draw(st.booleans()),
        "reverse": direction == "reverse",
        "bidirectional": both,
        "merge": draw(st.sampled_from(["concat", "sum", "mul", "mean"])) if both else "concat",
        "shortcut": maybe(st.sampled_from(["residual", "highway", "dense"])) if layers > 1 else None,
        "dropout": p() if layers > 1 else 0.0,
        "recurrent_dropout": p(),
        "weight_drop": p(),
    }
    if draw(st.integers(0, 5)) == 0:
        options["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    else:
        names = st.sampled_from(list(ACTIVATIONS))
        numbers = st.sampled_from([0.3, 0.5, 1.0])
        form = names | names.flatmap(lambda name: st.tuples(st.just(name), *[numbers] * len(DEFAULTS[name])))
        form |= st.tuples(st.sampled_from([name for name in ACTIVATIONS if DEFAULTS[name]]), numbers)
        projected = draw(st.booleans())
        options |= {
            "proj_size": draw(st.integers(1, 4)) if projected else 0,
            "proj_clip": maybe(st.just(0.3)) if projected else None,
            "peephole": draw(st.booleans()),
            "coupled": draw(st.booleans()),
            "cell_clip": maybe(st.just(0.6)),
            "gate_clip": maybe(st.just(0.8)),
            "layer_norm": maybe(st.sampled_from(["output", "cell"])),
            "layer_norm_eps": 0.1,  # a smaller one makes the derivatives of a few units' norms huge
            "zoneout": (p(), p()),
        }
        if draw(st.booleans()):
            options["activations"] = draw(st.tuples(form, form, form))
    return {"seed": seed, "train": draw(st.booleans()), **sizes, **options}


@pytest.mark.slow
@hypothesis.settings(max_examples=examples(40), derandomize=not EXTENDED)
@hypothesis.given(cases())
def test_gradient_of_combinations(options):
    case = Problem(**options)
    hypothesis.assume(case.size() < 1e5)  # some activations make some networks explode, and every step cross a kink
    case.check_gradients(directions=2)


def packed(torch, net, x, state, lengths):
    order = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
    y, end = net(order, state)
    return torch.nn.utils.rnn.pad_packed_sequence(y, total_length=len(x))[0], end


@pytest.mark.parametrize("lengths", [None, [2, 5, 1]])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kind", [{"proj_size": 2}, {"nonlinearity": "tanh"}, {"nonlinearity": "relu"}], ids=str)
def test_projection_and_elman_equal_torch(kind, layers, bidirectional, lengths):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch==2.13.0")
    size = {"steps": 5, "batch": 3, "units": 4}
    case = Problem(3, num_layers=layers, bidirectional=bidirectional, lengths=lengths, **size, **kind)
    case.dcells[:] = 0
    y, (h, c), _ = case.forward()
    grads = case.backward()
    elman = "nonlinearity" in kind
    make = torch.nn.RNN if elman else torch.nn.LSTM
    net = make(2, 4, layers, bidirectional=bidirectional, dtype=torch.float64, **kind)
    theirs = {name: name.replace("bias", "bias_ih") for name in case.params}
    tensors = {theirs[name]: torch.tensor(value) for name, value in case.params.items()}
    tensors |= {name: torch.zeros(p.shape) for name, p in net.named_parameters() if "bias_hh" in name}
    net.load_state_dict(tensors)
    x, h0, c0 = (torch.tensor(a, requires_grad=True) for a in (case.x, *case.state))
    run = functools.partial(packed, torch, lengths=lengths) if lengths else lambda net, x, state: net(x, state)
    yt, end = run(net, x, h0 if elman else (h0, c0))
    ht, ct = (end, c0) if elman else end
    weighted = zip((yt, ht, ct), (case.dy, *case.dstate), strict=True)
    sum((a * torch.tensor(d)).sum() for a, d in weighted).backward()
    for got, want in zip((y, h, c), (yt, ht, ct), strict=True):
        np.testing.assert_allclose(got, want.detach().numpy(), rtol=0, atol=1e-12)
    for got, want in zip((grads.x, grads.h0, grads.c0), (x, h0, c0), strict=True):
        np.testing.assert_allclose(got, want.grad.numpy(), rtol=0, atol=1e-11)
    for name, p in net.named_parameters():
        ours = name.replace("bias_ih", "bias")
        if ours in grads.params:
            np.testing.assert_allclose(grads.params[ours], p.grad.numpy(), rtol=0, atol=1e-11, err_msg=name)


def test_reverse_is_forward_on_the_sequence_reversed():
    case = Problem(4, reverse=True, peephole=True)
    turned = Problem(4, peephole=True)
    turned.x, turned.dy, turned.dcells = case.x[::-1], case.dy[::-1], case.dcells[::-1]
    (y, end, tape), (y2, end2, tape2) = case.forward(), turned.forward()
    grads, grads2 = case.backward(), turned.backward()
    for got, want in [(y, y2[::-1]), (end[0], end2[0]), (end[1], end2[1]), (tape.cells, tape2.cells[::-1])]:
        np.testing.assert_array_equal(got, want)
    for got, want in [(grads.x, grads2.x[::-1]), (grads.h0, grads2.h0), (grads.dh_norm, grads2.dh_norm[:, ::-1])]:
        np.testing.assert_allclose(got, want, **CLOSE)


MERGES = {"concat": lambda a, b: np.concatenate([a, b], 2), "sum": np.add, "mul": np.multiply}
MERGES["mean"] = lambda a, b: (a + b) / 2


def alone(case, k, x, suffix=""):
    """Run one layer and direction of a case's network as a network of its own."""
    names = [n for n in case.params if n.endswith(f"_l{k}{suffix}") and "highway" not in n]
    params = {n[: -len(suffix) or None].replace(f"_l{k}", "_l0"): case.params[n] for n in names}
    row = k * case.directions + bool(suffix)
    state = tuple(part[row : row + 1] for part in case.state)
    return reference.forward(params, x, state, case.lengths, reverse=bool(suffix))


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("shortcut", [None, "residual", "highway", "dense"])
def test_layers_are_put_together(merge, shortcut):
    """Merge, shortcut and dropout over layers that were run one by one; the end of a padded row is 0 everywhere."""
    kind = {"bidirectional": True, "merge": merge, "shortcut": shortcut, "num_layers": 3, "dropout": 0.5}
    case = Problem(8, lengths=np.array([1, 3]), **kind)
    below = case.x
    for k in range(3):
        a, b = alone(case, k, below), alone(case, k, below, "_reverse")
        out = MERGES[merge](a[0], b[0])
        if k > 0 and shortcut == "residual":
            out = out + below
        if k > 0 and shortcut == "highway":
            t = reference.sigmoid(below @ case.params[f"weight_highway_l{k}"].T + case.params[f"bias_highway_l{k}"])
            out = t * out + (1 - t) * below
        if k < 2:
            handed = out * 2 * ~case.masks[f"dropout_l{k}"]
            below = np.concatenate([below, handed], axis=2) if shortcut == "dense" else handed
    y, (h, c), tape = case.forward()
    np.testing.assert_allclose(y, out, **CLOSE)
    assert not y[1:, 0].any()
    assert y[:, 1].all()
    np.testing.assert_allclose(h[4:], np.concatenate([a[1][0], b[1][0]]), **CLOSE)
    np.testing.assert_allclose(c[4:], np.concatenate([a[1][1], b[1][1]]), **CLOSE)
    np.testing.assert_allclose(tape.cells, np.concatenate([a[2].cells, b[2].cells], axis=2), **CLOSE)
    case.masks = None
    whole, plain = (
        case.forward()[0],
        reference.forward(case.params, case.x, case.state, case.lengths, **(kind | {"dropout": 0.0}))[0],
    )
    np.testing.assert_array_equal(whole, plain)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_resets_are_separate_calls(reverse, padded):
    """Each piece of each row as a call of its own, those after a cut from zeros: outputs, states and gradients."""
    steps, batch = 6, 4
    resets = np.random.default_rng(2).random((steps, batch)) < 0.4
    resets[0], resets[:, 3] = [True, False, True, False], False
    lengths = np.array([5, 3, 6, 6]) if padded else None
    case = Problem(5, steps=steps, batch=batch, reverse=reverse, resets=resets, lengths=lengths, zoneout=(0.2, 0.3))
    y, (h, c), tape = case.forward()
    grads = case.backward()
    total = {name: np.zeros_like(value) for name, value in case.params.items()}
    for row in range(batch):
        one, n = slice(row, row + 1), steps if lengths is None else lengths[row]
        cuts = [0, *(t for t in range(1, n) if resets[t, row]), n]
        pieces = list(itertools.pairwise(cuts))
        first = len(pieces) - 1 if reverse else 0
        for k, (start, stop) in enumerate(pieces):
            at = slice(start, stop)
            given = k == first and (reverse or not resets[0, row])
            state = tuple(part[:, one] * given for part in case.state)
            masks = {name: value[at, one] for name, value in case.masks.items()}
            piece = reference.forward(
                case.params, case.x[at, one], state, masks=masks, reverse=reverse, zoneout=(0.2, 0.3)
            )
            last = k == (0 if reverse else len(pieces) - 1)
            dstate = tuple(part[:, one] * last for part in case.dstate)
            back = reference.backward(case.params, piece[2], case.dy[at, one], dstate, dcells=case.dcells[at, one])
            for got, want in [(y, piece[0]), (tape.cells, piece[2].cells), (grads.x, back.x)]:
                np.testing.assert_allclose(got[at, one], want, **CLOSE)
            for got, want in [(grads.dh_norm, back.dh_norm), (grads.dc_norm, back.dc_norm)]:
                np.testing.assert_allclose(got[:, at, one], want, **CLOSE)
            if last:
                np.testing.assert_allclose((h[:, one], c[:, one]), piece[1], **CLOSE)
            if k == first:
                want = (back.h0 * given, back.c0 * given)
                np.testing.assert_allclose((grads.h0[:, one], grads.c0[:, one]), want, **CLOSE)
            for name, value in back.params.items():
                total[name] += value
    for name, value in total.items():
        np.testing.assert_allclose(grads.params[name], value, **CLOSE)


@pytest.mark.parametrize("options", [{}, {"cell_clip": 0.3}, {"zoneout": (0.3, 0.4)}], ids=str)
def test_norms_along_the_way(options):
    """A sequence cut after step t: the second part's gradient of its initial state is what reaches step t from there.

    In its own step the cell acts through o * tanh(n) alone, and nothing of that reaches an h that is kept.
    """
    case = Problem(6, steps=4, **options)
    tape, grads = case.forward()[2], case.backward()
    for t in range(4):
        dh, dc = (d[0] for d in case.dstate)
        if t < 3:
            masks = {name: value[t + 1 :] for name, value in case.masks.items()}
            cut_masks = {name: value[: t + 1] for name, value in case.masks.items()}
            first = reference.forward(case.params, case.x[: t + 1], case.state, masks=cut_masks, **options)
            second = reference.forward(case.params, case.x[t + 1 :], first[1], masks=masks, **options)
            rest = reference.backward(
                case.params, second[2], case.dy[t + 1 :], case.dstate, dcells=case.dcells[t + 1 :]
            )
            dh, dc = rest.h0[0], rest.c0[0]
        dh, dc = dh + case.dy[t], dc + case.dcells[t]
        np.testing.assert_allclose(grads.dh_norm[0, t], np.linalg.norm(dh, axis=1), **CLOSE)
        i, f, g, o = tape.layers[0].gates[:, t]
        before = tape.cells[t - 1] if t else case.state[1][0]
        n = np.clip(f * before + i * g, -options.get("cell_clip", np.inf), options.get("cell_clip", np.inf))
        passed = ~case.masks["zoneout_h_l0"][t] if "zoneout" in options else 1
        np.testing.assert_allclose(
            grads.dc_norm[0, t], np.linalg.norm(dc + dh * passed * o * (1 - np.tanh(n) ** 2), axis=1), **CLOSE
        )


@pytest.mark.parametrize("shortcut", ["residual", "highway", "dense"])
def test_what_lies_past_a_row_is_not_looked_at(shortcut):
    def run(filling):
        case = Problem(9, num_layers=2, shortcut=shortcut, inputs=3, lengths=np.array([1, 3]))
        for array in (case.x, case.dy, case.dcells):
            array[1:, 0] = filling
        y, end, _ = case.forward()
        grads = case.backward()
        return [y, *end, grads.x, grads.h0, grads.c0, *grads.params.values()]

    for got, want in zip(run(np.nan), run(5.0), strict=True):
        np.testing.assert_array_equal(got, want)


def test_traces_end_with_the_rows():
    case = Problem(6, steps=4, batch=3, lengths=np.array([2, 0, 4]), num_layers=2, bidirectional=True, peephole=True)
    tape, grads = case.forward()[2], case.backward()
    for kept, dh_norm, dc_norm in zip(tape.layers, grads.dh_norm, grads.dc_norm, strict=True):
        on = np.arange(4)[:, None] < case.lengths
        for array in (*kept.gates, kept.c):
            np.testing.assert_array_equal((array != 0).all(axis=2), on)
            np.testing.assert_array_equal((array != 0).any(axis=2), on)
        np.testing.assert_array_equal(dh_norm > 0, on)
        np.testing.assert_array_equal(dc_norm > 0, on)


def test_what_cannot_be_meant():
    case = Problem(0, zoneout=(0.5, 0.0))
    for masks in ({}, {"zoneout_h_l0": np.zeros((3, 2, 2), bool)}, case.masks | {"dropout_l0": np.zeros((3, 2, 3))}):
        case.masks = masks
        with pytest.raises(ValueError, match="mask"):
            case.forward()
    with pytest.raises(TypeError, match="unknown options: peepholes"):
        reference.forward(case.params, case.x, peepholes=True)
    with pytest.raises(ValueError, match="params must have weight_ih_l0, weight_hh_l0, got nothing"):
        reference.forward({}, case.x)
    with pytest.raises(ValueError, match="params must have weight_ih_l1, weight_hh_l1, got weight_ih_l0"):
        reference.forward(case.params, case.x, num_layers=2)
    with pytest.raises(TypeError, match="params must be a mapping from names to arrays, got list"):
        reference.forward([], case.x)
    with pytest.raises(ValueError, match=r"x must have shape \(T, B, I\), got \(3,\)"):
        reference.forward(case.params, np.ones(3))
    with pytest.raises(ValueError, match="sigmoi"):
        reference.forward(case.params, case.x, activations=("sigmoi", "tanh", "tanh"))


def test_long_double_stays_with_every_option():
    case = Problem(2, peephole=True, proj_size=2, layer_norm="cell", cell_clip=0.5, zoneout=(0.3, 0.3), coupled=True)
    case.x = case.x.astype(np.longdouble)
    y, (h, c), _ = case.forward()
    grads = case.backward()
    found = {a.dtype for a in (y, h, c, grads.x, grads.h0, grads.c0, grads.dc_norm, *grads.params.values())}
    assert found == {np.dtype(np.longdouble)}
