"""A command in a guest: what goes along with it, its output as it comes, the tests it tells.

Knows the guest only as a ``Session``.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO

from vmtest.command.formats import junit as junit_xml
from vmtest.command.formats.format import Format, Reader
from vmtest.command.formats.gotest import GoTest
from vmtest.command.formats.rows import bounded, last_line
from vmtest.command.formats.tap import Tap
from vmtest.errors import UsageError
from vmtest.host.files import Files
from vmtest.host.write import append
from vmtest.matrix.follow import follow, status_words
from vmtest.model.kernels import Limits
from vmtest.model.results import Outcome, TestResult
from vmtest.objects.builds import read_object
from vmtest.runs.rows import write_result
from vmtest.suites.process import (
    GUEST_ROOT,
    guest_code,
    in_guest_environment,
    module_list,
    tar,
)
from vmtest.vm.session import Check, Session

WORK = f"{GUEST_ROOT}/work"
"""The command's working folder in the guest: what ``--copy`` names lies there."""
COPY_LIMIT = 128 << 20
"""Bytes of copied files: they are in the guest's memory twice while they are unpacked."""
JUNIT_LIMIT = 32 << 20
"""Bytes of a JUnit file beyond which it is not read."""
LOG = "command.log"
"""The file in a kernel's folder that holds all the command wrote."""
JUNIT_COPY = "command.xml"
"""The file in a kernel's folder that holds the JUnit file of the command's."""

_LONGEST_NAME = 100
_LONGEST_LINE = 1 << 20
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127


@dataclass(frozen=True, slots=True)
class Copy:
    """One ``--copy``: a file or folder of the host, and its place below the working folder.

    The place ``.`` spreads a folder's content in the working folder itself.
    """

    source: Path
    target: PurePosixPath


def parse_copy(text: str) -> Copy:
    """Read ``FILE|DIR[:GUESTPATH]``; raises UsageError for a place outside the working folder."""
    source, separator, place = text.rpartition(":")
    if not separator or Path(text).exists():  # a colon may be part of a name
        source, place = text, ""
    path = Path(os.path.abspath(source))  # noqa: PTH100 - resolve() would lose a link's name
    name = path.name
    if not (source and name):
        raise UsageError(f"--copy {text}: names no file; write FILE, DIR or FILE:GUESTPATH")
    target = PurePosixPath(place or name)
    if target.is_absolute() or ".." in target.parts:
        raise UsageError(
            f"--copy {text}: {place} is outside of the working folder {WORK}; write a relative "
            "path, and have the command move it if it must lie elsewhere"
        )
    if place.endswith("/") or (place == "." and not path.is_dir()):
        target = target / name
    return Copy(path, target)


def members(copies: Sequence[Copy]) -> dict[PurePosixPath, Path]:
    """Everything that ``copies`` bring, by its place below the working folder.

    Raises UsageError for what is missing, unreadable, no file, there twice, or
    more than 128 MiB together.
    """
    found: dict[PurePosixPath, Path] = {}
    size = 0
    for copy in copies:
        for place, path in _entries(copy):
            if place in found and not (path.is_dir() and found[place].is_dir()):
                raise UsageError(f"--copy: {found[place]} and {path} would both be {place}")
            found[place] = path
            if path.is_file() and not path.is_symlink():
                size += path.stat().st_size
        if size > COPY_LIMIT:
            raise UsageError(
                f"--copy {copy.source}: {size >> 20} MiB in all, more than {COPY_LIMIT >> 20}, "
                f"the largest is {_largest(found)}: strip binaries, name only what is needed"
            )
    return found


def _entries(copy: Copy) -> Iterator[tuple[PurePosixPath, Path]]:
    try:
        source = copy.source.resolve(strict=True)
    except OSError as error:
        raise UsageError(
            f"--copy {copy.source}: {error.strerror}; does the [build] command make it?"
        ) from error
    if not (source.is_file() or source.is_dir()):
        raise UsageError(f"--copy {copy.source}: is neither a file nor a folder")
    if not os.access(source, os.R_OK):
        raise UsageError(f"--copy {copy.source}: cannot be read; check its permissions")
    yield copy.target, source
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        if path.is_symlink() or path.is_file() or path.is_dir():  # no sockets, no devices
            yield copy.target / path.relative_to(source), path


def _largest(found: Mapping[PurePosixPath, Path]) -> str:
    sizes = {path: path.lstat().st_size for path in found.values() if path.is_file()}
    largest = max(sizes, key=lambda path: sizes[path])
    return f"{largest} ({sizes[largest] >> 20} MiB)"


def check_program(command: Sequence[str], there: Mapping[PurePosixPath, Path]) -> None:
    """Raise UsageError unless a program named by a relative path was copied and is executable.

    A name without a slash is searched in the guest's PATH (and must be no copied
    file's: the path was forgotten), an absolute path is the guest's.
    """
    program = command[0] if command else ""
    if not program:
        raise UsageError("the command is empty; write it after --, for example: -- uname -r")
    if program.startswith("/"):
        return
    if "/" not in program:
        if (copied := there.get(PurePosixPath(program))) is not None and copied.is_file():
            raise UsageError(
                f"{program}: a name without a slash is searched in the guest's PATH; "
                f"for the copied file write ./{shlex.quote(program)}"
            )
        return
    place = PurePosixPath(os.path.normpath(program))
    if ".." in place.parts:
        return
    path = there.get(place)
    if path is not None:
        if path.is_file() and not os.access(path, os.X_OK):
            raise UsageError(f"{program}: {path} is not executable; make it so with chmod +x")
        return
    inside = [str(target) for target, path in there.items() if target.name == place.name]
    if inside:
        raise UsageError(f"{program}: in the guest it is ./{inside[0]}; write that after --")
    raise UsageError(
        f"{program} is not in the guest: only what --copy names is copied; "
        f"write --copy {shlex.quote(program)} -- ./{place.name}"
    )


@dataclass(frozen=True, slots=True)
class Copied:
    """What ``--copy`` brings, read once: the same bytes go to every kernel.

    ``places`` is as of ``members``; ``archive`` is a tar without its end, the working
    folder in it; ``facts`` has mode and sha256 ("" for a folder or a link) by place.
    """

    places: Mapping[PurePosixPath, Path]
    archive: bytes
    facts: Mapping[str, tuple[int, str]]

    @property
    def digests(self) -> dict[str, str]:
        """The sha256 of each file, by its place."""
        return {place: digest for place, (_, digest) in self.facts.items() if digest}


def read_copies(copies: Sequence[Copy]) -> Copied:
    """Read everything that ``copies`` name; raises UsageError as ``members`` does, OSError."""
    places = members(copies)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo("work")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        facts = {str(place): _add(archive, place, path) for place, path in places.items()}
        end = archive.offset
    return Copied(places, buffer.getvalue()[:end], facts)


def _add(archive: tarfile.TarFile, place: PurePosixPath, path: Path) -> tuple[int, str]:
    info = archive.gettarinfo(path, f"work/{place}")
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    if not info.isreg():
        archive.addfile(info)
        linked = hashlib.sha256(path.read_bytes()).hexdigest() if info.islnk() else ""
        return info.mode, linked
    data = path.read_bytes()
    info.size = len(data)  # it may have grown since it was looked at
    archive.addfile(info, io.BytesIO(data))
    return info.mode, hashlib.sha256(data).hexdigest()


def suite_of(command: Sequence[str]) -> str:
    """The program's name, which the rows of ``command`` stand under."""
    return PurePosixPath(command[0]).name or command[0]


@dataclass(frozen=True, slots=True)
class Command:
    """A command and what goes into the guest with it.

    ``archive`` is a tar, ``objects`` has name and sha256 of each BPF object,
    ``copied`` says whether the program itself was copied.
    """

    argv: tuple[str, ...]
    archive: bytes
    objects: tuple[tuple[str, str], ...] = ()
    format: Format | None = None
    copied: bool = False

    @property
    def suite(self) -> str:
        """The suite that its rows belong to."""
        return suite_of(self.argv)

    @property
    def line(self) -> str:
        """The command as one would type it."""
        return shlex.join(self.argv)

    @property
    def row(self) -> str:
        """What the command's own row is called: no node id, which ``::`` would make it."""
        line = " ".join(self.line.split()).replace("::", ": :")
        return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1] + "…"


def pack(
    argv: Sequence[str],
    copied: Copied,
    objects: Mapping[str, Path],
    format: Format | None = None,
    files: Files | None = None,
    modules: Sequence[str] = (),
) -> Command:
    """``argv`` with its files and ``objects`` by name; raises UsageError, OSError.

    ``modules`` of the kernel are loaded before.
    """
    check_program(argv, copied.places)
    files = files or Files()
    read = {name: read_object(name, path, files) for name, path in sorted(objects.items())}
    members = {f"objects/{name}.o": content for name, content in read.items()}
    archive = copied.archive + tar({**guest_code(files), **members, **module_list(modules)})
    digests = tuple((name, content.sha256) for name, content in read.items())
    own = PurePosixPath(os.path.normpath(argv[0])) in copied.places  # else check_program speaks
    return Command(tuple(argv), archive, digests, format, own)


def guest_argv(command: Sequence[str]) -> list[str]:
    """What runs ``command`` in its working folder; its status is a shell's (128 + signal)."""
    # Not exec: sshd would tell a signal in a message of its own, and no number.
    script = 'cd "$1" && shift && "$@"; exit $?'
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

    def execute(
        self, session: Session, limits: Limits, check: Check, last_console: Callable[[], float]
    ) -> None:
        """Run the command to its end, then fetch the file that has its tests.

        ``limits`` are real seconds; ``last_console`` says when the console last
        spoke (time.monotonic()).  Raises DeadlineExceeded, SessionLost and
        whatever ``check`` raises.
        """
        self._started = time.monotonic()
        stream = session.stream(guest_argv(self.command.argv))
        stream.end_input()
        self.begun = True
        self._tell()
        self.status = follow(stream, self._take, limits, check, last_console, stream.exited)
        if self.command.format is not None and self.command.format.kind == "junit":
            self._fetch(session, self.command.format.path, limits, check, last_console)

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
        last_console: Callable[[], float],
    ) -> None:
        got, said = bytearray(), bytearray()

        def take(out: bytes, err: bytes) -> None:
            got.extend(out)
            said.extend(err)

        script = 'cd "$0" && head -c "$1" "$2"'
        stream = session.stream(["sh", "-c", script, WORK, str(JUNIT_LIMIT + 1), path])
        stream.end_input()
        status = follow(stream, take, limits, check, last_console, stream.exited)
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
        ended: without a format, and when it told no test.
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
    if command.format is None or command.format.kind == "junit":
        return None
    return GoTest(command.suite) if command.format.kind == "gotest" else Tap(command.suite)


_GLIBC = re.compile(r"version [`']((?:GLIBC|GLIBCXX)_[\d.]+)' not found")
_LIBRARY = re.compile(r"error while loading shared libraries: (\S+): cannot open shared object")


def hint(status: int, said: str, command: Command) -> str:
    """What may help a program that did not even start, "" where nothing is known."""
    if status == 0:
        return ""
    guest = "the guest's user space is [guest] of kernels.toml, Debian trixie unless it says else"
    if glibc := _GLIBC.search(said):
        return f"built for a newer C library ({glibc[1]}): {guest}; build it there or statically"
    if library := _LIBRARY.search(said):
        return (
            f"{library[1]} is not in the guest: add its Debian package to [guest] packages, "
            "copy it and set LD_LIBRARY_PATH, or link statically"
        )
    program = command.argv[0]
    if status == _NOT_FOUND and command.copied:
        return (
            f"{program} was copied: what it needs to start is missing, its loader (a musl or "
            f"foreign binary) or the interpreter in its first line; {guest}"
        )
    if status == _NOT_FOUND and program in said:
        return (
            f"{program} is searched in the guest and not on the host: copy it with --copy and "
            "call it by ./NAME, or add its Debian package to [guest] packages"
        )
    if status == _NOT_EXECUTABLE and command.copied:
        return f"{program} cannot be executed there: is it built for x86-64 Linux?"
    return ""
