"""Every program of examples runs with --quick, and its last line has figures that make sense.

Programs whose packages are not installed are skipped, and say which one they lack.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
MISSING = re.compile(r"(\S+) is missing, which only this example needs: pip install")
slow = pytest.mark.slow  # the programs that take longest; the others show that all of the kit works together


def run(name: str, *arguments: Any, launcher: tuple[Any, ...] = (), cwd: Any = None) -> str:
    """Return what a program prints; skip the test where it lacks a package or a package index."""
    command = [*launcher, sys.executable, FOLDER / name, "--quick", *map(str, arguments)]
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False)
    lacks = MISSING.search(done.stderr)
    if done.returncode and lacks:
        module = lacks[1]
        assert module == "MPI" or importlib.util.find_spec(module) is None, f"{module} is installed\n{done.stderr}"
        pytest.skip(f"{module} is not installed, {name} is not run: install quadgate[gallery]")
    if done.returncode and "could not be fetched" in done.stderr:
        pytest.skip(f"{name} could not fetch its data, and is not run: it needs a package index")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def result(output: str) -> dict[str, float]:
    """Return the figures of the line RESULT, which is the last, or the last but that of the bits."""
    last = [line for line in output.splitlines() if not line.startswith("BITS ")][-1]
    assert re.fullmatch(r"RESULT( [a-z_0-9]+=-?\d+(\.\d+)?(e[+-]\d+)?)+", last), last
    return {name: float(value) for name, value in (pair.split("=") for pair in last.split()[1:])}


def picture(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n") and path.stat().st_size > 5000


def test_digits(tmp_path):
    found = result(run("digits.py", "--plot", tmp_path / "p.png"))
    assert all(0.93 < found[name] <= 1 for name in ("rnn", "lstm", "peephole"))
    assert 0.95 < found["baseline"] < 0.99
    assert picture(tmp_path / "p.png")


@pytest.fixture
def folder(request):
    """The folder of what the programs fetch, which outlives a run of the tests."""
    return request.config.cache.mkdir("examples")


@slow
def test_vowels(folder):
    found = result(run("vowels.py", "--folder", folder / "vowels"))
    assert 0.95 < found["accuracy"] <= 1
    assert 0.9 < found["baseline"] < 1


@slow
def test_voice(folder, tmp_path):
    found = result(run("voice.py", "--folder", folder / "silero", "--callers", 1, "--plot", tmp_path / "p.png"))
    assert found["equal"] == 1
    assert found["spread"] > 0.9  # it hears speech, and silence
    assert found.get("difference", 0) < 1e-5
    assert found["frame_by_frame_1"] > 31.25  # real time
    assert picture(tmp_path / "p.png")


@slow
def test_online():
    found = result(run("online.py"))
    assert found["rtrl"] < found["truncated_4"] < found["truncated_1"] < 1.1
    assert 0.99 < found["baseline"] < 1.01


def test_vanishing():
    found = result(run("vanishing.py"))
    assert found["lstm_forget_1_20"] < found["baseline"] < 0.17
    assert found["exploded_after"] < 100 == found["clipped"]


@slow
def test_rainfall():
    found = result(run("rainfall.py"))
    assert found["baseline"] < found["nse"] < 1


@slow
def test_control():
    found = result(run("control.py"))
    assert 9 < found["return"] <= 500  # chance has about 20 steps
    assert 9 < found["numpy_return"] <= 500


@slow
def test_forecast():
    found = result(run("forecast.py"))
    for name in ("co2", "elec_equip", "sunspots"):
        assert 0 < found[name] < found[f"{name}_naive"]
        assert 0 < found[f"{name}_smoothing"] < found[f"{name}_naive"]
        assert 0.5 < found[f"{name}_inside"] <= 1


@slow
def test_amp(tmp_path):
    found = result(run("amp.py", "--wav", tmp_path / "amp.wav"))
    assert 0 < found["error_to_signal"] < 2 * found["baseline"] < 0.2
    assert found["real_time_factor"] > 1
    assert (tmp_path / "amp.wav").stat().st_size > 100_000


@slow
def test_translate():
    found = result(run("translate.py"))
    assert 0 <= found["greedy"] <= 1
    assert 0.3 < found["letters"] <= 1
    assert 0 <= found["exact"] <= 1


@slow
def test_caption():
    found = result(run("caption.py"))
    assert found["words"] > 0.6
    assert found["baseline"] < 0.5


@slow
def test_server():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed, nothing stands beside the server")
    output = run("distributed/server.py", "--port", 18765)
    found = result(output)
    for name in ("", "onnxruntime_"):
        assert 0 < found[f"{name}p50_ms"] <= found[f"{name}p99_ms"]
        assert found[f"{name}streams"] in (0, 4, 16)


@slow
def test_score_dask():
    output = run("distributed/score_dask.py")
    found = result(output)
    assert (found["equal"], found["workers"]) == (1, 2)
    assert "threads of quadgate in each: [1, 1]" in output


@slow
def test_score_ray():
    found = result(run("distributed/score_ray.py"))
    assert (found["equal"], found["workers"]) == (1, 2)


def two_processes() -> tuple[str, ...]:
    """Return the words that start two processes of a program; skip the test without MPI."""
    launcher = shutil.which("mpiexec", path=Path(sys.executable).parent) or shutil.which("mpiexec")
    if launcher is None:
        pytest.skip("mpiexec is not installed, two processes are not started: install mpich")
    return (launcher, "-n", "2")


@slow
def test_the_same_bits_on_one_process_and_two(tmp_path):
    """Equal to fit(shards=8) without MPI, too."""
    alone = run("distributed/train_mpi.py", cwd=tmp_path)
    assert 0.5 < result(alone)["accuracy"] <= 1
    bits = alone.splitlines()[-1]
    assert re.fullmatch("BITS [0-9a-f]{16}", bits)

    program: Any = importlib.util.spec_from_file_location("train_mpi", FOLDER / "distributed" / "train_mpi.py")
    module = importlib.util.module_from_spec(program)
    program.loader.exec_module(module)
    x, y, _ = module.digits()
    model = module.new_model(4 * -(-len(x) // module.BATCH))
    assert bits != f"BITS {module.bits(model)}"
    model.fit(x, y, batch_size=module.BATCH, shards=module.SHARDS, epochs=4, progress=False)
    assert bits == f"BITS {module.bits(model)}"

    output = run("distributed/train_mpi.py", launcher=two_processes(), cwd=tmp_path)
    assert output.splitlines()[-1] == bits
    assert "process 1 of 2: rows 30 to 59" in output


@slow
@pytest.mark.thorough
def test_the_same_bits_after_a_kill(tmp_path):
    two = two_processes()
    (tmp_path / "whole").mkdir()
    bits = run("distributed/train_mpi.py", launcher=two, cwd=tmp_path / "whole").splitlines()[-1]
    command = [*two, sys.executable, FOLDER / "distributed" / "train_mpi.py", "--quick", "--die-after", "2"]
    killed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode != 0
    assert "RESULT" not in killed.stdout
    assert run("distributed/train_mpi.py", "--resume", launcher=two, cwd=tmp_path).splitlines()[-1] == bits
