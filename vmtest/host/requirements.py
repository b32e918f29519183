"""What the host has to have: the list, its state, and installing what is missing.

Runs as a script before anything of vmtest is installed (``python -m vmtest.host``; with
``--tests``, as ``tox -e setup`` does, also what only the tests need): Python's standard
library only.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from vmtest.host import packages


@dataclass(frozen=True, slots=True)
class Requirement:
    """A Debian package (or its names elsewhere, best first) and what it is for.

    ``command`` is what shows that it is there, where a run needs it.
    """

    packages: tuple[str, ...]
    purpose: str
    command: str = ""


REQUIREMENTS = (
    Requirement(("qemu-system-x86",), "runs the virtual machines"),
    Requirement(("busybox-static",), "virtme-ng's initramfs", "busybox"),
    Requirement(("kmod",), "for the kernels' modules", "depmod"),
    Requirement(("file",), "virtme-ng reads a kernel's version with it", "file"),
    Requirement(("binutils",), "for the version of an unpacked kernel", "strings"),
    Requirement(("mmdebstrap",), "builds the guest image", "mmdebstrap"),
    Requirement(("squashfs-tools",), "packs the guest image", "sqfstar"),
    Requirement(("e2fsprogs",), "packs it for kernels without squashfs"),
    Requirement(("uidmap",), "builds the guest image without root", "newuidmap"),
    Requirement(("apt",), "fetches kernels from Debian's suites", "apt-get"),
    Requirement(("dpkg",), "unpacks kernels", "dpkg-deb"),
    Requirement(("debian-archive-keyring",), "checks the signatures of Debian's suites"),
    Requirement(("clang",), "compiles bpf/", "clang"),
    Requirement(("llvm",), "inspects BPF objects"),
    Requirement(("libbpf-dev",), "bpf_helpers.h for bpf/"),
    Requirement(("linux-libc-dev",), "the kernel's headers for bpf/"),
    Requirement(("bpftool", "linux-tools-common"), "inspects BPF objects"),
    Requirement(("git",), "reads repositories; verify --against REV"),
)
"""What a run needs."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A command, the Debian package it comes with, and what it is for."""

    command: str
    package: str
    purpose: str


TOOLS = tuple(
    Tool(need.command, need.packages[0], need.purpose) for need in REQUIREMENTS if need.command
)
"""What every run needs."""

OPTIONAL_TOOLS = (
    Tool("bsdtar", "libarchive-tools", "unpacks kernels from .rpm packages"),
    Tool("gpgv", "gpgv", "checks the signatures of repositories of .rpm packages"),
    Tool("rpmkeys", "rpm", "checks the signatures of .rpm packages (signed = packages)"),
    Tool("skopeo", "skopeo", "fetches kernels from container images"),
    Tool("mke2fs", "e2fsprogs", "the guest image for kernels without squashfs"),
    Tool("mkfs.erofs", "erofs-utils", "the guest image for kernels with neither it nor ext4"),
    Tool("lz4", "lz4", "unpacks kernels compressed with it"),
    Tool("git", "git", "builds another revision for verify --against"),
    Tool("go", "golang-go", "builds the loader of verify --loader cilium"),
)
"""What only some kernels or options need; doctor says what is there and misses none of it."""

BUILD_TOOLS = (
    Tool("git", "git", "reads the tree"),
    Tool("make", "make", "runs the build"),
    Tool("gcc", "gcc", "compiles it"),
    Tool("flex", "flex", "the kernel's config"),
    Tool("bison", "bison", "the kernel's config"),
    Tool("bc", "bc", "the kernel's build"),
    Tool("pahole", "dwarves", "BTF, which vanishes silently without it"),
)
"""What ``tree`` kernels need, beside the headers below and ccache where it is there."""

BUILD_HEADERS = (("gelf.h", "libelf-dev"), ("openssl/opensslv.h", "libssl-dev"))
"""Headers in /usr/include or below its machine's folder, and their packages."""

TEST_REQUIREMENTS = (
    Requirement(("gpg",), "signs a tiny archive"),
    Requirement(("apt-utils",), "makes a tiny archive in Ubuntu's layout"),
    Requirement(("python-apt-common",), "mirrors of a host of another distribution"),
    Requirement(("erofs-utils",), "the guest image for kernels with erofs alone"),
    Requirement(("libarchive-tools",), "kernels from .rpm packages"),
    Requirement(("gpgv",), "checks a tiny repository"),
    Requirement(("rpm",), "makes and signs tiny .rpm packages"),
    Requirement(("skopeo",), "kernels from container images"),
    Requirement(("docker-registry",), "gives out tiny container images"),
    Requirement(("createrepo-c",), "makes a tiny repository of them"),
    Requirement(("clang-format",), "tox -e lint"),
    Requirement(("shellcheck",), "tox -e lint"),
    # Debian's has a browser with it; Ubuntu has none but as a snap, and its CI runners have Chrome.
    Requirement(("chromium-driver", "google-chrome-stable"), "opens a run's page in a browser"),
    Requirement(("golang-go",), "examples/go"),
    Requirement(("golang-github-cilium-ebpf-dev",), "verify --loader cilium, without a network"),
    Requirement(("cargo",), "examples/rust"),
    # A bisect over commits is refused before it begins where kernels cannot be built.
    *(Requirement((tool.package,), f"builds of kernels: {tool.purpose}") for tool in BUILD_TOOLS),
    *(Requirement((package,), f"builds of kernels: {header}") for header, package in BUILD_HEADERS),
)
"""What the repository's own tests need beside it; a package may be in both lists."""


def missing_for_builds() -> list[str]:
    """The Debian packages that building a kernel still needs, in the order above."""
    path = search_path()
    packages = [t.package for t in BUILD_TOOLS if shutil.which(t.command, path=path) is None]
    for header, package in BUILD_HEADERS:
        places = (Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu"))
        if not any((place / header).is_file() for place in places):
            packages.append(package)
    return packages


# As virtme-ng looks for it (virtme/commands/run.py, VirtioFS._get_virtiofsd_path).
_VIRTIOFSD = (
    "/usr/libexec/virtiofsd",
    "/usr/lib/virtiofsd/virtiofsd",
    "/usr/lib/virtiofsd",
    "/usr/lib/qemu/virtiofsd",
)


def find_virtiofsd() -> str | None:
    """The virtiofsd that virtme-ng takes, None without one or when it is QEMU's own in C.

    That one waits 3 s at every export, and exports the host's root as root.
    """
    for path in (shutil.which("virtiofsd"), *_VIRTIOFSD):
        if path is None or not Path(path).is_file() or not os.access(path, os.X_OK):
            continue
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            # "virtiofsd 1.13.2"; the one in C says "virtiofsd version 7.2.22 (...)".
            return path if re.match(r"virtiofsd \d", done.stdout) else None
    return None


NAMESPACES_CURE = (
    "as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu) or "
    "kernel.unprivileged_userns_clone=1 (Debian), or build the guest image as root"
)
"""What lets an ordinary user make user namespaces."""


def namespaces_refused() -> str:
    """Why this user cannot make the user namespace that builds the guest image; "" if they can.

    Root needs none.  An Ubuntu from 24.04 on confines them.
    """
    if os.geteuid() == 0:
        return ""
    try:
        done = subprocess.run(
            ["unshare", "-r", "true"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return "unshare is not installed (package util-linux)"
    return "" if done.returncode == 0 else done.stderr.strip() or "unshare -r true failed"


def search_path() -> str:
    """PATH with the administrator's folders, which an ordinary user's lacks."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"


def installed_packages() -> set[str]:
    """The names of all installed Debian packages; empty where there is no dpkg."""
    try:
        done = subprocess.run(
            ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}\t${Package}\n"],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return set()
    lines = (line.split("\t") for line in done.stdout.splitlines())
    return {name for state, name in lines if state.startswith("ii")}


def missing(installed: set[str], *, tests: bool = False) -> list[Requirement]:
    """The requirements that none of ``installed`` meets, each package once.

    With ``tests`` also those of the repository's own tests.
    """
    wanted: dict[tuple[str, ...], Requirement] = {}
    for need in (*REQUIREMENTS, *(TEST_REQUIREMENTS if tests else ())):
        wanted.setdefault(need.packages, need)
    return [need for need in wanted.values() if installed.isdisjoint(need.packages)]


def _available(requirement: Requirement) -> str:
    """The first of its packages that apt can install, the first of all when it knows none."""
    for name in requirement.packages:
        done = subprocess.run(
            ["apt-cache", "policy", name], capture_output=True, text=True, check=False
        )
        if "Candidate:" in done.stdout and "Candidate: (none)" not in done.stdout:
            return name
    return requirement.packages[0]


def install_command(packages: list[str]) -> list[str]:
    """The command that installs ``packages``: no recommends, so that udev stays away.

    virtme-ng settles udev for 16 s and more at every boot on the host's root.
    """
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if os.geteuid() == 0:
        return ["env", "DEBIAN_FRONTEND=noninteractive", *command]
    return ["sudo", "env", "DEBIAN_FRONTEND=noninteractive", *command]


def main(arguments: list[str] | None = None) -> int:
    """Install what is missing; returns 0 when nothing is missing afterwards."""
    parser = argparse.ArgumentParser("vmtest.host", description="Install what vmtest needs.")
    parser.add_argument(
        "--tests", action="store_true", help="also what only the repository's own tests need"
    )
    tests = parser.parse_args(arguments).tests
    needed = missing(installed_packages(), tests=tests)
    if not needed:
        print("vmtest setup: all system packages are there")
        return 0
    print("vmtest setup: these system packages are missing:")
    for need in needed:
        print(f"  {need.packages[0]:24} {need.purpose}")
    if shutil.which("apt-get") is None:
        here = packages.host()
        print(f"There is no apt-get on this host ({here.name}). The shortest way, in a clone:")
        print(f"  {packages.CONTAINER}")
        lacking = [need.packages[0] for need in needed]
        print(f"Or without a container: {packages.cure(lacking, here)}")
        print("Then see what vmtest still lacks with: vmtest doctor")
        return 1
    if os.geteuid() != 0 and shutil.which("sudo") is None:
        names = " ".join(need.packages[0] for need in needed)
        print("Neither root nor sudo: have an administrator run")
        print(f"  apt-get install --no-install-recommends {names}")
        return 1
    elevate = [] if os.geteuid() == 0 else ["sudo"]
    # A fresh machine's index is empty or stale; a failing third-party source is not ours.
    subprocess.run([*elevate, "apt-get", "update"], check=False)
    command = install_command([_available(need) for need in needed])
    print(f"vmtest setup: {' '.join(command)}", flush=True)
    if subprocess.run(command, check=False).returncode != 0:
        print("vmtest setup: apt-get failed; its reason is above", file=sys.stderr)
        return 1
    left = missing(installed_packages(), tests=tests)
    for need in left:
        print(f"vmtest setup: {need.packages[0]} is still missing", file=sys.stderr)
    return 1 if left else 0
