"""What is missing is told at once, before anything is downloaded or built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command import vmtest

from vmtest.api.preflight import check_host
from vmtest.config import file as configuration
from vmtest.errors import InfrastructureError

KERNELS = """
schema = 1
[apt.debian]
suites = ["trixie-security"]
mirror = "http://127.0.0.1:9/debian"
security_mirror = "http://127.0.0.1:9/debian"
[build]
command = ["sh", "-c", "touch built"]
[guest]
wheels = [{wheels}]
[[kernel]]
name = "6.12"
apt = "debian"
version = "6.12.*"
[[kernel]]
name = "mine"
path = "vmlinuz"
[[suite]]
name = "own"
tests = "checks"
"""
COMMANDS = (["run"], ["verify"], ["exec", "--", "true"])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "test_own.py").write_text("def test_it(): pass\n")
    write(tmp_path)
    return tmp_path


def write(project: Path, wheels: str = "") -> None:
    (project / "kernels.toml").write_text(KERNELS.format(wheels=wheels))


def only_apt(project: Path) -> None:
    """Leave the kernel out that is a file."""
    file = project / "kernels.toml"
    file.write_text(file.read_text().replace('[[kernel]]\nname = "mine"\npath = "vmlinuz"\n', ""))


def bare(project: Path, *more: str) -> dict[str, str]:
    """The environment of a host with few tools: ``more`` of them are there, and do nothing."""
    tools = project / "bin"
    tools.mkdir()
    for name in ("git", "dpkg", "python3"):
        (tools / name).symlink_to(shutil.which(name) or "/nowhere")
    for name in more:
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    return {"PATH": str(tools), "VMTEST_CACHE": str(project / "cache")}


def lacking(project: Path, monkeypatch: pytest.MonkeyPatch, *more: str, here: bool = True) -> str:
    """What is said of such a host."""
    monkeypatch.setenv("PATH", bare(project, *more)["PATH"])
    settings = configuration.load(project / "kernels.toml")
    with pytest.raises(InfrastructureError) as told:
        check_host(settings, project / "cache", here=here)
    return str(told.value)


def test_any_of_virtme_ngs_tools_does(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = lacking(project, monkeypatch, "busybox-static", "strings")
    assert "qemu-system-x86_64: " in said
    assert "busybox: " not in said and "file: " not in said


def test_a_host_that_runs_no_vm_needs_no_emulator(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = lacking(project, monkeypatch, here=False)
    assert "mmdebstrap: " in said
    assert "qemu-system-x86_64" not in said and "busybox" not in said


def test_what_only_some_kernels_need_is_not_asked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "dpkg-deb: " not in lacking(project, monkeypatch)
    only_apt(project)
    shutil.rmtree(project / "bin")
    assert "dpkg-deb: " in lacking(project, monkeypatch)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command[0]))
def test_every_tool_that_the_host_lacks_is_named(command: list[str], project: Path) -> None:
    only_apt(project)
    said = vmtest(*command, cwd=project, environment=bare(project))
    said.refuses(
        3,
        "this host lacks what the run needs:",
        "  qemu-system-x86_64: runs the virtual machines (package qemu-system-x86)",
        "  busybox: ",
        "  file: ",
        "  mmdebstrap: ",
        "  sqfstar: ",
        "  apt-get: ",
        "  dpkg-deb: ",
        "to install all of it: ",
    )
    assert not (project / "built").exists()
    assert not (project / ".vmtest").exists()


def test_every_file_that_is_not_there_is_named(project: Path) -> None:
    write(project, '"a.whl", "b.whl"')
    said = vmtest("run", cwd=project, environment={"VMTEST_CACHE": str(project / "cache")})
    lost = [f"  {project / name}" for name in ("a.whl", "b.whl", "vmlinuz")]
    said.refuses(2, f"{project / 'kernels.toml'} names what is not there", *lost)
    assert "reading the index" not in said.err
    assert not (project / ".vmtest" / "runs").exists()


def test_a_file_that_the_build_makes_is_not_missing(project: Path) -> None:
    write(project, '"built", "b.whl"')
    said = vmtest("run", cwd=project, environment={"VMTEST_CACHE": str(project / "cache")})
    said.refuses(2, f"  {project / 'b.whl'}")
    assert f"  {project / 'built'}" not in said.err
