"""Hosts for ``--on ssh:``: an sshd each here, with a key, a PATH and a cache of its own."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dask_workers import environment

from tests import sshd

SSHD = sshd.find()
needs_sshd = pytest.mark.skipif(
    SSHD is None, reason="there is no sshd; fetch one with: tox -e setup"
)
_MARK = "VMTEST_TESTS_HOST"
"""The variable that the processes of a host have."""
SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/../key.pub
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
LogLevel VERBOSE
{more}
SetEnv {settings}
"""
CLIENT = """
Host {name}
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/../key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  StrictHostKeyChecking yes
"""


def _key(path: Path) -> None:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a test", "-f", str(path)]
    subprocess.run(argv, check=True)


def _free() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@dataclass
class Hosts:
    """Hosts by their names; ``ssh`` is the command that knows them."""

    folder: Path
    servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def ssh(self) -> str:
        """For VMTEST_SSH."""
        return f"ssh -F {self.folder / 'config'}"

    def start(
        self,
        name: str,
        cache: Path,
        environ: Mapping[str, str] | None = None,
        more: str = "",
        vmtest: str | None = f"{sys.executable} -m vmtest",
    ) -> None:
        """Start one; ``vmtest`` is its command of that name, None for none at all."""
        folder = self.folder / name
        port = self.ports[name] = _free()
        (folder / "bin").mkdir(parents=True)
        (folder / "tmp").mkdir()
        _key(folder / "host")
        if vmtest is not None:
            command = folder / "bin" / "vmtest"
            command.write_text(f'#!/bin/sh\nexec {vmtest} "$@"\n')
            command.chmod(0o755)
        settings = {
            "PATH": f"{folder}/bin:{os.environ['PATH']}" if vmtest else "/usr/bin:/bin",
            "HOME": str(folder),
            "TMPDIR": str(folder / "tmp"),
            "VMTEST_CACHE": str(cache),
            "PYTHONPATH": environment(cache)["PYTHONPATH"],
            _MARK: str(self.folder),
            **(environ or {}),
        }
        words = " ".join(f'"{key}={value}"' for key, value in settings.items())
        assert SSHD is not None
        more = "\n".join((*SSHD.settings, more))
        (folder / "sshd_config").write_text(
            SERVER.format(port=port, folder=folder, settings=words, more=more)
        )
        user = pwd.getpwuid(os.getuid()).pw_name
        with (self.folder / "config").open("a") as config:
            config.write(CLIENT.format(name=name, port=port, user=user, folder=folder))
        public = " ".join((folder / "host.pub").read_text().split()[:2])
        (folder / "known").write_text(f"[127.0.0.1]:{port} {public}\n")
        self.servers[name] = SSHD.start(folder / "sshd_config", folder / "log")
        while not _answers(port):
            assert self.servers[name].poll() is None, (folder / "log").read_text()
            time.sleep(0.02)

    def processes(self) -> list[str]:
        """What runs on the hosts for their users: the command lines, by the hosts' environment."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environ = (place / "environ").read_bytes()
                if f"{_MARK}={self.folder}".encode() in environ:
                    line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if line:
                        found.append(line)
        return found

    def cut(self, name: str) -> None:
        """Lose the connections of one: what serves each ends, as a cable would end it."""
        children = Path(f"/proc/{self.servers[name].pid}/task/{self.servers[name].pid}/children")
        for child in children.read_text().split():
            os.kill(int(child), 9)

    def end(self) -> None:
        """End all."""
        for server in self.servers.values():
            server.kill()
            server.wait()


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


@contextmanager
def hosts(folder: Path) -> Iterator[Hosts]:
    """No host yet; they end with this."""
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # as its package's service does
    folder.mkdir()
    _key(folder / "key")
    found = Hosts(folder)
    try:
        yield found
    finally:
        found.end()
