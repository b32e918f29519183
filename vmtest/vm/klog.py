"""The kernel's own log, read record by record while the guest runs.

The console shows what its level lets through: nothing of a WARNING with ``quiet``, or
after ``dmesg -n 1``.  /dev/kmsg has every record with a number, whatever the level and
whatever ``dmesg -C`` hides.  One process in the guest blocks reading it, one thread here
blocks reading that process: who prints nothing costs nothing.

``parse_record``, ``merged`` and ``KernelLog`` know no guest; ``LogReader`` talks to one.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from vmtest.errors import DeadlineExceeded, SessionLost, VmtestError
from vmtest.vm.console import LONGEST_MESSAGE, Finding, Findings, Lines, Sign, clean, sign_of
from vmtest.vm.session import Check, Session, Stream

UP = "vmtest: the guest is up"
"""How the agent (agent.sh) tells the kernel's log that the boot has ended."""
MARK = "vmtest: read to here "
"""How the reader's script tells the kernel's log where it is asked about."""
FILE_LIMIT = 64 << 20
"""Bytes of dmesg.log after which a kernel that floods is not written down any more."""

# The shell waits for a word and marks the log with it; its child copies the log.  Killed
# or outrun by the kernel (EPIPE) the copying begins again where it was: the position is
# the open file's.  Nothing is started while nothing is asked.  (A shell's own read takes
# one byte of a file in /proc/sys, which has no second.)  Without its child it ends, and
# another reader is started.
_SCRIPT = f"""
exec 3</dev/kmsg 4>/dev/kmsg || exit 1
box=/bin/busybox
[ -x $box ] || box=
cd /proc/sys/kernel
echo first $($box cat tainted printk_devkmsg) >&2
while :; do
    $box cat <&3 4>&- 2>/dev/null
    case $? in 126 | 127 | 141) exit 1 ;; esac
done &
while read -r word; do
    read -r _ _ state _ </proc/$!/stat && [ "$state" != Z ] || exit 1
    echo "<7>{MARK}$word" >&4
    echo $word $($box cat tainted printk_devkmsg) >&2
done
kill $!
"""
_FIRST = "first"

_RECORD = re.compile(rb"(\d{1,20}),(\d{1,20}),(\d{1,20}),[^;]*;(.*)", re.DOTALL)
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_RESTARTS = 3
# Bits of /proc/sys/kernel/tainted that only a complaint sets
# (Linux, Documentation/admin-guide/tainted-kernels.rst).
_TAINTS = {5: "bad page (B)", 7: "oops (D)", 9: "warning (W)", 14: "soft lockup (L)"}


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its number, microseconds since the kernel began, its text."""

    number: int
    microseconds: int
    text: str

    @property
    def stamp(self) -> str:
        """Its time as the kernel prints it, without padding."""
        return f"{self.microseconds // 1_000_000}.{self.microseconds % 1_000_000:06d}"

    @property
    def text_lines(self) -> str:
        """Its lines as dmesg prints them, with a line break behind each."""
        seconds, _, fraction = self.stamp.partition(".")
        head = f"[{seconds:>5}.{fraction}]"
        return "".join(f"{head} {clean(line)}\n" for line in self.text.split("\n"))


def parse_record(line: bytes) -> Record | None:
    """Read a line of /dev/kmsg; None for a line that belongs to the one before (``SUBSYSTEM=...``).

    The format is Linux's, Documentation/ABI/testing/dev-kmsg.
    """
    found = _RECORD.fullmatch(line)
    if found is None:
        return None
    text = _ESCAPED.sub(lambda escaped: bytes([int(escaped.group(1), 16)]), found.group(4))
    return Record(int(found.group(2)), int(found.group(3)), text.decode(errors="replace"))


def as_dmesg(lines: str) -> str:
    """``lines`` of /dev/kmsg as dmesg prints them."""
    records = (parse_record(line.encode()) for line in lines.split("\n"))
    return "".join(record.text_lines for record in records if record is not None)


def merged(console: Iterable[Finding], log: Iterable[Finding]) -> tuple[Finding, ...]:
    """What console and log say together, oldest first: what both have is there once.

    Both print the kernel's time of a message, which makes it one.  The log's text is
    taken: a process may have written into the console's.  It came when the first of the two
    did: the log is read by the guest, which may have stood still meanwhile.
    """
    both = list(log)
    left = list(range(len(both)))
    for finding in console:
        same = (n for n in left if both[n].sign is finding.sign and both[n].stamp == finding.stamp)
        place = next(same, None)
        if place is None:
            both.append(finding)
            continue
        left.remove(place)
        heard = min(both[place].heard, finding.heard)
        of_kernel = both[place].kernel_thread or finding.kernel_thread
        both[place] = replace(both[place], heard=heard, kernel_thread=of_kernel)
    return tuple(sorted(both, key=lambda finding: float(finding.stamp or "inf")))


def taints(before: int, after: int) -> tuple[str, ...]:
    """What a kernel has marked itself with since, of the marks that mean a complaint."""
    new = after & ~before
    return tuple(words for bit, words in _TAINTS.items() if new >> bit & 1)


class KernelLog:
    """All records that came, on disk as dmesg prints them, with the findings at hand.

    Thread-safe for one writer and many readers.  ``lost`` counts the records that the
    kernel had overwritten before they could be read, since the guest was up.
    ``up`` is the kernel's time at which the boot had ended, None while that is not known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        self.up: float | None = None
        self.changed = threading.Condition()
        self._started = time.monotonic()
        self._lines = Lines()
        self._next: int | None = None
        self._marks: set[str] = set()
        self._findings = Findings()
        self._file: BinaryIO | None = None
        self._room = FILE_LIMIT
        with suppress(OSError):  # a full disk must not stop the reading
            self._file = path.open("wb", buffering=0)

    def feed(self, data: bytes) -> None:
        """Take what was read from /dev/kmsg; ``data`` may end within a record."""
        for line in self._lines.feed(data):
            record = parse_record(line)
            if record is not None:
                self._take(record)

    def begin_again(self) -> None:
        """Another reader begins, with the oldest record that the kernel still has."""
        self._lines.end()

    def close(self) -> None:
        """No more will come."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _take(self, record: Record) -> None:
        if self._next is not None and record.number < self._next:
            return  # told by the reader before
        gap = record.number - (self._next or 0)
        self._next = record.number + 1
        if record.text.startswith(MARK):
            with self.changed:
                self._marks.add(record.text.removeprefix(MARK).strip())
                self.lost += gap
                self.changed.notify_all()
            return
        with self.changed:
            self.lost += gap
            if self.up is None and record.text == UP:
                self.up = float(record.stamp)
                self.lost = 0  # what the boot overwrote is nobody's
            for whole in record.text.split("\n"):
                line = whole[:LONGEST_MESSAGE]
                sign = sign_of(line)
                if sign is None:
                    self._findings.behind(clean(line))
                    continue
                now = time.monotonic()
                found = Finding(sign, clean(line), now - self._started, record.stamp, heard=now)
                self._findings.add(found)
        self._write(record, gap)

    def _write(self, record: Record, gap: int) -> None:
        text = record.text_lines
        if gap:
            text = f"(vmtest: {gap} records were overwritten before they could be read)\n{text}"
        if self._file is None or self._room <= 0:
            return
        data = text.encode()
        self._room -= len(data)
        if self._room <= 0:
            data = f"(vmtest: over {FILE_LIMIT >> 20} MiB: the rest is not kept)\n".encode()
        with suppress(OSError):
            self._file.write(data)

    def findings(self, sign: Sign) -> list[Finding]:
        """All findings of ``sign`` so far, oldest first."""
        with self.changed:
            return self._findings.of(sign)

    def read_to(self, word: str) -> bool:
        """Whether the mark ``word`` has come, and so everything before it."""
        return word in self._marks


class LogReader:
    """Reads the log of the guest behind ``session`` into ``log``, on a thread of its own.

    ``problem`` says why the log could not be read to its end, "" when it was.
    """

    def __init__(self, session: Session, log: KernelLog) -> None:
        self.problem = ""
        self._taint = 0
        self._session = session
        self.log = log
        self._stream: Stream | None = None
        self._error: VmtestError | None = None
        self._answers: dict[str, tuple[int, str]] = {}
        self._heard = time.monotonic()
        self._starts = 0
        self._thread = self._start()

    def _start(self) -> threading.Thread:
        self._starts += 1
        self._stream = None
        self._error = None
        self.log.begin_again()
        thread = threading.Thread(target=self._follow, name="kernel log", daemon=True)
        thread.start()
        return thread

    def _follow(self) -> None:
        try:
            stream = self._session.stream(["sh", "-c", _SCRIPT])
            self._stream = stream
            answers = Lines()
            while (got := stream.receive(1.0)) is not None:
                out, err = got
                self._heard = time.monotonic()
                self.log.feed(out)
                for line in answers.feed(err):
                    self._answer(line)
                if stream.exited() and not any(got):
                    break  # killed: its child may hold the stream open
        except VmtestError as error:
            self._error = error
        finally:
            with self.log.changed:
                self.log.changed.notify_all()

    def _answer(self, line: bytes) -> None:
        with suppress(ValueError):
            word, taint, mode = line.decode(errors="replace").split()
            with self.log.changed:
                self._answers.setdefault(word, (int(taint), mode))
                self.log.changed.notify_all()

    def finish(self, limit: float, check: Check) -> None:
        """Read what the kernel has said up to now, within ``limit`` seconds.

        Afterwards the log has it all, or ``problem`` says why not.  Raises SessionLost,
        DeadlineExceeded when the guest does not answer, and what ``check`` raises.
        """
        word = secrets.token_hex(8)
        asked: Stream | None = None
        deadline = time.monotonic() + limit
        while not self._read_to(word):
            check()
            if not self._thread.is_alive():
                if isinstance(self._error, SessionLost | DeadlineExceeded):
                    raise self._error
                if self._starts > _RESTARTS:
                    self.problem = "its reader in the guest ends at once"
                    return
                self._thread = self._start()
            if (stream := self._stream) is not None and stream is not asked:
                stream.send(f"{word}\n".encode())
                asked = stream
            if time.monotonic() > deadline:
                what = "reading the kernel's log to its end"
                raise DeadlineExceeded(f"{what} took over {limit:.0f} s", "answer")
            with self.log.changed:
                self.log.changed.wait(0.1)
        self.problem = ""

    def _read_to(self, word: str) -> bool:
        answer = self._answers.get(word)
        if answer is None:
            return False
        self._taint, mode = answer
        if self.log.read_to(word):
            return True
        # printk.devkmsg=off drops the mark: then a pause has to do for it.
        return mode == "off" and time.monotonic() - self._heard > 0.5

    def join(self) -> None:
        """Wait for the thread, once the session is closed, and close the log's file."""
        self._thread.join(timeout=10)
        self.log.close()

    @property
    def overwritten(self) -> int:
        """How many records the kernel had overwritten before they could be read."""
        return self.log.lost

    @property
    def unseen(self) -> str:
        """What the kernel has marked itself with since it was up, "" for nothing.

        The test of what was read: a complaint that was overwritten leaves its mark.
        """
        before, _ = self._answers.get(_FIRST, (self._taint, ""))
        return ", ".join(taints(before, self._taint))

    @property
    def notes(self) -> tuple[str, ...]:
        """What somebody who reads the result should know of how the log was read."""
        found = []
        if self.log.lost:
            found.append(
                f"{self.log.lost} records of the kernel's log were overwritten before they could "
                "be read"
            )
        if self.problem:
            found.append(
                f"the kernel's log could not be read ({self.problem}): its complaints are known "
                "from the console only"
            )
        return tuple(found)
