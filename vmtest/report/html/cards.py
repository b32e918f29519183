"""The causes as the page shows them: a card each.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from vmtest.model.results import KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.model.text import one_line, printable
from vmtest.report import console as consoles
from vmtest.report import loads
from vmtest.report import table as tables
from vmtest.report.again import command_of
from vmtest.report.causes import Cause, while_it_ran
from vmtest.report.cures import cure_of
from vmtest.report.html.since import Earlier, Since, against_baseline
from vmtest.report.table import WELL, Tone, split_node_id
from vmtest.report.text import counted, last_lines
from vmtest.report.tracebacks import last_of_traceback
from vmtest.report.variants import Parametrized
from vmtest.report.written import KERNEL, written

_CHIPS = 12  # kernels of a card one by one
_LABELS = 12
_VARIANTS, _NAMED = 3, 6  # functions of a card with variants, and variants that are named
_DETAILS, _OUTPUT, _CONSOLE, _SPLAT = 60, 30, 14, 80
_COLUMNS = 400
_ERROR = re.compile(r"E( |$)|.{0,60}\b(?:BUG|Oops|Kernel panic)\b")

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Chip:
    """A kernel in a card: how the same fared there, in a sign and a word."""

    name: str
    tone: str
    sign: str
    word: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """A cause as the page shows it."""

    cause: Cause
    place: str
    chips: tuple[Chip, ...]
    others: str
    labels: tuple[str, ...]
    more: int
    variants: tuple[str, ...]
    since: Since | None
    baseline: str
    details: str
    written: tuple[tuple[str, str], ...]
    command: str
    cure: str
    logs: tuple[tuple[KernelResult, str], ...]


_WORDS = {  # from the worst down
    Outcome.FAILED: ("bad", "F", "failed otherwise"),
    Outcome.ERROR: ("bad", "E", "an error otherwise"),
    Outcome.XPASSED: ("bad", "X", "passed, though known to fail"),
    Outcome.LOST: ("bad", "L", "lost"),
    Outcome.XFAILED: ("warn", "x", "failed, as known"),
    Outcome.NOT_RUN: ("quiet", "-", "not run"),
    Outcome.SKIPPED: ("warn", "s", "skipped"),
    Outcome.NOT_APPLICABLE: ("quiet", "n", "not applicable"),
    Outcome.COLLECTED: ("quiet", "c", "only listed"),
    Outcome.PASSED: ("good", "✓", "passed"),
}


@dataclass(slots=True)
class Results:
    """Each result of a matrix by kernel, and the variants of its tests."""

    matrix: Matrix
    tests: list[dict[Key, TestResult]] = field(init=False)
    parametrized: Parametrized = field(init=False)

    def __post_init__(self) -> None:
        kernels = self.matrix.kernels
        self.tests = [{(test.suite, test.test): test for test in k.tests} for k in kernels]
        self.parametrized = Parametrized(self.matrix)


def card_of(cause: Cause, results: Results, earlier: Earlier) -> Card:
    """The card of ``cause``."""
    matrix, kernel = results.matrix, cause.kernels[0]
    details = ""
    logs: list[str] = ["" for _ in cause.kernels]
    parts: tuple[tuple[str, str], ...] = ()
    of_console = False
    if cause.tests:
        result = cause.tests[0][1]
        details = said(*last_of_traceback(result.details or result.message, _DETAILS, _COLUMNS))
        parts = tuple((title, quoted(text, _OUTPUT)) for title, text in written(result))
        logs = [tables.log_of_tests(matrix, there) for there in cause.kernels]
    elif cause.loads:
        details = "\n".join(loads.why(cause.loads[0][1]))
        logs = [cause.loads[0][1].log for _ in cause.kernels]
    else:
        details, parts = _of_the_kernel(cause, kernel, matrix)
        of_console = kernel.has_console
    if of_console:
        logs = [there.console_log for there in cause.kernels]
    named = list(zip(cause.kernels, logs, strict=True))[:4]
    chips, others = _chips(cause, results)
    while_ran = while_it_ran(cause)
    labels = cause.labels or _labels(while_ran)
    return Card(
        cause=cause,
        place=cause.where or (split_node_id(while_ran[0].test)[0] if while_ran else ""),
        chips=chips,
        others=others,
        labels=labels[:_LABELS],
        more=max(0, len(labels) - _LABELS),
        variants=tuple(_variants(cause, results.parametrized)),
        since=earlier.of(cause),
        baseline=against_baseline(cause),
        details=details,
        written=parts,
        command=command_of(cause, matrix),
        cure=cure_of(cause.message, matrix.notes) if cause.tests else "",
        logs=tuple((k, name) for k, name in named if name and k.directory),
    )


def _labels(tests: Iterable[TestResult]) -> tuple[str, ...]:
    names = (split_node_id(test.test)[2] for test in tests)
    return tuple(dict.fromkeys(printable(name) for name in names))


def _of_the_kernel(
    cause: Cause, kernel: KernelResult, matrix: Matrix
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A complaint, and what else the kernel said while that test ran; else the console's end.

    Of one that failed by what its programs cost, these.
    """
    if kernel.status is Status.FAILED and kernel.changes and cause.message == kernel.reason:
        changes = loads.changed(replace(matrix, kernels=(kernel,)))
        told = [f"{one.mark}: {one.text}" for one in changes if one.tone is not Tone.GOOD]
        more = [f"and {len(told) - _CONSOLE} more"] if len(told) > _CONSOLE else []
        return said([*told[:_CONSOLE], *more], 0), ()
    for one in kernel.complaints:
        if one_line(one.text).startswith(cause.message[:150]):
            logs = (test.kernel_log for test in kernel.tests if test.test == one.test)
            log = next(filter(None, logs), "")
            parts = ((KERNEL, quoted(log, _SPLAT)),) if log else ()
            return quoted(one.told, _CONSOLE), parts
    tail = "\n".join(consoles.tail(kernel.console_tail, _CONSOLE).lines)
    return quoted(tail, _CONSOLE), ()


def quoted(text: str, most: int) -> str:
    """The last ``most`` lines of ``text``, and how many came before them."""
    return said(*last_lines(text, most, _COLUMNS))


def said(lines: Sequence[str], left_out: int) -> str:
    """``lines`` as one text, which says how many were left out."""
    head = [f"... {counted(left_out, 'line')} before these left out"] if left_out else []
    return "\n".join([*head, *lines])


def runs_of_lines(text: str) -> Iterator[tuple[bool, str]]:
    """``text`` in pieces: those that say what went wrong, and those between them."""
    lines = text.splitlines(keepends=True)
    for wrong, group in groupby(lines, key=lambda line: bool(_ERROR.match(line))):
        yield wrong, "".join(group)


def _chips(cause: Cause, results: Results) -> tuple[tuple[Chip, ...], str]:
    """The kernels it holds on, and how the same fared on the others; these may be a number."""
    held = {kernel.kernel for kernel in cause.kernels}
    ran = [*(test for _, test in cause.tests), *while_it_ran(cause)]
    tests = {(test.suite, test.test) for test in ran}
    programs = {(load.object, load.program) for _, load in cause.loads}
    chips = []
    for kernel, of in zip(results.matrix.kernels, results.tests, strict=True):
        if kernel.kernel in held:
            chips.append(Chip(kernel.kernel, "bad", "✗"))
        elif tests:
            outcomes = {of[key].outcome for key in tests if key in of}
            chips.append(Chip(kernel.kernel, *_fared(kernel, outcomes)))
        elif programs:
            chips.append(Chip(kernel.kernel, *_loaded(kernel, programs)))
        else:
            well = kernel.status in WELL
            word = kernel.status.value
            chips.append(Chip(kernel.kernel, *(("good", "✓") if well else ("quiet", "·")), word))
    if len(chips) <= _CHIPS:
        return tuple(chips), ""
    bad = [chip for chip in chips if chip.sign == "✗"]
    rest = len(chips) - min(len(bad), _CHIPS)
    return tuple(bad[:_CHIPS]), f"and {counted(rest, 'other kernel')}"


def _fared(kernel: KernelResult, outcomes: set[Outcome]) -> tuple[str, str, str]:
    """Tone, sign and word of the worst of ``outcomes``."""
    for outcome, words in _WORDS.items():
        if outcome in outcomes:
            return words
    return "quiet", "·", kernel.status.value if not kernel.tests else "no such test"


def _loaded(kernel: KernelResult, programs: set[Key]) -> tuple[str, str, str]:
    of = [load.verdict for load in kernel.loads if (load.object, load.program) in programs]
    if bad := next((verdict for verdict in of if verdict.bad), None):
        return "bad", "F", f"{bad.value} otherwise"
    if not of:
        return "quiet", "·", kernel.status.value if not kernel.loads else "no such program"
    worst = next((verdict for verdict in of if verdict is not of[0]), of[0])
    tone = loads.mark_of_verdict(worst).tone.value
    return tone, "✓" if tone == "good" else "-", worst.value


def _variants(cause: Cause, parametrized: Parametrized) -> Iterator[str]:
    """``1 of 3 variants of test_x: [b] and [c] passed``, a line for each test with parameters."""
    failed = list(parametrized.of(cause))
    for one in failed[:_VARIANTS]:
        if len(one.every) == 1:
            continue
        name = printable(split_node_id(one.function)[2])
        passed = list(parametrized.passed(one, cause))
        told = [printable(f"[{well.partition('[')[2]}") for well in passed[:_NAMED]]
        if len(passed) > _NAMED:
            told[-1] = counted(len(passed) - _NAMED + 1, "more", "more")
        which = f"; passed here: {', '.join(told)}" if told else ""
        yield f"{one.many} variants of {name}{which}"
    if len(failed) > _VARIANTS:
        yield f"and variants of {len(failed) - _VARIANTS} more tests"
