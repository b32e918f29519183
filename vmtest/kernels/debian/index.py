"""The kernels that a Debian package index offers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vmtest.host.debian import DebianVersion, paragraphs
from vmtest.kernels.archive.candidates import Candidate, Package, rank

_STANZA = re.compile(
    r"^Package: linux-(?:image|binary|modules|base)-(?:unsigned-|extra-)?\d[^\n]*\n"
    r"(?:[^\n]+\n)*",
    re.MULTILINE,
)
_RELEASE = r"(?P<release>\d+\.\d+\S*?)"
_IMAGE = re.compile(rf"linux-image-(?P<before>unsigned-)?{_RELEASE}(?P<after>-unsigned)?$")
_BINARY = re.compile(rf"linux-binary-(?P<unsigned>unsigned-)?{_RELEASE}$")
_NO_KERNEL = re.compile(r"-dbg(sym)?$|-signed-template$")
# Of 6.12.94+deb13-cloud-amd64 and 6.8.0-1017-azure; of 6.13-rc3-amd64 and 7.0-trunk-amd64 none.
_FLAVOUR = re.compile(r"-(?!rc\d|trunk\b)([a-z][a-z0-9.-]*)$")
_DEPENDENCY = re.compile(r"\blinux-(image|binary|modules|base)-(\d[^\s,|(]*)")
_SMALLEST_IMAGE = 5 << 20


def read_packages(text: str) -> list[Package]:
    """The kernel packages for amd64 in a ``Packages`` file."""
    return [package for package in _packages(text, _STANZA) if package.architecture == "amd64"]


def packages_named(text: str, name: str) -> list[Package]:
    """The packages called ``name`` in a ``Packages`` file, the newest last."""
    stanza = re.compile(rf"^Package: {re.escape(name)}\n(?:[^\n]+\n)*", re.MULTILINE)
    return sorted(_packages(text, stanza), key=lambda package: DebianVersion(package.version))


def _packages(text: str, stanza: re.Pattern[str]) -> list[Package]:
    return [
        Package(
            name=fields["package"],
            version=fields.get("version", ""),
            size=int(fields.get("size", "0")),
            installed=int(fields.get("installed-size", "0")) * 1024,
            sha256=fields.get("sha256", ""),
            depends=fields.get("depends", ""),
            architecture=fields.get("architecture", "amd64"),
        )
        for match in stanza.finditer(text)
        for fields in paragraphs(match.group())
    ]


def flavour_of(release: str) -> str:
    """The flavour of a kernel's release: Debian's and Ubuntu's generic one is ``generic``."""
    match = _FLAVOUR.search(release.removesuffix("-amd64"))
    return match.group(1) if match else "generic"


def flavours(packages: Iterable[Package]) -> set[str]:
    """The flavours of the kernels in an index."""
    matches = (_IMAGE.match(p.name) for p in packages if not _NO_KERNEL.search(p.name))
    return {flavour_of(match["release"]) for match in matches if match is not None}


def find_candidates(
    packages: Iterable[Package], suite: str, flavour: str = "generic"
) -> list[Candidate]:
    """The kernels of a flavour in an index, oldest first, bootable or not.

    Debian's are one package before 6.19; since then ``linux-image-*`` is empty and the kernel
    is in ``linux-binary-*``, ``linux-modules-*`` and ``linux-base-*``.  Ubuntu's are an image
    (``linux-image-*``, or ``linux-image-unsigned-*``), ``linux-modules-*`` and, where there is
    one, ``linux-modules-extra-*``.
    """
    known = {(p.name, p.version): p for p in packages if not _NO_KERNEL.search(p.name)}
    by_name: dict[str, list[Package]] = {}
    for package in known.values():
        by_name.setdefault(package.name, []).append(package)
    found: list[Candidate] = []
    split: set[tuple[str, str]] = set()
    for (name, version), package in known.items():
        match = _BINARY.match(name)
        if match is None or flavour_of(match["release"]) != flavour:
            continue
        release = match["release"]
        split.add((release, version))
        needed = [f"linux-modules-{release}", *_dependencies(package, "base", release)]
        parts = [known.get((need, version)) for need in needed]
        gone = [need for need, part in zip(needed, parts, strict=True) if part is None]
        found.append(
            Candidate(
                release,
                DebianVersion(version),
                suite,
                (package, *(part for part in parts if part is not None)),
                signed=match["unsigned"] is None,
                missing=_gone(gone[0], release) if gone else "",
            )
        )
    for (name, version), package in known.items():
        match = _IMAGE.match(name)
        if match is None or (match["release"], version) in split:
            continue
        release = match["release"]
        if flavour_of(release) != flavour:
            continue
        signed = match["before"] is None and match["after"] is None
        missing = ""
        mine = [package]
        if _dependencies(package, "binary", release):
            missing = _gone(f"linux-binary-{release}", release)
        elif modules := _dependencies(package, "modules", release):
            wanted = [_beside(package, by_name.get(name, ())) for name in modules]
            extra = _beside(package, by_name.get(f"linux-modules-extra-{release}", ()))
            mine += [part for part in (*wanted, extra) if part is not None]
            missing = _gone(f"linux-modules-{release}", release) if None in wanted else ""
        elif package.installed < _SMALLEST_IMAGE:
            continue  # a metapackage, which only depends on a kernel
        version_of = DebianVersion(version)
        found.append(Candidate(release, version_of, suite, tuple(mine), signed, missing))
    return sorted(found, key=rank)


def _beside(image: Package, modules: Iterable[Package]) -> Package | None:
    """Of packages with one name the one that goes with ``image``: its version, else the newest.

    Ubuntu signs an image in a source package of its own, whose version may be ``...+1``.
    """
    ranked = sorted(modules, key=lambda p: (p.version == image.version, DebianVersion(p.version)))
    return ranked[-1] if ranked else None


def _dependencies(package: Package, kind: str, release: str) -> list[str]:
    names = [
        f"linux-{found}-{rest}"
        for found, rest in _DEPENDENCY.findall(package.depends)
        if found == kind and rest == release
    ]
    return list(dict.fromkeys(names))


def _gone(package: str, release: str) -> str:
    kind = package.removesuffix(f"-{release}")
    return f"its {kind} package is no longer in the index"
