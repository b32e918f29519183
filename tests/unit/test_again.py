"""``--keep-going``: a test that ends its guest costs itself, and the rest go on in a fresh one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from command import in_process
from watched import LIMITS, Watch, Watched

from vmtest.errors import BootError
from vmtest.matrix.follow import Kernelside
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.suites import again
from vmtest.suites.process import Run, pytest_argv


def kernel(status: Status, reason: str = "", **outcomes: Outcome) -> KernelResult:
    tests = tuple(TestResult(f"t.py::{name}", "s", o) for name, o in outcomes.items())
    return KernelResult("6.12", status, tests=tests, reason=reason)


DEATH = kernel(
    Status.PANICKED, "kernel panicked", a=Outcome.PASSED, b=Outcome.LOST, c=Outcome.NOT_RUN
)
REST = kernel(Status.PASSED, c=Outcome.PASSED)


def outcomes(result: KernelResult) -> dict[str, Outcome]:
    return {test.test.removeprefix("t.py::"): test.outcome for test in result.tests}


def test_after_a_death_every_test_has_its_own_outcome_and_the_kernel_has_died() -> None:
    result = again.joined([DEATH], REST)
    assert outcomes(result) == {"a": Outcome.PASSED, "b": Outcome.LOST, "c": Outcome.PASSED}
    assert result.status is Status.PANICKED
    assert result.reason == "kernel panicked; in a fresh guest the rest: passed"


def test_without_a_death_the_result_is_that_of_the_guest() -> None:
    assert again.joined([], REST) is REST


def test_several_deaths_are_counted_and_the_rest_says_how_it_ended() -> None:
    second = kernel(Status.LOST, "lost", c=Outcome.LOST, d=Outcome.NOT_RUN)
    result = again.joined([DEATH, second], kernel(Status.FAILED, "1 failed", d=Outcome.FAILED))
    assert tuple(outcomes(result).values()) == (
        Outcome.PASSED,
        Outcome.LOST,
        Outcome.LOST,
        Outcome.FAILED,
    )
    assert "2 guests ended so; in a fresh guest the rest: 1 failed" in result.reason


def test_a_guest_that_cannot_be_had_loses_no_result() -> None:
    result = again.without_guest([DEATH], "no QEMU")
    assert outcomes(result) == outcomes(DEATH)
    assert result.status is Status.PANICKED
    assert "in a fresh guest the rest: no QEMU" in result.reason


def test_an_interrupt_goes_before_the_death() -> None:
    result = again.without_guest([DEATH], "cancelled", cancelled=True)
    assert result.status is Status.CANCELLED


@pytest.mark.parametrize(
    ("one", "helps"),
    [
        (DEATH, True),
        (REST, False),
        (kernel(Status.PANICKED, a=Outcome.LOST), False),  # nothing is left
        (kernel(Status.TIMED_OUT, a=Outcome.NOT_RUN), False),  # no test can be left out
        (kernel(Status.PANICKED, a=Outcome.PASSED, b=Outcome.NOT_RUN), True),  # between two tests
        (kernel(Status.TIMED_OUT, a=Outcome.LOST, b=Outcome.NOT_RUN), True),
        (kernel(Status.FAILED, a=Outcome.FAILED, b=Outcome.NOT_RUN), False),  # pytest stopped
        (kernel(Status.CANCELLED, a=Outcome.LOST, b=Outcome.NOT_RUN), False),
    ],
)
def test_a_fresh_guest_is_for_what_a_test_kept_from_running(one: KernelResult, helps: bool) -> None:
    assert again.helps(one) is helps


TESTS = ("a", "b", "c", "d")


def dying(clock: list[float], guests: list[int]) -> again.Boot:
    """Guests of which each dies in its first test, after ten seconds."""

    def boot(before: tuple[TestResult, ...], spent: float) -> KernelResult:
        assert spent == clock[0]
        clock[0] += 10
        guests.append(len(before))
        left = TESTS[len(before) :]
        lost, *others = left
        rest = dict.fromkeys(others, Outcome.NOT_RUN)
        return kernel(Status.PANICKED, "kernel panicked", **{lost: Outcome.LOST}, **rest)

    return boot


@pytest.mark.parametrize(
    ("total", "lost", "says"),
    [
        (100.0, 4, "the rest: kernel panicked"),
        (20.0, 2, "the rest: no time is left (20 s for all guests)"),
    ],
)
def test_a_kernel_that_dies_in_every_test_comes_to_an_end(
    total: float, lost: int, says: str
) -> None:
    clock, guests = [0.0], list[int]()
    result = again.run(dying(clock, guests), total, lambda: False, lambda: clock[0])
    assert guests == list(range(lost))
    assert result.status is Status.PANICKED and says in result.reason
    assert [test.test for test in result.tests] == [f"t.py::{name}" for name in TESTS]
    assert result.count(Outcome.LOST) == lost


def test_without_any_guest_the_error_is_the_kernels() -> None:
    def boot(before: tuple[TestResult, ...], spent: float) -> KernelResult:
        raise BootError("no QEMU")

    with pytest.raises(BootError, match="no QEMU"):
        again.run(boot, 10.0, lambda: False)


def goes_on(watched: Watched, *before: TestResult) -> Run:
    """The suite in a fresh guest, ``before`` having come of an earlier one."""
    watched.install()
    (watched.guest / "done.json").write_text(json.dumps([test.test for test in before]))
    run = Run(watched.payload, watched.run._sink, before)
    argv = pytest_argv(watched.payload, sys.executable, ("-p", "no:randomly"), goes_on=True)
    run.execute(watched.session, argv, LIMITS, lambda: None, Kernelside())
    return run


def test_a_fresh_guest_runs_exactly_the_tests_that_are_left(watch: Watch) -> None:
    watched = watch(
        """
        import pytest
        def test_a(): pass
        def test_ab(): pass
        @pytest.mark.parametrize("x", ["1", "2::3", "[4]"])
        def test_many(x): pass
        """
    )
    before = [
        TestResult("test_it.py::test_a", "it", Outcome.PASSED),
        TestResult("test_it.py::test_many[2::3]", "it", Outcome.LOST),
    ]
    run = goes_on(watched, *before)
    assert run.tests == (
        "test_it.py::test_ab",
        "test_it.py::test_many[1]",
        "test_it.py::test_many[[4]]",
    )
    assert (run.exit_status, run.process_status, run.bad_line) == (0, 0, "")
    assert [result.test for result in run.done] == list(run.tests)
    assert watched.counts == [5]
    listed = [test for test, _ in json.loads(watched.listing.read_text())]
    assert sorted(listed) == sorted([*(test.test for test in before), *run.tests])


def test_a_module_that_cannot_be_read_has_one_result(watch: Watch) -> None:
    watched = watch("import nothing_of_that_name")
    run = goes_on(watched, TestResult("test_it.py", "it", Outcome.ERROR))
    assert run.done == []


def test_keep_going_is_at_odds_with_stopping_at_a_failure(tmp_path: Path) -> None:
    (tmp_path / "kernels.toml").write_text("schema = 1\n")
    for option in (["-x"], ["--maxfail", "2"]):
        said = in_process("run", "--keep-going", *option, cwd=tmp_path)
        said.refuses(2, "leave -x and --maxfail out")
