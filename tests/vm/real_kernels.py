"""The kernels of this project's own kernels.toml, for tests that boot them."""

from __future__ import annotations

import shutil
from pathlib import Path

from vmtest.kernels import Store, source_for
from vmtest.model.kernels import Kernel, KernelImage
from vmtest.model.project import Config

PROJECT = Path(__file__).parents[2]
KERNEL = "6.12"
BOOT_MODULES = (
    "kernel/arch",
    "kernel/crypto",
    "kernel/drivers/block",
    "kernel/drivers/char",
    "kernel/drivers/virtio",
    "kernel/fs",
    "kernel/lib",
    "kernel/net/9p",
)
"""Where the modules are that a guest boots with, and those that these need."""


def kernel_of(name: str, settings: Config) -> Kernel:
    (kernel,) = (kernel for kernel in settings.kernels if kernel.name == name)
    return kernel


def image_of(name: str, settings: Config, cache: Path) -> KernelImage:
    kernel = kernel_of(name, settings)
    source, store = source_for(kernel, settings.archives), Store(cache)
    return source.fetch(source.resolve(kernel, store), store)


def kernel_entry(name: str, image: KernelImage) -> str:
    """``image`` as a ``[[kernel]]`` of kernels.toml, to which more keys may be added."""
    return f"""
[[kernel]]
name = "{name}"
path = "{image.image}"
modules = "{image.modules}"
config = "{image.config}"
memory = "512M"
"""


def boot_modules(image: KernelImage, folder: Path) -> Path:
    """A copy of ``image``'s modules in ``folder``, of those that a guest needs to boot.

    All of them are up to 460 MB: too much for each test that has a store of its own.
    """
    assert image.modules is not None
    copy = folder / image.release
    for name in BOOT_MODULES:
        if (image.modules / name).is_dir():
            shutil.copytree(image.modules / name, copy / name)
    for file in image.modules.glob("modules.*"):
        shutil.copyfile(file, copy / file.name)
    return copy


def known_accelerator(cache: Path, own: Path) -> None:
    """Have the store ``own`` know what ``cache`` does: to find it takes as long as a boot."""
    shutil.copytree(cache / "accel", own / "accel")
