"""The verdict on a pytest process that has ended, by what is known of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from vmtest.errors import UsageError
from vmtest.model.project import Suite
from vmtest.model.results import Outcome, Status, TestResult
from vmtest.suites import process
from vmtest.suites.expression import check_expressions
from vmtest.suites.failed import Failed
from vmtest.suites.payload import Payload
from vmtest.suites.process import Run, Sink
from vmtest.suites.task import SuitesWork
from vmtest.vm.console import ConsoleLog
from vmtest.vm.machine import Machine
from vmtest.vm.session import Session, Stream

OOM = b"[  9.0] Out of memory: Killed process 9 (python3)\n"


def run(status: int | None, *outcomes: Outcome, running: str | None = None) -> Run:
    payload = Payload(b"", (Suite("s", Path("/t.py")),), Path("/"))
    sink = Sink(io.BytesIO(), io.BytesIO(), Path(), lambda t: None, lambda t: None, lambda t: None)
    made = Run(payload, sink)
    made.exit_status = made.process_status = status
    made._pid = 7
    made.done = [TestResult(f"t.py::{n}", "s", o) for n, o in enumerate(outcomes)]
    made.tests = tuple(result.test for result in made.done) + ((running,) if running else ())
    made.running = running
    made.log_tail = b"something\nlast words\n"
    return made


def machine(tmp_path: Path, console: bytes = b"") -> Machine:
    log = ConsoleLog(tmp_path / "console.log", lambda: None)
    log.feed(console)
    return cast(
        Machine, SimpleNamespace(findings=log.findings, spec=SimpleNamespace(memory_mib=512))
    )


@pytest.mark.parametrize(
    ("ended", "status", "reason"),
    [
        (run(0, Outcome.PASSED), Status.PASSED, ""),
        (run(1, Outcome.PASSED, Outcome.FAILED), Status.FAILED, "1 failed"),
        (run(1, Outcome.ERROR), Status.FAILED, "1 with errors"),
        (run(3, Outcome.FAILED), Status.FAILED, "1 failed; pytest stopped early (status 3): last"),
        (run(2, Outcome.FAILED), Status.FAILED, "1 failed; pytest stopped early (status 2): last"),
        (run(5), Status.NO_TESTS, "no tests"),
        (run(2, Outcome.PASSED), Status.FAILED, "stopped early (status 2): last words"),
        (run(0), Status.NO_TESTS, "no tests"),
        (run(2), Status.FAILED, "stopped early (status 2): last words"),
        (run(1, Outcome.PASSED), Status.FAILED, "stopped early (status 1): last words"),
        (run(3), Status.FAILED, "could not run: last words"),
        (run(4), Status.FAILED, "could not run: last words"),
        (run(None, running="t.py::x"), Status.LOST, "last words"),
    ],
)
def test_each_end_has_its_status(ended: Run, status: Status, reason: str, tmp_path: Path) -> None:
    judged, why = SuitesWork(ended, []).verdict(machine(tmp_path))
    assert judged is status
    assert reason in why


def test_an_expression_that_chose_nothing_is_named(tmp_path: Path) -> None:
    ended = run(5)
    ended.log_tail = b"=== 7 deselected in 0.12s ===\n"
    judged, why = SuitesWork(ended, ["-q", "-k", "no match"]).verdict(machine(tmp_path))
    assert (judged, why) == (Status.NO_TESTS, "-k 'no match' matches none of 7 tests")


@pytest.mark.parametrize("options", [("-k", "a b c"), ("-ka b c",), ("-m", "not")])
def test_an_expression_that_pytest_refuses_is_refused_with_its_words(
    options: tuple[str, ...],
) -> None:
    with pytest.raises(UsageError, match=r"^Wrong expression passed to '-[km]': .*: at column \d"):
        check_expressions(options)


@pytest.mark.parametrize(("version", "told"), [("8.2.2", False), ("8.3.0", True), ("9.2", True)])
def test_a_host_pytest_that_knows_less_than_the_guests_judges_nothing(
    monkeypatch: pytest.MonkeyPatch, version: str, told: bool
) -> None:
    monkeypatch.setattr(pytest, "__version__", version)
    with pytest.raises(UsageError) if told else nullcontext() as caught:
        check_expressions(("-m", "device(serial="))
    assert (caught is not None) is told


@pytest.mark.parametrize(
    "options",
    [
        *((), ("-k", "a and not (b or c)"), ("-m", "x"), ("-k",), ("-m", "device(serial='x')")),
        *(("--deselect", "-k", " x y"), ("--ignore", "-k a b", "x"), ("-k", "-m", "a b")),
    ],
)
def test_an_expression_that_pytest_takes_is_taken(options: tuple[str, ...]) -> None:
    refused = ""
    try:
        check_expressions(options)
    except UsageError as error:
        refused = str(error)
    assert refused == ""


@pytest.mark.parametrize(("begun", "status"), [(True, Status.LOST), (False, Status.INFRA_ERROR)])
def test_a_process_that_ends_without_a_last_word_is_lost_once_pytest_had_begun(
    begun: bool, status: Status, tmp_path: Path
) -> None:
    """Before that nothing of the user's has run: python or pytest is not in the guest."""
    ended = run(None)
    ended.process_status, ended._pid = 1, int(begun)
    judged, why = SuitesWork(ended, []).verdict(machine(tmp_path))
    assert judged is status
    assert "exit status 1: last words" in why


def test_a_process_that_dies_after_pytests_last_word_is_not_passed(tmp_path: Path) -> None:
    ended = run(0, Outcome.PASSED)
    ended.process_status = 139
    judged, why = SuitesWork(ended, []).verdict(machine(tmp_path))
    assert judged is Status.FAILED
    assert "exit status 139 (SIGSEGV)" in why


@pytest.mark.parametrize("ended", [None, -1])
def test_a_process_of_which_nobody_knows_how_it_ended_is_not_passed(
    ended: int | None, tmp_path: Path
) -> None:
    made = run(0, Outcome.PASSED)
    made.process_status = ended
    judged, why = SuitesWork(made, []).verdict(machine(tmp_path))
    assert judged is Status.FAILED
    assert "pytest ended well, and then its process: no exit status" in why


def test_a_module_that_cannot_be_read_is_all_that_interrupted_pytest(tmp_path: Path) -> None:
    ended = run(2)
    ended.done = [TestResult("t.py", "s", Outcome.ERROR)]
    ended.tests = ("t.py",)
    assert SuitesWork(ended, []).verdict(machine(tmp_path)) == (Status.FAILED, "1 with errors")


@pytest.mark.parametrize("status", [0, 5])
def test_a_test_without_a_result_is_never_passed(status: int, tmp_path: Path) -> None:
    ended = run(status, Outcome.PASSED)
    ended.tests += ("t.py::left",)
    judged, why = SuitesWork(ended, []).verdict(machine(tmp_path))
    assert judged is Status.FAILED
    assert f"1 not run: pytest stopped early (status {status})" in why


def test_a_test_that_is_listed_twice_needs_two_results(tmp_path: Path) -> None:
    ended = run(0, Outcome.PASSED)
    ended.tests *= 2
    assert SuitesWork(ended, []).verdict(machine(tmp_path))[0] is Status.FAILED


def test_only_collecting_runs_nothing_on_purpose(tmp_path: Path) -> None:
    ended = run(0)
    ended.tests = ("t.py::one",)
    work = SuitesWork(ended, ["pytest", "--collect-only"])
    assert work.verdict(machine(tmp_path))[0] is Status.PASSED


@pytest.mark.parametrize(
    ("deselected", "status"), [((), Status.NO_TESTS), (("u.py",), Status.PASSED)]
)
def test_a_suite_without_a_test_passes_only_if_they_were_left_out_on_purpose(
    deselected: tuple[str, ...], status: Status, tmp_path: Path
) -> None:
    ended = run(0, Outcome.PASSED)
    suites = (*ended.payload.suites, Suite("u", Path("/u.py")))
    ended.payload = replace(ended.payload, suites=suites)
    ended.deselected = deselected
    judged, why = SuitesWork(ended, []).verdict(machine(tmp_path))
    assert judged is status
    assert ("of the suite u" in why) == (status is Status.NO_TESTS)


def test_where_no_test_that_failed_is_there_any_more_the_reason_says_so(tmp_path: Path) -> None:
    gone = Failed({"k": frozenset({("s", "t.py::gone")})}, only=True)
    work = SuitesWork(run(5), [], gone.for_guest("k"), absent=gone.absent("k"))
    status, why = work.verdict(machine(tmp_path))
    assert status is Status.NO_TESTS
    assert "none of the tests that failed in the last runs: they were deleted or renamed" in why


def test_a_guest_for_a_part_of_the_files_needs_no_test_of_every_suite(tmp_path: Path) -> None:
    ended = run(0, Outcome.PASSED)
    suites = (*ended.payload.suites, Suite("u", Path("/u.py")))
    ended.payload = replace(ended.payload, suites=suites)
    assert SuitesWork(ended, [], part=True).verdict(machine(tmp_path))[0] is Status.PASSED


def test_a_pytest_that_was_killed_for_memory_says_so(tmp_path: Path) -> None:
    status, why = SuitesWork(run(None), []).verdict(machine(tmp_path, OOM))
    assert status is Status.LOST
    assert "ran out of memory (512 MiB; raise memory in kernels.toml)" in why


class SlowGuest:
    """Its pytest prints where it hangs 5 s after it is asked to, by a clock that this turns."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[Sequence[str]] = []

    def monotonic(self) -> float:
        return self.now

    def run(self, argv: Sequence[str]) -> None:
        self.asked.append(argv)

    def receive(self, timeout: float) -> tuple[bytes, bytes]:
        before, self.now = self.now, self.now + timeout
        return b"", b"  in test_x\n" if before < 5.0 <= self.now else b""


@pytest.mark.parametrize(("patience", "told"), [(3.0, False), (30.0, True)])
def test_a_slow_guest_has_longer_to_say_where_it_hangs(
    monkeypatch: pytest.MonkeyPatch, patience: float, told: bool
) -> None:
    guest, made = SlowGuest(), run(None, running="t.py::x")
    monkeypatch.setattr(process, "time", guest)
    made._where_it_hangs(cast(Session, guest), cast(Stream, guest), patience)
    assert guest.asked == [["kill", "-USR1", "7"]]
    assert (b"in test_x" in made.log_tail) is told
    assert guest.now < 7.0  # no longer than it takes
