"""What the runner's own tests share: one real kernel, the guest image, the accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vmtest import config as configuration
from vmtest.guestimage import prepare_root
from vmtest.kernels import Store, default_cache, source_for
from vmtest.model import KernelImage, RootImage
from vmtest.vm import accel
from vmtest.vm.accel import Probe
from vmtest.vm.deadlines import Scale
from vmtest.vm.machine import Machine, MachineSpec
from vmtest.vm.session import SshSession

PROJECT = Path(__file__).parents[2]
KERNEL = "6.12"


@pytest.fixture(scope="session")
def cache() -> Path:
    return default_cache()


@pytest.fixture(scope="session")
def settings() -> configuration.Config:
    return configuration.load(PROJECT / "kernels.toml")


def image_of(name: str, settings: configuration.Config, cache: Path) -> KernelImage:
    (kernel,) = (kernel for kernel in settings.kernels if kernel.name == name)
    source, store = source_for(kernel, settings.archives), Store(cache)
    return source.fetch(source.resolve(kernel, store), store)


@pytest.fixture(scope="session")
def image(settings: configuration.Config, cache: Path) -> KernelImage:
    return image_of(KERNEL, settings, cache)


@pytest.fixture(scope="session")
def root(settings: configuration.Config, cache: Path) -> RootImage:
    return prepare_root(settings, cache)


@pytest.fixture(scope="session")
def probe(image: KernelImage, cache: Path) -> Probe:
    return accel.choose(image.image, cache)


@pytest.fixture
def boot_limit(probe: Probe) -> float:
    return 30.0 * Scale(probe.seconds, 1).factor


@pytest.fixture
def spec(image: KernelImage, root: RootImage, probe: Probe, tmp_path: Path) -> MachineSpec:
    return MachineSpec(image, root, probe, tmp_path / "console.log")


@pytest.fixture
def machine(spec: MachineSpec) -> Iterator[Machine]:
    with Machine(spec) as running:
        yield running


@pytest.fixture
def session(machine: Machine, boot_limit: float) -> Iterator[SshSession]:
    opened = machine.connect(boot_limit)
    yield opened
    opened.close()
