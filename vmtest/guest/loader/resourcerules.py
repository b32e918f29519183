# SPDX-License-Identifier: MIT
"""What the verifier says of memory, of what lives in it, and of what a call wants. Pure.

In the wordings of Linux 5.10 to 7.3; verifierrules.py comes first.
"""

import re

from vmtest.guest.failures import Failure, Kernel, Make, Reason, rules, said

_STACK_ACCESS = said(
    "stack-access",
    "memory of the stack is accessed in a way that the verifier does not follow: outside of it, "
    "past a pointer that is kept there, or in the stack of another function",
    "access variables of the same function within their size; set a pointer on the stack as a "
    "whole (8 bytes, aligned)",
)
_BOUNDS = said(
    "bounds",
    "an index, an offset or a size may lie outside of the memory that is accessed",
    "compare the index or size with a constant bound just before the access (an unsigned variable, "
    "or `i &= SIZE - 1` with a power of 2)",
)
_STACK_OBJECT = said(
    "stack-object",
    "a dynptr, an iterator or a saved interrupt flag on the stack is used before it was made, made "
    "twice, or changed by something else than its own functions",
    "make it once on every path before its use (bpf_dynptr_from_mem(), bpf_iter_num_new(), ...), "
    "end it by its counterpart, and leave its memory alone",
)
_KPTR = said(
    "kptr",
    "a kernel pointer that is kept in a map, or an object of bpf_obj_new(), is used in a way that "
    "the verifier does not follow",
    "move it with bpf_kptr_xchg(); read an unreferenced one as a whole (8 bytes, at its own "
    "offset) and check it for NULL; objects of a list or tree only under their lock",
)
_REGION = said(
    "lock",
    "a protected region (RCU, preemption, interrupts, a lock) is not entered and left as it must "
    "be, or a call in it is not allowed there",
    "leave the region by its counterpart on every path (bpf_rcu_read_unlock(), "
    "bpf_preempt_enable(), bpf_local_irq_restore()), each one as often as it was entered",
)
_STRUCT = said(
    "struct-access",
    "memory of a kernel structure is read in a way that the verifier does not follow here",
    "read it with CO-RE and bpf_core_read(); per-CPU memory with bpf_per_cpu_ptr(), memory of a "
    "process with bpf_probe_read_user()",
)
_ARGUMENT = said(
    "argument",
    "a helper or kernel function gets an argument of another kind than it takes",
    "pass what the function's description asks for: a constant where it wants one, a pointer that "
    "comes from the context, a map or the stack and that was not changed",
)
_CONTEXT = said(
    "context-access",
    "the context, or a structure that it leads to, is accessed at an offset or through a pointer "
    "that this kernel does not follow",
    "read its fields by their names through the unchanged pointer, each with its whole size",
)
_FORMAT = said(
    "format-string",
    "a format, or a string to compare with, is not known when the program is loaded",
    'keep it in a global `static const char text[] = "...";`, or use bpf_printk(), and give the '
    "format only conversions that the kernel knows",
)
_SYMBOL = said(
    "ksym",
    "this kernel does not give the address of a symbol that the program refers to ({name}{name2})",
    "declare it __weak, and compare its address with NULL before its use",
    name="{name}{name2}",
)
_KFUNC = said(
    "kfunc",
    "this kernel cannot call a kernel function that the program refers to",
    "declare it __weak and ask with bpf_ksym_exists() before the call, or build a variant without",
)
_REPLACED = said(
    "freplace-target",
    "the function that is to be replaced or traced in another BPF program is not one that this "
    "kernel allows, or has other arguments or another result",
    "make it a global function (`__noinline`, not static) of a program with BTF (clang -g), and "
    "give the replacement the same arguments and result",
)
_HOOK = said(
    "attach-target",
    "this kernel does not let such a program attach there",
    "name another function or hook, or leave the program out on such kernels",
)
_MAP = said(
    "map-for-program",
    "programs of this type cannot use such a map on this kernel, or not in this way",
    "use a preallocated hash or an array, and maps without locks and timers; or leave the program "
    "out on such kernels",
)
_MAP_BTF = said(
    "map-btf",
    "a map's value does not hold the lock, timer or work queue that the program uses there",
    "give the map's value type exactly one of it (`struct bpf_spin_lock lock;`), and pass its own "
    "address in the value of that very map",
)


def _for_others(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason:
    asked = match.groupdict().get("types") or ""
    only = f", only to {asked} programs" if asked else ""
    return Reason(
        "helper",
        f"this kernel does not give the helper {match['name']} to programs of type "
        f"{failure.program_type} and attach type {failure.attach_type or 'none'}{only}",
        "call it in such a program; or build a variant without the call",
        f"log: {match.string}",
        name=match["name"],
    )


def _no_sleep(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason:
    kind = f"type {failure.program_type}" if failure.program_type else "this type"
    if failure.attach_type:
        kind += f" and attach type {failure.attach_type}"
    return Reason(
        "program-flag",
        f"this kernel does not let programs of {kind} sleep",
        "use the section without `.s`, and helpers that do not sleep; or leave the program out on "
        "such kernels",
        f"log: {match.string}",
    )


_R = r"(?:\d+: )?(?:R\d+|arg ?#?\d+|\S+) "
_STACK_WORDS: tuple[tuple[str, Make], ...] = (
    (
        r"(?:\d+: )?invalid (?:[a-z]+ ){0,4}stack (?:R\d+ |type )|(?:\d+: )?invalid stack off=|"
        r"attempt to corrupt spilled pointer|invalid size of register (?:spill|fill)|"
        r"cannot spill pointers to stack|cannot return stack pointer|"
        r"spilled ptr in range of var-offset|reading from stack ",
        _STACK_ACCESS,
    ),
    (
        _R + r"(?:unbounded size|invalid \w+ buffer access|invalid variable buffer offset|"
        r"invalid negative \w+ buffer offset|memory size \d+ is too large)|"
        r"invalid access to (?:memory|map|packet)|the sum of R\d+ ",
        _BOUNDS,
    ),
)
_STACK_OBJECT_WORDS: tuple[tuple[str, Make], ...] = (
    (
        r"Dynptr has to be |Expected a dynptr of type|.*cannot overwrite referenced dynptr|"
        r"cannot pass (?:in \S+ at an offset|pointer to const bpf_dynptr)|"
        r"potential write to dynptr|.*unknown dynptr type|.*for bpf_dynptr_from_mem|"
        r"cannot release unowned const bpf_dynptr|irq flag acquired by|"
        r".*CONST_PTR_TO_DYNPTR|.*iter_\w+ state|.*doesn't point to an irq flag|"
        r".*(?:un)?initialized (?:dynptr|iter|irq)|expected valid iter pointer|"
        r"cannot (?:restore|overwrite) ",
        _STACK_OBJECT,
    ),
    (
        r".*\bkptr\b|.* cannot be accessed (?:directly|indirectly) by |.*(?:rbtree|bpf_rb_node|"
        r"bpf_list|list_head|refcount|owning|bpf_obj_|bpf_percpu_obj_|allocated object|"
        r"local type ID)|store to uptr|operation on \S+ expects arg#1|arg#1 offset=",
        _KPTR,
    ),
)
_REGION_WORDS: tuple[tuple[str, Make], ...] = (
    (
        r"bpf_rcu_read_unlock is missing|nested rcu read lock|unmatched |\d+ bpf_preempt_enable|"
        r".*(?:inside|used in) bpf_\w+-ed region|.*-ed region$|"
        r".*while holding a lock|.*with preemption disabled|bpf_spin_lock at off=|held lock and |"
        r"kernel func \S+ requires RCU|expected an RCU CS|.*_unlock of different lock|"
        r".*can't spin_|.*missing unlock|Acquiring the same lock|bpf_local_irq|"
        r"Calling bpf_rcu_read_",
        _REGION,
    ),
)
_CALL_WORDS: tuple[tuple[str, Make], ...] = (
    (
        r"func (?P<name>bpf_\w+)#\d+ supported only for (?P<types>\S+) programs",
        _for_others,
    ),
    (r"func (?P<name>bpf_\w+)#\d+ not supported for program type", _for_others),
    (
        r"func '(?P<name>[^']+)' (?:offset|size|arg\d+) ",
        said(
            "arguments",
            "an argument of the function {name} is read in another way than this kernel allows",
            "read whole arguments (8 bytes each, as BPF_PROG() does), and only scalars and "
            "pointers to structures; others with bpf_probe_read_kernel() of a kprobe",
        ),
    ),
    (
        r"(?:kernel function \S+ is sleepable but|.*may sleep|sleepable (?:helper|kfunc) )",
        said(
            "sleepable",
            "something that may sleep is called in a program that must not",
            "make the program sleepable where its type allows it (a section with `.s`), or use the "
            "variant that does not sleep",
        ),
    ),
    (
        r"(?:Only .* programs can be sleepable|Syscall programs can only be sleepable|"
        r".*programs? cannot be sleepable|Sleepable program cannot attach)",
        _no_sleep,
    ),
    (
        r".*(?:is required for calling kernel function|not allowed in non-JITed|"
        r"JIT is required|JIT doesn't support|requires BPF JIT|not supported by jit|"
        r"stack args are not supported)",
        said(
            "jit",
            "this kernel's JIT compiler does not take the program",
            "switch the JIT on (net.core.bpf_jit_enable=1), or build a variant",
        ),
    ),
    (
        r"cannot call kernel function from non-GPL",
        said(
            "license",
            "kernel functions are for GPL-compatible programs only",
            'char LICENSE[] SEC("license") = "GPL"',
        ),
    ),
    (
        r"(?:failed to find BTF for|cannot find address for|address of) kernel func(?:tion|_id)|"
        r"(?:kernel (?:function )?btf_id|BTF of func_id) \d+ |"
        r"invalid kernel function |kfunc offset > 0|BTF fd for kfunc |"
        r".*module BTF (?:fd|object FD)|kfunc \S+ (?:is not|has inconsistent)|"
        r"negative offset disallowed for kernel",
        _KFUNC,
    ),
    (
        r"ldimm64 (?:failed to find the address for kernel symbol|unable to resolve the size of "
        r"type) '(?P<name>[^']*)'|(?:pseudo btf_id|ldimm64 insn specifies invalid btf_id) "
        r"(?P<name2>\d+)",
        _SYMBOL,
    ),
    (
        r".*(?:not zero-terminated|Invalid format string|direct value access on string|"
        r"doesn't point to a const string|does not point to a readonly map|"
        r"is not a constant address|cannot be used as const string)",
        _FORMAT,
    ),
    (
        r"(?:Possibly NULL|.*is expected to be non-NULL)",
        said(
            "possible-null",
            "a pointer that may be NULL is used before it was compared with NULL",
            "compare the pointer with NULL in this function, before its use, and return or skip",
        ),
    ),
    (
        r"tail_call abusing map_ptr|expected prog array map|"
        r"cannot tail call within|tail_calls are not allowed|mixing of tail_calls",
        said(
            "tail-calls",
            "a tail call is made in a way or at a place where the verifier does not allow it",
            "pass one PROG_ARRAY of the object by its name, in the program itself and not in a "
            "callback",
        ),
    ),
    (
        r".*(?:can't modify return value|register R0 is not a known value)",
        said(
            "return-value",
            "the program may return a value that its type or attach type does not allow",
            "return one of the allowed values on every path",
        ),
    ),
    (
        r"(?:callback function not (?:static|allowed for map)|R\d+ is not a pointer|"
        r"Arg#\d+ type |Unrecognized |arg#\d+ (?:struct|type|has|should|untrusted|arena)|"
        r".*(?:exception callback|exception cb)|.*requires a program with an associated arena|"
        r"kernel supports at most|\S+ function \S+ has \d+ > \d+ args|bpf_throw )",
        said(
            "global-function",
            "a global function or a callback has arguments, a result or a place that the verifier "
            "does not take",
            "a callback must be static and have the arguments that its helper gives it; a global "
            "function takes scalars, the context and pointers to memory of known size",
        ),
    ),
)
_REST: tuple[tuple[str, Make], ...] = (
    (
        r"Cannot (?:replace|extend|recursively attach|nest)|.* is not a global function|"
        r"Extension program|Can attach to only JITed|Only FENTRY|FENTRY/FEXIT program can|"
        r"Tracing program can only|Subprog \S+ doesn't exist|\S+\(\) has \d+ args while|"
        r"Return type \S+ of |arg\d+ (?:in )?\S+\(.*(?:while|has|is not|doesn't)|"
        r"Target program bound device|.*programs cannot attach to exception|"
        r"Cannot attach to a target|cannot find function \S+ in BTF",
        _REPLACED,
    ),
    (
        r"attach_btf_id \d+ |attach to invalid member|Tracing programs must provide|"
        r"ret type \S+ not allowed for fmod_ret|struct_ops module|metadata kfuncs|"
        r"invalid module BTF object FD",
        _HOOK,
    ),
    (
        r"(?:R\d+ )?(?:is|access) ptr_|.* is (?:ptr_\S+|\S+) (?:invalid |access )|"
        r"cannot access ptr member|struct \S+ doesn't have field|Writes through BTF pointers|"
        r"direct access to \S+ is disallowed|'?(?:struct )?\S*'? ?access is allowed only",
        _STRUCT,
    ),
    (
        r"dereference of modified |negative offset \S+ ptr|variable \S+ access var_off|"
        + _R
        + r"invalid \S+ access off=|the prog does not allow writes to packet",
        _CONTEXT,
    ),
    (
        r"\S+\(\) may write into memory|write to change key ",
        said(
            "read-only",
            "the program writes to memory that it may only read",
            "write through the helper or kfunc that is made for it, or copy the value first",
        ),
    ),
    (
        r"misaligned ",
        said(
            "alignment",
            "an access is not aligned to its size",
            "align the structure's fields, or copy with memcpy()",
        ),
    ),
    (
        r"stack size \d+\(extra \d+\) is too large",
        said(
            "stack",
            "the program needs more stack than the verifier gives",
            "keep large variables in a per-CPU array map",
        ),
    ),
    (
        r"R\d+ (?:partial copy|sign-extension part) of pointer",
        said(
            "pointer-arithmetic",
            "a part of a pointer is copied, which the verifier does not follow",
            "copy pointers as a whole (8 bytes)",
        ),
    ),
    (
        r"sign extending loads from arena|addr_space_cast insn|.*arena argument|.*arena pointer",
        said(
            "arena",
            "memory of an arena is used in a program or in a way that has none",
            "use one map of type arena in the program, through pointers marked __arena",
        ),
    ),
    (
        r"write into map forbidden",
        said(
            "read-only",
            "the program writes to a map that programs may only read: BPF_F_RDONLY_PROG, or the "
            "map .rodata of the `const` globals",
            "leave the flag out of the map's definition, or `const` out of the global's; or write "
            "it from user space before the load",
        ),
    ),
    (
        r"read from map forbidden",
        said(
            "read-only",
            "the program reads a map that programs may only write (BPF_F_WRONLY_PROG)",
            "leave the flag out of the map's definition, or read it from user space",
        ),
    ),
    (
        r"map '[^']*' (?:has|doesn't|is not|BTF)|"
        + _R
        + r"doesn't have constant offset|off \d+ doesn't point to|"
        r".*(?:map_uid=\d+ ?doesn't match|doesn't match map pointer)|.*has no valid "
        r"(?:bpf_|\w+_lock)|bpf_(?:timer|wq|task_work|spin_lock) (?:at|cannot)|"
        r".*has to be at (?:the|a) constant offset",
        _MAP_BTF,
    ),
    (
        r".*(?:preallocated hash|run-time allocation|map cannot be used in prog|"
        r"map_ptr access not supported|no direct value access|direct value offset|"
        r"unsupported map type|device mismatch between prog|"
        r"Only one arena|cannot use bpf_\S+ yet)|.* cannot be used in (?:tracing )?prog",
        _MAP,
    ),
    (
        _R + r"(?:is not a (?:scalar|const|known)|is of type|has no valid|must (?:be|have|point)|"
        r"expected |type=|rdonly/rdwr|doesn't point to|is a pointer to in-kernel|"
        r"allocation size|is neither|expects |no referenced|BTF type must)|"
        r"(?:pointer in \S+ isn't map|css_task_iter is|"
        r"invalid map_ptr to access|invalid arg_type for|"
        r"Helper has invalid btf|cannot get callchain|"
        r"kernel function \S+ (?:returns|unhandled|args?#)|reg type unsupported|kfunc \S+ )|"
        r".*type ID argument|arg#\d+ (?:must|no )|"
        r"callee expects \d+ args|arg \d+ |invalid return type|unknown return type",
        _ARGUMENT,
    ),
)
RESOURCES = rules(*_STACK_WORDS, *_STACK_OBJECT_WORDS, *_REGION_WORDS, *_CALL_WORDS, *_REST)
