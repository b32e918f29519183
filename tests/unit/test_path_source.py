"""Kernels from files, which are only ever read."""

from __future__ import annotations

import lzma
import os
from pathlib import Path

import pytest
from fake_kernels import bzimage, elf, modules_tree

from vmtest.errors import KernelUnavailable
from vmtest.host.cache import find_tool
from vmtest.kernels import source_for
from vmtest.kernels.files.path import PathSource
from vmtest.kernels.store.store import Store
from vmtest.model.kernels import Kernel, KernelImage, PathSpec

RELEASE = "6.9.1-mine"
SOURCE = PathSource()
needs_depmod = pytest.mark.skipif(find_tool("depmod") is None, reason="depmod is not installed")


def kernel(image: Path, modules: Path | None = None, config: Path | None = None) -> Kernel:
    return Kernel("mine", PathSpec(image, modules, config))


def fetch(tmp_path: Path, one: Kernel) -> KernelImage:
    store = Store(tmp_path / "cache")
    return SOURCE.fetch(SOURCE.resolve(one, store), store)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "bzImage"
    path.write_bytes(bzimage(RELEASE))
    return path


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(p), p.lstat().st_mtime_ns) for p in folder.rglob("*"))


@needs_depmod
def test_image_and_modules_become_an_entry_and_are_not_written_to(
    tmp_path: Path, image: Path
) -> None:
    modules = modules_tree(tmp_path / "root", RELEASE)
    (modules / "build").symlink_to("/usr/src/linux")
    before = listing(tmp_path / "root")
    found = fetch(tmp_path, kernel(image, modules))
    assert found.release == RELEASE and str(found.version) == "6.9.1"
    assert found.image.read_bytes() == elf(RELEASE)
    assert found.modules is not None and (found.modules / "modules.dep").is_file()
    assert (found.modules / "kernel/fs/README").is_file()
    assert not os.path.lexists(found.modules / "build")
    assert listing(tmp_path / "root") == before


@needs_depmod
@pytest.mark.parametrize("given", ["root", "root/lib/modules", "root/lib/modules/" + RELEASE])
def test_modules_are_found_below_what_is_given(tmp_path: Path, image: Path, given: str) -> None:
    modules_tree(tmp_path / "root", RELEASE)
    found = fetch(tmp_path, kernel(image, tmp_path / given))
    assert found.modules is not None and found.modules.name == RELEASE


def test_without_modules_the_entry_has_none_and_keeps_the_hosts_out(
    tmp_path: Path, image: Path
) -> None:
    found = fetch(tmp_path, kernel(image))
    assert found.modules is None
    # virtme-ng looks for the nearest lib/modules above the image.
    assert (found.image.parents[1] / "lib/modules").is_dir()
    assert "no modules" in found.note


def test_the_config_is_taken_from_beside_the_image(tmp_path: Path, image: Path) -> None:
    (tmp_path / f"config-{RELEASE}").write_text("CONFIG_BPF=y\n")
    found = fetch(tmp_path, kernel(image))
    assert found.config is not None and found.config.read_text() == "CONFIG_BPF=y\n"


def test_the_config_is_taken_from_a_build_tree(tmp_path: Path) -> None:
    boot = tmp_path / "linux/arch/x86/boot"
    boot.mkdir(parents=True)
    (boot / "bzImage").write_bytes(bzimage(RELEASE))
    (tmp_path / "linux/.config").write_text("CONFIG_BPF=y\n")
    assert fetch(tmp_path, kernel(boot / "bzImage")).config is not None


def test_the_config_is_taken_from_the_image_itself(tmp_path: Path) -> None:
    image = tmp_path / "vmlinux"
    image.write_bytes(elf(RELEASE, config="CONFIG_BPF=m\n"))
    found = fetch(tmp_path, kernel(image))
    assert found.config is not None and found.config.read_text() == "CONFIG_BPF=m\n"


def test_an_unknown_config_is_none(tmp_path: Path, image: Path) -> None:
    assert fetch(tmp_path, kernel(image)).config is None


def test_another_image_or_other_modules_are_another_kernel(tmp_path: Path, image: Path) -> None:
    store = Store(tmp_path / "cache")
    modules = modules_tree(tmp_path / "root", RELEASE)
    first = SOURCE.resolve(kernel(image, modules), store).key
    assert SOURCE.resolve(kernel(image, modules), store).key == first
    (modules / "kernel/fs/new.ko").touch()
    second = SOURCE.resolve(kernel(image, modules), store).key
    image.write_bytes(bzimage(RELEASE, "xz"))
    third = SOURCE.resolve(kernel(image, modules), store).key
    assert len({first, second, third}) == 3


def test_what_is_stored_is_known_as_cached(tmp_path: Path, image: Path) -> None:
    store = Store(tmp_path / "cache")
    fetch(tmp_path, kernel(image))
    assert SOURCE.resolve(kernel(image), store).cached


def test_a_file_that_is_no_kernel_is_named(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("no kernel\n" * 100)
    with pytest.raises(KernelUnavailable, match=rf"mine: {notes}: is not a Linux kernel"):
        SOURCE.resolve(kernel(notes), Store(tmp_path))


def test_a_missing_file_is_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(KernelUnavailable, match=r"absent: No such file.*kernels\.toml"):
        SOURCE.resolve(kernel(tmp_path / "absent"), Store(tmp_path))


def test_a_folder_is_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(KernelUnavailable, match="is a folder"):
        SOURCE.resolve(kernel(tmp_path), Store(tmp_path))


def test_modules_of_another_kernel_are_refused(tmp_path: Path, image: Path) -> None:
    modules_tree(tmp_path / "root", "6.8.0-other")
    with pytest.raises(
        KernelUnavailable, match=rf"holds 6\.8\.0-other and the kernel .* {RELEASE}"
    ):
        SOURCE.resolve(kernel(image, tmp_path / "root"), Store(tmp_path))


def test_a_module_says_which_kernel_it_was_built_for(tmp_path: Path, image: Path) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "x.ko").write_bytes(b"\x7fELF vermagic=6.8.0-other SMP mod_unload \0")
    with pytest.raises(KernelUnavailable, match=r"built for 6\.8\.0-other"):
        SOURCE.resolve(kernel(image, folder), Store(tmp_path))


def test_a_folder_without_modules_is_refused(tmp_path: Path, image: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(KernelUnavailable, match="holds no modules"):
        SOURCE.resolve(kernel(image, tmp_path / "empty"), Store(tmp_path))


def test_a_config_that_is_missing_is_named(tmp_path: Path, image: Path) -> None:
    with pytest.raises(KernelUnavailable, match=r"config: .*absent: no such file"):
        SOURCE.resolve(kernel(image, None, tmp_path / "absent"), Store(tmp_path))


def test_the_type_of_the_spec_chooses_the_source(image: Path) -> None:
    assert isinstance(source_for(kernel(image), {}), PathSource)


@needs_depmod
def test_the_modules_of_the_boot_are_unpacked_and_the_others_left(
    tmp_path: Path, image: Path
) -> None:
    modules = modules_tree(tmp_path / "from", RELEASE)
    for name in ("squashfs.ko.xz", "ext4.ko.xz", "dummy.ko.xz"):
        (modules / "kernel" / "fs" / name).write_bytes(lzma.compress(b"\x7fELF module"))
    stored = fetch(tmp_path, kernel(image, modules))
    assert stored.modules is not None
    there = {path.name for path in stored.modules.rglob("*.ko*")}
    assert there == {"squashfs.ko", "ext4.ko", "dummy.ko.xz"}
    assert (modules / "kernel" / "fs" / "squashfs.ko.xz").exists(), "the user's own is not touched"
