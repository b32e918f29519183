"""Why a kernel did not take a program: codes, each with its evidence. Pure.

A code is given only on the strength of a line of the log or of a probe of that very kernel;
everything else is `unknown`. The codes are documented in docs/verify.md, "Reasons".
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from vmtest.guest import verifierlog

LACKING = frozenset(
    {
        "helper",
        "kfunc",
        "map-type",
        "program-type",
        "attach-type",
        "attach-target",
        "core-relocation",
        "btf",
        "kconfig",
    }
)
"""The codes which say that the kernel lacks something: the verdict is `unsupported`."""


class Reason(NamedTuple):
    """A code of the documented set, in words, with a remedy and what shows it."""

    code: str
    text: str
    remedy: str = ""
    evidence: str = ""


class Kernel(Protocol):
    """What can be asked of the running kernel; None where it cannot tell."""

    def has_program_type(self, name: str) -> bool | None:
        """Whether a program of that type can be loaded at all."""

    def has_map_type(self, name: str) -> bool | None:
        """Whether a map of that type can be made at all."""

    def has_attach_type(self, name: str) -> bool | None:
        """Whether its `enum bpf_attach_type` has that value."""

    def has_function(self, name: str) -> bool | None:
        """Whether its BTF has a function of that name."""

    def has_tracepoint(self, name: str) -> bool | None:
        """Whether it has the tracepoint `category/event`."""

    def has_btf(self) -> bool:
        """Whether it shows its BTF."""

    def config(self, symbol: str) -> str | None:
        """The value of a kconfig symbol, "n" where it is not set."""

    def helper_name(self, number: int) -> str | None:
        """The name of a helper that this kernel itself may not know."""

    def memlock_limit(self) -> int | None:
        """The bytes of RLIMIT_MEMLOCK; None for no limit."""

    def counts_memlock(self) -> bool | None:
        """Whether maps and programs count against RLIMIT_MEMLOCK."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A load or an attachment that was refused.

    `errno` is a name; `messages` are libbpf's, `log` is the verifier's; `program_type` and
    `attach_type` are libbpf's names, "" where no program is concerned; `map_types` has libbpf's
    name of each map's type. `attaching`: the program was accepted before.
    """

    errno: str
    messages: str = ""
    log: str = ""
    program_type: str = ""
    attach_type: str = ""
    map_types: tuple[tuple[str, str], ...] = ()
    attaching: bool = False


UNKNOWN = Reason("unknown", "neither the log nor a probe shows why", "read the whole log")

# What a feature was built in with: from kernel/bpf/Kconfig, kernel/trace/Kconfig, net/Kconfig, and
# the conditions around BPF_PROG_TYPE() and BPF_MAP_TYPE() in include/linux/bpf_types.h and around
# the helpers of each program type.
_PROGRAM_TYPE_CONFIG = {
    "lirc_mode2": "CONFIG_BPF_LIRC_MODE2",
    "lsm": "CONFIG_BPF_LSM",
    "netfilter": "CONFIG_NETFILTER_BPF_LINK",
    "kprobe": "CONFIG_BPF_EVENTS",
    "tracepoint": "CONFIG_BPF_EVENTS",
    "raw_tracepoint": "CONFIG_BPF_EVENTS",
    "perf_event": "CONFIG_BPF_EVENTS",
    "tracing": "CONFIG_BPF_EVENTS",
    "cgroup_device": "CONFIG_CGROUP_BPF",
    "cgroup_skb": "CONFIG_CGROUP_BPF",
    "cgroup_sock": "CONFIG_CGROUP_BPF",
    "cgroup_sock_addr": "CONFIG_CGROUP_BPF",
    "cgroup_sockopt": "CONFIG_CGROUP_BPF",
    "cgroup_sysctl": "CONFIG_CGROUP_BPF",
    "sk_reuseport": "CONFIG_INET",
}
_MAP_TYPE_CONFIG = {
    "xskmap": "CONFIG_XDP_SOCKETS",
    "inode_storage": "CONFIG_BPF_LSM",
    "cgroup_array": "CONFIG_CGROUPS",
    "cgroup_storage": "CONFIG_CGROUP_BPF",
    "percpu_cgroup_storage": "CONFIG_CGROUP_BPF",
    "stack_trace": "CONFIG_PERF_EVENTS",
    "reuseport_sockarray": "CONFIG_INET",
}
_HELPER_CONFIG = {
    "bpf_override_return": "CONFIG_BPF_KPROBE_OVERRIDE",
    "bpf_rc_repeat": "CONFIG_BPF_LIRC_MODE2",
    "bpf_rc_keydown": "CONFIG_BPF_LIRC_MODE2",
    "bpf_rc_pointer_rel": "CONFIG_BPF_LIRC_MODE2",
    "bpf_get_cgroup_classid": "CONFIG_CGROUP_NET_CLASSID",
    "bpf_skb_cgroup_id": "CONFIG_SOCK_CGROUP_DATA",
    "bpf_skb_ancestor_cgroup_id": "CONFIG_SOCK_CGROUP_DATA",
    "bpf_get_route_realm": "CONFIG_IP_ROUTE_CLASSID",
    "bpf_skb_get_xfrm_state": "CONFIG_XFRM",
    "bpf_lwt_seg6_store_bytes": "CONFIG_IPV6_SEG6_BPF",
    "bpf_lwt_seg6_action": "CONFIG_IPV6_SEG6_BPF",
    "bpf_lwt_seg6_adjust_srh": "CONFIG_IPV6_SEG6_BPF",
}

_ATTACH_TYPE_CONFIG = {
    "trace_kprobe_multi": "CONFIG_FPROBE",
    "trace_kprobe_session": "CONFIG_FPROBE",
    "trace_uprobe_multi": "CONFIG_UPROBES",
}

_BAD_RELOCATION = 195896080  # libbpf's 0xbad2310: a call that must never be reached
_STACK_SIZE = 512


def explain(failure: Failure, kernel: Kernel) -> Reason:
    """Why `failure` happened, as far as it is shown; `unknown` otherwise."""
    found: Reason | None = None
    for line in reversed(verifierlog.findings(failure.log)):
        found = _of_line(line, _VERIFIER, failure, kernel)
        if found:
            return found
    if verifierlog.findings(failure.log):
        return UNKNOWN  # the verifier said something else: no probe explains that
    for line in verifierlog.words(failure.messages):
        found = _of_line(line, _LIBBPF, failure, kernel)
        if found:
            return found
    return _of_probes(failure, kernel) or UNKNOWN


def _of_line(
    line: str, rules: "Sequence[_Rule]", failure: Failure, kernel: Kernel
) -> Reason | None:
    for rule in rules:
        if (match := rule.pattern.match(line)) and (found := rule.make(match, failure, kernel)):
            return found
    return None


def _of_probes(failure: Failure, kernel: Kernel) -> Reason | None:
    """What the kernel lacks of a program that its verifier never came to read."""
    kind, attach = failure.program_type, failure.attach_type
    if not failure.attaching and "BPF program load failed" not in failure.messages:
        return None  # refused before its types were looked at
    if kind and not failure.attaching and kernel.has_program_type(kind) is False:
        return _lacking(
            Reason(
                "program-type",
                f"this kernel cannot load programs of type {kind}",
                "leave the program out on such kernels (autoload off)",
                f"probe: a trivial {kind} program is refused",
            ),
            _PROGRAM_TYPE_CONFIG.get(kind),
            kernel,
        )
    if attach and kernel.has_attach_type(attach) is False:
        return Reason(
            "attach-type",
            f"this kernel does not know the attach type {attach}",
            "leave the program out on such kernels (autoload off)",
            f"probe: the kernel's enum bpf_attach_type has no {attach}",
        )
    symbol = _ATTACH_TYPE_CONFIG.get(attach, "")
    if failure.attaching and symbol and kernel.config(symbol) == "n":
        return Reason(
            "kconfig",
            f"this kernel attaches nothing to {attach}: it was built without {symbol}",
            f"run it on a kernel with {symbol}",
            f"{symbol} is not set in this kernel's config",
        )
    return None


def _lacking(reason: Reason, symbol: str | None, kernel: Kernel) -> Reason:
    """`reason`, or the kconfig that is behind it where that is not set."""
    if symbol is None or kernel.config(symbol) != "n":
        return reason
    return Reason(
        "kconfig",
        f"{reason.text}: it was built without {symbol}",
        f"run it on a kernel with {symbol}",
        f"{reason.evidence}; {symbol} is not set in this kernel's config",
    )


_Make = Callable[[re.Match[str], Failure, Kernel], Reason | None]


class _Rule(NamedTuple):
    pattern: re.Pattern[str]
    make: _Make


def _said(code: str, text: str, remedy: str) -> _Make:
    """A reason that its line proves; `text` may name the groups of the pattern."""

    def make(match: re.Match[str], _failure: Failure, _kernel: Kernel) -> Reason:
        filled = text.format(**match.groupdict())
        return Reason(code, filled, remedy, f"log: {match.string}")

    return make


def _helper(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason:
    number = int(match["number"])
    if number == _BAD_RELOCATION:
        return _core_relocation(match, failure, kernel)
    name = match["name"]
    if name == "unknown":
        name = kernel.helper_name(number) or f"#{number}"
    # "invalid func": the number is beyond all that this kernel has.
    what = f"this kernel has no helper {name}"
    if not match.string.startswith("invalid"):
        what = f"this kernel gives the helper {name} to no program of type {failure.program_type}"
    return _lacking(
        Reason(
            "helper",
            what,
            "ask with bpf_core_enum_value_exists(enum bpf_func_id, ...) before the call, or build "
            "a variant without it",
            f"log: {match.string}",
        ),
        _HELPER_CONFIG.get(name),
        kernel,
    )


def _core_relocation(match: re.Match[str], _failure: Failure, _kernel: Kernel) -> Reason:
    return Reason(
        "core-relocation",
        "this kernel's BTF has not the type, field or value that the program reads",
        "ask with bpf_core_field_exists() or bpf_core_type_exists() first",
        f"log: {match.string}",
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


_VERIFIER = [
    _Rule(re.compile(pattern), make)
    for pattern, make in [
        (r"(?:\d+: )?(?:invalid|unknown) func (?P<name>\S+)#(?P<number>\d+)$", _helper),
        (
            r"(?:\d+: )?program of this type cannot use helper (?P<name>\S+)#(?P<number>\d+)$",
            _helper,
        ),
        (r"(?:\d+: )?<invalid CO-RE relocation>$", _core_relocation),
        (r"failed to resolve CO-RE relocation ", _core_relocation),
        (
            r"(?:\d+: )?<invalid kfunc call>$|kfunc '\S+' is referenced but wasn't resolved",
            _said(
                "kfunc",
                "this kernel has not the kfunc that the program calls",
                "declare it __weak and ask with bpf_ksym_exists() before the call",
            ),
        ),
        (
            r"calling kernel function (?P<name>\S+) is not allowed$",
            _said(
                "kfunc",
                "this kernel does not offer {name} to programs of this type",
                "declare it __weak and call it only where it is offered",
            ),
        ),
        (
            r"BPF program is too large\. Processed (?P<count>\d+) insn$",
            _said(
                "instruction-limit",
                "the verifier gave up after {count} instructions",
                "split the program with tail calls or bpf_loop(), or verify a part once as a "
                "global function",
            ),
        ),
        (
            r"The sequence of (?P<count>\d+) jumps is too complex",
            _said(
                "complexity",
                "too many branches are open at one time ({count})",
                "fewer branches before a loop, or a global function",
            ),
        ),
        (
            r"combined stack size of (?P<calls>\d+) calls is (?P<size>\d+)\. Too large$",
            _said(
                "stack",
                "{calls} nested functions need {size} bytes of stack, more than 512",
                "keep large variables in a per-CPU array map",
            ),
        ),
        (
            r"invalid (?:(?:write to|read from|indirect access to) )?stack (?:R\d+ )?"
            r"off=(?P<offset>-?\d+) size=\d+",
            _stack_offset,
        ),
        (
            r"invalid access to packet, off=",
            _said(
                "packet-bounds",
                "the program reads or writes beyond what it has checked of the packet",
                "compare with data_end before, with the same pointer",
            ),
        ),
        (
            r"infinite loop detected at insn \d+$|back-edge from insn \d+ to \d+$",
            _said(
                "loop",
                "the verifier sees no end of a loop",
                "give the loop a constant bound, or use bpf_loop()",
            ),
        ),
        (
            r"cannot call GPL-restricted function from non-GPL compatible program$",
            _said(
                "license",
                "a helper of this program is for GPL-compatible programs only",
                'char LICENSE[] SEC("license") = "GPL"',
            ),
        ),
    ]
]


def _map(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    kind = dict(failure.map_types).get(match["map"], "")
    if match["error"] == "-1":
        return _memlock(failure, kernel)
    if not kind or kernel.has_map_type(kind) is not False:
        return None  # it can make such maps: this one is wrong in another way
    return _lacking(
        Reason(
            "map-type",
            f"this kernel cannot make maps of type {kind} ({match['map']})",
            "build a variant with another map, or switch off its creation "
            "(bpf_map__set_autocreate)",
            f"probe: a small {kind} map is refused",
        ),
        _MAP_TYPE_CONFIG.get(kind),
        kernel,
    )


_MEMLOCK = re.compile(
    r"permission error while running as root; try raising 'ulimit -l'|"
    r"Error in bpf_object__probe_loading\(\):.*RLIMIT_MEMLOCK is set to big enough value"
)


def _memlock(failure: Failure, kernel: Kernel) -> Reason | None:
    limit = kernel.memlock_limit()
    if limit is None or not kernel.counts_memlock() or failure.errno != "EPERM":
        return None
    told = [line for line in verifierlog.words(failure.messages) if _MEMLOCK.match(line)]
    if not told:
        return None
    return Reason(
        "memlock",
        "the maps and programs need more locked memory than the loader may have",
        "raise RLIMIT_MEMLOCK (ulimit -l unlimited)",
        f"probe: this kernel counts maps against RLIMIT_MEMLOCK, which is {limit} bytes; "
        f"log: {told[0]}",
    )


def _memlock_line(_match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    return _memlock(failure, kernel)


def _config(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    symbol = match["name"]
    if kernel.config(symbol) != "n":
        return None
    return Reason(
        "kconfig",
        f"this kernel was built without {symbol}, which the program asks for",
        f"run it on a kernel with {symbol}, or declare the extern __weak",
        f"log: {match.string}; {symbol} is not set in this kernel's config",
    )


def _target(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    name = match["name"]
    if kernel.has_function(name) is not False:
        return None
    return Reason(
        "attach-target",
        f"this kernel has no function {name} to attach to",
        "name another function, or leave the program out on such kernels",
        f"log: {match.string}; probe: no function {name} in the kernel's BTF",
    )


def _tracepoint(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    name = match["name"]
    if kernel.has_tracepoint(name) is not False:
        return None
    return Reason(
        "attach-target",
        f"this kernel has no tracepoint {name}",
        "name another one, or leave the program out on such kernels",
        f"log: {match.string}; probe: no {name} below events of tracefs",
    )


def _btf(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    if kernel.has_btf():
        return None
    return Reason(
        "btf",
        "this kernel shows no BTF, which the program needs",
        "a kernel with CONFIG_DEBUG_INFO_BTF, or give its BTF to the loader (btf_custom_path)",
        f"log: {match.string}; probe: there is no /sys/kernel/btf/vmlinux",
    )


_LIBBPF = [
    _Rule(re.compile(pattern), make)
    for pattern, make in [
        (
            r"elf: legacy map definitions in 'maps' section are not supported",
            _said(
                "legacy-maps",
                "the object defines maps in a section `maps`, which libbpf 1.0 gave up",
                'define them in SEC(".maps") with BTF',
            ),
        ),
        (
            r"BTF is required, but is missing or corrupted",
            _said("object-btf", "the object has no BTF", "compile it with clang -g"),
        ),
        (
            r"elf: endianness mismatch in ",
            _said(
                "object",
                "the object is of the other byte order",
                "compile it with -target bpfel",
            ),
        ),
        (
            r"elf: .*(?:not a proper ELF object|not a 64-bit ELF object|not a valid eBPF object|"
            r"failed to open |failed to get )",
            _said("object", "libbpf cannot read it as a BPF object", "compile it anew"),
        ),
        (
            r"prog '(?P<program>[^']*)': missing BPF prog type, check ELF section name",
            _said(
                "type-not-told",
                "the section's name does not tell the type of program {program}",
                "--type PROGRAM=TYPE[:ATTACH]",
            ),
        ),
        (
            r"extern \(func ksym\) '(?P<name>[^']*)': not found in kernel or module BTFs$",
            _said(
                "kfunc",
                "this kernel has no kfunc {name}",
                "declare it __weak and ask with bpf_ksym_exists() before the call",
            ),
        ),
        (r"extern '(?P<name>CONFIG_\w+)' \(strong\): not resolved$", _config),
        (r"prog '[^']*': failed to find kernel BTF type ID of '(?P<name>[^']*)': -3$", _target),
        (
            r"prog '(?P<program>[^']*)': attach program FD is not set$",
            _said(
                "freplace-target",
                "{program} replaces a function of another program, which nobody named",
                "load it with its own loader: bpf_program__set_attach_target()",
            ),
        ),
        (
            r"failed to determine tracepoint '(?P<name>[^']*)' perf event ID: "
            r"No such file or directory$",
            _tracepoint,
        ),
        (
            r"prog '[^']*': failed to create (?:kprobe|kretprobe) '(?P<name>\w+)\+0x0' perf event: "
            r"No such file or directory$",
            _target,
        ),
        (
            r"struct_ops init_kern: struct (?P<name>\S+) is not found in kernel BTF$",
            _said(
                "attach-target",
                "this kernel has no struct_ops {name}",
                "leave it out on such kernels",
            ),
        ),
        (r"(?:Error loading vmlinux BTF: |vmlinux BTF is not found|failed to find valid)", _btf),
        (r"map '(?P<map>[^']*)': failed to create: .*\((?P<error>-\d+)\)$", _map),
        (_MEMLOCK.pattern, _memlock_line),
    ]
]


def shared_prog_array(
    program: str, partner: str, name: str, refused: str, kinds: tuple[str, str]
) -> Reason:
    """Programs that load one by one and not together, because of a PROG_ARRAY that both use.

    `kinds` are types of program and partner in words; `refused` is the errno of the pair.
    """
    return Reason(
        "shared-prog-array",
        f"{program} ({kinds[0]}) and {partner} ({kinds[1]}) share the PROG_ARRAY {name}, whose "
        "programs must all be of one kind",
        "a PROG_ARRAY for each kind",
        f"probe: {program} alone is accepted, together with {partner}, which uses {name} as well, "
        f"{refused}",
    )
