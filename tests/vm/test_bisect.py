"""``vmtest bisect`` over real kernels: the first that has a kfunc, and how to see it again."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from any_guest import WARM
from command import Said, vmtest
from real_kernels import PROJECT, image_of
from ssh_hosts import hosts, needs_sshd

from vmtest.bisect.journal import JOURNAL
from vmtest.model.kernels import RootImage
from vmtest.model.project import Config
from vmtest.objects.compile import build_all

CONFIG = """
schema = 1
[guest]
root = "{root}"
[apt.debian]
suites = ["bullseye-security", "bookworm-security", "trixie-security"]
[[kernel]]
name = "6.1"
apt = "debian"
version = "6.1.*"
suites = ["bookworm-security"]
"""
KFUNC = "kfunc.bpf.o:reads_by_pointer"
CHECK = """#!/bin/sh
test ! -e /proc/sys/net/ipv4/tcp_plb_enabled && echo "no tcp_plb_enabled" && exit 0
echo "tcp_plb_enabled is there"; exit 1
"""


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    root: RootImage,
    settings: Config,
    cache: Path,
) -> Path:
    for name in ("5.10", "6.1", "6.12"):
        image_of(name, settings, cache)  # what --cached will find
    made = tmp_path_factory.mktemp("bisect")
    build_all(PROJECT / "tests" / "verify", made)
    (made / "kernels.toml").write_text(CONFIG.format(root=root.path))
    return made


@pytest.fixture(scope="module")
def said(folder: Path) -> Said:
    ends = ("--bad", "5.10", "--good", "6.12", "--find", "fixed", "--cached")
    return vmtest("bisect", *ends, "--verify", KFUNC, "--jobs", "1", cwd=folder, timeout=900)


@pytest.fixture(scope="module")
def journal(folder: Path, said: Said) -> list[dict[str, Any]]:
    assert said.status == 0, said
    (file,) = folder.glob(f".vmtest/runs/*/{JOURNAL}")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_first_kernel_with_the_kfunc_is_found(journal: list[dict[str, Any]]) -> None:
    # bpf_dynptr_from_skb: 6.4, commit b5964b968ac6; the suites hold nothing between 6.1 and 6.12.
    answer = journal[-1]
    assert (answer["last"][:4], answer["first"][:5]) == ("6.1.", "6.12.")


def test_no_kernel_was_booted_twice(journal: list[dict[str, Any]]) -> None:
    told = [line["kernel"] for line in journal if line["event"] == "told"]
    assert len(told) == len(set(told)) >= 3


def test_the_end_shows_both_verdicts_side_by_side(said: Said) -> None:
    assert re.search(r"\n    6\.1\.\d+ +unsupported \(kfunc\): .*bpf_dynptr_from_skb", said.out)
    assert re.search(r"\n    6\.12\.\d+ +accepted, \d+ instructions", said.out)


def test_a_bisect_is_a_run_that_can_be_reported_with_all_its_rounds(
    folder: Path, journal: list[dict[str, Any]]
) -> None:
    shown = vmtest("report", cwd=folder)
    told = {line["kernel"] for line in journal if line["event"] == "told"}
    assert [name for name in told if name not in shown.out] == []
    assert "UNSUPPORTED" in shown.out
    assert shown.status == 1


def test_the_command_that_it_names_reproduces_an_end(folder: Path, said: Said) -> None:
    named = re.search(r"^  6\.1\.\d+ \(bad\): vmtest (.*)$", said.out, re.MULTILINE)
    assert named is not None, said
    again = vmtest(*shlex.split(named.group(1)), cwd=folder, timeout=600)
    assert again.status == 1, again
    assert "has no kfunc bpf_dynptr_from_skb" in again.out


@pytest.fixture(scope="module")
def by_cilium(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of its own with an object whose helper Linux 6.1 brought."""
    made = tmp_path_factory.mktemp("cilium")
    for name in ("kernels.toml", "helper.bpf.o"):
        (made / name).write_bytes((folder / name).read_bytes())
    return made


def test_a_bisect_by_cilium_asks_cilium_and_so_does_the_command_that_it_names(
    by_cilium: Path,
) -> None:
    ends = ("--bad", "5.10", "--good", "6.1", "--find", "fixed", "--cached", "--jobs", "1")
    asked = ("--verify", "helper.bpf.o:knows_the_time", "--loader", "cilium")
    said = vmtest("bisect", WARM, *ends, *asked, cwd=by_cilium, timeout=900)
    assert said.status == 0, said
    assert re.search(r"^first good: 6\.1\.", said.out, re.MULTILINE), said
    named = re.search(r"^  5\.10\.\d+ \(bad\): vmtest (.*)$", said.out, re.MULTILINE)
    assert named is not None, said
    assert "--loader cilium" in named[1]
    again = vmtest(*shlex.split(named[1]), "--json", "m.json", cwd=by_cilium, timeout=600)
    assert again.status == 1, again
    (kernel,) = json.loads((by_cilium / "m.json").read_text())["kernels"]
    (load,) = kernel["loads"]
    assert load["loader"].startswith("cilium/ebpf ")
    assert load["reason"]["code"] == "helper"


@pytest.fixture(scope="module")
def checked(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of its own, so that the runs of ``folder`` are those of its one bisect."""
    made = tmp_path_factory.mktemp("checked")
    (made / "kernels.toml").write_bytes((folder / "kernels.toml").read_bytes())
    script = made / "check.sh"
    script.write_text(CHECK)
    script.chmod(0o755)
    return made


EXEC = ("--exec", "./check.sh 'a word'", "--copy", "check.sh", "--jobs", "1", "--cached")
ASKED = ("bisect", WARM, "--good", "6.1", "--bad", "6.12", *EXEC)


@pytest.fixture(scope="module")
def ran(checked: Path) -> Said:
    return vmtest(*ASKED, cwd=checked, timeout=900)


def test_a_commands_exit_status_finds_the_first_kernel_too(ran: Said) -> None:
    # net.ipv4.tcp_plb_enabled: 6.2, commit bd456f283b66; the suites hold nothing before 6.12.
    assert ran.status == 0, ran
    assert re.search(r"^first bad: 6\.12\.", ran.out, re.MULTILINE)
    assert re.search(r"^    6\.1\.\S+ +passed: exit status 0: no tcp_plb_enabled$", ran.out, re.M)
    assert re.search(r"^    6\.12\.\S+ +failed: exit status 1: tcp_plb_enabled is", ran.out, re.M)


@needs_sshd
def test_two_hosts_by_ssh_find_it_in_rounds_of_two(
    checked: Path, ran: Said, cache: Path, tmp_path: Path
) -> None:
    for name in ("kernels.toml", "check.sh"):
        shutil.copy(checked / name, tmp_path / name)
    asked = [word for word in ASKED if word not in ("--jobs", "1")]
    with hosts(tmp_path / "hosts") as machines:
        for name in ("one", "two"):
            machines.start(name, cache)
        ssh = {"VMTEST_SSH": machines.ssh}
        on = ("--on", "ssh:one:1,two:1")
        there = vmtest(*asked, *on, cwd=tmp_path, environment=ssh, timeout=900)
        assert machines.processes() == []
    assert there.status == 0, there
    first = re.compile(r"^first bad: .*$", re.MULTILINE)
    assert first.findall(there.out) == first.findall(ran.out)
    assert "2 at a time" in there.out
    for name in ("one", "two"):
        assert f": on {name}" in there.out


def test_the_vmtest_exec_that_it_names_reproduces_the_commands_end(
    checked: Path, ran: Said
) -> None:
    named = re.search(r"^  6\.12\.\S+ \(bad\): vmtest (.*)$", ran.out, re.MULTILINE)
    assert named is not None, ran
    again = vmtest(*shlex.split(named.group(1)), cwd=checked, timeout=600)
    assert (again.status, again.out) == (1, "tcp_plb_enabled is there\n"), again


def started(folder: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vmtest", *ASKED, *more],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A test run in the background of a script has SIGINT ignored, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def journals(folder: Path) -> list[list[dict[str, Any]]]:
    """Every bisect's lines, the oldest bisect first."""
    files = sorted(folder.glob(f".vmtest/runs/*/{JOURNAL}"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def wait_for_event(event: str, folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while not any(f'"{event}"' in f.read_text() for f in folder.glob(f".vmtest/runs/*/{JOURNAL}")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)


def test_interrupted_and_resumed_beside_another_one_each_kernel_is_asked_once(
    checked: Path, tmp_path: Path
) -> None:
    (tmp_path / "kernels.toml").write_bytes((checked / "kernels.toml").read_bytes())
    (tmp_path / "check.sh").write_text(CHECK)
    (tmp_path / "check.sh").chmod(0o755)
    first = started(tmp_path)
    wait_for_event("round", tmp_path, first)
    vmtest(*ASKED, "--resume", cwd=tmp_path).refuses(2, "this bisect is still running")
    wait_for_event("told", tmp_path, first)
    first.send_signal(signal.SIGINT)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 130, said
    assert re.search(r"^to go on: vmtest bisect .* --resume$", said, re.MULTILINE)

    both = [started(tmp_path, *more) for more in (("--resume",), ())]
    for one, begins in zip(both, ("; resumed, 1 of them known\n", "\n"), strict=True):
        said, _ = one.communicate(timeout=900)
        assert one.returncode == 0, said
        assert re.search(rf"at a time; \.vmtest/runs/[\w-]+{begins}", said), said
    resumed, fresh = journals(tmp_path)
    for lines in (resumed, fresh):
        told = [line["kernel"] for line in lines if line["event"] == "told"]
        assert len(told) == len(set(told))
    assert [resumed[-1][end] for end in ("last", "first")] == [
        fresh[-1][end] for end in ("last", "first")
    ]


ANOTHER_ASSERTION = """import os

VERSION = tuple(map(int, os.uname().release.split(".")[:2]))


def test_the_rule() -> None:
    assert VERSION < (6, 12), "the rule is not kept"
    assert VERSION < (6, 1), "the rule cannot be read"
"""
RULE = '[[suite]]\nname = "rule"\ntests = "test_rule.py"\n'


def test_a_kernel_that_fails_another_way_is_asked_again_and_counts_for_neither_side(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "kernels.toml").write_text((folder / "kernels.toml").read_text() + RULE)
    (tmp_path / "test_rule.py").write_text(ANOTHER_ASSERTION)
    ends = ("--good", "5.10", "--bad", "6.12", "--cached", "--jobs", "1")
    ran = vmtest("bisect", WARM, *ends, "--suite", "rule", cwd=tmp_path, timeout=900)
    assert ran.status == 0, ran
    assert re.search(r"^first bad: one of 6\.1\.\d+ to 6\.12\.", ran.out, re.MULTILINE)
    way = r"test_rule\.py::test_the_rule at test_rule\.py:{}: failed: AssertionError: {}"
    other = "failed another way 2 of 2: " + way.format(8, "the rule cannot be read")
    assert re.search(rf"^  6\.1\.\S+: {other}; it counts for neither side", ran.out, re.MULTILINE)
    assert re.search(
        rf"^bad is what fails as 6\.12\.\S+: {way.format(7, 'the rule is')}", ran.out, re.M
    )
    (lines,) = journals(tmp_path)
    told = [line["kernel"].split("-")[0] for line in lines if line["event"] == "told"]
    assert sorted(told.count(name) for name in set(told)) == [1, 1, 2]
