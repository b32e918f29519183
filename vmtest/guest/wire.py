"""The guest's end of the line to the host: JSON lines out, single bytes back."""

from __future__ import annotations

import json
import os
import time
from typing import Any

_HOST_GONE = 3
_MOST_HELD = 1 << 20  # bytes
_LONGEST_HELD = 0.5  # seconds


class Wire:
    """Two descriptors: lines to the host, single-byte answers from it."""

    def __init__(self, lines: int, answers: int) -> None:
        self._lines = lines
        self._answers = answers
        self._held: list[bytes] = []
        self._size = 0
        self._sent = 0.0

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

    def send(self, event: str, **fields: Any) -> None:
        """Write one event, and those held before it; blocks while the host does not read."""
        self._add(event, fields)
        self._write()

    def hold(self, event: str, **fields: Any) -> None:
        """Have one event written together with the next one sent: waking the host costs time.

        Not for longer than half a second, or until there is a megabyte, as far as anybody calls.
        """
        self._add(event, fields)
        if self._size > _MOST_HELD or time.monotonic() - self._sent > _LONGEST_HELD:
            self._write()

    def _add(self, event: str, fields: dict[str, Any]) -> None:
        line = (json.dumps({"event": event, **fields}) + "\n").encode()
        self._held.append(line)
        self._size += len(line)

    def _write(self) -> None:
        data = b"".join(self._held)
        self._held.clear()
        self._size = 0
        while data:
            data = data[os.write(self._lines, data) :]
        self._sent = time.monotonic()

    def wait(self) -> None:
        """Block until the host has answered; ends this process when the host is gone."""
        if not os.read(self._answers, 1):
            os._exit(_HOST_GONE)
