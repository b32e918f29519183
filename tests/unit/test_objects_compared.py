"""What `objects inspect` says, beside what libbpf and bpftool say of the same objects.

All programs of this repository, and one with what C allows in maps and their types.
"""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vmtest.guest.libbpf import LibbpfError, library
from vmtest.host.cache import find_tool
from vmtest.objects.compile import clang_argv
from vmtest.objects.inspect import Layout, inspect
from vmtest.objects.sections import map_type

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("bpf", "tests/verify", "tests/bisect")
KINDS = Path(__file__).parent / "data" / "objects" / "kinds.bpf.c"
SOURCES = sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.bpf.c"))

# Objects that libbpf refuses to open, which is what they are for.
NOT_OPENED = {
    f"verify-{entry['object']}.bpf.o"
    for entry in tomllib.loads((REPOSITORY / "tests/verify/expected.toml").read_text())["load"]
    if entry["verdict"] == "open failed"
}

VARIANTS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define __tagged __attribute__((btf_type_tag("user")))
typedef struct { __u32 addr; __u16 port; } flow_t;
typedef flow_t alias_t;
typedef const volatile alias_t fixed_t;
typedef flow_t flows_t[3];
typedef struct named { __u8 a; flow_t flow; } named_t;
typedef union { __u64 word; struct { __u32 low, high; } halves; } either_t;
enum wide { SMALL = 1, LARGE = 0x100000000ULL };
typedef enum { NO, YES } answer_t;
struct bits { __u32 a : 3, : 2, b : 20; __u64 c : 40; enum wide d; answer_t e : 2; _Bool f; };
struct holds {
    struct { __u16 x, y; } points[4];
    struct { struct { __u8 deep; } inner; } outer;
    either_t either;
    flows_t flows;
    struct bits bits;
    int __tagged *user;
    __u8 rest[];
};

struct inner_map {
    __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 2);
    __type(key, alias_t); __type(value, either_t);
};
struct inner_map first SEC(".maps"), second SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
         __array(values, struct inner_map); }
    by_struct SEC(".maps") = { .values = { [0] = &first, [2] = &second } };
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 4);
         __uint(key_size, 4); __uint(value_size, 4);
         __array(values, struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 7);
                                  __type(key, __u32); __type(value, struct holds); }); }
    in_place SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2);
         __type(key, __u32); __type(value, __u32); } without_values SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, fixed_t);
         __type(value, flows_t); __uint(pinning, LIBBPF_PIN_BY_NAME); } pinned SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LRU_HASH); __uint(max_entries, 8); __type(key, named_t[2]);
         __type(value, enum wide); __uint(map_flags, BPF_F_NO_COMMON_LRU); } tables SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, struct { int a; });
         __type(value, union { __u8 b; __u64 c; }[2]); } nameless SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
typedef struct { __uint(type, BPF_MAP_TYPE_SK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC);
                 __type(key, int); __type(value, struct holds *); } storage_t;
storage_t storage SEC(".maps");
int tail(struct __sk_buff *skb);
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 2); __uint(key_size, 4);
         __array(values, int (struct __sk_buff *)); }
    programs SEC(".maps") = { .values = { [1] = &tail } };

const volatile flows_t wanted = { { 1, 2 } };
volatile answer_t answer = YES;
volatile enum wide wide = LARGE;
static volatile struct bits kept;
struct holds holds;
named_t table[2];

SEC("tc") int tail(struct __sk_buff *skb) { return skb->len + wanted[0].port + kept.a; }
SEC("tc") int one(struct __sk_buff *skb)
{
    __u32 key = 0;
    void *inner = bpf_map_lookup_elem(&in_place, &key);
    flow_t flow = {};

    if (inner)
        bpf_map_update_elem(inner, &key, &table, 0);
    bpf_map_delete_elem(&pinned, &flow);
    bpf_tail_call(skb, &programs, 1);
    return answer + wide + table[1].flow.port + holds.flows[1].port;
}
char license_text[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compared")


def object_name(source: Path) -> str:
    return f"{source.parent.name}-{source.name}".replace(".bpf.c", ".bpf.o")


def compiled(source: Path, folder: Path) -> Path:
    target = folder / object_name(source)
    if not target.exists():
        root = next(
            (REPOSITORY / f for f in FOLDERS if source.is_relative_to(REPOSITORY / f)), folder
        )
        argv = clang_argv(source, target, root / "include")
        subprocess.run([a for a in argv if a != "-Wextra"], check=True)
    return target


def names(*, opened: bool) -> list[str]:
    """The sources whose objects libbpf opens, or those whose objects it refuses."""
    return [
        str(source.relative_to(REPOSITORY))
        for source in SOURCES
        if (object_name(source) not in NOT_OPENED) is opened
    ]


@pytest.fixture(params=["variants", "kinds", *names(opened=True), *names(opened=False)])
def object_file(request: pytest.FixtureRequest, folder: Path) -> Path:
    if request.param == "kinds":
        return compiled(KINDS, folder)
    if request.param != "variants":
        return compiled(REPOSITORY / request.param, folder)
    source = folder / "variants.bpf.c"
    source.write_text(VARIANTS)
    return compiled(source, folder)


def each(next_: Callable[[int, int | None], int | None], opened: int) -> Iterator[int]:
    item = next_(opened, None)
    while item:
        yield item
        item = next_(opened, item)


@pytest.fixture
def opened(object_file: Path) -> Iterator[int | None]:
    """The object as libbpf opens it; nothing is loaded, and nobody has to be root."""
    try:
        lib = library()
    except LibbpfError as error:
        pytest.skip(str(error))
    found = lib.bpf_object__open_file(str(object_file).encode(), None)
    yield found
    if found:
        lib.bpf_object__close(found)


that_open = pytest.mark.parametrize(
    "object_file", ["variants", "kinds", *names(opened=True)], indirect=True
)


@pytest.mark.parametrize("object_file", names(opened=False), indirect=True)
def test_objects_made_to_be_refused_are_refused(opened: int | None) -> None:
    assert not opened


@that_open
def test_maps_are_those_that_libbpf_would_make(object_file: Path, opened: int) -> None:
    lib = library()
    wanted = {}
    for it in each(lib.bpf_object__next_map, opened):
        name = lib.bpf_map__name(it).decode()
        if "." in name:
            continue  # the globals, and what the kernel's configuration says
        kind = map_type(lib.bpf_map__type(it))
        sizes = (lib.bpf_map__key_size(it), lib.bpf_map__value_size(it))
        more = (lib.bpf_map__max_entries(it), lib.bpf_map__map_flags(it))
        wanted[name] = (kind, *sizes, *more, bool(lib.bpf_map__pin_path(it)))
    found = inspect(object_file).maps
    assert {
        m.name: (m.type, m.key_size, m.value_size, m.max_entries, m.flags, m.pinned) for m in found
    } == wanted


@that_open
def test_programs_are_those_that_libbpf_would_load(object_file: Path, opened: int) -> None:
    lib = library()
    wanted = {}
    for it in each(lib.bpf_object__next_program, opened):
        kind = lib.libbpf_bpf_prog_type_str(lib.bpf_program__type(it)).decode()
        section = lib.bpf_program__section_name(it).decode()  # without the `?` of autoload off
        count = lib.bpf_program__insn_cnt(it)
        name = lib.bpf_program__name(it).decode()
        wanted[name] = (section, "" if kind == "unspec" else kind, count)
    programs = [p for p in inspect(object_file).programs if p.type != "function"]
    assert {
        p.name: (p.section.removeprefix("?"), p.type, p.instructions) for p in programs
    } == wanted


def dumped(path: Path) -> dict[int, dict[str, Any]]:
    """The types of an object by number, as bpftool tells them."""
    bpftool = find_tool("bpftool")
    if bpftool is None:
        pytest.skip("bpftool is not installed")
    argv = [bpftool, "-j", "btf", "dump", "file", str(path)]
    found = subprocess.run(argv, capture_output=True, check=True, text=True)
    return {item["id"]: item for item in json.loads(found.stdout)["types"]}


def test_globals_lie_where_bpftool_says(object_file: Path) -> None:
    types = dumped(object_file)
    sections = [t for t in types.values() if t["kind"] == "DATASEC"]
    wanted = {
        (types[variable["type_id"]]["name"], section["name"], variable["size"])
        for section in sections
        if section["name"].startswith((".data", ".bss", ".rodata"))
        for variable in section["vars"]
    }
    assert {(g.name, g.section, g.size) for g in inspect(object_file).globals} == wanted


ALIASES = ("TYPEDEF", "CONST", "VOLATILE", "RESTRICT", "TYPE_TAG")


def nameless(types: dict[int, dict[str, Any]], number: int) -> dict[str, Any] | None:
    """The structure without a name that type ``number`` is, or is an array of."""
    found = types.get(number, {"kind": "VOID"})
    while found["kind"] in ("ARRAY", "CONST", "VOLATILE", "RESTRICT", "TYPE_TAG"):
        found = types[found["type_id"]]
    composite = found["kind"] in ("STRUCT", "UNION") and found["name"] == "(anon)"
    return found if composite else None


def laid_out(
    types: dict[int, dict[str, Any]], found: dict[str, Any], prefix: str = "", base: int = 0
) -> Iterator[tuple[str, int, int]]:
    """Name, first bit and bits (of a bit field) of each member."""
    for member in found["members"]:
        name = "" if member["name"] == "(anon)" else member["name"]
        first = base + member["bits_offset"]
        number = member["type_id"]
        while types.get(number, {"kind": ""})["kind"] in ("CONST", "VOLATILE", "TYPE_TAG"):
            number = types[number]["type_id"]
        inner = nameless(types, number)
        array = inner is not None and types[number]["kind"] == "ARRAY"
        if inner is None or array:
            yield prefix + name, first, member.get("bitfield_size", 0)
        if inner is not None:
            step = f"{name}[]." if array else f"{name}." if name else ""
            yield from laid_out(types, inner, prefix + step, first)


def meant(types: dict[int, dict[str, Any]], layout: Layout) -> dict[str, Any]:
    """The structure that a layout is of."""
    kind, _, name = layout.name.rpartition(" ")
    kinds = (kind.upper(),) if kind else ("TYPEDEF",)
    found = next(t for t in types.values() if t["name"] == name and t["kind"] in kinds)
    while found["kind"] in ALIASES:
        found = types[found["type_id"]]
    return found


def test_layouts_are_those_that_bpftool_prints(object_file: Path) -> None:
    types = dumped(object_file)
    # bpftool's name for an anonymous one is everybody's.
    named = [one for one in inspect(object_file).layouts if "(anonymous)" not in one.name]
    found = [(layout.name, meant(types, layout)) for layout in named]
    assert [
        (layout.name, layout.size, [(m.name, 8 * m.offset + m.bit, m.bits) for m in layout.members])
        for layout in named
    ] == [(name, type_["size"], list(laid_out(types, type_))) for name, type_ in found]


def test_the_other_byte_order_has_the_same_maps_and_layouts(folder: Path) -> None:
    target = folder / "big-endian.bpf.o"
    argv = clang_argv(KINDS, target, folder)
    subprocess.run(["bpfeb" if a == "bpf" else a for a in argv if a != "-Wextra"], check=True)
    ours, theirs = inspect(compiled(KINDS, folder)), inspect(target)
    assert (theirs.maps, theirs.layouts) == (ours.maps, ours.layouts)
    numbers = [{g.name: g.number for g in found.globals} for found in (ours, theirs)]
    assert numbers[0] == numbers[1]
    assert (numbers[0]["cs"], numbers[0]["g128"]) == (-2, -5)


def test_an_object_without_btf_has_its_programs_and_bytes(folder: Path) -> None:
    target = folder / "no-btf.bpf.o"
    argv = [a for a in clang_argv(KINDS, target, folder) if a not in ("-g", "-Wextra")]
    subprocess.run(argv, check=True)
    ours, bare = inspect(compiled(KINDS, folder)), inspect(target)
    assert not bare.btf
    assert [p.name for p in bare.programs] == [p.name for p in ours.programs]
    assert [m.name for m in bare.maps] == [m.name for m in ours.maps]
    assert {(g.name, g.size, g.initial) for g in bare.globals} == {
        (g.name, g.size, g.initial) for g in ours.globals
    }


def test_layouts_of_the_variants_are_all_there(folder: Path) -> None:
    source = folder / "variants.bpf.c"
    source.write_text(VARIANTS)
    assert [layout.name for layout in inspect(compiled(source, folder)).layouts] == [
        "alias_t",
        "either_t",
        "struct holds",
        "flow_t",
        "struct bits",
        "fixed_t",
        "struct named",
        "struct (anonymous)",
        "union (anonymous)",
    ]


def test_a_map_of_maps_tells_its_inner_map(folder: Path) -> None:
    source = folder / "variants.bpf.c"
    source.write_text(VARIANTS)
    maps = {m.name: m for m in inspect(compiled(source, folder)).maps}
    inner = maps["by_struct"].inner
    assert inner is not None
    assert (inner.type, inner.key_size, inner.value, inner.max_entries) == (
        "hash",
        8,
        "either_t",
        2,
    )
    assert maps["programs"].inner is None
    assert maps["without_values"].inner is None
