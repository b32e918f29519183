"""Writing files so that nobody finds half of one, and errors name what could not be written."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import IO, Any

_IN_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)
"""A folder that takes no new file, or a file that is a mount of its own (a container's volume)."""


_BLOCK = 1 << 20  # bytes that are written at once, of smaller pieces

_Content = bytes | Iterable[bytes]
Data = str | bytes | Iterable[bytes]
"""What a file is to hold, as a whole or in pieces."""


def write_file(path: Path, data: Data, mode: int | None = None) -> None:
    """Write ``data`` to ``path`` so that a reader sees all of it or the old one.

    It is written beside and renamed.  A symbolic link is followed and stays; a pipe, a
    terminal or /dev/stdout is written to as it is.  ``mode`` defaults to that of
    the old file, or to what the umask leaves.  Raises OSError with ``path`` as its file's name.
    """
    content = data.encode("utf-8", "replace") if isinstance(data, str) else data
    try:
        _write(path, content, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write(path: Path, content: _Content, mode: int | None) -> None:
    try:
        there: os.stat_result | None = path.stat()
    except FileNotFoundError:
        there = None
    if there is not None and (stream := _standard_stream(there)) is not None:
        # Behind what was printed there, and not over it.
        (sys.stdout if stream == 1 else sys.stderr).flush()
        _put(stream, content)
        return
    if there is not None and not stat.S_ISREG(there.st_mode):
        _over(path, content)
        return
    target = Path(os.path.realpath(path))
    # Not named after the target, whose name may be as long as names can be.
    new = target.with_name(f".vmtest-{secrets.token_hex(6)}")
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if there is None or error.errno not in _IN_PLACE:
            raise
        _over(target, content)
        return
    try:
        _put_and_close(handle, content)
        _move(new, target, mode if there is None else mode or stat.S_IMODE(there.st_mode))
    finally:
        new.unlink(missing_ok=True)


def _standard_stream(there: os.stat_result) -> int | None:
    """1 or 2 for a file that is this process's standard output or error."""
    for number in (1, 2):
        try:
            if os.path.samestat(os.fstat(number), there):
                return number
        except OSError:
            continue  # closed
    return None


def _move(new: Path, target: Path, mode: int | None) -> None:
    """Have ``target`` hold what ``new`` does, which may be gone then."""
    try:
        if mode is not None:
            new.chmod(mode)
        new.rename(target)
    except OSError as error:
        if error.errno not in _IN_PLACE or not target.exists():
            raise
        with new.open("rb") as written:  # the pieces themselves are used up
            _over(target, iter(partial(written.read, _BLOCK), b""))


def _over(path: Path, content: _Content) -> None:
    _put_and_close(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC), content)


def _put_and_close(handle: int, content: _Content) -> None:
    try:
        _put(handle, content)
    finally:
        os.close(handle)


def _put(handle: int, content: _Content) -> None:
    with open(handle, "wb", buffering=_BLOCK, closefd=False) as file:
        file.writelines((content,) if isinstance(content, bytes) else content)


LOG_LIMIT = 256 << 20
"""Bytes of a log that a guest writes, after which the rest is not kept."""


class LimitedLog(io.FileIO):
    """A log that grows as a guest wants: after ``limit`` bytes it says so, and keeps no more."""

    def __init__(self, path: Path, mode: str = "wb", limit: int = LOG_LIMIT) -> None:
        super().__init__(path, mode)
        self._limit = limit
        self._left = limit - self.tell()
        self._said = False

    def write(self, data: Any) -> int:
        """Write what there is room for; says that all of the rest was written."""
        if self._left > 0:
            written = super().write(bytes(data[: self._left])) or 0
            self._left -= written
            return written
        if not self._said:
            self._said = True
            said = f"\n(vmtest: over {self._limit >> 20} MiB: the rest is not kept)\n"
            super().write(said.encode())
        return len(data)


class LimitedRows(io.FileIO):
    """Rows that a guest sends: beyond ``limit`` bytes it takes none and raises OSError (EFBIG).

    A log may be cut. Results may not: without their last rows they would look whole.
    """

    def __init__(self, path: Path, mode: str = "wb", limit: int = LOG_LIMIT) -> None:
        super().__init__(path, mode)
        self._limit = limit
        self._size = self.tell()

    def write(self, data: Any) -> int:
        """Write ``data``; raises OSError where there is no room for all of it."""
        if self._size + len(data) > self._limit:
            words = f"the guest sent more than {self._limit >> 20} MiB of results"
            raise OSError(errno.EFBIG, words, str(self.name))
        written = super().write(data) or 0
        self._size += written
        return written


def append(file: IO[bytes], data: bytes) -> None:
    """Write ``data`` at the end of ``file``, at once; raises OSError with the file's name.

    Open the file without a buffer: one that could not be emptied fails once more when it closes.
    """
    try:
        while data:
            data = data[file.write(data) :]
        file.flush()
    except OSError as error:
        name = getattr(file, "name", None)
        raise OSError(error.errno, error.strerror, name and str(name)) from error
