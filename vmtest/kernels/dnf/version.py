"""Versions of .rpm packages, in rpm's order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from vmtest.model.versions import PackageVersion

_SEGMENT = re.compile(r"~|\^|[A-Za-z]+|[0-9]+", re.ASCII)
_END = (-1, 0, "")


@dataclass(frozen=True, slots=True, eq=False)
class RpmVersion(PackageVersion):
    """``[EPOCH:]VERSION-RELEASE``, ordered as rpm's labelCompare does (rpm-version(7))."""

    @property
    def _key(self) -> tuple[object, ...]:
        return (self.epoch, _segments(self.upstream), _segments(self.revision))

    def compare(self, other: Self) -> int:
        """Negative, zero or positive, as rpm decides."""
        mine, theirs = self._key, other._key
        return (mine > theirs) - (mine < theirs)

    def __hash__(self) -> int:
        return hash(self._key)


def _segments(text: str) -> tuple[tuple[int, int, str], ...]:
    """What rpm compares one after the other: ``~``, then the end, ``^``, letters, a number."""
    return (*(_segment(found) for found in _SEGMENT.findall(text)), _END)


def _segment(text: str) -> tuple[int, int, str]:
    if text == "~":
        return (-2, 0, "")
    if text == "^":
        return (0, 0, "")
    if text[0].isalpha():
        return (1, 0, text)
    digits = text.lstrip("0")  # as a number of any length
    return (2, len(digits), digits)
