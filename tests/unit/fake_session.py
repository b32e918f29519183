"""A ``Session`` that runs commands on this host: what is above SSH can be tested for real."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from vmtest.vm.session import Check, Completed


class HostStream:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        assert process.stdin and process.stdout and process.stderr
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._open = {process.stdout.fileno(), process.stderr.fileno()}

    def send(self, data: bytes) -> None:
        with suppress(BrokenPipeError):
            os.write(self._stdin.fileno(), data)

    def end_input(self) -> None:
        self._stdin.close()

    def receive(self, timeout: float) -> tuple[bytes, bytes] | None:
        if not self._open:
            self._process.wait()
            return None
        ready, _, _ = select.select(list(self._open), [], [], timeout)
        got = {}
        for descriptor in ready:
            got[descriptor] = os.read(descriptor, 1 << 16)
            if not got[descriptor]:
                self._open.discard(descriptor)
        return got.get(self._stdout.fileno(), b""), got.get(self._stderr.fileno(), b"")

    def exited(self) -> bool:
        return self._process.poll() is not None

    def status(self) -> int:
        code = self._process.poll()
        return -1 if code is None else max(code, -1)


class HostSession:
    """``moved`` maps the beginnings of guest paths to folders here."""

    def __init__(self, moved: Mapping[str, Path]) -> None:
        self._moved = moved
        self.streams: list[subprocess.Popen[bytes]] = []

    def _here(self, text: str) -> str:
        for there, here in self._moved.items():
            text = text.replace(there, str(here))
        return text

    def stream(self, argv: Sequence[str], *, wire: bool = False) -> HostStream:
        process = subprocess.Popen(
            [self._here(part) for part in argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.streams.append(process)
        return HostStream(process)

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", check: Check | None = None
    ) -> Completed:
        done = subprocess.run(
            [self._here(part) for part in argv], input=stdin, capture_output=True, check=False
        )
        return Completed(done.returncode, done.stdout, done.stderr)

    def put(self, data: bytes, remote: str) -> None:
        Path(self._here(remote)).write_bytes(data)

    def get(self, remote: str) -> bytes:
        return Path(self._here(remote)).read_bytes()

    def close(self) -> None:
        for process in self.streams:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                assert stream is not None
                stream.close()
