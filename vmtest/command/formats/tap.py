"""The Test Anything Protocol, versions 12 to 14, subtests included.

Source: testanything.org, "TAP 14 specification", which 12 and 13 are read by as well.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from vmtest.command.formats.rows import Rows, last_line
from vmtest.model.kernels import Outcome, TestResult

_INDENT = 4
_MOST = 1000  # tests that a plan names and that did not come
_LONGEST_WHY = 300
_NOISE = 100  # lines before a test point that are shown with it
_VERSION = re.compile(r"^K?TAP version \d+$")
_PLAN = re.compile(r"^(\d{1,9})\.\.(\d{1,9})\s*(?:#\s*(?:skip\S*\s*)?(.*))?$", re.IGNORECASE)
_POINT = re.compile(r"^(not )?ok(?:\s+(\d{1,9}))?(?=\s|$)(.*)$")
_BAIL = re.compile(r"^\s*bail out!\s*(.*)$", re.IGNORECASE)
_SUBTEST = re.compile(r"^# Subtest(?::\s*(.*))?$")
_HASH = re.compile(r"(?:^|(?<=[\s\0]))#\s*")
_DIRECTIVE = re.compile(r"^(SKIP|TODO)\S*(?:\s+(.*))?$", re.IGNORECASE)
# Not SKIP nor TODO, and not the same on every kernel: kselftest's "# exit=1", node's "# time=5ms".
_ASIDE = re.compile(r"^(?:\w+=|TIMEOUT\b).*$")
_TIME = re.compile(r"^time=(\d{1,9}(?:\.\d+)?)ms$")
_DURATION = re.compile(r"^\s*duration_ms:\s*(\d{1,9}(?:\.\d+)?)\s*$")
_MESSAGE = re.compile(r"^\s*message:\s*(.+)$")


@dataclass(slots=True)
class _Row:
    """A test below the document that it stands in."""

    name: str
    outcome: Outcome
    message: str = ""
    details: str = ""
    duration: float = 0.0


@dataclass(slots=True)
class _Point:
    """A test point; what belongs to it may still come (YAML, diagnostics)."""

    name: str
    ok: bool
    directive: str = ""
    reason: str = ""
    duration: float = 0.0
    before: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    children: list[_Row] = field(default_factory=list)

    def row(self) -> _Row:
        text = "\n".join([*self.before, *self.lines])
        if self.directive == "SKIP":
            return _Row(self.name, Outcome.SKIPPED, self.reason, "", self.duration)
        if self.ok:
            # A TODO that passes is no failure; the specification leaves it to the reader.
            todo = "passed, though TODO" if self.directive else ""
            message = ": ".join(part for part in (todo, self.reason) if part)
            return _Row(self.name, Outcome.PASSED, message, "", self.duration)
        if self.directive == "TODO":
            return _Row(self.name, Outcome.XFAILED, self.reason, text, self.duration)
        return _Row(self.name, Outcome.FAILED, self.reason or self._why(), text, self.duration)

    def _why(self) -> str:
        """One line: the YAML block's message, else all diagnostics, else the last output."""
        for line in self.lines:
            if match := _MESSAGE.match(line):
                return match[1].strip("'\"")
        said = (line.strip(" #") for line in self.lines if line.lstrip().startswith("#"))
        return " ".join(said)[:_LONGEST_WHY] or last_line("\n".join(self.before)).strip("# ")


@dataclass(slots=True)
class _Document:
    """A stream of test points: the whole, or a subtest."""

    name: str = ""
    plan: tuple[int, int] | None = None
    why_none: str = ""
    problem: str = ""
    seen: set[int] = field(default_factory=set)
    last: int = 0
    rows: list[_Row] = field(default_factory=list)

    def planned(self, first: int, last: int, reason: str) -> None:
        if self.plan is not None and self.plan != (first, last):
            self.problem = self.problem or f"a second plan: {first}..{last}"
            return
        self.plan, self.why_none = (first, last), reason

    def number(self, given: str | None) -> int:
        self.last = int(given) if given else self.last + 1
        self.seen.add(self.last)
        return self.last

    def missing(self) -> list[int]:
        """The planned tests that did not come."""
        if self.plan is None:
            return []
        first, last = self.plan
        return [n for n in range(first, min(last, first + _MOST) + 1) if n not in self.seen]

    def complaint(self, required: bool) -> str:
        """What is wrong with the plan, "" when it was kept (missing tests have rows)."""
        if self.problem:
            return self.problem
        if self.plan is None:
            return "there is no plan (1..N)" if required and self.seen else ""
        first, last = self.plan
        extra = sorted(n for n in self.seen if not first <= n <= last)
        if extra:
            numbers = ", ".join(map(str, extra[:5])) + (", ..." if len(extra) > 5 else "")
            return f"the plan was {first}..{last}, and there were tests {numbers}"
        return ""


class Tap:
    """See ``vmtest.command.formats.format.Reader``; ``suite`` is what the rows belong to.

    A test of a subtest is ``SUBTEST/TEST``.  The tests of a subtest are known
    when it has ended, because its own test point says whether they count (TODO).
    """

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self._rows = Rows(suite)
        self._open = [_Document()]
        self._announced: str | None = None
        self._point: _Point | None = None
        self._yaml: int | None = None
        self._noise: deque[str] = deque(maxlen=_NOISE)
        self._bailed: str | None = None

    @property
    def done(self) -> Sequence[TestResult]:
        """The tests that have ended."""
        return self._rows.done

    @property
    def running(self) -> str | None:
        """The subtest that runs, or the next number of the plan."""
        names = [document.name for document in self._open[1:]]
        if self._announced:
            names.append(self._announced)
        if any(names):
            return "/".join(name or "?" for name in names)
        top = self._open[0]
        if top.plan is None or top.last >= top.plan[1] or self._bailed is not None:
            return None
        return f"test {top.last + 1}"

    @property
    def expected(self) -> int | None:
        """The plan, once it has been seen in front."""
        plan = self._open[0].plan
        return None if plan is None else plan[1] - plan[0] + 1

    def feed(self, line: str, error: bool = False) -> None:
        """Take a line; of standard error only what may explain a failure."""
        line = line.rstrip()
        if self._bailed is not None:
            return
        if error:
            self._explain(line)
            return
        if self._yaml is not None and self._in_yaml(line):
            return
        bail = _BAIL.match(line)
        if bail:
            self._bailed = _unescaped(bail[1]) or "no reason given"
            return
        text = line.lstrip(" ")
        depth, odd = divmod(len(line) - len(text), _INDENT)
        if text == "---" and line != text and self._point is not None:
            self._yaml = len(line) - len(text)
        elif odd or not self._protocol(depth, text):
            self._explain(line)

    def _in_yaml(self, line: str) -> bool:
        """Take a line of a YAML block; False for one that stands outside of it."""
        indent = len(line) - len(line.lstrip(" "))
        if line and indent < (self._yaml or 0):
            self._yaml = None
            return False
        if line.strip() == "..." and indent == self._yaml:
            self._yaml = None
            return True
        assert self._point is not None
        self._point.lines.append(line[self._yaml :])
        if duration := _DURATION.match(line):
            self._point.duration = float(duration[1]) / 1000
        return True

    def _explain(self, line: str) -> None:
        """A line that is no test: a diagnostic of the test before, or output of the next."""
        if not line:
            return
        diagnostic = line.lstrip().startswith("#")
        if diagnostic and self._point is not None and not self._point.ok:
            self._point.lines.append(line)
        else:
            self._noise.append(line)

    def _protocol(self, depth: int, text: str) -> bool:
        """Take a line of the protocol; False for any other."""
        if _VERSION.match(text) or text.startswith(("pragma +", "pragma -")):
            return True
        if subtest := _SUBTEST.match(text):
            self._flush()
            self._announced = subtest[1] or ""
            return True
        if plan := _PLAN.match(text):
            self._flush()
            self._reach(depth)
            self._open[depth].planned(int(plan[1]), int(plan[2]), _unescaped(plan[3] or ""))
            return True
        if point := _POINT.match(text):
            self._flush()
            self._reach(depth)
            self._take_point(depth, point)
            return True
        return False

    def _reach(self, depth: int) -> None:
        """Open the documents down to ``depth``; the innermost has the announced name."""
        if depth < len(self._open):
            return
        while depth >= len(self._open):
            self._open.append(_Document())
        self._open[-1].name = self._announced or ""
        self._announced = None

    def _take_point(self, depth: int, match: re.Match[str]) -> None:
        children: list[_Row] = []
        while len(self._open) > depth + 1:  # the point ends the subtests below it
            ended = self._open.pop()
            rows = _closed(ended, children)
            children = rows if len(self._open) == depth + 1 else _below(ended.name or "?", rows)
        number = self._open[depth].number(match[2])
        point = _point(match[3], not match[1], number)
        todo = point.directive == "TODO" and not point.ok
        for row in children:
            if todo and row.outcome is Outcome.FAILED:
                row.outcome = Outcome.XFAILED
        point.children = _below(point.name, children)
        if not point.ok:
            point.before.extend(self._noise)
        self._noise.clear()
        self._announced = None
        self._point = point

    def _flush(self) -> None:
        """The last point is complete: what follows is not about it."""
        point, self._point = self._point, None
        self._yaml = None
        if point is not None:
            self._deliver([*point.children, point.row()])

    def _deliver(self, rows: list[_Row]) -> None:
        if len(self._open) > 1:
            self._open[-1].rows.extend(rows)
            return
        for row in rows:
            self._rows.add(row.name, row.outcome, row.message, row.details, row.duration)

    def end(self, died: str = "") -> None:
        """What the plan names and did not come is lost.

        When the command died, only the first of them ran; after a ``Bail out!``
        none did: the others were not run.
        """
        self._flush()
        running = self.running
        lost = bool(died)
        top = self._open[0]
        if len(self._open) > 1 or self._announced:
            why = died or self._bailed or "it did not end"
            rows: list[_Row] = []
            while len(self._open) > 1:
                ended = self._open.pop()
                rows = _below(ended.name or "?", _closed(ended, rows, died, lost))
                self._open[-1].number(None)  # its own test point would have come next
                lost = False
            if self._announced:
                top.number(None)
            self._deliver([*rows, _Row(running or "?", Outcome.LOST, why)])
            lost = False
        self._deliver(_missing(top, died, self._bailed is not None, lost))
        if self._bailed is not None:
            self._deliver([_Row("Bail out!", Outcome.ERROR, self._bailed, self._bailed)])
        elif complaint := top.complaint(required=not died):
            self._deliver([_Row("plan", Outcome.ERROR, complaint, complaint)])
        elif top.plan is not None and top.plan[1] < top.plan[0] and not self.done:
            self._deliver([_Row(self._suite, Outcome.SKIPPED, top.why_none)])


def _closed(
    document: _Document, children: list[_Row], died: str = "", lost: bool = False
) -> list[_Row]:
    """The rows of a subtest that has ended, and what is wrong with its plan."""
    rows = [*document.rows, *children, *_missing(document, died, False, lost)]
    if complaint := document.complaint(required=False):
        rows.append(_Row("plan", Outcome.ERROR, complaint, complaint))
    return rows


def _missing(document: _Document, died: str, bailed: bool, lost: bool) -> list[_Row]:
    """Rows of the planned tests that did not come; ``lost`` says that the first of them ran."""
    rows = []
    for n in document.missing():
        if lost or not (died or bailed):
            why = died or "planned, and it did not come"
            rows.append(_Row(f"test {n}", Outcome.LOST, why))
        else:
            rows.append(_Row(f"test {n}", Outcome.NOT_RUN))
        lost = False
    return rows


def _below(name: str, rows: list[_Row]) -> list[_Row]:
    for row in rows:
        row.name = f"{name}/{row.name}"
    return rows


def _point(text: str, ok: bool, number: int) -> _Point:
    """The test point whose words after the number are ``text``."""
    text = text.strip().replace("\\\\", "\0").replace("\\#", "\1")
    text = re.sub(r"^-\s*", "", text)
    point = _Point("", ok)
    mark = _HASH.search(text)
    if mark is not None:
        rest = text[mark.end() :]
        if directive := _DIRECTIVE.match(rest):
            point.directive = directive[1].upper()
            point.reason = _restored(directive[2] or "").strip()
        elif time := _TIME.match(rest):
            point.duration = float(time[1]) / 1000
        elif _ASIDE.match(rest):
            point.reason = _restored(rest)
        else:
            mark = None
    name = text if mark is None else text[: mark.start()]
    point.name = _restored(name).strip() or f"test {number}"
    return point


def _restored(text: str) -> str:
    return text.replace("\1", "#").replace("\0", "\\")


def _unescaped(text: str) -> str:
    return _restored(text.replace("\\\\", "\0").replace("\\#", "\1")).strip()
