"""A guest's own disk image: squashfs, ext4 or erofs, made and looked into by the real tools."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from test_filesystems import kernel
from test_rootfs import root_folder, squashfs

from vmtest.errors import ImageError
from vmtest.host.cache import find_tool, sha256_file
from vmtest.model.kernels import Filesystem, GuestSpec, RootImage
from vmtest.rootfs.disks import filesystem_in
from vmtest.rootfs.filesystems import suited
from vmtest.rootfs.image import own_disk, prepare

TOOLS = ("mksquashfs", "mke2fs", "debugfs", "tune2fs", "mkfs.erofs", "dump.erofs")
pytestmark = pytest.mark.skipif(
    any(find_tool(tool) is None for tool in TOOLS),
    reason="squashfs-tools, e2fsprogs or erofs-utils is not installed on this host",
)
KINDS: tuple[Filesystem, ...] = ("squashfs", "ext4", "erofs")
# As mke2fs makes it where nobody asks for anything: with a journal and checksums.
PACK = {
    "ext4": (
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-E",
        "root_owner=0:0",
        "-d",
        "TREE",
        "IMAGE",
        "9M",
    ),
    "erofs": ("mkfs.erofs", "--all-root", "IMAGE", "TREE"),
}


def packed(folder: Path, filesystem: Filesystem, into: Path) -> Path:
    """An image of ``folder``, whose files root owns."""
    if filesystem == "squashfs":
        return squashfs(folder, into)
    names = {"TREE": str(folder), "IMAGE": str(into)}
    words = [names.get(word, word) for word in PACK[filesystem]]
    words[0] = find_tool(words[0]) or ""
    subprocess.run(words, check=True, capture_output=True)
    return into


def debugfs(image: Path, command: str) -> None:
    tool = find_tool("debugfs") or ""
    subprocess.run([tool, "-w", "-R", command, str(image)], check=True, capture_output=True)


def own(image: Path) -> GuestSpec:
    return GuestSpec(root=str(image))


@pytest.fixture(params=KINDS)
def filesystem(request: pytest.FixtureRequest) -> Filesystem:
    (found,) = (kind for kind in KINDS if kind == request.param)
    return found


def test_it_is_known_by_what_it_begins_with_and_taken_as_it_is(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    image = packed(root_folder(tmp_path / "root"), filesystem, tmp_path / "own.img")
    found = prepare(own(image), tmp_path / "cache")
    assert found == RootImage(
        "disk", image, sha256_file(image), "/usr/bin/python3", filesystem=filesystem
    )
    looked = own_disk(own(image))
    assert looked is not None and (looked.path, looked.filesystem) == (image, filesystem)
    assert own_disk(GuestSpec()) is None


def test_what_a_guest_needs_and_it_lacks_is_named(filesystem: Filesystem, tmp_path: Path) -> None:
    folder = root_folder(tmp_path / "root", "proc", "python")
    image = packed(folder, filesystem, tmp_path / "own.img")
    with pytest.raises(ImageError, match=f"{image} lacks /proc, /usr/bin/python3$"):
        prepare(own(image), tmp_path / "cache")


def test_a_root_that_anybody_may_write_is_refused(filesystem: Filesystem, tmp_path: Path) -> None:
    folder = root_folder(tmp_path / "root")
    folder.chmod(0o777)
    image = packed(folder, filesystem, tmp_path / "own.img")
    if filesystem == "ext4":  # mke2fs makes it 755, whatever the folder is
        debugfs(image, "set_inode_field / mode 040777")
    with pytest.raises(ImageError, match="/ is drwxrwxrwx 0/0 and must be drwxr-xr-x 0/0"):
        prepare(own(image), tmp_path / "cache")


def test_one_of_which_only_the_beginning_is_there_cannot_be_read(
    filesystem: Filesystem, tmp_path: Path
) -> None:
    image = packed(root_folder(tmp_path / "root"), filesystem, tmp_path / "own.img")
    image.write_bytes(image.read_bytes()[: 200 if filesystem == "squashfs" else 0x480])
    with pytest.raises(ImageError, match=f"{image} cannot be read: ."):
        prepare(own(image), tmp_path / "cache")


@pytest.mark.parametrize("filesystem", ["ext4", "erofs"])
def test_one_behind_something_else_is_refused(filesystem: Filesystem, tmp_path: Path) -> None:
    image = packed(root_folder(tmp_path / "root"), filesystem, tmp_path / "own.img")
    with image.open("r+b") as stream:
        stream.write(b"QFI\xfb")  # as a qcow2 begins, which may name another file
    with pytest.raises(ImageError, match=f"the first 512 bytes of {image} are not empty"):
        filesystem_in(image)
    assert own_disk(own(image)) is None


def test_an_ext4_that_was_not_unmounted_is_refused_with_the_cure(tmp_path: Path) -> None:
    image = packed(root_folder(tmp_path / "root"), "ext4", tmp_path / "own.img")
    assert filesystem_in(image) == "ext4"
    debugfs(image, "feature needs_recovery")
    with pytest.raises(ImageError, match=rf"was not unmounted.*run: e2fsck -fp {image}$"):
        filesystem_in(image)


@pytest.mark.parametrize("filesystem", ["ext4", "erofs"])
def test_nothing_else_is_made_of_it(filesystem: Filesystem, tmp_path: Path) -> None:
    image = packed(root_folder(tmp_path / "root"), filesystem, tmp_path / "own.img")
    root = prepare(own(image), tmp_path / "cache")
    for config in ({"EXT4_FS": "y"}, {"EROFS_FS": "m"}, {"SQUASHFS": "y", "SQUASHFS_LZ4": "y"}):
        assert suited(root, kernel(tmp_path, **config), tmp_path / "cache") is root


def test_a_squashfs_of_the_users_own_becomes_what_the_kernel_can_mount(tmp_path: Path) -> None:
    image = packed(root_folder(tmp_path / "root"), "squashfs", tmp_path / "own.img")
    root = prepare(own(image), tmp_path / "cache")
    made = suited(root, kernel(tmp_path, EXT4_FS="y"), tmp_path / "cache")
    assert made.filesystem == "ext4" and made.path is not None
    assert filesystem_in(made.path) == "ext4"
