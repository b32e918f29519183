"""Kernels of a dnf repository, real ones repacked: searched to the end, and some with limits.

The repository is made by rpmbuild and createrepo_c, signed, and served on the loopback.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import repacked
import rpm_repository
import tomlkit
from command import vmtest
from http_files import Served, serving
from real_kernels import PROJECT, boot_modules, image_of, known_accelerator
from repacked import Layout, Limits
from rpm_repository import Keys

from vmtest.bisect.journal import JOURNAL
from vmtest.host.cache import find_tool
from vmtest.model.kernels import RootImage
from vmtest.model.project import Config
from vmtest.objects.compile import build_all
from vmtest.vm.accel import Probe

pytestmark = rpm_repository.needed

# 6.1 twice: so the list is longer, and takes no more to fetch.
PACKED = (
    ("5.10", "5.10.262", "1.el10"),
    ("6.1", "6.1.192", "1.el10"),
    ("6.1", "6.1.192", "2.el10"),
    ("6.12", "6.12.118", "1.el10"),
    ("backports", "7.3.4", "1.el10"),
)
SQUASHFS, NINE_P = ("SQUASHFS", "SQUASHFS_LZ4"), ("NET_9P", "NET_9P_VIRTIO", "9P_FS")
LIMITED = {
    "ext4": Limits(SQUASHFS, ("squashfs",)),
    "erofs": Limits((*SQUASHFS, "EXT4_FS"), ("squashfs", "ext4", "jbd2")),
    # As Red Hat's kernels, whose squashfs has no lz4 and which have no 9P; here no virtiofs either,
    # because not every host has a virtiofsd.
    "red-hat": Limits(
        ("SQUASHFS_LZ4", *NINE_P, "VIRTIO_FS"), ("9p", "9pnet", "9pnet_virtio", "virtiofs")
    ),
    "none": Limits((*SQUASHFS, "EXT4_FS", "EROFS_FS"), ("squashfs", "ext4", "erofs")),
    # As Amazon's: squashfs with lz4 and no 9P; those of Amazon 2 have no virtiofs either.
    "amazon": Limits((*NINE_P, "VIRTIO_FS"), ("9p", "9pnet", "9pnet_virtio", "virtiofs")),
    # As SUSE's and Oracle's: they lack nothing of this.
    "suse": Limits(),
    "uek": Limits(),
}
LAYOUTS = {
    "amazon": Layout("kernel", whole=True),
    "suse": Layout("kernel-default", whole=True),
    "uek": Layout("kernel-uek"),
}
KFUNC = "kfunc.bpf.o:reads_by_pointer"


@dataclass(frozen=True)
class World:
    """The mirror at ``url``, the key that signed it, and a cache of these tests' own."""

    url: str
    key: Path
    cache: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"VMTEST_CACHE": str(self.cache)}


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, settings: Config, cache: Path, probe: Probe
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("dnf")
    known_accelerator(cache, folder / "cache")
    keys = Keys(folder / "gnupg")
    mirror = folder / "mirror"
    images = {name: image_of(name, settings, cache) for name in {one[0] for one in PACKED}}
    modules = {name: boot_modules(one, folder / "modules") for name, one in images.items()}
    for name, version, release in PACKED:
        into = mirror / "BaseOS"
        into.mkdir(parents=True, exist_ok=True)
        made = version, release
        repacked.pack(images[name], modules[name], made, folder / "build", into)
        shutil.rmtree(folder / "build")
    for name, limits in LIMITED.items():
        into = mirror / name
        into.mkdir()
        made = "6.12.118", "1.el10"
        layout = LAYOUTS.get(name, Layout())
        build = folder / "build"
        repacked.pack(images["6.12"], modules["6.12"], made, build, into, limits, layout)
        shutil.rmtree(folder / "build")
    shutil.rmtree(folder / "modules")
    with ExitStack() as stack:
        stack.callback(keys.close)
        files = {}
        for repository in mirror.iterdir():
            rpm_repository.publish(repository)
            keys.sign_metadata(repository)
        for path in mirror.rglob("*"):
            if path.is_file():
                files[f"/{path.relative_to(mirror)}"] = path.read_bytes()
        shutil.rmtree(mirror)
        served = stack.enter_context(serving(Served(files)))
        yield World(served.url, keys.public, folder / "cache")


CONFIG = """
schema = 1
[guest]
root = "{root}"
[dnf.{name}]
mirror = "{world.url}"
repositories = ["{name}"]
kernel = "{layout.name}"
keyring = "{world.key}"
[[kernel]]
name = "{kernel}"
dnf = "{name}"
version = "{version}"
"""


def configured(folder: Path, world: World, root: RootImage, name: str, *kernel: str) -> Path:
    """A project in ``folder`` with a kernel of the repository ``name``: its name and version."""
    text = CONFIG.format(
        root=root.path,
        world=world,
        name=name,
        layout=LAYOUTS.get(name, Layout()),
        kernel=kernel[0],
        version=kernel[1],
    )
    (folder / "kernels.toml").write_text(text)
    return folder


# --- a bisect ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(
    tmp_path_factory: pytest.TempPathFactory, world: World, root: RootImage
) -> tuple[str, list[dict[str, Any]]]:
    """What a bisect says that goes to its end, and its journal."""
    folder = tmp_path_factory.mktemp("bisect")
    build_all(PROJECT / "tests" / "verify", folder)
    configured(folder, world, root, "BaseOS", "newest", "*")
    ends = ("--bad", "5.10.262-1.el10", "--good", "newest", "--find", "fixed")
    said = vmtest(
        "bisect",
        *ends,
        *("--verify", KFUNC, "--jobs", "1", "--cold"),
        cwd=folder,
        environment=world.environment,
        timeout=900,
    )
    assert said.status == 0, said
    (file,) = folder.glob(f".vmtest/runs/*/{JOURNAL}")
    return said.out, [json.loads(line) for line in file.read_text().splitlines()]


def test_a_bisect_over_a_dnf_repository_names_the_first_kernel_with_the_kfunc(
    searched: tuple[str, list[dict[str, Any]]],
) -> None:
    # bpf_dynptr_from_skb: 6.4, commit b5964b968ac6.
    out, journal = searched
    first, last = "6.12.118", "6.1.192-2.el10"
    assert f"first good: {first} (package {first}-1.el10, BaseOS)" in out
    assert f"last bad: {last} (package {last}, BaseOS)" in out
    assert (journal[-1]["last"], journal[-1]["first"]) == (last, first)
    assert re.search(rf"\n    {re.escape(last)} +unsupported \(kfunc\): .*bpf_dynptr_from_skb", out)
    assert re.search(rf"\n    {re.escape(first)} +accepted, \d+ instructions", out)


def test_it_halves_what_is_left_in_rpms_order_and_boots_no_kernel_twice(
    searched: tuple[str, list[dict[str, Any]]],
) -> None:
    out, journal = searched
    (question,) = (line for line in journal if line["event"] == "question")
    packages = [f"{version}-{release}" for _, version, release in PACKED]
    assert [point["version"] for point in question["points"]] == packages
    rounds = [line["points"] for line in journal if line["event"] == "round"]
    # A version that one package has is name enough.
    assert rounds == [["5.10.262", "7.3.4"], ["6.1.192-2.el10"], ["6.12.118"]]
    assert "4 of 5 kernels asked in 3 rounds; never booted: 6.1.192-1.el10" in out


def test_its_end_names_the_tools_of_rpm(searched: tuple[str, list[dict[str, Any]]]) -> None:
    out, _ = searched
    assert "the package's: `rpm -qp --changelog` of its .rpm, down to 6.1.192-2.el10" in out
    assert "git log --oneline -S bpf_dynptr_from_skb v6.1..v6.12.118" in out
    assert "apt " not in out


# --- kernels with limits ----------------------------------------------------------------

SUITE = """
import os
from pathlib import Path

MOUNTS = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]


def test_the_root_is_what_the_kernel_can_mount() -> None:
    kinds = {device: kind for device, _, kind, *_ in MOUNTS if device.startswith("/dev/vd")}
    assert kinds["/dev/vda"] == "FILESYSTEM"
    assert set(kinds.values()) == {"FILESYSTEM"}
    assert "squashfs" not in Path("/proc/filesystems").read_text().split()


def test_files_have_the_owners_that_they_had() -> None:
    assert os.stat("/etc/gshadow").st_gid == 42
    assert os.stat("/usr/sbin/unix_chkpwd").st_mode & 0o7777 == 0o2755


def test_what_is_written_lies_over_it() -> None:
    Path("/etc/vmtest-was-here").write_text("yes")
    assert Path("/etc/vmtest-was-here").read_text() == "yes"
"""


@pytest.mark.parametrize(
    ("name", "filesystem", "share"),
    [("ext4", "ext4", "9p"), ("erofs", "erofs", "9p"), ("red-hat", "ext4", "disk")],
)
def test_a_kernel_without_squashfs_boots_is_saved_and_restored(
    name: str, filesystem: str, share: str, world: World, root: RootImage, tmp_path: Path
) -> None:
    if filesystem == "erofs" and find_tool("mkfs.erofs") is None:
        pytest.skip("erofs-utils is not installed on this host")
    folder = configured(tmp_path, world, root, name, "limited", "*")
    (folder / "test_own.py").write_text(SUITE.replace("FILESYSTEM", filesystem))
    with (folder / "kernels.toml").open("a") as config:
        config.write('[[suite]]\nname = "own"\ntests = "test_own.py"\n')

    def ran() -> dict[str, Any]:
        said = vmtest("run", cwd=folder, environment=world.environment, timeout=600)
        assert said.status == 0, said
        matrix = json.loads((folder / ".vmtest/latest/matrix.json").read_text())
        (result,) = matrix["kernels"]
        assert result["status"] == "PASSED" and len(result["tests"]) == 3, result
        return dict(result)

    first = ran()
    listed = vmtest("kernels", "list", "--json", cwd=folder, environment=world.environment)
    (row,) = json.loads(listed.out)["kernels"]
    assert (row["filesystem"], row["share"]) == (filesystem, share)
    (made,) = world.cache.glob(f"images/{filesystem}-*")
    assert first["guest"] in (made / "image.json").read_text()
    if share == "9p" and first["accelerator"] == "tcg":
        assert (first["start"], ran()["start"]) == ("cold", "warm")
    asked = ("--", "grep", "/dev/vda", "/proc/mounts")
    shown = vmtest("shell", "limited", *asked, cwd=folder, environment=world.environment)
    assert shown.status == 0 and f" / {filesystem} ro" in shown.out, shown


def test_a_kernel_with_none_of_the_three_is_refused_before_it_boots(
    world: World, root: RootImage, tmp_path: Path
) -> None:
    folder = configured(tmp_path, world, root, "none", "limited", "*")
    (folder / "test_own.py").write_text("def test_nothing() -> None:\n    pass\n")
    with (folder / "kernels.toml").open("a") as config:
        config.write('[[suite]]\nname = "own"\ntests = "test_own.py"\n')
    said = vmtest("run", cwd=folder, environment=world.environment)
    assert said.status == 3, said
    refusal = (
        "CONFIG_SQUASHFS is not set: the root is a squashfs, and it has neither ext4 "
        "(CONFIG_EXT4_FS) nor erofs (CONFIG_EROFS_FS)"
    )
    assert refusal in " ".join(said.out.split())
    assert not (folder / ".vmtest/latest/limited/console.log").exists()
    listed = vmtest("kernels", "list", "--json", cwd=folder, environment=world.environment)
    (row,) = json.loads(listed.out)["kernels"]
    assert row["filesystem"] is None and refusal in row["refused"]


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("red-hat", ("disk", "ext4")),
        ("amazon", ("disk", "squashfs")),
        ("suse", ("9p", "squashfs")),
        ("uek", ("9p", "squashfs")),
    ],
)
def test_our_own_suite_and_objects_run_on_the_kernels_of_others(
    name: str, way: tuple[str, str], world: World, root: RootImage, tmp_path: Path
) -> None:
    """The suite ``log`` and ``verify``, as on every kernel that this project runs."""
    for part in ("bpf", "tests/suites"):
        shutil.copytree(PROJECT / part, tmp_path / part)
    ours = tomlkit.parse((PROJECT / "kernels.toml").read_text())
    folder = configured(tmp_path, world, root, name, "limited", "*")
    theirs = tomlkit.parse((folder / "kernels.toml").read_text())
    for table in ("guest", "kernel"):
        ours[table] = theirs[table]
    del ours["apt"]
    ours["dnf"] = theirs["dnf"]
    (tmp_path / "kernels.toml").write_text(tomlkit.dumps(ours))
    ran = vmtest("run", "--suite", "log", cwd=tmp_path, environment=world.environment, timeout=900)
    assert ran.status == 0, ran
    listed = vmtest("kernels", "list", "--json", cwd=folder, environment=world.environment)
    (row,) = json.loads(listed.out)["kernels"]
    assert (row["share"], row["filesystem"]) == way
    loaded = vmtest("verify", cwd=tmp_path, environment=world.environment, timeout=900)
    assert loaded.status == 0, loaded
