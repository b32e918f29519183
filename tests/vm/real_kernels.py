"""The kernels of this project's own kernels.toml, for tests that boot them."""

from __future__ import annotations

from pathlib import Path

from vmtest.kernels import Store, source_for
from vmtest.model.kernels import Kernel, KernelImage
from vmtest.model.project import Config

PROJECT = Path(__file__).parents[2]
KERNEL = "6.12"


def kernel_of(name: str, settings: Config) -> Kernel:
    (kernel,) = (kernel for kernel in settings.kernels if kernel.name == name)
    return kernel


def image_of(name: str, settings: Config, cache: Path) -> KernelImage:
    kernel = kernel_of(name, settings)
    source, store = source_for(kernel, settings.archives), Store(cache)
    return source.fetch(source.resolve(kernel, store), store)
