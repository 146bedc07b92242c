"""Values of any kind for every argument: what is refused is refused with the argument's name, by the documented types.

Numbers that Python does not print, objects whose conversion fails, and arrays are among them: each once ended in an
error about something else.
"""

from __future__ import annotations

import datetime
import decimal
import fractions

import numpy as np
import pytest
import quadgate as qg

X = np.zeros((2, 1, 3), np.float32)
DY = np.zeros((2, 1, 4), np.float32)


class Index:
    """Stands for an int, but cannot be compared."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        if self.value is None:
            raise ZeroDivisionError("hostile")
        return self.value


class Raises:
    """Neither shows itself nor converts."""

    def __repr__(self):
        raise ZeroDivisionError("hostile")


VALUES = [
    *(0, -1, 2**63, -(2**63), 2**64, 10**5000, -(10**5000), True, False, None),
    *(float("nan"), float("inf"), 1.5, 1j, "3", b"3", "x" * 10**5, fractions.Fraction(3), decimal.Decimal(3)),
    *(np.uint64(2**63), np.float32(3), np.bool_(True), np.str_("3"), np.datetime64("2020"), np.ma.masked),
    *(np.array([3]), np.array([3, 4]), np.array(3.0), [3], (3,), {}, range(3), slice(1), datetime.date(2020, 1, 1)),
    *(Index(None), Index(10**5000), Index(-(10**5000)), Raises(), [Raises()], (10**5000, 0), object()),
]

lstm, rnn = qg.LSTM(3, 4, rng=0), qg.RNN(3, 4, rng=0)
stream = lstm.stream()


def backward(**arguments):
    return lstm.backward(lstm.forward(X)[2], DY, **arguments)


def made(name, **others):
    return lambda value: qg.LSTM(**{"input_size": 3, "hidden_size": 4, **others, name: value})


# By the argument's name; what is behind a slash tells several uses apart.
ARGUMENTS = {
    **{name: made(name) for name in ("input_size", "hidden_size", "num_layers", "proj_size", "rng", "dtype")},
    **{name: made(name) for name in ("bias", "batch_first", "peephole", "coupled", "reverse", "bidirectional")},
    **{name: made(name) for name in ("recurrent_dropout", "weight_drop", "zoneout", "initialization", "forget_bias")},
    **{name: made(name) for name in ("layer_norm", "layer_norm_eps", "cell_clip", "gate_clip", "activations")},
    "zoneout/part": lambda v: qg.LSTM(3, 4, zoneout=(v, 0)),
    "activations/part": lambda v: qg.LSTM(3, 4, activations=(v, "tanh", "tanh")),
    "activations/alpha": lambda v: qg.LSTM(3, 4, activations=(("elu", v), "tanh", "tanh")),
    "dropout": made("dropout", num_layers=2),
    "shortcut": made("shortcut", num_layers=2),
    "merge": made("merge", bidirectional=True),
    "nonlinearity": lambda v: qg.RNN(3, 4, nonlinearity=v),
    "proj_clip": made("proj_clip", proj_size=2),
    "x": lambda v: lstm(v),
    "x/step": lambda v: stream.step(v),
    "x/run": lambda v: stream.run(v),
    "state": lambda v: lstm(X, v),
    "h0": lambda v: rnn(X, v),
    "state/stream": lambda v: setattr(stream, "state", v),
    "lengths": lambda v: lstm(X, lengths=v),
    "resets": lambda v: lstm(X, resets=v),
    "mask": lambda v: lstm(X, mask=v),
    "mask/step": lambda v: stream.step(X[0], mask=v),
    "out": lambda v: lstm(X, out=v),
    "return_cells": lambda v: lstm(X, return_cells=v),
    "trace": lambda v: lstm.forward(X, trace=v),
    "rng/forward": lambda v: lstm.forward(X, rng=v),
    "padding_output": lambda v: lstm(X, padding_output=v),
    "padding_output/forward": lambda v: lstm.forward(X, padding_output=v),
    "padding_output/rnn": lambda v: rnn(X, padding_output=v),
    "padding_output/rnn forward": lambda v: rnn.forward(X, padding_output=v),
    "padding_output/step": lambda v: stream.step(X[0], padding_output=v),
    "padding_output/run": lambda v: stream.run(X, padding_output=v),
    "rows": lambda v: stream.reset(v),
    "batch_size": lambda v: lstm.stream(v),
    "lstm": lambda v: qg.Stream(v),
    "rnn": lambda v: qg.RNNStream(v),
    "tape": lambda v: lstm.backward(v, DY),
    "dy": lambda v: lstm.backward(lstm.forward(X)[2], v),
    "dstate": lambda v: backward(dstate=v),
    "dcells": lambda v: backward(dcells=v),
    "input_grad": lambda v: backward(input_grad=v),
    "state_grad": lambda v: backward(state_grad=v),
    "accumulate": lambda v: backward(accumulate=v),
    "out/backward": lambda v: backward(out=v),
    "prefix": lambda v: lstm.state_dict(prefix=v),
    "state dict": lambda v: lstm.load_state_dict(v),
    "state dict/from": lambda v: qg.LSTM.from_state_dict(v),
    "n": lambda v: qg.set_num_threads(v),
    "sequences": lambda v: qg.pad_sequences(v),
    "batch_first/pad": lambda v: qg.pad_sequences([[1.0]], batch_first=v),
    "y": lambda v: qg.unpad(v, [1]),
    "lengths/unpad": lambda v: qg.unpad(X, v),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("argument", ARGUMENTS)
def test_what_is_refused_is_refused_by_name(argument):
    for value in VALUES:
        try:
            ARGUMENTS[argument](value)
        except (TypeError, ValueError) as error:
            said = str(error)
            assert argument.split("/")[0] in said
            assert len(said) < 1000
        except MemoryError:
            pass


@pytest.mark.parametrize("argument", [name for name in ARGUMENTS if name.startswith("padding_output")])
def test_an_unknown_padding_output_is_refused_without_a_mask_too(argument):
    ARGUMENTS[argument]("last")
    with pytest.raises(ValueError, match="padding_output must be 'zero' or 'last'"):
        ARGUMENTS[argument]("first")


def test_streams_know_their_kind_of_network():
    with pytest.raises(TypeError, match="lstm must be an LSTM, got RNN"):
        qg.Stream(rnn)
    with pytest.raises(TypeError, match="rnn must be an RNN, got LSTM"):
        qg.RNNStream(lstm)


def test_a_seed_may_be_any_int():
    for seed in (np.array(7), np.int8(7), Index(7)):
        assert qg.LSTM(3, 4, rng=seed).params["bias_l0"].tobytes() == qg.LSTM(3, 4, rng=7).params["bias_l0"].tobytes()
    assert qg.LSTM(3, 4, rng=10**5000).num_parameters
    with pytest.raises(ValueError, match="rng must not be negative, got int of 16610 bits"):
        qg.LSTM(3, 4, rng=-(10**5000))
