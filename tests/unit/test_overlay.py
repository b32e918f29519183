"""Wheels that are laid over the guest: installed once, kept in the cache, taken from there."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from fake_session import HostSession

from vmtest.config.file import load
from vmtest.errors import ImageError, InfrastructureError, UsageError
from vmtest.host.cache import find_tool, hold, in_use
from vmtest.host.files import Files, tar
from vmtest.matrix.payload import install
from vmtest.model.kernels import GuestSpec, InstalledWheel, RootImage
from vmtest.rootfs.guestpython import GuestPython, python_of
from vmtest.rootfs.overlay import (
    KIND,
    archive_of,
    check_together,
    install_wheel,
    places,
    wheel_digests,
)
from vmtest.rootfs.prepare import prepare_root
from vmtest.storage.prune import items
from vmtest.storage.verify import verify

SITE = "lib/python3.13/dist-packages"


@pytest.fixture
def python(tmp_path: Path) -> GuestPython:
    """That of an image which nobody reads."""
    return GuestPython(tmp_path / "root.sqfs", "3.13", "8.3.5")


def wheel(folder: Path, text: str = "x = 1\n", name: str = "demo") -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        # Without the time: the same files are the same wheel, whenever it is made.
        archive.writestr(zipfile.ZipInfo(f"{name}/__init__.py"), text)
        archive.writestr(zipfile.ZipInfo(f"{name}-1.0.data/scripts/{name}"), "#!python\n")
    return path


def content(*wheels: InstalledWheel) -> dict[str, tuple[bytes, int]]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive_of(wheels))) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            assert stream is not None and (member.uid, member.gid) == (0, 0)
            found[member.name] = (stream.read(), member.mode)
    return found


def test_a_wheel_is_as_pip_would_install_it(tmp_path: Path, python: GuestPython) -> None:
    found = install_wheel(wheel(tmp_path), python, tmp_path / "cache")
    assert content(found) == {
        f"{SITE}/demo/__init__.py": (b"x = 1\n", 0o644),
        "bin/demo": (b"#!/usr/bin/python3\n", 0o755),
    }


def test_several_wheels_are_one_archive(tmp_path: Path, python: GuestPython) -> None:
    paths = [wheel(tmp_path, name=name) for name in ("one", "two")]
    found = [install_wheel(path, python, tmp_path / "cache") for path in paths]
    assert {name.partition("/")[2] for name in content(*found) if "bin" in name} == {"one", "two"}


def made_of(folder: Path, name: str, place: str, text: str = "x = 1\n") -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(place, text)
    return path


@pytest.mark.parametrize(
    ("place", "text"), [("shared/x.py", "x = 2\n"), ("shared", "x"), ("shared/x.py/y.py", "")]
)
@pytest.mark.parametrize("turned", [False, True])
def test_wheels_with_something_else_in_one_place_are_told(
    tmp_path: Path, python: GuestPython, place: str, text: str, turned: bool
) -> None:
    paths = [made_of(tmp_path, "one", "shared/x.py"), made_of(tmp_path, "two", place, text)]
    paths = paths[::-1] if turned else paths
    found = [install_wheel(path, python, tmp_path / "cache") for path in paths]
    with pytest.raises(UsageError) as caught:
        check_together(found)
    assert all(path.name in str(caught.value) for path in paths)
    assert "/dist-packages/shared" in str(caught.value)


def test_wheels_may_share_a_folder_and_the_same_file(tmp_path: Path, python: GuestPython) -> None:
    places = {"one": "shared/__init__.py", "two": "shared/__init__.py", "three": "shared/y.py"}
    paths = [made_of(tmp_path, name, place) for name, place in places.items()]
    found = [install_wheel(path, python, tmp_path / "cache") for path in paths]
    check_together(found)
    assert len(content(*found)) == 2


def test_a_wheel_that_is_named_takes_the_place_of_what_pip_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: GuestPython
) -> None:
    (tmp_path / "pip").mkdir()
    found = wheel(tmp_path / "pip", "x = 2\n")
    monkeypatch.setattr("vmtest.rootfs.prepare.python_of", lambda image: python)
    monkeypatch.setattr("vmtest.rootfs.prepare.resolve", lambda *given: (found,))
    built = RootImage("disk", python.image, "0" * 64, "python3")
    monkeypatch.setattr("vmtest.rootfs.prepare.prepare", lambda *given, **options: built)
    wheel(tmp_path)
    (tmp_path / "kernels.toml").write_text(
        'schema = 1\n[guest]\nwheels = ["demo-1.0-py3-none-any.whl"]\nrequirements = ["demo"]\n'
        '[[kernel]]\nname = "k"\npath = "vmlinuz"\n'
    )
    root = prepare_root(load(tmp_path / "kernels.toml"), tmp_path / "cache")
    assert content(*root.wheels)[f"{SITE}/demo/__init__.py"] == (b"x = 1\n", 0o644)


def test_a_wheel_is_installed_once(tmp_path: Path, python: GuestPython) -> None:
    cache = tmp_path / "cache"
    first = install_wheel(wheel(tmp_path), python, cache)
    (entry,) = places(cache)
    made = (entry / "tree.tar").stat().st_mtime_ns
    assert install_wheel(wheel(tmp_path), python, cache) == first
    assert (entry / "tree.tar").stat().st_mtime_ns == made
    assert list((cache / "tmp").iterdir()) == []


def test_other_bytes_or_another_python_are_another_entry(
    tmp_path: Path, python: GuestPython
) -> None:
    cache = tmp_path / "cache"
    install_wheel(wheel(tmp_path), python, cache)
    changed = install_wheel(wheel(tmp_path, "x = 2\n"), python, cache, Files())
    assert content(changed)[f"{SITE}/demo/__init__.py"][0] == b"x = 2\n"
    install_wheel(wheel(tmp_path), GuestPython(python.image, "3.11", "7.2"), cache)
    assert len(places(cache)) == 3


@pytest.mark.parametrize("damage", ["tree.tar", "wheel.json"])
def test_a_damaged_entry_is_told_and_made_again(
    tmp_path: Path, python: GuestPython, damage: str
) -> None:
    cache = tmp_path / "cache"
    whole = install_wheel(wheel(tmp_path), python, cache)
    (entry,) = places(cache)
    (entry / damage).write_bytes(b"rot")
    assert [item.broken for item in items(cache)] == [True]
    assert [damage in str(one.damage) for one in verify(cache)] == [True]
    assert install_wheel(wheel(tmp_path), python, cache) == whole
    assert [one.damage for one in verify(cache)] == [None]


def test_a_wheel_that_a_run_uses_is_not_pruned(tmp_path: Path, python: GuestPython) -> None:
    cache = tmp_path / "cache"
    hold(cache, "another")
    install_wheel(wheel(tmp_path), python, cache)
    (entry,) = places(cache)
    assert in_use(cache, f"{KIND}-{entry.name}")


def test_a_missing_wheel_is_named(tmp_path: Path) -> None:
    spec = GuestSpec(wheels=(tmp_path / "absent.whl",))
    with pytest.raises(ImageError, match=r"wheels: .*absent\.whl: No such file.*correct it in"):
        wheel_digests(spec, Files())


def test_wheels_take_an_image_that_vmtest_builds(tmp_path: Path) -> None:
    file = tmp_path / "kernels.toml"
    kernel = '[[kernel]]\nname = "k"\npath = "vmlinuz"\n'
    file.write_text(f'schema = 1\n[guest]\nroot = "host"\nwheels = ["{wheel(tmp_path)}"]\n{kernel}')
    with pytest.raises(UsageError, match=r'are laid over an image .*root is "host"'):
        prepare_root(load(file), tmp_path / "cache")


def test_who_needs_no_wheels_asks_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = '[guest]\nwheels = ["absent.whl"]\nrequirements = ["absent"]\n'
    (tmp_path / "kernels.toml").write_text(
        f'schema = 1\n{guest}[[kernel]]\nname = "k"\npath = "vmlinuz"\n'
    )
    built = RootImage("disk", tmp_path / "root.sqfs", "0" * 64, "python3")
    monkeypatch.setattr("vmtest.rootfs.prepare.prepare", lambda *given, **options: built)
    config = load(tmp_path / "kernels.toml")
    assert prepare_root(config, tmp_path / "cache", wheels=False) == built
    with pytest.raises(ImageError, match=r"absent\.whl: No such file"):
        prepare_root(config, tmp_path / "cache")


@pytest.mark.skipif(find_tool("mksquashfs") is None, reason="squashfs-tools is not installed")
def test_an_image_tells_its_python_and_pytest(tmp_path: Path) -> None:
    folder = tmp_path / "root"
    (folder / "usr/bin").mkdir(parents=True)
    (folder / "usr/bin/python3").symlink_to("python3.13")
    packages = folder / "usr/lib/python3/dist-packages"
    packages.mkdir(parents=True)
    (image := tmp_path / "root.sqfs").touch()
    with pytest.raises(ImageError, match="has no Python and pytest for wheels"):
        python_of(image)
    (packages / "pytest-8.3.5.dist-info").mkdir()
    command = ["mksquashfs", str(folder), str(image), "-quiet", "-no-progress", "-noappend"]
    subprocess.run(command, check=True)
    assert python_of(image) == GuestPython(image, "3.13", "8.3.5")


@pytest.mark.skipif(find_tool("mksquashfs") is None, reason="squashfs-tools is not installed")
def test_nothing_of_the_image_runs_on_the_host(tmp_path: Path) -> None:
    folder = tmp_path / "root"
    for name in ("usr/bin/python3.13", "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"):
        (file := folder / name).parent.mkdir(parents=True)
        file.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        file.chmod(0o755)
    (folder / "usr/lib/python3.13").mkdir()
    image = tmp_path / "root.sqfs"
    command = ["mksquashfs", str(folder), str(image), "-quiet", "-no-progress", "-noappend"]
    subprocess.run(command, check=True)
    found = install_wheel(wheel(tmp_path), GuestPython(image, "3.13", "8.3.5"), tmp_path / "cache")
    assert f"{SITE}/demo/__init__.py" in content(found)
    assert not (tmp_path / "ran").exists()


def guest(folder: Path) -> HostSession:
    """A guest; what is mounted is written down and not mounted."""
    (folder / "guest").mkdir()
    mounts = folder / "mounts"
    mounts.write_text("bpf /sys/fs/bpf bpf rw 0 0\n")
    script = folder / "mount"
    script.write_text(f'#!/bin/sh\necho "$@" >>{folder}/mounted\n')
    script.chmod(0o755)
    moved = {"/tmp/vmtest": folder / "guest/vmtest", "/proc/mounts": mounts}
    return HostSession({**moved, "mount --bind": script})


def test_wheels_lie_over_usr_local_in_the_guest(tmp_path: Path, python: GuestPython) -> None:
    found = install_wheel(wheel(tmp_path), python, tmp_path / "cache")
    umask = os.umask(0o077)  # as in a guest
    try:
        install(guest(tmp_path), tar({}), lambda: None, wheels=(found,))
    finally:
        os.umask(umask)
    there = tmp_path / "guest/vmtest-wheels"
    folders = [path for path in (there, *there.rglob("*")) if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o755}
    assert (there / SITE / "demo/__init__.py").read_text() == "x = 1\n"
    assert (tmp_path / "mounted").read_text().splitlines()[0] == f"{there} /usr/local"


def test_wheels_that_a_guest_cannot_unpack_are_told(tmp_path: Path) -> None:
    broken = InstalledWheel("demo", "", b"no tar")
    with pytest.raises(InfrastructureError, match=r"cannot unpack the payload in the guest: .*tar"):
        install(guest(tmp_path), tar({}), lambda: None, wheels=(broken,))
