"""What a project asks for: suites, objects, known failures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from vmtest.model.kernels import AptSpec, Archive, GuestSpec, Kernel, Network
from vmtest.model.versions import KernelVersion, VersionRange


@dataclass(frozen=True, slots=True)
class Suite:
    """One ``[[suite]]``: a pytest file or folder (absolute), the objects it needs by name.

    ``network`` is the card that its VMs get.  With a ``root`` (absolute) the project there goes
    along and pytest runs in it; ``pythonpath`` are folders below it that Python imports from,
    ``include`` and ``exclude`` patterns of its files, as in a ``.gitignore``.
    """

    name: str
    tests: Path
    objects: tuple[str, ...] = ()
    network: Network = Network.NONE
    root: Path | None = None
    pythonpath: tuple[Path, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loading:
    """How an object wants to be loaded, where its ELF file does not say.

    ``types`` is type, or ``type:attach type``, by program or pattern; ``max_entries``
    a number or ``cpus`` by map; ``globals`` values by variable; ``inner_maps`` the
    inner map's template by outer map; ``skip`` programs not to load; ``modules`` of the kernel
    are loaded before.
    """

    types: Mapping[str, str] = field(default_factory=dict)
    max_entries: Mapping[str, int | str] = field(default_factory=dict)
    globals: Mapping[str, Any] = field(default_factory=dict)
    inner_maps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectFile:
    """One ``[[object]]``: the build at ``path`` goes to kernels within ``kernels``.

    What is not ``required`` does not decide what ``vmtest verify`` ends with.
    """

    name: str
    path: Path
    kernels: VersionRange | None = None
    required: bool = True
    loading: Loading = field(default_factory=Loading)


_SEARCHED = 1000  # characters of a complaint's text


class _Known:
    """What is known of kernels within ``kernels``, up to the last day ``until`` (UTC)."""

    __slots__ = ()
    kernels: VersionRange | None
    until: date | None

    def concerns(self, version: KernelVersion) -> bool:
        """Whether it is about a kernel of ``version``."""
        return self.kernels is None or version in self.kernels

    def expired(self, today: date) -> bool:
        """Whether it no longer counts on ``today``."""
        return self.until is not None and today > self.until


@dataclass(frozen=True, slots=True)
class KnownFailure(_Known):
    """One ``[[known_failure]]``: tests that are expected to fail on kernels within ``kernels``.

    ``test`` is a pattern for pytest's node ids (``vmtest.guest.plugins.patterns``), ``until`` the
    last day (UTC) on which it counts.  One that is not ``strict`` may pass as well.
    """

    test: str
    reason: str
    kernels: VersionRange | None = None
    until: date | None = None
    strict: bool = True


@dataclass(frozen=True, slots=True)
class FlakyTest(_Known):
    """One ``[[flaky]]``: tests that fail sometimes on kernels within ``kernels``, and run again.

    ``test`` is a pattern as of a KnownFailure, ``until`` the last day (UTC) on which they run
    again, ``limit`` the part of the runs (0 to 1) in which they may fail at first.
    """

    test: str
    reason: str
    kernels: VersionRange | None = None
    until: date | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class KnownSplat(_Known):
    """One ``[[known_splat]]``: a complaint of kernels within ``kernels`` that does not count.

    ``pattern`` stands anywhere in its text or its fingerprint (``vmtest.model.splats``), ``*`` for
    any characters and ``?`` for one; ``until`` is the last day (UTC) on which it counts.
    """

    pattern: str
    reason: str
    kernels: VersionRange | None = None
    until: date | None = None

    def matches(self, text: str, fingerprint: str) -> bool:
        """Whether a complaint is this one."""
        parts = re.split(r"(\*+|\?)", self.pattern)
        wild = {"*": ".*", "?": "."}
        found = re.compile("".join(wild.get(part[:1]) or re.escape(part) for part in parts))
        return bool(found.search(text[:_SEARCHED]) or found.search(fingerprint))


def network_of(suites: Iterable[Suite]) -> Network:
    """The card that a VM needs for all of ``suites``."""
    wanted = {suite.network for suite in suites}
    return next((n for n in (Network.OUTBOUND, Network.CLOSED) if n in wanted), Network.NONE)


@dataclass(frozen=True, slots=True)
class Config:
    """A valid kernels.toml; every path in it is absolute, relative to the file's folder."""

    file: Path
    kernels: tuple[Kernel, ...]
    suites: tuple[Suite, ...]
    objects: tuple[ObjectFile, ...]
    archives: Mapping[str, Archive]
    guest: GuestSpec
    build: tuple[str, ...] | None
    known_failures: tuple[KnownFailure, ...] = ()
    known_splats: tuple[KnownSplat, ...] = ()
    flaky: tuple[FlakyTest, ...] = ()
    defaults: Kernel = field(default_factory=lambda: Kernel("", AptSpec("", "*")))
    """What ``[defaults]`` makes of a kernel that says nothing itself: no source, no name."""

    @property
    def directory(self) -> Path:
        """The project's folder: where kernels.toml is."""
        return self.file.parent
