"""Guests on damaged files of the cache: neither FAILED nor PASSED, and healed where that can be."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from real_kernels import boot_modules, known_accelerator

from vmtest.config.file import parse
from vmtest.host.cache import read_record, write_record
from vmtest.host.seal import Entry, Recheck, stamp
from vmtest.kernels import Store
from vmtest.kernels.store.store import recheck_kernel
from vmtest.matrix.plan import Plan
from vmtest.matrix.runner import run_matrix
from vmtest.model.kernels import KernelImage, RootImage
from vmtest.model.project import Config
from vmtest.model.results import KernelResult, Status
from vmtest.rootfs.images import recheck_image
from vmtest.runs import folder as runs
from vmtest.suites.task import SuitesTaskFactory
from vmtest.vm.accel import Probe

# Nobody listens there: an image that was removed cannot be built again.
CONFIG = """
schema = 1
[guest]
root = "{root}"
[apt.nowhere]
suites = ["bookworm"]
mirror = "http://127.0.0.1:9/debian"
security_mirror = "http://127.0.0.1:9/security"
[[kernel]]
name = "mine"
retries = 0
path = "{image}"
modules = "{modules}"
config = "{config}"
[[suite]]
name = "own"
tests = "test_own.py"
"""
SUITE = """
import json, uuid, decimal, tarfile, subprocess

def test_the_guest_can_compute():
    assert subprocess.run(["busybox", "true"]).returncode == 0
"""


def configured(folder: Path, image: KernelImage, modules: Path, root: str) -> Config:
    folder.mkdir()
    (folder / "test_own.py").write_text(SUITE)
    text = CONFIG.format(root=root, image=image.image, modules=modules, config=image.config)
    return parse(text, folder / "kernels.toml")


def run(settings: Config, cache: Path) -> tuple[KernelResult, Path]:
    tasks = SuitesTaskFactory(settings, settings.suites, ())
    made = runs.create(settings.directory)
    plan = Plan(settings, settings.kernels, tasks.task, cache, made)
    (result,) = run_matrix(plan, lambda event: None, lambda matrix: None).kernels
    return result, made.path


def rot(entry: Entry, recheck: Recheck, path: Path, change: Callable[[bytes], bytes]) -> None:
    """Damage a file as a failing disk does: no size and no time tells."""
    assert entry.inspect(recheck) is None, "it was whole"
    path.write_bytes(change(path.read_bytes()))
    files = entry.files()
    assert isinstance(files, Mapping)
    (checked,) = (entry.root / "checked").glob(f"{entry.kind}-*")
    assert read_record(checked) is not None
    write_record(checked, {"stamp": stamp(entry.place, files)})


def zeroed(data: bytes, begin: float, end: float) -> bytes:
    """``data`` with zeros from ``begin`` to ``end``, fractions of its length."""
    first, last = int(len(data) * begin), int(len(data) * end)
    return data[:first] + bytes(last - first) + data[last:]


@pytest.fixture(scope="module")
def modules(image: KernelImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return boot_modules(image, tmp_path_factory.mktemp("modules"))


@pytest.fixture
def own_cache(cache: Path, probe: Probe, tmp_path: Path) -> Path:
    """A cache of the test's own."""
    known_accelerator(cache, tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def image_copy(own_cache: Path, root: RootImage) -> Entry:
    """The guest image in that cache."""
    assert root.path is not None
    place = own_cache / "images" / root.path.parent.name
    shutil.copytree(root.path.parent, place)
    return Entry(own_cache, "image", place)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data[:4] + bytes(600) + data[604:], id="superblock"),
        pytest.param(lambda data: zeroed(data, 0.3, 0.5), id="files"),
        pytest.param(lambda data: zeroed(data, 0.9975, 1.0), id="tables"),
        pytest.param(lambda data: data[:-1] + bytes([data[-1] ^ 1]), id="bit-nobody-reads"),
    ],
)
def test_a_guest_on_a_rotten_image_is_an_infrastructure_error(
    tmp_path: Path,
    image: KernelImage,
    modules: Path,
    image_copy: Entry,
    change: Callable[[bytes], bytes],
) -> None:
    rot(image_copy, recheck_image, image_copy.place / "root.sqfs", change)
    settings = configured(tmp_path / "project", image, modules, "debian")
    result, folder = run(settings, image_copy.root)
    assert result.status is Status.INFRA_ERROR, result
    assert result.reason.startswith(f"{image_copy.title} is damaged (root.sqfs has sha256 ")
    assert "making it again failed" in result.reason
    assert result.tests == ()
    assert not image_copy.place.exists()
    assert (folder / "mine" / "damaged-cache" / "console.log").is_file()


def test_a_kernel_whose_modules_rotted_is_made_again_and_run_again(
    tmp_path: Path, image: KernelImage, modules: Path, own_cache: Path, root: RootImage
) -> None:
    settings = configured(tmp_path / "project", image, modules, str(root.path))
    first, _ = run(settings, own_cache)
    assert first.status is Status.PASSED and "damaged" not in first.note, first.reason
    (stored,) = Store(own_cache).entries()
    entry = Entry(own_cache, "kernel", stored.path)
    (module,) = stored.path.rglob("squashfs.ko")
    rot(entry, recheck_kernel, module, lambda data: zeroed(data, 0.1, 0.9))
    again, _ = run(settings, own_cache)
    assert again.status is Status.PASSED, again
    assert f"{entry.title} is damaged (lib/modules/" in again.note
    assert "this kernel was run again" in again.note
    assert entry.inspect() is None
