"""What all tests share: the number of threads is put back, and scripts run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

# The judges' small products are many times slower, not faster, with BLAS threads; must be set before NumPy is loaded.
for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import quadgate as qg  # noqa: E402

hypothesis.settings.register_profile("quadgate", deadline=None, print_blob=True, max_examples=60)
hypothesis.settings.load_profile("quadgate")

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_report_header() -> str:
    return f"quadgate: {qg.cpu_info()}"


@pytest.fixture(autouse=True)
def threads_put_back() -> Iterator[None]:
    before = qg.get_num_threads()
    yield
    if qg.get_num_threads() != before:
        qg.set_num_threads(before)


@pytest.fixture
def run_script() -> RunScript:
    """Run Python source in a fresh interpreter with warnings as errors; by default it must exit with 0."""

    def run(
        source: str, *, status: int | None = 0, timeout: float = 60, **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(source)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **env},
            check=False,
        )
        if status is not None:
            assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run
