"""What one process keeps from a run to the next: files found whole, and guests that wait.

A watch runs the same kernels again and again.  What it need not do twice is not done twice.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from threading import Lock

from vmtest.errors import SessionLost, VmtestError
from vmtest.host import interrupt
from vmtest.matrix.slots import QEMU_OVERHEAD_MIB, memory_available_mib
from vmtest.model.kernels import Network
from vmtest.vm.deadlines import within
from vmtest.vm.machine import Machine, MachineSpec
from vmtest.vm.restore import Snapshots, Started, running_guest


class Whole:
    """The files that were hashed and found whole, by place and stamp; from any thread."""

    def __init__(self) -> None:
        self._found: set[tuple[Path, str]] = set()

    def __contains__(self, what: tuple[Path, str | None]) -> bool:
        return what in self._found

    def add(self, place: Path, stamp: str | None) -> None:
        """The files in ``place`` are whole as long as they have ``stamp``."""
        if stamp is not None:
            self._found.add((place, stamp))


Prepare = Callable[[Started], object]
"""Does in a guest what its work needs whatever comes, and returns what that work goes on with.

One is as good as another that is equal.  Raises VmtestError or OSError.
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A guest that a kernel's next run will want; ``limit`` and ``factor`` as for a boot.

    ``prepare`` is done in it while it waits, in ``silence`` seconds; None leaves it as it was
    restored.
    """

    spec: MachineSpec
    limit: float
    factor: float
    silence: float
    prepare: Prepare | None = None


@dataclass(frozen=True, slots=True)
class Ahead:
    """A guest that waits, what ends it, and what came of preparing it."""

    wanted: Wanted
    started: Started
    snapshots: Snapshots
    stack: ExitStack
    prepared: object = None

    @property
    def fit(self) -> bool:
        """Whether it still runs."""
        return self.started.machine.running and self.started.session.alive


@dataclass(frozen=True, slots=True)
class _Coming:
    """A guest that was started ahead, or is about to be."""

    wanted: Wanted
    future: Future[Ahead | None]


_Kind = tuple[str, bool]
"""A kernel, and whether its guest is prepared for some work."""


class Waiting:
    """Guests that were restored before anybody needs them: for each kernel one of a kind.

    ``folder`` gets their consoles until they are taken.  Only what has a snapshot is started, and
    only while the host has memory.  Each is taken once: a used guest is thrown away.  One
    that was prepared is for work of that kind: other work of its kernel leaves it there.
    """

    def __init__(self, folder: Path, cache: Path, at_once: int) -> None:
        self._folder = folder
        self._cache = cache
        self._at_once = at_once
        self._lock = Lock()
        self._closed = False
        self._wanted: dict[_Kind, Wanted] = {}
        self._guests: dict[_Kind, _Coming] = {}
        self._starting: set[Machine] = set()
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="ahead")

    def take(self, kernel: str, wanted: Wanted, stack: ExitStack) -> Ahead | None:
        """The guest that waits for ``kernel``, which ends with ``stack``; None without one.

        It is noted that there was need for one.  Raises Interrupted while one is still prepared,
        which then waits for the next.
        """
        kind = kernel, wanted.prepare is not None
        with self._lock:
            if wanted.spec.network is Network.NONE:
                self._wanted[kind] = wanted
            if kind not in self._guests:
                kind = kernel, False
            coming = self._guests.get(kind)
            if coming is None:
                return None
            if coming.future.cancel():
                del self._guests[kind]
                return None
        _await(coming.future)
        with self._lock:
            if self._guests.get(kind) is not coming:
                return None  # all of them were ended
            del self._guests[kind]
        ahead = coming.future.result()
        if ahead is None:
            return None
        own = replace(ahead.wanted.spec, log=wanted.spec.log)
        alike = ahead.wanted.prepare in (None, wanted.prepare)
        if own == wanted.spec and alike and ahead.fit:
            with suppress(OSError):
                ahead.started.machine.hand_over(wanted.spec)
                stack.push(ahead.stack)
                return ahead
        ahead.stack.close()
        return None

    def fill(self) -> None:
        """Start a guest of each kind that none waits for, the prepared first; does not wait."""
        with self._lock:
            for kind in sorted(self._wanted, key=lambda kind: not kind[1]):
                if not self._closed and kind not in self._guests:
                    wanted = self._wanted[kind]
                    future = self._pool.submit(self._start, kind, wanted)
                    self._guests[kind] = _Coming(wanted, future)

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            self._closed = True
            guests, self._guests = tuple(self._guests.values()), {}
            for machine in self._starting:
                machine.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for future in (coming.future for coming in guests):
            if not future.cancelled() and (ahead := future.result()) is not None:
                ahead.stack.close()

    def _start(self, kind: _Kind, wanted: Wanted) -> Ahead | None:
        # It and as many as run at once: what waits must take no room from what works.
        need = (wanted.spec.memory_mib + QEMU_OVERHEAD_MIB) * (1 + self._at_once)
        if int(memory_available_mib() * 0.8) < need:
            return None
        snapshots = Snapshots(self._cache)
        with ExitStack() as stack, interrupt.apart():
            stack.callback(snapshots.close)
            try:
                folder = self._folder / ("prepared" if kind[1] else "plain")
                folder.mkdir(parents=True, exist_ok=True)
                spec = replace(wanted.spec, log=folder / f"{kind[0]}.log")
                if snapshots.find(spec) is None:
                    return None
                guest = running_guest(spec, snapshots, wanted.limit, wanted.factor, self._begun)
                started = stack.enter_context(guest)
                stack.callback(started.session.close)
                prepared = None
                if wanted.prepare is not None:
                    with within(wanted.silence, "preparing", started.machine.hang_up):
                        prepared = wanted.prepare(started)
            except (VmtestError, OSError):
                return None  # the run that needs one says what is wrong
            own = replace(wanted, spec=spec)
            return Ahead(own, started, snapshots, stack.pop_all(), prepared)

    def _begun(self, machine: Machine, stack: ExitStack) -> None:
        with self._lock:
            if self._closed:
                raise SessionLost("cancelled")
            self._starting.add(machine)
        stack.callback(self._started, machine)

    def _started(self, machine: Machine) -> None:
        with self._lock:
            self._starting.discard(machine)


def _await(future: Future[Ahead | None]) -> None:
    """Return once ``future`` is done; raises Interrupted as soon as the run is ended."""
    woken: SimpleQueue[None] = SimpleQueue()
    future.add_done_callback(lambda _: woken.put(None))
    with interrupt.current().ending(lambda: woken.put(None)):
        woken.get()


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept from run to run."""

    whole: Whole
    guests: Waiting
