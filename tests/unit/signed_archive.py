"""A tiny signed Debian archive, so that the real apt is tested without network.

Made anew for every test session: no package and no key is kept in the repository.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

import pytest
from fake_kernels import bzimage, modules_tree

from vmtest.host.cache import find_tool

CONFIG = "CONFIG_X86_64=y\nCONFIG_BPF_SYSCALL=y\n"

needed = pytest.mark.skipif(
    find_tool("apt-get") is None or find_tool("dpkg-deb") is None or find_tool("depmod") is None,
    reason="apt-get, dpkg-deb or depmod is not installed on this host",
)

_PROJECT = """
schema = 1
[apt.debian]
suites = ["good"]
mirror = "file:{archive}"
keyring = "{archive}/keyring.gpg"
[[kernel]]
name = "old"
apt = "debian"
version = "6.1.*"
tags = ["default"]
[[kernel]]
name = "new"
apt = "debian"
version = "*"
"""


def deb(
    archive: Path, folder: Path, name: str, version: str, fields: dict[str, str], kind: str
) -> str:
    """Build one package into the pool; returns its paragraph of the index."""
    tree = folder / name
    release = name.split("-", 2)[2].removeprefix("unsigned-")
    (tree / "DEBIAN").mkdir(parents=True)
    if kind == "whole":
        (tree / "boot").mkdir()
        (tree / "boot" / f"vmlinuz-{release}").write_bytes(bzimage(release, "xz"))
        (tree / "boot" / f"config-{release}").write_text(CONFIG)
        (tree / "boot" / f"System.map-{release}").write_text("not needed\n")
        modules_tree(tree, release)
        (tree / "usr/share/doc" / name).mkdir(parents=True)
        (tree / "usr/share/doc" / name / "copyright").write_text("not needed\n")
    elif kind == "binary":
        place = tree / "usr/lib/modules" / release
        place.mkdir(parents=True)
        (place / "vmlinuz").write_bytes(bzimage(release, "zstd"))
    elif kind == "modules":
        modules_tree(tree / "usr", release)
    elif kind == "base":
        (tree / "boot").mkdir()
        (tree / "boot" / f"config-{release}").write_text(CONFIG)
    head = {
        "Package": name,
        "Version": version,
        "Architecture": "amd64",
        "Maintainer": "vmtest <vmtest@example.org>",
        **fields,
    }
    tail = {"Description": "a kernel for vmtest's own tests"}
    text = "".join(f"{k}: {v}\n" for k, v in {**head, **tail}.items())
    (tree / "DEBIAN" / "control").write_text(text)
    pool = archive / "pool" / f"{name}_{version}_amd64.deb"
    pool.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["dpkg-deb", "-Zxz", "--root-owner-group", "-b", tree, pool],
        check=True,
        capture_output=True,
    )
    data = pool.read_bytes()
    files = {
        "Filename": f"pool/{pool.name}",
        "Size": str(len(data)),
        "SHA256": hashlib.sha256(data).hexdigest(),
    }
    return text + "".join(f"{k}: {v}\n" for k, v in files.items())


def index(archive: Path, folder: Path) -> str:
    """The packages of every suite here."""
    big = {"Installed-Size": "20000"}
    split = "7.2.6-amd64"
    same = "(= 7.2.6-1)"
    paragraphs = [
        deb(archive, folder, "linux-image-6.1.9-amd64", "6.1.9-1", big, "whole"),
        deb(archive, folder, "linux-image-6.1.10-amd64", "6.1.10-1", big, "whole"),
        deb(archive, folder, f"linux-base-{split}", "7.2.6-1", {}, "base"),
        deb(archive, folder, f"linux-modules-{split}", "7.2.6-1", {}, "modules"),
        deb(
            archive,
            folder,
            f"linux-binary-{split}",
            "7.2.6-1",
            {"Depends": f"linux-base-{split} {same}"},
            "binary",
        ),
        deb(archive, folder, "linux-binary-7.1.13-amd64", "7.1.13-1", {}, "binary"),
    ]
    return "\n".join(paragraphs)


def publish(
    archive: Path, suite: str, packages: str, home: Path, key: str, extra: str = ""
) -> None:
    """Write the index of ``suite`` and its InRelease, signed by ``key``."""
    root = archive / "dists" / suite
    place = root / "main/binary-amd64/Packages"
    place.parent.mkdir(parents=True)
    place.write_text(packages)
    data = packages.encode()
    release = (
        f"Origin: vmtest\nSuite: {suite}\nCodename: {suite}\n"
        f"Date: Thu, 01 Jan 2026 00:00:00 UTC\n{extra}"
        f"Architectures: amd64\nComponents: main\n"
        f"SHA256:\n {hashlib.sha256(data).hexdigest()} {len(data)} main/binary-amd64/Packages\n"
    )
    gpg(home, "--local-user", key, "--clearsign", "-o", str(root / "InRelease"), data=release)


def gpg(home: Path, *arguments: str, data: str = "") -> None:
    """Run gpg in a home of its own."""
    command = ["gpg", "--homedir", str(home), "--batch", "--yes", "--digest-algo", "SHA256"]
    subprocess.run([*command, *arguments], input=data, text=True, check=True, capture_output=True)


def make(archive: Path) -> None:
    """Make the whole archive in the folder ``archive``; the secret keys are thrown away."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = folder / "gnupg"
        home.mkdir(mode=0o700)
        for key in ("trusted@example.org", "stranger@example.org"):
            gpg(home, "--passphrase", "", "--quick-gen-key", key, "ed25519", "sign", "never")
        packages = index(archive, folder / "trees")
        publish(archive, "good", packages, home, "trusted@example.org")
        expired = "Valid-Until: Fri, 02 Jan 2026 00:00:00 UTC\n"
        publish(archive, "expired", packages, home, "trusted@example.org", expired)
        publish(archive, "stranger", packages, home, "stranger@example.org")
        gpg(home, "--export", "-o", str(archive / "keyring.gpg"), "trusted@example.org")
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


def project(archive: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project below ``folder`` whose kernels "old" and "new" are from ``archive``."""
    monkeypatch.setenv("VMTEST_CACHE", str(folder / "cache"))
    monkeypatch.delenv("VMTEST_DEBIAN_MIRROR", raising=False)
    made = folder / "project"
    made.mkdir()
    (made / "kernels.toml").write_text(_PROJECT.format(archive=archive))
    return made
