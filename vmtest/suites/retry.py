"""Tests that failed run again in a fresh guest; what passes only there is flaky.

All do with ``--retries``, those of ``[[flaky]]`` always.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace

from vmtest.errors import VmtestError, os_words
from vmtest.matrix.complaints import complained
from vmtest.matrix.judge import count_bad, count_unproven, of_tests
from vmtest.model.results import KernelResult, Outcome, Status, TestResult, with_complaints
from vmtest.model.versions import unique
from vmtest.suites.isolate import Group, Isolation, groups

_FAILED = (Outcome.FAILED, Outcome.ERROR)
_ENDED = (Status.FAILED, Status.PANICKED, Status.TIMED_OUT, Status.LOST)
"""What a kernel came to whose failed tests are worth another guest."""
_NO_GUEST = (Status.INFRA_ERROR, Status.CANCELLED)
_SHOWN = 5  # tests that a note names
_AGAIN = "when failed tests ran again"

RunAgain = Callable[[Group, tuple[TestResult, ...], int], KernelResult]
"""Runs the tests of a group in a fresh guest, all others having the given results; the last is
the number of the retry, from 1.  Raises VmtestError or OSError where there is no guest."""


@dataclass(slots=True)
class _Retries:
    """What came of the retries so far: the results as they stand, and the guests' ends."""

    tests: tuple[TestResult, ...]
    ends: list[KernelResult] = field(default_factory=list)
    problem: str = ""
    cancelled: bool = False
    ran: set[str] = field(default_factory=set)


def run(
    first: KernelResult,
    retries: int,
    isolation: Isolation | None,
    run_again: RunAgain,
    cancelled: Callable[[], bool],
    flaky: Container[str] = (),
) -> KernelResult:
    """The kernel's result after its failed tests ran again, up to ``retries`` times each.

    Those whose ids are in ``flaky`` run again at least once.  They share a fresh guest, or have one
    each suite, file or test by ``isolation``.  Modules that could not be read and unexpected
    passes are not run again.
    """
    state = _Retries(first.tests)
    for number in range(1, max(retries, 1) + 1):
        failed = tuple(
            test
            for test in state.tests
            if _is_retried(test) and (number <= retries or test.test in flaky)
        )
        if first.status not in _ENDED or not failed or state.problem or state.cancelled:
            break
        for group in _groups(failed, isolation):
            _one_guest(state, group, number, run_again, cancelled)
            if state.problem or state.cancelled:
                break
    if not (state.ends or state.problem or state.cancelled):
        return first
    return _judged(first, state)


def _is_retried(test: TestResult) -> bool:
    return test.outcome in _FAILED and "::" in test.test


def _groups(failed: Sequence[TestResult], isolation: Isolation | None) -> tuple[Group, ...]:
    if isolation is None:
        return (Group("", tuple(test.test for test in failed)),)
    return groups([replace(test, outcome=Outcome.NOT_RUN) for test in failed], isolation)


def _one_guest(
    state: _Retries,
    group: Group,
    number: int,
    run_again: RunAgain,
    cancelled: Callable[[], bool],
) -> None:
    """Run ``group`` again, and take what came of it into ``state``."""
    left = Counter(group.tests)
    others = []
    for test in state.tests:
        if _is_retried(test) and left[test.test] > 0:
            left[test.test] -= 1
        else:
            others.append(test)
    try:
        one = run_again(group, tuple(others), number)
    except (VmtestError, OSError) as error:
        words = os_words(error) if isinstance(error, OSError) else str(error)
        state.cancelled, state.problem = cancelled(), words
        return
    state.ends.append(one)
    state.ran.update(group.tests)
    state.tests = _with(state.tests, one.tests)
    state.cancelled = one.status is Status.CANCELLED
    state.problem = one.reason if one.status is Status.INFRA_ERROR else ""


def _with(tests: Sequence[TestResult], again: Sequence[TestResult]) -> tuple[TestResult, ...]:
    """``tests``, where one of ``again`` has passed as flaky: it says how it had failed."""
    passed = Counter(test.test for test in again if test.outcome is Outcome.PASSED)
    found = []
    for test in tests:
        if _is_retried(test) and passed[test.test] > 0:
            passed[test.test] -= 1
            test = replace(test, outcome=Outcome.PASSED, flaky=True)
        found.append(test)
    return tuple(found)


def _judged(first: KernelResult, state: _Retries) -> KernelResult:
    """One result: what the first guest died of stands, and what a later one died of counts."""
    status, reason = first.status, first.reason
    if status is Status.FAILED:
        status, reason = _of_failed(first, state)
    if state.cancelled:
        status, reason = Status.CANCELLED, "interrupted while failed tests ran again"
    every = (note for one in (first, *state.ends) for note in one.note.split("; "))
    notes = unique(filter(None, every))
    # The first guest of which it was kept is the one that died.
    died = next((one for one in (first, *state.ends) if one.console_tail), first)
    result = replace(
        first,
        status=status,
        reason=reason,
        tests=state.tests,
        note="; ".join((*notes, *_notes(state))),
        console_tail=() if status is Status.PASSED else died.console_tail,
        console_log=died.console_log,
    )
    return with_complaints(result, (first, *state.ends))


def _of_failed(first: KernelResult, state: _Retries) -> tuple[Status, str]:
    """Status and reason of a kernel whose tests had failed, and nothing else."""
    bad = [test for test in state.tests if test.outcome.bad]
    left = count_unproven(state.tests)
    for one in state.ends:
        failed = one.status is Status.FAILED and any(test.outcome.bad for test in one.tests)
        nothing = one.status is Status.NO_TESTS and bad
        if not (failed or nothing or one.status in (Status.PASSED, *_NO_GUEST)):
            return one.status, f"{_AGAIN}: {one.reason}"
    if bad or left:
        return Status.FAILED, of_tests(state.tests)
    # What failed tests had kept from view, or stood beside: no later guest takes it back.
    for when, one in (("when its tests first ran", first), *((_AGAIN, end) for end in state.ends)):
        if one.status is Status.FAILED and one.reason != of_tests(one.tests):
            return Status.FAILED, f"{when}: {one.reason}"
        others = [test for test in one.tests if test.outcome.bad and test.test not in state.ran]
        if others:
            return Status.FAILED, f"{when}: {count_bad(others)}: {others[0].test}"
    complaints = [each for one in (first, *state.ends) for each in one.complaints]
    if complaints:
        return Status.SPLAT, complained(complaints[0])
    return Status.PASSED, ""


def _notes(state: _Retries) -> list[str]:
    flaky = [test.test for test in state.tests if test.flaky]
    failed = [test.test for test in state.tests if _is_retried(test) and test.test in state.ran]
    notes = []
    if flaky:
        notes.append(f"flaky, passed only when run again in a fresh guest: {_named(flaky)}")
    if failed and state.ends and not (state.problem or state.cancelled):
        notes.append(f"failed again in a fresh guest: {_named(failed)}")
    if state.problem:
        notes.append(f"no fresh guest for the tests that failed: {state.problem}")
    return notes


def _named(tests: Sequence[str]) -> str:
    more = f" and {len(tests) - _SHOWN} more" if len(tests) > _SHOWN else ""
    return ", ".join(tests[:_SHOWN]) + more
