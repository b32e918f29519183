"""Kernels and images carried to another host in one file."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest
from test_store import KEY, fill

from vmtest.errors import ImageError, InfrastructureError, UsageError
from vmtest.host.cache import write_json
from vmtest.kernels.store.store import Resolution, Store
from vmtest.model.kernels import GuestSpec, KernelImage, RootImage
from vmtest.rootfs.image import image_key, prepare
from vmtest.storage.transfer import export_bundle, import_bundle

QUESTION = ["apt", "debian", "6.1.*", ["good"]]


def filled(cache: Path) -> tuple[KernelImage, RootImage]:
    """A cache with a kernel, a guest image and the answer that led to the kernel."""
    store = Store(cache)
    kernel = store.add(KEY, fill)
    store.remember(QUESTION, Resolution(KEY, "6.1.10-1", "somewhere"))
    store.remember(["apt", "debian", "5.10.*", ["good"]], Resolution("other", "5.10", "elsewhere"))
    place = cache / "images" / image_key(GuestSpec())
    place.mkdir(parents=True)
    (place / "root.sqfs").write_bytes(b"hsqs and more")
    write_json(place / "image.json", {"size": 13, "sha256": sha256(b"hsqs and more").hexdigest()})
    return kernel, prepare(GuestSpec(), cache, None)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    kernel, image = filled(tmp_path / "here")
    export_bundle(tmp_path / "bundle.tar", tmp_path / "here", [kernel], image)
    return tmp_path / "bundle.tar"


def test_what_was_exported_is_there_after_the_import(tmp_path: Path, bundle: Path) -> None:
    there = tmp_path / "there"
    found = import_bundle(bundle, there)
    assert found.kernels == (KEY,) and found.images == (image_key(GuestSpec()),)
    assert found.already == () and found.size > 0
    kernel = Store(there).get(KEY)
    assert kernel is not None and kernel.image.read_bytes() == b"kernel"
    image = prepare(GuestSpec(), there, None)
    assert image.path is not None
    assert image.path.read_bytes() == b"hsqs and more"
    assert list((there / "tmp").iterdir()) == []


def test_the_answers_travel_with_the_kernels_they_led_to(tmp_path: Path, bundle: Path) -> None:
    there = tmp_path / "there"
    import_bundle(bundle, there)
    answer = Store(there).recall(QUESTION)
    assert answer is not None and answer.key == KEY
    assert len(list((there / "resolved").iterdir())) == 1


def test_what_is_there_already_stays(tmp_path: Path, bundle: Path) -> None:
    found = import_bundle(bundle, tmp_path / "here")
    assert set(found.already) == {KEY, image_key(GuestSpec())}


def test_progress_counts_to_the_end(tmp_path: Path, bundle: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = import_bundle(
        bundle, tmp_path / "there", lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (found.size, found.size)


def test_a_root_that_was_not_built_here_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="not vmtest's to export"):
        export_bundle(tmp_path / "b", tmp_path, [], RootImage("host", None, "", "/usr/bin/python3"))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    kernel, _ = filled(tmp_path / "here")
    (tmp_path / "file").touch()
    with pytest.raises(InfrastructureError, match=r"file/b"):
        export_bundle(tmp_path / "file" / "b", tmp_path / "here", [kernel])


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 1000])
def test_what_is_no_bundle_is_said_so(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.tar"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="is not a bundle of vmtest"):
        import_bundle(file, tmp_path / "there")


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.tar: No such file"):
        import_bundle(tmp_path / "absent.tar", tmp_path)


def test_a_truncated_bundle_publishes_nothing(tmp_path: Path, bundle: Path) -> None:
    data = bundle.read_bytes()
    bundle.write_bytes(data[: len(data) // 3])  # what follows the members is only padding
    with pytest.raises(InfrastructureError, match="damaged"):
        import_bundle(bundle, tmp_path / "there")
    assert not (tmp_path / "there/kernels").exists()
    assert not (tmp_path / "there/images").exists()


def test_a_changed_byte_publishes_nothing(tmp_path: Path, bundle: Path) -> None:
    data = bundle.read_bytes()
    bundle.write_bytes(data.replace(b"hsqs and more", b"hsqs and MORE"))
    with pytest.raises(InfrastructureError, match=r"root\.sqfs has not the digest"):
        import_bundle(bundle, tmp_path / "there")
    assert not (tmp_path / "there/kernels").exists()


def forged(
    path: Path, members: list[tuple[str, bytes]], listed: list[str], entries: list[str]
) -> Path:
    manifest = {
        "schema": 1,
        "entries": entries,
        "files": {name: [1, "0" * 64] for name in listed},
    }
    with tarfile.open(path, "w") as tar:
        for name, data in [("bundle.json", json.dumps(manifest).encode()), *members]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    "name", ["../escaped", "/escaped", "kernels/k/../../escaped", "kernels//k", "kernels/k/./x"]
)
def test_a_path_outside_the_cache_is_refused(tmp_path: Path, name: str) -> None:
    file = forged(tmp_path / "evil.tar", [(name, b"x")], [name], ["kernels/k"])
    with pytest.raises(InfrastructureError, match="outside the cache"):
        import_bundle(file, tmp_path / "there" / "cache")
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("entry", ["apt/good", "kernels", "kernels/a/b", "../x", ""])
def test_an_entry_that_is_neither_kernel_nor_image_is_refused(tmp_path: Path, entry: str) -> None:
    file = forged(tmp_path / "evil.tar", [], [], [entry])
    with pytest.raises((InfrastructureError, UsageError)):
        import_bundle(file, tmp_path / "there")


def test_a_member_the_list_does_not_name_is_refused(tmp_path: Path) -> None:
    file = forged(tmp_path / "evil.tar", [("kernels/k/x", b"x")], [], ["kernels/k"])
    with pytest.raises(InfrastructureError, match="which its list does not"):
        import_bundle(file, tmp_path / "there")


def test_a_link_is_refused(tmp_path: Path, bundle: Path) -> None:
    out = tmp_path / "evil.tar"
    with tarfile.open(bundle) as tar, tarfile.open(out, "w") as evil:
        for member in tar:
            stream = tar.extractfile(member)
            if member.name.endswith("root.sqfs"):
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
                stream = None
            evil.addfile(member, stream)
    with pytest.raises(InfrastructureError, match="which its list does not"):
        import_bundle(out, tmp_path / "there")


def test_an_export_that_fails_leaves_the_old_file(tmp_path: Path, bundle: Path) -> None:
    before = bundle.read_bytes()
    kernel, _ = filled(tmp_path / "second")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_bundle(bundle, tmp_path / "second", [kernel], progress=stop)
    assert bundle.read_bytes() == before
    shutil.rmtree(tmp_path / "second")
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


def test_a_damaged_entry_is_not_exported(tmp_path: Path) -> None:
    kernel, _ = filled(tmp_path / "here")
    kernel.image.write_bytes(b"KERNEL")
    with pytest.raises(ImageError, match=r"is damaged \(boot/vmlinux has sha256"):
        export_bundle(tmp_path / "b", tmp_path / "here", [kernel])
    assert not (tmp_path / "b").exists()


def test_what_is_there_but_damaged_is_replaced(tmp_path: Path, bundle: Path) -> None:
    kernel = Store(tmp_path / "here").get(KEY)
    assert kernel is not None
    kernel.image.write_bytes(b"KERNEL")
    found = import_bundle(bundle, tmp_path / "here")
    assert found.already == (image_key(GuestSpec()),)
    assert kernel.image.read_bytes() == b"kernel"
