"""The guest image, libbpf and wheels that a configuration asks for, from the mirrors it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from packaging.utils import canonicalize_name

from vmtest.errors import UsageError
from vmtest.host.debian import Mirrors, find_mirrors, mirrors_of
from vmtest.host.files import Files
from vmtest.model.kernels import AptArchive, GuestSpec, InstalledWheel, Library, RootImage
from vmtest.model.project import Config
from vmtest.rootfs import lock as lockfile
from vmtest.rootfs.guestpython import python_of
from vmtest.rootfs.image import prepare
from vmtest.rootfs.libbpf import Shelf
from vmtest.rootfs.lock import Lock
from vmtest.rootfs.overlay import check_together, install_wheel, wheel_digests
from vmtest.rootfs.pytests import check_pytest
from vmtest.rootfs.requirements import resolve, resolve_anew, resolve_locked


def prepare_root(
    config: Config,
    cache: Path,
    log: Callable[[str], None] = lambda line: None,
    files: Files | None = None,
    wheels: bool = True,
) -> RootImage:
    """The root of ``[guest]``, built when ``cache`` lacks it; ``log`` gets a line a step,
    ``files`` reads the wheels and the user's own libbpf.  Without ``wheels`` it has none.

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
    # Before a long build:
    taken = [shelf.take(wanted, log) for wanted in config.guest.libbpf]
    lock = None
    if wheels:
        wheel_digests(config.guest, files)
        lock = _lock_of(config, files)
    root = prepare(
        config.guest,
        cache,
        mirrors,
        check_valid_until=archive is None or archive.check_valid_until,
        log=log,
    )
    notes = (root.note, *(note for _, note in taken))
    return replace(
        root,
        note="; ".join(filter(None, notes)),
        libraries=distinct([library for library, _ in taken]),
        wheels=_wheels(config.guest, root, lock, cache, log, files) if wheels else (),
    )


def _lock_of(config: Config, files: Files) -> Lock | None:
    """The guest.lock of ``config``, where it has something to lock; raises UsageError."""
    guest = config.guest
    if not (guest.requirements or guest.pytest):
        return None
    lock = lockfile.find(config.file, files)
    if lock is not None:
        lock.check(guest.requirements, guest.pytest)
    return lock


def lock_wheels(config: Config, cache: Path, log: Callable[[str], None]) -> Lock:
    """What ``[guest]`` resolves to today, for its guest.lock; raises as `prepare_root` does."""
    guest = config.guest
    if not (guest.requirements or guest.pytest):
        raise UsageError(
            f"{config.file}: [guest] has no requirements, extras or pytest, so there is nothing "
            "to lock; kernels are locked with: vmtest kernels lock"
        )
    root = prepare_root(config, cache, log, wheels=False)
    python = python_of(_image(guest, root))
    log(f"resolving {', '.join(filter(None, (*guest.requirements, guest.pytest)))}")
    wheels = resolve_anew(guest.requirements, guest.pytest, python, cache)
    return Lock(lockfile.beside(config.file), python.version, guest.pytest, wheels)


def wheels_asked(
    config: Config, cache: Path, log: Callable[[str], None], files: Files
) -> list[str]:
    """What tells the guest's wheels from others: digests, also of those that pip finds.

    What requirements come to may be others on another day, and only for a guest's Python: the
    root is built for them.  Raises as :func:`prepare_root` does.
    """
    guest = config.guest
    if not (guest.requirements or guest.pytest):
        return wheel_digests(guest, files)
    return sorted(wheel.sha256 for wheel in prepare_root(config, cache, log, files).wheels)


def _image(guest: GuestSpec, root: RootImage) -> Path:
    """The image of ``root``, over which wheels are laid; raises UsageError where it has none."""
    if guest.root != "debian" or root.path is None:
        raise UsageError(
            "[guest] wheels, requirements and pytest are laid over an image that vmtest builds "
            f'(root = "debian"), and root is "{guest.root}"; install them there, and take them '
            "out of kernels.toml"
        )
    return root.path


def _wheels(
    guest: GuestSpec,
    root: RootImage,
    lock: Lock | None,
    cache: Path,
    log: Callable[[str], None],
    files: Files,
) -> tuple[InstalledWheel, ...]:
    """What ``guest`` lays over ``root``: what requirements come to, then the wheels it names."""
    if not (guest.wheels or guest.requirements or guest.pytest):
        return ()
    python = python_of(_image(guest, root))
    found: tuple[Path, ...] = ()
    if guest.requirements or guest.pytest:
        own = {_package(wheel) for wheel in guest.wheels}
        asked = guest.requirements, guest.pytest, python
        if lock is None:
            resolved = resolve(*asked, cache, log)
        else:
            resolved = resolve_locked(*asked, lock, cache, log)
        found = tuple(wheel for wheel in resolved if _package(wheel) not in own)
    wheels = (*found, *guest.wheels)
    check_pytest(wheels, python, files)
    installed = tuple(install_wheel(wheel, python, cache, files) for wheel in wheels)
    check_together(installed)
    return installed


def _package(wheel: Path) -> str:
    return canonicalize_name(wheel.name.partition("-")[0])


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
