"""The guest's console: captured always, scanned while it runs.

``classify`` is pure; ``ConsoleLog`` is fed by the machine's reading thread and
read by everybody else.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

TAIL = 30
"""How many of the last lines are kept for reports."""

_TIMESTAMP = re.compile(r"^(?:<\d+>)?\[\s*\d+\.\d+\](?:\[\s*[TC]?\d+\])?\s?")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>c]|[\x00-\x08\x0b-\x1f\x7f]")


class Sign(StrEnum):
    """What a console line can mean."""

    PANIC = "panic"
    SPLAT = "splat"
    OUT_OF_MEMORY = "out of memory"


# In order: the first pattern that matches names the sign.
_SIGNS: tuple[tuple[Sign, re.Pattern[str]], ...] = tuple(
    (sign, re.compile(pattern))
    for sign, pattern in (
        (Sign.PANIC, r"^Kernel panic - not syncing"),
        (Sign.OUT_OF_MEMORY, r"^(Out of memory: Killed process|Memory cgroup out of memory)"),
        (Sign.SPLAT, r"^BUG: "),
        (Sign.SPLAT, r"^WARNING: (?!.*(is deprecated|unsafe option))"),
        (Sign.SPLAT, r"^(Oops|general protection fault|kernel BUG at|divide error|invalid opcode)"),
        (Sign.SPLAT, r"^(watchdog: )?BUG: (soft|hard) lockup"),
        (Sign.SPLAT, r"^(rcu: )?INFO: rcu\S* (self-)?detected (expedited )?stall"),
        (Sign.SPLAT, r"^INFO: task .* blocked for more than"),
        (Sign.SPLAT, r"^(UBSAN|KASAN|KCSAN|KMSAN): "),
        (Sign.SPLAT, r"^=+ .*(possible (recursive|circular) locking|suspicious RCU usage)"),
    )
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A line that matters: what it means, its text, seconds since the machine started."""

    sign: Sign
    text: str
    seconds: float


def clean(line: str) -> str:
    """``line`` without terminal escapes and control characters."""
    return _ESCAPES.sub("", line).rstrip()


def classify(line: str) -> Sign | None:
    """What one console line means, None for nothing special.

    Only lines that begin with the kernel's own words count, after a printk
    time stamp: a test that prints ``WARNING:`` to its own output is no splat.
    """
    match = _TIMESTAMP.match(line)
    if match is None:
        return None
    text = line[match.end() :]
    return next((sign for sign, pattern in _SIGNS if pattern.search(text)), None)


def message(line: str) -> str:
    """``line`` without its time stamp."""
    return _TIMESTAMP.sub("", line)


class ConsoleLog:
    """Everything the console said, on disk, with the last lines and findings at hand.

    Thread-safe for one writer and many readers.  ``on_panic`` is called from the
    writer's thread at the first panic line.
    """

    def __init__(self, path: Path, on_panic: Callable[[], None]) -> None:
        self.path = path
        self._on_panic = on_panic
        self._lock = threading.Lock()
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._findings: list[Finding] = []
        self._rest = b""
        self._started = self.last_activity = time.monotonic()

    def feed(self, data: bytes) -> None:
        """Take what the console wrote; ``data`` may end within a line."""
        self.last_activity = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for raw in lines:
            self._line(raw)

    def close(self) -> None:
        """Take the last, unfinished line as a line."""
        if self._rest:
            self._line(self._rest)
            self._rest = b""

    def _line(self, raw: bytes) -> None:
        line = clean(raw.decode(errors="replace"))
        sign = classify(line)
        with self._lock:
            if line:
                self._tail.append(line)
            if sign is None:
                return
            seconds = time.monotonic() - self._started
            first_panic = sign is Sign.PANIC and not self._of(Sign.PANIC)
            self._findings.append(Finding(sign, message(line), seconds))
        if first_panic:
            self._on_panic()

    def _of(self, sign: Sign) -> list[Finding]:
        return [finding for finding in self._findings if finding.sign is sign]

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        with self._lock:
            return tuple(self._tail)

    def findings(self, sign: Sign) -> list[Finding]:
        """All findings of ``sign`` so far, oldest first."""
        with self._lock:
            return self._of(sign)

    @property
    def panic(self) -> Finding | None:
        """The first panic, None while there is none."""
        found = self.findings(Sign.PANIC)
        return found[0] if found else None
