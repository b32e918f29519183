"""A guest image of the user's own as ext4 and erofs: booted, saved, restored, and refused."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from command import vmtest
from real_kernels import kernel_entry

from vmtest.host.cache import find_tool
from vmtest.host.requirements import search_path
from vmtest.model.kernels import KernelImage, RootImage

# As mke2fs makes it where nobody asks for anything else: with a journal and checksums, whose
# module an initramfs has to bring.
PACKERS = {
    "ext4": ("mke2fs", 'mke2fs -q -t ext4 -E root_owner=0:0 -d "$1/tree" "$1/own.img" 400M'),
    "erofs": ("mkfs.erofs", 'mkfs.erofs --quiet "$1/own.img" "$1/tree"'),
}
# In memory, as other users own some of the files and nobody but root could remove them.
UNPACK = (
    'set -e; mkdir "$1/tree"; mount -t tmpfs tmpfs "$1/tree"; '
    'unsquashfs -quiet -no-progress -f -excludes -d "$1/tree" "$2" "dev/*"; chmod 755 "$1/tree"; '
)
SUITE = """
import os
from pathlib import Path


def test_the_root_is_the_users_own() -> None:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    kinds = {device: kind for device, _, kind, *_ in mounts}
    assert kinds["/dev/vda"] == "FILESYSTEM"
    assert os.stat("/usr/sbin/unix_chkpwd").st_mode & 0o7777 == 0o2755
    Path("/etc/vmtest-was-here").write_text("over it")
"""
CONFIG = """
schema = 1
[guest]
root = "{root}"
{kernel}
[[suite]]
name = "own"
tests = "checks/test_own.py"
"""


def own_image(filesystem: str, root: RootImage, folder: Path) -> Path:
    """The guest image as another file system, as a user would make it of a folder."""
    tool, pack = PACKERS[filesystem]
    if find_tool(tool) is None:
        pytest.skip(f"{tool} is not installed on this host")
    namespace = (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-r", "--map-auto", "-m"]
    )
    subprocess.run(
        [*namespace, "sh", "-c", UNPACK + pack, "sh", str(folder), str(root.path)],
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": search_path()},
    )
    return folder / "own.img"


def project(folder: Path, own: Path, kernel: str, suite: str) -> None:
    """A project in ``folder`` with that suite, away from the large image."""
    (folder / "kernels.toml").write_text(CONFIG.format(root=own, kernel=kernel))
    (folder / "checks").mkdir()
    (folder / "checks/test_own.py").write_text(suite)


@pytest.mark.parametrize("filesystem", ["ext4", "erofs"])
def test_a_guest_boots_from_it_and_leaves_it_as_it_was(
    filesystem: str, image: KernelImage, root: RootImage, tmp_path: Path
) -> None:
    own = own_image(filesystem, root, tmp_path)
    before = own.read_bytes()
    kernel = kernel_entry("real", image)
    project(tmp_path, own, kernel, SUITE.replace("FILESYSTEM", filesystem))

    def ran() -> dict[str, object]:
        said = vmtest("run", cwd=tmp_path, timeout=600)
        assert said.status == 0, said
        (result,) = json.loads((tmp_path / ".vmtest/latest/matrix.json").read_text())["kernels"]
        assert result["status"] == "PASSED" and len(result["tests"]) == 1, result
        return dict(result)

    first = ran()
    if first["accelerator"] == "tcg":
        assert (first["start"], ran()["start"]) == ("cold", "warm")
    assert own.read_bytes() == before
    listed = vmtest("kernels", "list", cwd=tmp_path)
    assert f"real: reads the host's files by 9P, its root is {filesystem}" in listed.out


def test_a_kernel_that_cannot_mount_it_is_refused_before_it_boots(
    image: KernelImage, root: RootImage, tmp_path: Path, unable: Callable[[str], KernelImage]
) -> None:
    own = own_image("ext4", root, tmp_path)
    kernel = kernel_entry("limited", unable("EXT4_FS"))
    project(tmp_path, own, kernel, SUITE)
    said = vmtest("run", cwd=tmp_path)
    assert said.status == 3, said
    text = " ".join(said.out.split())
    assert "CONFIG_EXT4_FS is not set: its root is an ext4; [guest] root is " in text
    assert "pack its files as squashfs (mksquashfs FOLDER IMAGE -comp lz4 -all-root)" in text
    assert not (tmp_path / ".vmtest/latest/limited/console.log").exists()


@pytest.fixture
def unable(image: KernelImage, tmp_path: Path) -> Callable[[str], KernelImage]:
    """Makes the kernel one whose config lacks a symbol."""

    def make(symbol: str) -> KernelImage:
        assert image.config is not None
        config = tmp_path / "config"
        config.write_text(image.config.read_text().replace(f"\nCONFIG_{symbol}=", "\n# no "))
        return replace(image, config=config)

    return make
