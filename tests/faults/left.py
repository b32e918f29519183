"""What a test has left behind: processes, files, sockets, mounts, loop devices, locks.

Several tests run at once, so nothing here counts what the whole host has. A process is the test's
own if it descends from the process that runs the test, or was started with the test's mark in its
environment, which also an orphan keeps. Everything else is told by its path: it lies in a folder
of the test's own.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

MARK = "VMTEST_TEST_MARK"
"""The variable of the environment that says which test started a process."""
PATIENCE = 15.0  # seconds for what was killed to end: a loaded host may take some
HELPERS = re.compile(r"/(?:forks|reaper)\.py\b|multiprocessing[./](?:resource_tracker|forkserver)")
"""What a process that runs tests starts once and keeps: children of its own, and no test's."""


class Process(NamedTuple):
    """A process, and what it runs; its number may be another's later, with another start."""

    pid: int
    start: str
    parent: int
    runs: str


def _process(folder: Path) -> Process | None:
    """The process of a folder of /proc, None for one that has ended."""
    try:
        state, parent, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
        line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    # A zombie has ended; init, or who started it, has yet to ask for its status.
    return None if state == "Z" else Process(int(folder.name), rest[17], int(parent), line.strip())


def _has(folder: Path, mark: bytes) -> bool:
    try:
        return mark in (folder / "environ").read_bytes().split(b"\0")
    except OSError:  # ended, or another user's
        return False


def own_processes(mark: str) -> set[Process]:
    """The descendants of this process, and who has ``mark`` in its environment; not the helpers."""
    every = [one for one in map(_process, Path("/proc").glob("[0-9]*")) if one is not None]
    parents = {one.pid: one.parent for one in every}
    wanted = f"{MARK}={mark}".encode()

    def descends(pid: int) -> bool:
        while (pid := parents.get(pid, 0)) > 1:
            if pid == os.getpid():
                return True
        return False

    return {
        one
        for one in every
        if one.pid != os.getpid()
        and not (one.parent == os.getpid() and HELPERS.search(one.runs))
        and (descends(one.pid) or _has(Path("/proc") / str(one.pid), wanted))
    }


def _lines(file: str) -> list[list[str]]:
    try:
        return [line.split() for line in Path(file).read_text(errors="replace").splitlines()]
    except OSError:
        return []


def locks_of(pids: set[int]) -> set[str]:
    """The files, as device and inode, on which these processes hold a lock for themselves alone.

    A shared lock is how a process holds an entry of the cache that it has used: by design it ends
    with the process, which may be the one that runs the tests.
    """
    return {
        words[5]
        for words in _lines("/proc/locks")
        if len(words) > 5 and words[3] == "WRITE" and words[4].isdigit() and int(words[4]) in pids
    }


def below(folders: tuple[Path, ...]) -> set[str]:
    """Sockets, mounts and loop devices of ``folders``."""
    inside = tuple(f"{folder}/" for folder in folders)
    found = {
        f"socket {words[7]}"
        for words in _lines("/proc/net/unix")
        if len(words) > 7 and words[7].startswith(inside)
    }
    found |= {
        f"mount {words[4]}"
        for words in _lines("/proc/self/mountinfo")
        if words[4].startswith(inside)
    }
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if device.read_text().startswith(inside):
                found.add(f"loop device {device.parts[3]}")
    return found


@dataclass(frozen=True)
class Before:
    """What was there before a test; ``temporary`` is the TMPDIR that only this test has.

    ``own`` is another folder of the test's, in which it may have a cache and a TMPDIR of its own;
    ``leaves`` are patterns of what may stay.
    """

    mark: str
    temporary: Path
    own: Path
    leaves: tuple[str, ...] = ()
    processes: set[Process] = field(default_factory=set)
    locks: set[str] = field(default_factory=set)

    @classmethod
    def now(cls, temporary: Path, own: Path, leaves: tuple[str, ...]) -> Before:
        """What is there now."""
        mark = uuid.uuid4().hex
        return cls(mark, temporary, own, leaves, own_processes(mark), locks_of({os.getpid()}))

    def left(self) -> list[str]:
        """What has come since and is still there."""
        running = own_processes(self.mark) - self.processes
        found = {f"process {one.pid}: {one.runs}" for one in running}
        pids = {os.getpid(), *(one.pid for one in running)}
        found |= {f"lock on {held}" for held in locks_of(pids) - self.locks}
        found |= below((self.temporary, self.own))
        files = [
            *self.temporary.iterdir(),
            *(self.own / "tmp").glob("vmtest-*"),
            *(self.own / "cache" / "tmp").glob("*"),
        ]
        found |= {f"file {path}" for path in files}
        return sorted(one for one in found if not any(fnmatch(one, may) for may in self.leaves))

    def wait(self, patience: float) -> list[str]:
        """What is left when all had ``patience`` seconds to go."""
        deadline = time.monotonic() + patience
        while (found := self.left()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found


@contextmanager
def watched(own: Path, leaves: tuple[str, ...] = ()) -> Iterator[Before]:
    """A TMPDIR and a mark of its own for all that is started in here."""
    folder = Path(tempfile.mkdtemp(prefix="vt-"))  # short: virtme-ng's folders lie in it
    folder.chmod(0o1777)  # as /tmp is: apt's methods run as another user
    before = Before.now(folder, own, leaves)
    kept = {name: os.environ.get(name) for name in ("TMPDIR", MARK)}, tempfile.tempdir
    os.environ.update({"TMPDIR": str(folder), MARK: before.mark})
    tempfile.tempdir = None
    try:
        yield before
    finally:
        variables, tempfile.tempdir = kept
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)
