"""The hosts of ``--on ssh:HOST,HOST``: a connection to each, and what is forwarded over it.

Each is one process of the system's ``ssh``, which knows the user's configuration, keys and jump
hosts.  It runs a worker there, and its standard input is what that lives by.  Scheduler and worker
reach each other through ports that it forwards, so nothing listens on a network.
"""

from __future__ import annotations

import os
import queue
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from vmtest.cluster.hello import SILENCE, Begin, Hello, Install, differences, installed
from vmtest.cluster.host import LOOPBACK
from vmtest.cluster.place import COMMAND, Place, SshHost
from vmtest.cluster.secret import Secret
from vmtest.errors import InfrastructureError, Interrupted, UsageError, os_words
from vmtest.host import interrupt, reaper
from vmtest.host.plain import plain_folder
from vmtest.host.sessions import SESSIONS
from vmtest.matrix.slots import room
from vmtest.model.kernels import Kernel

_T = TypeVar("_T")

PROGRAM = "VMTEST_SSH"
"""The variable with the command that is run in the place of ``ssh``."""
ANSWER = 60.0
"""Seconds for a host to answer with what is installed there."""
_END = 25.0  # seconds for a host to end all of its own
_GRACE = 1.0
_FORWARD = 30.0
_TRIES = 5
_NOT_FOUND, _SSH_FAILED = 127, 255
# `pip install --user` and pipx put commands into a folder that only a login adds to PATH.
_REMOTE = f"sh -c 'PATH=$PATH:$HOME/.local/bin; exec vmtest {COMMAND}'"
_OPTIONS = {
    "BatchMode": "yes",  # several hosts would ask for passwords at once
    "ConnectTimeout": "15",
    "ServerAliveInterval": "15",
    "ServerAliveCountMax": "3",
    "ControlMaster": "yes",
    "ControlPersist": "no",
    "ClearAllForwardings": "yes",  # the user's own are for a terminal, and may be taken
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "StdinNull": "no",
    "ForkAfterAuthentication": "no",
}


class Host:
    """A host and the connection to it."""

    def __init__(self, where: SshHost, socket_: Path) -> None:
        self.name = where.name
        self._vms = where.vms
        self._socket = socket_
        self._address = where.name.translate({ord("["): None, ord("]"): None})
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: deque[str] = deque(maxlen=20)
        self._readers: list[threading.Thread] = []
        self._writing = threading.Lock()
        self._hello: Hello | None = None

    # --- before anything is built ---------------------------------------------------------

    def connect(self, here: Install) -> None:
        """Reach it, and compare what is installed there; raises UsageError, Interrupted."""
        argv = [*_program(), "-M", "-S", str(self._socket), "-T"]
        for name, value in _OPTIONS.items():
            argv += ["-o", f"{name}={value}"]
        try:
            self._process = process = SESSIONS.popen(
                [*argv, "--", self._address, _REMOTE],  # Ctrl-C is this process's alone
                _GRACE,
                self._socket.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise UsageError(
                f"cannot start {argv[0]}: {os_words(error)}; install the package openssh-client"
            ) from error
        assert process.stdout is not None and process.stderr is not None
        self._read(process.stdout, self._lines.put)
        self._read(process.stderr, self._take_error)
        self._hello = hello = self._answer(process)
        found = list(differences(hello.install, here))
        if found:
            raise UsageError(f"host {self.name}: {'; '.join(found)}")

    def _read(self, stream: IO[bytes], take: Callable[[str | None], None]) -> None:
        def read() -> None:
            with suppress(OSError, ValueError):
                for line in stream:
                    take(line.decode(errors="replace").strip())
            take(None)

        self._readers.append(threading.Thread(target=read, daemon=True))
        self._readers[-1].start()

    def _take_error(self, line: str | None) -> None:
        if line:
            self._errors.append(line)

    def _answer(self, process: subprocess.Popen[bytes]) -> Hello:
        end = time.monotonic() + ANSWER
        line: str | None = ""
        with interrupt.current().ending(lambda: self._lines.put(None)):
            while line is not None:
                with suppress(queue.Empty):
                    line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
                    if line is not None and (hello := Hello.read(line)) is not None:
                        return hello
                if time.monotonic() > end:
                    raise UsageError(f"host {self.name}: no answer within {ANSWER:.0f} s")
        for reader in self._readers:
            reader.join(_GRACE)
        try:
            status = process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            status = _SSH_FAILED
        raise UsageError(f"host {self.name}: {_refusal(self.name, status, self.words())}")

    def words(self) -> str:
        """The last that ssh or the host said on standard error."""
        return self._errors[-1] if self._errors else "nothing"

    # --- the worker -----------------------------------------------------------------------

    def begin(self, scheduler: int, kernels: Sequence[Kernel], secret: Secret) -> int:
        """Have its worker join the ``scheduler`` on that port; returns how many VMs it may run.

        Raises InfrastructureError.
        """
        assert self._hello is not None
        there = self._forward("-R", f"{LOOPBACK}:0:{LOOPBACK}:{scheduler}")
        if not there.isdecimal():
            raise self._no_forwarding(there)
        contact = self._forward_worker(self._hello.port)
        vms = self._vms or room(kernels, self._hello.cpus, self._hello.memory_mib)
        begin = Begin(int(there), contact, vms, self.name, secret)
        if not self._write(f"{begin.line()}\n"):
            raise InfrastructureError(f"host {self.name}: {self.gone()}")
        return vms

    def _forward_worker(self, port: int) -> int:
        """A port of this machine behind which is the worker's."""
        for _ in range(_TRIES):
            with socket.socket() as free:
                free.bind((LOOPBACK, 0))
                number: int = free.getsockname()[1]
            try:  # somebody else may take it meanwhile
                self._forward("-L", f"{LOOPBACK}:{number}:{LOOPBACK}:{port}")
            except InfrastructureError as error:
                last = error
                continue
            return number
        raise last

    def _forward(self, *option: str) -> str:
        # Of the user's configuration, ssh would add what that forwards.
        argv = [*_program(), "-F", os.devnull, "-S", str(self._socket), "-O", "forward", *option]
        try:
            done = interrupt.run([*argv, "--", self._address], timeout=_FORWARD)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._no_forwarding(str(error)) from error
        if done.returncode:
            raise self._no_forwarding((done.stderr.strip() or self.words()).splitlines()[-1])
        return done.stdout.strip()

    def _no_forwarding(self, why: str) -> InfrastructureError:
        return InfrastructureError(
            f"host {self.name}: no port could be forwarded: {why}; its sshd needs "
            "AllowTcpForwarding yes"
        )

    def ping(self) -> None:
        """Say that this process is there."""
        self._write("\n")

    def _write(self, text: str) -> bool:
        with self._writing:
            process = self._process
            if process is None or process.stdin is None or process.stdin.closed:
                return False
            try:
                process.stdin.write(text.encode())
                process.stdin.flush()
            except OSError:
                return False
            return True

    def gone(self) -> str:
        """Why this host has no worker; "" while its connection stands."""
        process = self._process
        if process is None or process.poll() is None:
            return ""
        return f"its connection ended ({self.words()})"

    def let_go(self) -> None:
        """Have it end all that it runs; does not wait."""
        process = self._process
        if process is not None and process.stdin is not None:
            with self._writing, suppress(OSError):
                process.stdin.close()

    def close(self) -> None:
        """Wait until it has ended all, and the connection with it."""
        process = self._process
        if process is None:
            return
        self.let_go()
        try:
            process.wait(_END if self._hello is not None else _GRACE)
        except subprocess.TimeoutExpired:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
        reaper.end(process.pid)
        process.wait()
        SESSIONS.remove(process.pid)
        for reader in self._readers:
            reader.join(_GRACE)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()


def _program() -> list[str]:
    return shlex.split(os.environ.get(PROGRAM, "")) or ["ssh"]


def _refusal(name: str, status: int, words: str) -> str:
    """Why a host did not say hello, and the cure."""
    if status == _NOT_FOUND:
        return (
            f"it has no vmtest ({words}); install it there with "
            "pip install '/path/to/vmtest[dask]', and have a link to it in ~/.local/bin or "
            "/usr/local/bin"
        )
    if status == _SSH_FAILED:
        return f"ssh does not reach it: {words}; have this work without a question: ssh {name} true"
    if "No such command" in words:
        return "it has another vmtest, which cannot be a worker by SSH; install the same there"
    return f"its vmtest ended with status {status}: {words}; try: ssh {name} vmtest doctor"


class Hosts:
    """All hosts of a place, reached and compared."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = hosts

    def begin(self, scheduler: int, kernels: Sequence[Kernel], secret: Secret) -> int:
        """Have each host's worker join; returns how many VMs they may run in all."""
        return sum(_each(self._hosts, lambda host: host.begin(scheduler, kernels, secret)))

    def gone(self) -> str:
        """Which hosts are lost, and why; "" while all are there."""
        return "; ".join(f"host {host.name}: {why}" for host in self._hosts if (why := host.gone()))


@contextmanager
def reached(place: Place) -> Iterator[Hosts]:
    """The hosts of ``place``, which end with this all that they run.

    Raises UsageError that names every host which cannot be used, and why; Interrupted.
    """
    folder = plain_folder("vmtest-")
    hosts = [Host(where, folder / str(number)) for number, where in enumerate(place.hosts)]
    over = threading.Event()

    def ping() -> None:
        while not over.wait(SILENCE / 6):
            for host in hosts:
                host.ping()

    pinging = threading.Thread(target=ping, name="ssh-ping", daemon=True)
    pinging.start()
    try:
        here = installed()
        _each(hosts, lambda host: host.connect(here))
        yield Hosts(hosts)
    finally:
        over.set()
        for host in hosts:
            host.let_go()
        with suppress(Interrupted):
            _each(hosts, Host.close)
        shutil.rmtree(folder, ignore_errors=True)


def _each(hosts: Sequence[Host], do: Callable[[Host], _T]) -> list[_T]:
    """``do`` for all of them at once; raises what went wrong on any, as one error."""
    with ThreadPoolExecutor(len(hosts), thread_name_prefix="ssh") as pool:
        futures = [pool.submit(do, host) for host in hosts]
    errors = [error for future in futures if (error := future.exception()) is not None]
    told = [error for error in errors if isinstance(error, UsageError | InfrastructureError)]
    if len(told) > 1 and len(told) == len(errors):
        raise type(told[0])("\n".join(dict.fromkeys(str(error) for error in told)))
    for error in errors:
        if error not in told:
            raise error
    return [future.result() for future in futures]
