"""Results of guests as pytest's reports: terminal, JUnit and --lf are pytest's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pytest

from vmtest.model.results import Outcome, TestResult
from vmtest.model.text import printable
from vmtest.plugin.items import KernelItem
from vmtest.report.written import written

_When = Literal["setup", "call", "teardown"]
_Outcome = Literal["passed", "failed", "skipped"]


class _Writer(Protocol):
    def line(self, text: str = "", /) -> None:
        """Write a line."""


@dataclass(frozen=True, slots=True)
class Crash:
    """Where it was, and what it said in a line; as pytest prints it with --tb=line."""

    path: str
    lineno: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.lineno}: {self.message}"


class Failure:
    """What went wrong in a guest, as pytest asks for it: ``whole``, and ``message`` in a line."""

    def __init__(self, whole: str, message: str, place: tuple[str, int]) -> None:
        self.whole = whole
        self.reprcrash = Crash(place[0], place[1], message)

    def __str__(self) -> str:
        return self.whole

    def toterminal(self, tw: _Writer) -> None:
        """Write it, as pytest writes a traceback."""
        tw.line(printable(self.whole))


def of_result(item: KernelItem, result: TestResult) -> list[pytest.TestReport]:
    """Setup, call and teardown of a test, as far as they came."""
    message = result.message or str(result.outcome)
    whole = Failure(result.details or message, message, (result.file, result.line))
    match result.outcome:
        case Outcome.SKIPPED | Outcome.NOT_APPLICABLE:
            return skipped(item, result.message)
        case Outcome.NOT_RUN | Outcome.COLLECTED:
            return not_run(item, f"{item.kernel}: not run: {result.message}")
        case Outcome.ERROR:
            return _broken(item, result, whole)
        case Outcome.PASSED:
            return _called(item, result, "passed", None)
        case Outcome.XFAILED:
            return _called(item, result, "skipped", whole, wasxfail=result.message)
        case Outcome.XPASSED:
            return _called(item, result, "failed", f"[XPASS(strict)] {result.message}")
        case Outcome.LOST:
            return _called(item, result, "failed", f"{item.kernel}: lost: {result.message}")
    return _called(item, result, "failed", whole)


def skipped(item: KernelItem, why: str) -> list[pytest.TestReport]:
    """A test that its kernel is not meant for, or that skipped itself."""
    place, line, _ = item.location
    return [_report(item, "setup", "skipped", (place, (line or 0) + 1, f"Skipped: {why}"))]


def not_run(item: KernelItem, why: str) -> list[pytest.TestReport]:
    """An error before the test: its kernel never came so far."""
    return [_report(item, "setup", "failed", why)]


def tell(item: KernelItem, told: Sequence[pytest.TestReport]) -> None:
    """Have every plugin hear the reports of one test."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in told:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def tell_of_kernel(config: pytest.Config, kernel: str, why: str) -> None:
    """An error of the kernel itself, which no test of it stands for."""
    place = ("vmtest", None, kernel)
    report = pytest.TestReport(f"vmtest::{kernel}", place, {}, "failed", why, "setup")
    config.hook.pytest_runtest_logstart(nodeid=report.nodeid, location=place)
    config.hook.pytest_runtest_logreport(report=report)
    config.hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=place)


def _called(
    item: KernelItem,
    result: TestResult,
    outcome: _Outcome,
    said: str | Failure | None,
    **more: str,
) -> list[pytest.TestReport]:
    call = _report(item, "call", outcome, said, result, **more)
    return [_report(item, "setup", "passed"), call, _report(item, "teardown", "passed")]


def _broken(item: KernelItem, result: TestResult, whole: Failure) -> list[pytest.TestReport]:
    """A fixture that failed: pytest counts it as an error and not as a failure."""
    return [_report(item, "setup", "failed", whole, result), _report(item, "teardown", "passed")]


def _report(
    item: KernelItem,
    when: _When,
    outcome: _Outcome,
    said: str | Failure | tuple[str, int, str] | None = None,
    result: TestResult | None = None,
    **more: Any,
) -> pytest.TestReport:
    parts = written(result) if result is not None else ()
    return pytest.TestReport(
        item.nodeid,
        item.location,
        dict.fromkeys(item.keywords, 1),
        outcome,
        said,  # type: ignore[arg-type]  # it asks for no more than Failure has
        when,
        sections=[(f"Captured {title} in {item.kernel}", printable(text)) for title, text in parts],
        duration=result.duration if result is not None else 0.0,
        **more,
    )
