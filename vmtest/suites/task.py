"""The task of ``vmtest run``: the pytest suites in one guest, and the verdict on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from vmtest.guest.payload import BYTECODE
from vmtest.guest.wire import WIRE_GONE
from vmtest.host.files import Files, with_member
from vmtest.host.write import LimitedLog, LimitedRows
from vmtest.kernels import kconfig
from vmtest.matrix.bench import Bench, Guest
from vmtest.matrix.follow import status_words
from vmtest.matrix.judge import count_unproven, of_tests, out_of_memory, watch
from vmtest.model.events import Collected, Preparing, TestFinished, TestStarted
from vmtest.model.kernels import KernelImage
from vmtest.model.project import Config, ObjectFile, Suite, network_of
from vmtest.model.results import KernelResult, Matrix, Status, TestResult
from vmtest.model.text import last_line
from vmtest.objects.builds import choose, modules_for, read_object
from vmtest.runs.folder import utc_today
from vmtest.runs.past import Past
from vmtest.runs.rows import COLLECTED, RESULTS
from vmtest.suites import again, flaky, isolate, known, lacking, repeat, retry
from vmtest.suites.code import Code
from vmtest.suites.collect import collected, only_collects, to_run
from vmtest.suites.expression import none_chosen
from vmtest.suites.failed import PLACE, Failed
from vmtest.suites.flaky import Listed, stops_early
from vmtest.suites.isolate import Group, Isolation
from vmtest.suites.payload import Payload, pack_suites, suites_root
from vmtest.suites.process import DONE, Run, Sink, pytest_argv
from vmtest.suites.repeat import Repeat
from vmtest.vm.machine import Machine
from vmtest.vm.session import Check

_PYTEST_FAILED, _PYTEST_INTERRUPTED = 1, 2
_PYTEST_INTERNAL_ERROR, _PYTEST_USAGE_ERROR, _PYTEST_NO_TESTS = 3, 4, 5


@dataclass(frozen=True, slots=True)
class Share:
    """Which of the tests run in a guest: neither those ``before`` nor those for ``later``.

    ``files`` have all of them; none: those of the suites.  ``retry`` is the number of a retry, 0
    for tests that did not run before; ``number`` is that of a repeated run, from 0.
    """

    before: tuple[TestResult, ...] = ()
    later: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    retry: int = 0
    number: int = 0

    def after(self, before: tuple[TestResult, ...]) -> Share:
        """What is left of it after ``before``."""
        return replace(self, before=(*self.before, *before))


@dataclass(frozen=True, slots=True)
class SuitesTask:
    """``payload`` run by one pytest process, with ``options`` of pytest's own.

    With ``keep_going`` a test that ends its guest costs itself: the rest go on in a fresh one.
    ``failed`` says which tests run alone, or first; ``isolate`` what has a guest of its own, and
    None runs all in one; ``retries`` is how often a test that failed runs again in a fresh guest,
    those of ``flaky`` at least once; ``repeat`` is how often all run.
    """

    payload: Payload
    options: tuple[str, ...] = ()
    keep_going: bool = False
    failed: Failed | None = None
    isolate: Isolation | None = None
    retries: int = 0
    flaky: Listed = field(default_factory=Listed)
    repeat: Repeat = field(default_factory=Repeat)

    @property
    def objects(self) -> tuple[tuple[str, str], ...]:
        """Name and sha256 of each BPF object of the payload."""
        return self.payload.objects

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        """Boot and run the suites; raises BootError, InfrastructureError, OSError."""

        def run_again(group: Group, others: tuple[TestResult, ...], number: int) -> KernelResult:
            count = "a test" if len(group.tests) == 1 else f"{len(group.tests)} tests"
            what = f"running {count} that failed again ({number} of {max(self.retries, 1)})"
            bench.emit(Preparing(bench.job.kernel.name, what))
            files = group.files if self.isolate else ()
            return self._share(bench, result, Share(others, files=files, retry=number))

        def run_once(number: int) -> KernelResult:
            if number:
                what = f"run {number + 1} of {self.repeat.times} in a fresh guest"
                bench.emit(Preparing(bench.job.kernel.name, what))
            return self._first(bench, result, number)

        if self.repeat != Repeat() and not only_collects(self.options):
            return repeat.run(run_once, self.repeat, lambda: bench.cancelled)
        first = run_once(0)
        if only_collects(self.options):
            return first
        return retry.run(
            first, self.retries, self.isolate, run_again, lambda: bench.cancelled, self.flaky
        )

    def _first(self, bench: Bench, result: KernelResult, number: int) -> KernelResult:
        """Run each test once, for the ``number``-th time from 0."""
        everything = Share(number=number)
        if self.isolate is None or only_collects(self.options):
            return self._share(bench, result, everything)
        lists = replace(self, options=(*self.options, "--collect-only"))
        first = lists._boot(bench, result, everything)
        if first.status not in (Status.COLLECTED, Status.FAILED):
            return first
        if first.status is Status.FAILED and not any(test.outcome.bad for test in first.tests):
            return first  # pytest or its process ended badly, which no guest of a group would say

        def run_group(
            group: Group, before: tuple[TestResult, ...], later: tuple[str, ...]
        ) -> KernelResult:
            share = Share(before, later, group.files, number=number)
            return self._share(bench, result, share)

        listed = replace(first, tests=tuple(to_run(first.tests)))
        if not isolate.groups(listed.tests, self.isolate):
            return self._share(bench, result, everything)
        return isolate.run(listed, self.isolate, run_group, lambda: bench.cancelled)

    def _share(self, bench: Bench, result: KernelResult, share: Share) -> KernelResult:
        """Run a share of the tests, in as many guests as it takes."""
        if not self.keep_going:
            return self._boot(bench, result, share)
        return again.run(
            lambda before, spent: self._boot(bench, result, share.after(before), spent),
            bench.job.scale.apply(bench.job.kernel.limits).total,
            lambda: bench.cancelled,
        )

    def _boot(
        self, bench: Bench, result: KernelResult, share: Share, spent: float = 0.0
    ) -> KernelResult:
        """Run ``share`` in one guest, ``spent`` seconds being gone."""
        with bench.guest(network_of(self.payload.suites)) as guest:
            total = max(guest.limits.total - spent, 0.0)
            guest = replace(guest, limits=replace(guest.limits, total=total))
            result = self._in_guest(bench, guest, result, share)
            if only_collects(self.options):
                result = collected(result)
            return bench.show(guest.session, result)

    def _in_guest(
        self, bench: Bench, guest: Guest, result: KernelResult, share: Share
    ) -> KernelResult:
        job = bench.job
        name = job.kernel.name
        code = Code.of(self.payload, share.files, bench, guest)
        mode = "wb" if share == Share() else "ab"
        with (
            LimitedRows(job.directory / RESULTS, mode) as results,
            LimitedLog(job.directory / "pytest.log", mode) as log,
        ):
            sink = Sink(
                results,
                log,
                job.directory / COLLECTED,
                collected=lambda tests: bench.emit(Collected(name, len(tests))),
                started=lambda test: bench.emit(TestStarted(name, test)),
                finished=lambda test: bench.emit(TestFinished(name, test)),
                compiled=code.tell,
            )
            python, options = job.root.python, self.options
            goes_on = bool(share.before or share.later)
            argv = pytest_argv(self.payload, python, options, goes_on=goes_on, files=share.files)
            failed = self.failed.for_guest(name) if self.failed else b""
            process = Run(self.payload, sink, share.before, share.later)
            absent = self.failed.absent(name) if self.failed else ""
            work = SuitesWork(
                process,
                argv,
                failed,
                part=bool(share.files),
                absent=absent,
                code=code.laid,
            )
            result = watch(bench, guest, result, work)
            code.keep(result)
            return result


@dataclass(frozen=True, slots=True)
class SuitesWork:
    """One pytest process, ``argv``, as work to watch; ``failed`` is JSON for its plugin.

    It reads a ``part`` of the suites' files: those of a suite may all be in other guests.
    ``absent`` is why it has no tests where there are none of those in ``failed`` ("" by default).
    ``code`` is the payload's file with code of the suites' modules, b"" for none.
    """

    process: Run
    argv: list[str]
    failed: bytes = b""
    part: bool = False
    absent: str = ""
    code: bytes = b""

    @property
    def archive(self) -> bytes:
        """The suites' payload, and the code of its modules that is there."""
        archive = self.process.payload.archive
        return with_member(archive, BYTECODE, self.code) if self.code else archive

    @property
    def begun(self) -> bool:
        """Whether pytest had said anything."""
        return self.process.begun

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
        done = [*(test.test for test in self.process.before), *self.process.later]
        if done:
            guest.session.put(json.dumps(done).encode(), DONE)
        if self.failed:
            guest.session.put(self.failed, PLACE)
        self.process.execute(guest.session, self.argv, guest.limits, check, guest.kernel)

    def verdict(self, machine: Machine) -> tuple[Status, str]:
        """Status and reason of a pytest process that has ended.

        PASSED needs a result of every test, and that pytest and its process say the same.
        """
        run = self.process
        if run.bad_line:
            return Status.LOST, f"{run.bad_line}; what came after it was not read"
        last = last_line(run.log_tail.decode(errors="replace")) or "nothing was printed"
        if run.exit_status is None:
            how = f"{status_words(run.process_status)}: {last}"
            if run.process_status == WIRE_GONE:
                how = "a test closed or replaced descriptors that it had not opened"
            if starved := out_of_memory(machine):
                return Status.LOST, starved
            if not run.begun:
                return Status.INFRA_ERROR, f"pytest did not start in the guest, {how}"
            return Status.LOST, f"pytest's process ended before pytest had, {how}"
        if run.exit_status in (_PYTEST_INTERNAL_ERROR, _PYTEST_USAGE_ERROR) and not run.tests:
            return Status.FAILED, f"pytest could not run: {last}; see pytest.log"
        tests = run.results()
        bad = [test for test in tests if test.outcome.bad]
        left = count_unproven(tests)
        early = f"pytest stopped early (status {run.exit_status}): {last}"
        if bad:
            told = "" if _ends_with_failures(run.exit_status, bad) else f"; {early}"
            return Status.FAILED, f"{of_tests(tests)}{told}{self._bad_end(last)}"
        if self.collects_only and run.exit_status == 0:
            left = []
        if left:
            lost = run.running is not None
            return Status.LOST if lost else Status.FAILED, f"{', '.join(left)}: {early}"
        if not run.tests and run.exit_status in (0, _PYTEST_NO_TESTS):
            none = none_chosen(self.argv, last) or "pytest collected no tests"
            return Status.NO_TESTS, self.absent or none
        if run.exit_status != 0:
            return Status.FAILED, early
        if end := self._bad_end(last):
            return Status.FAILED, end.removeprefix("; ")
        if run.empty_suites and not self.part:
            names = ", ".join(run.empty_suites)
            return Status.NO_TESTS, f"pytest collected no tests of the suite {names}"
        return Status.PASSED, ""

    def _bad_end(self, last: str) -> str:
        """How pytest's process ended behind pytest, "" where that is as pytest itself did."""
        run = self.process
        if run.process_status == run.exit_status:
            return ""
        well = "pytest ended well" if run.exit_status == 0 else "pytest ended"
        return f"; {well}, and then its process: {status_words(run.process_status)}: {last}"

    @property
    def collects_only(self) -> bool:
        """Whether no test is meant to run."""
        return only_collects(self.argv)

    def results(self, reason: str) -> tuple[TestResult, ...]:
        """All tests, the lost one with ``reason``."""
        return self.process.results(reason)

    def ran_at(self, stamp: str) -> str:
        """The test that ran at this time of the kernel's."""
        return self.process.spans.ran_at(stamp)


def _ends_with_failures(status: int, bad: Sequence[TestResult]) -> bool:
    """Whether pytest ends with ``status`` where nothing went wrong but the ``bad`` tests.

    It is interrupted by a module that cannot be read, whose row has no ``::``.
    """
    unread = any("::" not in test.test for test in bad)
    return status in (0, _PYTEST_FAILED) or (status == _PYTEST_INTERRUPTED and unread)


@dataclass(frozen=True, slots=True)
class SuitesTaskFactory:
    """What makes each kernel's task: ``suites`` of ``config`` with that kernel's ``objects``.

    ``today`` (UTC) decides which known failures have expired; ``narrowed`` says that
    ``options`` leave tests out; ``keep_going``, ``failed``, ``isolate``, ``retries`` and
    ``repeat`` are the task's;
    ``files`` reads what goes along, once for all kernels.
    """

    config: Config
    suites: tuple[Suite, ...]
    objects: tuple[ObjectFile, ...]
    options: tuple[str, ...] = ()
    narrowed: bool = False
    keep_going: bool = False
    failed: Failed | None = None
    isolate: Isolation | None = None
    retries: int = 0
    repeat: Repeat = field(default_factory=Repeat)
    today: date = field(default_factory=utc_today)
    files: Files = field(default_factory=Files)

    def task(self, image: KernelImage) -> SuitesTask:
        """The task of one kernel; raises UsageError for an object that is missing or none.

        Raises UnbootableKernel for a kernel that cannot have the network card it needs.
        """
        if network_of(self.suites):
            kconfig.check_network(image)
        chosen = choose(self.objects, image.version)
        for name in {name for suite in self.suites for name in suite.objects}:
            if name in chosen:
                read_object(name, chosen[name], self.files)
        expected = known.for_guest(
            self.config.known_failures, image.version, self._root, self.today
        )
        needed = {name for suite in self.suites for name in suite.objects}
        modules = modules_for((b for b in self.objects if b.name in needed), image.version)
        payload = pack_suites(
            self.config.suites, self.suites, chosen, expected, self.files, modules
        )
        payload = replace(payload, project=self.config.directory)
        return SuitesTask(
            payload,
            self.options,
            self.keep_going,
            self.failed,
            self.isolate,
            self.retries,
            self._flaky(image),
            self.repeat,
        )

    def _flaky(self, image: KernelImage) -> Listed:
        """Which tests run again on one kernel; none where pytest stops at a failure."""
        if stops_early(self.options):
            return Listed()
        return flaky.listed(self.config.flaky, image.version, self._root, self.today)

    def read(self) -> None:
        """Read all that may go along: what changes from now on is not in this run.

        Raises UsageError for a suite that is not there.  An object that is not there is missed
        by the kernel that it is for.
        """
        bare = tuple(replace(suite, objects=()) for suite in self.suites)
        pack_suites(self.config.suites, bare, {}, files=self.files)
        needed = {name for suite in self.suites for name in suite.objects}
        for build in self.objects:
            if build.name in needed and build.path.is_file():
                self.files.read(build.path, "objects")

    def notes(self, matrix: Matrix, earlier: Sequence[Past] = ()) -> tuple[str, ...]:
        """What ``matrix`` shows of known failures, flaky tests and modules to act on.

        ``earlier`` are the runs before it that did the same.
        """
        config, root, today = self.config, self._root, self.today
        whole = self.suites == config.suites and not self.narrowed
        return (
            *known.notes(config.known_failures, matrix, root, today, whole=whole),
            *flaky.notes(config.flaky, matrix, root, today, whole=whole, earlier=earlier),
            *lacking.notes(matrix, config.guest.root),
        )

    @property
    def _root(self) -> str:
        return str(suites_root(self.config.suites))
