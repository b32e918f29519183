"""What this host's distribution calls the packages that vmtest needs, and how it installs them.

Python's standard library only: it runs before anything of vmtest is installed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CONTAINER = "podman build -t vmtest -f Containerfile ."
"""In a clone: what makes the container image that needs nothing else of the host."""

# By Debian's name: Fedora's and RHEL's, Arch's, openSUSE's, nixpkgs'; "" where there is none.
_NAMES = {
    "qemu-system-x86": ("qemu-system-x86", "qemu-system-x86", "qemu-x86", "qemu"),
    "busybox-static": ("busybox", "busybox", "busybox-static", "pkgsStatic.busybox"),
    "mmdebstrap": ("mmdebstrap", "", "", "mmdebstrap"),
    "squashfs-tools": ("squashfs-tools", "squashfs-tools", "squashfs", "squashfsTools"),
    "uidmap": ("shadow-utils", "shadow", "shadow", "shadow"),
    "apt": ("apt", "apt", "", "apt"),
    "debian-archive-keyring": ("debian-keyring", "debian-archive-keyring", "", ""),
    "libbpf-dev": ("libbpf-devel", "libbpf", "libbpf-devel", "libbpf"),
    "linux-libc-dev": ("kernel-headers", "linux-api-headers", "linux-glibc-devel", "linuxHeaders"),
    "bpftool": ("bpftool", "bpf", "bpftool", "bpftools"),
    "libarchive-tools": ("bsdtar", "libarchive", "bsdtar", "libarchive"),
    "gpgv": ("gnupg2", "gnupg", "gpg2", "gnupg"),
    "rpm": ("rpm", "rpm-tools", "rpm", "rpm"),
    "dwarves": ("dwarves", "pahole", "dwarves", "pahole"),
    "libelf-dev": ("elfutils-libelf-devel", "libelf", "libelf-devel", "elfutils"),
    "libssl-dev": ("openssl-devel", "openssl", "libopenssl-devel", "openssl"),
}
"""Packages that have other names elsewhere; the rest has one name everywhere."""


@dataclass(frozen=True, slots=True)
class Family:
    """Distributions with one set of package names; ``column`` is theirs in the table above."""

    name: str
    ids: tuple[str, ...]
    install: str
    column: int | None = None


DEBIAN = Family("Debian", ("debian", "ubuntu"), "apt-get install --no-install-recommends")
FAMILIES = (
    DEBIAN,
    Family("Fedora", ("fedora", "rhel", "centos"), "dnf install", 0),
    Family("Arch", ("arch",), "pacman -S --needed", 1),
    Family("openSUSE", ("suse", "opensuse", "sles"), "zypper install", 2),
    Family("NixOS", ("nixos",), "nix-shell -p", 3),
)


@dataclass(frozen=True, slots=True)
class Host:
    """This host's distribution: what it calls itself, and its family, None for another one."""

    name: str
    family: Family | None


def host(os_release: Path = Path("/etc/os-release")) -> Host:
    """What ``os_release`` says this host is."""
    try:
        text = os_release.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    said = {
        key: value.strip().strip("\"'")
        for key, equals, value in (line.partition("=") for line in text.splitlines())
        if equals
    }
    ids = [said.get("ID", ""), *said.get("ID_LIKE", "").split()]
    name = said.get("PRETTY_NAME") or said.get("NAME") or said.get("ID") or "an unknown system"
    for one in ids:  # its own name first, then what it is like
        for family in FAMILIES:
            if any(re.match(rf"{known}\b", one) for known in family.ids):
                return Host(name, family)
    return Host(name, None)


def cure(packages: Sequence[str], here: Host) -> str:
    """How this host gets ``packages``, called as Debian calls them."""
    family = here.family
    if family is None:
        return f"install what Debian calls {' '.join(packages)}"
    named = {package: name_in(family, package) for package in packages}
    parts = []
    if names := " ".join(dict.fromkeys(filter(None, named.values()))):
        parts.append(f"{family.install} {names}")
    if lacking := [package for package, name in named.items() if not name]:
        parts.append(f"{family.name} has no package of {', '.join(lacking)}: use a container")
    return "; ".join(parts)


def name_in(family: Family, package: str) -> str:
    """What ``family`` calls a package of Debian's; empty where it has none."""
    if family.column is None or package not in _NAMES:
        return package
    return _NAMES[package][family.column]
