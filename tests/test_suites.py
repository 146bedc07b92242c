"""Third-party conformance cases of ONNX, ONNX Runtime, Keras and RTNeural, where the folder with them, ../shared, is.

Cases that need what version 0.1 does not have (peepholes, clips, other activations) are counted, so that none of the
others can slip among them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SUITES = HERE.parent.parent / "shared" / "suites"


@pytest.mark.parametrize(
    ("suite", "arguments", "passed", "unsupported"),
    [
        ("onnx_lstm_suite.py", ["--json", "onnx_lstm_cases.json"], 5, 1),
        ("ort_lstm_suite.py", ["--no-backward"], 5, 30),
        ("keras_lstm_suite.py", [], 14, 0),
        ("rtneural_lstm_suite.py", [], 6, 0),
    ],
)
def test_suite(suite: str, arguments: list[str], passed: int, unsupported: int) -> None:
    if not SUITES.is_dir():
        pytest.skip("the suites' folder, ../shared/suites, is not here")
    command = [sys.executable, suite, "--adapter", f"{HERE / 'onnx_adapter.py'}:lstm", *arguments]
    done = subprocess.run(command, cwd=SUITES, capture_output=True, text=True, check=False)
    counts = re.search(r"(\d+) of \d+ passed, (\d+) failed, (\d+) unsupported", done.stdout)
    assert counts, done.stdout + done.stderr
    assert tuple(map(int, counts.groups())) == (passed, 0, unsupported), done.stdout
    assert done.returncode == 0, done.stderr
