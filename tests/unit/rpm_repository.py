"""Tiny repositories of .rpm packages, made and signed by rpmbuild, createrepo_c, rpmsign, gpg."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import signed_archive
from fake_kernels import bzimage, modules_tree

from vmtest.host.cache import find_tool

TOOLS = ("rpmbuild", "rpmsign", "rpmkeys", "createrepo_c", "gpg", "gpgv", "bsdtar", "depmod")
needed = pytest.mark.skipif(
    any(find_tool(tool) is None for tool in TOOLS),
    reason="rpmbuild, createrepo_c, gpg, gpgv, bsdtar or depmod is not installed on this host",
)
KEY = "distribution@example.org"


@dataclass(frozen=True)
class Made:
    """A package to build: what it is called and what is in it.

    ``holds`` is "image", "modules", "both", "nothing", of the kernel ``release``, or "given".
    """

    name: str
    version: str
    release: str
    holds: str
    provides: str = ""
    requires: str = ""

    @property
    def uname(self) -> str:
        return f"{self.version}-{self.release}.x86_64"


def split(version: str, release: str, base: str = "kernel") -> list[Made]:
    """A kernel as Fedora, RHEL and Oracle package it."""
    uname = f"{version}-{release}.x86_64"
    core = f"{base}-core"
    return [
        Made(base, version, release, "nothing", "", core),
        Made(core, version, release, "image", f"kernel-uname-r = {uname}"),
        Made(f"{base}-modules-core", version, release, "modules"),
        Made(f"{base}-modules", version, release, "extra"),
    ]


Given = tuple[str, Callable[[Path], None]]
"""A release as ``uname -r`` says it, and what puts the files of its folder there."""


def build(
    made: Made, folder: Path, into: Path, payload: str = "w3.zstdio", given: Given | None = None
) -> None:
    """Build one package with rpmbuild into the folder ``into``; ``given`` is what it holds then."""
    root = folder / f"{made.name}-{made.version}-{made.release}" / "root"
    (root / "usr").mkdir(parents=True)
    uname = made.uname if given is None else given[0]
    place = root / "lib/modules" / uname
    if given is not None:
        place.mkdir(parents=True)
        given[1](place)
    if made.holds in ("image", "both"):
        place.mkdir(parents=True)
        (place / "vmlinuz").write_bytes(bzimage(made.uname, "zstd"))
        (place / "config").write_text(signed_archive.CONFIG)
        (place / "padding").write_bytes(bytes(6 << 20))
    if made.holds == "modules":
        modules_tree(root, made.uname)
    if made.holds == "both":
        (place / "kernel/fs").mkdir(parents=True)
        (place / "kernel/fs/README").write_text("no module\n")
        (place / "modules.order").touch()
        (place / "modules.builtin").touch()
    if made.holds == "extra":
        (place / "kernel/net").mkdir(parents=True)
        (place / "kernel/net/README").write_text("no module\n")
    files = f"/lib/modules/{uname}" if made.holds != "nothing" else ""
    provides = f"Provides: {made.provides}\n" if made.provides else ""
    requires = f"Requires: {made.requires}\n" if made.requires else ""
    spec = root.parent / "kernel.spec"
    spec.write_text(
        f"Name: {made.name}\nVersion: {made.version}\nRelease: {made.release}\nSummary: test\n"
        f"License: GPL-2.0-only\nAutoReqProv: no\n{provides}{requires}"
        f"%description\nA kernel for tests.\n%files\n{files}\n"
    )
    defines = {
        "_topdir": str(root.parent),
        "_rpmdir": str(into),
        "_build_name_fmt": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
        "_binary_payload": payload,
        "__os_install_post": "%{nil}",
        "_build_id_links": "none",
    }
    options = [word for key, value in defines.items() for word in ("--define", f"{key} {value}")]
    subprocess.run(
        ["rpmbuild", "-bb", "--target", "x86_64", "--buildroot", str(root), *options, str(spec)],
        check=True,
        capture_output=True,
    )


class Keys:
    """A GnuPG home with the keys that sign; its agent is ended by :meth:`close`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)
        for key in (KEY, "stranger@example.org"):
            signed_archive.gpg(home, "--passphrase", "", "--quick-gen-key", key, "rsa2048", "sign")
        signed_archive.gpg(home, "--armor", "--export", "-o", str(self.public), KEY)

    @property
    def public(self) -> Path:
        return self.home / "RPM-GPG-KEY-example"

    def sign_metadata(self, repository: Path, key: str = KEY) -> None:
        repomd = repository / "repodata/repomd.xml"
        options = ("--local-user", key, "--armor", "--detach-sign")
        signed_archive.gpg(self.home, *options, "-o", f"{repomd}.asc", str(repomd))

    def sign_packages(self, packages: list[Path], key: str = KEY) -> None:
        defines = (f"_gpg_name {key}", f"_gpg_path {self.home}", f"__gpg {find_tool('gpg')}")
        options = [word for define in defines for word in ("--define", define)]
        subprocess.run(
            ["rpmsign", *options, "--addsign", *map(str, packages)], check=True, capture_output=True
        )

    def close(self) -> None:
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False)


def publish(repository: Path, compress: str = "gz") -> None:
    """Make the repository's metadata anew with createrepo_c, which compresses it so."""
    subprocess.run(
        ["createrepo_c", "--no-database", f"--general-compress-type={compress}", str(repository)],
        check=True,
        capture_output=True,
    )
