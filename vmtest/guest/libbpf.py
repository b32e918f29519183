# SPDX-License-Identifier: MIT
"""libbpf.so.1 by ctypes: its functions, its errors and its messages.

Written for libbpf 1.1, whose conventions hold for all of 1.x: a function that returns an int
returns a negative errno on failure, one that returns a pointer returns NULL and sets errno.
"""

import contextlib
import ctypes
import errno
import functools
import os
import resource
from collections.abc import Iterator
from ctypes import c_char_p, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    # bpf_object, from libbpf.h
    "bpf_object__open_file": (c_void_p, [c_char_p, c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__btf": (c_void_p, [c_void_p]),
    "bpf_object__next_program": (c_void_p, [c_void_p, c_void_p]),
    "bpf_object__next_map": (c_void_p, [c_void_p, c_void_p]),
    "bpf_object__find_map_by_name": (c_void_p, [c_void_p, c_char_p]),
    # bpf_program
    "bpf_program__name": (c_char_p, [c_void_p]),
    "bpf_program__section_name": (c_char_p, [c_void_p]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_program__type": (c_int, [c_void_p]),
    "bpf_program__set_type": (c_int, [c_void_p, c_int]),
    "bpf_program__expected_attach_type": (c_int, [c_void_p]),
    "bpf_program__set_expected_attach_type": (c_int, [c_void_p, c_int]),
    "bpf_program__set_autoload": (c_int, [c_void_p, ctypes.c_bool]),
    "bpf_program__set_log_level": (c_int, [c_void_p, c_uint32]),
    "bpf_program__set_log_buf": (c_int, [c_void_p, c_char_p, c_size_t]),
    "bpf_program__autoload": (ctypes.c_bool, [c_void_p]),
    "bpf_program__insns": (c_void_p, [c_void_p]),
    "bpf_program__insn_cnt": (c_size_t, [c_void_p]),
    "bpf_program__attach": (c_void_p, [c_void_p]),
    "bpf_program__attach_xdp": (c_void_p, [c_void_p, c_int]),
    "bpf_program__attach_netns": (c_void_p, [c_void_p, c_int]),
    "bpf_link__destroy": (c_int, [c_void_p]),
    "bpf_tc_hook_create": (c_int, [c_void_p]),
    "bpf_tc_hook_destroy": (c_int, [c_void_p]),
    "bpf_tc_attach": (c_int, [c_void_p, c_void_p]),
    "bpf_tc_detach": (c_int, [c_void_p, c_void_p]),
    # bpf_map
    "bpf_map__name": (c_char_p, [c_void_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__type": (c_int, [c_void_p]),
    "bpf_map__key_size": (c_uint32, [c_void_p]),
    "bpf_map__value_size": (c_uint32, [c_void_p]),
    "bpf_map__max_entries": (c_uint32, [c_void_p]),
    "bpf_map__map_flags": (c_uint32, [c_void_p]),
    "bpf_map__map_extra": (c_uint64, [c_void_p]),
    "bpf_map__inner_map": (c_void_p, [c_void_p]),
    "bpf_map__pin_path": (c_char_p, [c_void_p]),
    "bpf_map__set_pin_path": (c_int, [c_void_p, c_char_p]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "bpf_map__set_inner_map_fd": (c_int, [c_void_p, c_int]),
    "bpf_map__attach_struct_ops": (c_void_p, [c_void_p]),
    "bpf_map__reuse_fd": (c_int, [c_void_p, c_int]),
    "bpf_map__initial_value": (c_void_p, [c_void_p, ctypes.POINTER(c_size_t)]),
    # system calls, from bpf.h
    "bpf_map_create": (
        c_int,
        [c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p],
    ),
    "bpf_prog_load": (c_int, [c_int, c_char_p, c_char_p, c_char_p, c_size_t, c_void_p]),
    "bpf_map_lookup_elem": (c_int, [c_int, c_char_p, c_char_p]),
    "bpf_map_update_elem": (c_int, [c_int, c_char_p, c_char_p, c_uint64]),
    "bpf_map_delete_elem": (c_int, [c_int, c_char_p]),
    "bpf_map_get_next_key": (c_int, [c_int, c_char_p, c_char_p]),
    "bpf_prog_attach": (c_int, [c_int, c_int, c_int, c_uint32]),
    "bpf_prog_detach2": (c_int, [c_int, c_int, c_int]),
    "bpf_prog_get_next_id": (c_int, [c_uint32, ctypes.POINTER(c_uint32)]),
    "bpf_map_get_next_id": (c_int, [c_uint32, ctypes.POINTER(c_uint32)]),
    "bpf_link_get_next_id": (c_int, [c_uint32, ctypes.POINTER(c_uint32)]),
    "bpf_prog_get_fd_by_id": (c_int, [c_uint32]),
    "bpf_map_get_fd_by_id": (c_int, [c_uint32]),
    "bpf_obj_get_info_by_fd": (c_int, [c_int, c_void_p, ctypes.POINTER(c_uint32)]),
    "bpf_enable_stats": (c_int, [c_int]),
    # probes and names, from libbpf.h
    "libbpf_probe_bpf_prog_type": (c_int, [c_int, c_void_p]),
    "libbpf_probe_bpf_map_type": (c_int, [c_int, c_void_p]),
    "libbpf_bpf_prog_type_str": (c_char_p, [c_int]),
    "libbpf_bpf_attach_type_str": (c_char_p, [c_int]),
    "libbpf_bpf_map_type_str": (c_char_p, [c_int]),
    "libbpf_num_possible_cpus": (c_int, []),
    "libbpf_major_version": (c_uint32, []),
    "libbpf_minor_version": (c_uint32, []),
    # ring_buffer, from libbpf.h
    "ring_buffer__new": (c_void_p, [c_int, c_void_p, c_void_p, c_void_p]),
    "ring_buffer__free": (None, [c_void_p]),
    "ring_buffer__poll": (c_int, [c_void_p, c_int]),
    "ring_buffer__consume": (c_int, [c_void_p]),
    # btf, from btf.h
    "btf__load_vmlinux_btf": (c_void_p, []),
    "btf__load_module_btf": (c_void_p, [c_char_p, c_void_p]),
    "btf__find_by_name_kind": (c_int, [c_void_p, c_char_p, c_uint32]),
    "btf__type_cnt": (c_uint32, [c_void_p]),
    "btf__type_by_id": (c_void_p, [c_void_p, c_uint32]),
    "btf__name_by_offset": (c_char_p, [c_void_p, c_uint32]),
    "btf__resolve_size": (c_int64, [c_void_p, c_uint32]),
}

# From the kernel's include/linux/errno.h and libbpf's libbpf_legacy.h: not in Python's table, which
# calls 95 by its other name.
_ERRNO_NAMES = {
    95: "EOPNOTSUPP",
    524: "ENOTSUPP",
    4000: "LIBBPF_ERRNO__LIBELF",
    4001: "LIBBPF_ERRNO__FORMAT",
    4002: "LIBBPF_ERRNO__KVERSION",
    4003: "LIBBPF_ERRNO__ENDIAN",
    4004: "LIBBPF_ERRNO__INTERNAL",
    4005: "LIBBPF_ERRNO__RELOC",
    4006: "LIBBPF_ERRNO__LOAD",
    4007: "LIBBPF_ERRNO__VERIFY",
    4008: "LIBBPF_ERRNO__PROG2BIG",
    4009: "LIBBPF_ERRNO__KVER",
    4010: "LIBBPF_ERRNO__PROGTYPE",
}

# typedef int (*libbpf_print_fn_t)(enum libbpf_print_level, const char *, va_list), where a va_list
# is passed as a pointer on x86-64 and on arm64.
_PrintFunction = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)
_PRINT_INFO = 1

_KERNELS_OWN = 512  # from here on the C library has no words for an errno

_sinks: list[list[str]] = []


class LibbpfError(OSError):
    """A call that libbpf or the kernel refused; `errno` is set."""


class LoadError(LibbpfError):
    """An object that was refused. `log` is all that libbpf and the verifier said."""

    def __init__(self, number: int, message: str, log: str, why: str = "") -> None:
        """`message` says what was being done; `why` and the last lines of `log` follow it."""
        last = log.strip().splitlines()[-25:]
        words = os.strerror(number) if number < _KERNELS_OWN else errno_name(number)
        super().__init__(number, "\n".join([f"{message}: {words}", *filter(None, [why]), *last]))
        self.log = log


@functools.cache
def library() -> ctypes.CDLL:
    """libbpf.so.1, its functions typed, and silent but for captured_messages().

    Raises LibbpfError if it is not installed or too old.
    """
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(lib, name)
            function.restype = result
            function.argtypes = arguments
        # Not a callback that drops them: a load has a hundred, and each call into Python costs.
        lib.libbpf_set_print(None)
    except (OSError, AttributeError) as error:
        raise LibbpfError(0, f"libbpf 1.x is needed in the guest: {error}") from error
    return lib


def version() -> tuple[int, int]:
    """Major and minor number of the libbpf that is used here."""
    lib = library()
    return lib.libbpf_major_version(), lib.libbpf_minor_version()


def check(result: int, message: str) -> int:
    """`result`, unless it is a negative errno: then LibbpfError says `message`."""
    if result < 0:
        raise LibbpfError(-result, f"{message}: {os.strerror(-result)}")
    return result


def check_pointer(result: int | None, message: str) -> int:
    """`result`, unless it is NULL: then LibbpfError says `message`."""
    if not result:
        number = ctypes.get_errno()
        raise LibbpfError(number, f"{message}: {os.strerror(number)}")
    return result


def errno_name(number: int) -> str:
    """`EINVAL` for 22; libbpf's and the kernel's own as well."""
    return _ERRNO_NAMES.get(number) or errno.errorcode.get(number, str(number))


@contextlib.contextmanager
def captured_messages() -> Iterator[list[str]]:
    """Collects libbpf's warnings and information, which are dropped everywhere else.

    Within it, verifier logs of programs that fail to load arrive here as well.
    """
    messages: list[str] = []
    _sinks.append(messages)
    library().libbpf_set_print(_print_callback)
    try:
        yield messages
    finally:
        _sinks.pop()
        if not _sinks:
            library().libbpf_set_print(None)


@functools.cache
def raise_memlock_limit() -> None:
    """Lifts RLIMIT_MEMLOCK, against which kernels before 5.11 count maps and programs.

    Where that is not permitted, the limit stays: newer kernels do not mind.
    """
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    with contextlib.suppress(ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)


def _print(level: int, pattern: bytes, arguments: int) -> int:
    if level > _PRINT_INFO:
        return 0
    libc = ctypes.CDLL(None)
    text = c_char_p()
    # Not vsnprintf: a verifier log can have megabytes, and a va_list can be read only once.
    length: int = libc.vasprintf(ctypes.byref(text), c_char_p(pattern), c_void_p(arguments))
    if length < 0:
        return length
    _sinks[-1].append((text.value or b"").decode(errors="replace"))
    libc.free(text)
    return length


# Kept alive here, because libbpf holds its address.
_print_callback = _PrintFunction(_print)
