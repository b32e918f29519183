"""Kernels x work on an executor: fetches, boots, gathers, and decides nothing about display.

Everything that changes runs on the main thread: workers put events into a queue
and return values.  Preparation (index, download, guest image) runs
beside the VMs, so that the first kernel boots while the last is fetched.  The project's
build has ended before: whatever is read here is what it left.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock

from vmtest.errors import InfrastructureError, KernelUnavailable, SessionLost, VmtestError
from vmtest.host import interrupt, seal
from vmtest.kernels import Store, kconfig, source_for
from vmtest.matrix.bench import Cancellation, Hold, Job
from vmtest.matrix.complaints import KnownSplats
from vmtest.matrix.intact import CacheDamaged
from vmtest.matrix.job import base_result, broke, refused, run_kernel
from vmtest.matrix.plan import Plan
from vmtest.matrix.slots import Slots, memory_available_mib, slots
from vmtest.model.events import (
    GUEST_IMAGE,
    WAITING,
    Event,
    Fetching,
    KernelFinished,
    KernelQueued,
    Note,
    Preparing,
    SlotTaken,
    coming,
)
from vmtest.model.kernels import Kernel, KernelImage, RootImage
from vmtest.model.results import SCHEMA, KernelResult, Matrix, Status
from vmtest.rootfs.prepare import prepare_root
from vmtest.runs.folder import utc_now, utc_today
from vmtest.runs.rows import kept
from vmtest.vm import accel
from vmtest.vm.restore import where_saved

_SPOILT = "damaged-cache"
"""In a kernel's folder: what it wrote while it ran on damaged files."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A kernel is ready to boot, or never will be."""

    kernel: Kernel
    future: Future[Job]


@dataclass(frozen=True, slots=True)
class _Ran:
    """A kernel's work has ended."""

    kernel: Kernel
    future: Future[KernelResult]


class _Stopped(Exception):
    """The run is to end before its time."""


class Stop:
    """Ends a run from another thread, as an interrupt would; once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requested = False
        self._wake: Callable[[], None] | None = None

    @property
    def requested(self) -> bool:
        """Whether the run is to end, or ended for that."""
        return self._requested

    def request(self) -> None:
        """Have the run end its machines and return what it has; does not wait."""
        with self._lock:
            self._requested = True
            if self._wake is not None:
                self._wake()

    def wakes(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called at a request, at once where there was one."""
        with self._lock:
            self._wake = wake
            if self._requested:
                wake()


class _Runner:
    """The state of one run; only the main thread touches it."""

    def __init__(
        self,
        plan: Plan,
        emit: Callable[[Event], None],
        save: Callable[[Matrix], None],
        hold: Hold | None,
        stop: Stop | None,
    ) -> None:
        self.plan = plan
        self.save = save
        self.store = Store(plan.cache)
        self.cancellation = Cancellation()
        self.results: dict[str, KernelResult] = {}
        self.started = time.monotonic()
        self.stamp = utc_now()
        self.interrupted = False
        self._here = True
        # Kernels that are here and wait for the guest image: they tell how far it is.
        self._waiting: set[str] = set()
        self._told = False
        self._told_boots = False
        # Kernels that ran on damaged files of the cache, and how those were.
        self._spoilt: dict[str, CacheDamaged] = {}
        self._emit = emit
        self._hold = hold
        self._queue: queue.SimpleQueue[Event | _Prepared | _Ran | _Stopped] = queue.SimpleQueue()
        if stop is not None:
            stop.wakes(lambda: self._queue.put(_Stopped()))
        cpus = len(os.sched_getaffinity(0))
        self.jobs = plan.jobs or slots(plan.kernels, cpus, memory_available_mib())
        self._slots = Slots()

    def _post(self, event: Event) -> None:
        self._queue.put(event)

    def _prepare(self, kernel: Kernel, root: Future[RootImage]) -> Job:
        """On a worker: everything that has to be there before ``kernel`` can boot."""
        image, note = self._image(kernel)
        self._waiting.add(kernel.name)
        guest = root.result()
        self._waiting.discard(kernel.name)
        config_note = kconfig.check(image, guest.kind)
        self._post(Preparing(kernel.name, "choosing the accelerator"))
        probe = self._probe(image)
        return Job(
            kernel=kernel,
            image=image,
            root=guest,
            task=self.plan.task(image),
            probe=probe,
            directory=self.plan.folder.kernel(kernel.name),
            vcpus=self.jobs * kernel.cpus,
            note="; ".join(
                part for part in (note, config_note, guest.note, self._mended(kernel)) if part
            ),
            snapshots=self._snapshots(kernel, image, guest, probe),
            known_splats=KnownSplats.of(self.plan.config.known_splats, image.version, utc_today()),
        )

    def _snapshots(
        self, kernel: Kernel, image: KernelImage, root: RootImage, probe: accel.Probe
    ) -> Path | None:
        plan = self.plan
        found, why = where_saved(plan.cache, plan.warm, probe.accelerator, image, root)
        if why and not self._told_boots:
            self._told_boots = True
            self._post(Note(f"{kernel.name} boots, because its guest cannot be saved: {why}"))
        return found

    def _probe(self, image: KernelImage) -> accel.Probe:
        try:
            return accel.choose(image.image, self.plan.cache, self.plan.accelerator)
        except InfrastructureError as error:
            entry = seal.Entry.of(image.image.parent.parent)
            damage = None if entry is None else entry.take_away()
            if damage is None:
                raise
            raise KernelUnavailable(f"{damage}: it was removed; run again ({error})") from error

    def _mended(self, kernel: Kernel) -> str:
        spoilt = self._spoilt.get(kernel.name)
        if spoilt is None:
            return ""
        return (
            f"{spoilt}: it was removed and made again, and this kernel was run again (what the "
            f"first run left is in {kernel.name}/{_SPOILT})"
        )

    def _image(self, kernel: Kernel) -> tuple[KernelImage, str]:
        source = source_for(kernel, self.plan.config.archives)
        self._post(Preparing(kernel.name, "reading the index"))
        resolved = self.plan.resolved.get(kernel.name) or source.resolve(kernel, self.store)
        if not resolved.cached:
            self._post(coming(kernel, 0, resolved.size))

        def progress(done: int, total: int) -> None:
            if self.cancellation.requested:
                raise SessionLost("cancelled")
            here = isinstance(coming(kernel, done, total), Fetching) and 0 < total <= done
            self._post(Preparing(kernel.name, "unpacking") if here else coming(kernel, done, total))

        return source.fetch(resolved, self.store, progress), resolved.note

    def _root(self) -> RootImage:
        def log(line: str) -> None:
            if self.cancellation.requested:
                raise SessionLost("cancelled")
            if not self._told:
                self._told = True
                self._post(Note(line))
            for name in sorted(self._waiting):
                self._post(Preparing(name, f"{GUEST_IMAGE}{line}"))

        return prepare_root(self.plan.config, self.plan.cache, log, self.plan.files)

    def run(self, executor: Executor | None) -> Matrix:
        """Run everything; an interrupt ends the VMs and keeps what had finished."""
        plan = self.plan
        self.save(self.matrix())
        for kernel in plan.kernels:
            self._emit(KernelQueued(kernel.name))
        self._here = executor is None
        vms = executor or ThreadPoolExecutor(self.jobs, thread_name_prefix="vm")
        # One more than kernels: the guest image, on which the others wait.
        helpers = ThreadPoolExecutor(len(plan.kernels) + 1, thread_name_prefix="prepare")

        def prepare(kernel: Kernel, root: Future[RootImage]) -> None:
            future = helpers.submit(self._prepare, kernel, root)
            future.add_done_callback(partial(self._prepared, kernel))

        try:
            root = helpers.submit(self._root)
            for kernel in plan.kernels:
                prepare(kernel, root)
            self._loop(vms, lambda kernel: prepare(kernel, helpers.submit(self._root)))
        except BaseException as error:
            self.interrupted = isinstance(error, KeyboardInterrupt | _Stopped)
            self.cancellation.cancel()
            interrupt.current().end()
            vms.shutdown(wait=True, cancel_futures=True)
            helpers.shutdown(wait=True, cancel_futures=True)
            self._drain()
            if not self.interrupted:
                raise
        else:
            vms.shutdown(wait=True)
            helpers.shutdown(wait=True)
        matrix = self.plan.finish(self.matrix())
        matrix = replace(matrix, notes=self.plan.notes(matrix))
        self.save(matrix)
        return matrix

    def _prepared(self, kernel: Kernel, future: Future[Job]) -> None:
        self._queue.put(_Prepared(kernel, future))

    def _ran(self, kernel: Kernel, future: Future[KernelResult]) -> None:
        self._queue.put(_Ran(kernel, future))

    def _submit(self, vms: Executor, job: Job) -> Future[KernelResult]:
        if self._here:
            return vms.submit(self._in_slot, job)
        # A worker elsewhere: the job is pickled, its files and its result are the record.
        return vms.submit(run_kernel, job)

    def _in_slot(self, job: Job) -> KernelResult:
        """On a worker: run the kernel in the lowest VM slot that is free."""
        with self._slots.taken() as slot:
            self._post(SlotTaken(job.kernel.name, slot))
            return run_kernel(job, self._post, self.cancellation, self._hold, self.plan.kept)

    def _loop(self, vms: Executor, again: Callable[[Kernel], None]) -> None:
        while len(self.results) < len(self.plan.kernels):
            item = self._queue.get()
            if isinstance(item, _Ran):
                self._ended(item, again)
            elif isinstance(item, _Prepared):
                self._boot(vms, item)
            elif isinstance(item, _Stopped):
                raise item
            else:
                self._emit(item)

    def _ended(self, ran: _Ran, again: Callable[[Kernel], None]) -> None:
        """Take a kernel's result; one that ran on damaged files is run again, once."""
        name = ran.kernel.name
        if ran.future.cancelled():  # not by us: an interrupt does not come here
            why = "its job was cancelled where it ran; is a worker of the executor gone?"
            empty = base_result(ran.kernel, Status.INFRA_ERROR, why)
            self._finish(kept(self.plan.folder.path / name, empty))
            return
        error = ran.future.exception()
        if not isinstance(error, CacheDamaged) or name in self._spoilt:
            self._finish(self._outcome(ran))
            return
        self._spoilt[name] = error
        self._emit(Note(f"{name}: {error}: it is made again, and {name} is run again"))
        with suppress(OSError):
            self.plan.folder.put_aside(name, _SPOILT)
        self._emit(KernelQueued(name))
        again(ran.kernel)

    def _boot(self, vms: Executor, prepared: _Prepared) -> None:
        kernel = prepared.kernel
        try:
            job = prepared.future.result()
        except (VmtestError, OSError) as error:
            if (spoilt := self._spoilt.get(kernel.name)) is not None:
                reason = f"{spoilt}: it was removed, and making it again failed: {error}"
                self._finish(replace(spoilt.result, reason=reason))
            elif isinstance(error, InfrastructureError | OSError):
                self._finish(refused(kernel, error))
            else:
                raise
            return
        except Exception as error:
            self._finish(self._broke(kernel, error))
            return
        if self._here:
            self._emit(Preparing(kernel.name, f"{WAITING}a VM"))
        running = self._submit(vms, job)
        running.add_done_callback(partial(self._ran, kernel))

    def _outcome(self, ran: _Ran) -> KernelResult:
        """A worker's result; a worker that broke costs its kernel, and none of its rows."""
        error = ran.future.exception()
        if error is None:
            return ran.future.result()
        if isinstance(error, CacheDamaged):
            return replace(error.result, reason=f"{error.result.reason}; it was removed: run again")
        return self._broke(ran.kernel, error)

    def _broke(self, kernel: Kernel, error: BaseException) -> KernelResult:
        empty = base_result(kernel, Status.INFRA_ERROR, "")
        return broke(empty, error, self.plan.folder.path / kernel.name)

    def _drain(self) -> None:
        """After an interrupt: take what the workers still said."""
        while not self._queue.empty():
            item = self._queue.get()
            if isinstance(item, _Ran):
                if not item.future.cancelled():
                    self._finish(self._outcome(item))
            elif not isinstance(item, _Prepared | _Stopped):
                self._emit(item)

    def _finish(self, result: KernelResult) -> None:
        self.results[result.kernel] = result
        self._emit(KernelFinished(result.kernel, result))
        self.save(self.matrix())

    def matrix(self) -> Matrix:
        """The matrix as it stands; kernels without a result yet are CANCELLED."""
        return Matrix(
            schema=SCHEMA,
            run=self.plan.folder.name,
            started=self.stamp,
            duration=round(time.monotonic() - self.started, 2),
            suites=self.plan.suites,
            kernels=tuple(
                self.results.get(kernel.name)
                or base_result(kernel, Status.CANCELLED, "not finished")
                for kernel in self.plan.kernels
            ),
            interrupted=self.interrupted,
            command=self.plan.command,
        )


def run_matrix(
    plan: Plan,
    emit: Callable[[Event], None],
    save: Callable[[Matrix], None],
    *,
    hold: Hold | None = None,
    executor: Executor | None = None,
    stop: Stop | None = None,
) -> Matrix:
    """Run ``plan`` and return its matrix.

    ``emit`` and ``save`` are called on this thread, ``save`` with the matrix as
    it stands: at the start, after every kernel, at the end.  ``executor`` defaults
    to threads, one a VM slot; to any other the jobs are given as values that can
    be pickled, and a kernel's events between start and end are not heard of.

    Raises UsageError (nothing was booted that the user did not describe rightly);
    an infrastructure fault of one kernel is that kernel's result;
    KeyboardInterrupt becomes an interrupted matrix, as does a request of ``stop``.
    """
    with interrupt.interruptible():
        return _Runner(plan, emit, save, hold, stop).run(executor)
