"""The store: kernels ready to boot, by what they were made of.

An entry is ``kernels/KEY/`` with ``boot/vmlinux-RELEASE`` (or ``vmlinuz-``),
``boot/config-RELEASE``, ``lib/modules/RELEASE`` and ``entry.json``.  It is complete or
absent, never changed, and safe with any number of runners.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from vmtest.errors import InfrastructureError, KernelUnavailable
from vmtest.host.cache import (
    default_cache,
    disk_errors,
    hold,
    locked,
    publish,
    read_record,
    require_space,
    safe_name,
    scratch,
    sha256_json,
    tree_size,
    write_json,
    write_record,
)
from vmtest.host.seal import Damage, seal
from vmtest.host.seal import Entry as Sealed
from vmtest.kernels.store.record import SCHEMA, read_answer, read_entry
from vmtest.kernels.store.vmlinux import unpack
from vmtest.model.kernels import KernelImage
from vmtest.model.versions import KernelVersion

__all__ = ["Entry", "Manifest", "Resolution", "Store", "default_cache"]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a filled entry holds; paths are relative to it.

    ``version`` is what KernelVersion.parse reads, ``digest`` the sha256 of what
    the entry was made of, in hex.
    """

    version: str
    release: str
    image: str
    modules: str | None
    config: str | None
    digest: str
    origin: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A kernel in the store; ``size`` in bytes on the disk."""

    key: str
    path: Path
    manifest: Manifest
    size: int

    @property
    def version(self) -> KernelVersion:
        """The kernel's version."""
        return KernelVersion.parse(self.manifest.version)


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a question to a source was last answered with, and is in the store."""

    key: str
    version: str
    origin: str


class Store:
    """The kernels below ``root``; making one does no I/O."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._damaged: dict[str, Damage] = {}

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def path(self, key: str) -> Path:
        """Where the entry ``key`` is, or would be."""
        return self.root / "kernels" / safe_name(key)

    def get(self, key: str, name: str = "") -> KernelImage | None:
        """The kernel ``key`` under the name ``name``, or None when the store lacks it."""
        place = self.path(key)
        read = self._read(place)
        if read is None:
            return None
        return KernelImage(
            name=name,
            version=KernelVersion.parse(read.version),
            release=read.release,
            image=place / read.image,
            modules=place / read.modules if read.modules else None,
            config=place / read.config if read.config else None,
            digest=read.digest,
            origin=read.origin,
            note=read.note,
        )

    def take(self, key: str, name: str = "") -> KernelImage | None:
        """As :meth:`get`, for use: until this process ends it is not pruned.

        One that is damaged is taken out of the store; whoever adds it again is told.
        """
        hold(self.root, f"kernel-{safe_name(key)}")
        place = self.path(key)
        if os.path.lexists(place):
            entry = Sealed(self.root, "kernel", place)
            damage = entry.glance(recheck_kernel) and entry.take_away(recheck_kernel)
            if damage is not None:
                self._damaged[key] = damage
                return None
        return self.get(key, name)

    def add(
        self, key: str, fill: Callable[[Path], Manifest], *, name: str = "", need: int = 0
    ) -> KernelImage:
        """The kernel ``key`` for use, made by ``fill`` when the store lacks it.

        ``fill`` is given an empty folder and returns what it put there; ``need`` is
        what it takes, in bytes.  Two runners that want the same kernel make it once.
        Raises what ``fill`` raises, and InfrastructureError for a full disk.
        """
        found = self.take(key, name)
        if found is not None:
            return found
        lock = f"kernel-{safe_name(key)}"
        what = f"{name or key}: storing the kernel"
        with self.mending(key), locked(self.root, lock):
            found = self.get(key, name)  # another runner may have been faster
            if found is not None:
                return found
            with scratch(self.root, lock) as folder, disk_errors(self.root, what):
                require_space(self.root, need, what)
                made = folder / "entry"
                made.mkdir()
                manifest = fill(made)
                size = (made / manifest.image).stat().st_size
                write_json(
                    made / "entry.json",
                    {
                        "schema": SCHEMA,
                        "key": key,
                        "image_size": size,
                        "tree_size": tree_size(made),
                        **{field: getattr(manifest, field) for field in Manifest.__slots__},
                    },
                )
                seal(made)
                publish(made, self.path(key))
        damage = self._damaged.pop(key, None)
        found = self.take(key, name)
        if found is None:
            raise InfrastructureError(f"{self.path(key)}: what was just stored cannot be read back")
        if damage is None:
            return found
        note = f"{damage}: it was removed and made again"
        return replace(found, note="; ".join(filter(None, (found.note, note))))

    @contextmanager
    def mending(self, key: str) -> Iterator[None]:
        """Whoever fails inside to make the kernel ``key`` says that it was here, and damaged."""
        try:
            yield
        except InfrastructureError as error:
            damage = self._damaged.pop(key, None)
            if damage is None:
                raise
            raise KernelUnavailable(
                f"{damage}: it was removed, and making it again failed: {error}"
            ) from error

    def entries(self) -> list[Entry]:
        """All kernels in the store, oldest version first."""
        found = []
        for place in (self.root / "kernels").glob("*"):
            manifest = self._read(place)
            if manifest is not None:
                record = read_entry(place)
                found.append(Entry(record.key, place, manifest, record.tree_size))
        return sorted(found, key=lambda entry: (entry.version, entry.key))

    def size(self) -> int:
        """What the kernels take on the disk, in bytes."""
        return sum(entry.size for entry in self.entries())

    def remember(self, question: Sequence[object], resolution: Resolution) -> None:
        """Keep the answer to ``question`` for when its source cannot be asked."""
        path = self._question(question)
        value = {
            "question": list(question),
            "key": resolution.key,
            "version": resolution.version,
            "origin": resolution.origin,
        }
        if read_record(path) != value:
            write_record(path, value)

    def recall(self, question: Sequence[object]) -> Resolution | None:
        """The last answer to ``question`` whose kernel is still in the store."""
        path = self._question(question)
        if read_record(path, older=True) is None:
            return None
        try:
            answer = read_answer(path)
        except (OSError, ValueError):
            return None
        found = Resolution(answer.key, answer.version, answer.origin)
        return found if self.get(found.key) is not None else None

    def _question(self, question: Sequence[object]) -> Path:
        return self.root / "resolved" / f"{sha256_json(list(question))[:32]}.json"

    @staticmethod
    def _read(place: Path) -> Manifest | None:
        """The manifest of a complete entry."""
        try:
            record = read_entry(place)
            manifest = Manifest(**{field: getattr(record, field) for field in Manifest.__slots__})
            if manifest.modules and not (place / manifest.modules / "modules.dep").is_file():
                return None
            if manifest.config and not (place / manifest.config).is_file():
                return replace(manifest, config=None)
        except (ValueError, OSError):
            return None
        return manifest


def recheck_kernel(place: Path) -> str:
    """What can be seen of an entry that an older vmtest made: that it boots what was packaged."""
    manifest = Store._read(place)
    if manifest is None:
        return "is incomplete"
    image = place / manifest.image
    packed = image.with_name(f"vmlinuz-{manifest.release}")
    if packed == image or not packed.is_file():
        return ""
    try:
        unpacked = unpack(packed.read_bytes(), packed.name)
        whole = unpacked.data == image.read_bytes()
    except (KernelUnavailable, OSError) as error:
        return str(error)
    return "" if whole else f"{manifest.image} is not what {packed.name} holds"
