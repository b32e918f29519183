# SPDX-License-Identifier: MIT
"""What libbpf's own lines mean, in the wordings of libbpf 1.1 to 1.7. Pure.

Since 1.6 libbpf says an errno by its name (`-ESRCH`), before it said a number (`-3`) or words
(`No such process`): `failures.errno_said()` reads all three.
"""

import re

from vmtest.guest.failures import Failure, Kernel, Make, Reason, errno_said, rules, said
from vmtest.guest.loader import libbpfage
from vmtest.guest.loader.attachrules import renamed
from vmtest.guest.loader.maprules import MEMLOCK, inner_map, memlock, refused_map

_NOT_THERE = ("ESRCH", "ENOENT")
# How libbpf finds what a program is attached to by BTF (find_attach_btf_id()): what it is called,
# and the name that the kernel's BTF has for it.
_BTF_TARGETS = {
    "trace_iter": ("BPF iterator", "bpf_iter_"),
    "trace_raw_tp": ("tracepoint", "btf_trace_"),
    "lsm_mac": ("LSM hook", "bpf_lsm_"),
    "lsm_cgroup": ("LSM hook", "bpf_lsm_"),
}
_ELSEWHERE = {
    "BPF iterator": "read the same by another iterator",
    "tracepoint": "name another tracepoint",
    "LSM hook": "name another hook",
    "function": "name another function, here or in its own loader (a section may name a stand-in "
    "for what bpf_program__set_attach_target() sets)",
}

_MODULES_BTF = "CONFIG_DEBUG_INFO_BTF_MODULES"
_WITHOUT_BTF = {
    "function": "a kprobe",
    "tracepoint": "a raw_tp or tp program",
}

# The symbol that a struct_ops of the kernel was built in with, and its first version of Linux.
_STRUCT_OPS_CONFIG = {
    "hid_bpf_ops": ("CONFIG_HID_BPF", "6.11"),
    "sched_ext_ops": ("CONFIG_SCHED_CLASS_EXT", "6.12"),
    "Qdisc_ops": ("CONFIG_NET_SCH_BPF", "6.16"),
}


def _memlock_line(_match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    return memlock(failure, kernel)


def _config(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    return of_config(match["name"], f"log: {match.string}", kernel)


def of_config(symbol: str, line: str, kernel: Kernel) -> Reason | None:
    """Why a loader did not find the kconfig `symbol`, as `line` says."""
    if kernel.config(symbol) != "n":
        return None
    return Reason(
        "kconfig",
        f"this kernel was built without {symbol}, which the program asks for",
        f"run it on a kernel with {symbol}, or declare the extern __weak",
        f"{line}; {symbol} is not set in this kernel's config",
        name=symbol,
    )


def _kind(failure: Failure) -> tuple[str, str]:
    """What the program is attached to in words, and the prefix of its name in BTF."""
    attach = failure.attach_type
    if failure.program_type == "lsm":
        attach = attach or "lsm_mac"
    return _BTF_TARGETS.get(attach, ("function", ""))


def _target(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    if "error" in match.re.groupindex and errno_said(match["error"]) not in _NOT_THERE:
        return None
    return of_target(match["name"], f"log: {match.string}", failure, kernel)


def of_target(name: str, line: str, failure: Failure, kernel: Kernel) -> Reason | None:
    """Why a loader did not find what a program is attached to by BTF, as `line` says."""
    what, prefix = _kind(failure)
    typedef = what == "tracepoint"
    asked = prefix + name
    there = kernel.has_typedef(asked) if typedef else kernel.has_function(asked)
    if there is not False:
        return None
    evidence = (
        f"{line}; probe: no {'typedef' if typedef else 'function'} {asked} in the "
        "BTF of the kernel and of its loaded modules"
    )
    if what == "function" and (found := renamed(name, evidence, kernel)):
        return found
    if what == "function" and kernel.has_symbol(name):
        return _undescribed_function(name, evidence)
    text = f"this kernel, with the modules that are loaded, has no {what} {name} to attach to"
    if prefix and kernel.has_function(name):
        text += f" (a plain function of that name is there, but it is not a {what})"
    remedy = f"{_ELSEWHERE[what]}, or leave the program out on such kernels"
    missing = f"__tracepoint_{name}" if typedef else asked
    if what in _WITHOUT_BTF and kernel.config(_MODULES_BTF) == "n":
        # No module would help: the target is looked for in BTF, and modules have none.
        evidence += f"; {_MODULES_BTF} is not set in this kernel's config"
        text += "; its modules have no BTF (Linux 5.11), so nothing of them can be attached to so"
        remedy += f"; for what a module has, take {_WITHOUT_BTF[what]}, which needs no BTF"
        missing = ""
    return Reason(
        "attach-target",
        text,
        remedy,
        evidence,
        missing,
        # The source has struct bpf_iter__NAME; what BTF has is made by a macro.
        f"bpf_iter__{name}" if what == "BPF iterator" else name,
    )


def _undescribed_function(name: str, evidence: str) -> Reason:
    return Reason(
        "attach-target",
        f"this kernel has the function {name}, but its BTF does not describe it, and fentry, fexit "
        "and fmod_ret find their function there",
        f'take SEC("kprobe/{name}") or SEC("kretprobe/{name}"), which need no BTF, or name another '
        "function",
        f"{evidence}; probe: /proc/kallsyms has {name}",
        name=name,
    )


def _probed(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    name = match["name"]
    if errno_said(match["error"]) not in _NOT_THERE or kernel.has_symbol(name) is not False:
        return None
    return Reason(
        "attach-target",
        f"this kernel, with the modules that are loaded, has no function {name} to attach to",
        "name another function, or leave the program out on such kernels",
        f"log: {match.string}; probe: no {name} in /proc/kallsyms",
        name,
        name,
    )


def _tracepoint(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    name = match["name"]
    if errno_said(match["error"]) not in _NOT_THERE or kernel.has_tracepoint(name) is not False:
        return None
    return Reason(
        "attach-target",
        f"this kernel, with the modules that are loaded, has no tracepoint {name}",
        "name another one, or leave the program out on such kernels",
        f"log: {match.string}; probe: no {name} below events of tracefs",
        f"__tracepoint_{name.rpartition('/')[2]}",
        name.rpartition("/")[2],
    )


def _raw_tracepoint(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    name = match["name"]
    if errno_said(match["error"]) not in _NOT_THERE:
        return None
    if kernel.has_typedef(f"btf_trace_{name}"):
        return None
    return Reason(
        "attach-target",
        f"this kernel, with the modules that are loaded, has no raw tracepoint {name}",
        "name another one (the event's name, without its category), or leave the program out on "
        "such kernels",
        f"log: {match.string}; probe: no typedef btf_trace_{name} in the BTF of the kernel and of "
        "its loaded modules",
        f"__tracepoint_{name}",
        name,
    )


def _btf(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    return without_kernel_btf(f"log: {match.string}", kernel)


def without_kernel_btf(line: str, kernel: Kernel) -> Reason | None:
    """Why a loader did not find the kernel's BTF, as `line` says."""
    if kernel.has_btf():
        return None
    return Reason(
        "btf",
        "this kernel shows no BTF, which the program needs",
        "a kernel with CONFIG_DEBUG_INFO_BTF, or give its BTF to the loader (btf_custom_path)",
        f"{line}; probe: there is no /sys/kernel/btf/vmlinux",
    )


def _section(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason | None:
    return libbpfage.of_section(match["section"], failure, f"log: {match.string}")


def _data_section(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason | None:
    return libbpfage.of_data(match["section"], failure, f"log: {match.string}")


def _kfunc_flavour(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    if not kernel.has_function(match["base"]):
        return None
    what = f"take {match['name']} for the kfunc {match['base']}"
    evidence = f"log: {match.string}"
    return libbpfage.older(failure, libbpfage.KFUNC_FLAVOUR, what, evidence, match["name"])


def _struct_ops_flavour(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    if not kernel.members(match["base"]):
        return None
    what = f"take {match['name']} for the struct_ops {match['base']}"
    evidence = f"log: {match.string}"
    return libbpfage.older(failure, libbpfage.STRUCT_OPS_FLAVOUR, what, evidence, match["name"])


def _zero_member(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason | None:
    member = f"{match['map']}.{match['member']}"
    if member not in failure.zeroed:
        return None
    what = f"leave out {member}, which is zero and which this kernel does not have"
    evidence = f"log: {match.string}; it is zero in the object file"
    return libbpfage.older(failure, libbpfage.STRUCT_OPS_ZEROED, what, evidence, member)


def _struct_ops(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    name = match["name"]
    symbol, since = _STRUCT_OPS_CONFIG.get(name, ("", ""))
    if not symbol or not kernel.switched_off(symbol):
        return None
    return Reason(
        "kconfig",
        f"this kernel has no struct_ops {name}: it was built without {symbol}",
        f"run it on a kernel with {symbol}, of Linux {since} or later",
        f"log: {match.string}; {symbol} is not set in this kernel's config",
        name=symbol,
    )


def prototype(match: re.Match[str], _failure: Failure, _kernel: Kernel) -> Reason:
    """Why a loader did not take the kfunc that its line names."""
    name = match["name"]
    return Reason(
        "kfunc-prototype",
        f"this kernel has the kfunc {name} with other arguments or another result than the "
        "program declares",
        f"declare it as this kernel's BTF has it (bpftool btf dump file /sys/kernel/btf/vmlinux "
        f"format c); for kernels that differ declare it several times, as {name}___2 and so on, "
        "each __weak, and ask with bpf_ksym_exists()",
        f"log: {match.string}",
        name=name,
    )


def _undescribed(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    name = match["name"]
    if not kernel.has_symbol(name):
        return None
    return Reason(
        "ksym",
        f"this kernel has the symbol {name}, and its BTF does not describe it with a type",
        f"declare it without one (`extern const void {name} __ksym`) and read it with "
        "bpf_probe_read_kernel(), or declare it __weak and compare its address with NULL",
        f"log: {match.string}; probe: /proc/kallsyms has {name}",
        name=name,
    )


KFUNC: Make = said(
    "kfunc",
    "this kernel, with the modules that are loaded, has no kfunc {name}",
    "declare it __weak and ask with bpf_ksym_exists({name}) before the call",
    "{name}",
    "{name}",
)
_LEGACY_MAPS: Make = said(
    "legacy-maps",
    "the object defines maps in a section `maps`, which libbpf 1.0 gave up, or of another loader",
    'define them in SEC(".maps") with BTF, or load it with its own loader',
)
_MAP = r"map '(?P<map>[^']*)': "
_PROGRAM = r"prog '(?P<program>[^']*)': "

_OBJECT_BTF: Make = said(
    "object-btf",
    "the object's BTF is not one that libbpf and this kernel take",
    "build the object again with clang -g; a tool that cuts or joins objects must keep .BTF and "
    ".BTF.ext in step with the code (`bpftool gen object`, `llvm-strip -g`)",
)
_DAMAGED: Make = said(
    "object",
    "libbpf cannot read it as a BPF object: parts of it are damaged, or were stripped",
    "build it again; strip only its DWARF (`llvm-strip -g`), not its symbols",
)
_RELOCATION: Make = said(
    "relocation",
    "the program refers to a symbol that libbpf cannot resolve",
    'keep data in globals or maps of SEC(".maps"), and functions in the same object',
)
_MAP_DEFINITION: Make = said(
    "map-definition",
    "libbpf cannot read the definition of the map {map}",
    'define it in SEC(".maps") with __uint(type, ...), __type(key, ...), __type(value, ...) and '
    "__uint(max_entries, ...)",
)
_STRUCT_OPS: Make = said(
    "struct-ops-type",
    "libbpf cannot bring a struct_ops of the object into the shape that this kernel has",
    'define it as a plain global of the kernel\'s own struct in SEC(".struct_ops"), whose '
    'functions are programs of SEC("struct_ops/...")',
)
_PIN: Make = said(
    "pin",
    "a map or a program cannot be pinned, or the one that is pinned there is of another shape",
    "mount a bpffs (`mount -t bpf bpf /sys/fs/bpf`), remove what was pinned before with another "
    "definition, or leave the pinning out",
)

LIBBPF = rules(
    (r"elf: legacy map definitions in 'maps' section are not supported", _LEGACY_MAPS),
    (
        r"prog '[^']*': bad (?:map )?relo against '[^']*' in section '(?:[^']*/)?maps(?:/[^']*)?'",
        _LEGACY_MAPS,
    ),
    (
        r"prog '[^']*': bad map relo against '(?P<name>[^']*)' in section "
        r"'(?P<section>[^'.][^']*)'",
        said(
            "relocation",
            "the program refers to {name} in the section {section}, in which libbpf looks for "
            "neither maps nor data",
            'define maps in SEC(".maps"), and data as globals or in a section `.data.NAME`, '
            "`.rodata.NAME` or `.bss.NAME`",
        ),
    ),
    (
        r"BTF is required, but is missing or corrupted",
        said("object-btf", "the object has no BTF", "compile it with clang -g"),
    ),
    (
        r"elf: endianness mismatch in ",
        said("object", "the object is of the other byte order", "compile it with -target bpfel"),
    ),
    (
        r"elf: .*(?:not a proper ELF object|not a 64-bit ELF object|not a valid eBPF object|"
        r"failed to open |failed to get )",
        said("object", "libbpf cannot read it as a BPF object", "compile it again"),
    ),
    (
        r"sec '(?P<section>[^']*)': program '(?P<program>[^']*)' is static and not supported",
        said(
            "static-program",
            "the program {program} in section {section} is static, and libbpf takes global "
            "functions only",
            "leave `static` out of its definition",
        ),
    ),
    (
        r"failed to find BTF for extern '(?P<name>[^']*)'|"
        r"failed to find extern definition for BTF|extern '(?P<name2>)\S+': unrecognized extern|"
        r"externs without BTF info|unrecognized extern section",
        said(
            "object-btf",
            "the object's BTF does not describe the extern {name}",
            "declare it with its type and `__ksym` or `__kconfig`, and compile with clang -g",
        ),
    ),
    (
        r"(?:prog|sec) '[^']*': .*'(?P<section>\.(?:addr_space\.1|jumptables)[^']*)'",
        _data_section,
    ),
    (
        r"(?:prog|sec) '[^']*': (?:bad (?:map |call |data |subprog addr )?relo against|"
        r"relo for \S+ unsupported|unrecognized relocation|invalid relo|unexpected relo for insn|"
        r"(?:map|data|extern) relo failed to find|missing subprog addr relo|"
        r"no \.text section found yet|incorrect bpf_call opcode|cannot find exception callback|"
        r"exception[ _]callback)|extern function \S+ is unsupported under",
        _RELOCATION,
    ),
    (
        r"prog '[^']*': missing BPF prog type, check ELF section name '(?P<section>[^']*)'",
        _section,
    ),
    (
        _PROGRAM + r"missing BPF prog type, check ELF section name",
        said(
            "type-not-told",
            "the section's name does not tell the type of program {program}",
            "--type {program}=TYPE[:ATTACH]",
            name="{program}",
        ),
    ),
    (
        r"extern \(func ksym\) '(?P<name>(?P<base>[^']*?)___[^']*)': not found in kernel",
        _kfunc_flavour,
    ),
    (
        r"extern \(func ksym\) '(?P<name>[^']*)': not found in kernel or module BTFs$",
        KFUNC,
    ),
    (
        r"extern \(func ksym\) '(?P<name>[^']*)': func_proto \[\d+\] incompatible with \S+ \[\d+\]",
        prototype,
    ),
    (r"extern '(?P<name>CONFIG_\w+)' \(strong\): not resolved$", _config),
    (
        r"extern '(?P<name>LINUX_\w+)' \(strong\): not resolved$|"
        r"(?:failed to parse|extern \(kcfg\)) '(?P<name2>[^']*)'|"
        r"failed to (?:resolve size|determine alignment) of extern \(kcfg\) '(?P<name3>[^']*)'",
        said(
            "kconfig-type",
            "the value of a __kconfig extern does not fit its declared type, or libbpf knows no "
            "such one",
            "declare it with the type that its value has: bool, char (tristate), an integer, or an "
            "array of char",
        ),
    ),
    (r"extern \(var ksym\) '(?P<name>[^']*)': not found in kernel BTF", _undescribed),
    (
        r"extern '(?P<name>(?!CONFIG_)[^']*)' \(strong\): not resolved$|"
        r"extern \(var ksym\) '(?P<name2>[^']*)': not found in kernel BTF",
        said(
            "ksym",
            "this kernel, with the modules that are loaded, has no symbol {name}{name2}",
            "declare it __weak, and compare its address with NULL before its use",
            "{name}{name2}",
            "{name}{name2}",
        ),
    ),
    (
        r"extern \(var ksym\) '(?P<name>[^']*)': incompatible types",
        said(
            "ksym-type",
            "this kernel has the variable {name} with another type than the program declares",
            "declare it as this kernel's BTF has it, or as `extern const void {name} __ksym`",
            name="{name}",
        ),
    ),
    (
        r"prog '[^']*': failed to find kernel BTF type ID of '(?P<name>[^']*)': (?P<error>.*)$",
        _target,
    ),
    (
        _PROGRAM + r"attach program FD is not set$",
        said(
            "freplace-target",
            "{program} replaces a function of another program, and the object does not name that "
            "program",
            "load it with its own loader: bpf_program__set_attach_target()",
        ),
    ),
    (
        _PROGRAM + r"no BTF-based attach target is specified",
        said(
            "target-not-told",
            "the section of {program} does not name what it is attached to",
            'name it in the section, as in SEC("fentry/FUNCTION"), or load it with its own loader: '
            "bpf_program__set_attach_target()",
        ),
    ),
    (
        r"The target program doesn't have BTF|\S+ is not found in prog's BTF|"
        r"prog '[^']*': failed to find BPF program \(FD|Failed to get BTF \d+ of the program",
        said(
            "freplace-target",
            "the function that is to be replaced or traced is not in the other program",
            "name a global function of that program, which needs BTF (clang -g)",
        ),
    ),
    (
        r"prog '(?P<program>[^']*)': SEC\(\"struct_ops\"\) program isn't referenced anywhere",
        said(
            "struct-ops-unused",
            "no struct_ops map that libbpf knows has {program} as a member",
            'name it in a map of SEC(".struct_ops"); SEC(".struct_ops.link") takes libbpf 1.2',
        ),
    ),
    (
        r"failed to determine tracepoint '(?P<name>[^']*)' perf event ID: (?P<error>.*)$",
        _tracepoint,
    ),
    (
        r"prog '[^']*': failed to attach to raw tracepoint '(?P<name>[^']*)': (?P<error>.*)$",
        _raw_tracepoint,
    ),
    (
        r"prog '[^']*': failed to create (?:kprobe|kretprobe) '(?P<name>[\w.]+)\+0x\w+' perf "
        r"event: (?P<error>.*)$",
        _probed,
    ),
    (
        r"struct_ops init_kern: struct (?P<name>(?P<base>\S+?)___\S+) is not found in kernel BTF$",
        _struct_ops_flavour,
    ),
    (
        r"struct_ops init_kern: struct (?P<name>\S+?)(?: data)? is not found in kernel BTF$",
        _struct_ops,
    ),
    (
        r"struct_ops init_kern: struct (?P<name>\S+?)(?: data)? is not found in "
        r"(?:kernel BTF|struct \S+)$",
        said(
            "attach-target",
            "this kernel, with the modules that are loaded, has no struct_ops {name}",
            "leave it out on such kernels",
            "bpf_struct_ops_{name}",
            "{name}",
        ),
    ),
    (
        r"struct_ops init_kern (?P<map>\S+): Cannot find member (?P<member>\S+) in kernel BTF$",
        _zero_member,
    ),
    (
        r"struct_ops init_kern (?P<map>\S+): Cannot find member (?P<member>\S+) in kernel BTF$",
        said(
            "attach-target",
            "the struct of {map} has no member {member} on this kernel",
            "set the member on kernels that have it only: a second map for the others, or "
            "bpf_core_field_exists() in the loader's place",
            name="{member}",
        ),
    ),
    (
        r"struct_ops init_kern (?P<map>\S+): (?:Unmatched member type (?P<member>\S+) |"
        r"Error in size of member (?P<member2>\S+):|kernel member (?P<member3>\S+) is not)",
        said(
            "struct-ops-type",
            "the member {member}{member2}{member3} of {map} has another type on this kernel",
            "declare the struct as this kernel's BTF has it",
            name="{member}{member2}{member3}",
        ),
    ),
    (
        r"struct_ops (?:init_kern|reloc) [^: ]+(?::| func ptr)|"
        r"struct_ops (?:init|reloc): (?!struct )",
        _STRUCT_OPS,
    ),
    (
        r"(?:Error loading vmlinux BTF: |vmlinux BTF is not found|failed to find valid|"
        r"kernel BTF is missing at )",
        _btf,
    ),
    (
        r"Error loading \.BTF into kernel: .*mandatory|BTF loading error|"
        r"prog '[^']*': (?:missing|error relocating) \.BTF\.ext|"
        r"prog '[^']*': failed to perform \.BTF\.ext fix|"
        r"(?:BTF(?:\.ext)? (?:type|types|header|total|has|section)|Invalid BTF|Malformed BTF|"
        r"Unsupported BTF|\.BTF\.ext |\S+ section (?:header |has |in )?.*\.BTF\.ext|"
        r"btf: type \[\d+\]: (?!unrecognized kind))",
        _OBJECT_BTF,
    ),
    (
        r"prog '[^']*': subprog '(?P<name>[^']*)' arg#\d+ is expected to be of",
        said(
            "global-function",
            "an argument of the global function {name} is tagged as the context and has another "
            "type than the program's context",
            "give the argument the context's own type, or make the function static",
        ),
    ),
    (
        r"failed to open system Kconfig|error parsing (?:system|in-memory) Kconfig",
        said(
            "kconfig-not-found",
            "libbpf finds no config of this kernel, of which a __kconfig extern asks",
            "a kernel with CONFIG_IKCONFIG_PROC, or its config at /boot/config-RELEASE; or declare "
            "the extern __weak",
        ),
    ),
    (
        r"extern \(ksym\) '(?P<name>[^']*)': resolution is ambiguous",
        said(
            "ksym-type",
            "this kernel has several symbols {name}",
            "refer to another symbol, or find the address in the loader and pass it in a global",
        ),
    ),
    (
        _MAP + r"failed to initialize slot \[\d+\] to map '(?P<inner>[^']*)'",
        said(
            "inner-map",
            "the map {inner} is not shaped like the inner map that {map} is defined with",
            "give it the same type, key_size, value_size, max_entries and map_flags",
        ),
    ),
    (
        _MAP + r"failed to initialize slot \[\d+\] to prog '(?P<program>[^']*)'",
        said(
            "shared-prog-array",
            "the PROG_ARRAY {map} does not take {program}: all its programs must be of one type, "
            "and of one attach type on newer kernels",
            "a PROG_ARRAY for each kind",
        ),
    ),
    (
        r"map '[^']*'.*(?:pin |pinned|couldn't reuse)|failed to (?:pin map|mkdir|statfs )|"
        r"specified path \S+ is not on BPF FS|failed to open link at",
        _PIN,
    ),
    (
        r"map '[^']*': only single ARENA map|map '[^']*': failed to mmap arena|"
        r"prog '[^']*': bad arena data relocation|"
        r"elf: sec '[^']*': (?:declared ARENA|to use global)",
        said(
            "arena",
            "the object's arena is not defined as libbpf wants it",
            'define one map of type arena in SEC(".maps"), with room for all `__arena` globals',
        ),
    ),
    (_MAP + r"failed to create inner map: ", inner_map),
    (_MAP + r"failed to create: (?P<error>.*)$", refused_map),
    (
        _MAP
        + r"(?:unknown field|map type isn't specified|unexpected def kind|unsupported map linkage|"
        r"conflicting (?:key|value) size|(?:key|value) (?:type|spec)|attr '|multi-level|"
        r"should be map-in-map|inner def|invalid |can't determine (?:key|value) size|"
        r"'\S+' member should be last|\S+ type \[\d+\] not found|\S+ spec is not a zero-sized|"
        r"\S+(?: \S+)? def is of unexpected kind|unexpected var kind|BTF data is corrupted)",
        _MAP_DEFINITION,
    ),
    (
        r"\.maps relo #\d+: (?!for |map )|map #\d+: empty name|failed to find skeleton map",
        said(
            "map-definition",
            "libbpf cannot read what the definition of a map refers to",
            "let `.values` name maps of the inner map's shape, or programs of the same object that "
            "are not static",
        ),
    ),
    (
        r"Total maps exceeds (?P<most>\d+)",
        said(
            "limit",
            "the object has more than {most} maps",
            "keep several values in one map, or split the object",
        ),
    ),
    (
        r"elf: (?:couldn't find symbol table|multiple symbol tables|symbol strings section|"
        r"'[^']*' has unknown byte order|init internal)|(?:multiple SYMTAB|ELF s)|"
        r"invalid (?:license|kver) section|sec '[^']*': (?:failed to (?:get|find|determine)|"
        r"program at offset|corrupted|symbol #|invalid offset|unexpected non-VAR)|"
        r"DATASEC '[^']*' not found|object '[^']*': loading non-native endianness",
        _DAMAGED,
    ),
    (MEMLOCK.pattern, _memlock_line),
    (
        r"Error in \S+\(\): ?.*Couldn't (?:load trivial BPF program|create simple array map)",
        said(
            "privilege",
            "the kernel lets this loader load no BPF program at all",
            "load as root, or with CAP_BPF, on a kernel with CONFIG_BPF_SYSCALL; raise "
            "RLIMIT_MEMLOCK before Linux 5.11 (ulimit -l unlimited)",
        ),
    ),
    (
        r"prog '[^']*': relo #\d+: (?:insn #\d+ \(LDX/ST/STX\) (?:value too big|accesses field "
        r"incorrectly|unexpected mem size|invalid new mem size)|unexpected insn|"
        r"relocation decision ambiguity|field offset ambiguity|parsing |bad insn|"
        r"error matching candidate|trying to relocate|target candidate search|no matching targets)|"
        r"prog '[^']*': relo (?:\d+ at|for) |"
        r"prog '[^']*': relo #\d+: .*relocation doesn't support|"
        r"prog '[^']*': relo #\d+: failed to (?:relocate|patch)",
        said(
            "core-type",
            "a CO-RE relocation finds the field on this kernel in a shape that the instruction "
            "cannot take",
            "declare the field with this kernel's type, under a second name of the structure "
            "(name___2), or read it with bpf_core_read() and BPF_CORE_READ_BITFIELD()",
        ),
    ),
)
