"""`params.flat` and `grads.params.flat`: one vector over all parameters in the order of the names, arrays as views."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import quadgate as qg
from quadgate._params import Params, empty_vector

NETS = {
    "plain": lambda: qg.LSTM(3, 4, rng=0),
    "deep": lambda: qg.LSTM(3, 5, 2, bidirectional=True, peephole=True, proj_size=2, rng=0),
    "no bias": lambda: qg.LSTM(3, 4, bias=False, rng=0),
    "norm": lambda: qg.LSTM(3, 4, 2, layer_norm="cell", shortcut="highway", dtype="float64", rng=0),
    "rnn": lambda: qg.RNN(3, 4, 2, rng=0),
}
nets = pytest.mark.parametrize("make", NETS.values(), ids=NETS)


def gradients(net, **options):
    x = np.random.default_rng(1).normal(size=(6, 2, 3)).astype(net.dtype)
    y, _, tape = net.forward(x)
    return net.backward(tape, np.ones_like(y), **options)


def joined(named):
    return np.concatenate([value.ravel() for value in named.values()])


@nets
def test_parameters(make):
    net = make()
    flat = net.params.flat
    assert flat.shape == (net.num_parameters,)
    assert flat.dtype == net.dtype
    assert np.array_equal(flat, joined(net.params))
    assert all(np.shares_memory(value, flat) for value in net.params.values())


@nets
def test_nothing_of_the_parameters_can_be_written(make):
    net = make()
    for value in (net.params.flat, *net.params.values()):
        assert not value.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            value.flags.writeable = True
    with pytest.raises(TypeError, match="item assignment"):
        net.params["weight_ih_l0"] = 0
    assert isinstance(net.params.copy(), dict)


@nets
def test_an_update_by_the_flat_vectors(make):
    """`flat` follows each update, and a snapshot from before keeps its numbers."""
    net = make()
    before, grads = net.params, gradients(net)
    old = before.flat.copy()
    with net.writable() as params:
        for name, value in params.items():
            value -= 0.5 * grads.params[name]
    assert np.array_equal(net.params.flat, (old - 0.5 * grads.params.flat).astype(net.dtype))
    assert np.array_equal(before.flat, old)
    net.load_state_dict(before)
    assert np.array_equal(net.params.flat, old)


@nets
def test_gradients(make):
    net = make()
    grads = gradients(net)
    assert isinstance(grads.params, dict)
    assert list(grads.params) == list(net.params)
    assert grads.params.flat.shape == net.params.flat.shape
    assert np.array_equal(grads.params.flat, joined(grads.params))
    grads.params.flat[...] = 7
    assert all((value == 7).all() for value in grads.params.values())
    grads.params["weight_ih_l0"][...] = 8
    assert (grads.params.flat[: grads.params["weight_ih_l0"].size] == 8).all()


@nets
def test_gradients_into_those_of_before(make):
    """A dict from an earlier call is returned, with `accumulate` too; arrays of the caller's have no vector."""
    net = make()
    first = gradients(net)
    once = first.params.flat.copy()
    again = gradients(net, out=first.params, accumulate=True)
    assert again.params is first.params
    assert np.array_equal(again.params.flat, once + once)
    gradients(net, out=first.params, accumulate=np.True_)
    assert np.array_equal(again.params.flat, once + once + once)
    apart = gradients(net, out={name: np.empty_like(value) for name, value in once_by_name(net, once).items()})
    assert np.array_equal(joined(apart.params), once)
    with pytest.raises(AttributeError, match="arrays of the caller's"):
        _ = apart.params.flat


@nets
def test_the_order_of_names_in_out_is_free(make):
    net = make()
    wanted = gradients(net).params
    out = {name: np.empty_like(wanted[name]) for name in reversed(wanted)}
    named = gradients(net, out=out).params
    assert list(named) == list(wanted)
    assert all(named[name] is out[name] for name in out)
    assert all(np.array_equal(value, wanted[name]) for name, value in named.items())
    out["another"] = out.pop(next(iter(out)))
    with pytest.raises(ValueError, match="must have the names"):
        gradients(net, out=out)


def test_a_mapping_of_another_type_is_asked_for_its_arrays():
    """Also a dict with a __getitem__ of its own, and whatever the type of dy."""

    class Elsewhere(dict):
        def __getitem__(self, name):
            return found[name]

    net = NETS["plain"]()
    wanted = gradients(net).params
    x = np.random.default_rng(1).normal(size=(6, 2, 3)).astype(np.float32)
    y, _, tape = net.forward(x)
    for dy in (np.ones_like(y), np.ones(y.shape)):
        found = {name: np.zeros_like(value) for name, value in wanted.items()}
        out = Elsewhere({name: np.zeros_like(value) for name, value in wanted.items()})
        named = net.backward(tape, dy, out=out).params
        assert all(np.array_equal(found[name], value) for name, value in wanted.items())
        assert all(not value.any() for value in out.values())
        assert all(named[name] is found[name] for name in named)


@nets
def test_vectors_of_gradients_begin_at_cache_lines(make):
    net = make()
    kept = [gradients(net).params.flat for _ in range(5)]
    kept += [empty_vector(n, net.dtype) for n in (0, 1, 15, 16, 17, 100_000)]
    assert [flat.ctypes.data % 64 for flat in kept if flat.size] == [0] * 10
    assert [flat.size for flat in kept[5:]] == [0, 1, 15, 16, 17, 100_000]
    assert all(flat.flags.writeable and flat.dtype == net.dtype for flat in kept)


def once_by_name(net, flat):
    return {name: np.empty(value.shape, flat.dtype) for name, value in net.params.items()}


@pytest.mark.parametrize("move", [lambda a: pickle.loads(pickle.dumps(a)), copy.deepcopy], ids=["pickle", "deepcopy"])
@nets
def test_copies_have_a_vector_of_their_own(make, move):
    net = make()
    grads = gradients(net)
    for old, new in ((net.params, move(net).params), (grads.params, move(grads).params)):
        assert np.array_equal(old.flat, new.flat)
        assert not np.shares_memory(old.flat, new.flat)
        assert all(np.shares_memory(value, new.flat) for value in new.values())
    for named in (net.params, grads.params):
        other = move(named)
        assert type(other) is type(named)
        assert list(other) == list(named)
        assert np.array_equal(other.flat, named.flat)


def test_parameters_are_gathered_without_a_copy_where_they_lie_together():
    vector = np.frombuffer(np.arange(10, dtype=np.float32).tobytes(), np.float32)
    together = {"a": vector[2:6].reshape(2, 2), "b": vector[6:9]}
    assert np.shares_memory(Params.gathered(together).flat, vector)
    apart = [
        {"a": vector[2:4], "b": vector[5:9]},
        {"b": vector[6:9], "a": vector[2:6]},
        {"a": vector[:4].reshape(2, 2).T, "b": vector[4:6]},
        {"a": vector[:4], "b": np.ones(3, np.float32)},
        {"a": np.ones(3, np.float32)},
    ]
    for values in (together, *apart):
        params = Params.gathered(values)
        assert params.flat.tolist() == joined(values).tolist()
        assert list(params) == list(values)
        assert all(np.array_equal(params[name], value) for name, value in values.items())
    assert Params.gathered({}).flat.size == 0
