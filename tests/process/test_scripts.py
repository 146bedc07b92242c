"""Scripts of releases and checks: they erase nothing, list what they made, and fail when a part of them fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not (ROOT / "tools/release.sh").exists(), reason="of Linux, and of a checkout"
)

# A Python that makes environments of itself, "builds" an sdist, and says one version.
PYTHON = """#!/bin/sh
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/pip" ;;
  "-m build") mkdir -p "$7" && tar -czf "$7/quadgate-1.2.3.tar.gz" pyproject.toml ;;
  "-c "*) echo 1.2.3 ;;
esac
"""
WHEELS = """set -e
mkdir -p "$1"
echo "a sum" > "$1/SHA256SUMS"
"""


def run(folder, *command, **environment):
    """Run a command of a folder, whose stubs come first on the path."""
    path = f"{folder}/stubs:{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "HOME": str(folder), "PYENV_ROOT": str(folder), **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def checkout(tmp_path):
    """A folder with release.sh and wheels.sh, ready for a release of 1.2.3, and stubs of the programs they run."""
    files = {
        "pyproject.toml": 'version = "1.2.3"\n',
        "CITATION.cff": "version: 1.2.3\n",
        "CHANGELOG.md": "## 1.2.3\n\n- Something.\n",
        "stubs/git": '#!/bin/sh\ncase "$1" in rev-parse) exit 1 ;; log) echo 1000000000 ;; esac\n',
        "stubs/python": PYTHON,
        "stubs/python3": PYTHON,
        "stubs/ruff": "#!/bin/sh\n",
        "stubs/mypy": "#!/bin/sh\n",
    }
    for name, text in files.items():
        file = tmp_path / "checkout" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    shutil.copytree(ROOT / "tools", tmp_path / "checkout/tools")
    return tmp_path / "checkout"


@pytest.mark.parametrize("out", [".", "../kept", "../kept/file", None])
def test_a_release_removes_nothing(checkout, out):
    """A folder that has files, given or by default, is refused by name, before anything runs."""
    (checkout / "tools/wheels.sh").write_text(WHEELS)
    folder = checkout.parent / "kept" if out else checkout / "dist/1.2.3"
    folder.mkdir(parents=True)
    (folder / "file").write_text("kept")
    done = run(checkout, "bash", "tools/release.sh", "1.2.3", *([out] if out else []))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "is no empty folder: remove it or name another" in done.stderr
    assert str((checkout / out).resolve() if out else folder) in done.stderr
    assert done.stdout == ""
    assert (folder / "file").read_text() == "kept"
    assert (checkout / "pyproject.toml").exists()


@pytest.mark.parametrize("out", ["new", "empty", None])
def test_a_release_into_a_new_or_an_empty_folder(checkout, out):
    (checkout / "tools/wheels.sh").write_text(WHEELS)
    (checkout / "empty").mkdir()
    done = run(checkout, "bash", "tools/release.sh", "1.2.3", *([out] if out else []))
    assert done.returncode == 0, done.stdout + done.stderr
    notes = (checkout / (out or "dist/1.2.3") / "NOTES.md").read_text()
    assert "- Something." in notes
    assert "a sum" in notes


def test_sums_are_those_of_this_run(checkout):
    """A wheel of an earlier run stays where it is, and is not listed."""
    (checkout / "dist").mkdir()
    (checkout / "dist/quadgate-1.2.2-cp311.whl").write_text("earlier")
    settings = {"PYTHONS": str(checkout / "stubs/python"), "TARGETS": " "}  # no target: no wheel is built
    done = run(checkout, "bash", "tools/wheels.sh", **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (checkout / "dist/SHA256SUMS").read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["quadgate-1.2.3.tar.gz"]
    assert (checkout / "dist/quadgate-1.2.2-cp311.whl").read_text() == "earlier"


def test_wheels_of_no_python_are_a_failure(checkout):
    """Without an interpreter to build for there would be an sdist alone, and a status of 0."""
    programs = "awk basename bash cat cp dirname grep mkdir mktemp realpath rm sha256sum sort tar uname"
    for name in programs.split():
        (checkout / "stubs" / name).symlink_to(shutil.which(name))
    done = run(checkout, "bash", "tools/wheels.sh", PATH=str(checkout / "stubs"), TARGETS="", PYTHONS="")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no CPython 3.10 to 3.14 with headers is here: name some in PYTHONS" in done.stderr
    assert done.stdout == ""


@pytest.mark.skipif(not (ROOT / ".ci/steps.sh").exists(), reason="an sdist has no .ci")
def test_a_step_without_instruction_sets_fails(checkout):
    """A Python that cannot name the instruction sets is a failure, not an empty list of them."""
    (checkout / "stubs/python").write_text("#!/bin/sh\nexit 3\n")
    script = f"set -euo pipefail; . {ROOT}/.ci/steps.sh; instruction_sets; echo passed"
    done = run(checkout, "bash", "-c", script)
    assert done.returncode == 3
    assert "passed" not in done.stdout


@pytest.mark.skipif(not (ROOT / ".github/workflows/wheels.yml").exists(), reason="an sdist has no .github")
@pytest.mark.parametrize(("tag", "status"), [("v1.2.3", 0), ("v1.2.4", 1), ("v1.2", 1), ("1.2.3", 1)])
def test_the_workflow_compares_the_tag_with_the_version(checkout, tag, status):
    """The job that publishing waits for runs it on tags."""
    text = (ROOT / ".github/workflows/wheels.yml").read_text()
    sdist = text.partition("\n  sdist:\n")[2].partition("\n  publish:\n")[0]
    assert "needs: [wheels, sdist]" in text
    found = re.search(r"- if: startsWith\(github.ref, 'refs/tags/'\)\n +run: \|\n((?: {10}.*\n)+)", sdist)
    assert found is not None, "the job has no step for tags"
    done = run(checkout, "bash", "-e", "-o", "pipefail", "-c", found[1], GITHUB_REF_NAME=tag)
    assert done.returncode == status
    assert ("pyproject.toml has version 1.2.3" in done.stderr) == bool(status)
