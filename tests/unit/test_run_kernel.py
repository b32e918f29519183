"""One kernel's work on a machine that dies, hangs, complains or is cancelled at each stage."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import cast

import pytest
from fake_machine import DONE, STAGES, FakeMachine, Tests, World, job_of, world_of

from vmtest.errors import (
    MORE_MEMORY,
    DeadlineExceeded,
    InfrastructureError,
    SessionLost,
    SessionRefused,
)
from vmtest.matrix.bench import Bench, Cancellation, Job
from vmtest.matrix.complaints import KnownSplats
from vmtest.matrix.job import run_kernel
from vmtest.model.events import Booting, Event, Note
from vmtest.model.kernels import RootImage
from vmtest.model.project import KnownSplat
from vmtest.model.results import KernelResult, Outcome, Status
from vmtest.runs.rows import RESULTS, read_results

Act = Callable[[FakeMachine], None]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return world_of(monkeypatch)


def raises(error: BaseException) -> Act:
    def act(machine: FakeMachine) -> None:
        raise error

    return act


def panics(machine: FakeMachine) -> None:
    machine.says("Kernel panic - not syncing: sysrq triggered crash")
    machine.dies()


def starves(machine: FakeMachine) -> None:
    machine.says("Out of memory: Killed process 99 (python3) total-vm:9kB, anon-rss:8kB")
    raise SessionLost("end of file")


def starves_and_hangs(machine: FakeMachine) -> None:
    machine.says("Out of memory: Killed process 99 (python3) total-vm:9kB, anon-rss:8kB")
    raise LATE


def complains(machine: FakeMachine) -> None:
    machine.says("WARNING: CPU: 0 PID: 1 at net/core/sock.c:1 sock_it+0x1/0x2")


def complains_and_leaves(machine: FakeMachine) -> None:
    complains(machine)
    leaves(machine)


def leaves(machine: FakeMachine) -> None:
    raise SessionLost("end of file")


def is_full(machine: FakeMachine) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "/disk/results.jsonl")


LATE = DeadlineExceeded("silence deadline of 1 s passed", "silence")
OVERDUE = DeadlineExceeded("total deadline of 1 s passed", "total")
NO_ANSWER = DeadlineExceeded("the guest did not answer for 10 s", "answer")

ENDS: list[tuple[str, Act, Status, str]] = [
    ("start", raises(InfrastructureError("there is no QEMU")), Status.INFRA_ERROR, "no QEMU"),
    ("start", is_full, Status.INFRA_ERROR, "/disk/results.jsonl: No space left on device"),
    ("start", raises(ValueError("x")), Status.INFRA_ERROR, "a bug in vmtest: ValueError: x"),
    ("boot", panics, Status.BOOT_FAILED, "kernel panicked"),
    ("boot", FakeMachine.dies, Status.BOOT_FAILED, "QEMU ended"),
    ("boot", raises(LATE), Status.BOOT_FAILED, "no SSH session"),
    ("boot", raises(SessionRefused("wrong key")), Status.BOOT_FAILED, "wrong key"),
    ("boot", raises(ValueError("x")), Status.INFRA_ERROR, "a bug in vmtest: ValueError: x"),
    ("boot", leaves, Status.BOOT_FAILED, "no SSH session"),
    ("boot", complains_and_leaves, Status.BOOT_FAILED, "no SSH session"),
    ("copy", complains_and_leaves, Status.INFRA_ERROR, "before pytest had begun"),
    ("copy", panics, Status.PANICKED, "sysrq triggered crash"),
    ("copy", FakeMachine.dies, Status.INFRA_ERROR, "before pytest had begun: end of file; QEMU"),
    ("copy", leaves, Status.INFRA_ERROR, "the guest closed the SSH connection"),
    ("copy", raises(NO_ANSWER), Status.INFRA_ERROR, "before pytest had begun: the guest did not"),
    (
        "copy",
        starves,
        Status.INFRA_ERROR,
        "(1024 MiB; raise memory in kernels.toml)",
    ),
    ("copy", is_full, Status.INFRA_ERROR, "No space left on device; make room there"),
    ("copy", raises(ValueError("x")), Status.INFRA_ERROR, "a bug in vmtest: ValueError: x"),
    ("run", panics, Status.PANICKED, 'sysrq triggered crash"; while t.py::b ran'),
    ("run", FakeMachine.dies, Status.LOST, "QEMU ended; while t.py::b ran"),
    ("run", leaves, Status.LOST, "the guest closed the SSH connection; while t.py::b ran"),
    ("run", starves, Status.LOST, "ran out of memory"),
    ("run", raises(LATE), Status.TIMED_OUT, "silence deadline of 1 s passed; while t.py::b ran"),
    ("run", raises(NO_ANSWER), Status.TIMED_OUT, "did not answer for 10 s; while t.py::b ran"),
    ("run", is_full, Status.INFRA_ERROR, "No space left on device; make room there"),
    ("run", starves_and_hangs, Status.LOST, "ran out of memory"),
    ("run", raises(OVERDUE), Status.TIMED_OUT, "total deadline of 1 s passed; while t.py::b ran"),
    ("run", complains_and_leaves, Status.LOST, "closed the SSH connection; while t.py::b ran"),
    ("run", complains, Status.SPLAT, "WARNING: CPU: 0 PID: 1 at net/core/sock.c:1"),
    ("run", raises(ValueError("x")), Status.INFRA_ERROR, "a bug in vmtest: ValueError: x"),
    ("log", panics, Status.PANICKED, "sysrq triggered crash"),
    ("log", FakeMachine.dies, Status.LOST, "QEMU ended after the last test"),
    ("log", raises(NO_ANSWER), Status.TIMED_OUT, "does not answer after the last test"),
    ("log", leaves, Status.LOST, "after the last test"),
    ("log", starves, Status.LOST, "after the last test"),
    ("log", complains, Status.SPLAT, "the kernel complained"),
    ("log", is_full, Status.INFRA_ERROR, "the results so far are kept"),
    ("log", raises(ValueError("x")), Status.INFRA_ERROR, "a bug in vmtest: ValueError: x"),
]


def rows(folder: Path) -> list[str]:
    file = folder / "run" / "k" / RESULTS
    if not file.exists():
        return []
    with file.open() as lines:
        return [row.test for row in read_results(lines)]


@pytest.mark.parametrize(("stage", "act", "status", "reason"), ENDS)
def test_each_fault_at_each_stage_is_blamed_on_who_did_it(
    stage: str, act: Act, status: Status, reason: str, world: World, tmp_path: Path
) -> None:
    world.at["k", stage] = act
    result = run_kernel(job_of(tmp_path))
    assert result.status is status, result
    assert reason in result.reason


def test_a_complaint_names_the_test_during_which_it_came(world: World, tmp_path: Path) -> None:
    world.at["k", "run"] = complains
    result = run_kernel(job_of(tmp_path))
    assert result.splat_tests == ("t.py::b",)
    assert result.reason.endswith('"; while t.py::b ran')


def knows(folder: Path, pattern: str, until: date | None = None) -> Job:
    entry = KnownSplat(pattern, "issue 8", until=until)
    return replace(job_of(folder), known_splats=KnownSplats((entry,), date(2026, 11, 29)))


@pytest.mark.parametrize("pattern", ["net/core/sock.c:? sock_*", "WARNING in sock_it"])
def test_a_known_complaint_is_noted_and_does_not_count(
    pattern: str, world: World, tmp_path: Path
) -> None:
    world.at["k", "run"] = complains
    result = run_kernel(knows(tmp_path, pattern))
    assert (result.status, result.splats) == (Status.PASSED, ())
    assert '1 known complaint(s) of the kernel (issue 8), the first: "WARNING' in result.note
    (known,) = result.known_splats
    told = (known.fingerprint, known.reason, known.test)
    assert told == ("WARNING in sock_it", "issue 8", "t.py::b")


def test_another_complaint_beside_a_known_one_counts(world: World, tmp_path: Path) -> None:
    def act(machine: FakeMachine) -> None:
        complains(machine)
        machine.says("BUG: scheduling while atomic: sh/7/0x00000002")

    world.at["k", "run"] = act
    result = run_kernel(knows(tmp_path, "WARNING in sock_it"))
    assert (result.status, len(result.splats)) == (Status.SPLAT, 1)
    assert result.fingerprints == ("scheduling while atomic",)


def test_a_known_complaint_that_expired_counts_and_says_so(world: World, tmp_path: Path) -> None:
    world.at["k", "run"] = complains
    result = run_kernel(knows(tmp_path, "sock_it", date(2026, 11, 28)))
    assert result.status is Status.SPLAT
    assert result.reason.endswith("(known splat, expired 2026-11-28: issue 8)")


def test_the_oops_of_a_known_complaint_is_known_with_it(world: World, tmp_path: Path) -> None:
    def act(machine: FakeMachine) -> None:
        machine.says("BUG: kernel NULL pointer dereference, address: 0000000000000008")
        machine.says("Oops: 0002 [#1] PREEMPT SMP NOPTI")
        machine.says("RIP: 0010:sock_it+0x12/0x80 [a_module]")

    world.at["k", "run"] = act
    result = run_kernel(knows(tmp_path, "NULL pointer dereference in sock_it [a_module]"))
    assert (result.status, len(result.known_splats)) == (Status.PASSED, 2)


@dataclass(frozen=True)
class Stalls(Tests):
    """The kernel says that it stalls; the note is what may end the work for it."""

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        with bench.guest() as guest:
            machine = cast(FakeMachine, guest.machine)
            machine.says("rcu: INFO: rcu_preempt self-detected stall on CPU")
            complains(machine)
            return replace(result, note=" ".join(stall.text for stall in guest.kernel.stalls()))


@pytest.mark.parametrize(
    ("pattern", "note"),
    [("sock_it", "rcu: INFO: rcu_preempt self-detected stall on CPU"), ("RCU stall", "")],
)
def test_a_stall_ends_the_work_unless_it_is_known(
    pattern: str, note: str, world: World, tmp_path: Path
) -> None:
    assert run_kernel(replace(knows(tmp_path, pattern), task=Stalls())).note == note


@dataclass(frozen=True)
class Hangs(Tests):
    """The kernel says that tasks hang; the note is what may end the work for it."""

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        with bench.guest() as guest:
            machine = cast(FakeMachine, guest.machine)
            for name, parent in (("kworker/u4:0", 2), ("sh", 1)):
                machine.says(f"INFO: task {name}:12 blocked for more than 120 seconds.")
                machine.says(f"task:{name} state:D stack:0 pid:12 ppid:{parent} flags:0x4")
            assert len(guest.complaints[0] + guest.complaints[1]) == 2
            return replace(result, note=" ".join(stall.text for stall in guest.kernel.stalls()))


def test_a_hung_kernel_thread_ends_no_work(world: World, tmp_path: Path) -> None:
    note = run_kernel(replace(knows(tmp_path, "nothing"), task=Hangs())).note
    assert note == "INFO: task sh:12 blocked for more than 120 seconds."


class Boots:
    """The first boots fail, as many as there are ``acts``."""

    def __init__(self, *acts: Act) -> None:
        self.acts = list(acts)

    def __call__(self, machine: FakeMachine) -> None:
        if self.acts:
            self.acts.pop(0)(machine)


def retried(folder: Path, retries: int) -> Job:
    job = job_of(folder)
    return replace(job, kernel=replace(job.kernel, retries=retries))


@pytest.mark.parametrize("act", [panics, leaves, FakeMachine.dies, raises(LATE)])
def test_a_boot_that_failed_is_tried_again_and_told(act: Act, world: World, tmp_path: Path) -> None:
    world.at["k", "boot"] = Boots(act)
    events: list[Event] = []
    result = run_kernel(retried(tmp_path, 1), events.append)
    assert result.status is Status.PASSED
    assert result.note.startswith("a boot failed and the kernel was booted again: k: ")
    assert f"see {tmp_path / 'run' / 'k' / 'console.log'}" in result.note
    assert [event.attempt for event in events if isinstance(event, Booting)] == [1, 2]
    assert any(
        "is booted again (1 of 1)" in event.text for event in events if isinstance(event, Note)
    )
    assert world.started == world.ended == ["k", "k"] and world.most_alive == 1


def test_each_retry_has_logs_of_its_own(world: World, tmp_path: Path) -> None:
    logs: list[str] = []
    world.at["k", "start"] = lambda machine: logs.append(machine.spec.log.name)
    world.at["k", "boot"] = Boots(panics, panics)
    assert run_kernel(retried(tmp_path, 2)).status is Status.PASSED
    assert logs == ["console.log", "console-2.log", "console-3.log"]


def test_a_kernel_whose_every_boot_fails_says_why_the_last_did(
    world: World, tmp_path: Path
) -> None:
    world.at["k", "boot"] = Boots(panics, leaves)
    result = run_kernel(retried(tmp_path, 1))
    assert result.status is Status.BOOT_FAILED
    assert "no SSH session" in result.reason and "kernel panicked" in result.note


def test_without_retries_a_boot_that_failed_stands(world: World, tmp_path: Path) -> None:
    world.at["k", "boot"] = Boots(panics)
    result = run_kernel(retried(tmp_path, 0))
    assert (result.status, result.note, world.started) == (Status.BOOT_FAILED, "", ["k"])


def test_an_interrupt_while_it_boots_is_not_tried_again(world: World, tmp_path: Path) -> None:
    cancellation = Cancellation()
    world.at["k", "boot"] = lambda machine: cancellation.cancel()
    result = run_kernel(retried(tmp_path, 3), cancellation=cancellation)
    assert (result.status, world.started) == (Status.CANCELLED, ["k"])


def test_what_happens_after_the_boot_is_not_tried_again(world: World, tmp_path: Path) -> None:
    world.at["k", "run"] = panics
    result = run_kernel(retried(tmp_path, 3))
    assert (result.status, world.started) == (Status.PANICKED, ["k"])


@pytest.mark.parametrize(("stage", "act"), [(stage, act) for stage, act, _, _ in ENDS])
def test_no_fault_leaves_a_machine_or_loses_a_row(
    stage: str, act: Act, world: World, tmp_path: Path
) -> None:
    world.at["k", stage] = act
    result = run_kernel(job_of(tmp_path))
    assert world.started == world.ended
    assert rows(tmp_path) == (["t.py::a"] if stage in ("run", "log") else [])
    assert [test.test for test in result.tests][:1] == rows(tmp_path)


def test_a_guest_to_which_nothing_happens_has_passed(world: World, tmp_path: Path) -> None:
    result = run_kernel(job_of(tmp_path))
    assert (result.status, result.reason) == (Status.PASSED, "")
    assert [test.outcome for test in result.tests] == [Outcome.PASSED, Outcome.PASSED]


def test_a_complaint_while_booting_is_a_note_and_no_fault_of_the_tests(
    world: World, tmp_path: Path
) -> None:
    world.at["k", "boot"] = complains
    result = run_kernel(job_of(tmp_path))
    assert result.status is Status.PASSED
    assert "1 complaint(s) of the kernel while booting" in result.note


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_cancelled_at_any_stage_is_cancelled_and_goes_no_further(
    stage: str, world: World, tmp_path: Path
) -> None:
    switch = Cancellation()
    reached: list[str] = []

    def throw(machine: FakeMachine) -> None:
        switch.cancel()

    def reach(name: str) -> Act:
        return lambda machine: reached.append(name)

    world.at = {("k", name): reach(name) for name in STAGES} | {("k", stage): throw}
    result = run_kernel(job_of(tmp_path), cancellation=switch)
    assert result.status is Status.CANCELLED
    assert reached == list(STAGES[: STAGES.index(stage)])
    assert world.started == world.ended
    assert [t.test for t in result.tests[:1]] == [DONE.test for _ in rows(tmp_path)]


def test_a_test_that_an_interrupt_ends_is_not_lost(world: World, tmp_path: Path) -> None:
    switch = Cancellation()
    world.at["k", "run"] = lambda machine: switch.cancel()
    result = run_kernel(job_of(tmp_path), cancellation=switch)
    assert result.status is Status.CANCELLED
    assert [(t.test, t.outcome, t.message) for t in result.tests if t.outcome.ran] == [
        (DONE.test, DONE.outcome, DONE.message)
    ]
    assert [t.message for t in result.tests if t.message] == ["interrupted while it ran"]


def test_a_fault_that_a_cancel_causes_is_not_told_as_a_fault(world: World, tmp_path: Path) -> None:
    switch = Cancellation()

    def throw(machine: FakeMachine) -> None:
        switch.cancel()
        raise DeadlineExceeded("silence deadline of 1 s passed", "silence")

    world.at["k", "boot"] = throw
    result: KernelResult = run_kernel(job_of(tmp_path), cancellation=switch)
    assert (result.status, result.reason) == (Status.CANCELLED, "interrupted")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_a_qemu_that_has_to_stay_root_is_told(world: World, tmp_path: Path) -> None:
    job = job_of(tmp_path)
    modules = tmp_path / "modules"
    modules.mkdir(mode=0o700)
    disk = RootImage("disk", tmp_path / "root.sqfs", "0" * 64, "python3")
    assert "QEMU runs as root" not in run_kernel(job).note
    told = run_kernel(replace(job, root=disk, image=replace(job.image, modules=modules)))
    assert f"QEMU runs as root: only root may read {modules}" in told.note


@pytest.mark.parametrize(
    ("last", "starved"),
    [
        ("qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory", True),
        ("(process:9): GLib-ERROR **: gmem.c:106: failed to allocate 64 bytes", True),
        ("[    1.900000] mydrv: unable to allocate IRQ 9, rebooting", False),
        ("qemu-system-x86_64: terminating on signal 15", False),
    ],
)
def test_only_qemus_own_words_say_that_it_got_no_memory(
    last: str, starved: bool, world: World, tmp_path: Path
) -> None:
    def ends(machine: FakeMachine) -> None:
        machine.console.feed(f"{last}\n".encode())
        machine.dies()

    world.at["k", "boot"] = ends
    result = run_kernel(job_of(tmp_path))
    assert result.status is Status.BOOT_FAILED
    assert last in result.reason
    assert (MORE_MEMORY in result.reason) is starved
