"""Third-party conformance cases of ONNX, ONNX Runtime, Keras and RTNeural, where the folder with them, ../shared, is.

All of them pass; none is unsupported.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
SUITES = TESTS.parents[1] / "shared" / "suites"
ADAPTER = TESTS / "support" / "onnx_adapter.py"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("suite", "arguments", "cases"),
    [
        ("onnx_lstm_suite.py", ["--json", "onnx_lstm_cases.json"], 6),
        ("onnx_lstm_suite.py", [], 6),
        ("ort_lstm_suite.py", ["--backward-adapter", f"{ADAPTER}:lstm_backward"], 36),
        ("keras_lstm_suite.py", [], 14),
        ("rtneural_lstm_suite.py", [], 6),
    ],
    ids=["onnx", "onnx-package", "ort", "keras", "rtneural"],
)
def test_suite(suite: str, arguments: list[str], cases: int, dtype: str) -> None:
    if not SUITES.is_dir():
        pytest.skip("the suites' folder, ../shared/suites, is not here")
    if suite.startswith("onnx") and not arguments and importlib.util.find_spec("onnx") is None:
        pytest.skip("onnx is not installed, its own cases are not run: install onnx")
    command = [sys.executable, suite, "--adapter", f"{ADAPTER}:lstm", "--dtype", dtype, *arguments]
    done = subprocess.run(command, cwd=SUITES, capture_output=True, text=True, check=False)
    counts = re.search(r"(\d+) of \d+ passed, (\d+) failed, (\d+) unsupported", done.stdout)
    assert counts, done.stdout + done.stderr
    passed, failed, unsupported = map(int, counts.groups())
    assert (failed, unsupported) == (0, 0), done.stdout
    assert passed == cases if arguments or not suite.startswith("onnx") else passed >= cases, done.stdout
    assert done.returncode == 0, done.stderr
