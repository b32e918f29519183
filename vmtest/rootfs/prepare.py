"""The guest image that a configuration asks for, from the mirrors that it means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vmtest.config.file import Config
from vmtest.host.debian import Mirrors, find_mirrors, mirrors_of
from vmtest.host.files import Files
from vmtest.model.kernels import RootImage
from vmtest.rootfs.image import prepare


def prepare_root(
    config: Config,
    cache: Path,
    log: Callable[[str], None] = lambda line: None,
    files: Files | None = None,
) -> RootImage:
    """The root of ``[guest]``, built when ``cache`` lacks it; ``log`` gets a line a step,
    ``files`` reads the wheels.

    The mirrors are those of the first ``[apt.NAME]``, else the host's.  Raises
    ImageError, and UsageError when no mirror is known.
    """
    archive = next(iter(config.archives.values()), None)

    def mirrors() -> Mirrors:
        if archive is None:
            return find_mirrors("debian")
        return mirrors_of(archive)

    return prepare(
        config.guest,
        cache,
        mirrors,
        check_valid_until=archive is None or archive.check_valid_until,
        log=log,
        files=files,
    )
