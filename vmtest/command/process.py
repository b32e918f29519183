"""A command in a guest: what goes along with it, its output as it comes, the tests it tells.

Knows the guest only as a ``Session``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from vmtest.command.files import WORK, Command
from vmtest.command.formats import junit as junit_xml
from vmtest.command.formats.format import Reader
from vmtest.command.formats.gotest import GoTest
from vmtest.command.formats.rows import bounded
from vmtest.command.formats.tap import Tap
from vmtest.command.hints import hint
from vmtest.host.write import append
from vmtest.matrix.follow import Kernelside, follow, status_words
from vmtest.matrix.payload import in_guest_environment
from vmtest.model.kernels import Limits
from vmtest.model.results import Outcome, TestResult
from vmtest.model.text import last_line
from vmtest.runs.rows import write_result
from vmtest.vm import standby
from vmtest.vm.session import Check, Session

JUNIT_LIMIT = 32 << 20
"""Bytes of a JUnit file beyond which it is not read."""

_LONGEST_LINE = 1 << 20


def guest_argv(command: Sequence[str]) -> list[str]:
    """What runs ``command`` in its working folder; its status is a shell's (128 + signal)."""
    # Not exec: sshd would tell a signal in a message of its own, and no number.
    script = f'{standby.END}; cd "$1" && shift && "$@"; exit $?'
    return in_guest_environment(["sh", "-c", script, "sh", WORK, *command])


@dataclass(frozen=True, slots=True)
class CommandSink:
    """Where a command's output goes as it comes.

    ``results`` gets a JSON line a test, ``log`` all output, the file ``junit``
    what the command wrote there; the callbacks run on the worker's thread.
    """

    results: IO[bytes]
    log: IO[bytes]
    junit: Path
    expected: Callable[[int], None]
    started: Callable[[str], None]
    finished: Callable[[TestResult], None]
    output: Callable[[bytes, bytes], None]


class CommandRun:
    """One command in a guest, and everything it has said so far.

    ``status`` is its exit status (None while it runs, -1 when there is none),
    ``tail`` the end of its output, ``problem`` why its tests could not be read,
    ``own`` the command's own row, if it has one.
    """

    def __init__(self, command: Command, sink: CommandSink) -> None:
        self.command = command
        self.status: int | None = None
        self.begun = False
        self.tail = b""
        self.problem = ""
        self.own: TestResult | None = None
        self._sink = sink
        self._reader = _reader(command)
        self._rests = [b"", b""]
        self._told = 0
        self._running: str | None = None
        self._expected: int | None = None
        self._from_file: tuple[TestResult, ...] = ()
        self._ended = False
        self._started = 0.0

    @property
    def running(self) -> str | None:
        """The test that runs, or the command itself when it names none."""
        if not self.begun or self._ended:
            return None
        named = self._reader.running if self._reader is not None else None
        return named or self.command.row

    @property
    def done(self) -> tuple[TestResult, ...]:
        """The tests that have ended; all of them after ``end``."""
        read = tuple(self._reader.done) if self._reader is not None else self._from_file
        return read if self.own is None else (*read, self.own)

    def execute(self, session: Session, limits: Limits, check: Check, kernel: Kernelside) -> None:
        """Run the command to its end, then fetch the file that has its tests.

        ``limits`` are real seconds.  Raises DeadlineExceeded, SessionLost and
        whatever ``check`` raises.
        """
        self._started = time.monotonic()
        stream = session.stream(guest_argv(self.command.argv))
        stream.end_input()
        self.begun = True
        self._tell()
        self.status = follow(stream, self._take, limits, check, kernel)
        if self.command.format is not None and self.command.format.kind == "junit":
            self._fetch(session, self.command.format.path, limits, check, kernel)

    def _take(self, out: bytes, err: bytes) -> None:
        append(self._sink.log, out + err)
        self.tail = (self.tail + out + err)[-(1 << 16) :]
        self._sink.output(out, err)
        if self._reader is None:
            return
        for n, data in enumerate((out, err)):
            *lines, self._rests[n] = (self._rests[n] + data).split(b"\n")
            for line in lines:
                self._reader.feed(line.decode(errors="replace"), error=n == 1)
            if len(self._rests[n]) > _LONGEST_LINE:
                self._reader.feed(self._rests[n].decode(errors="replace"), error=n == 1)
                self._rests[n] = b""
        self._tell()

    def _feed_rests(self) -> None:
        """What stands behind the last line break: a line that the end cut short, or the last."""
        for n, rest in enumerate(self._rests):
            if rest and self._reader is not None:
                self._reader.feed(rest.decode(errors="replace"), error=n == 1)
        self._rests = [b"", b""]

    def _tell(self) -> None:
        """Say what has begun and ended since the last time."""
        done = self.done
        for result in done[self._told :]:
            write_result(self._sink.results, result)
            self._sink.finished(result)
        self._told = len(done)
        expected = self._reader.expected if self._reader is not None else None
        if expected is not None and expected != self._expected:
            self._sink.expected(expected)
        self._expected = expected
        running = self.running
        if running is not None and running != self._running:
            self._sink.started(running)
        self._running = running

    def _fetch(
        self,
        session: Session,
        path: str,
        limits: Limits,
        check: Check,
        kernel: Kernelside,
    ) -> None:
        got, said = bytearray(), bytearray()

        def take(out: bytes, err: bytes) -> None:
            # The guest's own head may be anything by now.
            got.extend(out[: JUNIT_LIMIT + 1 - len(got)])
            said.extend(err)
            del said[:-_LONGEST_LINE]

        script = 'cd "$0" && head -c "$1" "$2"'
        stream = session.stream(["sh", "-c", script, WORK, str(JUNIT_LIMIT + 1), path])
        stream.end_input()
        status = follow(stream, take, limits, check, kernel)
        if status != 0:
            why = last_line(said.decode(errors="replace"))
            self.problem = f"{path}: cannot be read in the guest: {why}"
            return
        self._sink.junit.write_bytes(got)
        if len(got) > JUNIT_LIMIT:
            self.problem = f"{path}: has more than {JUNIT_LIMIT >> 20} MiB"
            return
        try:
            self._from_file = junit_xml.read(bytes(got), self.command.suite)
        except ValueError as error:
            self.problem = f"{path}: {error}; it is kept as {self._sink.junit.name}"

    def end(self, died: str = "", lost: bool = False) -> tuple[TestResult, ...]:
        """All tests; ``died`` is why the command did not end by itself, ``lost`` that the VM did.

        The command has a row of its own where its tests say nothing of how it
        ended: without a format, and when its output named no test.
        """
        if self._ended:
            return self.done
        self._feed_rests()
        if self._reader is not None:
            self._reader.end(died)
        silent = not self.done and (died != "" or self.status != 0)
        if self.begun and (self.command.format is None or self.problem or silent):
            self.own = self._own_row(died if lost else "")
        self._ended = True
        self._tell()
        return self.done

    def _own_row(self, lost: str) -> TestResult:
        command = self.command
        said = self.tail.decode(errors="replace")
        outcome = Outcome.PASSED if self.status == 0 else Outcome.FAILED
        if lost:
            outcome = Outcome.LOST
        elif self.problem:
            outcome = Outcome.ERROR
        row = TestResult(
            command.row,
            command.suite,
            outcome,
            duration=round(time.monotonic() - self._started, 4),
            message=self.problem or lost or self.ending,
        )
        if outcome is Outcome.PASSED:
            return row
        details = "\n".join(filter(None, (f"$ {command.line}", row.message, self.help)))
        return replace(row, details=bounded(details), output=bounded(said))

    @property
    def ending(self) -> str:
        """``exit status 3: last line of the output``."""
        said = self.tail.decode(errors="replace")
        status = -1 if self.status is None else self.status
        return f"{status_words(status)}: {last_line(said)[:150] or 'nothing was printed'}"

    @property
    def help(self) -> str:
        """What may help a program that did not start."""
        said = self.tail.decode(errors="replace")
        return "" if self.status is None else hint(self.status, said, self.command)


def _reader(command: Command) -> Reader | None:
    match None if command.format is None else command.format.kind:
        case "gotest":
            return GoTest(command.suite)
        case "tap":
            return Tap(command.suite)
        case "junit" | None:  # in a file, or nowhere
            return None
