"""The promises about numbers hold on every instruction set that the machine has, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import quadgate as qg

TESTS = Path(__file__).parents[1]
NUMERIC = [f"numerics/test_{name}.py" for name in ("against_reference", "activations", "closed_form", "gradients")]
NUMERIC += ["numerics/test_lengths.py", "numerics/test_nonfinite.py", "bits/test_bitwise.py"]
VALID = ["baseline", "avx2", "avx512", "neon"]


@pytest.mark.parametrize("isa", VALID)
def test_numbers_on(isa):
    info = qg.cpu_info()
    if isa not in info["supported"]:
        pytest.skip(f"this machine has no {isa}")
    if isa == info["isa"]:
        pytest.skip(f"{isa} is what all other tests run on")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *(str(TESTS / f) for f in NUMERIC)]
    env = {**os.environ, "QUADGATE_ISA": isa}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=TESTS.parent, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_baseline_is_supported_and_the_best_is_chosen():
    info = qg.cpu_info()
    assert set(info["supported"]) <= set(VALID)
    if "neon" not in info["supported"]:
        assert "baseline" in info["supported"]
    if not os.environ.get("QUADGATE_ISA"):
        best = max(info["supported"], key=VALID.index)
        assert info["isa"] == best


def test_forced(run_script):
    for isa in qg.cpu_info()["supported"]:
        done = run_script("import quadgate; print(quadgate.cpu_info()['isa'])", QUADGATE_ISA=isa)
        assert done.stdout.strip() == isa


@pytest.mark.parametrize("value", ["avx9", "AVX512 ", "none", "unsupported"])
def test_an_unknown_or_unsupported_value_is_an_error_that_names_the_valid_ones(value, run_script):
    supported = qg.cpu_info()["supported"]
    if value == "unsupported":
        value = next(isa for isa in VALID if isa not in supported)  # no machine has both avx512 and neon
    source = """
        import numpy as np
        try:
            import quadgate as qg
            qg.cpu_info()
            qg.LSTM(2, 3)(np.zeros((1, 1, 2), np.float32))
        except Exception as error:
            print(type(error).__name__, error)
        else:
            raise SystemExit("accepted")
    """
    said = run_script(source, QUADGATE_ISA=value).stdout
    assert "QUADGATE_ISA" in said
    assert value.strip() in said
    for isa in supported:
        assert isa in said
