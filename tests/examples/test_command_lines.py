"""Examples refuse values of their command lines at once, with a message, and lose no model."""

from __future__ import annotations

import importlib.util
import io
import random
import re
import string
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.fixture
def program(monkeypatch) -> Callable[..., Any]:
    """A function that makes a module of a program, with a command line."""

    def made(name: str, *arguments: Any) -> Any:
        monkeypatch.syspath_prepend(FOLDER)
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        spec: Any = importlib.util.spec_from_file_location(Path(name).stem, FOLDER / name)
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except SystemExit as end:
            if "only this example needs" not in str(end):
                raise
            pytest.skip(str(end))
        return module

    return made


def refusal(module: Any, capsys: Any) -> str:
    """Return why a program ends at once."""
    with pytest.raises(SystemExit) as end:
        module.main()
    out, errors = capsys.readouterr()
    assert out == ""
    assert end.value.code == 2
    return errors.splitlines()[-1]


PICTURES = "amp caption control digits forecast online rainfall translate vanishing voice vowels".split()  # noqa: SIM905


@pytest.mark.parametrize("name", [*PICTURES, "distributed/score_dask", "distributed/score_ray", "distributed/server"])
def test_a_picture_that_cannot_be_written_is_refused_at_once(program, capsys, tmp_path, name):
    for path, why in ((tmp_path / "none" / "p.png", "cannot be written"), (tmp_path / "p.txt", "must end in .png or")):
        said = refusal(program(f"{name}.py", "--quick", "--plot", path), capsys)
        assert f"argument --plot: {path} {why}" in said


@pytest.mark.parametrize(
    ("name", "option"), [("amp", "--wav"), ("write_python", "--save"), ("write_python", "--explore")]
)
def test_other_files_that_cannot_be_written_are_refused_at_once(program, capsys, tmp_path, name, option):
    for path in (tmp_path, tmp_path / "none" / "file"):
        assert f"argument {option}: {path} cannot be written" in refusal(program(f"{name}.py", option, path), capsys)


@pytest.mark.parametrize(("name", "option"), [("voice", "--wav"), ("write_python", "--load")])
def test_files_that_cannot_be_read_are_refused_at_once(program, capsys, tmp_path, name, option):
    for path in (tmp_path, tmp_path / "none"):
        said = refusal(program(f"{name}.py", option, path), capsys)
        assert f"argument {option}: {path} is no file that can be read" in said


def test_a_recording_of_another_kind_is_refused_at_once(program, tmp_path):
    def refused(content: bytes) -> str:
        path = tmp_path / "talk.wav"
        path.write_bytes(content)
        with pytest.raises(SystemExit) as end:
            program("voice.py", "--wav", path).main()
        return str(end.value)

    assert "cannot be read as a WAV file: " in refused(b"")
    assert "cannot be read as a WAV file: " in refused(b"no such thing" * 10)
    for rate, frames, why in ((8000, 8000, "must have 16000 samples a second"), (16000, 100, "at least 512 samples")):
        memory = io.BytesIO()
        with wave.open(memory, "wb") as file:
            file.setparams((1, 2, rate, frames, "NONE", ""))
            file.writeframes(bytes(2 * frames))
        assert why in refused(memory.getvalue())


def test_a_model_that_cannot_be_read_is_refused_at_once(program, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"no such thing")
    with pytest.raises(SystemExit, match="it is no file of safetensors"):
        program("write_python.py", "--load", path).main()


@pytest.mark.parametrize("name", ["voice", "vowels"])
def test_a_home_directory_is_needed_only_for_the_folder_in_it(program, capsys, monkeypatch, tmp_path, name):
    def fetched(pin: str, inside: str, names: tuple[str, ...], folder: Path) -> None:
        raise InterruptedError(folder)

    monkeypatch.setenv("HOME", str(tmp_path))
    module = program(f"{name}.py")
    monkeypatch.setattr(module.package_files, "fetch", fetched)
    with pytest.raises(InterruptedError, match=re.escape(str(tmp_path / ".cache" / "quadgate-examples"))):
        module.main()

    pwd = pytest.importorskip("pwd", reason="pwd is a module of Unix")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert "is in no home directory that is known" in refusal(module, capsys)
    monkeypatch.setattr(sys, "argv", [name, "--folder", str(tmp_path / "here")])
    with pytest.raises(InterruptedError, match=re.escape(str(tmp_path / "here"))):
        module.main()


SIZES = {
    "amp": ("--epochs 0", "--units 0"),
    "caption": ("--epochs 0", "--scenes 0"),
    "control": ("--policies 3", "--policies 1", "--policies 0", "--environments 0", "--seconds 0", "--sigma 0"),
    "digits": ("--epochs 0", "--epochs -1", "--epochs 1.5", "--epochs many"),
    "forecast": ("--updates 9", "--networks 0"),
    "online": ("--steps 10", "--steps 179"),
    "rainfall": ("--updates 0", "--catchments 1"),
    "recurrent_policy": ("--steps 0", "--rows 0", "--hidden 0"),
    "translate": ("--epochs 0", "--lines 0", "--units 0", "--beams 0"),
    "vanishing": ("--lengths 20 1", "--updates 0"),
    "voice": ("--callers 1 0",),
    "vowels": ("--epochs 0",),
    "write_python": ("--batch 0", "--steps 0", "--hidden 0", "--seconds inf", "--rate nan", "--seed -1"),
    "distributed/score_dask": ("--rows 100", "--rows 0", "--steps 0", "--workers 0"),
    "distributed/score_ray": ("--rows 0", "--workers 0"),
    "distributed/server": ("--streams 4 0", "--seconds nan", "--port 0"),
    "distributed/train_mpi": ("--epochs 0",),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_makes_no_sense_is_refused_at_once(program, capsys, name):
    for option, *values in map(str.split, SIZES[name]):
        said = refusal(program(f"{name}.py", option, *values), capsys)
        assert f"error: argument {option}: " in said
        assert said.replace("'", "").endswith(f"not {values[-1]}")


@pytest.mark.parametrize("name", SIZES)
def test_python_that_strips_docstrings_runs_examples(program, capsys, name):
    module = program(f"{name}.py", "--unknown")
    module.__doc__ = None  # as in python -OO
    assert "unrecognized arguments: --unknown" in refusal(module, capsys)


@pytest.mark.parametrize("steps", [180, 191])  # with no steps behind the last piece of 12, and with the most
def test_the_shortest_streams_have_all_errors(program, capsys, steps):
    program("online.py", "--steps", steps).main()
    assert "nan" not in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--checkpoint", "--plot"])
def test_processes_of_mpi_agree_that_a_file_cannot_be_written(program, tmp_path, option):
    module = program("distributed/train_mpi.py", "--quick", option, tmp_path / "none" / "file")
    with pytest.raises(SystemExit, match="none/file cannot be written"):
        module.main()


def test_a_number_of_processes_that_does_not_divide_the_shards_is_refused(program, monkeypatch):
    class Tree:
        rank, size, world = 0, 3, None

    module = program("distributed/train_mpi.py", "--quick")
    monkeypatch.setattr(module, "TreeSum", lambda world: Tree())
    with pytest.raises(SystemExit, match="the number of processes must divide 8, and it is 3"):
        module.main()


def test_a_model_is_saved_when_its_training_is_interrupted(program, monkeypatch, tmp_path):
    path, letters = tmp_path / "model.safetensors", random.Random(0)
    sizes = ("--hidden", 8, "--batch", 4, "--steps", 8, "--sample", 5, "--seconds", 600)
    module = program("write_python.py", *sizes, "--save", path)
    train, step, seen = module.train, module.train.Sequential.train_on_batch, []

    def interrupted(model: Any, *batch: Any) -> float:
        seen.append(model.params.flat.copy())
        if len(seen) == 4:
            raise KeyboardInterrupt
        return step(model, *batch)

    texts = ["".join(letters.choices(string.ascii_letters, k=20_000)) for _ in range(20)]
    monkeypatch.setattr(module, "read_library", lambda: texts)
    monkeypatch.setattr(train.Sequential, "train_on_batch", interrupted)
    try:
        module.main()  # goes on to the sample
    except KeyboardInterrupt:  # would end the tests
        pytest.fail("the interruption ended the program")
    saved = train.load(path).params.flat
    assert np.array_equal(saved, seen[3])
    assert not np.array_equal(saved, seen[0])
