"""GitHub-flavoured Markdown: for a job's summary, a pull request's comment, a release's notes.

GitHub drops a summary above 1 MiB as a whole, so the report stays below and
says what it left out.  Whatever a guest wrote stands in code spans or fences,
where nothing is markup and no ``@name`` calls anybody.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace

from vmtest.model.results import KernelResult, Matrix, Status, ran_nothing
from vmtest.model.text import one_line, printable
from vmtest.report import console, ids, loads
from vmtest.report import table as tables
from vmtest.report.again import aside, command_of
from vmtest.report.causes import Cause, causes, counts
from vmtest.report.loads import Rejection
from vmtest.report.table import Cell, Table, Tone
from vmtest.report.text import counted, last_lines, shortened
from vmtest.report.tracebacks import last_of_traceback
from vmtest.report.variants import Parametrized
from vmtest.report.written import written
from vmtest.runs.folder import STATE

LIMIT = 1_000_000
"""Bytes of UTF-8 at most; GitHub takes 1 MiB (1,048,576)."""

_RESERVE = 2_000  # for saying what was left out
_TABLE_SHARE = 0.6
_TITLE = 300
_DETAILS, _COLUMNS = 120, 400
_OUTPUT = 120
_CONSOLE = 40
_NAMES = 30
_CAUSES = 40
_TESTS = 20  # of a cause, each with its kernels
_COMMAND = 1000
_NAME = 36  # columns of a test in the table; the failure below has its whole name
_SPLATS = 10
_SPLAT_LINES = 40


class _Pieces:
    """Pieces of text that stay below a number of bytes together."""

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._pieces: list[str] = []
        self._left_out: dict[str, int] = {}

    def add(self, piece: str, what: str, keep: int = 0) -> bool:
        """Take ``piece`` if ``keep`` bytes stay free; else count it as left out."""
        size = len(piece.encode("utf-8", "replace"))
        if size > self._room - keep:
            self._left_out[what] = self._left_out.get(what, 0) + 1
            return False
        self._room -= size
        self._pieces.append(piece)
        return True

    def text(self) -> str:
        end = ""
        if self._left_out:
            what = ", ".join(counted(n, noun) for noun, n in self._left_out.items())
            end = f"\n**Left out to stay below 1 MiB: {what}.** `matrix.json` has everything.\n"
        return "".join(self._pieces) + end


def render(matrix: Matrix, limit: int = LIMIT, since: str = "") -> str:
    """The report in less than ``limit`` bytes of UTF-8.

    ``since`` compares the run with an earlier one, in words.
    """
    matrix = ids.in_project(_failing_first(matrix))
    found = causes(matrix)
    pieces = _Pieces(limit - _RESERVE)
    compared = f"\n{escaped(since)}\n" if since else ""
    run = f"\n{_run(matrix)}\n" if matrix.run else ""
    told = f"{escaped(_summary(matrix))}\n{compared}{run}"
    pieces.add(f"## {headline(matrix)}\n\n{told}", "summary")
    _add_causes(pieces, found, matrix)
    table = loads.with_loads(tables.build(matrix), matrix)
    _add_table(pieces, table, int(limit * (1 - _TABLE_SHARE)))
    for words in (*tables.legend(table), *loads.legend(matrix)):
        pieces.add(f"\n{escaped(words)}\n", "legend")
    idle = tables.never_ran(matrix)
    if idle:
        pieces.add(_never_ran(idle), "warning")
    for note in matrix.notes:
        pieces.add(f"\nNote: {code(note, 2000)}\n", "note")
    _add_sections(pieces, found, matrix)
    for title, lines in (
        ("Changes since the baseline", [_change(change) for change in loads.changed(matrix)]),
        ("Close to the instruction limit", [f"\n- {code(line)}" for line in loads.near(matrix)]),
    ):
        if lines and pieces.add(f"\n### {title}\n", "heading"):
            for line in lines:
                pieces.add(line, "change")
            pieces.add("\n", "end")
    for one in tables.unreached(matrix):
        pieces.add(_unreached(one), "list of tests that did not run")
    excuses = [_excuse(excuse) for excuse in tables.excuses(matrix)]
    end = "\n\n</details>\n"
    head = f"\n{_summary_line(f'{len(excuses)} skipped, xfail or n-a, and why')}\n"
    if excuses and pieces.add(head, "list of skipped tests", keep=len(end)):
        for line in excuses:
            pieces.add(line, "skipped test", keep=len(end))
        pieces.add(end, "end")
    return pieces.text()


def _add_sections(pieces: _Pieces, found: Sequence[Cause], matrix: Matrix) -> None:
    """A section a cause or kernel, in the order of the causes."""
    kernels = {id(kernel): kernel for kernel in tables.troubled(matrix)}
    rejections = list(loads.rejections(matrix))
    others = loads.unattached(matrix)
    failures = sum(bool(cause.tests) for cause in found)
    only = len(rejections) + len(others) == 1
    for cause in found:
        if cause.tests:
            pieces.add(_failure(cause, matrix, open_it=failures == 1), "failure")
        elif cause.loads:
            for rejection in loads.taken(rejections, cause.loads):
                pieces.add(_rejection(rejection, open_it=only), "rejection")
        else:
            for kernel in cause.kernels:
                if kernels.pop(id(kernel), None):
                    pieces.add(_kernel(kernel), "kernel's section")
    for rejection in (*rejections, *others):
        pieces.add(_rejection(rejection, open_it=only), "rejection")
    for kernel in kernels.values():
        pieces.add(_kernel(kernel), "kernel's section")


def _failing_first(matrix: Matrix) -> Matrix:
    """``matrix`` with the kernels that did not pass in front: a narrow page shows these."""
    kernels = sorted(matrix.kernels, key=lambda kernel: kernel.status in tables.WELL)
    return replace(matrix, kernels=tuple(kernels))


def headline(matrix: Matrix) -> str:
    """``vmtest: 1 of 4 kernels did not pass``."""
    bad = [kernel for kernel in matrix.kernels if kernel.status not in tables.WELL]
    if not matrix.kernels:
        return "vmtest: no kernels"
    if not bad and ran_nothing(matrix):
        return "vmtest: nothing ran"
    if not bad:
        listed = any(kernel.status is Status.COLLECTED for kernel in matrix.kernels)
        word = "listed their tests" if listed else "passed"
        return f"vmtest: {counted(len(matrix.kernels), 'kernel')} {word}"
    return f"vmtest: {len(bad)} of {counted(len(matrix.kernels), 'kernel')} did not pass"


def _run(matrix: Matrix) -> str:
    """Which run this is, and where its files are: paths below are relative to there."""
    when = f" of {escaped(matrix.started[:16].replace('T', ' '))} UTC" if matrix.started else ""
    return f"Run {code(matrix.run)}{when}. Its logs are in {code(f'{STATE}/runs/{matrix.run}')}."


def _summary(matrix: Matrix) -> str:
    return tables.summary(matrix, loads.summary(matrix))


def _add_causes(pieces: _Pieces, found: Sequence[Cause], matrix: Matrix) -> None:
    """What broke, where, and the command that runs it again: nobody has to open anything."""
    if not found:
        return
    pieces.add(f"\n### {escaped(counts(found))}\n\n", "heading")
    parametrized = Parametrized(matrix)
    for cause in found[:_CAUSES]:
        pieces.add(f"- {cause_line(cause, parametrized)}\n", "cause")
    if len(found) > _CAUSES:
        pieces.add(f"- ... and {counted(len(found) - _CAUSES, 'more cause')}\n", "cause")


def cause_line(cause: Cause, parametrized: Parametrized) -> str:
    """An item of a list: the cause, its kernels, its place, and the command to run it again.

    ``parametrized`` are the tests of its matrix that have parameters.
    """
    matrix = parametrized.matrix
    where = ", ".join(kernel.kernel for kernel in cause.kernels)
    if cause.everywhere and len(matrix.kernels) > 1:
        where = "all kernels"
    parts = [f"**{escaped(cause.mark.text)}** on {escaped(where)}"]
    parts += [code(part) for part in (cause.named, cause.message) if part]
    line = " ".join(filter(None, (": ".join(parts), parametrized.told(cause))))
    command = command_of(cause, matrix)
    return line + (_command(command, aside(cause, command)) if command else "")


def _command(command: str, remark: str) -> str:
    """``command`` below its cause, as it was written or not at all: it is to be pasted."""
    if len(command) > _COMMAND:
        return "<br>its command is long: the summary at the end of the log has it"
    if command == one_line(command, _COMMAND):
        return f"<br>{code(command, _COMMAND)} {remark}".rstrip()
    # A list's item goes on where its text began.
    return textwrap.indent(f"\n{fence(command.split(chr(10)))}{remark}", "  ")


def _never_ran(labels: Sequence[str]) -> str:
    names = ", ".join(map(code, labels[:_NAMES]))
    more = f" and {len(labels) - _NAMES} more" if len(labels) > _NAMES else ""
    what = counted(len(labels), "test")
    return f"\n:warning: {what} ran on no kernel of this matrix: {names}{more}\n"


def _add_table(pieces: _Pieces, table: Table, keep: int) -> None:
    if not table.kernels:
        return
    columns = [*(["loader"] if table.loaders else []), *table.kernels]
    head = "\n" + _row("", map(escaped, columns))
    head += "|---|" + "---|" * len(columns) + "\n"
    if not pieces.add(head, "table", keep):
        return

    def add(label: str, cells: Iterable[Cell], loader: str = "") -> None:
        by = [escaped(loader)] if table.loaders else []
        pieces.add(_row(label, [*by, *map(_cell, cells)]), "row", keep)

    for row in table.facts:
        add(escaped(row.label), row.cells)
    for suite in table.suites:
        add(f"**{escaped(suite.suite.label)}**", suite.suite.cells, suite.loader)
        labels = shortened([row.label for row in suite.tests], _NAME)
        for label, row in zip(labels, suite.tests, strict=True):
            add(code(label, table=True), row.cells, suite.loader)


def _row(label: str, cells: Iterable[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |\n"


def _cell(cell: Cell) -> str:
    def line(text: str, tone: Tone) -> str:
        return f"**{escaped(text)}**" if tone is Tone.BAD else escaped(text)

    return "<br>".join(line(part.text, part.tone) for part in cell)


def _kernel(kernel: KernelResult) -> str:
    if tables.only_noted(kernel):
        return f"\nNote for {escaped(kernel.kernel)}: {code(kernel.note, 1000)}\n"
    title = f"{_tag(kernel.status.value, 'b')} {_tag(kernel.kernel)}"
    exact = kernel.release or kernel.version
    if exact:
        title += f" ({html.escape(one_line(exact))})"
    if kernel.reason:
        title += f": {_tag(kernel.reason)}"
    parts = [f"\n{_summary_line(title, raw=True)}\n"]
    if len(kernel.reason) > _TITLE:
        parts.append(f"\n{code(kernel.reason, 2000)}\n")
    if kernel.note:
        parts.append(f"\nNote: {code(kernel.note, 2000)}\n")
    for complaint in kernel.complaints[:_SPLATS]:
        shown = [line[:500] for line in console.of_a_complaint(complaint, kernel, _SPLAT_LINES)]
        while_it_ran = f" while {code(complaint.test, 1000)} ran" if complaint.test else ""
        parts.append(f"\nThe kernel complained{while_it_ran}:\n{fence(shown)}")
        parts.append(f"\nIts fingerprint: {code(complaint.fingerprint, 300)}\n")
    if len(kernel.splats) > _SPLATS:
        parts.append(f"\n... and {counted(len(kernel.splats) - _SPLATS, 'more complaint')}\n")
    if kernel.console_tail and kernel.status not in tables.WELL:
        end = console.tail(kernel.console_tail, _CONSOLE)
        parts.append(f"\nThe {end.title}:\n{fence(_after(end.left_out, end.lines))}")
    if kernel.status not in tables.WELL and kernel.has_console:
        parts.append(_log(kernel, kernel.console_log))
    return "".join([*parts, "\n</details>\n"])


def _failure(cause: Cause, matrix: Matrix, open_it: bool) -> str:
    kernel, result = cause.tests[0]
    more = f" and {counted(len(cause.labels) - 1, 'more test')}" if len(cause.labels) > 1 else ""
    names = ", ".join(html.escape(printable(kernel.kernel)) for kernel in cause.kernels)
    title = f"{_tag(cause.mark.text, 'b')} {_tag(cause.labels[0])}{more} on {names}"
    if result.message:
        title += f": {_tag(cause.message)}"
    parts = [f"\n{_summary_line(title, raw=True, open_it=open_it)}\n", _tests(cause)]
    lines, left_out = last_of_traceback(result.details or result.message, _DETAILS, _COLUMNS)
    if lines:
        parts.append(fence(_after(left_out, lines)))
    where = escaped(printable(kernel.kernel))
    for title, text in written(result):
        lines, left_out = last_lines(text, _OUTPUT)
        head = f"{title[0].upper()}{title[1:]} on {where}"
        parts.append(f"\n{head}:\n{fence(_after(left_out, lines))}")
    parts += [_log(kernel, tables.log_of_tests(matrix, kernel)) for kernel in cause.kernels]
    return "".join([*parts, "\n</details>\n"])


def _tests(cause: Cause) -> str:
    """The tests of a cause, whole, each with its kernels where these are not all the same."""
    on: dict[str, list[str]] = {}
    for kernel, test in cause.tests:
        on.setdefault(test.test, []).append(printable(kernel.kernel))
    if len(on) == 1:
        return f"\n{code(cause.tests[0][1].test, 1000)}\n"
    lines = [f"\n- {code(name, 1000)} on {escaped(', '.join(of))}" for name, of in on.items()]
    more = [f"\n- ... and {counted(len(on) - _TESTS, 'more test')}"] if len(on) > _TESTS else []
    return "".join([*lines[:_TESTS], *more, "\n"])


def _rejection(rejection: Rejection, open_it: bool) -> str:
    names = ", ".join(map(html.escape, rejection.kernels))
    title = f"{_tag(rejection.mark.text, 'b')} {_tag(rejection.label)} on {names}"
    if rejection.about:
        title += f": {_tag(rejection.about)}"
    parts = [f"\n{_summary_line(title, raw=True, open_it=open_it)}\n"]
    if rejection.lines:
        parts.append(fence(rejection.lines))
    parts += [f"\nLog: {code(log, 1000)}\n" for log in rejection.logs]
    return "".join([*parts, "\n</details>\n"])


def _change(change: loads.Changed) -> str:
    where = escaped(", ".join(change.kernels))
    return f"\n- {change.mark} {code(change.text, 1000)} on {where}"


def _after(left_out: int, lines: list[str]) -> list[str]:
    if not left_out:
        return lines
    return [f"... {counted(left_out, 'line')} before these left out; the log has all", *lines]


def _excuse(excuse: tables.Excuse) -> str:
    reason = f": {code(excuse.reason)}" if excuse.reason else ""
    where = escaped(", ".join(excuse.kernels))
    return f"\n- {excuse.mark} {code(excuse.label)} on {where}{reason}"


def _unreached(one: tables.Unreached) -> str:
    names = ", ".join(map(code, one.labels[:_NAMES]))
    more = f" and {len(one.labels) - _NAMES} more" if len(one.labels) > _NAMES else ""
    where, what = escaped(", ".join(one.kernels)), counted(len(one.labels), "test")
    return f"\n{what} not run on {where}: {escaped(one.reason)}: {names}{more}\n"


def _log(kernel: KernelResult, name: str) -> str:
    if not kernel.directory:
        return ""
    return f"\nLog of {escaped(kernel.kernel)}: {code(f'{kernel.directory}/{name}', 1000)}\n"


def _summary_line(title: str, *, raw: bool = False, open_it: bool = False) -> str:
    shown = title if raw else html.escape(title)
    return f"<details{' open' if open_it else ''}><summary>{shown}</summary>"


def _tag(text: str, tag: str = "code") -> str:
    return f"<{tag}>{html.escape(one_line(text, _TITLE))}</{tag}>"


def escaped(text: str) -> str:
    """``text`` as text: no markup, no HTML, no cell's end, on one line."""
    line = html.escape(one_line(text, 2000), quote=False)
    return re.sub(r"([\\`*\[\]|~#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", line)


def code(text: str, limit: int = 300, *, table: bool = False) -> str:
    """``text`` as a code span, whatever backticks it holds."""
    line = one_line(text, limit)
    if not line:
        return ""
    if table:
        line = line.replace("|", "\\|")
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if "`" in (line[0], line[-1]) else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def fence(lines: Iterable[str]) -> str:
    """``lines`` as a block of code, whatever backticks they hold."""
    text = "\n".join(lines)
    ticks = "`" * max(3, _longest_run(text) + 1)
    return f"\n{ticks}text\n{text}\n{ticks}\n"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
