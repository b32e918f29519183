"""A tiny signed archive in Ubuntu's layout, made by the real apt-ftparchive.

Two suites, two components, two flavours; an image, its modules and its extra modules are
packages of their own, and the image is there signed and unsigned.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import signed_archive
from fake_kernels import bzimage, modules_tree

from vmtest.host.cache import find_tool

needed = pytest.mark.skipif(
    find_tool("apt-ftparchive") is None or find_tool("dpkg-deb") is None,
    reason="apt-ftparchive (apt-utils) or dpkg-deb is not installed on this host",
)

SUITES = {
    "noble": ["6.8.0-31.31-generic"],
    "noble-updates": [
        "6.8.0-45.45-generic",
        "6.8.0-101.101-generic",
        "6.11.0-9.9~24.04.1-generic",
        "6.8.0-1017.20-azure",
    ],
}
"""What each suite has: a package's version, a dash, a flavour; or a version, a blank, a release."""


Fill = Callable[[Path, str, str], None]
"""Puts into the first what a package has: of that kind (image, modules or extra), of a release."""


def tiny(tree: Path, kind: str, release: str) -> None:
    """The files of a package of a few bytes."""
    if kind == "image":
        (tree / "boot").mkdir()
        (tree / f"boot/vmlinuz-{release}").write_bytes(bzimage(release, "zstd"))
    elif kind == "modules":
        modules_tree(tree, release)
        (tree / "boot").mkdir()
        (tree / f"boot/config-{release}").write_text(signed_archive.CONFIG)
    elif kind == "extra":
        place = tree / "lib/modules" / release / "kernel/fs/9p"
        place.mkdir(parents=True)
        (place / "README").write_text("no module\n")


def _package(
    pool: Path, tree: Path, version: str, depends: str, content: tuple[str, str], fill: Fill
) -> None:
    """Build the package that ``tree`` is named after."""
    (tree / "DEBIAN").mkdir(parents=True)
    name, kind = tree.name, content[0]
    fill(tree, *content)
    size = 64 if kind == "meta" else 14000
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nInstalled-Size: {size}\n"
        f"Maintainer: vmtest <vmtest@example.org>\n{depends}Description: for tests\n"
    )
    packed = "-Zxz" if fill is tiny else "-Znone"
    command = ["dpkg-deb", packed, "--root-owner-group", "-b", str(tree), str(pool)]
    subprocess.run(command, check=True, capture_output=True)


def _kernel(pool: Path, trees: Path, text: str, fill: Fill) -> None:
    version, _, release = text.partition(" ")
    if not release:
        version, _, flavour = text.rpartition("-")
        upstream, _, revision = version.partition("-")
        release = f"{upstream}-{revision.partition('.')[0]}-{flavour}"
    upstream, flavour = version.partition("-")[0], release.rpartition("-")[2]
    depends = f"Depends: kmod, linux-modules-{release}\n"
    for name, kind, needs in (
        (f"linux-image-{release}", "image", depends),
        (f"linux-image-unsigned-{release}", "image", depends),
        (f"linux-modules-{release}", "modules", ""),
        (f"linux-modules-extra-{release}", "extra", ""),
    ):
        _package(pool, trees / name, version, needs, (kind, release), fill)
    meta = trees / f"linux-image-{upstream}-{flavour}"
    _package(pool, meta, version, "", ("meta", release), fill)


def make(archive: Path, suites: Mapping[str, Sequence[str]] = SUITES, fill: Fill = tiny) -> None:
    """Make the archive in ``archive``; universe, its other component, has no kernel."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = folder / "gnupg"
        home.mkdir(mode=0o700)
        key = "ubuntu@example.org"
        signed_archive.gpg(home, "--passphrase", "", "--quick-gen-key", key, "ed25519", "sign")
        for suite, kernels in suites.items():
            pool = archive / "pool" / suite
            pool.mkdir(parents=True)
            for kernel in kernels:
                _kernel(pool, folder / suite / kernel, kernel, fill)
            place = archive / "dists" / suite
            for component in ("main", "universe"):
                listing = place / component / "binary-amd64" / "Packages"
                listing.parent.mkdir(parents=True)
                listing.touch()
            (place / "main/binary-amd64/Packages").write_text(_ftp(archive, "packages", pool))
            options = ("-o", f"APT::FTPArchive::Release::Suite={suite}")
            text = _ftp(archive, *options, "release", place)
            signed_archive.gpg(home, "--clearsign", "-o", str(place / "InRelease"), data=text)
        signed_archive.gpg(home, "--export", "-o", str(archive / "keyring.gpg"), key)
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


def _ftp(archive: Path, *arguments: object) -> str:
    words = [str(a.relative_to(archive)) if isinstance(a, Path) else str(a) for a in arguments]
    done = subprocess.run(
        ["apt-ftparchive", *words], cwd=archive, check=True, capture_output=True, text=True
    )
    return done.stdout
