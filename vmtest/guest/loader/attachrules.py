# SPDX-License-Identifier: MIT
"""Why an accepted program could not be attached where its section says. Pure.

The lines are libbpf's, of 1.1 to 1.7; where it finds nothing to attach to it says nothing at all.
What holds of loads and attachments alike stands in libbpfrules.py.
"""

import re

from vmtest.guest.failures import Failure, Kernel, Reason, errno_said, listed, rules, said

_MULTI = ("trace_kprobe_multi", "trace_kprobe_session")
# Iterators that walk what nobody but their loader can name, and what that is.
_WALKED = {
    "cgroup": ("cgroup", "link_info.cgroup"),
    "bpf_map_elem": ("map", "link_info.map"),
    "bpf_sk_storage_map": ("map", "link_info.map"),
    "sockmap": ("map", "link_info.map"),
}
# Not `f.cold`, which is a part of `f`, nor `f.12`, a variable.
_VARIANT = re.compile(r"\w+(?:\.(?:isra|constprop|part|llvm)\.\d+)+$")
_PROGRAM = r"prog '[^']*': "


def _kprobe(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    name, offset, error = match["name"], match["offset"], errno_said(match["error"])
    there, line = kernel.has_symbol(name), f"log: {match.string}"
    if error == "EILSEQ":
        return Reason(
            "attach-target",
            f"no instruction begins at {name}+{offset} on this kernel, and a kprobe must stand at "
            "one",
            "attach to the function itself, or look the offset up for each kernel (`objdump -d`)",
            line,
            name=name,
        )
    if error == "EADDRNOTAVAIL":
        return Reason(
            "attach-target",
            f"this kernel has several functions {name}, and a kprobe takes a name that stands for "
            "one",
            f'take SEC("kprobe.multi/{name}") of Linux 5.18, which attaches to all of them, or '
            "name another function",
            line,
            name=name,
        )
    if error == "EINVAL" and there:
        return Reason(
            "attach-target",
            f"this kernel lets no kprobe stand at {name}+{offset}",
            "name a function that it calls or that calls it; kernels list what they protect in "
            "/sys/kernel/debug/kprobes/blacklist",
            f"{line}; probe: /proc/kallsyms has {name}",
            name=name,
        )
    return renamed(name, f"{line}; probe: /proc/kallsyms has no {name}", kernel)


def renamed(name: str, evidence: str, kernel: Kernel) -> Reason | None:
    """The reason for a function that the compiler kept under other names only, None otherwise."""
    variants = [v for v in kernel.matching(f"{name}.*") or () if _VARIANT.match(v)]
    if kernel.has_symbol(name) is not False or not variants:
        return None
    what = "variants" if len(variants) > 1 else "a variant"
    return Reason(
        "attach-target",
        f"this kernel has no function {name}, only {what} that the compiler made of it: "
        f"{listed(variants)}",
        f'take SEC("kprobe/{variants[0]}") for such kernels, or SEC("kprobe.multi/{name}*") from '
        "Linux 5.18 on; arguments may be missing there, and fentry and fexit take no such function",
        f"{evidence}, and has {listed(variants)}",
        name=name,
    )


def _iterator(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason | None:
    name = failure.section.rpartition("/")[2]
    if name not in _WALKED:
        return None
    what, how = _WALKED[name]
    return Reason(
        "target-not-told",
        f"the iterator {name} must be told which {what} it walks, which no section can name",
        f"attach it with its own loader: bpf_program__attach_iter() with {how}",
        f"log: {match.string}",
        name=name,
    )


def _xdp(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason | None:
    what = failure.attach_type.removeprefix("xdp_")
    if what not in ("devmap", "cpumap"):
        return None
    return Reason(
        "target-not-told",
        f"such a program runs on an entry of a map of type {what}, and on no device",
        "let its own loader put it into the value of an entry (bpf_prog.fd of struct "
        f"bpf_{what}_val)",
        f"log: {match.string}; it is of the attach type {failure.attach_type}",
    )


def silent(failure: Failure, kernel: Kernel) -> Reason | None:
    """What it means that nothing was said, where libbpf looks for a target by itself."""
    kind, _, target = failure.section.partition("/")
    if failure.errno == "EINVAL":
        return _half_told(kind, target, failure)
    if failure.errno not in ("ENOENT", "ESRCH") or not target:
        return None
    if failure.attach_type in _MULTI:
        return _none_matches(target, failure, kernel)
    path, _, wanted = target.partition(":")
    said_so = f"{failure.errno} without a word of libbpf, which reads the file for them"
    if kind.startswith("usdt"):
        return _not_in_file(path, f"no USDT probe {wanted}", said_so)
    if failure.attach_type == "trace_uprobe_multi":
        return _not_in_file(path, f"no function that matches {wanted}", said_so)
    return None


def _half_told(kind: str, target: str, failure: Failure) -> Reason | None:
    forms = {
        "tp": 'SEC("tp/CATEGORY/EVENT")',
        "tracepoint": 'SEC("tracepoint/CATEGORY/EVENT")',
        "sk_skb": 'SEC("sk_skb/stream_verdict") or SEC("sk_skb/stream_parser")',
    }
    if kind not in forms or "/" in target or (kind == "sk_skb" and target):
        return None
    return Reason(
        "target-not-told",
        f"the section {failure.section} says only half of what the program is attached to",
        f"write {forms[kind]}",
        f"EINVAL without a word; the section is {failure.section}",
    )


def _none_matches(pattern: str, failure: Failure, kernel: Kernel) -> Reason | None:
    found = kernel.matching(pattern)
    if found is None:
        return None
    line = f"{failure.errno} when it was attached; probe: "
    if found:
        return Reason(
            "attach-target",
            f"this kernel lets no kprobe.multi stand at {pattern}",
            "name other functions: those in available_filter_functions of tracefs",
            f"{line}/proc/kallsyms has {listed(found)}",
            name=pattern,
        )
    plain = not set(pattern) & set("*?")
    such = pattern if plain else f"that matches {pattern}"
    return Reason(
        "attach-target",
        f"this kernel, with the modules that are loaded, has no function {such} to attach to",
        "name another function, or leave the program out on such kernels",
        f"{line}nothing in /proc/kallsyms matches {pattern}",
        pattern if plain else "",
        pattern,
    )


def _not_in_file(path: str, lacks: str, evidence: str) -> Reason:
    return Reason(
        "user-target",
        f"the guest's file {path} has {lacks}",
        "name what that file has (`nm -D`, `readelf -n`), or put the user's own file into the "
        "guest (--copy); or attach the program with its own loader",
        evidence,
        name=path,
    )


def _symbol(match: re.Match[str], _failure: Failure, _kernel: Kernel) -> Reason:
    return _not_in_file(
        match["path"], f"no function {match['name']} in its symbols", f"log: {match.string}"
    )


def _event(match: re.Match[str], _failure: Failure, _kernel: Kernel) -> Reason | None:
    if errno_said(match["error"]) != "EACCES":
        return None
    name = match["name"]
    return Reason(
        "context-access",
        f"the program reads beyond the record of the tracepoint {name} on this kernel",
        f"read only the fields of /sys/kernel/tracing/events/{name}/format, which may differ "
        "between kernels, or take a tp_btf or raw_tp program",
        f"log: {match.string}",
        name=name.rpartition("/")[2],
    )


def _start(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason | None:
    if errno_said(match["error"]) != "EBUSY" or failure.program_type not in ("tracing", "lsm"):
        return None
    name = failure.section.rpartition("/")[2]
    return Reason(
        "attach-target",
        f"this kernel cannot attach to {name}: the function has no place for it at its start "
        "(it is written in assembler, or notrace), or something else is attached there",
        f'take SEC("kprobe/{name}"), or name a function that it calls or that calls it',
        f"log: {match.string}",
        name=name,
    )


_NO_FILE = said(
    "user-target",
    "the guest has no file {path}, or none that libbpf can read",
    "put it into the guest (--copy, or a guest image that has it), or attach the program with its "
    "own loader",
    name="{path}",
)
_NOT_TOLD = said(
    "target-not-told",
    "the section does not name, in the form that libbpf reads, what the program is attached to",
    'write SEC("kprobe/FUNCTION"), SEC("uprobe/PATH:FUNCTION"), SEC("usdt/PATH:PROVIDER:NAME"), or '
    "attach it with its own loader",
)

ATTACHING = rules(
    (
        _PROGRAM + r"failed to (?:create|attach to) k(?:ret)?probe '(?P<name>[\w.]+)\+"
        r"(?P<offset>0x\w+)'(?: perf event)?: (?P<error>.*)$",
        _kprobe,
    ),
    (_PROGRAM + r"failed to attach to iterator: ", _iterator),
    (r"elf: failed to find symbol '(?P<name>[^']*)' in '(?P<path>[^']*)'", _symbol),
    (r"elf: (?:failed to open|could not read elf from) (?P<path>[^:]*): ", _NO_FILE),
    (_PROGRAM + r"failed to resolve full path for '(?P<path>[^']*)': ", _NO_FILE),
    (
        r"usdt: no USDT notes section \(\S+\) found in '(?P<path>[^']*)'",
        said(
            "user-target",
            "the guest's file {path} was built without USDT probes",
            "put one with probes into the guest (--copy)",
            name="{path}",
        ),
    ),
    (
        r"usdt: failed to find USDT support BPF maps",
        said(
            "user-target",
            "the object lacks the maps with which libbpf attaches USDT programs",
            "include `<bpf/usdt.bpf.h>` in its source",
        ),
    ),
    (
        _PROGRAM
        + r"section '[^']*' missing|"
        + _PROGRAM
        + r"invalid (?:format of section definition|section name) '|"
        r"invalid section '[^']*', expected SEC|kprobe (?:name|multi pattern|session pattern) is "
        r"invalid|k(?:ret)?probes? (?:do not support offset|offset must be)|"
        + _PROGRAM
        + r"uretprobes do not support offset",
        _NOT_TOLD,
    ),
    (_PROGRAM + r"failed to attach to xdp: ", _xdp),
    (_PROGRAM + r"failed to attach to tracepoint '(?P<name>[^']*)': (?P<error>.*)$", _event),
    (_PROGRAM + r"failed to attach: (?P<error>.*)$", _start),
)
