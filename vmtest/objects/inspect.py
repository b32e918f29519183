"""What an object file holds: programs, maps, globals and layouts, read without loading it.

By pyelftools and the bytes of `.BTF`, not by libbpf: that refuses what it could not load (legacy
maps, no BTF), names no variable without BTF, and is C code on anybody's bytes.
"""

from __future__ import annotations

import io
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section, SymbolTableSection

from vmtest.errors import UsageError
from vmtest.objects.btf import Btf, BtfError, Kind, Member
from vmtest.objects.sections import MAP_FLAGS, MAP_TYPES, map_type, types_of

LIMIT = 32 << 20
"""Bytes of a file beyond which it is surely no BPF object."""
_INSTRUCTION = 8
_LEGACY_MAP = "IIIII"  # struct bpf_map_def of libbpf before 1.0; older ones end before the flags
_MOST_SECTIONS = 65_536
_BTF_MAPS, _LEGACY_MAPS = ".maps", "maps"
_STRUCT_OPS = (".struct_ops", ".struct_ops.link")
_STRUCT_OPS_TYPE = MAP_TYPES.index("struct_ops")
_LINK = 1 << MAP_FLAGS.index("link")
_MAPS_OF_FDS = ("array_of_maps", "hash_of_maps", "prog_array")
_FD_SIZE = 4
_DEEPEST_MAP = 4  # the kernel has one level of maps of maps


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """A program, or a function that programs call (``type`` is ``function``).

    ``type`` and ``attach_type`` are "" where the section does not say;
    ``instructions`` count a load of 64 bits twice, as the kernel does.
    """

    name: str
    section: str
    type: str
    attach_type: str
    instructions: int


@dataclass(frozen=True, slots=True)
class MapInfo:
    """A map; sizes in bytes, None where it does not say (no BTF); ``key``, ``value`` as in C.

    ``inner`` is the map that a map of maps has for each of its entries; it has no name of its own.
    """

    name: str
    type: str
    key_size: int | None
    value_size: int | None
    max_entries: int | None
    flags: int
    key: str = ""
    value: str = ""
    legacy: bool = False
    pinned: bool = False
    inner: MapInfo | None = None


@dataclass(frozen=True, slots=True)
class GlobalInfo:
    """A global variable: its section, size in bytes, and initial bytes (hex, "" when zero).

    ``number`` is its value where it is an integer of C.
    """

    name: str
    section: str
    size: int
    type: str
    initial: str
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """A structure or union, size in bytes."""

    name: str
    size: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """All of an object file; ``layouts`` are those of keys, values and globals."""

    path: str
    license: str
    btf: bool
    programs: tuple[ProgramInfo, ...]
    maps: tuple[MapInfo, ...]
    globals: tuple[GlobalInfo, ...]
    layouts: tuple[Layout, ...]


def inspect(path: Path) -> ObjectInfo:
    """What the object file at ``path`` holds; raises UsageError when it is not one."""
    data = _read(path)
    try:
        return _Object(path, data).info()
    except BtfError as error:
        raise UsageError(f"{path}: its BTF {error}; build the object again") from error
    except (ELFError, ConstructError, struct.error, ArithmeticError, LookupError) as error:
        raise UsageError(
            f"{path}: is a damaged or truncated ELF file ({error}); build the object again"
        ) from error


def context_structures(path: Path) -> dict[str, str]:
    """The structure that the first argument of a function points to, by the function's name.

    As the BTF of the object file at ``path`` has it; empty where it cannot be read.
    """
    try:
        return dict(_Object(path, _read(path)).contexts())
    except (UsageError, BtfError, ELFError, ConstructError, struct.error, LookupError):
        return {}


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path}: is not a file; name an object file, such as build/x.bpf.o")
        if status.st_size > LIMIT:
            raise UsageError(
                f"{path}: has {status.st_size >> 20} MiB, more than {LIMIT >> 20}; "
                "that is not a BPF object"
            )
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    if not data:
        raise UsageError(f"{path}: is empty; build the object again")
    if not data.startswith(b"\x7fELF"):
        raise UsageError(f"{path}: is not an ELF file, so it is not a BPF object")
    return data


@dataclass(frozen=True, slots=True)
class _Symbol:
    """``section`` is the number of the section it lies in."""

    name: str
    kind: str
    section: int
    value: int
    size: int


class _Object:
    """An object file while it is read."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._data = data
        elf = ELFFile(io.BytesIO(data))
        if elf["e_machine"] != "EM_BPF":
            raise UsageError(f"{path}: is not a BPF object: it is for {elf['e_machine']}")
        if elf.num_sections() > _MOST_SECTIONS:
            raise ELFError(f"{elf.num_sections()} sections")
        self._order = "<" if elf.little_endian else ">"
        self._sections: list[Section] = list(elf.iter_sections())
        self._symbols = list(self._read_symbols())
        number = self._number(".BTF")
        self._btf = None if number is None else Btf(self._content(number), elf.little_endian)
        self._types = self._btf.variables() if self._btf else {}
        self._shown: list[int] = []  # types whose layouts are told

    def info(self) -> ObjectInfo:
        maps, variables = tuple(self._maps()), tuple(self._globals())
        license_ = self._number("license")
        text = b"" if license_ is None else self._content(license_)
        return ObjectInfo(
            path=str(self._path),
            license=text.rstrip(b"\0").decode(errors="replace"),
            btf=self._btf is not None,
            programs=tuple(self._programs()),
            maps=maps,
            globals=variables,
            layouts=tuple(self._layouts()),
        )

    def contexts(self) -> Iterator[tuple[str, str]]:
        btf = self._btf
        for function in btf.types if btf else ():
            if btf is None or function.kind is not Kind.FUNC:
                continue
            arguments = btf[function.size_or_type].words  # pairs of a name and a type
            first = btf.resolved(arguments[1]) if len(arguments) > 1 else None
            if first is not None and first.kind is Kind.PTR:
                yield function.name, btf.resolved(first.size_or_type).name

    def _number(self, name: str) -> int | None:
        return next((n for n, s in enumerate(self._sections) if s.name == name), None)

    def _content(self, number: int) -> bytes:
        """The bytes of a section as they lie in the file; pyelftools would decompress them."""
        section = self._sections[number]
        start, size = section["sh_offset"], section["sh_size"]
        if start + size > len(self._data):
            raise ELFError(f"section {section.name} ends behind the file")
        return self._data[start : start + size]

    def _read_symbols(self) -> Iterator[_Symbol]:
        for number, table in enumerate(self._sections):
            if not isinstance(table, SymbolTableSection):
                continue
            self._content(number)
            for symbol in table.iter_symbols():
                index = symbol["st_shndx"]
                if isinstance(index, int) and 0 < index < len(self._sections):
                    kind = str(symbol["st_info"]["type"])
                    where = (index, symbol["st_value"], symbol["st_size"])
                    yield _Symbol(symbol.name, kind, *where)

    def _in(self, number: int | None, kind: str = "STT_OBJECT") -> list[_Symbol]:
        found = [s for s in self._symbols if s.section == number and s.kind == kind]
        return sorted(found, key=lambda symbol: symbol.value)

    def _programs(self) -> Iterator[ProgramInfo]:
        for number, section in enumerate(self._sections):
            if not section["sh_flags"] & 4:  # SHF_EXECINSTR
                continue
            for symbol in self._in(number, "STT_FUNC"):
                kind, attach = types_of(section.name)
                if section.name == ".text":
                    kind = "function"
                count = symbol.size // _INSTRUCTION
                yield ProgramInfo(symbol.name, section.name, kind, attach, count)

    def _maps(self) -> Iterator[MapInfo]:
        for symbol in self._in(self._number(_BTF_MAPS)):
            if self._btf is None or symbol.name not in self._types:
                yield MapInfo(symbol.name, "", None, None, None, 0)
            else:
                yield self._btf_map(self._btf, symbol.name, self._types[symbol.name])
        for number, section in enumerate(self._sections):
            if section.name == _LEGACY_MAPS or section.name.startswith(f"{_LEGACY_MAPS}/"):
                yield from self._legacy_maps(number)
            elif section.name.removeprefix("?") in _STRUCT_OPS and self._btf is not None:
                yield from self._struct_ops(self._btf, number)

    def _legacy_maps(self, number: int) -> Iterator[MapInfo]:
        content = self._content(number)
        size = struct.calcsize(_LEGACY_MAP)
        for symbol in self._in(number):
            data = content[symbol.value : symbol.value + min(symbol.size or size, size)]
            if len(data) < min(symbol.size or size, size):
                raise ELFError(f"{symbol.name} ends behind section {self._sections[number].name}")
            where = struct.unpack(f"{self._order}{_LEGACY_MAP}", data.ljust(size, b"\0"))
            kind, key, value, entries, flags = where
            yield MapInfo(symbol.name, map_type(kind), key, value, entries, flags, legacy=True)

    def _struct_ops(self, btf: Btf, number: int) -> Iterator[MapInfo]:
        """Tables of functions, of which libbpf makes maps of one entry each."""
        link = _LINK if self._sections[number].name.endswith(".link") else 0
        for symbol in self._in(number):
            if (kind := self._types.get(symbol.name)) is None:
                continue
            self._shown.append(kind)
            size, text = btf.size(kind), btf.name(kind)
            name = map_type(_STRUCT_OPS_TYPE)
            yield MapInfo(symbol.name, name, _FD_SIZE, size, 1, link, "", text)

    def _btf_map(self, btf: Btf, name: str, kind: int, depth: int = 0) -> MapInfo:
        """A map defined by the members of a structure: a number is the length of an array."""
        numbers: dict[str, int | None] = {}
        types: dict[str, int] = {}
        values: int | None = None
        for member, number, _ in btf.entries(btf.resolved(kind)):
            if member == "values":
                values = number
                continue
            pointer = btf.resolved(number)
            if pointer.kind is not Kind.PTR:
                continue
            if member in ("key", "value"):
                types[member] = pointer.size_or_type
                known = btf.resolved(pointer.size_or_type).kind is not Kind.FWD
                numbers[f"{member}_size"] = btf.size(pointer.size_or_type) if known else None
            elif (target := btf.resolved(pointer.size_or_type)).kind is Kind.ARRAY:
                numbers[member] = target.words[2]
        self._shown += types.values()
        of = map_type(numbers.get("type") or 0)
        inner = None
        if values is not None and of in _MAPS_OF_FDS:
            # Each value is the descriptor of a map or a program: libbpf tells its size by that.
            numbers.setdefault("value_size", _FD_SIZE)
            inner = self._inner(btf, values, depth)
        return MapInfo(
            name=name,
            type=of,
            key_size=numbers.get("key_size", 0),
            value_size=numbers.get("value_size", 0),
            max_entries=numbers.get("max_entries", 0),
            flags=numbers.get("map_flags") or 0,
            key=btf.name(types["key"]) if "key" in types else "",
            value=btf.name(types["value"]) if "value" in types else "",
            pinned=bool(numbers.get("pinning", 0)),
            inner=inner,
        )

    def _inner(self, btf: Btf, values: int, depth: int) -> MapInfo | None:
        """The map that ``__array(values, ...)`` names; None for the functions of a prog array."""
        array = btf.resolved(values)
        pointer = btf.resolved(array.words[0]) if array.kind is Kind.ARRAY else array
        if pointer.kind is not Kind.PTR or depth >= _DEEPEST_MAP:
            return None
        if btf.resolved(pointer.size_or_type).kind is not Kind.STRUCT:
            return None
        return self._btf_map(btf, "", pointer.size_or_type, depth + 1)

    def _globals(self) -> Iterator[GlobalInfo]:
        for number, section in enumerate(self._sections):
            if not section.name.startswith((".data", ".bss", ".rodata")):
                continue
            zero = section["sh_type"] == "SHT_NOBITS"
            content = b"" if zero else self._content(number)
            for symbol in self._in(number):
                initial = content[symbol.value : symbol.value + symbol.size]
                if not zero and len(initial) < symbol.size:
                    raise ELFError(f"{symbol.name} ends behind section {section.name}")
                yield self._global(symbol, section.name, initial)

    def _global(self, symbol: _Symbol, section: str, initial: bytes) -> GlobalInfo:
        size, text = symbol.size, initial.hex() if any(initial) else ""
        number = self._types.get(symbol.name)
        if self._btf is None or number is None:
            return GlobalInfo(symbol.name, section, size, "", text)
        self._shown.append(number)
        found = self._btf.resolved(number)
        value = None
        if found.kind in (Kind.INT, Kind.ENUM, Kind.ENUM64):
            # Of an integer the word behind the type says in bit 24 whether it has a sign.
            signed = found.flag if found.kind is not Kind.INT else bool(found.words[0] >> 24 & 1)
            order: Literal["little", "big"] = "little" if self._order == "<" else "big"
            value = int.from_bytes(initial, order, signed=signed)
        return GlobalInfo(symbol.name, section, size, self._btf.name(number), text, value)

    def _layouts(self) -> Iterator[Layout]:
        if self._btf is None:
            return
        for number in self._btf.structures(self._shown):
            name, size = self._btf.name(number), self._btf.size(number)
            yield Layout(name, size, self._btf.members(number))
