"""Optimizers: their equations in float64, clipping, schedules, states that never change, and memory used again."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import quadgate as qg
from quadgate import train
from quadgate.train import _commit, _optimizers

pytestmark = pytest.mark.numbers

SHAPES = [(7, 5), (33,), (1,), (40, 501)]


def numbers(seed, dtype="float64"):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]


def by_formula(opt, params, all_grads, rates):
    """Parameters after some steps, from the equations in the docstrings."""
    p = [a.copy() for a in params]
    m, v = [np.zeros_like(a) for a in p], [np.zeros_like(a) for a in p]
    for k, (grads, rate) in enumerate(zip(all_grads, rates, strict=True), 1):
        if opt.clip_norm:
            norm = math.sqrt(sum(float((g * g).sum()) for g in grads))
            grads = [g * min(1.0, opt.clip_norm / norm) for g in grads]
        if opt.clip_each:
            grads = [g * min(1.0, opt.clip_each / math.sqrt(float((g * g).sum()))) for g in grads]
        if opt.clip_value:
            grads = [np.clip(g, -opt.clip_value, opt.clip_value) for g in grads]
        for i, g in enumerate(grads):
            if isinstance(opt, train.SGD):
                m[i] = opt.momentum * m[i] + g
                p[i] = p[i] - rate * (g + opt.momentum * m[i] if opt.nesterov else m[i])
                continue
            if isinstance(opt, train.AdamW):
                p[i] = p[i] - rate * opt.weight_decay * p[i]
            m[i] = opt.beta_1 * m[i] + (1 - opt.beta_1) * g
            v[i] = opt.beta_2 * v[i] + (1 - opt.beta_2) * g * g
            root = np.sqrt(v[i] / (1 - opt.beta_2**k)) + opt.epsilon
            p[i] = p[i] - rate / (1 - opt.beta_1**k) * m[i] / root
    return p


OPTIMIZERS = [
    train.SGD(0.1),
    train.SGD(0.1, 0.9),
    train.SGD(0.1, 0.9, nesterov=True, clip_norm=1.0),
    train.SGD(0.1, clipvalue=0.3),
    train.Adam(0.01),
    train.Adam(0.01, 0.8, 0.99, 1e-6, clip_norm=3.0),
    train.Adam(0.01, clipnorm=3.0),
    train.Adam(train.WarmupCosine(0.1, 3, 8, 0.01), clip_value=0.5),
    train.AdamW(0.01, weight_decay=0.1, global_clipnorm=100.0),
]


@pytest.mark.parametrize("opt", OPTIMIZERS, ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ten_steps(opt, dtype):
    steps = 10
    params, grads = numbers(0, dtype), [numbers(k + 1, dtype) for k in range(steps)]
    p, state = params, opt.start(params)
    for g in grads:
        p, state = opt.update(p, g, state)
        assert [a.shape for a in p] == SHAPES
        np.testing.assert_array_equal(state.flat, np.concatenate([a.ravel() for a in p]))
        assert np.shares_memory(state.flat, p[1])
    assert state.step == steps
    wide = [[a.astype(np.float64) for a in g] for g in [params, *grads]]
    want = by_formula(opt, wide[0], wide[1:], [opt.rate(k) for k in range(steps)])
    # Less than 40 roundings a step, each of a parameter or of a move; a move of Adam's is at most 10 times the rate in
    # the first steps, and one of SGD's at most rate * 10 * the largest gradient.
    eps, rate = float(np.finfo(dtype).eps), max(opt.rate(k) for k in range(steps))
    largest = max(float(np.abs(a).max()) for g in wide[1:] for a in g)
    move = rate * 10 * (largest if isinstance(opt, train.SGD) else 1.0)
    for got, exact in zip(p, want, strict=True):
        assert got.dtype == np.dtype(dtype)
        assert (np.abs(got - exact) <= steps * 40 * eps * (np.abs(exact) + move)).all()


@pytest.mark.parametrize("opt", OPTIMIZERS, ids=repr)
def test_nothing_that_is_passed_in_changes(opt):
    params, grads = numbers(0), numbers(1)
    before = opt.start(params)
    first, state = opt.update(params, grads, before)
    kept = [a.copy() for a in first], {n: [a.copy() for a in s] for n, s in state.slots.items()}, state.flat.copy()
    later, p = state, first
    for _ in range(5):
        p, later = opt.update(p, grads, later)
    for got, want in zip(first, kept[0], strict=True):
        np.testing.assert_array_equal(got, want)
    for name, slot in state.slots.items():
        for got, want in zip(slot, kept[1][name], strict=True):
            np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(state.flat, kept[2])
    again, _ = opt.update(params, grads, before)
    for got, want in zip(again, first, strict=True):
        np.testing.assert_array_equal(got, want)
    for a in (*first, state.flat, *(a for s in state.slots.values() for a in s)):
        with pytest.raises(ValueError, match="WRITEABLE"):
            a.flags.writeable = True
    assert all((a == b).all() for a, b in zip(params, numbers(0), strict=True))


def test_memory_is_used_again_only_when_nobody_looks():
    opt, params, grads = train.Adam(0.1), numbers(0), numbers(1)
    p, state = opt.update(params, grads, opt.start(params))
    seen: set[int] = set()
    for _ in range(10):
        p, state = opt.update(p, grads, state)
        seen |= {id(block) for block in state._blocks}
    assert len(seen) <= 6  # two sets of p, m and v
    kept = p[0][0, 0:1]  # a view of a view
    value = float(kept[0])
    for _ in range(4):
        p, state = opt.update(p, grads, state)
    assert float(kept[0]) == value


def test_a_state_without_means_goes_on_with_other_parameters():
    opt, params, grads = train.SGD(1.0), numbers(0), numbers(1)
    p, state = opt.update(params, grads, opt.start(params))
    p, state = opt.update(p, grads, state)
    del p
    (got,), _ = opt.update(params[:1], grads[:1], state)
    np.testing.assert_array_equal(got, params[0] - grads[0])


def test_numbers_that_change_between_steps():
    """As in torch: a mean that becomes needed starts at zero, and one that no longer is stays as it was."""
    opt, rate, p = train.SGD(0.1), 0.1, numbers(0)
    want, u = [a.copy() for a in p], [np.zeros_like(a) for a in p]
    state = opt.start(p)
    for k, momentum in enumerate([0.0, 0.5, 0.9, 0.0, 0.0, 0.9]):
        opt.momentum = momentum
        p, state = opt.update(p, numbers(k + 1), state)
        for i, g in enumerate(numbers(k + 1)):
            if momentum:
                u[i] = momentum * u[i] + g
            want[i] = want[i] - rate * (u[i] if momentum else g)
    for got, exact in zip(p, want, strict=True):
        np.testing.assert_allclose(got, exact, rtol=1e-13, atol=1e-13)


def test_a_state_of_another_optimizer():
    params, grads = numbers(0), numbers(1)
    for opt, other, message in (
        (train.Adam(), train.SGD(0.1, 0.9), "the state must have m, v, got velocity: it is of another optimizer"),
        (train.AdamW(), train.SGD(0.1), "the state must have m, v, got no slots"),
        (train.SGD(0.1, 0.9), train.Adam(), "the state must have velocity, got m, v"),
        (train.SGD(0.1), train.Adam(), "the state must have no slots, got m, v"),
    ):
        with pytest.raises(ValueError, match=message):
            opt.update(params, grads, other.start(params))
    with pytest.raises(TypeError, match="slots must be plain arrays of the parameters' type and sizes"):
        train.Adam().update(params, grads, train.Adam().start([*params[1:], params[0]]))


def test_one_state_updated_by_many_threads():
    """Each gets the same result, in memory of its own."""
    import threading

    opt, params, grads = train.Adam(0.1), numbers(0), numbers(1)
    p, state = params, opt.start(params)
    for _ in range(3):
        p, state = opt.update(p, grads, state)
    results: list[list[np.ndarray]] = []
    threads = [threading.Thread(target=lambda: results.append(opt.update(p, grads, state)[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    want = [a.copy() for a in results[0]]
    assert len({a[0].__array_interface__["data"][0] for a in results}) == 8
    assert all((a == b).all() for r in results for a, b in zip(r, want, strict=True))


def test_bits_do_not_depend_on_threads():
    found = []
    for threads in (1, 2, 3):
        qg.set_num_threads(threads)
        p, grads = numbers(0, "float32"), numbers(1, "float32")
        opt = train.Adam(0.01, clip_norm=0.5)
        state = opt.start(p)
        for _ in range(3):
            p, state = opt.update(p, grads, state)
        found.append([a.tobytes() for a in (*p, *state.slots["m"], *state.slots["v"])])
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("opt", [train.Adam(0.01), train.AdamW(0.01), train.SGD(0.1, 0.9), train.SGD(0.1)], ids=repr)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_steps_have_the_bits_of_small_ones(opt, dtype):
    """From 32 MB of results on these are written past the caches, in whole lines, which parameters begin between."""
    results = 1 + len(opt.start([np.zeros(1, dtype)]).slots)
    half = (32 << 20) // np.dtype(dtype).itemsize // results // 2
    sizes = [3, half + 1, half + 5, 1]
    rng = np.random.default_rng(3)
    p, g = ([rng.standard_normal(n, dtype) for n in sizes] for _ in range(2))
    large, state = opt.update(p, g, opt.start(p))
    large, state = opt.update(large, g, state)
    for k, n in enumerate(sizes):
        for part in (slice(0, n // 2), slice(n // 2, n)):
            some, ours = [p[k][part]], [g[k][part]]
            small, own = opt.update(some, ours, opt.start(some))
            small, own = opt.update(small, ours, own)
            assert small[0].tobytes() == large[k][part].tobytes()
            for name in own.slots:
                assert own.slots[name][0].tobytes() == state.slots[name][k][part].tobytes()


def test_the_clipped_norm_is_the_bound():
    """Of gradients as small as torch's 1e-6, by which torch.nn.utils.clip_grad_norm_ would halve them once more."""
    grads = [np.array([6e-7, 8e-7])]  # of norm 1e-6
    opt = train.SGD(1.0, clip_norm=5e-7)
    (p,), _ = opt.update([np.zeros(2)], grads, opt.start([np.zeros(2)]))
    np.testing.assert_allclose(p, [-3e-7, -4e-7], rtol=1e-14)


def test_every_parameter_moves_in_every_step():
    """An embedding's row without a gradient goes on with its mean, as in torch."""
    opt, params = train.Adam(0.1), [np.ones((3, 2))]
    p, state = opt.update(params, [np.array([[1.0, 1], [0, 0], [1, 1]])], opt.start(params))
    assert (p[0][1] == 1).all()
    p, state = opt.update(p, [np.array([[0.0, 0], [1, 1], [0, 0]])], state)
    before = p[0].copy()
    p, state = opt.update(p, [np.zeros((3, 2))], state)
    assert (p[0] != before).all()


def test_a_state_that_was_saved():
    opt, params, grads = train.Adam(0.1), numbers(0), numbers(1)
    p, state = opt.update(params, grads, opt.start(params))
    again = opt.restore(p, state.step, {n: [a.copy() for a in s] for n, s in state.slots.items()})
    one, two = opt.update(p, grads, state), opt.update(p, grads, again)
    for got, want in zip(one[0], two[0], strict=True):
        np.testing.assert_array_equal(got, want)
    with pytest.raises(ValueError, match="the state must have m, v, got m"):
        opt.restore(p, 1, {"m": p})
    with pytest.raises(ValueError, match="v of the state must have the parameters' shapes"):
        opt.restore(p, 1, {"m": p, "v": p[1:]})
    with pytest.raises(ValueError, match="a gradient and a state for each of 4"):
        opt.update(p, grads[1:], state)
    with pytest.raises(ValueError, match=r"gradient 0 must have its parameter's shape \(7, 5\), got \(5, 7\)"):
        opt.update(p, [grads[0].T, *grads[1:]], state)


@pytest.mark.parametrize("opt", OPTIMIZERS, ids=repr)
def test_config(opt):
    again = _optimizers.from_config(opt.config())
    assert type(again) is type(opt)
    assert again.config() == opt.config()
    assert repr(again) == repr(opt)


def test_schedules():
    rate = train.WarmupCosine(2.0, 4, 12, floor=0.5)
    assert [rate(k) for k in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert rate(4) == 2.0
    assert rate(8) == 0.5 + 1.5 * 0.5
    assert rate(12) == rate(1000) == 0.5
    assert train.WarmupCosine(1.0, 0, 1)(0) == 1.0
    opt = train.SGD(lambda step: 1.0 / (1 + step))
    assert [opt.rate(k) for k in range(3)] == [1.0, 1 / 2, 1 / 3]
    for wrong in (np.nan, -1.0, np.inf):
        with pytest.raises(ValueError, match=f"the learning rate of step 7 must be .* got {wrong}"):
            train.SGD(lambda step, wrong=wrong: wrong).rate(7)
    with pytest.raises(TypeError, match="the learning rate of step 0 must be a number of 0 or more, got None"):
        train.Adam(lambda step: None).rate(0)
    with pytest.raises(TypeError, match=r"cannot be saved: use a number or train\.WarmupCosine"):
        opt.config()
    for wrong in ((0.0, 1, 2), (1.0, -1, 2), (1.0, 2, 2), (1.0, 0, 1, 2.0)):
        with pytest.raises(ValueError, match="must be"):
            train.WarmupCosine(*wrong)


def test_bad_arguments():
    for call, message in (
        (lambda: train.SGD(-1.0), "learning_rate must be 0 or more"),
        (lambda: train.SGD("fast"), "learning_rate must be a number of 0 or more, or a schedule, got 'fast'"),
        (lambda: train.SGD(1.0, 1.0), "momentum must be from 0 to below 1, got 1.0"),
        (lambda: train.SGD(1.0, nesterov=True), "nesterov=True needs a momentum above 0"),
        (lambda: train.Adam(1.0, 0.9, -0.1), "beta_2 must be from 0 to below 1"),
        (lambda: train.Adam(epsilon=0), "epsilon must be a positive number"),
        (lambda: train.AdamW(weight_decay=-1), "weight_decay must be 0 or more"),
        (lambda: train.Adam(clip_norm=0), "clip_norm must be a positive number, got 0"),
        (lambda: train.Adam(clipnrm=1), "unexpected keyword argument 'clipnrm': did you mean 'clipnorm'"),
        (lambda: train.Adam(clip_norm=1, clip_value=1), "only one of clip_norm, clipnorm and clip_value"),
        (lambda: train.Adam(clip_norm=1, global_clipnorm=1), "two names for one bound"),
        (lambda: _optimizers.get("adan"), "did you mean 'adam'"),
        (lambda: _optimizers.get(None), "optimizer must be"),
        (lambda: _optimizers.from_config({"optimizer": "Lion"}), "unknown optimizer 'Lion'"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    assert type(_optimizers.get("AdamW")) is train.AdamW


@pytest.mark.parametrize("kind", [train.Adam, train.AdamW])
def test_an_epsilon_that_the_type_cannot_hold(kind):
    """As 0 it would make NaN of a gradient that is 0, as that of a symbol that does not occur."""
    params = {dtype: [np.ones(3, dtype)] for dtype in ("float32", "float64")}
    zeros = {dtype: [np.zeros(3, dtype)] for dtype in params}
    for dtype, epsilon in (("float32", 1e-40), ("float32", 1e39), ("float64", 1e-310)):
        message = re.escape(f"epsilon must be a number that {dtype} can hold, got {epsilon}")
        with pytest.raises(ValueError, match=message):
            kind(epsilon=epsilon).start(params[dtype])
        opt = kind()
        state = opt.start(params[dtype])
        opt.epsilon = epsilon
        with pytest.raises(ValueError, match=message):
            opt.update(params[dtype], zeros[dtype], state)
    for dtype, epsilon in (("float32", 2e-38), ("float64", 1e-40)):
        opt = kind(0.0, epsilon=epsilon)
        new, _ = opt.update(params[dtype], zeros[dtype], opt.start(params[dtype]))
        np.testing.assert_array_equal(new[0], params[dtype][0])
    model = train.Sequential([train.Dense(3, 2)], rng=0)
    with pytest.raises(ValueError, match="epsilon must be a number that float32 can hold, got 1e-40"):
        model.compile("mse", kind(epsilon=1e-40))


def test_gradients_that_are_not_finite_stay_so():
    for opt in OPTIMIZERS:
        params, grads = numbers(0), numbers(1)
        grads[0][0, 0] = np.nan
        p, _ = opt.update(params, grads, opt.start(params))
        assert np.isnan(p[0][0, 0])


@pytest.mark.slow
def test_ctrl_c_leaves_parameters_and_state_both_old_or_both_new(run_script):
    """With a gradient of 1 and a rate of 1, a parameter is minus the number of its steps, whatever was interrupted."""
    run_script("""
        import os, signal, threading
        import numpy as np
        from quadgate import train
        from quadgate.train import _commit

        class Model:
            __slots__ = ("params", "state")

        opt, model = train.SGD(1.0, clip_norm=1e9), Model()
        model.params = [np.zeros((300, 500), np.float32), np.zeros(7, np.float32)]
        model.state = opt.start(model.params)
        ones = [np.ones_like(p) for p in model.params]
        rng = np.random.default_rng(0)
        for _ in range(100):
            timer = threading.Timer(rng.random() * 5e-3, os.kill, (os.getpid(), signal.SIGINT))
            try:
                timer.start()
                for _ in range(20_000):  # no limit in seconds: a machine may stand still for many
                    params, state = opt.update(model.params, ones, model.state)
                    _commit.replace_all([(model, "params", params), (model, "state", state)])
                raise SystemExit("nothing was interrupted")
            except KeyboardInterrupt:
                timer.join()
            assert all((p == -model.state.step).all() for p in model.params)
        assert model.state.step > 20
    """)


def test_lay_out():
    arrays = [np.arange(6.0).reshape(2, 3), np.array(7.0), np.zeros((0, 4))]
    flat, views = _commit.lay_out(arrays, np.dtype("float32"))
    np.testing.assert_array_equal(flat, [0, 1, 2, 3, 4, 5, 7])
    assert [v.shape for v in views] == [(2, 3), (), (0, 4)]
    assert np.shares_memory(views[0], flat)
    with pytest.raises(ValueError, match="WRITEABLE"):
        views[0].flags.writeable = True
