"""The output of ``go test -v`` and of a test binary, as text or as test2json's events.

Formats: ``go doc cmd/test2json``, and what package testing prints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vmtest.command.formats.rows import LONGEST, Rows, last_line, seconds
from vmtest.model.kernels import Outcome, TestResult

# \x16 marks the lines of -test.v=test2json, so that no test's output is mistaken for one.
_BEGIN = re.compile(r"^\x16?=== (RUN|PAUSE|CONT|NAME)\s*(\S*)\s*$")
_END = re.compile(
    r"\x16?( *)--- (PASS|FAIL|SKIP|BENCH): (\S+) \((\d{1,9}(?:\.\d+)?) ?s(?:econds)?\)$"
)
_BROKEN = re.compile(r"^FAIL\s+(\S+) \[(?:build|setup) failed\]$")
_PANIC = re.compile(r"^(panic: |fatal error: |SIG[A-Z]+: )")

_OUTCOMES = {
    "PASS": Outcome.PASSED,
    "FAIL": Outcome.FAILED,
    "SKIP": Outcome.SKIPPED,
    "BENCH": Outcome.PASSED,
}


@dataclass(slots=True)
class _Test:
    """A test that runs, or has ended and may still have lines of its own to come."""

    name: str
    package: str = ""
    lines: list[str] = field(default_factory=list)
    size: int = 0
    outcome: Outcome | None = None
    duration: float = 0.0
    message: str = ""

    @property
    def id(self) -> str:
        return f"{self.package}::{self.name}" if self.package else self.name

    def say(self, line: str) -> None:
        self.lines.append(line)
        self.size += len(line) + 1
        while self.size > LONGEST and len(self.lines) > 1:
            self.size -= len(self.lines.pop(0)) + 1


class GoTest:
    """See ``vmtest.command.formats.format.Reader``; ``suite`` is what the rows belong to.

    In test2json's events a test has its package in front (``example.org/p::TestA``).
    """

    def __init__(self, suite: str) -> None:
        self._rows = Rows(suite)
        self._open: dict[tuple[str, str], _Test] = {}
        self._parents: set[tuple[str, str]] = set()
        self._current: _Test | None = None
        self._ended: _Test | None = None
        self._panic = ""
        self._packages: dict[str, _Test] = {}

    @property
    def done(self) -> Sequence[TestResult]:
        """The tests that have ended."""
        return self._rows.done

    @property
    def running(self) -> str | None:
        """The test that spoke or began last and has not ended."""
        if self._current is not None and self._current.outcome is None:
            return self._current.id
        return next((test.id for test in reversed(self._open.values())), None)

    @property
    def expected(self) -> int | None:
        """Go does not say."""
        return None

    def feed(self, line: str, error: bool = False) -> None:
        """Take a line."""
        if not error and line.startswith("{") and (event := _event(line)) is not None:
            self._take(event)
        else:
            self._text(line.rstrip("\r"), error)

    def end(self, died: str = "") -> None:
        """Tests that still ran are lost."""
        self._flush()
        why = died or self._panic or "the command ended while it ran"
        for test in self._open.values():
            self._rows.add(test.id, Outcome.LOST, why, "\n".join(test.lines))
        self._open.clear()

    def _text(self, line: str, error: bool) -> None:
        """A line that package testing or a test printed."""
        if _PANIC.match(line):
            self._panic = line
            if self._ended is not None and self._ended.outcome is Outcome.FAILED:
                self._ended.message = line
        if error:
            self._say(line)
        elif begin := _BEGIN.match(line):
            self._begin(begin[1], begin[2])
        elif end := self._end_of_test(line):
            if end.start():
                self._say(line[: end.start()])
            self._close(end[3], "", _OUTCOMES[end[2]], float(end[4]))
        elif broken := _BROKEN.match(line):
            self._flush()
            self._rows.add(broken[1], Outcome.ERROR, line.strip())
        else:
            self._say(line)

    def _end_of_test(self, line: str) -> re.Match[str] | None:
        """A test's end: on a line of its own, or behind what it printed without a line break."""
        end = _END.search(line)
        if end is None or (end.start() and ("", end[3]) not in self._open):
            return None
        return end

    def _begin(self, what: str, name: str, package: str = "") -> None:
        self._flush()
        self._panic = ""  # it was printed, and not the end
        key = (package, name)
        if what == "RUN" and name:
            self._current = self._open[key] = _Test(name, package)
            self._parents.update((package, parent) for parent in _parents(name))
        else:
            # PAUSE: what comes next is another's, which says so.
            self._current = None if what == "PAUSE" else self._open.get(key)

    def _close(self, name: str, package: str, outcome: Outcome, duration: float) -> None:
        """``name`` has ended; lines that are indented below its end are still its own."""
        self._flush()
        test = self._open.pop((package, name), None) or _Test(name, package)
        test.outcome, test.duration = outcome, duration
        self._ended = test
        self._current = None

    def _say(self, line: str) -> None:
        if self._ended is not None:
            if self._panic or line[:1] in (" ", "\t"):
                self._ended.say(line)
                return
            self._flush()
        if self._current is not None:
            self._current.say(line)

    def _flush(self) -> None:
        test, self._ended = self._ended, None
        if test is None or test.outcome is None:
            return
        text = "\n".join(test.lines)
        failed = test.outcome is Outcome.FAILED
        message = ""
        if failed or test.outcome is Outcome.SKIPPED:
            message = test.message or last_line(text)
        if failed and not message and (test.package, test.name) in self._parents:
            message = "a test below it failed"
        self._rows.add(test.id, test.outcome, message, text if failed else "", test.duration)

    def _take(self, event: dict[str, Any]) -> None:
        """An event of test2json."""
        package = _string(event, "Package")
        name = _string(event, "Test")
        action = event["Action"]
        if not name:
            self._take_package(package, action, _string(event, "Output").rstrip("\n"))
        elif action == "run":
            self._begin("RUN", name, package)
        elif action in ("pause", "cont"):
            self._begin(action.upper(), name, package)
        elif action == "output":
            self._output(name, package, _string(event, "Output").rstrip("\n"))
        elif action in ("pass", "fail", "skip", "bench"):
            self._close(name, package, _OUTCOMES[action.upper()], seconds(event.get("Elapsed")))
            self._flush()

    def _output(self, name: str, package: str, line: str) -> None:
        test = self._open.get((package, name))
        if test is None or _BEGIN.match(line) or _END.fullmatch(line):
            return
        self._current = test
        end = _END.search(line)
        if end is not None and end[3] == name:
            # Behind a text without a line break: test2json sends no event for this end.
            test.say(line[: end.start()])
            self._close(name, package, _OUTCOMES[end[2]], float(end[4]))
            return
        if _PANIC.match(line) and not test.message:
            test.message = line
        test.say(line)

    def _take_package(self, package: str, action: str, output: str) -> None:
        said = self._packages.setdefault(package, _Test(package))
        if action == "output":
            said.say(output)
        elif action == "fail":
            of = [test for test in self._open.values() if test.package == package]
            mine = [t for t in self.done if t.test.startswith(f"{package}::") and t.outcome.bad]
            if not of and not mine:
                text = "\n".join(line for line in said.lines if line != "FAIL")
                message = next((line for line in said.lines if _PANIC.match(line)), "")
                self._rows.add(package, Outcome.ERROR, message or last_line(text), text)


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _event(line: str) -> dict[str, Any] | None:
    """The event that ``line`` is, None for any other text that begins with a brace."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(event, dict) and isinstance(event.get("Action"), str)
    return event if known else None


def _string(event: dict[str, Any], key: str) -> str:
    value = event.get(key)
    return value if isinstance(value, str) else ""
