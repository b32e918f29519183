"""Which kernels.toml a call is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmtest.config import file as configuration
from vmtest.kernels import Store, default_cache
from vmtest.kernels.resolve import choose_kernels, resolve_all
from vmtest.model.project import Config
from vmtest.model.versions import KernelVersion


def load_config(file: Path | None = None) -> Config:
    """The configuration in ``file``, or that of the nearest kernels.toml from here upwards.

    Raises UsageError for a file that is not there or that does not hold.
    """
    return configuration.load(file if file is not None else configuration.find(Path.cwd()))


def name_kernels(
    settings: Config, patterns: Sequence[str], versions: bool = True
) -> dict[str, KernelVersion | None]:
    """The names of the kernels that ``patterns`` mean, and what they are today.

    Without ``versions`` the index is read only where a range needs it.  A kernel whose version
    cannot be had has None.  Raises UsageError for a pattern that means nothing.
    """
    cache = default_cache()
    kernels, resolved = choose_kernels(settings, patterns, cache)
    if versions:
        missing = [kernel for kernel in kernels if kernel.name not in resolved]
        resolved = resolved | resolve_all(settings, missing, Store(cache))[0]
    known = {name: found.version for name, found in resolved.items()}
    return {kernel.name: known.get(kernel.name) for kernel in kernels}


def load_config_or_builtin(file: Path | None = None) -> Config:
    """As ``load_config``, or the built-in matrix where there is no kernels.toml at all."""
    here = Path.cwd()
    upwards = (folder / "kernels.toml" for folder in (here, *here.parents))
    if file is None and not any(candidate.is_file() for candidate in upwards):
        return configuration.builtin(here)
    return load_config(file)
