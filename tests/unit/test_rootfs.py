"""The guest's root: what names it, what is refused, what a failed build says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from vmtest.errors import ImageError
from vmtest.host.cache import find_tool
from vmtest.host.debian import Mirror, Mirrors
from vmtest.model.kernels import GuestSpec
from vmtest.rootfs import image as rootfs
from vmtest.rootfs.image import image_key, prepare
from vmtest.rootfs.images import images

MIRRORS = Mirrors(Mirror("http://mirror.example/debian", "/keys.gpg", "a test"), None)
needs_squashfs = pytest.mark.skipif(
    find_tool("mksquashfs") is None, reason="squashfs-tools is not installed"
)


def root_folder(path: Path, *without: str) -> Path:
    for name in ("dev", "proc", "sys", "run", "tmp", "usr/bin", "etc"):
        if name not in without:
            (path / name).mkdir(parents=True)
    if "python" not in without:
        (path / "usr/bin/python3").touch()
    path.chmod(0o755)
    return path


def squashfs(folder: Path, image: Path) -> Path:
    tool = find_tool("mksquashfs")
    assert tool is not None
    subprocess.run(
        [tool, str(folder), str(image), "-quiet", "-no-progress", "-all-root"], check=True
    )
    return image


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Put programs first in PATH; ``_`` in a name stands for nothing special."""
    folder.mkdir(exist_ok=True)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr("os.geteuid", lambda: 0)


def test_the_hosts_root_is_the_runners_interpreter(tmp_path: Path) -> None:
    image = prepare(GuestSpec(root="host"), tmp_path)
    assert (image.kind, image.path, image.python) == ("host", None, sys.executable)


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = root_folder(tmp_path / "root")
    image = prepare(GuestSpec(root=str(folder)), tmp_path / "cache")
    assert (image.kind, image.path, image.python) == ("directory", folder, "/usr/bin/python3")


@pytest.mark.parametrize("lacking", ["dev", "proc", "sys", "run", "tmp", "python"])
def test_a_folder_that_lacks_what_a_guest_needs_is_refused(tmp_path: Path, lacking: str) -> None:
    folder = root_folder(tmp_path / "root", lacking)
    with pytest.raises(ImageError, match=f"{folder} has no .*{lacking}"):
        prepare(GuestSpec(root=str(folder)), tmp_path / "cache")


@needs_squashfs
def test_a_squashfs_is_taken_as_it_is(tmp_path: Path) -> None:
    image = squashfs(root_folder(tmp_path / "root"), tmp_path / "root.sqfs")
    found = prepare(GuestSpec(root=str(image)), tmp_path / "cache")
    assert (found.kind, found.path) == ("disk", image)


@needs_squashfs
def test_a_squashfs_without_mount_points_is_refused(tmp_path: Path) -> None:
    image = squashfs(root_folder(tmp_path / "root", "proc", "sys"), tmp_path / "root.sqfs")
    with pytest.raises(ImageError, match="lacks /proc, /sys"):
        prepare(GuestSpec(root=str(image)), tmp_path / "cache")


@needs_squashfs
def test_a_squashfs_whose_root_anybody_may_write_is_refused(tmp_path: Path) -> None:
    folder = root_folder(tmp_path / "root")
    folder.chmod(0o777)
    image = squashfs(folder, tmp_path / "root.sqfs")
    with pytest.raises(ImageError, match="/ is drwxrwxrwx 0/0"):
        prepare(GuestSpec(root=str(image)), tmp_path / "cache")


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no image")
    with pytest.raises(
        ImageError, match=r"is neither squashfs nor ext4 nor erofs \(it begins with 6e"
    ):
        prepare(GuestSpec(root=str(tmp_path / "x")), tmp_path)
    with pytest.raises(ImageError, match=r'No such file.*"debian", "host"'):
        prepare(GuestSpec(root=str(tmp_path / "absent")), tmp_path)


def test_an_image_is_named_by_what_it_is_made_of(tmp_path: Path) -> None:
    specs = [GuestSpec(), GuestSpec(suite="bookworm"), GuestSpec(packages=("tcpdump",))]
    assert len({image_key(spec) for spec in specs}) == 3
    wheels = GuestSpec(wheels=(tmp_path / "a-1-py3-none-any.whl",))
    assert image_key(wheels) == image_key(GuestSpec())


def test_the_order_of_packages_and_the_mirror_do_not_name_an_image(tmp_path: Path) -> None:
    assert image_key(GuestSpec(packages=("a1", "b1"))) == image_key(
        GuestSpec(packages=("b1", "a1", "python3"))
    )


@pytest.mark.parametrize("name", ["--hook", "a b", "x;y", "$(x)"])
def test_what_is_no_packages_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="not the name of a Debian package"):
        prepare(GuestSpec(packages=(name,)), tmp_path, MIRRORS)


def test_without_a_mirror_an_image_can_still_be_imported(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="vmtest image import FILE"):
        prepare(GuestSpec(), tmp_path)


def test_a_missing_tool_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.host.cache.find_tool", lambda name: None)
    with pytest.raises(
        ImageError, match=r"mmdebstrap is not installed.*apt-get install mmdebstrap"
    ):
        prepare(GuestSpec(), tmp_path, MIRRORS)


def test_a_failed_build_shows_the_end_of_its_log_and_where_the_rest_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(
        tmp_path / "bin",
        monkeypatch,
        mmdebstrap="echo 'I: starting' >&2; echo 'E: no such suite' >&2; exit 25",
        sqfstar="cat >/dev/null",
    )
    seen: list[str] = []
    with pytest.raises(ImageError) as caught:
        prepare(GuestSpec(), tmp_path / "cache", MIRRORS, log=seen.append)
    message = str(caught.value)
    assert "mmdebstrap ended with status 25" in message and "E: no such suite" in message
    log = next((tmp_path / "cache/logs").iterdir())
    assert str(log) in message and "I: starting" in log.read_text()
    assert "starting" in seen
    assert images(tmp_path / "cache") == []
    assert list((tmp_path / "cache/tmp").iterdir()) == []


def test_a_packer_that_fails_is_a_failed_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(
        tmp_path / "bin",
        monkeypatch,
        mmdebstrap="echo something",
        sqfstar="cat >/dev/null; echo 'FATAL ERROR: out of luck' >&2; exit 1",
    )
    with pytest.raises(ImageError, match=r"sqfstar ended with status 1\n.*out of luck"):
        prepare(GuestSpec(), tmp_path / "cache", MIRRORS)


@needs_squashfs
def test_a_built_image_is_cached_and_built_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = squashfs(root_folder(tmp_path / "root"), tmp_path / "root.sqfs")
    programs(
        tmp_path / "bin",
        monkeypatch,
        mmdebstrap=f"echo x >>{tmp_path}/builds; printf '%s\\n' \"$@\" >{tmp_path}/arguments",
        sqfstar=f'cat >/dev/null; for last; do :; done; cp {image} "$last"',
    )
    first = prepare(GuestSpec(), tmp_path / "cache", MIRRORS)
    second = prepare(GuestSpec(), tmp_path / "cache", MIRRORS)
    assert first == second and first.kind == "disk" and first.path is not None
    assert (tmp_path / "builds").read_text() == "x\n"
    assert [path for _, path, _ in images(tmp_path / "cache")] == [first.path]
    arguments = (tmp_path / "arguments").read_text()
    (included,) = re.findall(r"--include=(\S*)", arguments)
    assert not {"systemd", "udev"} & set(included.split(","))
    assert 'Install-Recommends "false"' in arguments
    assert "mirror.example" not in arguments
    shutil.rmtree(first.path.parent)
    assert prepare(replace(GuestSpec()), tmp_path / "cache", lambda: MIRRORS) == first


@pytest.mark.parametrize(
    ("packages", "included"),
    [((), "systemd-standalone-sysusers"), (("tcpdump", "systemd"), "systemd")],
)
def test_users_are_made_by_the_small_package_unless_systemd_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packages: tuple[str, ...], included: str
) -> None:
    programs(
        tmp_path / "bin",
        monkeypatch,
        mmdebstrap=f"printf '%s\\n' \"$@\" >{tmp_path}/arguments; exit 25",
        sqfstar="cat >/dev/null",
    )
    with pytest.raises(ImageError):
        prepare(GuestSpec(packages=packages), tmp_path / "cache", MIRRORS)
    (names,) = re.findall(r"--include=(\S*)", (tmp_path / "arguments").read_text())
    assert [name for name in names.split(",") if name.startswith("systemd")] == [included]


def test_a_mirrors_password_is_for_its_owner_while_an_image_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(
        tmp_path / "bin",
        monkeypatch,
        mmdebstrap=(
            'for last; do :; done; stat -c "%a %n" "$TMPDIR" "${last%/*}" "$last" '
            f'>{tmp_path}/modes; cat "$last" >>{tmp_path}/modes; exit 25'
        ),
        sqfstar="cat >/dev/null",
    )
    mirrors = Mirrors(
        Mirror("http://me:hunter2@mirror.example/debian", "/keys.gpg", "a test"), None
    )
    with pytest.raises(ImageError):
        prepare(GuestSpec(), tmp_path / "cache", mirrors)
    *seen, source = (tmp_path / "modes").read_text().splitlines()
    modes, places = zip(*(line.split(" ", 1) for line in seen), strict=True)
    assert "hunter2" in source and modes == ("711", "711", "600")
    assert not Path(places[0]).exists()


def test_a_package_that_wants_systemd_is_told_to_be_asked_for_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = (
        " systemd-standalone-sysusers : Conflicts: systemd-sysusers\n"
        "E: Unable to correct problems, you have held broken packages."
    )
    programs(
        tmp_path / "bin",
        monkeypatch,
        mmdebstrap=f"echo '{said}' >&2; exit 25",
        sqfstar="cat >/dev/null",
    )
    with pytest.raises(ImageError, match=r'add "systemd" to \[guest\] packages'):
        prepare(GuestSpec(packages=("libpam-systemd",)), tmp_path / "cache", MIRRORS)


@needs_squashfs
def test_two_that_want_the_same_image_build_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = squashfs(root_folder(tmp_path / "root"), tmp_path / "root.sqfs")
    programs(
        tmp_path / "bin",
        monkeypatch,
        mmdebstrap=f"echo x >>{tmp_path}/builds; sleep 0.3",
        sqfstar=f'cat >/dev/null; for last; do :; done; cp {image} "$last"',
    )
    with ThreadPoolExecutor(2) as pool:
        wanted = [pool.submit(prepare, GuestSpec(), tmp_path / "cache", MIRRORS) for _ in "ab"]
        assert wanted[0].result() == wanted[1].result()
    assert (tmp_path / "builds").read_text() == "x\n"


@pytest.mark.parametrize("hook", rootfs._HOOKS)
def test_hooks_delete_nothing_below_what_mmdebstrap_mounts_there(hook: str) -> None:
    # The host's /dev, /proc and /sys are mounted in the image while hooks run.
    assert "-delete" not in hook
    for name in ("dev", "proc", "sys"):
        assert f'"$1"/{name}' not in hook and f"rm -rf {name}" not in hook


def test_an_ordinary_user_without_ids_to_map_is_told_how_to_get_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmtest.host.cache.find_tool", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    with pytest.raises(ImageError, match=r"has no range of ids in /etc/subuid.*--add-subuids"):
        prepare(GuestSpec(), tmp_path, MIRRORS)


def test_a_package_that_debian_does_not_have_is_named() -> None:
    log = "I: running apt-get...\nE: Unable to locate package python3-nonsuch\nE: apt-get failed\n"
    said = rootfs._no_such_package(log, "trixie")
    assert said.startswith('[guest] packages: Debian trixie has no package "python3-nonsuch"; ')
    assert rootfs._no_such_package("E: Unable to fetch\n", "trixie") == ""
