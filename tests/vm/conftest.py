"""What the runner's own tests share: one real kernel, the guest image, the accelerator."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real_kernels import KERNEL, PROJECT, image_of, kernel_entry, kernel_of

from vmtest.config import file as configuration
from vmtest.kernels import default_cache
from vmtest.model.kernels import Kernel, KernelImage, RootImage
from vmtest.model.project import Config
from vmtest.rootfs.prepare import prepare_root
from vmtest.vm import accel
from vmtest.vm.accel import Probe
from vmtest.vm.deadlines import Scale
from vmtest.vm.machine import Machine, MachineSpec
from vmtest.vm.session import SshSession

LONGEST = (
    "test_verify_guest",
    "test_cli",
    "test_host_faults",
    "test_benchmarks",
    "test_snapshot",
    "test_bisect",
    "test_dnf",
    "test_verify",
    "test_other_objects",
    "test_watch",
    "test_mutants",
    "test_gitbisect",
    "test_damaged",
)
"""The files that take longest, in this order: each is one worker's, and none should begin last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; for that xdist has to keep the order of files."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session")
def cache() -> Path:
    return default_cache()


@pytest.fixture(scope="session")
def settings() -> Config:
    return configuration.load(PROJECT / "kernels.toml")


@pytest.fixture(scope="session")
def kernel(settings: Config) -> Kernel:
    return kernel_of(KERNEL, settings)


@pytest.fixture(scope="session")
def image(settings: Config, cache: Path) -> KernelImage:
    return image_of(KERNEL, settings, cache)


@pytest.fixture(scope="session")
def root(settings: Config, cache: Path) -> RootImage:
    return prepare_root(settings, cache)


@pytest.fixture(scope="session")
def probe(image: KernelImage, cache: Path) -> Probe:
    return accel.choose(image.image, cache)


@pytest.fixture
def boot_limit(probe: Probe) -> float:
    return 30.0 * Scale.now(probe.seconds, 1).factor


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


CONFIG = """
schema = 1
[guest]
root = "{root}"
[build]
command = ["sh", "-c", "mkdir -p out && cp program.c out/program.txt"]
{kernel}
silence_timeout = "20s"
{extra}
[[suite]]
name = "own"
tests = "checks/test_own.py"
"""


@pytest.fixture
def project(
    tmp_path: Path, image: KernelImage, root: RootImage, probe: Probe
) -> Callable[..., Path]:
    """Makes a project around ``text``, the one suite; kernel and guest come from our cache."""

    def make(text: str, extra: str = "") -> Path:
        (tmp_path / "checks").mkdir()
        (tmp_path / "checks" / "test_own.py").write_text(textwrap.dedent(text))
        (tmp_path / "program.c").write_text("a program\n")
        (tmp_path / "kernels.toml").write_text(
            CONFIG.format(root=root.path, kernel=kernel_entry(KERNEL, image), extra=extra)
        )
        return tmp_path

    return make
