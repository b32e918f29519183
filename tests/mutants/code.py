"""What of a BPF object the kernel runs: equal digests, equal behaviour.

Line numbers and file names change with any edit; they are in the debug
sections only.  What a map is like is in BTF only, so of BTF the maps' types and
those of the variables count, by structure and not by number.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

_IGNORED = (".debug", ".BTF", ".symtab", ".strtab", ".llvm", ".rel")

# enum of BTF kinds, Documentation/bpf/btf.rst
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM = 1, 2, 3, 4, 5, 6
_FUNC_PROTO, _VAR, _DATASEC, _DECL_TAG, _ENUM64 = 13, 14, 15, 17, 19
_HEADER = struct.Struct("<HBBIIIII")


@dataclass(frozen=True, slots=True)
class _Type:
    name: str
    kind: int
    size_or_type: int
    flag: bool
    extra: tuple[tuple[int, ...], ...]


def digest(data: bytes) -> str:
    """Of the object ``data``: its programs, data, relocations and maps (hexadecimal)."""
    elf = ELFFile(BytesIO(data))
    found = hashlib.sha256()
    btf = b""
    for section in elf.iter_sections():
        if section.name == ".BTF":
            btf = section.data()
        if isinstance(section, RelocationSection):
            target = elf.get_section(section["sh_info"])
            if not target.name.startswith(_IGNORED):
                for line in _relocations(elf, section):
                    found.update(f"{target.name} {line}\n".encode())
        elif section.name and not section.name.startswith(_IGNORED):
            found.update(f"{section.name} {section['sh_size']}\n".encode())
            found.update(section.data() if section["sh_type"] != "SHT_NOBITS" else b"")
    for line in declarations(btf):
        found.update(f"{line}\n".encode())
    return found.hexdigest()


def _relocations(elf: ELFFile, section: RelocationSection) -> Iterator[str]:
    symbols = elf.get_section(section["sh_link"])
    assert isinstance(symbols, SymbolTableSection), "a relocation section names its symbols"
    for relocation in section.iter_relocations():
        symbol = symbols.get_symbol(relocation["r_info_sym"])
        name = symbol.name or f"section {symbol['st_shndx']}"
        yield f"{relocation['r_offset']} {relocation['r_info_type']} {name}+{symbol['st_value']}"


def declarations(btf: bytes) -> list[str]:
    """The maps and global variables that ``btf`` (little-endian) describes, written out."""
    if not btf:
        return []
    types = _types(btf)
    return [
        f"{section.name} {types[variable].name}@{offset} {_written(types, variable, ())}"
        for section in types
        if section.kind == _DATASEC
        for variable, offset, _ in section.extra
    ]


def _types(btf: bytes) -> list[_Type]:
    _, _, _, header, types, length, strings, _ = _HEADER.unpack_from(btf)
    names = btf[header + strings :]
    at, end = header + types, header + types + length
    found = [_Type("void", 0, 0, False, ())]
    while at < end:
        name, info, third = struct.unpack_from("<III", btf, at)
        at += 12
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        width, entries = {
            _INT: (1, 1),
            _ARRAY: (3, 1),
            _STRUCT: (3, count),
            _UNION: (3, count),
            _ENUM: (2, count),
            _FUNC_PROTO: (2, count),
            _VAR: (1, 1),
            _DATASEC: (3, count),
            _DECL_TAG: (1, 1),
            _ENUM64: (3, count),
        }.get(kind, (0, 0))
        extra = []
        for _ in range(entries):
            extra.append(struct.unpack_from(f"<{width}I", btf, at))
            at += 4 * width
        if kind in (_STRUCT, _UNION, _ENUM, _ENUM64):
            # A member's name for its offset in the strings, which say nothing.
            extra = [(_number_of(_string(names, e[0])), *e[1:]) for e in extra]
        found.append(_Type(_string(names, name), kind, third, bool(info >> 31), tuple(extra)))
    return found


def _number_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "little")


def _string(names: bytes, offset: int) -> str:
    return names[offset : names.index(b"\0", offset)].decode()


def _written(types: list[_Type], number: int, above: tuple[int, ...]) -> str:
    """Type ``number`` and all that it is made of; a pointer back to where we are ends."""
    if number in above:
        return f"^{above.index(number)}"
    it, inside = types[number], (*above, number)
    head = f"{it.kind} {it.name} {int(it.flag)}"
    match it.kind:
        case 1 | 6 | 7 | 19:
            return f"({head} {it.size_or_type} {it.extra})"
        case 3:
            ((element, index, count),) = it.extra
            del index
            return f"({head} [{count}] {_written(types, element, inside)})"
        case 4 | 5:
            members = (
                f"{name}@{offset}:{_written(types, member, inside)}"
                for name, member, offset in it.extra
            )
            return f"({head} {it.size_or_type} {' '.join(members)})"
        case 13:
            return f"({head})"
    return f"({head} {_written(types, it.size_or_type, inside)})"
