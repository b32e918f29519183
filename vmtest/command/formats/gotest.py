"""The output of ``go test -v`` and of a test binary, as text or as test2json's events.

Formats: ``go doc cmd/test2json``, and what package testing prints; the rules
are in docs/reference/formats.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vmtest.command.formats.golines import (
    BEGIN,
    BROKEN,
    BUILDING,
    NAMED,
    OUTCOMES,
    PACKAGE,
    PANIC,
    End,
    Package,
    Test,
    benchmark_of,
    build_error,
    end_of,
    event_of,
    is_mismatch,
    mismatch,
    parents,
    reason_of,
    string,
)
from vmtest.command.formats.rows import LONGEST, Rows, seconds
from vmtest.model.results import Outcome, TestResult

_NO_END = "the command ended while it ran"
_MOST_LINES = 1000


def _keep(lines: list[str], line: str) -> None:
    """Add a line of the compiler's; the first ones say what is wrong."""
    if len(lines) < _MOST_LINES:
        lines.append(line)
    elif len(lines) == _MOST_LINES:
        lines.append(f"[more came than these {_MOST_LINES} lines]")


class GoTest:
    """See ``vmtest.command.formats.format.Reader``; ``suite`` is what the rows belong to.

    In test2json's events a test has its package in front (``example.org/p::TestA``).
    """

    def __init__(self, suite: str) -> None:
        self._rows = Rows(suite)
        self._open: dict[tuple[str, str], Test] = {}
        self._parents: set[tuple[str, str]] = set()
        self._finished: dict[tuple[str, str], Outcome] = {}
        self._current: Test | None = None
        self._ended: Test | None = None
        self._panic = ""
        self._packages: dict[str, Package] = {}
        self._builds: dict[str, list[str]] = {}
        self._building: list[str] = []  # what the compiler says of the package that go builds
        self._partial: dict[tuple[str, str], str] = {}

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
        if not error and line.startswith("{") and (event := event_of(line)) is not None:
            self._building = []
            self._take(event)
        else:
            self._text(line.rstrip("\r"), error)

    def end(self, died: str = "") -> None:
        """Tests that still ran are lost."""
        self._flush()
        for key in list(self._partial):
            self._output_ends(key)
        for package in list(dict.fromkeys([*self._packages, *(p for p, _ in self._open)])):
            found = self._package(package)
            self._settle(package, died)
            if found.panic and found.panic not in found.bad:
                name = package or "panic"
                self._rows.add(name, Outcome.ERROR, found.panic, "\n".join(found.trace))

    def _package(self, name: str) -> Package:
        return self._packages.setdefault(name, Package())

    def _add(self, test: Test, outcome: Outcome, message: str, details: str) -> None:
        self._finished[test.package, test.name] = outcome
        if outcome.bad or outcome is Outcome.LOST:
            self._package(test.package).bad.add(message)
        self._rows.add(test.id, outcome, message, details, test.duration)

    def _text(self, line: str, error: bool) -> None:
        """A line that package testing or a test printed."""
        self._package("").hear(line)
        if building := BUILDING.match(line):
            self._building = self._builds.setdefault(building[1], [])
        else:
            _keep(self._building, line)
        if PANIC.match(line):
            self._panic = line
            if self._ended is not None and self._ended.outcome is Outcome.FAILED:
                self._ended.message = line
        if error:
            self._say(line)
        elif begin := BEGIN.match(line):
            self._begin(begin[1], begin[2])
        elif end := self._end_of_test(line):
            before = self._ended
            same = before is not None and (before.name, before.outcome) == (end.name, end.outcome)
            if same and line[:1] == " ":
                return  # an input of a fuzz test has the name of the test
            if end.before:
                self._say(end.before)
            self._close(end.name, "", end.outcome, end.duration, end.benchmark)
        elif broken := BROKEN.match(line):
            self._flush()
            said = self._package("").said
            self._rows.add(broken[1], Outcome.ERROR, build_error(said) or line, "\n".join(said))
            self._packages.pop("")
        elif package := PACKAGE.match(line):
            self._package_ended(package[2], package[1] == "FAIL")
        elif name := benchmark_of(line):
            self._close(name, "", Outcome.PASSED, 0.0)
        elif NAMED.match(line) and not self._open:
            self._flush()
            self._current = Test(line)
        else:
            self._say(line)

    def _end_of_test(self, line: str) -> End | None:
        """A test's end: on a line of its own, or behind what it printed without a line break."""
        end = end_of(line)
        if end is None or (end.before and ("", end.name) not in self._open):
            return None
        return end

    def _package_ended(self, name: str, failed: bool) -> None:
        """``ok`` or ``FAIL`` and a package, behind its tests in text."""
        self._flush()
        self._settle("", "")
        found = self._packages.pop("", Package())
        if failed and (found.panic not in found.bad if found.panic else not found.bad):
            text = "\n".join([*found.said, *found.trace])
            self._rows.add(name, Outcome.ERROR, found.explanation(), text)

    def _begin(self, what: str, name: str, package: str = "") -> None:
        self._flush()
        self._panic = ""  # it was printed, and not the end
        key = (package, name)
        if what in ("RUN", "FUZZ") and name:
            if key in self._open and not self._settle_one(key):
                self._lose(key, "it did not end before it began again")
            self._current = self._open[key] = Test(name, package)
            self._finished.pop(key, None)
            self._package(package).told.pop(name, None)
            self._parents.update((package, parent) for parent in parents(name))
        else:
            # PAUSE: what comes next is another's, which says so.
            self._current = None if what == "PAUSE" else self._open.get(key)

    def _close(
        self, name: str, package: str, outcome: Outcome, duration: float, again: bool = False
    ) -> None:
        """``name`` has ended; lines that are indented below its end are still its own.

        ``again`` says that its end may have been told already (a benchmark's).
        """
        self._flush()
        key = (package, name)
        if again and key not in self._open and key in self._finished:
            return
        named = self._current  # a benchmark that said only its name
        if named is None or (named.package, named.name) != key:
            named = Test(name, package)
        test = self._open.pop(key, None) or named
        test.outcome, test.duration = outcome, duration
        self._ended = test
        self._current = None

    def _say(self, line: str) -> None:
        if self._ended is not None:
            if self._panic or line[:1] in (" ", "\t") or is_mismatch(self._ended, line):
                self._ended.say(line)
                return
            self._flush()
        if self._current is not None:
            self._current.say(line)
        else:
            self._package("").say(line)

    def _flush(self) -> None:
        test, self._ended = self._ended, None
        if test is None or test.outcome is None:
            return
        text = "\n".join(test.lines)
        failed = test.outcome is Outcome.FAILED
        message = ""
        if failed or test.outcome is Outcome.SKIPPED:
            message = test.message or mismatch(test) or reason_of(test.lines)
        if failed and not message and (test.package, test.name) in self._parents:
            message = "a test below it failed"
        self._add(test, test.outcome, message, text if failed else "")

    def _take(self, event: dict[str, Any]) -> None:
        """An event of test2json."""
        package, name = string(event, "Package"), string(event, "Test")
        action, output = event["Action"], string(event, "Output")
        key = (package, name)
        if action == "output":
            self._output(key, output)
        elif action == "build-output":
            _keep(self._builds.setdefault(string(event, "ImportPath"), []), output.rstrip("\n"))
        elif not name:
            if action in ("pass", "fail", "skip"):
                self._output_ends(key)
                self._take_package(package, action == "fail", string(event, "FailedBuild"))
        elif action == "run":
            self._begin("RUN", name, package)
        elif action in ("pause", "cont"):
            self._begin(action.upper(), name, package)
        elif action in ("pass", "fail", "skip", "bench"):
            self._output_ends(key)
            self._end_event(key, OUTCOMES[action.upper()], seconds(event.get("Elapsed")))

    def _end_event(self, key: tuple[str, str], outcome: Outcome, duration: float) -> None:
        package, name = key
        test, found = self._open.get(key), self._package(package)
        silent = outcome is Outcome.PASSED and name not in found.told
        if silent and test is not None and test.panicked:
            # Go says of a test that it passed when another goroutine ended the process under it.
            test.duration = duration
            found.suspect.append(self._open.pop(key))
            return
        self._close(name, package, outcome, duration, again=outcome is Outcome.PASSED)
        self._flush()

    def _output(self, key: tuple[str, str], output: str) -> None:
        """Output comes in pieces that need not end with a line."""
        *lines, rest = (self._partial.pop(key, "") + output).split("\n")
        for line in lines:
            self._output_line(key, line)
        if len(rest) > LONGEST:
            self._output_line(key, rest)
        elif rest:
            self._partial[key] = rest

    def _output_ends(self, key: tuple[str, str]) -> None:
        if rest := self._partial.pop(key, ""):
            self._output_line(key, rest)

    def _output_line(self, key: tuple[str, str], line: str) -> None:
        package, name = key
        found = self._package(package)
        panicked = found.hear(line)
        test = self._open.get(key)
        if not name:
            # Go 1.19 tells of benchmarks so, and of fuzz tests that look for inputs.
            if (begun := BEGIN.match(line)) and begun[1] == "FUZZ":
                self._begin(begun[1], begun[2], package)
            elif bench := benchmark_of(line):
                self._benchmark(package, bench)
            found.say(line)
            return
        if BEGIN.match(line):
            return
        if end := end_of(line):
            # No event may follow: test2json overlooks an end behind a text without a line break.
            found.told[end.name] = end
            line = end.before
        elif bench := benchmark_of(line):
            self._benchmark(package, bench)
        if test is None or (end and not line):
            return
        self._current = test
        if PANIC.match(line) and not test.message:
            test.message = line
        test.panicked = test.panicked or (panicked and test.message == found.panic)
        test.say(line)

    def _benchmark(self, package: str, name: str) -> None:
        """A result, which no event follows; a benchmark that began ends with its package."""
        if (package, name) in self._open:
            self._package(package).told[name] = End(name, Outcome.PASSED, 0.0, "", True)
        elif (package, name) not in self._finished:
            self._add(Test(name, package), Outcome.PASSED, "", "")

    def _settle_one(self, key: tuple[str, str]) -> bool:
        """End a test of which no end came, by what else was said; False where nothing was."""
        package, name = key
        test = self._open.get(key)
        if test is None:
            return False
        end = self._package(package).told.pop(name, None)
        above = [self._finished.get((package, parent)) for parent in parents(name)]
        if end is not None:
            test.outcome, test.duration = end.outcome, end.duration
        elif Outcome.PASSED in above or Outcome.SKIPPED in above:
            test.outcome = Outcome.PASSED  # a test whose subtest failed has failed itself
        else:
            return False
        self._ended = self._open.pop(key)
        self._flush()
        return True

    def _lose(self, key: tuple[str, str], why: str) -> None:
        test = self._open.pop(key)
        self._add(test, Outcome.LOST, why, "\n".join(test.lines))

    def _settle(self, package: str, died: str) -> None:
        """Nothing more comes of ``package``: end its tests that have not ended."""
        found = self._package(package)
        for test in found.suspect:
            text = "\n".join(test.lines)
            self._add(test, Outcome.FAILED, test.message, text)
        if found.suspect:
            found.bad.discard(found.panic)  # the package's row has it too: it is go that failed
        found.suspect = []
        why = died or found.panic or (self._panic if not package else "") or _NO_END
        for key in [key for key in self._open if key[0] == package]:
            if not self._settle_one(key):
                end = found.process_end(self._open[key]) if why == _NO_END else ""
                self._lose(key, f"the test binary ended while it ran: {end}" if end else why)

    def _take_package(self, package: str, failed: bool, build: str) -> None:
        """A package has ended."""
        self._flush()
        found = self._package(package)
        if not failed:
            for test in found.suspect:  # it printed a trace, and the process lived
                self._add(test, Outcome.PASSED, "", "")
            found.suspect = []
        self._settle(package, "")
        self._packages.pop(package, None)
        if not failed:
            return
        lines = self._builds.get(build) or (self._builds.get(package) if found.unbuilt else None)
        if lines:
            self._rows.add(package, Outcome.ERROR, build_error(lines), "\n".join(lines))
        elif found.panic not in found.bad if found.panic else not found.bad:
            text = "\n".join([*found.said, *found.trace])
            self._rows.add(package, Outcome.ERROR, found.explanation(), text)
