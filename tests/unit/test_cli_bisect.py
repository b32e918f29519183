"""``vmtest bisect`` as far as it gets without a VM: bad input, against a tiny signed archive."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import signed_archive
from command import in_process, vmtest

from vmtest.bisect.journal import JOURNAL, Recorded
from vmtest.bisect.observe import Observation
from vmtest.bisect.question import Point, Question
from vmtest.bisect.rounds import Told
from vmtest.bisect.search import Verdict
from vmtest.cli.bisect.shared import Display
from vmtest.objects.compile import clang_argv

pytestmark = signed_archive.needed

CONFIG = """
schema = 1
[apt.debian]
suites = ["good"]
mirror = "file:{archive}"
keyring = "{archive}/keyring.gpg"
[[kernel]]
name = "old"
apt = "debian"
version = "6.1.*"
[[kernel]]
name = "mine"
path = "bzImage"
[[suite]]
name = "net"
tests = "test_net.py"
"""
PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int passes(struct xdp_md *ctx) { return ctx ? XDP_PASS : XDP_DROP; }
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("program")
    (folder / "it.c").write_text(PROGRAM)
    subprocess.run(clang_argv(folder / "it.c", folder / "it.o", folder), check=True)
    return (folder / "it.o").read_bytes()


@pytest.fixture
def project(made: Path, built: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VMTEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VMTEST_DEBIAN_MIRROR", raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "kernels.toml").write_text(CONFIG.format(archive=made))
    (folder / "test_net.py").write_text("def test_it(): pass\n")
    (folder / "it.o").write_bytes(built)
    return folder


ENDS = ("--good", "6.1.9", "--bad", "7.2.6")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--good", "6.1.9"), 2, "Missing option '--bad'"),
        (("--good", "newest", "--bad", "7.2.6"), 2, "--good newest: is not a version (6.12.117, "),
        (
            ("--good", "6.1.9", "--bad", "odl"),
            2,
            'nor a kernel of kernels.toml (did you mean "old"?)',
        ),
        (("--good", "6.1.9-2", "--bad", "7.2.6"), 3, "nearest bootable: 6.1.9-1 (good), 6.1.10"),
        (("--good", "5.5.5", "--bad", "7.2.6"), 3, "5.5.5: the suites hold no such kernel"),
        (("--good", "6.1.9", "--bad", "7.1.13"), 3, "no longer in the index; nearest bootable"),
        (("--good", "7.2.6", "--bad", "6.1"), 2, "swap them, or did you mean --find fixed?"),
        ((*ENDS, "--find", "fixed"), 2, "7.2.6 (7.2.6-1) is newer than 6.1.9 (6.1.9-1): with"),
        ((*ENDS, "--find", "fixed"), 2, "--bad is the older end; swap them, or did you mean --f"),
        (("--good", "6.1.9", "--bad", "6.1.9-1"), 2, "both are 6.1.9; choose another end"),
        (("--good", "old", "--bad", "6.1.10"), 2, "both are 6.1.10; choose another end"),
        (("--good", "mine", "--bad", "7.2.6"), 2, 'kernel "mine" is not a package'),
        ((*ENDS, "--cached"), 3, "6.1.9: the cache holds no such kernel"),
        ((*ENDS, "--suite", "ent"), 2, 'there is no suite "ent"'),
        ((*ENDS, "--verify", "none.o"), 2, "none.o: does not exist"),
        ((*ENDS, "--verify", "it.o:pass"), 2, 'has no program "pass" (did you mean "passes"?)'),
        ((*ENDS, "--verify", "it.o", "-k", "x"), 2, "leave --suite and -k out"),
        ((*ENDS, "--verify", "it.o", "--type", "pass=xdp"), 2, 'no program "pass" (did you mean'),
        ((*ENDS, "--verify", "it.o", "--type", "passes=xpd"), 2, 'no program type "xpd" (did you'),
        ((*ENDS, "--exec", "true", "--type", "passes=xdp"), 2, "--type: is for an object"),
        ((*ENDS, "--exec", "true", "--loader", "cilium"), 2, "--loader: is for an object"),
        ((*ENDS, "--verify", "it.o", "--loader", "aya"), 2, "--loader aya: write libbpf, cilium,"),
        ((*ENDS, "--exec", "true", "-k", "x"), 2, "leave --suite, -k and --verify out"),
        ((*ENDS, "--exec", "true", "--verify", "it.o"), 2, "leave --suite, -k and --verify out"),
        ((*ENDS, "--copy", "it.o"), 2, "name it with --exec CMD"),
        ((*ENDS, "--results", "tap"), 2, "name it with --exec CMD"),
        ((*ENDS, "--exec", "it 'x"), 2, "No closing quotation; quote it as for a shell"),
        ((*ENDS, "--exec", " "), 2, "the command is empty"),
        ((*ENDS, "--exec", "./it.o"), 2, "write --copy ./it.o"),
        ((*ENDS, "--exec", "true", "--results", "xml"), 2, "--results"),
        ((*ENDS, "--exec", "true", "--copy", "none"), 2, "none: No such file"),
        ((*ENDS, "--archive", "debain"), 2, 'did you mean "debian"?'),
        ((*ENDS, "--repeat", "0"), 2, "Invalid value for '--repeat'"),
        ((*ENDS, "--accel", "hvf"), 2, "write auto, kvm or tcg"),
        ((*ENDS, "--resume"), 2, "there is no interrupted bisect of this question"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_run_begins(
    project: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    vmtest("bisect", *arguments, cwd=project).refuses(status, said)
    assert not (project / ".vmtest").exists()


def test_without_an_archive_there_is_nothing_to_go_through(project: Path) -> None:
    text = '[[kernel]]\nname = "a"\npath = "x"\n[[suite]]\nname = "n"\ntests = "test_net.py"\n'
    (project / "kernels.toml").write_text(f"schema = 1\n{text}")
    in_process("bisect", *ENDS, cwd=project).refuses(2, "there is no [apt.NAME]")


def test_with_several_archives_one_has_to_be_chosen(project: Path) -> None:
    with (project / "kernels.toml").open("a") as file:
        file.write('[apt.other]\nsuites = ["x"]\n')
    in_process("bisect", *ENDS, cwd=project).refuses(2, "choose one with --archive NAME")


def interrupted(project: Path, more: dict[str, Any]) -> None:
    """Leave the journal of a bisect between ENDS that was interrupted at once."""
    asked = {"good": "6.1.9", "bad": "7.2.6", "archive": "debian", "find": "broken", "repeat": 1}
    asked |= {"cached": False, "objects": [], **more}
    folder = project / ".vmtest" / "runs" / "20260101T000000Z-abcdef"
    folder.mkdir(parents=True)
    question = {"event": "question", "asked": asked, "points": [], "gone": [], "left_out": []}
    line = json.dumps({**question, "find_fixed": False, "repeat": 1})
    (folder / JOURNAL).write_text(line + "\n")


def test_a_changed_test_is_another_question(project: Path) -> None:
    interrupted(project, {"suites": ["net"], "tests": None, "payload": "1"})
    vmtest("bisect", *ENDS, "--resume", cwd=project).refuses(
        2, "20260101T000000Z-abcdef differs in payload"
    )


def test_an_object_of_kernels_toml_can_be_named(project: Path) -> None:
    with (project / "kernels.toml").open("a") as config:
        config.write('[[object]]\nname = "mesh"\npath = "it.o"\n')
    said = in_process("bisect", *ENDS, "--verify", "mesh:pass", cwd=project)
    said.refuses(2, 'mesh has no program "pass" (did you mean "passes"?)')


def test_a_changed_copy_is_another_question(project: Path) -> None:
    script = project / "check.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    copied = [["check.sh", script.stat().st_mode, "another digest"]]
    asked = {"command": ["./check.sh"], "results": None, "copied": copied, "wheels": []}
    interrupted(project, asked)
    command = ("--exec", "./check.sh", "--copy", "check.sh")
    vmtest("bisect", *ENDS, *command, "--resume", cwd=project).refuses(
        2, "20260101T000000Z-abcdef differs in copied\n"
    )


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        ("other/6.1.9", "kernels.toml has no archive other"),
        ("debian/newest", "is neither a version"),
        ("debian/6.1.*", "write one version"),
    ],
)
def test_a_kernel_of_an_archive_has_to_be_one_version(
    project: Path, kernel: str, said: str
) -> None:
    in_process("run", "--kernel", kernel, cwd=project).refuses(2, said)


def test_a_round_says_who_failed_another_way_once_the_bad_end_has_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    points = (Point("6.1", "6.1-1", "s"), Point("6.12", "6.12-1", "s"))
    recorded = Recorded(Question({}, points))
    display = Display(recorded, 2, "2 kernels")

    def ends(places: tuple[int, ...], attempt: int, told: Told) -> None:
        for n, way in ((0, "WARNING in foo"), (1, "exit status 3")):
            told(n, Observation(Verdict.BAD, f"why {n}", way=(way,)))

    def told(place: int, one: Observation) -> None:
        recorded.seen[place] = [one]
        display.told(place, 1, one)

    display.during(ends, (0, 1), 1, told)
    assert capsys.readouterr().out.splitlines() == [
        "  6.1: failed another way: why 0",
        "  6.12: bad: why 1",
        "bad is what fails as 6.12: exit status 3",
    ]


def test_counting_any_failure_is_another_question(project: Path) -> None:
    asked = {"command": ["true"], "results": None, "copied": [], "wheels": []}
    interrupted(project, asked)
    command = ("--exec", "true", "--any-failure", "--resume")
    vmtest("bisect", *ENDS, *command, cwd=project).refuses(
        2, "20260101T000000Z-abcdef differs in any_failure\n"
    )
