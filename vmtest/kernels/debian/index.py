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
    r"^Package: linux-(?:image|binary|modules|base)-(?:unsigned-)?\d[^\n]*-amd64[^\n]*\n"
    r"(?:[^\n]+\n)*",
    re.MULTILINE,
)
_RELEASE = r"(?P<release>\d+\.\d+[^\s]*-amd64)"
_IMAGE = re.compile(rf"linux-image-{_RELEASE}(?P<unsigned>-unsigned)?$")
_BINARY = re.compile(rf"linux-binary-(?P<unsigned>unsigned-)?{_RELEASE}$")
_OTHER_FLAVOUR = re.compile(r"-(cloud|rt|dbg)(-|$)|-signed-template")
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
    return _packages(text, _STANZA)


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
        )
        for match in stanza.finditer(text)
        for fields in paragraphs(match.group())
    ]


def find_candidates(packages: Iterable[Package], suite: str) -> list[Candidate]:
    """The generic kernels in an index, oldest first, bootable or not.

    Before 6.19 one package holds a kernel; since then ``linux-image-*`` is empty and
    the kernel is in ``linux-binary-*``, ``linux-modules-*`` and ``linux-base-*``.
    """
    known = {(p.name, p.version): p for p in packages if not _OTHER_FLAVOUR.search(p.name)}
    found: list[Candidate] = []
    split: set[tuple[str, str]] = set()
    for (name, version), package in known.items():
        match = _BINARY.match(name)
        if match is None:
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
        signed = match["unsigned"] is None
        missing = ""
        if _dependencies(package, "binary", release):
            missing = _gone(f"linux-binary-{release}", release)
        elif package.installed < _SMALLEST_IMAGE:
            continue  # a metapackage, which only depends on a kernel
        found.append(Candidate(release, DebianVersion(version), suite, (package,), signed, missing))
    return sorted(found, key=_rank)


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
