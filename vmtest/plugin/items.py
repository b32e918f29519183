"""A test as pytest knows it, once for each kernel: ``test_x[6.12]``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import pytest

from vmtest.errors import UsageError
from vmtest.model.versions import KernelVersion, VersionRange

MARK = "kernel"


class KernelItem(pytest.Item):
    """``original`` in the guest of ``kernel``; ``unwanted`` says why it does not run there."""

    original: pytest.Item
    kernel: str
    unwanted: str

    @classmethod
    def of(cls, original: pytest.Item, kernel: str, version: KernelVersion | None) -> Self:
        """Marks, keywords and place are those of ``original``."""
        name = original.name
        name = f"{name[:-1]}-{kernel}]" if name.endswith("]") else f"{name}[{kernel}]"
        parent = original.parent
        assert parent is not None  # only a session has none
        # Written out: pytest 9.2 and later take a name apart, and --lf would know it no more.
        nodeid = f"{parent.nodeid}::{name}"
        item: Self = cls.from_parent(parent, name=name, nodeid=nodeid)
        item.original = original
        item.kernel = kernel
        item.unwanted = unwanted(original.iter_markers(MARK), version)
        item.own_markers = list(original.own_markers)
        item.keywords.update(dict(original.keywords))
        item.extra_keyword_matches |= {*original.extra_keyword_matches, original.name, kernel}
        return item

    def runtest(self) -> None:
        """Nothing: it runs in a guest, and ``Guests`` reports it."""

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """Where the original is, with this one's name."""
        place, line, _ = self.original.reportinfo()
        return place, line, self.name


def unwanted(marks: Iterable[pytest.Mark], version: KernelVersion | None) -> str:
    """Why a test with these ``kernel`` marks does not run on ``version``, "" where it does.

    A kernel whose version is not known runs everything.  Raises UsageError for a mark that holds
    no range.
    """
    for mark in marks:
        if len(mark.args) != 1 or not isinstance(mark.args[0], str):
            raise UsageError(f'@pytest.mark.{MARK}: write one range, as in {MARK}(">=6.1")')
        try:
            wanted = VersionRange.parse(mark.args[0])
        except ValueError as error:
            raise UsageError(f"@pytest.mark.{MARK}({mark.args[0]!r}): {error}") from error
        if version is not None and version not in wanted:
            return f"kernel {version} is not {wanted.text}"
    return ""


def files_of(items: Sequence[KernelItem]) -> list[Path]:
    """The files of the tests, each once, in their order."""
    return list(dict.fromkeys(item.original.path for item in items))
