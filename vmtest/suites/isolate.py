"""``--isolate``: a guest of its own for each suite, file or test, and what all of them come to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from vmtest.errors import VmtestError, os_words
from vmtest.matrix.judge import of_tests
from vmtest.model.results import KernelResult, Outcome, Status, TestResult, with_complaints
from vmtest.runs.rows import unfinished

_WORST_FIRST = (
    Status.CANCELLED,
    Status.PANICKED,
    Status.TIMED_OUT,
    Status.LOST,
    Status.SPLAT,
    Status.FAILED,
)
_FINE = (Status.PASSED, Status.NO_TESTS)


class Isolation(StrEnum):
    """What has a guest of its own."""

    SUITE = "suite"
    FILE = "file"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Group:
    """The ``tests`` of one guest, in the order in which they run; ``name`` tells it from others."""

    name: str
    tests: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The files that have them, relative to pytest's rootdir, each once."""
        return tuple(dict.fromkeys(test.split("::", 1)[0] for test in self.tests))


def groups(tests: Sequence[TestResult], isolation: Isolation) -> tuple[Group, ...]:
    """Those of ``tests`` that are to run, by guest, in the order of each group's first test.

    A test that is listed twice is in one guest twice.
    """
    found: dict[str, list[str]] = {}
    for test in tests:
        if test.outcome is Outcome.NOT_RUN:
            names = {
                Isolation.SUITE: test.suite,
                Isolation.FILE: test.test.split("::", 1)[0],
                Isolation.TEST: test.test,
            }
            found.setdefault(names[isolation], []).append(test.test)
    return tuple(Group(name, tuple(listed)) for name, listed in found.items())


RunGroup = Callable[[Group, tuple[TestResult, ...], tuple[str, ...]], KernelResult]
"""Runs a group in a guest of its own, after the given results and before the given tests; raises
VmtestError or OSError where there is no guest."""


def run(
    first: KernelResult,
    isolation: Isolation,
    run_group: RunGroup,
    cancelled: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> KernelResult:
    """The kernel's result, each group of the tests that ``first`` listed having its own guest.

    There is at least one.  What a module came to when it was read stands in ``first``.
    """
    listed = groups(first.tests, isolation)
    suites = {test.test: test.suite for test in first.tests}
    read = tuple(test for test in first.tests if test.outcome is not Outcome.NOT_RUN)
    done, ends, began = read, list[tuple[str, KernelResult]](), clock()
    for number, group in enumerate(listed):
        later = tuple(test for other in listed[number + 1 :] for test in other.tests)
        try:
            one = run_group(group, done, later)
        except (VmtestError, OSError) as error:
            words = os_words(error) if isinstance(error, OSError) else str(error)
            status = Status.CANCELLED if cancelled() else Status.INFRA_ERROR
            one = replace(first, status=status, reason=words, tests=(), note="")
            one = with_complaints(one, ())
        one = _with_all(one, [(test, suites[test]) for test in group.tests])
        ends.append((group.name, one))
        done = (*done, *one.tests)
        if one.status in (Status.CANCELLED, Status.INFRA_ERROR):
            done = (*done, *unfinished([(test, suites[test]) for test in later], done))
            break
    return _joined(first, ends, done, _costs(isolation, ends, clock() - began))


def _with_all(one: KernelResult, listed: Sequence[tuple[str, str]]) -> KernelResult:
    """A guest's result with each of the tests ``listed`` for it; the others did not run.

    A guest reads fewer files than the one that listed them: what a conftest.py or a plugin makes
    of the items may differ.
    """
    missing = unfinished(listed, one.tests)
    status, reason = one.status, one.reason
    if missing and status in _FINE:
        more = f", nor {len(missing) - 1} more" if len(missing) > 1 else ""
        name = missing[0].test
        status, reason = Status.LOST, f"{name} was listed, and its guest did not collect it{more}"
    elif missing and status is Status.FAILED and reason == of_tests(one.tests):
        reason = of_tests((*one.tests, *missing))
    return replace(one, status=status, reason=reason, tests=(*one.tests, *missing))


def _costs(isolation: Isolation, ends: Sequence[tuple[str, KernelResult]], seconds: float) -> str:
    tests = sum(test.duration for _, one in ends for test in one.tests)
    return (
        f"{len(ends)} guests, one for each {isolation}: "
        f"{max(seconds - tests, 0.0):.1f} s of {seconds:.1f} s went into them, not into tests"
    )


def _joined(
    first: KernelResult,
    ends: Sequence[tuple[str, KernelResult]],
    tests: tuple[TestResult, ...],
    costs: str,
) -> KernelResult:
    """One result: the worst end is the kernel's, and says in which guest."""
    others = [(name, one) for name, one in ends if one.status not in _FINE]
    worst = min(others, key=_rank)[1] if others else ends[-1][1]
    status = worst.status
    if any(test.outcome.bad for test in tests) and status in (*_FINE, Status.INFRA_ERROR):
        status = Status.FAILED
    notes = dict.fromkeys(note for _, one in ends for note in (one.note,) if note)
    together = replace(
        ends[-1][1],
        status=status,
        reason=_reason(status, others, tests),
        tests=tests,
        note="; ".join((*notes, costs)),
        console_tail=worst.console_tail,
        console_log=worst.console_log,
    )
    return with_complaints(together, (first, *(one for _, one in ends)))


def _reason(
    status: Status, others: Sequence[tuple[str, KernelResult]], tests: Sequence[TestResult]
) -> str:
    """Why the kernel did not pass: the worst of the ``others``, and why the rest did not run."""
    bad = [test for test in tests if test.outcome.bad]
    no_guest = [end for end in others if end[1].status is Status.INFRA_ERROR]
    more = 0
    if status in (*_FINE, Status.FAILED):
        said = [of_tests(tests)] if bad else []
        # pytest or its process ended badly, which no test tells.
        told = [end for end in others if _is_more_than_its_tests(end[1])]
        more = max(len(told) - 1, 0)
        told = [*told[:1], *no_guest]
    else:
        worst = min(others, key=_rank)
        said = []
        told = [worst, *(end for end in no_guest if end is not worst)]
        more = len(others) - len(told)
    said += [f"{name}: {one.reason}" for name, one in told]
    return "; ".join([*said, *([f"{more} more did not pass"] if more else [])])


def _is_more_than_its_tests(one: KernelResult) -> bool:
    return one.status is Status.FAILED and one.reason != of_tests(one.tests)


def _rank(end: tuple[str, KernelResult]) -> int:
    status = end[1].status
    return _WORST_FIRST.index(status) if status in _WORST_FIRST else len(_WORST_FIRST)
