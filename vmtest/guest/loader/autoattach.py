# SPDX-License-Identifier: MIT
"""Attaching a program for a moment, where that takes no knowledge of its application."""

import contextlib
import ctypes
import errno
import os
import pathlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

from vmtest.guest import attach, libbpf, lsm
from vmtest.guest.cgroup import temporary_cgroup
from vmtest.guest.failures import Failure, Kernel, Reason
from vmtest.guest.loader import kinds
from vmtest.guest.loader.why import explain
from vmtest.guest.maps import TYPE_SOCKHASH, TYPE_STRUCT_OPS, OwnMap
from vmtest.guest.objects import BpfObject, Program

_DEVICE = "lo"
_SO_ATTACH_BPF = 50  # asm-generic/socket.h
_TC_INGRESS = 1
_TRACEFS = pathlib.Path("/sys/kernel/tracing")


class Attachment(NamedTuple):
    """Whether a program could be attached: `place` says where, `errno` names the failure.

    One that was attached has a `reason` where the kernel will never call it.
    """

    attached: bool
    place: str = ""
    errno: str = ""
    reason: Reason | None = None


def try_to_attach(opened: BpfObject, program: Program, kernel: Kernel) -> Attachment | None:
    """Attaches the loaded `program` and detaches it; None for a type that needs its application."""
    kind = kinds.program_type_name(program.kind)
    if kind not in _WAYS:
        return None
    place, way = _WAYS[kind]
    with libbpf.captured_messages() as messages:
        try:
            with way(opened, program):
                pass
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP and not messages:
                return None  # libbpf itself: the section does not tell where it wants to be
            name = libbpf.errno_name(error.errno or 0)
            reason = explain(
                Failure(
                    errno=name,
                    messages="".join(messages),
                    program_type=kind,
                    attach_type=kinds.described_attach_type(program.kind, program.attach_type),
                    attaching=True,
                    section=program.section,
                ),
                kernel,
            )
            return Attachment(False, place, name, reason)
    return Attachment(True, place, reason=lsm.never_called(kind, program.section))


_Way = Callable[[BpfObject, Program], AbstractContextManager[None]]


@contextlib.contextmanager
def _cgroup(_opened: BpfObject, program: Program) -> Iterator[None]:
    with temporary_cgroup() as group, attach.attached_to_cgroup(program, group):
        yield


@contextlib.contextmanager
def _sockets(_opened: BpfObject, program: Program) -> Iterator[None]:
    with (
        OwnMap.create(TYPE_SOCKHASH, "sockets", 4, 4, 1) as sockets,
        attach.attached_to_sockhash(program, sockets),
    ):
        yield


@contextlib.contextmanager
def _device(_opened: BpfObject, program: Program) -> Iterator[None]:
    link = libbpf.library().bpf_program__attach_xdp(program.handle, socket.if_nametoindex(_DEVICE))
    with _linked(link, program):
        yield


@contextlib.contextmanager
def _network(_opened: BpfObject, program: Program) -> Iterator[None]:
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        with _linked(libbpf.library().bpf_program__attach_netns(program.handle, fd), program):
            yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def _socket(_opened: BpfObject, program: Program) -> Iterator[None]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, program.fd)
        yield


class _TcHook(ctypes.Structure):
    """struct bpf_tc_hook of libbpf.h."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("ifindex", ctypes.c_int),
        ("attach_point", ctypes.c_int),
        ("parent", ctypes.c_uint32),
    )


class _TcOptions(ctypes.Structure):
    """struct bpf_tc_opts of libbpf.h."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("prog_fd", ctypes.c_int),
        ("flags", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("handle", ctypes.c_uint32),
        ("priority", ctypes.c_uint32),
    )


@contextlib.contextmanager
def _queue(_opened: BpfObject, program: Program) -> Iterator[None]:
    lib = libbpf.library()
    size = ctypes.sizeof(_TcHook)
    hook = _TcHook(sz=size, ifindex=socket.if_nametoindex(_DEVICE), attach_point=_TC_INGRESS)
    options = _TcOptions(sz=ctypes.sizeof(_TcOptions), prog_fd=program.fd)
    libbpf.check(lib.bpf_tc_hook_create(ctypes.byref(hook)), f"a queue on {_DEVICE}")
    try:
        attached = lib.bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options))
        libbpf.check(attached, f"attaching {program.name} to {_DEVICE}")
        # bpf_tc_detach() wants these unset, and the filter named.
        options.prog_fd = options.flags = options.prog_id = 0
        try:
            yield
        finally:
            detached = lib.bpf_tc_detach(ctypes.byref(hook), ctypes.byref(options))
            libbpf.check(detached, f"detaching {program.name} from {_DEVICE}")
    finally:
        # Both directions: that is how libbpf knows that the whole queue is meant.
        hook.attach_point = 3
        lib.bpf_tc_hook_destroy(ctypes.byref(hook))


@contextlib.contextmanager
def _where_it_says(_opened: BpfObject, program: Program) -> Iterator[None]:
    _mount_tracefs()
    with _linked(libbpf.library().bpf_program__attach(program.handle), program):
        yield


@contextlib.contextmanager
def _struct_ops(opened: BpfObject, program: Program) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name, kind in opened.map_kinds().items():
            if kind == TYPE_STRUCT_OPS:
                stack.enter_context(_linked(opened.attach_struct_ops(name), program))
        yield


@contextlib.contextmanager
def _linked(link: int | None, program: Program) -> Iterator[None]:
    held = libbpf.check_pointer(link, f"attaching {program.name}")
    try:
        yield
    finally:
        result = libbpf.library().bpf_link__destroy(held)
        libbpf.check(result, f"detaching {program.name}")


def _mount_tracefs() -> None:
    """Tracepoints have their numbers there."""
    if not (_TRACEFS / "events").is_dir():
        mount = ["mount", "-t", "tracefs", "tracefs", str(_TRACEFS)]
        subprocess.run(mount, check=False, capture_output=True)


_CGROUP = ("a cgroup", _cgroup)
_SOCKETS = ("a SOCKHASH", _sockets)
_SECTION = ("where its section says", _where_it_says)
_WAYS: dict[str, tuple[str, _Way]] = {
    "cgroup_device": _CGROUP,
    "cgroup_skb": _CGROUP,
    "cgroup_sock": _CGROUP,
    "cgroup_sock_addr": _CGROUP,
    "cgroup_sockopt": _CGROUP,
    "cgroup_sysctl": _CGROUP,
    "sock_ops": _CGROUP,
    "sk_msg": _SOCKETS,
    "sk_skb": _SOCKETS,
    "xdp": (f"XDP on {_DEVICE}", _device),
    "sched_cls": (f"tc ingress of {_DEVICE}", _queue),
    "sk_lookup": ("the network namespace", _network),
    "flow_dissector": ("the network namespace", _network),
    "socket_filter": ("a socket", _socket),
    "struct_ops": ("struct_ops", _struct_ops),
    "kprobe": _SECTION,
    "tracepoint": _SECTION,
    "raw_tracepoint": _SECTION,
    "raw_tracepoint_writable": _SECTION,
    "tracing": _SECTION,
    "lsm": _SECTION,
}
