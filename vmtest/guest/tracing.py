# SPDX-License-Identifier: MIT
"""What bpf_trace_printk() prints: the kernel's trace_pipe."""

import contextlib
import os
import pathlib
import re
import subprocess

from vmtest.guest.closing import Closing

_USUAL_PLACE = pathlib.Path("/sys/kernel/tracing")
# "python3-71  [000] d..31  12.345678: bpf_trace_printk: the text"
_PRINTED = re.compile(r": bpf_trace_printk: (.*)")
_READ_SIZE = 1 << 16


class TracePipe(Closing):
    """The reader of trace_pipe; a context manager that closes it.

    bpf_trace_printk() always prints to the kernel's only global buffer, which anybody may write to
    and which gives each line to one reader: lines of other programs have to be expected.
    """

    def __init__(self) -> None:
        """Opens it, mounting tracefs if nobody has, and drops what is there.

        Raises OSError, CalledProcessError.
        """
        folder = mount_point()
        (folder / "tracing_on").write_text("1")
        self._fd = os.open(folder / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        self._rest = b""
        self.lines()

    def close(self) -> None:
        """Closes it; a second time it does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def lines(self) -> list[str]:
        """The lines that came since this was last asked, as they are, oldest first."""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._fd, _READ_SIZE):
                self._rest += piece
        *lines, self._rest = self._rest.split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def texts(self, beginning: str = "") -> list[str]:
        """Of the same lines those that bpf_trace_printk() printed: what follows the prefix.

        Only those that begin with `beginning`.
        """
        found = (_PRINTED.search(line) for line in self.lines())
        texts = (match.group(1) for match in found if match is not None)
        return [text for text in texts if text.startswith(beginning)]


def mount_point() -> pathlib.Path:
    """Where tracefs is mounted; mounts it if it is nowhere. Raises CalledProcessError."""
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "tracefs":
            return pathlib.Path(folder)
    subprocess.run(["mount", "-t", "tracefs", "tracefs", _USUAL_PLACE], check=True, timeout=60)
    return _USUAL_PLACE
