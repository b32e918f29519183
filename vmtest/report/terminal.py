"""The table, the failures and the summary for a terminal, drawn with rich.

Tables are laid out in the width given; lines of text are left whole, so that
paths can be copied and the log of a CI job can be searched.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.rule import Rule
from rich.table import Table as RichTable
from rich.text import Text

from vmtest.model.results import KernelResult, Matrix, Outcome, exit_status
from vmtest.model.text import one_line, printable
from vmtest.report import console as consoles
from vmtest.report import ids, loads, visited
from vmtest.report import table as tables
from vmtest.report.again import aside, command_of
from vmtest.report.assertions import LIMIT, middle
from vmtest.report.causes import Cause, causes, counts
from vmtest.report.loads import Rejection
from vmtest.report.table import Cell, Line, Table, Tone
from vmtest.report.text import counted, last_lines, shortened, wrapped
from vmtest.report.tracebacks import last_of_traceback
from vmtest.report.variants import Parametrized
from vmtest.report.written import written

STYLE = {
    Tone.GOOD: "green",
    Tone.BAD: "bold red",
    Tone.WARN: "yellow",
    Tone.QUIET: "dim",
    Tone.PLAIN: "",
}
"""How rich draws a tone."""
_RELEASE_WIDTH = 14
_NARROWEST_NAME = 18
_UNLIMITED = 100_000
_IN_FULL = 20  # rejections with all their text; the others get a line each
_CONSOLE = 12  # a boot failure fits into 15 lines; the log has all
_SPLATS = 5
_SPLAT_LINES = 12
_NAMES = 30
_COLUMNS = 240
_CAUSES = 40
_CHANGES = 60


@dataclass(frozen=True, slots=True)
class _Room:
    """How many lines there are: for details, output and tests of one cause, and so on.

    ``sections`` are the lines of all causes together, ``rows`` those of the table's tests,
    ``unreached`` the names of tests that did not run for one reason, ``columns`` the characters of
    a line of details.
    """

    details: int
    output: int
    tests: int
    sections: int
    rows: int
    excuses: int
    unreached: int
    columns: int = _COLUMNS


_ROOMY = _Room(40, 40, tests=12, sections=_UNLIMITED, rows=60, excuses=30, unreached=12)
_TIGHT = _Room(8, 4, tests=3, sections=36, rows=12, excuses=6, unreached=4)
_WHOLE = _Room(*[_UNLIMITED] * 8)
_LINES = 5  # of the source, those that the verifier read most often
_READ, _KNOWN = 100_000, 100  # characters of a message, and by how many it is known
_MANY = 6  # causes from which on there is less room for each


class Amount(StrEnum):
    """How much is told: causes and summary, what fits a screen or three, or everything."""

    LITTLE = "little"
    NORMAL = "normal"
    WHOLE = "whole"


Where = Callable[[str], str]
"""Says how a file of the run's folder is called where the user stands; "" for one not there."""


@dataclass(frozen=True, slots=True)
class _Words:
    """How files are called here (``where``), and what the changes are ``compared`` with."""

    where: Where
    compared: str


def render(
    matrix: Matrix,
    *,
    width: int = 120,
    color: bool = False,
    amount: Amount = Amount.NORMAL,
    where: Where = str,
    compared: str = "the baseline",
) -> str:
    """The report in ``width`` columns; with ANSI colours only if ``color``.

    ``compared`` is what the costs and verdicts were compared with.
    """
    file = io.StringIO()
    console = Console(
        file=file,
        width=max(width, 40),
        color_system="standard" if color else None,
        force_terminal=color,
        no_color=not color,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
        _environ={},
    )
    for block in _report(ids.in_project(matrix), console, amount, _Words(where, compared)):
        console.print(block, soft_wrap=isinstance(block, Text))
    return _tidy(file.getvalue())


def _tidy(text: str) -> str:
    """Without blanks at the ends of lines, without blank lines in front or two in a row."""
    lines: list[str] = []
    for line in map(str.rstrip, text.split("\n")):
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines)


def _report(
    matrix: Matrix, console: Console, amount: Amount, words: _Words
) -> Iterable[RenderableType]:
    found = causes(matrix)
    room = _TIGHT if sum(bool(cause.tests) for cause in found) >= _MANY else _ROOMY
    if amount is not Amount.LITTLE:
        tight = _WHOLE if amount is Amount.WHOLE else room
        yield from _body(matrix, found, console, tight, words)
    yield from _causes([cause for cause in found if cause.decides], matrix, console.width)
    yield _summary(matrix)


def _body(
    matrix: Matrix, found: Sequence[Cause], console: Console, room: _Room, words: _Words
) -> Iterable[RenderableType]:
    """Everything above the causes."""
    tested, left_out = tables.shortened(tables.build(matrix), room.rows)
    table = loads.with_loads(tested, matrix)
    if matrix.kernels:
        yield from _drawn(table, console)
        if left_out:
            more = f"  ... and {counted(left_out, 'more test')} that did not pass everywhere"
            yield Text(f"{more} (-v shows all)", STYLE[Tone.QUIET])
        for line in (*tables.legend(table), *loads.legend(matrix)):
            yield Text(f"  {line}", STYLE[Tone.QUIET])
        yield Text()
    yield from _sections(matrix, found, room, words.where)
    yield from _rejections(loads.unattached(matrix), words.where)
    yield from _changes(loads.changed(matrix), words.compared)
    yield from _near(loads.near(matrix))
    if room is _WHOLE:
        yield from _visited(visited.worst(visited.programs(matrix), _LINES))
    yield from _unreached(matrix, room.unreached)
    yield from _excuses(matrix, room.excuses)
    yield from _never_ran(matrix)
    for kernel in tables.troubled(matrix):
        if tables.only_noted(kernel):
            yield Text(f"{printable(kernel.kernel)}: {one_line(kernel.note, 1000)}")
            yield Text()
    for note in matrix.notes:
        yield Text(f"note: {one_line(note, 1000)}", STYLE[Tone.WARN])
    if matrix.notes:
        yield Text()


def _drawn(table: Table, console: Console) -> Iterable[RenderableType]:
    def width_of(drawn: RichTable) -> int:
        options = console.options.update(width=_UNLIMITED)
        return Measurement.get(console, options, drawn).maximum

    longest = max((cell_len(r.label) + 2 for s in table.suites for r in s.tests), default=0)
    upright = _upright(table, longest)
    excess = width_of(upright) - console.width
    if excess > 0:  # names of tests lose their middle before the table is turned round
        upright = _upright(table, max(longest - excess, _NARROWEST_NAME))
        if width_of(upright) > console.width:
            yield from _turned(table, console.width, width_of)
            return
    yield upright


def _upright(table: Table, name_width: int) -> RichTable:
    drawn = _empty_table()
    drawn.add_column("", no_wrap=True)
    if table.loaders:
        drawn.add_column("loader", no_wrap=True)
    for name in table.kernels:
        drawn.add_column(Text(name), overflow="fold")

    def add(label: str, style: str, cells: Sequence[Cell], loader: str = "") -> None:
        by = [Text(loader)] if table.loaders else []
        drawn.add_row(Text(label, style), *by, *map(_text, cells))

    for row in table.facts:
        cells = row.cells if row.label != "release" else tuple(map(_release, row.cells))
        add(row.label, STYLE[Tone.QUIET], cells)
    for suite in table.suites:
        if suite is table.suites[0] or suite.tests or _before(table, suite).tests:
            drawn.add_section()
        add(suite.suite.label, "bold", suite.suite.cells, suite.loader)
        labels = shortened([row.label for row in suite.tests], name_width - 2)
        for label, row in zip(labels, suite.tests, strict=True):
            add(f"  {label}", "", row.cells, suite.loader)
    return drawn


def _before(table: Table, suite: tables.SuiteRows) -> tables.SuiteRows:
    return table.suites[table.suites.index(suite) - 1]


def _turned(
    table: Table, width: int, width_of: Callable[[RichTable], int]
) -> Iterable[RenderableType]:
    """Kernels down, suites across, as many tables as the suites need; then the telling tests."""
    rest = list(table.suites)
    facts = True
    while rest or facts:
        some = 0
        drawn = _turned_part(table, [], facts)
        while some < len(rest):
            wider = _turned_part(table, rest[: some + 1], facts)
            if width_of(wider) > width and (some or facts):
                break
            drawn, some = wider, some + 1
        yield drawn
        del rest[:some]
        facts = False
    for suite in table.suites:
        if suite.tests:
            yield Text(f"  {_with_loader(suite)}", "bold")
        for row in suite.tests:
            yield _told(table, row)
    yield Text()


def _turned_part(table: Table, suites: Sequence[tables.SuiteRows], facts: bool) -> RichTable:
    drawn = _empty_table()
    drawn.add_column("kernel", overflow="fold")
    if facts:
        drawn.add_column("status", overflow="fold")
        drawn.add_column("boot\ntime", overflow="fold")
    for suite in suites:
        drawn.add_column(Text(_with_loader(suite)), overflow="fold")

    def fact(label: str, n: int) -> Cell:
        row = table.fact(label)
        return row.cells[n] if row is not None else ()

    def quiet(cell: Cell) -> Cell:
        return tuple(Line(line.text, Tone.QUIET) for line in cell if line.text != "-")

    for n, name in enumerate(table.kernels):
        cells: list[Cell] = [(Line(name),)]
        if facts:
            exact = (*fact("version", n), *_release(fact("release", n)))
            cells = [(Line(name), *quiet(exact))]
            how = " ".join(
                line.text
                for label in ("accelerator", "deadlines")
                for line in quiet(fact(label, n))
            )
            cells.append((*fact("status", n), Line(how, Tone.QUIET)))
            cells.append((*fact("boot", n), *fact("time", n)))
        drawn.add_row(*map(_text, cells), *(_text(suite.suite.cells[n]) for suite in suites))
        drawn.add_section()
    return drawn


def _with_loader(suite: tables.SuiteRows) -> str:
    return f"{suite.suite.label} ({suite.loader})" if suite.loader else suite.suite.label


def _told(table: Table, row: tables.Row) -> Text:
    """``test_stale[ipv6]: FAIL 6.1, 6.12; skip 5.10``."""
    where: dict[Line, list[str]] = {}
    for name, cell in zip(table.kernels, row.cells, strict=True):
        for line in cell:
            where.setdefault(line, []).append(name)
    text = Text(f"    {row.label}: ")
    for n, (line, kernels) in enumerate(where.items()):
        text.append("; " if n else "").append(line.text, STYLE[line.tone])
        text.append(f" {', '.join(kernels)}")
    return text


def _empty_table() -> RichTable:
    return RichTable(box=box.SIMPLE, show_edge=True, header_style="bold", padding=(0, 1, 0, 0))


def _text(cell: Cell) -> Text:
    return Text("\n").join([Text(line.text, STYLE[line.tone]) for line in cell])


def _release(cell: Cell) -> Cell:
    return tuple(Line(part, line.tone) for line in cell for part in _broken(line.text))


def _broken(release: str) -> list[str]:
    return wrapped(release, _RELEASE_WIDTH)


def _rule(mark: str, title: str, tone: Tone) -> Rule:
    text = Text().append(mark, STYLE[tone]).append(f" {title}", "bold")
    return Rule(text, align="left", style=STYLE[tone])


def _sections(
    matrix: Matrix, found: Sequence[Cause], room: _Room, where: Where
) -> Iterable[RenderableType]:
    """A section a cause or kernel, in the order of the causes; what says the same is one."""
    kernels = {id(k): k for k in tables.troubled(matrix) if not tables.only_noted(k)}
    rejections = list(loads.rejections(matrix))
    lines = left_out = 0
    for cause in found:
        if cause.tests and left_out:
            left_out += 1
        elif cause.tests:
            section = list(_failure(cause, matrix, room, where))
            lines += len(section)
            if room.sections < lines > len(section):
                left_out += 1
            else:
                yield from section
        elif cause.loads:
            yield from _rejections(loads.taken(rejections, cause.loads), where)
        else:
            for kernel in cause.kernels:
                if kernels.pop(id(kernel), None):
                    yield from _kernel(kernel, where)
    if left_out:
        more = counted(left_out, "more cause")
        yield Text(f"{more} in the summary below (-v shows each in full)", STYLE[Tone.QUIET])
        yield Text()
    yield from _rejections(rejections, where)
    for kernel in kernels.values():
        yield from _kernel(kernel, where)


def _title(cause: Cause) -> str:
    more = len(cause.labels) - 1
    return cause.labels[0] + (f" and {counted(more, 'more test')}" if more else "")


def _failure(cause: Cause, matrix: Matrix, room: _Room, where: Where) -> Iterable[RenderableType]:
    kernel, result = cause.tests[0]
    yield _rule(cause.mark.text, _title(cause), cause.mark.tone)
    tests: dict[str, list[KernelResult]] = {}
    for there, test in cause.tests:
        tests.setdefault(test.test, []).append(there)
    for name, kernels in list(tests.items())[: room.tests]:
        yield Text(f"  {one_line(name, 1000)} on {_names(kernels)}")
    if len(tests) > room.tests:
        more = counted(len(tests) - room.tests, "more test")
        yield Text(f"  ... and {more}", STYLE[Tone.QUIET])
    yield Text()
    details = result.details or result.message
    lines, left_out = last_of_traceback(details, room.details, room.columns)
    yield from _quoted(lines, left_out)
    if result.message and one_line(result.message, _READ)[:_KNOWN] not in one_line(details, _READ):
        yield from _quoted(last_lines(result.message, 3)[0], 0)
    for title, text in written(result):
        yield Text(f"  {title} on {printable(kernel.kernel)}:", STYLE[Tone.QUIET])
        yield from _quoted(*last_lines(text, room.output))
    yield from _log(*tables.fullest_log(matrix, cause.kernels), where)
    yield Text()


def _causes(found: Sequence[Cause], matrix: Matrix, width: int) -> Iterable[RenderableType]:
    """The short summary: a cause, its kernels, its place, and how to run it again."""
    if not found:
        return
    title, *more = _in_width(counts(found), width - len("summary  --"))
    yield _rule("summary", title, Tone.BAD)
    for line in more:
        yield Text(f"  {line}", "bold")
    parametrized = Parametrized(matrix)
    for cause in found[:_CAUSES]:
        where = "all kernels" if cause.everywhere else _names(cause.kernels)
        if len(matrix.kernels) == 1:
            where = _names(cause.kernels)
        text = Text("  ").append(cause.mark.text, STYLE[cause.mark.tone])
        text.append(f" {where}")
        for part in (cause.named, middle(cause.message, LIMIT)):
            text.append(f": {part}" if part else "")
        if many := parametrized.told(cause):
            text.append(f" {many}")
        yield text
        if command := command_of(cause, matrix):
            told = f"      {printable(command)}  {aside(cause, command)}"
            yield Text(told.rstrip(), STYLE[Tone.QUIET])
    if len(found) > _CAUSES:
        yield Text(f"  ... and {counted(len(found) - _CAUSES, 'more cause')}", STYLE[Tone.QUIET])
    yield Text()


def _in_width(text: str, width: int) -> list[str]:
    """``text`` whole, or its parts between commas in lines of at most ``width`` if they can be."""
    lines = [""]
    for part in text.split(", "):
        joined = f"{lines[-1]}, {part}" if lines[-1] else part
        if lines[-1] and len(joined) > width:
            lines.append(part)
        else:
            lines[-1] = joined
    return lines


def _rejections(rejections: Sequence[Rejection], where: Where) -> Iterable[RenderableType]:
    for rejection in rejections[:_IN_FULL]:
        yield _rule(rejection.mark.text, rejection.label, rejection.mark.tone)
        about = f": {rejection.about}" if rejection.about else ""
        yield Text(f"  on {', '.join(rejection.kernels)}{about}")
        yield from _quoted(rejection.lines, 0)
        if log := next(filter(None, map(where, rejection.logs)), ""):
            yield Text(f"  log: {log}", STYLE[Tone.QUIET])
        yield Text()
    others = rejections[_IN_FULL:]
    if others:
        yield _rule(others[0].mark.text, f"{len(others)} more, a line each", others[0].mark.tone)
        for rejection in others:
            text = Text("  ").append(rejection.mark.text, STYLE[rejection.mark.tone])
            what = one_line(next(iter(rejection.lines), ""), 120)
            yield text.append(f" {rejection.label} on {', '.join(rejection.kernels)}: {what}")
        yield Text()


def _changes(found: Sequence[loads.Changed], compared: str) -> Iterable[RenderableType]:
    if not found:
        return
    yield _rule("changes", f"since {compared}", Tone.WARN)
    for change in found[:_CHANGES]:
        text = Text("  ").append(change.mark, STYLE[change.tone])
        yield text.append(f" {change.text} on {', '.join(change.kernels)}")
    if len(found) > _CHANGES:
        more = f"  ... and {len(found) - _CHANGES} more; matrix.json has all"
        yield Text(more, STYLE[Tone.QUIET])
    yield Text()


def _near(lines: Sequence[str]) -> Iterable[RenderableType]:
    if not lines:
        return
    yield _rule("warning", "close to the instruction limit", Tone.WARN)
    for line in lines:
        yield Text(f"  {line}")
    yield Text()


def _visited(lines: Sequence[str]) -> Iterable[RenderableType]:
    if not lines:
        return
    yield _rule("lines", "that the verifier read most often", Tone.QUIET)
    for line in lines:
        yield Text(f"  {line}")
    yield Text()


def _kernel(kernel: KernelResult, where: Where) -> Iterable[RenderableType]:
    exact = printable(kernel.release or kernel.version)
    about = ", ".join(part for part in (exact, kernel.accelerator) if part)
    title = printable(kernel.kernel) + (f" ({about})" if about else "")
    yield _rule(kernel.status.value, title, tables.tone_of(kernel.status))
    if kernel.reason:
        yield from _quoted(last_lines(kernel.reason, 10)[0], 0, indent=2)
    for test in kernel.tests:
        if test.outcome is Outcome.LOST and test.test not in kernel.reason:
            yield Text(f"  lost: {one_line(test.test, 1000)}", STYLE[Tone.BAD])
    if kernel.note:
        yield Text(f"  note: {one_line(kernel.note, 1000)}")
    for complaint in kernel.complaints[:_SPLATS]:
        meanwhile = one_line(complaint.meanwhile, 1000)
        yield Text(f"  the kernel complained{meanwhile and ' '}{meanwhile}:", STYLE[Tone.WARN])
        lines = consoles.of_a_complaint(complaint, kernel, _SPLAT_LINES)
        yield from _quoted([line[:500] for line in lines], 0)
        print_of = one_line(complaint.fingerprint, 300)
        yield Text(f"  its fingerprint: {print_of}", STYLE[Tone.QUIET])
    if len(kernel.splats) > _SPLATS:
        more = counted(len(kernel.splats) - _SPLATS, "more complaint")
        yield Text(f"  {more} of the kernel", STYLE[Tone.WARN])
    if kernel.status not in tables.WELL:
        if kernel.console_tail:
            end = consoles.tail(kernel.console_tail, _CONSOLE)
            yield Text(f"  the {end.title}:", STYLE[Tone.QUIET])
            yield from _quoted(end.lines, end.left_out)
        if kernel.has_console:
            yield from _log(kernel, kernel.console_log, where)
    yield Text()


def _quoted(lines: Iterable[str], left_out: int, indent: int = 6) -> Iterable[Text]:
    if left_out:
        words = f"... {counted(left_out, 'line')} before these left out; the log has all"
        yield Text(" " * indent + words, STYLE[Tone.QUIET])
    for line in lines:
        yield Text(" " * indent + line if line else "")


def _log(kernel: KernelResult, name: str, where: Where) -> Iterable[Text]:
    if kernel.directory:
        file = where(f"{kernel.directory.rstrip('/')}/{name}")
        if file:
            text = f"  log of {printable(kernel.kernel)}: {printable(file)}"
            yield Text(text, STYLE[Tone.QUIET])


def _names(kernels: Iterable[KernelResult]) -> str:
    return ", ".join(printable(kernel.kernel) for kernel in kernels)


def _excuses(matrix: Matrix, most: int) -> Iterable[RenderableType]:
    found = tables.excuses(matrix)
    if not found:
        return
    yield _rule("skip, xfail, n-a", "and why", Tone.WARN)
    for excuse in found[:most]:
        reason = f": {excuse.reason}" if excuse.reason else ""
        text = Text("  ").append(f"{excuse.mark:5}", STYLE[Tone.WARN])
        yield text.append(f" {excuse.label} on {', '.join(excuse.kernels)}{reason}")
    if len(found) > most:
        yield Text(f"  ... and {len(found) - most} more", STYLE[Tone.QUIET])
    yield Text()


def _unreached(matrix: Matrix, most: int) -> Iterable[RenderableType]:
    found = tables.unreached(matrix)
    if not found:
        return
    yield _rule("not run", "and why", Tone.WARN)
    for one in found:
        more = f" and {len(one.labels) - most} more" if len(one.labels) > most else ""
        names = ", ".join(one.labels[:most])
        number = counted(len(one.labels), "test")
        yield Text(f"  {number} on {', '.join(one.kernels)}: {one.reason}: {names}{more}")
    yield Text()


def _never_ran(matrix: Matrix) -> Iterable[RenderableType]:
    labels = tables.never_ran(matrix)
    if not labels:
        return
    yield Text(f"{counted(len(labels), 'test')} ran on no kernel of this matrix:", STYLE[Tone.WARN])
    for label in labels[:_NAMES]:
        yield Text(f"  {label}")
    if len(labels) > _NAMES:
        yield Text(f"  ... and {len(labels) - _NAMES} more", STYLE[Tone.QUIET])
    yield Text()


def _summary(matrix: Matrix) -> Text:
    tone = Tone.GOOD if exit_status(matrix) == 0 else Tone.BAD
    words = tables.summary(matrix, loads.summary(matrix))
    return Text(words, "bold " + STYLE[tone].removeprefix("bold "))
