"""The whole cache, every file hashed: what of it is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vmtest.host.cache import tree_size
from vmtest.host.seal import Damage, Entry
from vmtest.kernels import modules
from vmtest.kernels.store.store import recheck_kernel
from vmtest.rootfs import cilium, libbpf, overlay, requirements
from vmtest.rootfs.images import recheck_image
from vmtest.vm import bytecode


def _unsealed(place: Path) -> str:
    """What is wrong with a snapshot without a seal: every one is sealed when it is saved."""
    del place
    return "has no seal"


_RECHECKS = {"kernel": recheck_kernel, "image": recheck_image, "snapshot": _unsealed}
_WORDS = {
    libbpf.KIND: "libbpf",
    cilium.KIND: "loader",
    overlay.KIND: "wheel",
    requirements.KIND: "requirements",
    modules.KIND: "index of modules",
    bytecode.KIND: "bytecode",
}


@dataclass(frozen=True, slots=True)
class Verified:
    """An entry, hashed: ``size`` in bytes on the disk, ``damage`` None when it is whole."""

    kind: str
    name: str
    size: int
    damage: Damage | None


def verify(cache: Path) -> Iterator[Verified]:
    """Hash every entry of ``cache``, one after the other; removes nothing.

    What is damaged is not taken by its stamps again: its next use removes it and makes it anew.
    """
    for kind, recheck in _RECHECKS.items():
        for place in sorted((cache / f"{kind}s").glob("*")):
            entry = Entry(cache, kind, place)
            yield Verified(kind, place.name, tree_size(place), entry.inspect(recheck))
    for place in libbpf.places(cache):
        yield _read(libbpf.KIND, place, libbpf.read_entry)
    for place in cilium.places(cache):
        yield _read(cilium.KIND, place, cilium.read_entry)
    for place in overlay.places(cache):
        yield _read(overlay.KIND, place, overlay.read_entry)
    for place in requirements.places(cache):
        yield _read(requirements.KIND, place, requirements.read_entry)
    for place in modules.indexes(cache):
        yield _read(modules.KIND, place, modules.read_index)
    for place in bytecode.places(cache):
        yield _read(bytecode.KIND, place, bytecode.read_entry)


def _read(kind: str, place: Path, read: Callable[[Path], object]) -> Verified:
    damage = None
    try:
        read(place)
    except ValueError as error:
        damage = Damage(f"cached {_WORDS[kind]} {place.name}", "", str(error))
    return Verified(kind, place.name, tree_size(place), damage)
