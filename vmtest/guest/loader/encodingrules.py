# SPDX-License-Identifier: MIT
"""What the verifier says of a whole program: encoding, limits, BTF, rights, bugs. Pure.

In the wordings of Linux 5.10 to 7.3. verifierrules.py comes first: it knows the instructions that
are only too new for a kernel.
"""

import re

from vmtest.guest.failures import Failure, Kernel, Make, Reason, rules, said

_MALFORMED = said(
    "malformed-instruction",
    "an instruction is encoded in a way that this kernel does not take, and that vmtest does not "
    "know from newer kernels either",
    "build the object again with clang; instructions that are written by hand (`asm`, `.8byte`) or "
    "by a tool need the fields that Documentation/bpf/standardization/instruction-set.rst gives "
    "them, and 0 in all others",
)
_BTF = said(
    "object-btf",
    "the object's BTF does not describe its functions and lines as this kernel wants it",
    "build the object again with clang -g; a tool that cuts or joins objects must keep .BTF and "
    ".BTF.ext in step with the code (`bpftool gen object`, `llvm-strip -g`)",
)
_BUG = said(
    "verifier-bug",
    "the verifier of this kernel stopped because of a mistake of its own",
    "take a newer release of this kernel, or write the code at this place in another way; the "
    "kernel's developers want to know of it (bpf@vger.kernel.org, with the whole log)",
)
_LEGACY_LOAD = said(
    "legacy-load",
    "the program reads the packet with an instruction of classic BPF (load_byte(), load_half(), "
    "load_word()), which is not allowed here",
    "read with bpf_skb_load_bytes(), which every program with an sk_buff may call, or with "
    "pointers between data and data_end",
)
_PRIVILEGE = said(
    "privilege",
    "the loader lacks a capability that this program needs",
    "load it as root, or with CAP_BPF and CAP_PERFMON (CAP_SYS_ADMIN before Linux 5.8, and "
    "CAP_NET_ADMIN for programs of the network)",
)


def _limit(what: str, remedy: str) -> Make:
    return said("limit", f"the program has more {what} than the verifier takes", remedy)


def _may_goto(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    if int(match["offset"]) or int(match["immediate"]):
        return _MALFORMED(match, failure, kernel)
    return Reason(
        "instruction",
        "this kernel does not know all instructions of the program, which uses a may_goto "
        "(`can_loop`, `cond_break`) that jumps over nothing, of Linux 6.14",
        "let at least one instruction follow in the loop, or give the loop a constant bound",
        f"log: {match.string}",
    )


ENCODING = rules(
    # Instructions.
    (
        r"(?:\d+: )?invalid may_goto (?:off (?P<offset>-?\d+) )imm (?P<immediate>-?\d+)",
        _may_goto,
    ),
    (
        r"(?:\d+: )?(?:.*\buses? (?:reserved fields|invalid atomic opcode)|unknown opcode |"
        r"unknown insn class|invalid (?:BPF_\w+|bpf_ld_imm64|may_goto|atomic operand size)|"
        r"unrecognized bpf_ld_imm64|Unknown conditional jump|reserved field \(insn\[1\]|"
        r"invalid shift |R\d+ is invalid$|"
        r"jump into the middle of ldimm64|.*signed extend .*not supported)",
        _MALFORMED,
    ),
    (
        r"call to invalid destination|indirect jump out of range|.*jump table|"
        r"too many subprograms$|callback function cannot be the main program|"
        r"insn \d+ cannot call exception cb directly",
        said(
            "control-flow",
            "a call or a jump leads to no place of the program, or to one that it must not lead to",
            "build the object again with clang; call functions of the same object by their names",
        ),
    ),
    (
        r"recursive call from (?P<caller>\S+)\(\) to (?P<called>\S+)\(\)",
        said(
            "control-flow",
            "the function {caller} calls itself, or is called by {called} that it calls",
            "write the recursion as a loop with a constant bound, or go on with a tail call",
        ),
    ),
    (
        r"(?:BPF_LD_\[ABS\|IND\]|LD_ABS|at the time of BPF_LD_ABS|cannot use BPF_LD_\[ABS)",
        _LEGACY_LOAD,
    ),
    # Limits.
    (
        r"too many different (?:kernel function calls|module BTFs)",
        _limit("kernel functions or modules", "call fewer different kfuncs, or split the program"),
    ),
    (
        r"The total number of (?P<what>\w+) per program has reached the limit of (?P<most>\d+)",
        said(
            "limit",
            "the program uses more than {most} {what}",
            "keep several values in one map, or split the program with tail calls",
        ),
    ),
    (
        r"only one cgroup storage of each type is allowed",
        _limit("cgroup storages", "keep all values in one map of each of the two types"),
    ),
    (
        r"insn \d+ cannot be patched due to 16-bit range",
        _limit(
            "instructions between a jump and its target",
            "compile with -mcpu=v4 (Linux 6.6), or make functions of the parts between",
        ),
    ),
    (
        r"liveness analysis exceeded complexity limit|.*: too many iterations$|"
        r"R\d+ could not be pushed for speculative|frame\d+ bpf_loop iteration limit reached",
        said(
            "complexity",
            "the verifier gave up because the paths through loops and functions are too many",
            "fewer branches in loops, or a part of the program as a global function",
        ),
    ),
    # BTF of the object.
    (
        r"number of funcs in func_info doesn't match|invalid func info rec size|"
        r"nonzero (?:tailing record|insn_off \d+) |same or smaller insn offset|"
        r"func_info BTF section doesn't match|invalid type id \d+ in func info|"
        r"missing btf func_info|"
        r"Invalid (?:line_info|insn code at line_info|core_relo)\[?|missing bpf_line_info|"
        r"invalid btf id for main subprog|BTF of func#\d+ doesn't|Global functions need valid BTF|"
        r"Program extension requires BTF|tail_call is (?:not allowed in subprogs without BTF|only "
        r"allowed in functions that return 'int')|Invalid BTF of func|Invalid type of function|"
        r"bpf_obj_new/bpf_percpu_obj_new requires prog BTF",
        _BTF,
    ),
    # Rights, and mistakes of the kernel.
    (
        r".*(?:prohibited for !root|(?:is|are) allowed (?:only )?(?:for|to) CAP_|require(?:s|d)? "
        r"CAP_|CAP_\w+ (?:and CAP_\w+ )?(?:is|are) required|leaks addr |leaking pointer from)",
        _PRIVILEGE,
    ),
    (
        r"(?:kernel is missing BTF|in-kernel BTF is malformed|btf_vmlinux is malformed)|"
        r".* not supported without CONFIG_DEBUG_INFO_BTF",
        said(
            "btf",
            "this kernel has no BTF of its own, which the program needs",
            "a kernel with CONFIG_DEBUG_INFO_BTF",
        ),
    ),
    (
        r".*(?:\b(?:bug|BUG)\b|verifier internal error|backtracking misuse|"
        r"REG INVARIANTS VIOLATION|range bounds|misconfigured|Please fix kernel|"
        r"non-overwritten BPF_PTR_POISON)|"
        r"mark_reg_\w+\(regs, |unknown (?:map|arg|btf_struct_walk) |not inlined functions ",
        _BUG,
    ),
    (
        r"signature verification failed|signed (?:program|payload) |"
        r"program's hash doesn't match map's excl_prog_hash|cannot resolve signing keyring",
        said(
            "signature",
            "the kernel does not accept the program's signature, or what it covers",
            "sign the object that is loaded, with a key of the keyring that the loader names",
        ),
    ),
)
