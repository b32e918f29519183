"""Whether a kernel's config has what a guest needs, known before it is booted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vmtest.errors import UnbootableKernel
from vmtest.model import KernelImage

Root = Literal["disk", "directory", "host"]
"""What the guest's user space is: a squashfs image, a folder, or the host's own root."""


@dataclass(frozen=True, slots=True)
class _Need:
    symbol: str
    why: str
    module: bool = True
    roots: tuple[str, ...] = ("disk", "directory", "host")


_NEEDS = (
    _Need("X86_64", "it is a kernel for another machine", module=False),
    _Need("PCI", "QEMU's devices are on PCI", module=False),
    _Need("BINFMT_ELF", "nothing in the guest can be executed", module=False),
    _Need("BINFMT_SCRIPT", "no script in the guest can be executed"),
    _Need("SERIAL_8250_CONSOLE", "there would be no console", module=False),
    _Need("DEVTMPFS", "there would be no /dev", module=False),
    _Need("PROC_FS", "there would be no /proc", module=False),
    _Need("SYSFS", "there would be no /sys", module=False),
    _Need("TMPFS", "the guest could not write anywhere", module=False),
    _Need("UNIX", "sshd needs unix sockets"),
    _Need("UNIX98_PTYS", "there would be no terminals for sessions", module=False),
    _Need("VIRTIO", "QEMU's devices are virtio"),
    _Need("VIRTIO_PCI", "QEMU's devices are virtio over PCI"),
    _Need("VIRTIO_CONSOLE", "SSH runs over a virtio-serial port"),
    _Need("VIRTIO_BLK", "the root is a virtio disk", roots=("disk",)),
    _Need("SQUASHFS", "the root is a squashfs", roots=("disk",)),
    _Need("SQUASHFS_LZ4", "the root is compressed with lz4", module=False, roots=("disk",)),
    _Need("NET_9P", "no 9P: nothing of the host's can be mounted"),
    _Need("NET_9P_VIRTIO", "no 9P over virtio: nothing of the host's can be mounted"),
    _Need("9P_FS", "no 9P: nothing of the host's can be mounted"),
    _Need("OVERLAY_FS", "the guest's root could not be made writable"),
    _Need("CGROUPS", "cgroup programs have nothing to attach to", module=False),
    _Need("BPF_SYSCALL", "BPF programs cannot be loaded", module=False),
    _Need("CGROUP_BPF", "cgroup programs cannot be attached", module=False),
)
_BEFORE_MODULES = "VIRTIO", "VIRTIO_PCI", "VIRTIO_BLK", "SQUASHFS", "NET_9P", "9P_FS"


def parse(text: str) -> dict[str, str]:
    """A kernel's config as symbol (without CONFIG_) to value; what is not set is absent."""
    config = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and name.startswith("CONFIG_"):
            config[name.removeprefix("CONFIG_")] = value.strip().strip('"')
    return config


def missing(config: Mapping[str, str], *, root: Root = "disk", modules: bool = True) -> list[str]:
    """What a guest needs and ``config`` lacks, one reason each, most telling first.

    ``modules`` says whether the kernel's modules are at hand: without them, ``=m``
    is as good as not set.
    """
    reasons = []
    for need in _NEEDS:
        if root not in need.roots:
            continue
        value = config.get(need.symbol, "n")
        if value == "y" or (value == "m" and need.module and modules):
            continue
        state = "is a module and there are no modules" if value == "m" else "is not set"
        reasons.append(f"CONFIG_{need.symbol} {state}: {need.why}")
    as_modules = [s for s in _BEFORE_MODULES if config.get(s) == "m"]
    if as_modules and modules and config.get("BLK_DEV_INITRD") != "y":
        reasons.append(
            f"CONFIG_BLK_DEV_INITRD is not set: CONFIG_{as_modules[0]} is a module "
            f"and could not be loaded in time"
        )
    return reasons


def check(image: KernelImage, root: Root = "disk") -> str:
    """Look at the config of ``image``; returns a note for the user, empty when all is known.

    Raises UnbootableKernel with a one-line reason when something is missing.
    """
    if image.config is None:
        return "its config is unknown: not checked before booting"
    text = image.config.read_text(encoding="utf-8", errors="replace")
    reasons = missing(parse(text), root=root, modules=image.modules is not None)
    if not reasons:
        return ""
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    raise UnbootableKernel(
        f"{image.name}: {image.release} cannot boot as a guest: {reasons[0]}{more}; "
        f"use Debian's generic flavour or enable it and build again"
    )
