"""Standard output and error that nobody reads any more, that are full, or that are closed."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Any

UNREAD = 141
"""The exit status then: what a shell gives a command that SIGPIPE ended.

0 would say that a run passed which nobody saw end, and 1 that tests failed.
"""


class _Stream(io.TextIOWrapper):
    """Loses what it cannot write, as on a full disk, and remembers why.

    An exception would end a run for a line of its output, and Python would end with a status of
    its own: 1, which says that tests failed, or 120, which tells git that a commit is bad.
    Only standard output whose reader has gone is an exception still: nobody wants the rest.
    """

    lost: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError) and self is sys.stdout:
            raise error
        self.lost = error


def guard() -> None:
    """Have no full or closed standard stream change how this process ends."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The next file that is opened would have that number, and be written over; also in
            # the programs that this one starts.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = _guarded(sys.stdout, 1)
    sys.stderr = _guarded(sys.stderr, 2)


def _guarded(stream: Any, descriptor: int) -> _Stream:
    """A stream of ``descriptor``, as Python's own, which is None where that was closed."""
    at_once = stream is not None and stream.write_through
    return _Stream(
        os.fdopen(descriptor, "wb", 0 if at_once else -1, closefd=False),
        stream.encoding if stream else "utf-8",
        stream.errors if stream else "backslashreplace",
        line_buffering=bool(stream and stream.line_buffering),
        write_through=at_once,
    )


def lost() -> OSError | None:
    """Why a part of what was printed on standard output is lost."""
    return sys.stdout.lost if isinstance(sys.stdout, _Stream) else None


def is_unread() -> bool:
    """Whether standard output is a pipe whose reader has gone."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # closed, or no file
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def arrived() -> bool:
    """Whether somebody still reads what was printed; Python itself would ask only after its end."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return False
    except ValueError:  # closed
        return True
    return True


def give_up() -> None:
    """Let what is still to be printed go nowhere: Python would complain of it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
