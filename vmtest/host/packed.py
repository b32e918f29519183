"""What is packed by anybody: how much it may unpack to, and reading it up to that."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

import zstandard

from vmtest.host.tarstream import TooLarge

GROWTH = 64
"""What anything unpacks to, of its own size, at the most; packages of kernels to about 6 times."""
SMALL = 64 << 20
"""What anything may unpack to however small it is, in bytes."""
DAMAGED = (OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError)
"""What reading a damaged file raises."""
_CHUNK = 1 << 20
# RFC 8878, 3.1: a frame's longest header, a frame to skip, a block of one byte again and again.
_ZSTD_HEADER = 18
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
_ZSTD_RUN = 1
_ZSTD_WINDOW = 1 << 27  # as zstd itself takes without --long


def unpack_limit(size: int) -> int:
    """What something of ``size`` bytes may unpack to, in bytes."""
    return GROWTH * size + SMALL


@contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """The content of ``file``, unpacked if it begins as gzip, xz, zstd or bzip2 does.

    Raises one of DAMAGED, and so does reading it.  The caller counts what comes.
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
            _check_frames(raw)
            decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
            with decompressor.stream_reader(raw, read_across_frames=True) as packed:
                yield cast(IO[bytes], packed)
        elif magic[:3] == b"BZh":
            with bz2.open(raw) as stream:
                yield cast(IO[bytes], stream)
        else:
            yield raw


def _check_frames(raw: BinaryIO) -> None:
    """Raise ZstdError unless the frames of ``raw`` reach to its end, which is its beginning again.

    zstandard's reader takes the end of a file for the end of its content.
    """
    size = raw.seek(0, os.SEEK_END)
    raw.seek(0)
    while head := raw.read(_ZSTD_HEADER):
        place = raw.tell() - len(head)
        if head[1:4] == _ZSTD_SKIPPABLE and head[0] & 0xF0 == 0x50:
            place += 8 + int.from_bytes(head[4:8].ljust(4, b"\xff"), "little")
        else:
            frame = zstandard.get_frame_parameters(head)
            place += zstandard.frame_header_size(head)
            last = False
            while not last:
                raw.seek(place)
                block = int.from_bytes(raw.read(3).ljust(3, b"\xff"), "little")
                last, packing = bool(block & 1), block >> 1 & 3
                place += 3 + (1 if packing == _ZSTD_RUN else block >> 3)
            place += 4 if frame.has_checksum else 0
        if place > size:
            raise zstandard.ZstdError("it ends before its content does")
        raw.seek(place)
    raw.seek(0)


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
