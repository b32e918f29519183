"""The guest image for kernels without squashfs: the same files, made by the real tools, kept."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from test_kconfig import DEBIAN, config_file, image

from vmtest.errors import ImageError
from vmtest.host.cache import find_tool, read_json, sha256_file
from vmtest.host.requirements import namespaces_refused, search_path
from vmtest.host.seal import Entry
from vmtest.model.kernels import Filesystem, KernelImage, RootImage
from vmtest.rootfs.disks import unlike
from vmtest.rootfs.filesystems import Contents, contents_of, suited
from vmtest.rootfs.images import GUEST_PYTHON, images
from vmtest.storage.prune import items, remove

TOOLS = ("sqfstar", "unsquashfs", "mke2fs", "debugfs", "mkfs.erofs", "fsck.erofs", "dump.erofs")
pytestmark = [
    pytest.mark.skipif(
        any(find_tool(tool) is None for tool in TOOLS),
        reason="squashfs-tools, e2fsprogs or erofs-utils is not installed on this host",
    ),
    pytest.mark.skipif(bool(namespaces_refused()), reason="user namespaces are refused here"),
]
TIME = 1_600_000_000
LARGE = os.urandom(3 << 20)
# Beside these a large file, and one of several names.
FILES = {
    "etc/shadow": ("640", 0, 42),
    "usr/bin/ssh-agent": ("2755", 0, 101),
    "usr/bin/su": ("4755", 0, 0),
    "home/me/a b": ("600", 1000, 1000),
}


@pytest.fixture
def root(tmp_path: Path) -> RootImage:
    """A squashfs with owners and modes that whoever runs the tests need not have."""
    squashfs = tmp_path / "root.sqfs"
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        for name, (mode, user, group) in FILES.items():
            text = f"this is {name}\n".encode()
            tar.addfile(entry(name, tarfile.REGTYPE, mode, user, group, len(text)), BytesIO(text))
        tar.addfile(entry("large", tarfile.REGTYPE, size=len(LARGE)), BytesIO(LARGE))
        tar.addfile(entry("other", tarfile.LNKTYPE, link="large"))
        tar.addfile(entry("link", tarfile.SYMTYPE, link="usr/bin/su"))
        tar.addfile(entry("tmp", tarfile.DIRTYPE, "1777"))
        tar.addfile(entry("dev", tarfile.DIRTYPE, "755"))
        tar.addfile(entry("dev/null", tarfile.CHRTYPE, "666"))
    with (tmp_path / "root.tar").open("rb") as stream:
        options = ["-quiet", "-no-progress", "-comp", "lz4", "-root-mode", "755"]
        subprocess.run(["sqfstar", *options, str(squashfs)], stdin=stream, check=True)
    return RootImage("disk", squashfs, sha256_file(squashfs), GUEST_PYTHON)


def entry(
    name: str,
    kind: bytes,
    mode: str = "644",
    user: int = 0,
    group: int = 0,
    size: int = 0,
    link: str = "",
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid = kind, int(mode, 8), user, group
    info.size, info.linkname, info.mtime = size, link, TIME
    info.devmajor, info.devminor = (1, 3) if kind == tarfile.CHRTYPE else (0, 0)
    return info


def kernel(folder: Path, **symbols: str) -> KernelImage:
    """A kernel of that config, beside what each has."""
    gone = ("SQUASHFS", "SQUASHFS_LZ4")
    config = {symbol: value for symbol, value in DEBIAN.items() if symbol not in gone}
    return image(config_file(folder, config | symbols))


@pytest.fixture(params=["ext4", "erofs"])
def filesystem(request: pytest.FixtureRequest) -> Filesystem:
    return "ext4" if request.param == "ext4" else "erofs"


@pytest.fixture
def without(tmp_path: Path, filesystem: Filesystem) -> KernelImage:
    return kernel(tmp_path, **{f"{filesystem.upper()}_FS": "m"})


def read(*command: str) -> str:
    done = subprocess.run(
        command, env={"PATH": search_path()}, capture_output=True, text=True, check=True
    )
    return done.stdout


def unpacked(made: RootImage, folder: Path) -> Path:
    """The files of an image as the user's own, by tools that do not mount it."""
    folder.mkdir()
    if made.filesystem == "ext4":
        read("debugfs", "-R", f"rdump / {folder}", str(made.path))
    else:
        read("fsck.erofs", "--no-preserve", "--overwrite", f"--extract={folder}", str(made.path))
    return folder


def status_of(made: RootImage, name: str) -> tuple[str, int, int]:
    """Mode, user and group of a file in an image.  dump.erofs leaves out what is above 0777."""
    if made.filesystem == "ext4":
        said = read("debugfs", "-R", f'stat "/{name}"', str(made.path))
        assert f"mtime: {TIME:#x}" in said
        found = re.search(r"Mode:  0?(\d+).*User: +(\d+) +Group: +(\d+)", said, re.DOTALL)
    else:
        said = read("dump.erofs", f"--path=/{name}", str(made.path))
        assert "Timestamp: 2020-09-13 " in said
        said = re.sub(r"(Uid:.*)(Access: )(\d+)", r"\2\3 \1", said)
        found = re.search(r"Access: 0?(\d+) Uid: (\d+) +Gid: (\d+)", said)
    assert found is not None, said
    return found[1], int(found[2]), int(found[3])


def test_it_has_the_same_files_with_their_owners_modes_and_times(
    root: RootImage, without: KernelImage, filesystem: Filesystem, tmp_path: Path
) -> None:
    made = suited(root, without, tmp_path / "cache")
    assert (made.kind, made.filesystem) == ("disk", filesystem)
    assert made.path is not None and unlike(made.path, filesystem) == ""
    assert made.digest == sha256_file(made.path) != root.digest
    for name, (mode, user, group) in FILES.items():
        expected = mode if filesystem == "ext4" else mode[-3:]
        assert status_of(made, name) == (expected, user, group)
    tree = unpacked(made, tmp_path / "made")
    for name in FILES:
        assert (tree / name).read_text() == f"this is {name}\n"
    assert (tree / "large").read_bytes() == LARGE
    assert (tree / "other").read_bytes() == LARGE
    assert str((tree / "link").readlink()) == "usr/bin/su"
    assert (tree / "tmp").is_dir() and list((tree / "dev").iterdir()) == []


def test_it_is_made_once_and_told_and_belongs_to_the_cache(
    root: RootImage, without: KernelImage, filesystem: Filesystem, tmp_path: Path
) -> None:
    cache, told = tmp_path / "cache", list[str]()
    first = suited(root, without, cache, told.append)
    assert suited(root, without, cache, told.append) == first
    assert told == [f"making the guest image as {filesystem}: 6.12.1 cannot mount its squashfs"]
    assert first.path is not None
    ((name, path, size),) = images(cache)
    assert path == first.path and size >= 3 << 20
    record = read_json(path.parent / "image.json")
    assert (record["file"], record["made_of"]) == (path.name, root.digest)
    assert list((cache / "tmp").iterdir()) == []
    (item,) = items(cache)
    assert (item.kind, item.name, item.busy, item.broken) == ("image", name, True, False)
    assert remove(cache, [item]) == [], "this process has it"


def test_two_at_once_make_it_once(root: RootImage, without: KernelImage, tmp_path: Path) -> None:
    told: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        cache = tmp_path / "cache"
        both = [pool.submit(suited, root, without, cache, told.append) for _ in "ab"]
        assert both[0].result() == both[1].result()
    assert len(told) == 1


def test_a_damaged_one_is_made_again_with_a_note(
    root: RootImage, without: KernelImage, tmp_path: Path
) -> None:
    first = suited(root, without, tmp_path / "cache")
    assert first.path is not None
    with first.path.open("r+b") as stream:
        stream.seek(2 << 20)
        stream.write(b"another block" * 300)
    again = suited(root, without, tmp_path / "cache")
    assert again.path == first.path and "is damaged" in again.note
    entry = Entry.of(first.path.parent)
    assert entry is not None and entry.inspect() is None


def test_a_kernel_with_squashfs_and_a_root_without_a_disk_keep_theirs(
    root: RootImage, without: KernelImage, tmp_path: Path
) -> None:
    with_it = kernel(tmp_path, SQUASHFS="m", SQUASHFS_LZ4="y", EXT4_FS="y")
    assert suited(root, with_it, tmp_path / "cache") is root
    host = RootImage("host", None, "", GUEST_PYTHON)
    assert suited(host, kernel(tmp_path, EXT4_FS="y"), tmp_path / "cache") is host
    assert not (tmp_path / "cache").exists()


def only(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> Path:
    """Have only these tools in PATH; returns the folder that they are in."""
    folder.mkdir()
    for name in names:
        found = find_tool(name)
        assert found is not None
        (folder / name).symlink_to(found)
    monkeypatch.setattr("vmtest.host.cache.search_path", lambda: str(folder))
    return folder


@pytest.mark.parametrize(
    ("symbol", "said"),
    [
        ("EXT4_FS", r"mke2fs is not installed .*install the package e2fsprogs"),
        ("EROFS_FS", r"mkfs\.erofs is not installed .*install the package erofs-utils"),
    ],
)
def test_a_tool_that_is_missing_is_named_with_its_package(
    symbol: str, said: str, root: RootImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(tmp_path / "bin", monkeypatch, "unsquashfs")
    with pytest.raises(ImageError, match=f"^guest image: {said}"):
        suited(root, kernel(tmp_path, **{symbol: "y"}), tmp_path / "cache")


def test_a_tool_that_fails_leaves_nothing(
    root: RootImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = only(tmp_path / "bin", monkeypatch, "unsquashfs")
    (there / "mke2fs").write_text("#!/bin/sh\necho 'out of luck' >&2\nexit 3\n")
    (there / "mke2fs").chmod(0o755)
    with pytest.raises(ImageError, match=r"a disk with ext4 \(status 3\): out of luck"):
        suited(root, kernel(tmp_path, EXT4_FS="y"), tmp_path / "cache")
    assert images(tmp_path / "cache") == []
    assert list((tmp_path / "cache/tmp").iterdir()) == []


def test_an_image_that_cannot_be_read_is_named(root: RootImage, tmp_path: Path) -> None:
    assert root.path is not None
    root.path.write_bytes(b"hsqs" + bytes(200))
    with pytest.raises(ImageError, match=rf"{root.path} cannot be read"):
        suited(root, kernel(tmp_path, EXT4_FS="y"), tmp_path / "cache")


def test_what_a_tree_takes_is_counted_in_blocks(tmp_path: Path) -> None:
    assert Contents.of([0, 1, 4096, 4097]) == Contents(0 + 1 + 1 + 2 + 4, 4)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_bytes(bytes(10_000))
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    assert contents_of(tmp_path).inodes == 5
    assert contents_of(tmp_path).blocks >= 2 * 3
