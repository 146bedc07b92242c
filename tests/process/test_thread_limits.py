"""The number of threads at start, from the environment, and under threadpoolctl."""

from __future__ import annotations

import pytest

ASK = "import quadgate as qg; print(qg.get_num_threads())"


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"QUADGATE_NUM_THREADS": "3", "OMP_NUM_THREADS": "5"}, 3),
        ({"QUADGATE_NUM_THREADS": "", "OMP_NUM_THREADS": "5"}, 5),
        ({"QUADGATE_NUM_THREADS": " 7 ", "OMP_NUM_THREADS": ""}, 7),
        ({"QUADGATE_NUM_THREADS": "", "OMP_NUM_THREADS": "4,2,1"}, 4),
        ({"QUADGATE_NUM_THREADS": "0" * 5000 + "6"}, 6),
    ],
)
def test_environment(run_script, environment, threads):
    assert run_script(ASK, **environment).stdout.split() == [str(threads)]


@pytest.mark.slow
@pytest.mark.parametrize("value", ["", "many", "0", "-2", "1.5", "99999999999999", "9" * 5000])
def test_an_omp_value_that_is_no_number_of_threads_is_ignored(run_script, value):
    source = "import quadgate as qg; print(qg.get_num_threads() == qg.cpu_info()['cores'])"
    assert run_script(source, QUADGATE_NUM_THREADS="", OMP_NUM_THREADS=value).stdout.split() == ["True"]


@pytest.mark.slow
@pytest.mark.parametrize("value", ["many", "0", "-2", "1.5", "99999999999999", "9" * 5000])
def test_a_wrong_number_of_our_own_is_an_error(run_script, value):
    done = run_script(ASK, status=1, QUADGATE_NUM_THREADS=value)
    got = repr(value) if len(value) < 70 else "str"
    assert f"ValueError: QUADGATE_NUM_THREADS must be an integer from 1 to 2**31 - 1, got {got}" in done.stderr


@pytest.mark.parametrize("first", ["quadgate as qg, threadpoolctl", "threadpoolctl, quadgate as qg"])
def test_threadpoolctl_limits_quadgate(run_script, first):
    pytest.importorskip("threadpoolctl")
    run_script(
        f"""
import {first}
import numpy as np
qg.set_num_threads(4)
lstm = qg.LSTM(3, 4)
with threadpoolctl.threadpool_limits(1):
    assert qg.get_num_threads() == 1
    lstm(np.zeros((2, 1, 3), np.float32))
assert qg.get_num_threads() == 4
with threadpoolctl.threadpool_limits(2, user_api="blas"):
    assert qg.get_num_threads() == 4
with threadpoolctl.threadpool_limits({{"quadgate": 3}}):
    assert qg.get_num_threads() == 3
(pool,) = [p for p in threadpoolctl.threadpool_info() if p["user_api"] == "quadgate"]
assert pool["num_threads"] == 4 and pool["version"] == qg.__version__
"""
    )


def test_threadpoolctl_is_not_loaded_by_quadgate(run_script):
    run_script("import sys, quadgate as qg; qg.LSTM(1, 1); assert 'threadpoolctl' not in sys.modules")
