"""A guest's memory as a file without a name (memfd): QEMU opens it, and this process writes it.

So a guest is saved and restored without its memory passing through QEMU, which takes it page by
page.  On disk are the parts that are not zero, one behind the other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

Part = tuple[int, int]
"""Where in the memory, and how long, in bytes."""

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")
_PAGE = 4096
_ZEROS = bytes(_PAGE)
_PIECE = 1 << 20


class Memory:
    """The memory of one guest: ``size`` bytes, which are zero at first.

    Raises OSError where there can be none.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._descriptor = os.memfd_create("vmtest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.truncate(self._descriptor, size)
            # Who else opens it could make it shorter while it is read.
            fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it; who has opened it keeps it."""
        os.close(self._descriptor)

    @property
    def path(self) -> Path:
        """Where another process of this user opens it, until it is closed here."""
        return Path(f"/proc/{os.getpid()}/fd/{self._descriptor}")

    def unreachable(self) -> str:
        """Why QEMU would not find it at its path, or could lose it; "" when nothing is known."""
        with suppress(OSError):
            if _OVERCOMMIT.read_bytes().strip() == b"2":
                # Its pages are promised to nobody: QEMU would end where there are no more.
                return "the host promises no memory that it may not have (vm.overcommit_memory=2)"
        found = None
        with suppress(OSError):
            found = self.path.stat()
        if found is None or not os.path.samestat(found, os.fstat(self._descriptor)):
            return "/proc is that of another PID namespace"
        if subprocess.run(["test", "-w", self.path], check=False).returncode != 0:
            # As where this process has rights that it cannot give to others.
            return "other processes of this user may not open what this one has open"
        return ""

    def write_to(self, file: IO[bytes]) -> list[Part]:
        """Write the pages that are not zero to ``file``; returns the parts, from the start on."""
        parts: list[Part] = []
        for place, data in self._pieces():
            view = memoryview(data)
            for start, length in _filled(data):
                file.write(view[start : start + length])
                if parts and sum(parts[-1]) == place + start:
                    before, so_far = parts.pop()
                    parts.append((before, so_far + length))
                else:
                    parts.append((place + start, length))
        return parts

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        """Where each piece stands that was ever written to, and the piece."""
        place = 0
        while place < self.size:
            try:
                place = os.lseek(self._descriptor, place, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return  # nothing but a hole is left
            end = os.lseek(self._descriptor, place, os.SEEK_HOLE)
            while place < end:
                data = os.pread(self._descriptor, min(_PIECE, end - place), place)
                yield place, data
                place += len(data)

    def read_from(self, file: IO[bytes], parts: Iterable[Part]) -> None:
        """Take what :meth:`write_to` wrote; raises OSError, also for a ``file`` that is shorter."""
        offset = 0
        for place, length in parts:
            os.lseek(self._descriptor, place, os.SEEK_SET)
            end = offset + length
            while offset < end:
                # As the kernel copies it: it passes through no memory of this process.
                count = os.sendfile(self._descriptor, file.fileno(), offset, end - offset)
                if count == 0:
                    raise OSError(errno.EIO, "it ends too early", file.name)
                offset += count


def _filled(data: bytes) -> Iterator[Part]:
    """The runs of pages in ``data`` that are not zero; it begins where a page does."""
    start = None
    for page in range(0, len(data), _PAGE):
        if data[page : page + _PAGE] == _ZEROS:
            if start is not None:
                yield start, page - start
            start = None
        elif start is None:
            start = page
    if start is not None:
        yield start, len(data) - start
