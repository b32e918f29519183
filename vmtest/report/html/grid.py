"""The heat maps' data: every test and every load on every kernel, as small as JSON gets.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vmtest.model.loads import INSTRUCTION_LIMIT, Change, LoadResult, Verdict
from vmtest.model.results import KernelResult, Matrix, Outcome, TestResult
from vmtest.model.text import one_line
from vmtest.report import loads
from vmtest.report.causes import place_of
from vmtest.report.html.unrun import why
from vmtest.report.table import each_test, labels_of, suites_of, tone_of
from vmtest.report.text import last_lines
from vmtest.report.tracebacks import last_of_traceback
from vmtest.runs.past import letter

_WRONG = frozenset("FEXL")
_LINES, _COLUMNS = 80, 400
_ROOM = 1_500_000  # characters of all texts together


@dataclass(slots=True)
class Texts:
    """Messages, assertions and outputs, each once, until there is no room left."""

    found: dict[tuple[str, ...], int] = field(default_factory=dict)
    whole: dict[tuple[str, ...], int] = field(default_factory=dict)  # by what was asked for
    room: int = _ROOM
    left_out: int = 0

    def number(
        self, message: str, details: str = "", place: str = "", written: tuple[str, ...] = ()
    ) -> int:
        """The number of this text; -1 for none."""
        if not (message or details or any(written)):
            return -1
        asked = (message, details, place, *written)
        if asked in self.whole:
            return self.whole[asked]
        said = one_line(message, 500)
        if self.room > 0:
            end = _joined(*last_of_traceback(details, _LINES, _COLUMNS))
            text = (said, end, place, *map(_end, written))
            size = sum(map(len, text))
            if text in self.found or size <= self.room:
                self.room -= 0 if text in self.found else size
                return self.whole.setdefault(asked, self._place(text))
            self.room //= 2  # soon there is none, and nothing has to be cut any more
        self.left_out += 1
        return self._place((said[:200], "", place))

    def _place(self, text: tuple[str, ...]) -> int:
        return self.found.setdefault(text, len(self.found))


def _end(text: str) -> str:
    return _joined(*last_lines(text, _LINES, _COLUMNS))


def _joined(lines: Sequence[str], left_out: int) -> str:
    head = [f"... {left_out} lines before these left out"] if left_out else []
    return "\n".join([*head, *lines])


def grid(matrix: Matrix) -> dict[str, Any]:
    """What the page's script draws.

    ``tests`` are ``[suite, label, id, letters, {kernel: text}, [milliseconds, ...]]``, rows that
    differ first; ``loads`` are ``[object, program, cells]`` with ``[mark, tone, instructions,
    change in percent or null, text]``, and the file of the log of one that was refused, or 0 a
    kernel.
    """
    texts = Texts()
    tests, loaded = list(_tests(matrix, texts)), list(_loads(matrix, texts))
    return {
        "kernels": [_kernel(kernel) for kernel in matrix.kernels],
        "suites": suites_of(matrix),
        "tests": tests,
        "objects": loads.objects_of(matrix),
        "loads": loaded,
        "whole": loads.WHOLE,
        "limit": INSTRUCTION_LIMIT,
        "texts": list(texts.found),
        "leftOut": texts.left_out,
    }


def _kernel(kernel: KernelResult) -> dict[str, str]:
    return {
        "name": kernel.kernel,
        "status": kernel.status.value,
        "tone": tone_of(kernel.status).value,
        "exact": kernel.release or kernel.version,
        "why": why(kernel) if _misses(kernel) else "",
    }


def _misses(kernel: KernelResult) -> bool:
    """Whether a cell of it has to say why there is no result."""
    missing = (Outcome.NOT_RUN, Outcome.LOST)
    unloaded = any(load.verdict is Verdict.NOT_LOADED for load in kernel.loads)
    return unloaded or any(test.outcome in missing for test in kernel.tests)


def _rank(letters: str) -> int:
    """Rows that differ come first: those that are bad, then others, then those not run somewhere.

    Those that are bad everywhere come next.
    """
    told = set(letters) - {" ", "-"}
    bad, missing = bool(told & _WRONG), "-" in letters and bool(told)
    if len(told) > 1 or (bad and missing):
        return 0 if bad else 1
    return 2 if missing else 3 if bad else 4


def _tests(matrix: Matrix, texts: Texts) -> Iterable[list[Any]]:
    place = {suite: n for n, suite in enumerate(suites_of(matrix))}
    labels = labels_of(matrix)
    of = [{(test.suite, test.test): test for test in kernel.tests} for kernel in matrix.kernels]
    loud = [{complaint.test for complaint in kernel.complaints} for kernel in matrix.kernels]
    rows = []
    for key in each_test(matrix):
        results = [found.get(key) for found in of]
        letters = "".join(" " if test is None else letter(test) for test in results)
        rows.append((_rank(letters), key, letters, results))
    for _, key, letters, results in sorted(rows, key=lambda row: row[0]):
        said = {
            n: number
            for n, test in enumerate(results)
            if test is not None and (number := _text(test, texts, test.test in loud[n])) >= 0
        }
        took = [0 if test is None else round(1000 * test.duration) for test in results]
        yield [place[key[0]], labels[key], key[1], letters, said, took if any(took) else []]


def _text(test: TestResult, texts: Texts, loud: bool) -> int:
    """The number of what there is to say; ``loud``: the kernel complained while it ran."""
    passed = test.outcome is Outcome.PASSED
    kernel = test.kernel_log if loud or not passed else ""
    where = "" if passed else place_of(test)
    return texts.number(test.message, test.details, where, (test.output, test.stderr, kernel))


def _loads(matrix: Matrix, texts: Texts) -> Iterable[list[Any]]:
    place = {name: n for n, name in enumerate(loads.objects_of(matrix))}
    of = [{(load.object, load.program): load for load in k.loads} for k in matrix.kernels]
    changes = [_costs(kernel.changes) for kernel in matrix.kernels]
    keys = dict.fromkeys(key for found in of for key in found)
    rows = []
    for key in keys:
        cells: list[Any] = [
            0 if key not in found else _cell(found[key], cost.get(key), texts)
            for found, cost in zip(of, changes, strict=True)
        ]
        marks = {cell[0] for cell in cells if cell}
        bad = any(cell and cell[1] == "bad" for cell in cells)
        rows.append((not (bad and len(marks) > 1), not bad, place[key[0]], key, cells))
    for *_, key, cells in sorted(rows, key=lambda row: (row[0], row[1], row[2], bool(row[3][1]))):
        yield [place[key[0]], key[1] or loads.WHOLE, cells]


def _costs(changes: Iterable[Change]) -> dict[tuple[str, str], Change]:
    return {(c.object, c.program): c for c in changes if c.cost == "instructions"}


def _cell(load: LoadResult, change: Change | None, texts: Texts) -> list[Any]:
    mark, tone = loads.mark_of_verdict(load.verdict), loads.mark_of(load).tone
    why = loads.why(load)
    message = why[0] if why else load.line
    number = texts.number(message, "\n".join(why[1:])) if load.verdict.bad else -1
    word = load.reason.code if load.verdict.bad and load.reason else mark.text
    word = "" if load.verdict is Verdict.ACCEPTED else word
    percent = None if change is None else round(change.percent, 1)
    cell = [word, tone.value, load.cost.instructions, percent, number]
    return [*cell, load.log] if load.verdict.bad and load.log else cell
