"""The example of a recurrent policy runs, finds equal gradients, and ends with its result."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed, its example is not run: install torch")

EXAMPLE = Path(__file__).parents[2] / "examples" / "recurrent_policy.py"


def test_recurrent_policy():
    done = subprocess.run(
        [sys.executable, EXAMPLE, "--quick"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "gradients are equal" in done.stdout
    assert re.fullmatch(r"RESULT speedup=\d+\.\d\d", done.stdout.splitlines()[-1])
