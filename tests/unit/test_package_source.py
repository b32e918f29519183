"""Kernels from package files: small real .deb and .rpm files, a local HTTP server."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import hostile_files
import pytest
import signed_archive
import small_disk
import small_rpm
from command import vmtest
from fake_kernels import bzimage
from http_files import Served, serving

from vmtest.errors import InfrastructureError, KernelUnavailable
from vmtest.host.cache import find_tool
from vmtest.kernels import source_for
from vmtest.kernels.files.unpack import target_of
from vmtest.kernels.store.store import Store
from vmtest.model.kernels import Kernel, KernelImage, PackageFile, PackageSpec

pytestmark = pytest.mark.skipif(
    find_tool("dpkg-deb") is None or find_tool("depmod") is None,
    reason="dpkg-deb or depmod is not installed on this host",
)

OLD = "linux-image-6.1.0-56-rt-amd64"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages: a whole kernel that calls itself by an ABI, and one in parts."""
    folder = tmp_path_factory.mktemp("packages")
    for name, version, kind in (
        (OLD, "6.1.192-2", "whole"),
        ("linux-base-7.2.6-amd64", "7.2.6-1", "base"),
        ("linux-modules-7.2.6-amd64", "7.2.6-1", "modules"),
        ("linux-binary-7.2.6-amd64", "7.2.6-1", "binary"),
        ("linux-modules-7.1.13-amd64", "7.1.13-1", "modules"),
    ):
        signed_archive.deb(folder, folder / "trees", name, version, {}, kind)
    return folder / "pool"


@pytest.fixture
def pool(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(made, tmp_path / "pool"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def served(pool: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr("vmtest.kernels.files.download._PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Served({f"/{f.name}": f.read_bytes() for f in pool.iterdir()})) as server:
        yield server


def kernel(*files: PackageFile) -> Kernel:
    return Kernel("vendor", PackageSpec(files))


def local(pool: Path, *names: str) -> Kernel:
    found = [next(pool.glob(f"{name}*")) for name in names]
    return kernel(*(PackageFile(file) for file in found))


def remote(served: Served, pool: Path, *names: str) -> Kernel:
    files = [next(pool.glob(f"{name}*")) for name in names]
    return kernel(
        *(
            PackageFile(f"{served.url}/{f.name}", hashlib.sha256(f.read_bytes()).hexdigest())
            for f in files
        )
    )


def fetch(wanted: Kernel, store: Store) -> KernelImage:
    source = source_for(wanted, {})
    return source.fetch(source.resolve(wanted, store), store)


def nothing_is_left(store: Store) -> bool:
    return store.entries() == [] and list((store.root / "tmp").iterdir()) == []


def test_a_deb_becomes_a_kernel_with_its_modules_and_config(pool: Path, store: Store) -> None:
    image = fetch(local(pool, OLD), store)
    assert (image.name, image.release) == ("vendor", "6.1.0-56-rt-amd64")
    assert image.modules is not None and (image.modules / "modules.dep").is_file()
    assert image.config is not None and "CONFIG_BPF_SYSCALL=y" in image.config.read_text()
    assert image.image.read_bytes().startswith(b"\x7fELF")


def test_its_version_is_the_packages_where_the_release_counts_otherwise(
    pool: Path, store: Store
) -> None:
    wanted = local(pool, OLD)
    assert str(source_for(wanted, {}).resolve(wanted, store).version) == "6.1.192"
    assert fetch(wanted, store).version.text == "6.1.192-2"


def test_its_version_is_the_releases_where_the_package_counts_in_its_own_way(
    tmp_path: Path, store: Store
) -> None:
    signed_archive.deb(tmp_path, tmp_path / "t", "linux-image-6.8.1-x", "2024.1", {}, "whole")
    assert fetch(local(tmp_path / "pool", "linux-image"), store).version.text == "6.8.1-x"


def test_several_packages_become_one_kernel(pool: Path, store: Store) -> None:
    names = ("linux-modules-7.2.6", "linux-base-7.2.6", "linux-binary-7.2.6")
    image = fetch(local(pool, *names), store)
    assert image.release == "7.2.6-amd64"
    assert image.modules is not None and image.config is not None


def test_the_users_own_files_are_left_alone(pool: Path, store: Store) -> None:
    before = {file.name: file.read_bytes() for file in pool.iterdir()}
    fetch(local(pool, OLD), store)
    assert {file.name: file.read_bytes() for file in pool.iterdir()} == before


def test_a_second_fetch_makes_nothing_anew(pool: Path, store: Store) -> None:
    wanted = local(pool, OLD)
    first = fetch(wanted, store)
    resolved = source_for(wanted, {}).resolve(wanted, store)
    assert resolved.cached and resolved.version.text == "6.1.192-2"
    assert resolved.digest == first.digest
    assert fetch(wanted, store) == first


def test_two_kernels_in_one_list_are_refused_by_name(pool: Path, store: Store) -> None:
    with pytest.raises(KernelUnavailable, match=r"hold 2 kernels: 6\.1\.0-56-rt-amd64, 7\.2\.6-"):
        fetch(local(pool, OLD, "linux-binary-7.2.6"), store)
    assert nothing_is_left(store)


def test_modules_of_another_kernel_are_refused(pool: Path, store: Store) -> None:
    with pytest.raises(KernelUnavailable, match=r"is 7\.2\.6-amd64 and the modules are for 7\.1\."):
        fetch(local(pool, "linux-binary-7.2.6", "linux-modules-7.1.13"), store)


def test_packages_without_an_image_are_refused(pool: Path, store: Store) -> None:
    with pytest.raises(KernelUnavailable, match=r"^vendor: linux-modules.*hold no kernel image"):
        fetch(local(pool, "linux-modules-7.2.6"), store)


def test_what_is_no_package_is_named_with_its_first_bytes(tmp_path: Path, store: Store) -> None:
    (tmp_path / "linux-6.1.deb").write_bytes(b"<html>no</html>")
    with pytest.raises(KernelUnavailable, match=r"linux-6\.1\.deb is neither a \.deb nor a \.rpm"):
        fetch(local(tmp_path, "linux-6.1"), store)


def test_a_file_that_is_not_there_is_named_with_the_cure(tmp_path: Path, store: Store) -> None:
    wanted = kernel(PackageFile(tmp_path / "linux-6.1.deb"))
    with pytest.raises(KernelUnavailable, match=r"No such file.*correct package in kernels\.toml"):
        fetch(wanted, store)


def test_a_local_file_with_another_sha256_is_refused(pool: Path, store: Store) -> None:
    file = next(pool.glob(f"{OLD}*"))
    wanted = kernel(PackageFile(file, "0" * 64))
    with pytest.raises(KernelUnavailable, match=r"its sha256 is [0-9a-f]{64} and not 0{64}"):
        fetch(wanted, store)


def test_a_truncated_package_is_refused(pool: Path, store: Store) -> None:
    file = next(pool.glob(f"{OLD}*"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(KernelUnavailable, match="cannot be unpacked"):
        fetch(local(pool, OLD), store)
    assert nothing_is_left(store)


def test_a_name_without_a_version_names_the_cure(tmp_path: Path, store: Store) -> None:
    (tmp_path / "kernel.deb").touch()
    with pytest.raises(KernelUnavailable, match="tells no kernel version; name the package with"):
        fetch(local(tmp_path, "kernel"), store)


# --- by URL -----------------------------------------------------------------------------


def test_a_package_is_downloaded_and_the_progress_told(
    served: Served, pool: Path, store: Store
) -> None:
    names = ("linux-modules-7.2.6", "linux-binary-7.2.6")
    wanted = remote(served, pool, *names)
    source = source_for(wanted, {})
    seen: list[tuple[int, int]] = []
    image = source.fetch(
        source.resolve(wanted, store), store, lambda done, total: seen.append((done, total))
    )
    assert image.release == "7.2.6-amd64" and image.modules is not None
    size = sum(next(pool.glob(f"{name}*")).stat().st_size for name in names)
    assert seen[-1] == (size, size)
    assert list((store.root / "tmp").iterdir()) == []


def test_resolving_asks_the_server_nothing(served: Served, pool: Path, store: Store) -> None:
    wanted = remote(served, pool, OLD)
    resolved = source_for(wanted, {}).resolve(wanted, store)
    assert served.asked == []
    assert (str(resolved.version), resolved.cached) == ("6.1.192", False)


def test_the_same_file_by_url_and_by_path_is_one_entry(
    served: Served, pool: Path, store: Store
) -> None:
    fetch(remote(served, pool, OLD), store)
    fetch(local(pool, OLD), store)
    assert len(store.entries()) == 1


def test_a_download_that_breaks_off_is_continued(served: Served, pool: Path, store: Store) -> None:
    served.cut = [600, 300]
    fetch(remote(served, pool, OLD), store)
    assert [asked for _, asked in served.asked] == [None, "bytes=600-", "bytes=900-"]


def test_a_download_begins_anew_where_the_server_cannot_continue(
    served: Served, pool: Path, store: Store
) -> None:
    served.ranges, served.cut = False, [1000]
    assert fetch(remote(served, pool, OLD), store).release == "6.1.0-56-rt-amd64"


def test_a_download_that_always_breaks_off_is_refused(
    served: Served, pool: Path, store: Store
) -> None:
    served.cut = [10] * 9
    with pytest.raises(KernelUnavailable, match=r"ended after 40 of \d+ bytes \(4 attempts\)"):
        fetch(remote(served, pool, OLD), store)
    assert nothing_is_left(store)


def test_a_busy_server_is_asked_again(served: Served, pool: Path, store: Store) -> None:
    served.statuses = [503, 429, 200]
    assert fetch(remote(served, pool, OLD), store).release == "6.1.0-56-rt-amd64"
    assert len(served.asked) == 3


def test_what_the_server_has_not_is_asked_for_once(
    served: Served, pool: Path, store: Store
) -> None:
    wanted = kernel(PackageFile(f"{served.url}/linux-9.9.deb", "0" * 64))
    with pytest.raises(KernelUnavailable, match=r"linux-9\.9\.deb failed: HTTP status 404"):
        fetch(wanted, store)
    assert len(served.asked) == 1
    assert nothing_is_left(store)


def test_other_content_than_was_meant_is_refused(served: Served, pool: Path, store: Store) -> None:
    wanted = remote(served, pool, OLD)
    path = next(iter(f for f in served.files if OLD in f))
    served.files[path] = served.files[path][:-1] + b"x"
    with pytest.raises(KernelUnavailable, match="nothing was stored: get it again"):
        fetch(wanted, store)
    assert nothing_is_left(store)


def test_a_server_that_is_not_there_is_named(pool: Path, store: Store, served: Served) -> None:
    wanted = kernel(PackageFile("http://127.0.0.1:1/linux-6.1.deb", "0" * 64))
    with pytest.raises(KernelUnavailable, match=r"127\.0\.0\.1:1/linux-6\.1\.deb failed:.*refused"):
        fetch(wanted, store)


def test_the_environments_proxy_is_used(
    served: Served, pool: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = remote(served, pool, OLD)
    (file,) = wanted.spec.files  # type: ignore[union-attr]  # made right above
    through = f"http://example.invalid/{next(pool.glob(f'{OLD}*')).name}"
    served.files[through] = served.files["/" + through.rpartition("/")[2]]
    monkeypatch.setenv("http_proxy", served.url)
    fetch(kernel(PackageFile(through, file.sha256)), store)
    assert [path for path, _ in served.asked] == [through]


# --- .rpm -------------------------------------------------------------------------------

RPM = "6.11.4-301.fc41.x86_64"
needs_bsdtar = pytest.mark.skipif(find_tool("bsdtar") is None, reason="bsdtar is not installed")


def rpms(folder: Path) -> tuple[Path, Path]:
    """A kernel as Fedora packs it: image and config beside the modules."""
    core = small_rpm.write(
        folder / f"kernel-core-{RPM}.rpm",
        {
            f"lib/modules/{RPM}/vmlinuz": bzimage(RPM),
            f"lib/modules/{RPM}/config": b"CONFIG_BPF_SYSCALL=y\n",
            f"lib/modules/{RPM}/System.map": b"not needed",
        },
    )
    modules = small_rpm.write(
        folder / f"kernel-modules-core-{RPM}.rpm",
        {
            f"lib/modules/{RPM}/kernel/fs/README": b"no module",
            f"lib/modules/{RPM}/modules.order": b"",
            f"lib/modules/{RPM}/modules.builtin": b"",
        },
    )
    return core, modules


@needs_bsdtar
def test_rpms_become_a_kernel(tmp_path: Path, store: Store) -> None:
    image = fetch(kernel(*(PackageFile(file) for file in rpms(tmp_path))), store)
    assert (image.release, str(image.version)) == (RPM, "6.11.4")
    assert image.modules is not None and (image.modules / "kernel/fs/README").is_file()
    assert image.config is not None
    assert not (image.modules / "System.map").exists()


@pytest.mark.parametrize(
    "member",
    [
        f"lib/modules/{RPM}/kernel/../../../../outside",
        f"lib/modules/{RPM}",
        "lib/modules/../kernel/x",
        "boot/System.map-6.11.4",
        "boot/vmlinuz-",
        "etc/passwd",
    ],
)
def test_other_files_of_a_package_are_not_taken(member: str) -> None:
    assert target_of(member, Path("/entry"), None) is None


@needs_bsdtar
def test_a_truncated_rpm_is_refused(tmp_path: Path, store: Store) -> None:
    files = rpms(tmp_path)
    files[0].write_bytes(files[0].read_bytes()[:-60])
    with pytest.raises(KernelUnavailable, match=r"kernel-core-.* cannot be unpacked"):
        fetch(kernel(*(PackageFile(file) for file in files)), store)
    assert nothing_is_left(store)


@needs_bsdtar
def test_an_unpacker_with_more_to_complain_than_a_pipe_holds_comes_to_its_end(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")  # in which it has a line for every name that is not ASCII
    odd = {f"usr/share/\u00e9{'x' * 90}{number}": b"" for number in range(1000)}
    members = {f"boot/vmlinuz-{RPM}": bzimage(RPM), **odd}
    file = small_rpm.write(tmp_path / f"kernel-{RPM}.rpm", members)
    assert fetch(kernel(PackageFile(file)), store).release == RPM


# --- that unpack to more than they should -----------------------------------------------


def bomb(folder: Path, **more: bytes) -> Kernel:
    """A .deb with a right kernel and ``more``."""
    release = "6.1.9-amd64"
    members = {f"boot/vmlinuz-{release}": bzimage(release), **more}
    return kernel(PackageFile(hostile_files.deb(folder / "linux-6.1.9.deb", members)))


def test_a_package_that_unpacks_to_far_more_than_its_size_is_refused(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.host.packed.SMALL", 1 << 20)
    with pytest.raises(KernelUnavailable, match=r"refused: it unpacks to more than \d+ MiB"):
        fetch(bomb(tmp_path, **{"usr/share/zeros": bytes(32 << 20)}), store)
    assert nothing_is_left(store)


def test_a_package_whose_header_fills_the_memory_is_refused(tmp_path: Path, store: Store) -> None:
    with pytest.raises(KernelUnavailable, match=r"refused: a header in it has \d+ bytes"):
        fetch(bomb(tmp_path, **{"usr/" + "x" * (2 << 20): b""}), store)
    assert nothing_is_left(store)


def test_the_scripts_of_a_package_are_not_unpacked(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = "6.1.9-amd64"
    file = hostile_files.deb(
        tmp_path / "linux-6.1.9.deb", {f"boot/vmlinuz-{release}": bzimage(release)}, "6.1.9-7",
        beside=bytes(8 << 20),
    )  # fmt: skip
    with small_disk.mounted(tmp_path / "small", "1m") as small:
        monkeypatch.setenv("TMPDIR", str(small))
        assert fetch(kernel(PackageFile(file)), store).version.text == "6.1.9-7"


def test_without_bsdtar_an_rpm_names_the_package_to_install(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.host.cache.find_tool", lambda name: None)
    with pytest.raises(InfrastructureError, match=r"bsdtar is not.*apt-get install libarchive-to"):
        fetch(kernel(*(PackageFile(file) for file in rpms(tmp_path))), store)


def test_fetch_says_on_the_terminal_that_a_download_is_tried_again(
    served: Served, pool: Path, tmp_path: Path
) -> None:
    (wanted,) = remote(served, pool, OLD).spec.files  # type: ignore[union-attr]
    served.statuses = [503]
    address = served.url.replace("://", "://me:hunter2@") + f"/{Path(str(wanted.place)).name}"
    (tmp_path / "kernels.toml").write_text(
        f'schema = 1\n[[kernel]]\nname = "vendor"\ntags = ["default"]\n'
        f'package = [{{ url = "{address}", sha256 = "{wanted.sha256}" }}]\n'
    )
    environment = {"VMTEST_CACHE": str(tmp_path / "cache"), "no_proxy": "127.0.0.1"}
    said = vmtest("kernels", "fetch", cwd=tmp_path, environment=environment)
    assert said.status == 0, said
    assert f"vendor: downloading {served.url.replace('://', '://***@')}/" in said.out
    assert "HTTP status 503 Service Unavailable; it is tried again (attempt 2 of 4)" in said.out
    assert "hunter2" not in said.out + said.err
