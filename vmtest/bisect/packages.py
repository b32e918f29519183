"""The packages of an archive as the points of a bisect."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from vmtest.bisect.question import Find, Point, Question
from vmtest.config.suggest import suggestion
from vmtest.errors import UsageError
from vmtest.kernels import Store, archive_source
from vmtest.kernels.archive.source import OutOfOrder
from vmtest.model.kernels import MAINLINE, Archive, ArchiveSpec, Kernel
from vmtest.model.project import Config
from vmtest.model.versions import check_version

_SERIES = re.compile(r"\d+\.\d+")


def archive_of(settings: Config, name: str | None) -> Archive:
    """The archive called ``name``, or the only one; raises UsageError."""
    archives = settings.archives
    if not archives:
        raise UsageError(
            f"{settings.file}: there is no [apt.NAME] nor [dnf.NAME], so there are no "
            f"packages to go through; "
            f'add one, for example [apt.debian] with suites = ["trixie-security"]'
        )
    named = [one for one in archives if one != MAINLINE] or list(archives)
    if name is None and len(named) > 1:
        raise UsageError(f"{settings.file}: has several archives; choose one with `archive` NAME")
    chosen = named[0] if name is None else name
    if chosen not in archives:
        raise UsageError(
            f"`archive` {name}: kernels.toml has no archive {name}{suggestion(chosen, archives)}"
        )
    return archives[chosen]


def question_of(
    settings: Config, archive: Archive, store: Store, asked: dict[str, Any]
) -> Question:
    """What is looked for between the ends in ``asked``, which has the options of a bisect.

    Raises UsageError for ends that are not two packages in order, InfrastructureError for an
    index that could not be read.
    """
    source, fixed = archive_source(archive), asked["find"] == Find.FIXED
    good, bad = asked["good"], asked["bad"]
    older, newer = (bad, good) if fixed else (good, bad)
    words_of = ("`bad`", "`good`") if fixed else ("`good`", "`bad`")
    first, last = (
        _version(settings, archive, store, word, end)
        for word, end in zip(words_of, (older, newer), strict=True)
    )
    try:
        span = source.between(first, last, settings.defaults, store, cached=asked["cached"])
    except OutOfOrder as error:
        other = Find.BROKEN if fixed else Find.FIXED
        raise UsageError(
            f"{error}: with `find` {asked['find']}, `{'bad' if fixed else 'good'}` is the older "
            f"end; swap them, or did you mean `find` {other.value}?"
        ) from error
    if len(span.kernels) < 2:
        raise UsageError(
            f"`good` {good} `bad` {bad}: both are {span.kernels[0].name}; choose another end"
        )
    return Question(
        asked,
        tuple(map(_point, span.kernels)),
        find_fixed=fixed,
        repeat=asked["repeat"],
        any_failure=asked.get("any_failure", False),
        gone=tuple(map(_point, span.gone)),
        left_out=tuple(map(_point, span.left_out)),
    )


def _version(settings: Config, archive: Archive, store: Store, word: str, written: str) -> str:
    """What an end as it was written asks the archive for: a version or a pattern."""
    named = [kernel for kernel in settings.kernels if kernel.name == written]
    if not named:
        version = f"{written}.*" if _SERIES.fullmatch(written) else written
        try:
            check_version(version)
        except UsageError:
            names = {kernel.name for kernel in settings.kernels}
            raise UsageError(
                f"{word} {written}: is not a version (6.12.117, 6.12.117-1, 6.12 for its newest), "
                f"nor a kernel of {settings.file.name}{suggestion(written, names)}"
            ) from None
        return version
    spec = named[0].spec
    if not isinstance(spec, ArchiveSpec) or spec.archive != archive.name:
        raise UsageError(
            f'{settings.file.name}: kernel "{written}" is not a package of {archive.label}; '
            f"a bisect goes through its packages: write a version"
        )
    return archive_source(archive).resolve(named[0], store).version.text


def _point(kernel: Kernel) -> Point:
    assert isinstance(kernel.spec, ArchiveSpec)
    spec = kernel.spec
    return Point(kernel.name, spec.version, spec.suites[0], table=spec.table)


def pinned(settings: Config, archive: Archive, point: Point) -> Kernel:
    """The kernel that a point of such a question means."""
    spec = archive.ask(point.version, (point.suite,))
    return replace(settings.defaults, name=point.name, spec=spec)
