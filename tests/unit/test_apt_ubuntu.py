"""An apt archive that is not Debian's: Ubuntu's layout and flavours, by the real apt."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import ubuntu_archive

from vmtest.errors import KernelUnavailable, UsageError
from vmtest.host.debian import find_mirrors
from vmtest.kernels.debian.source import AptSource
from vmtest.kernels.store.store import Store
from vmtest.model.kernels import AptArchive, AptSpec, Kernel

pytestmark = ubuntu_archive.needed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ubuntu") / "archive"
    ubuntu_archive.make(place)
    return place


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def archive(made: Path, monkeypatch: pytest.MonkeyPatch) -> AptArchive:
    monkeypatch.setenv("VMTEST_DEBIAN_MIRROR", "http://another.example/debian")
    return AptArchive(
        "noble",
        tuple(ubuntu_archive.SUITES),
        mirror=f"file:{made}",
        keyring=made / "keyring.gpg",
        distribution="ubuntu",
        components=("main", "universe"),
    )


def kernel(version: str) -> Kernel:
    return Kernel("under-test", AptSpec("noble", version))


def test_the_newest_of_a_series_is_the_signed_image_and_both_packages_of_modules(
    archive: AptArchive, store: Store
) -> None:
    source = AptSource(archive)
    resolved = source.resolve(kernel("6.8.*"), store)
    assert resolved.version.text == "6.8.0-101.101"
    image = source.fetch(resolved, store)
    assert image.release == "6.8.0-101-generic" and image.modules is not None
    assert image.origin == "noble noble-updates: linux-image-6.8.0-101-generic 6.8.0-101.101"
    assert (image.modules / "kernel/fs/9p/README").is_file()
    assert image.config is not None


def test_an_hwe_kernel_is_the_newest_of_all(archive: AptArchive, store: Store) -> None:
    resolved = AptSource(archive).resolve(kernel("*"), store)
    assert resolved.version.text == "6.11.0-9.9~24.04.1"


def test_a_cloud_flavour_is_another_archive_of_the_same_suites(
    archive: AptArchive, store: Store
) -> None:
    source = AptSource(replace(archive, flavour="azure"))
    image = source.fetch(source.resolve(kernel("*"), store), store)
    assert image.release == "6.8.0-1017-azure"


def test_a_listing_has_one_flavour_in_the_order_of_versions(
    archive: AptArchive, store: Store
) -> None:
    offer = AptSource(archive).offer(store)
    assert [c.version.text for c in offer.candidates] == [
        "6.8.0-31.31",
        "6.8.0-45.45",
        "6.8.0-101.101",
        "6.11.0-9.9~24.04.1",
    ]
    assert all(c.signed and not c.missing for c in offer.candidates)


def test_a_range_of_packages_is_what_a_bisect_goes_through(
    archive: AptArchive, store: Store
) -> None:
    found = AptSource(archive).between("6.8.0-31.31", "6.8.*", kernel(""), store)
    names = [one.name for one in found.kernels]
    assert names == ["6.8.0-31.31", "6.8.0-45.45", "6.8.0-101.101"]


@pytest.mark.parametrize("version", ["*", "6.8.*", "6.8.0-45.45"])
def test_an_unknown_flavour_is_named_with_those_that_there_are(
    archive: AptArchive, store: Store, version: str
) -> None:
    source = AptSource(replace(archive, flavour="azrue"))
    with pytest.raises(KernelUnavailable) as caught:
        source.resolve(kernel(version), store)
    assert str(caught.value) == (
        'under-test: [apt.noble] flavour = "azrue": no such kernels in noble, noble-updates '
        '(did you mean "azure"?) (there are: azure, generic)'
    )


def test_a_listing_of_an_unknown_flavour_says_which_there_are(
    archive: AptArchive, store: Store
) -> None:
    offer = AptSource(replace(archive, flavour="gke")).offer(store)
    assert offer.candidates == () and "there are: azure, generic" in offer.notes[0]


def test_modules_that_left_the_archive_are_named(
    archive: AptArchive, made: Path, store: Store, tmp_path: Path
) -> None:
    copy = shutil.copytree(made, tmp_path / "copy")
    unsigned = replace(archive, mirror=f"file:{copy}", suites=("noble",))
    next(copy.glob("pool/noble/linux-modules-6.8.0-31-generic_*")).unlink()
    source = AptSource(unsigned)
    with pytest.raises(KernelUnavailable, match=r"downloading linux-modules-6\.8\.0-31-generic"):
        source.fetch(source.resolve(kernel("*"), store), store)
    assert store.entries() == []


def test_a_mirror_of_another_distribution_is_not_debians(tmp_path: Path) -> None:
    keyring = tmp_path / "keys.gpg"
    keyring.touch()
    os_release = tmp_path / "os-release"
    os_release.write_text("ID=debian\n")
    variables = {
        "VMTEST_DEBIAN_MIRROR": "http://debian.example",
        "VMTEST_UBUNTU_MIRROR": "http://ubuntu.example",
    }
    found = find_mirrors(
        "noble",
        keyring=keyring,
        distribution="ubuntu",
        environment=variables,
        etc=tmp_path,
        os_release=os_release,
    )
    assert found.main is not None and found.main.uri == "http://ubuntu.example"
    assert found.of("noble-security") is found.main
    with pytest.raises(UsageError, match=r"no Ubuntu mirror is known.*VMTEST_UBUNTU_MIRROR"):
        find_mirrors("noble", distribution="ubuntu", environment={}, etc=tmp_path)
