"""Repositories of .rpm packages, made by the distributions' own tools, without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import rpm_repository
from rpm_repository import Keys, Made, split

from vmtest.errors import KernelUnavailable, UsageError
from vmtest.host import attempts
from vmtest.kernels.archive.candidates import selected
from vmtest.kernels.dnf.source import DnfSource
from vmtest.kernels.lock.source import LockedSource
from vmtest.kernels.store.store import Store
from vmtest.model.kernels import DnfArchive, DnfSpec, Kernel, LockedSpec

pytestmark = rpm_repository.needed

BASE = [
    *split("5.14.0", "427.9.1.el9_4"),
    *split("5.14.0", "427.13.1.el9_4"),
    Made("kernel", "5.14.0", "503.1.1.el9", "nothing", "", "kernel-core"),
    *split("5.15.0", "300.1.el9uek", "kernel-uek"),
    Made("kernel-default", "6.4.0", "150600.23.7.3", "both", "kernel = 6.4.0-150600.23.7.3"),
    Made("kernel6.12", "6.12.20", "23.amzn2023", "both", "kernel = 6.12.20-23.amzn2023"),
    Made("unrelated", "1.0", "1", "nothing"),
]


@dataclass(frozen=True)
class World:
    """The repository ``BaseOS`` below ``mirror``, and what signed it."""

    mirror: Path
    keys: Keys

    @property
    def repository(self) -> Path:
        return self.mirror / "BaseOS"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("rpm")
    keys = Keys(Path(folder / "gnupg"))
    world = World(folder / "mirror", keys)
    world.repository.mkdir(parents=True)
    for number, made in enumerate(BASE):
        payload = ("w3.zstdio", "w1.xzdio", "w6.gzdio")[number % 3]
        rpm_repository.build(made, folder / "trees", world.repository, payload)
    rpm_repository.publish(world.repository)
    keys.sign_metadata(world.repository)
    yield world
    keys.close()


@pytest.fixture
def world(original: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy that a test may break; nothing waits between two attempts."""
    monkeypatch.setattr("vmtest.kernels.files.download._PAUSE", 0.0)
    return replace(original, mirror=Path(shutil.copytree(original.mirror, tmp_path / "mirror")))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def archive(world: World) -> DnfArchive:
    return DnfArchive(
        "el9", ("BaseOS",), mirror=f"file://{world.mirror}", keyring=world.keys.public
    )


def kernel(version: str) -> Kernel:
    return Kernel("under-test", DnfSpec("el9", version))


def again(world: World, compress: str = "gz") -> None:
    """Make the metadata anew after a test changed packages."""
    rpm_repository.publish(world.repository, compress)
    world.keys.sign_metadata(world.repository)


def refused(source: DnfSource, store: Store, version: str = "*") -> str:
    """What resolving or fetching says; nothing is stored."""
    with pytest.raises(KernelUnavailable) as caught:
        source.fetch(source.resolve(kernel(version), store), store)
    assert store.entries() == []
    return str(caught.value)


def test_the_newest_of_a_series_is_the_core_and_all_its_modules(world: World, store: Store) -> None:
    source = DnfSource(archive(world))
    resolved = source.resolve(kernel("5.14.*"), store)
    assert resolved.version.text == "5.14.0-427.13.1.el9_4"
    assert resolved.origin == "el9 BaseOS: kernel-core 5.14.0-427.13.1.el9_4"
    seen: list[tuple[int, int]] = []
    image = source.fetch(resolved, store, lambda done, total: seen.append((done, total)))
    assert image.release == "5.14.0-427.13.1.el9_4.x86_64"
    assert image.version.text == "5.14.0-427.13.1.el9_4"
    assert image.modules is not None and image.config is not None
    assert (image.modules / "kernel/fs/README").is_file()
    assert (image.modules / "kernel/net/README").is_file()
    assert seen[-1] == (resolved.size, resolved.size)


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("kernel-uek", "5.15.0-300.1.el9uek.x86_64"),
        ("kernel-default", "6.4.0-150600.23.7.3.x86_64"),
        ("kernel6.12", "6.12.20-23.amzn2023.x86_64"),
    ],
)
def test_a_kernel_by_another_name_is_one_key_away(
    world: World, store: Store, name: str, release: str
) -> None:
    source = DnfSource(replace(archive(world), kernel=name))
    image = source.fetch(source.resolve(kernel("*"), store), store)
    assert image.release == release and image.modules is not None


def test_a_listing_is_in_rpms_order_with_what_cannot_boot(world: World, store: Store) -> None:
    offer = DnfSource(archive(world)).offer(store)
    assert [(c.version.text, c.missing) for c in selected(offer.candidates, "5.14")] == [
        ("5.14.0-427.9.1.el9_4", ""),
        ("5.14.0-427.13.1.el9_4", ""),
        ("5.14.0-503.1.1.el9", "its kernel-core package is no longer in the repository"),
    ]


def test_a_bisect_goes_through_what_boots_between_two_packages(world: World, store: Store) -> None:
    found = DnfSource(archive(world)).between("5.14.0-427.9.1.el9_4", "5.14.*", kernel(""), store)
    assert [one.name for one in found.kernels] == ["5.14.0-427.9.1.el9_4", "5.14.0-427.13.1.el9_4"]
    assert found.kernels[0].spec == DnfSpec("el9", "5.14.0-427.9.1.el9_4", ("BaseOS",))


@pytest.mark.parametrize("compress", ["xz", "zstd"])
def test_a_list_of_packages_may_be_packed_in_any_way(
    world: World, store: Store, compress: str
) -> None:
    shutil.rmtree(world.repository / "repodata")
    again(world, compress)
    assert DnfSource(archive(world)).resolve(kernel("*"), store).version.patch == 0


def test_a_second_look_within_an_hour_reads_nothing_again(world: World, store: Store) -> None:
    source = DnfSource(archive(world))
    first = source.resolve(kernel("*"), store)
    shutil.rmtree(world.mirror)
    assert source.resolve(kernel("*"), store) == first


def test_a_lock_holds_a_kernel_to_its_packages(world: World, store: Store) -> None:
    source = DnfSource(archive(world))
    found = source.resolve(kernel("5.14.*"), store)
    exact = DnfSpec("el9", found.version.text)
    pinned = LockedSpec(exact, found.key, found.version.text, found.origin, "0" * 64)
    with pytest.raises(KernelUnavailable, match=r"kernels\.lock pins 5\.14\.0-427\.13\.1\.el9_4"):
        LockedSource(source).resolve(Kernel("under-test", pinned), store)


def test_a_mirror_list_is_tried_from_its_first_mirror_to_its_last(
    world: World, store: Store
) -> None:
    listing = world.mirror / "list"
    listing.write_text(f"# mirrors\nfile:///nowhere/at/all\nfile://{world.mirror}\n")
    by_list = replace(archive(world), mirror=None, mirror_list=f"file://{listing}")
    source = DnfSource(by_list)
    lines: list[str] = []
    with attempts.told(lines.append):
        assert source.fetch(source.resolve(kernel("*"), store), store).version.minor == 14
    assert lines[0] == (
        "BaseOS: downloading repodata/repomd.xml from mirror 1 of 2 failed: "
        "file:///nowhere/at/all/BaseOS/repodata/repomd.xml: there is no such file; "
        "it is tried again (attempt 2 of 2)"
    )
    assert any("under-test: downloading kernel-" in line for line in lines)


def test_a_metalink_is_a_mirror_list(world: World, store: Store) -> None:
    listing = world.mirror / "metalink"
    url = f"file://{world.repository}/repodata/repomd.xml"
    listing.write_text(f'<metalink><url protocol="file">{url}</url></metalink>')
    source = DnfSource(
        replace(archive(world), suites=(".",), mirror=None, mirror_list=f"file://{listing}")
    )
    assert source.resolve(kernel("*"), store).version.minor == 14


# --- bad input ---


def test_an_unsigned_repository_is_refused_with_the_cure(world: World, store: Store) -> None:
    (world.repository / "repodata/repomd.xml.asc").unlink()
    said = refused(DnfSource(archive(world)), store)
    assert "BaseOS cannot be read (its repomd.xml is not signed" in said
    assert 'set signed = "packages" in [dnf.el9]' in said


def test_a_repository_that_another_key_signed_is_refused(world: World, store: Store) -> None:
    world.keys.sign_metadata(world.repository, "stranger@example.org")
    said = refused(DnfSource(archive(world)), store)
    assert "it is signed by the key" in said and "which the keyring does not have" in said


def test_a_repomd_that_changed_after_it_was_signed_is_refused(world: World, store: Store) -> None:
    repomd = world.repository / "repodata/repomd.xml"
    repomd.write_text(repomd.read_text() + "<!-- changed -->\n")
    assert "its signature is of other content" in refused(DnfSource(archive(world)), store)


def test_a_truncated_repomd_is_refused(world: World, store: Store) -> None:
    repomd = world.repository / "repodata/repomd.xml"
    repomd.write_text(repomd.read_text()[:200])
    world.keys.sign_metadata(world.repository)
    assert "its repomd.xml cannot be read" in refused(DnfSource(archive(world)), store)


def test_a_truncated_list_of_packages_is_refused(world: World, store: Store) -> None:
    (primary,) = world.repository.glob("repodata/*primary.xml*")
    primary.write_bytes(primary.read_bytes()[:-100])
    said = refused(DnfSource(archive(world)), store)
    assert "its list of packages is not the one that repomd.xml names" in said


def test_a_package_that_is_not_the_one_in_the_list_is_refused(world: World, store: Store) -> None:
    package = world.repository / "kernel-core-5.14.0-427.13.1.el9_4.x86_64.rpm"
    package.write_bytes(package.read_bytes() + b"\0")
    said = refused(DnfSource(archive(world)), store)
    assert "kernel-core 5.14.0-427.13.1.el9_4 from BaseOS is damaged: its sha256 is" in said


def test_a_package_that_vanished_is_named(world: World, store: Store) -> None:
    (world.repository / "kernel-modules-core-5.14.0-427.13.1.el9_4.x86_64.rpm").unlink()
    said = refused(DnfSource(archive(world)), store)
    assert "kernel-modules-core-5.14.0-427.13.1.el9_4.x86_64.rpm failed" in said


def test_an_unknown_kernel_is_named_with_those_that_there_are(world: World, store: Store) -> None:
    said = refused(DnfSource(replace(archive(world), kernel="kernel-uke")), store)
    assert said == (
        'under-test: [dnf.el9] kernel = "kernel-uke": no such kernels in BaseOS '
        '(did you mean "kernel-uek"?) '
        "(there are: kernel, kernel-default, kernel-uek, kernel6.12)"
    )


def test_packages_that_are_signed_make_up_for_a_repository_that_is_not(
    world: World, store: Store
) -> None:
    world.keys.sign_packages(sorted(world.repository.glob("kernel-*5.14.0-427.13*")))
    rpm_repository.publish(world.repository)
    source = DnfSource(replace(archive(world), signed="packages"))
    assert source.fetch(source.resolve(kernel("*"), store), store).version.minor == 14


@pytest.mark.parametrize("signer", ["", "stranger@example.org"])
def test_a_package_that_the_key_did_not_sign_is_refused(
    world: World, store: Store, signer: str
) -> None:
    if signer:
        world.keys.sign_packages(sorted(world.repository.glob("kernel-core*")), signer)
        again(world)
    said = refused(DnfSource(replace(archive(world), signed="both")), store)
    assert "kernel-core 5.14.0-427.13.1.el9_4 from BaseOS cannot be trusted: " in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mirror": None}, r"\[dnf\.el9\]: no mirror of it is known; .*VMTEST_EL9_MIRROR"),
        ({"keyring": None}, r"\[dnf\.el9\]: no keyring to check its signatures with"),
        ({"keyring": Path("/nowhere/key")}, r"keyring: /nowhere/key: No such file"),
    ],
)
def test_what_the_archive_lacks_is_said_with_the_cure(
    world: World, store: Store, changes: dict[str, Path | None], said: str
) -> None:
    lacking = replace(archive(world), **changes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=said):
        DnfSource(lacking).resolve(kernel("*"), store)


@pytest.mark.parametrize("compress", ["gz", "xz", "zstd"])
def test_a_list_of_packages_that_unpacks_to_more_than_it_should_is_refused(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch, compress: str
) -> None:
    monkeypatch.setattr("vmtest.host.packed.SMALL", 0)
    monkeypatch.setattr("vmtest.host.packed.GROWTH", 1)
    again(world, compress)
    said = refused(DnfSource(archive(world)), store)
    assert "its list of packages cannot be read: it unpacks to more than 0 MiB" in said


def test_a_repomd_without_end_is_refused(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.dnf.repository._LARGEST_LIST", 100)
    said = refused(DnfSource(archive(world)), store)
    assert "it is larger than 100 bytes, which no such file is" in said
