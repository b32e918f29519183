"""What a command takes from the project is what [build] left, through the command line.

The one kernel is a file that is none: every command ends once all else was read.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command import Said, vmtest

from vmtest.api.inputs import build_first
from vmtest.config.file import load

IDENTITY = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
CONFIG = """
schema = 1
[guest]
root = "host"
[build]
command = ["sh", "build.sh"]
[[kernel]]
name = "mine"
path = "out/kernel"
[[suite]]
name = "net"
tests = "tests/test_net.py"
objects = ["net"]
[[object]]
name = "net"
path = "out/net.o"
"""
OBJECT = b"\x7fELF\x02\x01" + bytes(10) + struct.pack("<HH", 1, 247)
# Slow enough that whoever does not wait for it reads what was there before.
BUILD = """set -e
sleep 0.5
mkdir -p out tests
cp net.in out/net.o
cp net.in out/tool
chmod 755 out/tool
echo junk >out/kernel
echo "def test_it(): pass" >tests/test_net.py
"""


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone: nothing is built."""
    monkeypatch.setenv("VMTEST_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "kernels.toml").write_text(CONFIG)
    (folder / "build.sh").write_text(BUILD)
    (folder / "net.in").write_bytes(OBJECT + b"first")
    return folder


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def inputs(folder: Path) -> dict[str, Any]:
    return dict(facts(folder)["inputs"])


def facts(folder: Path) -> dict[str, Any]:
    """What run.json says of the last run, which had no kernel and so is not ``latest``."""
    # By time: the names of two runs within a second tell nothing.
    written = (folder / ".vmtest" / "runs").glob("*/run.json")
    last = max(written, key=lambda file: file.stat().st_mtime_ns)
    return dict(json.loads(last.read_text()))


def got_to_the_kernel(said: Said, status: int = 3) -> None:
    assert said.status == status, said
    assert "INFRA_ERROR" in said.out + said.err, said
    assert "out/kernel" in said.out + said.err, said


COMMANDS = {
    "run": ["run"],
    "run of a given object": ["run", "--object", "net=out/tool"],
    "verify": ["verify"],
    "exec": ["exec", "--copy", "out/tool", "--kernel", ">=1", "--", "./tool"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_fresh_clone_works_the_first_time(arguments: list[str], clone: Path) -> None:
    status = 125 if arguments[0] == "exec" else 3
    got_to_the_kernel(vmtest(*arguments, cwd=clone), status)


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_what_is_taken_is_what_the_build_left(arguments: list[str], clone: Path) -> None:
    vmtest(*arguments, cwd=clone)
    (clone / "net.in").write_bytes(OBJECT + b"second")
    vmtest(*arguments, cwd=clone)
    found = [d for of_kind in inputs(clone).values() for d in of_kind.items()]
    built = {path: digest for path, digest in found if path.endswith((".o", "tool"))}
    assert built
    assert set(built.values()) == {sha256(OBJECT + b"second")}


def test_the_kernel_is_the_one_that_the_build_left(clone: Path) -> None:
    vmtest("run", cwd=clone)
    (clone / "build.sh").write_text(BUILD + "rm out/kernel\n")
    said = vmtest("run", cwd=clone)
    assert said.status == 3
    assert "No such file" in said.out


def test_a_range_is_of_the_kernel_that_the_build_left(clone: Path) -> None:
    said = vmtest("run", "--kernel", ">=6.1", cwd=clone)
    got_to_the_kernel(said)
    assert "No such file" not in said.out


def test_a_wheel_that_the_build_makes_is_there_for_the_first_run(clone: Path) -> None:
    text = CONFIG.replace('root = "host"', 'wheels = ["out/demo-1-py3-none-any.whl"]')
    (clone / "kernels.toml").write_text(text)
    (clone / "build.sh").write_text(BUILD + "cp net.in out/demo-1-py3-none-any.whl\n")
    said = vmtest("run", cwd=clone)
    assert "demo-1-py3-none-any.whl: No such file" not in said.out + said.err
    wheels = inputs(clone)["wheels"]
    assert wheels == {"out/demo-1-py3-none-any.whl": sha256(OBJECT + b"first")}


def test_verify_takes_no_wheels_along(clone: Path) -> None:
    text = CONFIG.replace('root = "host"', 'wheels = ["out/demo-1-py3-none-any.whl"]')
    (clone / "kernels.toml").write_text(text)
    (clone / "build.sh").write_text(BUILD + "cp net.in out/demo-1-py3-none-any.whl\n")
    (clone / "named.o").write_bytes(OBJECT)
    vmtest("verify", "named.o", cwd=clone)
    found = inputs(clone)
    assert "wheels" not in found and list(found["objects"]) == ["named.o"]


@pytest.mark.parametrize(("libbpf", "built"), [("out/libbpf.so.1", True), ("1.5", False)])
def test_a_libbpf_in_the_project_is_built_even_for_a_named_object(
    tmp_path: Path, libbpf: str, built: bool
) -> None:
    file = tmp_path / "kernels.toml"
    file.write_text(
        f'schema = 1\n[guest]\nlibbpf = "{libbpf}"\n[build]\ncommand = ["touch", "built"]\n'
        '[[kernel]]\nname = "k"\npath = "/elsewhere/vmlinuz"\n'
    )
    build_first(load(file), lambda line: None, [Path("/elsewhere/named.o")])
    assert (tmp_path / "built").exists() == built


def test_an_object_from_elsewhere_needs_no_build(clone: Path, tmp_path: Path) -> None:
    text = CONFIG.replace('"out/kernel"', f'"{tmp_path}/elsewhere"')
    (clone / "kernels.toml").write_text(text)
    (clone / "tests").mkdir()
    (clone / "tests" / "test_net.py").write_text("def test_it(): pass\n")
    (tmp_path / "given.o").write_bytes(OBJECT)
    said = vmtest("run", "--object", f"net={tmp_path}/given.o", cwd=clone)
    assert said.status == 3
    assert not (clone / "out").exists()


def test_a_build_that_fails_ends_the_run_before_anything_is_read(clone: Path) -> None:
    vmtest("run", cwd=clone)
    (clone / "build.sh").write_text("echo no luck; exit 4\n")
    vmtest("run", cwd=clone).refuses(2, "[build]: sh build.sh ended with status 4", "no luck")


def test_suites_are_told_by_digest(clone: Path) -> None:
    vmtest("run", cwd=clone)
    suites = inputs(clone)["suites"]
    assert suites == {"tests/test_net.py": sha256(b"def test_it(): pass\n")}


def test_another_folder_is_compared_with_after_the_build(clone: Path) -> None:
    (clone / "build.sh").write_text(BUILD + "mkdir -p out/before; cp net.in out/before/net.o\n")
    got_to_the_kernel(vmtest("verify", "--against", "out/before", cwd=clone))


def test_a_run_keeps_the_projects_commit(clone: Path) -> None:
    for words in (["init", "-q"], ["add", "net.in"], [*IDENTITY, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(clone), *words], check=True)
    got_to_the_kernel(vmtest("run", cwd=clone))
    run = facts(clone)
    assert re.fullmatch("[0-9a-f]{40}", run["project"]["commit"])
    assert run["project"]["dirty"] is False


def test_a_report_without_a_place_ends_exec_before_it_is_a_run(clone: Path) -> None:
    asked = ("exec", "--kernel", ">=1", "--junit", "/proc/none/x.xml", "--", "true")
    said = vmtest(*asked, cwd=clone)
    assert said.status == 125
    assert "/proc/none/x.xml: cannot make its folder" in said.err
    assert not (clone / ".vmtest" / "runs").exists()


def test_a_program_behind_a_test_tool_runs_in_one_kernel_only(tmp_path: Path) -> None:
    (tmp_path / "prog").write_text("#!/bin/sh\n")
    (tmp_path / "prog").chmod(0o755)
    said = vmtest("go-exec", "--kernel", "6.12", "./nope", cwd=tmp_path)
    said.refuses(125, "error: ./nope: No such file or directory; name the program on the host")
    assert "--copy" not in said.err
    said = vmtest("go-exec", "--kernel", "tag:default", "./prog", cwd=tmp_path)
    said.refuses(125, "--kernel tag:default: may mean several kernels", "name one")
