# SPDX-License-Identifier: MIT
"""What the lines of a verifier's log mean, in the wordings of Linux 5.10 to 7.3. Pure.

The rules are tried in their order on every line, from the last line on.
"""

import re

from vmtest.guest import helpers
from vmtest.guest.failures import Failure, Kernel, Make, Reason, lacking, listed, rules, said
from vmtest.guest.loader import instructions, libbpfage, mistakerules, valuerules

_HELPER_CONFIG = {
    # Helper: the symbol, and the program types to whose programs it is given with that symbol only;
    # from the conditions around the helper in the get_func_proto() of those types.
    "bpf_override_return": ("CONFIG_BPF_KPROBE_OVERRIDE", {"kprobe"}),
    "bpf_rc_repeat": ("CONFIG_BPF_LIRC_MODE2", {"lirc_mode2"}),
    "bpf_rc_keydown": ("CONFIG_BPF_LIRC_MODE2", {"lirc_mode2"}),
    "bpf_rc_pointer_rel": ("CONFIG_BPF_LIRC_MODE2", {"lirc_mode2"}),
    "bpf_get_cgroup_classid": (
        "CONFIG_CGROUP_NET_CLASSID",
        {"cgroup_sock", "cgroup_sock_addr", "cgroup_sockopt", "cgroup_device", "sk_msg"},
    ),
    "bpf_skb_cgroup_id": ("CONFIG_SOCK_CGROUP_DATA", {"sched_cls", "sched_act", "cgroup_skb"}),
    "bpf_skb_ancestor_cgroup_id": (
        "CONFIG_SOCK_CGROUP_DATA",
        {"sched_cls", "sched_act", "cgroup_skb"},
    ),
    "bpf_skb_get_xfrm_state": ("CONFIG_XFRM", {"sched_cls", "sched_act"}),
    "bpf_lwt_seg6_store_bytes": ("CONFIG_IPV6_SEG6_BPF", {"lwt_seg6local"}),
    "bpf_lwt_seg6_action": ("CONFIG_IPV6_SEG6_BPF", {"lwt_seg6local"}),
    "bpf_lwt_seg6_adjust_srh": ("CONFIG_IPV6_SEG6_BPF", {"lwt_seg6local"}),
    "bpf_tcp_raw_gen_syncookie_ipv4": ("CONFIG_SYN_COOKIES", {"xdp", "sched_cls", "sched_act"}),
    "bpf_tcp_raw_gen_syncookie_ipv6": ("CONFIG_SYN_COOKIES", {"xdp", "sched_cls", "sched_act"}),
}

BAD_RELOCATION = 195896080
"""libbpf's 0xbad2310: the call in the place of a CO-RE relocation that could not be made."""
_NO_MAP, _NO_KFUNC = range(2001000000, 2002000000), range(2002000000, 2003000000)
_STACK_SIZE = 512


def _helper(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    number = int(match["number"])
    if number == BAD_RELOCATION:
        return _core_relocation(match, failure, kernel)
    if number in _NO_KFUNC:
        return _unresolved_kfunc(match, failure, kernel)
    if number in _NO_MAP:
        return _missing_map(match, failure, kernel)
    name = match["name"]
    if name == "unknown":
        name = helpers.name_of(number) or f"#{number}"
    # "invalid func": the number is beyond all that this kernel has.
    if match.string.removeprefix(match["place"] or "").startswith("invalid"):
        return no_such_helper(name, f"log: {match.string}")
    return _not_for_this_program(name, number, match.string, failure, kernel)


def _left_out(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason | None:
    return libbpfage.of_struct_ops_data(failure, f"log: {match.string}")


def _arena(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason | None:
    what = "map an arena before it loads the programs"
    return libbpfage.older(failure, libbpfage.ARENA, what, f"log: {match.string}", "arena")


def no_such_helper(name: str, evidence: str) -> Reason:
    """The reason for a call of the helper `name`, which the kernel has for no program."""
    came = f" (it came with Linux {since})" if (since := helpers.since(name)) else ""
    return Reason(
        "helper",
        f"this kernel has no helper {name}{came}",
        f"ask with bpf_core_enum_value_exists(enum bpf_func_id, {_enumerator(name)}) before the "
        "call, or build a variant without it",
        evidence,
        name=name,
    )


def _enumerator(name: str) -> str:
    return f"BPF_FUNC_{name.removeprefix('bpf_')}" if name.startswith("bpf_") else "..."


def _not_for_this_program(
    name: str, number: int, line: str, failure: Failure, kernel: Kernel
) -> Reason:
    kind, evidence = failure.program_type, f"log: {line}"
    symbol, types = _HELPER_CONFIG.get(name, ("", set()))
    none = f"this kernel gives the helper {name} to no program of type {kind}"
    if symbol and kind in types and kernel.config(symbol) == "n":
        return lacking(Reason("helper", none, "", evidence, name=name), symbol, kernel)
    switch = (
        "build a variant without the call, or put the call behind a `const volatile` global that "
        "the loader clears where libbpf_probe_bpf_helper() says no; "
        "bpf_core_enum_value_exists() cannot tell, because this kernel has the helper for others"
    )
    if attach_types := kernel.attach_types_with(number, kind):
        given = listed(attach_types)
        asked = f", and not for {failure.attach_type}" if failure.attach_type else ""
        return Reason(
            "helper",
            f"this kernel gives the helper {name} to programs of type {kind} only for the attach "
            f"types {given}{asked}",
            f"call it in a program for one of these attach types; or {switch}",
            f"{evidence}; probe: a small {kind} program for {attach_types[0]} may call it",
            name=name,
        )
    if asleep := kernel.attach_types_with(number, kind, sleepable=True):
        return Reason(
            "sleepable",
            f"this kernel gives the helper {name} only to those programs of type {kind} that may "
            f"sleep (attach type {listed(asleep)})",
            "make the program sleepable (a section with `.s`, as in lsm.s/ or fentry.s/), or "
            f"{switch}",
            f"{evidence}; probe: a small sleepable {kind} program may call it",
            name=name,
        )
    others = [other for other in kernel.program_types_with(number) if other != kind]
    if others:
        evidence += f"; probe: a small {others[0]} program may call it"
        switch = f"call it in a program of type {listed(others)}; or {switch}"
    return Reason("helper", none, switch, evidence, name=name)


_SPEC = re.compile(
    r".*?CO-RE relocation (?:<(?P<kind>\w+)> )?\[\d+\] (?P<what>struct|union|enum|typedef|\w+) "
    r"(?P<type>\w+)(?:(?P<access>[.:\[][^ ]*))?"
)
_FLAVOUR = re.compile(r"___.*$")


def _core_relocation(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason:
    for line in [*failure.trace.splitlines(), *failure.log.splitlines()]:
        if "failed to resolve" in line and (spec := _SPEC.match(line)):
            evidence = f"log: {match.string}"
            if line != match.string:
                evidence += f"; log at level 1: {line}"
            return _unresolved(spec, evidence, kernel)
    return Reason(
        "core-relocation",
        "this kernel's BTF has no such type, field or enumerator as the program reads",
        "ask first: bpf_core_field_exists() for a field, bpf_core_type_exists() for a type, "
        "bpf_core_enum_value_exists() for an enumerator",
        f"log: {match.string}",
    )


def _unresolved(spec: re.Match[str], evidence: str, kernel: Kernel) -> Reason:
    kind, access = spec["kind"] or "", spec["access"] or ""
    name = _FLAVOUR.sub("", spec["type"])
    called = f"{spec['what']} {name}"
    if kind.startswith("enumval") or access.startswith("::"):
        value = _FLAVOUR.sub("", access.lstrip(":"))
        return Reason(
            "core-relocation",
            f"this kernel's BTF has no enumerator {value} in {called}",
            f"ask with bpf_core_enum_value_exists(enum {spec['type']}, {access.lstrip(':')}) first",
            evidence,
            name=value,
        )
    members = kernel.members(name)
    field = access.lstrip(".").partition("[")[0]
    if not field or (members is not None and not members and not _is_typedef(spec)):
        return Reason(
            "core-relocation",
            f"this kernel's BTF has no {called} as the program declares it",
            f"ask with bpf_core_type_exists({spec['what']} {spec['type']}) first",
            evidence,
            name=name,
        )
    if members is not None and field in members:
        return Reason(
            "core-relocation",
            f"the field {field} of {called} has another type in this kernel's BTF than the "
            "program declares",
            f"declare the {spec['what']} of this kernel too, under a name of its own "
            f"({name}___other), and choose with bpf_core_type_matches() or by a field that only "
            "one of them has",
            evidence,
            name=_last(field),
        )
    return Reason(
        "core-relocation",
        f"this kernel's BTF has no field {field} in {called}",
        f"ask with bpf_core_field_exists() first; where the field was renamed, declare {called} "
        f"a second time as {name}___old with the old name",
        evidence,
        name=_last(field),
    )


def _last(field: str) -> str:
    """Of a nested field `outer.inner` the last part, as its structure's source calls it."""
    return field.rpartition(".")[2]


def _is_typedef(spec: re.Match[str]) -> bool:
    return spec["what"] == "typedef"


def _unresolved_kfunc(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason:
    text = f"{failure.trace}\n{failure.log}"
    found = re.search(r"kfunc '(\S+)' is referenced but wasn't resolved", text)
    name = f"kfunc {found[1]}" if found else "kfunc that the program calls"
    asked = found[1] if found else "..."
    return Reason(
        "kfunc",
        f"this kernel, with the modules that are loaded, has no {name}",
        f"ask with bpf_ksym_exists({asked}) before the call, or build a variant without it",
        f"log: {match.string}" + (f"; log at level 1: {found[0]}" if found else ""),
        found[1] if found else "",
        found[1] if found else "",
    )


def _missing_map(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason:
    found = re.search(r"BPF map '(\S+)' is referenced but wasn't created", failure.trace)
    name = f"map {found[1]}" if found else "map"
    return Reason(
        "map-not-created",
        f"the program uses a {name} whose creation is switched off",
        "switch it on (bpf_map__set_autocreate), or guard the use with a `const volatile` global "
        "that the loader clears",
        f"log: {match.string}" + (f"; log at level 1: {found[0]}" if found else ""),
    )


def _stack_offset(match: re.Match[str], _failure: Failure, _kernel: Kernel) -> Reason | None:
    if int(match["offset"]) >= -_STACK_SIZE:
        return None  # another mistake with the stack
    return Reason(
        "stack",
        f"more than the {_STACK_SIZE} bytes of stack that a program has",
        "keep large variables in a per-CPU array map",
        f"log: {match.string}",
    )


def _instruction(*candidates: str) -> Make:
    """The line stands for an instruction that the kernel does not know, if the program has such."""

    def make(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
        features_used = instructions.features(failure.code)
        used = [name for name in candidates if name in features_used]
        if not used:
            return None
        evidence = f"log: {match.string}; the program has such instructions"
        called = instructions.helpers(failure.code) if used == ["callback"] else ()
        missing = [number for number in called if kernel.has_helper(number) is False]
        if missing:
            return _callbacks(missing, evidence)
        features = [instructions.FEATURES[name] for name in used]
        known = listed([f"{f.words}, of Linux {f.since}" for f in features])
        cures = [feature.remedy for feature in features if feature.remedy]
        return Reason(
            "instruction",
            f"this kernel does not know all instructions of the program, which uses {known}",
            "; ".join([*cures, "or build a variant for such kernels"]),
            evidence,
        )

    return make


def _callbacks(missing: list[int], evidence: str) -> Reason:
    names = [helpers.name_of(number) or f"#{number}" for number in missing]
    since = [came for name in names if (came := helpers.since(name))]
    came = f" (Linux {listed(since)})" if since else ""
    few = "helper" if len(names) == 1 else "helpers"
    return Reason(
        "helper",
        f"this kernel has no {few} {listed(names)}{came}, and takes no function as an argument "
        "(Linux 5.13)",
        "build a variant without the call: asking before the call does not help, because this "
        "kernel refuses the function that is passed as well",
        f"{evidence} and calls; probe: its enum bpf_func_id has no {listed(names)}",
        name=names[0],
    )


_R = r"(?:\d+: )?R(?P<register>\d+) "
_NULL = said(
    "possible-null",
    "a pointer that may be NULL is used before it was compared with NULL",
    "compare the pointer with NULL in this function, before its use, and return or skip",
)
_SCALAR = said(
    "scalar-as-pointer",
    "a plain number (R{register}) is used as a pointer: the verifier knows of no address there",
    "read kernel memory with bpf_core_read() or bpf_probe_read_kernel(), user memory with "
    "bpf_probe_read_user(); keep map values and packet pointers in their own types, without casts "
    "to integers and arithmetic that the verifier cannot follow",
)
_BOUNDS = said(
    "bounds",
    "an index, an offset or a size may lie outside of the memory that is accessed",
    "compare the index or size with a constant bound just before the access (an unsigned variable, "
    "or `i &= SIZE - 1` with a power of 2)",
)
_UNINITIALISED_STACK = said(
    "uninitialised",
    "bytes of the stack are read, or passed to a helper, that the program has not set on this path",
    "set the whole variable before: `struct key k = {{}};`, or memset() where it has padding",
)
_RETURN = said(
    "return-value",
    "the program may return a value that its type or attach type does not allow",
    "return one of the allowed values on every path",
)
_LEAK = said(
    "reference-leak",
    "a reference that was taken (a socket, a ring buffer's record, a kptr) is not given back on "
    "every path",
    "release it on every path: bpf_sk_release(), bpf_ringbuf_submit() or bpf_ringbuf_discard(), "
    "the kfunc's counterpart",
)
_SLEEP = said(
    "sleepable",
    "something that may sleep is called in a program that must not",
    "make the program sleepable where its type allows it (a section with `.s`: lsm.s/, fentry.s/, "
    "uprobe.s/, ...), or use the variant that does not sleep",
)
_READ_ONLY = said(
    "read-only",
    "the program writes to memory that it may only read",
    "write through the helper or kfunc that is made for it, or copy the value first",
)
_GLOBAL = said(
    "global-function",
    "a global function has arguments or a result that the verifier cannot check by themselves",
    "make the function static, or give it only scalars, the context and pointers to memory of "
    "known size",
)
_LOCK = said(
    "lock",
    "a bpf_spin_lock is not taken and released as it must be",
    "release it on every path, and call nothing between but what is allowed under it",
)
_ARITHMETIC = said(
    "pointer-arithmetic",
    "a pointer is calculated with in a way that the verifier does not follow",
    "add and subtract bounded numbers only, and check a pointer for NULL before",
)
_STRUCT = said(
    "struct-access",
    "a field of a kernel structure is read at a place where this kernel has no such field",
    "read it with CO-RE (`preserve_access_index`, bpf_core_read()), which adapts the offset",
)
_KFUNC_ARGUMENT = said(
    "argument",
    "a kernel function gets an argument of another kind than it takes",
    "pass a pointer that comes from the context, from an acquiring kfunc or a kptr, checked for "
    "NULL and not changed",
)
_NOT_ATTACHABLE = said(
    "attach-target",
    "this kernel does not let such a program attach there",
    "name another function or hook, or leave the program out on such kernels",
)


def _argument(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason:
    got, wanted = match["got"], match["wanted"]
    if got.endswith("or_null") or "_or_null" in got:
        return _NULL(match, failure, kernel) or _plain_argument(match, got, wanted)
    if got in ("scalar", "inv"):
        return _number_passed(match, wanted, failure)
    return _plain_argument(match, got, wanted)


def _number_passed(match: re.Match[str], wanted: str, failure: Failure) -> Reason:
    if known := mistakerules.scalar(match.string, match["register"], failure):
        return known
    return Reason(
        "scalar-as-pointer",
        f"a plain number (R{match['register']}) is passed where a pointer is expected, to "
        f"{valuerules.kinds(wanted)}",
        f"{valuerules.pointer_cure(wanted)}, without casts to integers and arithmetic that the "
        "verifier cannot follow",
        f"log: {match.string}",
    )


def _plain_argument(match: re.Match[str], got: str, wanted: str) -> Reason:
    return Reason(
        "argument",
        f"a helper gets an argument of another kind than it takes: "
        f"{valuerules.kinds(got) or 'a value'}, where it takes {valuerules.kinds(wanted)}",
        "pass what the helper's description asks for: a variable on the stack or in a map for a "
        "buffer, the context itself for ctx",
        f"log: {match.string}",
    )


def _scalar(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    known = mistakerules.scalar(match.string, match["register"], failure)
    return known or _SCALAR(match, failure, kernel)


def _memory(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    kind = match["kind"]
    if "or_null" in kind:
        return _NULL(match, failure, kernel)
    if kind in ("scalar", "inv") or kind.startswith("inv"):
        return _scalar(match, failure, kernel)
    return Reason(
        "argument",
        f"memory is accessed through a pointer of the kind {kind}, which programs cannot follow",
        "read what it points to with the helper or kfunc that is made for it, for instance "
        "bpf_core_read()",
        f"log: {match.string}",
    )


def _map_for_helper(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason:
    for line in failure.log.splitlines():
        if line.strip() == "cannot update sockmap in this context":
            return Reason(
                "sockmap-update",
                "this kernel lets programs of this type and attach type not change a SOCKMAP or "
                "SOCKHASH",
                "change it from user space (bpf_map_update_elem), from a sock_ops program with "
                "bpf_sock_map_update() or bpf_sock_hash_update(), or leave the program out on "
                "such kernels",
                f"log: {line.strip()}; {match.string}",
            )
    return Reason(
        "map-for-helper",
        f"the helper {match['name']} does not take maps of the type that it is given here",
        "use a helper for that map's type, or a map of another type",
        f"log: {match.string}",
    )


def _kfunc_not_allowed(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason:
    name = match["name"]
    return Reason(
        "kfunc",
        f"this kernel does not offer the kfunc {name} to programs of type {failure.program_type}",
        "build a variant without the call, or put the call behind a `const volatile` global that "
        "the loader clears; bpf_ksym_exists() cannot tell, because this kernel has the kfunc "
        "for others",
        f"log: {match.string}",
        name=name,
    )


VERIFIER = rules(
    (
        r"(?P<place>\d+: )?(?:invalid|unknown) func (?P<name>\S+)#(?P<number>\d+)$",
        _helper,
    ),
    (
        r"(?P<place>\d+: )?program of this type cannot use helper (?P<name>\S+)#(?P<number>\d+)$",
        _helper,
    ),
    (r"(?:\d+: )?<invalid CO-RE relocation>$", _core_relocation),
    (r"failed to resolve CO-RE relocation ", _core_relocation),
    (
        r"(?:\d+: )?<invalid kfunc call>$|kfunc '\S+' is referenced but wasn't resolved",
        _unresolved_kfunc,
    ),
    (
        r"(?:\d+: )?<invalid BPF map reference>$|BPF map '\S+' is referenced but wasn't created",
        _missing_map,
    ),
    (r"(?:\d+: )?calling kernel function (?P<name>\S+) is not allowed$", _kfunc_not_allowed),
    # Instructions that came later than the kernel.
    (
        r"number of funcs in func_info doesn't match number of subprogs$|"
        r"unrecognized bpf_ld_imm64 insn|invalid bpf_ld_imm64 insn|"
        r"last insn is not an exit or jmp$",
        _instruction("callback"),
    ),
    (
        r"(?:\d+: )?(?:BPF_STX|BPF_XADD|BPF_ATOMIC) uses (?:reserved fields|invalid atomic opcode)",
        _instruction("atomics", "load-acquire"),
    ),
    (r"(?:\d+: )?unknown opcode e5$", _instruction("may-goto")),
    (r"(?:\d+: )?unknown opcode 06$|invalid BPF_JMP|BPF_JA uses", _instruction("long-jump")),
    (r"(?:\d+: )?BPF_CALL uses reserved fields", _instruction("kfunc-call")),
    (
        r"(?:\d+: )?(?:BPF_\w+ uses reserved fields|unknown opcode |invalid BPF_\w+ opcode|"
        r"invalid atomic operand size|unknown insn class)",
        _instruction(
            "signed-loads",
            "signed-division",
            "byte-swap",
            "long-jump",
            "address-space",
            "may-goto",
            "load-acquire",
            "atomics",
            "jmp32",
        ),
    ),
    # Limits.
    (
        r"BPF program is too large\. Processed (?P<count>\d+) insn$",
        said(
            "instruction-limit",
            "the verifier gave up after {count} instructions",
            "split the program with tail calls or bpf_loop() (Linux 5.17), or verify a part "
            "once as a global function",
        ),
    ),
    (
        r"The sequence of (?P<count>\d+) jumps is too complex",
        said(
            "complexity",
            "too many branches are open at one time ({count})",
            "fewer branches before a loop, or a global function",
        ),
    ),
    (
        r"combined stack size of (?P<calls>\d+) calls is (?P<size>\d+)\. Too large$",
        said(
            "stack",
            "{calls} nested functions need {size} bytes of stack, more than 512",
            "keep large variables in a per-CPU array map",
        ),
    ),
    (
        r"stack size of subprog \d+ is (?P<size>\d+)\. Too large$",
        said(
            "stack",
            "a function needs {size} bytes of stack, more than 512",
            "keep large variables in a per-CPU array map",
        ),
    ),
    (
        r"tail_calls are not allowed when call stack of previous frames is (?P<size>\d+) bytes",
        said(
            "stack",
            "a function makes a tail call while its callers hold {size} bytes of stack, more than "
            "256",
            "keep large variables of the callers in a per-CPU array map, or make the tail call in "
            "the program itself",
        ),
    ),
    (
        r"the call stack of \d+ frames is too deep",
        said(
            "stack",
            "functions call one another, or themselves, deeper than the verifier follows (8 "
            "frames)",
            "inline some of them (`static __always_inline`), make a recursion a loop, or go on "
            "with a tail call",
        ),
    ),
    (
        r"tail_calls are not allowed in (?:non-JITed )?programs with bpf-to-bpf calls",
        said(
            "tail-calls",
            "this kernel does not let a program make tail calls and call functions of its own",
            "inline all functions of that program (`static __always_inline`)",
        ),
    ),
    (
        r"(?:\d+: )?invalid (?:(?:write to|read from|indirect access to) )?stack (?:R\d+ )?"
        r"off=(?P<offset>-?\d+) size=\d+",
        _stack_offset,
    ),
    (
        r"(?:\d+: )?(?:R\d+ )?(?:invalid variable-offset|variable stack (?:access|read|write)|"
        r"invalid unbounded variable-offset|variable offset stack pointer)",
        said(
            "bounds",
            "an array on the stack is accessed at an index that is not known",
            "bound the index by a constant just before the access, or keep the array in a map",
        ),
    ),
    # The program's own mistakes.
    (
        r"invalid access to packet, off=",
        said(
            "packet-bounds",
            "the program reads or writes beyond what it has checked of the packet",
            "compare with data_end before, with the same pointer",
        ),
    ),
    (
        r"infinite loop detected at insn \d+$|back-edge from insn \d+ to \d+$",
        said(
            "loop",
            "the verifier sees no end of a loop",
            "give the loop a constant bound, or use bpf_loop() (Linux 5.17)",
        ),
    ),
    (
        r"cannot call GPL-(?:restricted|only) function from non-GPL compatible program$|"
        r"Cannot access kernel 'struct \S+' from non-GPL compatible program|"
        r"LSM programs must have a GPL compatible license|"
        r"struct ops programs must have a GPL compatible license",
        said(
            "license",
            "a helper, a structure or the type of this program is for GPL-compatible programs only",
            'char LICENSE[] SEC("license") = "GPL"',
        ),
    ),
    (
        r"At (?:program exit|async callback|callback return|subprogram exit|\w+ exit) the register "
        r"R0 |R0 leaks addr as return value|(?:\d+: )?R0 (?:not a scalar value|is not a known "
        r"value)|.*should have been in [\[(]",
        _RETURN,
    ),
    (
        r"Unreleased reference id=|.* would lead to reference leak|Leaking reference id=|"
        r"Unreleased reference",
        _LEAK,
    ),
    (
        r"Possibly NULL pointer passed to (?:helper|trusted) |"
        + _R
        + r"pointer arithmetic on \S*or_null\S* prohibited",
        _NULL,
    ),
    (_R + r"invalid mem access '(?P<kind>[^']*)'", _memory),
    (_R + r"type=(?P<got>\S*) expected=(?P<wanted>.*)$", _argument),
    (
        r"(?:\d+: )?invalid (?:indirect )?read from stack(?: R\d+)? (?:off |var_off)",
        _UNINITIALISED_STACK,
    ),
    (
        _R + r"!read_ok",
        said(
            "uninitialised",
            "a variable or a result is used that was not set on this path (R{register})",
            "set it on every path; a function without `return`, or a value kept over a helper's "
            "call, looks like this",
        ),
    ),
    (
        r"(?:\d+: )?invalid access to (?:map value|memory|mem|key|flow keys|map key|"
        r"allocated memory)|" + _R + r"(?:m(?:in|ax) value is (?!outside of the allowed)|"
        r"unbounded memory access|unbounded .* value|bounds check)|"
        r"math between \S+ pointer and ",
        _BOUNDS,
    ),
    (
        r"(?:\d+: )?invalid bpf_context access off=|invalid access to context",
        valuerules.context,
    ),
    (
        r"helper call might sleep in a non-sleepable prog|program must be sleepable to call |"
        r"kernel func \S+ is sleepable within|sleepable global function |"
        r"global functions that may sleep are not allowed|"
        r"sleepable helper \S+ in non-|helper call is not allowed in non-sleepable",
        _SLEEP,
    ),
    (
        r"helper call is not allowed in (?:probe|this context)",
        said(
            "helper",
            "this kernel gives the helper to such programs only at certain functions or hooks, "
            "and not at this one",
            "attach to one of the functions or hooks that the kernel lists for it, or build a "
            "variant without the call",
        ),
    ),
    (
        r"(?:\d+: )?R\d+ cannot write into |cannot write into |"
        r"only read (?:from \S+ )?is supported|R\d+ (?:leaks|is not) .*write|"
        r"write access to \S+ is not",
        _READ_ONLY,
    ),
    (r"access beyond (?:struct|the end of member) |access beyond ", _STRUCT),
    (
        r"func '(?P<name>[^']+)' doesn't have (?P<place>\d+)-th argument",
        valuerules.too_few_arguments,
    ),
    (
        r"attach_btf_id \d+ is not a function|.* is not modifiable$|"
        r"attach to unsupported member |.* points to disabled hook|"
        r"Attaching (?:tracing programs|fexit)|Attach to function |"
        r"Tracing program .* recursively|.* is not sleepable$|"
        r"The address of function \S+ cannot be found|"
        r"can't modify return codes of BPF program|invalid LSM hook|"
        r"attach_btf_id \d+ points to wrong type name",
        _NOT_ATTACHABLE,
    ),
    (
        r"bpf_spin_lock is missing unlock|"
        r"bpf_spin_unlock|calls are not allowed while holding|bpf_spin_lock cannot|"
        r".* cannot be used inside bpf_(?:res_)?spin_lock-ed region|"
        r".*_unlock without taking a lock|.*_unlock cannot be out of order|"
        r"Locking two bpf_spin_locks",
        _LOCK,
    ),
    (
        r"(?P<who>tracing progs|socket filter progs|trace type programs?|sleepable programs?|"
        r"Sleepable programs) (?P<what>can(?:not| only) use|with run-time allocated) .*",
        said(
            "map-for-program",
            "programs of this type cannot use such a map on this kernel",
            "use a preallocated hash or an array, and maps without locks and timers; or leave the "
            "program out on such kernels",
        ),
    ),
    (
        r"(?:\d+: )?cannot pass map_type \d+ into func (?P<name>[^#]+)#\d+",
        _map_for_helper,
    ),
    (r"cannot update sockmap in this context", _map_for_helper),
    (
        r"R\d+ (?:pointer |bitwise operator |32-bit pointer |tried to |subtraction from )|"
        r"R\d+ (?:has (?:unknown scalar|pointer) with)|.* pointer offset -?\d+ is not allowed",
        _ARITHMETIC,
    ),
    (
        r"unreachable insn \d+|jump out of range from insn|last insn is not an exit or jmp|"
        r"subprog \d+ doesn't|invalid insn idx",
        said(
            "control-flow",
            "there are instructions that no path reaches, or a path that runs out of the program",
            "compile with -Wall and look for a missing `return`, undefined behaviour and unbounded "
            "loops: clang drops the code behind them",
        ),
    ),
    (
        r"Global function |arg#\d+ reference type\(|"
        r"The function \S+ |func#\d+ .*(?:invalid|unsupported)|arg#\d+ type is not|"
        r"Function \S+ has \d+ > \d+ args",
        _GLOBAL,
    ),
    (
        r"kernel function \S+ args?#\d+ |arg#\d+ (?:pointer type|expected|is |must be)|"
        r"R\d+ must (?:be|have) |"
        r"R\d+ must be a known constant",
        _KFUNC_ARGUMENT,
    ),
    (
        r"calling kernel functions? (?:are|is) not allowed in non-JITed programs|"
        r"JIT does not support ",
        said(
            "jit",
            "this kernel's JIT compiler does not take the program",
            "switch the JIT on (net.core.bpf_jit_enable=1), or build a variant",
        ),
    ),
    (
        r"misaligned (?:packet|stack|value|context|access)",
        said(
            "alignment",
            "an access is not aligned to its size",
            "align the structure's fields, or copy with memcpy()",
        ),
    ),
    (
        r"BPF_STX? stores into R\d+ ctx is not allowed",
        said(
            "context-access",
            "a constant is stored into the context by an instruction that this kernel does not "
            "take there",
            "compile with -mcpu=v3, which stores constants from registers",
        ),
    ),
    (
        r"BPF_(?:ATOMIC|XADD|STX?) (?:stores|loads) (?:into|from) R\d+ \S+ is not allowed",
        said(
            "atomic-target",
            "an atomic operation works on memory where the kernel does not allow it",
            "use a map value or the stack",
        ),
    ),
    (
        r"map '(?P<map>[^']*)' has to have BTF in order to use |map '[^']*' is not a valid|"
        r".* doesn't point to 'struct bpf_(?:spin_lock|timer)'",
        said(
            "map-btf",
            "a lock or a timer in a map needs the map's value type",
            "define the map with __type(key, ...) and __type(value, ...)",
        ),
    ),
    (r"attach_btf_id 0 is not a supported struct", _left_out),
    (
        r"attach_btf_id 0 is not a supported struct",
        said(
            "struct-ops-unused",
            "no struct_ops map that libbpf knows has this program as a member",
            'name it in a map of SEC(".struct_ops"); SEC(".struct_ops.link") takes libbpf 1.2',
        ),
    ),
    (r"arena's user address must be set", _arena),
    (
        r"arena's user address must be set",
        said(
            "arena",
            "the loader has not mapped the arena before the load",
            "load it with a loader that maps it (libbpf 1.4 and later do)",
        ),
    ),
)
