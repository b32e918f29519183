"""A running VM: starts it, watches it, ends it.

``Machine`` is a context manager.  Entering starts the supervisor, which starts
``vng``; leaving ends both.  One thread a machine drains and scans the console
(a pipe that is never left unread, because QEMU blocks on a full one).
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import resource
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from vmtest.errors import (
    MORE_MEMORY,
    BootError,
    DeadlineExceeded,
    InfrastructureError,
    SessionLost,
    SessionRefused,
    VmtestError,
    os_words,
)
from vmtest.host.process import Supervised
from vmtest.host.virtme import find_vng, vng_environment
from vmtest.host.write import LimitedLog
from vmtest.kernels.kconfig import share_of
from vmtest.model.kernels import KernelImage, Network, RootImage
from vmtest.model.text import printable
from vmtest.vm import shared
from vmtest.vm.accel import Probe
from vmtest.vm.console import ConsoleLog, Finding, Sign
from vmtest.vm.folder import VmFolder, make_folder, remove_folder
from vmtest.vm.guest_code import GUEST_ROOT, guest_archive
from vmtest.vm.klog import KernelLog, merged
from vmtest.vm.memory import Memory
from vmtest.vm.qemu import drop_for
from vmtest.vm.qmp import Qmp, QmpError
from vmtest.vm.session import PATIENCE, Keys, SshSession
from vmtest.vm.snapshot import Snapshot, SnapshotError, fill, peer, prepare, resume, save, send
from vmtest.vm.vng import Hardware, agent_line, own_lines, vng_argv


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What to boot, on what, with how much; ``log`` is the console's file."""

    image: KernelImage
    root: RootImage
    probe: Probe
    log: Path
    memory_mib: int = 1024
    cpus: int = 1
    cmdline: Sequence[str] = field(default=())
    network: Network = Network.NONE

    def hardware(self, *, monitor: bool) -> Hardware:
        """What virtme-ng is told of it; with a ``monitor`` the guest can be saved."""
        return Hardware(
            accelerator=self.probe.accelerator,
            firmware=self.probe.firmware,
            memory_mib=self.memory_mib,
            cpus=self.cpus,
            cmdline=self.cmdline,
            network=self.network,
            share=share_of(self.image, self.root.kind),
            filesystem=self.root.filesystem,
            monitor=monitor,
            drop=drop_for(self.image, self.root).option,
        )


READY = b"ready"
"""What the guest says on the port when it can be saved; anything else is why it cannot."""
SSHD_ENDED = "vmtest: the SSH server of the guest ended"
"""What the guest says on its console when that happens before the host hangs up."""
START_LIMIT = 5.0
"""Seconds, times the deadlines' factor, for a QEMU with its sockets to have the rest: a hundredth
would do."""
SAVE_LIMIT = 20.0
"""Seconds, times the deadlines' factor, for QEMU to write a guest: a hundredth would do."""
FILE_LIMIT = 64 << 20
"""Bytes that a guest can have written to a file of the host, beside its console's log."""
FEWEST_FILES = 256
"""What the limit of open files has to be: a QEMU that runs out of them breaks the kernel in it."""
_OVER_LIMIT = "more than a file may have here; raise the limit of a file's size (ulimit -f)"
_MEMORY = 192
"""What the limit of this process's memory has to be, in MiB."""
_ENDS = "vmtest: the guest ends: "
"""How the line begins in which renew.py says why it ends the guest."""
_STARVED = re.compile(r"(?:qemu-system-\w+: |.*GLib-ERROR).*allocate")
"""The last words of QEMU, or of its library, where it gets no memory; a kernel has others."""
_SEED = 64  # bytes
_ANSWER = 200
_LAST_WORDS = 1.0  # seconds for a kernel that panicked to end its console


def _script(name: str) -> str:
    return (files("vmtest.vm") / name).read_text()


def _check_descriptors() -> None:
    """Raise InfrastructureError where QEMU may open too few files."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < FEWEST_FILES:
        raise InfrastructureError(
            f"a process may open {most} files here, and a VM can need {FEWEST_FILES}; raise the "
            "limit of open files (ulimit -n)"
        )


def _check_memory() -> None:
    """Raise InfrastructureError where a library may abort this process for want of memory."""
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if 0 <= most < _MEMORY << 20:
        raise InfrastructureError(
            f"vmtest may have {most >> 20} MiB of memory here, and needs {_MEMORY} to run a VM; "
            f"{MORE_MEMORY}"
        )


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


class Machine:
    """One VM, from start to end.

    With a ``snapshot`` it goes on from there, else the kernel boots; then its guest is
    saved to ``keep``, an empty folder, before it is told anything of this VM's own.

    Raises InfrastructureError when it cannot be started at all, and SnapshotError when
    it cannot with a guest that can be saved or was; everything later is told by ``connect``
    and ``check``.  ``log`` is the kernel's log, once somebody reads it; ``unsaved`` says why
    a guest that goes on was not saved.
    """

    def __init__(
        self, spec: MachineSpec, snapshot: Snapshot | None = None, keep: Path | None = None
    ) -> None:
        self.spec = spec
        self._snapshot = snapshot
        self._keep = keep
        self.unsaved: SnapshotError | None = None
        self.log: KernelLog | None = None
        self.started = time.monotonic()
        self.console = ConsoleLog(spec.log, self.hang_up)
        self._keys = Keys.make()
        self._stack = ExitStack()
        self._ended = threading.Event()
        self._cancelled = threading.Event()
        self._connection: socket.socket | None = None
        self._wire: socket.socket | None = None

    def __enter__(self) -> Self:
        _check_descriptors()
        _check_memory()
        with ExitStack() as stack:
            vng = find_vng()
            folder = make_folder(vng, self.spec.image, self.spec.root)
            stack.callback(remove_folder, folder.path)
            if share_of(self.spec.image, self.spec.root.kind) == "disk":
                shared.put_disks(self.spec.image, self.spec.root.filesystem, folder)
            self._folder = folder.path
            self._listener = stack.enter_context(_listen(folder.socket))
            self._wire_listener = stack.enter_context(_listen(folder.wire))
            if self._snapshot is not None or self._keep is not None:
                self._monitor = stack.enter_context(_listen(folder.monitor))
                self._put_memory(folder, stack)
            argv = self._command(vng, folder)
            self.started = time.monotonic()
            environment = vng_environment(os.environ, vng, folder.path)
            environment["PATH"] = f"{folder.programs}:{environment['PATH']}"
            python = os.environ.get("PYTHONPATH")
            environment["PYTHONPATH"] = f"{folder.packages}{f':{python}' if python else ''}"
            limit = self._file_limit()
            self._process = Supervised.start(argv, environment, folder.path, limit)
            stack.callback(self._process.close)
            stack.callback(self._close_connection)
            drain = threading.Thread(target=self._drain, name="console", daemon=True)
            drain.start()
            # Last in, first out: hang up, end the VM, then wait for its last words.
            stack.callback(drain.join, timeout=10)
            stack.callback(self._process.end)
            stack.callback(self.hang_up)
            self._stack = stack.pop_all()
        return self

    def _put_memory(self, folder: VmFolder, stack: ExitStack) -> None:
        """Have the guest's memory in its VM's folder; raises SnapshotError."""
        try:
            self._memory = Memory(self.spec.memory_mib << 20)
            stack.callback(self._memory.close)
            if why := self._memory.unreachable():
                raise SnapshotError(f"QEMU could not have its memory in a file: {why}")
            folder.memory.symlink_to(self._memory.path)
        except OSError as error:
            why = _OVER_LIMIT if error.errno == errno.EFBIG else os_words(error)
            what = f"its memory is a file of {self.spec.memory_mib} MiB"
            raise SnapshotError(f"{what}: {why}") from error

    def _file_limit(self) -> int:
        """Bytes of a file that QEMU writes: one of virtme-ng's ports ends in a file of the host."""
        shared_memory = share_of(self.spec.image, self.spec.root.kind) == "virtiofs"
        return FILE_LIMIT + (self.spec.memory_mib << 20 if shared_memory else 0)

    def _command(self, vng: Path, folder: VmFolder) -> list[str]:
        if self._snapshot is not None:
            return prepare(self._snapshot, folder.path)
        return vng_argv(vng, folder, self.spec.hardware(monitor=self._keep is not None))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _drain(self) -> None:
        log: BinaryIO | None = None
        with suppress(OSError):  # a full disk must stop neither the guest nor the scan
            log = LimitedLog(self.console.path)
        while data := os.read(self._process.descriptor, 1 << 16):
            if log is not None:
                with suppress(OSError):
                    log.write(data)
            self.console.feed(data)
        if log is not None:
            log.close()
        self.console.close()
        self._ended.set()
        self.hang_up()

    def hang_up(self) -> None:
        """End the connection, so that everybody who waits on it wakes at once."""
        connection = self._connection
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _close_connection(self) -> None:
        for connection in (self._connection, self._wire):
            if connection is not None:
                connection.close()

    def hand_over(self, spec: MachineSpec) -> None:
        """Have what runs since a while be the machine of ``spec``, which differs by its log alone.

        Raises OSError when the console's file cannot be moved there.
        """
        self.spec.log.rename(spec.log)
        self.spec = spec
        self.console.path = spec.log
        self.started = time.monotonic()

    def cancel(self) -> None:
        """End the VM from another thread; whoever waits for it gets SessionLost."""
        self._cancelled.set()
        self._process.let_go()
        self.hang_up()

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled.is_set()

    @property
    def running(self) -> bool:
        """Whether the VM still runs (as far as its console says)."""
        return not self._ended.is_set()

    def connect(self, limit: float, factor: float = 1.0) -> SshSession:
        """Wait for the guest's SSH server, ``limit`` seconds from the start of the VM.

        Raises BootError, with the console's reason, when the guest panics, QEMU
        ends or the limit passes, and SnapshotError when it stands still behind a failed save.
        """
        deadline = self.started + limit
        try:
            if self._snapshot is not None:
                fill(self._snapshot, self._memory)  # while QEMU starts
            self._connection = self._accept(self._listener, deadline)
            self._wire = self._accept(self._wire_listener, deadline)
            if self._snapshot is not None:
                self._go_on(self._snapshot, deadline)
            elif self._keep is None:
                self._prepare(self._connection, deadline)
            else:
                # Saving is not part of the boot's time.
                deadline += self._prepare_and_save(self._keep, self._connection, deadline, factor)
            self._connection.sendall(self._own())
            return self._authenticate(deadline, PATIENCE * factor)
        except (SessionLost, DeadlineExceeded, OSError, QmpError) as error:
            raise self._boot_error(limit, factor, error) from error

    def _prepare(self, connection: socket.socket, deadline: float) -> None:
        """Have the guest do all that is not this VM's own."""
        keep = "" if self._keep is None else "yes"
        prepared, code = {"NETWORK": self.spec.network, "KEEP": keep}, b""
        if self._keep is not None:
            prepared["PYTHON"] = self.spec.root.python
            prepared["RENEW"] = _script("renew.py")
            prepared["STANDBY"] = _script("standby.py")
            prepared["WARM_KEY"] = Keys.make().host_private.decode()
            code = gzip.compress(guest_archive(), 6, mtime=0)
            prepared["CODE"], prepared["SIZE"] = GUEST_ROOT, str(len(code))
        self._send(connection, agent_line(_script("agent.sh"), prepared) + code, deadline)

    def _send(self, connection: socket.socket, data: bytes, deadline: float) -> None:
        """Send what may be more than a guest takes that hangs; raises DeadlineExceeded."""
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            connection.sendall(data)
        except TimeoutError as error:
            raise DeadlineExceeded("no SSH session", "boot") from error
        finally:
            connection.settimeout(None)

    def _prepare_and_save(
        self, keep: Path, connection: socket.socket, deadline: float, factor: float
    ) -> float:
        """Have the guest prepared and saved; returns the seconds that saving took.

        Raises SnapshotError when QEMU does not start so, or the guest does not go on.
        """
        with self._monitored(factor) as (qmp, pid):
            self._prepare(connection, deadline)
            return self._save(qmp, pid, keep, connection, deadline)

    @contextmanager
    def _monitored(self, factor: float) -> Iterator[tuple[Qmp, int]]:
        """QEMU's monitor, and its process; raises SnapshotError when it does not start.

        It greets when it has its guest's memory: one in a sandbox may see no /proc of ours.
        """
        limit = START_LIMIT * factor
        try:
            monitor = self._accept(self._monitor, time.monotonic() + limit)
        except (SessionLost, DeadlineExceeded) as error:
            raise self._unstarted(error) from error
        with monitor:
            try:
                qmp = Qmp(monitor, limit)
            except QmpError as error:
                raise self._unstarted(error) from error
            qmp.limit = SAVE_LIMIT * factor
            yield qmp, peer(monitor)

    def _unstarted(self, error: VmtestError) -> VmtestError:
        if self.cancelled:
            return SessionLost("cancelled")
        return SnapshotError(f"QEMU does not start with its guest's memory in a file: {error}")

    def _save(
        self, qmp: Qmp, pid: int, keep: Path, connection: socket.socket, deadline: float
    ) -> float:
        """Save the guest, unless something speaks against it; returns the seconds it took.

        Raises SnapshotError when the guest does not go on.
        """
        self._await(connection, deadline)
        answer = connection.recv(_ANSWER).strip()
        began = time.monotonic()
        try:
            if answer != READY:
                raise SnapshotError(printable(answer.decode(errors="replace")), running=True)
            if complaints := self.console.findings(Sign.SPLAT):
                text = f'its kernel complained while it booted: "{complaints[0].text}"'
                raise SnapshotError(text, running=True)
            save(qmp, pid, self._folder, self._memory, keep)
        except SnapshotError as error:
            if not error.running:
                raise
            self.unsaved = error
        return time.monotonic() - began

    def _go_on(self, snapshot: Snapshot, deadline: float) -> None:
        """Give QEMU the guest of ``snapshot``, and have it run."""
        with self._accept(self._monitor, deadline) as monitor:
            qmp = Qmp(monitor, max(1.0, deadline - time.monotonic()))
            send(snapshot, qmp)
            resume(qmp)

    def _own(self) -> bytes:
        """What makes the guest this VM's, and differ from another of the same snapshot."""
        how = "booted" if self._snapshot is None else "restored"
        seed = secrets.token_hex(_SEED)
        return own_lines(time.time(), seed, how, self._keys)

    def _accept(self, listener: socket.socket, deadline: float) -> socket.socket:
        self._await(listener, deadline)
        return listener.accept()[0]

    def _await(self, readable: socket.socket, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(readable, selectors.EVENT_READ)
            while not selector.select(timeout=0.1):
                self._watch_boot(deadline)

    def _authenticate(self, deadline: float, patience: float) -> SshSession:
        # QEMU connects at once; the guest's banner is what says that it is up.
        connection = self._connection
        assert connection is not None
        self._await(connection, deadline)
        left = max(1.0, deadline - time.monotonic())
        return SshSession.open(connection, self._keys, left, patience, self._wire)

    def _watch_boot(self, deadline: float) -> None:
        if self._cancelled.is_set():
            raise SessionLost("cancelled")
        if not self.running:
            raise SessionLost("QEMU ended")
        if time.monotonic() > deadline:
            raise DeadlineExceeded("no SSH session", "boot")

    def _boot_error(self, limit: float, factor: float, error: Exception) -> BootError:
        if not isinstance(error, SessionRefused | DeadlineExceeded):
            self._settle()
        seconds = time.monotonic() - self.started
        scale = f", deadlines x{factor:.1f}" if factor != 1.0 else ""
        where = f"{self.spec.probe.accelerator}, limit {limit:.0f} s{scale}"
        panic = self.console.panic
        last = self.console.tail[-1] if self.console.tail else "the console stayed empty"
        if panic is not None:
            what = f'kernel panicked {panic.seconds:.1f} s after start ({where}): "{panic.text}"'
        elif isinstance(error, SessionRefused):
            what = f"{error} ({where})"
        elif not self.running:
            # Behind what our own part of a guest says comes the kernel's word of its end.
            last = next((line for line in self.console.tail if line.startswith(_ENDS)), last)
            what = f'QEMU ended {seconds:.1f} s after start ({where}): "{last}"'
            if _STARVED.match(last):
                what = f"{what}; {MORE_MEMORY}"
        elif isinstance(error, DeadlineExceeded):
            what = (
                f'no SSH session {seconds:.1f} s after start ({where}); last console line: "{last}"'
            )
        else:
            what = f"no SSH session ({where}): {error}"
        return BootError(f"{self.spec.image.name}: {what}; see {self.spec.log}")

    def _settle(self) -> None:
        """After a break, give the console the moment it needs to say why."""
        deadline = time.monotonic() + 1.0
        while self.running and self.console.panic is None and time.monotonic() < deadline:
            self._ended.wait(0.05)

    def findings(self, sign: Sign) -> tuple[Finding, ...]:
        """What console and kernel's log say of ``sign`` so far, oldest first, each once."""
        return merged(
            self.console.findings(sign), () if self.log is None else self.log.findings(sign)
        )

    def cause_of_death(self) -> str:
        """Why the session broke, as far as the console tells; waits a second for its word."""
        self._settle()
        panic = self.console.panic
        if panic is not None:
            self._ended.wait(_LAST_WORDS)  # its call trace comes behind it
            return f'kernel panicked: "{panic.text}"'
        if SSHD_ENDED in self.console.tail:
            return "the guest's SSH server (sshd) ended: something in the guest killed it"
        return "QEMU ended" if not self.running else "the guest closed the SSH connection"
