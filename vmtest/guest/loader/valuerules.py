# SPDX-License-Identifier: MIT
"""What the verifier says of one value: what is returned, passed, or attached to. Pure.

In the wordings of Linux 5.10 to 7.3; these rules come before those of verifierrules.py, which say
less.
"""

import re

from vmtest.guest.failures import Failure, Kernel, Reason, rules
from vmtest.guest.loader import verifierlog

# What the verifier calls the values that an argument may have.
_KINDS = {
    "fp": "memory of the stack",
    "ctx": "the context",
    "pkt": "memory of the packet",
    "pkt_meta": "memory of the packet",
    "map_value": "a map's value",
    "map_key": "a map's key",
    "map_ptr": "a map",
    "mem": "memory of known size",
    "buf": "memory of known size",
    "alloc_mem": "memory that a helper reserved",
    "ringbuf_mem": "a record of bpf_ringbuf_reserve()",
    "func": "a function of the program",
    "scalar": "a number",
    "inv": "a number",
    "sock": "a socket",
    "sock_common": "a socket",
    "tcp_sock": "a socket",
    "xdp_sock": "a socket",
    "dynptr_ptr": "a dynptr",
    "ptr_": "a kernel structure",
    "trusted_ptr_": "a kernel structure",
    "rcu_ptr_": "a kernel structure",
    "percpu_ptr_": "a per-CPU variable of the kernel",
    "percpu_trusted_ptr_": "a per-CPU variable of the kernel",
    "percpu_rcu_ptr_": "a per-CPU variable of the kernel",
}


def kinds(words: str) -> str:
    """The kinds of values that the verifier names in `words`, in plain ones."""
    called = [_KINDS.get(word, word) for word in words.replace(",", " ").split()]
    return " or ".join(dict.fromkeys(called)) or words


def pointer_cure(wanted: str) -> str:
    """How to come by a pointer where a number is passed, of the kinds `wanted`."""
    if wanted == "ctx":
        return "pass the context that the program was called with"
    if "ptr_" in wanted:
        return (
            "pass a pointer that the verifier knows as one to that structure: from the context of "
            "a tp_btf, fentry, LSM, iterator or struct_ops program, of an acquiring kfunc, or of "
            "bpf_get_current_task_btf(), where bpf_get_current_task() returns a number"
        )
    return "pass the pointer itself, compared with NULL"


_MAY_RETURN = re.compile(
    r"At (?P<place>.+?) (?:the )?register R\d+ has (?P<has>.*?) should have been in (?P<range>.*)$"
)
_TNUM = re.compile(r"\((?P<value>0x[0-9a-f]+|\d+); (?P<mask>0x[0-9a-f]+|\d+)\)")
_BOUNDS = re.compile(r"\[(?P<least>-?\d+), (?P<most>-?\d+)\]")
_SIGNED = re.compile(r"smin=(?P<least>-?\d+) smax=(?P<most>-?\d+)")
_WORD = 1 << 64
_INT_MAX = (1 << 31) - 1


def _returned(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason | None:
    found = _MAY_RETURN.match(match.string)
    allowed = _range(found["range"]) if found else ""
    if found is None or not allowed:
        return None
    value = _range(found["has"])
    callback = "callback" in found["place"]
    who = "a callback" if callback else "the program"
    if "exception" in found["place"]:
        who = "the exception callback"
    verb = f"returns {value}" if value and " to " not in value else f"may return {value}"
    if not value:
        verb = "may return any number"
    what = f"{who} {verb}, and {'must return' if callback else 'this kernel takes'} {allowed}"
    if not callback:
        what += f" from programs of type {failure.program_type}" if failure.program_type else ""
        what += f" ({failure.attach_type})" if failure.attach_type else ""
    return Reason(
        "return-value",
        what,
        f"return {allowed} on every path; bound a computed value before the `return`",
        f"log: {match.string}",
    )


def _range(text: str) -> str:
    """A range of numbers as the verifier writes it; "" for one that it does not know."""
    if bounds := _BOUNDS.search(text) or _SIGNED.search(text):
        least, most = int(bounds["least"]), int(bounds["most"])
        if _INT_MAX < least == most < 2 * (_INT_MAX + 1):
            least = most = least - 2 * (_INT_MAX + 1)  # an int that is negative
        return _between(least, most) if abs(least) <= _INT_MAX and abs(most) <= _INT_MAX else ""
    if tnum := _TNUM.search(text):
        value, mask = int(tnum["value"], 0), int(tnum["mask"], 0)
        least = value - _WORD if value >= _WORD // 2 else value
        if _INT_MAX < least < 2 * (_INT_MAX + 1):
            least -= 2 * (_INT_MAX + 1)
        return _between(least, least + mask) if mask < _INT_MAX else ""
    return ""


def _between(least: int, most: int) -> str:
    if least == most:
        return str(least)
    return f"{least} or {most}" if most == least + 1 else f"{least} to {most}"


def _asleep(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason:
    name = match["name"].removeprefix("bpf_lsm_")
    lsm = failure.program_type == "lsm"
    what = "hook" if lsm else "function"
    marked = "that it calls where it may sleep" if lsm else "that it marks for it (system calls)"
    return Reason(
        "attach-target",
        f"this kernel lets no program that may sleep (a section with `.s`) be attached to the "
        f"{what} {name}, only to those {marked}",
        f"take the section without `.s` and only helpers that do not sleep, or another {what}",
        f"log: {match.string}",
        name=name,
    )


def _unmodifiable(match: re.Match[str], _failure: Failure, _kernel: Kernel) -> Reason:
    name = match["name"]
    return Reason(
        "attach-target",
        f"this kernel lets no fmod_ret program replace what {name} returns, only what functions "
        "return that it marks for it (ALLOW_ERROR_INJECTION, and security_ of LSM)",
        f'take SEC("fexit/{name}") where the result is only read, or name a function of '
        "/sys/kernel/debug/error_injection/list",
        f"log: {match.string}",
        name=name,
    )


_STEP = re.compile(r"\d+: \([0-9a-f]{2}\) (?P<text>.*)$")
_STORE = re.compile(r"(?:lock )?\*\(u\d+ \*\)\(r\d+ ")
_LOAD = re.compile(r"[rw]\d+ = \*\([us]\d+ \*\)\(r\d+ ")
_PLACE = re.compile(r".*access off=(?P<offset>-?\d+) size=(?P<size>\d+)")


def context(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason | None:
    """An access to the context that its type does not allow, as far as the log shows which."""
    # Of a function's arguments the line above says more: which function, and which of them.
    if any(line.startswith("func '") for line in verifierlog.findings(failure.log)):
        return None
    steps = [step["text"] for line in failure.trace.splitlines() if (step := _STEP.match(line))]
    writes = bool(steps and _STORE.match(steps[-1]))
    how = "writes" if writes else "reads" if steps and _LOAD.match(steps[-1]) else "reads or writes"
    place = _PLACE.match(match.string)
    part = f"{place['size']} bytes at offset {place['offset']}" if place else "a part"
    remedy = (
        "look at the fields that include/uapi/linux/bpf.h and the type's is_valid_access() allow; "
        "for a newer field ask with bpf_core_field_exists(), or build a variant"
    )
    if writes:
        remedy = (
            "write only fields that the type's is_valid_access() lets programs write (comments in "
            "include/uapi/linux/bpf.h say which), or use the helper that is made for it"
        )
    return Reason(
        "context-access",
        f"the program {how} {part} of its context, which this kernel does not allow to programs "
        f"of type {failure.program_type or 'its own'} there",
        remedy,
        f"log: {match.string}",
    )


def too_few_arguments(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason:
    """A program of tracing that reads an argument which its function or tracepoint lacks."""
    what = "tracepoint" if failure.attach_type == "trace_raw_tp" else "function"
    return Reason(
        "arguments",
        f"the {what} {match['name']} of this kernel has fewer arguments than the program reads: "
        f"none at place {match['place']}",
        f"read only those that this kernel's {what} has (bpftool btf dump file "
        "/sys/kernel/btf/vmlinux), or build a variant",
        f"log: {match.string}",
    )


VALUES = rules(
    (r"At .*should have been in [\[(]", _returned),
    (r"(?P<name>\w+) is not sleepable$", _asleep),
    (r"(?P<name>\w+)\(\) is not modifiable$", _unmodifiable),
)
