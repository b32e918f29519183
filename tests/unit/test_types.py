"""``--type``: what it means, and what is refused before anything boots."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from vmtest.errors import UsageError
from vmtest.model.loads import Verdict
from vmtest.model.project import Loading
from vmtest.objects.compile import clang_argv
from vmtest.verify import objects as loadables
from vmtest.verify import types
from vmtest.verify.events import Load, WireReason
from vmtest.verify.objects import Given
from vmtest.verify.untold import with_type

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("first") int auth(struct xdp_md *ctx) { return ctx ? XDP_PASS : XDP_DROP; }
SEC("second") int tail_a(struct bpf_sock_addr *ctx) { return ctx != 0; }
SEC("cgroup/connect4") int tail_b(struct bpf_sock_addr *ctx) { return ctx != 0; }
SEC("third") int filter(const struct __sk_buff *ctx) { return ctx == 0; }
SEC("fourth") int anything(void *ctx) { return ctx == 0; }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects of one file name, one of another, and what the host cannot read."""
    made = tmp_path_factory.mktemp("objects")
    (made / "mesh.c").write_text(SOURCE)
    for place in ("mesh.bpf.o", "a/x.o", "b/x.o"):
        (made / place).parent.mkdir(exist_ok=True)
        subprocess.run(clang_argv(made / "mesh.c", made / place, made), check=True)
    (made / "damaged.o").write_bytes((made / "mesh.bpf.o").read_bytes()[:700])
    return made


def told(folder: Path, objects: list[str], *texts: str) -> dict[str, dict[str, str]]:
    """The types by program, by row."""
    given = loadables.expand(objects, (), folder)
    found = types.told_to(given, types.parse(texts), folder)
    return {one.build.name: dict(one.build.loading.types) for one in found}


def refused(folder: Path, objects: list[str], *texts: str) -> str:
    with pytest.raises(UsageError) as error:
        told(folder, objects, *texts)
    return str(error.value)


def test_a_program_without_an_object_is_meant_in_every_object(folder: Path) -> None:
    found = told(folder, ["a", "b"], "auth=xdp")
    assert found == {"a/x.o": {"auth": "xdp"}, "b/x.o": {"auth": "xdp"}}


@pytest.mark.parametrize("object_", ["b/x.o", "./b/x.o", "b/*", "[b]/x.o"])
def test_a_program_of_one_object_is_meant_there_only(folder: Path, object_: str) -> None:
    found = told(folder, ["a", "b"], f"{object_}:auth=xdp")
    assert found == {"a/x.o": {}, "b/x.o": {"auth": "xdp"}}


@pytest.mark.parametrize("object_", ["mesh.bpf.o", "mesh.bpf", "mesh"])
def test_an_object_may_be_named_by_its_file_alone(folder: Path, object_: str) -> None:
    found = told(folder.parent, [str(folder.name)], f"{object_}:auth=xdp")
    assert found[f"{folder.name}/mesh.bpf.o"] == {"auth": "xdp"}


def test_an_attach_type_is_part_of_the_type(folder: Path) -> None:
    connect = "cgroup_sock_addr:cgroup_inet4_connect"
    assert told(folder, ["mesh.bpf.o"], f"mesh.bpf.o:tail_*={connect}") == {
        "mesh.bpf.o": {"tail_a": connect, "tail_b": connect}
    }


def test_what_says_more_of_its_place_wins(folder: Path) -> None:
    found = told(folder, ["a", "b"], "*=xdp", "a/x.o:*=sched_cls", "a/x.o:auth=sched_act")
    assert {found["a/x.o"]["auth"], found["a/x.o"]["filter"], found["b/x.o"]["auth"]} == {
        "sched_act",
        "sched_cls",
        "xdp",
    }


def test_the_command_line_wins_over_kernels_toml(folder: Path) -> None:
    (given,) = loadables.expand(["mesh.bpf.o"], (), folder)
    loading = Loading(types={"auth": "sched_cls", "a*": "sched_act"})
    configured = Given(replace(given.build, loading=loading), given.tail)
    (found,) = types.told_to((configured,), types.parse(["a*=xdp"]), folder)
    assert found.build.loading.types["auth"] == "xdp"


@pytest.mark.parametrize("text", ["x", "=xdp", "x=", "", ":x=xdp", "x.o:=xdp"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"write \[OBJECT:\]PROGRAM=TYPE"):
        types.parse([text])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("auth=xpd", 'no program type "xpd" (did you mean "xdp"?)'),
        ("auth=tc", 'no program type "tc" (did you mean "sched_cls"?)'),
        ("auth=q", "(there are: cgroup_device, "),
        ("tail_a=cgroup_sock_addr:connect4", 'no attach type "connect4"'),
        ("tail_a=cgroup_sock_addr:", 'no attach type ""'),
        ("tail_a=cgroup_sock_addr", "needs an attach type; write tail_a=cgroup_sock_addr:ATTACH"),
        ("auht=xdp", 'no program "auht" (did you mean "auth"?)'),
        ("q*=xdp", "(there are: anything, auth, filter, tail_a, tail_b)"),
        ("mehs.bpf.o:auth=xdp", 'no object "mehs.bpf.o" (did you mean "mesh.bpf.o"?)'),
        ("x.o:auth=xdp", "x.o may be any of a/x.o, b/x.o; write one of these"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(folder: Path, text: str, said: str) -> None:
    assert said in refused(folder, ["a", "b", "mesh.bpf.o"], text)


def test_two_types_of_one_program_are_refused(folder: Path) -> None:
    said = refused(folder, ["mesh.bpf.o"], "auth=xdp", "auth=sched_cls")
    assert "`types` auth=xdp and `types` auth=sched_cls: give auth of mesh.bpf.o different" in said


def test_the_same_type_twice_is_no_contradiction(folder: Path) -> None:
    assert told(folder, ["mesh.bpf.o"], "auth=xdp", "auth=xdp")["mesh.bpf.o"] == {"auth": "xdp"}


def test_an_attach_type_that_the_section_tells_need_not_be_told(folder: Path) -> None:
    found = told(folder, ["mesh.bpf.o"], "tail_b=cgroup_sock_addr")
    assert found["mesh.bpf.o"] == {"tail_b": "cgroup_sock_addr"}


def test_of_an_object_that_the_host_cannot_read_the_guest_decides(folder: Path) -> None:
    found = told(folder, ["damaged.o", "mesh.bpf.o"], "damaged.o:a*=xdp")
    assert found["damaged.o"] == {"a*": "xdp"}


def untold(folder: Path, program: str) -> str:
    event = Load(
        event="load",
        key="0" * 16,
        object="0",
        program="",
        verdict=Verdict.REFUSED,
        translated_size=0,
        jited_size=0,
        log="",
        log_cut=False,
        reason=WireReason(code="type-not-told", text="it tells no type", name=program),
    )
    told = with_type(event, "a b/mesh.bpf.o", folder / "mesh.bpf.o")
    assert told.reason is not None
    return told.reason.remedy


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        ("auth", "xdp"),
        ("tail_a", "cgroup_sock_addr:cgroup_inet4_connect"),
        ("filter", "sched_cls"),
        ("anything", "xdp"),
    ],
)
def test_the_remedy_can_be_pasted(folder: Path, program: str, kind: str) -> None:
    remedy = untold(folder, program)
    assert remedy.startswith(f"--type 'a b/mesh.bpf.o:{program}={kind}'")
    assert types.parse([f"a b/mesh.bpf.o:{program}={kind}"])


def test_the_remedy_says_what_the_type_was_guessed_by(folder: Path) -> None:
    assert "(it takes a struct xdp_md)" in untold(folder, "auth")
    assert "TYPE[:ATTACH]" in untold(folder, "anything")
