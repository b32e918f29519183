"""What only a real terminal shows: a shell's size and keys, the live view, a shell on failure."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from any_guest import WARM
from real_kernels import KERNEL

Make = Callable[..., Path]

# Only so that a defect ends: the command has deadlines of its own, which stretch where it is slow.
PATIENCE = 600.0


class Typist:
    """A command on a terminal of ours, with everything that it has shown."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process = process
        self._terminal = terminal
        self.shown = ""

    def expect(self, pattern: str) -> str:
        """Read until ``pattern`` was shown; returns it and forgets what came before."""
        deadline = time.monotonic() + PATIENCE
        while (match := re.search(pattern, self.shown)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"{pattern!r} was not shown:\n{self.shown[-2000:]}"
            if select.select([self._terminal], [], [], left)[0]:
                try:
                    data = os.read(self._terminal, 1 << 16)
                except OSError:  # a terminal whose other end is closed
                    data = b""
                assert data, f"the command ended before {pattern!r}:\n{self.shown[-2000:]}"
                self.shown += data.decode(errors="replace")
        self.shown = self.shown[match.end() :]
        return match.group(0)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def resize(self, columns: int, rows: int) -> None:
        """What a terminal does when its window changes, the signal included."""
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def ends(self) -> int:
        """The command's exit status, its output read to the end."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self._terminal], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._terminal, 1 << 16).decode(errors="replace")
                except OSError:
                    break
        return self.process.wait(timeout=max(1.0, deadline - time.monotonic()))


@contextmanager
def typing(folder: Path, *arguments: str) -> Iterator[Typist]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "vmtest", *arguments],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
        # Its controlling terminal: without one a resize sends no signal.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    try:
        yield Typist(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_shell_follows_the_terminals_size_and_passes_its_status_on(project: Make) -> None:
    folder = project("def test_a():\n    pass\n")
    with typing(folder, "shell", WARM, KERNEL) as user:
        user.expect("the payload is in /tmp/vmtest")
        user.expect(r"[$#] ")
        user.type("stty size; ls /tmp/vmtest/suites\n")
        user.expect("24 100")
        user.expect("test_own.py")
        user.resize(70, 30)
        user.type("sleep 0.5; stty size\n")
        user.expect("30 70")
        user.type("exit 7\n")
        assert user.ends() == 7


def test_control_c_in_the_shell_reaches_the_guest_not_the_runner(project: Make) -> None:
    folder = project("def test_a():\n    pass\n")
    with typing(folder, "shell", WARM, KERNEL) as user:
        user.expect(r"[$#] ")
        user.type("sleep 600\n")
        user.expect("sleep 600")
        time.sleep(1)  # until it sleeps; its start shows nowhere
        user.type("\x03")
        user.type("echo still $((40 + 2))\n")
        user.expect("still 42")
        user.type("exit\n")
        user.ends()


def test_the_live_view_shows_the_kernel_and_ends_with_the_table(project: Make) -> None:
    folder = project("import time\ndef test_a():\n    time.sleep(2)\n")
    with typing(folder, "run") as user:
        user.expect(rf"{re.escape(KERNEL)}.*booting")
        user.expect("test_a")
        user.expect("1 passed")
        assert user.ends() == 0


def test_a_failure_opens_a_shell_and_the_run_goes_on_after_it(project: Make) -> None:
    folder = project("def test_a():\n    assert False\n")
    with typing(folder, "run", WARM, "--shell-on-failure") as user:
        user.expect("the run goes on when this shell ends")
        user.expect(r"[$#] ")
        user.type("uname -r\n")
        user.expect(re.escape(KERNEL))
        user.type("exit\n")
        user.expect("1 failed")
        assert user.ends() == 1


def test_control_c_keeps_the_table_so_far(project: Make) -> None:
    folder = project("import time\ndef test_a():\n    time.sleep(300)\n")
    with typing(folder, "run", WARM) as user:
        user.expect("test_a")
        user.type("\x03")
        user.expect("CANCELLED")
        assert user.ends() == 130
