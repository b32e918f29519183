"""What the modules of a kernel in the store have: functions, tracepoints, struct_ops, by name.

A kernel's package has thousands of modules, and a guest has few of them loaded. The index of a
kernel is made when a name is first looked up in it, and kept in the cache.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vmtest.host import cache
from vmtest.host.packed import DAMAGED, unpacked
from vmtest.host.tarstream import TooLarge
from vmtest.model.kernels import KernelImage

KIND = "modules"
"""The folder of the cache for indexes, and the kind of its entries."""

_FORMAT = 1
"""Of an index's file; raised when what it has changes."""
_ELF = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SHT_SYMTAB = 2
_OBJECT, _FUNCTION = 1, 2  # ELF symbol types
_STRUCT_OPS = re.compile(rb"\0(bpf_struct_ops_\w+)(?=\0)")
_SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")


def module_with(image: KernelImage, name: str, root: Path) -> str | None:
    """The module of ``image``'s own that defines ``name``, None if none does.

    ``name`` is a function, ``__tracepoint_EVENT``, or ``bpf_struct_ops_STRUCT``. ``root`` is the
    cache. Of several modules the first by name. Raises InfrastructureError for a cache that
    cannot be written.
    """
    if image.modules is None:
        return None
    _, found, rest = _index(image, root).partition(f"\n{name} ")
    return rest.partition("\n")[0] if found else None


def _index(image: KernelImage, root: Path) -> str:
    name = f"modules-{cache.safe_name(image.release)}-{image.digest[:12]}.{_FORMAT}"
    place, lock = root / KIND / name, f"{KIND}-{name}"
    cache.hold(root, lock)
    with suppress(ValueError):
        return read_index(place)
    with cache.locked(root, lock):
        with suppress(ValueError):  # another runner was faster
            return read_index(place)
        text = "\n" + "".join(sorted(_lines(image)))
        with cache.scratch(root, lock) as folder:
            made = folder / "index"
            made.write_bytes(zlib.compress(text.encode(), 1))
            cache.publish(made, place)
    return text


MODULE_LIMIT = 256 << 20
"""What a module may unpack to, in bytes; a larger one is not looked into."""


def indexes(root: Path) -> list[Path]:
    """The files of all indexes in the cache ``root``, damaged ones too."""
    return sorted((root / KIND).glob("*"))


def read_index(place: Path) -> str:
    """The index in the file ``place``: lines ``NAME MODULE``, the first one empty.

    Raises ValueError with what is wrong with it: its own checksum does not fit, or it is missing.
    """
    try:
        return zlib.decompress(place.read_bytes()).decode()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    except (zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"does not fit its checksum: {error}") from error


def _lines(image: KernelImage) -> Iterator[str]:
    assert image.modules is not None
    for path in sorted((image.modules / "kernel").rglob("*.ko*")):
        module = path.name.partition(".")[0].replace("-", "_")
        if path.name.endswith(_SUFFIXES):
            for name in sorted(_defined(_unpacked(path))):
                yield f"{name} {module}\n"


def _unpacked(path: Path) -> bytes:
    try:
        return unpacked(path, MODULE_LIMIT)
    except (*DAMAGED, TooLarge):
        return b""  # a damaged module has nothing that could be loaded


def _defined(data: bytes) -> set[str]:
    """The functions and tracepoints in a module's symbol table, and the struct_ops in its BTF."""
    names = {match.decode() for match in _STRUCT_OPS.findall(data)}
    try:
        names |= set(_symbols(data))
    except (struct.error, IndexError):
        return set()  # no ELF file
    return names


def _symbols(data: bytes) -> Iterator[str]:
    if data[:4] != b"\x7fELF":
        return
    header = _ELF.unpack_from(data)
    start, size, count = header[5], header[10], header[11]
    sections = [_SECTION.unpack_from(data, start + n * size) for n in range(count)]
    for kind, offset, length, link in ((s[1], s[4], s[5], s[6]) for s in sections):
        if kind != _SHT_SYMTAB:
            continue
        strings = sections[link][4]
        for name, info, _, section, _, _ in _SYMBOL.iter_unpack(data[offset : offset + length]):
            if section and info & 15 in (_OBJECT, _FUNCTION):
                begin = strings + name
                text = data[begin : data.index(b"\0", begin)]
                if info & 15 == _FUNCTION or text.startswith(b"__tracepoint_"):
                    yield text.decode(errors="replace")
