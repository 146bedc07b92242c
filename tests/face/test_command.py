"""`python -m quadgate` and `import quadgate`, as a user's shell sees them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import quadgate as qg
from quadgate import _bench
from quadgate.__main__ import main


def test_self_check():
    """It says what is in use, checks itself against the reference and exits with 0."""
    command = [sys.executable, "-W", "error", "-m", "quadgate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    assert importlib.metadata.version("quadgate") in done.stdout
    assert qg.cpu_info()["isa"] in done.stdout
    for word in ("thread", "cache"):
        assert word in done.stdout.lower()


def bench(*words):
    """Run ``python -m quadgate bench`` and return its status and output."""
    command = [sys.executable, "-m", "quadgate", "bench", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_bench(mode):
    """It times quadgate and each installed peer, whose results agree, and names the peers that are not installed."""
    sizes = ("3,2,4,5", "--layers", "2", "--directions", "2", "--threads", "1", "--rounds", "2", "--mode", mode)
    status, output = bench(*sizes)
    assert status == 0, output
    assert f"{mode} 3,2,4,5, 2 layers, both directions, 1 thread\n" in output
    for name in ("quadgate", "torch", "onnxruntime")[: 2 if mode == "training" else 3]:
        (line,) = [line for line in output.splitlines() if line.startswith(f"    {name} ")]
        if importlib.util.find_spec(name) is None:
            assert line == f"    {name} is not installed"
        else:
            assert re.search(r" \d+(\.\d+)? \[\d+(\.\d+)?, \d+(\.\d+)?\] us", line)
            assert ("ratio" in line) == (name != "quadgate")


@pytest.mark.slow
def test_bench_of_a_stream():
    """Each program's steps carry on its own state."""
    status, output = bench("1,3,4,5", "--layers", "2", "--threads", "1", "--rounds", "2", "--mode", "stream")
    assert status == 0, output
    assert "stream 1,3,4,5, 2 layers, 1 thread\n" in output
    assert output.count("ratio") == sum(importlib.util.find_spec(name) is not None for name in ("torch", "onnxruntime"))


def test_bench_compares_steps_with_a_state(monkeypatch, capsys):
    """A program that forgets the state is marked."""

    def forgets(shape, data, threads):
        return lambda: data.net(data.x)[0][0]

    monkeypatch.setattr(_bench, "PROGRAMS", {"quadgate": _bench.PROGRAMS["quadgate"], "torch": forgets})
    assert _bench.main(["1,3,4,5", "--mode", "stream", "--threads", "1", "--rounds", "2"]) == 1
    assert "RESULTS DIFFER" in capsys.readouterr().out


def test_bench_needs_no_peer(run_script):
    source = """
        import sys
        sys.modules["torch"] = sys.modules["onnxruntime"] = None
        from quadgate.__main__ import main
        assert main(["bench", "3,2,4,5", "--threads", "1", "2", "--rounds", "1"]) == 0
    """
    output = run_script(source).stdout
    assert "inference 3,2,4,5, 1 thread\n" in output
    assert "inference 3,2,4,5, 2 threads\n" in output
    assert output.count("torch is not installed") == output.count("onnxruntime is not installed") == 2


def test_bench_outlives_a_broken_peer(monkeypatch, capsys):
    """A peer whose import or call fails in any way is named with its error, and quadgate's times are printed."""

    def broken_import(shape, data, threads):
        raise OSError("libpeer.so: cannot open shared object file")

    def broken_call(shape, data, threads):
        return lambda: np.linalg.inv(np.zeros((2, 2)))  # raises

    broken = dict(_bench.PROGRAMS, torch=broken_import, onnxruntime=broken_call)
    monkeypatch.setattr(_bench, "PROGRAMS", broken)
    assert _bench.main(["3,2,4,5", "--threads", "1", "--rounds", "2"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^    quadgate +\d", said, re.MULTILINE)
    assert "    torch cannot run: OSError('libpeer.so: cannot open shared object file')\n" in said
    assert "    onnxruntime cannot run: LinAlgError('Singular matrix')\n" in said


def test_bench_reports_wrong_results(monkeypatch, capsys):
    """A program whose result differs is marked, and the status is 1; the number of threads is restored."""
    wrong = dict(_bench.PROGRAMS, torch=lambda shape, data, threads: lambda: np.full((3, 2, 5), 0.5))
    del wrong["onnxruntime"]
    monkeypatch.setattr(_bench, "PROGRAMS", wrong)
    before = qg.get_num_threads()
    assert _bench.main(["3,2,4,5", "--threads", "3", "--rounds", "2"]) == 1
    assert qg.get_num_threads() == before
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "RESULTS DIFFER" in line] == ["torch"]


def test_bench_removes_the_drift_of_the_machine():
    """A round that is slower by a factor for all programs is like the others; each round's quotient is unchanged."""
    times = _bench.settled({"quadgate": [1.0, 2.0, 1.0, 4.0], "torch": [3.0, 6.0, 3.0, 12.0]})
    np.testing.assert_allclose(times["quadgate"], [1.5] * 4)
    np.testing.assert_allclose(times["torch"], [4.5] * 4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("1,2,3",), "T,B,I,H must be four positive integers, as in 200,16,12,96: got '1,2,3'"),
        (("1,2,3,0",), "got '1,2,3,0'"),
        (("1,2,3,x",), "got '1,2,3,x'"),
        (("1,2,3,4", "--layers", "0"), "--layers must be positive, got 0"),
        (("1,2,3,4", "--threads", "0"), "--threads must be positive"),
        (("2,1,3,4", "--mode", "stream"), "T must be 1, got '2,1,3,4'"),
        (("1,1,3,4", "--mode", "stream", "--directions", "2"), "--directions 1, got 2"),
        ((), "required: T,B,I,H"),
    ],
)
def test_bench_refuses_wrong_arguments(words, said, capsys):
    with pytest.raises(SystemExit) as caught:
        _bench.main(words)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "usage: python -m quadgate bench" in error
    assert said in error


def test_bench_has_help(monkeypatch, capsys):
    """Of every option, with its default."""
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as caught:
        _bench.main(["--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert "`" not in said
    assert said.count("\n  --") == said.count("(default: ") == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["1,1,4,99999999999999999999"], "'1,1,4,99999999999999999999' with 1 layers is too large"),
        (["1,1,99999999999999999999,4"], "too large to be addressed"),
        (["4000000000,4000000000,4,4"], "too large to be addressed"),
        (["1,1,4,4", "--layers", "99999999999999999999"], "'1,1,4,4' with 99999999999999999999 layers is too large"),
        (["1,1,4,4", "--threads", "1", "3000000000"], "--threads must be positive, and --threads below 2\\*\\*31"),
    ],
)
def test_bench_refuses_numbers_beyond_all_memory(words, said, capsys):
    with pytest.raises(SystemExit) as caught:
        _bench.main(words)
    assert caught.value.code == 2
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize("sizes", ["1,1,1,99999999999", "9999999,9999999,1,1"])
def test_bench_of_a_network_beyond_memory(sizes, capsys):
    assert _bench.main([sizes, "--threads", "1"]) == 1
    assert f"inference {sizes}: " in capsys.readouterr().err


def test_version_alone(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"quadgate {qg.__version__}\n"


def test_inspect_prints_what_the_terminal_has_not(tmp_path):
    """A name with letters outside of the terminal's is escaped, and the files behind it are read."""
    state = qg.LSTM(3, 4, rng=0).state_dict()
    np.savez(tmp_path / "one.npz", **{f"größe.{name}": value for name, value in state.items()})
    np.savez(tmp_path / "two.npz", **{f"plain.{name}": value for name, value in state.items()})
    command = [sys.executable, "-m", "quadgate", "inspect", "one.npz", "two.npz"]
    env = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gr\\xf6\\xdfe" in done.stdout
    assert "plain" in done.stdout


@pytest.mark.parametrize("words", [["inspect", "--help"], ["inspect", "-h"], ["inspect", "a.npz", "--help"]])
def test_inspect_has_help(words, capsys):
    assert main(words) == 0
    said = capsys.readouterr()
    assert "quadgate inspect FILE" in said.out
    assert not said.err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE")
def test_a_reader_that_has_seen_enough_is_no_error():
    """`python -m quadgate -h | head -1`: the pipe is closed before anything is written."""
    command = [sys.executable, "-m", "quadgate", "-h"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    with process.stderr:
        said = process.stderr.read()
    process.wait(timeout=60)
    assert said == b""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["foo"], "there is no command 'foo'"),
        (["inspet", "a.npz"], "there is no command 'inspet': did you mean 'inspect'?"),
        (["-x"], "there is no option '-x'"),
        (["--version", "extra"], "--version stands alone, got extra"),
        (["inspect"], "inspect needs a FILE"),
    ],
)
def test_no_command(words, said, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("usage: python -m quadgate")
    assert error.endswith(f"\npython -m quadgate: error: {said}\n")


def test_help_names_the_commands(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr()
    assert "quadgate bench" in said.out
    assert "quadgate inspect" in said.out
    assert not said.err


def test_version():
    assert qg.__version__ == importlib.metadata.version("quadgate")


def test_import_loads_only_what_a_network_needs(run_script):
    """The modules that reading files, ONNX, the reference and the commands need are loaded when they are asked for."""
    source = """
        import sys
        import numpy
        before = set(sys.modules)
        import quadgate
        print(*sorted(set(sys.modules) - before))
    """
    ours = "_check _core _initial _machine _masks _network _options _params _pickling _results _run _stream_input "
    ours += "_threadpools lstm rnn stream"
    loaded = run_script(source).stdout.split()
    known = {"quadgate", *(f"quadgate.{name}" for name in ours.split())}
    assert {name for name in loaded if name.startswith("quadgate")} <= known
    heavy = "argparse asyncio difflib http importlib.metadata inspect json logging multiprocessing pathlib socket ssl "
    heavy += "subprocess tempfile unittest urllib zipfile"
    assert {name for name in loaded if name in heavy.split()} == set()


def test_import_loads_no_other_package(run_script):
    """NumPy is the only dependency, and no heavy module of Python's own is imported."""
    source = """
        import sys
        import numpy
        before = set(sys.modules)
        import quadgate
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(*sorted(new - {"quadgate"} - set(sys.stdlib_module_names)))
    """
    assert run_script(source).stdout.split() == []


def test_public_names():
    for name in ("LSTM", "LSTMGrads", "Stream", "set_num_threads", "get_num_threads", "cpu_info", "reference"):
        assert hasattr(qg, name), name


def test_machine():
    info = qg.cpu_info()
    assert set(info) == {"isa", "supported", "cores", "threads", "l1d", "l2", "l3"}
    assert info["cores"] >= 1
    assert info["threads"] == qg.get_num_threads()
    for cache in ("l1d", "l2", "l3"):
        assert info[cache] >= 0
    qg.set_num_threads(3)
    assert qg.get_num_threads() == qg.cpu_info()["threads"] == 3


def test_the_first_number_of_threads_is_that_of_the_cores(run_script):
    """Of those that the process may use: restricted to one core it starts with one thread."""
    run_script(
        """
        import os
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
            import quadgate
            assert quadgate.get_num_threads() == 1
            assert quadgate.cpu_info()["cores"] == 1
        """,
        QUADGATE_NUM_THREADS="",
        OMP_NUM_THREADS="",
    )
