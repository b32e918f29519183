"""Whether a kernel's config has what a guest needs, known before it is booted."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vmtest.errors import UnbootableKernel
from vmtest.host.requirements import find_virtiofsd
from vmtest.model.kernels import Filesystem, KernelImage, RootImage, Share

Root = Literal["disk", "directory", "host"]
"""What the guest's user space is: an image, a folder, or the host's own root."""


@dataclass(frozen=True, slots=True)
class _Need:
    symbol: str
    why: str
    module: bool = True
    roots: tuple[str, ...] = ("disk", "directory", "host")
    share: Share | None = None
    filesystem: Filesystem | None = None


_NO_OTHER = "and it has neither ext4 (CONFIG_EXT4_FS) nor erofs (CONFIG_EROFS_FS)"
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
    _Need("SQUASHFS", f"the root is a squashfs, {_NO_OTHER}", True, ("disk",), None, "squashfs"),
    _Need("SQUASHFS_LZ4", f"its root has lz4, {_NO_OTHER}", False, ("disk",), None, "squashfs"),
    _Need("EXT4_FS", "its root is an ext4", True, ("disk",), None, "ext4"),
    _Need("EROFS_FS", "its root is an erofs", True, ("disk",), None, "erofs"),
    _Need("NET_9P", "no 9P: nothing of the host's can be mounted", share="9p"),
    _Need("NET_9P_VIRTIO", "no 9P over virtio: nothing of the host's can be mounted", share="9p"),
    _Need("9P_FS", "no 9P: nothing of the host's can be mounted", share="9p"),
    _Need("FUSE_FS", "no virtiofs: nothing of the host's can be mounted", share="virtiofs"),
    _Need("VIRTIO_FS", "no virtiofs: nothing of the host's can be mounted", share="virtiofs"),
    _Need("OVERLAY_FS", "the guest's root could not be made writable"),
    _Need("CGROUPS", "cgroup programs have nothing to attach to", module=False),
    _Need("BPF_SYSCALL", "BPF programs cannot be loaded", module=False),
    _Need("CGROUP_BPF", "cgroup programs cannot be attached", module=False),
)
_MODULES = {
    "VIRTIO_PCI": "virtio_pci",
    "VIRTIO_CONSOLE": "virtio_console",
    "VIRTIO_BLK": "virtio_blk",
    "SQUASHFS": "squashfs",
    "EXT4_FS": "ext4",
    "EROFS_FS": "erofs",
    "NET_9P": "9pnet",
    "NET_9P_VIRTIO": "9pnet_virtio",
    "9P_FS": "9p",
    "FUSE_FS": "fuse",
    "VIRTIO_FS": "virtiofs",
    "OVERLAY_FS": "overlay",
}
"""What the modules of these symbols are called."""
_FILESYSTEMS: Mapping[Filesystem, str] = {
    "squashfs": "SQUASHFS",
    "ext4": "EXT4_FS",
    "erofs": "EROFS_FS",
}
"""The file systems of a root, best first: what vmtest builds, then what every host can make."""
SHARES: Mapping[Share, str] = {"9p": "by 9P", "virtiofs": "by virtiofs", "disk": "by two disks"}
"""How a guest reads what is the host's, in words."""
# Nothing in the guest loads these: virtme-ng's initramfs does, if they are modules.
_BEFORE_MODULES = ("VIRTIO", "VIRTIO_PCI", "VIRTIO_BLK", "VIRTIO_CONSOLE")
_TO_SHARE: Mapping[Share, tuple[str, ...]] = {
    "9p": ("NET_9P", "NET_9P_VIRTIO", "9P_FS"),
    "virtiofs": ("FUSE_FS", "VIRTIO_FS"),
    "disk": (),
}


def parse(text: str) -> dict[str, str]:
    """A kernel's config as symbol (without CONFIG_) to value; what is not set is absent."""
    config = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and name.startswith("CONFIG_"):
            config[name.removeprefix("CONFIG_")] = value.strip().strip('"')
    return config


def missing(
    config: Mapping[str, str],
    *,
    root: Root = "disk",
    modules: bool = True,
    share: Share = "9p",
    filesystem: Filesystem = "squashfs",
    there: Collection[str] | None = None,
) -> list[str]:
    """What a guest needs and ``config`` lacks, one reason each, most telling first.

    ``modules`` says whether the kernel's modules are at hand: without them, ``=m``
    is as good as not set.  ``there`` are the names of those that are, where that is known: a
    distribution may keep some in a package of their own.  ``share`` is how the host's files are
    to be mounted, ``filesystem`` what the root's disk has.
    """
    reasons = []
    for need in _NEEDS:
        chosen = need.share in (None, share) and need.filesystem in (None, filesystem)
        if root in need.roots and chosen:
            reasons += _lack(need, config, modules) or _gone(need, config, there)
    early = (*_BEFORE_MODULES, _FILESYSTEMS[filesystem], *_TO_SHARE[share])
    as_modules = [symbol for symbol in early if _too_late(symbol, config)]
    if as_modules and modules:
        reasons.append(
            f"CONFIG_BLK_DEV_INITRD is not set: CONFIG_{as_modules[0]} is a module "
            f"and could not be loaded in time"
        )
    return reasons


def _lack(need: _Need, config: Mapping[str, str], modules: bool) -> list[str]:
    value = config.get(need.symbol, "n")
    if value == "y" or (value == "m" and need.module and modules):
        return []
    state = "is a module and there are no modules" if value == "m" else "is not set"
    return [f"CONFIG_{need.symbol} {state}: {need.why}"]


def _gone(need: _Need, config: Mapping[str, str], there: Collection[str] | None) -> list[str]:
    """What is a module and is not among those that are there."""
    name = _MODULES.get(need.symbol)
    if name is None or there is None or config.get(need.symbol) != "m" or name in there:
        return []
    return [f"CONFIG_{need.symbol} is a module and {name}.ko is not in its packages: {need.why}"]


def _too_late(symbol: str, config: Mapping[str, str]) -> bool:
    """Whether it is a module, and no initramfs could load it before it is needed."""
    return config.get(symbol) == "m" and config.get("BLK_DEV_INITRD") != "y"


def share_of(image: KernelImage, root: Root = "disk") -> Share:
    """How ``image`` reads what is the host's: by 9P where it can, else by virtiofs.

    Where it has neither, or the host no virtiofsd, a guest whose ``root`` is an image reads it
    from more disks.
    """
    if image.config is None or _has(image, [need for need in _NEEDS if need.share == "9p"]):
        return "9p"
    virtiofs = [need for need in _NEEDS if need.share == "virtiofs"]
    if _has(image, virtiofs) and (root != "disk" or find_virtiofsd() is not None):
        return "virtiofs"
    return "disk" if root == "disk" else "9p"


def filesystem_of(image: KernelImage, given: Filesystem = "squashfs") -> Filesystem:
    """What the disks of ``image``'s guests have: squashfs, or where it cannot mount that, another.

    Of a root that is ``given`` as another file system nothing else is made.  squashfs as well
    where it can mount none of them; :func:`check` refuses it.
    """
    if given == "squashfs" and image.config is not None:
        for filesystem in _FILESYSTEMS:
            if _has(image, [need for need in _NEEDS if need.filesystem == filesystem]):
                return filesystem
    return given


def way_of(image: KernelImage, root: RootImage | None = None) -> tuple[Share, Filesystem]:
    """How ``image`` boots on a guest image (``root``, which is another than vmtest's).

    Raises UnbootableKernel when it does not.
    """
    check(image, "disk", root)
    return share_of(image), filesystem_of(image, "squashfs" if root is None else root.filesystem)


def _has(image: KernelImage, needs: Collection[_Need]) -> bool:
    """Whether ``image``, whose config is known, has all of that before its modules are mounted."""
    assert image.config is not None
    config, there = _read(image.config), _modules_in(image)
    return not any(
        _lack(need, config, image.modules is not None)
        or _gone(need, config, there)
        or _too_late(need.symbol, config)
        for need in needs
    )


def _read(config: Path) -> Mapping[str, str]:
    return _parsed(config.read_text(encoding="utf-8", errors="replace"))


@functools.lru_cache(maxsize=8)
def _parsed(text: str) -> Mapping[str, str]:
    """A kernel's config is asked several things before a boot."""
    return parse(text)


def check_network(image: KernelImage) -> None:
    """Raise UnbootableKernel when ``image`` cannot drive a VM's network card."""
    if image.config is None:
        return  # as for everything else: not checked before booting
    need = _Need("VIRTIO_NET", "a suite has a network card, which is a virtio one")
    if reasons := _lack(need, _read(image.config), image.modules is not None):
        raise UnbootableKernel(
            f"{image.name}: {image.release} cannot have a network card: {reasons[0]}; leave the "
            f"kernel or the suite out, or enable it and build again"
        )


def check(image: KernelImage, root: Root = "disk", given: RootImage | None = None) -> str:
    """Look at the config of ``image``; returns a note for the user, empty when all is known.

    ``given`` is a disk that is not vmtest's own.  Raises UnbootableKernel with a one-line reason
    when something is missing, on the host (a virtiofsd for a kernel without 9P) or in the kernel.
    """
    if image.config is None:
        return "its config is unknown: not checked before booting"
    share = share_of(image, root)
    own = given is not None and given.kind == "disk" and given.filesystem != "squashfs"
    reasons = missing(
        _read(image.config),
        root=root,
        modules=image.modules is not None,
        share=share,
        filesystem=filesystem_of(image, given.filesystem if own and given else "squashfs"),
        there=_modules_in(image),
    )
    if not reasons:
        if share == "virtiofs" and find_virtiofsd() is None:
            raise UnbootableKernel(
                f"{image.name}: {image.release} cannot boot as a guest here: it has no 9P "
                f"(CONFIG_NET_9P, CONFIG_9P_FS), and for its virtiofs no virtiofsd in Rust is "
                f"installed; install one (package virtiofsd), or use a kernel with 9P"
            )
        return ""
    raise _unbootable(image, reasons, share, given if own else None)


def _unbootable(
    image: KernelImage, reasons: list[str], share: Share, own: RootImage | None
) -> UnbootableKernel:
    """The error for what is missing; ``own`` is a disk that only some kernels can mount."""
    others = ", ".join(dict.fromkeys(reason.split()[0] for reason in reasons[1:]))
    lacking = {reason.split()[0] for reason in reasons}
    disk = {f"CONFIG_{need.symbol}" for need in _NEEDS if need.roots == ("disk",)}
    cure = ""
    if own is not None and lacking == {f"CONFIG_{_FILESYSTEMS[own.filesystem]}"}:
        cure = (
            f"[guest] root is {own.path}; pack its files as squashfs (mksquashfs FOLDER IMAGE "
            f"-comp lz4 -all-root), of which vmtest makes what each kernel can mount; or "
        )
    elif share == "9p" and disk.issuperset(lacking):
        cure = 'set [guest] root to a folder or to "host", which takes no disk; or '
    return UnbootableKernel(
        f"{image.name}: {image.release} cannot boot as a guest: {reasons[0]}"
        f"{f' (missing as well: {others})' if others else ''}; "
        f"{cure}use another kernel or flavour, or enable what is missing and build again"
    )


def _modules_in(image: KernelImage) -> frozenset[str] | None:
    """The names of ``image``'s modules, None where it has no index of them."""
    if image.modules is None:
        return None
    try:
        return _listed((image.modules / "modules.dep").read_text(encoding="utf-8"))
    except OSError:
        return None


@functools.lru_cache(maxsize=8)
def _listed(index: str) -> frozenset[str]:
    """The modules in an index, which is asked several times a guest as well."""
    paths = (line.partition(":")[0] for line in index.splitlines())
    return frozenset(path.rpartition("/")[2].partition(".")[0] for path in paths)
