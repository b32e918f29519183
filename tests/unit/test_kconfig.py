"""What a guest needs of a kernel's config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vmtest.errors import UnbootableKernel
from vmtest.kernels.kconfig import (
    Root,
    check,
    check_network,
    filesystem_of,
    missing,
    parse,
    share_of,
    way_of,
)
from vmtest.model.kernels import Filesystem, KernelImage, RootImage
from vmtest.model.versions import KernelVersion

DEBIAN = parse((Path(__file__).parent / "data" / "config-6.12-excerpt").read_text())


def test_debians_generic_flavour_has_what_a_guest_needs() -> None:
    assert missing(DEBIAN) == []
    assert missing(DEBIAN, root="host") == []


def test_the_cloud_flavour_has_no_9p() -> None:
    cloud = {k: v for k, v in DEBIAN.items() if not k.startswith(("NET_9P", "9P_"))}
    assert missing(cloud)[0] == (
        "CONFIG_NET_9P is not set: no 9P: nothing of the host's can be mounted"
    )


def test_a_module_is_worth_nothing_without_the_modules() -> None:
    reasons = missing(DEBIAN, modules=False)
    assert any("CONFIG_VIRTIO_BLK is a module and there are no modules" in r for r in reasons)


def test_what_only_a_disk_needs_is_not_asked_of_the_hosts_root() -> None:
    without = DEBIAN | {"SQUASHFS": "n"}
    assert missing(without, root="disk")
    assert missing(without, root="host") == []


def test_what_must_be_built_in_is_not_satisfied_by_a_module() -> None:
    assert missing(DEBIAN | {"DEVTMPFS": "m"})


def test_modules_for_the_root_need_an_initrd() -> None:
    without = {k: v for k, v in DEBIAN.items() if k != "BLK_DEV_INITRD"}
    assert "CONFIG_BLK_DEV_INITRD" in missing(without)[0]


def test_what_is_not_set_is_absent() -> None:
    assert parse('# CONFIG_A is not set\nCONFIG_B=m\nCONFIG_C="x y"\n') == {"B": "m", "C": "x y"}


def image(config: Path | None) -> KernelImage:
    version = KernelVersion.parse("6.12.1")
    return KernelImage("6.12", version, "6.12.1", Path("i"), Path("m"), config, "", "")


def test_an_unbootable_kernel_is_refused_in_one_line(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("CONFIG_X86_64=y\n")
    with pytest.raises(UnbootableKernel, match=r"^6\.12: 6\.12\.1 cannot boot.*CONFIG_PCI") as e:
        check(image(config))
    assert "\n" not in str(e.value)


def test_an_unknown_config_passes_with_a_note() -> None:
    assert "not checked" in check(image(None))


# What Debian's cloud flavour has: virtiofs and no 9P.
CLOUD = {k: v for k, v in DEBIAN.items() if not k.startswith(("NET_9P", "9P_"))} | {
    "FUSE_FS": "y",
    "VIRTIO_FS": "y",
}


def config_file(folder: Path, config: dict[str, str]) -> Path:
    file = folder / "config"
    file.write_text("".join(f"CONFIG_{name}={value}\n" for name, value in config.items()))
    return file


def test_a_kernel_with_virtiofs_lacks_nothing_where_that_is_used() -> None:
    assert missing(CLOUD, share="virtiofs") == []
    assert missing(CLOUD | {"VIRTIO_FS": "n"}, share="virtiofs") == [
        "CONFIG_VIRTIO_FS is not set: no virtiofs: nothing of the host's can be mounted"
    ]


NEITHER = CLOUD | {"VIRTIO_FS": "n"}


@pytest.mark.parametrize(
    ("config", "root", "virtiofsd", "share"),
    [
        (DEBIAN | {"FUSE_FS": "m", "VIRTIO_FS": "m"}, "disk", True, "9p"),
        (CLOUD, "disk", True, "virtiofs"),
        (CLOUD, "disk", False, "disk"),
        (CLOUD, "host", False, "virtiofs"),
        (NEITHER, "disk", True, "disk"),
        (NEITHER, "host", True, "9p"),
    ],
)
def test_what_is_the_hosts_comes_the_way_that_kernel_and_host_have(
    config: dict[str, str],
    root: Root,
    virtiofsd: bool,
    share: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = "/usr/libexec/virtiofsd" if virtiofsd else None
    monkeypatch.setattr("vmtest.kernels.kconfig.find_virtiofsd", lambda: there)
    assert share_of(image(config_file(tmp_path, config)), root) == share


def test_a_kernel_of_unknown_config_is_booted_with_9p() -> None:
    assert share_of(image(None)) == "9p"


def test_a_kernel_without_9p_boots_from_disks_where_no_virtiofsd_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.kconfig.find_virtiofsd", lambda: None)
    assert check(image(config_file(tmp_path, CLOUD))) == ""
    assert check(image(config_file(tmp_path, NEITHER))) == ""


def test_on_the_hosts_root_a_kernel_without_9p_needs_a_virtiofsd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.kconfig.find_virtiofsd", lambda: None)
    with pytest.raises(UnbootableKernel, match=r"it has no 9P.*install one \(package virtiofsd\)"):
        check(image(config_file(tmp_path, CLOUD)), "host")


def test_a_kernel_without_9p_boots_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.kconfig.find_virtiofsd", lambda: "/usr/libexec/virtiofsd")
    assert check(image(config_file(tmp_path, CLOUD))) == ""


def test_a_network_card_takes_its_driver(tmp_path: Path) -> None:
    check_network(image(config_file(tmp_path, DEBIAN | {"VIRTIO_NET": "m"})))
    without = image(config_file(tmp_path, DEBIAN | {"VIRTIO_NET": "n"}))
    with pytest.raises(UnbootableKernel, match="CONFIG_VIRTIO_NET is not set"):
        check_network(without)


def test_all_that_is_missing_is_named(tmp_path: Path) -> None:
    gone = ("OVERLAY_FS", "SQUASHFS", "VIRTIO_PCI")
    lacking = {symbol: value for symbol, value in DEBIAN.items() if symbol not in gone}
    config = config_file(tmp_path, lacking)
    with pytest.raises(UnbootableKernel) as caught:
        check(image(config))
    assert "CONFIG_VIRTIO_PCI is not set: QEMU's devices are virtio over PCI" in str(caught.value)
    assert "(missing as well: CONFIG_SQUASHFS, CONFIG_OVERLAY_FS)" in str(caught.value)


def test_a_module_that_no_package_brought_is_missing(tmp_path: Path) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    names = ("virtio_console", "virtio_blk", "squashfs", "9pnet", "9pnet_virtio", "9p")
    (modules / "modules.dep").write_text("".join(f"kernel/x/{name}.ko.xz:\n" for name in names))
    config = config_file(tmp_path, DEBIAN | {"VIRTIO_PCI": "y"})
    kernel = replace(image(config), modules=modules)
    with pytest.raises(UnbootableKernel, match=r"OVERLAY_FS is a module and overlay\.ko is not in"):
        check(kernel)
    with (modules / "modules.dep").open("a") as more:
        more.write("kernel/fs/overlay.ko.zst: kernel/x/squashfs.ko.xz\n")
    assert check(kernel) == ""


WITHOUT = {k: v for k, v in DEBIAN.items() if not k.startswith("SQUASHFS")}


@pytest.mark.parametrize(
    ("config", "filesystem"),
    [
        (DEBIAN | {"EXT4_FS": "y", "EROFS_FS": "y"}, "squashfs"),
        (WITHOUT | {"EXT4_FS": "m", "EROFS_FS": "y"}, "ext4"),
        (WITHOUT | {"EROFS_FS": "m"}, "erofs"),
        # As in Red Hat's kernels: squashfs, and not the lz4 that the image is packed with.
        (DEBIAN | {"SQUASHFS_LZ4": "n", "EXT4_FS": "m"}, "ext4"),
    ],
)
def test_the_root_is_what_the_kernel_can_mount(
    config: dict[str, str], filesystem: str, tmp_path: Path
) -> None:
    kernel = image(config_file(tmp_path, config))
    assert filesystem_of(kernel) == filesystem
    assert way_of(kernel) == ("9p", filesystem)
    assert check(kernel) == ""


def test_a_kernel_of_unknown_config_is_booted_on_squashfs() -> None:
    assert filesystem_of(image(None)) == "squashfs"


@pytest.mark.parametrize(("module", "filesystem"), [("ext4", "ext4"), ("erofs", "erofs")])
def test_a_file_system_counts_where_its_module_is_there(
    module: str, filesystem: str, tmp_path: Path
) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    names = ("virtio_blk", "9pnet", "9pnet_virtio", "9p", "overlay", module)
    (modules / "modules.dep").write_text("".join(f"kernel/x/{name}.ko.xz:\n" for name in names))
    config = config_file(tmp_path, DEBIAN | {"EXT4_FS": "m", "EROFS_FS": "m"})
    kernel = replace(image(config), modules=modules)
    assert filesystem_of(kernel) == filesystem
    assert check(kernel) == ""


def test_a_kernel_with_none_of_the_file_systems_is_refused_with_the_root_that_takes_no_disk(
    tmp_path: Path,
) -> None:
    kernel = image(config_file(tmp_path, WITHOUT))
    with pytest.raises(UnbootableKernel) as caught:
        check(kernel)
    assert str(caught.value) == (
        "6.12: 6.12.1 cannot boot as a guest: CONFIG_SQUASHFS is not set: the root is a squashfs, "
        "and it has neither ext4 (CONFIG_EXT4_FS) nor erofs (CONFIG_EROFS_FS) (missing as well: "
        'CONFIG_SQUASHFS_LZ4); set [guest] root to a folder or to "host", which takes no disk; or '
        "use another kernel or flavour, or enable what is missing and build again"
    )
    assert check(kernel, "directory") == ""


def test_a_kernel_that_mounts_no_folder_either_is_not_sent_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.kernels.kconfig.find_virtiofsd", lambda: None)
    gone = ("SQUASHFS", "NET_9P", "9P_")
    config = {symbol: value for symbol, value in DEBIAN.items() if not symbol.startswith(gone)}
    with pytest.raises(UnbootableKernel, match="CONFIG_SQUASHFS is not set") as caught:
        check(image(config_file(tmp_path, config)))
    assert "[guest] root" not in str(caught.value)


def test_a_module_for_an_ext4_root_needs_an_initrd(tmp_path: Path) -> None:
    config = WITHOUT | {"EXT4_FS": "m", "BLK_DEV_INITRD": "n", "VIRTIO_BLK": "y"}
    assert "CONFIG_EXT4_FS is a module and could not" in missing(config, filesystem="ext4")[-1]


BUILT_IN = WITHOUT | {
    **dict.fromkeys(("VIRTIO", "VIRTIO_PCI", "VIRTIO_BLK", "VIRTIO_CONSOLE", "OVERLAY_FS"), "y"),
    **dict.fromkeys(("NET_9P", "NET_9P_VIRTIO", "9P_FS"), "y"),
    "BLK_DEV_INITRD": "n",
}


@pytest.mark.parametrize(
    ("config", "way"),
    [
        ({"SQUASHFS": "m", "SQUASHFS_LZ4": "y", "EXT4_FS": "y"}, ("9p", "ext4")),
        ({"EXT4_FS": "m", "EROFS_FS": "y"}, ("9p", "erofs")),
        ({"SQUASHFS": "y", "SQUASHFS_LZ4": "y", "9P_FS": "m"}, ("disk", "squashfs")),
        (
            {"EXT4_FS": "y", "NET_9P_VIRTIO": "m", "VIRTIO_FS": "m", "FUSE_FS": "y"},
            ("disk", "ext4"),
        ),
    ],
)
def test_a_kernel_without_an_initrd_takes_what_is_built_in(
    config: dict[str, str], way: tuple[str, str], tmp_path: Path
) -> None:
    kernel = image(config_file(tmp_path, BUILT_IN | config))
    assert way_of(kernel) == way


@pytest.mark.parametrize("symbol", ["VIRTIO_CONSOLE", "VIRTIO_BLK", "SQUASHFS"])
def test_what_only_an_initramfs_could_load_is_refused_where_there_is_none(
    symbol: str, tmp_path: Path
) -> None:
    config = BUILT_IN | {"SQUASHFS": "y", "SQUASHFS_LZ4": "y", symbol: "m"}
    said = f"CONFIG_BLK_DEV_INITRD is not set: CONFIG_{symbol} is a module and could not be loaded"
    with pytest.raises(UnbootableKernel, match=said):
        check(image(config_file(tmp_path, config)))


def own(filesystem: Filesystem) -> RootImage:
    return RootImage("disk", Path("/own/image"), "", "python3", filesystem=filesystem)


def test_an_image_of_the_users_own_is_mounted_as_it_is(tmp_path: Path) -> None:
    kernel = image(config_file(tmp_path, DEBIAN | {"EXT4_FS": "m", "EROFS_FS": "y"}))
    assert way_of(kernel) == way_of(kernel, own("squashfs")) == ("9p", "squashfs")
    assert way_of(kernel, own("ext4")) == ("9p", "ext4")
    assert check(kernel, "disk", own("erofs")) == ""


def test_a_kernel_that_cannot_mount_it_is_refused_with_the_image_and_the_cure(
    tmp_path: Path,
) -> None:
    kernel = image(config_file(tmp_path, DEBIAN | {"EXT4_FS": "m"}))
    with pytest.raises(UnbootableKernel) as caught:
        check(kernel, "disk", own("erofs"))
    assert str(caught.value) == (
        "6.12: 6.12.1 cannot boot as a guest: CONFIG_EROFS_FS is not set: its root is an erofs; "
        "[guest] root is /own/image; pack its files as squashfs (mksquashfs FOLDER IMAGE -comp lz4 "
        "-all-root), of which vmtest makes what each kernel can mount; or use another kernel or "
        "flavour, or enable what is missing and build again"
    )
