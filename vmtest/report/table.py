"""What the reports say, before anyone decides how it looks: ``Matrix`` -> rows, findings, summary.

A row of tests is shown when it tells kernels apart or is not a pass: a row in
which every kernel either passed or has nothing to say (its VM ended before, or
the test does not exist there) folds into its suite's line, which counts both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from vmtest.model.results import (
    KernelResult,
    Matrix,
    Outcome,
    Status,
    TestResult,
    exit_status,
    ran_nothing,
)
from vmtest.model.text import one_line, printable
from vmtest.model.versions import unique
from vmtest.report.text import counted, seconds
from vmtest.runs.folder import LOG as COMMAND_LOG


class Tone(StrEnum):
    """How a piece of text is meant; it never carries what its letters do not."""

    GOOD = "good"
    BAD = "bad"
    WARN = "warn"
    QUIET = "quiet"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a cell."""

    text: str
    tone: Tone = Tone.PLAIN


Cell = tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A label and one cell a kernel."""

    label: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class SuiteRows:
    """A suite's line and below it the tests that are not a pass everywhere.

    ``loader`` is the libbpf or other library that loaded, where several did; "" otherwise.
    """

    suite: Row
    tests: tuple[Row, ...]
    loader: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Facts of the kernels, then suites and tests down; kernels across."""

    kernels: tuple[str, ...]
    facts: tuple[Row, ...]
    suites: tuple[SuiteRows, ...]

    @property
    def loaders(self) -> bool:
        """Whether there is a column for the library that loaded."""
        return any(suite.loader for suite in self.suites)

    def fact(self, label: str) -> Row | None:
        """The row of facts that has this label."""
        return next((row for row in self.facts if row.label == label), None)


@dataclass(frozen=True, slots=True)
class Excuse:
    """A test that was skipped, is not applicable or failed as expected, why and where."""

    label: str
    mark: str
    reason: str
    kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)  # each is the only one of its kind
class _Sign:
    mark: str
    word: str
    tone: Tone


_SIGNS = {  # from the worst down, which is the order inside a suite's cell
    Outcome.FAILED: _Sign("FAIL", "FAILED", Tone.BAD),
    Outcome.ERROR: _Sign("ERR", "ERROR", Tone.BAD),
    Outcome.XPASSED: _Sign("XPASS", "XPASSED", Tone.BAD),
    Outcome.LOST: _Sign("LOST", "LOST", Tone.BAD),
    Outcome.NOT_RUN: _Sign("-", "not run", Tone.WARN),
    Outcome.COLLECTED: _Sign("listed", "collected", Tone.QUIET),
    Outcome.PASSED: _Sign("PASS", "passed", Tone.GOOD),
    Outcome.XFAILED: _Sign("xfail", "xfailed", Tone.WARN),
    Outcome.SKIPPED: _Sign("skip", "skipped", Tone.WARN),
    Outcome.NOT_APPLICABLE: _Sign("n-a", "n-a", Tone.QUIET),
}
_FLAKY = _Sign("flaky", "flaky", Tone.WARN)
_ABSENT = _Sign("-", "no tests", Tone.QUIET)
_CELLS: dict[_Sign, Cell] = {
    sign: (Line(sign.mark, sign.tone),) for sign in (*_SIGNS.values(), _FLAKY, _ABSENT)
}

_COUNTED = list(_SIGNS.values())
_COUNTED.insert(list(_SIGNS).index(Outcome.PASSED), _FLAKY)  # in front of the other passes

LEGEND = {
    "ERR": "error outside the test itself",
    "XPASS": "passed, though known to fail",
    "xfail": "fails, as known",
    "n-a": "not applicable to that kernel",
    "LOST": "no result, because the VM ended while it ran, or the command never told one",
    "flaky": "passed only when repeated",
    "-": "no result: not reached, left out, or not there",
}
"""What the marks mean that do not speak for themselves."""

_FACTS = {
    "tcg": "emulated, without KVM",
    "warm": "restored from a snapshot of a booted guest",
    "cold": "booted",
    "no gate": "does not decide the exit status",
}
"""What the words in the rows of facts mean."""

_STATUS_TONE = {
    Status.PASSED: Tone.GOOD,
    Status.COLLECTED: Tone.QUIET,
    Status.NO_TESTS: Tone.WARN,
    Status.CANCELLED: Tone.WARN,
}
_STATUS_WORD = {
    Status.BOOT_FAILED: "boot failed",
    Status.NO_TESTS: "without tests",
    Status.PANICKED: "panicked",
    Status.TIMED_OUT: "timed out",
    Status.SPLAT: "with a kernel splat",
    Status.INFRA_ERROR: "infrastructure error",
}
WELL = (Status.PASSED, Status.COLLECTED)
_CUT_OFF = (Status.PANICKED, Status.LOST, Status.TIMED_OUT, Status.CANCELLED)
"""The statuses that need no word of explanation."""
_IDLE = {Outcome.NOT_RUN, Outcome.COLLECTED}
_EXCUSES = (Outcome.SKIPPED, Outcome.NOT_APPLICABLE, Outcome.XFAILED)
WRONG = (Outcome.FAILED, Outcome.ERROR, Outcome.XPASSED, Outcome.LOST)
"""The outcomes that are told as failures: the bad ones, and lost with the VM."""


def tone_of(status: Status) -> Tone:
    """How bad ``status`` is."""
    return _STATUS_TONE.get(status, Tone.BAD)


def build(matrix: Matrix) -> Table:
    """The table of ``matrix``."""
    tests = [(kernel, _by_suite(kernel)) for kernel in matrix.kernels]
    labels = labels_of(matrix)
    return Table(
        tuple(printable(kernel.kernel) for kernel in matrix.kernels),
        tuple(_facts(matrix.kernels)),
        tuple(
            SuiteRows(
                Row(
                    printable(suite),
                    tuple(_suite_cell(kernel, of.get(suite, ())) for kernel, of in tests),
                ),
                tuple(_test_rows([of.get(suite, ()) for _, of in tests], suite, labels)),
            )
            for suite in suites_of(matrix)
        ),
    )


def shortened(table: Table, most: int) -> tuple[Table, int]:
    """``table`` with at most ``most`` rows of tests, and how many it lost.

    Rows that tell kernels apart stay before those that are the same everywhere.
    """
    rows = [row for suite in table.suites for row in suite.tests]
    if len(rows) <= most:
        return table, 0
    ranked = sorted(range(len(rows)), key=lambda n: (len(set(rows[n].cells)) == 1, n))
    kept = {id(rows[n]) for n in ranked[:most]}
    suites = tuple(
        replace(suite, tests=tuple(row for row in suite.tests if id(row) in kept))
        for suite in table.suites
    )
    return replace(table, suites=suites), len(rows) - most


def suites_of(matrix: Matrix) -> tuple[str, ...]:
    """The matrix's suites, and any that only its tests name."""
    return unique([*matrix.suites, *(t.suite for k in matrix.kernels for t in k.tests)])


def log_of_tests(matrix: Matrix, kernel: KernelResult) -> str:
    """The file in the folder of ``kernel`` that holds what its tests said in full.

    pytest prints its tracebacks at its end, which it does not reach in a VM that dies.
    """
    if matrix.command:
        return COMMAND_LOG
    return "results.jsonl" if kernel.status in _CUT_OFF else "pytest.log"


def fullest_log(matrix: Matrix, kernels: Sequence[KernelResult]) -> tuple[KernelResult, str]:
    """Of ``kernels``, all with the same failure, one and its log: with tracebacks if one has."""
    whole = (kernel for kernel in kernels if kernel.status not in _CUT_OFF)
    kernel = next(whole, kernels[0])
    return kernel, log_of_tests(matrix, kernel)


def each_test(matrix: Matrix) -> tuple[tuple[str, str], ...]:
    """Suite and node id of every test of any kernel, in the order of the rows."""
    place = {suite: n for n, suite in enumerate(suites_of(matrix))}
    found = dict.fromkeys((t.suite, t.test) for k in matrix.kernels for t in k.tests)
    return tuple(sorted(found, key=lambda key: place[key[0]]))


@lru_cache(maxsize=1 << 14)
def split_node_id(test: str) -> tuple[str, tuple[str, ...], str]:
    """File, classes, and name with parameters (which may hold ``::`` and ``/`` of their own)."""
    head, bracket, parameters = test.partition("[")
    file, *names = head.split("::")
    if not names:
        return "", (), test
    return file, tuple(names[:-1]), names[-1] + bracket + parameters


def labels_of(matrix: Matrix) -> dict[tuple[str, str], str]:
    """A short name for every suite and node id: the test's own where no other of its suite has it.

    Then with its class and file in front.
    """
    keys = each_test(matrix)
    short = {key: split_node_id(key[1])[2] for key in keys}
    uses: dict[tuple[str, str], int] = {}
    for key in keys:
        used = (key[0], short[key])
        uses[used] = uses.get(used, 0) + 1
    return {
        key: printable(short[key] if uses[key[0], short[key]] == 1 else key[1]).replace("\n", " ")
        for key in keys
    }


def marks(table: Table) -> tuple[str, ...]:
    """The marks that the rows of tests use and that need a word, for a legend."""
    used = {
        line.text
        for suite in table.suites
        for row in suite.tests
        for cell in row.cells
        for line in cell
    }
    return tuple(mark for mark in LEGEND if mark in used)


def legend(table: Table) -> tuple[str, ...]:
    """A line on the words in the rows of facts, and one on the marks of tests, of those used."""
    rows = {row.label: {line.text for cell in row.cells for line in cell} for row in table.facts}
    kinds = {word for text in rows.get("start", ()) for word in text.split("+")}
    words = [word for word in ("no gate",) if word in rows.get("status", ())]
    words += [word for word in ("tcg",) if word in rows.get("accelerator", ())]
    words += [word for word in ("warm", "cold") if word in kinds]
    facts = [f"{word}: {_FACTS[word]}" for word in words]
    if "deadlines" in rows:
        longest = max(rows["deadlines"], key=lambda text: float(text[1:]))
        facts.append(f"deadlines {longest}: time limits so many times longer, as the host is slow")
    lines = "; ".join(facts), "; ".join(f"{mark}: {LEGEND[mark]}" for mark in marks(table))
    return tuple(filter(None, lines))


def excuses(matrix: Matrix) -> tuple[Excuse, ...]:
    """Tests that were skipped, are not applicable or failed as known, with reason and kernels."""
    found: dict[tuple[str, str, Outcome, str], list[str]] = {}
    for kernel in matrix.kernels:
        for test in kernel.tests:
            if test.outcome in _EXCUSES:
                key = (test.suite, test.test, test.outcome, one_line(test.message))
                found.setdefault(key, []).append(printable(kernel.kernel))
    labels = labels_of(matrix) if found else {}
    place = {key: n for n, key in enumerate(labels)}
    return tuple(
        Excuse(labels[suite, test], _SIGNS[outcome].mark, reason, tuple(kernels))
        for (suite, test, outcome, reason), kernels in sorted(
            found.items(), key=lambda item: place[item[0][0], item[0][1]]
        )
    )


@dataclass(frozen=True, slots=True)
class Unreached:
    """Tests without a result, why, and the kernels on which it was so."""

    labels: tuple[str, ...]
    reason: str
    kernels: tuple[str, ...]


_STOPS = ("-x", "--exitfirst", "--maxfail", "--stepwise", "--sw")
_ENDED = {
    Status.PANICKED: "the kernel panicked before",
    Status.TIMED_OUT: "a time limit ended the VM before",
    Status.LOST: "the VM ended before",
    Status.CANCELLED: "the run was interrupted before",
    Status.INFRA_ERROR: "there was no guest to run them",
    Status.BOOT_FAILED: "there was no guest to run them",
}


def unreached(matrix: Matrix) -> tuple[Unreached, ...]:
    """The tests that did not run, those together that share reason and kernels."""
    labels = labels_of(matrix)
    found: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for kernel in matrix.kernels:
        reasons: dict[str, list[str]] = {}
        for test in kernel.tests:
            if test.outcome is Outcome.NOT_RUN:
                reason = one_line(test.message) or _why_not_run(kernel, matrix)
                reasons.setdefault(reason, []).append(labels[test.suite, test.test])
        for reason, names in reasons.items():
            found.setdefault((tuple(names), reason), []).append(printable(kernel.kernel))
    return tuple(Unreached(*key, tuple(kernels)) for key, kernels in found.items())


def _why_not_run(kernel: KernelResult, matrix: Matrix) -> str:
    if reason := _ENDED.get(kernel.status):
        return reason
    given = [word for group in matrix.again[1:] for word in group]
    stop = next((word for word in given if word.partition("=")[0] in _STOPS), "")
    return f"pytest stopped at a failure ({stop})" if stop else "pytest ended before"


def never_ran(matrix: Matrix) -> tuple[str, ...]:
    """Labels of tests that every kernel skipped or found not applicable.

    A test that no kernel even reached (its VMs died before) is not among them.
    """
    outcomes: dict[tuple[str, str], set[Outcome]] = {}
    for kernel in matrix.kernels:
        for test in kernel.tests:
            outcomes.setdefault((test.suite, test.test), set()).add(test.outcome)
    return tuple(
        label
        for key, label in labels_of(matrix).items()
        if not any(o.ran for o in outcomes[key]) and not outcomes[key] <= _IDLE
    )


def troubled(matrix: Matrix) -> tuple[KernelResult, ...]:
    """Kernels that have something to say beyond their tests: reason, note, splat or console.

    That some of its tests or loads failed is said by these themselves.
    """

    def speaks(kernel: KernelResult) -> bool:
        if kernel.note or kernel.splats:
            return True
        if kernel.status is Status.FAILED and (kernel.count(*WRONG) or kernel.loads):
            return bool(kernel.console_tail)
        return kernel.status not in WELL

    return tuple(kernel for kernel in matrix.kernels if speaks(kernel))


def only_noted(kernel: KernelResult) -> bool:
    """Whether a note is all that there is to say about ``kernel``."""
    return kernel.status in WELL and not kernel.splats


def mark_of(result: TestResult) -> Line:
    """The letters of a test's outcome."""
    return _CELLS[_sign_of(result)][0]


def _sign_of(result: TestResult) -> _Sign:
    return _FLAKY if _is_flaky(result) else _SIGNS[result.outcome]


def accelerators(kernels: Iterable[KernelResult]) -> str:
    """``kvm``, or ``kvm and tcg`` where they differ."""
    return " and ".join(sorted({kernel.accelerator for kernel in kernels} - {""}))


def summary_of_kernels(matrix: Matrix) -> str:
    """``4 kernels: 3 passed, 1 failed (exit status 1)``."""
    parts = []
    for status in Status:
        of = [kernel for kernel in matrix.kernels if kernel.status is status]
        if of:
            word = _STATUS_WORD.get(status, status.value.lower())
            free = sum(not kernel.gate for kernel in of)
            aside = "" if status in WELL or not free else f" ({free} without gate)"
            parts.append(f"{len(of)} {word}{aside}")
    head = counted(len(matrix.kernels), "kernel")
    stop = "interrupted, " if matrix.interrupted else ""
    code = exit_status(matrix)
    why = ": nothing ran" if code in (3, 5) and ran_nothing(matrix) else ""
    return f"{head}: {', '.join(parts) or 'nothing to do'} ({stop}exit status {code}{why})"


def summary_of_tests(matrix: Matrix) -> str:
    """``12 tests``, or ``48 results of 12 tests (2 FAILED, 6 not run)``: one for each kernel."""
    results = [test for kernel in matrix.kernels for test in kernel.tests]
    passed = _SIGNS[Outcome.PASSED].word
    others = [line.text for line in _counts(results) if not line.text.endswith(f" {passed}")]
    distinct = counted(len({(test.suite, test.test) for test in results}), "test")
    several = sum(bool(kernel.tests) for kernel in matrix.kernels) > 1
    told = f"{counted(len(results), 'result')} of {distinct}" if several else distinct
    return told + (f" ({', '.join(others)})" if others else "")


def summary(matrix: Matrix, loads: str = "") -> str:
    """``2 kernels: 1 passed, 1 failed (exit status 1), 8 results of 4 tests (1 FAILED), 81.3 s``.

    At the end stands the accelerator: ``kvm``, or ``emulated (tcg)``.
    ``loads`` stands in the place of the tests where there were loads and no tests.
    """
    parts = [
        summary_of_kernels(matrix),
        loads or summary_of_tests(matrix),
        seconds(matrix.duration),
        accelerators(matrix.kernels).replace("tcg", "emulated (tcg)"),
    ]
    return ", ".join(part for part in parts if part)


def _facts(kernels: Sequence[KernelResult]) -> Iterable[Row]:
    def row(label: str, texts: Iterable[str]) -> Row:
        return Row(label, tuple((Line(printable(text) or "-"),) for text in texts))

    yield Row("status", tuple(_status_cell(kernel) for kernel in kernels))
    yield row("version", (kernel.version or kernel.release for kernel in kernels))
    if any(kernel.release not in ("", kernel.version) and kernel.version for kernel in kernels):
        yield row("release", (kernel.release for kernel in kernels))
    yield row("accelerator", (kernel.accelerator for kernel in kernels))
    if any(kernel.libbpf for kernel in kernels if kernel.loads):
        yield row("libbpf", (kernel.libbpf for kernel in kernels))
    yield row("boot", (seconds(k.boot_seconds) if k.boot_seconds else "" for k in kernels))
    if any("warm" in kernel.start for kernel in kernels):
        yield row("start", (kernel.start for kernel in kernels))
    yield row("time", (seconds(k.duration) if k.duration else "" for k in kernels))
    if any(kernel.factor != 1.0 for kernel in kernels):
        yield row("deadlines", (f"x{kernel.factor:.1f}" for kernel in kernels))


def _status_cell(kernel: KernelResult) -> Cell:
    status = Line(kernel.status.value, tone_of(kernel.status))
    return (status,) if kernel.gate else (status, Line("no gate", Tone.QUIET))


def _by_suite(kernel: KernelResult) -> dict[str, list[TestResult]]:
    found: dict[str, list[TestResult]] = {}
    for test in kernel.tests:
        found.setdefault(test.suite, []).append(test)
    return found


def _suite_cell(kernel: KernelResult, tests: Sequence[TestResult]) -> Cell:
    if not kernel.tests and kernel.status is not Status.PASSED:
        return (Line(kernel.status.value, tone_of(kernel.status)),)
    return _counts(tests) or (Line(_ABSENT.word, _ABSENT.tone),)


def _counts(results: Iterable[TestResult]) -> Cell:
    found = Counter(map(_sign_of, results))
    return tuple(Line(f"{found[s]} {s.word}", s.tone) for s in _COUNTED if found[s])


def _test_rows(
    of: Sequence[Sequence[TestResult]], suite: str, labels: Mapping[tuple[str, str], str]
) -> Iterable[Row]:
    """A row a test of ``suite``; ``of`` are those of each kernel."""
    found = [{test.test: test for test in tests} for tests in of]
    for key, label in labels.items():
        if key[0] != suite:
            continue
        results = [tests.get(key[1]) for tests in found]
        if any(result is not None and _is_telling(result) for result in results):
            signs = [_ABSENT if result is None else _sign_of(result) for result in results]
            yield Row(label, tuple([_CELLS[sign] for sign in signs]))


def _is_telling(result: TestResult) -> bool:
    return result.outcome not in (Outcome.PASSED, *_IDLE) or _is_flaky(result)


def _is_flaky(result: TestResult) -> bool:
    return result.flaky and result.outcome is Outcome.PASSED
