"""Whether an entry of the cache is still what was put there: a digest for each of its files.

``seal.json`` in an entry has size and sha256 of every other file.  Hashing a kernel takes
half a second, so that normally only the files' stamps (size, times of change, inode) are
compared with those that they had when all was last hashed; ``checked/`` in the cache
remembers these.  A stamp says nothing of a disk that rots: ``inspect`` hashes everything.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vmtest.errors import InfrastructureError
from vmtest.host.cache import (
    locked,
    put_aside,
    read_record,
    safe_name,
    sha256_file,
    write_record,
)

SEAL = "seal.json"
_SCHEMA = 1
_KINDS = {"kernels": "kernel", "images": "image", "snapshots": "snapshot"}
_WORDS = {"kernel": "kernel", "image": "guest image", "snapshot": "snapshot"}

Files = Mapping[str, tuple[int | None, str]]
"""By name relative to the entry: size in bytes (None when not known) and sha256 in hex."""

Recheck = Callable[[Path], str]
"""What is wrong with an entry that has no seal yet, "" when nothing can be seen."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of the cache that is not what it should be: ``what`` it belongs to, and how."""

    what: str
    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.what} is damaged ({f'{self.file} {self.problem}'.strip()})"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the cache ``root``: a kernel, image or snapshot in the folder ``place``."""

    root: Path
    kind: str
    place: Path

    @classmethod
    def of(cls, place: Path) -> Entry | None:
        """The entry whose folder is ``place``; None when that is not where entries are."""
        kind = _KINDS.get(place.parent.name)
        return None if kind is None else cls(place.parents[1], kind, place)

    @property
    def lock(self) -> str:
        """The name by which it is locked and held."""
        return f"{self.kind}-{self.place.name}"

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"cached {_WORDS[self.kind]} {self.place.name}"

    @property
    def _checked(self) -> Path:
        return self.root / "checked" / f"{safe_name(self.lock)}.json"

    def files(self) -> Files | Damage | None:
        """What its seal says; None for an entry that has none because it is older than seals."""
        path = self.place / SEAL
        if not os.path.lexists(path):
            if read_record(self._checked) is not None:
                return Damage(self.title, SEAL, "is missing")
            return None
        files = _read(path)
        return Damage(self.title, SEAL, "cannot be read") if files is None else files

    def glance(self, recheck: Recheck | None = None) -> Damage | None:
        """Compare stamps, and inspect it when those are not as they were."""
        files = self.files()
        if isinstance(files, Mapping):
            known = read_record(self._checked)
            if known is not None and known.get("stamp") == stamp(self.place, files):
                return None
        return self.inspect(recheck)

    def inspect(self, recheck: Recheck | None = None) -> Damage | None:
        """Hash everything; None when it is whole.

        An entry of an older vmtest is sealed as it is when ``recheck`` finds nothing; without
        ``recheck`` nothing can be said of it.
        """
        files = self.files()
        if files is None:
            if recheck is None:
                return None
            if problem := recheck(self.place):
                return Damage(self.title, "", problem)
            try:
                seal(self.place)
            except OSError:
                return None  # a cache that can only be read: nothing to compare with
            files = self.files()
        if not isinstance(files, Mapping):
            return files
        before = stamp(self.place, files)
        damage = inspect(self.title, self.place, files)
        if damage is not None:
            self.forget()
        elif before is not None and before == stamp(self.place, files):
            with suppress(OSError, InfrastructureError):  # without it the next one hashes again
                write_record(self._checked, {"stamp": before})
        return damage

    def remember(self) -> None:
        """Have the next glance trust what has just been sealed and published."""
        files = self.files()
        now = stamp(self.place, files) if isinstance(files, Mapping) else None
        with suppress(OSError, InfrastructureError):
            write_record(self._checked, {"stamp": now})

    def take_away(self, recheck: Recheck | None = None) -> Damage | None:
        """Take it out of the cache if it is damaged; says how it was.

        Raises InfrastructureError when it cannot be removed.
        """
        with locked(self.root, self.lock):
            damage = self.inspect(recheck)  # somebody may have made it anew
            if damage is not None:
                put_aside(self.root, self.lock, self.place)
                self.forget()
        return damage

    def forget(self) -> None:
        """Have the next glance hash everything."""
        with suppress(OSError):
            self._checked.unlink(missing_ok=True)


def seal(folder: Path) -> None:
    """Write the seal of an entry that is complete: the last thing before it is published."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name != SEAL and path.is_file():
            files[name] = [path.stat().st_size, sha256_file(path)]
    write_record(folder / SEAL, {"schema": _SCHEMA, "files": files})


def _read(path: Path) -> Files | None:
    value = read_record(path)
    try:
        if value is None or value["schema"] != _SCHEMA:
            return None
        listed = value["files"].items()
        files = {str(name): (int(size), str(sha)) for name, (size, sha) in listed}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    return files if all(_inside(name) for name in files) else None


def _inside(name: str) -> bool:
    # A kernel has thousands of names: as paths they would take ten times as long.
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return bool(parts) and not name.startswith("/") and ".." not in parts


def stamp(place: Path, files: Files) -> str | None:
    """A digest of what the file system says of ``files``, None when one is not there.

    Any write changes it, and so does putting another file in its place.
    """
    seen, folder = hashlib.sha256(), os.fspath(place)
    for name in sorted(files):
        try:
            status = os.lstat(f"{folder}/{name}")
        except OSError:
            return None
        now = (name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        seen.update(repr(now).encode())
    return seen.hexdigest()


def inspect(what: str, place: Path, files: Files) -> Damage | None:
    """The first of ``files`` below ``place`` that is not what it should be."""
    folder = os.fspath(place)
    for name, (size, digest) in sorted(files.items()):
        if problem := _problem(f"{folder}/{name}", size, digest):
            return Damage(what, name, problem)
    return None


def _problem(path: str, size: int | None, digest: str) -> str:
    # A kernel has thousands of files, most of them small: a Path and a stream cost more than they.
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return "is a folder" if stat.S_ISDIR(status.st_mode) else "is not a regular file"
        if size is not None and status.st_size != size:
            return f"has {status.st_size} bytes, expected {size}"
        found = sha256_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if found == digest else f"has sha256 {found[:12]}, expected {digest[:12]}"
