"""Kernels x work on an engine: fetches, has them run, gathers, and decides nothing about display.

Everything that changes runs on the main thread: workers put events into a queue
and return values.  Preparation (index, download, guest image) runs
beside the VMs, so that the first kernel boots while the last is fetched.  The project's
build has ended before: whatever is read here is what it left.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock

from vmtest.errors import InfrastructureError, SessionLost, VmtestError
from vmtest.host import attempts, interrupt
from vmtest.kernels import Store, kconfig, source_for
from vmtest.matrix.bench import Cancellation, Hold
from vmtest.matrix.complaints import KnownSplats
from vmtest.matrix.engine import Assignment, Crew, Engine, Start, Threads
from vmtest.matrix.intact import CacheDamaged
from vmtest.matrix.job import base_result, broke, refused
from vmtest.matrix.plan import Plan
from vmtest.model.events import (
    GUEST_IMAGE,
    WAITING,
    Event,
    Fetching,
    KernelFinished,
    KernelQueued,
    Note,
    Preparing,
    coming,
)
from vmtest.model.kernels import Kernel, KernelImage, RootImage
from vmtest.model.results import SCHEMA, KernelResult, Matrix, Status
from vmtest.rootfs.prepare import prepare_root
from vmtest.runs.folder import utc_now, utc_today
from vmtest.runs.rows import kept

_SPOILT = "damaged-cache"
"""In a kernel's folder: what it wrote while it ran on damaged files."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A kernel is ready to boot, or never will be."""

    kernel: Kernel
    future: Future[Start]


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
        # Kernels that are here and wait for the guest image: they tell how far it is.
        self._waiting: set[str] = set()
        self._told = False
        # Kernels that ran on damaged files of the cache, and how those were.
        self._spoilt: dict[str, CacheDamaged] = {}
        self._emit = emit
        self._queue: queue.SimpleQueue[Event | _Prepared | _Ran | _Stopped] = queue.SimpleQueue()
        if stop is not None:
            stop.wakes(lambda: self._queue.put(_Stopped()))

    def _post(self, event: Event) -> None:
        self._queue.put(event)

    def _prepare(self, kernel: Kernel, root: Future[RootImage], crew: Crew) -> Start:
        """On a helper: everything that has to be there before ``kernel`` can boot."""
        image, note = self._image(kernel)
        self._waiting.add(kernel.name)
        guest = root.result()
        self._waiting.discard(kernel.name)
        config_note = kconfig.check(image, guest.kind, guest)
        notes = (note, config_note, guest.note, self._mended(kernel))
        return crew.ready(
            Assignment(
                kernel=kernel,
                image=image,
                root=guest,
                task=self.plan.task(image),
                directory=self.plan.folder.kernel(kernel.name),
                note="; ".join(filter(None, notes)),
                known_splats=KnownSplats.of(
                    self.plan.config.known_splats, image.version, utc_today()
                ),
            )
        )

    def _mended(self, kernel: Kernel) -> str:
        spoilt = self._spoilt.get(kernel.name)
        if spoilt is None:
            return ""
        return (
            f"{spoilt}: it was removed and made again, and this kernel was run again (what the "
            f"first run left is in {kernel.name}/{_SPOILT})"
        )

    def _image(self, kernel: Kernel) -> tuple[KernelImage, str]:
        """The kernel's files, and what its result has to say of how they came here."""
        with attempts.told(lambda line: self._post(Note(line))), attempts.kept() as lines:
            image, note = self._fetched(kernel)
        return image, "; ".join(filter(None, (note, *lines)))

    def _fetched(self, kernel: Kernel) -> tuple[KernelImage, str]:
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

        plan = self.plan
        with attempts.told(lambda line: self._post(Note(line))):
            return prepare_root(plan.config, plan.cache, log, plan.files, plan.wheels)

    def run(self, engine: Engine, hold: Hold | None) -> Matrix:
        """Run everything; an interrupt ends the VMs and keeps what had finished."""
        plan = self.plan
        crew = engine.begin(plan, self._post, self.cancellation, hold)
        # One more than kernels: the guest image, on which the others wait.
        helpers = ThreadPoolExecutor(len(plan.kernels) + 1, thread_name_prefix="prepare")

        def prepare(kernel: Kernel, root: Future[RootImage]) -> None:
            future = helpers.submit(self._prepare, kernel, root, crew)
            future.add_done_callback(partial(self._prepared, kernel))

        try:
            self.save(self.matrix())
            for kernel in plan.kernels:
                self._emit(KernelQueued(kernel.name))
            root = helpers.submit(self._root)
            for kernel in plan.kernels:
                prepare(kernel, root)
            self._loop(lambda kernel: prepare(kernel, helpers.submit(self._root)))
        except BaseException as error:
            self.interrupted = isinstance(error, KeyboardInterrupt | _Stopped)
            self.cancellation.cancel()
            interrupt.current().end()
            crew.cancel()
            helpers.shutdown(wait=True, cancel_futures=True)
            self._drain()
            if not self.interrupted:
                raise
        else:
            crew.close()
            helpers.shutdown(wait=True)
        matrix = self.plan.finish(self.matrix())
        matrix = replace(matrix, notes=self.plan.notes(matrix))
        self.save(matrix)
        return matrix

    def _prepared(self, kernel: Kernel, future: Future[Start]) -> None:
        self._queue.put(_Prepared(kernel, future))

    def _ran(self, kernel: Kernel, future: Future[KernelResult]) -> None:
        self._queue.put(_Ran(kernel, future))

    def _loop(self, again: Callable[[Kernel], None]) -> None:
        while len(self.results) < len(self.plan.kernels):
            item = self._queue.get()
            if isinstance(item, _Ran):
                self._ended(item, again)
            elif isinstance(item, _Prepared):
                self._boot(item)
            elif isinstance(item, _Stopped):
                raise item
            else:
                self._emit(item)

    def _ended(self, ran: _Ran, again: Callable[[Kernel], None]) -> None:
        """Take a kernel's result; one that ran on damaged files is run again, once."""
        name = ran.kernel.name
        if ran.future.cancelled():  # not by us: an interrupt does not come here
            why = "it was cancelled where it ran"
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

    def _boot(self, prepared: _Prepared) -> None:
        kernel = prepared.kernel
        try:
            start = prepared.future.result()
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
        self._emit(Preparing(kernel.name, f"{WAITING}a VM"))
        running = start()
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
            again=self.plan.again,
        )


def run_matrix(
    plan: Plan,
    emit: Callable[[Event], None],
    save: Callable[[Matrix], None],
    *,
    hold: Hold | None = None,
    engine: Engine | None = None,
    stop: Stop | None = None,
) -> Matrix:
    """Run ``plan`` and return its matrix.

    ``emit`` and ``save`` are called on this thread, ``save`` with the matrix as
    it stands: at the start, after every kernel, at the end.  ``engine`` defaults
    to threads, one a VM slot.

    Raises UsageError (nothing was booted that the user did not describe rightly);
    an infrastructure fault of one kernel is that kernel's result;
    KeyboardInterrupt becomes an interrupted matrix, as does a request of ``stop``.
    """
    with interrupt.interruptible():
        return _Runner(plan, emit, save, stop).run(engine or Threads(), hold)
