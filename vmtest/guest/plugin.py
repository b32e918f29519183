# SPDX-License-Identifier: MIT
"""The pytest plugin of the guest: tells the host about every test as it happens.

One JSON object a line.  The host answers the start of each test with one byte,
after it has written down everything before it: when a test panics the kernel,
the host knows for certain what had finished and what was running.

A test that forks and lets its child return would have the child go on as a second pytest: the child
is ended before it reports anything, and before it cleans up what is its parent's.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from os.path import normpath
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from vmtest.guest.kernel_messages import KernelMessages
from vmtest.guest.wire import Wire

OUTPUT_LIMIT = 64 * 1024
"""Characters kept of a test's output and of its failure, from the end."""

LINE_LIMIT = 2000
"""Characters kept of a line of a failure that is longer as a whole, from both ends."""

NOT_APPLICABLE = "not applicable: "
"""Reason of a skip that means: this kernel or object never promised it."""

KNOWN = "vmtest known failure"
KNOWN_SOMETIMES = "vmtest known to fail sometimes"
EXPIRED = "vmtest expired known failure"
"""Names of user properties of a test: the reason of its entry in kernels.toml, of one that is not
strict, and what to say of an expired one."""

_FAILURES = ("failed", "error", "xpassed")

ALTHOUGH = "skipped although the kernel has "
"""How the failure begins of a test that skipped what the kernel can do."""


def not_applicable(reason: str) -> NoReturn:
    """End the test: what it asks was never promised here.  Raises pytest's Skipped."""
    pytest.skip(NOT_APPLICABLE + reason)


Place = tuple[str, int]
"""A file, relative to pytest's rootdir, and a line of it, from 1; "" and 0 for none."""

_IN_TEXT = re.compile(r'^(?:E?\s*File "(.+?)", line |(\S[^:\n]*):)(\d+)\b', re.MULTILINE)


class _End(NamedTuple):
    """What became of a test, in which phase, and what it and the kernel wrote meanwhile."""

    outcome: str
    message: str
    details: str = ""
    place: Place = ("", 0)
    phase: str = ""
    duration: float = 0.0
    output: str = ""
    stderr: str = ""
    kernel: str = ""


def whole_assertions() -> list[str]:
    """Options with which pytest says all of how two values differ, and not the first eight lines.

    ``-vv`` would do, and would compare the whole values line by line as well, which takes minutes
    where they are long.
    """
    lines, characters = 100, 16 * 1024
    if pytest.version_tuple >= (8, 4):
        given = (f"truncation_limit_lines={lines}", f"truncation_limit_chars={characters}")
        return [word for one in given for word in ("-o", one)]
    with suppress(ImportError, AttributeError):
        from _pytest.assertion import truncate

        for name, value in (("DEFAULT_MAX_LINES", lines), ("DEFAULT_MAX_CHARS", characters)):
            setattr(truncate, name, value)
    return []


class HostReporter:
    """Pytest hooks that turn reports into events.

    ``collected`` has the ids in running order and the files of those that an option
    or a plugin left out, ``start`` is answered by the host, ``result`` has test,
    outcome, duration (s), message, details, what it wrote, file and line (where it failed, in a
    file of the suites, else where it is defined), the phase in which it failed or skipped, and
    the kernel's messages meanwhile.  Both say the kernel's time of the last message before them
    (``seen``).  The tests in ``done`` ran in an earlier guest, each as often as it is listed, and
    are left out.
    """

    def __init__(self, wire: Wire, done: Sequence[str] = ()) -> None:
        self.wire = wire
        self._kernel = KernelMessages()
        self._done = Counter(done)
        self._reports: list[pytest.TestReport] = []
        self._deselected: dict[str, None] = {}
        self._root = Path("/")
        self._raised: Place = ("", 0)

    def pytest_configure(self, config: pytest.Config) -> None:
        """Places are told from the rootdir."""
        self._root = config.rootpath

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be imported, or skips itself, is one result of its own."""
        self._end_child(report)
        if report.failed:
            details = report.longreprtext
            found = _IN_TEXT.findall(details)
            # pytest tells a path relative to the working folder where that is shorter.
            here = _working_folder()
            entries = [
                (Path(normpath(here / (file or other))), int(line)) for file, other, line in found
            ]
            place = _last_below(self._root, entries) or (report.nodeid.split("::", 1)[0], 0)
            end = _End("error", _last_line(details), details, place=place, phase="collect")
            self._result(report.nodeid, end)
        elif report.skipped:
            message = _message(report)
            outcome = "not applicable" if NOT_APPLICABLE in message else "skipped"
            place = (report.nodeid.split("::", 1)[0], 0)
            self._result(report.nodeid, _End(outcome, message, place=place, phase="collect"))
        self.wire.flush()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave out what ran before; what other plugins chose and ordered stays."""
        left: list[pytest.Item] = []
        out: list[pytest.Item] = []
        for item in items:
            ran = self._done[item.nodeid] > 0
            self._done[item.nodeid] -= ran
            (out if ran else left).append(item)
        if out:
            items[:] = left
            config.hook.pytest_deselected(items=out)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Whoever reads the results has to know that something was left out on purpose."""
        self._deselected |= dict.fromkeys(item.nodeid.split("::", 1)[0] for item in items)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """All tests are known."""
        self._end_child()
        tests = [item.nodeid for item in session.items]
        self.wire.send("collected", tests=tests, deselected=list(self._deselected))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Nothing of a test runs before the host knows that it starts."""
        self._kernel.new()
        uptime = round(time.clock_gettime(time.CLOCK_BOOTTIME), 3)
        self.wire.send("start", test=item.nodeid, uptime=uptime, seen=self._kernel.seen)
        self.wire.wait()
        self._reports = []
        self._raised = ("", 0)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        """The first exception of a test says where it went wrong; pytest makes the report."""
        if call.excinfo is None or self._raised[1]:
            return
        if call.excinfo.errisinstance((pytest.skip.Exception, pytest.xfail.Exception)):
            return
        entries = [(Path(entry.path), entry.lineno + 1) for entry in call.excinfo.traceback]
        self._raised = _last_below(self._root, entries) or ("", 0)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The teardown's report completes a test."""
        self._end_child(report)
        self._reports.append(report)
        if report.when != "teardown":
            return
        outcome, telling = _judge(self._reports)
        quiet = outcome == "passed"
        end = _End(
            outcome,
            _told(outcome, telling),
            telling.longreprtext if outcome in _FAILURES else "",
            self._raised if self._raised[1] else _defined(report),
            "" if quiet else telling.when or "",
            sum(part.duration for part in self._reports),
            "" if quiet else _written(telling, "Captured stdout"),
            "" if quiet else _written(telling, "Captured stderr", "Captured log"),
            self._kernel.new(),
        )
        self._result(report.nodeid, end)

    def _result(self, test: str, end: _End) -> None:
        """Told together with what follows: a packet costs milliseconds in an emulated guest.

        A failure is told at once: a kernel that dies behind it must not take the reason along.
        """
        tell = self.wire.send if end.outcome in _FAILURES else self.wire.hold
        tell(
            "result",
            test=test,
            outcome=end.outcome,
            duration=max(0.0, round(end.duration, 4)),
            message=end.message[:1000],
            details=_end(_narrow(end.details)),
            output=_end(end.output),
            stderr=_end(end.stderr),
            kernel=end.kernel,
            seen=self._kernel.seen,
            phase=end.phase,
            file=end.place[0],
            line=end.place[1],
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport, config: pytest.Config
    ) -> tuple[str, str, str] | None:
        """No dot for a test that passed: pytest would flush it, a packet of its own."""
        if report.when != "call" or not report.passed or hasattr(report, "wasxfail"):
            return None
        return None if config.getoption("verbose") > 0 else ("passed", "", "")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """What the whole session set up is its parent's to take down."""
        self._end_child()
        self.wire.flush()

    def _end_child(self, report: pytest.TestReport | pytest.CollectReport | None = None) -> None:
        if self.wire.mine:
            return
        if report is None:
            self.wire.leave(0, "pytest went on")
        failure = f": {_message(report)}" if report.failed else ""
        self.wire.leave(int(report.failed), f"{report.nodeid} came to its end{failure}")


def _written(report: pytest.TestReport, *titles: str) -> str:
    """What is in the sections of ``report`` whose titles begin so."""
    return "\n".join(text for title, text in report.sections if title.startswith(titles))


def _last_below(root: Path, entries: Iterable[tuple[Path, int]]) -> Place | None:
    """The last of ``entries`` (absolute paths) that lies below ``root``, None where none does."""
    below = [(path, line) for path, line in entries if path.is_relative_to(root)]
    if not below:
        return None
    path, line = below[-1]
    return str(path.relative_to(root)), line


def _defined(report: pytest.TestReport) -> Place:
    file, line, _ = report.location
    return file, 0 if line is None else line + 1


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
    if not any(report.when == "call" for report in reports):
        return "skipped", reports[-1]  # --setup-only, --setup-plan
    unexpected = next((report for report in reports if hasattr(report, "wasxfail")), None)
    if unexpected is not None:
        sometimes = KNOWN_SOMETIMES in dict(unexpected.user_properties)
        return "passed" if sometimes else "xpassed", unexpected
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


def _message(report: pytest.TestReport | pytest.CollectReport) -> str:
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail).removeprefix("reason: ")
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        return str(crash.message).split("\n", 1)[0]
    return _last_line(report.longreprtext)


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except OSError:  # a module has removed it: then pytest tells whole paths
        return Path("/")


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("E").strip() if lines else ""


def _narrow(text: str) -> str:
    """``text`` whose long lines have lost their middle, if it is too long as a whole.

    pytest begins with both values, and tells behind them how they differ.
    """
    if len(text) <= OUTPUT_LIMIT:
        return text
    half = LINE_LIMIT // 2
    return "\n".join(
        f"{line[:half]}…{line[-half:]}" if len(line) > LINE_LIMIT else line
        for line in text.split("\n")
    )


def _end(text: str) -> str:
    if len(text) <= OUTPUT_LIMIT:
        return text
    return f"[{len(text) - OUTPUT_LIMIT} characters left out]\n{text[-OUTPUT_LIMIT:]}"
