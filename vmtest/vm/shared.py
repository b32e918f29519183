"""What a guest reads of the host's, on disks: for kernels that mount no folder of a host.

virtme-ng gives its tools and the kernel's modules to a guest by 9P or virtiofs, and has no
option for another way.  A kernel without both mounts two more disks: QEMU is started through a
script that says so where virtme-ng's command line mounts the folders.
"""

from __future__ import annotations

from pathlib import Path

from vmtest.errors import InfrastructureError
from vmtest.host import interrupt
from vmtest.host.cache import find_tool
from vmtest.model.kernels import Filesystem, KernelImage
from vmtest.rootfs.filesystems import contents_of, packing
from vmtest.vm.folder import VmFolder

TOOLS, MODULES = "tools.disk", "modules.disk"
QEMU = "qemu"
_EMULATOR = "qemu-system-x86_64"

# The root is the first disk, these are the next ones.
_SCRIPT = """#!/bin/sh
# virtme-ng's QEMU, for a kernel that cannot mount the host's folders: they are disks.
left=$#
while [ "$left" -gt 0 ]; do
    word=$1
    shift
    case $word in
    *virtme.guesttools*" "*)
        word=$(printf '%s\\n' "$word" | sed \\
            -e 's#-t [a-z0-9]* -o [^ ]* virtme.guesttools #-t {filesystem} -o ro /dev/vdb #' \\
            -e 's#-t [a-z0-9]* -o [^ ]* virtme.modules #-t {filesystem} -o ro /dev/vdc #') ;;
    esac
    set -- "$@" "$word"
    left=$((left - 1))
done
exec {emulator} "$@"
"""


def put_disks(kernel: KernelImage, filesystem: Filesystem, folder: VmFolder) -> None:
    """Make the disks of ``kernel`` and the script in ``folder``.

    Raises InfrastructureError where a tool is missing, or virtme-ng is not in this Python, and
    Interrupted.
    """
    name, tools = kernel.name, folder.packages / "virtme" / "guest"
    if not tools.is_dir():
        raise InfrastructureError(
            f"{name}: its kernel mounts no folder of the host's, and the disk with virtme-ng's "
            f"tools can only be made of a virtme-ng in vmtest's own environment; install it there"
        )
    emulator = find_tool(_EMULATOR)
    if emulator is None:
        raise InfrastructureError(f"{name}: {_EMULATOR} is not installed (package qemu-system-x86)")
    _pack(name, filesystem, tools, folder.path / TOOLS)
    if kernel.modules is not None:
        _pack(name, filesystem, kernel.modules.resolve(), folder.path / MODULES)
    script = folder.path / QEMU
    text = _SCRIPT.replace("{emulator}", emulator).replace("{filesystem}", filesystem)
    script.write_text(text, encoding="utf-8")
    script.chmod(0o755)


def disks(folder: VmFolder) -> str:
    """QEMU's options for the disks of ``folder``."""
    options = ""
    for name in (TOOLS, MODULES):
        file = folder.path / name
        if name == MODULES and not file.exists():
            continue
        drive = name.partition(".")[0]
        options += (
            f" -drive if=none,id={drive},file={file},format=raw,readonly=on"
            f" -device virtio-blk-pci,drive={drive}"
        )
    return options


def _pack(name: str, filesystem: Filesystem, source: Path, image: Path) -> None:
    done = interrupt.run(packing(filesystem, source, image, contents_of(source)))
    if done.returncode != 0:
        why = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it says nothing"]
        raise InfrastructureError(f"{name}: a disk with {filesystem} of {source}: {why[0]}")
