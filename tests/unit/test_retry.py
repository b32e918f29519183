"""``--retries``: a test that failed runs again in a fresh guest, and nothing is hidden by that."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from command import in_process

from vmtest.errors import BootError
from vmtest.matrix.bench import Bench
from vmtest.matrix.judge import of_tests
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.suites import retry
from vmtest.suites.isolate import Group, Isolation
from vmtest.suites.payload import Payload
from vmtest.suites.task import Share, SuitesTask

PASSED, FAILED, LOST = Outcome.PASSED, Outcome.FAILED, Outcome.LOST


def one_test(name: str, outcome: Outcome) -> TestResult:
    message = "" if outcome is PASSED else f"why {name} {outcome}"
    return TestResult(f"t.py::{name}", "s", outcome, message=message)


def ended(status: Status = Status.FAILED, reason: str = "", **outcomes: Outcome) -> KernelResult:
    tests = tuple(one_test(name, outcome) for name, outcome in outcomes.items())
    if status is Status.FAILED:
        reason = reason or of_tests(tests)
    return KernelResult("6.12", status, tests=tests, reason=reason)


class Guests:
    """Fresh guests: each comes to the next of ``ends``."""

    def __init__(self, *ends: KernelResult | Exception) -> None:
        self.ends = list(ends)
        self.ran: list[tuple[str, ...]] = []
        self.others: list[tuple[str, ...]] = []
        self.cancelled = False

    def run(self, group: Group, others: tuple[TestResult, ...], number: int) -> KernelResult:
        self.ran.append(group.tests)
        self.others.append(tuple(test.test for test in others))
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    def after(
        self,
        first: KernelResult,
        retries: int = 1,
        isolation: Isolation | None = None,
        flaky: Container[str] = (),
    ) -> KernelResult:
        return retry.run(first, retries, isolation, self.run, lambda: self.cancelled, flaky)


FIRST = ended(reason="1 failed", a=PASSED, b=FAILED)


def test_what_passes_in_a_fresh_guest_is_flaky_and_says_how_it_had_failed() -> None:
    guests = Guests(ended(Status.PASSED, b=PASSED))
    result = guests.after(FIRST)
    assert (guests.ran, guests.others) == ([("t.py::b",)], [("t.py::a",)])
    assert (result.status, result.reason) == (Status.PASSED, "")
    a, b = result.tests
    assert (a.flaky, b.flaky, b.outcome, b.message) == (False, True, PASSED, "why b failed")
    assert result.note == "flaky, passed only when run again in a fresh guest: t.py::b"


def test_what_fails_again_has_failed() -> None:
    result = Guests(ended(reason="1 failed", b=FAILED)).after(FIRST)
    assert (result.status, result.reason, result.tests) == (
        Status.FAILED,
        "1 failed",
        FIRST.tests,
    )
    assert result.note == "failed again in a fresh guest: t.py::b"


def test_only_what_still_fails_runs_in_the_next_guest() -> None:
    first = ended(reason="2 failed", a=FAILED, b=FAILED)
    guests = Guests(ended(a=PASSED, b=FAILED), ended(Status.PASSED, b=PASSED))
    result = guests.after(first, retries=5)
    assert guests.ran == [("t.py::a", "t.py::b"), ("t.py::b",)]
    assert result.status is Status.PASSED and all(test.flaky for test in result.tests)


@pytest.mark.parametrize("status", [Status.PANICKED, Status.TIMED_OUT, Status.LOST])
def test_the_death_of_the_first_guest_stays_the_status(status: Status) -> None:
    first = ended(status, "it died", a=FAILED, b=LOST)
    guests = Guests(ended(Status.PASSED, a=PASSED))
    result = guests.after(first)
    assert guests.ran == [("t.py::a",)]
    assert (result.status, result.reason) == (status, "it died")
    assert [test.outcome for test in result.tests] == [PASSED, LOST]


@pytest.mark.parametrize("status", [Status.PANICKED, Status.SPLAT, Status.LOST, Status.TIMED_OUT])
def test_what_happens_to_a_later_guest_counts(status: Status) -> None:
    guests = Guests(replace(ended(status, "it died", b=PASSED), splats=("BUG: a",)))
    result = guests.after(FIRST)
    assert (result.status, result.reason) == (status, "when failed tests ran again: it died")
    assert result.splats == ("BUG: a",)


def test_a_test_that_was_not_run_is_not_made_good() -> None:
    first = ended(reason="1 failed, 1 not run", b=FAILED, c=Outcome.NOT_RUN)
    result = Guests(ended(Status.PASSED, b=PASSED)).after(first)
    assert (result.status, result.reason) == (Status.FAILED, "1 not run")


def test_a_suite_without_tests_is_not_hidden_by_a_flaky_test() -> None:
    result = Guests(ended(Status.NO_TESTS, "no tests of the suite x", b=PASSED)).after(FIRST)
    assert result.status is Status.NO_TESTS


@pytest.mark.parametrize("outcome", [Outcome.SKIPPED, Outcome.XFAILED, Outcome.NOT_RUN, LOST])
def test_only_a_pass_makes_a_failure_good(outcome: Outcome) -> None:
    result = Guests(ended(Status.PASSED, b=outcome)).after(FIRST)
    assert (result.status, result.tests) == (Status.FAILED, FIRST.tests)


def test_a_later_pytest_that_went_wrong_behind_its_tests_is_no_pass() -> None:
    result = Guests(ended(Status.FAILED, "its process: killed", b=PASSED)).after(FIRST)
    assert result.status is Status.FAILED and "its process: killed" in result.reason


def test_a_kernel_that_complained_is_no_pass_though_its_tests_pass_again() -> None:
    first = replace(FIRST, splats=("WARNING: late",), fingerprints=("WARNING in f",))
    result = Guests(ended(Status.PASSED, b=PASSED)).after(first)
    assert (result.status, result.splats) == (Status.SPLAT, ("WARNING: late",))
    assert "WARNING: late" in result.reason


def test_a_first_pytest_that_went_wrong_behind_its_tests_is_no_pass() -> None:
    first = replace(FIRST, reason="1 failed; pytest ended, and then its process: SIGSEGV")
    result = Guests(ended(Status.PASSED, b=PASSED)).after(first)
    assert result.status is Status.FAILED and "SIGSEGV" in result.reason


def test_what_a_retry_in_between_was_beside_its_tests_counts() -> None:
    complained = replace(ended(b=FAILED), splats=("BUG: KASAN",), fingerprints=("KASAN in f",))
    result = Guests(complained, ended(Status.PASSED, b=PASSED)).after(FIRST, retries=2)
    assert (result.status, result.splats) == (Status.SPLAT, ("BUG: KASAN",))
    killed = ended(reason="1 failed; pytest ended, and then its process: SIGKILL", b=FAILED)
    result = Guests(killed, ended(Status.PASSED, b=PASSED)).after(FIRST, retries=2)
    assert (result.status, "ran again: 1 failed; pytest" in result.reason) == (Status.FAILED, True)


def test_what_fails_only_in_a_later_guest_has_failed() -> None:
    other = ended(b=PASSED, c=Outcome.ERROR)
    result = Guests(other).after(FIRST)
    assert (result.status, result.reason) == (
        Status.FAILED,
        "when failed tests ran again: 1 with errors: t.py::c",
    )


def test_the_console_whose_end_is_shown_is_named() -> None:
    end = ended(Status.PANICKED, "kernel panicked", b=LOST)
    end = replace(end, console_tail=("Kernel panic",), console_log="console-2.log")
    result = Guests(end).after(FIRST)
    assert (result.console_tail, result.console_log) == (("Kernel panic",), "console-2.log")


@pytest.mark.parametrize("end", [BootError("no QEMU"), ended(Status.INFRA_ERROR, "no QEMU")])
def test_without_a_fresh_guest_the_failure_stands_and_says_why(
    end: KernelResult | Exception,
) -> None:
    guests = Guests(end)
    result = guests.after(FIRST, retries=3)
    assert (result.status, result.tests, len(guests.ran)) == (Status.FAILED, FIRST.tests, 1)
    assert result.note == "no fresh guest for the tests that failed: no QEMU"


def test_an_interrupt_in_a_later_guest_is_one_and_loses_nothing() -> None:
    guests = Guests(ended(Status.CANCELLED, "interrupted"))
    result = guests.after(FIRST, retries=3)
    assert (result.status, result.tests, len(guests.ran)) == (Status.CANCELLED, FIRST.tests, 1)


@pytest.mark.parametrize(
    "first",
    [
        ended(Status.PASSED, a=PASSED),
        ended(reason="1 failed", a=Outcome.XPASSED),
        ended(Status.INFRA_ERROR, "no disk", a=FAILED),
        ended(Status.CANCELLED, "interrupted", a=FAILED),
        KernelResult("6.12", Status.FAILED, tests=(TestResult("t.py", "s", Outcome.ERROR),)),
    ],
)
def test_without_a_test_that_failed_no_guest_is_started(first: KernelResult) -> None:
    assert Guests().after(first, retries=2) is first


def test_without_retries_nothing_runs_again() -> None:
    assert Guests().after(FIRST, retries=0) is FIRST


def test_a_listed_test_runs_again_without_retries_and_the_others_do_not() -> None:
    first = ended(reason="2 failed", a=FAILED, b=FAILED)
    guests = Guests(ended(Status.PASSED, b=PASSED))
    result = guests.after(first, retries=0, flaky={"t.py::b"})
    assert (guests.ran, guests.others) == ([("t.py::b",)], [("t.py::a",)])
    assert [test.flaky for test in result.tests] == [False, True]
    assert (result.status, result.reason) == (Status.FAILED, "1 failed")
    assert result.note == "flaky, passed only when run again in a fresh guest: t.py::b"


def test_a_listed_test_runs_again_once_or_as_often_as_all_do() -> None:
    first = ended(reason="1 failed", b=FAILED)
    again = [ended(reason="1 failed", b=FAILED)] * 3
    for retries, guests in ((0, 1), (1, 1), (3, 3)):
        fresh = Guests(*again)
        fresh.after(first, retries=retries, flaky={"t.py::b"})
        assert len(fresh.ran) == guests


def test_only_what_ran_again_is_said_to_have_failed_again() -> None:
    first = ended(reason="2 failed", a=FAILED, b=FAILED)
    guests = Guests(ended(reason="1 failed", b=FAILED))
    result = guests.after(first, retries=0, flaky={"t.py::b"})
    assert result.note == "failed again in a fresh guest: t.py::b"


def test_with_isolation_each_has_a_fresh_guest_of_its_own() -> None:
    first = ended(reason="2 failed", a=FAILED, b=FAILED)
    guests = Guests(ended(Status.PASSED, a=PASSED), ended(b=FAILED))
    result = guests.after(first, isolation=Isolation.TEST)
    assert guests.ran == [("t.py::a",), ("t.py::b",)]
    assert (result.status, result.reason) == (Status.FAILED, "1 failed")


def test_one_of_two_runs_of_a_test_that_failed_runs_once_more() -> None:
    twice = (one_test("a", PASSED), one_test("a", FAILED))
    first = replace(FIRST, tests=twice)
    guests = Guests(ended(Status.PASSED, a=PASSED))
    result = guests.after(first)
    assert (guests.ran, guests.others) == ([("t.py::a",)], [("t.py::a",)])
    assert [test.flaky for test in result.tests] == [False, True]


def test_the_task_boots_again_for_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[Share] = []
    ends = [FIRST, ended(Status.PASSED, b=PASSED)]

    def boot(
        task: SuitesTask, bench: Bench, result: KernelResult, share: Share, spent: float = 0.0
    ) -> KernelResult:
        shares.append(share)
        return ends.pop(0)

    monkeypatch.setattr(SuitesTask, "_boot", boot)
    said: list[object] = []
    job = SimpleNamespace(kernel=SimpleNamespace(name="6.12"))
    bench = cast(Bench, SimpleNamespace(cancelled=False, emit=said.append, job=job))
    task = SuitesTask(cast(Payload, None), retries=1)
    result = task.run(bench, KernelResult("6.12", Status.INFRA_ERROR))
    assert result.status is Status.PASSED
    assert shares == [Share(), Share((FIRST.tests[0],), retry=1)]
    assert "running a test that failed again (1 of 1)" in str(said)


@pytest.mark.parametrize("option", [("-x",), ("--maxfail", "2")])
def test_retries_are_at_odds_with_stopping_at_a_failure(
    option: tuple[str, ...], tmp_path: Path
) -> None:
    said = in_process("run", "--retries", "1", *option, cwd=tmp_path)
    assert said.status == 2 and "--retries runs what failed again" in said.err
