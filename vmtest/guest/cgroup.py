# SPDX-License-Identifier: MIT
"""Control groups (v2) of a test: made, entered and removed.

A socket belongs to the group its process was in when it was made, for life: programs of a cgroup
see the sockets made within Cgroup.entered(), and no others.
"""

import contextlib
import errno
import itertools
import os
import pathlib
import time
from collections.abc import Iterator

_numbers = itertools.count(1)
_ENDING = 5.0  # seconds
_LOOK = 0.01


class Cgroup:
    """A control group."""

    def __init__(self, path: pathlib.Path) -> None:
        """`path` is its folder."""
        self.path = path

    def __repr__(self) -> str:
        return f"<Cgroup {self.path}>"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Moves this process into the group, and back at the end. Raises OSError."""
        before = mount_point() / _own_group()
        _move_into(self.path)
        try:
            yield
        finally:
            _move_into(before)


@contextlib.contextmanager
def temporary_cgroup(prefix: str = "vmtest") -> Iterator[Cgroup]:
    """A new group below the root, removed at the end. Raises OSError.

    What still ends in it has 5 s to do so.
    """
    path = mount_point() / f"{prefix}-{os.getpid()}-{next(_numbers)}"
    path.mkdir()
    try:
        yield Cgroup(path)
    finally:
        _remove(path)


def _remove(path: pathlib.Path) -> None:
    # Thread.join() returns before the kernel is done with the thread. One that ends moves to no
    # other group, and its own is busy until it has gone.
    deadline = time.monotonic() + _ENDING
    while True:
        try:
            path.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(_LOOK)
        else:
            return


def mount_point() -> pathlib.Path:
    """Where cgroup v2 is mounted. Raises FileNotFoundError if it is nowhere."""
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "cgroup2":
            return pathlib.Path(folder)
    raise FileNotFoundError("cgroup v2 is not mounted")


def _own_group() -> str:
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::/"):
            return line.removeprefix("0::/")
    raise FileNotFoundError("this process is in no cgroup v2")


def _move_into(folder: pathlib.Path) -> None:
    (folder / "cgroup.procs").write_text(str(os.getpid()))
