# SPDX-License-Identifier: MIT
"""Why a kernel did not take a program: codes, each with its evidence. Pure.

A code is given only on the strength of a line of the log or of a probe of that very kernel;
everything else is `unknown`, with the last line that was said. The codes are documented in
docs/reference/reason-codes.md; the rules stand in verifierrules.py, libbpfrules.py and maprules.py.
"""

from vmtest.guest.failures import (
    LACKING,
    NEEDING_BTF,
    Failure,
    Kernel,
    MapShape,
    Reason,
    behind,
    believed,
    lacking,
    of_line,
)
from vmtest.guest.loader import verifierlog
from vmtest.guest.loader.attachrules import ATTACHING, silent
from vmtest.guest.loader.encodingrules import ENCODING
from vmtest.guest.loader.instructions import SIZE, maps
from vmtest.guest.loader.libbpfage import of_struct_ops_data
from vmtest.guest.loader.libbpfrules import LIBBPF
from vmtest.guest.loader.mistakerules import MISTAKES, beside
from vmtest.guest.loader.resourcerules import RESOURCES
from vmtest.guest.loader.valuerules import VALUES
from vmtest.guest.loader.verifierrules import VERIFIER

__all__ = [
    "LACKING",
    "NEEDING_BTF",
    "Failure",
    "Kernel",
    "MapShape",
    "Reason",
    "explain",
    "shared_prog_array",
]

_LOGGED = (*MISTAKES, *VALUES, *VERIFIER, *ENCODING, *RESOURCES)

INSTRUCTION_LIMIT = 1_000_000
"""BPF_COMPLEXITY_LIMIT_INSNS of include/linux/bpf.h: a longer program is not even verified."""

MAP_LIMIT = 64
"""MAX_USED_MAPS of include/linux/bpf_verifier.h: kernels before 6.8 refuse more without a word."""

# What a feature was built in with: from kernel/bpf/Kconfig, kernel/trace/Kconfig, net/Kconfig, and
# the conditions around BPF_PROG_TYPE() in include/linux/bpf_types.h.
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
_ATTACH_TYPE_CONFIG = {
    "trace_kprobe_multi": "CONFIG_FPROBE",
    "trace_kprobe_session": "CONFIG_FPROBE",
    "trace_uprobe_multi": "CONFIG_UPROBES",
}


def explain(failure: Failure, kernel: Kernel) -> Reason:
    """Why `failure` happened, as far as it is shown; `unknown` otherwise."""
    reason = _explained(failure, kernel)
    if reason.code in NEEDING_BTF and (line := verifierlog.refused_btf(failure.messages)):
        return _without_btf(line, reason)
    if reason.code == "attach-target" and not reason.name:
        # The verifier does not say to what it lets nothing be attached; the section does.
        return reason._replace(name=failure.section.rpartition("/")[2])
    return reason


def _without_btf(line: str, reason: Reason) -> Reason:
    return Reason(
        "object-btf",
        f"this kernel does not take the object's BTF, which the program needs: {line}",
        "mend what that line names: arguments have no names in naked functions, and a tool that "
        "cuts or joins objects must keep .BTF in step (`bpftool btf dump file OBJECT` shows it); "
        "or build the object with another clang -g",
        f"{reason.evidence}; log: {line}",
        name=reason.name,
    )


def _explained(failure: Failure, kernel: Kernel) -> Reason:
    findings = verifierlog.findings(failure.log)
    for at in reversed(range(len(findings))):
        if found := of_line(findings[at], _LOGGED, failure, kernel):
            return _at_its_place(beside(found, findings, at), failure)
    if findings:
        # The verifier said something else: no probe explains that.
        return _at_its_place(_unknown("the verifier", findings[-1], failure), failure)
    words = verifierlog.words(failure.messages)
    among = (*ATTACHING, *LIBBPF) if failure.attaching else LIBBPF
    for line in words:
        if found := of_line(line, among, failure, kernel):
            return found
    found = (
        _too_long(failure)
        or _too_many_maps(failure)
        or _of_probes(failure, kernel)
        or (silent(failure, kernel) if failure.attaching else None)
        or _unused_struct_ops(failure)
        or _of_asides(failure, kernel)
    )
    return found or _unknown("libbpf", words[-1] if words else "", failure)


def _of_asides(failure: Failure, kernel: Kernel) -> Reason | None:
    asides = reversed(verifierlog.asides(failure.log))
    return next((r for line in asides if (r := of_line(line, _LOGGED, failure, kernel))), None)


def _unknown(who: str, line: str, failure: Failure) -> Reason:
    if not line:
        return Reason(
            "unknown",
            f"the kernel refused it with {failure.errno}, and neither it nor libbpf said why",
            f"{'attach' if failure.attaching else 'load'} it on other kernels of the matrix, and "
            "compare what they say",
        )
    path = "" if failure.attaching else "; --log-level 1 shows the path through the program"
    return Reason(
        "unknown",
        f"no rule of vmtest explains what {who} said last: {line}",
        f"read the whole log{path}",
    )


def _at_its_place(reason: Reason, failure: Failure) -> Reason:
    """`reason` with the line of the source at which the verifier stopped, if that is known."""
    if not (place := verifierlog.source_line(failure.trace)):
        return reason
    if reason.code == "unknown":
        return reason._replace(text=f"{reason.text}; at the source line `{place}`")
    return reason._replace(evidence=f"{reason.evidence}; at the source line `{place}`")


def _too_long(failure: Failure) -> Reason | None:
    count = len(failure.code) // SIZE
    if failure.errno != "E2BIG" or count <= INSTRUCTION_LIMIT:
        return None
    return Reason(
        "instruction-limit",
        f"the program has {count:,} instructions to begin with, and the kernel "
        f"takes no more than {INSTRUCTION_LIMIT:,}",
        "split the program with tail calls, and let loops be loops (no `#pragma unroll`)",
        f"E2BIG without a word of the verifier; {count:,} instructions in the object file",
    )


def _too_many_maps(failure: Failure) -> Reason | None:
    count = maps(failure.code)
    if failure.errno != "E2BIG" or count <= MAP_LIMIT:
        return None
    return Reason(
        "limit",
        f"the program uses {count} maps, and the kernel takes no more than {MAP_LIMIT}",
        "keep several values in one map, or split the program with tail calls",
        f"E2BIG without a word of the verifier; its instructions refer to {count} maps",
    )


def _unused_struct_ops(failure: Failure) -> Reason | None:
    if failure.errno != "ENOTSUPP" or failure.program_type != "struct_ops" or failure.attaching:
        return None
    said = "ENOTSUPP without a word of the verifier, for a program of type struct_ops"
    return of_struct_ops_data(failure, said) or Reason(
        "struct-ops-unused",
        "no struct_ops map that libbpf knows has this program as a member",
        'name it in a map of SEC(".struct_ops"); SEC(".struct_ops.link") takes libbpf 1.2',
        said,
    )


def _of_probes(failure: Failure, kernel: Kernel) -> Reason | None:
    """What the kernel lacks of a program that its verifier never came to read."""
    kind, attach = failure.program_type, failure.attach_type
    if not failure.attaching and "BPF program load failed" not in failure.messages:
        return None  # refused before its types were looked at
    built_in, known_as = _PROGRAM_TYPE_CONFIG.get(kind), f"BPF_PROG_TYPE_{kind.upper()}"
    probed = kernel.has_program_type(kind) if kind and not failure.attaching else None
    if believed(probed, known_as, built_in, kernel) is False:
        return lacking(
            Reason(
                "program-type",
                f"this kernel cannot load programs of type {kind}",
                "leave the program out on such kernels (autoload off)",
                f"probe: a trivial {kind} program is refused",
                name=known_as,
            ),
            behind(built_in, known_as, kernel),
            kernel,
        )
    if found := _in_buffers(failure, kernel):
        return found
    if attach and kernel.has_attach_type(attach) is False:
        return Reason(
            "attach-type",
            f"this kernel does not know the attach type {attach}",
            "leave the program out on such kernels (autoload off)",
            f"probe: the kernel's enum bpf_attach_type has no {attach}",
            name=f"BPF_{attach.upper()}",
        )
    symbol = _ATTACH_TYPE_CONFIG.get(attach, "")
    if failure.attaching and symbol and kernel.config(symbol) == "n":
        return Reason(
            "kconfig",
            f"this kernel attaches nothing to {attach}: it was built without {symbol}",
            f"run it on a kernel with {symbol}",
            f"{symbol} is not set in this kernel's config",
            name=symbol,
        )
    return None


def _in_buffers(failure: Failure, kernel: Kernel) -> Reason | None:
    """XDP programs of packets in several buffers, whose flag older kernels refuse in silence."""
    name, _, suffix = failure.section.partition("/")[0].partition(".")
    members = kernel.members("bpf_prog_aux")
    if (name, suffix) != ("xdp", "frags") or not members or "xdp_has_frags" in members:
        return None
    return Reason(
        "program-flag",
        "this kernel has no XDP programs for packets in several buffers (xdp.frags, Linux 5.18)",
        'take SEC("xdp") for such kernels, or clear the flag before the load '
        "(bpf_program__set_flags)",
        "probe: the kernel's struct bpf_prog_aux has no member xdp_has_frags",
    )


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
