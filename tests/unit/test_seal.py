"""Entries of the cache are verified: cheaply before use, wholly on request, healed in between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from test_prune import taken

from vmtest.errors import InfrastructureError
from vmtest.host import seal
from vmtest.host.cache import clear_damaged, write_record
from vmtest.host.seal import SEAL, Damage, Entry
from vmtest.kernels.store.store import Manifest, Store

KEY = "6.1.10-amd64_6.1.10-1-0123456789ab"
MODULE = "lib/modules/6.1.10/kernel/a.ko"


def fill(entry: Path) -> Manifest:
    (entry / "boot").mkdir()
    (entry / "boot/vmlinux").write_bytes(b"kernel")
    (entry / MODULE).parent.mkdir(parents=True)
    (entry / MODULE).write_bytes(b"module")
    (entry / "lib/modules/6.1.10/modules.dep").write_text("kernel/a.ko:\n")
    (entry / "boot/config-6.1.10").write_text("CONFIG_A=y\n")
    config = "boot/config-6.1.10"
    return Manifest(
        "6.1.10-1", "6.1.10", "boot/vmlinux", "lib/modules/6.1.10", config, "d" * 64, "here"
    )


def stored(root: Path) -> Entry:
    Store(root).add(KEY, fill)
    entry = Entry.of(root / "kernels" / KEY)
    assert entry is not None
    return entry


def rot(entry: Entry, name: str) -> None:
    """Change a byte as a failing disk does: no time of change tells."""
    path = entry.place / name
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    files = entry.files()
    assert isinstance(files, dict)
    write_record(entry._checked, {"stamp": seal.stamp(entry.place, files)})


def rewrite(path: Path) -> None:
    """Other bytes, as many, and the old time of modification."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_link(path: Path) -> None:
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "bytes": rewrite,
    "truncated": lambda path: os.truncate(path, 3),
    "empty": lambda path: os.truncate(path, 0),
    "missing": lambda path: path.unlink(),
    "folder": to_folder,
    "link": to_link,
}
FILES = [
    "boot/vmlinux",
    "boot/config-6.1.10",
    MODULE,
    "lib/modules/6.1.10/modules.dep",
    "entry.json",
    SEAL,
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_kernel_is_made_again(tmp_path: Path, name: str, damage: str) -> None:
    entry = stored(tmp_path)
    DAMAGES[damage](entry.place / name)
    image = Store(tmp_path).add(KEY, fill)
    assert image.image.read_bytes() == b"kernel"
    assert (entry.place / MODULE).read_bytes() == b"module"
    assert entry.inspect() is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_kernel_made_again_says_why(tmp_path: Path, damage: str) -> None:
    entry = stored(tmp_path)
    DAMAGES[damage](entry.place / MODULE)
    note = Store(tmp_path).add(KEY, fill).note
    assert note.startswith(f"cached kernel {KEY} is damaged ({MODULE} ")
    assert "removed and made again" in note


def test_a_damaged_kernel_that_cannot_be_made_again_says_both(tmp_path: Path) -> None:
    entry = stored(tmp_path)
    rewrite(entry.place / MODULE)

    def fail(folder: Path) -> Manifest:
        raise InfrastructureError("no network")

    with pytest.raises(InfrastructureError, match=r"is damaged \(.*a\.ko .*no network"):
        Store(tmp_path).add(KEY, fail)


def test_a_folder_of_the_cache_that_is_a_file_is_made_again(tmp_path: Path) -> None:
    entry = stored(tmp_path)
    shutil.rmtree(entry.place)
    entry.place.write_text("a file")
    assert Store(tmp_path).add(KEY, fill).image.read_bytes() == b"kernel"


def test_an_entry_that_is_a_dangling_link_is_made_again(tmp_path: Path) -> None:
    entry = stored(tmp_path)
    shutil.rmtree(entry.place)
    entry.place.symlink_to(tmp_path / "absent")
    assert Store(tmp_path).add(KEY, fill).image.read_bytes() == b"kernel"


def test_a_whole_kernel_is_not_made_again(tmp_path: Path) -> None:
    stored(tmp_path)

    def never(folder: Path) -> Manifest:
        raise AssertionError

    assert Store(tmp_path).add(KEY, never).note == ""


def test_what_did_not_change_is_not_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = stored(tmp_path)

    def never(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr(seal, "sha256_file", never)
    assert entry.glance() is None


def test_a_copy_of_the_cache_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    entry = Entry.of(tmp_path / "there/kernels" / KEY)
    assert entry is not None and entry.glance() is None
    monkeypatch.setattr(seal, "sha256_file", lambda path: "")
    assert entry.glance() is None


def test_rot_that_no_stamp_tells_is_found_by_hashing(tmp_path: Path) -> None:
    entry = stored(tmp_path)
    rot(entry, MODULE)
    assert entry.glance() is None
    damage = entry.inspect()
    assert damage is not None and damage.file == MODULE


def test_a_rotten_entry_is_not_trusted_again_by_its_stamps(tmp_path: Path) -> None:
    entry = stored(tmp_path)
    rot(entry, MODULE)
    entry.inspect()
    assert entry.glance() is not None


def test_only_a_damaged_entry_is_taken_away(tmp_path: Path) -> None:
    entry = stored(tmp_path)
    assert entry.take_away() is None
    assert entry.place.is_dir()
    rot(entry, MODULE)
    assert entry.take_away() is not None
    assert not entry.place.exists()


def test_what_nobody_uses_leaves_nothing_behind(tmp_path: Path) -> None:
    entry = stored(tmp_path)
    rot(entry, MODULE)
    entry.take_away()
    assert list((tmp_path / "damaged").iterdir()) == []


def test_files_that_another_process_runs_on_stay_until_it_ends(tmp_path: Path) -> None:
    entry = stored(tmp_path)
    with taken(tmp_path, KEY):
        rot(entry, MODULE)
        entry.take_away()
        (kept,) = (tmp_path / "damaged").glob("*/old")
        assert (kept / MODULE).is_file()
        assert not entry.place.exists()
    clear_damaged(tmp_path)
    assert not kept.exists()


def test_an_entry_of_an_older_vmtest_is_sealed_at_first_use(tmp_path: Path) -> None:
    entry = stored(tmp_path)
    (entry.place / SEAL).unlink()
    entry.forget()
    assert Store(tmp_path).take(KEY) is not None
    assert (entry.place / SEAL).is_file()
    rewrite(entry.place / MODULE)
    assert Store(tmp_path).take(KEY) is None


@pytest.mark.parametrize("name", ["/etc/passwd", "../../other", ""])
def test_a_seal_that_names_what_is_outside_is_not_followed(tmp_path: Path, name: str) -> None:
    entry = stored(tmp_path)
    write_record(entry.place / SEAL, {"schema": 1, "files": {name: [1, "0" * 64]}})
    assert entry.files() == Damage(entry.title, SEAL, "cannot be read")


def test_an_entry_that_cannot_be_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = stored(tmp_path)
    rot(entry, MODULE)

    def denied(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "rename", denied)
    with pytest.raises(InfrastructureError, match=rf"{KEY}: cannot be removed.*Permission denied"):
        entry.take_away()
