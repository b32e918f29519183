"""An .rpm as small as it gets: the lead, two empty headers, and a cpio archive (rpm's format 3)."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping
from pathlib import Path

_LEAD = b"\xed\xab\xee\xdb\x03\x00" + bytes(90)
_HEADER = b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", 0, 0)


def _cpio(name: str, data: bytes, mode: int = 0o100644, number: int = 0) -> bytes:
    """One member in the format newc: cpio(5)."""
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def write(file: Path, files: Mapping[str, bytes]) -> Path:
    """Write an .rpm that holds ``files`` by their path without the first slash."""
    members = [_cpio(f"./{name}", data, number=n) for n, (name, data) in enumerate(files.items())]
    archive = b"".join([*members, _cpio("TRAILER!!!", b"", 0)])
    file.write_bytes(_LEAD + _HEADER + _HEADER + gzip.compress(archive, mtime=0))
    return file
