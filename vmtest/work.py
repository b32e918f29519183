"""One kernel's work: boot it, run the suites in it, and say what happened.

``run_kernel`` is what an executor's worker does.  It takes and returns values
that can be pickled; what happens meanwhile goes to files and to a callback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event as Flag
from threading import Lock, Timer

from vmtest.errors import (
    BootError,
    DeadlineExceeded,
    InfrastructureError,
    SessionLost,
    UnbootableKernel,
    VmtestError,
)
from vmtest.events import (
    Booted,
    Booting,
    Collected,
    Event,
    Preparing,
    TestFinished,
    TestStarted,
)
from vmtest.model import Kernel, KernelImage, KernelResult, Outcome, RootImage, Status, TestResult
from vmtest.suites import Payload, Run, Sink, install, pytest_argv
from vmtest.vm.accel import Probe
from vmtest.vm.console import Finding, Sign
from vmtest.vm.deadlines import Scale
from vmtest.vm.machine import Machine, MachineSpec
from vmtest.vm.session import Session

Emit = Callable[[Event], None]
Hold = Callable[[Session, KernelResult], None]
"""Called with a failed kernel's session before its VM ends (``--shell-on-failure``)."""

_KILLED = 128
"""A shell's status for a process that a signal ended is this and the signal's number."""
_PYTEST_INTERNAL_ERROR, _PYTEST_USAGE_ERROR, _PYTEST_NO_TESTS = 3, 4, 5


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that running one kernel takes; ``directory`` exists and is its own."""

    kernel: Kernel
    image: KernelImage
    root: RootImage
    payload: Payload
    probe: Probe
    directory: Path
    vcpus: int
    options: tuple[str, ...] = ()
    note: str = ""

    @property
    def scale(self) -> Scale:
        """How much the deadlines stretch here."""
        return Scale(self.probe.seconds, self.vcpus)


class Cancellation:
    """A switch that ends every machine running in this process, once."""

    def __init__(self) -> None:
        self._flag = Flag()
        self._lock = Lock()
        self._machines: set[Machine] = set()

    @property
    def requested(self) -> bool:
        """Whether it was thrown."""
        return self._flag.is_set()

    def cancel(self) -> None:
        """End every machine, and every one that would still start."""
        with self._lock:
            self._flag.set()
            for machine in tuple(self._machines):
                machine.cancel()

    def watch(self, machine: Machine, stack: ExitStack) -> None:
        """Have ``machine`` end with the others, until ``stack`` is left; raises SessionLost."""
        with self._lock:
            if self._flag.is_set():
                raise SessionLost("cancelled")
            self._machines.add(machine)
        stack.callback(self._forget, machine)

    def _forget(self, machine: Machine) -> None:
        with self._lock:
            self._machines.discard(machine)


def base_result(kernel: Kernel, status: Status, reason: str) -> KernelResult:
    """The result of a kernel that came to no tests."""
    return KernelResult(kernel.name, status, reason=reason, gate=kernel.gate, directory=kernel.name)


def _unheard(event: Event) -> None:
    del event


def run_kernel(
    job: Job,
    emit: Emit = _unheard,
    cancellation: Cancellation | None = None,
    hold: Hold | None = None,
) -> KernelResult:
    """Boot the kernel of ``job``, run its suites, and judge.  Never raises a VmtestError."""
    cancellation = cancellation or Cancellation()
    started = time.monotonic()
    scale = job.scale
    result = KernelResult(
        kernel=job.kernel.name,
        status=Status.INFRA_ERROR,
        version=str(job.image.version),
        release=job.image.release,
        accelerator=job.probe.accelerator.value,
        note="; ".join(part for part in (job.image.note, job.note) if part),
        factor=round(scale.factor, 2),
        directory=job.directory.name,
        digest=job.image.digest,
        gate=job.kernel.gate,
        objects=job.payload.objects,
        guest=job.root.digest,
    )
    try:
        result = _Work(job, emit, cancellation, hold).run(result)
    except (VmtestError, OSError) as error:
        if cancellation.requested:
            result = replace(result, status=Status.CANCELLED, reason="interrupted")
        else:
            status = Status.BOOT_FAILED if isinstance(error, BootError) else Status.INFRA_ERROR
            result = replace(result, status=status, reason=str(error))
    return replace(result, duration=round(time.monotonic() - started, 2))


@dataclass(slots=True)
class _Work:
    """The steps of one kernel, with what they share."""

    job: Job
    emit: Emit
    cancellation: Cancellation
    hold: Hold | None
    quiet_before: int = field(default=0)

    def run(self, result: KernelResult) -> KernelResult:
        job = self.job
        spec = MachineSpec(
            image=job.image,
            root=job.root,
            probe=job.probe,
            log=job.directory / "console.log",
            memory_mib=job.kernel.memory_mib,
            cpus=job.kernel.cpus,
            cmdline=job.kernel.cmdline,
            network=any(suite.network for suite in job.payload.suites),
        )
        limits = job.scale.apply(job.kernel.limits)
        with ExitStack() as stack:
            self.emit(Booting(job.kernel.name))
            machine = stack.enter_context(Machine(spec))
            self.cancellation.watch(machine, stack)
            try:
                session = machine.connect(limits.boot, job.scale.factor)
            except BootError as error:
                if self.cancellation.requested:
                    raise
                return replace(
                    result,
                    status=Status.BOOT_FAILED,
                    reason=str(error),
                    console_tail=machine.console.tail,
                )
            stack.callback(session.close)
            seconds = round(time.monotonic() - machine.started, 2)
            result = replace(result, boot_seconds=seconds)
            self.emit(
                Booted(job.kernel.name, seconds, job.image.release, job.probe.accelerator.value)
            )
            # What the kernel said while booting is no test's fault: it is noted, not judged.
            self.quiet_before = len(machine.console.findings(Sign.SPLAT))
            result = self._suites(machine, session, result)
            if self.hold is not None and result.status is not Status.PASSED and session.alive:
                result = self._held(session, result)
            return result

    def _held(self, session: Session, result: KernelResult) -> KernelResult:
        """Let somebody look at the guest; whatever comes of it, the result stands."""
        assert self.hold is not None
        if self.cancellation.requested:
            return result
        try:
            self.hold(session, result)
        except (VmtestError, OSError) as error:
            return replace(result, note=f"{result.note}; no shell: {error}".removeprefix("; "))
        return result

    def _suites(self, machine: Machine, session: Session, result: KernelResult) -> KernelResult:
        job, name = self.job, self.job.kernel.name

        def check() -> None:
            if self.cancellation.requested:
                raise SessionLost("cancelled")

        with (
            (job.directory / "results.jsonl").open("wb") as results,
            (job.directory / "pytest.log").open("wb") as log,
        ):
            sink = Sink(
                results,
                log,
                job.directory / "collected.json",
                collected=lambda tests: self.emit(Collected(name, len(tests))),
                started=lambda test: self.emit(TestStarted(name, test)),
                finished=lambda test: self.emit(TestFinished(name, test)),
            )
            run = Run(job.payload, sink)
            status, reason = Status.PASSED, ""
            try:
                self.emit(Preparing(name, "copying the payload"))
                limits = job.scale.apply(job.kernel.limits)
                with self._patience(machine, limits.silence):
                    release = install(session, job.payload, check)
                if release != job.image.release:
                    raise UnbootableKernel(
                        f"{name}: the guest runs {release} and not {job.image.release}"
                    )
                argv = pytest_argv(job.payload, job.root.python, job.options)
                run.execute(session, argv, limits, check, lambda: machine.console.last_activity)
                status, reason = _verdict(run, machine)
                with self._patience(machine, 10 * job.scale.factor):
                    kept = self._keep_dmesg(session)
                if not kept and not self.cancellation.requested:
                    # After the last test: where programs and maps are freed.
                    status, reason = Status.LOST, f"{machine.cause_of_death()} after the last test"
            except DeadlineExceeded as error:
                starved = _memory(machine)
                status = Status.LOST if starved else Status.TIMED_OUT
                reason = _while(run, starved or str(error))
            except SessionLost as error:
                status, reason = self._broken(machine, run, error)
            except OSError as error:
                status, reason = Status.INFRA_ERROR, f"{error}; the results so far are kept"
        if machine.console.panic and status is not Status.PANICKED:
            status, reason = Status.PANICKED, machine.cause_of_death()
        splats = machine.console.findings(Sign.SPLAT)[self.quiet_before :]
        if status is Status.PASSED and splats:
            status, reason = Status.SPLAT, f'the kernel complained: "{splats[0].text}"'
        return replace(
            result,
            status=status,
            reason=reason,
            tests=run.results(reason),
            splats=_texts(splats),
            note=_with_boot_splats(result.note, machine, self.quiet_before),
            console_tail=() if status in (Status.PASSED, Status.FAILED) else machine.console.tail,
        )

    def _broken(self, machine: Machine, run: Run, error: SessionLost) -> tuple[Status, str]:
        if self.cancellation.requested:
            return Status.CANCELLED, _while(run, "interrupted")
        cause = machine.cause_of_death()
        if machine.console.panic:
            return Status.PANICKED, _while(run, cause)
        if not run.tests and not run.log_tail:
            return Status.INFRA_ERROR, f"before pytest had begun: {error}; {cause}"
        return Status.LOST, _while(run, _memory(machine) or cause)

    @contextmanager
    def _patience(self, machine: Machine, seconds: float) -> Iterator[None]:
        """Hang up on a guest that neither answers nor dies within ``seconds``."""
        timer = Timer(seconds, machine.hang_up)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _keep_dmesg(self, session: Session) -> bool:
        """Whether the guest was still there to give its log."""
        try:
            text = session.run(["dmesg"]).stdout
        except SessionLost:
            return False
        (self.job.directory / "dmesg.log").write_bytes(text)
        return True


def _texts(findings: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(finding.text for finding in findings)


def _with_boot_splats(note: str, machine: Machine, count: int) -> str:
    if not count:
        return note
    first = machine.console.findings(Sign.SPLAT)[0].text
    boot = f'{count} complaint(s) of the kernel while booting, the first: "{first}"'
    return f"{note}; {boot}" if note else boot


def _while(run: Run, what: str) -> str:
    return f"{what}; while {run.running} ran" if run.running else what


def _verdict(run: Run, machine: Machine) -> tuple[Status, str]:
    """Status and reason of a pytest process that has ended."""
    if run.exit_status is None and 0 < run.process_status < _KILLED:
        # Before it had a session: a conftest.py that cannot be imported, for one.
        return Status.FAILED, f"pytest could not run: {_last_line(run.log_tail)}; see pytest.log"
    if run.exit_status is None:
        cause = _memory(machine) or f"pytest ended without a word: {_last_line(run.log_tail)}"
        return Status.LOST, _while(run, cause)
    if run.exit_status in (_PYTEST_INTERNAL_ERROR, _PYTEST_USAGE_ERROR):
        return Status.FAILED, f"pytest could not run: {_last_line(run.log_tail)}; see pytest.log"
    bad = [test for test in run.done if test.outcome.bad]
    if bad:
        return Status.FAILED, _count_bad(bad)
    if run.exit_status == _PYTEST_NO_TESTS or not run.tests:
        return Status.NO_TESTS, "pytest collected no tests"
    if run.exit_status != 0:
        last = _last_line(run.log_tail)
        return Status.FAILED, f"pytest stopped early (status {run.exit_status}): {last}"
    return Status.PASSED, ""


def _memory(machine: Machine) -> str:
    """What the console says of the guest's memory, "" when it had enough."""
    killed = machine.console.findings(Sign.OUT_OF_MEMORY)
    if not killed:
        return ""
    return (
        f"the guest ran out of memory ({machine.spec.memory_mib} MiB; raise memory in "
        f'kernels.toml): "{killed[-1].text}"'
    )


def _count_bad(bad: Sequence[TestResult]) -> str:
    errors = sum(test.outcome is Outcome.ERROR for test in bad)
    failed = len(bad) - errors
    parts = [f"{failed} failed"] if failed else []
    parts += [f"{errors} with errors"] if errors else []
    return ", ".join(parts)


def _last_line(log: bytes) -> str:
    lines = [line for line in log.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "nothing was printed"


def refused(kernel: Kernel, error: Exception) -> KernelResult:
    """The result of a kernel that could not even be prepared."""
    assert isinstance(error, InfrastructureError | OSError)
    return base_result(kernel, Status.INFRA_ERROR, str(error))
