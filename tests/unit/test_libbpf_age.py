"""What a newer libbpf knows is not told as a fault of the object or the kernel."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from test_reasons import MODERN, Answers

from vmtest.guest.loader.libbpfage import section_since
from vmtest.guest.loader.reasons import Failure, MapShape, explain
from vmtest.guest.loader.structops import zeroed_members
from vmtest.guest.objects import BpfObject
from vmtest.objects.compile import clang_argv
from vmtest.objects.sections import SECTIONS

OLD = Failure("EINVAL", libbpf=(1, 1))

STRUCT_OPS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct tcp_congestion_ops {
    __u32 (*ssthresh)(void *); __u32 (*undo_cwnd)(void *); void (*unset)(void *);
    __u32 zero, flags; char name[16];
};
SEC("struct_ops/ssthresh") __u32 own_ssthresh(void *ctx) { return ctx ? 2 : 1; }
SEC("struct_ops/undo_cwnd") __u32 own_undo(void *ctx) { return ctx ? 2 : 1; }
SEC(".struct_ops") struct tcp_congestion_ops before = { .ssthresh = (void *)own_ssthresh };
SEC(".struct_ops") struct tcp_congestion_ops own = {
    .undo_cwnd = (void *)own_undo, .flags = 1, .name = "own" };
char _license[] SEC("license") = "GPL";
"""


def untyped(section: str, libbpf: tuple[int, ...]) -> Failure:
    said = f"libbpf: prog 'p': missing BPF prog type, check ELF section name '{section}'\n"
    return Failure("EINVAL", said, libbpf=libbpf)


@pytest.mark.parametrize(
    ("section", "since"),
    [
        ("tcx/ingress", "1.3"),
        ("?netkit/peer", "1.3"),
        ("netfilter", "1.3"),
        ("uprobe.multi//bin/true:main", "1.3"),
        ("cgroup/connect_unix", "1.3"),
        ("usdt.s", "1.3"),
        ("struct_ops.s/init", "1.2"),
        ("sk_skb/verdict", "1.4"),
        ("kprobe.session/vfs_unlink", "1.5"),
        ("uprobe.session.s//bin/true:main", "1.6"),
        ("fsession/vfs_read", "1.7"),
    ],
)
def test_a_section_that_a_newer_libbpf_knows_is_told_with_its_version(
    section: str, since: str
) -> None:
    found = explain(untyped(section, (1, 1)), MODERN)
    assert found.code == "libbpf-too-old"
    assert f"libbpf 1.1, which loads it in the guest, does not know the section {section}" in (
        found.text
    )
    assert f"libbpf {since} does" in found.text
    assert "[guest] libbpf" in found.remedy and since in found.remedy
    assert found.name == section
    assert "missing BPF prog type" in found.evidence


@pytest.mark.parametrize(
    ("section", "libbpf"),
    [
        ("tcx/ingress", (1, 3)),
        ("tcx/ingress", ()),
        ("elsewhere", (1, 1)),
        ("tcx/ingress/more", (1, 1)),
        ("kprobe.sessions/x", (1, 1)),
    ],
)
def test_a_section_that_no_newer_libbpf_knows_has_no_type(
    section: str, libbpf: tuple[int, ...]
) -> None:
    assert explain(untyped(section, libbpf), MODERN).code == "type-not-told"


def test_every_section_that_the_oldest_libbpf_lacks_has_the_version_that_knows_it() -> None:
    # As libbpf 1.1 has them: a program in one of the others has no type there.
    lacking = {name for name, _, _ in SECTIONS if section_since(name.removesuffix("+"))}
    assert {"tcx/ingress", "netfilter", "kprobe.session+", "usdt.s+", "struct_ops.s+"} <= lacking
    assert {"sk_skb/verdict", "uprobe.session+", "fsession.s+"} <= lacking
    assert not {"xdp", "kprobe.multi+", "lsm.s+", "ksyscall+", "tc", "uprobe.s+"} & lacking


def test_an_arena_is_not_blamed_on_the_program() -> None:
    log = "arena's user address must be set via map_extra or mmap()\n"
    found = explain(replace(OLD, log=log), MODERN)
    assert (found.code, "libbpf 1.4 does" in found.text) == ("libbpf-too-old", True)
    assert explain(replace(OLD, log=log, libbpf=(1, 4)), MODERN).code == "arena"


def test_a_map_type_is_missing_where_the_kernels_btf_has_none_that_libbpf_does_not_know() -> None:
    class NotAsked(Answers):
        def has_map_type(self, name: str) -> bool | None:
            return None

    said = "libbpf: map 'ar': failed to create: Invalid argument(-22)\n"
    failure = replace(OLD, messages=said, maps=(MapShape("ar", "arena", 0, 0, 4, 1 << 10),))
    found = explain(failure, NotAsked())
    assert (found.code, found.evidence) == (
        "map-type",
        "probe: the kernel's BTF has no BPF_MAP_TYPE_ARENA",
    )
    known = NotAsked(named=frozenset({"BPF_MAP_TYPE_ARENA", "BPF_F_MMAPABLE"}))
    assert explain(failure, known).code != "map-type"


@pytest.mark.parametrize(
    ("errno", "log"), [("EINVAL", "attach_btf_id 0 is not a supported struct\n"), ("ENOTSUPP", "")]
)
def test_a_struct_ops_program_whose_map_libbpf_left_out_is_not_said_to_be_unused(
    errno: str, log: str
) -> None:
    failure = Failure(errno, log=log, program_type="struct_ops", libbpf=(1, 1))
    assert explain(failure, MODERN).code == "struct-ops-unused"
    found = explain(replace(failure, skipped=(".notes", ".struct_ops.link")), MODERN)
    assert found.code == "libbpf-too-old" and "libbpf 1.2 does" in found.text
    assert "skipping unrecognized data section .struct_ops.link" in found.evidence


@pytest.mark.parametrize(
    ("said", "known", "what"),
    [
        (
            "prog 'p': bad relo against 'counter' in section '.addr_space.1'",
            MODERN,
            "the section .addr_space.1",
        ),
        (
            "extern (func ksym) 'bpf_task_release___v2': not found in kernel or module BTFs",
            Answers(functions=frozenset({"bpf_task_release"})),
            "the kfunc bpf_task_release",
        ),
        (
            "struct_ops init_kern: struct sched_ext_ops___v2 is not found in kernel BTF",
            Answers(structures={"sched_ext_ops": ("init",)}),
            "the struct_ops sched_ext_ops",
        ),
    ],
)
def test_what_an_older_libbpf_takes_for_a_mistake_is_told_as_its_age(
    said: str, known: Answers, what: str
) -> None:
    failure = replace(OLD, messages=f"libbpf: {said}\n")
    found = explain(failure, known)
    assert found.code == "libbpf-too-old" and what in found.text
    assert explain(replace(failure, libbpf=(1, 7)), known).code != "libbpf-too-old"


def test_a_member_that_the_kernel_lacks_is_the_libbpfs_fault_only_where_it_is_zero() -> None:
    said = "libbpf: struct_ops init_kern own: Cannot find member unset in kernel BTF\n"
    failure = replace(OLD, messages=said, errno="ENOTSUP")
    assert explain(failure, MODERN).code == "attach-target"
    found = explain(replace(failure, zeroed=frozenset({"own.unset"})), MODERN)
    assert found.code == "libbpf-too-old" and "libbpf 1.4 does" in found.text


@pytest.fixture(scope="module")
def struct_ops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("struct_ops") / "own.bpf.c"
    source.write_text(STRUCT_OPS)
    target = source.with_suffix(".o")
    subprocess.run(clang_argv(source, target, source.parent), check=True)
    return target


@pytest.mark.parametrize(
    ("member", "zero"),
    [
        ("own.unset", True),
        ("own.ssthresh", True),
        ("before.ssthresh", False),
        ("own.undo_cwnd", False),
        ("before.undo_cwnd", True),
        ("own.zero", True),
        ("own.flags", False),
        ("own.name", False),
        ("own.never", False),
        ("never.unset", False),
    ],
)
def test_a_member_is_zero_without_a_value_and_without_a_function(
    struct_ops: Path, member: str, zero: bool
) -> None:
    name, _, field = member.partition(".")
    said = f"libbpf: struct_ops init_kern {name}: Cannot find member {field} in kernel BTF\n"
    assert (member in zeroed_members(struct_ops, said)) == zero


def test_nothing_is_read_where_libbpf_missed_no_member(tmp_path: Path) -> None:
    assert zeroed_members(tmp_path / "absent.o", "libbpf: something else\n") == frozenset()


def test_an_object_names_the_sections_that_libbpf_left_out(tmp_path: Path) -> None:
    source = tmp_path / "own.bpf.c"
    source.write_text(STRUCT_OPS.replace('SEC(".struct_ops")', 'SEC(".struct_ops.other")'))
    target = source.with_suffix(".o")
    subprocess.run(clang_argv(source, target, tmp_path), check=True)
    with BpfObject(target) as first, BpfObject(target, first) as again:
        assert first.skipped_sections == again.skipped_sections == (".struct_ops.other",)
