"""Networks, streams and results survive pickle and deepcopy."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import quadgate as qg
from support.cases import DTYPES, data, infer, model, plain, run, same_bits

COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    **{f"pickle{p}": (lambda o, p=p: pickle.loads(pickle.dumps(o, p))) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)},
}
every_copy = pytest.mark.parametrize("again", COPIES.values(), ids=COPIES)
OPTIONS = [
    plain(5, 3, 4, 18),
    plain(5, 3, 4, 18, 2, True, batch_first=True),
    plain(5, 3, 4, 18, 3, bias=False, dtype="float64"),
]


@every_copy
@pytest.mark.parametrize("case", OPTIONS, ids=["plain", "all", "float64"])
def test_networks(case, again):
    lstm, d = model(case), data(case)
    infer(case, lstm, d)
    other = again(lstm)
    assert type(other) is qg.LSTM
    assert repr(other) == repr(lstm)
    for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional", "dtype"):
        assert getattr(other, name) == getattr(lstm, name)
    want, got = run(case, lstm, d), run(case, other, d)
    for name, value in want.items():
        assert same_bits(got[name], value), name
    assert all(not value.flags.writeable for value in other.params.values())


@every_copy
def test_a_copy_is_a_network_of_its_own(again):
    case = OPTIONS[0]
    lstm, d = model(case), data(case)
    want = infer(case, lstm, d)
    other = again(lstm)
    with other.writable() as params:
        params["weight_hh_l0"][...] = 0
    assert lstm.params["weight_hh_l0"].any()
    for name, got in infer(case, lstm, d).items():
        assert same_bits(got, want[name])
    assert not same_bits(infer(case, other, d).y, want.y)


@every_copy
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_streams(again, batch, dtype):
    """With the state they have at that moment; then each goes its own way."""
    case = plain(8, batch, 4, 18, 2, dtype=dtype)
    lstm, d = model(case), data(case)
    want, _ = lstm(d.x)
    stream = lstm.stream(batch)
    stream.run(d.x[:5])
    other = again(stream)
    assert other.batch_size == batch
    for one in (stream, other):
        assert same_bits(one.run(d.x[5:]), want[5:])
    stream.reset()
    assert other.state[0].any()


def test_a_network_and_its_stream_together():
    """Pickled as a pair they stay a pair."""
    lstm = qg.LSTM(3, 4, rng=0)
    network, stream = pickle.loads(pickle.dumps((lstm, lstm.stream())))
    with network.writable() as params:
        params["weight_ih_l0"][...] = 0
    one, other = np.zeros((2, 3), np.float32)
    other[...] = 9
    assert same_bits(stream.step(one), network.stream().step(other))


def results():
    """Gradients of both kinds, and traces from before and after a backward pass."""
    lstm, rnn = qg.LSTM(3, 4, 2, rng=0), qg.RNN(3, 4, dtype=np.float64, rng=0)
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    _, _, fresh = lstm.forward(x, trace=True)
    y, _, tape = lstm.forward(x, trace=True)
    grads = lstm.backward(tape, y)
    y, _, other = rnn.forward(x)
    some = lstm.backward(fresh, dcells=y, input_grad=False, state_grad=False)
    return [grads, some, rnn.backward(other, y), tape.trace, lstm.forward(x, trace=True)[2].trace]


def parts_of(result):
    if isinstance(result, qg.Trace):
        return {name: getattr(result, name) for name in qg.Trace.__slots__}
    return {**result._asdict(), **result.params, "params": None}


@every_copy
def test_results(again):
    for result in results():
        other = again(result)
        assert type(other) is type(result)
        assert repr(other) == repr(result)
        parts = parts_of(other)
        for name, value in parts_of(result).items():
            assert (parts[name] is None) if value is None else same_bits(parts[name], value), name
            assert value is None or parts[name].flags.writeable
        if not isinstance(result, qg.Trace):
            assert list(other.params) == list(result.params)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("x",), None),
        (("more",), 1),
        (("params",), ("float32", (1,), b"1234")),
        (("x",), ("float32", (5, 2, 3), b"")),
        (("x",), ("float32", (5, -2, 3), b"")),
        (("x",), ("int32", (1,), b"1234")),
        (("x",), np.zeros(3)),
        (("h0",), ("float32", 3, b"")),
        (("params", "bias_l0"), ("float32", (16,), bytearray(64))),
    ],
)
def test_tampered_results_are_refused(path, value):
    unpickled, (kind, number, packed) = results()[0].__reduce__()
    with pytest.raises((ValueError, TypeError)):
        unpickled(kind, number, changed(packed, path, value))
    for other in ((kind, 2, packed), ("LSTM", 1, packed), (kind, number, [])):
        with pytest.raises(ValueError, match="pickle"):
            unpickled(*other)


def test_subclasses_keep_their_attributes():
    again = pickle.loads(pickle.dumps(Named(3, 4, rng=0)))
    assert type(again) is Named
    assert again.name == "mine"
    assert again.params["bias_l0"].shape == (16,)


class Live(qg.LSTM):
    """A network that has its own stream."""

    __slots__ = ("__dict__", "__secret", "stream_of_mine")

    def secret(self, value=None):
        if value is not None:
            self.__secret = value
        return self.__secret


class Tagged(qg.Stream):
    pass


@pytest.mark.parametrize("copied", [lambda a: pickle.loads(pickle.dumps(a)), copy.deepcopy, copy.copy])
def test_attributes_in_slots_and_of_streams(copied):
    net = Live(3, 4, rng=0)
    net.stream_of_mine, net.more = net.stream(1), [1]
    net.secret("s")
    net.stream_of_mine.step(np.ones((1, 3)))
    again = copied(net)
    assert (again.secret(), again.more) == ("s", [1])
    assert again.stream_of_mine.lstm is (net if copied is copy.copy else again)
    assert again.stream_of_mine.state[0].tobytes() == net.stream_of_mine.state[0].tobytes()
    stream = Tagged(qg.LSTM(3, 4, rng=0), 2)
    stream.tag = ["t"]
    assert copied(stream).tag == ["t"]


def test_a_subclass_with_its_own_pickles():
    again = pickle.loads(pickle.dumps(Own(3, 4, rng=0)))
    assert type(again) is Own
    assert again.made == "anew"


class Own(qg.LSTM):
    made = None

    def __reduce__(self):
        return _anew, (self.input_size, self.hidden_size)


def _anew(*sizes):
    own = Own(*sizes)
    own.made = "anew"
    return own


def test_attributes_in_a_pickle_never_replace_the_networks_own():
    state = Named(3, 4, rng=0).__getstate__()
    again = Named.__new__(Named)
    again.__setstate__({**state, "attributes": {"name": "theirs", "_snapshot": None, "_options": None}})
    assert again.name == "theirs"
    assert again(np.zeros((1, 1, 3), np.float32))[0].shape == (1, 1, 4)


def test_options_in_a_pickle_are_plain_strings():
    """Not NumPy's, which an older NumPy does not find where a newer one has them."""
    given = {"merge": np.str_("sum"), "activations": (np.str_("tanh"), (np.str_("elu"), np.float64(0.5)), "tanh")}
    packed = pickle.dumps(qg.LSTM(3, 4, bidirectional=True, rng=0, **given))
    assert b"numpy" not in packed
    assert pickle.loads(packed).activations == ("tanh", ("elu", 0.5), "tanh")


def test_results_that_could_not_be_read_again_are_not_written():
    y, _, tape = (lstm := qg.LSTM(3, 4, rng=0)).forward(np.zeros((2, 1, 3), np.float32))
    grads = lstm.backward(tape, y)
    for changes in ({"x": y.astype(np.float16)}, {"params": None}, {"params": {"a": np.arange(3)}}):
        with pytest.raises((TypeError, ValueError), match=r"^(x|params|a) must"):
            pickle.dumps(grads._replace(**changes))
    swapped = pickle.loads(pickle.dumps(grads._replace(x=y.astype(">f4"))))
    assert swapped.x.dtype == np.float32


class Named(qg.LSTM):
    def __init__(self, *args, **keywords):
        super().__init__(*args, **keywords)
        self.name = "mine"


def test_the_size_is_that_of_the_parameters():
    """Neither packed weights nor workspaces are saved."""
    lstm = qg.LSTM(64, 128, rng=0)
    lstm(np.zeros((50, 8, 64), np.float32))
    assert len(pickle.dumps(lstm)) < lstm.num_parameters * 4 + 4096


class Recorder(pickle.Unpickler):
    """Lists the names that a pickle looks up."""

    def __init__(self, file):
        super().__init__(file)
        self.found = set()

    def find_class(self, module, name):
        self.found.add(f"{module}.{name}")
        return super().find_class(module, name)


def chance(kind, **options):
    return kind(3, 4, 2, dropout=0.5, recurrent_dropout=0.25, rng=0, **options)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_no_numpy_objects(protocol):
    """Names of NumPy's modules differ between its versions: a pickle has none of them."""
    nets = [chance(qg.LSTM, zoneout=(0.1, 0.2), dtype=np.float64), chance(qg.RNN)]
    for value in (*nets, *(net.stream(2) for net in nets), *results()):
        recorder = Recorder(io.BytesIO(pickle.dumps(value, protocol)))
        recorder.load()
        assert {name for name in recorder.found if "numpy" in name} == set()
        names = {f"quadgate.{kind}" for kind in ("LSTM", "RNN", "Stream", "RNNStream", "_results._unpickled")}
        assert recorder.found <= {*names, "copyreg.__newobj__", "_codecs.encode", "__builtin__.bytes"}


@every_copy
def test_the_generator_goes_on_where_it_was(again):
    net, x = chance(qg.LSTM), np.ones((5, 2, 3), np.float32)
    net.forward(x)
    other = again(net)
    for _ in range(2):
        one, two = net.forward(x)[2].dropped, other.forward(x)[2].dropped
        assert one.keys() == two.keys()
        for name, value in one.items():
            assert same_bits(two[name], value)


def state_of(net):
    return net.__reduce_ex__(2)[2]


def changed(state, path, value):
    """A copy of a pickle's state, with one entry changed or, for None, left out."""
    state = dict(state)
    name, *rest = path
    if rest:
        state[name] = changed(state[name], rest, value)
    elif value is None:
        del state[name]
    else:
        state[name] = value
    return state


BYTES = np.zeros((16, 3), np.float32).tobytes()
TAMPERED = [
    (("format",), 2, "newer"),
    (("format",), "1", "damaged"),
    (("format",), None, "damaged"),
    (("options",), None, "must have"),
    (("options",), [("input_size", 3)], "dictionaries"),
    (("options",), {}, "must have input_size"),
    (("attributes",), 3, "dictionaries"),
    (("attributes",), {"_snapshot": None}, "must have no attributes"),
    (("more",), 1, "must have"),
    (("options", "hidden_size"), 5, "weight_ih_l0"),
    (("options", "hidden_size"), 0, "hidden_size"),
    (("options", "num_layers"), 2, "parameters"),
    (("options", "nonlinearity"), "tanh", "another kind"),
    (("options", "dtype"), "float16", "dtype"),
    (("options", "zoneout"), (0.1, 7.0), "zoneout"),
    (("options", "activations"), ("sigmoid", "gelu", "tanh"), "activations"),
    (("options", "colour"), "red", "colour"),
    (("params", "weight_ih_l0"), None, "parameters"),
    (("params", "weight_ih_l0"), ("float64", (16, 3), BYTES), "weight_ih_l0"),
    (("params", "weight_ih_l0"), ("float32", (3, 16), BYTES), "weight_ih_l0"),
    (("params", "weight_ih_l0"), ("float32", (16, 3), BYTES[:-1]), "weight_ih_l0"),
    (("params", "weight_ih_l0"), ("float32", (16, 3), bytearray(BYTES)), "weight_ih_l0"),
    (("params", "weight_ih_l0"), np.zeros((16, 3), np.float32), "weight_ih_l0"),
]


@pytest.mark.parametrize(("path", "value", "said"), TAMPERED)
def test_a_tampered_network_is_refused(path, value, said):
    state = state_of(qg.LSTM(3, 4))
    qg.LSTM.__new__(qg.LSTM).__setstate__(state)
    with pytest.raises(ValueError, match=said):
        qg.LSTM.__new__(qg.LSTM).__setstate__(changed(state, path, value))


@pytest.mark.parametrize(
    ("name", "value"), [("peephole", True), ("layer_norm", "cell"), ("proj_size", 2), ("zoneout", (0.1, 0.1))]
)
def test_an_rnn_with_options_of_an_lstm_is_refused(name, value):
    state = state_of(qg.RNN(3, 4))
    with pytest.raises(ValueError, match=name):
        qg.RNN.__new__(qg.RNN).__setstate__(changed(state, ("options", name), value))


def test_a_tampered_generator_is_refused():
    state = state_of(chance(qg.LSTM))
    for bad in (None, {}, {**state["generator"], "bit_generator": "MT19937"}, float("inf")):
        with pytest.raises(ValueError, match="generator"):
            qg.LSTM.__new__(qg.LSTM).__setstate__({**state, "generator": bad})


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("format",), 2, "newer"),
        (("batch_size",), 0, "batch_size"),
        (("batch_size",), 3, "h of a pickle"),
        (("network",), qg.RNN(3, 4), "another kind"),
        (("network",), qg.LSTM, "another kind"),
        (("network",), qg.LSTM.__new__(qg.LSTM), "another kind"),
        (("network",), qg.LSTM(3, 4, bidirectional=True), "bidirectional"),
        (("state", "c"), None, "c of a pickle"),
        (("state",), 1, "another kind"),
    ],
)
def test_a_tampered_stream_is_refused(path, value, said):
    state = state_of(qg.LSTM(3, 4).stream(2))
    qg.Stream.__new__(qg.Stream).__setstate__(state)
    with pytest.raises(ValueError, match=said):
        qg.Stream.__new__(qg.Stream).__setstate__(changed(state, path, value))
