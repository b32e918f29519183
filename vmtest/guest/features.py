# SPDX-License-Identifier: MIT
"""What the running kernel can do: questions by name, asked of the kernel and not of its version."""

import errno
import functools
import socket
from collections.abc import Callable
from typing import NamedTuple

from vmtest.guest import helpers, libbpf, probing
from vmtest.guest.btf import Btf
from vmtest.guest.loader import kinds

SO_NETNS_COOKIE = 71  # asm-generic/socket.h, 5.14, commit e8b9eab99232


class Answer(NamedTuple):
    """Whether the kernel has a feature, how it was asked and what it said."""

    has: bool
    asked: str
    answered: str


class UnknownFeature(ValueError):
    """A name that no feature has; its message says which there are."""


Question = Callable[[], Answer]
"""Asks the kernel. Raises LibbpfError or OSError when it cannot be asked."""


def question(feature: str) -> Question:
    """What asks for `feature`, nothing of it asked yet. Raises UnknownFeature.

    `so_netns_cookie`, `map_type:ringbuf`, `program_type:sk_msg`, `helper:sk_msg/msg_push_data`;
    types are named as bpftool names them.
    """
    if feature in _QUESTIONS:
        return _QUESTIONS[feature]
    kind, _, name = feature.partition(":")
    if kind not in _KINDS:
        there = ", ".join([*_QUESTIONS, "map_type:TYPE", "program_type:TYPE", "helper:TYPE/HELPER"])
        raise UnknownFeature(f'there is no feature "{feature}" (there are: {there})')
    return _KINDS[kind](name)


@functools.cache
def probe(feature: str) -> Answer:
    """Asks for `feature`, once. Raises UnknownFeature, and LibbpfError or OSError as Question."""
    return question(feature)()


def _so_netns_cookie() -> Answer:
    asked = "getsockopt(SOL_SOCKET, SO_NETNS_COOKIE)"
    with socket.socket() as any_socket:
        try:
            cookie = any_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise
            return Answer(False, asked, "ENOPROTOOPT")
    return Answer(True, asked, f"{len(cookie)} bytes")


def _map_type(name: str) -> Question:
    kind = _number(name, "map type", kinds.map_types())
    return lambda: _answer(
        libbpf.library().libbpf_probe_bpf_map_type(kind, None), f"making a map of type {name}"
    )


def _program_type(name: str) -> Question:
    kind = _number(name, "program type", kinds.program_types())
    return lambda: _answer(
        libbpf.library().libbpf_probe_bpf_prog_type(kind, None), f"loading a {name} program"
    )


def _helper(name: str) -> Question:
    program, _, helper = name.partition("/")
    _number(program, "program type", kinds.program_types())
    named = helpers.NUMBERS.get(f"bpf_{helper.removeprefix('bpf_')}")
    number = int(helper) if helper.isdecimal() else named
    if number is None:
        raise UnknownFeature(
            f'there is no helper "{helper}" (write it as in linux/bpf.h, "ringbuf_output" for '
            "instance, or its number there)"
        )
    return lambda: _given(number, program)


def _given(number: int, program: str) -> Answer:
    try:
        btf = Btf.of_kernel()
    except libbpf.LibbpfError:
        btf = None
    given = probing.gives_some(number, program, btf)
    asked = f"loading a {program} program that calls helper {number}"
    return Answer(given, asked, "accepted" if given else "refused")


def _answer(result: int, asked: str) -> Answer:
    taken = libbpf.check(result, f"{asked}: libbpf cannot tell") > 0
    return Answer(taken, asked, "accepted" if taken else "refused")


def _number(name: str, what: str, numbers: dict[str, int]) -> int:
    """The number of the type `name`."""
    if name not in numbers:
        raise UnknownFeature(f'there is no {what} "{name}" (there are: {", ".join(numbers)})')
    return numbers[name]


_QUESTIONS: dict[str, Question] = {"so_netns_cookie": _so_netns_cookie}
_KINDS: dict[str, Callable[[str], Question]] = {
    "map_type": _map_type,
    "program_type": _program_type,
    "helper": _helper,
}
