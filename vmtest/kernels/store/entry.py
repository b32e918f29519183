"""From files to a store entry: what a kernel that boots consists of."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from vmtest.errors import KernelUnavailable
from vmtest.kernels.store.modules import index_modules
from vmtest.kernels.store.store import Manifest
from vmtest.kernels.store.vmlinux import decompress, unpack
from vmtest.model.releases import is_member

_GENERATED = ("modules.alias", "modules.dep", "modules.symbols", "modules.builtin.bin")
_NOT_NEEDED = ("build", "source", "vmlinuz", "vmlinux", "System.map", "config")


def finish(
    entry: Path,
    raw_image: Path,
    *,
    name: str,
    version: str | None,
    digest: str,
    origin: str,
    config: str | None,
    check: Callable[[str], None] = lambda release: None,
) -> Manifest:
    """Complete an entry whose modules are in ``lib/modules/RELEASE`` already.

    Unpacks ``raw_image``, writes the config, runs depmod once.  ``version`` None takes
    the image's release; ``check`` is given that release first.  Raises
    KernelUnavailable.
    """
    packed = raw_image.read_bytes()
    unpacked = unpack(packed, name)
    release = unpacked.release
    check(release)
    boot = entry / "boot"
    boot.mkdir(exist_ok=True)
    image = boot / f"{'vmlinux' if unpacked.elf else 'vmlinuz'}-{release}"
    image.write_bytes(unpacked.data)
    if unpacked.data != packed:
        # As packaged, for other tools and for comparisons.
        (boot / f"vmlinuz-{release}").write_bytes(packed)
    text = config if config is not None else unpacked.config
    if text is not None:
        (boot / f"config-{release}").write_text(text, encoding="utf-8")
    # virtme-ng takes the nearest folder above the image that has lib/modules for the
    # kernel's root: without one it would end at the host's own.
    modules = entry / "lib" / "modules" / release
    has_modules = modules.is_dir()
    modules.parent.mkdir(parents=True, exist_ok=True)
    if has_modules:
        _unpack_boot_modules(modules)
        index_modules(entry, release, name)
    return Manifest(
        version=version or release,
        release=release,
        image=str(image.relative_to(entry)),
        modules=str(modules.relative_to(entry)) if has_modules else None,
        config=f"boot/config-{release}" if text is not None else None,
        digest=digest,
        origin=origin,
        note=unpacked.note,
    )


def wanted_in_modules(relative: str) -> bool:
    """Whether a path below ``lib/modules/RELEASE`` belongs into an entry."""
    first = relative.split("/", 1)[0]
    return first not in _NOT_NEEDED and not first.startswith(_GENERATED)


def copy_modules(source: Path, target: Path, name: str) -> None:
    """Copy a modules folder, which is only read: no links, nothing that depmod makes.

    Raises KernelUnavailable, for the kernel ``name``, for a name that no kernel's file has.
    """
    for folder, folders, files in os.walk(source):
        here = Path(folder).relative_to(source)
        if here == Path():
            folders[:] = [d for d in folders if wanted_in_modules(d)]
        (target / here).mkdir(parents=True, exist_ok=True)
        for file in files:
            found = Path(folder) / file
            if found.is_symlink() or (here == Path() and not wanted_in_modules(file)):
                continue
            if not is_member((here / file).as_posix()):
                raise KernelUnavailable(
                    f"{name}: modules: {source} holds {(here / file).as_posix()[:120]!r}, a name "
                    f"that no kernel's file has; remove it there"
                )
            shutil.copyfile(found, target / here / file)


# What virtme-ng's initramfs loads, and virtio_console after it. A compressed module is unpacked
# in the guest by busybox: 30 to 80 ms each on an emulated CPU, 0.5 s of every boot in all.
_BOOT_MODULES = re.compile(
    r"(9p|9pnet|9pnet_virtio|9pnet_fd|netfs|fscache|overlay|squashfs|failover|net_failover"
    r"|virtio(_\w+)?|virtiofs|fuse|ext4|jbd2|mbcache|crc16|(lib)?crc32c(_\w+)?|erofs"
    r"|lz4_decompress)\.ko\.(xz|gz|zst)"
)


def _unpack_boot_modules(modules: Path) -> None:
    for packed in modules.rglob("*.ko.*"):
        if not _BOOT_MODULES.fullmatch(packed.name):
            continue
        data = decompress(packed.read_bytes(), str(packed))
        packed.with_suffix("").write_bytes(data)
        packed.unlink()
