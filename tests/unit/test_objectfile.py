"""What an object holds, read from objects of the real clang; and from what is left of them."""

from __future__ import annotations

import ctypes
import io
import json
import os
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from command import vmtest
from elftools.elf.elffile import ELFFile

from vmtest.errors import UsageError
from vmtest.objects.btf import Btf
from vmtest.objects.compile import clang_argv
from vmtest.objects.inspect import LIMIT, GlobalInfo, MapInfo, ObjectInfo, ProgramInfo, inspect
from vmtest.objects.sections import (
    ATTACH_TYPES,
    MAP_TYPES,
    PROGRAM_TYPES,
    SECTIONS,
    map_flags,
    types_of,
)

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct inner { __u16 port; __u32 word; };
struct value {
    __u64 first;
    union { __u32 four; __u8 bytes[16]; } address;
    struct inner inner[2];
    __u8 low : 3, high : 5;
} __attribute__((packed));
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 70); __type(key, __u32);
         __type(value, struct value); __uint(map_flags, 1 << 0 | 1 << 10); } typed SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 8); __uint(key_size, 4);
         __uint(value_size, 4); } untyped SEC(".maps");
int level = -2;
unsigned long long count;
const volatile char word[6] = "hello";
const volatile int nothing = 0;
struct outer { struct inner inner; __u8 more; };
static volatile struct outer kept = { { 1, 2 }, 3 };

static __attribute__((noinline)) int helps(struct __sk_buff *skb)
{
    return skb->len + kept.inner.word;
}

SEC("cgroup_skb/ingress") int in(struct __sk_buff *skb) { return helps(skb) + level; }
SEC("?cgroup_skb/egress") int out(struct __sk_buff *skb) { return skb->len + nothing; }
SEC("?sk_msg/by_name") int odd(struct sk_msg_md *msg) { return word[msg->size % 6] + count; }
SEC("something") int strange(void *context) { (void)context; return 0; }
char license_text[] SEC("license") = "GPL";
"""

KEPT = "010000000200000003000000"

LEGACY = """
struct bpf_map_def { unsigned type, key_size, value_size, max_entries, map_flags; };
struct bpf_map_def first __attribute__((section("maps"), used)) = { 1, 4, 8, 16, 1 };
struct bpf_map_def second __attribute__((section("maps"), used)) = { 2, 4, 12, 3, 0 };
"""


def compiled(folder: Path, source: str, *more: str) -> Path:
    (folder / "it.c").write_text(source)
    target = folder / "it.o"
    argv = clang_argv(folder / "it.c", target, folder)
    subprocess.run([*argv, *more], check=True)
    return target


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("objectfile"), SOURCE)


@pytest.fixture(scope="module")
def info(built: Path) -> ObjectInfo:
    return inspect(built)


@pytest.fixture(scope="module")
def without_btf(tmp_path_factory: pytest.TempPathFactory) -> ObjectInfo:
    return inspect(compiled(tmp_path_factory.mktemp("bare"), SOURCE, "-g0"))


def test_programs_come_with_section_and_types(info: ObjectInfo) -> None:
    found = {p.name: (p.section, p.type, p.attach_type) for p in info.programs}
    assert found == {
        "helps": (".text", "function", ""),
        "in": ("cgroup_skb/ingress", "cgroup_skb", "cgroup_inet_ingress"),
        "out": ("?cgroup_skb/egress", "cgroup_skb", "cgroup_inet_egress"),
        "odd": ("?sk_msg/by_name", "", ""),
        "strange": ("something", "", ""),
    }


def test_instructions_are_counted_as_the_kernel_does(info: ObjectInfo) -> None:
    (strange,) = (p for p in info.programs if p.name == "strange")
    assert strange == ProgramInfo("strange", "something", "", "", 2)  # r0 = 0; exit


def test_maps_come_with_sizes_types_and_flags(info: ObjectInfo) -> None:
    assert {m.name: m for m in info.maps} == {
        "typed": MapInfo("typed", "hash", 4, 41, 70, 1 | 1 << 10, "__u32", "struct value"),
        "untyped": MapInfo("untyped", "prog_array", 4, 4, 8, 0),
    }


def test_globals_come_with_their_first_values(info: ObjectInfo) -> None:
    assert {g.name: g for g in info.globals} == {
        "level": GlobalInfo("level", ".data", 4, "int", "feffffff", -2),
        "count": GlobalInfo("count", ".bss", 8, "unsigned long long", "", 0),
        "word": GlobalInfo("word", ".rodata", 6, "const volatile char[6]", b"hello\0".hex()),
        "nothing": GlobalInfo("nothing", ".rodata", 4, "const volatile int", "", 0),
        "kept": GlobalInfo("kept", ".data", 12, "volatile struct outer", KEPT),
    }


def test_layouts_are_those_of_the_maps_and_globals(info: ObjectInfo) -> None:
    layouts = {layout.name: layout for layout in info.layouts}
    assert set(layouts) == {"struct value", "struct inner", "struct outer"}
    assert [
        (m.name, m.offset, m.size, m.type, m.bits, m.bit) for m in layouts["struct value"].members
    ] == [
        ("first", 0, 8, "__u64", 0, 0),
        ("address.four", 8, 4, "__u32", 0, 0),
        ("address.bytes", 8, 16, "__u8[16]", 0, 0),
        ("inner", 24, 16, "struct inner[2]", 0, 0),
        ("low", 40, 1, "__u8", 3, 0),
        ("high", 40, 1, "__u8", 5, 3),
    ]
    assert [m.name for m in layouts["struct outer"].members] == ["inner", "more"]
    assert (layouts["struct value"].size, layouts["struct inner"].size) == (41, 8)


def test_without_btf_names_and_sizes_are_still_there(without_btf: ObjectInfo) -> None:
    assert not without_btf.btf and not without_btf.layouts
    assert {g.name: (g.size, g.type, g.initial) for g in without_btf.globals} == {
        "level": (4, "", "feffffff"),
        "count": (8, "", ""),
        "word": (6, "", b"hello\0".hex()),
        "nothing": (4, "", ""),
        "kept": (12, "", KEPT),
    }
    assert len(without_btf.programs) == 5


def test_without_btf_a_map_has_nothing_but_its_name(without_btf: ObjectInfo) -> None:
    assert {m.name: (m.type, m.key_size) for m in without_btf.maps} == {
        "typed": ("", None),
        "untyped": ("", None),
    }


def test_legacy_maps_are_read_from_their_section(tmp_path: Path) -> None:
    assert inspect(compiled(tmp_path, LEGACY)).maps == (
        MapInfo("first", "hash", 4, 8, 16, 1, legacy=True),
        MapInfo("second", "array", 4, 12, 3, 0, legacy=True),
    )


def test_legacy_maps_may_end_before_their_flags_and_have_a_section_each(tmp_path: Path) -> None:
    source = LEGACY.replace(", map_flags;", ";").replace(", 1 };", " };").replace(", 0 };", " };")
    source = source.replace('"maps"', '"maps/second"').replace('"maps/second"', '"maps"', 1)
    maps = inspect(compiled(tmp_path, source, "-Wno-everything")).maps
    assert [(m.name, m.type, m.value_size, m.max_entries, m.flags) for m in maps] == [
        ("first", "hash", 8, 16, 0),
        ("second", "array", 12, 3, 0),
    ]


def test_a_value_that_is_only_declared_has_no_size(tmp_path: Path) -> None:
    source = """
    #include <linux/bpf.h>
    #include <bpf/bpf_helpers.h>
    struct later;
    struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 2); __type(key, __u32);
             struct later (*value); } map SEC(".maps");
    """
    (found,) = inspect(compiled(tmp_path, source)).maps
    assert (found.key_size, found.value_size, found.value) == (4, None, "struct later")


def test_a_bit_field_of_an_older_compiler_stands_in_its_type() -> None:
    """Without the flag of its structure: bits and first bit are those of the integer."""
    names = b"\0it\0field\0u32\0"
    integer = struct.pack("<IIII", names.index(b"u32"), 1 << 24, 4, 5 << 16 | 3)
    member = struct.pack("<III", names.index(b"field"), 1, 32)
    composite = struct.pack("<III", names.index(b"it"), 4 << 24 | 1, 8) + member
    types = integer + composite
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    (found,) = Btf(head + types + names).members(2)
    assert (found.offset, found.bit, found.bits) == (4, 5, 3)


def test_the_other_byte_order_is_read_as_well(tmp_path: Path) -> None:
    big = inspect(compiled(tmp_path, SOURCE, "--target=bpfeb"))
    assert {g.name: g.number for g in big.globals}["level"] == -2
    assert big.maps[0].value_size == 41


def test_a_file_is_not_loaded_nor_needs_root(built: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("an ordinary user runs these tests already")
    copy = Path("/tmp") / f"vmtest-inspect-{os.getpid()}.o"
    copy.write_bytes(built.read_bytes())
    try:
        # As nobody, within the interpreter that runs us: its modules may be root's alone.
        child = os.fork()
        if child == 0:
            os.setgid(65534)
            os.setuid(65534)
            os._exit(0 if inspect(copy).programs else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        copy.unlink()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\x7fEL", "is not an ELF file"),
        (b"#!/bin/sh\n" * 99, "is not an ELF file"),
        (b"\x7fELF", "is a damaged or truncated ELF file"),
        (b"\x7fELF\x02\x01\x01" + b"\0" * 100, "is not a BPF object"),
    ],
)
def test_what_is_no_object_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.o").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        inspect(tmp_path / "x.o")


def test_a_program_of_the_host_is_refused() -> None:
    with pytest.raises(UsageError, match="is not a BPF object: it is for EM_"):
        inspect(Path(shutil.which("clang") or "clang").resolve())


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "x.o").open("wb") as file:
        file.truncate(LIMIT + 1)
    with pytest.raises(UsageError, match="has 32 MiB, more than 32; that is not a BPF object"):
        inspect(tmp_path / "x.o")


@pytest.mark.parametrize("path", ["/dev/zero", "."])
def test_what_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="is not a file"):
        inspect(Path(path))


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"/no/x\.o: cannot be read: No such file"):
        inspect(Path("/no/x.o"))


def test_a_section_that_ends_behind_the_file_is_refused(built: Path, tmp_path: Path) -> None:
    data = bytearray(built.read_bytes())
    elf = ELFFile(io.BytesIO(data))
    (number,) = (n for n, s in enumerate(elf.iter_sections()) if s.name == "license")
    struct.pack_into("<Q", data, elf["e_shoff"] + number * elf["e_shentsize"] + 32, len(data))
    (tmp_path / "x.o").write_bytes(data)
    with pytest.raises(UsageError, match="section license ends behind the file"):
        inspect(tmp_path / "x.o")


def attempt(path: Path, data: bytes) -> bool:
    """Whether ``data`` can be inspected; anything but a UsageError is a bug."""
    path.write_bytes(data)
    try:
        inspect(path)
    except UsageError:
        return False
    return True


def test_a_truncated_object_is_refused_wherever_it_ends(built: Path, tmp_path: Path) -> None:
    data = built.read_bytes()
    for end in range(4, len(data) - 64, 61):  # the section headers are the file's end
        assert not attempt(tmp_path / "x.o", data[:end]), end


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_object_is_read_or_refused(seed: int, built: Path, tmp_path: Path) -> None:
    dice = random.Random(seed)
    whole = built.read_bytes()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(dice.choice([1, 4, 32])):
            data[dice.randrange(len(data))] = dice.choice([0, 1, 0x7F, 0xFF, dice.randrange(256)])
        attempt(tmp_path / "x.o", bytes(data))


def libbpf() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libbpf.so.1")
    except OSError:
        pytest.skip("libbpf is not installed")
    for name in ("map", "prog", "attach"):
        getattr(lib, f"libbpf_bpf_{name}_type_str").restype = ctypes.c_char_p
    return lib


# Those that libbpf 1.1 (Debian 12) does not know yet. A libbpf that knows them is compared.
NEWER = {
    "cgroup/connect_unix",
    "cgroup/getpeername_unix",
    "cgroup/getsockname_unix",
    "cgroup/recvmsg_unix",
    "cgroup/sendmsg_unix",
    "fsession+",
    "fsession.s+",
    "kprobe.session+",
    "netfilter",
    "netkit/peer",
    "netkit/primary",
    "sk_skb/verdict",
    "struct_ops.s+",
    "tc/egress",
    "tc/ingress",
    "tcx/egress",
    "tcx/ingress",
    "uprobe.multi+",
    "uprobe.multi.s+",
    "uprobe.session+",
    "uprobe.session.s+",
    "uretprobe.multi+",
    "uretprobe.multi.s+",
    "usdt.s+",
}


@pytest.mark.parametrize(("pattern", "kind", "attach"), SECTIONS, ids=[s[0] for s in SECTIONS])
def test_a_section_means_what_libbpf_says_it_means(pattern: str, kind: str, attach: str) -> None:
    section = pattern.replace("+", "/x")
    assert types_of(section) == (kind, attach)
    lib = libbpf()
    number, attached = ctypes.c_int(), ctypes.c_int()
    if lib.libbpf_prog_type_by_name(section.encode(), ctypes.byref(number), ctypes.byref(attached)):
        assert pattern in NEWER
    else:
        names = [
            lib.libbpf_bpf_prog_type_str(number).decode(),
            lib.libbpf_bpf_attach_type_str(attached).decode() if attach else "",
        ]
        assert names == [kind, attach]


@pytest.mark.parametrize(("kind", "known"), [("prog", PROGRAM_TYPES), ("attach", ATTACH_TYPES)])
def test_no_type_that_libbpf_knows_is_missing(kind: str, known: tuple[str, ...]) -> None:
    name_of = getattr(libbpf(), f"libbpf_bpf_{kind}_type_str")
    names: list[str] = []
    while (name := name_of(len(names))) is not None:
        names.append(name.decode())
    assert len(names) > 30
    assert set(names) - {"unspec"} <= set(known)


def test_map_types_are_called_as_libbpf_calls_them() -> None:
    lib = libbpf()
    names: list[str] = []
    while (name := lib.libbpf_bpf_map_type_str(len(names))) is not None:
        names.append(name.decode())
    shared = min(len(names), len(MAP_TYPES))
    assert shared > 30
    assert tuple(names[:shared]) == MAP_TYPES[:shared]


def test_flags_without_a_name_are_shown_as_numbers() -> None:
    assert map_flags(1 | 1 << 10 | 1 << 30) == "no_prealloc, mmapable, 0x40000000"


def test_the_command_prints_all_of_it(built: Path) -> None:
    said = vmtest("objects", "inspect", str(built), cwd=built.parent)
    assert said.status == 0, said
    lines = [line.split() for line in said.out.splitlines()]
    (typed,) = (line for line in lines if line[:1] == ["typed"])
    assert typed[1:8] == ["hash", "4", "__u32", "41", "struct", "value", "70"]
    assert typed[8:] == ["no_prealloc,", "mmapable"]
    assert ["level", ".data", "4", "int", "-2"] in lines
    assert ["high", "40.3", "5", "bits", "__u8"] in lines
    assert ["odd", "?sk_msg/by_name", "?", "-"] in [line[:4] for line in lines]


def test_the_command_speaks_json(built: Path) -> None:
    said = vmtest("objects", "inspect", "--json", str(built), str(built), cwd=built.parent)
    first, second = json.loads(said.out)
    assert first == second
    assert {m["name"] for m in first["maps"]} == {"typed", "untyped"}


def test_the_command_refuses_with_status_two(tmp_path: Path) -> None:
    (tmp_path / "x.o").write_bytes(b"")
    vmtest("objects", "inspect", "x.o", cwd=tmp_path).refuses(2, "x.o: is empty", "build")


def test_names_with_control_characters_are_spelled_out(built: Path, tmp_path: Path) -> None:
    data = built.read_bytes().replace(b"strange", b"st\x1b]0;\x07").replace(b"level", b"le\x9bel")
    (tmp_path / "x.o").write_bytes(data)
    said = vmtest("objects", "inspect", "x.o", cwd=tmp_path)
    assert said.status == 0, said
    assert not {"\x1b", "\x07", "\x9b"} & set(said.out)
