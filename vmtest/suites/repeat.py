"""``--repeat``: all tests run several times, each time in a fresh guest, and how often they fail.

Pure but for the guests that it is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from vmtest.errors import VmtestError, os_words
from vmtest.model.rates import Rate
from vmtest.model.results import (
    KernelResult,
    Outcome,
    Repeated,
    Status,
    TestResult,
    with_complaints,
)
from vmtest.model.versions import unique

UNTIL_FAIL = 100
"""How often a run is repeated at most until something fails."""
_FAILED = (Outcome.FAILED, Outcome.ERROR, Outcome.XPASSED, Outcome.LOST)
_COUNTED = (Outcome.PASSED, Outcome.FAILED, Outcome.ERROR)
_NO_RUN = (Status.INFRA_ERROR, Status.CANCELLED, Status.NO_TESTS)
_SHOWN = 5  # tests that a note names

RunOnce = Callable[[int], KernelResult]
"""Runs all tests; the argument is the number of the run, from 0.  Raises VmtestError or OSError
where there is no guest."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """How often all tests run; with ``until_fail`` not any more once something has failed."""

    times: int = 1
    until_fail: bool = False


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why there was no further run."""

    status: Status
    reason: str


def run(once: RunOnce, repeat: Repeat, cancelled: Callable[[], bool]) -> KernelResult:
    """The kernel's result after ``repeat``; raises what the first run raises.

    It is that of the first run that did not pass; its note has how often each test failed.
    """
    ends: list[KernelResult] = []
    problem = None
    for number in range(repeat.times):
        try:
            one = once(number)
        except (VmtestError, OSError) as error:
            if not ends:
                raise
            problem = _no_guest(error, number, repeat, cancelled=cancelled())
            break
        if ends and one.status in _NO_RUN:
            problem = _Problem(one.status, f"{_which(number, repeat)}: {one.reason}")
            break
        ends.append(one)
        failed = one.status is not Status.PASSED
        if one.status in _NO_RUN or (failed and (repeat.until_fail or not one.tests)):
            break
    return ends[0] if len(ends) == repeat.times == 1 else _joined(ends, problem, repeat)


def _no_guest(error: Exception, number: int, repeat: Repeat, *, cancelled: bool) -> _Problem:
    if cancelled:
        return _Problem(Status.CANCELLED, f"interrupted before {_which(number, repeat)}")
    words = os_words(error) if isinstance(error, OSError) else str(error)
    return _Problem(Status.INFRA_ERROR, f"{_which(number, repeat)} had no guest: {words}")


def _which(number: int, repeat: Repeat) -> str:
    return f"run {number + 1} of {repeat.times}"


def _joined(ends: Sequence[KernelResult], problem: _Problem | None, repeat: Repeat) -> KernelResult:
    """One result: the first run that failed, or why there was none after those that passed."""
    found = [n for n, one in enumerate(ends) if one.status is not Status.PASSED]
    told = ends[found[0]] if found else ends[-1]
    status, reason = told.status, told.reason
    if found:
        reason = f"{_which(found[0], repeat)}: {reason}"
    if problem is not None and (not found or problem.status is Status.CANCELLED):
        status, reason = problem.status, problem.reason
    notes = [note for one in ends for note in one.note.split("; ") if note]
    if problem is not None and problem.reason != reason:
        notes.append(problem.reason)
    result = replace(
        told,
        status=status,
        reason=reason,
        tests=_tests(ends),
        repeated=_repeated(ends),
        note="; ".join((*unique(notes), *_rates(ends, len(found)))),
    )
    return with_complaints(result, ends)


def _rows(one: KernelResult) -> Iterator[tuple[tuple[str, str, int], TestResult]]:
    """Each test with its key: suite, id, and the how many-eth of that id it is."""
    before: Counter[tuple[str, str]] = Counter()
    for test in one.tests:
        yield (test.suite, test.test, before[test.suite, test.test]), test
        before[test.suite, test.test] += 1


def _tests(ends: Sequence[KernelResult]) -> tuple[TestResult, ...]:
    """Each test as it first failed, else as it last ran."""
    found: dict[tuple[str, str, int], TestResult] = {}
    for one in ends:
        for key, test in _rows(one):
            known = found.get(key)
            if known is None or (known.outcome not in _FAILED and _says_more(test, known)):
                found[key] = test
    return tuple(found.values())


def _repeated(ends: Sequence[KernelResult]) -> tuple[Repeated, ...]:
    """How often each test failed, as ``flaky`` counts it: without what says more of the kernel."""
    found: dict[tuple[str, str], list[int]] = {}
    for one in ends:
        for test in one.tests:
            if test.outcome in _COUNTED:
                counts = found.setdefault((test.suite, test.test), [0, 0])
                counts[0] += test.outcome is not Outcome.PASSED
                counts[1] += 1
    return tuple(Repeated(*key, failed, ran) for key, (failed, ran) in found.items())


def _says_more(test: TestResult, known: TestResult) -> bool:
    return test.outcome.ran or not known.outcome.ran


def _rates(ends: Sequence[KernelResult], failed: int) -> Iterator[str]:
    """How often the kernel and each of its tests failed."""
    if not ends:
        return
    yield f"failed in {Rate(failed, len(ends)).words('runs')}"
    ran: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for one in ends:
        for test in one.tests:
            ran[test.test] += test.outcome.ran
            bad[test.test] += test.outcome in _FAILED
    often = [(test, count) for test, count in bad.most_common() if count]
    for name, count in often[:_SHOWN]:
        yield f"{name} failed in {Rate(count, ran[name])}"
    if len(often) > _SHOWN:
        yield f"{len(often) - _SHOWN} more tests failed"
