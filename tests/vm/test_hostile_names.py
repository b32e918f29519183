"""Folders with odd names, through the command line: each boots, and no part of a name is run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import vmtest
from real_kernels import KERNEL, known_accelerator

from vmtest.model.kernels import KernelImage, RootImage
from vmtest.vm.accel import Probe

SIGNS = "a b; touch {0}/ran; $(touch {0}/ran) `touch {0}/ran` 'q' \"d\", version 9.9 & | x\ny"
"""What shells, options and lists read signs in, over two lines; {0} is a folder."""

CONFIG = """
schema = 1
[guest]
root = "root.sqfs"
[[kernel]]
name = "{name}"
path = "kernel"
modules = "modules"
config = "config"
memory = "512M"
"""


@pytest.fixture
def odd(tmp_path: Path, image: KernelImage, root: RootImage) -> Path:
    """A project in a folder with an odd name, and in it a kernel and a guest image."""
    assert root.path is not None and image.modules is not None and image.config is not None
    folder = tmp_path / SIGNS.format(tmp_path)
    folder.mkdir(parents=True)
    shutil.copyfile(root.path, folder / "root.sqfs")
    shutil.copyfile(image.image, folder / "kernel")
    shutil.copyfile(image.config, folder / "config")
    (folder / "modules").symlink_to(image.modules)
    (folder / "kernels.toml").write_text(CONFIG.format(name=KERNEL))
    return folder


def loads_a_module(folder: Path, **environment: str) -> None:
    """Assert that the project in ``folder`` boots its kernel, with that kernel's modules."""
    command = "modprobe dummy && grep -o ^dummy /proc/modules"
    said = vmtest("exec", "--cold", "--", "sh", "-c", command, cwd=folder, environment=environment)
    assert said.status == 0, said
    assert "dummy" in said.out, said


def test_a_kernel_boots_from_a_cache_and_a_project_with_odd_names(
    odd: Path, tmp_path: Path, cache: Path, probe: Probe
) -> None:
    known_accelerator(cache, odd / "cache")
    loads_a_module(odd, VMTEST_CACHE=str(odd / "cache"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [SIGNS, "/".join(["long" * 20] * 3)], ids=["odd", "long"])
def test_a_kernel_boots_whatever_the_temporary_folder_is_called(
    name: str, project: Callable[..., Path], tmp_path: Path
) -> None:
    folder = project("")
    temporary = tmp_path / "temporary" / name.format(tmp_path)
    temporary.mkdir(parents=True)
    loads_a_module(folder, TMPDIR=str(temporary))
    assert not (tmp_path / "ran").exists()
    assert list(temporary.iterdir()) == []
