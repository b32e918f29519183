"""A program that downloads into a folder: ended when the folder stops growing."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from vmtest.host import interrupt
from vmtest.host.tarstream import TooLarge
from vmtest.kernels.files.download import DOWNLOAD_LIMIT

_POLL = 0.1
_PATIENCE = 120.0
_LEAST = 64 << 10


class Stalled(Exception):
    """Next to nothing arrived for a while; its text says so."""


def run(
    argv: Sequence[str],
    folder: Path,
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    seen: Callable[[], None] = lambda: None,
    limit: int = DOWNLOAD_LIMIT,
) -> int:
    """Run ``argv``, which downloads into ``folder``, and return its exit status.

    What it writes goes to ``log``; ``seen`` is called several times a second, and what it raises
    ends the program.  Raises Stalled when less than 64 KiB arrive in two minutes, TooLarge
    when more than ``limit`` bytes do, OSError when the program cannot be started, Interrupted.
    """
    with (
        log.open("wb") as output,
        interrupt.started(argv, stdout=output, stderr=subprocess.STDOUT, cwd=cwd, env=env) as done,
    ):
        size, since = 0, time.monotonic()
        while done.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                done.wait(_POLL)
            seen()
            if _bytes_below(folder) > limit:
                raise TooLarge(f"it is larger than {limit >> 20} MiB, which no such file is")
            if time.monotonic() - since < _PATIENCE:
                continue
            now = _bytes_below(folder)
            if abs(now - size) < _LEAST and done.poll() is None:
                raise Stalled(f"next to nothing arrived in {_PATIENCE:.0f} s")
            size, since = now, time.monotonic()
    return done.returncode


def _bytes_below(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # gone by now
            total += file.lstat().st_size
    return total
