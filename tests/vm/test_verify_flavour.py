"""A kconfig that one flavour of the same version has and another lacks: Debian's rt and amd64."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from real_kernels import KERNEL, PROJECT, image_of, kernel_of
from verifying import Loading, loads

from vmtest.host.debian import mirrors_of, paragraphs
from vmtest.kernels import Store
from vmtest.kernels.debian.suite import SuiteState
from vmtest.kernels.files.package import PackageSource
from vmtest.model.kernels import (
    AptArchive,
    AptSpec,
    Kernel,
    KernelImage,
    PackageFile,
    PackageSpec,
    RootImage,
)
from vmtest.model.project import Config
from vmtest.objects.compile import build_all
from vmtest.vm import accel
from vmtest.vm.deadlines import Scale
from vmtest.vm.machine import Machine, MachineSpec

SOURCES = PROJECT / "tests" / "verify"
EXPECTED = tomllib.loads((SOURCES / "expected.toml").read_text())


def packages_of(generic: Kernel, settings: Config, cache: Path) -> dict[str, tuple[str, str]]:
    """The URL and the sha256 of every package in the index that ``generic`` comes from."""
    assert isinstance(generic.spec, AptSpec)
    archive = settings.archives[generic.spec.archive]
    assert isinstance(archive, AptArchive)
    (suite,) = generic.spec.suites
    mirror = mirrors_of(archive).of(suite)
    assert mirror is not None
    state = SuiteState(cache, suite, mirror, archive.check_valid_until)
    state.index(archive.max_index_age)
    return {
        fields["package"]: (f"{mirror.uri.rstrip('/')}/{fields['filename']}", fields["sha256"])
        for index in (state.directory / "lists").glob("*_Packages")
        for fields in paragraphs(index.read_text())
    }


@pytest.fixture(scope="module", params=EXPECTED["flavour"], ids=lambda entry: entry["name"])
def entry(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


@pytest.fixture(scope="module")
def generic(settings: Config, cache: Path) -> KernelImage:
    return image_of(KERNEL, settings, cache)


@pytest.fixture(scope="module")
def flavour(
    entry: dict[str, Any], generic: KernelImage, settings: Config, cache: Path
) -> KernelImage:
    release = generic.release.removesuffix("amd64") + entry["name"] + "-amd64"
    there = packages_of(kernel_of(KERNEL, settings), settings, cache)
    if (found := there.get(f"linux-image-{release}")) is None:
        pytest.skip(f"the index has no linux-image-{release}")
    spec = PackageSpec((PackageFile(*found),))
    source, store = PackageSource(), Store(cache)
    image = source.fetch(source.resolve(Kernel(entry["name"], spec), store), store)
    assert image.release == release
    return image


def test_an_object_is_accepted_where_the_flavour_has_what_it_needs(
    entry: dict[str, Any],
    generic: KernelImage,
    flavour: KernelImage,
    root: RootImage,
    cache: Path,
    tmp_path: Path,
) -> None:
    assert generic.config is not None
    assert flavour.config is not None
    symbol = f"{entry['symbol']}=y"
    assert symbol not in generic.config.read_text().splitlines()
    assert symbol in flavour.config.read_text().splitlines()
    (path,) = (p for p in build_all(SOURCES, tmp_path) if p.name == f"{entry['object']}.bpf.o")
    probe = accel.choose(flavour.image, cache)
    spec = MachineSpec(flavour, root, probe, tmp_path / "console.log")
    with Machine(spec) as machine:
        session = machine.connect(30.0 * Scale.now(probe.seconds, 1).factor)
        assert session.run(["uname", "-r"]).stdout.decode().strip() == flavour.release
        objects = {entry["object"]: path.read_bytes()}
        loading = Loading(session, objects, flavour.config.read_bytes())
        told = loads(loading.run(loading.names))
        session.close()
    assert {program: load["verdict"] for (_, program), load in told.items()} == dict.fromkeys(
        entry["programs"], entry["verdict"]
    )
