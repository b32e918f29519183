"""Suites that go on in a fresh guest after a test ended theirs: what is left, what comes of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from vmtest.errors import VmtestError, os_words
from vmtest.model.results import KernelResult, Outcome, Status, TestResult, with_complaints

_DEATHS = (Status.PANICKED, Status.TIMED_OUT, Status.LOST)


Boot = Callable[[tuple[TestResult, ...], float], KernelResult]
"""Runs what is left after the given tests in one guest, which earlier guests spent so many seconds
before; raises VmtestError or OSError where there is no guest."""


def run(
    boot: Boot,
    total: float,
    cancelled: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
) -> KernelResult:
    """The kernel's result, with a fresh guest by ``boot`` after each one that a test ended.

    All guests have ``total`` seconds together.  Raises what the first ``boot`` raises.
    """
    deaths: list[KernelResult] = []
    began = clock()
    while True:
        spent = clock() - began
        if deaths and spent >= total:
            return without_guest(deaths, f"no time is left ({total:.0f} s for all guests)")
        try:
            one = boot(ended(deaths), spent)
        except (VmtestError, OSError) as error:
            if not deaths:
                raise
            words = os_words(error) if isinstance(error, OSError) else str(error)
            return without_guest(deaths, words, cancelled=cancelled())
        if not helps(one):
            return joined(deaths, one)
        deaths.append(one)


def helps(one: KernelResult) -> bool:
    """Whether a fresh guest gets further than ``one``: it died with tests left, but not at once."""
    outcomes = {test.outcome for test in one.tests}
    return one.status in _DEATHS and Outcome.NOT_RUN in outcomes and len(outcomes) > 1


def ended(deaths: Iterable[KernelResult]) -> tuple[TestResult, ...]:
    """The tests that came to an end, their guest's included."""
    tests = (test for death in deaths for test in death.tests)
    return tuple(test for test in tests if test.outcome is not Outcome.NOT_RUN)


def joined(deaths: Sequence[KernelResult], last: KernelResult) -> KernelResult:
    """The kernel's result: ``last``, after the guests that died.

    The first death says what became of the kernel; an interrupt goes before.
    """
    if not deaths:
        return last
    first, all_of_them = deaths[0], (*deaths, last)
    rest = "passed" if last.status is Status.PASSED else last.reason or last.status.value
    more = "" if len(deaths) == 1 else f"; {len(deaths)} guests ended so"
    cancelled = last.status is Status.CANCELLED
    notes = dict.fromkeys(one.note for one in all_of_them if one.note)
    together = replace(
        last,
        status=Status.CANCELLED if cancelled else first.status,
        reason=f"{first.reason}{more}; in a fresh guest the rest: {rest}",
        tests=(*ended(deaths), *last.tests),
        note="; ".join(notes),
        console_tail=first.console_tail,
        console_log=first.console_log,
    )
    return with_complaints(together, all_of_them)


def without_guest(
    deaths: Sequence[KernelResult], why: str, *, cancelled: bool = False
) -> KernelResult:
    """The kernel's result where the rest have no fresh guest, and ``why``."""
    last = deaths[-1]
    left = tuple(test for test in last.tests if test.outcome is Outcome.NOT_RUN)
    status, why = (Status.CANCELLED, "interrupted") if cancelled else (Status.INFRA_ERROR, why)
    none = replace(last, status=status, reason=why, tests=left, note="")
    return joined(deaths, with_complaints(none, ()))
