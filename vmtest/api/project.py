"""Which kernels.toml a call is about."""

from __future__ import annotations

from pathlib import Path

from vmtest.config import file as configuration
from vmtest.model.project import Config


def load_config(file: Path | None = None) -> Config:
    """The configuration in ``file``, or that of the nearest kernels.toml from here upwards.

    Raises UsageError for a file that is not there or that does not hold.
    """
    return configuration.load(file if file is not None else configuration.find(Path.cwd()))


def load_config_or_builtin(file: Path | None = None) -> Config:
    """As ``load_config``, or the built-in matrix where there is no kernels.toml at all."""
    here = Path.cwd()
    upwards = (folder / "kernels.toml" for folder in (here, *here.parents))
    if file is None and not any(candidate.is_file() for candidate in upwards):
        return configuration.builtin(here)
    return load_config(file)
