"""What each distribution calls what is missing, and the shortest way that works there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from shaped_host import Host

from vmtest.host import packages
from vmtest.host.requirements import (
    BUILD_HEADERS,
    BUILD_TOOLS,
    OPTIONAL_TOOLS,
    REQUIREMENTS,
    main,
)

LACKING = ["qemu-system-x86", "squashfs-tools", "kmod"]


def host_of(folder: Path, text: str) -> packages.Host:
    file = folder / "os-release"
    file.write_text(text)
    return packages.host(file)


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("ID=debian\n", "Debian"),
        ('ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME="Ubuntu 24.04"\n', "Debian"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "Debian"),
        ("ID=fedora\n", "Fedora"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "Fedora"),
        ('ID="amzn"\nID_LIKE="fedora"\n', "Fedora"),
        ("ID=arch\n", "Arch"),
        ("ID=endeavouros\nID_LIKE=arch\n", "Arch"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', "openSUSE"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "openSUSE"),
        ("ID='nixos'\n", "NixOS"),
    ],
)
def test_a_host_is_known_by_itself_or_by_what_it_is_like(
    text: str, family: str, tmp_path: Path
) -> None:
    found = host_of(tmp_path, text).family
    assert found is not None and found.name == family


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "ID=debian",
            "apt-get install --no-install-recommends qemu-system-x86 squashfs-tools kmod",
        ),
        ("ID=fedora", "dnf install qemu-system-x86 squashfs-tools kmod"),
        ("ID=arch", "pacman -S --needed qemu-system-x86 squashfs-tools kmod"),
        ("ID=opensuse-leap\nID_LIKE=suse", "zypper install qemu-x86 squashfs kmod"),
        ("ID=nixos", "nix-shell -p qemu squashfsTools kmod"),
        ("ID=void", "install what Debian calls qemu-system-x86 squashfs-tools kmod"),
    ],
)
def test_packages_have_the_hosts_own_names(text: str, said: str, tmp_path: Path) -> None:
    assert packages.cure(LACKING, host_of(tmp_path, text)) == said


def test_what_a_distribution_has_no_package_of_is_said(tmp_path: Path) -> None:
    said = packages.cure(["apt", "kmod"], host_of(tmp_path, "ID_LIKE=suse\n"))
    assert said == "zypper install kmod; openSUSE has no package of apt: use a container"


def test_every_package_with_other_names_is_one_that_vmtest_asks_for() -> None:
    asked = {name for need in REQUIREMENTS for name in need.packages}
    asked |= {tool.package for tool in (*OPTIONAL_TOOLS, *BUILD_TOOLS)}
    asked |= {package for _, package in BUILD_HEADERS}
    assert set(packages._NAMES) <= asked


def test_a_host_without_apt_is_told_its_own_command_and_the_shortest_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vmtest.host.requirements.installed_packages", set)
    monkeypatch.setattr("vmtest.host.requirements.shutil.which", lambda name, **_: None)
    fedora = host_of(tmp_path, 'ID=fedora\nPRETTY_NAME="Fedora 43"\n')
    monkeypatch.setattr(packages, "host", lambda: fedora)
    assert main([]) == 1
    said = capsys.readouterr().out
    assert "no apt-get on this host (Fedora 43)" in said
    assert packages.CONTAINER in said and "dnf install qemu-system-x86 busybox" in said


def test_doctor_on_another_host_names_its_packages_and_the_container(tmp_path: Path) -> None:
    host = Host(tmp_path, 'ID=arch\nPRETTY_NAME="Arch Linux"\n', {})
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "sh").symlink_to("/bin/sh")
    (bare / "mount").symlink_to("/bin/mount")
    (bare / "unshare").symlink_to("/usr/bin/unshare")
    doctor = (sys.executable, "-m", "vmtest", "doctor", "--json")
    environment = {"PATH": str(bare), "VMTEST_CACHE": str(tmp_path / "cache")}
    done = host.run(*doctor, environment=environment)
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 3
    assert found["host"]["state"] == "Arch Linux"
    assert found["host"]["cure"].startswith(f"in a clone of vmtest: {packages.CONTAINER}; or pac")
    assert found["qemu"]["cure"] == "pacman -S --needed qemu-system-x86"
    assert "[apt.debian]" in found["Debian mirror"]["cure"]
