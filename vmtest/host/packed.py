"""What is packed by anybody: how much it may unpack to, and reading it up to that."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import zstandard

from vmtest.host.tarstream import TooLarge

GROWTH = 64
"""What anything unpacks to, of its own size, at the most; packages of kernels to about 6 times."""
SMALL = 64 << 20
"""What anything may unpack to however small it is, in bytes."""
DAMAGED = (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError)
"""What reading a damaged file raises."""
_CHUNK = 1 << 20
_ZSTD_WINDOW = 1 << 27  # as zstd itself takes without --long


def unpack_limit(size: int) -> int:
    """What something of ``size`` bytes may unpack to, in bytes."""
    return GROWTH * size + SMALL


@contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """The content of ``file``, unpacked if it begins as gzip, xz, zstd or bzip2 does.

    Reading it raises one of DAMAGED.  The caller counts what comes.
    """
    with file.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        if magic[:2] == b"\x1f\x8b":
            with gzip.open(raw) as stream:
                yield cast(IO[bytes], stream)
        elif magic == b"\xfd7zXZ\0":
            with lzma.open(raw) as stream:
                yield cast(IO[bytes], stream)
        elif magic[:4] == b"\x28\xb5\x2f\xfd":
            decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
            with decompressor.stream_reader(raw, read_across_frames=True) as packed:
                yield cast(IO[bytes], packed)
        elif magic[:3] == b"BZh":
            with bz2.open(raw) as stream:
                yield cast(IO[bytes], stream)
        else:
            yield raw


def check_unpacked(file: Path) -> None:
    """Raise TooLarge when ``file`` unpacks to more than :func:`unpack_limit`, or one of DAMAGED."""
    limit = left = unpack_limit(file.stat().st_size)
    with opened(file) as stream:
        while data := stream.read(_CHUNK):
            left -= len(data)
            if left < 0:
                raise TooLarge(f"it unpacks to more than {limit >> 20} MiB")


def unpacked(file: Path, limit: int) -> bytes:
    """The content of ``file``; raises TooLarge above ``limit`` bytes, or one of DAMAGED."""
    with opened(file) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(f"it unpacks to more than {limit >> 20} MiB")
    return data
