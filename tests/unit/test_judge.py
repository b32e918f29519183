"""Whose fault an end is: our own time limits are never the guest's death."""

from __future__ import annotations

import threading
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vmtest.errors import DeadlineExceeded, SessionLost
from vmtest.matrix.bench import Bench, Guest
from vmtest.matrix.complaints import KnownSplats
from vmtest.matrix.judge import Running, watch
from vmtest.model.kernels import Limits
from vmtest.model.project import KnownSplat
from vmtest.model.results import KernelResult, Status
from vmtest.vm.console import ConsoleLog, Finding, Sign
from vmtest.vm.deadlines import within
from vmtest.vm.session import Completed

RELEASE = "6.12.1"


class FakeSession:
    """Takes the payload, unless the guest is ``stuck``: then until somebody hangs up."""

    def __init__(self, stuck: bool) -> None:
        self.stuck = stuck
        self.hung_up = threading.Event()

    def put(self, data: bytes, remote: str) -> None:
        if self.stuck:
            assert self.hung_up.wait(20)
            raise SessionLost("the SSH session ended while writing the payload")

    def run(self, argv: object, **more: object) -> Completed:
        return Completed(0, RELEASE.encode(), b"")


class FakeWork:
    archive, name, begun, running = b"", "pytest", False, None

    def run(self, guest: Guest, check: object) -> None:
        self.begun = True

    def verdict(self, machine: object) -> tuple[Status, str]:
        return Status.PASSED, ""

    def results(self, reason: str) -> tuple[()]:
        return ()

    def ran_at(self, stamp: str) -> str:
        return ""


class FakeBench:
    cancelled = False
    job = SimpleNamespace(
        kernel=SimpleNamespace(name="6.12"),
        image=SimpleNamespace(release=RELEASE, config=None),
        root=SimpleNamespace(libraries=(), wheels=()),
        known_splats=KnownSplats(),
    )

    def __init__(self, end: Exception | None = None) -> None:
        self.end = end

    def emit(self, event: object) -> None:
        pass

    def check(self) -> None:
        pass

    def read_log(self, guest: Guest) -> None:
        if self.end is not None:
            raise self.end


def judged(
    tmp_path: Path,
    *,
    stuck: bool = False,
    end: Exception | None = None,
    complaints: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()),
    known: KnownSplats = KnownSplats(),  # noqa: B008 (a frozen value)
    **reader: Any,
) -> KernelResult:
    """What a run comes to whose tests passed in a guest as described."""
    session = FakeSession(stuck)
    console = ConsoleLog(tmp_path / "console.log", lambda: None)
    machine = SimpleNamespace(
        console=console,
        findings=console.findings,
        hang_up=session.hung_up.set,
        cause_of_death=lambda: "QEMU ended",
        spec=SimpleNamespace(memory_mib=512, log=tmp_path / "console.log"),
    )
    guest = SimpleNamespace(
        machine=machine,
        session=session,
        limits=Limits(30, 0.2, 300),
        reader=SimpleNamespace(**{"unseen": "", "notes": (), "overwritten": 0, **reader}),
        complaints=tuple(
            tuple(Finding(Sign.SPLAT, text, 0.0) for text in texts) for texts in complaints
        ),
    )
    result = KernelResult("6.12", Status.INFRA_ERROR)
    bench = FakeBench(end)
    bench.job = SimpleNamespace(**{**vars(FakeBench.job), "known_splats": known})
    return watch(cast(Bench, bench), cast(Guest, guest), result, cast(Running, FakeWork()))


def test_copying_over_our_own_limit_is_the_infrastructures(tmp_path: Path) -> None:
    result = judged(tmp_path, stuck=True)
    assert result.status is Status.INFRA_ERROR
    assert "copying the payload took over 0 s" in result.reason
    assert "closed" not in result.reason and "QEMU" not in result.reason


def test_a_guest_that_stops_answering_after_its_tests_timed_out(tmp_path: Path) -> None:
    late = DeadlineExceeded("reading the kernel's log to its end took over 10 s", "answer")
    result = judged(tmp_path, end=late)
    assert result.status is Status.TIMED_OUT
    assert "does not answer after the last test: reading the kernel's log" in result.reason


def test_a_guest_that_dies_after_its_tests_is_lost(tmp_path: Path) -> None:
    result = judged(tmp_path, end=SessionLost("end of file"))
    assert (result.status, result.reason) == (Status.LOST, "QEMU ended after the last test")


def test_a_complaint_since_the_boot_is_no_pass(tmp_path: Path) -> None:
    result = judged(tmp_path, complaints=(("BUG: early",), ("WARNING: late",)))
    assert (result.status, result.splats) == (Status.SPLAT, ("WARNING: late",))
    assert "1 complaint(s) of the kernel while booting" in result.note


def test_a_complaint_that_only_the_taint_tells_is_no_pass(tmp_path: Path) -> None:
    result = judged(tmp_path, unseen="warning (W)", notes=("7 records were overwritten",))
    assert result.status is Status.SPLAT
    assert "warning (W) in /proc/sys/kernel/tainted" in result.reason
    assert result.note == "7 records were overwritten"


KNOWN = KnownSplats((KnownSplat("WARNING: *", "issue 7"),), date(2026, 7, 1))


@pytest.mark.parametrize(("overwritten", "status"), [(0, Status.PASSED), (7, Status.SPLAT)])
def test_a_known_complaint_explains_a_taint_where_every_record_was_read(
    tmp_path: Path, overwritten: int, status: Status
) -> None:
    late = ((), ("WARNING: late",))
    result = judged(
        tmp_path, complaints=late, known=KNOWN, unseen="warning (W)", overwritten=overwritten
    )
    assert (result.status, len(result.known_splats)) == (status, 1)


def test_what_ends_by_itself_within_its_time_keeps_its_error() -> None:
    with pytest.raises(SessionLost, match="panic"), within(60, "it", lambda: None):
        raise SessionLost("panic")


def test_what_ends_too_late_is_late_although_it_ended_well() -> None:
    over = threading.Event()
    with pytest.raises(DeadlineExceeded, match="it took over 0 s"), within(0.01, "it", over.set):
        assert over.wait(20)
