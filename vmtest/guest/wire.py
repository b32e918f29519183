# SPDX-License-Identifier: MIT
"""The guest's end of the line to the host: JSON lines out, single bytes back."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, NoReturn

WIRE_GONE = 94
"""Exit status of a process that cannot tell the host anything any more: its line was closed."""

PORT = "vmtest.wire"
"""Name of the virtio-serial port that a guest has for it."""
PORTS, DEVICES = "/sys/class/virtio-ports", "/dev/"
"""Where the kernel lists a guest's ports, and where their devices are."""

_HOST_GONE = 3
_MOST_HELD = 1 << 20  # bytes
_LONGEST_HELD = 0.5  # seconds


def _spelled(error: UnicodeError) -> tuple[str, int]:
    r"""A lone surrogate is not a character, nor JSON: it goes out as the six letters ``\udc80``."""
    assert isinstance(error, UnicodeEncodeError)
    lone = error.object[error.start : error.end]
    return "".join(f"\\\\u{ord(letter):04x}" for letter in lone), error.end


codecs.register_error("vmtest-spelled", _spelled)


class Wire:
    """Two descriptors: lines to the host, single-byte answers from it.

    They belong to the process that said ``hello`` on them.  Each of its lines has a key that only
    it knows, so that the host tells them from what somebody else writes there.
    """

    def __init__(self, lines: int, answers: int) -> None:
        self._lines = lines
        self._answers = answers
        self._files = {number: _file(number) for number in (lines, answers)}
        self._owner = os.getpid()
        self._key = os.urandom(8).hex()
        self._held: list[bytes] = []
        self._size = 0
        self._sent = 0.0

    @classmethod
    def on_port(cls) -> Wire:
        """On the port that is there for it, else on the standard streams.

        An event on the port does not have to pass an SSH server, which takes an emulated processor
        milliseconds.  Whatever is printed from now on goes to standard error.
        """
        wire = cls.on_standard_streams()
        port = _port()
        return wire if port is None else cls(lines=port, answers=port)

    @classmethod
    def on_standard_streams(cls) -> Wire:
        """Takes standard input and output for itself.

        Whatever else is printed from now on goes to standard error.
        """
        wire = cls(lines=os.dup(1), answers=os.dup(0))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        return wire

    def hello(self, **fields: Any) -> None:
        """Take the wire for this process: its first event, after which only it may write."""
        self._owner = os.getpid()
        self._key = os.urandom(8).hex()
        self.send("hello", pid=self._owner, **fields)

    @property
    def mine(self) -> bool:
        """Whether this process owns the wire; a forked child of its owner does not."""
        return os.getpid() == self._owner

    def leave(self, status: int, what: str) -> NoReturn:
        """End this process, a child of the owner, before it does its parent's work once more."""
        _end(
            status,
            f"{what} in a forked child (process {os.getpid()}): it was ended there; "
            "end a forked child with os._exit()",
        )

    def send(self, event: str, **fields: Any) -> None:
        """Write one event, and those held before it; blocks while the host does not read."""
        self._add(event, fields)
        self._write()

    def flush(self) -> None:
        """Write what is held."""
        if self._held:
            self._write()

    def hold(self, event: str, **fields: Any) -> None:
        """Have one event written together with the next one sent: waking the host costs time.

        Not for longer than half a second, or until there is a megabyte, as far as anybody calls.
        """
        self._add(event, fields)
        if self._size > _MOST_HELD or time.monotonic() - self._sent > _LONGEST_HELD:
            self._write()

    def _add(self, event: str, fields: dict[str, Any]) -> None:
        text = json.dumps({"event": event, "key": self._key, **fields}, ensure_ascii=False)
        line = (text + "\n").encode("utf-8", "vmtest-spelled")
        self._held.append(line)
        self._size += len(line)

    def _write(self) -> None:
        data = b"".join(self._held)
        self._held.clear()
        self._size = 0
        self._check(self._lines)
        while data:
            try:
                data = data[os.write(self._lines, data) :]
            except BlockingIOError:
                os.set_blocking(self._lines, True)
            except BrokenPipeError:
                os._exit(_HOST_GONE)
        self._sent = time.monotonic()

    def wait(self) -> None:
        """Block until the host has answered; ends this process when the host is gone."""
        self._check(self._answers)
        while True:
            try:
                answer = os.read(self._answers, 1)
            except BlockingIOError:
                os.set_blocking(self._answers, True)
                continue
            if not answer:
                os._exit(_HOST_GONE)
            return

    def _check(self, number: int) -> None:
        """Nothing is written to, or read from, what somebody else has opened in our place."""
        if not self.mine:
            self.leave(WIRE_GONE, "something was to be told to the host")
        if _file(number) != self._files[number]:
            _end(
                WIRE_GONE,
                f"file descriptor {number}, the line to the host, was closed or replaced; "
                "close only descriptors that the test itself has opened",
            )


def _port() -> int | None:
    """The port of the wire, opened; None where there is none, or another process has it open."""
    for place in Path(PORTS).glob("*"):
        with contextlib.suppress(OSError):
            if (place / "name").read_text(encoding="ascii").strip() == PORT:
                return os.open(DEVICES + place.name, os.O_RDWR | os.O_CLOEXEC)
    return None


def _file(number: int) -> tuple[int, int] | None:
    """What is open as descriptor ``number``, None for nothing."""
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _end(status: int, why: str) -> NoReturn:
    """End this process at once: no handler of its parent's runs, no buffer is written twice."""
    with contextlib.suppress(OSError):
        os.write(2, f"vmtest: {why}\n".encode("utf-8", "backslashreplace"))
    os._exit(status)
