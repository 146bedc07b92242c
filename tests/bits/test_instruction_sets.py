"""The choice of an instruction set: the best of the machine, or the one that QUADGATE_ISA names.

The tests marked `numbers` hold on each: CI runs them once for every one that the machine has.
"""

from __future__ import annotations

import os

import pytest
import quadgate as qg

VALID = ["baseline", "avx2", "avx512", "neon"]


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
