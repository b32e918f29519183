"""A running VM: starts it, watches it, ends it.

``Machine`` is a context manager.  Entering starts the supervisor, which starts
``vng``; leaving ends both.  One thread a machine drains and scans the console
(a pipe that is never left unread, because QEMU blocks on a full one).
"""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from vmtest.errors import BootError, DeadlineExceeded, SessionLost, SessionRefused
from vmtest.host.process import Supervised
from vmtest.host.virtme import find_vng, vng_environment
from vmtest.kernels.kconfig import share_of
from vmtest.model.kernels import KernelImage, Network, RootImage
from vmtest.vm.accel import Probe
from vmtest.vm.console import ConsoleLog, Finding, Sign
from vmtest.vm.folder import make_folder
from vmtest.vm.klog import KernelLog, merged
from vmtest.vm.session import PATIENCE, Keys, SshSession
from vmtest.vm.vng import agent_line, vng_argv


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


class Machine:
    """One VM, from start to end.

    Raises InfrastructureError when it cannot be started at all; everything
    later is told by ``connect`` and ``check``.  ``log`` is the kernel's log, once
    somebody reads it.
    """

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        self.log: KernelLog | None = None
        self.started = time.monotonic()
        self.console = ConsoleLog(spec.log, self.hang_up)
        self._keys = Keys.make()
        self._stack = ExitStack()
        self._ended = threading.Event()
        self._cancelled = threading.Event()
        self._connection: socket.socket | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            vng = find_vng()
            folder = make_folder(vng, self.spec.image, self.spec.root)
            stack.callback(shutil.rmtree, folder.path, ignore_errors=True)
            self._listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            self._listener.bind(str(folder.socket))
            self._listener.listen(1)
            argv = vng_argv(
                vng,
                folder,
                accelerator=self.spec.probe.accelerator,
                firmware=self.spec.probe.firmware,
                memory_mib=self.spec.memory_mib,
                cpus=self.spec.cpus,
                cmdline=self.spec.cmdline,
                network=self.spec.network,
                share=share_of(self.spec.image),
            )
            self.started = time.monotonic()
            environment = vng_environment(os.environ, vng, folder.path)
            python = os.environ.get("PYTHONPATH")
            environment["PYTHONPATH"] = f"{folder.packages}{f':{python}' if python else ''}"
            self._process = Supervised.start(argv, environment, folder.path)
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
            log = self.console.path.open("wb", buffering=0)
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
        if self._connection is not None:
            self._connection.close()

    def cancel(self) -> None:
        """End the VM from another thread; whoever waits for it gets SessionLost."""
        self._cancelled.set()
        self._process.let_go()
        self.hang_up()

    @property
    def running(self) -> bool:
        """Whether the VM still runs (as far as its console says)."""
        return not self._ended.is_set()

    def connect(self, limit: float, factor: float = 1.0) -> SshSession:
        """Wait for the guest's SSH server, ``limit`` seconds from the start of the VM.

        Raises BootError, with the console's reason, when the guest panics, QEMU
        ends or the limit passes.
        """
        deadline = self.started + limit
        try:
            self._connection = self._accept(deadline)
            agent = (files("vmtest.vm") / "agent.sh").read_text()
            self._connection.sendall(agent_line(agent, self._agent_variables()))
            return self._authenticate(deadline, PATIENCE * factor)
        except (SessionLost, DeadlineExceeded, OSError) as error:
            raise self._boot_error(limit, factor, error) from error

    def _agent_variables(self) -> dict[str, str]:
        return {**self._keys.variables(), "NETWORK": self.spec.network}

    def _accept(self, deadline: float) -> socket.socket:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not selector.select(timeout=0.1):
                self._watch_boot(deadline)
        return self._listener.accept()[0]

    def _authenticate(self, deadline: float, patience: float) -> SshSession:
        # QEMU connects at once; the guest's banner is what says that it is up.
        connection = self._connection
        assert connection is not None
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            while not selector.select(timeout=0.1):
                self._watch_boot(deadline)
        left = max(1.0, deadline - time.monotonic())
        return SshSession.open(connection, self._keys, left, patience)

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
            what = f'QEMU ended {seconds:.1f} s after start ({where}): "{last}"'
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
            return f'kernel panicked: "{panic.text}"'
        return "QEMU ended" if not self.running else "the guest closed the SSH connection"
