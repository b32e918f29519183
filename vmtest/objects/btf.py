"""BTF, decoded from the bytes of an object's `.BTF` section: types, their sizes and layouts.

On the host, without libbpf (``vmtest.guest.btf`` asks that of an object it has open).
Source: Documentation/bpf/btf.rst of Linux.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

MAGIC = 0xEB9F
_DEEPEST = 32
"""Types within types; compilers stay far below, a damaged file may have a circle."""
_MOST_MEMBERS = 10_000


class Kind(IntEnum):
    """The kinds of types, from linux/btf.h."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_ALIASES = (Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG, Kind.VAR)
_SIZED = (Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.FLOAT)
_COMPOSITE = (Kind.STRUCT, Kind.UNION)

# Words of 32 bits that follow a type: once, and for each of its entries.
_MORE = {Kind.INT: 1, Kind.ARRAY: 3, Kind.VAR: 1, Kind.DECL_TAG: 1}
_EACH = {
    Kind.STRUCT: 3,
    Kind.UNION: 3,
    Kind.ENUM: 2,
    Kind.FUNC_PROTO: 2,
    Kind.DATASEC: 3,
    Kind.ENUM64: 3,
}


class BtfError(ValueError):
    """Bytes that are not BTF, or are damaged; says where."""


@dataclass(frozen=True, slots=True)
class Type:
    """One type: ``size_or_type`` as its kind has it, ``words`` what follows it."""

    name: str
    kind: Kind
    flag: bool
    size_or_type: int
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a structure: ``offset`` and ``size`` in bytes; ``bits`` of a bit field, else 0.

    A bit field's ``bit`` is its first bit within the byte at ``offset``.
    """

    name: str
    offset: int
    size: int
    type: str
    bits: int = 0
    bit: int = 0


class Btf:
    """The types of one object, by number; number 0 is void."""

    def __init__(self, data: bytes, little_endian: bool = True) -> None:
        """Decodes ``data``.  Raises BtfError."""
        self._order = "<" if little_endian else ">"
        try:
            self.types = self._decode(data)
        except struct.error as error:
            raise BtfError(f"is cut off: {error}") from error

    def _decode(self, data: bytes) -> tuple[Type, ...]:
        magic, _, _, length, start, size, names, names_size = struct.unpack_from(
            f"{self._order}HBBIIIII", data
        )
        if magic != MAGIC:
            raise BtfError(f"does not begin with the magic number {MAGIC:#x}")
        if length + max(start + size, names + names_size) > len(data):
            raise BtfError(f"is cut off: {len(data)} bytes of {length + names + names_size}")
        text = data[length + names : length + names + names_size]
        types = [Type("", Kind.VOID, False, 0, ())]
        offset, end = length + start, length + start + size
        while offset < end:
            name, info, size_or_type = struct.unpack_from(f"{self._order}III", data, offset)
            try:
                kind = Kind(info >> 24 & 0x1F)
            except ValueError:
                raise BtfError(
                    f"has a type {len(types)} of unknown kind {info >> 24 & 0x1F}"
                ) from None
            number = _MORE.get(kind, 0) + (info & 0xFFFF) * _EACH.get(kind, 0)
            words = struct.unpack_from(f"{self._order}{number}I", data, offset + 12)
            types.append(Type(_string(text, name), kind, bool(info >> 31), size_or_type, words))
            offset += 12 + 4 * number
        self._text = text
        return tuple(types)

    def __getitem__(self, number: int) -> Type:
        """The type with this number.  Raises BtfError."""
        if number >= len(self.types):
            raise BtfError(f"has no type {number} (the last is {len(self.types) - 1})")
        return self.types[number]

    def variables(self) -> dict[str, int]:
        """The numbers of the types of all variables, by name."""
        return {t.name: t.size_or_type for t in self.types if t.kind is Kind.VAR}

    def resolved(self, number: int) -> Type:
        """The type behind typedefs and qualifiers."""
        for _ in range(_DEEPEST):
            found = self[number]
            if found.kind not in _ALIASES:
                return found
            number = found.size_or_type
        raise BtfError(f"has a circle at type {number}")

    def size(self, number: int) -> int:
        """Bytes of the type; 0 of void, a function, a structure known by name only."""
        count = 1
        for _ in range(_DEEPEST):
            found = self.resolved(number)
            if found.kind is not Kind.ARRAY:
                if found.kind is Kind.PTR:
                    return 8 * count
                return found.size_or_type * count if found.kind in _SIZED else 0
            count *= found.words[2]
            number = found.words[0]
        raise BtfError(f"has a circle at type {number}")

    def name(self, number: int, depth: int = 0) -> str:
        """The type as C writes it, nearly: ``struct ip_addr``, ``__u32[4]``, ``const char *``."""
        if depth > _DEEPEST:
            raise BtfError(f"has a circle at type {number}")
        found = self[number]

        def inner() -> str:
            return self.name(found.size_or_type, depth + 1)

        match found.kind:
            case Kind.VOID:
                return "void"
            case Kind.PTR:
                return f"{inner()} *"
            case Kind.ARRAY:
                lengths: list[str] = []
                while found.kind is Kind.ARRAY and len(lengths) <= _DEEPEST:
                    lengths.append(f"[{found.words[2]}]")
                    number = found.words[0]
                    found = self[number]
                return self.name(number, depth + 1) + "".join(lengths)
            case Kind.STRUCT | Kind.UNION | Kind.FWD:
                union = found.flag if found.kind is Kind.FWD else found.kind is Kind.UNION
                return f"{'union' if union else 'struct'} {found.name or '(anonymous)'}"
            case Kind.ENUM | Kind.ENUM64:
                return f"enum {found.name or '(anonymous)'}"
            case Kind.CONST | Kind.VOLATILE | Kind.RESTRICT:
                return f"{found.kind.name.lower()} {inner()}"
            case Kind.TYPE_TAG | Kind.VAR:
                return inner()
            case Kind.FUNC_PROTO:
                return "function"
        return found.name

    def members(self, number: int) -> tuple[Member, ...]:
        """The members of a structure or union; those of a nameless one as ``outer.inner``."""
        return tuple(self._members(self.resolved(number), "", 0, 0, iter(range(_MOST_MEMBERS))))

    def _members(
        self, outer: Type, prefix: str, base: int, depth: int, left: Iterator[int]
    ) -> Iterator[Member]:
        """``left`` has an item for each member that may still come, also for those without a name.

        Nameless structures within each other can lead to nothing in a great many ways.
        """
        if depth > _DEEPEST:
            raise BtfError(f'has a circle in "{outer.name}"')
        for name, number, where in self.entries(outer):
            if next(left, None) is None:
                raise BtfError(f"has a structure of over {_MOST_MEMBERS} members")
            # A structure's flag says that the upper byte is the size of a bit field.
            bits = where >> 24 if outer.flag else 0
            offset = base + (where & 0xFFFFFF if outer.flag else where)
            inner = self.resolved(number)
            if not outer.flag and inner.kind is Kind.INT:
                first, width = inner.words[0] >> 16 & 0xFF, inner.words[0] & 0xFF
                if width != 8 * inner.size_or_type:  # a bit field of older compilers
                    bits, offset = width, offset + first
            if (nameless := self._nameless(number)) is not None and not self._is_array(number):
                yield from self._members(
                    nameless, f"{prefix}{name}." if name else prefix, offset, depth + 1, left
                )
                continue
            size, kind = self.size(number), self.name(number)
            yield Member(f"{prefix}{name}", offset // 8, size, kind, bits, offset % 8)
            if nameless is not None:
                yield from self._members(nameless, f"{prefix}{name}[].", offset, depth + 1, left)

    def _nameless(self, number: int) -> Type | None:
        """The structure that ``number`` is, or is an array of, if nothing names it."""
        for _ in range(_DEEPEST):
            found = self[number]
            if found.kind is Kind.ARRAY:
                number = found.words[0]
            elif found.kind in _ALIASES and found.kind is not Kind.TYPEDEF:
                number = found.size_or_type
            else:
                return found if found.kind in _COMPOSITE and not found.name else None
        raise BtfError(f"has a circle at type {number}")

    def _is_array(self, number: int) -> bool:
        return self.resolved(number).kind is Kind.ARRAY

    def entries(self, found: Type) -> Iterator[tuple[str, int, int]]:
        """Name, number of the type, and offset word of each member of ``found`` itself."""
        words = iter(found.words if found.kind in _COMPOSITE else ())
        for name, number, where in zip(words, words, words, strict=True):
            yield _string(self._text, name), number, where

    def structures(self, numbers: list[int]) -> tuple[int, ...]:
        """The structures and unions that the types ``numbers`` hold, in order of meeting.

        One without a name of its own is there as the typedef that names it; without that too it
        is there only as one of ``numbers``, because ``members`` has it in its outer one.  What a
        pointer points to is not held.
        """
        found: dict[int, None] = {}
        waiting = [(number, True) for number in reversed(numbers)]
        seen: set[tuple[int, bool]] = set()
        while waiting:
            number, asked = waiting.pop()
            if (number, asked) in seen:
                continue
            seen.add((number, asked))
            kind = self[number].kind
            if kind is Kind.TYPEDEF and self._named_by(number) is not None:
                found[number] = None
                composite = self[self._named_by(number) or 0]
                waiting += [(entry[1], False) for entry in reversed([*self.entries(composite)])]
            elif kind in _ALIASES:
                waiting.append((self[number].size_or_type, asked))
            elif kind is Kind.ARRAY:
                waiting.append((self[number].words[0], asked))
            elif kind in _COMPOSITE:
                if self[number].name or asked:
                    found[number] = None
                entries = reversed([*self.entries(self[number])])
                waiting += [(entry[1], False) for entry in entries]
        return tuple(found)

    def _named_by(self, number: int) -> int | None:
        """The number of the nameless structure that the typedef ``number`` names."""
        for _ in range(_DEEPEST):
            found = self[number]
            if found.kind not in _ALIASES:
                return number if found.kind in _COMPOSITE and not found.name else None
            number = found.size_or_type
        raise BtfError(f"has a circle at type {number}")


def _string(text: bytes, offset: int) -> str:
    if offset >= len(text):
        raise BtfError(f"has a name outside of its {len(text)} bytes of names")
    end = text.find(b"\0", offset)
    return text[offset : end if end >= 0 else len(text)].decode(errors="replace")
