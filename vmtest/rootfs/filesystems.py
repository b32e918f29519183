"""The file systems of a guest's disks: squashfs, and ext4 or erofs for kernels without it.

vmtest builds the guest image as squashfs.  Of that the image for such a kernel is made, with the
same files, owners, permissions and times, without mounting anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vmtest.errors import ImageError, InfrastructureError
from vmtest.host import interrupt
from vmtest.host.cache import (
    check_room,
    remove_tree,
    require_space,
    require_tool,
    sha256_json,
)
from vmtest.kernels.kconfig import filesystem_of
from vmtest.model.kernels import Filesystem, KernelImage, RootImage
from vmtest.model.text import last_line
from vmtest.rootfs.disks import unlike
from vmtest.rootfs.image import check_user_namespaces
from vmtest.rootfs.images import Log, quiet, take

RECIPE = 1
"""Raised when images for kernels without squashfs are to be made anew."""

_BLOCK = 4096
_INODE = 256
_SPARE = 1024  # blocks: what describes the groups, and a lost+found
_PACKAGES: Mapping[Filesystem, tuple[str, str]] = {
    "squashfs": ("mksquashfs", "squashfs-tools"),
    "ext4": ("mke2fs", "e2fsprogs"),
    "erofs": ("mkfs.erofs", "erofs-utils"),
}
# The guest never writes to it, so there is no journal and there are no checksums: the oldest
# kernels read it, and none has to load a module for crc32c, which an initramfs may lack.
_FEATURES = "none,extent,filetype,sparse_super,large_file,dir_nlink,extra_isize,ext_attr"
# Nobody but root can make the device nodes, and every guest has a devtmpfs there.
_UNPACK = (
    'set -e; {mount}; "$2" -quiet -no-progress -f -excludes -d "$1/tree" "$3" "dev/*"; '
    'shift 3; exec "$@"'
)


@dataclass(frozen=True, slots=True)
class Contents:
    """How much a tree takes on an ext4: blocks of 4 KiB with data, and inodes."""

    blocks: int
    inodes: int

    @classmethod
    def of(cls, sizes: Iterable[int]) -> Contents:
        """Of files and folders that have as many bytes."""
        counted = [-(-size // _BLOCK) + 1 for size in sizes]  # and one for its extents
        return cls(sum(counted), len(counted))


def packing(filesystem: Filesystem, tree: Path, image: Path, contents: Contents) -> list[str]:
    """The command that packs ``tree``; raises InfrastructureError with the package it takes."""
    name, package = _PACKAGES[filesystem]
    tool = require_tool(name, package, f"to make a guest's disk with {filesystem}")
    if filesystem == "squashfs":
        options = ["-comp", "lz4", "-all-root", "-no-xattrs", "-quiet", "-no-progress"]
        return [tool, str(tree), str(image), *options]
    if filesystem == "erofs":
        return [tool, str(image), str(tree)]
    inodes = contents.inodes + contents.inodes // 16 + 64
    blocks = contents.blocks + contents.blocks // 64 + inodes * _INODE // _BLOCK + _SPARE
    options = ["-q", "-F", "-t", "ext4", "-O", _FEATURES, "-b", str(_BLOCK), "-I", str(_INODE)]
    options += ["-N", str(inodes), "-m", "0", "-E", "root_owner=0:0", "-d", str(tree)]
    # The host's own mke2fs.conf is not to change it.
    return ["env", "MKE2FS_CONFIG=/dev/null", tool, *options, str(image), str(blocks)]


def contents_of(tree: Path) -> Contents:
    """What the files and folders below ``tree`` take."""
    sizes = [0]
    for folder, folders, files in os.walk(tree):
        for name in (*folders, *files):
            with suppress(OSError):
                sizes.append((Path(folder) / name).lstat().st_size)
    return Contents.of(sizes)


def suited(root: RootImage, image: KernelImage, cache: Path, log: Log = quiet) -> RootImage:
    """``root`` with a file system that ``image`` can mount, made once of its squashfs.

    One that is given as ext4 or erofs stays; ``kconfig.check`` refuses kernels without that.  Its
    note is that of the other one.  ``log`` is told when it has to be made.  Raises ImageError.
    """
    wanted = filesystem_of(image, root.filesystem)
    if root.kind != "disk" or root.path is None or wanted == root.filesystem:
        return root
    squashfs = root.path

    def make(made: Path, folder: Path) -> dict[str, object]:
        log(f"making the guest image as {wanted}: {image.release} cannot mount its squashfs")
        _convert(squashfs, wanted, made, folder, cache)
        return {"made_of": root.digest}

    key = f"{wanted}-{sha256_json([RECIPE, root.digest])[:16]}"
    found = take(cache, key, make, log, wanted)
    return replace(found, libraries=root.libraries, wheels=root.wheels)


def _convert(squashfs: Path, filesystem: Filesystem, made: Path, folder: Path, cache: Path) -> None:
    """Make of ``squashfs`` the image ``made``, with ``folder`` for what is unpacked of it.

    An ordinary user does that in a namespace of users, where files have their owners, and of
    mounts, in memory: what other users own could not be removed from the disk.
    """
    try:
        unsquashfs = require_tool("unsquashfs", "squashfs-tools", "to unpack the guest image")
        contents = _listed(unsquashfs, squashfs)
        require_space(cache, 3 * _BLOCK * contents.blocks, "guest image")
        pack = packing(filesystem, folder / "tree", made, contents)
    except InfrastructureError as error:
        raise ImageError(f"guest image: {error}") from error
    command, mount = ["sh", "-c"], ":"
    if os.geteuid() != 0:
        check_user_namespaces()
        command = ["unshare", "-r", "--map-auto", "--mount", *command]
        mount = 'mkdir "$1/tree"; mount -t tmpfs -o mode=755 tmpfs "$1/tree"'
    script = _UNPACK.replace("{mount}", mount)
    done = interrupt.run([*command, script, "sh", str(folder), unsquashfs, str(squashfs), *pack])
    remove_tree(folder / "tree")
    if done.returncode != 0:
        check_room(cache, "guest image")
        why = last_line(done.stderr) or last_line(done.stdout) or "it says nothing"
        raise ImageError(
            f"guest image: {squashfs} could not be made a disk with {filesystem} "
            f"(status {done.returncode}): {why}"
        )
    if found := unlike(made, filesystem):
        raise ImageError(f"guest image: what was made of {squashfs} begins with {found}")


def _listed(unsquashfs: str, squashfs: Path) -> Contents:
    """What the files of ``squashfs`` take, each of several names counted."""
    done = interrupt.run([unsquashfs, "-lln", str(squashfs)])
    lines = (line.split(maxsplit=3) for line in done.stdout.splitlines())
    # Of a device the third is its number.
    sizes = [int(fields[2]) for fields in lines if len(fields) == 4 and fields[2].isdecimal()]
    if done.returncode != 0 or not sizes:
        raise ImageError(f"guest image: {squashfs} cannot be read: {last_line(done.stderr)}")
    return Contents.of(sizes)
