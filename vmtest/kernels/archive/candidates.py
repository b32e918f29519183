"""The kernels that an archive offers, and which of them a request means."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from vmtest.errors import UsageError
from vmtest.host.cache import sha256_json
from vmtest.model.versions import (
    KernelVersion,
    PackageVersion,
    VersionRange,
    check_version,
    is_pattern,
    series_of,
)

_SERIES = re.compile(r"^(\d+(?:\.\d+)*)(?:\.\*)?$")


@dataclass(frozen=True, slots=True)
class Package:
    """A package of an index; sizes in bytes, packed and unpacked.

    ``sha256`` is in hex; of an .rpm ``checksum`` names another algorithm where the repository
    has that, and ``place`` is its path there.
    """

    name: str
    version: str
    size: int
    installed: int
    sha256: str
    depends: str
    architecture: str = "amd64"
    checksum: str = "sha256"
    place: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A kernel that an index offers.

    ``packages`` are those a guest needs; ``missing`` says why it cannot boot all the
    same, empty when it can.  ``named`` is its key in the store, where its source names it.
    """

    release: str
    version: PackageVersion
    suite: str
    packages: tuple[Package, ...]
    signed: bool
    missing: str = ""
    named: str = ""

    @property
    def digest(self) -> str:
        """The sha256, in hex, over the names, versions and digests of the packages.

        Empty where the index has no packages, and only fetching the kernel tells.
        """
        if not self.packages:
            return ""
        return sha256_json([[p.name, p.version, p.sha256] for p in self.packages])

    @property
    def key(self) -> str:
        """What names it in the store."""
        return self.named or f"{self.release}_{self.version}-{self.digest[:12]}"

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


def rank(candidate: Candidate) -> tuple[PackageVersion, bool, bool]:
    """The key to sort by: version, then whether it boots, then whether it is signed."""
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
    return sorted(found, key=rank)


def releases(candidates: Iterable[Candidate]) -> list[Candidate]:
    """One candidate a distinct package version, oldest first.

    Of several with one version it is the one that :func:`matching` would take.
    """
    ranked = sorted(candidates, key=rank)
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
    ranked: Sequence[Candidate] = sorted((c for c in candidates if not c.missing), key=rank)
    if "-" in version and ranked:
        ranked = [list(group)[-1] for _, group in groupby(ranked, key=lambda c: c.version.text)]
        at = bisect.bisect_left([c.version for c in ranked], type(ranked[0].version)(version))
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
