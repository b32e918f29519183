"""Follow a running command to its end, within its limits: what suites and commands share."""

from __future__ import annotations

import time
from collections.abc import Callable

from vmtest.errors import DeadlineExceeded
from vmtest.model.kernels import Limits
from vmtest.vm.session import Check, Stream

AFTERMATH = 3.0
"""Seconds that a command's output may stay open and silent after the command's end."""


def follow(
    stream: Stream,
    take: Callable[[bytes, bytes], None],
    limits: Limits,
    check: Check,
    last_console: Callable[[], float],
    ended: Callable[[], bool],
) -> int:
    """Hand what comes on ``stream`` to ``take`` (stdout, stderr) until its end.

    Returns the exit status (-1 when a signal or its children's open streams left
    it unknown).  ``limits`` are real seconds; ``last_console`` says when the
    console last spoke (time.monotonic()), ``ended`` whether the command has
    ended, though a child of it may still hold the stream open.  Raises
    DeadlineExceeded, SessionLost and whatever ``check`` and ``take`` raise.
    """
    started = last_output = time.monotonic()
    while (got := stream.receive(0.2)) is not None:
        now = time.monotonic()
        if any(got):
            last_output = now
            take(*got)
        check()
        if ended() and now - last_output > AFTERMATH:
            break
        quiet = now - max(last_output, last_console())
        if now - started > limits.total:
            raise DeadlineExceeded(f"total deadline of {limits.total:.0f} s passed", "total")
        if quiet > limits.silence:
            raise DeadlineExceeded(f"silence deadline of {limits.silence:.0f} s passed", "silence")
    return stream.status()
