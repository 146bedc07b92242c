"""Command lines of the benchmarks: mistakes are found before the first measurement, and samples outlive an error."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compare
import competition
import grid
import native
import pytest
import quantised
import whole_job
from measure import Result
from shapes import Shape
from test_bench import CEILINGS

Measure = Callable[..., list[Result]]
REPORTS = ("--markdown", "--plot", "--table", "--uses", "--picture")


def refused(program: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a benchmark, which must refuse its command line; return its words."""
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(program).main(words)
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("program", ["compare", "quantised", "competition", "whole_job", "beside"])
@pytest.mark.parametrize("option", ["--rounds", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "x", "4294967296"])
def test_numbers_must_be_positive(program: str, option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(program, [f"{option}={value}"], capsys)
    assert f"argument {option}: must be a positive integer below 2**31, got '{value}'" in said


@pytest.mark.parametrize(
    ("program", "option"),
    [(name, "--json") for name in ("compare", "quantised", "competition", "whole_job")]
    + [("compare", option) for option in REPORTS],
)
def test_files_must_have_a_folder(
    program: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path / "missing" / "a.json", tmp_path):
        said = refused(program, [option, str(path)], capsys)
        assert f"argument {option}: must be a file in a folder that exists, got '{path}'" in said


@pytest.mark.parametrize("option", ["--table", "--uses"])
def test_pages_must_have_marks(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A page without the marks of the table, or none, is refused before the run."""
    page = tmp_path / "page.md"
    assert "No such file" in refused("compare", [option, str(page)], capsys)
    page.write_text("no marks")
    assert f"{page} has no <!--" in refused("compare", [option, str(page)], capsys)
    assert page.read_text() == "no marks"


def test_files_to_read_must_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--earlier", "--shapes-file"):
        assert "No such file" in refused("compare", [option, str(tmp_path / "none.json"), "--shapes", "all"], capsys)


@pytest.mark.parametrize(
    ("program", "words", "said"),
    [
        ("memory", ["1", "2"], "SIZE must be given four times, T B I H, or not at all, got 2"),
        ("memory", ["1", "2", "3", "0"], "must be a positive integer"),
        ("beside", ["--shape", "1,2"], "argument --shape: sizes must be four positive integers T,B,I,H, got '1,2'"),
        ("beside", ["--shape", "1,2,3,x"], "argument --shape: sizes must be four positive integers"),
        ("beside", ["--neighbours", "numpy,x"], "unknown neighbour 'x'"),
        ("jobs", [], "the following arguments are required: program, threads"),
        ("jobs", ["torch", "0"], "argument threads: must be a positive integer"),
        ("jobs", ["x", "1"], "argument program: invalid choice: 'x'"),
    ],
)
def test_wrong_words_are_named(program: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(program, words, capsys)


def test_a_stream_in_two_directions_is_blamed_for_them() -> None:
    """The message has the argument that is wrong, and not the sizes, which are right."""
    with pytest.raises(ValueError, match=r"directions must be 1, got 2$"):
        grid.parse("1,1,4,4", "stream", 1, 2)
    with pytest.raises(ValueError, match=r"T must be 1, got '2,1,4,4'$"):
        grid.parse("2,1,4,4", "stream", 1, 2)


def fails_at(count: int, error: BaseException, result: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that raises at its call of that number, and returns a result before."""
    calls = []

    def measure(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == count:
            raise error
        return result(*arguments)

    return measure


def results(_: object, shape: Shape, threads: list[int], rounds: int) -> list[Result]:
    return [Result(shape, n, {"quadgate": [1.0] * rounds}, {"quadgate": 0.0}) for n in threads]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a peer")])
def test_samples_outlive_an_error(error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples from before an error, or an interrupt, are in the file of --json, and can be read again."""
    path = tmp_path / "out.json"
    words = ["--rounds", "2", "--threads", "1", "--json", str(path), "--shapes", "1,1,2,3", "1,1,2,4", "1,1,2,5"]
    monkeypatch.setattr(compare.machine, "measure", lambda *_: CEILINGS)
    monkeypatch.setattr(compare.Runner, "measure", fails_at(3, error, results))
    with pytest.raises(type(error)):
        compare.main(words)
    content, found = compare.read(path)
    assert [r.shape.label for r in found] == ["1,1,2,3", "1,1,2,4"]
    assert found[0].samples == {"quadgate": [1.0, 1.0]}
    assert content["header"]["rounds"] == 2
    compare.main(["--read", str(path), "--markdown", str(tmp_path / "report.md")])
    assert "1,1,2,4" in (tmp_path / "report.md").read_text()

    monkeypatch.setattr(quantised.QuantisedRunner, "measure", fails_at(2, error, results))
    with pytest.raises(type(error)):
        quantised.main(words)
    assert [r["shape"]["H"] for r in json.loads(path.read_text())] == [3]


def test_other_programs_keep_their_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of whole jobs and of busy neighbours."""
    path = tmp_path / "out.json"
    monkeypatch.setattr(whole_job, "Worker", lambda *_: type("Idle", (), {"close": lambda self: None})())
    monkeypatch.setattr(whole_job, "measure", fails_at(2, KeyboardInterrupt(), lambda name, *_: {"job": name}))
    with pytest.raises(KeyboardInterrupt):
        whole_job.main(["--jobs", "tiny", "tagger", "--threads", "1", "--json", str(path)])
    assert json.loads(path.read_text()) == [{"job": "tiny", "threads": 1}]

    monkeypatch.setattr(competition.os, "sched_getaffinity", lambda _: [])  # no busy process
    monkeypatch.setattr(competition.time, "sleep", lambda _: None)
    monkeypatch.setattr(competition, "measure", fails_at(2, KeyboardInterrupt(), lambda shape, *_: {"job": shape.name}))
    with pytest.raises(KeyboardInterrupt):
        competition.main(["--threads", "1", "--json", str(path)])
    assert [r["job"] for r in json.loads(path.read_text())] == ["small"]


def test_nothing_measured_leaves_an_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.json"
    path.write_text("earlier")
    monkeypatch.setattr(quantised.QuantisedRunner, "measure", fails_at(1, KeyboardInterrupt(), results))
    with pytest.raises(KeyboardInterrupt):
        quantised.main(["--json", str(path)])
    assert path.read_text() == "earlier"


def test_the_cache_needs_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home folder names the cache."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(native.Path, "home", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("QUADGATE_BENCH_CACHE", str(tmp_path / "one"))
    assert native.cache_folder() == tmp_path / "one"
    monkeypatch.delenv("QUADGATE_BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "two"))
    assert native.cache_folder() == tmp_path / "two" / "quadgate-bench"
    assert (tmp_path / "two" / "quadgate-bench").is_dir()
