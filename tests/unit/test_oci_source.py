"""Kernels from container images: a real registry on the loopback, read by the real skopeo."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import oci_registry
import pytest
import signed_archive
from command import vmtest
from fake_kernels import bzimage

from vmtest.errors import KernelUnavailable
from vmtest.host import attempts
from vmtest.kernels.lock.source import LockedSource
from vmtest.kernels.oci.source import OciSource
from vmtest.kernels.store.store import Store
from vmtest.model.kernels import Kernel, LockedSpec, OciArchive, OciSpec

pytestmark = oci_registry.needed


def ci_kernel(release: str, modules: str = "") -> dict[str, bytes]:
    """As cilium's ci-kernels are: in the root, the image without its release."""
    place = f"lib/modules/{modules or release}"
    return {
        "boot/vmlinuz": bzimage(release),
        "boot/config": signed_archive.CONFIG.encode(),
        f"{place}/kernel/fs/README": b"no module\n",
        f"{place}/modules.order": b"",
        f"{place}/modules.builtin": b"",
        f"{place}/build": b"not needed\n",
    }


def lvh(release: str) -> dict[str, bytes]:
    """As little-vm-helper's are: in a folder of their own, the image with its release."""
    named = {"boot/vmlinuz": f"boot/vmlinuz-{release}", "boot/config": f"boot/config-{release}"}
    return {f"data/kernels/6.6/{named.get(n, n)}": d for n, d in ci_kernel(release).items()}


@dataclass(frozen=True)
class World:
    """The registry's address, and the folder in which it keeps its images."""

    host: str
    folder: Path
    work: Path

    def push(self, tag: str, files: dict[str, bytes]) -> None:
        place = self.work / f"{tag}-{len(list(self.work.iterdir()))}"
        oci_registry.push(place, f"{self.host}/team/kernels:{tag}", files)

    @property
    def archive(self) -> OciArchive:
        return OciArchive("ci", (f"{self.host}/team/kernels",))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    registry, work = tmp_path / "registry", tmp_path / "work"
    registry.mkdir()
    work.mkdir()
    with oci_registry.serving(registry) as host:
        yield World(host, registry, work)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def kernel(version: str) -> Kernel:
    return Kernel("under-test", OciSpec("ci", version))


def test_both_layouts_that_are_published_become_a_kernel(world: World, store: Store) -> None:
    world.push("6.6.9", ci_kernel("6.6.9"))
    world.push("6.12-main", lvh("6.12.3"))
    world.push("latest", lvh("6.12.3"))
    source = OciSource(world.archive)
    assert [c.version.text for c in source.offer(store).candidates] == ["6.6.9", "6.12-main"]
    for version, release in (("6.6.*", "6.6.9"), ("*", "6.12.3")):
        image = source.fetch(source.resolve(kernel(version), store), store)
        assert image.release == release and image.modules is not None
        assert (image.modules / "kernel/fs/README").is_file() and image.config is not None
        assert not (image.modules / "build").exists()
    found = source.between("6.6.9", "6.12-main", kernel(""), store)
    assert len(found.kernels) == 2


def test_a_registry_that_fails_at_first_is_asked_again(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.oci.source._PAUSE", 0.0)
    world.push("6.6.9", ci_kernel("6.6.9"))
    with oci_registry.stumbling(world.host) as host:
        source = OciSource(OciArchive("ci", (f"{host}/team/kernels",)))
        lines: list[str] = []
        with attempts.told(lines.append):
            image = source.fetch(source.resolve(kernel("6.6.*"), store), store)
    assert image.release == "6.6.9"
    for what in (
        f"asking the registry of {host}/team/kernels (list-tags)",
        f"asking the registry of {host}/team/kernels (inspect)",
        f"downloading docker://{host}/team/kernels@sha256:",
    ):
        (line,) = [line for line in lines if line.startswith(what)]
        assert "503" in line and line.endswith("it is tried again (attempt 2 of 3)")


def test_a_registry_that_goes_on_failing_says_how_often_it_was_asked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.oci.source._PAUSE", 0.0)
    source = OciSource(OciArchive("ci", ("127.0.0.1:1/team/kernels",)))
    with pytest.raises(KernelUnavailable, match=r"connection refused.* \(3 attempts\)"):
        source.resolve(kernel("6.6.*"), store)


def test_a_tag_that_was_moved_is_seen_and_the_lock_has_the_old_one(
    world: World, store: Store
) -> None:
    world.push("6.6-main", ci_kernel("6.6.9"))
    source = OciSource(world.archive)
    first = source.resolve(kernel("6.6-main"), store)
    source.fetch(first, store)
    assert source.resolve(kernel("6.6-main"), store).cached
    world.push("6.6-main", ci_kernel("6.6.10"))
    moved = source.resolve(kernel("6.6-main"), store)
    assert moved.digest != first.digest and not moved.cached
    exact = OciSpec("ci", "6.6-main")
    locked = LockedSpec(exact, first.key, "6.6-main", first.origin, first.digest)
    again = LockedSource(source).resolve(Kernel("under-test", locked), store)
    assert again.cached and again.digest == first.digest
    elsewhere = Store(store.root.with_name("elsewhere"))
    pinned = LockedSource(source).resolve(Kernel("under-test", locked), elsewhere)
    assert LockedSource(source).fetch(pinned, elsewhere).release == "6.6.9"


def test_a_locked_image_that_vanished_is_refused_with_the_cure(world: World, store: Store) -> None:
    world.push("6.6-main", ci_kernel("6.6.9"))
    source = OciSource(world.archive)
    found = source.resolve(kernel("6.6-main"), store)
    exact = OciSpec("ci", "6.6-main")
    locked = LockedSpec(exact, found.key, "6.6-main", found.origin, "0" * 64)
    pinned = LockedSource(source).resolve(Kernel("under-test", locked), store)
    with pytest.raises(KernelUnavailable, match=r"and try again; kernels\.lock pins it: lock"):
        LockedSource(source).fetch(pinned, store)


def test_a_listing_has_no_size_that_nobody_knows_and_says_what_is_cached(
    world: World, store: Store, tmp_path: Path
) -> None:
    for tag in ("6.6.9", "6.6.10"):
        world.push(tag, ci_kernel(tag))
    source = OciSource(world.archive)
    source.fetch(source.resolve(kernel("6.6.9"), store), store)
    text = f'schema = 1\n[oci.ci]\nimage = "{world.host}/team/kernels"\n'
    (tmp_path / "kernels.toml").write_text(
        f'{text}[[kernel]]\nname = "k"\noci = "ci"\nversion="*"\n'
    )
    environment = {"VMTEST_CACHE": str(store.root)}
    said = vmtest("kernels", "available", cwd=tmp_path, environment=environment)
    rows = [line.split() for line in said.out.splitlines() if line.startswith("6.6")]
    assert [(row[0], *row[-2:]) for row in rows] == [("6.6.9", "-", "yes"), ("6.6.10", "-", "no")]


def test_only_tags_of_the_pattern_count(world: World, store: Store) -> None:
    for tag in ("6.6-main", "6.6-20260101.120000"):
        world.push(tag, ci_kernel("6.6.9"))
    source = OciSource(replace(world.archive, tags=r"\d+\.\d+-main"))
    assert [c.version.text for c in source.offer(store).candidates] == ["6.6-main"]


def refused(world: World, store: Store, version: str = "*") -> str:
    source = OciSource(world.archive)
    with pytest.raises(KernelUnavailable) as caught:
        source.fetch(source.resolve(kernel(version), store), store)
    assert store.entries() == []
    return str(caught.value)


def test_an_image_that_is_not_there_is_named(world: World, store: Store) -> None:
    said = refused(world, store)
    assert f"{world.host}/team/kernels cannot be read" in said


def largest(world: World) -> Path:
    """The layer of the only image, as the registry has it on the disk."""
    blobs = world.folder.glob("data/**/blobs/sha256/*/*/data")
    return max(blobs, key=lambda path: path.stat().st_size)


def test_a_layer_that_was_changed_is_refused(world: World, store: Store) -> None:
    world.push("6.6.9", ci_kernel("6.6.9"))
    layer = largest(world)
    changed = bytearray(layer.read_bytes())
    changed[-20] ^= 1
    layer.write_bytes(changed)
    said = refused(world, store)
    assert "Digest did not match" in said and "nothing was stored" in said


def test_a_manifest_that_was_cut_off_is_refused(world: World, store: Store) -> None:
    world.push("6.6.9", ci_kernel("6.6.9"))
    blobs = world.folder.glob("data/**/blobs/sha256/*/*/data")
    manifest = next(b for b in blobs if b".manifest.v1+json" in b.read_bytes()[:2000])
    manifest.write_bytes(manifest.read_bytes()[:-20])
    said = refused(world, store)
    assert said.startswith("under-test: ") and "check image in [oci.ci] and the network" in said


def test_a_pattern_that_fits_no_tag_is_named_with_the_tags(world: World, store: Store) -> None:
    world.push("6.6-main", ci_kernel("6.6.9"))
    source = OciSource(replace(world.archive, tags="[0-9]+-rt"))
    with pytest.raises(KernelUnavailable) as caught:
        source.resolve(kernel("*"), store)
    said = (
        '[oci.ci] tags = "[0-9]+-rt" fits none of its tags that are kernels (there are: 6.6-main)'
    )
    assert said in str(caught.value)


def test_an_image_whose_tags_are_no_kernels_is_said_to_be_so(world: World, store: Store) -> None:
    world.push("latest", ci_kernel("6.6.9"))
    with pytest.raises(KernelUnavailable, match=r"none of its 1 tags begins .*there are: latest"):
        OciSource(world.archive).resolve(kernel("*"), store)


def test_a_layer_that_vanished_is_refused(world: World, store: Store) -> None:
    world.push("6.6.9", ci_kernel("6.6.9"))
    shutil.rmtree(largest(world).parent)
    assert "nothing was stored" in refused(world, store)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"etc/passwd": b"x"}, "has to hold one kernel (boot/vmlinuz or boot/vmlinuz-RELEASE)"),
        (ci_kernel("6.6.9", "6.6.8"), "is 6.6.9 and its modules are for 6.6.8"),
        (
            {**ci_kernel("6.6.9"), "lib/modules/6.6.9/kernel/$(x).ko": b""},
            "a name that no kernel's file has",
        ),
    ],
    ids=["no kernel", "other modules", "a forged name"],
)
def test_an_image_that_is_no_kernels_is_refused(
    world: World, store: Store, files: dict[str, bytes], said: str
) -> None:
    world.push("6.6.9", files)
    assert said in refused(world, store)


def test_an_image_that_unpacks_to_more_than_it_should_is_refused(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.host.packed.SMALL", 1 << 20)
    world.push("6.6.9", {**ci_kernel("6.6.9"), "zeros": bytes(32 << 20)})
    assert "is refused: it unpacks to more than" in refused(world, store)


def test_an_image_whose_layers_unpack_to_too_much_together_is_refused(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.oci.layout.IMAGE_LIMIT", 3 << 20)
    world.push("6.6.9", {**ci_kernel("6.6.9"), "zeros": bytes(4 << 20)})
    assert "is refused: it unpacks to more than 3 MiB" in refused(world, store)


def test_an_image_that_is_too_large_is_not_downloaded_to_its_end(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.oci.source.DOWNLOAD_LIMIT", 0)
    monkeypatch.setattr("vmtest.kernels.files.growing._POLL", 0.001)
    world.push("6.6.9", {**ci_kernel("6.6.9"), "noise": os.urandom(64 << 20)})
    assert "it is larger than 0 MiB" in refused(world, store)
