"""Parameters: read-only views, changed as a whole or not at all, and always the ones that the network computes with."""

from __future__ import annotations

import numpy as np
import pytest
import quadgate as qg
from support.cases import DTYPES, data, infer, model, plain, same_bits

CASE = plain(4, 3, 5, 17, 2, True)


@pytest.fixture
def lstm():
    return model(CASE)


def by_hand(lstm, d):
    """Results of a new network with the parameters that `lstm` shows."""
    fresh = qg.LSTM(5, 17, 2, bidirectional=True)
    fresh.load_state_dict(dict(lstm.params))
    return infer(CASE, fresh, d)


def assert_true_to_params(lstm, d):
    want = by_hand(lstm, d)
    for name, got in infer(CASE, lstm, d).items():
        assert same_bits(got, want[name])


def test_views_are_read_only(lstm):
    for value in lstm.params.values():
        assert not value.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            value[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            value.flags.writeable = True
    with pytest.raises(TypeError):
        lstm.params["bias_l0"] = np.zeros(68, np.float32)
    with pytest.raises(TypeError):
        del lstm.params["bias_l0"]
    with pytest.raises(AttributeError):
        lstm.params = {}
    with pytest.raises(KeyError):
        lstm.params["weight_ih_l2"]


def test_a_change_is_what_the_next_call_computes_with(lstm):
    """In place and by assignment; before and after calls of every kind, which pack the parameters."""
    d = data(CASE)
    before = infer(CASE, lstm, d)
    for name in lstm.params:
        old = lstm.params[name]
        kept = old.copy()
        with lstm.writable() as params:
            params[name][0] += np.float32(0.25)
        assert same_bits(old, kept)
        assert not same_bits(lstm.params[name], kept)
        after = infer(CASE, lstm, d)
        assert not same_bits(after.y, before.y), name
        assert_true_to_params(lstm, d)
        with lstm.writable() as params:
            params[name] = kept
        assert same_bits(infer(CASE, lstm, d).y, before.y)


def test_gradients_after_a_change(lstm):
    """The backward pass packs the weights in another way, and must not be stale either."""
    d = data(CASE)
    for scale in (1, -2, 0.5):
        with lstm.writable() as params:
            for value in params.values():
                value *= np.float32(scale)
        fresh = qg.LSTM(5, 17, 2, bidirectional=True)
        fresh.load_state_dict(dict(lstm.params))
        got, want = (net.backward(net.forward(d.x, d.state)[2], d.dy, d.dstate) for net in (lstm, fresh))
        assert same_bits(got.x, want.x)
        assert same_bits(got.h0, want.h0)


def test_a_stream_sees_a_change():
    case = plain(6, 2, 5, 17)
    lstm, d = model(case), data(case)
    stream = lstm.stream(2)
    stream.run(d.x[:3])
    state = stream.state
    with lstm.writable() as params:
        params["weight_hh_l0"][...] *= np.float32(-1)
    want, _ = lstm(d.x[3:], state)
    assert same_bits(np.stack([stream.step(x) for x in d.x[3:]]), want)


def test_arrays_kept_from_the_block_are_without_effect(lstm):
    d = data(CASE)
    with lstm.writable() as params:
        kept = params["weight_ih_l0"]
        kept[...] = 0.5
    want = infer(CASE, lstm, d)
    kept[...] = 7
    params["bias_l0"] = np.ones(68, np.float32)
    assert (lstm.params["weight_ih_l0"] == 0.5).all()
    for name, got in infer(CASE, lstm, d).items():
        assert same_bits(got, want[name])


def test_given_arrays_are_copied(lstm):
    d = data(CASE)
    mine = {name: np.array(value) for name, value in lstm.params.items()}
    lstm.load_state_dict(mine)
    want = infer(CASE, lstm, d)
    with lstm.writable() as params:
        params.update(mine)
    for value in mine.values():
        value[...] = np.nan
    for name, got in infer(CASE, lstm, d).items():
        assert same_bits(got, want[name])


def test_all_or_nothing(lstm):
    """A block that raises, or ends with wrong values, changes nothing."""
    d = data(CASE)
    want = infer(CASE, lstm, d)
    before = {name: value.copy() for name, value in lstm.params.items()}

    def unchanged():
        assert all(same_bits(lstm.params[name], value) for name, value in before.items())
        assert list(lstm.params) == list(before)
        for name, got in infer(CASE, lstm, d).items():
            assert same_bits(got, want[name])

    with pytest.raises(ZeroDivisionError), lstm.writable() as params:  # noqa: PT012
        params["weight_ih_l0"][...] = 0
        raise ZeroDivisionError
    unchanged()
    mistakes = {
        "shape": ("weight_hh_l0", np.zeros((68, 16), np.float32), ValueError),
        "broadcast": ("weight_hh_l0", np.zeros((1, 17), np.float32), ValueError),
        "complex": ("bias_l1", np.zeros(68, complex), TypeError),
        "text": ("bias_l1", "zeros", (TypeError, ValueError)),
        "invented": ("bias_l2", np.zeros(68, np.float32), ValueError),
    }
    for name, value, error in mistakes.values():
        with pytest.raises(error, match=name), lstm.writable() as params:  # noqa: PT012
            params["weight_ih_l0"][...] = 0
            params[name] = value
        unchanged()
    with pytest.raises(ValueError, match="bias_l0"), lstm.writable() as params:  # noqa: PT012
        params["weight_ih_l0"][...] = 0
        del params["bias_l0"]
    unchanged()


def test_two_changes_at_once_are_not_merged(lstm):
    """The inner block wins, the outer says so: an update is never lost silently."""
    with pytest.raises(RuntimeError, match="writable"), lstm.writable() as outer:  # noqa: PT012
        outer["bias_l0"][...] = 1
        with lstm.writable() as inner:
            inner["bias_l0"][...] = 2
    assert (lstm.params["bias_l0"] == 2).all()


@pytest.mark.parametrize("how", ["writable", "load_state_dict"])
@pytest.mark.parametrize("options", [{}, {"weight_drop": 0.3, "num_layers": 2}], ids=["plain", "dropped"])
def test_a_tape_goes_back_through_the_parameters_that_it_was_made_with(how, options):
    """Later changes to them do not matter; into new arrays and given ones."""
    lstm = qg.LSTM(5, 17, **options, rng=0)
    d = data(plain(4, 3, 5, 17))
    _, _, tape = lstm.forward(d.x)
    want = lstm.backward(tape, d.dy)
    for scale in (0.5, 0):
        if how == "writable":
            with lstm.writable() as params:
                for value in params.values():
                    value *= np.float32(scale)
        else:
            lstm.load_state_dict({name: np.array(value) * scale for name, value in lstm.params.items()})
        out = {name: np.full(value.shape, 3, np.float32) for name, value in lstm.params.items()}
        for keywords in ({}, {"out": out}):
            got = lstm.backward(tape, d.dy, **keywords)
            assert same_bits(got.x, want.x)
            for name, value in want.params.items():
                assert same_bits(got.params[name], value)
    _, _, fresh = lstm.forward(d.x)
    assert not same_bits(lstm.backward(fresh, d.dy).x, want.x)


def test_a_block_that_raised_keeps_tapes_alive():
    case = plain(4, 3, 5, 17)
    lstm, d = model(case), data(case)
    _, _, tape = lstm.forward(d.x)
    with pytest.raises(ZeroDivisionError), lstm.writable():
        raise ZeroDivisionError
    lstm.backward(tape, d.dy)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("prefix", ["", "rnn.", "model.encoder.lstm."])
def test_state_dicts(prefix, dtype):
    """There and back, with PyTorch's keys; the copies are the caller's own."""
    case = plain(1, 1, 3, 5, 2, True, dtype=dtype)
    lstm, other = model(case), qg.LSTM(3, 5, 2, bidirectional=True, dtype=dtype)
    saved = lstm.state_dict(prefix=prefix)
    names = {
        f"{prefix}{kind}_l{k}{d}"
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        for k in range(2)
        for d in ("", "_reverse")
    }
    assert set(saved) == names
    for keywords in ({}, {"prefix": prefix}):
        other.load_state_dict(saved, **keywords)
        for name, value in lstm.params.items():
            assert same_bits(other.params[name], value)
    for value in saved.values():
        value[...] = 0
    assert lstm.params["weight_ih_l0"].any()


def test_two_biases_are_added():
    lstm = qg.LSTM(3, 4, rng=0)
    saved = lstm.state_dict()
    rng = np.random.default_rng(0)
    saved["bias_ih_l0"], saved["bias_hh_l0"] = rng.normal(size=(2, 16)).astype(np.float32)
    lstm.load_state_dict(saved)
    assert same_bits(lstm.params["bias_l0"], saved["bias_ih_l0"] + saved["bias_hh_l0"])


def test_other_entries_are_ignored_with_a_prefix():
    lstm = qg.LSTM(3, 4, rng=0)
    saved = {**lstm.state_dict(prefix="rnn."), "head.weight": np.zeros((2, 4)), "rnnx.bias": np.zeros(1)}
    other = qg.LSTM(3, 4, rng=1)
    other.load_state_dict(saved, prefix="rnn.")
    assert same_bits(other.params["weight_hh_l0"], lstm.params["weight_hh_l0"])
    with pytest.raises(ValueError, match=r"head\.weight"):
        other.load_state_dict(saved)


def test_refused_state_dicts():
    """Missing, unknown, doubled, misshapen: each is named, and nothing changes."""
    lstm = qg.LSTM(3, 4, rng=0)
    before = lstm.state_dict()
    bad = [
        ({}, "weight_ih_l0"),
        ({k: v for k, v in before.items() if k != "weight_hh_l0"}, "weight_hh_l0"),
        ({k: v for k, v in before.items() if k != "bias_hh_l0"}, "bias_hh_l0"),
        ({**before, "weight_ih_l1": np.zeros((16, 4))}, "weight_ih_l1"),
        ({**before, "weight_hr_l0": np.zeros((2, 4))}, "weight_hr_l0"),
        ({**before, "bias_l0": np.zeros(16)}, "bias_l0"),
        ({**before, "weight_ih_l0": np.zeros((3, 16))}, "weight_ih_l0"),
        ({**before, "weight_ih_l0": np.zeros((16, 3), complex)}, "must hold real numbers"),
        (qg.LSTM(3, 4, bidirectional=True).state_dict(), "_reverse"),
        (qg.LSTM(3, 4, bias=False).state_dict(), "bias"),
        (list(before.items()), "mapping"),
        (None, "mapping"),
    ]
    for values, said in bad:
        error = TypeError if said in ("mapping", "must hold real numbers") else ValueError
        with pytest.raises(error, match=said):
            lstm.load_state_dict(values)
        for name, value in lstm.state_dict().items():
            assert same_bits(value, before[name])


def test_initial_parameters():
    """Uniform on +-1/sqrt(H); one seed, one network, in both types."""
    one, two, other = qg.LSTM(50, 64, rng=5), qg.LSTM(50, 64, rng=np.random.default_rng(5)), qg.LSTM(50, 64, rng=6)
    double = qg.LSTM(50, 64, rng=5, dtype=np.float64)
    for name, value in one.params.items():
        assert same_bits(value, two.params[name])
        assert not same_bits(value, other.params[name])
        assert same_bits(value, double.params[name].astype(np.float32))
        assert np.abs(value).max() <= np.float32(1 / 8)
        # The standard deviation of n uniform draws is 1/8/sqrt(3), give or take 5 of its own standard errors.
        assert abs(value.std() * 8 * np.sqrt(3) - 1) < 5 * np.sqrt(0.2 / value.size)
        assert abs(value.mean()) < 5 / 8 / np.sqrt(3 * value.size)
    assert not same_bits(qg.LSTM(2, 3).params["bias_l0"], qg.LSTM(2, 3).params["bias_l0"])
