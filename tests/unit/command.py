"""Running the real command, mostly in a process of its own, and what its errors keep to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, chdir
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import forks
from typer.testing import CliRunner

from vmtest.cli.main import app

MOST_LINES = 15


@dataclass(frozen=True)
class Said:
    """What a command ended with."""

    status: int
    out: str
    err: str

    def refuses(self, status: int, *parts: str) -> None:
        """Assert an error: its status, no traceback, short, with every one of ``parts``."""
        assert self.status == status, self
        assert "Traceback" not in self.out + self.err, self.err
        assert len(self.err.splitlines()) <= MOST_LINES, self.err
        for part in parts:
            assert part in self.err, f"{part!r} is not in:\n{self.err}"


def vmtest(
    *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None, timeout: float = 300
) -> Said:
    """Run ``vmtest`` with ``arguments`` in ``cwd``; raises TimeoutError after ``timeout`` s.

    The process is forked from one that has imported the command, because importing
    takes longer than most commands do.
    """
    asked = {
        "arguments": arguments,
        "cwd": str(cwd),
        "environment": {**os.environ, "COLUMNS": "120", **(environment or {})},
    }
    calls, _ = _server()
    with ExitStack() as stack:
        ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        stack.enter_context(ours)
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        streams = [stack.enter_context(os.fdopen(end, "rb")) for end in (out, err)]
        handed = [theirs.fileno(), out_end, err_end]
        try:
            socket.send_fds(calls, [b"\0"], handed)
        finally:
            theirs.close()
            os.close(out_end)
            os.close(err_end)
        ours.sendall(json.dumps(asked).encode())
        pid = int(ours.recv(16))
        with ThreadPoolExecutor(2) as pool:
            read = [pool.submit(stream.read) for stream in streams]
            ours.settimeout(timeout)
            try:
                status = int(ours.recv(16))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
            texts = [got.result().decode() for got in read]
    return Said(status, *texts)


def in_process(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> Said:
    """As ``vmtest``, in this process: for usage errors, of which no process is the claim."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    variables = {"COLUMNS": "120", **(environment or {})}
    try:
        with chdir(cwd):
            done = CliRunner().invoke(app, list(arguments), env=variables, prog_name="vmtest")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


@cache
def _server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A process that forks for each call, and where it takes a call's descriptors."""
    ours, theirs = socket.socketpair()
    # It ends by itself when this end of the socket goes with this process.
    process = subprocess.Popen(
        [sys.executable, forks.__file__, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    theirs.close()
    return ours, process
