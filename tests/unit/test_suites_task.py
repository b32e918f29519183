"""The verdict on a pytest process that has ended, by what is known of it."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from vmtest.model.kernels import Outcome, Status, Suite, TestResult
from vmtest.suites.process import Payload, Run, Sink
from vmtest.suites.task import SuitesWork
from vmtest.vm.console import ConsoleLog
from vmtest.vm.machine import Machine

OOM = b"[  9.0] Out of memory: Killed process 9 (python3)\n"


def run(status: int | None, *outcomes: Outcome, running: str | None = None) -> Run:
    payload = Payload(b"", (Suite("s", Path("/t.py")),), Path("/"))
    sink = Sink(io.BytesIO(), io.BytesIO(), Path(), lambda t: None, lambda t: None, lambda t: None)
    made = Run(payload, sink)
    made.exit_status = status
    made.done = [TestResult(f"t.py::{n}", "s", o) for n, o in enumerate(outcomes)]
    made.tests = tuple(result.test for result in made.done)
    made.running = running
    made.log_tail = b"something\nlast words\n"
    return made


def machine(tmp_path: Path, console: bytes = b"") -> Machine:
    log = ConsoleLog(tmp_path / "console.log", lambda: None)
    log.feed(console)
    return cast(Machine, SimpleNamespace(console=log, spec=SimpleNamespace(memory_mib=512)))


@pytest.mark.parametrize(
    ("ended", "status", "reason"),
    [
        (run(0, Outcome.PASSED), Status.PASSED, ""),
        (run(1, Outcome.PASSED, Outcome.FAILED), Status.FAILED, "1 failed"),
        (run(1, Outcome.ERROR), Status.FAILED, "1 with errors"),
        (run(5), Status.NO_TESTS, "no tests"),
        (run(2, Outcome.PASSED), Status.FAILED, "stopped early (status 2): last words"),
        (run(3), Status.FAILED, "could not run: last words"),
        (run(4), Status.FAILED, "could not run: last words"),
        (run(None, running="t.py::x"), Status.LOST, "last words"),
    ],
)
def test_each_end_has_its_status(ended: Run, status: Status, reason: str, tmp_path: Path) -> None:
    judged, why = SuitesWork(ended, []).verdict(machine(tmp_path))
    assert judged is status
    assert reason in why


@pytest.mark.parametrize(("process", "status"), [(4, Status.FAILED), (137, Status.LOST)])
def test_without_a_word_of_pytests_its_process_tells(
    process: int, status: Status, tmp_path: Path
) -> None:
    """4: a conftest.py that cannot be imported; 137: killed."""
    ended = run(None)
    ended.process_status = process
    assert SuitesWork(ended, []).verdict(machine(tmp_path))[0] is status


def test_a_pytest_that_was_killed_for_memory_says_so(tmp_path: Path) -> None:
    status, why = SuitesWork(run(None), []).verdict(machine(tmp_path, OOM))
    assert status is Status.LOST
    assert "ran out of memory (512 MiB; raise memory in kernels.toml)" in why
