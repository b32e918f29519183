# SPDX-License-Identifier: MIT
"""What exists in the kernel for BPF's sake: programs, maps, links, pins and control groups.

Taken before and after, the difference is what somebody left behind.
"""

import ctypes
import errno
import os
import pathlib
import time
from collections.abc import Iterator

from vmtest.guest import libbpf
from vmtest.guest.cgroup import mount_point

BPFFS = pathlib.Path("/sys/fs/bpf")

# From linux/bpf.h: where struct bpf_prog_info and struct bpf_map_info have their name.
_INFO_SIZE = 80
_PROGRAM_NAME, _MAP_NAME = 64, 24
_NAME_SIZE = 16


def inventory() -> frozenset[str]:
    """Everything there is: `program 12`, `map 13`, `link 4`, `pin /sys/...`, `cgroup /...`.

    Nothing is opened for it.  Closing a PROG_ARRAY puts off to a worker the breaking of the cycle
    that it makes with its programs, and a second close before the worker ran leaks the map
    (prog_array_map_clear() in kernel/bpf/arraymap.c counts a reference for either).
    Raises LibbpfError, OSError.
    """
    lib = libbpf.library()
    return frozenset(
        [
            *(f"program {number}" for number in _numbers(lib.bpf_prog_get_next_id)),
            *(f"map {number}" for number in _numbers(lib.bpf_map_get_next_id)),
            *(f"link {number}" for number in _numbers(lib.bpf_link_get_next_id)),
            *(f"pin {path}" for path in BPFFS.rglob("*")),
            *(f"cgroup {path}" for path in mount_point().rglob("*") if path.is_dir()),
        ]
    )


def left_since(before: frozenset[str], seconds: float = 10.0) -> list[str]:
    """What there is now and was not `before`, sorted; programs and maps with their names.

    The kernel frees maps some time after their last program: waits for that, `seconds` at most.
    """
    deadline = time.monotonic() + seconds
    while (left := inventory() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    return sorted(f"{one} {_name_of(one)}".rstrip() for one in left)


def _name_of(one: str) -> str:
    """The name of a program or a map; everything else has none."""
    lib = libbpf.library()
    kind, _, number = one.partition(" ")
    if kind == "program":
        return _name(lib.bpf_prog_get_fd_by_id(int(number)), _PROGRAM_NAME)
    if kind == "map":
        return _name(lib.bpf_map_get_fd_by_id(int(number)), _MAP_NAME)
    return ""


def _numbers(following: "ctypes._NamedFuncPointer") -> Iterator[int]:
    found = ctypes.c_uint32(0)
    while (result := following(found.value, ctypes.byref(found))) != -errno.ENOENT:
        libbpf.check(result, "next number")
        yield found.value


def _name(fd: int, offset: int) -> str:
    if fd == -errno.ENOENT:  # It went in the meantime.
        return ""
    libbpf.check(fd, "opening by number")
    try:
        info = ctypes.create_string_buffer(_INFO_SIZE)
        size = ctypes.c_uint32(_INFO_SIZE)
        result = libbpf.library().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size))
        libbpf.check(result, "information")
    finally:
        os.close(fd)
    return info.raw[offset : offset + _NAME_SIZE].split(b"\0", 1)[0].decode()
