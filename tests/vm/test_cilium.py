"""Objects loaded with cilium/ebpf in a kernel, beside libbpf."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import go_proxy
import pytest
from any_guest import WARM, in_guest
from command import vmtest
from real_kernels import KERNEL
from test_libbpf import HEAD

from vmtest.objects.compile import clang_argv

SOURCE = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32);
         __type(value, __u32); } seen SEC(".maps");
SEC("xdp") int takes(struct xdp_md *ctx)
{
    __u32 key = 1;
    return bpf_map_lookup_elem(&seen, &key) ? XDP_PASS : XDP_DROP;
}
SEC("xdp") int reads_too_far(struct xdp_md *ctx) { return *(char *)(long)ctx->data; }
SEC("netkit/primary") int on_netkit(void *ctx) { return ctx ? 0 : 1; }
"""
HELPED = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u64); }
    slots SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
         __type(value, __u32); } by_service SEC(".maps");
SEC("own") int wants_much(struct __sk_buff *skb)
{
    __u32 key = 0;
    return bpf_map_lookup_elem(&slots, &key) && bpf_map_lookup_elem(&by_service, &key);
}
"""
PINNED = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32);
         __type(value, __u64); __uint(pinning, LIBBPF_PIN_BY_NAME); } kept SEC(".maps");
SEC("xdp") int keeps(struct xdp_md *ctx)
{
    __u32 key = 0;
    return bpf_map_lookup_elem(&kept, &key) ? XDP_PASS : XDP_DROP;
}
"""
WISHES = """
[[object]]
name = "helped"
path = "helped.o"
types = { wants_much = "sched_cls" }
max_entries = { slots = "cpus" }

[object.inner_maps]
by_service = { type = "hash", key_size = 4, value_size = 8 }
"""


@pytest.fixture
def made(project: Callable[..., Path]) -> Path:
    folder = project("", WISHES)
    for name, text in (("x", SOURCE), ("helped", HELPED), ("pinned", PINNED)):
        source = folder / f"{name}.bpf.c"
        source.write_text(HEAD + text)
        subprocess.run(clang_argv(source, folder / f"{name}.o", folder), check=True)
    return folder


def log_of(folder: Path, kernel: Any, load: Any) -> str:
    log: Path = folder / ".vmtest/latest" / kernel["directory"] / load["log"]
    return log.read_text()


def test_both_libraries_stand_side_by_side_in_one_report(made: Path) -> None:
    loaders = ("--loader", "libbpf", "--loader", "cilium")
    said = in_guest("verify", "x.o", "--kernel", KERNEL, *loaders, "--json", "m.json", cwd=made)
    assert said.status == 1, said
    (kernel,) = json.loads((made / "m.json").read_text())["kernels"]
    by_cilium = {one["program"]: one for one in kernel["loads"] if one["loader"]}
    by_libbpf = {one["program"]: one for one in kernel["loads"] if not one["loader"]}
    assert by_cilium.keys() == by_libbpf.keys() == {"", "takes", "reads_too_far", "on_netkit"}
    for found in (by_cilium, by_libbpf):
        assert found["takes"]["verdict"] == "accepted"
        assert found["reads_too_far"]["verdict"] == "rejected"
        assert found["reads_too_far"]["errno"] == "EACCES"
        assert found["reads_too_far"]["reason"]["code"] == "packet-bounds"
    cost = [found["takes"]["cost"] for found in (by_cilium, by_libbpf)]
    for figure in ("instructions", "translated_size", "jited_size"):
        assert cost[0][figure] == cost[1][figure] > 0
    assert by_libbpf["on_netkit"]["verdict"] == "accepted"
    netkit, release = by_cilium["on_netkit"], by_cilium["takes"]["loader"].split()[1]
    if release in ("0.9.1", "0.11.0"):  # of Debian 12 and 13: older than netkit
        assert netkit["verdict"] == "refused as a whole"
        assert netkit["reason"]["code"] == "type-not-told"
        assert "--type x.o:on_netkit=" in netkit["reason"]["remedy"]
        assert "another release of cilium/ebpf" in netkit["reason"]["remedy"]
    else:
        assert netkit["verdict"] == "accepted"
    log = log_of(made, kernel, by_cilium["reads_too_far"])
    assert log.startswith("cilium/ebpf: ") and "invalid access to packet" in log
    # Not the line that says the loader is built, for a cache that has none.
    head = next(line for line in said.out.splitlines() if line.split()[:1] == ["loader"])
    assert head.split() == ["loader", KERNEL]


def test_cilium_alone_loads_what_the_configuration_helps(made: Path) -> None:
    said = in_guest("verify", "helped", "--loader", "cilium", "--json", "m.json", cwd=made)
    assert said.status == 0, said
    (kernel,) = json.loads((made / "m.json").read_text())["kernels"]
    assert {one["program"]: one["verdict"] for one in kernel["loads"]} == {
        "": "accepted",
        "wants_much": "accepted",
    }
    assert all(one["loader"].startswith("cilium/ebpf 0.") for one in kernel["loads"])
    assert {one["libbpf"] for one in kernel["loads"]} == {""}
    assert kernel["libbpf"] == ""


def test_what_cilium_itself_says_is_explained_as_a_whole_and_alone(made: Path) -> None:
    words = ("--kernel", KERNEL, "--loader", "cilium", "--json", "m.json")
    said = in_guest("verify", "pinned.o", *words, cwd=made)
    assert said.status == 1, said
    (kernel,) = json.loads((made / "m.json").read_text())["kernels"]
    assert {one["program"]: one["verdict"] for one in kernel["loads"]} == {
        "": "refused as a whole",
        "keeps": "refused as a whole",
    }
    for one in kernel["loads"]:
        assert one["reason"]["code"] == "pin"
        assert "MapOptions.PinPath" in one["reason"]["evidence"]


def test_the_release_of_go_mod_comes_by_a_module_proxy_to_a_verdict(
    made: Path, tmp_path: Path
) -> None:
    release = go_proxy.packaged_release()
    environment = go_proxy.made(tmp_path / "go", f"v{release}")
    (made / "go.mod").write_text(f"module x\n\nrequire github.com/cilium/ebpf v{release}\n")
    words = ("--kernel", KERNEL, "--program", "takes", "--loader", "cilium", "--json", "m.json")
    said = vmtest("verify", WARM, "x.o", *words, cwd=made, environment=environment)
    assert said.status == 0, said
    (kernel,) = json.loads((made / "m.json").read_text())["kernels"]
    (load,) = kernel["loads"]
    assert (load["loader"], load["verdict"]) == (f"cilium/ebpf {release}", "accepted")


def test_a_log_of_another_level_is_had(made: Path) -> None:
    words = ("--loader", "cilium", "--program", "takes", "--log-level", "2", "--json", "m.json")
    said = in_guest("verify", "x.o", "--kernel", KERNEL, *words, cwd=made)
    assert said.status == 0, said
    (kernel,) = json.loads((made / "m.json").read_text())["kernels"]
    (load,) = kernel["loads"]
    assert "bpf_map_lookup_elem#1" in log_of(made, kernel, load)
