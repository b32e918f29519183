"""Versions of kernels, and ranges of them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import total_ordering
from typing import Self

from vmtest.errors import UsageError

# Numbers of at most 9 digits: no version has more, and Python reads no number of any length.
_VERSION = re.compile(
    r"v?(\d{1,9})\.(\d{1,9})(?!\d)(?:\.(\d{1,9})(?!\d))?(?:[-~]?rc(\d{1,9})(?!\d))?", re.ASCII
)
_SERIES = re.compile(r"(\d{1,9}(?:\.\d{1,9})*)\.\*", re.ASCII)
_CONSTRAINT = re.compile(r"(>=|<=|==|!=|>|<)\s*v?(\d{1,9}(?:\.\d{1,9}){0,2})", re.ASCII)


@total_ordering
@dataclass(frozen=True, slots=True)
class KernelVersion:
    """An upstream version such as 6.12.117 or 7.3-rc2; release candidates sort before it.

    ``text`` is what it was parsed from (a Debian package version, a release
    string) and does not take part in comparisons.
    """

    major: int
    minor: int
    patch: int
    rc: int | None
    text: str

    @classmethod
    def parse(cls, text: str) -> KernelVersion:
        """Read the leading version of ``text``; raises ValueError when there is none."""
        match = _VERSION.match(text)
        if match is None:
            raise ValueError(f"{text!r} does not begin with a kernel version such as 6.12.117")
        major, minor, patch, rc = match.groups()
        return cls(int(major), int(minor), int(patch or 0), int(rc) if rc else None, text)

    @property
    def numbers(self) -> tuple[int, int, int]:
        """Major, minor and patch."""
        return (self.major, self.minor, self.patch)

    @property
    def _key(self) -> tuple[int, int, int, int]:
        final = 1 << 30
        return (*self.numbers, final if self.rc is None else self.rc)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KernelVersion) and self._key == other._key

    def __lt__(self, other: KernelVersion) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __str__(self) -> str:
        rc = "" if self.rc is None else f"-rc{self.rc}"
        patch = f".{self.patch}" if self.patch or self.rc is None else ""
        return f"{self.major}.{self.minor}{patch}{rc}"


@dataclass(frozen=True, slots=True, eq=False)
class PackageVersion(ABC):
    """``[EPOCH:]UPSTREAM[-REVISION]``, a package's version in the order of its archive."""

    text: str

    @property
    def epoch(self) -> int:
        """The number before the colon, 0 without one (of 9 digits at most)."""
        head, colon, _ = self.text.partition(":")
        return int(head) if colon and re.fullmatch(r"[0-9]{1,9}", head) else 0

    @property
    def upstream(self) -> str:
        """The upstream version: ``6.12.117`` of ``6.12.117-1``."""
        rest = self.text.partition(":")[2] if ":" in self.text else self.text
        return rest.rpartition("-")[0] if "-" in rest else rest

    @property
    def revision(self) -> str:
        """The distribution's revision: ``1~deb12u1`` of ``6.12.117-1~deb12u1``."""
        return self.text.rpartition("-")[2] if "-" in self.text else ""

    @abstractmethod
    def compare(self, other: Self) -> int:
        """Negative, zero or positive, as the archive's own tools decide."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.compare(other) == 0

    def __lt__(self, other: Self) -> bool:
        return self.compare(other) < 0

    def __le__(self, other: Self) -> bool:
        return self.compare(other) <= 0

    @abstractmethod
    def __hash__(self) -> int:
        """The same for versions that are equal."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class VersionRange:
    """A conjunction of constraints such as ``>=6.1,<6.13``.

    A constraint compares as many numbers as it names: ``<=6.12`` and ``==6.12``
    hold for every 6.12.x, ``>6.12`` for none of them.
    """

    constraints: tuple[tuple[str, tuple[int, ...]], ...]
    text: str

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Read ``text``; raises ValueError naming the part that is not a constraint."""
        constraints = []
        for part in text.split(","):
            match = _CONSTRAINT.fullmatch(part.strip())
            if match is None:
                raise ValueError(
                    f"{part.strip()!r} is not a version constraint; write for example '>=6.1,<6.13'"
                )
            numbers = tuple(int(n) for n in match.group(2).split("."))
            constraints.append((match.group(1), numbers))
        return cls(tuple(constraints), text)

    @staticmethod
    def looks_like(text: str) -> bool:
        """Whether ``text`` is meant as a range (rather than a name)."""
        return text[:1] in "<>=!" and text != ""

    def __contains__(self, version: KernelVersion) -> bool:
        def holds(operator: str, wanted: tuple[int, ...]) -> bool:
            have = version.numbers[: len(wanted)]
            tests: dict[str, bool] = {
                ">=": have >= wanted,
                "<=": have <= wanted,
                ">": have > wanted,
                "<": have < wanted,
                "==": have == wanted,
                "!=": have != wanted,
            }
            return tests[operator]

        return all(holds(operator, wanted) for operator, wanted in self.constraints)


def unique(values: Iterable[str]) -> tuple[str, ...]:
    """``values`` without repeats, in their first order."""
    return tuple(dict.fromkeys(values))


def is_pattern(version: str) -> bool:
    """Whether ``version`` asks for the newest of many."""
    return version == "*" or series_of(version) is not None


def series_of(version: str) -> tuple[int, ...] | None:
    """``(6, 12)`` of the pattern ``6.12.*``; None for what is not such a pattern."""
    match = _SERIES.fullmatch(version)
    return match and tuple(int(number) for number in match.group(1).split("."))


def check_version(version: str) -> None:
    """Raise UsageError when ``version`` is neither a version nor a pattern."""
    if is_pattern(version) or ("*" not in version and re.match(r"\d+\.\d+", version)):
        return
    raise UsageError(
        f"version = {version!r} is neither a version (6.12.117, 6.12.117-1) nor a pattern "
        f"(6.12.*, *)"
    )
