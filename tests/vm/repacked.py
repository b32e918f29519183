"""Real kernels of the cache, repacked by rpmbuild as Fedora packs them, with limits of others."""

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


def pack(
    image: KernelImage,
    modules: Path,
    made: tuple[str, str],
    folder: Path,
    into: Path,
    limits: Limits = Limits(),
) -> None:
    """Pack ``image``, with ``modules``, as ``kernel-core`` and ``kernel-modules-core``.

    ``made`` are rpm's version and release of it.
    """
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

    for name, put in (("kernel-core", core), ("kernel-modules-core", rest)):
        # rpm takes no release with two hyphens, as Debian's have.
        provides = f"kernel-uname-r = {version}-{release}" if name == "kernel-core" else ""
        one = Made(name, version, release, "given", provides)
        rpm_repository.build(one, folder, into, "w1.zstdio", (image.release, put))
    meta = Made("kernel", version, release, "nothing", "", "kernel-core")
    rpm_repository.build(meta, folder, into)
