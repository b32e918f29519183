"""No verdict comes from damaged files: neither FAILED nor PASSED."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from test_seal import KEY, MODULE, fill, rewrite, rot

from vmtest.host.cache import put_aside, write_json
from vmtest.host.seal import Entry, seal
from vmtest.kernels.store.store import Store
from vmtest.matrix.intact import CacheDamaged, Intact
from vmtest.model.kernels import KernelImage, RootImage
from vmtest.model.results import KernelResult, Outcome, Status, TestResult

LOGS = Path("no-console-here")
Ran = tuple[KernelImage, RootImage, Entry, Entry]


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    """A kernel and a guest image in a cache, and their entries."""
    image = Store(tmp_path).add(KEY, fill)
    place = tmp_path / "images" / "bookworm-0"
    place.mkdir(parents=True)
    (place / "root.sqfs").write_bytes(b"hsqs")
    digest = sha256(b"hsqs").hexdigest()
    write_json(place / "image.json", {"size": 4, "sha256": digest})
    seal(place)
    root = RootImage("disk", place / "root.sqfs", digest, "python3")
    entries = [Entry.of(image.image.parents[1]), Entry.of(place)]
    assert entries[0] is not None and entries[1] is not None
    assert entries[1].glance() is None
    return image, root, entries[0], entries[1]


def users_own(folder: Path) -> RootImage:
    """An image that is not of the cache."""
    own = folder / "mine.sqfs"
    own.write_bytes(b"hsqs")
    return RootImage("disk", own, sha256(b"hsqs").hexdigest(), "python3")


def result(status: Status) -> KernelResult:
    test = TestResult("t.py::a", "s", Outcome.FAILED, message="No module named 'uuid'")
    return KernelResult("k", status, tests=(test,), reason="1 failed")


def watched(image: KernelImage, root: RootImage, while_it_runs: Callable[[], object]) -> Intact:
    intact = Intact(image, root)
    intact.before()
    intact.begin()
    while_it_runs()
    return intact


@pytest.mark.parametrize("status", list(Status))
def test_on_whole_files_the_result_stands(ran: Ran, status: Status) -> None:
    image, root, _, _ = ran
    assert watched(image, root, lambda: None).verdict(result(status), LOGS) == result(status)


@pytest.mark.parametrize("status", [Status.PASSED, Status.FAILED, Status.PANICKED, Status.SPLAT])
@pytest.mark.parametrize("part", ["kernel", "image"])
def test_on_rotten_files_no_result_stands(ran: Ran, status: Status, part: str) -> None:
    image, root, kernel, guest = ran
    entry, name = (kernel, MODULE) if part == "kernel" else (guest, "root.sqfs")
    rot(entry, name)
    with pytest.raises(CacheDamaged, match=rf"^{entry.title} is damaged \({name} has") as caught:
        watched(image, root, lambda: None).verdict(result(status), LOGS)
    spoilt = caught.value.result
    assert (spoilt.status, spoilt.tests) == (Status.INFRA_ERROR, ())
    assert not entry.place.exists()


def test_damage_while_the_guest_runs_is_found(ran: Ran) -> None:
    image, root, _, guest = ran
    intact = watched(image, root, lambda: None)
    assert intact._thread is not None
    intact._thread.join()
    rewrite(guest.place / "root.sqfs")
    with pytest.raises(CacheDamaged):
        intact.verdict(result(Status.PASSED), LOGS)


def test_changed_stamps_are_known_before_a_boot(ran: Ran) -> None:
    image, root, _, guest = ran
    rewrite(guest.place / "root.sqfs")
    intact = Intact(image, root)
    intact.before()
    assert intact.damaged


def test_an_image_made_anew_meanwhile_is_not_what_was_prepared(ran: Ran) -> None:
    image, root, _, guest = ran
    intact = Intact(image, replace(root, digest="0" * 64))
    intact.before()
    with pytest.raises(CacheDamaged, match="replaced after this kernel was prepared"):
        intact.verdict(result(Status.PASSED), LOGS)
    assert guest.place.exists()


def test_a_users_own_image_that_changes_is_not_removed(ran: Ran, tmp_path: Path) -> None:
    image, _, _, _ = ran
    root = users_own(tmp_path)
    own = tmp_path / "mine.sqfs"
    judged = watched(image, root, lambda: rewrite(own)).verdict(result(Status.FAILED), LOGS)
    assert judged.status is Status.INFRA_ERROR
    assert f"guest image {own} is damaged" in judged.reason
    assert own.exists()


def test_a_users_folder_that_is_named_as_ours_is_left_alone(ran: Ran, tmp_path: Path) -> None:
    image, _, _, _ = ran
    own = tmp_path / "home/images/mine/root.sqfs"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"hsqs")
    root = RootImage("disk", own, "0" * 64, "python3")
    assert watched(image, root, lambda: None).verdict(result(Status.PASSED), LOGS).status is (
        Status.INFRA_ERROR
    )
    assert sorted(path.name for path in own.parent.iterdir()) == ["root.sqfs"]


def test_a_worker_elsewhere_can_say_it(ran: Ran) -> None:
    error = CacheDamaged("damaged", result(Status.INFRA_ERROR))
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.result) == ("damaged", error.result)


@pytest.mark.parametrize("status", [Status.FAILED, Status.PASSED])
def test_a_users_image_that_its_kernel_cannot_read_is_no_failed_test(
    ran: Ran, tmp_path: Path, status: Status
) -> None:
    image, _, _, _ = ran
    root = users_own(tmp_path)
    line = b"[ 9.1] SQUASHFS error: Failed to read block 0x1: -5\r\n"
    (tmp_path / "console.log").write_bytes(b"booting\n" + line)
    judged = watched(image, root, lambda: None).verdict(result(status), tmp_path)
    if status is Status.PASSED:
        assert judged.status is Status.PASSED
    else:
        assert judged.status is Status.INFRA_ERROR
        assert 'its kernel says: "SQUASHFS error: Failed to read block 0x1: -5"' in judged.reason


@pytest.mark.parametrize(
    ("line", "infra"),
    [
        ("EXT4-fs error (device vda): ext4_lookup:1857: inode #12: comm sh: iget: bad", True),
        ("erofs: (device vda): z_erofs_lz4_decompress: failed to decompress -2 in[4] out[9]", True),
        ("erofs (device vda): bogus i_mode (0) @ nid 36", True),
        ("erofs: (device vda): mounted with root inode @ nid 36.", False),
        ("EXT4-fs error (device loop0): ext4_lookup:1857: inode #12: comm sh: iget: bad", False),
    ],
)
def test_an_ext4_or_erofs_root_that_its_kernel_cannot_read_is_no_failed_test(
    ran: Ran, tmp_path: Path, line: str, infra: bool
) -> None:
    image, _, _, _ = ran
    (tmp_path / "console.log").write_text(f"booting\n[ 9.1] {line}\r\n")
    judged = watched(image, users_own(tmp_path), lambda: None).verdict(
        result(Status.FAILED), tmp_path
    )
    assert judged.status is (Status.INFRA_ERROR if infra else Status.FAILED)
    assert (f'its kernel says: "{line}' in (judged.reason or "")) is infra


@pytest.fixture
def restored(tmp_path: Path, ran: Ran) -> Entry:
    """A snapshot in the cache of ``ran``."""
    place = tmp_path / "snapshots" / "6.12.1-0"
    place.mkdir(parents=True)
    (place / "memory").write_bytes(b"memory")
    seal(place)
    entry = Entry(tmp_path, "snapshot", place)
    entry.remember()
    return entry


def test_no_result_of_a_guest_from_a_rotten_snapshot_stands(ran: Ran, restored: Entry) -> None:
    rot(restored, "memory")
    image, root, _, _ = ran
    judging = watched(image, root, lambda: None)
    judging.watch([restored])
    with pytest.raises(CacheDamaged, match=r"cached snapshot 6\.12\.1-0 is damaged \(memory"):
        judging.verdict(result(Status.PASSED), LOGS)
    assert not restored.place.exists()


def test_a_snapshot_that_is_not_used_any_more_is_not_watched(ran: Ran, restored: Entry) -> None:
    image, root, _, _ = ran
    judging = watched(image, root, lambda: None)
    judging.watch([restored])
    put_aside(restored.root, restored.lock, restored.place)
    judging.watch([])
    assert judging.verdict(result(Status.PASSED), LOGS) == result(Status.PASSED)


def test_a_snapshot_that_went_while_its_guest_ran_is_damage(ran: Ran, restored: Entry) -> None:
    image, root, _, _ = ran
    judging = watched(image, root, lambda: None)
    judging.watch([restored])
    put_aside(restored.root, restored.lock, restored.place)
    judging.watch([restored])
    with pytest.raises(CacheDamaged, match="snapshot"):
        judging.verdict(result(Status.PASSED), LOGS)


def test_a_restored_guest_on_an_image_that_its_kernel_cannot_read_is_no_failed_test(
    ran: Ran, restored: Entry, tmp_path: Path
) -> None:
    image, _, _, _ = ran
    root = users_own(tmp_path)
    (tmp_path / "console.log").write_bytes(b"[ 9.1] SQUASHFS error: Failed to read block 0x1\r\n")
    judging = watched(image, root, lambda: None)
    judging.watch([restored])
    assert judging.verdict(result(Status.FAILED), tmp_path).status is Status.INFRA_ERROR
