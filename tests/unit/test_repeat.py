"""``--repeat``: all tests run several times, and the result says how often they fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from command import in_process

from vmtest.errors import BootError
from vmtest.matrix.bench import Bench
from vmtest.model.results import (
    SCHEMA,
    KernelResult,
    Matrix,
    Outcome,
    Repeated,
    Status,
    TestResult,
)
from vmtest.runs import matrix_json
from vmtest.runs.past import past_of
from vmtest.suites import repeat
from vmtest.suites.flaky import Listed
from vmtest.suites.payload import Payload
from vmtest.suites.repeat import Repeat
from vmtest.suites.task import Share, SuitesTask

PASSED, FAILED = Outcome.PASSED, Outcome.FAILED


def ended(status: Status = Status.PASSED, reason: str = "", **outcomes: Outcome) -> KernelResult:
    tests = tuple(TestResult(f"t.py::{n}", "s", o, message=reason) for n, o in outcomes.items())
    return KernelResult("6.12", status, tests=tests, reason=reason)


GOOD = ended(a=PASSED, b=PASSED)
BAD = ended(Status.FAILED, "1 failed", a=PASSED, b=FAILED)


class Guests:
    """Fresh guests: each comes to the next of ``ends``."""

    def __init__(self, *ends: KernelResult | Exception) -> None:
        self.ends = list(ends)
        self.ran: list[int] = []
        self.cancelled = False

    def once(self, number: int) -> KernelResult:
        self.ran.append(number)
        end = self.ends[number]
        if isinstance(end, Exception):
            raise end
        return end

    def run(self, times: int = 0, *, until_fail: bool = False) -> KernelResult:
        times = times or len(self.ends)
        return repeat.run(self.once, Repeat(times, until_fail), lambda: self.cancelled)


def test_a_test_that_failed_in_one_run_has_failed_and_says_how_often() -> None:
    result = Guests(GOOD, GOOD, BAD, GOOD).run()
    assert (result.status, result.reason) == (Status.FAILED, "run 3 of 4: 1 failed")
    assert [test.outcome for test in result.tests] == [PASSED, FAILED]
    assert result.note == (
        "failed in 1 of 4 runs (25%, with 95% confidence 5% to 70%); "
        "t.py::b failed in 1 of 4 (25%, with 95% confidence 5% to 70%)"
    )


def test_how_often_each_test_failed_is_kept_for_the_rates_of_flaky_ones() -> None:
    lost = ended(Status.LOST, "QEMU ended", a=Outcome.LOST, b=Outcome.NOT_RUN)
    result = Guests(GOOD, BAD, lost, ended(Status.FAILED, "2", a=PASSED, b=Outcome.ERROR)).run()
    assert result.repeated == (Repeated("s", "t.py::a", 0, 3), Repeated("s", "t.py::b", 2, 3))
    matrix = Matrix(SCHEMA, "r", "2026-01-01T00:00:00+00:00", 1.0, ("s",), (result,))
    assert past_of(matrix, {}).repeated == (
        ("6.12", "s", "t.py::a", 0, 3),
        ("6.12", "s", "t.py::b", 2, 3),
    )
    assert matrix_json.loads(matrix_json.dumps(matrix)) == matrix


def test_what_passed_every_time_says_how_sure_that_is() -> None:
    result = Guests(*[GOOD] * 20).run()
    assert (result.status, result.reason) == (Status.PASSED, "")
    assert result.note == "failed in 0 of 20 runs (0%, with 95% confidence 0% to 16%)"


def test_a_repeated_run_goes_on_after_a_failure_and_until_fail_does_not() -> None:
    every, until = Guests(GOOD, BAD, GOOD), Guests(GOOD, BAD, GOOD)
    every.run()
    result = until.run(until_fail=True)
    assert (every.ran, until.ran) == ([0, 1, 2], [0, 1])
    assert "failed in 1 of 2 runs (50%" in result.note


def test_each_test_has_the_message_of_its_first_failure() -> None:
    first, second = replace(BAD, reason="1 failed"), ended(Status.FAILED, "2", a=FAILED, b=FAILED)
    result = Guests(GOOD, first, second).run()
    assert [test.message for test in result.tests] == ["2", "1 failed"]


def test_what_a_kernel_died_of_in_a_later_run_is_the_result() -> None:
    died = replace(ended(Status.PANICKED, "it died", a=PASSED, b=Outcome.LOST), splats=("BUG: a",))
    result = Guests(GOOD, died, GOOD).run()
    assert (result.status, result.reason) == (Status.PANICKED, "run 2 of 3: it died")
    assert result.splats == ("BUG: a",)
    assert [test.outcome for test in result.tests] == [PASSED, Outcome.LOST]


@pytest.mark.parametrize("end", [BootError("no QEMU"), ended(Status.INFRA_ERROR, "no QEMU")])
def test_without_a_guest_for_a_later_run_nothing_has_passed(end: KernelResult | Exception) -> None:
    guests = Guests(GOOD, end, GOOD)
    result = guests.run()
    assert (result.status, guests.ran) == (Status.INFRA_ERROR, [0, 1])
    assert "run 2 of 3" in result.reason and "no QEMU" in result.reason
    assert "failed in 0 of 1 runs (" in result.note


def test_a_failure_stands_when_a_later_run_has_no_guest() -> None:
    result = Guests(BAD, BootError("no QEMU"), GOOD).run()
    assert (result.status, result.reason) == (Status.FAILED, "run 1 of 3: 1 failed")
    assert "run 2 of 3 had no guest: no QEMU" in result.note


def test_the_first_run_raises_what_it_raises() -> None:
    with pytest.raises(BootError, match="no QEMU"):
        Guests(BootError("no QEMU"), GOOD).run()


def test_an_interrupt_is_one_and_loses_nothing() -> None:
    result = Guests(BAD, ended(Status.CANCELLED, "interrupted"), GOOD).run()
    assert result.status is Status.CANCELLED
    assert [test.outcome for test in result.tests] == [PASSED, FAILED]


@pytest.mark.parametrize("status", [Status.FAILED, Status.NO_TESTS, Status.CANCELLED])
def test_a_run_without_tests_is_not_repeated(status: Status) -> None:
    guests = Guests(ended(status, "pytest could not run"), GOOD)
    assert guests.run().status is status
    assert guests.ran == [0]


def test_tests_of_one_id_are_told_apart() -> None:
    twice = replace(GOOD, tests=(GOOD.tests[0], replace(GOOD.tests[0], outcome=FAILED)))
    result = Guests(GOOD, replace(twice, status=Status.FAILED)).run()
    assert [test.test for test in result.tests] == ["t.py::a", "t.py::b", "t.py::a"]


def test_the_task_runs_all_tests_in_fresh_guests_and_nothing_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares: list[Share] = []
    ends = [BAD, GOOD]

    def boot(
        task: SuitesTask, bench: Bench, result: KernelResult, share: Share, spent: float = 0.0
    ) -> KernelResult:
        shares.append(share)
        return ends.pop(0)

    monkeypatch.setattr(SuitesTask, "_boot", boot)
    said: list[object] = []
    job = SimpleNamespace(kernel=SimpleNamespace(name="6.12"))
    bench = cast(Bench, SimpleNamespace(cancelled=False, emit=said.append, job=job))
    task = SuitesTask(cast(Payload, None), repeat=Repeat(2), flaky=Listed(("t.py::b",)))
    result = task.run(bench, KernelResult("6.12", Status.INFRA_ERROR))
    assert (result.status, shares) == (Status.FAILED, [Share(), Share(number=1)])
    assert "run 2 of 2 in a fresh guest" in str(said)


@pytest.mark.parametrize("option", [("--repeat", "3"), ("--until-fail",)])
def test_repeating_is_at_odds_with_making_failures_good(
    option: tuple[str, ...], tmp_path: Path
) -> None:
    said = in_process("run", "--retries", "1", *option, cwd=tmp_path)
    assert said.status == 2 and "leave one out" in said.err
