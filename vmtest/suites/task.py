"""The task of ``vmtest run``: the pytest suites in one guest, and the verdict on them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date

from vmtest.config.file import Config
from vmtest.host.files import Files
from vmtest.matrix.job import Bench, Guest
from vmtest.matrix.judge import KILLED, count_bad, last_line, out_of_memory, watch
from vmtest.model.events import Collected, TestFinished, TestStarted
from vmtest.model.kernels import (
    KernelImage,
    KernelResult,
    Matrix,
    ObjectFile,
    Status,
    Suite,
    TestResult,
)
from vmtest.objects.builds import choose, read_object
from vmtest.runs.folder import utc_today
from vmtest.suites import known
from vmtest.suites.process import Payload, Run, Sink, pack, pytest_argv, suites_root
from vmtest.vm.machine import Machine
from vmtest.vm.session import Check

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


@dataclass(frozen=True, slots=True)
class SuitesTasks:
    """What makes each kernel's task: ``suites`` of ``config`` with that kernel's ``objects``.

    ``today`` (UTC) decides which known failures have expired; ``narrowed`` says that
    ``options`` leave tests out; ``files`` reads what goes along, once for all kernels.
    """

    config: Config
    suites: tuple[Suite, ...]
    objects: tuple[ObjectFile, ...]
    options: tuple[str, ...] = ()
    narrowed: bool = False
    today: date = field(default_factory=utc_today)
    files: Files = field(default_factory=Files)

    def task(self, image: KernelImage) -> SuitesTask:
        """The task of one kernel; raises UsageError for an object that is missing or none."""
        chosen = choose(self.objects, image.version)
        for name in {name for suite in self.suites for name in suite.objects}:
            if name in chosen:
                read_object(name, chosen[name], self.files)
        expected = known.for_guest(
            self.config.known_failures, image.version, self._root, self.today
        )
        payload = pack(self.config.suites, self.suites, chosen, expected, self.files)
        return SuitesTask(payload, self.options)

    def read(self) -> None:
        """Read all that may go along: what changes from now on is not in this run.

        Raises UsageError for a suite that is not there.  An object that is not there is missed
        by the kernel that it is for.
        """
        bare = tuple(replace(suite, objects=()) for suite in self.suites)
        pack(self.config.suites, bare, {}, files=self.files)
        needed = {name for suite in self.suites for name in suite.objects}
        for build in self.objects:
            if build.name in needed and build.path.is_file():
                self.files.read(build.path, "objects")

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
