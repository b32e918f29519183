"""The task of ``vmtest exec``: one command in one guest, and the verdict on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vmtest.command.files import Command, Copied, pack_command
from vmtest.command.formats.format import Format
from vmtest.command.process import CommandRun, CommandSink
from vmtest.host.files import Files
from vmtest.host.write import LimitedLog, LimitedRows
from vmtest.matrix.bench import Bench, Guest
from vmtest.matrix.follow import signal_of, status_words
from vmtest.matrix.judge import count_bad, count_unproven, out_of_memory, watch
from vmtest.model.events import Collected, Output, TestFinished, TestStarted
from vmtest.model.kernels import KernelImage
from vmtest.model.project import ObjectFile
from vmtest.model.results import KernelResult, Status, TestResult
from vmtest.objects.builds import choose, modules_for
from vmtest.runs.folder import JUNIT_COPY, LOG
from vmtest.runs.rows import RESULTS
from vmtest.vm.machine import Machine
from vmtest.vm.session import Check


@dataclass(frozen=True, slots=True)
class CommandTask:
    """``command`` run once; ``live`` has its output told as it comes (``events.Output``)."""

    command: Command
    live: bool = False

    @property
    def objects(self) -> tuple[tuple[str, str], ...]:
        """Name and sha256 of each BPF object that goes along."""
        return self.command.objects

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        """Boot once and run it; raises BootError, InfrastructureError, OSError."""
        folder, name = bench.job.directory, bench.job.kernel.name

        def output(out: bytes, err: bytes) -> None:
            if self.live:
                bench.emit(Output(name, out, err))

        with (
            bench.guest() as guest,
            LimitedRows(folder / RESULTS) as results,
            LimitedLog(folder / LOG) as log,
        ):
            sink = CommandSink(
                results,
                log,
                folder / JUNIT_COPY,
                expected=lambda count: bench.emit(Collected(name, count)),
                started=lambda test: bench.emit(TestStarted(name, test)),
                finished=lambda test: bench.emit(TestFinished(name, test)),
                output=output,
            )
            run = CommandRun(self.command, sink)
            result = watch(bench, guest, result, CommandWork(run))
            known = run.status is not None and run.status >= 0
            return replace(result, exit_status=run.status if known else None)


@dataclass(frozen=True, slots=True)
class CommandWork:
    """One command as work to watch."""

    process: CommandRun

    @property
    def archive(self) -> bytes:
        """The command's files."""
        return self.process.command.archive

    @property
    def name(self) -> str:
        """Whose work it is."""
        return "the command"

    @property
    def begun(self) -> bool:
        """Whether it was started."""
        return self.process.begun

    @property
    def running(self) -> str | None:
        """The test that runs, or the command itself."""
        return self.process.running

    def run(self, guest: Guest, check: Check) -> None:
        """Run it to its end; raises DeadlineExceeded, SessionLost."""
        self.process.execute(guest.session, guest.limits, check, guest.kernel)

    def verdict(self, machine: Machine) -> tuple[Status, str]:
        """Status and reason of a command that has ended."""
        run = self.process
        status = -1 if run.status is None else run.status
        killed = status < 0 or signal_of(status) != ""
        starved = out_of_memory(machine)
        if killed and starved:
            return Status.LOST, starved
        tests = run.end(status_words(status) if killed else "")
        if run.problem:
            return Status.FAILED, f"{run.problem}; {run.ending}"
        if run.own is not None:
            return (Status.PASSED, "") if status == 0 else (Status.FAILED, _why(run))
        bad = [test for test in tests if test.outcome.bad]
        parts = [*([count_bad(bad)] if bad else []), *count_unproven(tests)]
        if parts:
            return Status.FAILED, ", ".join([*parts, status_words(status)])
        if not tests:
            assert run.command.format is not None
            what = f"--results {run.command.format.kind} found no test in what the command wrote"
            return Status.NO_TESTS, f"{what}; see {LOG}"
        return (Status.PASSED, "") if status == 0 else (Status.FAILED, _why(run))

    def results(self, reason: str) -> tuple[TestResult, ...]:
        """All tests; what ran when the VM or the command died is lost with ``reason``."""
        return self.process.end(reason, lost=True)

    def ran_at(self, stamp: str) -> str:
        """Nothing: a command's tests do not tell the kernel's time."""
        del stamp
        return ""


def _why(run: CommandRun) -> str:
    return f"{run.ending}; {run.help}" if run.help else run.ending


def command_tasks(
    argv: Sequence[str],
    copied: Copied,
    objects: Sequence[ObjectFile],
    files: Files,
    format: Format | None = None,
    live: bool = False,
) -> Callable[[KernelImage], CommandTask]:
    """What makes a kernel's task: ``argv`` with what was ``copied`` and that kernel's ``objects``.

    It raises UsageError for an object that is missing or none; ``files`` reads them.
    """
    lock = threading.Lock()
    packed: dict[tuple[tuple[str, str], ...], Command] = {}

    def make(image: KernelImage) -> CommandTask:
        chosen = choose(objects, image.version)
        modules = modules_for(objects, image.version)
        same = (*((name, str(path)) for name, path in sorted(chosen.items())), ("", str(modules)))
        with lock:  # kernels with the same objects share one archive of up to 128 MiB
            if same not in packed:
                packed[same] = pack_command(argv, copied, chosen, format, files, modules)
        return CommandTask(packed[same], live)

    return make
