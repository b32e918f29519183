"""Follow a running command to its end, within its limits: what suites and commands share."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vmtest.errors import DeadlineExceeded
from vmtest.model.kernels import Limits
from vmtest.vm.console import Finding
from vmtest.vm.session import Check, Stream

_KILLED = 128  # a shell's status for a signal's end is this and the signal's number
AFTERMATH = 3.0
"""Seconds that a command's output may stay open and silent after the command's end, on a fast host.

A slow host has longer limits, and as much longer to say what it had to say."""
_AFTERMATH_OF_SILENCE = AFTERMATH / 60


@dataclass(frozen=True, slots=True)
class Kernelside:
    """What the guest's kernel says beside a command.

    ``spoke`` is when the console last did (time.monotonic()), ``stalls`` the complaints so far,
    oldest first, which say that the kernel does not go on.
    """

    spoke: Callable[[], float] = lambda: 0.0
    stalls: Callable[[], Sequence[Finding]] = tuple


def follow(
    stream: Stream,
    take: Callable[[bytes, bytes], None],
    limits: Limits,
    check: Check,
    kernel: Kernelside,
) -> int:
    """Hand what comes on ``stream`` to ``take`` (stdout, stderr) until its end.

    Returns the exit status (-1 when a signal or its children's open streams left
    it unknown).  ``limits`` are real seconds.  A command that has ended is not waited for long,
    though a child of it may still hold the stream open.  Raises DeadlineExceeded, SessionLost and
    whatever ``check`` and ``take`` raise.

    A kernel that stalls repeats its complaint, so the console is never silent: what counts
    then is the command's own silence since the first complaint.
    """
    started = last_output = time.monotonic()
    patience = aftermath(limits)
    while (got := stream.receive(0.2)) is not None:
        now = time.monotonic()
        if any(got):
            last_output = now
            take(*got)
        check()
        if stream.exited() and now - last_output > patience:
            break
        quiet = now - max(last_output, kernel.spoke())
        if now - started > limits.total:
            raise DeadlineExceeded(f"total deadline of {limits.total:.0f} s passed", "total")
        if quiet > limits.silence:
            raise DeadlineExceeded(f"silence deadline of {limits.silence:.0f} s passed", "silence")
        if now - last_output > limits.stall:
            _look_for_stall(kernel, last_output, now, limits.stall)
    return stream.status()


def aftermath(limits: Limits) -> float:
    """AFTERMATH on the host that has these limits, which are real seconds."""
    return max(AFTERMATH, _AFTERMATH_OF_SILENCE * limits.silence)


def _look_for_stall(kernel: Kernelside, last_output: float, now: float, limit: float) -> None:
    """Raise DeadlineExceeded when ``limit`` passed since a stall that the command did not survive.

    What it printed after a complaint shows that it went on.
    """
    first = next((stall for stall in kernel.stalls() if stall.heard > last_output), None)
    if first is not None and now - first.heard > limit:
        what = f'no output for {limit:.0f} s after the kernel stalled: "{first.text}"'
        raise DeadlineExceeded(what, "stall")


def status_words(status: int | None) -> str:
    """``exit status 139 (SIGSEGV)``, ``no exit status`` where it is not known or below zero."""
    if status is None or status < 0:
        return "no exit status"
    name = signal_of(status)
    return f"exit status {status} ({name})" if name else f"exit status {status}"


def signal_of(status: int) -> str:
    """The signal that a shell's exit status tells of, "" for none."""
    try:
        return signal.Signals(status - _KILLED).name if status > _KILLED else ""
    except ValueError:
        return ""
