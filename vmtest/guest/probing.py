# SPDX-License-Identifier: MIT
"""Loading tiny programs and making small maps, to see what the running kernel takes."""

import ctypes
import functools
import os
import pathlib
import re
import struct

from vmtest.guest import libbpf
from vmtest.guest.btf import Btf
from vmtest.guest.failures import MapShape
from vmtest.guest.loader import kinds

# From linux/bpf.h: call of a helper, exit.
_CALL, _EXIT = 0x85, 0x95
_INSTRUCTION = struct.Struct("<BBhi")
_KALLSYMS = pathlib.Path("/proc/kallsyms")
_LOG_SIZE = 1 << 16
_SYMBOL = re.compile(r"^\S+ \S (\S+)", re.MULTILINE)
_LACKS = ("invalid func ", "unknown func ", "program of this type cannot use helper ")

# The attach types by which a kernel decides what a program of a type may do, each with what such a
# program is attached to in every kernel that has it: BTF's kind and name. None where a program is
# not bound to something at its load.
_ATTACH_TYPES: dict[str, dict[str, tuple[str, str] | None]] = {
    "cgroup_skb": dict.fromkeys(("cgroup_inet_ingress", "cgroup_inet_egress")),
    "cgroup_sock": dict.fromkeys(
        (
            "cgroup_inet_sock_create",
            "cgroup_inet_sock_release",
            "cgroup_inet4_post_bind",
            "cgroup_inet6_post_bind",
        )
    ),
    "cgroup_sock_addr": dict.fromkeys(
        (
            "cgroup_inet4_bind",
            "cgroup_inet6_bind",
            "cgroup_inet4_connect",
            "cgroup_inet6_connect",
            "cgroup_unix_connect",
            "cgroup_inet4_getpeername",
            "cgroup_inet6_getpeername",
            "cgroup_inet4_getsockname",
            "cgroup_inet6_getsockname",
            "cgroup_udp4_sendmsg",
            "cgroup_udp6_sendmsg",
            "cgroup_udp4_recvmsg",
            "cgroup_udp6_recvmsg",
        )
    ),
    "cgroup_sockopt": dict.fromkeys(("cgroup_getsockopt", "cgroup_setsockopt")),
    "sk_reuseport": dict.fromkeys(("sk_reuseport_select", "sk_reuseport_select_or_migrate")),
    "kprobe": dict.fromkeys(("trace_kprobe_multi", "trace_kprobe_session", "trace_uprobe_multi")),
    "tracing": {
        "trace_fentry": ("function", "bpf_fentry_test1"),
        "trace_fexit": ("function", "bpf_fentry_test1"),
        "modify_return": ("function", "bpf_modify_return_test"),
        "trace_raw_tp": ("typedef", "btf_trace_sys_enter"),
        "trace_iter": ("function", "bpf_iter_task"),
    },
    "lsm": {
        "lsm_mac": ("function", "bpf_lsm_file_open"),
        "lsm_cgroup": ("function", "bpf_lsm_socket_bind"),
    },
}


# Programs that may sleep, and what they may be attached to in every kernel that has them.
_SLEEPABLE: dict[str, dict[str, tuple[str, str] | None]] = {
    "tracing": {"trace_fentry": ("function", "__x64_sys_getpgid")},
    "lsm": {"lsm_mac": ("function", "bpf_lsm_bprm_committed_creds")},
}
_SLEEPABLE_FLAG = 1 << 4  # BPF_F_SLEEPABLE
_ONLY_ATTACH_TYPE = {"sk_lookup": "sk_lookup", "netfilter": "netfilter"}


class _LoadOptions(ctypes.Structure):
    """struct bpf_prog_load_opts of bpf/bpf.h, as libbpf 1.0 has it; later ones only append."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("attempts", ctypes.c_int),
        ("expected_attach_type", ctypes.c_uint32),
        ("prog_btf_fd", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_ifindex", ctypes.c_uint32),
        ("kern_version", ctypes.c_uint32),
        ("attach_btf_id", ctypes.c_uint32),
        ("attach_prog_fd", ctypes.c_uint32),
        ("attach_btf_obj_fd", ctypes.c_uint32),
        ("fd_array", ctypes.c_void_p),
        ("func_info", ctypes.c_void_p),
        ("func_info_cnt", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("line_info", ctypes.c_void_p),
        ("line_info_cnt", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_char_p),
    )


class _MapOptions(ctypes.Structure):
    """struct bpf_map_create_opts of bpf/bpf.h, as far as it is used here."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("map_extra", ctypes.c_uint64),
        ("numa_node", ctypes.c_uint32),
        ("map_ifindex", ctypes.c_uint32),
    )


def refused_map(shape: MapShape) -> str:
    """The name of the errno with which this kernel refuses such a map; "" if it makes it."""
    size = ctypes.sizeof(_MapOptions)
    options = _MapOptions(sz=size, map_flags=shape.flags, map_extra=shape.map_extra)
    result = libbpf.library().bpf_map_create(
        kinds.map_types().get(shape.kind, -1),
        b"vmtest",
        shape.key_size,
        shape.value_size,
        shape.max_entries,
        ctypes.byref(options),
    )
    if result < 0:
        return libbpf.errno_name(-result)
    os.close(result)
    return ""


def attach_types_with(
    number: int, program_type: str, btf: Btf | None, sleepable: bool = False
) -> tuple[str, ...]:
    """The attach types of `program_type` to whose programs this kernel gives a helper.

    `sleepable`: asked of programs that may sleep.
    """
    targets = _SLEEPABLE if sleepable else _ATTACH_TYPES
    return tuple(
        attach_type
        for attach_type, target in targets.get(program_type, {}).items()
        if attach_type in kinds.attach_types()
        and gives(number, program_type, attach_type, target, btf, sleepable)
    )


def program_types_with(number: int, btf: Btf | None) -> tuple[str, ...]:
    """The program types to which this kernel gives a helper, for one attach type at least."""
    return tuple(name for name in kinds.program_types() if gives_some(number, name, btf))


def gives_some(number: int, program_type: str, btf: Btf | None) -> bool:
    """Whether this kernel gives a helper to some programs of a type."""
    if program_type in _ATTACH_TYPES and program_type != "kprobe":
        return bool(attach_types_with(number, program_type, btf))
    attach_type = _ONLY_ATTACH_TYPE.get(program_type, "")
    return gives(number, program_type, attach_type, None, None, program_type == "syscall")


def gives(
    number: int,
    program_type: str,
    attach_type: str,
    target: tuple[str, str] | None,
    btf: Btf | None,
    sleepable: bool,
) -> bool:
    """Whether this kernel lets such a program call a helper.

    Not libbpf's probe: that of 1.1 takes the words of Linux 6.8 and later for a yes.
    """
    options = _LoadOptions(sz=ctypes.sizeof(_LoadOptions))
    options.expected_attach_type = kinds.attach_types().get(attach_type, 0)
    options.prog_flags = _SLEEPABLE_FLAG if sleepable else 0
    if target is not None:
        if btf is None or (found := btf.find(*target)) is None:
            return False
        options.attach_btf_id = found
    log = ctypes.create_string_buffer(_LOG_SIZE)
    options.log_level, options.log_size = 1, len(log)
    options.log_buf = ctypes.cast(log, ctypes.c_char_p)
    code = _INSTRUCTION.pack(_CALL, 0, 0, number) + _INSTRUCTION.pack(_EXIT, 0, 0, 0)
    result = libbpf.library().bpf_prog_load(
        kinds.program_types()[program_type], None, b"GPL", code, 2, ctypes.byref(options)
    )
    if result >= 0:
        os.close(result)
        return True
    # The call was looked at if its instruction stands in the log, and whatever else is wrong with
    # it was looked at later than whether it is allowed.
    said = log.value.decode(errors="replace")
    return "(85) call " in said and not any(lacks in said for lacks in _LACKS)


@functools.cache
def symbols() -> frozenset[str]:
    """The names in /proc/kallsyms; none where it cannot be read."""
    try:
        listed = _KALLSYMS.read_text()
    except OSError:
        return frozenset()
    # Not line by line: with over 100,000 lines that takes an emulated guest seconds.
    return frozenset(_SYMBOL.findall(listed))
