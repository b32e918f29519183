"""Standard output that nobody reads any more, as in ``vmtest report | head``."""

from __future__ import annotations

import os
import select
import sys

UNREAD = 141
"""The exit status then: what a shell gives a command that SIGPIPE ended.

0 would say that a run passed which nobody saw end, and 1 that tests failed.
"""


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
    except (OSError, ValueError):  # a full disk, or closed: Python says so
        return True
    return True


def give_up() -> None:
    """Let what is still to be printed go nowhere: Python would complain of it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
