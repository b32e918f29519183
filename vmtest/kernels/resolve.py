"""Which kernels were asked for, and what they are today."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path

from vmtest.config import select
from vmtest.errors import InfrastructureError, UsageError, VmtestError
from vmtest.host import attempts
from vmtest.kernels import Store, source_for
from vmtest.kernels.lock import file as lockfile
from vmtest.model.kernels import Kernel, Resolved
from vmtest.model.project import Config
from vmtest.model.versions import check_version, is_pattern


def check_patterns(settings: Config, patterns: Sequence[str], locked: bool = False) -> int:
    """How many kernels ``patterns`` mean at most, before anything is built.

    Raises UsageError for a pattern that cannot mean anything, and with ``locked`` when
    kernels.lock does not fit.
    """
    if locked:
        return len(choose_kernels(settings, patterns, Path(), locked)[0])
    own = [pattern for pattern in patterns if select.packaged(settings, pattern) is None]
    chosen = select.select_kernels(settings.kernels, own, {})
    others = len(set(patterns)) - len(set(own))
    return others + (len(chosen) if own or not others else 0)


def choose_kernels(
    settings: Config, patterns: Sequence[str], cache: Path, locked: bool = False
) -> tuple[tuple[Kernel, ...], dict[str, Resolved]]:
    """The kernels that ``patterns`` mean; the index is read only where a range asks for it.

    ``ARCHIVE/VERSION`` is a kernel that need not be in kernels.toml; such follow the others.

    With ``locked`` they are those of kernels.lock; raises UsageError when it does not fit.
    """
    if locked:
        lock = lockfile.read(lockfile.beside(settings.file))
        known = {name: entry.kernel_version for name, entry in lock.items()}
        chosen = select.select_kernels(settings.kernels, patterns, known)
        return lockfile.pin(chosen, lock, settings.directory), {}
    own = [select.packaged(settings, pattern) for pattern in patterns]
    extra = tuple({k.name: k for k in own if k is not None}.values())
    patterns = [p for p, kernel in zip(patterns, own, strict=True) if kernel is None]
    for kernel in extra:
        check_version(kernel.name)
        if is_pattern(kernel.name):
            raise UsageError(f"`kernels` .../{kernel.name}: write one version, such as 6.12.117-1")
    resolved: dict[str, Resolved] = {}
    if extra and not patterns:
        return extra, resolved
    if select.needs_versions(patterns):
        resolved, _ = resolve_all(settings, settings.kernels, Store(cache))
    versions = {name: found.version for name, found in resolved.items()}
    chosen = select.select_kernels(settings.kernels, patterns, versions)
    names = {kernel.name for kernel in chosen}
    return (*chosen, *(kernel for kernel in extra if kernel.name not in names)), resolved


def resolve_all(
    config: Config, kernels: Sequence[Kernel], store: Store
) -> tuple[dict[str, Resolved], dict[str, VmtestError]]:
    """What every kernel of ``kernels`` means today, and why the others mean nothing."""
    found: dict[str, Resolved] = {}
    failed: dict[str, VmtestError] = {}

    def one(kernel: Kernel) -> Resolved | VmtestError:
        try:
            with attempts.kept() as lines:
                resolved = source_for(kernel, config.archives).resolve(kernel, store)
            return replace(resolved, note="; ".join(filter(None, (resolved.note, *lines))))
        except InfrastructureError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        # Whoever is told of attempts here is told of theirs.
        asked = [pool.submit(copy_context().run, one, kernel) for kernel in kernels]
        for kernel, future in zip(kernels, asked, strict=True):
            answer = future.result()
            if isinstance(answer, Resolved):
                found[kernel.name] = answer
            else:
                failed[kernel.name] = answer
    return found, failed
