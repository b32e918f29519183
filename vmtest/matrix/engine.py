"""Where the kernels of a matrix run: an engine takes each when it is prepared, and says what came.

The engine of every day has a thread for each VM slot of this machine.  Another one may have slots
on other machines: what it is given names files by their digests as well as by their places here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vmtest.errors import InfrastructureError, KernelUnavailable
from vmtest.host import seal
from vmtest.matrix.bench import Cancellation, Emit, Hold, Job, Task
from vmtest.matrix.complaints import KnownSplats
from vmtest.matrix.job import run_kernel
from vmtest.matrix.plan import Plan
from vmtest.matrix.slots import Slots, memory_available_mib, slots
from vmtest.model.events import Note, Preparing, SlotTaken
from vmtest.model.kernels import Kernel, KernelImage, RootImage
from vmtest.model.results import KernelResult
from vmtest.rootfs.filesystems import suited
from vmtest.rootfs.images import Log, quiet
from vmtest.vm import accel
from vmtest.vm.restore import where_saved


@dataclass(frozen=True, slots=True)
class Assignment:
    """A kernel that is prepared: all that running it takes, but for what is its machine's.

    ``directory`` exists and is its own; ``known_splats`` are the complaints of this kernel that
    do not count.
    """

    kernel: Kernel
    image: KernelImage
    root: RootImage
    task: Task
    directory: Path
    note: str = ""
    known_splats: KnownSplats = field(default_factory=KnownSplats)


@dataclass(frozen=True, slots=True)
class Here:
    """The machine that runs a kernel, and how: ``beside`` VMs run at once on it."""

    cache: Path
    accelerator: str
    warm: bool | None
    beside: int


def job_here(given: Assignment, here: Here, log: Log = quiet) -> tuple[Job, str]:
    """``given`` as the job of this machine, and why its guests boot where none can be saved.

    A kernel that cannot mount the root as it is gets it as another file system, and ``log`` is
    told that it is made.  Raises UsageError, ImageError, InfrastructureError for an accelerator
    that does not work here, and KernelUnavailable for a kernel that the cache has damaged.
    """
    root = suited(given.root, given.image, here.cache, log)
    probe = _probe(given.image, here)
    found, why = where_saved(here.cache, here.warm, probe.accelerator, given.image, root)
    job = Job(
        kernel=given.kernel,
        image=given.image,
        root=root,
        task=given.task,
        probe=probe,
        directory=given.directory,
        vcpus=here.beside * given.kernel.cpus,
        note=given.note if root is given.root else _notes(given.note, root.note),
        snapshots=found,
        known_splats=given.known_splats,
    )
    return job, why


def _notes(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _probe(image: KernelImage, here: Here) -> accel.Probe:
    try:
        return accel.choose(image.image, here.cache, here.accelerator)
    except InfrastructureError as error:
        entry = seal.Entry.of(image.image.parent.parent)
        damage = None if entry is None else entry.take_away()
        if damage is None:
            raise
        raise KernelUnavailable(f"{damage}: it was removed; run again ({error})") from error


Start = Callable[[], "Future[KernelResult]"]
"""Has a kernel run as soon as there is a slot for it; called on the main thread."""


class Crew(Protocol):
    """What an engine has at work for one run."""

    def ready(self, given: Assignment) -> Start:
        """Do what has to be done before ``given`` can run; called on a thread of its own.

        Raises VmtestError and OSError as preparing a kernel does.
        """

    def cancel(self) -> None:
        """End all that runs, and what waits; returns when every future has its result or error."""

    def close(self) -> None:
        """After the last result: let go of what was taken for this run."""


class Engine(Protocol):
    """Runs kernels."""

    def begin(self, plan: Plan, post: Emit, cancellation: Cancellation, hold: Hold | None) -> Crew:
        """A crew for ``plan``; ``post`` takes its events, from any thread, while they happen.

        ``cancellation`` is thrown before the crew is cancelled.  Raises UsageError for a plan that
        cannot be carried out there.
        """


class Threads:
    """The engine of this machine: a thread for each VM slot."""

    def begin(
        self, plan: Plan, post: Emit, cancellation: Cancellation, hold: Hold | None
    ) -> _Threads:
        """As many threads as VMs may run at once."""
        return _Threads(plan, post, cancellation, hold)


class _Threads:
    def __init__(
        self, plan: Plan, post: Emit, cancellation: Cancellation, hold: Hold | None
    ) -> None:
        self._plan = plan
        self._post = post
        self._cancellation = cancellation
        self._hold = hold
        cpus = len(os.sched_getaffinity(0))
        jobs = plan.jobs or slots(plan.kernels, cpus, memory_available_mib())
        self._here = Here(plan.cache, plan.accelerator, plan.warm, jobs)
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="vm")
        self._slots = Slots()
        self._told_boots = False

    def ready(self, given: Assignment) -> Start:
        """Make what its root lacks, and choose the accelerator."""
        name = given.kernel.name
        self._post(Preparing(name, "choosing the accelerator"))
        job, why = job_here(given, self._here, lambda line: self._post(Preparing(name, line)))
        if why and not self._told_boots:
            self._told_boots = True
            self._post(Note(f"{given.kernel.name} boots, because its guest cannot be saved: {why}"))
        return lambda: self._pool.submit(self._in_slot, job)

    def _in_slot(self, job: Job) -> KernelResult:
        """On a thread of the pool: run the kernel in the lowest VM slot that is free."""
        with self._slots.taken() as slot:
            self._post(SlotTaken(job.kernel.name, slot))
            return run_kernel(job, self._post, self._cancellation, self._hold, self._plan.kept)

    def cancel(self) -> None:
        """Wait for those that run, whose machines have ended; the others never begin."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Wait for the threads."""
        self._pool.shutdown(wait=True)
