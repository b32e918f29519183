"""``vmtest`` in a guest that was booted once, for tests that need no more than a guest.

Each has a guest of its own, restored from the snapshot of the one that booted.  That a restored
guest is as a booted one, `test_snapshot.py` shows.  Tests of booting itself, of the command line,
of damaged files and of odd paths boot.
"""

from __future__ import annotations

from pathlib import Path

from command import Said, vmtest

WARM = "--warm"


def in_guest(command: str, *arguments: str, cwd: Path, timeout: float = 300) -> Said:
    """``vmtest COMMAND ARGUMENTS`` in ``cwd``, with guests restored where one was saved."""
    return vmtest(command, WARM, *arguments, cwd=cwd, timeout=timeout)
