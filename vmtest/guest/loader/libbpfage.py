# SPDX-License-Identifier: MIT
"""What newer versions of libbpf know, told where an older one refuses just that. Pure.

Versions are those of upstream's releases; Debian's packages of 1.1, 1.4, 1.5 and 1.7 agree.
"""

from vmtest.guest.failures import Failure, Reason

Version = tuple[int, int]
"""Major and minor number: (1, 5)."""

# Program sections; one that ends in "+" may have "/..." behind it.
_SECTIONS: dict[Version, tuple[str, ...]] = {
    (1, 2): ("struct_ops.s+",),
    (1, 3): (
        *("tc/ingress", "tc/egress", "tcx/ingress", "tcx/egress", "netkit/primary", "netkit/peer"),
        *("uprobe.multi+", "uprobe.multi.s+", "uretprobe.multi+", "uretprobe.multi.s+", "usdt.s+"),
        *("cgroup/connect_unix", "cgroup/sendmsg_unix", "cgroup/recvmsg_unix", "netfilter"),
        *("cgroup/getpeername_unix", "cgroup/getsockname_unix"),
    ),
    (1, 4): ("sk_skb/verdict",),
    (1, 5): ("kprobe.session+",),
    (1, 6): ("uprobe.session+", "uprobe.session.s+"),
    (1, 7): ("fsession+", "fsession.s+"),
}
_DATA_SECTIONS: dict[str, Version] = {
    ".struct_ops.link": (1, 2),
    "?.struct_ops": (1, 4),
    "?.struct_ops.link": (1, 4),
    ".addr_space.1": (1, 4),  # variables in an arena
    ".jumptables": (1, 7),
}
MAP_TYPES: dict[int, str] = {33: "arena", 34: "insn_array"}
"""Map types that came later than libbpf 1.1, by their number in `enum bpf_map_type`."""

ARENA: Version = (1, 4)
"""Maps an arena before it loads the programs that use it."""
STRUCT_OPS_ZEROED: Version = (1, 4)
"""Leaves out a member of a struct_ops map that the kernel has not, if it is zero."""
STRUCT_OPS_FLAVOUR: Version = (1, 4)
"""Takes `NAME___ANYTHING` for the struct_ops NAME."""
KFUNC_FLAVOUR: Version = (1, 3)
"""Takes `NAME___ANYTHING` for the kfunc NAME."""


def section_since(name: str) -> Version | None:
    """The libbpf that the section of a program came with, if that is later than 1.1."""
    name = name.removeprefix("?")  # not loaded by itself
    for version, sections in _SECTIONS.items():
        for section in sections:
            base = section.removesuffix("+")
            if name == base or (base != section and name.startswith(f"{base}/")):
                return version
    return None


def of_section(name: str, failure: Failure, evidence: str) -> Reason | None:
    """That a newer libbpf knows the section of a program, whose type this one could not tell."""
    return older(failure, section_since(name), f"know the section {name}", evidence, name)


def of_data(name: str, failure: Failure, evidence: str) -> Reason | None:
    """That a newer libbpf knows a section of data."""
    return older(failure, _DATA_SECTIONS.get(name), f"know the section {name}", evidence, name)


def of_struct_ops_data(failure: Failure, evidence: str) -> Reason | None:
    """That libbpf left out a section of struct_ops maps, so that a program belongs to none."""
    for name in failure.skipped:
        left_out = f"{evidence}; log: elf: skipping unrecognized data section {name}"
        if "struct_ops" in name and (found := of_data(name, failure, left_out)):
            return found
    return None


def older(
    failure: Failure, since: Version | None, what: str, evidence: str, name: str
) -> Reason | None:
    """The reason that the libbpf which loaded is older than `since`; None if it is not.

    `what` is what it does not do, in words that follow "does not"; `name` what that is about.
    """
    if since is None or not failure.libbpf or failure.libbpf >= since:
        return None
    have, knows = (".".join(map(str, version)) for version in (failure.libbpf, since))
    return Reason(
        "libbpf-too-old",
        f"libbpf {have}, which loads it in the guest, does not {what}; libbpf {knows} does",
        f'[guest] libbpf = "newest" in kernels.toml, or vmtest verify --libbpf newest, or another '
        f"version from {knows} on",
        evidence,
        name=name,
    )
