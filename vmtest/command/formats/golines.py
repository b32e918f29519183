"""What package testing and ``go test`` print, line by line (pure)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from vmtest.command.formats.rows import LONGEST
from vmtest.model.results import Outcome
from vmtest.model.text import last_line

# \x16 marks the lines of -test.v=test2json, so that no test's output is mistaken for one.
BEGIN = re.compile(r"^\x16?=== (RUN|FUZZ|PAUSE|CONT|NAME)\s*(\S*)\s*$")
BROKEN = re.compile(r"^FAIL\s+(\S+) \[(?:build|setup) failed\]$")
PACKAGE = re.compile(r"^(ok  |FAIL)\t(\S+)\t(?:\(cached\)|\d[\d.]*s)")
PANIC = re.compile(r"^(panic: |fatal error: |SIG[A-Z]+: )")
TRACE = re.compile(r"^goroutine \d+ .*\[.*\]:$")
_END = re.compile(r"^--- (PASS|FAIL|SKIP|BENCH): (\S+)(?: \((\d{1,9}(?:\.\d+)?) ?s(?:econds)?\))?$")
# The number of rounds, and metrics of any unit: ReportMetric() may take ns/op away.
_BENCHMARK = re.compile(
    r"^(Benchmark\S*?)(?:-\d+)?(?:\s*\t *\d+ *(?:\t.*)?$|\s+\d+\s+\d[\d.]* ns/op)"
)
NAMED = re.compile(r"^Benchmark\S*$")
"""What ``-v`` says in front of a benchmark."""
BUILDING = re.compile(r"^# (\S+)(?: \[\S+\])?$")
"""What stands above the compiler's words on a package."""
_UNBUILT = re.compile(r"^FAIL\s+\S+ \[(?:build|setup) failed\]$")
_PROCESS_END = re.compile(r"^(?:signal: \w.*|exit status \d+)$")
_MARK = re.compile(r"^\x16?=== [A-Z]+\s")  # also ATTR and ARTIFACTS of Go 1.25
_LOGGED = re.compile(r"^(\s+)\S+\.go:\d+: ")
_LONGEST_WHY = 300
_FUZZED = re.compile(r"^\s+Failing input written to ")
_TESTIFY = re.compile(r"^\s*\t(?P<key>Error Trace|Error|Messages|Test): *\t(?P<text>.*)$")
_TESTIFY_MORE = re.compile(r"^\s*\t +\t(?P<text>.*)$")
_LONGEST_TRACE = 1000  # characters of a trace's first line
_SAYS_NOTHING = re.compile(r"^(?:FAIL|PASS|FAIL\t.*|ok  \t.*|exit status \d+|coverage: .*)?$")
_MISMATCH = re.compile(r"(?:^|\n)got:\n(.*?)\nwant:(?:\n(.*))?$", re.DOTALL)
_COMPILER = re.compile(r"^\S+:\d+(?::\d+)?: .")

OUTCOMES = {
    "PASS": Outcome.PASSED,
    "FAIL": Outcome.FAILED,
    "SKIP": Outcome.SKIPPED,
    "BENCH": Outcome.PASSED,
}


@dataclass(frozen=True, slots=True)
class End:
    """``--- PASS: NAME (0.01s)``, and the text of its line in front of it."""

    name: str
    outcome: Outcome
    duration: float
    before: str
    benchmark: bool


def end_of(line: str) -> End | None:
    """The end that ``line`` tells, also behind what a test printed without a line break."""
    start = line.rfind("--- ")
    found = _END.match(line[start:]) if start >= 0 else None
    if found is None or not (found[3] or found[2].startswith("Benchmark")):
        return None
    name, benchmark = found[2], found[1] == "BENCH"
    if benchmark:
        name = re.sub(r"-\d+$", "", name)
    before = line[:start].rstrip(" ").removesuffix("\x16")
    return End(name, OUTCOMES[found[1]], float(found[3] or 0), before, benchmark)


def benchmark_of(line: str) -> str:
    """The benchmark whose result ``line`` is, "" for any other."""
    found = _BENCHMARK.match(line)
    return found[1] if found else ""


def parents(name: str) -> list[str]:
    """``a`` and ``a/b`` of ``a/b/c``."""
    parts = name.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def event_of(line: str) -> dict[str, Any] | None:
    """The event that ``line`` is, None for any other text that begins with a brace."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(event, dict) and isinstance(event.get("Action"), str)
    return event if known else None


def string(event: dict[str, Any], key: str) -> str:
    """A member of ``event``, "" where it has none or it is not text."""
    value = event.get(key)
    return value if isinstance(value, str) else ""


@dataclass(slots=True)
class Test:
    """A test that runs, or has ended and may still have lines of its own to come.

    ``panicked`` says that a panic and its trace are among them.
    """

    name: str
    package: str = ""
    lines: list[str] = field(default_factory=list)
    size: int = 0
    outcome: Outcome | None = None
    duration: float = 0.0
    message: str = ""
    panicked: bool = False

    @property
    def id(self) -> str:
        """The name of its row."""
        return f"{self.package}::{self.name}" if self.package else self.name

    def say(self, line: str) -> None:
        """Add a line; the first ones go when there are too many."""
        self.lines.append(line)
        self.size += len(line) + 1
        while self.size > LONGEST and len(self.lines) > 1:
            self.size -= len(self.lines.pop(0)) + 1


def reason_of(lines: Sequence[str]) -> str:
    """Why a test failed or was skipped: the last thing that it said itself, "" for none."""
    own = [line for line in lines if not _MARK.match(line)]
    fuzzed = next((n for n, line in enumerate(own) if _FUZZED.match(line)), len(own))
    return _asserted(own) or _reported(own[:fuzzed]) or last_line("\n".join(own[:fuzzed]))


def _reported(lines: Sequence[str]) -> str:
    """What t.Error() said last, if several lines of it end the output; "" for other ends."""
    end = len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    for start in range(end - 1, -1, -1):
        if begun := _LOGGED.match(lines[start]):
            block = lines[start:end]
            deeper = f"{begun[1]}    "
            if all(line.startswith(deeper) or not line.strip() for line in block[1:]):
                block = [*takewhile(lambda line: not TRACE.match(line.strip()), block)]
                return " ".join(" ".join(block).split())[:_LONGEST_WHY]
            break
    return ""


def _asserted(lines: Sequence[str]) -> str:
    """What the last failed assertion of testify says, "" where there is none."""
    found: dict[str, list[str]] = {}
    into: list[str] = []
    for line in lines:
        if match := _TESTIFY.match(line):
            if match["key"] == "Error Trace":
                found = {}
            into = found.setdefault(match["key"], [])
            into.append(match["text"])
        elif more := _TESTIFY_MORE.match(line):
            into.append(more["text"])
        else:
            into = []
    error = " ".join(" ".join(found.get("Error", ())).partition("Diff:")[0].split())
    messages = " ".join(" ".join(found.get("Messages", ())).split())
    return f"{error} ({messages})" if error and messages else error


def is_mismatch(test: Test, line: str) -> bool:
    """Whether ``line`` says what an example printed: not indented, behind the example's end."""
    if test.outcome is not Outcome.FAILED or not test.name.startswith("Example"):
        return False
    ends = bool(line and _SAYS_NOTHING.match(line))
    return line == "got:" or ("got:" in test.lines and not ends)


def mismatch(test: Test) -> str:
    """What an example printed and should have printed, "" for other tests."""
    found = _MISMATCH.search("\n".join(test.lines)) if test.name.startswith("Example") else None
    return f"got {found[1].strip()!r}, want {(found[2] or '').strip()!r}" if found else ""


@dataclass(slots=True)
class Package:
    """What is known of a package while its tests run.

    ``told`` has the ends that stand in the output of any test, ``bad`` the
    messages of its failures, ``panic`` the first line of a panic and ``trace``
    all of it from there on; ``suspect`` the tests that are said to have passed
    and in whose output it stands.
    """

    said: list[str] = field(default_factory=list)
    told: dict[str, End] = field(default_factory=dict)
    bad: set[str] = field(default_factory=set)
    panic: str = ""
    trace: list[str] = field(default_factory=list)
    suspect: list[Test] = field(default_factory=list)
    _line: str = ""

    def hear(self, line: str) -> bool:
        """Take a line of any test's; True once it is sure that a panic ended the process."""
        if self.panic:
            if len(self.trace) < 1000:
                self.trace.append(line)
        elif PANIC.match(line):
            self._line, self.trace = line, [line]
        elif self._line:
            self.trace.append(line)
            if len(line) < _LONGEST_TRACE and TRACE.match(
                line
            ):  # without one, a test may have printed it
                self.panic = self._line
            elif len(self.trace) > 200:
                self._line, self.trace = "", []
        return bool(self.panic)

    def say(self, line: str) -> None:
        """Add a line that belongs to no test."""
        if len(self.said) < 1000:
            self.said.append(line)

    def process_end(self, test: Test) -> str:
        """How the process ended, by the last words of ``test`` or of the package; "" for none."""
        words = [*test.lines[-3:], *self.said[-3:]]
        return next((line for line in reversed(words) if _PROCESS_END.match(line)), "")

    @property
    def unbuilt(self) -> bool:
        """Whether go said that it could not build it."""
        return any(map(_UNBUILT.match, self.said))

    def explanation(self) -> str:
        """Why a package failed whose tests did not: a panic, the compiler, or what it said last."""
        if self.panic or self._line:  # without a trace too (GOTRACEBACK=none)
            return self.panic or self._line
        telling = [line.strip() for line in self.said if not _SAYS_NOTHING.match(line)]
        compiler = (line for line in telling if _COMPILER.match(line))
        return (
            next(compiler, "") or next(reversed(telling), "") or "it failed, and no test of it did"
        )


def build_error(lines: Sequence[str]) -> str:
    """What the compiler said first."""
    telling = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return telling[0] if telling else ""
