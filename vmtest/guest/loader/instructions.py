# SPDX-License-Identifier: MIT
"""What of newer Linux the instructions of a program use: pure functions of bytes.

From Documentation/bpf/standardization/instruction-set.rst and include/uapi/linux/bpf.h.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

SIZE = 8
"""Bytes of an instruction; a 64-bit immediate load has two."""
_LAYOUT = struct.Struct("<BBhi")  # code, registers (destination low), offset, immediate

_CALL, _GOTOL, _MAY_GOTO, _LOAD_64 = 0x85, 0x06, 0xE5, 0x18
_ATOMIC = (0xC3, 0xDB)
_ATOMIC_SMALL = (0xCB, 0xD3)
_ADD, _FETCH, _LOAD_ACQUIRE, _STORE_RELEASE = 0x00, 0x01, 0x100, 0x110
_SIGNED_LOADS = (0x81, 0x89, 0x91)
_PSEUDO_KFUNC, _PSEUDO_FUNC = 2, 4
_PSEUDO_MAPS = (1, 2, 5, 6)  # BPF_PSEUDO_MAP_FD, _VALUE, _IDX, _IDX_VALUE


class Feature(NamedTuple):
    """Instructions that came with a version of Linux: in words, and what clang does without."""

    words: str
    since: str
    remedy: str


FEATURES = {
    "jmp32": Feature("32-bit jumps", "5.1", "compile with -mcpu=v2"),
    "callback": Feature("a function as an argument", "5.13", ""),
    "kfunc-call": Feature("calls of kernel functions", "5.13", ""),
    "atomics": Feature(
        "atomic operations that return the old value, or other than an addition",
        "5.12",
        "compile with -mcpu=v2, where clang refuses such operations and names their lines; "
        "count with `__sync_fetch_and_add()` whose result is not used, or take a bpf_spin_lock",
    ),
    "signed-loads": Feature("loads and moves with sign extension", "6.6", "compile with -mcpu=v3"),
    "signed-division": Feature("signed division and modulo", "6.6", "compile with -mcpu=v3"),
    "byte-swap": Feature("unconditional byte swaps", "6.6", "compile with -mcpu=v3"),
    "long-jump": Feature("jumps with a 32-bit offset", "6.6", "compile with -mcpu=v3"),
    "may-goto": Feature(
        "may_goto (`can_loop`, `cond_break`)",
        "6.9",
        "give the loop a constant bound, or call bpf_loop() there",
    ),
    "address-space": Feature("casts between address spaces (arenas)", "6.9", ""),
    "load-acquire": Feature(
        "load-acquire and store-release", "6.15", "compile with -mcpu=v3, and use other atomics"
    ),
}
"""By name. `since` and the remedies are for the reader: no verdict hangs on a version."""


class Instruction(NamedTuple):
    """One instruction as it lies in memory: the registers are source << 4 | destination."""

    code: int
    registers: int
    offset: int
    immediate: int

    @property
    def source(self) -> int:
        """The source register, or what a call or a 64-bit load is of."""
        return self.registers >> 4


def decoded(code: bytes) -> Iterator[Instruction]:
    """The instructions of `code`, each 64-bit load once."""
    words = _LAYOUT.iter_unpack(code)
    for word in words:
        yield Instruction._make(word)
        if word[0] == _LOAD_64:
            next(words, None)


def features(code: bytes) -> tuple[str, ...]:
    """The names of FEATURES that the instructions of `code` use, in the order of FEATURES."""
    used = {name for found in decoded(code) if (name := _feature(found))}
    return tuple(name for name in FEATURES if name in used)


def helpers(code: bytes) -> tuple[int, ...]:
    """The numbers of the helpers that the instructions of `code` call, each once, in order."""
    called = (i.immediate for i in decoded(code) if i.code == _CALL and i.source == 0)
    return tuple(dict.fromkeys(called))


def maps(code: bytes) -> int:
    """How many maps the instructions of `code` refer to, as libbpf numbers them before a load."""
    loads = (i for i in decoded(code) if i.code == _LOAD_64 and i.source in _PSEUDO_MAPS)
    return len({load.immediate for load in loads})


def _feature(found: Instruction) -> str:
    code, kind = found.code, found.code & 0x07
    if code in _ATOMIC or code in _ATOMIC_SMALL:
        return _atomic(found)
    if code == _LOAD_64:
        return "callback" if found.source == _PSEUDO_FUNC else ""
    if code == _CALL:
        return "kfunc-call" if found.source == _PSEUDO_KFUNC else ""
    if code in _SIGNED_LOADS:
        return "signed-loads"
    if code in (_MAY_GOTO, _GOTOL):
        return "may-goto" if code == _MAY_GOTO else "long-jump"
    if kind in (0x04, 0x07):
        return _arithmetic(found)
    return "jmp32" if kind == 0x06 else ""


def _atomic(found: Instruction) -> str:
    if found.immediate in (_LOAD_ACQUIRE, _STORE_RELEASE):
        return "load-acquire"
    return "" if found.immediate == _ADD else "atomics"


def _arithmetic(found: Instruction) -> str:
    operation, wide = found.code & 0xF0, found.code & 0x07 == 0x07
    if operation == 0xD0:
        return "byte-swap" if wide else ""
    if operation == 0xB0 and found.code & 0x08 and found.offset:
        return "signed-loads" if found.offset in (8, 16, 32) else "address-space"
    return "signed-division" if operation in (0x30, 0x90) and found.offset == 1 else ""
