"""Kernel files small enough for a unit test: the headers that vmtest reads, and nothing else."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import zstandard

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": lambda data: lzma.compress(data, lzma.FORMAT_XZ, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    # As the kernel's build makes it: from a pipe, without a size, which it appends.
    "zstd": lambda data: (
        zstandard.ZstdCompressor(write_content_size=False).compress(data)
        + struct.pack("<I", len(data))
    ),
}


def elf(
    release: str,
    *,
    pvh: bool = True,
    owner: bytes = b"Xen\0",
    machine: int = 62,
    config: str | None = None,
) -> bytes:
    """A 64-bit ELF with a note segment, a version banner and, when asked, an embedded config."""
    note = struct.pack("<III", 4, 8, 18 if pvh else 6) + owner + struct.pack("<Q", 0x1000000)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x1000000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4)
    banner = f"Linux version {release} (builder@example) #1 SMP\n".encode()
    tail = b""
    if config is not None:
        tail = b"IKCFG_ST" + gzip.compress(config.encode(), mtime=0) + b"IKCFG_ED"
    return header + segment + note + banner + tail


def bzimage(release: str, compression: str = "zstd", payload: bytes | None = None) -> bytes:
    """A bzImage whose setup is one sector and whose payload is ``elf(release)``."""
    inner = COMPRESSORS[compression](elf(release) if payload is None else payload)
    image = bytearray(1024)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x20F)
    version = f"{release} (builder@example) #1 SMP".encode() + b"\0"
    struct.pack_into("<H", image, 0x20E, 0x300 - 0x200)
    image[0x300 : 0x300 + len(version)] = version
    struct.pack_into("<II", image, 0x248, 16, len(inner))
    return bytes(image) + bytes(16) + inner


def modules_tree(root: Path, release: str) -> Path:
    """``root/lib/modules/RELEASE`` with one file that stands for a module; without modules.dep."""
    folder = root / "lib" / "modules" / release
    (folder / "kernel" / "fs").mkdir(parents=True)
    (folder / "kernel" / "fs" / "README").write_text("no module\n")
    for name in ("modules.order", "modules.builtin"):
        (folder / name).touch()
    return folder
