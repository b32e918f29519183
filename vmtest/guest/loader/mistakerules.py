# SPDX-License-Identifier: MIT
"""Mistakes for which the general words of the other rules would mislead. Pure.

In the wordings of Linux 5.10 to 7.3; these rules come before those of verifierrules.py.
"""

import re

from vmtest.guest.failures import Failure, Kernel, Reason, rules, said
from vmtest.guest.loader import instructions, lostpointers, verifierlog

_UNCHANGED = said(
    "context-access",
    "the program changed the pointer to its context before it used it",
    "read the fields at constant offsets through the pointer that the program was called with, and "
    "pass that very pointer to helpers",
)
_NOT_ACQUIRED = said(
    "not-acquired",
    "something is released that the program does not hold: it never acquired it, or changed the "
    "pointer, or released it before",
    "release only what an acquiring helper or kfunc returned (bpf_sk_lookup_tcp(), "
    "bpf_ringbuf_reserve(), bpf_task_acquire(), ...), through the pointer that it returned, once",
)
_LARGER = said(
    "bounds",
    "the size that is passed is larger than the memory that is passed with it",
    "pass the size of that memory: sizeof(buffer), or a bounded number within it",
)
_BEYOND = said(
    "pointer-arithmetic",
    "a number is added to a pointer that is larger than the verifier follows (2^29)",
    "bound the number before it is added; a negative number in a 32-bit variable is a large one in "
    "the 64 bits of a pointer, so declare it as a signed 64-bit one",
)
_UNSET = said(
    "uninitialised",
    "bytes of the stack are read that the program has not set on this path",
    "set the whole variable before: `struct key k = {{}};`, or memset() where it has padding",
)
_BEHIND_END = said(
    "packet-bounds",
    "the packet is read or written on a path on which the comparison with data_end says that it "
    "ends before",
    "access it in the other branch only: `if (data + SIZE > data_end) return ...;` before the "
    "access, with the very pointer that is used",
)
_WRONG_SOCKET = said(
    "context-access",
    "a socket is accessed at a place where its type has no field, or not with that field's size",
    "read the fields of struct bpf_sock or bpf_tcp_sock by their names, each with its whole size",
)
_FULL_SOCKET = said(
    "context-access",
    "a field of a socket is read that only a full socket has",
    "call bpf_sk_fullsock() before, compare its result with NULL, and read the field there",
)
_STACK_SIZE = 512
_LOAD = re.compile(r"\d+: \([0-9a-f]{2}\) ")
_SIGNED_LOAD = re.compile(r"\d+: \([0-9a-f]{2}\) (?P<text>r\d+ = \*\(s\d+ \*\)[^;]*\S)")
_FULL_FIELDS = range(8, 24)  # type, protocol, mark and priority of struct bpf_sock


def _outside(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    if any(line.startswith("invalid access to packet") for line in failure.log.splitlines()):
        return None  # that line says more
    return _BEHIND_END(match, failure, kernel)


def _common_socket(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    make = _FULL_SOCKET if int(match["offset"]) in _FULL_FIELDS else _WRONG_SOCKET
    return make(match, failure, kernel)


def _pair(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    findings = verifierlog.findings(failure.log)
    if match.string in findings[1:] and findings[0] != match.string:
        return None  # the lines before it say what is wrong with that memory or its size
    return _LARGER(match, failure, kernel)


def _beyond_stack(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    offset, size = int(match["offset"]), int(match["size"])
    if offset < -_STACK_SIZE:
        return None  # too large a stack
    if offset + size <= 0:
        return _UNSET(match, failure, kernel) if "read from" in match[0] else None
    if offset >= 0:
        return Reason(
            "stack-access",
            f"memory at offset {offset} of the stack is accessed, and the stack ends at offset 0: "
            "its variables lie below",
            "access variables of the same function within their size",
            f"log: {match.string}",
        )
    return Reason(
        "stack-access",
        f"{size} bytes at offset {offset} of the stack reach beyond its end: the variable that is "
        "accessed, or passed to a helper, is smaller",
        "make the variable as large as what is read or written there, and pass its sizeof()",
        f"log: {match.string}",
    )


def _fixed(match: re.Match[str], _failure: Failure, _kernel: Kernel) -> Reason | None:
    kind = match["kind"]
    if "or_null" in kind:
        return None  # it may be calculated with after a comparison with NULL
    cure = "read the fields of what it points to by their names, and pass the pointer as it is"
    if kind == "pkt_end":
        cure = "calculate with data instead: `if (data + SIZE > data_end) return ...;`"
    return Reason(
        "pointer-arithmetic",
        f"the program calculates with a pointer of the kind {kind}, which it must not change",
        cure,
        f"log: {match.string}",
    )


def _extended(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason | None:
    steps = [line for line in failure.trace.splitlines() if _LOAD.match(line)]
    if not steps or not (load := _SIGNED_LOAD.match(steps[-1])):
        return None
    return Reason(
        "context-access",
        "the context is read with sign extension, which this kernel does not allow for this field",
        "declare the field as include/uapi/linux/bpf.h does (unsigned), or compile with -mcpu=v3, "
        "which has no such loads",
        f"log: {match.string}; log at level 1: {load['text']}",
    )


_BAD_CALL = said(
    "global-function",
    "the call of the global function {name} passes an argument that the function does not take",
    "pass what it is declared with: a pointer of that type, to memory of that size, compared with "
    "NULL before unless the argument is tagged __arg_nullable; or make the function static",
)


def _bad_call(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    findings = verifierlog.findings(failure.log)
    at = findings.index(match.string) if match.string in findings else 0
    before = findings[at - 1] if at else ""
    if "or_null" in before:
        return None  # that line says it all
    told = _BAD_CALL(match, failure, kernel)
    return told._replace(evidence=f"{told.evidence}; {before}") if told and before else told


def _bytes_of(match: re.Match[str], _failure: Failure, _kernel: Kernel) -> Reason:
    what = match["what"]
    return Reason(
        "lock" if what.endswith("spin_lock") else "kptr",
        f"the program reads or writes the bytes of a {what} in a map's value",
        "copy the other members one by one, and not the whole value",
        f"log: {match.string}",
    )


_ZERO_SIZED = said(
    "bounds",
    "the size that is passed to a helper may be 0, which it does not take",
    "return or skip where it is 0 just before the call: `if (size == 0) return 0;`",
)


def _within_and_empty(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    """Linux 5.10 has no words of its own for a size of 0."""
    within = int(match["offset"]) <= int(match["room"])
    return _ZERO_SIZED(match, failure, kernel) if within else None


def _never_returns(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason:
    name = match["name"] or failure.section.rpartition("/")[2] or "that is named"
    return Reason(
        "attach-target",
        f"the function {name} never returns, so nothing can be attached to its end",
        "take fentry, which is called at its start, or name another function",
        f"log: {match.string}",
        name=name,
    )


MISTAKES = rules(
    (
        r"kernel subsystem misconfigured verifier$",
        said(
            "map-for-helper",
            "a helper is called without a map, or with one that it does not take, in the place of "
            "its map (bpf_tail_call() takes a PROG_ARRAY only)",
            "pass a map of the type that the helper takes, by its name (`&map`)",
        ),
    ),
    (
        r"metadata kfuncs (?:require device-bound|can't be)",
        said(
            "kfunc",
            "the program reads what a network device says of a packet (bpf_xdp_metadata_...()), "
            "and is not bound to a device",
            "bind it before the load: bpf_program__set_ifindex(), and BPF_F_XDP_DEV_BOUND_ONLY in "
            "bpf_program__set_flags(); not for a program that the device itself runs",
        ),
    ),
    (
        r"(?:\d+: )?invalid shift (?P<bits>-?\d+)",
        said(
            "malformed-instruction",
            "a value is shifted by {bits}, and a register has 64 bits (32 in `w` registers)",
            "shift by 0 to 63 (0 to 31); where the number comes from a macro or from `asm`, "
            "correct it there: in C it is undefined",
        ),
    ),
    (
        r"Attaching \S+ to __noreturn functions?(?: '(?P<name>[^']*)')? is rejected",
        _never_returns,
    ),
    (
        r"R\d+ leaks addr as return value",
        said(
            "return-value",
            "the program, or a function of it, returns an address, and only numbers may leave it",
            "return a number on every path; to hand a pointer on, keep it in a map as a kptr",
        ),
    ),
    (
        r"held lock and object are not in the same allocation",
        said(
            "lock",
            "a list or tree is used under a lock that lies in another map's value or object",
            "keep the bpf_spin_lock beside the list's head or the tree's root, in one structure, "
            "and take that one",
        ),
    ),
    (r"R\d+ offset is outside of the packet", _outside),
    (
        r"(?:\d+: )?invalid (?:(?:indirect access to|write to|read from) )?stack (?:type )?"
        r"(?:R\d+ )?off=(?P<offset>-?\d+) (?:access_)?size=(?P<size>\d+)",
        _beyond_stack,
    ),
    (r"(?:\d+: )?invalid bpf_context access off=", _extended),
    (r"R\d+ pointer arithmetic on (?P<kind>\S+) prohibited", _fixed),
    (
        r"(?:\d+: )?div by zero",
        said(
            "malformed-instruction",
            "the program divides by the constant 0",
            "correct the divisor; where it comes from a variable, clang knows it to be 0 there",
        ),
    ),
    (
        r"(?:\d+: )?frame pointer is read only",
        said(
            "malformed-instruction",
            "an instruction writes to R10, the frame pointer, which programs may only read",
            "take another register in instructions that are written by hand (`asm`)",
        ),
    ),
    (
        r"dereference of modified ctx ptr|negative offset ctx ptr|variable ctx access var_off|"
        r"math between ctx pointer and |ctx pointer offset |value -?\d+ makes ctx pointer ",
        _UNCHANGED,
    ),
    (
        r"math between \S+ pointer and -?\d+ is not allowed|\S+ pointer offset -?\d+ is not|"
        r"value -?\d+ makes \S+ pointer be out of bounds",
        _BEYOND,
    ),
    (
        r"(?:\d+: )?(?:R\d+ )?invalid zero-sized",
        _ZERO_SIZED,
    ),
    (
        r"(?:\d+: )?invalid access to \D+, \w+_size=(?P<room>\d+) off=(?P<offset>\d+) size=0$",
        _within_and_empty,
    ),
    (
        r"(?:\d+: )?R\d+ invalid sock_common access off=(?P<offset>-?\d+)",
        _common_socket,
    ),
    (r"(?:\d+: )?R\d+ invalid (?:tcp_|xdp_)?sock access off=", _WRONG_SOCKET),
    (
        r"R\d+ must be referenced when passed to release func|"
        r"release (?:helper|kernel function|kfunc) |"
        r"(?:\S+ \S+#\d+ )?reference has not been acquired before|"
        r"arg \d+ is an unacquired reference",
        _NOT_ACQUIRED,
    ),
    (
        r"R(?P<register>\d+) must have zero offset when passed to release func",
        said(
            "argument",
            "a pointer to which the program added an offset (R{register}) is passed to a function "
            "that takes it only as it was returned",
            "keep the pointer that the acquiring helper or kfunc returned, or that the context "
            "holds, and pass that one",
        ),
    ),
    (
        r"helper access to the packet is not allowed",
        said(
            "argument",
            "a helper gets memory of the packet, and takes only memory of the stack or of a map",
            "copy the bytes to the stack before (bpf_skb_load_bytes(), bpf_xdp_load_bytes(), or "
            "__builtin_memcpy() after a comparison with data_end), and pass these",
        ),
    ),
    (r"\S+ (?:\S+ )?memory, len pair leads to invalid memory", _pair),
    (r"Caller passes invalid args into func#\d+(?: \('(?P<name>[^']*)'\))?", _bad_call),
    (
        r"(?P<register>\S+) must be (?:referenced or trusted|a rcu pointer)",
        said(
            "argument",
            "a kernel function gets a pointer of which the kernel does not know that it is still "
            "valid ({register}): it was read out of another structure, or is kept "
            "longer than it may be",
            "pass a pointer that comes from the context of a tp_btf, LSM, iterator or struct_ops "
            "program, or acquire it (bpf_task_acquire() and its like, under "
            "bpf_rcu_read_lock()) and compare it with NULL before",
        ),
    ),
    (
        r"get_local_storage\(\) doesn't support non-zero flags",
        said(
            "argument",
            "bpf_get_local_storage() gets flags other than the constant 0",
            "pass 0",
        ),
    ),
    (
        r"fd -?\d+ is not pointing to valid bpf_map",
        said(
            "relocation",
            "an instruction refers to a map by a file descriptor that is not one of a map",
            "refer to the map by its name (`&map`), and let libbpf fill in its descriptor",
        ),
    ),
    (
        r"(?:\d+: )?same insn cannot be used with different pointers",
        said(
            "context-access",
            "one and the same instruction accesses the context, a socket or a kernel structure on "
            "one path, and memory of another kind on another",
            "access each in its own branch, and keep clang from joining the branches: "
            'barrier_var() of bpf_helpers.h, or asm volatile("" ::: "memory") in one of them',
        ),
    ),
    (
        r"(?P<what>bpf_\w+) cannot be accessed (?:directly|indirectly) by ",
        _bytes_of,
    ),
    (
        r"function calls are not allowed while holding a lock",
        said(
            "lock",
            "a function or helper is called while the program holds a bpf_spin_lock",
            "release the lock before the call, or call before it is taken",
        ),
    ),
)

_PACKET = ("pkt", "pkt_meta", "pkt_end")
_CHANGES_PACKET = re.compile(
    r"bpf_(?:skb_(?:vlan_|store_bytes|change_|pull_data|adjust_room|set_)|sk_skb_|xdp_adjust_|"
    r"msg_(?:pull|push|pop)_data|l[34]_csum_replace|clone_redirect|lwt_|store_hdr_opt|"
    r"reserve_hdr_opt|load_hdr_opt)"
)
_RELEASES = re.compile(r"bpf_\w*(?:release|submit|discard|destroy|put|drop|kptr_xchg)")
_OWN_FUNCTION = "pc"


def scalar(line: str, register: str, failure: Failure) -> Reason | None:
    """Why a number stands where the program has a pointer, as far as more is known than that.

    Of the log at level 1, which has the instructions and what they change in registers.
    """
    held = lostpointers.before(failure.trace, line, int(register))
    if held is None:
        return None
    if held.kind == lostpointers.ARENA:
        return _no_cast(line, failure)
    return _stale(held, line, register) if held.calls else None


def _stale(held: lostpointers.Held, line: str, register: str) -> Reason:
    evidence = f"log: {line}; log at level 1: it was {held.kind} before the call"
    packet = held.kind in _PACKET
    known = _CHANGES_PACKET if packet else _RELEASES
    by = [name for name in held.calls if known.match(name)] or held.calls
    called = "a function of the program" if by[-1].startswith(_OWN_FUNCTION) else by[-1]
    if packet:
        return Reason(
            "stale-pointer",
            f"R{register} pointed into the packet before the call of {called}, which may move the "
            "packet",
            "read data and data_end from the context again after that call, and repeat the "
            "comparison",
            evidence,
        )
    return Reason(
        "stale-pointer",
        f"R{register} is used after a call of {called}, which released what it pointed to",
        "use it before that call, or copy what is needed to the stack before",
        evidence,
    )


def _no_cast(line: str, failure: Failure) -> Reason | None:
    """Of an arena, whose addresses are numbers to the verifier until they are cast."""
    if "arena" not in {shape.kind for shape in failure.maps}:
        return None
    casts = "address-space" in instructions.features(failure.code)
    none = "" if casts else ", and the program has no instruction that casts"
    return Reason(
        "arena",
        "an address in an arena is used before a cast to the kernel's address space",
        "mark the pointers `__arena` (`__attribute__((address_space(1)))`), and compile with clang "
        "19 or later and -mcpu=v3 or later, which casts them; before such a clang call cast_kern() "
        "of the kernel's bpf_arena_common.h",
        f"log: {line}; log at level 1: it came from the arena as a number{none}",
    )


def beside(reason: Reason, findings: list[str], at: int) -> Reason:
    """`reason` of `findings[at]`, with the numbers of an access that the line before it has."""
    before = findings[at - 1] if at else ""
    if reason.code != "bounds" or not before.startswith("invalid access to "):
        return reason
    return reason._replace(evidence=f"{reason.evidence}; {before}")
