"""A guest's shell on the user's terminal."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from vmtest.cli.common import say
from vmtest.errors import SessionLost, UsageError
from vmtest.matrix.payload import PYTEST_SIDE, guest_environment
from vmtest.model.results import KernelResult
from vmtest.report.live import View
from vmtest.vm.guest_code import GUEST_ROOT
from vmtest.vm.session import Session, SshSession, Terminal


def interact(session: SshSession, argv: Sequence[str], pythonpath: Sequence[str] = ()) -> int:
    """Run ``argv`` in the guest on this terminal; returns its exit status.

    ``pythonpath`` are folders in the guest that Python imports from.  Follows the terminal's
    size.  Without a terminal on standard input, plain streams are connected.  Raises SessionLost.
    """
    environment = guest_environment(pythonpath) | PYTEST_SIDE
    assignments = [f"{name}={value}" for name, value in environment.items()]
    command = ["env", *assignments, *argv]
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _plain(session, command)
    size = os.get_terminal_size(1)  # not $COLUMNS: that is for tables
    terminal = session.terminal(
        command, os.environ.get("TERM", "xterm"), (size.columns, size.lines)
    )
    with _raw_terminal(), _following_size(terminal):
        _copy(terminal)
    return _shell_status(terminal.status())


def _plain(session: SshSession, argv: Sequence[str]) -> int:
    stream = session.stream(argv)

    def feed() -> None:
        # The command may end before its input does, and there may be no input at all.
        with suppress(SessionLost, OSError):
            while data := os.read(0, 1 << 15):
                stream.send(data)
        with suppress(SessionLost):
            stream.end_input()

    threading.Thread(target=feed, daemon=True).start()
    while (got := stream.receive(0.5)) is not None:
        for descriptor, data in zip((1, 2), got, strict=True):
            _write_all(descriptor, data)
    return _shell_status(stream.status())


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@contextmanager
def _raw_terminal() -> Iterator[None]:
    try:
        before = termios.tcgetattr(0)
    except termios.error as error:
        raise UsageError(f"standard input is not a terminal any more: {error}") from error
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _following_size(terminal: Terminal) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread; the size stays
        return

    def resize(*_: object) -> None:
        size = os.get_terminal_size(1)  # not $COLUMNS: that is for tables
        terminal.resize(size.columns, size.lines)

    before = signal.signal(signal.SIGWINCH, resize)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _copy(terminal: Terminal) -> None:
    there = terminal.fileno()
    while True:
        ready, _, _ = select.select([there, 0], [], [])
        if there in ready:
            data = terminal.receive()
            if not data:
                return
            _write_all(1, data)
        if 0 in ready:
            typed = os.read(0, 1 << 12)
            if not typed:
                terminal.end_input()
                return
            terminal.send(typed)


def _shell_status(status: int) -> int:
    """As ssh has it: 255 for a command that a signal ended."""
    return status if status >= 0 else 255


class InteractiveHold:
    """``--shell-on-failure``: a shell in a kernel that failed, before its VM ends."""

    def __init__(self, view: View) -> None:
        if not sys.stdin.isatty():
            raise UsageError("--shell-on-failure needs a terminal on standard input")
        self._view = view

    def __call__(self, session: Session, result: KernelResult) -> None:
        """Say what failed, then hand the terminal to a shell; its status means nothing."""
        assert isinstance(session, SshSession)
        with self._view.aside():
            say(f"{result.kernel} ({result.release}): {result.status}: {result.reason}")
            say(f"The payload is in {GUEST_ROOT}; the run goes on when this shell ends.")
            interact(session, ["bash"])
