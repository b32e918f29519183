"""The guest's console: captured always, scanned while it runs.

``classify`` and ``Lines`` are pure; ``ConsoleLog`` is fed by the machine's reading
thread and read by everybody else.  What the kernel's messages mean is said here
for the kernel's log (``vmtest.vm.klog``) as well.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from vmtest.model.splats import (
    continues,
    fingerprint,
    has_place,
    names_kernel_thread,
    place_in,
)

TAIL = 30
"""How many of the last lines are kept for reports."""

STORY = 120
"""How many lines are kept of what a kernel says of a panic, its first complaint and registers."""

LONGEST_MESSAGE = 2048
"""Characters of a message of the kernel's that are looked at: it makes no longer ones
(PRINTK_MESSAGE_MAX, kernel/printk/internal.h), but root in a guest does."""

MOST_FINDINGS = 1000
"""Findings of one sign that are kept: a kernel that floods shall not fill our memory."""

_LONGEST = 1 << 16
"""Bytes after which a line without an end is taken as one."""
_OVERLAP = 1 << 10
_LONGEST_SHOWN = 1000
_CUT = "[ cut here ]"
_BEFORE = 10  # lines in front of a panic that no complaint came before
_LINES_BEHIND = 300
"""Lines behind a complaint in which its function is looked for: lockdep is verbose."""

_STAMP = r"\[\s*(\d+\.{decimals})\](?:\[\s*[TC]?\d+\])?\s?"
_TIMESTAMP = re.compile(r"^(?:<\d+>)?" + _STAMP.format(decimals=r"\d+"))
# Behind what a process wrote without a line break: there only as printk writes it.
_LATER_TIMESTAMP = re.compile(_STAMP.format(decimals=r"\d{6}"))
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>c]|[\x00-\x08\x0b-\x1f\x7f]")
# Whole, or cut off by the end of what is there.
_MAY_BE_STAMP = re.compile(rb"\[ *\d*(?:\.|$)")


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
        (Sign.SPLAT, r"^BUG(: | \S+ \()"),
        (Sign.SPLAT, r"^WARNING: (?!.*(is deprecated|unsafe option))"),
        (Sign.SPLAT, r"^(Oops|general protection fault|kernel BUG at|divide error|invalid opcode)"),
        (Sign.SPLAT, r"^[\w ,-]{1,60}: [0-9a-f]{4} \[#\d+\]"),  # die(), whatever the trap
        # Linux 6.17 says which CPU first, and 7.2 what a task is blocked in.
        (
            Sign.SPLAT,
            r"^(NMI )?watchdog: (CPU\d+: )?(BUG: (soft|hard) lockup|Watchdog detected hard LOCKUP)",
        ),
        (Sign.SPLAT, r"^(rcu: )?INFO: rcu\S* (self-)?detected (expedited )?stall"),
        (Sign.SPLAT, r"^INFO: task .* blocked\b.* for more than"),
        (Sign.SPLAT, r"^(UBSAN|KASAN|KCSAN|KMSAN): "),
        (Sign.SPLAT, r"^=+ .*(possible (recursive|circular) locking|suspicious RCU usage)"),
    )
)
# Most messages mean nothing: one look is enough.
_ANY_SIGN = re.compile("|".join(pattern.pattern for _, pattern in _SIGNS))


@dataclass(frozen=True, slots=True)
class Finding:
    """A message that matters: what it means, its text, seconds since the machine started.

    ``stamp`` is the kernel's own time as it prints it (``10.876474``): the same on the
    console and in the kernel's log.  ``place`` is the function of a complaint, with its module,
    where the lines behind it say so (``vmtest.model.splats``).  ``test`` ran when it came, ""
    where that is not known.  ``heard`` is when it came (time.monotonic()).  ``kernel_thread``: it
    is about a task of the kernel's own, and no process.
    """

    sign: Sign
    text: str
    seconds: float
    stamp: str = ""
    place: str = ""
    test: str = ""
    heard: float = field(default=0.0, compare=False)
    kernel_thread: bool = field(default=False, compare=False)

    @property
    def fingerprint(self) -> str:
        """What a complaint is on whatever kernel."""
        return fingerprint(self.text, self.place)


class Findings:
    """What was found in a log, by its sign, oldest first; the first thousand of each."""

    def __init__(self) -> None:
        self._of: dict[Sign, list[Finding]] = {sign: [] for sign in Sign}
        self._waiting: list[int] = []  # complaints whose place the next lines may tell
        self._left = 0

    def add(self, finding: Finding) -> None:
        """Keep ``finding``."""
        found = self._of[finding.sign]
        if len(found) >= MOST_FINDINGS:
            return
        if finding.sign is Sign.SPLAT:
            if not (found and continues(finding.text, found[-1].text)):
                self._waiting.clear()
            if not has_place(finding.text):
                self._waiting.append(len(found))
            self._left = _LINES_BEHIND
        found.append(finding)

    def behind(self, text: str) -> None:
        """Take a line of the kernel's that is no finding: it may tell more of the last one."""
        if not self._left:
            return
        self._left -= 1
        splats = self._of[Sign.SPLAT]
        if names_kernel_thread(text):
            splats[-1] = replace(splats[-1], kernel_thread=True)
        place = place_in(text)
        if place:
            for number in self._waiting:
                splats[number] = replace(splats[number], place=place)
            self._left = 0
        if not self._left:
            self._waiting.clear()

    def of(self, sign: Sign) -> list[Finding]:
        """All of ``sign`` so far."""
        return list(self._of[sign])


def clean(line: str) -> str:
    """``line`` without terminal escapes and control characters."""
    return _ESCAPES.sub("", line).rstrip()


def sign_of(text: str) -> Sign | None:
    """What a message of the kernel's, without its time stamp, means; None for nothing special."""
    if _ANY_SIGN.match(text) is None:
        return None
    return next(sign for sign, pattern in _SIGNS if pattern.match(text))


def _stamps(line: str) -> Iterator[re.Match[str]]:
    """The time stamps in ``line`` behind which the kernel may speak."""
    first = _TIMESTAMP.match(line)
    if first is not None:
        yield first
    yield from _LATER_TIMESTAMP.finditer(line, 0 if first is None else first.end())


def _messages(line: str) -> Iterator[tuple[str, str, str]]:
    """What the kernel says in ``line``: the stamp, its text, and all from there on.

    A message ends where the next begins, so each character is looked at once.
    """
    for stamp, after in pairwise([*_stamps(line), None]):
        assert stamp is not None
        longest = stamp.end() + LONGEST_MESSAGE
        text = line[stamp.end() : longest if after is None else min(after.start(), longest)]
        yield stamp[1], text, line[stamp.end() : longest]


def _find(line: str) -> tuple[Sign, str, str] | None:
    """What the first message that means something means, its stamp, and all from there on."""
    for stamp, text, rest in _messages(line):
        if text and (sign := sign_of(text)) is not None:
            return sign, stamp, rest
    return None


def classify(line: str) -> Sign | None:
    """What one console line means, None for nothing special.

    Only the kernel's own words count, after a printk time stamp: a test that prints
    ``WARNING:`` to its own output is not a splat.  The kernel does not begin a new line
    behind what a process wrote without one.
    """
    found = _find(line)
    return found[0] if found is not None else None


class Lines:
    """Cuts what comes in pieces into lines, in time and memory that a line without an end bounds.

    What has no line break for 64 KiB is taken as a line, cut where a time stamp may begin.
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes."""
        lines: list[bytes] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._add(data[start:end], lines)
            lines.append(bytes(self._rest))
            self._rest.clear()
            start = end + 1
        self._add(data[start:], lines)
        return lines

    def _add(self, piece: bytes, lines: list[bytes]) -> None:
        for begin in range(0, len(piece), _LONGEST):
            self._rest += piece[begin : begin + _LONGEST]
            while len(self._rest) > _LONGEST:
                stamp = _MAY_BE_STAMP.search(self._rest, _LONGEST - _OVERLAP, _LONGEST)
                cut = stamp.start() if stamp is not None else _LONGEST
                lines.append(bytes(self._rest[:cut]))
                del self._rest[:cut]

    def end(self) -> list[bytes]:
        """The unfinished last line, if there is one."""
        rest = [bytes(self._rest)] if self._rest else []
        self._rest.clear()
        return rest


def telling(lines: Sequence[tuple[str, Finding | None]]) -> tuple[str, ...]:
    """The last ``TAIL`` of ``lines``; of a panic, ``STORY`` from the complaint that led to it.

    A finding stands beside the line that it was found in.
    """
    texts = [line for line, _ in lines]
    found = [None if finding is None else finding.sign for _, finding in lines]
    if Sign.PANIC not in found:
        return tuple(texts[-TAIL:])
    panic = found.index(Sign.PANIC)
    near = [n for n in range(max(0, panic - 2 * STORY), panic) if found[n] is Sign.SPLAT]
    begin = near[-1] if near else max(0, panic - _BEFORE)
    for before, after in reversed([*pairwise(near)]):
        one, other = lines[before][1], lines[after][1]
        if after == begin and one and other and continues(other.text, one.text):
            begin = before
    begin = next((n for n in range(begin, max(-1, begin - _BEFORE), -1) if _CUT in texts[n]), begin)
    story = texts[begin : begin + STORY]
    return (*story[:-1], texts[panic]) if panic >= begin + STORY else tuple(story)


class ConsoleLog:
    """Everything the console said, on disk, with the last lines and findings at hand.

    Thread-safe for one writer and many readers.  ``on_panic`` is called from the
    writer's thread at the first panic line.
    """

    def __init__(self, path: Path, on_panic: Callable[[], None]) -> None:
        self.path = path
        self._on_panic = on_panic
        self._lock = threading.Lock()
        self._recent: deque[tuple[str, Finding | None]] = deque(maxlen=3 * STORY)
        self._findings = Findings()
        self._lines = Lines()
        self._started = self.last_activity = time.monotonic()

    def feed(self, data: bytes) -> None:
        """Take what the console wrote; ``data`` may end within a line."""
        self.last_activity = time.monotonic()
        for raw in self._lines.feed(data):
            self._line(raw)

    def close(self) -> None:
        """Take the last, unfinished line as a line."""
        for raw in self._lines.end():
            self._line(raw)

    def _line(self, raw: bytes) -> None:
        line = clean(raw.decode(errors="replace"))
        found = _find(line)
        with self._lock:
            if found is None:
                if line:
                    self._recent.append((line[:_LONGEST_SHOWN], None))
                for _, text, _ in _messages(line):
                    self._findings.behind(text)
                return
            sign, stamp, text = found
            first = not self._findings.of(sign)
            now = time.monotonic()
            finding = Finding(sign, text, now - self._started, stamp, heard=now)
            self._recent.append((line[:_LONGEST_SHOWN], finding))
            self._findings.add(finding)
        if sign is Sign.PANIC and first:
            self._on_panic()

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines, oldest first; of a panic, those from its beginning on (``telling``)."""
        with self._lock:
            return telling(tuple(self._recent))

    def findings(self, sign: Sign) -> list[Finding]:
        """All findings of ``sign`` so far, oldest first."""
        with self._lock:
            return self._findings.of(sign)

    @property
    def panic(self) -> Finding | None:
        """The first panic, None while there is none."""
        found = self.findings(Sign.PANIC)
        return found[0] if found else None
