"""The task of ``vmtest run``: the pytest suites in one guest, and the verdict on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from vmtest import known
from vmtest.config import Config
from vmtest.errors import DeadlineExceeded, SessionLost, UnbootableKernel
from vmtest.events import Collected, Preparing, TestFinished, TestStarted
from vmtest.model import (
    KernelImage,
    KernelResult,
    Matrix,
    ObjectFile,
    Outcome,
    Status,
    Suite,
    TestResult,
)
from vmtest.objects import check_object, choose
from vmtest.runs import utc_today
from vmtest.suites import Payload, Run, Sink, install, pack, pytest_argv, suites_root
from vmtest.vm.console import Finding, Sign
from vmtest.vm.machine import Machine
from vmtest.work import Bench, Guest

_KILLED = 128
"""A shell's status for a process that a signal ended is this and the signal's number."""
_PYTEST_INTERNAL_ERROR, _PYTEST_USAGE_ERROR, _PYTEST_NO_TESTS = 3, 4, 5


@dataclass(frozen=True, slots=True)
class SuitesTask:
    """``payload`` run by one pytest process, with ``options`` of pytest's own."""

    payload: Payload
    options: tuple[str, ...] = ()

    @property
    def objects(self) -> tuple[tuple[str, str], ...]:
        """Name and sha256 of each BPF object of the payload."""
        return self.payload.objects

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        """Boot once and run the suites; raises BootError, InfrastructureError, OSError."""
        network = any(suite.network for suite in self.payload.suites)
        with bench.guest(network) as guest:
            result = self._in_guest(bench, guest, result)
            return bench.show(guest.session, result)

    def _in_guest(self, bench: Bench, guest: Guest, result: KernelResult) -> KernelResult:
        job, machine, session = bench.job, guest.machine, guest.session
        name = job.kernel.name
        with (
            (job.directory / "results.jsonl").open("wb") as results,
            (job.directory / "pytest.log").open("wb") as log,
        ):
            sink = Sink(
                results,
                log,
                job.directory / "collected.json",
                collected=lambda tests: bench.emit(Collected(name, len(tests))),
                started=lambda test: bench.emit(TestStarted(name, test)),
                finished=lambda test: bench.emit(TestFinished(name, test)),
            )
            run = Run(self.payload, sink)
            status, reason = Status.PASSED, ""
            try:
                bench.emit(Preparing(name, "copying the payload"))
                with bench.patience(machine, guest.limits.silence):
                    release = install(session, self.payload, bench.check)
                if release != job.image.release:
                    raise UnbootableKernel(
                        f"{name}: the guest runs {release} and not {job.image.release}"
                    )
                argv = pytest_argv(self.payload, job.root.python, self.options)
                run.execute(
                    session,
                    argv,
                    guest.limits,
                    bench.check,
                    lambda: machine.console.last_activity,
                )
                status, reason = _verdict(run, machine)
                if not bench.keep_dmesg(guest) and not bench.cancelled:
                    # After the last test: where programs and maps are freed.
                    status, reason = Status.LOST, f"{machine.cause_of_death()} after the last test"
            except DeadlineExceeded as error:
                starved = _memory(machine)
                status = Status.LOST if starved else Status.TIMED_OUT
                reason = _while(run, starved or str(error))
            except SessionLost as error:
                status, reason = _broken(bench, machine, run, error)
            except OSError as error:
                status, reason = Status.INFRA_ERROR, f"{error}; the results so far are kept"
        if machine.console.panic and status is not Status.PANICKED:
            status, reason = Status.PANICKED, machine.cause_of_death()
        splats = machine.console.findings(Sign.SPLAT)[guest.complaints :]
        if status is Status.PASSED and splats:
            status, reason = Status.SPLAT, f'the kernel complained: "{splats[0].text}"'
        return replace(
            result,
            status=status,
            reason=reason,
            tests=run.results(reason),
            splats=_texts(splats),
            note=_with_boot_splats(result.note, machine, guest.complaints),
            console_tail=() if status in (Status.PASSED, Status.FAILED) else machine.console.tail,
        )


@dataclass(frozen=True, slots=True)
class SuitesTasks:
    """What makes each kernel's task: ``suites`` of ``config`` with that kernel's ``objects``.

    ``today`` (UTC) decides which known failures have expired; ``narrowed`` says that
    ``options`` leave tests out.
    """

    config: Config
    suites: tuple[Suite, ...]
    objects: tuple[ObjectFile, ...]
    options: tuple[str, ...] = ()
    narrowed: bool = False
    today: date = field(default_factory=utc_today)

    def task(self, image: KernelImage) -> SuitesTask:
        """The task of one kernel; raises UsageError for an object that is missing or none."""
        chosen = choose(self.objects, image.version)
        for name in {name for suite in self.suites for name in suite.objects}:
            if name in chosen:
                check_object(name, chosen[name])
        expected = known.for_guest(
            self.config.known_failures, image.version, self._root, self.today
        )
        return SuitesTask(pack(self.config.suites, self.suites, chosen, expected), self.options)

    def notes(self, matrix: Matrix) -> tuple[str, ...]:
        """What ``matrix`` shows of the known failures that the user should act on."""
        return known.notes(
            self.config.known_failures,
            matrix,
            self._root,
            self.today,
            whole=self.suites == self.config.suites and not self.narrowed,
        )

    @property
    def _root(self) -> str:
        return str(suites_root(self.config.suites))


def _broken(bench: Bench, machine: Machine, run: Run, error: SessionLost) -> tuple[Status, str]:
    if bench.cancelled:
        return Status.CANCELLED, _while(run, "interrupted")
    cause = machine.cause_of_death()
    if machine.console.panic:
        return Status.PANICKED, _while(run, cause)
    if not run.tests and not run.log_tail:
        return Status.INFRA_ERROR, f"before pytest had begun: {error}; {cause}"
    return Status.LOST, _while(run, _memory(machine) or cause)


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
