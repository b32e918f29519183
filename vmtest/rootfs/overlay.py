"""Wheels as they are laid over the guest's /usr/local: installed once, and kept.

The guest image stays as it is, and so does a snapshot of a guest: a wheel goes along with the
payload.  Debian's Python finds it before the image's own packages, and after the standard
library.
"""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

from vmtest.errors import ImageError
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


def archive_of(wheels: tuple[InstalledWheel, ...]) -> bytes:
    """The tar of all of ``wheels``: of a file in two of them, the last one's stays."""
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
    """What tells the guest's wheels from others: digests and requirements; raises ImageError."""
    asked = (*spec.requirements, *([spec.pytest] if spec.pytest else []))
    return sorted((*(digest_wheel(wheel, files) for wheel in spec.wheels), *asked))
