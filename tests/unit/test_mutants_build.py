"""From mutants to what has to run, with the real clang."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants.build import Built, Kept, Unit, Workshop, source_of
from tests.mutants.cases import select, sort_out
from tests.mutants.operators import Mutant
from tests.mutants.verdicts import Judged, Verdict
from tests.mutants.vm import Case
from vmtest.errors import UsageError

DIES = Judged(Verdict.KILLED, "t.py::a")


def mutant(name: str, file: str = "x.h") -> Mutant:
    return Mutant(file, 1, 1, "gate", "if (a) return;", ";", "f", 0, 14, name)


PROGRAM = b"""
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 64);
    __type(key, __u32);
    __type(value, __u32);
} one SEC(".maps"), two SEC(".maps");
__u32 level = 2;
SEC("cgroup_skb/ingress")
int program(struct __sk_buff *skb)
{
    __u32 key = 0;
    void *here = bpf_map_lookup_elem(&one, &key), *there = bpf_map_lookup_elem(&two, &key);
    return here && there && bpf_map_lookup_elem(&two, &key) ? 1 : level;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    programs = tmp_path_factory.mktemp("programs")
    (programs / "include").mkdir()
    (programs / "x.bpf.c").write_bytes(PROGRAM)
    return Workshop(programs, tmp_path_factory.mktemp("work") / "shop")


def fault(before: str, after: str, text: bytes = PROGRAM) -> Mutant:
    start = text.index(before.encode())
    return Mutant("x.bpf.c", 1, 1, "x", before, after, "", start, start + len(before), "1")


def test_an_object_reads_its_source(workshop: Workshop) -> None:
    unit, data = workshop.survey("x", "x.bpf.c")
    assert (unit.reads, data[:4]) == (frozenset({"x.bpf.c"}), b"\x7fELF")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("int program", "/* another line */\n\nint program"),
        ("__u32 key = 0", "__u32 key = 1 - 1"),
        ("__u32 key", "__u32 unused, key"),
    ],
)
def test_same_code_is_no_mutant(before: str, after: str, workshop: Workshop) -> None:
    unit, _ = workshop.survey("x", "x.bpf.c")
    assert workshop.build(fault(before, after), [unit]) == Built({}, "")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("? 1", "? 0"),
        ("&two, &key) ? 1", "&one, &key) ? 1"),
        ("level = 2", "level = 3"),
        ("64", "65"),
        ("BPF_MAP_TYPE_HASH", "BPF_MAP_TYPE_LRU_HASH"),
        ("(value, __u32)", "(value, __u64)"),
        ("cgroup_skb/ingress", "cgroup_skb/egress"),
    ],
)
def test_other_code_data_or_maps_are_a_mutant(before: str, after: str, workshop: Workshop) -> None:
    unit, _ = workshop.survey("x", "x.bpf.c")
    built = workshop.build(fault(before, after), [unit])
    assert (list(built.objects), built.error) == (["x"], "")


def test_mutants_of_the_same_code_have_the_same_signature(workshop: Workshop) -> None:
    unit, _ = workshop.survey("x", "x.bpf.c")
    one, two, other = (
        workshop.build(fault("? 1", after), [unit]) for after in ("? 0", "? 1 - 1", "? 3")
    )
    assert one.signature == two.signature != other.signature


@pytest.mark.parametrize(
    ("before", "after", "error"),
    [
        ("&one", "&three", "undeclared identifier 'three'"),
        ("bpf_map_lookup_elem", "bpf_map_lookup_six", "implicit declaration"),
    ],
)
def test_what_clang_refuses_is_said(
    before: str, after: str, error: str, workshop: Workshop
) -> None:
    unit, _ = workshop.survey("x", "x.bpf.c")
    assert error in workshop.build(fault(before, after), [unit]).error


def test_a_mutant_leaves_the_tree_as_it_was(workshop: Workshop) -> None:
    unit, _ = workshop.survey("x", "x.bpf.c")
    workshop.build(fault("&one", "&three"), [unit])
    assert workshop.survey("x", "x.bpf.c")[0] == unit


def test_what_was_compiled_is_kept_until_a_source_changes(tmp_path: Path) -> None:
    programs, kept = tmp_path / "programs", tmp_path / "kept"
    (programs / "include").mkdir(parents=True)
    (programs / "include" / "y.h").write_text("#define MORE 1\n")
    text = b'#include "y.h"\n' + PROGRAM
    (programs / "x.bpf.c").write_bytes(text)

    def build(before: str, after: str) -> Built:
        shop = Workshop(programs, tmp_path / "shop", Kept(kept))
        unit, _ = shop.survey("x", "x.bpf.c")
        return shop.build(fault(before, after, text), [unit])

    first = build("? 1", "? 0")
    (file,) = kept.iterdir()
    written = file.stat().st_mtime_ns
    assert (build("? 1", "? 0"), file.stat().st_mtime_ns) == (first, written)
    assert len(list(kept.iterdir())) == 1
    assert "implicit" in build("bpf_map_lookup_elem", "bpf_map_lookup_six").error
    assert "implicit" in build("bpf_map_lookup_elem", "bpf_map_lookup_six").error
    assert len(list(kept.iterdir())) == 2
    (programs / "include" / "y.h").write_text("#define MORE 2\n")
    build("? 1", "? 0")
    assert len(list(kept.iterdir())) == 3


def test_what_nobody_asked_for_is_not_kept_for_ever(tmp_path: Path) -> None:
    old = Kept(tmp_path)
    old.put("a", "", b"object")
    old.put("b", "error", b"")
    new = Kept(tmp_path)
    assert new.get("b") == ("error", b"")
    assert new.get("c") is None
    new.prune()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_file_that_the_object_does_not_read_is_not_compiled(workshop: Workshop) -> None:
    unit = Unit("y", "no such file", frozenset({"y.bpf.c"}), "", "")
    assert workshop.build(fault("? 1", "? 0"), [unit]) == Built({}, "")


def test_source_is_found_by_the_objects_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "mocks").mkdir()
    for place in ("full.bpf.c", "mocks/full.bpf.c", "mocks/only.bpf.c"):
        (tmp_path / place).touch()
    assert source_of("x", Path("build/full.bpf.o"), tmp_path) == "full.bpf.c"
    assert source_of("x", Path("build/mocks/full.bpf.o"), tmp_path) == "mocks/full.bpf.c"
    assert source_of("x", Path("out/mocks/only.bpf.o"), tmp_path) == "mocks/only.bpf.c"
    with pytest.raises(UsageError, match=r"no only\.bpf\.c in"):
        source_of("x", Path("build/only.bpf.o"), tmp_path)


def test_only_what_differs_and_is_not_known_is_run() -> None:
    made = [mutant(name) for name in "abcde"]
    built = [
        Built({}, "", "no"),
        Built({}, ""),
        Built({"x": b"1"}, "1"),
        Built({"x": b"1"}, "1"),
        Built({"x": b"2"}, "2"),
    ]
    judged, cases = sort_out(made, built, {"2": DIES})
    assert judged == {
        "a": Judged(Verdict.NOT_COMPILED, message="no"),
        "b": Judged(Verdict.SAME_CODE),
        "d": Judged(Verdict.DUPLICATE, same_as="c"),
        "e": DIES,
    }
    assert cases == [Case(made[2], built[2])]


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        ([], "abc"),
        (["x.h"], "ac"),
        (["gate"], "ab"),
        (["x.h", "gate"], "a"),
        (["c"], "c"),
        (["c", "gate"], ""),
    ],
)
def test_each_kind_of_only_narrows_down(only: list[str], expected: str) -> None:
    made = [
        mutant("a", file="include/x.h"),
        mutant("b", file="include/y.h"),
        replace(mutant("c", file="include/x.h"), operator="map"),
    ]
    assert "".join(each.id for each in select(made, only)) == expected


def test_only_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--only z\.h"):
        select([mutant("a")], ["z.h"])
