"""The pytest plugin of the guest: tells the host about every test as it happens.

One JSON object a line.  The host answers the start of each test with one byte,
after it has written down everything before it: when a test panics the kernel,
the host knows for certain what had finished and what was running.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from vmtest.guest.wire import Wire

OUTPUT_LIMIT = 64 * 1024
"""Characters kept of a test's output and of its failure, from the end."""

NOT_APPLICABLE = "not applicable: "
"""Reason of a skip that means: this kernel or object never promised it."""

KNOWN = "vmtest known failure"
EXPIRED = "vmtest expired known failure"
"""Names of user properties of a test: the reason of its entry in kernels.toml, and what to say of
an expired one."""

ALTHOUGH = "skipped although the kernel has "
"""How the failure begins of a test that skipped what the kernel can do."""


def not_applicable(reason: str) -> NoReturn:
    """End the test: what it asks was never promised here.  Raises pytest's Skipped."""
    pytest.skip(NOT_APPLICABLE + reason)


class HostReporter:
    """Pytest hooks that turn reports into events.

    ``collected`` has the ids in running order, ``start`` is answered by the
    host, ``result`` has test, outcome, duration (s), message, details, output,
    ``finish`` has pytest's exit status.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._reports: list[pytest.TestReport] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be imported is one result of its own."""
        if report.failed:
            details = report.longreprtext
            self._result(report.nodeid, "error", 0.0, _last_line(details), details, "")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """All tests are known."""
        self._wire.send("collected", tests=[item.nodeid for item in session.items], pid=os.getpid())

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Nothing of a test runs before the host knows that it starts."""
        self._wire.send("start", test=item.nodeid)
        self._wire.wait()
        self._reports = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The teardown's report completes a test."""
        self._reports.append(report)
        if report.when != "teardown":
            return
        outcome, telling = _judge(self._reports)
        self._result(
            report.nodeid,
            outcome,
            sum(part.duration for part in self._reports),
            _told(outcome, telling),
            telling.longreprtext if outcome in ("failed", "error", "xpassed") else "",
            "\n".join(text for _, text in telling.sections) if outcome != "passed" else "",
        )

    def _result(
        self, test: str, outcome: str, duration: float, message: str, details: str, output: str
    ) -> None:
        self._wire.send(
            "result",
            test=test,
            outcome=outcome,
            duration=round(duration, 4),
            message=message[:1000],
            details=_end(details),
            output=_end(output),
        )

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """The last event of a process that ended by itself."""
        self._wire.send("finish", status=int(exitstatus))


def _judge(reports: list[pytest.TestReport]) -> tuple[str, pytest.TestReport]:
    """The outcome of a test's reports (setup, call, teardown), and the one that says why."""
    failed = next((report for report in reports if report.failed), None)
    if failed is not None:
        if failed.longreprtext.startswith("[XPASS(strict)]"):
            return "xpassed", failed
        if failed.when == "call" or failed.longreprtext.startswith(ALTHOUGH):
            return "failed", failed
        return "error", failed
    skipped = next((report for report in reports if report.skipped), None)
    if skipped is not None:
        if hasattr(skipped, "wasxfail"):
            return "xfailed", skipped
        if NOT_APPLICABLE in _message(skipped):
            return "not applicable", skipped
        return "skipped", skipped
    unexpected = next((report for report in reports if hasattr(report, "wasxfail")), None)
    if unexpected is not None:
        return "xpassed", unexpected
    return "passed", reports[-1]


def _told(outcome: str, report: pytest.TestReport) -> str:
    """The message of `report`, with what kernels.toml says of a test that is known to fail."""
    said = dict(report.user_properties)
    if outcome == "xpassed" and KNOWN in said:
        reason = said[KNOWN]
        return f"passed, though known to fail ({reason}): remove it from kernels.toml"
    if outcome in ("failed", "error") and EXPIRED in said:
        return f"{said[EXPIRED]}: {_message(report)}"
    return _message(report)


def _message(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail).removeprefix("reason: ")
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return str(crash.message).split("\n", 1)[0]
    return _last_line(report.longreprtext)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("E").strip() if lines else ""


def _end(text: str) -> str:
    if len(text) <= OUTPUT_LIMIT:
        return text
    return f"[{len(text) - OUTPUT_LIMIT} characters left out]\n{text[-OUTPUT_LIMIT:]}"
