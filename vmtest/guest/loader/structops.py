# SPDX-License-Identifier: MIT
"""Which members of the struct_ops maps of an object file are zero, read from the file itself.

libbpf 1.1 gives nobody the initial value of such a map.
"""

import ctypes
import os
import pathlib
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from vmtest.guest import libbpf
from vmtest.guest.btf import Btf

_MISSED = re.compile(r"struct_ops init_kern (\S+): Cannot find member (\S+) in kernel BTF")
# From elf.h: e_shoff, e_shentsize, e_shnum and e_shstrndx of Elf64_Ehdr; Elf64_Shdr, Elf64_Rel.
_HEADER = struct.Struct("<40xQ10xHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_RELOCATION = struct.Struct("<QQ")
_SHT_NOBITS, _SHT_REL = 8, 9


class _Section(NamedTuple):
    name: str
    kind: int
    content: bytes
    about: int


def zeroed_members(path: pathlib.Path, messages: str) -> frozenset[str]:
    """Those of the members that libbpf did not find in the kernel which are zero: `map.member`."""
    missed = set(_MISSED.findall(messages))
    if not missed:
        return frozenset()
    lib = libbpf.library()
    handle = lib.bpf_object__open_file(os.fsencode(path), None)
    if not handle:
        return frozenset()
    try:
        btf = Btf(libbpf.check_pointer(lib.bpf_object__btf(handle), f"{path.name}: BTF"))
        sections = list(_sections(path.read_bytes()))
        return frozenset(f"{m}.{member}" for m, member in missed if _zero(btf, sections, m, member))
    except (libbpf.LibbpfError, OSError, ValueError, struct.error):
        return frozenset()
    finally:
        lib.bpf_object__close(ctypes.c_void_p(handle))


def _zero(btf: Btf, sections: list[_Section], name: str, member: str) -> bool:
    """Whether the member has no bit set, and no address is put there."""
    variable, found = btf.variables().get(name), btf.members_of_variable(name).get(member)
    if variable is None or found is None:
        return False
    start = variable.offset + found.offset
    for number, section in enumerate(sections):
        if section.name == variable.section:
            put = {
                place
                for other in sections
                if other.kind == _SHT_REL and other.about == number
                for place, _ in _RELOCATION.iter_unpack(other.content)
            }
            there = range(start, start + found.size)
            return not any(section.content[start : there.stop]) and put.isdisjoint(there)
    return False


def _sections(data: bytes) -> Iterator[_Section]:
    offset, size, count, names_at = _HEADER.unpack_from(data)
    headers = [_SECTION.unpack_from(data, offset + n * size) for n in range(count)]
    names = headers[names_at][4]
    for name, kind, _, _, start, length, _, about, *_ in headers:
        end = data.index(b"\0", names + name)
        content = b"" if kind == _SHT_NOBITS else data[start : start + length]
        yield _Section(data[names + name : end].decode(), kind, content, about)
