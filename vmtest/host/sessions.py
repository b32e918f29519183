"""Sessions of processes that end with the runner, also when SIGKILL ends it: see reaper.py."""

from __future__ import annotations

import atexit
import itertools
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vmtest.host import reaper

_SCRIPT = Path(reaper.__file__)
_PATIENCE = 30.0  # seconds for all that is listed to end


class Sessions:
    """What a reaper of this process's own ends after it; the reaper starts with the first."""

    def __init__(self) -> None:
        # Reentrant: a signal's handler may end what this thread is adding.
        self._lock = threading.RLock()
        self._listed: dict[int | str, str] = {}
        # A process that an earlier runner of the same number left has another word.
        self._starts = map(f"{os.urandom(8).hex()}.{{}}".format, itertools.count())
        self._reaper: subprocess.Popen[str] | None = None

    def ready(self) -> None:
        """Have a reaper, before something is started that is to be added.

        To start one takes time, in which this process may be killed and what it has started is on
        no list.
        """
        with self._lock:
            if self._reaper is None:
                atexit.register(self.end)
                self._begin()

    def popen(
        self,
        argv: Sequence[str],
        grace: float,
        folder: Path | None = None,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """Start ``argv`` in a session of its own, which is added at no moment too late.

        ``options`` are those of subprocess.Popen.  Raises OSError when it cannot be started.
        """
        self.ready()
        # No number is known before the start, and this process may be killed right after it.
        start = next(self._starts)
        self.add(start, grace, folder)
        env = {**(os.environ if env is None else env), reaper.START: start}
        try:
            process = subprocess.Popen(argv, env=env, start_new_session=True, **options)
        except Exception:
            # Not for a KeyboardInterrupt: the command may have begun.
            self.remove(start)
            raise
        self.add(process.pid, grace, folder)
        self.remove(start)
        return process

    def add(self, session: int | str, grace: float, folder: Path | None = None) -> None:
        """Have ``session`` end with this process: SIGTERM, ``grace`` seconds, SIGKILL.

        ``folder`` is removed then. With a ``grace`` of 0 nobody gets a SIGTERM.  Before its number
        is known, ``session`` is the START in the environment of its leader.
        """
        with self._lock:
            name = b"" if folder is None else os.fsencode(folder.absolute())
            self._listed[session] = f"+{session} {grace} {name.hex()}"
            self._say(self._listed[session])

    def add_folder(self, folder: Path) -> None:
        """Have ``folder`` removed if this process is killed before something runs in it."""
        self.add(_no_session(folder), 0, folder)

    def remove_folder(self, folder: Path) -> None:
        """It is somebody else's to remove by now, or it is gone."""
        self.remove(_no_session(folder))

    def remove(self, session: int | str) -> None:
        """It has ended."""
        with self._lock:
            if self._listed.pop(session, None) is not None:
                self._say(f"-{session}")

    def _say(self, line: str) -> None:
        if self._reaper is not None:
            if self._write(self._reaper, line):
                return
            # Somebody killed it: a new one gets the whole list.
            self._close(self._reaper)
            self._begin()
        else:
            self.ready()

    def _begin(self) -> None:
        self._reaper = _start()
        if self._reaper is not None and self._listed:
            self._write(self._reaper, "\n".join(self._listed.values()))

    def end(self) -> None:
        """End what is listed, as at the end of this process, and wait for that."""
        with self._lock:
            if self._reaper is not None:
                self._close(self._reaper)
            self._reaper = None
            self._listed.clear()

    @staticmethod
    def _close(process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):  # a fork of ours may hold the other end
            process.wait(_PATIENCE)

    @staticmethod
    def _write(process: subprocess.Popen[str], lines: str) -> bool:
        assert process.stdin is not None
        try:
            process.stdin.write(f"{lines}\n")
            process.stdin.flush()
        except OSError:
            return False
        return True


def _no_session(folder: Path) -> int:
    """A number for ``folder`` that no session has: those are positive."""
    return -1 - zlib.crc32(os.fsencode(folder.absolute()))


def _start() -> subprocess.Popen[str] | None:
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SCRIPT)],
            # Where a command starts this process, its START is not the reaper's.
            env={name: value for name, value in os.environ.items() if name != reaper.START},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
    except OSError:
        # It is needed only if this process is killed; what it starts is worth more.
        return None


SESSIONS = Sessions()
"""Those of this process."""
