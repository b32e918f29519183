# SPDX-License-Identifier: MIT
"""Why a map could not be made: by its shape, and by what the kernel makes instead. Pure."""

import itertools
import re

from vmtest.guest.failures import (
    Failure,
    Kernel,
    MapShape,
    Reason,
    behind,
    believed,
    errno_said,
    lacking,
    listed,
)
from vmtest.guest.loader import verifierlog

_MAP_TYPE_CONFIG = {
    "xskmap": "CONFIG_XDP_SOCKETS",
    "inode_storage": "CONFIG_BPF_LSM",
    "cgroup_array": "CONFIG_CGROUPS",
    "cgroup_storage": "CONFIG_CGROUP_BPF",
    "percpu_cgroup_storage": "CONFIG_CGROUP_BPF",
    "stack_trace": "CONFIG_PERF_EVENTS",
    "reuseport_sockarray": "CONFIG_INET",
}

_FLAGS = {
    # From enum in include/uapi/linux/bpf.h: the name, and the version of Linux that it came with.
    1 << 0: ("BPF_F_NO_PREALLOC", "4.6"),
    1 << 1: ("BPF_F_NO_COMMON_LRU", "4.10"),
    1 << 2: ("BPF_F_NUMA_NODE", "4.14"),
    1 << 3: ("BPF_F_RDONLY", "4.15"),
    1 << 4: ("BPF_F_WRONLY", "4.15"),
    1 << 5: ("BPF_F_STACK_BUILD_ID", "4.17"),
    1 << 6: ("BPF_F_ZERO_SEED", "5.0"),
    1 << 7: ("BPF_F_RDONLY_PROG", "5.2"),
    1 << 8: ("BPF_F_WRONLY_PROG", "5.2"),
    1 << 9: ("BPF_F_CLONE", "5.4"),
    1 << 10: ("BPF_F_MMAPABLE", "5.5"),
    1 << 11: ("BPF_F_PRESERVE_ELEMS", "5.10"),
    1 << 12: ("BPF_F_INNER_MAP", "5.10"),
    1 << 13: ("BPF_F_LINK", "6.4"),
    1 << 14: ("BPF_F_PATH_FD", "6.5"),
    1 << 15: ("BPF_F_VTYPE_BTF_OBJ_FD", "6.9"),
    1 << 16: ("BPF_F_TOKEN_FD", "6.9"),
    1 << 17: ("BPF_F_SEGV_ON_FAULT", "6.9"),
    1 << 18: ("BPF_F_NO_USER_CONV", "6.9"),
    1 << 19: ("BPF_F_RB_OVERWRITE", "6.19"),
}
_OUTER = ("array_of_maps", "hash_of_maps")
_RING_BUFFERS = ("ringbuf", "user_ringbuf")
_STORAGES = ("sk_storage", "inode_storage", "task_storage", "cgrp_storage")
_CGROUP_STORAGES = ("cgroup_storage", "percpu_cgroup_storage")
# Of these the kernel wants to know more than a shape: a BTF type, or a map inside.
_NOT_TRIED = (*_OUTER, *_STORAGES, "struct_ops", "arena")
_NO_PREALLOC, _MMAPABLE = 1 << 0, 1 << 10
_TOLD = "or its own loader has to set it before the load"
_LARGE = 1024
_KEY = 4  # bytes of an int
_PAGE = 4096

MEMLOCK = re.compile(
    r"permission error while running as root; try raising 'ulimit -l'|"
    r"Error in bpf_object__probe_loading\(\):.*RLIMIT_MEMLOCK is set to big enough value"
)


def refused_map(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    """Why libbpf could not make the map that its line names."""
    line = f"log: {match.string}"
    return of_map(match["map"], errno_said(match["error"]), line, failure, kernel)


def of_map(name: str, errno: str, line: str, failure: Failure, kernel: Kernel) -> Reason | None:
    """Why the map `name` was refused with `errno`, as `line` says."""
    shape = next((one for one in failure.maps if one.name == name), None)
    if errno == "EPERM":
        return memlock(failure, kernel)
    if shape is None:
        return None
    return (
        _type(shape, kernel)
        or _flag(shape, line, kernel)
        or _own_mistake(shape, line)
        or _tried(shape, errno, line, kernel)
        or _left(shape, errno, line)
    )


def _left(shape: MapShape, errno: str, line: str) -> Reason | None:
    """What is left where no other shape was made: what the shape does not show."""
    if shape.kind.isdecimal() and errno == "EINVAL":
        return Reason(
            "map-type",
            f"this kernel makes no map of the type with the number {shape.kind}, which libbpf has "
            f"no name for ({shape.name})",
            "name one of enum bpf_map_type; or leave the map out on such kernels",
            line,
        )
    if shape.kind in _OUTER and errno in ("524", "ENOTSUPP"):
        return Reason(
            "map-definition",
            f"the maps inside {shape.name} are of a type that this kernel puts into no other map",
            "take hashes, arrays or other maps of data inside: not a PROG_ARRAY, a storage of "
            "control groups, a struct_ops or another map of maps",
            f"{line}; ENOTSUPP",
        )
    if shape.kind in _STORAGES and errno == "EINVAL":
        return Reason(
            "map-btf",
            f"a map of type {shape.kind} must say the types of its key and its value "
            f"({shape.name})",
            "define it with __type(key, int) and __type(value, ...), and compile with -g",
            f"{line}; its sizes, max_entries and flags are those that the type wants",
        )
    return None


def inner_map(match: re.Match[str], failure: Failure, kernel: Kernel) -> Reason | None:
    """Why libbpf could not make the template of a map of maps."""
    return Reason(
        "map-definition",
        f"this kernel does not make the inner map that {match['map']} is defined with",
        "look at type, key_size, value_size and max_entries of the inner map (max_entries must "
        "not be 0)",
        f"log: {match.string}",
    )


def _type(shape: MapShape, kernel: Kernel) -> Reason | None:
    kind = shape.kind
    if not kind or kind.isdecimal():
        return None
    symbol, known_as = _MAP_TYPE_CONFIG.get(kind), f"BPF_MAP_TYPE_{kind.upper()}"
    probed, evidence = kernel.has_map_type(kind), f"probe: a small {kind} map is refused"
    if probed is None and kernel.mentions(known_as) is False:
        probed, evidence = False, f"probe: the kernel's BTF has no {known_as}"
    if believed(probed, known_as, symbol, kernel) is not False:
        return None  # it can make such maps: this one is wrong in another way
    return lacking(
        Reason(
            "map-type",
            f"this kernel cannot make maps of type {kind} ({shape.name})",
            "build a variant with another map, or switch off its creation "
            "(bpf_map__set_autocreate)",
            evidence,
            name=known_as,
        ),
        behind(symbol, known_as, kernel),
        kernel,
    )


def _flag(shape: MapShape, line: str, kernel: Kernel) -> Reason | None:
    for bit, (name, since) in _FLAGS.items():
        if shape.flags & bit and kernel.mentions(name) is False:
            cure = "leave the flag out on such kernels (bpf_map__set_map_flags), or build a variant"
            if name == "BPF_F_LINK":
                cure = 'put the map into SEC(".struct_ops") for such kernels'
            return Reason(
                "map-flag",
                f"this kernel does not know the map flag {name} of {shape.name} (it came with "
                f"Linux {since})",
                cure,
                f"{line}; probe: the kernel's BTF has no {name}",
                name=name,
            )
    return None


def _own_mistake(shape: MapShape, line: str) -> Reason | None:
    """What no kernel takes, whatever its version."""
    name = shape.name
    if shape.kind in _OUTER and not shape.inner:
        return Reason(
            "inner-map",
            f"the object has no template for the maps inside {name}",
            f'in its [[object]]: inner_maps = {{ {name} = {{ type = "hash", key_size = 4, '
            "value_size = 4, max_entries = 1 } }, with the inner maps' own values; or "
            "`__array(values, struct {...})` in the map's definition",
            f"{line}; its definition has no inner map",
        )
    if shape.kind in _RING_BUFFERS and (shape.key_size or shape.value_size):
        return Reason(
            "map-definition",
            f"the ring buffer {name} is defined with a key or a value, and has neither",
            "leave __type(key, ...), __type(value, ...) and their sizes out of its definition",
            f"{line}; its definition has key_size {shape.key_size} and value_size "
            f"{shape.value_size}",
        )
    if wanted := _wanted(shape):
        return Reason(
            "map-definition",
            f"a map of type {shape.kind} must have {wanted} ({name})",
            "define it like that",
            f"{line}; its definition has key_size {shape.key_size}, value_size "
            f"{shape.value_size}, max_entries {shape.max_entries} and map_flags {shape.flags:#x}",
        )
    return None


def _wanted(shape: MapShape) -> str:
    """What each kernel wants of a map of such a type and `shape` has not."""
    if shape.kind in _STORAGES and not (
        shape.flags & _NO_PREALLOC and shape.max_entries == 0 and shape.key_size == _KEY
    ):
        return "map_flags BPF_F_NO_PREALLOC, a key of type int, and no max_entries"
    if shape.kind in _CGROUP_STORAGES and shape.max_entries:
        return "max_entries 0: the kernel has a value for each control group"
    if shape.kind == "lpm_trie" and not shape.flags & _NO_PREALLOC:
        return "map_flags BPF_F_NO_PREALLOC"
    if shape.kind == "arena" and (
        not shape.flags & _MMAPABLE or shape.key_size or shape.value_size
    ):
        return "map_flags BPF_F_MMAPABLE, max_entries in pages, and neither key nor value"
    return ""


def _tried(shape: MapShape, errno: str, line: str, kernel: Kernel) -> Reason | None:
    """Which single change makes the kernel take the map."""
    if not shape.kind or shape.kind in _NOT_TRIED or not kernel.refuses_map(shape):
        return None
    for changed, text, cure in _changes(shape):
        if not kernel.refuses_map(changed):
            if errno == "ENOMEM" and changed.max_entries < shape.max_entries:
                text = (
                    f"this guest lacks the memory for the {shape.max_entries} entries of the "
                    f"map {shape.name}"
                )
                cure = f"give the guest more (`memory` in kernels.toml), or {cure}"
            difference = [
                f"{field} {new}"
                for field, old, new in zip(shape._fields, shape, changed, strict=True)
                if old != new
            ]
            return Reason(
                "map-definition",
                text,
                cure,
                f"{line}; probe: this kernel refuses such a map with {errno}, and makes it with "
                f"{' and '.join(difference)}",
            )
    return None


def _changes(shape: MapShape) -> list[tuple[MapShape, str, str]]:
    """Shapes that differ in one value, in all that nobody told, or in two values; what is wrong."""
    single = [*_other_sizes(shape), *_fewer(shape)]
    pairs = _pairs(shape, [one for one, _, _ in single])
    return [*_without_extra(shape), *_sizes_not_told(shape), *single, *pairs]


def _without_extra(shape: MapShape) -> list[tuple[MapShape, str, str]]:
    """Without its map_extra, which two types have (kernel/bpf/syscall.c, map_create())."""
    if not shape.map_extra:
        return []
    text = f"this kernel makes no map of type {shape.kind} with map_extra {shape.map_extra:#x}"
    if shape.kind == "bloom_filter":
        cure = "map_extra is the number of its hash functions: at most 15"
    else:
        cure = "leave __ulong(map_extra, ...) out: only a bloom_filter and an arena have one"
    return [(shape._replace(map_extra=0), f"{text} ({shape.name})", cure)]


def _pairs(shape: MapShape, changed: list[MapShape]) -> list[tuple[MapShape, str, str]]:
    found = []
    for one, other in itertools.combinations(changed, 2):
        both = MapShape._make(
            second if second != old else first
            for old, first, second in zip(shape, one, other, strict=True)
        )
        told = [
            f"{field} {old}"
            for field, old, new in zip(shape._fields, shape, both, strict=True)
            if old != new
        ]
        if len(told) == len((one, other)):
            text = f"this kernel makes no map of type {shape.kind} with {listed(told)}"
            cure = f"use the sizes that this map type wants, {_TOLD}"
            found.append((both, f"{text} ({shape.name})", cure))
    return found


def _with(shape: MapShape, field: str, value: int) -> MapShape:
    match field:
        case "key_size":
            return shape._replace(key_size=value)
        case "value_size":
            return shape._replace(value_size=value)
    return shape._replace(max_entries=value)


def _sizes_not_told(shape: MapShape) -> list[tuple[MapShape, str, str]]:
    """With the sizes that are 0: the number of entries, then all of them (a stack_trace map's)."""
    if shape.max_entries:
        return []
    name = shape.name
    cure = f"in its [[object]]: max_entries = {{ {name} = 1024 }}; {_TOLD}"
    text = (
        f"the map {name} has max_entries 0: either its own loader sets the size, or the size is "
        "missing"
    )
    found = [(_with(shape, "max_entries", size), text, cure) for size in (1, 4096)]
    if shape.value_size == 0 or shape.key_size == 0:
        full = shape._replace(
            max_entries=1, value_size=shape.value_size or 8, key_size=shape.key_size or 4
        )
        zero = [f for f in ("key_size", "value_size", "max_entries") if not getattr(shape, f)]
        text = (
            f"the map {name} has {listed(zero)} 0: either its own loader sets them, or they are "
            "missing"
        )
        cure = f"say all of them in its definition, {_TOLD} (bpf_map__set_value_size() and others)"
        found.append((full, text, cure))
    return found


def _other_sizes(shape: MapShape) -> list[tuple[MapShape, str, str]]:
    name, found = shape.name, []
    for field, values in (("value_size", (4, 8, 0)), ("key_size", (4, 0, 8))):
        size = shape.value_size if field == "value_size" else shape.key_size
        if size == 0:
            text = f"the map {name} has {field} 0, and this kernel wants a {field[:-5]}"
            cure = f"say the type in its definition, {_TOLD} (bpf_map__set_{field})"
        else:
            text = f"this kernel makes no map of type {shape.kind} with {field} {size} ({name})"
            cure = "use the size that this map type wants"
        if size > _LARGE:
            text += ": that is too large"
            cure = "split the value, or keep it in several maps"
        found += [(_with(shape, field, value), text, cure) for value in values if value != size]
    return found


def _fewer(shape: MapShape) -> list[tuple[MapShape, str, str]]:
    found = []
    this = f"this kernel makes no map of type {shape.kind} with"
    if shape.flags:
        text = f"{this} the flags {shape.flags:#x} ({shape.name})"
        found.append((shape._replace(flags=0), text, "use the flags that this map type takes"))
    if shape.max_entries:
        text = f"{this} {shape.max_entries} entries ({shape.name})"
        cure = f"use fewer entries, {_TOLD}"
        if shape.kind in _RING_BUFFERS:
            cure = "use a power of 2 that is a multiple of the page size (4096)"
        found += [(_with(shape, "max_entries", size), text, cure) for size in (1, _PAGE)]
    return found


def memlock(failure: Failure, kernel: Kernel) -> Reason | None:
    """The limit of locked memory, where the kernel counts against it and libbpf says so."""
    limit = kernel.memlock_limit()
    if limit is None or not kernel.counts_memlock() or failure.errno != "EPERM":
        return None
    told = [line for line in verifierlog.words(failure.messages) if MEMLOCK.match(line)]
    if not told:
        return None
    return Reason(
        "memlock",
        "the maps and programs need more locked memory than the loader may have",
        "raise RLIMIT_MEMLOCK (ulimit -l unlimited)",
        f"probe: this kernel counts maps against RLIMIT_MEMLOCK, which is {limit} bytes; "
        f"log: {told[0]}",
    )
