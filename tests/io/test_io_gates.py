"""from_gates and from_tensorflow1 against each framework's formulas in float64 NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import agree, draw

INPUTS, H, STEPS = 5, 4, 6
TERMS = 4 * (INPUTS + H + 1)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def basic_cell(kernel: Any, bias: Any, x: Any, forget_bias: float, order: str = "ijfo") -> Any:
    """TensorFlow's BasicLSTMCell: one product of [x, h], gates i, j (our g), f, o, forget_bias added at run time."""
    kernel, bias = np.asarray(kernel, np.float64), np.asarray(bias, np.float64)
    c, h, y = np.zeros(H), np.zeros(H), []
    for row in np.asarray(x, np.float64):
        gates = dict(zip(order, np.split(np.concatenate([row, h]) @ kernel + bias, 4), strict=True))
        c = sigmoid(gates["f"] + forget_bias) * c + sigmoid(gates["i"]) * np.tanh(gates["j"])
        h = sigmoid(gates["o"]) * np.tanh(c)
        y.append(h)
    return np.stack(y)


def variables(scope: str = "rnn/basic_lstm_cell", seed: int = 0, suffix: str = "") -> dict[str, Any]:
    shapes = {"kernel": (INPUTS + H, 4 * H), "bias": (4 * H,)}
    return {f"{scope}/{n}{suffix}": 0.6 * draw(*s, seed=seed + k) for k, (n, s) in enumerate(shapes.items())}


@pytest.mark.parametrize("forget_bias", [0.0, 1.0])
@pytest.mark.parametrize("suffix", ["", ":0"])
def test_tensorflow1(forget_bias, suffix):
    found = variables(suffix=suffix) | {"rnn/basic_lstm_cell/kernel/Adam": draw(INPUTS + H, 4 * H)}
    kernel, bias = list(found.values())[:2]
    x = draw(STEPS, INPUTS, seed=9)
    want = basic_cell(kernel, bias, x, forget_bias)
    for arrays in (found, (kernel, bias)):
        agree(qg.io.from_tensorflow1(arrays, forget_bias=forget_bias)(x)[0], want, TERMS, STEPS, "y")


def test_tensorflow1_without_a_bias():
    kernel = next(iter(variables().values())).astype(np.float32)
    net = qg.io.from_tensorflow1({"rnn/basic_lstm_cell/kernel": kernel}, forget_bias=1.0)
    assert net.dtype == np.float32
    x = draw(STEPS, INPUTS, seed=9)
    agree(net(x)[0], basic_cell(kernel, np.zeros(4 * H), x, 1.0), TERMS, STEPS, "y")


def test_forget_bias_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match="forget_bias= must be given"):
        qg.io.from_tensorflow1(variables())
    np.savez(tmp_path / "v.npz", **variables())
    with pytest.raises(ValueError, match=r"v\.npz: rnn/basic_lstm_cell: .*forget_bias="):
        qg.io.load(tmp_path / "v.npz")
    x = draw(STEPS, INPUTS, seed=9)
    want = basic_cell(*variables().values(), x, 1.0)
    agree(qg.io.load(tmp_path / "v.npz", forget_bias=1.0)(x)[0], want, TERMS, STEPS, "y")


def test_block_lstm_v2():
    kernel, bias = variables().values()
    x = draw(STEPS, INPUTS, seed=9)
    want = basic_cell(kernel, bias, x, 0.0, "ifjo")
    agree(qg.io.from_tensorflow1((kernel, bias), forget_bias=0.0, order="ifgo")(x)[0], want, TERMS, STEPS, "y")


def test_tensorflow1_bidirectional_and_names():
    arrays = variables("bi/fw/lstm_cell") | variables("bi/bw/lstm_cell", seed=5) | variables("dec/lstm_cell", seed=9)
    x = draw(STEPS, INPUTS, seed=9)
    both = qg.io.from_tensorflow1(arrays, forget_bias=1.0, name="bi")
    fw, bw = (basic_cell(*variables(seed=s).values(), x[::d], 1.0)[::d] for s, d in ((0, 1), (5, -1)))
    agree(both(x)[0], np.concatenate([fw, bw], 1), TERMS, STEPS, "y")
    with pytest.raises(ValueError, match=r"several networks: choose one by name=, of 'bi' .*'dec/lstm_cell'"):
        qg.io.from_tensorflow1(arrays, forget_bias=1.0)


def test_tensorflow1_peepholes_and_projection():
    """LSTMCell with use_peepholes and num_proj, by its formulas."""
    scope, p = "rnn/lstm_cell", 3
    arrays = {f"{scope}/kernel": 0.6 * draw(INPUTS + p, 4 * H), f"{scope}/bias": draw(4 * H, seed=2)}
    arrays |= {f"{scope}/w_{gate}_diag": draw(H, seed=3 + k) for k, gate in enumerate("ifo")}
    arrays |= {f"{scope}/projection/kernel": draw(H, p, seed=7)}
    wide = {name.removeprefix(f"{scope}/"): np.asarray(a, np.float64) for name, a in arrays.items()}
    x, c, h, want = draw(STEPS, INPUTS, seed=9), np.zeros(H), np.zeros(p), []
    for row in x:
        i, j, f, o = np.split(np.concatenate([row, h]) @ wide["kernel"] + wide["bias"], 4)
        c, old = sigmoid(f + 1.0 + wide["w_f_diag"] * c) * c, c
        c = c + sigmoid(i + wide["w_i_diag"] * old) * np.tanh(j)
        h = (sigmoid(o + wide["w_o_diag"] * c) * np.tanh(c)) @ wide["projection/kernel"]
        want.append(h)
    agree(qg.io.from_tensorflow1(arrays, forget_bias=1.0)(x)[0], np.stack(want), TERMS, STEPS, "y")


@pytest.mark.parametrize(
    ("scope", "more", "why"),
    [
        ("layer_norm_basic_lstm_cell", {}, "its cell is 'layer_norm_basic_lstm_cell'"),
        ("coupled_input_forget_gate_lstm_cell", {}, "its cell is 'coupled_input_forget_gate_lstm_cell'"),
        ("my_lstm", {}, r"its cell is 'my_lstm'.*as \.\.\./lstm_cell/kernel"),
        ("lstm_cell", {"input/gamma": draw(H)}, "its cell has rnn/lstm_cell/input/gamma"),
        ("lstm_cell", {"kernel_norm": draw(H)}, "its cell has rnn/lstm_cell/kernel_norm"),
        ("lstm_cell", {"w_i_diag": draw(H)}, r"w_i_diag, w_f_diag, w_o_diag must all be given"),
        ("lstm_cell", {"w_i_diag": draw(H), "w_f_diag": draw(H)}, "must all be given"),
        ("lstm_cell", {f"w_{g}_diag": draw(n) for g, n in (("i", H), ("f", H), ("o", H + 1))}, r"shape \(4,\)"),
        ("lstm_cell", {"projection/kernel": np.float32(1)}, r"projection/kernel must have shape \(4, P\), found \(\)"),
        ("lstm_cell", {"projection/kernel": draw(2, H)}, r"projection/kernel must have shape \(4, P\)"),
        ("lstm_cell", {"bias": np.zeros(4 * H, int)}, r"bias has type int64; floating-point .*quantised"),
        ("lstm_cell", {"kernel": draw(INPUTS + H, 4 * H).astype(np.int8)}, "kernel has type int8; floating-point"),
    ],
)
def test_other_cells_of_tensorflow1_are_refused(scope, more, why, tmp_path):
    """A cell whose name or variables are not those of an LSTM computes something else: layer norm, coupled gates."""
    arrays = variables(f"rnn/{scope}") | {f"rnn/{scope}/{name}": value for name, value in more.items()}
    (found,) = qg.io.networks(arrays)
    assert found.problem is not None
    with pytest.raises(ValueError, match=why):
        qg.io.from_tensorflow1(arrays, forget_bias=1.0)
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(ValueError, match=why):
        qg.io.load(tmp_path / "v.npz", forget_bias=1.0)


@pytest.mark.parametrize(
    "cell",
    [
        "lstm_cell_1",
        "lstm_fused_cell",
        "lstm_block_wrapper",
        "multi_rnn_cell/cell_0/basic_lstm_cell",
        "multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell",
    ],
)
def test_names_of_tensorflow1_cells(cell):
    """Names of the classes, with an optimizer's slots beside, and another cell in a scope of the same beginning."""
    arrays = variables(f"rnn/{cell}") | variables(f"rnn/{cell}_9", seed=5)
    slots = {f"{name}/{slot}": value for name, value in arrays.items() for slot in ("Adam", "Adam_1")}
    net = qg.io.from_tensorflow1(arrays | slots, forget_bias=1.0, name=f"rnn/{cell}")
    x = draw(STEPS, INPUTS, seed=9)
    agree(net(x)[0], basic_cell(*variables().values(), x, 1.0), TERMS, STEPS, "y")


@pytest.mark.parametrize("scope", ["bw/lstm_cell", "rnn/bw/lstm_cell", "my_bw/lstm_cell"])
def test_tensorflow1_one_direction_alone(scope):
    """A scope bw without its fw is a network of its own."""
    x = draw(STEPS, INPUTS, seed=9)
    net = qg.io.from_tensorflow1(variables(scope), forget_bias=1.0, name=scope)
    agree(net(x)[0], basic_cell(*variables().values(), x, 1.0), TERMS, STEPS, "y")


ORDERS = {"i, o, f, g of ONNX": "iofg", "i, f, o, g of DyNet": "ifog", "i, g, f, o of Haiku": "igfo", "letters": "ifco"}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_orders(order):
    kernel, bias = variables().values()
    x = draw(STEPS, INPUTS, seed=9)
    letters = order.replace("g", "j").replace("c", "j")
    want = basic_cell(kernel, bias, x, 1.0, letters)
    lstm = qg.io.from_gates(kernel[:INPUTS].T, kernel[INPUTS:].T, bias, order=order, forget_bias=1.0)
    agree(lstm(x)[0], want, TERMS, STEPS, "y")


def test_layers_and_directions():
    """Lists are layers and pairs are directions; with the order as it is the arrays arrive unchanged."""
    want = qg.LSTM(INPUTS, H, 2, bidirectional=True, proj_size=3, peephole=True, rng=0)
    names = ("weight_ih", "weight_hh", "bias", "weight_hr", "peephole")
    given = {n: [(want.params[f"{n}_l{k}"], want.params[f"{n}_l{k}_reverse"]) for k in range(2)] for n in names}
    got = qg.io.from_gates(**given, order="ifgo", batch_first=True)
    assert got.batch_first
    assert all(np.array_equal(got.params[name], value) for name, value in want.params.items())


def test_no_bias_and_forget_bias():
    """A forget bias needs a bias to stand in."""
    lstm = qg.io.from_gates(draw(4 * H, INPUTS), draw(4 * H, H), forget_bias=1.0)
    assert lstm.params["bias_l0"].tolist() == [0.0] * H + [1.0] * H + [0.0] * 2 * H
    assert not qg.io.from_gates(draw(4 * H, INPUTS), draw(4 * H, H)).bias
    assert qg.io.from_gates(draw(4 * H, INPUTS, dtype=np.float64), draw(4 * H, H)).dtype == np.float64


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"order": "ifgx"}, "order must be"),
        ({"order": "ifg"}, "order must be"),
        ({"order": 3}, "order must be"),
        ({"weight_ih": draw(15, INPUTS)}, "weight_ih_l0 must have 4H rows"),
        ({"weight_ih": draw(16)}, r"weight_ih_l0 must have shape \(4H, I\)"),
        ({"weight_hh": draw(20, 5)}, "weight_hh_l0 must have 16 rows"),
        ({"weight_hh": draw(16, 5)}, "weight_hh_l0"),
        ({"bias": draw(32)}, "bias_l0 must have 16 rows"),
        ({"bias": [draw(16), draw(16)]}, "same layers"),
        ({"weight_hh": (draw(16, 4), draw(16, 4))}, "same layers"),
        ({"hidden_size": 5}, "hidden_size=4, got hidden_size=5"),
        ({"weight_ih": 1.0}, r"weight_ih_l0 must have shape \(4H, I\), got \(\)"),
        ({"weight_hh": draw(16)}, r"weight_hh_l0 must have shape \(4H, R\), got \(16,\)"),
        ({"bias": draw(16, 1)}, r"bias_l0 must have shape \(4H,\), got \(16, 1\)"),
        ({"peephole": 1.0}, r"peephole_l0 must have shape \(3, H\), got \(\)"),
        ({"peephole": draw(2, H)}, "peephole_l0 must have 3 rows"),
        ({"weight_hr": 1.0}, r"weight_hr_l0 must have shape \(P, H\), got \(\)"),
        ({"weight_ih": (), "weight_hh": (), "bias": ()}, r"same number of directions, 1 or 2, got \[0\]"),
        (dict.fromkeys(("weight_ih", "weight_hh", "bias"), 3 * (draw(16),)), r"1 or 2, got \[3\]"),
        ({"forget_bias": float("nan")}, "forget_bias must be a finite number, got nan"),
        ({"forget_bias": 1.0, "coupled": True}, r"forget_bias=1\.0 and coupled=True exclude each other"),
    ],
)
def test_arrays_that_do_not_fit(change, why):
    arguments = {"weight_ih": draw(16, INPUTS), "weight_hh": draw(16, H), "bias": draw(16)} | change
    with pytest.raises(ValueError, match=why):
        qg.io.from_gates(**arguments)


@pytest.mark.parametrize("forget_bias", ["1", 1j, np.ones(2), None, True])
def test_forget_bias_is_a_number(forget_bias):
    with pytest.raises(TypeError, match="forget_bias must be a finite number"):
        qg.io.from_gates(draw(16, INPUTS), draw(16, H), draw(16), forget_bias=forget_bias)
    if forget_bias is not None:
        with pytest.raises(TypeError, match="forget_bias must be a finite number"):
            qg.io.from_tensorflow1(variables(), forget_bias=forget_bias)


def test_forget_bias_of_coupled_gates():
    """0 is nothing to add; the constructor refuses the others, too."""
    with pytest.raises(ValueError, match="exclude each other"):
        qg.io.from_tensorflow1(variables(), forget_bias=1.0, coupled=True)
    assert qg.io.from_tensorflow1(variables(), forget_bias=0.0, coupled=True).coupled


@pytest.mark.parametrize(("bias", "forget_bias"), [(0.3, 1.0), (65504.0, 100.0)])
def test_forget_bias_of_float16_is_added_in_float32(bias, forget_bias):
    """The network is float32: the sum has its digits, and is not infinite where float16 would overflow."""
    biases = np.full(4 * H, bias, np.float16)
    want = biases.astype(np.float64)
    want[H : 2 * H] += forget_bias
    kernel = np.ones((INPUTS + H, 4 * H), np.float16)
    arrays = kernel[:INPUTS].T, kernel[INPUTS:].T, biases
    for net in (
        qg.io.from_gates(*arrays, forget_bias=forget_bias),
        qg.io.from_tensorflow1((kernel, biases), forget_bias=forget_bias, order="ifgo"),
    ):
        assert net.dtype == np.float32
        assert np.array_equal(net.params["bias_l0"], want.astype(np.float32))


def test_types_of_a_sum_with_forget_bias():
    """float64 stays float64, and integers are numbers like others."""
    arrays = draw(16, INPUTS), draw(16, H)
    bias = np.full(16, 1 / 3)
    net = qg.io.from_gates(*arrays, bias, forget_bias=1.0)
    assert net.params["bias_l0"].dtype == np.float64
    assert np.array_equal(net.params["bias_l0"][H : 2 * H], bias[:H] + 1.0)
    assert np.array_equal(bias, np.full(16, 1 / 3))
    assert qg.io.from_gates(*arrays, np.zeros(16, int), forget_bias=0.5).params["bias_l0"].dtype == np.float32


@pytest.mark.parametrize("name", ["weight_ih", "weight_hh", "bias", "weight_hr", "peephole"])
def test_arrays_are_real_numbers_without_a_mask(name):
    shapes = {"weight_ih": (16, INPUTS), "weight_hh": (16, 3), "bias": (16,), "weight_hr": (3, H), "peephole": (3, H)}
    arrays = {n: draw(*shape) for n, shape in shapes.items()}
    for value, why in (
        (np.ma.masked_array(arrays[name], True), "must not be a masked array"),
        (arrays[name] > 0, "must hold real numbers .*bool"),
        (arrays[name] * 1j, "must hold real numbers .*complex"),
    ):
        with pytest.raises(TypeError, match=f"{name}_l0 {why}"):
            qg.io.from_gates(**arrays | {name: value})


@pytest.mark.parametrize("name", ["kernel", "bias", "projection/kernel", "w_i_diag"])
def test_masked_variables_of_tensorflow1(name):
    arrays = variables("lstm_cell") | {f"lstm_cell/{name}": np.ma.masked_array(draw(H), True)}
    with pytest.raises(TypeError, match=f"lstm_cell/{name} must not be a masked array"):
        qg.io.from_tensorflow1(arrays, forget_bias=1.0)


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        (None, r"a mapping from names to arrays, or \(kernel, bias\), got None"),
        ((draw(9, 16), draw(16), draw(16)), "got 3 items"),
        ({1: draw(9, 16)}, "every name in arrays must be a str, got 1"),
    ],
)
def test_variables_of_tensorflow1_have_names(arrays, why):
    with pytest.raises(TypeError, match=why):
        qg.io.from_tensorflow1(arrays, forget_bias=1.0)


def test_paddle():
    """PyTorch's names and order, and every array a second time under the name of its cell."""
    want = qg.LSTM(INPUTS, H, 2, bidirectional=True, rng=0)
    arrays = want.state_dict(prefix="rnn.")
    for name, value in list(arrays.items()):
        kind, _, layer = name.removeprefix("rnn.").partition("_l")
        side = "bw" if layer.endswith("_reverse") else "fw"
        arrays[f"rnn.{layer[0]}.cell_{side}.{kind}"] = value
    (found,) = qg.io.networks(arrays)
    assert (found.name, found.num_layers, found.directions) == ("rnn", 2, 2)
    got = found.build()
    assert all(np.array_equal(got.params[name], value) for name, value in want.params.items())


# Of other frameworks the formulas are stated here; docs/coming-from has the same import lines.


def test_flax():
    """Flax linen's OptimizedLSTMCell: a Dense without bias for each gate of x, one with bias for each gate of h."""
    params = {f"i{g}": {"kernel": 0.6 * draw(INPUTS, H, seed=k)} for k, g in enumerate("ifgo")}
    params |= {
        f"h{g}": {"kernel": 0.6 * draw(H, H, seed=5 + k), "bias": draw(H, seed=9 + k)} for k, g in enumerate("ifgo")
    }
    x, c, h, want = draw(STEPS, INPUTS, seed=20), np.zeros(H), np.zeros(H), []
    for row in np.asarray(x, np.float64):
        i, f, g, o = (
            row @ params[f"i{n}"]["kernel"] + h @ params[f"h{n}"]["kernel"] + params[f"h{n}"]["bias"] for n in "ifgo"
        )
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        want.append(h)
    lstm = qg.io.from_gates(
        np.concatenate([params[f"i{g}"]["kernel"].T for g in "ifgo"]),
        np.concatenate([params[f"h{g}"]["kernel"].T for g in "ifgo"]),
        np.concatenate([params[f"h{g}"]["bias"] for g in "ifgo"]),
    )
    agree(lstm(x)[0], np.stack(want), TERMS, STEPS, "y")
