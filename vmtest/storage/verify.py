"""The whole cache, every file hashed: what of it is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vmtest.host.cache import tree_size
from vmtest.host.seal import Damage, Entry
from vmtest.kernels.store.store import recheck_kernel
from vmtest.rootfs.image import recheck_image

_RECHECKS = {"kernel": recheck_kernel, "image": recheck_image}


@dataclass(frozen=True, slots=True)
class Verified:
    """An entry, hashed: ``size`` in bytes on the disk, ``damage`` None when it is whole."""

    entry: Entry
    size: int
    damage: Damage | None


def verify(cache: Path) -> Iterator[Verified]:
    """Hash every kernel and guest image in ``cache``, one after the other; removes nothing.

    What is damaged is not taken by its stamps again: its next use removes it and makes it anew.
    """
    for kind, recheck in _RECHECKS.items():
        for place in sorted((cache / f"{kind}s").glob("*")):
            entry = Entry(cache, kind, place)
            yield Verified(entry, tree_size(place), entry.inspect(recheck))
