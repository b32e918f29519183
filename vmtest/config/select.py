"""Which kernels and suites of a configuration the words of a command line mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from vmtest.config.suggest import suggestion
from vmtest.errors import UsageError
from vmtest.model.kernels import Kernel
from vmtest.model.project import Config, Suite
from vmtest.model.versions import KernelVersion, VersionRange

_VERSION = re.compile(r"v?\d+(\.\d+)+[\w.+~-]*")
_NAMES = 20  # of kernels in a message


def select_kernels(
    kernels: Sequence[Kernel],
    patterns: Sequence[str],
    versions: Mapping[str, KernelVersion],
) -> tuple[Kernel, ...]:
    """The kernels that ``--kernel`` patterns mean, in the order of the file.

    A pattern is an exact name, ``tag:NAME`` or a version range.  ``versions``
    has what the resolved kernels are; one that could not be resolved counts as
    within a range when nothing says otherwise, so that it is never lost
    silently.  No pattern means ``tag:default``, or all when nothing carries it.
    Raises UsageError for a pattern that means nothing.
    """
    if not patterns:
        tagged = tuple(kernel for kernel in kernels if "default" in kernel.tags)
        return tagged or tuple(kernels)
    chosen: set[str] = set()
    for pattern in patterns:
        found = _matching(kernels, pattern, versions)
        if not found:
            names = ", ".join(kernel.name for kernel in kernels)
            raise UsageError(
                f"`kernels` {pattern}: no kernel is within this range (there are: {names})"
            )
        chosen.update(found)
    return tuple(kernel for kernel in kernels if kernel.name in chosen)


def _matching(
    kernels: Sequence[Kernel], pattern: str, versions: Mapping[str, KernelVersion]
) -> set[str]:
    names = {kernel.name for kernel in kernels}
    tags = {tag for kernel in kernels for tag in kernel.tags}
    if pattern.startswith("tag:"):
        tag = pattern.removeprefix("tag:")
        if tag not in tags:
            raise UsageError(
                f'`kernels` {pattern}: no kernel has the tag "{tag}"{suggestion(tag, tags)}'
            )
        return {kernel.name for kernel in kernels if tag in kernel.tags}
    if VersionRange.looks_like(pattern):
        try:
            wanted = VersionRange.parse(pattern)
        except ValueError as error:
            raise UsageError(f"`kernels` {pattern}: {error}") from error
        return {name for name in names if name not in versions or versions[name] in wanted}
    if pattern not in names:
        cure = _cure(kernels, pattern)
        raise UsageError(f'`kernels` {pattern}: there is no kernel "{pattern}"{cure}')
    return {pattern}


def _cure(kernels: Sequence[Kernel], pattern: str) -> str:
    """The kernels that there are; a version may be had without being one of them."""
    names = [kernel.name for kernel in kernels]
    there = f" (there are: {', '.join(names)})" if names else ""
    if len(names) > _NAMES:
        there = suggestion(pattern, names)
    if not _VERSION.fullmatch(pattern):
        return there
    return (
        f"{there}; any version of an archive is ARCHIVE/VERSION: "
        f"vmtest kernels available {pattern} lists them"
    )


def packaged(config: Config, pattern: str) -> Kernel | None:
    """The kernel that ``--kernel ARCHIVE/VERSION`` means, or None when ``pattern`` is not that.

    It need not be in the file; it has its ``[defaults]``.  Raises UsageError for an archive
    that is not there.
    """
    archive, separator, version = pattern.partition("/")
    if not separator or pattern.startswith("tag:"):
        return None
    if archive not in config.archives:
        raise UsageError(
            f"`kernels` {pattern}: kernels.toml has no archive {archive}"
            f"{suggestion(archive, config.archives)}"
        )
    return replace(config.defaults, name=version, spec=config.archives[archive].ask(version))


def needs_versions(patterns: Sequence[str]) -> bool:
    """Whether ``select_kernels`` has to know what the kernels resolve to."""
    return any(VersionRange.looks_like(pattern) for pattern in patterns)


def select_suites(suites: Sequence[Suite], names: Sequence[str]) -> tuple[Suite, ...]:
    """The suites called ``names`` in the order of the file, all without any; raises UsageError."""
    known = {suite.name for suite in suites}
    for name in names:
        if name not in known:
            raise UsageError(
                f'`suites` {name}: there is no suite "{name}"{suggestion(name, known)}'
            )
    return tuple(suite for suite in suites if not names or suite.name in names)
