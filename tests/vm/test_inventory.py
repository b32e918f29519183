"""What tests leave behind, in a real kernel: a map is freed some time after its last program."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Said, vmtest
from real_kernels import KERNEL

from vmtest.model.kernels import KernelImage, RootImage
from vmtest.objects.compile import build_all

CONFIG = """
schema = 1
[guest]
root = "{root}"
[[kernel]]
name = "{name}"
path = "{image}"
modules = "{modules}"
config = "{config}"
[[suite]]
name = "own"
tests = "checks/test_own.py"
objects = ["calls_itself"]
[[object]]
name = "calls_itself"
path = "calls_itself.bpf.o"
"""

PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u32);
} itself SEC(".maps");
SEC("socket")
int program(struct __sk_buff *skb)
{
    bpf_tail_call(skb, &itself, 0);
    return 0;
}
char LICENSE[] SEC("license") = "GPL";
"""

SUITE = """
from vmtest.guest.inventory import inventory, left_since
from vmtest.guest.objects import BpfObject
from vmtest.guest.payload import object_path

def run(left):
    with BpfObject(object_path("calls_itself")) as loaded:
        loaded.load()
        program = loaded.programs["program"].fd.to_bytes(4, "little")
        loaded.maps["itself"].update(bytes(4), program)
        return left()

def test_an_array_that_holds_its_own_program_is_gone_soon_after():
    for _ in range(40):
        before = inventory()
        run(list)
        assert left_since(before) == []

def test_what_is_held_is_named():
    before = inventory()
    left = run(lambda: left_since(before, seconds=0.1))
    assert [one.split()[::2] for one in left] == [["map", "itself"], ["program", "program"]], left
"""


@pytest.fixture
def said(tmp_path: Path, image: KernelImage, root: RootImage) -> Said:
    """What a run of the suite above said."""
    (tmp_path / "calls_itself.bpf.c").write_text(PROGRAM)
    build_all(tmp_path, tmp_path)
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "test_own.py").write_text(SUITE)
    (tmp_path / "kernels.toml").write_text(
        CONFIG.format(
            root=root.path,
            name=KERNEL,
            image=image.image,
            modules=image.modules,
            config=image.config,
        )
    )
    return vmtest("run", cwd=tmp_path)


def test_looking_at_what_is_left_behind_keeps_nothing_alive_and_names_it(said: Said) -> None:
    assert said.status == 0, said
    assert "2 tests" in said.out, said
