"""Bad input through the command line: the designed status, no traceback, thing, place and cure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import in_process, vmtest

CONFIG = """
schema = 1
[apt.debian]
suites = ["trixie-security"]
[build]
command = ["vmtest", "build"]
[[kernel]]
name = "6.12"
apt = "debian"
version = "6.12.*"
tags = ["default"]
[[suite]]
name = "net"
tests = "tests/test_net.py"
objects = ["net"]
[[object]]
name = "net"
path = "build/net.bpf.o"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VMTEST_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "project"
    (folder / "tests").mkdir(parents=True)
    (folder / "tests" / "test_net.py").write_text("def test_it(): pass\n")
    (folder / "bpf").mkdir()
    (folder / "bpf" / "net.bpf.c").write_text("int net;\n")
    (folder / "kernels.toml").write_text(CONFIG)
    return folder


def test_without_a_configuration(tmp_path: Path) -> None:
    vmtest("run", cwd=tmp_path).refuses(
        2, "there is no kernels.toml", str(tmp_path), "--config FILE"
    )


def test_a_configuration_that_is_not_there(project: Path) -> None:
    vmtest("run", "--config", "other.toml", cwd=project).refuses(
        2, "other.toml does not exist", "--config FILE"
    )


def test_a_configuration_that_cannot_be_read(project: Path) -> None:
    (project / "kernels.toml").unlink()
    (project / "kernels.toml").mkdir()
    vmtest("run", "--config", "kernels.toml", cwd=project).refuses(
        2, "cannot read", "kernels.toml", "Is a directory"
    )


def test_a_configuration_that_is_no_toml(project: Path) -> None:
    (project / "kernels.toml").write_text("schema = = 1\n")
    in_process("run", cwd=project).refuses(2, "kernels.toml", "not valid TOML", "line 1")


def test_a_hundred_problems_are_counted_not_poured_out(project: Path) -> None:
    kernels = "".join(f'[[kernel]]\nname = "k{n}"\nx = 1\n' for n in range(100))
    (project / "kernels.toml").write_text("schema = 1\n" + kernels)
    in_process("run", cwd=project).refuses(2, 'kernel "k0": unknown key "x"', "more")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "--kernel", "6.13"], ['there is no kernel "6.13"', "(there are: 6.12)"]),
        (["run", "--suite", "nett"], ['there is no suite "nett"', 'did you mean "net"']),
        (["run", "--kernel", "tag:defualt"], ['no kernel has the tag "defualt"', '"default"']),
        (["run", "--kernel", ">=x"], ["'>=x' is not a version constraint", "'>=6.1,<6.13'"]),
        (["run", "--object", "net"], ["--object net", "NAME=PATH"]),
        (["run", "--object", "net=x.o@<5,x"], ["'x' is not a version constraint"]),
        (["run", "6.12"], ["6.12: vmtest run takes no such argument", "--kernel", "-- --upstream"]),
        (["run", "6.12", "--", "-v"], ["6.12: vmtest run takes no such argument"]),
        (["run", "--object", "nte=x.o"], ['there is no [[object]] "nte"', "there are: net"]),
        (["run", "-k", "a b c"], ["Wrong expression passed to '-k': a b c: at column 3: "]),
        (["run", "--", "-k", "a b c"], ["Wrong expression passed to '-k': a b c: at column 3: "]),
        (["run", "--accel", "xen"], ["--accel xen", "auto, kvm or tcg"]),
        (["run", "--jobs", "0"], ["--jobs", "1"]),
        (["report"], ["there is no run", "vmtest run"]),
        (["report", "2099"], ['there is no run "2099"', "the latest: none"]),
        (["merge", "nothing"], ['there is no run "nothing"']),
        (["shell", "tag:default2"], ["error: tag:default2: no kernel has the tag"]),
        (["shell", "9.9"], ['error: 9.9: there is no kernel "9.9"', "ARCHIVE/VERSION"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_name_without_meaning(arguments: list[str], parts: list[str], project: Path) -> None:
    status = 125 if arguments[0] == "shell" else 2
    vmtest(*arguments, cwd=project).refuses(status, *parts)


def test_a_program_that_does_not_compile_stops_before_anything_boots(project: Path) -> None:
    (project / "bpf" / "net.bpf.c").write_text("int net = nothing;\n")
    said = vmtest("run", cwd=project, environment=offline(project))
    said.refuses(2, "bpf/net.bpf.c", "undeclared identifier 'nothing'", "[build]")
    assert "booting" not in said.out


def offline(project: Path) -> dict[str, str]:
    """An environment whose mirror is an empty folder of ours: there is no such suite."""
    empty = project.parent / "empty"
    empty.mkdir(exist_ok=True)
    url = empty.as_uri()
    return {"VMTEST_DEBIAN_MIRROR": url, "VMTEST_DEBIAN_SECURITY_MIRROR": url}


def test_no_network_and_nothing_cached(project: Path) -> None:
    said = vmtest("run", cwd=project, environment=offline(project))
    assert said.status == 3
    assert "Traceback" not in said.out + said.err
    assert "INFRA_ERROR" in said.out
    assert "trixie-security" in said.out


def test_a_kernel_that_could_not_be_had_has_a_junit_file_too(project: Path) -> None:
    said = vmtest("run", cwd=project, environment=offline(project))
    assert "cannot write" not in said.err
    (file,) = (project / ".vmtest" / "runs").glob("*/*/junit.xml")
    assert "trixie-security" in file.read_text()


def test_a_report_that_cannot_be_written_is_refused_before_anything_runs(project: Path) -> None:
    (project / "file").touch()
    said = in_process("run", "--junit", "file/x.xml", cwd=project, environment=offline(project))
    said.refuses(2, "file/x.xml: cannot make its folder", "name another file")
    assert said.out == ""


def test_a_reports_folder_is_made(project: Path) -> None:
    vmtest("run", "--junit", "new/folder/x.xml", cwd=project, environment=offline(project))
    assert "INFRA_ERROR" in (project / "new" / "folder" / "x.xml").read_text()


def test_a_kernel_file_that_is_none(project: Path) -> None:
    (project / "junk").write_bytes(b"#!/bin/sh\n" * 1000)
    text = CONFIG.replace('apt = "debian"\nversion = "6.12.*"', 'path = "junk"')
    (project / "kernels.toml").write_text(text)
    said = vmtest("run", cwd=project, environment=offline(project))
    assert said.status == 3
    assert "Traceback" not in said.out + said.err
    assert str(project / "junk") in said.out


def test_a_file_that_is_no_object(project: Path) -> None:
    (project / "x.o").write_text("text")
    said = in_process("run", "--object", "net=x.o", cwd=project, environment=offline(project))
    said.refuses(2, 'object "net"', "x.o is not an ELF file")


@pytest.fixture
def mirrored(project: Path, made: Path) -> Callable[[str], Path]:
    """Writes a kernels.toml that asks a tiny signed archive for a version; returns the archive."""
    mirror = Path(shutil.copytree(made, project.parent / "mirror"))

    def configure(version: str) -> Path:
        text = CONFIG.replace(
            'suites = ["trixie-security"]',
            f'suites = ["good"]\nmirror = "file:{mirror}"\nsecurity_mirror = "file:{mirror}"\n'
            f'keyring = "{mirror}/keyring.gpg"\nmax_index_age = "0s"',
        )
        (project / "kernels.toml").write_text(text.replace('"6.12.*"', f'"{version}"'))
        return mirror

    return configure


def test_a_version_that_matches_nothing(project: Path, mirrored: Callable[[str], Path]) -> None:
    mirrored("6.3.*")
    said = vmtest("kernels", "fetch", cwd=project)
    said.refuses(3, "6.12: no kernel 6.3.* in good", "nearest: 6.1.10")


def test_a_kernel_whose_modules_are_gone(project: Path, mirrored: Callable[[str], Path]) -> None:
    mirrored("7.1.13")
    said = vmtest("kernels", "fetch", cwd=project)
    said.refuses(3, "6.12:", "7.1.13", "linux-modules", "7.2.6")


def test_a_truncated_download(project: Path, mirrored: Callable[[str], Path]) -> None:
    mirror = mirrored("6.1.*")
    for package in (mirror / "pool").glob("linux-image-6.1.10*"):
        package.write_bytes(package.read_bytes()[:-100])
    said = vmtest("kernels", "fetch", cwd=project)
    said.refuses(3, "linux-image-6.1.10-amd64")
    listed = vmtest("kernels", "list", "--json", cwd=project)
    assert json.loads(listed.out)["kernels"][0]["cached"] is False


def test_no_network_with_a_warm_cache_goes_on_and_says_so(
    project: Path, mirrored: Callable[[str], Path]
) -> None:
    mirror = mirrored("6.1.*")
    assert vmtest("kernels", "fetch", cwd=project).status == 0
    shutil.rmtree(mirror / "dists")
    said = vmtest("kernels", "list", cwd=project)
    assert said.status == 0, said
    assert "6.1.10" in said.out
    assert "good" in said.out[said.out.index("6.12: ") :]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk_under_the_cache(project: Path, mirrored: Callable[[str], Path]) -> None:
    """A cache on a file system of 1 MB: named before anything is downloaded."""
    mirrored("6.1.*")
    cache = project.parent / "cache"
    cache.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "vmtest-full", str(cache)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this root may not mount (a container)")
    try:
        said = vmtest("kernels", "fetch", cwd=project)
    finally:
        subprocess.run(["umount", str(cache)], check=True)
    said.refuses(3, str(cache), "VMTEST_CACHE")


def test_doctor_without_qemu_names_it_with_the_cure(project: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    said = vmtest("doctor", cwd=project, environment={"PATH": str(bare)})
    assert said.status == 3
    assert "MISS qemu" in said.out
    assert "apt-get install" in said.out
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "shell",
        "build",
        "report",
        "merge",
        "doctor",
        "kernels list",
        "kernels fetch",
        "image export",
        "image import",
    ],
)
def test_every_command_has_help_with_an_example(project: Path, command: str) -> None:
    said = vmtest(*command.split(), "--help", cwd=project)
    assert said.status == 0
    assert "Example: vmtest" in said.out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (
            ["--results", "xml", "--", "true"],
            ["--results 'xml'", "write gotest, tap or junit:PATH"],
        ),
        (["--copy", "bpf:/etc", "--", "true"], ["outside of the working folder"]),
        (["--accel", "xen", "--", "true"], ["--accel xen"]),
        (["--object", "other=x", "--", "true"], ["--object other", "net"]),
    ],
)
def test_a_command_with_wrong_options(
    arguments: list[str], parts: list[str], project: Path
) -> None:
    vmtest("exec", *arguments, cwd=project).refuses(2, *parts)
    vmtest("exec", "--kernel", "6.12", *arguments, cwd=project).refuses(125, *parts)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--copy", "missing", "--", "true"], ["--copy", "missing", "No such file"]),
        (["./bpf/net.bpf.c"], ["./bpf/net.bpf.c is not in the guest", "--copy ./bpf/net.bpf.c"]),
    ],
)
def test_a_command_whose_files_are_not_there_boots_nothing(
    arguments: list[str], parts: list[str], project: Path
) -> None:
    config = project / "kernels.toml"
    config.write_text(config.read_text().replace('[build]\ncommand = ["vmtest", "build"]\n', ""))
    vmtest("exec", *arguments, cwd=project).refuses(2, *parts)
    assert not (project / ".vmtest").exists()


def test_a_command_on_a_kernel_that_is_not_there(project: Path) -> None:
    vmtest("exec", "--kernel", "6.13", "--", "true", cwd=project).refuses(125, '"6.13"', "6.12")


def test_exec_without_a_command(project: Path) -> None:
    assert "COMMAND" in vmtest("exec", "--kernel", "6.12", cwd=project).err
