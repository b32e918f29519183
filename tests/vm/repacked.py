"""Real kernels of the cache, repacked by rpmbuild in the layout and with the limits of others."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import rpm_repository
from rpm_repository import Made

from vmtest.model.kernels import KernelImage


@dataclass(frozen=True)
class Limits:
    """What a repacked kernel lacks: symbols of its config, and modules by their names."""

    symbols: Collection[str] = ()
    modules: Collection[str] = ()


@dataclass(frozen=True)
class Layout:
    """How a distribution packs a kernel: its ``name``, and whether it is ``whole`` in one package.

    If not, there are ``NAME-core`` and ``NAME-modules-core``, as Fedora has them.
    """

    name: str = "kernel"
    whole: bool = False


def pack(
    image: KernelImage,
    modules: Path,
    made: tuple[str, str],
    folder: Path,
    into: Path,
    limits: Limits = Limits(),
    layout: Layout = Layout(),
) -> None:
    """Pack ``image`` with ``modules``; ``made`` are rpm's version and release of it."""
    version, release = made
    assert image.config is not None
    config = image.config.read_text()
    for symbol in limits.symbols:
        config = config.replace(f"\nCONFIG_{symbol}=", f"\n# CONFIG_{symbol} was ")
    (packed,) = image.image.parent.glob("vmlinuz-*")

    def core(place: Path) -> None:
        shutil.copyfile(packed, place / "vmlinuz")
        (place / "config").write_text(config)

    def rest(place: Path) -> None:
        shutil.copytree(modules, place, dirs_exist_ok=True)
        for name in limits.modules:
            for path in place.rglob(f"{name}.ko*"):
                path.unlink()

    def both(place: Path) -> None:
        core(place)
        rest(place)

    base = layout.name
    if layout.whole:
        one = Made(base, version, release, "given", f"{base} = {version}-{release}")
        rpm_repository.build(one, folder, into, "w1.zstdio", (image.release, both))
        return
    for name, put in ((f"{base}-core", core), (f"{base}-modules-core", rest)):
        # rpm takes no release with two hyphens, as Debian's have.
        provides = f"kernel-uname-r = {version}-{release}" if put is core else ""
        one = Made(name, version, release, "given", provides)
        rpm_repository.build(one, folder, into, "w1.zstdio", (image.release, put))
    meta = Made(base, version, release, "nothing", "", f"{base}-core")
    rpm_repository.build(meta, folder, into)
