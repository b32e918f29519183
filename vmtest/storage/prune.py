"""Making room in the cache: what was not used for long, or is too much; never what is in use.

Entries are kernels, guest images, snapshots of booted guests, versions of libbpf, other loaders,
installed wheels, indexes of kernels' modules and code of test modules.  When one was last used is
the time of change of a file that every process which takes it holds; see
:func:`vmtest.host.cache.hold`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from vmtest.host.cache import clear_damaged, in_use, last_used, remove_unused, sweep, tree_size
from vmtest.host.seal import SEAL, Entry
from vmtest.kernels import Store, modules
from vmtest.rootfs import cilium, libbpf, overlay, requirements
from vmtest.rootfs.images import images
from vmtest.vm import bytecode


@dataclass(frozen=True, slots=True)
class Item:
    """An entry: ``size`` in bytes, ``used`` in seconds since the epoch; a broken one is useless."""

    kind: str
    name: str
    path: Path
    size: int
    used: float
    busy: bool = False
    broken: bool = False

    @property
    def lock(self) -> str:
        """The name by which it is locked and held."""
        return f"{self.kind}-{self.name}"


def items(cache: Path) -> list[Item]:
    """Every kernel, image, snapshot and other entry in ``cache``."""
    whole = {entry.path for entry in Store(cache).entries()}
    whole |= {file.parent for _, file, _ in images(cache)}
    whole |= {seal.parent for seal in (cache / "snapshots").glob(f"*/{SEAL}")}
    found = []
    for kind in ("kernel", "image", "snapshot"):
        for path in (cache / f"{kind}s").glob("*"):
            broken = path not in whole or Entry(cache, kind, path).glance() is not None
            found.append(_item(cache, kind, path, broken))
    for kind, paths, read in (
        (libbpf.KIND, libbpf.places(cache), libbpf.read_entry),
        (cilium.KIND, cilium.places(cache), cilium.read_entry),
        (overlay.KIND, overlay.places(cache), overlay.read_entry),
        (requirements.KIND, requirements.places(cache), requirements.read_entry),
        (modules.KIND, modules.indexes(cache), modules.read_index),
        (bytecode.KIND, bytecode.places(cache), bytecode.read_entry),
    ):
        found += [_item(cache, kind, path, not _readable(read, path)) for path in paths]
    return found


def _item(cache: Path, kind: str, path: Path, broken: bool) -> Item:
    lock = f"{kind}-{path.name}"
    # Before uses were noted, an entry's own time is the best that is known.
    used = last_used(cache, lock) or path.stat().st_mtime
    return Item(kind, path.name, path, tree_size(path), used, in_use(cache, lock), broken)


def _readable(read: Callable[[Path], object], path: Path) -> bool:
    try:
        read(path)
    except ValueError:
        return False
    return True


def superfluous(
    found: Iterable[Item], now: float, older_than: float | None, max_size: int | None
) -> list[Item]:
    """Which of ``found`` to remove, the least recently used first; never one that is busy.

    Broken ones, those unused for over ``older_than`` seconds, and then as many as it takes to
    come down to ``max_size`` bytes.  None sets no limit.
    """
    ordered = sorted(found, key=lambda item: item.used)
    left = sum(item.size for item in ordered)
    chosen = []

    def drop(item: Item) -> None:
        nonlocal left
        chosen.append(item)
        left -= item.size

    free = [item for item in ordered if not item.busy]
    for item in free:
        if item.broken or (older_than is not None and now - item.used > older_than):
            drop(item)
    for item in free:
        if max_size is not None and left > max_size and item not in chosen:
            drop(item)
    return chosen


def remove(cache: Path, chosen: Iterable[Item]) -> list[Item]:
    """Remove ``chosen``; returns those removed, without what somebody took meanwhile."""
    sweep(cache)
    clear_damaged(cache)
    return [item for item in chosen if remove_unused(cache, item.lock, item.path)]
