"""What an older libbpf does not know, and that a newer one in the same guest does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from any_guest import in_guest
from real_kernels import KERNEL
from verifying import Event, Loading, loads

from vmtest.host.debian import mirrors_of
from vmtest.host.files import tar
from vmtest.matrix.payload import Installed, install, library_path
from vmtest.model.kernels import AptArchive, KernelImage, Library, RootImage
from vmtest.model.project import Config
from vmtest.objects.compile import clang_argv
from vmtest.rootfs.libbpf import Shelf
from vmtest.vm.machine import Machine, MachineSpec

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
"""
SECTIONS = """
#define PROGRAM(section, name, result) \\
    SEC(section) int name(void *ctx) { return ctx ? result : 0; }
PROGRAM("tcx/ingress", on_tcx, 0)
PROGRAM("netkit/primary", on_netkit, 0)
PROGRAM("netfilter", on_netfilter, 1)
PROGRAM("uprobe.multi//bin/true:main", on_uprobes, 0)
PROGRAM("cgroup/connect_unix", on_unix, 1)
PROGRAM("usdt.s", on_usdt, 0)
PROGRAM("kprobe.session/vfs_unlink", on_session, 0)
PROGRAM("xdp", on_xdp, 2)
"""
ARENA = """
struct { __uint(type, 33); __uint(map_flags, 1 << 10); __uint(max_entries, 4); } pages SEC(".maps");
extern void *bpf_arena_alloc_pages(void *map, void *addr, __u32 pages, int node, __u64 flags)
    __ksym;
SEC("syscall") int takes(void *ctx) { return ctx ? 0 : 1; }
SEC("syscall") int makes(void *ctx)
{
    return ctx && bpf_arena_alloc_pages(&pages, (void *)0, 1, -1, 0) ? 0 : 1;
}
"""
STRUCT_OPS = """
struct tcp_congestion_ops {
    __u32 (*ssthresh)(void *); void (*cong_avoid)(void *, __u32, __u32);
    __u32 (*undo_cwnd)(void *); void (*only_of_a_later_kernel)(void *); char name[16];
} __attribute__((preserve_access_index));
SEC("struct_ops/ssthresh") int ssthresh(void *ctx) { return ctx ? 2 : 1; }
SEC("struct_ops/cong_avoid") int cong_avoid(void *ctx) { return ctx ? 0 : 1; }
SEC("struct_ops/undo_cwnd") int undo_cwnd(void *ctx) { return ctx ? 2 : 1; }
SEC("SECTION") struct tcp_congestion_ops own = {
    .ssthresh = (void *)ssthresh, .cong_avoid = (void *)cong_avoid,
    .undo_cwnd = (void *)undo_cwnd, .name = "vmtest_own" };
"""
SOURCES = {
    "sections": SECTIONS,
    "arena": ARENA,
    "link": STRUCT_OPS.replace("SECTION", ".struct_ops.link").replace(
        "void (*only_of_a_later_kernel)(void *);", ""
    ),
    "zero": STRUCT_OPS.replace("SECTION", ".struct_ops"),
}


@pytest.fixture(scope="module")
def libraries(settings: Config, cache: Path) -> tuple[Library, ...]:
    archive = settings.archives["debian"]
    assert isinstance(archive, AptArchive)
    shelf = Shelf(cache, lambda: mirrors_of(archive), archive, ("trixie",))
    return tuple(shelf.take(version, print)[0] for version in ("1.1", "1.5"))


@pytest.fixture(scope="module")
def guest(
    image: KernelImage,
    root: RootImage,
    probe: object,
    libraries: tuple[Library, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Loading, Installed]]:
    folder = tmp_path_factory.mktemp("vm")
    objects = {}
    for name, text in SOURCES.items():
        source, target = folder / f"{name}.bpf.c", folder / f"{name}.o"
        source.write_text(HEAD + text)
        subprocess.run(clang_argv(source, target, folder), check=True)
        objects[name] = target.read_bytes()
    assert image.config is not None
    spec = MachineSpec(image, root, probe, folder / "console.log")  # type: ignore[arg-type]
    with Machine(replace(spec, memory_mib=1024)) as machine:
        session = machine.connect(300.0)
        installed = install(session, tar({}), lambda: None, image.config, libraries)
        yield Loading(session, objects, image.config.read_bytes()), installed
        session.close()


@pytest.fixture(scope="module")
def told(guest: tuple[Loading, Installed]) -> Mapping[str, Mapping[tuple[str, str], Event]]:
    """The loads of each object, by the version of libbpf that made them."""
    loading, _ = guest
    return {
        version: loads(loading.run(loading.names, before=["env", f"LD_LIBRARY_PATH={folder}"]))
        for version in ("1.1", "1.5")
        for folder in [library_path(version)]
    }


def test_the_first_library_is_what_every_program_in_the_guest_loads(
    guest: tuple[Loading, Installed],
) -> None:
    loading, installed = guest
    assert installed.libbpf == "1.1"
    script = "import ctypes; print(ctypes.CDLL('libbpf.so.1').libbpf_minor_version())"
    done = loading.session.run(["python3", "-c", script])
    assert (done.status, done.stdout) == (0, b"1\n"), done.stderr.decode()


def test_what_the_older_libbpf_does_not_know_is_told_with_the_version_that_does(
    told: Mapping[str, Mapping[tuple[str, str], Event]],
) -> None:
    old = told["1.1"]
    since = {
        ("sections", "on_tcx"): "1.3",
        ("sections", "on_netkit"): "1.3",
        ("sections", "on_netfilter"): "1.3",
        ("sections", "on_uprobes"): "1.3",
        ("sections", "on_unix"): "1.3",
        ("sections", "on_usdt"): "1.3",
        ("sections", "on_session"): "1.5",
        ("sections", ""): "1.3",
        ("arena", ""): "1.4",
        ("arena", "makes"): "1.4",
        ("link", ""): "1.2",
        ("link", "ssthresh"): "1.2",
        ("zero", ""): "1.4",
        ("zero", "undo_cwnd"): "1.4",
    }
    for load, version in since.items():
        reason = old[load]["reason"]
        assert (load, reason["code"]) == (load, "libbpf-too-old")
        assert f"; libbpf {version} does" in reason["text"]
        assert old[load]["verdict"] == "refused as a whole"
    assert old["sections", "on_xdp"]["verdict"] == "accepted"


def test_the_remedy_is_accepted(told: Mapping[str, Mapping[tuple[str, str], Event]]) -> None:
    refused = {load: e["reason"] for load, e in told["1.5"].items() if e["verdict"] != "accepted"}
    assert refused == {}


def test_two_versions_stand_side_by_side_in_one_report(
    project: Callable[..., Path], libraries: tuple[Library, ...]
) -> None:
    folder = project("")
    source = folder / "x.bpf.c"
    source.write_text(HEAD + SECTIONS)
    subprocess.run(clang_argv(source, folder / "x.o", folder), check=True)
    both = [word for library in libraries for word in ("--libbpf", library.version)]
    said = in_guest("verify", "x.o", "--kernel", KERNEL, *both, "--json", "m.json", cwd=folder)
    assert said.status == 1, said
    (kernel,) = json.loads((folder / "m.json").read_text())["kernels"]
    assert (kernel["libbpf"], kernel["status"]) == ("1.1, 1.5", "FAILED")
    verdicts = {(load["libbpf"], load["program"]): load["verdict"] for load in kernel["loads"]}
    assert verdicts["1.1", "on_tcx"] == "refused as a whole"
    assert {verdict for (libbpf, _), verdict in verdicts.items() if libbpf == "1.5"} == {"accepted"}
    assert len(verdicts) == 2 * 9
    head = next(line for line in said.out.splitlines() if "loader" in line)
    assert head.split() == ["loader", KERNEL]
