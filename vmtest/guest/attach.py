# SPDX-License-Identifier: MIT
"""Attaching programs, for as long as a `with` lasts."""

import contextlib
import errno
import os
from collections.abc import Iterator

from vmtest.guest import libbpf, lsm
from vmtest.guest.cgroup import Cgroup
from vmtest.guest.loader import kinds
from vmtest.guest.maps import Map
from vmtest.guest.objects import Program

# From linux/bpf.h.
_ALLOW_MULTI = 2


@contextlib.contextmanager
def attached_to_cgroup(program: Program, group: Cgroup) -> Iterator[None]:
    """Runs `program` for the group's sockets, beside what else is attached. Raises LibbpfError.

    Also for an LSM program that this kernel would take and never call.
    """
    if why := lsm.never_called(kinds.program_type_name(program.kind), program.section):
        raise libbpf.LibbpfError(
            errno.EOPNOTSUPP, f"attaching {program.name} to {group.path}: {why.text}; {why.remedy}"
        )
    fd = os.open(group.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with _attached(program, fd, program.attach_type, _ALLOW_MULTI, str(group.path)):
            yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def attached_to_sockhash(program: Program, sockets: Map) -> Iterator[None]:
    """Runs an sk_msg program on what the sockets of a SOCKHASH send; or an sk_skb program on what
    they receive. Raises LibbpfError.

    A socket leaves the map by itself when it is closed.
    """
    with _attached(program, sockets.fd, program.attach_type, 0, sockets.name):
        yield


@contextlib.contextmanager
def _attached(
    program: Program, target: int, attach_type: int, flags: int, name: str
) -> Iterator[None]:
    lib = libbpf.library()
    libbpf.check(
        lib.bpf_prog_attach(program.fd, target, attach_type, flags),
        f"attaching {program.name} to {name}",
    )
    try:
        yield
    finally:
        libbpf.check(
            lib.bpf_prog_detach2(program.fd, target, attach_type),
            f"detaching {program.name} from {name}",
        )
