"""Whether a kernel's result means good, bad or neither to a bisect, and why.  Pure.

A test or a program that is bad is never told apart from an infrastructure fault by guessing: what
did not run under the test is SKIP.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from vmtest.bisect import ways
from vmtest.bisect.search import Verdict
from vmtest.errors import KernelBuildFailed
from vmtest.model.results import KernelResult, Outcome, Status, TestResult

_NOTHING_RAN = (Outcome.SKIPPED, Outcome.NOT_APPLICABLE, Outcome.NOT_RUN)
_BAD = (Outcome.FAILED, Outcome.ERROR, Outcome.XPASSED, Outcome.LOST)
_ENDED_BADLY = (
    Status.FAILED,
    Status.PANICKED,
    Status.TIMED_OUT,
    Status.LOST,
    Status.SPLAT,
)
_MACHINES_FAULT = (Status.INFRA_ERROR, Status.CANCELLED)
_LONGEST = 400


@dataclass(frozen=True, slots=True)
class Observation:
    """One kernel, asked once.

    ``why`` is one line, ``facts`` pairs of a test or load and what became of it, ``release`` is
    "" when it did not come up, ``folder`` is where its logs are, relative to the run's folder.
    ``faulty`` says that the machine (a network, a disk) kept it from telling: asked again it may.
    ``gone`` is what a refused load lacked, as the kernel's source writes it ("" where nothing that
    has a name there), or a symbol of its config.  ``way`` is how it failed
    (``vmtest.bisect.ways``), none where that is not known, ``beside`` what the kernel complained
    of besides.
    """

    verdict: Verdict
    why: str
    facts: tuple[tuple[str, str], ...] = ()
    release: str = ""
    folder: str = ""
    faulty: bool = False
    gone: str = ""
    way: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def unbuilt(error: KernelBuildFailed) -> Observation:
    """SKIP: what does not build tells nothing."""
    why = str(error).partition(": ")[2]  # without the name, which stands before it already
    return Observation(Verdict.SKIP, short(f"does not build: {why}"))


def verdict_of(one: Observation, way: Collection[str] = ()) -> Verdict:
    """What ``one`` says where only a failure in this ``way`` is bad; none counts any failure."""
    known = one.verdict is Verdict.BAD and one.way and way
    return Verdict.OTHER if known and not {*one.way, *one.beside} & {*way} else one.verdict


def combined(seen: Sequence[Observation], way: Collection[str] = ()) -> Verdict:
    """The verdict of a point that was asked several times: FLAKY when it told both.

    ``way`` as for :func:`verdict_of`; OTHER where it told nothing else.
    """
    verdicts = [verdict_of(one, way) for one in seen]
    told = {verdict for verdict in verdicts if verdict.tells}
    if len(told) == 2:
        return Verdict.FLAKY
    if told:
        return told.pop()
    return Verdict.OTHER if Verdict.OTHER in verdicts else Verdict.SKIP


def of_tests(result: KernelResult, folder: str, ended: str = "") -> Observation:
    """GOOD when the tests passed, BAD when one did not or the kernel did not survive them.

    ``ended`` is how a command ended, as its row says it.
    """
    facts = tuple((test.test, _test(test)) for test in result.tests)
    ran = [test for test in result.tests if test.outcome not in _NOTHING_RAN]
    passed = sum(test.outcome is Outcome.PASSED for test in ran)
    why = result.reason or f"{passed} passed"
    if result.status is Status.PASSED and ran:
        verdict = Verdict.GOOD
    elif result.status in _ENDED_BADLY and ran:
        verdict = Verdict.BAD
        failed = [
            f"{t.test}: {_test(t)}"
            for t in ran
            if t.outcome in _BAD and not (t.message and t.message in why)
        ]
        why = "; ".join([f"{result.status}: {why}", *failed[:1]])
    else:
        verdict = Verdict.SKIP
        if result.status is Status.PASSED:
            why = "every test was skipped"
        why = f"{result.status}: {why}"
    one = observation(result, folder, verdict, why, facts)
    return failing(one, ways.of_tests(result, ended)) if verdict is Verdict.BAD else one


def failing(one: Observation, found: ways.Ways) -> Observation:
    """``one`` with how it failed."""
    return replace(one, way=found.way, beside=found.beside)


def observation(
    result: KernelResult,
    folder: str,
    verdict: Verdict,
    why: str,
    facts: tuple[tuple[str, str], ...],
) -> Observation:
    """What ``result`` comes to; SKIP for a fault of the machine is ``faulty``."""
    faulty = verdict is Verdict.SKIP and result.status in _MACHINES_FAULT
    return Observation(verdict, short(why), facts, result.release, folder, faulty)


def _test(test: TestResult) -> str:
    return short(f"{test.outcome}: {test.message}" if test.message else test.outcome.value)


def short(text: str) -> str:
    """``text`` as one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
