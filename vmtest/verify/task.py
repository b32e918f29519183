"""The task of ``vmtest verify``: objects loaded in as many boots of a kernel as it takes.

A load that takes the loader along costs itself: another process goes on.  One that
takes the kernel along costs itself: the kernel is booted again and the rest goes on,
as long as that gets anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import IO

from vmtest.errors import (
    BadLine,
    DeadlineExceeded,
    InfrastructureError,
    SessionLost,
    UnbootableKernel,
)
from vmtest.host.cache import default_cache
from vmtest.host.files import Files
from vmtest.host.write import LimitedLog
from vmtest.kernels.modules import module_with
from vmtest.matrix.bench import Bench, Guest
from vmtest.matrix.complaints import Complaints, note_of
from vmtest.matrix.judge import complaints_since
from vmtest.matrix.payload import Installed, install
from vmtest.model.events import LoadFinished, LoadStarted, Preparing
from vmtest.model.kernels import KernelImage
from vmtest.model.loads import LoadResult, LoadSet, Verdict
from vmtest.model.results import KernelResult, Status
from vmtest.model.versions import unique
from vmtest.rootfs.cilium import OtherLoader
from vmtest.verify.ahead import LoaderAhead, Ready, parted, put_objects
from vmtest.verify.baseline import Rules, judge
from vmtest.verify.features import Features
from vmtest.verify.libraries import across, digests, side_by_side, ways
from vmtest.verify.objects import OBJECT_LIMIT, Given, Load, pack_objects
from vmtest.verify.process import LOG, End, LoaderProcess, LoaderStuck, Order, Record, Wanted, Watch
from vmtest.vm.console import Sign
from vmtest.vm.deadlines import within
from vmtest.vm.session import Stream

BARREN_BOOTS = 10
"""Boots in a row without one load that came to its end, after which the rest is given up."""


@dataclass(frozen=True, slots=True)
class VerifyTask:
    """``load`` brought into a guest, each program of it loaded, judged by ``rules``."""

    load: Load
    rules: Rules

    @property
    def objects(self) -> tuple[tuple[str, str], ...]:
        """Name and sha256 of each BPF object."""
        return self.load.objects

    def run(self, bench: Bench, result: KernelResult) -> KernelResult:
        """Boot as often as it takes; raises BootError when the first boot fails."""
        folder, name = bench.job.directory, bench.job.kernel.name
        libraries = bench.job.root.libraries if self.load.order.every_libbpf else ()
        versions = [library.version for library in libraries]
        by = ways(self.load.order, versions)
        order = across(self.load.order, by)

        def started(place: int, wanted: Wanted, program: str) -> None:
            label = LoadResult(wanted.row, program, Verdict.NOT_LOADED).label
            bench.emit(LoadStarted(name, label, place, len(order.objects)))

        def finished(load: LoadResult) -> None:
            bench.emit(LoadFinished(name, load))

        with Record(folder, order) as record, LimitedLog(folder / LOG) as log:
            for refused in self.load.refused:
                wanted = Wanted(refused.object, "", required=refused.required)
                finished(record.add(wanted, refused))
            modules = partial(module_with, bench.job.image, root=default_cache())
            features = Features.of(bench.job, default_cache())
            loader = LoaderProcess(order, record, Watch(started, finished), modules, features)
            boots = _Boots(bench, self.load, loader, log)
            status, reason = boots.run()
        compared = digests(self.load.others, by)
        others = LoadSet(self.load.against, compared, side_by_side(record.others, order))
        crashed = [load.label for load in record.loads if load.verdict is Verdict.KERNEL_CRASHED]
        if status is Status.PASSED and crashed:
            status, reason = Status.PANICKED, f"{', '.join(crashed)} crashed the kernel"
        complaints = boots.complaints
        if status is Status.PASSED and complaints.counting:
            status, reason = Status.SPLAT, complaints.reason
        result = replace(
            result,
            status=status,
            reason=reason,
            loads=side_by_side(record.loads, order),
            objects=digests(self.objects, by),
            against=others if self.load.against else None,
            libbpf=(", ".join(versions) or loader.libbpf) if order.by_libbpf else "",
            programs=() if order.whole else order.programs,
            splats=complaints.texts,
            fingerprints=complaints.fingerprints,
            known_splats=complaints.known,
            note="; ".join(filter(None, (result.note, *boots.notes, *loader.notes))),
            console_tail=() if status is Status.PASSED else bench.console_tail,
            console_log=bench.console_log,
        )
        idle = not any(load.program or load.verdict.bad for load in record.loads)
        if status is Status.PASSED and idle:
            why = "no program was loaded: does --program match one?"
            return replace(result, status=Status.NO_TESTS, reason=why)
        return judge(result, self.rules)


class _Boots:
    """The boots of one kernel.

    ``complaints`` are those in all of them, ``notes`` what is to be said of these and of how they
    were read, each once, ``end`` status and reason of what happened behind the last load.
    """

    def __init__(self, bench: Bench, load: Load, loader: LoaderProcess, log: IO[bytes]) -> None:
        self.complaints = Complaints()
        self._notes: list[str] = []
        self.end = Status.PASSED, ""
        self._bench = bench
        self._load = load
        self._loader = loader
        self._log = log
        self._installed = False
        self._ready: Stream | None = None
        self._ahead = self._prepares() if bench.keeps else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of the complaints that are known, and of the kernels' logs."""
        return unique((note_of(self.complaints.known), *self._notes))

    def _prepares(self) -> LoaderAhead:
        """What a guest of the next run can have before its objects are there."""
        job, order = self._bench.job, self._loader.order
        return LoaderAhead(
            parted(self._load.archive)[0],
            job.root.python,
            order.objects[0].libbpf,
            job.image.config,
            tuple(job.root.libraries),
        )

    def run(self) -> tuple[Status, str]:
        """Boot until every load is done with; status and reason of the whole."""
        loader, barren = self._loader, 0
        while loader.left:
            before = loader.progress
            try:
                with self._bench.guest(prepare=self._ahead) as guest:
                    self._one(guest)
            except BadLine as error:
                left = loader.give_up(str(error))
                return Status.LOST, f"{error}; {left} loads were not made"
            except (InfrastructureError, SessionLost, DeadlineExceeded, OSError) as error:
                if not self._installed:
                    raise
                if self._bench.cancelled:
                    left = loader.give_up("interrupted")
                    return Status.CANCELLED, f"interrupted; {left} loads were not made"
                loader.give_up(str(error))
                return Status.INFRA_ERROR, f"{error}; the results so far are kept"
            barren = 0 if loader.progress > before else barren + 1
            if barren >= BARREN_BOOTS and loader.left:
                why = f"given up after {barren} boots in a row without a verdict"
                left = loader.give_up(why)
                return Status.PANICKED, f"{why}; {left} loads were not made"
        return self.end

    def _one(self, guest: Guest) -> None:
        """One boot: until everything is done with, or the guest is of no more use."""
        bench, machine = self._bench, guest.machine
        try:
            self._install(guest)
            while self._loader.left and self._process(guest):
                pass
            self._end(guest)
        except LoaderStuck:
            machine.hang_up()
            words = f"{self._loader.overtime}, and it could not be killed"
            self._blame(Verdict.TIMED_OUT, words.removeprefix(", and "))
        except SessionLost:
            if bench.cancelled or not self._installed:
                raise
            cause = machine.cause_of_death()
            dead = machine.console.panic is not None or not machine.running
            self._blame(Verdict.KERNEL_CRASHED if dead else Verdict.LOADER_CRASHED, cause)
        finally:
            self.complaints += complaints_since(guest, bench.job.known_splats)
            self._notes += guest.reader.notes

    def _end(self, guest: Guest) -> None:
        """After the last load: where programs and maps are freed."""
        try:
            self._bench.read_log(guest)
        except DeadlineExceeded as error:
            why = f"the guest does not answer after the last load: {error}"
            self.end = Status.TIMED_OUT, why
        except SessionLost:
            if not self._bench.cancelled:
                cause = guest.machine.cause_of_death()
                status = Status.PANICKED if guest.machine.console.panic else Status.LOST
                self.end = status, f"{cause} after the last load"

    def _install(self, guest: Guest) -> None:
        job = self._bench.job
        self._bench.emit(Preparing(job.kernel.name, "copying the objects"))
        with within(guest.limits.silence, "copying the objects", guest.machine.hang_up):
            found = self._installed_in(guest)
        self._loader.libbpf = found.libbpf
        self._notes += filter(None, (found.note,))
        if found.release != job.image.release:
            raise UnbootableKernel(
                f"{job.kernel.name}: the guest runs {found.release} and not {job.image.release}"
            )
        self._installed = True

    def _installed_in(self, guest: Guest) -> Installed:
        """Have the payload in the guest, or the objects alone where the rest is there."""
        job, archive, prepared = self._bench.job, self._load.archive, guest.prepared
        if isinstance(prepared, Ready) and not prepared.loader.exited():
            put_objects(guest.session, parted(archive)[1])
            self._ready = prepared.loader
            return prepared.installed
        config, libraries = job.image.config, job.root.libraries
        return install(guest.session, archive, self._bench.check, config, libraries)

    def _process(self, guest: Guest) -> bool:
        """One loader process; whether the guest is fit for another."""
        machine = guest.machine
        complaints = len(machine.findings(Sign.SPLAT))
        starved = len(machine.findings(Sign.OUT_OF_MEMORY))
        ready, self._ready = self._ready, None
        end = self._loader.execute(
            guest.session,
            self._bench.job.root.python,
            self._log,
            self._bench.check,
            factor=self._bench.job.scale.factor,
            start_limit=guest.limits.silence,
            ready=ready,
        )
        if end is End.FINISHED:
            return True  # there may be objects left for another loader
        try:
            self._bench.read_log(guest)
        except DeadlineExceeded as error:
            self._blame(Verdict.TIMED_OUT, f"the guest does not answer after it: {error}")
            return False
        known = self._bench.job.known_splats
        splats = known.sort(machine.findings(Sign.SPLAT)[complaints:]).counting
        if end is End.KILLED:
            self._blame(Verdict.TIMED_OUT, self._loader.overtime)
        elif splats:
            # An oops ends the process and leaves a kernel that is not to be trusted.
            self._blame(Verdict.KERNEL_CRASHED, splats[0].text)
            return False
        else:
            killed = machine.findings(Sign.OUT_OF_MEMORY)[starved:]
            words = killed[-1].text if killed else self._loader.last_words
            self._blame(Verdict.LOADER_CRASHED, words)
        return True

    def _blame(self, verdict: Verdict, line: str) -> None:
        if label := self._loader.log_lost(line):
            # The verdict was told before; what the kernel did since is its own matter.
            if verdict is Verdict.KERNEL_CRASHED:
                level = self._load.order.log_level
                why = f"{label} crashed the kernel while its log at level {level} was taken"
                self.end = Status.PANICKED, f"{why}: {line}"
            return
        if not self._loader.blame(verdict, line):
            raise InfrastructureError(
                f"the loader ended without a load to blame ({verdict}: {line}); see {LOG}"
            )


def verify_tasks(
    given: Sequence[Given],
    others: Sequence[Given],
    order: Order,
    rules: Rules,
    against: str = "",
    files: Files | None = None,
    loaders: Sequence[OtherLoader] = (),
) -> Callable[[KernelImage], VerifyTask]:
    """What makes a kernel's task: the builds of ``given`` that go to it; raises UsageError.

    ``loaders`` are beside libbpf.  What is there is read at once, by ``files``: every kernel gets
    the same bytes.
    """
    files = files or Files()
    order = replace(order, loaders=tuple(one.name for one in loaders))
    for one in (*given, *others):
        if one.build.path.is_file() and one.build.path.stat().st_size <= OBJECT_LIMIT:
            files.read(one.build.path, "objects")

    def make(image: KernelImage) -> VerifyTask:
        of = image.version, order, against, image.config, files, loaders
        return VerifyTask(pack_objects(given, others, *of), rules)

    return make
