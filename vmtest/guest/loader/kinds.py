# SPDX-License-Identifier: MIT
"""libbpf's names of program, attach and map types, and their numbers.

libbpf itself is the table: its `libbpf_bpf_*_type_str()` name every number that it knows.
"""

import functools

from vmtest.guest import libbpf
from vmtest.guest.loader.libbpfage import MAP_TYPES


@functools.cache
def program_types() -> dict[str, int]:
    """Numbers of `enum bpf_prog_type` by libbpf's name, `cgroup_sock_addr` for instance."""
    return _numbers("libbpf_bpf_prog_type_str")


@functools.cache
def attach_types() -> dict[str, int]:
    """Numbers of `enum bpf_attach_type` by libbpf's name, `cgroup_inet4_connect` for instance."""
    return _numbers("libbpf_bpf_attach_type_str")


@functools.cache
def map_types() -> dict[str, int]:
    """Numbers of `enum bpf_map_type` by libbpf's name, `ringbuf` for instance."""
    return _numbers("libbpf_bpf_map_type_str")


def program_type_name(number: int) -> str:
    """libbpf's name of a program type; the number where it has none."""
    return _name(libbpf.library().libbpf_bpf_prog_type_str(number), number)


def described_attach_type(program_type: int, number: int) -> str:
    """libbpf's name of what a program may be attached to; "" where nothing is said.

    Of most types the number 0 says nothing; a cgroup_skb program is for ingress with it. That of a
    struct_ops program is libbpf's number of the member, and no attach type at all.
    """
    if program_type == program_types()["struct_ops"]:
        return ""
    if number or program_type == program_types()["cgroup_skb"]:
        return _name(libbpf.library().libbpf_bpf_attach_type_str(number), number)
    return ""


def map_type_name(number: int) -> str:
    """libbpf's name of a map type, that of a later libbpf, or the number where there is none."""
    name: bytes | None = libbpf.library().libbpf_bpf_map_type_str(number)
    return name.decode() if name else MAP_TYPES.get(number, str(number))


# From libbpf's section_defs: the only thing that programs of these types are attached to.
_ONLY_ATTACH_TYPE = {
    "cgroup_device": "cgroup_device",
    "cgroup_sysctl": "cgroup_sysctl",
    "flow_dissector": "flow_dissector",
    "sk_lookup": "sk_lookup",
    "sk_msg": "sk_msg_verdict",
    "sock_ops": "cgroup_sock_ops",
    "xdp": "xdp",
}


def parse_types(text: str) -> tuple[int, int | None]:
    """The numbers of `TYPE[:ATTACH]`, None for an attach type that is not told.

    Where a type has but one attach type, it need not be told.

    Raises ValueError, with libbpf's names, for a name that it does not know.
    """
    kind, _, attach = text.partition(":")
    attach = attach or _ONLY_ATTACH_TYPE.get(kind, "")
    return (
        _number(kind, "program", program_types()),
        _number(attach, "attach", attach_types()) if attach else None,
    )


def _numbers(function: str) -> dict[str, int]:
    lookup = getattr(libbpf.library(), function)
    found: dict[str, int] = {}
    number = 0
    while (name := lookup(number)) is not None:
        found[name.decode()] = number
        number += 1
    return found


def _number(name: str, what: str, known: dict[str, int]) -> int:
    if name not in known:
        raise ValueError(f'there is no {what} type "{name}" (libbpf knows: {", ".join(known)})')
    return known[name]


def _name(name: bytes | None, number: int) -> str:
    return str(number) if name is None else name.decode()
