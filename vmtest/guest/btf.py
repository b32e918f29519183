# SPDX-License-Identifier: MIT
"""What BTF says: where global variables lie, how structures are laid out, what a kernel has."""

import ctypes
import struct
from collections.abc import Iterator
from typing import NamedTuple

from vmtest.guest import libbpf

# From linux/btf.h.
_KIND_STRUCT = 4
_KIND_UNION = 5
_KIND_ENUM = 6
_KIND_TYPEDEF = 8
_KIND_FUNC = 12
_KIND_VAR = 14
_KIND_DATASEC = 15
_TYPE = struct.Struct("=III")  # name_off, info, size or type
_MEMBER = struct.Struct("=III")  # name_off, type, offset in bits
_ENUMERATOR = struct.Struct("=Ii")  # name_off, value
_SECTION_VARIABLE = struct.Struct("=III")  # type, offset, size


class Variable(NamedTuple):
    """A global variable: its section (`.data`, say), and offset and size there, in bytes."""

    section: str
    offset: int
    size: int


class Member(NamedTuple):
    """A member of a structure: offset and size in bytes."""

    offset: int
    size: int


class _Type(NamedTuple):
    name: str
    kind: int
    length: int
    size_or_type: int
    address: int


class Btf:
    """The BTF of an object, valid as long as the object is open; or of the kernel."""

    def __init__(self, handle: int) -> None:
        """`handle` is a `struct btf *`."""
        self._handle = handle

    @classmethod
    def of_kernel(cls) -> "Btf":
        """The running kernel's, for as long as this process lives. Raises LibbpfError."""
        handle = libbpf.library().btf__load_vmlinux_btf()
        return cls(libbpf.check_pointer(handle, "the kernel's BTF"))

    @classmethod
    def of_module(cls, name: str, kernel: "Btf") -> "Btf":
        """That of a loaded module, on top of the `kernel`'s. Raises LibbpfError."""
        handle = libbpf.library().btf__load_module_btf(name.encode(), kernel._handle)
        return cls(libbpf.check_pointer(handle, f"the BTF of the module {name}"))

    def variables(self) -> dict[str, Variable]:
        """The global variables by name."""
        found: dict[str, Variable] = {}
        for section in self._types():
            if section.kind != _KIND_DATASEC:
                continue
            for index in range(section.length):
                entry = section.address + _TYPE.size + index * _SECTION_VARIABLE.size
                type_id, offset, size = _read(_SECTION_VARIABLE, entry)
                variable = self._type(type_id)
                if variable.kind == _KIND_VAR:
                    found[variable.name] = Variable(section.name, offset, size)
        return found

    def members_of_variable(self, name: str) -> dict[str, Member]:
        """The members of the structure that the global variable `name` is, as members() has them.

        Empty where there is no such variable, or it is not a structure.
        """
        number = self._find(name, _KIND_VAR)
        kind = self._type(self._type(number).size_or_type) if number >= 0 else None
        if kind is None or kind.kind not in (_KIND_STRUCT, _KIND_UNION):
            return {}
        return dict(self._members(kind, "", 0))

    def structures(self) -> dict[str, int]:
        """The sizes in bytes of the named structures and unions, by name."""
        return {
            found.name: found.size_or_type
            for found in self._types()
            if found.kind in (_KIND_STRUCT, _KIND_UNION) and found.name
        }

    def members(self, structure: str) -> dict[str, Member]:
        """The members of a structure by name; those of a nested one as `outer.inner`.

        Members of an anonymous union appear as if they were the structure's own. Raises KeyError if
        there is no such structure.
        """
        for kind in (_KIND_STRUCT, _KIND_UNION):
            if (number := self._find(structure, kind)) >= 0:
                return dict(self._members(self._type(number), "", 0))
        raise KeyError(structure)

    def enumerators(self, enumeration: str) -> dict[str, int]:
        """The values of an enumeration by name. Raises KeyError if there is no such one."""
        number = self._find(enumeration, _KIND_ENUM)
        if number < 0:
            raise KeyError(enumeration)
        found = self._type(number)
        entries = (found.address + _TYPE.size + n * _ENUMERATOR.size for n in range(found.length))
        read = (_read(_ENUMERATOR, entry) for entry in entries)
        return {self._name(name_offset): value for name_offset, value in read}

    def find(self, kind: str, name: str) -> int | None:
        """The id of the "function" or "typedef" of that name; None if there is none."""
        number = self._find(name, _KIND_FUNC if kind == "function" else _KIND_TYPEDEF)
        return number if number >= 0 else None

    def _find(self, name: str, kind: int) -> int:
        lib = libbpf.library()
        return int(lib.btf__find_by_name_kind(self._handle, name.encode(), kind))

    def _members(self, outer: _Type, prefix: str, base: int) -> Iterator[tuple[str, Member]]:
        for index in range(outer.length):
            entry = outer.address + _TYPE.size + index * _MEMBER.size
            name_offset, type_id, bits = _read(_MEMBER, entry)
            name = prefix + self._name(name_offset)
            offset = base + bits // 8
            inner = self._type(type_id)
            if name != prefix:
                size: int = libbpf.library().btf__resolve_size(self._handle, type_id)
                yield name, Member(offset, size)
            if inner.kind in (_KIND_STRUCT, _KIND_UNION):
                yield from self._members(inner, name if name == prefix else f"{name}.", offset)

    def _types(self) -> Iterator[_Type]:
        for type_id in range(1, libbpf.library().btf__type_cnt(self._handle)):
            yield self._type(type_id)

    def _type(self, type_id: int) -> _Type:
        address = libbpf.check_pointer(
            libbpf.library().btf__type_by_id(self._handle, type_id), f"BTF type {type_id}"
        )
        name_offset, info, size_or_type = _read(_TYPE, address)
        kind, length = info >> 24 & 0x1F, info & 0xFFFF
        return _Type(self._name(name_offset), kind, length, size_or_type, address)

    def _name(self, offset: int) -> str:
        name: bytes | None = libbpf.library().btf__name_by_offset(self._handle, offset)
        return (name or b"").decode()


def _read(layout: struct.Struct, address: int) -> tuple[int, ...]:
    return layout.unpack(ctypes.string_at(address, layout.size))
