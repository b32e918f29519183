# SPDX-License-Identifier: MIT
"""What cilium/ebpf's own messages mean, in the wordings of its releases from 0.9 on. Pure.

A message nests: `program NAME: load BTF: ...`. What the verifier says in it is not of these rules.
"""

import re

from vmtest.guest.failures import Failure, Kernel, Make, Reason, of_line, rules, said
from vmtest.guest.loader.libbpfrules import (
    KFUNC,
    of_config,
    of_target,
    prototype,
    without_kernel_btf,
)
from vmtest.guest.loader.maprules import inner_map, of_map

_RELEASE = "another release of cilium/ebpf (go.mod, or --loader cilium@VERSION)"
# Kinds of BTF that not every release knows, the version of Linux that has them in its own BTF, and
# what an object has them of.
_KINDS = {
    "17": ("BTF_KIND_DECL_TAG", "5.16", "declarations tagged with btf_decl_tag"),
    "18": ("BTF_KIND_TYPE_TAG", "5.17", "types tagged with btf_type_tag, such as __kptr"),
    "19": ("BTF_KIND_ENUM64", "6.0", "enums with values of 64 bits"),
}
_MAP = r"(?:program \S+: )?map (?P<map>[^:]+): "
_OUTER = ("array_of_maps", "hash_of_maps")


def of_cilium(text: str, failure: Failure, kernel: Kernel) -> Reason | None:
    """What cilium/ebpf's message `text` means, if a rule tells."""
    return of_line(text, CILIUM, failure, kernel)


def _kind(match: re.Match[str], _failure: Failure, _kernel: Kernel) -> Reason:
    name, since, made_of = _KINDS.get(match["kind"], (f"number {match['kind']}", "", ""))
    line = f"log: {match.string}"
    if match.string.startswith("load BTF: "):
        without = f", or leave out {made_of}" if made_of else ""
        return Reason(
            "loader-lacks",
            f"this release of cilium/ebpf does not know a kind of BTF that the object has ({name})",
            f"{_RELEASE}{without}",
            line,
            name=name,
        )
    came = f", which came with Linux {since}" if since else ""
    return Reason(
        "loader-lacks",
        f"this release of cilium/ebpf cannot read this kernel's BTF, which the program needs: it "
        f"does not know the kind {name}{came}",
        f"{_RELEASE}; programs without CO-RE relocations and BTF targets load all the same",
        line,
        name=name,
    )


def _map(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    return of_map(match["map"], failure.errno, f"log: {match.string}", failure, kernel)


def _target(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    return of_target(match["name"] or match["name2"], f"log: {match.string}", failure, kernel)


def _kernel_btf(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    return without_kernel_btf(f"log: {match.string}", kernel)


def _kfunc(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    there = kernel.has_function(match["name"])
    return KFUNC(match, failure, kernel) if there is False else None


def _kconfig(match: re.Match[str], _failure: Failure, kernel: Kernel) -> Reason | None:
    return of_config(match["name"], f"log: {match.string}", kernel)


def _object_btf(match: re.Match[str], failure: Failure, _kernel: Kernel) -> Reason:
    lines = [line.strip() for line in failure.log.splitlines() if line.strip()]
    why = lines[-1] if lines else match["why"]
    return Reason(
        "object-btf",
        f"this kernel does not take the object's BTF, without which cilium/ebpf does not load "
        f"{match['what']}: {why}",
        "mend what that line names, or build the object with another clang -g; libbpf leaves out "
        "what an older kernel does not know, newer releases of cilium/ebpf much of it",
        f"log: {match.string}",
    )


def _slot(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    kinds = {shape.name: shape.kind for shape in failure.maps}
    kind = kinds.get(match["map"], "")
    make = _PROGRAM_SLOT if kind == "prog_array" else _MAP_SLOT if kind in _OUTER else None
    return make(match, failure, kernel) if make else None


_PROGRAM_SLOT: Make = said(
    "shared-prog-array",
    "the PROG_ARRAY {map} does not take the program for its slot {key}: all its programs must be "
    "of one type, and of one attach type on newer kernels",
    "a PROG_ARRAY for each kind",
)
_MAP_SLOT: Make = said(
    "inner-map",
    "the map for the slot {key} of {map} is not shaped like the inner map that {map} is defined "
    "with",
    "give it the same type, key_size, value_size, max_entries and map_flags",
)
_DAMAGED: Make = said(
    "object",
    "cilium/ebpf cannot read it as a BPF object",
    "build it again; strip only its DWARF (`llvm-strip -g`), not its symbols",
)
_RELOCATION: Make = said(
    "relocation",
    "the program refers to a symbol that cilium/ebpf cannot resolve: {why}",
    'keep data in globals and maps in SEC(".maps"), and functions in the same object; or take '
    + _RELEASE,
)

CILIUM = rules(
    (r".*\bunknown kind: .*\((?P<kind>\d+)\)", _kind),
    (
        r".*\breference to (?P<section>\.kconfig|\.ksyms): not supported",
        said(
            "loader-lacks",
            "this release of cilium/ebpf does not know the section {section}, of the externs "
            "that are __kconfig or __ksym",
            _RELEASE + ", or without such externs",
        ),
    ),
    (
        r".*\bdata section \.ksyms: expected (?:(?P<name>\w+) to be )?\*.*\*btf\.Var: "
        r"not supported",
        said(
            "loader-lacks",
            "this release of cilium/ebpf takes no __ksym externs that are variables with a type",
            "declare them without one (`extern const void NAME __ksym`), which newer releases "
            "take; or " + _RELEASE,
            name="{name}",
        ),
    ),
    (
        r"section \"(?P<section>[^\"]*)\": got '[^']*' section: not supported",
        said(
            "loader-lacks",
            "this release of cilium/ebpf does not load what is in the section {section}",
            _RELEASE + ", or load that object with libbpf",
            name="{section}",
        ),
    ),
    (
        r".*\bload maps: .*|.*\bsection '?maps\S*: ",
        said(
            "legacy-maps",
            "cilium/ebpf cannot read the definition of a map in a section `maps`",
            'define it in SEC(".maps") with BTF',
        ),
    ),
    (
        r".*\bload BTF maps: missing BTF|.*\bbtf: not found|.*\bno BTF data\b",
        said("object-btf", "the object has no BTF", "compile it with clang -g"),
    ),
    (
        r"load BTF maps: (?:section [^:]+: )?map (?P<map>[^:]+): "
        r"(?:.*: )?unrecognized field (?P<name>\S+) in BTF map definition",
        said(
            "loader-lacks",
            "this release of cilium/ebpf does not know {name} in the definition of the map {map}",
            _RELEASE + ", or without it",
            name="{name}",
        ),
    ),
    (
        r"load BTF maps: (?:section [^:]+: )?map (?P<map>[^:]+): (?P<why>.*)",
        said(
            "map-definition",
            "cilium/ebpf cannot read the definition of the map {map}: {why}",
            'define it as a global of SEC(".maps"), with fields that this release knows',
        ),
    ),
    (
        r".*\bpossible erroneous static qualifier on map definition",
        said(
            "map-definition",
            "a map that the program uses is static, and cilium/ebpf takes global maps only",
            "leave `static` out of its definition",
        ),
    ),
    (
        r'.*\bsection "[^"]*": reference to "(?P<name>[^"]*)" in section \S+: not supported',
        said(
            "relocation",
            "the program refers to {name} in a section in which cilium/ebpf looks for neither "
            "maps nor data",
            'keep data in globals and maps in SEC(".maps"); or take ' + _RELEASE,
        ),
    ),
    (
        r".*\bstring is not stack allocated: not supported",
        said(
            "relocation",
            "the program refers to a string constant, which this release of cilium/ebpf does not "
            "load",
            "a global `static const char[]`, or a `char[]` on the stack; or " + _RELEASE,
        ),
    ),
    (
        r".*\basm relocation: (?P<name>[^:]+): unsupported binding: STB_WEAK",
        said(
            "loader-lacks",
            "this release of cilium/ebpf does not know externs that are __weak ({name})",
            _RELEASE + ", or without __weak",
            name="{name}",
        ),
    ),
    (
        r'.*\bsymbol "(?P<name>[^"]+)": unsatisfied program reference',
        said(
            "loader-lacks",
            "this release of cilium/ebpf does not link the call of {name}, which the object "
            "declares and does not define: a kfunc, or a function of another object",
            _RELEASE + ", or define it in the same object",
            name="{name}",
        ),
    ),
    (r"load (?:programs|relocations): (?P<why>.*)", _RELOCATION),
    (
        r"load (?:BTF|symbols|license|version|data sections): |bad magic number |EOF|"
        r"unexpected EOF|reading ELF|.*: missing symbols$",
        _DAMAGED,
    ),
    (
        r".*\bno BTF found for kernel version\b",
        _kernel_btf,
    ),
    (
        r".*\battach \w+/\w+: (?:find target for )?(?:(?:fentry|fexit|fmod_ret|raw_tp) "
        r"(?P<name>\S+)|(?P<name2>\S+) (?:LSM hook|iterator))(?: not supported|: .*not found)",
        _target,
    ),
    (r"(?P<what>(?:program|map) [^:]+): (?:map [^:]+: )?load BTF: (?P<why>.*)", _object_btf),
    (
        r"program [^:]+: apply CO-RE relocations: (?P<why>.*)",
        said(
            "core-type",
            "a CO-RE relocation cannot be carried out on this kernel: {why}",
            "declare the type as this kernel's BTF has it, under a second name of the structure "
            "(name___2), or read the field with bpf_core_read()",
        ),
    ),
    (
        r'.*\bconfig option "(?P<name>CONFIG_\w+)" does not exists? (?:on|for) this kernel',
        _kconfig,
    ),
    (
        r".*\bproblem adding value for (?P<name>CONFIG_\w+): (?P<why>.*)",
        said(
            "kconfig-type",
            "the value of {name} does not fit the type of its extern: {why}",
            "declare it with the type that its value has: bool, char (tristate), an integer, or an "
            "array of char",
            name="{name}",
        ),
    ),
    (r'.*\bkfunc "(?P<name>[^"]+)": not supported', _kfunc),
    (r'.*\bkfunc "(?P<name>[^"]+)": .*\bincompatible types', prototype),
    (
        r".*\bcannot find a kconfig file\b",
        said(
            "kconfig-not-found",
            "cilium/ebpf finds no config of this kernel, of which a __kconfig extern asks",
            "a kernel with CONFIG_IKCONFIG_PROC, or its config at /boot/config-RELEASE",
        ),
    ),
    (
        _MAP + r"pin by name: missing MapOptions\.PinPath",
        said(
            "pin",
            "the map {map} is pinned by its name, and the program that loads it has to say where",
            "leave the pinning out here; in Go: CollectionOptions.Maps.PinPath",
        ),
    ),
    (_MAP + r"inner map: ", inner_map),
    (_MAP + r"(?:map create\b|creating map: |\S+ requires InnerMap)", _map),
    (
        r"(?:populate deferred maps: )?populating map (?P<map>[^:]+): putting value: "
        r"key (?P<key>[^:]+): update: ",
        _slot,
    ),
)
