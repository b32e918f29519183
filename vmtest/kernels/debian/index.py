"""The kernels that a Debian package index offers, and which of them a request means."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from vmtest.errors import UsageError
from vmtest.host.cache import sha256_json
from vmtest.host.debian import DebianVersion, paragraphs
from vmtest.model.versions import KernelVersion, VersionRange, check_version, is_pattern, series_of

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
_SERIES = re.compile(r"^(\d+(?:\.\d+)*)(?:\.\*)?$")


@dataclass(frozen=True, slots=True)
class Package:
    """A package of an index; sizes in bytes, packed and unpacked."""

    name: str
    version: str
    size: int
    installed: int
    sha256: str
    depends: str
    architecture: str = "amd64"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A kernel that an index offers.

    ``packages`` are those a guest needs; ``missing`` says why it cannot boot all the
    same, empty when it can.
    """

    release: str
    version: DebianVersion
    suite: str
    packages: tuple[Package, ...]
    signed: bool
    missing: str = ""

    @property
    def digest(self) -> str:
        """The sha256, in hex, over the names, versions and digests of the packages."""
        return sha256_json([[p.name, p.version, p.sha256] for p in self.packages])

    @property
    def key(self) -> str:
        """What names it in the store."""
        return f"{self.release}_{self.version}-{self.digest[:12]}"

    @property
    def kernel_version(self) -> KernelVersion:
        """The upstream version; its text is the package version."""
        return KernelVersion.parse(self.version.text.partition(":")[2] or self.version.text)

    @property
    def size(self) -> int:
        """What a download costs, in bytes."""
        return sum(package.size for package in self.packages)

    @property
    def installed(self) -> int:
        """What the packages take unpacked, in bytes."""
        return sum(package.installed for package in self.packages)


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
    return sorted(found, key=_rank)


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


def _rank(candidate: Candidate) -> tuple[DebianVersion, bool, bool]:
    return (candidate.version, candidate.missing == "", candidate.signed)


def matching(candidates: Iterable[Candidate], version: str) -> list[Candidate]:
    """The candidates that ``version`` means, oldest first; for a pattern only bootable ones."""
    check_version(version)
    if version == "*":
        found = [c for c in candidates if not c.missing]
    elif wanted := series_of(version):
        found = [
            c
            for c in candidates
            if not c.missing and c.kernel_version.numbers[: len(wanted)] == wanted
        ]
    else:
        found = [c for c in candidates if version in (c.version.text, c.version.upstream)]
    return sorted(found, key=_rank)


def releases(candidates: Iterable[Candidate]) -> list[Candidate]:
    """One candidate a distinct package version, oldest first.

    Of several with one version it is the one that :func:`matching` would take.
    """
    ranked = sorted(candidates, key=_rank)
    return [list(group)[-1] for _, group in groupby(ranked, key=lambda c: c.version)]


def selected(candidates: Iterable[Candidate], pattern: str) -> list[Candidate]:
    """The candidates, bootable or not, that a listing's ``pattern`` shows, in their order.

    A range (``>=6.1,<6.13``), a series (``6.12``, ``6.12.*``), a version, a package
    version, or ``*``.  Raises UsageError when it is none of these.
    """
    if VersionRange.looks_like(pattern):
        try:
            wanted = VersionRange.parse(pattern)
        except ValueError as error:
            raise UsageError(f"{pattern}: {error}") from error
        return [c for c in candidates if c.kernel_version in wanted]
    if series := _SERIES.match(pattern):
        numbers = tuple(int(number) for number in series.group(1).split("."))
        return [c for c in candidates if c.kernel_version.numbers[: len(numbers)] == numbers]
    check_version(pattern)
    return [c for c in candidates if pattern in ("*", c.version.text, c.version.upstream)]


def nearest(candidates: Iterable[Candidate], version: str, count: int = 2) -> list[Candidate]:
    """The bootable candidates next to ``version``, below and above, oldest first.

    Next to a pattern stand the newest of the neighbouring series, next to a package's version
    packages, else the newest package of each upstream version.
    """
    ranked: Sequence[Candidate] = sorted((c for c in candidates if not c.missing), key=_rank)
    if "-" in version:
        ranked = [list(group)[-1] for _, group in groupby(ranked, key=lambda c: c.version.text)]
        at = bisect.bisect_left([c.version for c in ranked], DebianVersion(version))
        return list(ranked[max(0, at - count) : at + count])
    numbers = [int(n) for n in re.findall(r"\d+", version.partition("-")[0])[:3]]
    if is_pattern(version):
        width = max(1, len(numbers))
        ranked = [
            list(group)[-1]
            for _, group in groupby(ranked, key=lambda c: c.kernel_version.numbers[:width])
        ]
    else:
        ranked = [list(group)[-1] for _, group in groupby(ranked, key=lambda c: c.version.upstream)]
    target = tuple(numbers + [0] * (3 - len(numbers)))
    at = bisect.bisect_left([c.kernel_version.numbers for c in ranked], target)
    return list(ranked[max(0, at - count) : at + count])
