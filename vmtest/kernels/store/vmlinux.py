"""What is inside a kernel file: its release, its payload, its PVH entry, its config.

Layouts: Documentation/arch/x86/boot.rst (the setup header of a bzImage), elf(5), and
include/xen/interface/elfnote.h (the PVH entry note).
"""

from __future__ import annotations

import bz2
import lzma
import re
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import zstandard

from vmtest.errors import KernelUnavailable
from vmtest.host.cache import find_tool
from vmtest.model.releases import is_release

_ELF = b"\x7fELF"
_MACHINE_X86_64 = 62
_PT_NOTE = 4
_PHYS32_ENTRY = 18  # XEN_ELFNOTE_PHYS32_ENTRY
_BANNER = re.compile(rb"Linux version (\S{3,})")
_LARGEST = 512 << 20
_MOST_MEMORY = 512 << 20
_LARGEST_CONFIG = 16 << 20
_TOO_LARGE = f"it unpacks to more than {_LARGEST >> 20} MiB"


class _LeftPacked(Exception):
    """A payload that is left as it is: nothing here unpacks it."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A kernel file, looked into.

    ``data`` is what to boot: the ELF with a PVH entry where there is one, else the
    compressed image; ``elf`` tells which.  ``config`` is the embedded config, None
    without CONFIG_IKCONFIG.
    """

    release: str
    data: bytes
    elf: bool
    config: str | None
    note: str = ""


def unpack(data: bytes, name: str) -> Unpacked:
    """Look into a vmlinuz, bzImage or ELF kernel for x86-64.

    ``name`` is what errors call it.  Raises KernelUnavailable when it is not one of them.
    """
    if data.startswith(_ELF):
        return _from_elf(data, name)
    if len(data) < 0x260 or data[0x202:0x206] != b"HdrS":
        raise KernelUnavailable(
            f"{name}: is not a Linux kernel for x86-64 ({_looks_like(data)}); "
            f"give a vmlinuz, a bzImage or an ELF vmlinux"
        )
    release = _checked(_setup_release(data), name)
    elf, why = _payload(data, name)
    if elf is None:
        if not release:
            raise KernelUnavailable(f"{name}: its header names no release, and {why}")
        return Unpacked(release, data, False, None, f"booted compressed: {why}")
    banner = _banner_release(elf, name)  # checked too: it is what virtme-ng looks for
    release = release or banner
    if not release:
        raise KernelUnavailable(f"{name}: names no kernel release")
    if not has_pvh_entry(elf):
        return Unpacked(
            release, data, False, embedded_config(elf), "booted compressed: no PVH entry"
        )
    return Unpacked(release, elf, True, embedded_config(elf))


def _from_elf(data: bytes, name: str) -> Unpacked:
    if len(data) < 64 or data[4] != 2 or struct.unpack_from("<H", data, 18)[0] != _MACHINE_X86_64:
        raise KernelUnavailable(f"{name}: is an ELF file for another machine than x86-64")
    release = _banner_release(data, name)
    if not release:
        raise KernelUnavailable(
            f"{name}: is an ELF file but no Linux kernel (it holds no version banner); "
            f"give a vmlinuz, a bzImage or an ELF vmlinux"
        )
    if not has_pvh_entry(data):
        raise KernelUnavailable(
            f"{name}: is an ELF kernel without a PVH entry, which QEMU cannot boot; "
            f"set CONFIG_PVH=y or give its bzImage instead"
        )
    return Unpacked(release, data, True, embedded_config(data))


def _looks_like(data: bytes) -> str:
    if not data:
        return "it is empty"
    if data[56:60] == b"ARM\x64":
        return "an arm64 image"
    if data.startswith(b"!<arch>\n"):
        return "a .deb package or an archive"
    if data.startswith(b"\x1f\x8b"):
        return "gzip data"
    return f"{len(data)} bytes that begin with {data[:8].hex(' ')}"


def _setup_release(data: bytes) -> str:
    offset = struct.unpack_from("<H", data, 0x20E)[0]
    if offset == 0 or offset + 0x200 >= len(data):
        return ""
    text = data[offset + 0x200 : offset + 0x200 + 256].split(b"\0", 1)[0]
    return text.decode("ascii", "replace").split(" ", 1)[0]


def _banner_release(elf: bytes, name: str) -> str:
    match = _BANNER.search(elf)
    return _checked(match.group(1).decode("ascii", "replace"), name) if match else ""


def _checked(release: str, name: str) -> str:
    """``release`` as a file gives it, "" for none; raises KernelUnavailable when none is called so.

    It becomes part of paths, and virtme-ng reads it as well.
    """
    if release and not is_release(release):
        raise KernelUnavailable(
            f"{name}: says that its release is {release[:80]!r}, which no kernel is called "
            f"(letters, digits and . + _ ~ -, 64 of them at most): it is damaged or forged"
        )
    return release


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _bounded(decompressor: _Decompressor, payload: bytes) -> bytes:
    """One stream, unpacked; raises ValueError when that is more than any kernel's file is."""
    data = decompressor.decompress(payload, _LARGEST + 1)
    if len(data) > _LARGEST:
        raise ValueError(_TOO_LARGE)
    return data


def _zstd(payload: bytes) -> bytes:
    # The first frame alone: the build appends the size, 4 bytes.
    with zstandard.ZstdDecompressor().stream_reader(payload, read_across_frames=False) as stream:
        data = stream.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise ValueError(_TOO_LARGE)
    return data


def _xz(payload: bytes) -> bytes:
    return _bounded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY), payload)


def _lzma(payload: bytes) -> bytes:
    return _bounded(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_MOST_MEMORY), payload)


def _gzip(payload: bytes) -> bytes:
    return _bounded(zlib.decompressobj(31), payload)


def _bzip2(payload: bytes) -> bytes:
    return _bounded(bz2.BZ2Decompressor(), payload)


def _lz4(payload: bytes) -> bytes:
    tool = find_tool("lz4")
    if tool is None:
        raise _LeftPacked("its payload is lz4 and the program lz4 is not installed")
    with tempfile.TemporaryFile() as packed:
        packed.write(payload[:-4])  # the 4 bytes of size at the end are not part of the stream
        packed.seek(0)
        with subprocess.Popen(
            [tool, "-dc"], stdin=packed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            data = process.stdout.read(_LARGEST + 1)
            process.kill()  # one that has more to say
    if len(data) > _LARGEST:
        raise ValueError(_TOO_LARGE)
    if not data.startswith(_ELF):
        raise _LeftPacked("its lz4 payload cannot be unpacked")
    return data


_FORMATS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x28\xb5\x2f\xfd", _zstd),
    (b"\xfd7zXZ\0", _xz),
    (b"\x1f\x8b", _gzip),
    (b"BZh", _bzip2),
    (b"\x5d\x00\x00", _lzma),
    (b"\x02\x21\x4c\x18", _lz4),
    (_ELF, lambda payload: payload),
)


_UNPACKING = (ValueError, OSError, EOFError, lzma.LZMAError, zlib.error, zstandard.ZstdError)


def decompress(data: bytes, name: str) -> bytes:
    """A module's file, unpacked whatever it was packed with; as it is when with nothing.

    Raises KernelUnavailable when ``name`` is damaged.
    """
    for magic, unpacker in _FORMATS:
        if data.startswith(magic):
            try:
                return unpacker(data)
            except (*_UNPACKING, _LeftPacked) as error:
                raise KernelUnavailable(f"{name}: is damaged: {error}") from error
    return data


def _payload(data: bytes, name: str) -> tuple[bytes | None, str]:
    """The ELF inside a bzImage, or None and why there is none."""
    if struct.unpack_from("<H", data, 0x206)[0] < 0x208:
        return None, "its boot protocol is older than 2.08"
    setup_sectors = data[0x1F1] or 4
    offset, length = struct.unpack_from("<II", data, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = data[start : start + length]
    if len(payload) < length or length == 0:
        raise KernelUnavailable(
            f"{name}: is truncated: its payload ends at byte {start + length}, "
            f"the file at {len(data)}"
        )
    for magic, unpacker in _FORMATS:
        if payload.startswith(magic):
            try:
                elf = unpacker(payload)
            except _LeftPacked as error:
                return None, str(error)
            except _UNPACKING as error:
                raise KernelUnavailable(
                    f"{name}: is damaged: its payload cannot be unpacked: {error}"
                ) from error
            if elf.startswith(_ELF):
                return elf, ""
            return None, "its payload is not an ELF file"
    return None, f"its payload is compressed in an unknown way ({payload[:6].hex(' ')})"


def has_pvh_entry(elf: bytes) -> bool:
    """Whether a 64-bit ELF carries the note by which QEMU boots it directly."""
    offset, size, count = _program_headers(elf)
    for index in range(count):
        at = offset + index * size
        if at + 56 > len(elf):
            return False
        kind, _, begin, _, _, length = struct.unpack_from("<IIQQQQ", elf, at)
        if kind == _PT_NOTE and _PHYS32_ENTRY in _xen_notes(elf[begin : begin + length]):
            return True
    return False


def _program_headers(elf: bytes) -> tuple[int, int, int]:
    if len(elf) < 64 or not elf.startswith(_ELF) or elf[4] != 2:
        return (0, 0, 0)
    offset = struct.unpack_from("<Q", elf, 32)[0]
    size, count = struct.unpack_from("<HH", elf, 54)
    return (offset, size, count)


def _xen_notes(notes: bytes) -> set[int]:
    """The types of the notes named Xen."""
    found = set()
    at = 0
    while at + 12 <= len(notes):
        name_size, value_size, kind = struct.unpack_from("<III", notes, at)
        if notes[at + 12 : at + 12 + name_size].rstrip(b"\0") == b"Xen":
            found.add(kind)
        at += 12 + (name_size + 3) // 4 * 4 + (value_size + 3) // 4 * 4
    return found


def embedded_config(data: bytes) -> str | None:
    """The config in a kernel built with CONFIG_IKCONFIG=y, None without."""
    begin = data.find(b"IKCFG_ST")
    end = data.find(b"IKCFG_ED", begin)
    if begin < 0 or end < 0:
        return None
    try:
        text = zlib.decompressobj(31).decompress(data[begin + 8 : end], _LARGEST_CONFIG)
    except zlib.error:
        return None
    return text.decode("utf-8", "replace")
