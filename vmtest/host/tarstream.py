"""Tar streams that anybody may have made: read in bounded memory, and up to a limit."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Self, cast

_LARGEST_HEADER = 1 << 20
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class TooLarge(Exception):
    """A stream, a header or a file in it is larger than it may be."""


class _Member(tarfile.TarInfo):
    """tarfile reads long names and attributes as a whole, whatever their size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _HEADERS and found.size > _LARGEST_HEADER:
            raise TooLarge(f"a header in it has {found.size} bytes")
        return found


class _Limited:
    """A stream that ends with TooLarge after ``left`` bytes."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream, self._limit, self._left = stream, limit, limit

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise TooLarge(f"it unpacks to more than {self._limit >> 20} MiB")
        return data


@contextmanager
def open_stream(stream: IO[bytes], limit: int | None = None) -> Iterator[tarfile.TarFile]:
    """The tar in ``stream``, of ``limit`` bytes at most, to be read from front to back.

    Reading it raises tarfile.TarError for a stream that is not a tar, and TooLarge.
    """
    source = stream if limit is None else cast(IO[bytes], _Limited(stream, limit))  # it only reads
    with tarfile.open(fileobj=source, mode="r|", tarinfo=_Member) as tar:
        yield tar


def regular(member: tarfile.TarInfo) -> bool:
    """Whether ``member`` is a file whose bytes are all in the tar (holes are not)."""
    return member.isreg() and not member.issparse()
