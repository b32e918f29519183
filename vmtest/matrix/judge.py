"""Work in a guest, watched: what of an end is the work's own, the VM's, the kernel's.

Shared by the tasks that have one process run in one guest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from vmtest.errors import DeadlineExceeded, SessionLost, UnbootableKernel, os_words
from vmtest.matrix.bench import Bench, Guest
from vmtest.matrix.complaints import Complaints, KnownSplats, note_of
from vmtest.matrix.payload import install
from vmtest.model.events import Preparing
from vmtest.model.results import KernelResult, Outcome, Status, TestResult
from vmtest.vm.console import Finding, Sign
from vmtest.vm.deadlines import within
from vmtest.vm.machine import Machine
from vmtest.vm.session import Check


class Running(Protocol):
    """A process in a guest, and what it comes to."""

    @property
    def archive(self) -> bytes:
        """What goes into the guest, a tar."""

    @property
    def name(self) -> str:
        """What it is called in a reason, such as ``pytest``."""

    @property
    def begun(self) -> bool:
        """Whether it had said anything: before that, an end is the machinery's fault."""

    @property
    def running(self) -> str | None:
        """The test that runs."""

    def run(self, guest: Guest, check: Check) -> None:
        """Run it to its end; raises DeadlineExceeded, SessionLost."""

    def verdict(self, machine: Machine) -> tuple[Status, str]:
        """Status and reason once ``run`` has returned."""

    def results(self, reason: str) -> tuple[TestResult, ...]:
        """All tests; ``reason`` is why one that still ran was lost."""

    def ran_at(self, stamp: str) -> str:
        """The test that ran at this time of the kernel's, "" where none did or it is not known."""


def watch(bench: Bench, guest: Guest, result: KernelResult, work: Running) -> KernelResult:
    """Have ``work`` done in ``guest``, and judge; returns ``result`` completed.

    Raises UnbootableKernel when the guest runs another kernel, InfrastructureError
    when the payload does not fit in.
    """
    name, machine = bench.job.kernel.name, guest.machine
    status, reason = Status.PASSED, ""
    try:
        bench.emit(Preparing(name, "copying the payload"))
        with within(guest.limits.silence, "copying the payload", machine.hang_up):
            session, config, root = guest.session, bench.job.image.config, bench.job.root
            found = install(session, work.archive, bench.check, config, root.libraries, root.wheels)
        bench.emit(Preparing(name, f"starting {work.name}"))
        note = "; ".join(filter(None, (result.note, found.note)))
        result = replace(result, libbpf=found.libbpf, note=note)
        if found.release != bench.job.image.release:
            raise UnbootableKernel(
                f"{name}: the guest runs {found.release} and not {bench.job.image.release}"
            )
        work.run(guest, bench.check)
        # After the last test: where programs and maps are freed.
        ended = _read_log(bench, guest)
        status, reason = work.verdict(machine)
        if status is Status.LOST:
            reason = _while(work, reason)
        status, reason = ended or (status, reason)
    except DeadlineExceeded as error:
        status, reason = _late(machine, work, error)
    except SessionLost as error:
        status, reason = _broken(bench, machine, work, error)
    except OSError as error:
        status, reason = _unwritten(work, status, reason, error)
    if machine.console.panic and status is not Status.PANICKED:
        status, reason = Status.PANICKED, machine.cause_of_death()
    boot, _ = guest.complaints
    complaints = complaints_since(guest, bench.job.known_splats, work.ran_at)
    if status is Status.PASSED and complaints.counting:
        status, reason = Status.SPLAT, complaints.reason
    return replace(
        result,
        status=status,
        reason=reason,
        tests=_reached(work.results(reason), status),
        splats=complaints.texts,
        fingerprints=complaints.fingerprints,
        splat_tests=complaints.tests,
        known_splats=complaints.known,
        note="; ".join(filter(None, (result.note, *_notes(guest, boot, complaints)))),
        console_tail=() if status in (Status.PASSED, Status.FAILED) else machine.console.tail,
        console_log=machine.spec.log.name,
    )


def _reached(tests: tuple[TestResult, ...], status: Status) -> tuple[TestResult, ...]:
    """``tests``, those that an interrupt cut short among the ones not run: no guest lost them."""
    if status is not Status.CANCELLED:
        return tests
    return tuple(
        replace(test, outcome=Outcome.NOT_RUN, message="interrupted while it ran")
        if test.outcome is Outcome.LOST
        else test
        for test in tests
    )


def _read_log(bench: Bench, guest: Guest) -> tuple[Status, str] | None:
    """Status and reason when the guest ends under it, or does not answer."""
    try:
        bench.read_log(guest)
    except DeadlineExceeded as error:
        return Status.TIMED_OUT, f"the guest does not answer after the last test: {error}"
    except SessionLost:
        if bench.cancelled:
            return Status.CANCELLED, "interrupted before the kernel's log was read to its end"
        return Status.LOST, f"{guest.machine.cause_of_death()} after the last test"
    return None


def _late(machine: Machine, work: Running, error: DeadlineExceeded) -> tuple[Status, str]:
    if starved := out_of_memory(machine):
        return Status.LOST, _while(work, starved)
    if error.kind == "answer" and not work.begun:
        return Status.INFRA_ERROR, (
            f"before {work.name} had begun: {error}; is the host overloaded? "
            f"Raise silence_timeout in kernels.toml or lower --jobs; see {machine.spec.log}"
        )
    return Status.TIMED_OUT, _while(work, str(error))


def _broken(
    bench: Bench, machine: Machine, work: Running, error: SessionLost
) -> tuple[Status, str]:
    if bench.cancelled:
        return Status.CANCELLED, _while(work, "interrupted")
    cause = machine.cause_of_death()
    if machine.console.panic:
        return Status.PANICKED, _while(work, cause)
    if not work.begun:
        why = out_of_memory(machine) or f"{error}; {cause}"
        return Status.INFRA_ERROR, f"before {work.name} had begun: {why}"
    return Status.LOST, _while(work, out_of_memory(machine) or cause)


def _unwritten(work: Running, status: Status, reason: str, error: OSError) -> tuple[Status, str]:
    """A fault of the host's disk, which hides nothing that is known by then."""
    what = f"{os_words(error)}; the results so far are kept"
    bad = [test for test in work.results(what) if test.outcome.bad]
    if bad:
        return Status.FAILED, f"{count_bad(bad)}; {what}"
    if status is Status.PASSED:
        return Status.INFRA_ERROR, what
    return status, f"{reason}; {what}"


def _while(work: Running, what: str) -> str:
    return f"{what}; while {work.running} ran" if work.running else what


def _notes(guest: Guest, boot: Sequence[Finding], complaints: Complaints) -> tuple[str, ...]:
    return (_of_the_boot(boot), note_of(complaints.known), *guest.reader.notes)


def _of_the_boot(complaints: Sequence[Finding]) -> str:
    if not complaints:
        return ""
    first = complaints[0].text
    return f'{len(complaints)} complaint(s) of the kernel while booting, the first: "{first}"'


def complaints_since(
    guest: Guest, known: KnownSplats, ran_at: Callable[[str], str] = lambda stamp: ""
) -> Complaints:
    """What the kernel complained of since it was up, with the test that ``ran_at`` its time.

    A mark that it left (/proc/sys/kernel/tainted) counts as a complaint whose message nobody read.
    Known complaints explain it only where every record was read: another may be among the others.
    """
    since = guest.complaints[1]
    found = known.sort([replace(finding, test=ran_at(finding.stamp)) for finding in since])
    reader = guest.reader
    if found.counting or not reader.unseen or (found.any and not reader.overwritten):
        return found
    text = (
        f"{reader.unseen} in /proc/sys/kernel/tainted: its message was overwritten before it could "
        "be read; see dmesg.log"
    )
    return found + Complaints((Finding(Sign.SPLAT, text, 0.0),))


def out_of_memory(machine: Machine) -> str:
    """What the kernel says of the guest's memory, "" when it had enough."""
    killed = machine.findings(Sign.OUT_OF_MEMORY)
    if not killed:
        return ""
    return (
        f"the guest ran out of memory ({machine.spec.memory_mib} MiB; raise memory in "
        f'kernels.toml): "{killed[-1].text}"'
    )


def count_bad(bad: Sequence[TestResult]) -> str:
    """``2 failed, 1 with errors``."""
    errors = sum(test.outcome is Outcome.ERROR for test in bad)
    failed = len(bad) - errors
    parts = [f"{failed} failed"] if failed else []
    parts += [f"{errors} with errors"] if errors else []
    return ", ".join(parts)


def of_tests(tests: Sequence[TestResult]) -> str:
    """The reason of a kernel that failed by nothing but its ``tests``: ``2 failed, 1 lost``."""
    bad = [test for test in tests if test.outcome.bad]
    return ", ".join([*([count_bad(bad)] if bad else []), *count_unproven(tests)])


def count_unproven(tests: Sequence[TestResult]) -> list[str]:
    """``["1 lost", "2 not run"]``: the tests that have no result of their own."""
    found = Counter(test.outcome for test in tests)
    return [f"{found[o]} {o}" for o in (Outcome.LOST, Outcome.NOT_RUN) if found[o]]
