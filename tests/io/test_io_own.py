"""qg.io.save and load, the formats of NumPy, recognition by content, and the command."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import quadgate as qg
from nets import draw, lstm, randomised, same_bits
from support.options import SINGLE

NUMBERS = {"H": 7, "P": 3}


def made(options: Any, dtype: str) -> Any:
    options = {name: NUMBERS.get(value, value) if isinstance(value, str) else value for name, value in options.items()}
    class_ = qg.RNN if "nonlinearity" in options else qg.LSTM
    return randomised(class_(5, 7, **options, dtype=dtype, rng=0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", SINGLE.values(), ids=SINGLE)
def test_saved_and_loaded_is_the_same(tmp_path, options, dtype):
    """Every option, the same bits, the same outputs."""
    net = made(options, dtype)
    path = tmp_path / "net.whatever"
    qg.io.save(net, path)
    back = qg.io.load(path)
    same_bits(net, back)
    x = draw(4, 2, 5, dtype=dtype)
    assert np.array_equal(net(x)[0], back(x)[0])


def test_many_options_at_once(tmp_path):
    options: dict[str, Any] = {
        "num_layers": 3,
        "bidirectional": True,
        "batch_first": True,
        "dropout": 0.25,
        "merge": "mean",
    }
    options |= {"activations": (("hard_sigmoid", 1 / 6, 0.5), "softsign", ("leaky_relu", 0.3)), "zoneout": (0.1, 0.2)}
    net = lstm(5, 7, **options, initialization="keras", forget_bias=1.5)
    net_path = tmp_path / "net.safetensors"
    qg.io.save(net, net_path)
    same_bits(net, qg.io.load(net_path))
    (found,) = qg.io.networks(net_path)
    assert (found.kind, found.num_layers, found.directions) == ("LSTM", 3, 2)
    assert qg.io.load(net_path, dropout=0.0, batch_first=False).dropout == 0.0
    with pytest.raises(ValueError, match="hidden_size"):
        qg.io.load(net_path, hidden_size=8)


def test_special_numbers_survive(tmp_path):
    net = lstm(2, 2)
    with net.writable() as params:
        params["bias_l0"][:5] = np.nan, np.inf, -np.inf, -0.0, 1e-42
    qg.io.save(net, tmp_path / "s")
    same_bits(net, qg.io.load(tmp_path / "s"))


def test_other_readers_of_safetensors_see_the_parameters(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    net = lstm(3, 4)
    qg.io.save(net, tmp_path / "net.safetensors")
    arrays = safetensors.load_file(tmp_path / "net.safetensors")
    assert arrays.keys() == net.params.keys()
    assert all(np.array_equal(arrays[name], value) for name, value in net.params.items())
    safetensors.save_file(net.state_dict(prefix="a."), tmp_path / "other.safetensors")
    same_bits(qg.io.load(tmp_path / "other.safetensors"), net)


def test_saving_replaces_the_file_as_a_whole(tmp_path):
    path = tmp_path / "net"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="net must be"):
        qg.io.save("no network", path)  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    qg.io.save(lstm(2, 2), path)
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_a_link_stays_one_and_permissions_stay(tmp_path):
    (tmp_path / "there").mkdir()
    file, link = tmp_path / "there" / "net", tmp_path / "link"
    file.write_bytes(b"old")
    file.chmod(0o640)
    link.symlink_to(file)
    qg.io.save(lstm(2, 2), link)
    assert link.readlink() == file
    assert file.stat().st_mode & 0o777 == 0o640
    same_bits(qg.io.load(file), qg.io.load(link))
    assert [p.name for p in file.parent.iterdir()] == ["net"]


def rewritten(path: Any, change: Any) -> None:
    """Change the metadata of a file that `save` wrote."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header["__metadata__"])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m.update(format="quadgate 2"), "newer version"),
        (lambda m: m.update(kind="XLSTM"), "kind 'XLSTM'"),
        (lambda m: m.update(options="[]"), "JSON object"),
        (lambda m: m.update(options="{"), "net"),
        (lambda m: m.update(options='{"input_size": 2, "hidden_size": 2, "new_option": 1}'), "new_option"),
        (lambda m: m.update(options='{"input_size": 2, "hidden_size": 1000000000}'), "more than its arrays hold"),
        (lambda m: m.update(options='{"input_size": 2, "hidden_size": 2, "num_layers": 1000000}'), "1000000 layers"),
        (lambda m: m.update(options='{"input_size": 2, "hidden_size": 3}'), "weight_ih_l0"),
        (lambda m: m.update(options='{"input_size": 2, "hidden_size": 2, "activations": 3}'), "activations"),
        (lambda m: m.update(options='{"input_size": 2, "hidden_size": 2, "dtype": "O"}'), "dtype"),
        (lambda m: m.update(options='{"input_size": true, "hidden_size": 2}'), "sizes"),
    ],
)
def test_metadata_of_another_mind(tmp_path, change, why):
    path = tmp_path / "net"
    qg.io.save(lstm(2, 2), path)
    rewritten(path, change)
    with pytest.raises(ValueError, match=why) as error:
        qg.io.load(path)
    assert str(path) in str(error.value)


def test_numpy_formats(tmp_path):
    """Recognised by content: all files have the same senseless suffix."""
    net = lstm(3, 4, 2, bidirectional=True)
    arrays = net.state_dict(prefix="enc.")
    path = tmp_path / "file.jpg"
    for save in (np.savez, np.savez_compressed):
        with path.open("wb") as file:
            save(file, **arrays)
        same_bits(qg.io.load(path), net)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for value in (
            arrays,
            OrderedDict(arrays),
            {"model": {"weights": [arrays]}, "epoch": 3, "lr": 0.5, "s": {1, 2}},
        ):
            path.write_bytes(pickle.dumps(value, protocol))
            same_bits(qg.io.load(path), net)
    with path.open("wb") as file:
        np.save(file, draw(3, 4))
    assert np.array_equal(qg.io.read(path)["array"], draw(3, 4))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_arrays_of_every_kind(tmp_path, protocol):
    value = {
        "f": np.asfortranarray(draw(3, 4)),
        "big": draw(3, 4).astype(">f8"),
        "int": np.arange(5),
        "zero": np.ones(()),
    }
    value |= {
        "half": draw(4).astype("f2"),
        "none": np.ones((0, 3)),
        "scalar": np.float32(2.5),
        "bool": np.ones(3, bool),
    }
    (tmp_path / "p").write_bytes(pickle.dumps(value, protocol))
    arrays = qg.io.read(tmp_path / "p")
    assert set(arrays) == set(value)
    for name, array in value.items():
        assert np.array_equal(arrays[name], array), name
        assert arrays[name].dtype == array.dtype, name


def test_harmless_containers(tmp_path):
    """defaultdict and Counter are read as the dicts that they are; an argument of another value is an error."""
    value = defaultdict(list, w=draw(3)), Counter("abc"), frozenset({1}), (1 + 0j).real
    (tmp_path / "p").write_bytes(pickle.dumps(value))
    assert list(qg.io.read(tmp_path / "p")) == ["0.w"]
    with pytest.raises(ValueError, match="unknown must be"):
        qg.io.read(tmp_path / "p", unknown="ignore")


def test_arrays_as_they_are():
    net = lstm(3, 4)
    (found,) = qg.io.networks(net.state_dict())
    assert (found.kind, found.name, found.input_size, found.hidden_size) == ("LSTM", "", 3, 4)
    same_bits(found.build(), net)
    with pytest.raises(ValueError, match="no LSTM and no RNN"):
        qg.io.from_state_dict({"x": draw(3)})
    with pytest.raises(TypeError, match="mapping"):
        qg.io.from_state_dict([1])  # type: ignore[arg-type]


@pytest.mark.parametrize("class_", [qg.LSTM, qg.RNN])
@pytest.mark.parametrize("bias", [True, False])
def test_highways_among_arrays(tmp_path, class_, bias):
    """They make the shortcut, and their biases are none of the gates'."""
    net = randomised(class_(3, 4, 3, shortcut="highway", bidirectional=True, bias=bias, rng=0))
    asked = {"nonlinearity": "tanh"} if class_ is qg.RNN else {}
    np.savez(tmp_path / "n.npz", **net.state_dict(prefix="enc."))
    qg.save(net, tmp_path / "own")
    for back in (
        qg.io.from_state_dict(net.state_dict(), **asked),
        qg.load(tmp_path / "n.npz", **asked),
        qg.load(tmp_path / "own", bias=bias),
    ):
        same_bits(net, back)
        assert np.array_equal(net(draw(4, 2, 3))[0], back(draw(4, 2, 3))[0])
    with pytest.raises(ValueError, match=r"unknown: .*weight_highway_l1"):
        qg.io.from_state_dict(net.state_dict(), shortcut=None, **asked)


def test_the_one_bias_of_a_cell():
    """A cell's names have no layer; a plain "bias" of another module is none of a network."""
    net = lstm(3, 4)
    cell = {f"cell.{name.removesuffix('_l0')}": value for name, value in net.params.items()}
    assert "cell.bias" in cell
    same_bits(qg.io.from_state_dict(cell | {"linear.bias": draw(2)}), net)
    same_bits(qg.io.from_state_dict(net.params | {"bias": draw(2)}), net)


@pytest.mark.parametrize("prefix", ["", "enc."])
def test_doubled_names_are_refused(prefix):
    """Which of two arrays is meant cannot be told."""
    values = {prefix + name: value for name, value in lstm(3, 4).state_dict().items()}
    cell = {name.removesuffix("_l0"): value for name, value in values.items()}
    weight = f"{prefix}weight_hh_l0"
    both = (qg.io.from_state_dict, qg.LSTM.from_state_dict, qg.LSTM(3, 4).load_state_dict)
    for more, why in (
        (cell, "{0}weight_ih_l0 and {0}weight_ih|{0}bias_hh_l0 and {0}bias_hh are two names"),
        ({f"{prefix}weight_ih": cell[f"{prefix}weight_ih"]}, "{0}weight_ih_l0 and {0}weight_ih"),
        (
            {f"{weight}0": values[weight]},
            "{0}weight_hh_l0 and {0}weight_hh_l00 are two names|unknown: {0}weight_hh_l00",
        ),
        ({f"{prefix}bias_l0": draw(16)}, r"given twice: ({0})?bias_l0 and ({0})?bias_ih_l0 \+ ({0})?bias_hh_l0"),
    ):
        for load in both:
            with pytest.raises(ValueError, match=why.format(prefix)):
                load(values | more)


def test_forget_bias_is_added_in_float32(tmp_path):
    """65504 is float16's largest number."""
    size = 65504
    arrays = {"lstm_cell/kernel": draw(7, 16), "lstm_cell/bias": np.full(16, size, np.float16)}
    np.savez(tmp_path / "v.npz", **arrays)
    want = np.repeat([size, size + 100.5, size, size], 4).astype(np.float32)
    for net in (
        qg.io.from_tensorflow1(arrays, forget_bias=100.5),
        qg.load(tmp_path / "v.npz", forget_bias=100.5),
    ):
        assert net.dtype == np.float32
        assert np.array_equal(net.params["bias_l0"], want)
    for wrong in ("1", np.nan, np.ones(4), None):
        with pytest.raises((TypeError, ValueError), match="forget_bias must be a finite number"):
            qg.load(tmp_path / "v.npz", forget_bias=wrong)


def test_forget_bias_of_coupled_gates(tmp_path):
    np.savez(tmp_path / "v.npz", **{"lstm_cell/kernel": draw(7, 16), "lstm_cell/bias": draw(16)})
    with pytest.raises(ValueError, match=r"forget_bias=1\.0 and coupled=True exclude each other"):
        qg.load(tmp_path / "v.npz", forget_bias=1.0, coupled=True)


def test_forget_bias_is_refused_where_the_biases_are_there(tmp_path):
    """It would change no number, and the repr would say that it had."""
    net = lstm(5, 4)
    np.savez(tmp_path / "n.npz", **net.state_dict())
    qg.save(net, tmp_path / "n.st")
    arrays = list(qg.io.to_keras(net).values())
    for load in (
        lambda **options: qg.load(tmp_path / "n.npz", **options),
        lambda **options: qg.load(tmp_path / "n.st", **options),
        lambda **options: qg.io.from_state_dict(net.state_dict(), **options),
        lambda **options: qg.io.from_keras(arrays, **options),
    ):
        for value in (1.0, 0.0):
            with pytest.raises(ValueError, match=f"forget_bias={value} is for the first biases of a new network"):
                load(forget_bias=value)
        assert load(forget_bias=None).forget_bias is None


def test_forget_bias_of_quadgates_own_file_may_be_repeated(tmp_path):
    qg.save(lstm(5, 4, forget_bias=1.5), tmp_path / "n.st")
    assert qg.load(tmp_path / "n.st", forget_bias=1.5).forget_bias == 1.5
    with pytest.raises(ValueError, match=r"forget_bias=2\.0 is for the first biases"):
        qg.load(tmp_path / "n.st", forget_bias=2.0)


def test_arrays_of_the_other_byte_order():
    params = lstm(3, 4, dtype=np.float64).state_dict()
    net = qg.io.from_state_dict({name: value.astype(value.dtype.newbyteorder()) for name, value in params.items()})
    assert net.dtype == np.float64
    assert all(np.array_equal(net.state_dict()[name], value) for name, value in params.items())


def test_sizes_of_a_wrong_type_are_named(tmp_path):
    np.savez(tmp_path / "n.npz", **lstm(3, 4).state_dict())
    for option, value in (("hidden_size", np.array([4, 4])), ("hidden_size", 4.0), ("bias", np.array([True, True]))):
        with pytest.raises(TypeError, match=f"^{option} must be"):
            qg.load(tmp_path / "n.npz", **{option: value})
    with pytest.raises(ValueError, match="arrays have num_layers=1, got num_layers=2"):
        qg.load(tmp_path / "n.npz", num_layers=2)
    with pytest.raises(TypeError, match=r"RNN\(\) got an unexpected keyword argument 'peephole'"):
        qg.io.from_state_dict(qg.RNN(3, 4).state_dict(), nonlinearity="tanh", peephole=False)
    assert qg.load(tmp_path / "n.npz", hidden_size=np.int64(4), bias=True).hidden_size == 4


def test_errors_of_writing_name_the_callers_path(tmp_path):
    for path, error in ((tmp_path / "none" / "x.st", FileNotFoundError), (tmp_path, IsADirectoryError)):
        with pytest.raises(error) as caught:
            qg.save(lstm(3, 4), path)
        assert str(caught.value).endswith(f": {str(path)!r}")
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        qg.io.load(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("hello, this is text")
    for name in ("empty", "text"):
        with pytest.raises(ValueError, match=f"{name}: none of the known formats"):
            qg.io.read(tmp_path / name)


def test_inspect(tmp_path):
    path, bad = tmp_path / "a.npz", tmp_path / "b"
    bad.write_bytes(b"nothing")
    np.savez(path, **lstm(3, 4, 2).state_dict(prefix="enc."), **qg.RNN(2, 6, rng=0).state_dict(prefix="dec."))
    command = [sys.executable, "-m", "quadgate", "inspect", path, bad]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "2 recurrent networks" in done.stdout
    assert "LSTM 'enc': 3 -> 4, 2 layers" in done.stdout
    assert "nonlinearity=" in done.stdout
    assert str(bad) in done.stderr


def test_a_model_of_the_kit_is_named_as_such(tmp_path):
    path = tmp_path / "model.safetensors"
    qg.train.Sequential([lstm(2, 3), qg.train.Dense(3, 1)]).save(path)
    with pytest.raises(ValueError, match=r"model\.safetensors: it holds a whole model: quadgate\.train\.load reads it"):
        qg.io.load(path)


def test_packages_that_are_missing_are_named(tmp_path, run_script):
    """Without the package of a format the error names the package to install, and the rest works."""
    qg.io.save(lstm(2, 2), tmp_path / "s")
    (tmp_path / "h").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "o").write_bytes(b"\x08\x08" + bytes(100))
    for package, file in (("safetensors", "s"), ("h5py", "h"), ("onnx", "o")):
        source = f"""
            import sys
            sys.modules[{package!r}] = None
            import quadgate as qg
            try:
                qg.io.read({str(tmp_path / file)!r})
            except ImportError as error:
                assert str(error).endswith("pip install {package}"), error
            else:
                raise SystemExit("no error")
        """
        run_script(source)


def test_importing_io_loads_no_other_package(run_script):
    source = """
        import sys, numpy
        before = set(sys.modules)
        import quadgate.io
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(*sorted(new - {"quadgate"} - set(sys.stdlib_module_names)))
    """
    assert run_script(source).stdout.split() == []


def test_threads_that_save_to_one_file(tmp_path):
    """The last one to end wins, whole, and nobody meets another's scratch file or one that a killed process left."""
    path = tmp_path / "one.safetensors"
    (tmp_path / f".{path.name}.{os.getpid()}.tmp").write_bytes(b"left over")
    nets = [qg.LSTM(3, 40, rng=k) for k in range(3)]
    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(qg.save, net, path) for _ in range(10) for net in nets]:
            future.result()
    found = qg.load(path).params.flat.tobytes()
    assert found in [net.params.flat.tobytes() for net in nets]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("path", [None, 3, b"net.safetensors"])
def test_paths_that_are_none(path):
    net = qg.LSTM(2, 3)
    for call in (lambda: qg.load(path), lambda: qg.save(net, path), lambda: qg.io.read(path)):
        with pytest.raises(TypeError, match=r"^path must be a str, an os\.PathLike or a binary file, got "):
            call()
    with pytest.raises(TypeError, match=r"^path_or_arrays must be a str, .* or a mapping .*, got "):
        qg.io.networks(path)


def test_inspect_of_a_missing_file(tmp_path, capsys):
    from quadgate.io import _inspect

    missing = str(tmp_path / "missing")
    assert _inspect.main([missing]) == 1
    assert capsys.readouterr().err == f"{missing}: No such file or directory\n"
