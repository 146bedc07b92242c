"""quadgate's own options and arguments in a module: results and gradients against the float64 reference."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from quadgate import _masks
from support import verdicts
from support.cases import Case, Data, Found, data, model
from support.modules import module_of, trained
from support.options import COMBINED, NAMES, variant

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed, its modules are not tested: install torch")
qt: Any = pytest.importorskip("quadgate.torch")

pytestmark = pytest.mark.filterwarnings("ignore:dropout=.* has no effect:UserWarning")


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_the_same_options_as_the_networks(kind):
    """Both classes list their options, for the sake of types: names, defaults and annotations are the same."""
    theirs = dict(inspect.signature(getattr(qg, kind)).parameters)
    ours = dict(inspect.signature(getattr(qt, kind)).parameters)
    for name in ("dtype", "rng"):
        theirs.pop(name)
    for name in ("dtype", "device"):
        ours.pop(name)
    described = [{name: (p.default, p.annotation) for name, p in of.items()} for of in (theirs, ours)]
    assert described[0] == described[1]


def masks(v: Case, net: Any, seed: int) -> Any:
    """The masks that a module draws after torch.manual_seed(seed)."""
    plan = net._mask_plan
    if not plan:
        return None
    torch.manual_seed(seed)
    rng = np.random.Generator(np.random.PCG64(int(torch.randint(2**63 - 1, ()))))
    return _masks.draw(plan, v.steps, v.batch, rng)


def renamed(found: Found) -> Found:
    """Gradients by our names: both of torch's biases have that of our one."""
    for name in [name for name in found if name.startswith("bias_hh")]:
        np.testing.assert_array_equal(found.pop(name), found[name.replace("hh", "ih")])
    return Found({name.replace("bias_ih", "bias"): value for name, value in found.items()})


def check(v: Case) -> None:
    net = model(v)
    module = module_of(net).train()
    for attempt in range(60):
        d: Data = data(v, attempt)
        right = verdicts.verdict(v, net, d, masks(v, net, 5))
        if right.clear:
            break
    else:
        raise verdicts.Unclear(str(v))
    torch.manual_seed(5)
    verdicts.compare(renamed(trained(v, module, d, cells=not v.rnn)), right, v)


@pytest.mark.parametrize("name", NAMES)
def test_each_option(name):
    check(variant(name))


@pytest.mark.parametrize("name", COMBINED)
def test_combinations(name):
    check(variant(name, resets=True, lengths=True, mask="any"))


@pytest.mark.parametrize("layout", [{}, {"batch_first": True}, {"unbatched": True}])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_resets_lengths_and_masks(bidirectional, layout):
    options = {"num_layers": 2, "bidirectional": bidirectional}
    some: list[dict[str, Any]] = [{"resets": True}, {"lengths": True}, {"mask": "left"}]
    for n, given in enumerate([*some, {"resets": True, "lengths": True, "mask": "any", "padding": "last"}]):
        check(Case(7, 1 if "unbatched" in layout else 4, 3, 6, options, seed=n, dtype="float64", **given, **layout))


def test_gradients_against_differences():
    """torch's own gradcheck, of x, the states and every parameter."""
    torch.manual_seed(0)
    for kind, options in (("LSTM", {"peephole": True, "layer_norm": "cell", "layer_norm_eps": 0.1}), ("RNN", {})):
        module = getattr(qt, kind)(3, 4, 2, bidirectional=True, dtype=torch.float64, **options)
        resets = torch.rand(5, 2) < 0.3
        state = [torch.randn(4, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(1 + (kind == "LSTM"))]
        x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)

        def call(x, *rest, module=module, state=state, resets=resets):
            h, w = rest[: len(state)], rest[len(state) :]
            named = dict(zip(dict(module.named_parameters()), w, strict=True))
            hx = tuple(h) if len(h) == 2 else h[0]
            y, end = torch.func.functional_call(module, named, (x, hx), {"resets": resets})
            return (y, *end) if len(h) == 2 else (y, end)

        weights = [p.detach().clone().requires_grad_() for p in module.parameters()]
        assert torch.autograd.gradcheck(call, (x, *state, *weights), fast_mode=True)


def test_arguments_may_be_tensors_arrays_or_lists():
    lstm, x = qt.LSTM(3, 4), torch.randn(3, 2, 3)
    lengths, resets = [3, 1], [[False, True], [True, False], [False, False]]
    want = lstm(x, lengths=lengths, resets=resets)[0]
    for kind in (torch.tensor, np.array):
        assert torch.equal(lstm(x, lengths=kind(lengths), resets=kind(resets))[0], want)


# ------------------------------------------------------------------------------------------------- options of chance


@pytest.mark.parametrize("options", [{"dropout": 0.5, "num_layers": 2}, {"zoneout": (0.5, 0.0)}, {"weight_drop": 0.5}])
def test_masks_come_from_torchs_generator(options):
    lstm, x = qt.LSTM(3, 50, **options), torch.randn(4, 5, 3)
    torch.manual_seed(7)
    one, two = lstm(x)[0], lstm(x)[0]
    torch.manual_seed(7)
    again = lstm(x)[0]
    with torch.no_grad():
        torch.manual_seed(7)
        without = lstm(x)[0]
    assert torch.equal(one, again)
    assert torch.equal(one, without)  # train() drops whether there is a gradient or not, as torch.nn.LSTM does
    assert not torch.equal(one, two)


def test_dropout_has_torchs_share_and_scale():
    """The second layer is the identity on a sum: h = x of it, so that y shows the mask and the factor 1 / (1 - p)."""
    rnn = qt.RNN(1, 400, 2, nonlinearity="relu", dropout=0.25, bias=False)
    with torch.no_grad():
        for p in rnn.parameters():
            p.zero_()
        rnn.weight_ih_l0.fill_(3.0)
        rnn.weight_ih_l1.copy_(torch.eye(400))
    y = rnn(torch.ones(50, 1, 1))[0]
    assert set(y.unique().tolist()) == {0.0, 4.0}  # 3 / (1 - 0.25)
    share = float((y == 0).float().mean())
    assert abs(share - 0.25) < 6 * (0.25 * 0.75 / y.numel()) ** 0.5


def test_eval_drops_nothing_and_has_gradients():
    torch.manual_seed(0)
    lstm = qt.LSTM(3, 9, 2, dropout=0.5, recurrent_dropout=0.5, weight_drop=0.5, dtype=torch.float64).eval()
    plain = torch.nn.LSTM(3, 9, 2, dtype=torch.float64)
    plain.load_state_dict(lstm.state_dict())
    x = torch.randn(4, 5, 3, dtype=torch.float64)
    for module in (lstm, plain):
        module(x)[0].square().sum().backward()
    torch.testing.assert_close(lstm(x)[0], plain(x)[0], rtol=1e-11, atol=1e-11)
    for p, q in zip(lstm.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-11, atol=1e-11)


def test_zoneout_in_eval_is_a_mean_without_gradients():
    v = variant("zoneout", dtype="float64")
    net, d = model(v), data(v)
    module = module_of(net).eval()
    x, hx = torch.tensor(d.x), tuple(map(torch.tensor, d.state))
    with torch.no_grad():
        y, (h, c) = module(x, hx)
    right = verdicts.verdict(v, net, d, None, backward=False)
    verdicts.compare({"y": y.numpy(), "h": h.numpy(), "c": c.numpy()}, right, v)
    with pytest.raises(NotImplementedError, match="zoneout need train"):
        module(x, hx)


# ------------------------------------------------------------------------------------------------- first parameters


def test_initialization():
    lstm = qt.LSTM(30, 20, initialization="keras", peephole=True, layer_norm="cell")
    w = lstm.weight_hh_l0.detach()
    torch.testing.assert_close(w.T @ w, torch.eye(20), rtol=0, atol=1e-5)
    end = (6 / (30 + 80)) ** 0.5
    assert end * 0.99 < lstm.weight_ih_l0.abs().max() <= end
    assert torch.equal(lstm.bias_ih_l0 + lstm.bias_hh_l0, torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat_interleave(20))
    assert torch.equal(lstm.norm_c_l0, torch.stack([torch.ones(20), torch.zeros(20)]))
    assert torch.equal(lstm.norm_ih_l0, torch.ones(80))
    lstm = qt.LSTM(3, 4, 2, forget_bias=2.5, shortcut="highway")
    assert torch.equal((lstm.bias_ih_l1 + lstm.bias_hh_l1)[4:8], torch.full((4,), 2.5))
    assert torch.equal(lstm.bias_highway_l1, torch.full((4,), -1.0))


class Gained(qt.LSTM):
    """A subclass with a parameter and a submodule of its own."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.gain = torch.nn.Parameter(torch.full((5,), 7.0))
        self.head = torch.nn.Linear(5, 1)


def test_what_a_subclass_adds_is_not_drawn():
    module = Gained(3, 5)
    head = module.head.weight.detach().clone()
    torch.manual_seed(0)
    module.reset_parameters()
    torch.manual_seed(0)
    theirs = torch.nn.LSTM(3, 5)
    assert all(torch.equal(getattr(module, name), value) for name, value in theirs.named_parameters())
    assert torch.equal(module.gain, torch.full((5,), 7.0))
    assert torch.equal(module.head.weight, head)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("norm", [torch.nn.utils.parametrizations.weight_norm, torch.nn.utils.weight_norm])
def test_drawing_parametrized_weights_again(norm):
    drawn = []
    for kind in (qt.LSTM, torch.nn.LSTM):
        module = norm(kind(3, 5), "weight_hh_l0")
        torch.manual_seed(0)
        module.reset_parameters()
        drawn.append([value.detach() for value in module.parameters()])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*drawn, strict=True))


def test_drawing_parametrized_weights_with_options():
    """Their own numbers would make nothing of it: a direction of zeros is NaN."""
    lstm = torch.nn.utils.parametrizations.weight_norm(qt.LSTM(3, 5, initialization="keras"), "weight_hh_l0")
    lstm.reset_parameters()
    torch.testing.assert_close(lstm.weight_hh_l0.T @ lstm.weight_hh_l0, torch.eye(5))
    gained = qt.LSTM(3, 5, forget_bias=2.0, layer_norm="cell")
    torch.nn.utils.parametrizations.weight_norm(gained, "norm_ih_l0", dim=None)
    torch.nn.utils.parametrizations.weight_norm(gained, "bias_ih_l0", dim=None)
    gained.reset_parameters()
    torch.testing.assert_close(gained.norm_ih_l0.detach(), torch.ones(20))
    torch.testing.assert_close(gained.bias_ih_l0.detach()[5:10], torch.full((5,), 2.0))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_cannot_be_drawn_is_refused():
    lstm = torch.nn.utils.weight_norm(qt.LSTM(3, 5, initialization="keras"), "weight_hh_l0")
    before = [value.detach().clone() for value in lstm.parameters()]
    with pytest.raises(RuntimeError, match="weight_hh_l0 cannot be drawn, since it is no parameter any more"):
        lstm.reset_parameters()
    assert all(torch.equal(old, new) for old, new in zip(before, lstm.parameters(), strict=True))
