"""The coordinator's side of a run on a cluster: one thread, which everything that happens goes to.

A kernel that waits is submitted when a slot of the cluster is free, so that a worker that is lost
takes along no more than what it ran.  Dask runs such a kernel elsewhere; here that shows by a new
attempt that begins.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import IO, Any, Protocol

from vmtest.cluster import worker
from vmtest.cluster.order import (
    BEGAN,
    CHUNK,
    EVENT,
    IMAGE,
    KERNEL,
    NEEDS,
    ORDER,
    PLACE,
    WHEEL,
    Call,
    Ended,
    Part,
    Said,
    Unfit,
    code_digest,
    entry_place,
    name_of,
    order_of,
)
from vmtest.cluster.record import Rows, unpack_folder
from vmtest.errors import InfrastructureError, VmtestError
from vmtest.host.cache import ensure, tree_size
from vmtest.kernels.store.record import read_entry
from vmtest.matrix.bench import Emit
from vmtest.matrix.engine import Assignment, Start
from vmtest.matrix.job import base_result
from vmtest.matrix.plan import Plan
from vmtest.model.events import Event, KernelQueued, Note, Preparing, SlotTaken
from vmtest.model.results import KernelResult, Status
from vmtest.runs.rows import kept
from vmtest.storage.transfer import pack

TICK = 1.0
"""Seconds between two looks at the cluster."""
PATIENCE = 20.0
"""Seconds for which a scheduler may be out of reach, or a cluster without a worker."""
GATHER = 15.0
"""Seconds for workers to end what they run after an interrupt, and to send what they have."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a scheduler says of its workers: the VM slots and the host of each, by address."""

    slots: Mapping[str, int]
    declared: bool
    hosts: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All slots."""
        return sum(self.slots.values())

    @property
    def beside(self) -> dict[str, int]:
        """The slots of each host."""
        found: dict[str, int] = {}
        for address, number in self.slots.items():
            host = self.hosts[address]
            found[host] = found.get(host, 0) + number
        return found


class Cluster(Protocol):
    """What a crew needs of Dask."""

    name: str

    def standing(self) -> Standing | None:
        """What workers there are; None when the scheduler cannot be reached."""

    def called(self, address: str) -> str:
        """What messages call a worker."""

    def cure(self) -> str:
        """What the user can do when no worker is left."""

    def submit(self, call: Call, standing: Standing, not_on: frozenset[str]) -> Any:
        """A future of Dask's of ``worker.work(call)``."""

    def cancel(self, futures: list[Any]) -> None:
        """Have Dask drop them, as far as it can be reached."""

    def run_on(self, address: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function on a worker, beside its tasks."""


@dataclass(eq=False)
class _Kernel:
    """A kernel on its way; only the crew's thread touches it."""

    given: Assignment
    order: bytes
    future: Future[KernelResult]
    dask: Any = None
    slot: int = 0
    token: str = ""
    worker: str = ""
    place: str = ""
    """The kernel's folder on that worker; "" before it has one."""
    lost: list[tuple[str, str]] = field(default_factory=list)
    """The workers that were lost, and the kernel's folder on each."""
    unfit: dict[str, str] = field(default_factory=dict)
    rows: Rows | None = None
    offered: frozenset[str] = frozenset()
    """The workers that Dask may give it to; empty where it may take any."""
    seen: float = 0.0
    """When one of these was there last."""

    @property
    def name(self) -> str:
        return self.given.kernel.name


class Crew:
    """The kernels of one run on a cluster; ``run`` is what its messages are known by."""

    def __init__(
        self, cluster: Cluster, plan: Plan, post: Emit, closed: Callable[[Crew], None]
    ) -> None:
        self.run = f"{plan.folder.path.name}-{secrets.token_hex(4)}"
        self._cluster = cluster
        self._plan = plan
        self._post = post
        self._closed = closed
        self._bundles: dict[str, IO[bytes]] = {}
        self._bundling = threading.Lock()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._standing = cluster.standing() or Standing({}, False)
        self._reached = time.monotonic()
        self._kernels: dict[str, _Kernel] = {}
        self._waiting: deque[_Kernel] = deque()
        self._running: set[_Kernel] = set()
        self._filling = False
        self._stopping = False
        self._stopped = threading.Event()
        self._over = threading.Event()
        self._helpers = ThreadPoolExecutor(8, thread_name_prefix="cluster")
        self._thread = threading.Thread(target=self._work, name="crew", daemon=True)
        self._thread.start()
        threading.Thread(target=self._look, name="cluster-look", daemon=True).start()

    # --- what the runner calls ------------------------------------------------------------

    def ready(self, given: Assignment) -> Start:
        """Pack the order: its files are named, and go along when a worker lacks them."""
        plan, name = self._plan, given.kernel.name
        place = entry_place(given.image.image, plan.cache, "kernels", name)
        try:
            size = read_entry(place).tree_size  # a kernel has thousands of files
        except ValueError as error:
            raise InfrastructureError(f"{place}: {error}") from error
        image = Part(place.name, given.image.digest, size)
        guest = None
        if given.root.kind != "host":
            path = given.root.path or Path("/")
            place = entry_place(path, plan.cache, "images", f"{name}: guest root")
            guest = Part(place.name, given.root.digest, tree_size(place))
        order = pickle.dumps(order_of(given, image, guest, plan.accelerator, plan.warm))

        def start() -> Future[KernelResult]:
            kernel = _Kernel(given, order, Future())
            self._inbox.put(lambda: self._queue(kernel))
            return kernel.future

        return start

    def cancel(self) -> None:
        """Have every worker end what it runs for this crew, and take what that has written.

        Nothing is waited for longer than ``GATHER``.
        """
        self._inbox.put(self._stop_all)
        in_time = self._stopped.wait(GATHER)
        self._inbox.put(self._leave_all)
        self._close(wait=in_time)

    def close(self) -> None:
        """End the crew's thread; the bundles that it made are gone."""
        self._close(wait=True)

    def _close(self, *, wait: bool) -> None:
        self._over.set()
        self._inbox.put(None)
        self._thread.join()
        self._helpers.shutdown(wait=wait, cancel_futures=True)
        for bundle in self._bundles.values():
            bundle.close()
        self._closed(self)

    def heard(self, said: Said) -> None:
        """Take a message of a worker; from any thread."""
        self._inbox.put(lambda: self._hear(said))

    # --- on the crew's thread -------------------------------------------------------------

    def _work(self) -> None:
        while (action := self._inbox.get()) is not None:
            try:
                action()
            except Exception as error:  # a bug of ours: nobody may wait for it for ever
                waiting, self._waiting = self._waiting, deque()
                for kernel in (*self._running, *waiting):
                    self._running.discard(kernel)
                    if not kernel.future.done():
                        kernel.future.set_exception(error)

    def _look(self) -> None:
        """On a thread of its own: what workers there are, once a second."""
        while not self._over.wait(TICK):
            found = self._cluster.standing()
            self._inbox.put(lambda found=found: self._found(found))  # type: ignore[misc]

    def _found(self, standing: Standing | None) -> None:
        now = time.monotonic()
        if standing is not None:
            self._standing = standing
        if standing is not None and (standing.slots or not (self._running or self._waiting)):
            self._reached = now
        if now - self._reached > PATIENCE:
            name, seconds = self._cluster.name, f"{PATIENCE:.0f} s"
            if standing is None:
                self._gone()
            else:
                self._give_all_up(f"{name} had no worker for {seconds}; {self._cluster.cure()}")
        for kernel in tuple(self._running):
            if self._stopping:
                if standing is not None and kernel.worker not in standing.slots:
                    self._leave([kernel])
            elif standing is not None and standing.slots:
                if kernel.unfit and not self._check_room(kernel):
                    continue
                self._check_offer(kernel, now)
        self._fill()

    def _check_offer(self, kernel: _Kernel, now: float) -> None:
        """Offer it anew where its workers are gone: Dask waits for them, for ever."""
        if not kernel.offered or kernel.offered & set(self._standing.slots):
            kernel.seen = now
        elif now - kernel.seen > PATIENCE:
            self._helpers.submit(self._cluster.cancel, [kernel.dask])
            kernel.dask = None
            self._running.discard(kernel)
            self._waiting.appendleft(kernel)

    def _queue(self, kernel: _Kernel) -> None:
        self._kernels[kernel.name] = kernel
        self._waiting.append(kernel)
        self._fill()

    def _fill(self) -> None:
        """Submit what there are slots for."""
        if self._filling or self._stopping:
            return
        self._filling = True
        limit = self._standing.total
        if self._plan.jobs is not None:
            limit = min(limit, self._plan.jobs)
        try:
            while self._waiting and len(self._running) < limit:
                kernel = self._waiting.popleft()
                used = {one.slot for one in self._running}
                kernel.slot = next(number for number in count(1) if number not in used)
                self._running.add(kernel)
                try:
                    self._submit(kernel)
                except Exception as error:  # whatever Dask raises when its scheduler is gone
                    self._give_up(kernel, f"{self._cluster.name} does not take it: {error}")
        finally:
            self._filling = False

    def _submit(self, kernel: _Kernel) -> None:
        digest = hashlib.sha256(kernel.order).hexdigest()
        call = Call(self.run, kernel.name, digest, code_digest(), self._standing.beside)
        unfit = frozenset(kernel.unfit)
        chosen = bool(unfit) or self._standing.declared
        kernel.offered = frozenset(self._standing.slots) - unfit if chosen else frozenset()
        kernel.seen = time.monotonic()
        kernel.dask = self._cluster.submit(call, self._standing, unfit)
        kernel.dask.add_done_callback(
            lambda done: self._inbox.put(lambda: self._done(kernel, done))
        )

    def _hear(self, said: Said) -> None:
        kernel = self._kernels.get(said.kernel)
        if kernel is None or kernel not in self._running:
            return
        if said.kind == BEGAN:
            self._began(kernel, said)
        if said.token != kernel.token:
            return  # of an attempt that is given up
        if said.kind == PLACE:
            kernel.place = str(said.what)
        elif said.kind == EVENT and kernel.rows is not None:
            event: Event = said.what  # type: ignore[assignment]
            if problem := kernel.rows.add(event):
                self._post(Note(problem))
            self._post(event)
        elif said.kind == NEEDS:
            self._helpers.submit(self._send, kernel, said.token, said.worker, str(said.what))

    def _began(self, kernel: _Kernel, said: Said) -> None:
        if self._stopping:
            self._leave([kernel])
            return
        if kernel.token:
            kernel.lost.append((kernel.worker, kernel.place))
            where = f"it runs again on {self._cluster.called(said.worker)}"
            lost = self._cluster.called(kernel.worker)
            self._post(Note(f"{kernel.name}: worker {lost} was lost; {where}"))
            self._put_aside(kernel, f"lost-worker-{len(kernel.lost)}")
            self._post(KernelQueued(kernel.name))
        kernel.token, kernel.worker, kernel.place = said.token, said.worker, ""
        kernel.rows = Rows(kernel.given.directory)
        self._post(SlotTaken(kernel.name, kernel.slot))
        self._post(Preparing(kernel.name, f"on {self._cluster.called(said.worker)}"))

    def _put_aside(self, kernel: _Kernel, attempt: str) -> None:
        if kernel.rows is not None:
            kernel.rows.close()
            kernel.rows = None
        with suppress(OSError):
            self._plan.folder.put_aside(kernel.name, attempt)

    def _done(self, kernel: _Kernel, done: Any) -> None:
        """Dask has a result, or will never have one."""
        if kernel not in self._running or done is not kernel.dask:
            return
        if done.status == "finished":
            self._helpers.submit(self._bring, kernel, done)
        elif done.status == "error":
            error = done.exception()
            if type(error).__name__ == "KilledWorker":
                names = filter(None, (*(address for address, _ in kernel.lost), kernel.worker))
                lost = ", ".join(map(self._cluster.called, names))
                self._give_up(kernel, f"the workers that ran it were lost: {lost}")
            elif isinstance(error, VmtestError | OSError):
                worker_ = self._cluster.called(kernel.worker)
                self._give_up(kernel, f"worker {worker_}: {error}")
            else:
                self._end(kernel, error)
        elif self._cluster.standing() is None:
            self._gone()
        else:
            self._give_up(kernel, f"somebody else cancelled it on {self._cluster.name}")

    def _gone(self) -> None:
        name = self._cluster.name
        self._give_all_up(f"the scheduler {name} went away; start it and its workers again")

    def _give_all_up(self, why: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        for kernel in (*self._running, *waiting):
            self._give_up(kernel, why)

    def _give_up(self, kernel: _Kernel, why: str) -> None:
        """An end without a result: the rows that had arrived are kept."""
        if kernel.future.done():
            return
        if self._stopping:
            self._leave([kernel])
            return
        if kernel.dask is not None:
            self._helpers.submit(self._cluster.cancel, [kernel.dask])
        self._end(kernel, self._of_rows(kernel, Status.INFRA_ERROR, why))

    def _of_rows(self, kernel: _Kernel, status: Status, why: str) -> KernelResult:
        given = kernel.given
        left = ""
        if kernel.place:
            name = self._cluster.called(kernel.worker)
            left = f"worker {name} did not send its files: they are there, in {kernel.place}"
        empty = replace(
            base_result(given.kernel, status, why),
            version=str(given.image.version),
            release=given.image.release,
            note="; ".join(filter(None, (given.image.note, given.note, left))),
            digest=given.image.digest,
            objects=given.task.objects,
            guest=given.root.digest,
        )
        return kept(given.directory, empty)

    def _end(self, kernel: _Kernel, outcome: KernelResult | BaseException) -> None:
        self._running.discard(kernel)
        if kernel.rows is not None:
            kernel.rows.close()
        if isinstance(outcome, BaseException):
            kernel.future.set_exception(outcome)
        else:
            notes = (outcome.note, *self._notes(kernel))
            outcome = replace(outcome, note="; ".join(filter(None, notes)))
            kernel.future.set_result(outcome)
        self._fill()
        self._check_stopped()

    def _notes(self, kernel: _Kernel) -> Iterator[str]:
        for number, (address, place) in enumerate(kernel.lost, 1):
            name = self._cluster.called(address)
            if not place:
                yield f"worker {name} was lost before it ran this kernel, and left nothing of it"
                continue
            arrived = f"{kernel.name}/lost-worker-{number}"
            yield (
                f"worker {name} was lost while it ran this kernel (what had arrived: {arrived}; "
                f"the rest is there, in {place})"
            )
        for address, why in kernel.unfit.items():
            yield f"worker {self._cluster.called(address)} did not take it: {why}"

    def _brought(self, kernel: _Kernel, ended: Ended) -> None:
        if kernel not in self._running:
            return
        if not isinstance(ended.outcome, Unfit):
            self._end(kernel, ended.outcome)
            return
        kernel.unfit[ended.worker] = ended.outcome.why
        name = self._cluster.called(ended.worker)
        self._post(Note(f"{kernel.name}: worker {name}: {ended.outcome.why}"))
        self._put_aside(kernel, f"not-taken-{len(kernel.unfit)}")
        kernel.token = kernel.place = ""
        if self._stopping:
            self._leave([kernel])
        elif self._check_room(kernel):
            self._running.discard(kernel)
            self._waiting.appendleft(kernel)
            self._post(KernelQueued(kernel.name))
            self._fill()

    def _check_room(self, kernel: _Kernel) -> bool:
        """Whether a worker is left that may take it; else it is given up."""
        if not set(self._standing.slots) <= set(kernel.unfit):
            return True
        called = self._cluster.called
        told = "; ".join(f"worker {called(at)}: {why}" for at, why in kernel.unfit.items())
        kernel.unfit.clear()
        self._give_up(kernel, f"no worker takes it: {told}")
        return False

    # --- an interrupt, on the crew's thread -----------------------------------------------

    def _stop_all(self) -> None:
        """Have workers end what they run: their calls return what there is, as always."""
        self._stopping = True
        waiting, self._waiting = self._waiting, deque()
        self._leave([*waiting, *(kernel for kernel in self._running if not kernel.token)])
        for kernel in self._running:
            self._helpers.submit(self._stop, kernel.worker, kernel.token)
        self._check_stopped()

    def _leave_all(self) -> None:
        self._leave(list(self._running))

    def _leave(self, kernels: list[_Kernel]) -> None:
        """Wait no longer for what workers have: the rows that had arrived are kept."""
        self._cluster.cancel([kernel.dask for kernel in kernels if kernel.dask is not None])
        for kernel in kernels:
            self._end(kernel, self._of_rows(kernel, Status.CANCELLED, "interrupted"))

    def _check_stopped(self) -> None:
        if self._stopping and not self._running:
            self._stopped.set()

    # --- on helper threads ----------------------------------------------------------------

    def _stop(self, address: str, token: str) -> None:
        with suppress(Exception):  # a worker that is lost has ended it, or another one begins it
            self._cluster.run_on(address, worker.stop, token)

    def _send(self, kernel: _Kernel, token: str, address: str, what: str) -> None:
        """Send a worker what it asked for, in chunks."""
        run_on = self._cluster.run_on
        try:
            if what == ORDER or what.startswith(WHEEL):
                data = kernel.order if what == ORDER else self._tree(kernel, what)
                self._chunks(address, token, what, iter([data]), len(data))
                return
            bundle = self._bundle(kernel, what).fileno()
            size = os.fstat(bundle).st_size
            chunks = (os.pread(bundle, CHUNK, at) for at in range(0, size, CHUNK))
            self._chunks(address, token, what, chunks, size)
        except Exception as error:  # whatever it is, the worker must not wait for ever
            with suppress(Exception):
                run_on(address, worker.fail, token, what, f"{what} could not be sent: {error}")

    def _chunks(
        self, address: str, token: str, what: str, chunks: Iterator[bytes], left: int
    ) -> None:
        for data in chunks:
            for at in range(0, len(data), CHUNK):
                piece = data[at : at + CHUNK]
                left -= len(piece)
                if not self._cluster.run_on(address, worker.take, token, what, piece, left):
                    return

    @staticmethod
    def _tree(kernel: _Kernel, what: str) -> bytes:
        return next(one.tree for one in kernel.given.root.wheels if name_of(one) == what)

    def _bundle(self, kernel: _Kernel, what: str) -> IO[bytes]:
        """The entry that a worker lacks in one file, which is made once and has no name."""
        cache, given = self._plan.cache, kernel.given
        if what == KERNEL:
            place = entry_place(given.image.image, cache, "kernels", kernel.name)
        else:
            assert what == IMAGE and given.root.path is not None
            place = entry_place(given.root.path, cache, "images", kernel.name)
        with self._bundling:
            if place.name not in self._bundles:
                file = self._plan.folder.path / f".{place.name}.tar"
                try:
                    pack(file, cache, [place.relative_to(cache)])
                    self._bundles[place.name] = file.open("rb")
                finally:
                    file.unlink(missing_ok=True)
            return self._bundles[place.name]

    def _bring(self, kernel: _Kernel, done: Any) -> None:
        """Take a call's result, and the kernel's folder as a whole."""
        try:
            ended = pickle.loads(done.result())
            assert isinstance(ended, Ended)
            if ended.size:
                ended = self._with_folder(kernel, ended)
        except Exception as error:
            failed = error if isinstance(error, VmtestError | OSError) else None
            words = f"its result could not be fetched: {error!r}"
            if failed is not None:
                words = f"its result could not be fetched: {failed}"
            self._inbox.put(lambda: self._give_up(kernel, words))
            return
        self._inbox.put(lambda: self._brought(kernel, ended))

    def _with_folder(self, kernel: _Kernel, ended: Ended) -> Ended:
        directory = kernel.given.directory
        problem = ""
        try:
            with ensure(directory).joinpath(".folder.tar").open("w+b") as file:
                Path(file.name).unlink()
                for offset in range(0, ended.size, CHUNK):
                    read = (worker.read, ended.token, offset, CHUNK)
                    file.write(self._cluster.run_on(ended.worker, *read))
                file.seek(0)
                if hashlib.file_digest(file, "sha256").hexdigest() != ended.sha256:
                    raise InfrastructureError("it did not arrive whole")
                file.seek(0)
                unpack_folder(file, directory)
        except Exception as error:
            name = self._cluster.called(ended.worker)
            left = f"its files are there, in {ended.folder}"
            problem = f"its folder on worker {name} could not be fetched: {error}; {left}"
        forget = worker.leave if problem else worker.discard
        with suppress(Exception):
            self._cluster.run_on(ended.worker, forget, ended.token)
        outcome = ended.outcome
        if isinstance(outcome, KernelResult):
            here = str(directory)
            note = outcome.note.replace(ended.folder, here)
            outcome = replace(
                outcome,
                reason=outcome.reason.replace(ended.folder, here),
                note="; ".join(filter(None, (note, problem))),
            )
        return replace(ended, outcome=outcome)
