"""A booted guest on disk: what QEMU writes of it, and the command that goes on with it.

A snapshot is a folder with the guest's ``memory`` (:mod:`vmtest.vm.memory`), its ``devices``
(QEMU's migration stream), the files that QEMU had inherited as descriptors (``fd-N``: the
initramfs), and ``machine.json`` with the command line of the QEMU that was saved.  That is taken
from the running process and never guessed; only the VM's folder in it is exchanged for the new one.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vmtest.errors import VmtestError, os_words
from vmtest.host.cache import read_record, write_record
from vmtest.vm.memory import Memory, Part
from vmtest.vm.qmp import Qmp, QmpError

MEMORY = "memory"
DEVICES = "devices"
MACHINE = "machine.json"
_SCHEMA = 2
_UNLIMITED = 1 << 50  # bytes a second; QEMU's default is 128 MiB/s
_BLOCK = 1 << 20
# 0, 1 and 2 are there in every QEMU: the supervisor gives them.
_DESCRIPTOR = re.compile(r"/proc/self/fd/(\d+)")
_STANDARD = 2
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_STREAM = "stream"
_CAPABILITIES = [{"capability": name, "state": True} for name in ("events", "x-ignore-shared")]
"""The second leaves memory out that QEMU shares: QEMU 4.0 and later."""


class ForeignSnapshot(VmtestError):
    """A snapshot is another user's: what it names is not run, and it is not ours to remove."""


class SnapshotError(VmtestError):
    """A guest could not be saved or its snapshot cannot be used.

    ``running``: the guest that was to be saved goes on all the same.
    """

    def __init__(self, message: str, *, running: bool = False) -> None:
        super().__init__(message)
        self.running = running


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A guest in ``place``: QEMU ran ``argv`` in the VM's ``folder``, ``saved`` at (epoch).

    It had ``size`` bytes of memory, of which ``parts`` are kept.
    """

    place: Path
    folder: str
    argv: tuple[str, ...]
    saved: float
    size: int
    parts: tuple[Part, ...]

    @property
    def memory(self) -> Path:
        """The parts of its memory, one behind the other."""
        return self.place / MEMORY

    @property
    def devices(self) -> Path:
        """QEMU's migration stream."""
        return self.place / DEVICES


def inherited(argv: Sequence[str]) -> tuple[int, ...]:
    """The descriptors beyond the standard ones that ``argv`` names."""
    numbers = {int(number) for word in argv for number in _DESCRIPTOR.findall(word)}
    return tuple(sorted(number for number in numbers if number > _STANDARD))


def rewritten(argv: Sequence[str], old: str, new: str) -> list[str]:
    """``argv`` of a QEMU in the folder ``old``, for one in ``new`` that waits for a snapshot.

    The files of inherited descriptors are ``fd-N`` in the folder.
    """

    def named(found: re.Match[str]) -> str:
        number = int(found[1])
        return found[0] if number <= _STANDARD else f"{new}/fd-{number}"

    words = [_DESCRIPTOR.sub(named, word.replace(old, new)) for word in argv]
    return [*words, "-incoming", "defer"]


def read(place: Path) -> Snapshot:
    """The snapshot in ``place``; raises SnapshotError when it is not one.

    What it names is run as this user, and a cache may be shared: raises ForeignSnapshot for
    another user's.
    """
    try:
        for name in (MEMORY, DEVICES):
            with (place / name).open("rb") as file:
                check_owner(file)
        with (place / MACHINE).open("rb") as file:
            check_owner(file)
            value = read_record(Path(f"/proc/self/fd/{file.fileno()}"))
    except OSError as error:
        raise SnapshotError(f"{place}: {os_words(error)}") from error
    try:
        if value is None or value["schema"] != _SCHEMA:
            raise SnapshotError(f"{place}: {MACHINE} cannot be read")
        argv = tuple(str(word) for word in value["argv"])
        parts = tuple((int(start), int(length)) for start, length in value["parts"])
        found = Snapshot(
            place, str(value["folder"]), argv, float(value["saved"]), int(value["size"]), parts
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SnapshotError(f"{place}: {MACHINE} lacks {error}") from error
    if not found.argv or not found.folder.startswith("/"):
        raise SnapshotError(f"{place}: {MACHINE} names no command")
    if not all(0 <= start < start + length <= found.size for start, length in parts):
        raise SnapshotError(f"{place}: {MACHINE} has parts outside of the memory")
    return found


def check_owner(file: IO[bytes]) -> None:
    """Raise ForeignSnapshot for an open ``file`` of another user, who is not root.

    Raises SnapshotError for one that others may write to.
    """
    status = os.fstat(file.fileno())
    if status.st_uid not in (0, os.geteuid()):
        raise ForeignSnapshot(f"{file.name} belongs to another user (number {status.st_uid})")
    if status.st_mode & _OTHERS_WRITE:
        raise SnapshotError(f"other users may write to {file.name}")


def keep_from_others(place: Path) -> None:
    """Have nobody else write to the files in ``place``, whatever the umask; raises OSError."""
    for file in place.iterdir():
        file.chmod(stat.S_IMODE(file.stat().st_mode) & ~_OTHERS_WRITE)


def peer(connection: socket.socket) -> int:
    """The process at the other end of a unix socket."""
    size = struct.calcsize("3i")  # struct ucred: pid, uid, gid
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid: int = struct.unpack("3i", found)[0]
    return pid


def save(qmp: Qmp, pid: int, folder: Path, memory: Memory, to: Path) -> None:
    """Write the guest of the QEMU at ``qmp`` to the empty folder ``to``; then it goes on.

    ``pid`` is QEMU's process, ``folder`` the VM's own and ``memory`` its guest's.  QEMU may write
    for as long as it may leave a command unanswered.  Raises SnapshotError.
    """
    problem: QmpError | OSError | None = None
    try:
        argv = _argv(pid)
        for number in inherited(argv):
            _copy_descriptor(pid, number, to / f"fd-{number}")
        qmp.execute("stop")
        _write_devices(qmp, to / DEVICES)
        with (to / MEMORY).open("xb") as file:
            parts = memory.write_to(file)
        saved = {"folder": str(folder), "argv": argv, "saved": time.time()}
        kept = {"size": memory.size, "parts": parts}
        write_record(to / MACHINE, {"schema": _SCHEMA, **saved, **kept})
    except (QmpError, OSError) as error:
        problem = error
    try:
        qmp.execute("cont")
    except QmpError as error:
        raise SnapshotError(f"QEMU does not go on after a guest was saved: {error}") from error
    if problem is not None:
        words = os_words(problem) if isinstance(problem, OSError) else str(problem)
        raise SnapshotError(f"QEMU could not save it: {words}", running=True) from problem


def _argv(pid: int) -> list[str]:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    argv = [os.fsdecode(word) for word in words]
    with suppress(PermissionError):  # as below; virtme-ng starts it by its path
        argv[0] = str(Path(f"/proc/{pid}/exe").readlink())
    return argv


def _copy_descriptor(pid: int, number: int, to: Path) -> None:
    """Copy the file that the process ``pid`` has open as ``number``; raises OSError.

    A process that gave up root shows its files only to who may trace it (CAP_SYS_PTRACE, which
    a container's root lacks).  Its parent, virtme-ng, gave them to it and has them open too.
    """
    try:
        shutil.copyfile(f"/proc/{pid}/fd/{number}", to)
    except PermissionError:
        shutil.copyfile(f"/proc/{_parent(pid)}/fd/{number}", to)


def _parent(pid: int) -> int:
    state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2]
    return int(state.split()[1])


def _write_devices(qmp: Qmp, file: Path) -> None:
    """Raises QmpError, and OSError when it is the ``file`` that cannot be written.

    QEMU gets a socket and no path: the user that it became may enter no folder of ours.
    """
    with _connected(qmp) as ours:
        failed: list[OSError] = []
        writer = threading.Thread(target=_copy, args=(ours, file, qmp.limit, failed), daemon=True)
        writer.start()
        problem: QmpError | None = None
        try:
            qmp.execute("migrate-set-capabilities", {"capabilities": _CAPABILITIES})
            qmp.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED})
            qmp.execute("migrate", {"uri": f"fd:{_STREAM}"})
            _migrated(qmp)
        except QmpError as error:
            problem = error
            with suppress(OSError):  # what was written is worth nothing
                ours.shutdown(socket.SHUT_RDWR)
        writer.join(qmp.limit)
    if failed:  # the writer knows better than QEMU
        raise failed[0]
    if problem is not None:
        raise problem
    if writer.is_alive():
        raise QmpError("migrate: QEMU does not close what it wrote")


def _connected(qmp: Qmp) -> socket.socket:
    """Our end of a connection whose other end QEMU knows as its stream."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            qmp.execute("getfd", {"fdname": _STREAM}, [theirs.fileno()])
    except BaseException:
        ours.close()
        raise
    return ours


def _migrated(qmp: Qmp) -> None:
    """Wait for the end of what QEMU calls a migration; raises QmpError when it fails."""
    while (status := qmp.wait("MIGRATION", qmp.limit).get("status")) != "completed":
        if status in ("failed", "cancelled"):
            why = qmp.execute("query-migrate").get("error-desc", status)
            raise QmpError(f"migrate: {why}")


def _copy(connection: socket.socket, file: Path, limit: float, failed: list[OSError]) -> None:
    """Write what comes from ``connection`` to ``file``."""
    try:
        with file.open("xb", buffering=0) as output:
            connection.settimeout(limit)
            block = memoryview(bytearray(_BLOCK))
            while count := connection.recv_into(block):
                output.write(block[:count])
    except OSError as error:
        failed.append(error)
        with suppress(OSError):  # QEMU would wait for a reader
            connection.shutdown(socket.SHUT_RDWR)


def prepare(snapshot: Snapshot, folder: Path) -> list[str]:
    """Have in the VM's ``folder`` what QEMU needs for ``snapshot``; returns its command."""
    for number in inherited(snapshot.argv):
        (folder / f"fd-{number}").symlink_to(snapshot.place / f"fd-{number}")
    return rewritten(snapshot.argv, snapshot.folder, str(folder))


def fill(snapshot: Snapshot, memory: Memory) -> None:
    """Give ``memory`` what the guest of ``snapshot`` had in it; raises OSError.

    A guest believes what it finds there: raises what :func:`check_owner` raises.
    """
    with snapshot.memory.open("rb") as file:
        check_owner(file)
        memory.read_from(file, snapshot.parts)


def send(snapshot: Snapshot, qmp: Qmp) -> None:
    """Give the QEMU at ``qmp`` the devices of ``snapshot``; its memory has to be there.

    QEMU believes what it reads there: raises what :func:`check_owner` raises.  Raises OSError and
    QmpError when QEMU does not take them within the seconds of a command.
    """
    with snapshot.devices.open("rb") as devices, _connected(qmp) as ours:
        check_owner(devices)
        qmp.execute("migrate-set-capabilities", {"capabilities": _CAPABILITIES})
        qmp.execute("migrate-incoming", {"uri": f"fd:{_STREAM}"})
        ours.settimeout(qmp.limit)
        ours.sendfile(devices)
    _migrated(qmp)


def resume(qmp: Qmp) -> None:
    """Have the guest run that was sent; raises QmpError when it does not.

    QEMU takes a ``cont`` that comes while it still takes the guest in, and leaves it paused all the
    same: :func:`send` waits until QEMU says that it has (migration/migration.c,
    process_incoming_migration_bh()).
    """
    qmp.execute("cont")
    status = qmp.execute("query-status")
    if not status.get("running"):
        raise QmpError(f"cont: the guest does not go on ({status.get('status')})")
