# SPDX-License-Identifier: MIT
"""The kernel's messages as they come, for whoever wants to know which came meanwhile."""

from __future__ import annotations

import os

LIMIT = 64 * 1024
"""Bytes kept of what came between two looks, from the end."""

_LONGEST = 8192  # bytes: no record is longer (CONSOLE_EXT_LOG_MAX, kernel/printk)
_MOST = 100_000  # records of one look: a kernel that goes on meanwhile must not hold us up


class KernelMessages:
    """A place in /dev/kmsg, at first behind all that is there.  It never waits.

    ``seen`` is the kernel's time, in microseconds, of the last message that was read; 0 where
    none could be.  A test may close or replace the descriptor: then nothing more is read.
    """

    def __init__(self, path: str = "/dev/kmsg") -> None:
        self.seen = 0
        self._file = -1
        self._own = (0, 0)
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            status = os.fstat(self._file)
            self._own = status.st_dev, status.st_ino
        except OSError:
            return  # no such file, or not for us
        self.new()

    def new(self) -> str:
        """The records since the last look, a line each, as /dev/kmsg has them."""
        lines: list[bytes] = []
        size = 0
        for _ in range(_MOST):
            line = self._record()
            if line is None:
                break
            lines.append(line)
            size += len(line) + 1
            while size > LIMIT:
                size -= len(lines.pop(0)) + 1
        return b"\n".join(lines).decode("ascii", "replace")

    def _record(self) -> bytes | None:
        """The next record without the lines that belong to it, None where none has come."""
        while self._is_ours():
            try:
                record = os.read(self._file, _LONGEST)
            except BrokenPipeError:
                continue  # overwritten: the next read goes on with the oldest that is left
            except OSError:
                return None
            line = record.partition(b"\n")[0]
            head = line.split(b",", 3)
            if len(head) < 4 or not head[2].isdigit():
                return None
            self.seen = max(self.seen, int(head[2]))
            return line
        return None

    def _is_ours(self) -> bool:
        """Whether the descriptor is the one that was opened here, and reading it does not wait."""
        try:
            status = os.fstat(self._file)
            return (status.st_dev, status.st_ino) == self._own and not os.get_blocking(self._file)
        except OSError:
            return False
