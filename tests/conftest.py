"""What all tests share: a skip that is not listed is a failure in CI, a fault leaves nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest

from tests.expected_skips import expected
from tests.faults.fixtures import nothing_is_left, noticed

__all__ = ["nothing_is_left", "noticed"]  # fixtures of every test

# In the background (nohup) these are ignored, and so they would be by all that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# A run under test looks as it does anywhere, and leaves nothing for the step that runs the tests.
os.environ.pop("GITHUB_ACTIONS", None)

CURE = (
    "Install what it needs with `tox -e setup` (vmtest/host/requirements.py) or an extra of "
    "pyproject.toml, or list it with the reason in tests/expected_skips.py."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-skips",
        action="store_true",
        default=os.environ.get("CI", "").lower() not in ("", "0", "false"),
        help="a skip that tests/expected_skips.py does not list is a failure (default in CI)",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than CPUs: tests wait for a deadline, a guest or a server now and then."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        _judge(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge(report, collector.config)
    return report


def _judge(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    """Make a skip that is not listed a failure, where skips are strict."""
    if not report.skipped or not config.getoption("strict_skips"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    says = reason.removeprefix("Skipped: ")
    if expected(report.nodeid, says) is None:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped: {says}\n{CURE}"
