"""Wheels as they are laid over the guest's /usr/local: installed once, and kept.

The guest image stays as it is, and so does a snapshot of a guest: a wheel goes along with the
payload.  Debian's Python finds it before the image's own packages, and after the standard
library.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from vmtest.errors import ImageError, UsageError
from vmtest.host.cache import read_recorded, safe_name, sha256_json, write_record
from vmtest.host.files import Files
from vmtest.model.kernels import GuestSpec, InstalledWheel
from vmtest.rootfs.guestpython import GuestPython
from vmtest.rootfs.kept import kept
from vmtest.rootfs.wheels import unpack_wheel

KIND = "wheels"
"""The folder of the cache for installed wheels, and the kind of its entries."""

_RECIPE = 2
"""Raised when what is made of a wheel changes."""
_TREE = "tree.tar"
_RECORD = "wheel.json"


def install_wheel(
    wheel: Path, python: GuestPython, cache: Path, files: Files | None = None
) -> InstalledWheel:
    """``wheel`` as it is laid over the image of ``python``, from ``cache`` where it is there.

    ``files`` reads it.  Raises ImageError for a file that is not there, not a wheel, or not for
    the guest.
    """
    files = files or Files()
    made_of = [_RECIPE, wheel.name, digest_wheel(wheel, files), python.version]
    entry = f"{safe_name(wheel.stem)[:100]}-{sha256_json(made_of)[:16]}"
    return kept(
        cache, KIND, entry, read_entry, lambda folder: _install(wheel, python, folder, files)
    )


def _install(wheel: Path, python: GuestPython, folder: Path, files: Files) -> None:
    """Make the entry of ``wheel`` in ``folder``."""
    tree, made = folder / "tree", folder / "entry"
    (tree / "lib").mkdir(parents=True)
    unpack_wheel(wheel, tree, python.version, files)
    with tarfile.open(made / _TREE, "w", format=tarfile.PAX_FORMAT) as out:
        for path in sorted(tree.rglob("*")):
            if path.is_file():
                info = tarfile.TarInfo(path.relative_to(tree).as_posix())
                info.size, info.mode = path.stat().st_size, path.stat().st_mode & 0o777
                with path.open("rb") as content:
                    out.addfile(info, content)
        end = out.offset
    with (made / _TREE).open("rb+") as stream:
        stream.truncate(end)  # without the end of an archive: others come behind it
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    write_record(made / _RECORD, {"name": wheel.name, "tree": digest})


def places(cache: Path) -> list[Path]:
    """The folders of all installed wheels in ``cache``, damaged ones too."""
    return sorted(path for path in (cache / KIND).glob("*") if path.is_dir())


def read_entry(place: Path) -> InstalledWheel:
    """The wheel in the folder ``place`` of the cache.

    Raises ValueError with the file and what is wrong with it.
    """
    record, data = read_recorded(place, _RECORD, _TREE, "tree")
    return InstalledWheel(str(record.get("name")), str(record["tree"]), data)


def check_together(wheels: Sequence[InstalledWheel]) -> None:
    """Raise UsageError when two of ``wheels`` have something else in one place."""
    if len(wheels) < 2:
        return
    files: dict[str, tuple[str, str]] = {}
    folders: dict[str, str] = {}
    for wheel in wheels:
        for place, content in _contents(wheel):
            known, other = files.setdefault(place, (content, wheel.name))
            if known != content:
                raise _apart(other, wheel.name, place)
            for folder in PurePosixPath(place).parents:
                folders.setdefault(str(folder), wheel.name)
    for place, (_, name) in files.items():
        if place in folders:
            raise _apart(name, folders[place], place)


def _contents(wheel: InstalledWheel) -> Iterator[tuple[str, str]]:
    """Each file of ``wheel`` below /usr/local, and a digest of what is in it."""
    with tarfile.open(fileobj=io.BytesIO(archive_of((wheel,)))) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            assert stream is not None  # all of them are files
            yield member.name, hashlib.sha256(stream.read()).hexdigest()


def _apart(one: str, other: str, place: str) -> UsageError:
    return UsageError(
        f"[guest] wheels: {one} and {other} both have {place}, and not the same; "
        "leave one of them out"
    )


def archive_of(wheels: tuple[InstalledWheel, ...]) -> bytes:
    """The tar of all of ``wheels``, which :func:`check_together` has seen."""
    return b"".join(wheel.tree for wheel in wheels) + bytes(2 * tarfile.BLOCKSIZE)


def digest_wheel(wheel: Path, files: Files) -> str:
    """The sha256 of ``wheel`` as ``files`` reads it; raises ImageError."""
    try:
        return files.read(wheel, "wheels").sha256
    except OSError as error:
        raise ImageError(
            f"[guest] wheels: {wheel}: {error.strerror}; correct it in kernels.toml"
        ) from error


def wheel_digests(spec: GuestSpec, files: Files) -> list[str]:
    """The digests of the wheels that ``spec`` names; raises ImageError."""
    return sorted(digest_wheel(wheel, files) for wheel in spec.wheels)
