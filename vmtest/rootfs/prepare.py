"""The guest image and the libbpf that a configuration asks for, from the mirrors that it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vmtest.errors import UsageError
from vmtest.host.debian import Mirrors, find_mirrors, mirrors_of
from vmtest.host.files import Files
from vmtest.model.kernels import AptArchive, Library, RootImage
from vmtest.model.project import Config
from vmtest.rootfs.image import prepare
from vmtest.rootfs.libbpf import Shelf


def prepare_root(
    config: Config,
    cache: Path,
    log: Callable[[str], None] = lambda line: None,
    files: Files | None = None,
) -> RootImage:
    """The root of ``[guest]``, built when ``cache`` lacks it; ``log`` gets a line a step,
    ``files`` reads the wheels and the user's own libbpf.

    The mirrors are those of the first ``[apt.NAME]`` of Debian's, else the host's.  Raises
    ImageError, and UsageError when no mirror is known or the user's libbpf is not a libbpf.
    """
    apt = (one for one in config.archives.values() if isinstance(one, AptArchive))
    archive = next((one for one in apt if one.distribution == "debian"), None)

    def mirrors() -> Mirrors:
        if archive is None:
            return find_mirrors("debian")
        return mirrors_of(archive)

    files = files or Files()
    shelf = Shelf(cache, mirrors, archive, (config.guest.suite,), files)
    taken = [shelf.take(wanted, log) for wanted in config.guest.libbpf]  # before a long build
    root = prepare(
        config.guest,
        cache,
        mirrors,
        check_valid_until=archive is None or archive.check_valid_until,
        log=log,
        files=files,
    )
    notes = (root.note, *(note for _, note in taken))
    return replace(
        root,
        note="; ".join(filter(None, notes)),
        libraries=distinct([library for library, _ in taken]),
    )


def distinct(libraries: Sequence[Library]) -> tuple[Library, ...]:
    """``libraries``, each once: ``newest`` may be one that is named beside it.

    A report tells them apart by their versions: raises UsageError for two files of one version.
    """
    found: dict[str, Library] = {}
    for library in libraries:
        known = found.setdefault(library.version, library)
        if known.sha256 != library.sha256:
            raise UsageError(
                f"[guest] libbpf: {known.origin} and {library.origin} are both libbpf "
                f"{library.version}, and a report could not tell them apart; run them one by one"
            )
    return tuple(found.values())
