"""What a worker does: gets what it lacks, runs a kernel, says what happens, keeps its folder.

The coordinator reaches a call that runs through functions that Dask runs beside it, so it needs no
thread of the worker's.
"""

from __future__ import annotations

import asyncio
import hashlib
import pickle
import secrets
import shutil
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from vmtest.cluster.order import (
    BEGAN,
    EVENT,
    IMAGE,
    KERNEL,
    NEEDS,
    ORDER,
    PLACE,
    TOPIC,
    WHEEL,
    Call,
    Ended,
    Order,
    Part,
    Said,
    Unfit,
    code_digest,
)
from vmtest.cluster.place import called, host_of
from vmtest.errors import InfrastructureError, SessionLost, VmtestError, os_words
from vmtest.host import interrupt
from vmtest.host.cache import (
    FULL,
    default_cache,
    hold,
    locked,
    publish,
    remove_tree,
    require_space,
    scratch,
)
from vmtest.host.seal import Entry
from vmtest.kernels import Store
from vmtest.matrix.bench import Cancellation
from vmtest.matrix.engine import Assignment, Here, job_here
from vmtest.matrix.intact import CacheDamaged
from vmtest.matrix.job import base_result, refused, run_kernel
from vmtest.model.events import Event, Preparing
from vmtest.model.kernels import InstalledWheel, KernelImage, RootImage
from vmtest.model.results import KernelResult, Status
from vmtest.rootfs.image import host_root
from vmtest.rootfs.images import recheck_image
from vmtest.storage.transfer import import_bundle

LOOK = 0.3
"""Seconds between two looks at whether a call is still wanted."""
FOLDERS = "workers"
"""In a worker's cache: the folders of kernels that it runs, and of those that nobody fetched."""
_KEPT = 7 * 86400.0  # seconds that these stay there
_SPARE = 64 << 20
_RUNS = ("executing", "long-running")
_ALIVE = ("running", "paused", "closing_gracefully")


class NoRoom(InfrastructureError):
    """A worker's disk cannot hold what a kernel takes."""


_desks: dict[str, Desk] = {}
_fetching = threading.Lock()
"""Held by the call that gets a wheel, which others may want as well."""


class Desk:
    """A call's work on this worker: what it says, what it is sent, and whether it is wanted."""

    def __init__(self, call: Call) -> None:
        self._worker: Any = import_module("distributed").get_worker()
        self._key = self._worker.get_current_task()
        self._call = call
        self.token = secrets.token_hex(8)
        self.address = str(self._worker.address)
        self.folder = Path(self._worker.local_directory) / f"vmtest-{self.token}"
        self.directory: Path | None = None
        self.cancellation = Cancellation()
        self._stopped = False
        self._arrived = threading.Condition()
        self._target: Path | None = None
        self._left = -1
        self._digest = hashlib.sha256()
        self._wanted = ""
        self._problem: Exception | None = None
        self._over = threading.Event()

    @property
    def beside(self) -> int:
        """How many VMs run at once on this host."""
        host = host_of(self.address, self._worker.name)
        return max(1, self._call.beside.get(host, 1))

    @property
    def called(self) -> str:
        """What messages call this worker."""
        return called(self.address, self._worker.name)

    def say(self, kind: str, what: object = None) -> None:
        """Tell the coordinator, at once."""
        call = self._call
        said = Said(call.run, call.kernel, self.token, self.address, kind, what)
        self._worker.log_event(TOPIC, said.pack())

    def emit(self, event: Event) -> None:
        """Have the coordinator hear an event."""
        self.say(EVENT, event)

    def settle(self, cache: Path) -> Path:
        """Make the kernel's folder, where it outlives this process, and say where it is.

        Raises NoRoom, OSError.
        """
        parent = cache / FOLDERS
        _remove_old(parent)
        self.directory = parent / f"{self._call.run}-{self.token}" / self._call.kernel
        try:
            self.directory.mkdir(parents=True)
        except OSError as error:
            if error.errno in FULL:
                raise _no_room(error) from error
            raise
        self.say(PLACE, str(self.directory))
        return self.directory

    @contextmanager
    def open(self) -> Iterator[None]:
        """Be reachable, and cancelled when it is stopped or nobody wants this call."""
        self.folder.mkdir(parents=True)
        _desks[self.token] = self
        with interrupt.apart() as scope:
            watching = threading.Thread(target=self._watch, args=(scope,), daemon=True)
            watching.start()
            try:
                yield
            finally:
                self._over.set()
                watching.join()

    def _watch(self, scope: interrupt.Scope) -> None:
        while not self._over.wait(LOOK):
            if self._stopped or not self.is_wanted():
                scope.end()
                self.cancellation.cancel()
                with self._arrived:
                    self._arrived.notify_all()
                return

    def stop(self) -> None:
        """Have the kernel's work end; what there is of it is returned as always."""
        self._stopped = True

    def is_wanted(self) -> bool:
        """Whether Dask still wants this call: a cancelled one, or one of a client that is gone."""
        state = self._worker.state.tasks.get(self._key)
        if state is None or state.state not in _RUNS:
            return False
        return self._worker.status.name in _ALIVE

    def fetch(self, what: str, target: Path) -> str:
        """Have the coordinator send ``what`` to the file ``target``; returns its sha256.

        Raises NoRoom, and SessionLost when nobody wants this call any more.
        """
        with self._arrived:
            self._target, self._left, self._problem = target, -1, None
            self._digest = hashlib.sha256()
            self._wanted = what
            self.say(NEEDS, what)
            while self._left != 0 and self._problem is None:
                if self.cancellation.requested:
                    raise SessionLost("cancelled")
                self._arrived.wait(LOOK)
            self._target = None
            if self._problem is not None:
                raise self._problem
            return self._digest.hexdigest()

    def take(self, what: str, data: bytes, left: int) -> None:
        """A chunk of ``what``, after which ``left`` bytes are to come."""
        with self._arrived:
            target = self._target
            if target is None or what != self._wanted:
                return
            try:
                with target.open("ab") as out:
                    out.write(data)
            except OSError as error:
                self._problem = _no_room(error) if error.errno in FULL else error
                self._arrived.notify_all()
                raise self._problem from error
            self._digest.update(data)
            self._left = left
            if left == 0:
                self._arrived.notify_all()

    def fail(self, what: str, why: str) -> None:
        """The coordinator cannot send ``what``."""
        with self._arrived:
            if what == self._wanted:
                self._problem = InfrastructureError(why)
                self._arrived.notify_all()

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the kernel's folder, as a tar."""
        with (self.folder / _TAR).open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)

    def leave(self) -> None:
        """Forget this call, and leave the kernel's folder to whoever looks for it."""
        _desks.pop(self.token, None)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.directory is not None:
            for folder in (self.directory, self.directory.parent):
                with suppress(OSError):
                    folder.rmdir()  # where nothing was written

    def discard(self) -> None:
        """Forget all of this call."""
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
        self.leave()


_TAR = "folder.tar"


def _remove_old(folder: Path) -> None:
    """Remove from ``folder`` what nobody has fetched for long."""
    for left in folder.glob("*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _KEPT:
                remove_tree(left)


def _no_room(error: OSError) -> NoRoom:
    return NoRoom(os_words(error))


# --- what the coordinator calls, on the worker's event loop -------------------------------


def ignore_interrupts() -> None:
    """Leave Ctrl-C at a terminal to the coordinator, which ends this worker's calls."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


async def take(token: str, what: str, data: bytes, left: int) -> bool:
    """Give a call a chunk of what it asked for; False when it is not here any more."""
    desk = _desks.get(token)
    if desk is None:
        return False
    await asyncio.to_thread(desk.take, what, data, left)
    return True


async def fail(token: str, what: str, why: str) -> None:
    """Tell a call that it will not get what it asked for."""
    desk = _desks.get(token)
    if desk is not None:
        await asyncio.to_thread(desk.fail, what, why)


async def read(token: str, offset: int, size: int) -> bytes:
    """Bytes of the folder of a call that has ended."""
    return await asyncio.to_thread(_desks[token].read, offset, size)


async def stop(token: str) -> None:
    """Have a call end with what it has."""
    desk = _desks.get(token)
    if desk is not None:
        desk.stop()


async def discard(token: str) -> None:
    """The coordinator has all of a call."""
    desk = _desks.get(token)
    if desk is not None:
        await asyncio.to_thread(desk.discard)


async def leave(token: str) -> None:
    """The coordinator cannot get the folder of a call: it stays here."""
    desk = _desks.get(token)
    if desk is not None:
        await asyncio.to_thread(desk.leave)


# --- the call -----------------------------------------------------------------------------


def work(call: Call) -> bytes:
    """Run a kernel on this worker, and return what came of it: an ``Ended``, pickled."""
    desk = Desk(call)
    try:
        with desk.open():
            desk.say(BEGAN)
            outcome = _outcome(desk, call)
            return pickle.dumps(_ended(desk, outcome))
    except BaseException:
        desk.leave()
        raise


def _outcome(desk: Desk, call: Call) -> KernelResult | Exception | Unfit:
    if call.code != code_digest():
        return Unfit("its vmtest is not the coordinator's; install the same, and start it again")
    order: Order | None = None
    try:
        with ExitStack() as stack:
            order = _order(desk, call)
            return _run(desk, order, default_cache(), stack)
    except CacheDamaged as error:
        return error
    except NoRoom as error:
        return Unfit(str(error))
    except (VmtestError, OSError) as error:
        if order is None:
            raise
        if desk.cancellation.requested:
            return base_result(order.kernel, Status.CANCELLED, "interrupted")
        words = os_words(error) if isinstance(error, OSError) else str(error)
        return refused(order.kernel, InfrastructureError(f"worker {desk.called}: {words}"))


def _order(desk: Desk, call: Call) -> Order:
    file = desk.folder / ORDER
    if desk.fetch(ORDER, file) != call.sha256:
        raise InfrastructureError(f"{call.kernel}: its order did not arrive whole")
    try:
        order = pickle.loads(file.read_bytes())
    finally:
        file.unlink()
    assert isinstance(order, Order)
    return order


def _run(desk: Desk, order: Order, cache: Path, stack: ExitStack) -> KernelResult:
    image = _kernel(desk, order, cache)
    root = _root(desk, order, cache)
    directory = desk.settle(cache)
    desk.emit(Preparing(order.kernel.name, "choosing the accelerator"))
    given = Assignment(
        order.kernel, image, root, order.task, directory, order.note, order.known_splats
    )
    here = Here(cache, order.accelerator, order.warm, desk.beside)
    job, _ = job_here(given, here, lambda line: desk.emit(Preparing(order.kernel.name, line)))
    return run_kernel(job, desk.emit, desk.cancellation)


def _kernel(desk: Desk, order: Order, cache: Path) -> KernelImage:
    """The kernel in this worker's cache, sent by the coordinator where that lacks it."""
    store, part, name = Store(cache), order.part, order.kernel.name
    with locked(cache, f"cluster-{part.key}"):
        found = store.take(part.key, name)
        if found is None:
            desk.emit(Preparing(name, "getting the kernel"))
            _get(desk, KERNEL, part, cache, "kernels", store.path(part.key))
            found = store.take(part.key, name)
    if found is None or found.digest != order.image.digest:
        digest = "cannot be read" if found is None else f"has sha256 {found.digest[:12]}"
        raise InfrastructureError(
            f"{store.path(part.key)} {digest}, expected {order.image.digest[:12]}; remove it there"
        )
    return replace(order.image, image=found.image, modules=found.modules, config=found.config)


def _root(desk: Desk, order: Order, cache: Path) -> RootImage:
    """The guest's root on this worker, sent by the coordinator where it is an image it lacks."""
    part = order.guest
    if part is None:
        own = host_root()
        return replace(own, note=order.root.note, libraries=order.root.libraries)
    # Two hosts that built the image for themselves have two: the same key, other digests.
    places = [cache / "images" / key for key in (part.key, f"{part.key}-{part.digest[:12]}")]
    with locked(cache, f"cluster-{part.key}"):
        place = next((one for one in places if _is_image(one, cache, part)), None)
        if place is None:
            desk.emit(Preparing(order.kernel.name, "getting the guest image"))
            place = places[1] if places[0].exists() else places[0]
            _get(desk, IMAGE, part, cache, "images", place)
        hold(cache, f"image-{place.name}")
    assert order.root.path is not None
    return replace(order.root, path=place / order.root.path, wheels=_wheels(desk, order))


def _wheels(desk: Desk, order: Order) -> tuple[InstalledWheel, ...]:
    """The guest's wheels: each is sent to a worker once, and stays as long as that lives."""
    found = []
    for wheel, name in zip(order.root.wheels, order.wheels, strict=True):
        digest = name.removeprefix(WHEEL)
        file = desk.folder.parent / f"vmtest-wheel-{digest}"
        with _fetching:
            if not file.exists():
                desk.emit(Preparing(order.kernel.name, f"getting {wheel.name}"))
                part = desk.folder / "wheel"
                if desk.fetch(name, part) != digest:
                    raise InfrastructureError(f"{wheel.name} did not arrive whole")
                part.rename(file)
        found.append(replace(wheel, tree=file.read_bytes()))
    return tuple(found)


def _is_image(place: Path, cache: Path, part: Part) -> bool:
    entry = Entry(cache, "image", place)
    if not place.exists() or entry.glance(recheck_image) is not None:
        return False
    files = entry.files()
    return isinstance(files, dict) and part.digest in {digest for _, digest in files.values()}


def _get(desk: Desk, what: str, part: Part, cache: Path, kind: str, place: Path) -> None:
    """Have an entry sent, and publish it at ``place``; raises NoRoom."""
    lock = f"cluster-{part.key}"
    try:
        # The bundle, and what is unpacked of it.
        require_space(cache, 2 * part.size + _SPARE, f"the {what} {part.key}")
    except InfrastructureError as error:
        raise NoRoom(str(error)) from error
    try:
        with scratch(cache, lock) as folder:
            bundle = folder / "bundle.tar"
            desk.fetch(what, bundle)
            # Verified file by file, in a cache of its own.
            import_bundle(bundle, folder / "cache")
            made = folder / "cache" / kind / part.key
            with locked(cache, f"{what}-{place.name}"):
                publish(made, place)
    except OSError as error:
        if error.errno in FULL:
            raise _no_room(error) from error
        raise
    except InfrastructureError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in FULL:
            raise NoRoom(str(error)) from error
        raise


def _ended(desk: Desk, outcome: KernelResult | Exception | Unfit) -> Ended:
    """``outcome``, with the kernel's folder packed where there is one."""
    directory = desk.directory
    if isinstance(outcome, Unfit) or directory is None:
        desk.discard()
        return Ended(desk.token, desk.address, outcome)
    if not desk.is_wanted():
        desk.leave()  # nobody will fetch it
        return Ended(desk.token, desk.address, outcome)
    file = desk.folder / _TAR
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(directory, arcname=".")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    size = file.stat().st_size
    return Ended(desk.token, desk.address, outcome, str(directory), size, digest)
