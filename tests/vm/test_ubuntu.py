"""A real kernel in Ubuntu's packages, by apt from a signed archive on the loopback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import signed_archive
import tomlkit
import ubuntu_archive
from command import vmtest
from http_files import Served, serving
from real_kernels import PROJECT, boot_modules, known_accelerator

from vmtest.model.kernels import KernelImage, RootImage
from vmtest.vm.accel import Probe

pytestmark = [ubuntu_archive.needed, signed_archive.needed]
# As in linux-modules-extra, without which no guest of them could read the host's files.
EXTRA = ("kernel/fs/9p", "kernel/net/9p")
UBUNTU = """
[apt.ubuntu]
distribution = "ubuntu"
suites = ["noble-updates"]
mirror = "{url}"
security_mirror = "{url}"
keyring = "{keyring}"
[[kernel]]
name = "noble"
apt = "ubuntu"
version = "*"
"""


def test_our_own_suite_and_objects_run_on_a_kernel_that_is_packed_as_ubuntus(
    image: KernelImage, root: RootImage, probe: Probe, cache: Path, tmp_path: Path
) -> None:
    """The suite ``log`` and ``verify``, as on every kernel that this project runs."""
    del probe
    known_accelerator(cache, tmp_path / "cache")
    modules = boot_modules(image, tmp_path / "modules")

    def fill(tree: Path, kind: str, release: str) -> None:
        place = tree / "lib/modules" / release
        (tree / "boot").mkdir()
        if kind == "image":
            (packed,) = image.image.parent.glob("vmlinuz-*")
            shutil.copyfile(packed, tree / "boot" / f"vmlinuz-{release}")
        elif kind == "modules":
            assert image.config is not None
            shutil.copyfile(image.config, tree / "boot" / f"config-{release}")
            shutil.copytree(modules, place, ignore=lambda at, names: {"9p"} & {*names})
        elif kind == "extra":
            for name in EXTRA:
                shutil.copytree(modules / name, place / name)

    suites = {"noble-updates": [f"6.12.118-1.1 {image.release}"]}
    ubuntu_archive.make(tmp_path / "mirror", suites, fill)
    files = {
        f"/{path.relative_to(tmp_path / 'mirror')}": path.read_bytes()
        for path in (tmp_path / "mirror").rglob("*")
        if path.is_file()
    }
    ours = tomlkit.parse((PROJECT / "kernels.toml").read_text())
    for table in ("apt", "kernel"):
        del ours[table]
    ours["guest"] = {"root": str(root.path)}
    for part in ("bpf", "tests/suites"):
        shutil.copytree(PROJECT / part, tmp_path / part)
    keyring = tmp_path / "mirror/keyring.gpg"
    with serving(Served(files)) as served:
        tables = UBUNTU.format(url=served.url, keyring=keyring)
        (tmp_path / "kernels.toml").write_text(tomlkit.dumps(ours) + tables)
        environment = {"VMTEST_CACHE": str(tmp_path / "cache"), "no_proxy": "127.0.0.1"}
        asked = ("run", "--suite", "log")
        ran = vmtest(*asked, cwd=tmp_path, environment=environment, timeout=1200)
        assert ran.status == 0, ran
        (result,) = json.loads((tmp_path / ".vmtest/latest/matrix.json").read_text())["kernels"]
        assert result["status"] == "PASSED" and len(result["tests"]) > 40, result
        listed = vmtest("kernels", "list", "--json", cwd=tmp_path, environment=environment)
        (row,) = json.loads(listed.out)["kernels"]
        assert f"linux-image-{image.release} 6.12.118-1.1" in row["origin"]
        assert (row["share"], row["filesystem"]) == ("9p", "squashfs")
        loaded = vmtest("verify", cwd=tmp_path, environment=environment, timeout=1200)
        assert loaded.status == 0, loaded
