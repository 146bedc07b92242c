"""Shared by all tests: threads are put back, scripts run in processes of their own, skipped comparisons are named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

# The judges' small products are many times slower, not faster, with BLAS threads; must be set before NumPy is loaded.
for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
# Ours would follow OMP_NUM_THREADS.
_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
os.environ.setdefault("QUADGATE_NUM_THREADS", str(_cores))

# A shell's jobs in the background ignore Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import quadgate as qg  # noqa: E402
from support.examples import examples  # noqa: E402

hypothesis.settings.register_profile("quadgate", deadline=None, print_blob=True, max_examples=examples(60))
hypothesis.settings.load_profile("quadgate")

RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


# Folders of tests that compare with other packages, and skip where those are not installed.
PEERS = ("tests/peers/", "tests/operators/", "tests/pytorch/")
skipped_peers: dict[str, str] = {}


def pytest_report_header() -> str:
    return f"quadgate: {qg.cpu_info()}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-peers", action="store_true", help="fail if a comparison with another package is skipped"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the thorough tests to QUADGATE_TEST_ALL=1, as tests/native/run_sanitizers.sh does."""
    if os.environ.get("QUADGATE_TEST_ALL", "0") == "1":
        return
    thorough = [item for item in items if item.get_closest_marker("thorough")]
    if thorough:
        config.hook.pytest_deselected(items=thorough)
        items[:] = [item for item in items if item not in thorough]


def note_skipped(report: Any) -> None:
    if report.skipped and report.nodeid.startswith(PEERS):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        skipped_peers[report.nodeid] = reason.removeprefix("Skipped: ")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    note_skipped(report)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    note_skipped(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if skipped_peers and session.config.getoption("--require-peers") and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if skipped_peers:
        bad = config.getoption("--require-peers")
        terminalreporter.section("comparisons that were not made", red=bad, yellow=not bad)
        for name, reason in skipped_peers.items():
            terminalreporter.line(f"{name}: {reason}")


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
