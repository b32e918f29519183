"""The kernels that a repository of .rpm packages offers.

createrepo_c, which makes such repositories, reads them here.  It is imported where it is used: its
own rpm complains of a newer host's macros (Debian 13's with the package rpm) as it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vmtest.kernels.archive.candidates import Candidate, Package, rank
from vmtest.kernels.dnf.version import RpmVersion

_ARCHITECTURE = "x86_64"
_SMALLEST_KERNEL = 5 << 20
_MODULES = ("modules-core", "modules", "modules-extra")
_IS_KERNEL = ("kernel", "kernel-core", "kernel-uname-r", "kernel-core-uname-r")
"""What a package of a kernel provides, whatever it is called."""


def primary_of(repomd: Path) -> tuple[str, str, str]:
    """The path of a repository's list of packages, its checksum's algorithm and the checksum.

    Raises ValueError for a repomd.xml that cannot be read or has no such list.
    """
    import createrepo_c

    try:
        records = createrepo_c.Repomd(str(repomd)).records
    except (createrepo_c.CreaterepoCError, OSError, ValueError) as error:
        raise ValueError(f"its repomd.xml cannot be read: {error}") from error
    for record in records:
        if record.type == "primary" and record.location_href and record.checksum:
            return record.location_href, record.checksum_type, record.checksum
    raise ValueError("its repomd.xml has no list of packages")


def read_packages(primary: Path, kernel: str) -> list[tuple[Package, tuple[str, ...]]]:
    """The packages of kernels in a primary.xml, packed in any way, each with what it provides.

    Those called ``kernel...`` and those that begin as ``kernel`` says.  Raises ValueError for a
    file that cannot be read.
    """
    found: list[tuple[Package, tuple[str, ...]]] = []

    def complete(package: Any) -> None:
        if package.arch != _ARCHITECTURE or not package.name.startswith(("kernel", kernel)):
            return
        epoch = f"{package.epoch}:" if package.epoch not in (None, "", "0") else ""
        read = Package(
            name=package.name,
            version=f"{epoch}{package.version}-{package.release}",
            size=package.size_package,
            installed=package.size_installed,
            sha256=package.pkgId,
            depends=" ".join(required[0] for required in package.requires),
            architecture=package.arch,
            checksum=package.checksum_type or "sha256",
            place=package.location_href or "",
        )
        provides = tuple(
            f"{name} = {version}-{release}" if release else f"{name} = {version}"
            for name, _, _, version, release, *_ in package.provides
        )
        found.append((read, provides))

    import createrepo_c

    try:
        createrepo_c.xml_parse_primary(str(primary), pkgcb=complete, do_files=False)
    except (createrepo_c.CreaterepoCError, OSError, ValueError) as error:
        raise ValueError(f"its list of packages cannot be read: {error}") from error
    return found


def kernels(packages: Iterable[tuple[Package, tuple[str, ...]]]) -> set[str]:
    """What the kernels of a repository are called: ``kernel``, ``kernel-uek``, ``kernel6.12``."""
    return {
        package.name.removesuffix("-core")
        for package, provides in packages
        if any(one.split(" = ")[0] in _IS_KERNEL for one in provides)
        and "-modules" not in package.name
    }


def find_candidates(
    packages: Iterable[tuple[Package, tuple[str, ...]]], suite: str, kernel: str
) -> list[Candidate]:
    """The kernels of the package ``kernel``, oldest first, bootable or not.

    Where there is a ``kernel-core`` it has the image, and ``kernel-modules-core``,
    ``kernel-modules`` and ``kernel-modules-extra`` what modules there are (Fedora, RHEL and its
    rebuilds, Oracle).  Else ``kernel`` has all (Amazon, openSUSE).
    """
    known = {(p.name, p.version): (p, provides) for p, provides in packages}
    core = f"{kernel}-core"
    found = []
    for (name, version), (package, provides) in known.items():
        split = name == core
        if not split and (name != kernel or (core, version) in known):
            continue
        rest = [known.get((f"{kernel}-{kind}", version)) for kind in _MODULES]
        modules = [one[0] for one in rest if one is not None]
        missing = ""
        if split and not modules:
            missing = f"its {kernel}-modules package is no longer in the repository"
        elif not split and core in package.depends:
            missing = f"its {core} package is no longer in the repository"
        elif package.installed < _SMALLEST_KERNEL:
            continue  # a metapackage
        found.append(
            Candidate(
                release=_release(package, provides),
                version=RpmVersion(version),
                suite=suite,
                packages=(package, *modules),
                signed=True,
                missing=missing,
            )
        )
    return sorted(found, key=rank)


def _release(package: Package, provides: Iterable[str]) -> str:
    """What ``uname -r`` will say, as the package provides it, else as most are called."""
    for one in provides:
        name, _, value = one.partition(" = ")
        if name.endswith("kernel-uname-r") or name.endswith("core-uname-r"):
            return value
    return f"{package.version.rpartition(':')[2]}.{package.architecture}"
