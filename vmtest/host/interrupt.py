"""What an interrupt ends: commands, waits and connections, on whatever thread they are.

A KeyboardInterrupt reaches the main thread alone.  Whoever waits on another one, or
starts a command that takes its time, says here how that is ended; ``interrupt`` ends
all of it, and every wait then raises Interrupted.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

from vmtest.errors import Interrupted
from vmtest.host.sessions import SESSIONS

_T = TypeVar("_T")

GRACE = 1.0
"""Seconds that a command has to clean up after SIGTERM, before SIGKILL."""


class Scope:
    """What is under way; once ``end`` was called nothing more can begin in it."""

    def __init__(self) -> None:
        # A signal's handler runs on the main thread, whatever that holds: hence the lock is
        # reentrant, and waits are on a SimpleQueue, which is too; an Event's lock is not.
        self._over = False
        self._lock = threading.RLock()
        self._ends: dict[object, Callable[[], None]] = {}

    def check(self) -> None:
        """Raise Interrupted once it is over."""
        if self._over:
            raise Interrupted("interrupted")

    def pause(self, seconds: float) -> None:
        """Sleep; raises Interrupted as soon as it is over."""
        woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        with self.ending(lambda: woken.put(None)), suppress(queue.Empty):
            woken.get(timeout=max(0.0, seconds))

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """Have ``end`` called when it is over before this is left; it must not block.

        Raises Interrupted when it is, at the beginning or at the end.
        """
        key = object()
        with self._lock:
            self._ends[key] = end
        try:
            # Not before it is listed: the handler of a signal may come between.
            self.check()
            yield
        except (OSError, ValueError):  # of what was closed under it
            self.check()
            raise
        finally:
            with self._lock:
                self._ends.pop(key, None)
        self.check()

    def end(self) -> None:
        """End all that is under way; does not wait."""
        self._over = True
        with self._lock:
            ends = tuple(self._ends.values())
        for end in ends:
            with suppress(OSError, ValueError):
                end()


_scopes = [Scope()]
_apart: set[Scope] = set()
_own = threading.local()


def current() -> Scope:
    """The scope of this moment: the thread's own, if it works ``apart``."""
    own: Scope | None = getattr(_own, "scope", None)
    return _scopes[-1] if own is None else own


@contextmanager
def interruptible() -> Iterator[Scope]:
    """A scope of its own: what ends it leaves the process able to go on."""
    scope = Scope()
    _scopes.append(scope)
    try:
        yield scope
    finally:
        _scopes.remove(scope)


@contextmanager
def apart() -> Iterator[Scope]:
    """A scope for this thread alone: it goes on when what others do is ended.

    ``interrupt`` ends it as well.
    """
    scope = _own.scope = Scope()
    _apart.add(scope)
    try:
        yield scope
    finally:
        _apart.discard(scope)
        del _own.scope


def work_for(scope: Scope) -> None:
    """Have this thread, one of a pool, end with what it works for: ``current`` of its owner."""
    _own.scope = scope


def interrupt() -> None:
    """End everything of this process that is under way."""
    for scope in (*_scopes, *_apart):
        scope.end()


class _Hold:
    """Keeps a signal's KeyboardInterrupt off the main thread while that starts a command.

    It would come between the command's start and the moment where somebody knows its number.
    """

    def __init__(self) -> None:
        self._held = False
        self._late = False

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt, now or when ``drop`` is called."""
        if not self._held:
            raise KeyboardInterrupt
        self._late = True

    def take(self) -> None:
        """Begin; other threads have nothing to keep off."""
        if threading.current_thread() is threading.main_thread():
            self._held = True

    def drop(self) -> None:
        """End; raises KeyboardInterrupt when there was one."""
        if self._held and threading.current_thread() is threading.main_thread():
            self._held = False
            if self._late:
                self._late = False
                raise KeyboardInterrupt


_hold = _Hold()


def keyboard_interrupt() -> None:
    """What a signal's handler does at its end: raise KeyboardInterrupt as soon as that is safe."""
    _hold.interrupt()


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send ``number`` to the process group; whether there is one."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _ask_to_end(process: subprocess.Popen[bytes], grace: float) -> None:
    """SIGTERM to its group, SIGKILL a moment later; does not wait."""
    _signal(process, signal.SIGTERM)
    last = threading.Timer(grace, _signal, [process, signal.SIGKILL])
    last.daemon = True
    last.start()


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """End its group, and wait until nobody of it is left."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, GRACE)):
        _signal(process, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            process.poll()
            if not _signal(process, 0):
                return
            time.sleep(0.02)


@contextmanager
def started(
    argv: Sequence[str],
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.PIPE,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    grace: float = GRACE,
) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a session of its own, which ends with this: at an error, with its children.

    An interrupt gives it ``grace`` seconds, and so does the death of this process.  Raises
    OSError when it cannot be started, Interrupted.
    """
    scope = current()
    scope.check()
    _hold.take()
    try:
        process = SESSIONS.popen(
            argv, grace, env=env, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd
        )
    except BaseException:
        _hold.drop()
        raise
    ended = False
    try:
        with process:
            try:
                _hold.drop()
                with scope.ending(lambda: _ask_to_end(process, grace)):
                    yield process
                    process.wait()
                ended = True
            finally:
                if not ended:
                    _end(process, grace)
    finally:
        SESSIONS.remove(process.pid)


def run(
    argv: Sequence[str],
    *,
    merged: bool = False,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command without input to its end; what it writes is text, undecodable bytes replaced.

    ``merged`` puts standard error into standard output.  Raises OSError when it cannot be
    started, subprocess.TimeoutExpired, Interrupted.
    """
    stderr = subprocess.STDOUT if merged else subprocess.PIPE
    with started(argv, stderr=stderr, cwd=cwd, env=env) as process:
        out, err = process.communicate(timeout=timeout)
    said, errors = (data.decode(errors="replace") for data in (out, err or b""))
    return subprocess.CompletedProcess(argv, process.returncode, said, errors)


def abandonable(function: Callable[[], _T], limit: float | None = None) -> _T:
    """What ``function`` returns or raises; raises Interrupted without waiting for it.

    For what nothing can wake (the resolver, a connection being made): it goes on, on a
    thread that keeps no process alive, and has to change nothing.  After ``limit`` seconds this
    raises TimeoutError.
    """
    done: queue.SimpleQueue[None] = queue.SimpleQueue()
    returned: list[_T] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            returned.append(function())
        except BaseException as error:
            raised.append(error)
        finally:
            done.put(None)

    with current().ending(lambda: done.put(None)):
        threading.Thread(target=work, daemon=True).start()
        try:
            done.get(timeout=limit)
        except queue.Empty:
            raise TimeoutError(f"no answer within {limit:.0f} s") from None
    if raised:
        raise raised[0]
    return returned[0]
