"""A guest's disk as a file: which file system is in it, and whether a guest can use it.

Nothing is mounted: what is in a file system is asked of its own tool.
"""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

from vmtest.errors import ImageError, InfrastructureError
from vmtest.host.cache import require_tool
from vmtest.model.kernels import Filesystem
from vmtest.model.text import last_line
from vmtest.rootfs.images import GUEST_PYTHON

NEEDED_FOLDERS = ("dev", "proc", "sys", "run", "tmp")
"""What a guest mounts on."""

_MAGIC: Mapping[Filesystem, tuple[int, bytes]] = {
    "squashfs": (0, b"hsqs"),
    "ext4": (0x438, b"\x53\xef"),
    "erofs": (0x400, b"\xe2\xe1\xf5\xe0"),
}
_BOOT = 512  # bytes in front of an ext4 and an erofs, which nobody fills
_HEAD = 0x480
_INCOMPATIBLE = 0x460  # which features of an ext4 whoever mounts it has to know
_RECOVER = 4  # among them: its journal has to be played back
_EXT4_STAT = re.compile(r"Type: (\w+) +Mode: +(\d+) .*?User: +(\d+) +Group: +(\d+)", re.DOTALL)
_EROFS_STAT = re.compile(r"  (\w+)(?: file)?\n.*Uid: (\d+) +Gid: (\d+) +Access: (\d+)/", re.DOTALL)
_KINDS = {"directory": stat.S_IFDIR, "symlink": stat.S_IFLNK, "regular": stat.S_IFREG}

Inside = dict[str, str]
"""Names in an image, "" for /, with mode and owner as ``drwxr-xr-x 0/0``."""


def unlike(image: Path, filesystem: Filesystem) -> str:
    """What ``image`` begins with if it is no such file system, "" if it is one.

    QEMU could take one that begins otherwise for a format with another file in it.
    """
    head = _head(image)
    at, magic = _MAGIC[filesystem]
    fits = head[at : at + len(magic)] == magic
    if fits and (at == 0 or not any(head[:_BOOT])):
        return ""
    return head[: len(magic)].hex(" ") or "nothing"


def filesystem_in(image: Path) -> Filesystem:
    """The file system in ``image``, which is a user's; raises ImageError, OSError."""
    head = _head(image)
    for filesystem, (at, magic) in _MAGIC.items():
        if head[at : at + len(magic)] != magic:
            continue
        if unlike(image, filesystem):
            raise ImageError(
                f"guest root: the first {_BOOT} bytes of {image} are not empty, and QEMU could "
                f"take its {filesystem} for another format; make it again, as nothing but the "
                f"file system"
            )
        if filesystem == "ext4" and head[_INCOMPATIBLE] & _RECOVER:
            raise ImageError(
                f"guest root: {image} was not unmounted, and a guest, which only reads it, cannot "
                f"play its journal back; run: e2fsck -fp {image}"
            )
        return filesystem
    raise ImageError(
        f"guest root: {image} is neither squashfs nor ext4 nor erofs (it begins with "
        f"{head[:4].hex(' ') or 'nothing'}); make one of a folder with: mksquashfs FOLDER "
        f"{image} -comp lz4 -all-root"
    )


def _head(image: Path) -> bytes:
    with image.open("rb") as stream:
        return stream.read(_HEAD)


def check_inside(image: Path, filesystem: Filesystem = "squashfs") -> None:
    """Raise ImageError when ``image`` lacks what a guest needs, or its / is not root's."""
    inside = _INSIDE[filesystem](image)
    python = GUEST_PYTHON.lstrip("/")
    lacking = [f"/{name}" for name in (*NEEDED_FOLDERS, python) if name not in inside]
    if lacking:
        raise ImageError(f"guest image: {image} lacks {', '.join(lacking)}")
    if inside[""] != "drwxr-xr-x 0/0":
        raise ImageError(
            f"guest image: {image}: / is {inside['']} and must be drwxr-xr-x 0/0 (root), or sshd "
            f"refuses to serve"
        )


def _in_squashfs(image: Path) -> Inside:
    tool = require("unsquashfs", "squashfs-tools")
    done = _run(tool, "-lln", str(image), *NEEDED_FOLDERS, GUEST_PYTHON.lstrip("/"))
    lines = [line.split(maxsplit=5) for line in done.stdout.splitlines()]
    inside = {
        fields[5].partition(" -> ")[0].partition("/")[2]: f"{fields[0]} {fields[1]}"
        for fields in lines
        if len(fields) == 6 and fields[5].startswith("squashfs-root")
    }
    if done.returncode != 0 or "" not in inside:
        raise _unreadable(image, last_line(done.stderr) or "unsquashfs lists nothing")
    return inside


def _in_ext4(image: Path) -> Inside:
    tool = require("debugfs", "e2fsprogs")
    asked = "".join(f"stat /{name}\n" for name in ("", *NEEDED_FOLDERS, GUEST_PYTHON.lstrip("/")))
    done = _run(tool, "-f", "-", str(image), asked=asked)
    inside = {}
    for said in done.stdout.split("debugfs: stat /")[1:]:
        name, _, rest = said.partition("\n")
        if found := _EXT4_STAT.search(rest):
            inside[name] = _described(found[1], found[2], found[3], found[4])
    if "" not in inside:
        raise _unreadable(image, last_line(done.stderr) or "debugfs finds nothing in it")
    return inside


def _in_erofs(image: Path) -> Inside:
    tool = require("dump.erofs", "erofs-utils")
    inside = {}
    for name in ("", *NEEDED_FOLDERS, GUEST_PYTHON.lstrip("/")):
        done = _run(tool, f"--path=/{name}", str(image))
        if found := _EROFS_STAT.search(done.stdout):
            inside[name] = _described(found[1], found[4], found[2], found[3])
        elif not name:
            raise _unreadable(image, last_line(done.stderr) or "dump.erofs finds nothing in it")
    return inside


_INSIDE = {"squashfs": _in_squashfs, "ext4": _in_ext4, "erofs": _in_erofs}


def _described(kind: str, mode: str, user: str, group: str) -> str:
    return f"{stat.filemode(_KINDS.get(kind, 0) | int(mode, 8))} {user}/{group}"


def _unreadable(image: Path, why: str) -> ImageError:
    return ImageError(f"guest image: {image} cannot be read: {why}")


def _run(tool: str, *words: str, asked: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool, *words], input=asked, capture_output=True, text=True, errors="replace", check=False
    )


def require(tool: str, package: str, purpose: str = "to look into the guest image") -> str:
    """The path of ``tool``; raises ImageError with the package that has it."""
    try:
        return require_tool(tool, package, purpose)
    except InfrastructureError as error:
        raise ImageError(f"guest image: {error}") from None
