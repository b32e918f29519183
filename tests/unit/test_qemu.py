"""Which QEMU gives up root, and how it is told to: with real processes and a QEMU's version."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vmtest.model.kernels import KernelImage, RootImage
from vmtest.model.versions import KernelVersion
from vmtest.vm import qemu
from vmtest.vm.qemu import QEMU, Drop, confined, drop, drop_for

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
DISK = RootImage("disk", Path("/root.sqfs"), "e" * 64, "python3")


def versioned(folder: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a QEMU on PATH that says this version."""
    place = folder / QEMU
    place.write_text(f"#!/bin/sh\necho 'QEMU emulator version {version} (Debian)'\n")
    place.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture
def image(tmp_path: Path) -> KernelImage:
    """A kernel with modules that everybody may read."""
    folder = tmp_path / "modules" / "6.12.1"
    (folder / "kernel").mkdir(parents=True)
    for name in ("modules.dep", "kernel/a.ko"):
        (folder / name).write_text("")
        (folder / name).chmod(0o644)
    for place in (tmp_path, folder.parent, folder, folder / "kernel"):
        place.chmod(0o755)
    version = KernelVersion.parse("6.12.1")
    return KernelImage("6.12", version, "6.12.1", tmp_path / "kernel", folder, None, "d" * 64, "")


@AS_ROOT
@pytest.mark.parametrize(
    ("version", "option"),
    [
        ("7.2.22", "-runas 65534:65534"),
        ("9.0.4", "-runas 65534:65534"),
        ("9.1.0", "-run-with user=65534:65534"),
        ("10.0.2", "-run-with user=65534:65534"),
    ],
)
def test_each_qemu_is_told_in_its_own_words(
    version: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versioned(tmp_path, version, monkeypatch)
    assert drop() == Drop(option)


def test_who_is_not_root_has_nothing_to_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert drop() == Drop()


@AS_ROOT
def test_a_host_without_that_user_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versioned(tmp_path, "7.2.22", monkeypatch)
    monkeypatch.setattr(qemu, "USER", "vmtest-has-no-such-user")
    assert drop() == Drop(why="there is no user vmtest-has-no-such-user here")


@AS_ROOT
@pytest.mark.parametrize("capability", ["setuid", "setgid", "kill"])
def test_a_root_that_lacks_a_capability_says_so(capability: str) -> None:
    """As in a container that was started with less: here the kernel refuses, and nothing else."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv (util-linux) is not installed on this host")
    script = "from vmtest.vm.qemu import drop; print(drop())"
    bounded = ["setpriv", "--bounding-set", f"-{capability}", "--inh-caps", f"-{capability}"]
    done = subprocess.run(
        [*bounded, sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "option=''" in done.stdout and "root may not start a process as nobody" in done.stdout


@pytest.mark.parametrize("kind", ["host", "directory"])
def test_a_guest_on_a_folder_keeps_its_qemu_as_it_is(kind: str, image: KernelImage) -> None:
    root = RootImage(kind, Path("/"), "", "python3")  # type: ignore[arg-type]
    assert drop_for(image, root) == Drop()


@AS_ROOT
def test_modules_that_everybody_may_read_are_no_obstacle(image: KernelImage) -> None:
    assert drop_for(image, DISK).option.endswith("65534:65534")


@AS_ROOT
@pytest.mark.parametrize("name", ["kernel", "kernel/a.ko", "modules.dep", "."])
def test_modules_that_only_root_may_read_keep_it_root_and_it_says_which(
    name: str, image: KernelImage
) -> None:
    assert image.modules is not None
    place = image.modules / name
    place.chmod(0o700 if place.is_dir() else 0o600)
    found = drop_for(image, DISK)
    assert found.option == "" and f"only root may read {place}" in found.why


def test_the_filter_of_user_changes_is_left_out_only_where_qemu_changes_its_user() -> None:
    assert "elevateprivileges=deny" in confined("")
    assert "elevateprivileges" not in confined("-runas 1:1")
    assert confined("-runas 1:1").endswith(" -runas 1:1")
    for option in ("", "-runas 1:1"):
        assert "-sandbox on,obsolete=deny," in confined(option)
        assert "spawn=deny,resourcecontrol=deny" in confined(option)
