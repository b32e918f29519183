"""``--isolate``: a guest of its own for each suite, file or test, and one result for the kernel."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from command import in_process
from watched import LIMITS, Watch

from vmtest.errors import BootError
from vmtest.matrix.bench import Bench
from vmtest.matrix.follow import Kernelside
from vmtest.matrix.judge import of_tests
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.suites import isolate
from vmtest.suites.isolate import Group, Isolation
from vmtest.suites.payload import Payload
from vmtest.suites.process import Run, pytest_argv
from vmtest.suites.task import Share, SuitesTask

LISTED = ("a.py::one", "a.py::two[x::y]", "b.py::one", "c.py::one")
SUITES = {"a.py": "first", "b.py": "first", "c.py": "second"}
MODULE = TestResult("d.py", "second", Outcome.ERROR, message="no module")


def one_test(name: str, outcome: Outcome, duration: float = 0.0) -> TestResult:
    return TestResult(name, SUITES[name.split("::")[0]], outcome, duration)


def listed(*more: TestResult) -> KernelResult:
    """What the first guest says."""
    tests = (*more, *(one_test(name, Outcome.NOT_RUN) for name in LISTED))
    return KernelResult("6.12", Status.COLLECTED, tests=tests)


class Guests:
    """Guests in which tests pass after a second; ``ends`` has other ends by a group's name."""

    def __init__(
        self,
        ends: dict[str, Status] | None = None,
        none_for: str = "",
        uncollected: Sequence[str] = (),
        beside: str = "",
    ) -> None:
        self.ends = ends or {}
        self.beside = beside
        self.uncollected = uncollected
        self.none_for = none_for
        self.groups: list[str] = []
        self.seen: list[tuple[int, int]] = []
        self.now = 0.0

    def run(
        self, group: Group, before: tuple[TestResult, ...], later: tuple[str, ...]
    ) -> KernelResult:
        self.groups.append(group.name)
        self.seen.append((len(before), len(later)))
        self.now += 10
        if group.name == self.none_for:
            raise BootError("no QEMU")
        status = self.ends.get(group.name, Status.PASSED)
        outcome = {
            Status.PASSED: Outcome.PASSED,
            Status.FAILED: Outcome.FAILED,
        }.get(status, Outcome.LOST)
        own = [name for name in group.tests if name not in self.uncollected]
        tests = tuple(one_test(name, outcome, 1.0) for name in own)
        reason = "" if status is Status.PASSED else f"why {status}"
        if status is Status.FAILED and tests:
            reason = f"{of_tests(tests)}{self.beside}"
        log = f"console-{len(self.groups) + 1}.log"
        tail = (log,) if reason else ()
        return KernelResult(
            "6.12", status, tests=tests, reason=reason, console_tail=tail, console_log=log
        )

    def all(self, isolation: Isolation, first: KernelResult | None = None) -> KernelResult:
        return isolate.run(first or listed(), isolation, self.run, lambda: False, lambda: self.now)


@pytest.mark.parametrize(
    ("isolation", "groups"),
    [
        (Isolation.SUITE, ["first", "second"]),
        (Isolation.FILE, ["a.py", "b.py", "c.py"]),
        (Isolation.TEST, list(LISTED)),
    ],
)
def test_each_has_a_guest_of_its_own_and_all_are_one_result(
    isolation: Isolation, groups: Sequence[str]
) -> None:
    guests = Guests()
    result = guests.all(isolation)
    assert guests.groups == groups
    assert [test.test for test in result.tests] == list(LISTED)
    assert (result.status, result.reason) == (Status.PASSED, "")
    assert all(sum(seen) < len(LISTED) for seen in guests.seen)
    spent = 10.0 * len(groups)
    assert f"{len(groups)} guests, one for each {isolation}: " in result.note
    assert f"{spent - len(LISTED):.1f} s of {spent:.1f} s went into them" in result.note


def test_a_module_that_cannot_be_read_is_told_once_and_fails_the_kernel() -> None:
    result = Guests().all(Isolation.FILE, listed(MODULE))
    assert [test.test for test in result.tests] == ["d.py", *LISTED]
    assert (result.status, result.reason) == (Status.FAILED, "1 with errors")


def test_failures_of_all_guests_are_counted_together() -> None:
    result = Guests({"a.py": Status.FAILED, "c.py": Status.FAILED}).all(Isolation.FILE)
    assert (result.status, result.reason) == (Status.FAILED, "3 failed")


def test_the_worst_end_is_the_kernels_and_names_its_guest() -> None:
    guests = Guests({"a.py": Status.FAILED, "b.py": Status.PANICKED})
    result = guests.all(Isolation.FILE)
    assert guests.groups == ["a.py", "b.py", "c.py"]
    assert result.status is Status.PANICKED
    assert result.reason == "b.py: why PANICKED; 1 more did not pass"
    assert (result.console_tail, result.console_log) == (("console-3.log",), "console-3.log")


def test_without_a_guest_nothing_is_lost_and_nothing_is_run_any_more() -> None:
    guests = Guests(none_for="b.py")
    result = guests.all(Isolation.FILE)
    assert guests.groups == ["a.py", "b.py"]
    assert (result.status, result.reason) == (Status.INFRA_ERROR, "b.py: no QEMU")
    outcomes = [test.outcome for test in result.tests]
    assert outcomes == [Outcome.PASSED] * 2 + [Outcome.NOT_RUN] * 2
    assert [test.test for test in result.tests] == list(LISTED)


@pytest.mark.parametrize("status", [Status.PASSED, Status.NO_TESTS])
def test_a_listed_test_that_its_guest_does_not_collect_is_never_passed(status: Status) -> None:
    result = Guests({"b.py": status}, uncollected=["b.py::one"]).all(Isolation.FILE)
    why = "b.py: b.py::one was listed, and its guest did not collect it"
    assert (result.status, result.reason) == (Status.LOST, why)
    assert [test.test for test in result.tests] == list(LISTED)
    assert result.tests[2].outcome is Outcome.NOT_RUN


def test_a_test_that_is_listed_twice_and_collected_once_is_not_passed() -> None:
    twice = replace(listed(), tests=(one_test("a.py::one", Outcome.NOT_RUN),) * 2)

    def once(group: Group, before: object, later: object) -> KernelResult:
        tests = (one_test("a.py::one", Outcome.PASSED),)
        return KernelResult("6.12", Status.PASSED, tests=tests)

    result = isolate.run(twice, Isolation.FILE, once, lambda: False)
    assert result.status is Status.LOST
    assert [test.outcome for test in result.tests] == [Outcome.PASSED, Outcome.NOT_RUN]


def test_failures_do_not_hide_why_the_rest_did_not_run() -> None:
    result = Guests({"a.py": Status.FAILED}, none_for="b.py").all(Isolation.FILE)
    assert result.status is Status.FAILED
    assert result.reason == "2 failed, 2 not run; b.py: no QEMU"


def test_a_dead_guest_does_not_hide_why_the_rest_did_not_run() -> None:
    result = Guests({"a.py": Status.PANICKED}, none_for="b.py").all(Isolation.FILE)
    assert result.status is Status.PANICKED
    assert result.reason == "a.py: why PANICKED; b.py: no QEMU"


def test_failures_do_not_hide_a_pytest_that_ended_badly() -> None:
    guests = Guests({"a.py": Status.FAILED, "c.py": Status.FAILED}, uncollected=["c.py::one"])
    result = guests.all(Isolation.FILE)
    assert result.reason == "2 failed, 1 not run; c.py: why FAILED"


def test_a_pytest_that_ended_badly_beside_its_failures_is_told() -> None:
    killed = "; pytest ended, and then its process: SIGKILL"
    result = Guests({"b.py": Status.FAILED}, beside=killed).all(Isolation.FILE)
    assert result.reason == f"1 failed; b.py: 1 failed{killed}"


def test_what_a_failing_guest_did_not_collect_is_no_bad_end() -> None:
    guests = Guests({"a.py": Status.FAILED}, uncollected=["a.py::one"])
    assert guests.all(Isolation.FILE).reason == "1 failed, 1 not run"


def test_a_test_that_is_listed_twice_runs_twice_in_its_guest() -> None:
    twice = (one_test("a.py::one", Outcome.NOT_RUN),) * 2
    (group,) = isolate.groups(twice, Isolation.TEST)
    assert group.tests == ("a.py::one", "a.py::one") and group.files == ("a.py",)


def test_a_guest_runs_the_tests_of_its_share_and_reads_no_other_file(watch: Watch) -> None:
    watched = watch("def test_a(): pass\ndef test_b(): pass\ndef test_c(): pass\n")
    watched.install()
    (watched.guest / "suites" / "test_other.py").write_text("raise RuntimeError('read')\n")
    before = TestResult("test_it.py::test_a", "it", Outcome.PASSED)
    share = Share((before,), ("test_it.py::test_c",), ("test_it.py",))
    run = Run(watched.payload, watched.run._sink, share.before, share.later)
    (watched.guest / "done.json").write_text('["test_it.py::test_a", "test_it.py::test_c"]')
    options = ("-p", "no:randomly")
    argv = pytest_argv(watched.payload, sys.executable, options, goes_on=True, files=share.files)
    run.execute(watched.session, argv, LIMITS, lambda: None, Kernelside())
    assert run.tests == ("test_it.py::test_b",)
    assert [result.outcome for result in run.done] == [Outcome.PASSED]
    assert (run.exit_status, run.empty_suites) == (0, ())
    assert watched.counts == [3]


def ran_by_task(
    monkeypatch: pytest.MonkeyPatch, isolation: Isolation | None, first: KernelResult
) -> tuple[KernelResult, list[tuple[bool, tuple[str, ...]]]]:
    """What a task comes to, and of each of its guests: whether it lists, and the files it reads."""
    guests: list[tuple[bool, tuple[str, ...]]] = []

    def boot(
        task: SuitesTask, bench: Bench, result: KernelResult, share: Share, spent: float = 0.0
    ) -> KernelResult:
        lists = "--collect-only" in task.options
        guests.append((lists, share.files))
        if lists:
            return first
        left = {*share.later, *(test.test for test in share.before)}
        own = [n for n in LISTED if n.split("::")[0] in (share.files or n) and n not in left]
        tests = tuple(one_test(name, Outcome.PASSED) for name in own)
        return KernelResult("6.12", Status.PASSED, tests=tests)

    monkeypatch.setattr(SuitesTask, "_boot", boot)
    task = SuitesTask(cast(Payload, None), isolate=isolation)
    bench = cast(Bench, SimpleNamespace(cancelled=False))
    return task.run(bench, KernelResult("6.12", Status.INFRA_ERROR)), guests


def collected_tests(outcome: Outcome) -> KernelResult:
    tests = tuple(one_test(name, outcome) for name in LISTED)
    return KernelResult("6.12", Status.COLLECTED, tests=tests)


def test_one_guest_lists_the_tests_and_each_file_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = collected_tests(Outcome.COLLECTED)
    result, guests = ran_by_task(monkeypatch, Isolation.FILE, first)
    assert guests == [(True, ()), (False, ("a.py",)), (False, ("b.py",)), (False, ("c.py",))]
    assert [test.test for test in result.tests] == list(LISTED)
    assert result.status is Status.PASSED


def test_without_isolation_one_guest_has_all(monkeypatch: pytest.MonkeyPatch) -> None:
    result, guests = ran_by_task(monkeypatch, None, listed())
    assert guests == [(False, ())] and len(result.tests) == len(LISTED)


def test_where_no_test_is_to_run_the_guest_says_what_that_comes_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = collected_tests(Outcome.SKIPPED)
    result, guests = ran_by_task(monkeypatch, Isolation.FILE, first)
    assert guests == [(True, ()), (False, ())] and result.status is Status.PASSED


def test_a_guest_that_cannot_list_them_is_the_kernels_end(monkeypatch: pytest.MonkeyPatch) -> None:
    first = KernelResult("6.12", Status.PANICKED, reason="while it listed")
    result, guests = ran_by_task(monkeypatch, Isolation.FILE, first)
    assert guests == [(True, ())] and result is first


def test_a_listing_that_pytest_did_not_end_well_is_the_kernels_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = replace(listed(), status=Status.FAILED, reason="pytest stopped early (status 3)")
    result, guests = ran_by_task(monkeypatch, Isolation.FILE, first)
    assert guests == [(True, ())] and result is first


def test_isolation_is_at_odds_with_stopping_at_a_failure(tmp_path: Path) -> None:
    (tmp_path / "kernels.toml").write_text("schema = 1\n")
    for option in (["-x"], ["--maxfail", "2"]):
        said = in_process("run", "--isolate", "file", *option, cwd=tmp_path)
        said.refuses(2, "leave -x and --maxfail out")
