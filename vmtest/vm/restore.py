"""Guests that go on from a snapshot, the cache of snapshots, and the boot where there is none.

A snapshot is an entry of the cache, named by all that a boot depends on.  One that cannot be
used is dropped, and the kernel boots: a restore never decides what becomes of a kernel.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path

from vmtest.errors import BootError, InfrastructureError, VmtestError, os_words
from vmtest.host.cache import (
    hold,
    last_used,
    publish,
    put_aside,
    remove_unused,
    require_space,
    scratch,
    sha256_json,
    tree_size,
    try_locked,
)
from vmtest.host.seal import Entry, seal
from vmtest.host.virtme import find_vng
from vmtest.kernels.kconfig import share_of
from vmtest.model.kernels import Accelerator, KernelImage, RootImage
from vmtest.vm.folder import VmFolder
from vmtest.vm.guest_code import guest_archive
from vmtest.vm.machine import Machine, MachineSpec
from vmtest.vm.qemu import QEMU
from vmtest.vm.session import SshSession
from vmtest.vm.snapshot import (
    ForeignSnapshot,
    Snapshot,
    SnapshotError,
    keep_from_others,
    read,
)
from vmtest.vm.vng import vng_argv

KIND = "snapshot"
RESTORE_LIMIT = 20.0
"""Seconds, times the deadlines' factor, for a restored guest's session: a tenth would do."""
ROOM = 4 << 30
"""Bytes that all snapshots together may take; the least recently used make room for a new one."""
_SCRIPTS = ("init.sh", "init-second.sh", "agent.sh", "renew.py", "standby.py")
_CPU = ("model name", "flags", "microcode")

Begun = Callable[[Machine, ExitStack], None]
"""Called with a machine that has been started and the stack that is left when it ends."""


def unfit(image: KernelImage, root: RootImage) -> str:
    """Why no guest of them can be saved, "" when it can."""
    if root.kind != "disk":
        return "its root is a folder of the host's"
    if share_of(image) != "9p":
        return "its kernel has no 9P"
    if not image.digest or not root.digest:
        return "nothing tells its kernel or its root from another"
    if find_vng().parent != Path(sys.executable).parent:
        return "virtme-ng is not installed in vmtest's own environment"
    return ""


def where_saved(
    cache: Path, warm: bool | None, accelerator: Accelerator, image: KernelImage, root: RootImage
) -> tuple[Path | None, str]:
    """The cache with the snapshots to use, None where guests boot.

    With ``warm`` of None guests are restored where they are emulated.  Where they cannot be,
    the second says why; whoever asked for it is told in each kernel's note.
    """
    if warm is None:
        why = unfit(image, root) if accelerator is Accelerator.TCG else ""
        warm = accelerator is Accelerator.TCG and not why
        return (cache if warm else None), why
    return (cache if warm else None), ""


def key_of(spec: MachineSpec) -> str:
    """What names the snapshot of ``spec``: a digest of all that a boot depends on."""
    made_of = {
        "kernel": [spec.image.digest, str(spec.image.version)],
        "modules": spec.image.release,
        "root": spec.root.digest,
        "command": _command(spec),
        "host": _host(spec.probe.accelerator),
        "scripts": [
            spec.root.python,
            *((files("vmtest.vm") / name).read_text() for name in _SCRIPTS),
        ],
        "code": hashlib.sha256(guest_archive()).hexdigest(),
        "virtme-ng": _virtme_version(),
    }
    return f"{spec.image.release}-{sha256_json(made_of)[:16]}"


def _command(spec: MachineSpec) -> list[str]:
    """How virtme-ng is told to boot ``spec``, in a folder that is the same for all."""
    folder = VmFolder(Path("/"), spec.root.kind)
    return vng_argv(Path("vng"), folder, spec.hardware(monitor=True))


def _virtme_version() -> str:
    try:
        return version("virtme-ng")
    except PackageNotFoundError:
        return ""


def _host(accelerator: Accelerator) -> list[object]:
    """QEMU, and under KVM the processor that a guest sees."""
    qemu = shutil.which(QEMU)
    status = None if qemu is None else Path(qemu).stat()
    found: list[object] = [str(accelerator), qemu]
    if status is not None:
        found += [status.st_size, status.st_mtime_ns]
    if accelerator is Accelerator.KVM:
        found += [Path("/proc/version").read_text(), *_processor(Path("/proc/cpuinfo").read_text())]
    return found


def _processor(cpuinfo: str) -> list[str]:
    first = cpuinfo.partition("\n\n")[0].splitlines()
    return [line for line in first if line.partition("\t")[0].rstrip() in _CPU]


class Snapshots:
    """The snapshots in the cache ``root``, as one kernel's work uses them; None boots always.

    ``notes`` says what somebody who reads the result should know.  A new snapshot is published by
    :meth:`publish`, once all that its guest ran on was found whole; :meth:`close` drops it.
    Used by one thread.
    """

    def __init__(self, root: Path | None) -> None:
        self.notes: list[str] = []
        self.used: list[Entry] = []
        self._root = root
        self._saved: list[tuple[Path, Path]] = []
        self._stack = ExitStack()

    def name_of(self, spec: MachineSpec) -> str:
        """What names the snapshot of ``spec``, whether it is there or not; "" when none can be."""
        return "" if self._root is None or unfit(spec.image, spec.root) else key_of(spec)

    def find(self, spec: MachineSpec) -> Snapshot | None:
        """The snapshot of ``spec``, whole as far as its stamps tell; None when there is none."""
        if self._root is None or unfit(spec.image, spec.root):
            return None
        entry = self._entry(self._root, spec)
        try:
            if not entry.place.is_dir():
                return None
            hold(entry.root, entry.lock)
            if not entry.place.is_dir():
                return None  # it was pruned meanwhile
            damage = entry.glance()
            if damage is not None:
                entry.take_away()
                self._note(f"{damage}: it was removed and the kernel was booted")
                return None
            snapshot = read(entry.place)
        except ForeignSnapshot as error:
            self.unused(error)
            return None
        except (SnapshotError, InfrastructureError, OSError) as error:
            self._drop(entry, str(error))
            return None
        if entry not in self.used:
            self.used.append(entry)
        return snapshot

    def unused(self, error: SnapshotError | ForeignSnapshot) -> None:
        """Note why a snapshot that may be good was not used."""
        self._note(f"the saved guest was not used ({error}): the kernel was booted")

    def drop(self, snapshot: Snapshot, why: str) -> None:
        """Take a snapshot away that does not start, and note ``why``.

        A damaged one stays in ``used``: what an earlier guest of it said does not count.
        """
        assert self._root is not None
        entry = Entry(self._root, KIND, snapshot.place)
        if entry.inspect() is None:
            self.used.remove(entry)
        self._drop(entry, why)

    def _drop(self, entry: Entry, why: str) -> None:
        self._note(f"the saved guest does not start ({why}): it was removed, the kernel was booted")
        with suppress(InfrastructureError, OSError), try_locked(entry.root, entry.lock) as ours:
            if ours:  # else another makes it anew by now
                put_aside(entry.root, entry.lock, entry.place)
                entry.forget()

    def place_for(self, spec: MachineSpec) -> Path | None:
        """An empty folder to save a guest of ``spec`` to; None when that cannot or need not be."""
        if self._root is None:
            return None
        if why := unfit(spec.image, spec.root):
            self._note(f"booted, and not saved for the next time: {why}")
            return None
        entry = self._entry(self._root, spec)
        try:
            if entry.place.exists():
                return None
            need = spec.memory_mib << 20
            require_space(entry.root, need, "saving a booted guest for the next time")
            with ExitStack() as stack:
                if not stack.enter_context(try_locked(entry.root, entry.lock)):
                    return None  # another is about to
                folder = stack.enter_context(scratch(entry.root, entry.lock))
                self._stack.push(stack.pop_all())
        except (InfrastructureError, OSError) as error:
            self.unsaved(error)
            return None
        return folder

    def saved(self, spec: MachineSpec, folder: Path) -> None:
        """A guest of ``spec`` is in ``folder``, which :meth:`place_for` gave."""
        assert self._root is not None
        self._saved.append((folder, self._entry(self._root, spec).place))

    def unsaved(self, error: VmtestError | OSError) -> None:
        """Note why a guest could not be saved."""
        words = os_words(error) if isinstance(error, OSError) else str(error)
        self._note(f"the booted guest could not be saved for the next time: {words}")

    def publish(self) -> None:
        """Have the next one find what was saved: the files that it ran on were whole."""
        roots = set()
        for folder, place in self._saved:
            try:
                seal(folder)
                keep_from_others(folder)
                publish(folder, place)
                Entry(place.parents[1], KIND, place).remember()
                roots.add(place.parents[1])
            except (InfrastructureError, OSError) as error:
                self.unsaved(error)
        self.close()
        for root in roots:  # without a lock of ours: two who remove wait for none of each other's
            try:
                _make_room(root, ROOM)
            except (InfrastructureError, OSError) as error:
                self.unsaved(error)

    def close(self) -> None:
        """Give up what was not published."""
        self._saved.clear()
        self._stack.close()

    def _entry(self, root: Path, spec: MachineSpec) -> Entry:
        return Entry(root, KIND, root / f"{KIND}s" / key_of(spec))

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _make_room(root: Path, room: int) -> None:
    """Remove the least recently used snapshots beyond ``room`` bytes, but none that is in use."""
    found = [
        (last_used(root, f"{KIND}-{place.name}") or place.stat().st_mtime, tree_size(place), place)
        for place in (root / f"{KIND}s").glob("*")
    ]
    left = sum(size for _, size, _ in found)
    for _, size, place in sorted(found):
        if left <= room:
            return
        if remove_unused(root, f"{KIND}-{place.name}", place):
            left -= size


@dataclass(frozen=True, slots=True)
class Started:
    """A guest with its session; ``warm`` when it goes on from a snapshot."""

    machine: Machine
    session: SshSession
    warm: bool


@contextmanager
def running_guest(
    spec: MachineSpec,
    snapshots: Snapshots,
    limit: float,
    factor: float,
    begun: Begun,
) -> Iterator[Started]:
    """A guest of ``spec``: restored where there is a snapshot, else booted and saved.

    ``limit`` is for a boot's seconds, ``factor`` the deadlines' on this machine.  Raises BootError,
    InfrastructureError when there can be no VM at all, and what ``begun`` raises.
    """
    wanted = _Wanted(spec, snapshots, limit, factor, begun)
    with ExitStack() as stack:
        yield _restored(wanted, stack) or _booted(wanted, stack)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What :func:`running_guest` was asked for."""

    spec: MachineSpec
    snapshots: Snapshots
    limit: float
    factor: float
    begun: Begun

    def connect(self, machine: Machine, stack: ExitStack, limit: float) -> SshSession:
        """The session of ``machine``, which has been entered on ``stack``."""
        self.begun(machine, stack)
        return machine.connect(limit, self.factor)


def _restored(wanted: _Wanted, stack: ExitStack) -> Started | None:
    snapshot = wanted.snapshots.find(wanted.spec)
    if snapshot is None:
        return None
    with ExitStack() as attempt:
        machine = Machine(wanted.spec, snapshot)
        limit = min(wanted.limit, RESTORE_LIMIT * wanted.factor)
        try:
            attempt.enter_context(machine)
        except SnapshotError as error:
            wanted.snapshots.unused(error)
            return None
        try:
            session = wanted.connect(machine, attempt, limit)
        except (BootError, ForeignSnapshot, SnapshotError) as error:
            if machine.cancelled:
                raise
            wanted.snapshots.drop(snapshot, str(error))
            return None
        stack.push(attempt.pop_all())
    return Started(machine, session, warm=True)


def _booted(wanted: _Wanted, stack: ExitStack) -> Started:
    spec, snapshots = wanted.spec, wanted.snapshots
    keep = snapshots.place_for(spec)
    if keep is not None:
        with ExitStack() as attempt:
            try:
                machine = attempt.enter_context(Machine(spec, keep=keep))
                session = wanted.connect(machine, attempt, wanted.limit)
            except SnapshotError as error:
                # It could not be started so, or did not go on: once more, without.
                snapshots.unsaved(error)
            else:
                if machine.unsaved is None:
                    snapshots.saved(spec, keep)
                else:
                    snapshots.unsaved(machine.unsaved)
                stack.push(attempt.pop_all())
                return Started(machine, session, warm=False)
    machine = stack.enter_context(Machine(spec))
    return Started(machine, wanted.connect(machine, stack, wanted.limit), warm=False)
