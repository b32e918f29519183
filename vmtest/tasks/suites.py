"""The task of ``vmtest run``: the pytest suites in one guest, and the verdict on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vmtest.config import Config
from vmtest.events import Collected, TestFinished, TestStarted
from vmtest.model import KernelImage, KernelResult, ObjectFile, Status, Suite, TestResult
from vmtest.objects import check_object, choose
from vmtest.suites import Payload, Run, Sink, pack, pytest_argv
from vmtest.tasks.watched import KILLED, count_bad, last_line, out_of_memory, watch
from vmtest.vm.machine import Machine
from vmtest.vm.session import Check
from vmtest.work import Bench, Guest

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
        job = bench.job
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
            argv = pytest_argv(self.payload, job.root.python, self.options)
            return watch(bench, guest, result, SuitesWork(Run(self.payload, sink), argv))


@dataclass(frozen=True, slots=True)
class SuitesWork:
    """One pytest process, ``argv``, as work to watch."""

    process: Run
    argv: list[str]

    @property
    def archive(self) -> bytes:
        """The suites' payload."""
        return self.process.payload.archive

    @property
    def begun(self) -> bool:
        """Whether pytest had said anything."""
        return bool(self.process.tests or self.process.log_tail)

    @property
    def running(self) -> str | None:
        """The test that runs."""
        return self.process.running

    @property
    def name(self) -> str:
        """Whose work it is."""
        return "pytest"

    def run(self, guest: Guest, check: Check) -> None:
        """Run pytest to its end; raises DeadlineExceeded, SessionLost."""
        console = guest.machine.console
        self.process.execute(
            guest.session, self.argv, guest.limits, check, lambda: console.last_activity
        )

    def verdict(self, machine: Machine) -> tuple[Status, str]:
        """Status and reason of a pytest process that has ended."""
        run = self.process
        if run.exit_status is None and 0 < run.process_status < KILLED:
            # Before it had a session: a conftest.py that cannot be imported, for one.
            last = last_line(run.log_tail)
            return Status.FAILED, f"pytest could not run: {last}; see pytest.log"
        if run.exit_status is None:
            last = last_line(run.log_tail)
            return Status.LOST, out_of_memory(machine) or f"pytest ended without a word: {last}"
        if run.exit_status in (_PYTEST_INTERNAL_ERROR, _PYTEST_USAGE_ERROR):
            last = last_line(run.log_tail)
            return Status.FAILED, f"pytest could not run: {last}; see pytest.log"
        bad = [test for test in run.done if test.outcome.bad]
        if bad:
            return Status.FAILED, count_bad(bad)
        if run.exit_status == _PYTEST_NO_TESTS or not run.tests:
            return Status.NO_TESTS, "pytest collected no tests"
        if run.exit_status != 0:
            last = last_line(run.log_tail)
            return Status.FAILED, f"pytest stopped early (status {run.exit_status}): {last}"
        return Status.PASSED, ""

    def results(self, reason: str) -> tuple[TestResult, ...]:
        """All tests, the lost one with ``reason``."""
        return self.process.results(reason)


def suite_tasks(
    config: Config,
    suites: Sequence[Suite],
    objects: Sequence[ObjectFile],
    options: tuple[str, ...] = (),
) -> Callable[[KernelImage], SuitesTask]:
    """What makes a kernel's task: ``suites`` of ``config`` with that kernel's ``objects``.

    It raises UsageError for an object that is missing or none.
    """

    def make(image: KernelImage) -> SuitesTask:
        chosen = choose(objects, image.version)
        for name in {name for suite in suites for name in suite.objects}:
            if name in chosen:
                check_object(name, chosen[name])
        return SuitesTask(pack(config.suites, suites, chosen), options)

    return make
