"""The Test Anything Protocol, versions 12 to 14, and the kernel's, KTAP; subtests included.

Sources: testanything.org, "TAP 14 specification", which 12 and 13 are read by as well;
Documentation/dev-tools/ktap.rst of Linux.  docs/reference/formats.md has the rules.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from vmtest.command.formats.prove import Prove
from vmtest.command.formats.rows import Rows
from vmtest.command.formats.tappoint import Point, Row, below, unescaped
from vmtest.model.results import Outcome, TestResult

_INDENT = 4  # of TAP; KTAP has two in its text, four in KUnit, and says where a level begins
_MOST = 1000  # tests that a plan names and that did not come
_NOISE = 100  # lines before a test point that are shown with it
_DEEPEST = 50
_STAMP = r"(?:<\d+>)?(?:\[\s*\d+\.\d+\](?:\[\s*[TC]\d+\])? )?"
_STAMPED_VERSION = re.compile(rf"^({_STAMP})\s*K?TAP version \d+$")
_STAMPED = re.compile(rf"^{_STAMP}")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_VERSION = re.compile(r"^(K?)TAP version \d+$", re.IGNORECASE)
_PLAN = re.compile(r"^(\d{1,9})\.\.(\d{1,9})\s*(?:#\s*(?:skip\S*\s*)?(.*))?$", re.IGNORECASE)
_POINT = re.compile(r"^(not )?ok(?:\s+(\d{1,9}))?(?=\s|$)(.*)$")
_BAIL = re.compile(r"^\s*bail out!\s*(.*)$", re.IGNORECASE)
_SUBTEST = re.compile(r"^# Subtest(?::\s*(.*))?$")
_METADATA = re.compile(r"^#\s*:?ktap_(\w+):\s*(.*)$")  # KTAP 2
# Only programs of kselftest print these: their diagnostics come first, as KTAP's do.
_KSELFTEST = re.compile(
    r"^#\s*(?:selftests: \S|(?:timeout set|overriding timeout) to \d+$|RUN\s+\S+ \.\.\."
    r"|Starting \d+ tests? from \d+ test case|Totals: pass:\d+ fail:\d+ xfail:)"
)
_GLIB = re.compile(r"^# random seed: R02S[0-9a-f]+$")


@dataclass(slots=True)
class _Document:
    """A stream of test points: the whole, or a subtest.

    ``column`` is where its lines begin, ``announced`` the subtest that comes
    next in it, ``owner`` the test point that its braces follow.  ``untimed``
    says that not all of its names end in a time.
    """

    column: int = 0
    name: str = ""
    announced: str | None = None
    owner: Point | None = None
    untimed: bool = False
    plan: tuple[int, int] | None = None
    why_none: str = ""
    problem: str = ""
    seen: set[int] = field(default_factory=set)
    last: int = 0
    rows: list[Row] = field(default_factory=list)

    @property
    def title(self) -> str:
        return self.owner.name if self.owner is not None else self.name or "?"

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

    def compare_names(self, before: Point | None, point: Point) -> None:
        """See whether times at the end of names are part of them.

        A producer that adds times adds them to all, and gives no two tests one name.
        """
        same = before is not None and before.timed and before.timed == point.timed
        if same or not (point.timed or point.directive == "SKIP"):
            self.untimed = True


class Tap:
    """See ``vmtest.command.formats.format.Reader``; ``suite`` is what the rows belong to.

    A test of a subtest is ``SUBTEST/TEST``.  The tests of a subtest are known
    when it has ended, because its own test point says whether they count (TODO).
    """

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self._rows = Rows(suite)
        self._open = [_Document()]
        self._point: Point | None = None
        self._yaml: int | None = None
        self._in_block: list[str] = []
        self._noise: deque[str] = deque(maxlen=_NOISE)
        self._bailed: str | None = None
        self._ktap = False
        self._leads = False  # diagnostics come before their test
        self._stamped = False  # lines of the kernel's log
        self._versioned = False
        self._glib = False
        self._prove = Prove()
        self._earlier = 0  # tests that the plans of ended documents named

    @property
    def done(self) -> Sequence[TestResult]:
        """The tests that have ended."""
        return self._rows.done

    @property
    def running(self) -> str | None:
        """The subtest that runs, or the next number of the plan."""
        names = [document.title for document in self._open[1:]]
        if self._open[-1].announced:
            names.append(self._open[-1].announced)
        if names:
            return "/".join(names)
        top = self._open[0]
        if top.plan is None or top.last >= top.plan[1] or self._bailed is not None:
            return None
        return f"test {top.last + 1}"

    @property
    def expected(self) -> int | None:
        """The plan, once it has been seen in front."""
        plan = self._open[0].plan
        if plan is None:
            return self._earlier or None
        return self._earlier + max(0, plan[1] - plan[0] + 1)

    def feed(self, line: str, error: bool = False) -> None:
        """Take a line; of standard error only what may explain a failure."""
        line = _COLOUR.sub("", line).rstrip()
        if self._bailed is not None:
            return
        if stamped := _STAMPED_VERSION.match(line):
            self._stamped = self._stamped or bool(stamped[1])
        if self._stamped:
            line = _STAMPED.sub("", line)
        if error:
            self._explain(line)
            return
        top = self._open[0]
        begun = self._versioned or top.plan is not None or bool(top.seen) or len(self._open) > 1
        for one in self._prove.lines(line, begun):
            if self._yaml is None:
                self._line(one)
            else:
                self._yaml_line(one)

    def _yaml_line(self, line: str) -> None:
        """Take a line of a YAML block; a block that has no end was none, and hides no test."""
        column, text = _split(line)
        if not line or column > (self._yaml or 0) or (column == self._yaml and text != "..."):
            self._in_block.append(line)
            return
        if text == "..." and column == self._yaml:
            self._end_block()
            return
        self._yaml = None
        lines, self._in_block = self._in_block, []
        for held in lines:
            self._line(held, blocks=False)
        self._line(line)

    def _end_block(self) -> None:
        """The block, or as much of it as there is, belongs to the test point before it."""
        if self._point is not None and self._yaml is not None:
            self._point.take_yaml([line[self._yaml :] for line in self._in_block])
        self._yaml, self._in_block = None, []

    def _line(self, line: str, blocks: bool = True) -> None:
        """Take a line that stands outside of YAML; ``blocks`` says whether YAML may begin."""
        if bail := _BAIL.match(line):
            self._bailed = unescaped(bail[1]) or "no reason given"
            return
        column, text = _split(line)
        point = self._point
        if text == "---" and blocks and point is not None and column > point.column:
            self._yaml = column
        elif text in ("{", "}") and self._brace(column, text):
            return
        elif not self._take(column, text):
            self._explain(line)
        elif line.startswith("\t"):
            self._ktap = self._leads = True  # KUnit before Linux 5.11: it says TAP 14

    def _explain(self, line: str) -> None:
        """A line that is not a test: a diagnostic of the test before, or output of the next."""
        column, text = _split(line)
        if not text:
            return
        if _KSELFTEST.match(text):
            self._leads = True
        self._glib = self._glib or _GLIB.match(text) is not None
        if metadata := _METADATA.match(text):
            if metadata[1] == "test":
                self._entitle(column, metadata[2])
            return
        point = self._point
        after = point is not None and not (point.ok or point.explained or self._leads)
        if after and point is not None and (text.startswith("#") or column > point.column):
            point.say(line)
        else:
            self._noise.append(line)

    def _entitle(self, column: int, name: str) -> None:
        """KTAP 2 names a document in its head."""
        innermost = self._open[-1]
        if len(self._open) > 1 and innermost.column == column and not innermost.seen:
            innermost.name = innermost.name or name

    def _brace(self, column: int, text: str) -> bool:
        """Take a brace that stands alone; False when the protocol has none there."""
        point = self._point
        if text == "{":
            if point is not None and point.column == column:
                point.brace = True
                return True
            return False
        if point is not None and point.brace and point.column == column:
            point.brace = False  # nothing was in it
            return True
        for depth in range(len(self._open) - 1, 0, -1):
            owner = self._open[depth].owner
            if owner is not None and owner.column == column:
                self._flush()
                children = self._collapse(depth)
                owner.adopt(_closed(self._open.pop(), children))
                self._point = owner
                return True
        return False

    def _take(self, column: int, text: str) -> bool:
        """Take a line of the protocol; False for any other."""
        if text.startswith(("pragma +", "pragma -")):
            return True
        version, subtest = _VERSION.match(text), _SUBTEST.match(text)
        plan, match = _PLAN.match(text), _POINT.match(text)
        if not (version or subtest or plan or match):
            return False
        self._versioned = self._versioned or version is not None
        if version and version[1]:
            self._ktap = self._leads = True
        if not self._fits(column, bool(version)):
            return False
        point = None
        if match:
            ok = not match[1]
            point = Point(match[3], ok, 0, column, self._ktap, self._leads, self._glib)
            self._look_back(column, point)
        if self._point is not None and self._point.brace and column > self._point.column:
            owner, self._point = self._point, None
            owner.brace = False
            self._open.append(_Document(column, owner=owner))
        else:
            self._flush()
        if version:
            self._begin(column)
        elif subtest:
            self._announce(column, unescaped(subtest[1] or ""))
        elif plan:
            document = self._open[self._reach(column)]
            document.planned(int(plan[1]), int(plan[2]), unescaped(plan[3] or ""))
        elif match and point is not None:
            self._take_point(self._reach(column), match[2], point)
        return True

    def _fits(self, column: int, version: bool) -> bool:
        """Whether a document can have its lines at ``column``."""
        if any(document.column == column for document in self._open):
            return True
        if len(self._open) >= _DEEPEST or column > _DEEPEST * _INDENT:
            return False
        if self._ktap or version:
            return True
        if self._point is not None and self._point.brace and column > self._point.column:
            return True
        outer = max(d.column for d in self._open if d.column < column)
        return (column - outer) % _INDENT == 0

    def _look_back(self, column: int, point: Point) -> None:
        """See what the next test point says about the one before."""
        document = next((d for d in self._open if d.column == column), None)
        before = self._point
        if before is not None and before.column != column:
            before = None
        if document is not None:
            document.compare_names(before, point)
        if before is None or before.explained:
            return
        for n, line in enumerate(before.lines):
            if point.names(line):
                self._noise.extend(before.lines[n:])
                del before.lines[n:]
                return

    def _begin(self, column: int) -> None:
        """A version line begins a document, also where one stood already."""
        depth = self._reach(column)
        document = self._open[depth]
        if document.plan is None and not document.seen:
            return
        why = "it did not end before the next began"
        if depth:
            self._break_off(depth - 1, why)
            self._open.append(_Document(column))
            return
        self._break_off(0, why)
        if document.plan is not None:
            self._earlier += max(0, document.plan[1] - document.plan[0] + 1)
        self._finish("", False)
        self._open[0] = _Document()

    def _announce(self, column: int, name: str) -> None:
        """``# Subtest:`` stands before the subtest, or within it as its first line."""
        inside = column > self._open[-1].column
        outer = self._open[-1].announced
        document = self._open[self._reach(column)]
        fresh = len(self._open) > 1 and document is self._open[-1] and not document.seen
        if (inside and outer is None) or (fresh and not document.name and not document.owner):
            document.name = name
        else:
            document.announced = name

    def _reach(self, column: int) -> int:
        """The depth of the document at ``column``, which is opened when there is none."""
        for depth, document in enumerate(self._open):
            if document.column == column:
                return depth
            if document.column > column:
                self._open.insert(depth, _Document(column))
                return depth
        outer = self._open[-1]
        name, outer.announced = outer.announced, None
        if not self._ktap and (column - outer.column) % _INDENT == 0:
            for between in range(outer.column + _INDENT, column, _INDENT):
                self._open.append(_Document(between))
        self._open.append(_Document(column, name or ""))
        return len(self._open) - 1

    def _take_point(self, depth: int, number: str | None, point: Point) -> None:
        children = self._collapse(depth)
        document = self._open[depth]
        document.compare_names(None, point)
        point.number = document.number(number)
        point.name = point.name or f"test {point.number}"
        point.adopt(children)
        if not point.ok or point.directive:
            self._leads = self._leads or (self._versioned and self._led(point))
            point.leads = self._leads
            point.lead(self._noise)
        self._noise.clear()
        document.announced = None
        self._point = point

    def _led(self, point: Point) -> bool:
        """Whether diagnostics led to a failure without a dash, as programs of kselftest print it.

        Others that write no dash explain failures in YAML.
        """
        told = any(line.lstrip().startswith("#") for line in self._noise)
        return told and not (point.ok or point.text.lstrip().startswith("-"))

    def _collapse(self, depth: int) -> list[Row]:
        """Close the documents below ``depth``; the rows that the next test point has below it."""
        children: list[Row] = []
        while len(self._open) > depth + 1:
            ended = self._open.pop()
            children = _closed(ended, children)
            if ended.owner is not None:
                # No brace closed it: the one that seemed to open it belongs to a name.
                ended.owner.brace = True
                self._point = ended.owner
                self._flush()
            if len(self._open) > depth + 1:
                children = below(ended.name or "?", children)
        return children

    def _break_off(self, depth: int, why: str, died: str = "") -> None:
        """Close the documents below ``depth``, whose own test points do not come any more."""
        self._flush()
        lost = bool(died)
        while len(self._open) > depth + 1:
            ended = self._open.pop()
            if ended.announced is not None:
                ended.number(None)
                ended.rows.append(Row(ended.announced or "?", Outcome.LOST, why))
                lost = False
            rows = _closed(ended, [], died, lost)
            lost = False
            owner = ended.owner
            if owner is None:
                self._open[-1].number(None)  # its own test point would have come next
                name = ended.name or "?"
                self._deliver([*below(name, rows), Row(name, Outcome.LOST, why)])
                continue
            if not died and self._bailed is None:
                rows.append(Row("}", Outcome.ERROR, "the brace of its subtests is not closed"))
            owner.adopt(rows)
            self._deliver([*owner.children, owner.row()])

    def _flush(self) -> None:
        """The last point is complete: what follows is not about it."""
        point, self._point = self._point, None
        if point is None:
            return
        if point.brace:
            point.keep_brace()
        if point.timed and not self._open[-1].untimed:
            point.take_time()
        self._deliver([*point.children, point.row()])

    def _deliver(self, rows: list[Row]) -> None:
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
        self._end_block()
        if self._point is not None and died:
            self._point.brace = False  # its subtests would have come next
        self._flush()
        why = died or self._bailed or "it did not end"
        top = self._open[0]
        lost = bool(died) and len(self._open) == 1 and not top.announced
        self._break_off(0, why, died)
        if top.announced is not None:
            top.number(None)
            self._deliver([Row(top.announced or "?", Outcome.LOST, why)])
        self._finish(died, lost)
        if self._bailed is not None:
            self._deliver([Row("Bail out!", Outcome.ERROR, self._bailed, self._bailed)])

    def _finish(self, died: str, lost: bool) -> None:
        """The outermost document has ended: its tests that did not come, and its plan."""
        top = self._open[0]
        self._deliver(_missing(top, died, self._bailed is not None, lost))
        if self._bailed is not None:
            return
        if complaint := top.complaint(required=not died and not self._ktap):
            self._deliver([Row("plan", Outcome.ERROR, complaint, complaint)])
        elif top.plan is not None and top.plan[1] < top.plan[0] and not top.seen:
            self._deliver([Row(self._suite, Outcome.SKIPPED, top.why_none)])


def _split(line: str) -> tuple[int, str]:
    """The column where the text of ``line`` begins, and the text; a tab is a level of TAP."""
    text = line.lstrip(" \t")
    return len(line[: len(line) - len(text)].expandtabs(_INDENT)), text


def _closed(
    document: _Document, children: list[Row], died: str = "", lost: bool = False
) -> list[Row]:
    """The rows of a subtest that has ended, and what is wrong with its plan."""
    rows = [*document.rows, *children, *_missing(document, died, False, lost)]
    if complaint := document.complaint(required=False):
        rows.append(Row("plan", Outcome.ERROR, complaint, complaint))
    return rows


def _missing(document: _Document, died: str, bailed: bool, lost: bool) -> list[Row]:
    """Rows of the planned tests that did not come; ``lost`` says that the first of them ran."""
    rows = []
    for n in document.missing():
        if lost or not (died or bailed):
            why = died or "planned, and it did not come"
            rows.append(Row(f"test {n}", Outcome.LOST, why))
        else:
            rows.append(Row(f"test {n}", Outcome.NOT_RUN))
        lost = False
    return rows
