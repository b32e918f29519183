"""The guest's end of the line to the host: JSON lines out, single bytes back."""

from __future__ import annotations

import json
import os
from typing import Any

_HOST_GONE = 3


class Wire:
    """Two descriptors: lines to the host, single-byte answers from it."""

    def __init__(self, lines: int, answers: int) -> None:
        self._lines = lines
        self._answers = answers
        self._held = b""

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
        self.hold(event, **fields)
        data, self._held = self._held, b""
        while data:
            data = data[os.write(self._lines, data) :]

    def hold(self, event: str, **fields: Any) -> None:
        """Have one event written together with the next one sent: waking the host costs time."""
        self._held += (json.dumps({"event": event, **fields}) + "\n").encode()

    def wait(self) -> None:
        """Block until the host has answered; ends this process when the host is gone."""
        if not os.read(self._answers, 1):
            os._exit(_HOST_GONE)
