"""Making room: what goes, what stays, and never what another process has taken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from command import vmtest

from vmtest.host.cache import in_use, last_used, remove_unused, write_json
from vmtest.host.seal import Entry, seal
from vmtest.kernels.store.store import Manifest, Store
from vmtest.model.kernels import GuestSpec
from vmtest.rootfs.image import image_key, prepare
from vmtest.storage.prune import Item, items, remove, superfluous

DAY = 86400.0
NOW = 1000 * DAY


def item(name: str, days: float, size: int = 100, **more: bool) -> Item:
    return Item("kernel", name, Path(name), size, NOW - days * DAY, **more)


@pytest.mark.parametrize(
    ("found", "days", "size", "gone"),
    [
        ([item("a", 1), item("b", 40), item("c", 31)], 30, None, ["b", "c"]),
        ([item("a", 1), item("b", 40), item("c", 31)], None, 250, ["b"]),
        ([item("a", 1), item("b", 40), item("c", 31)], None, 100, ["b", "c"]),
        ([item("a", 1), item("b", 40), item("c", 31)], 35, 100, ["b", "c"]),
        ([item("a", 1), item("b", 40)], None, 200, []),
        ([item("a", 40, busy=True)], 30, 0, []),
        # What is in use counts, and makes the others go.
        ([item("a", 1), item("b", 40, 500, busy=True)], None, 550, ["a"]),
        ([item("a", 1, broken=True), item("b", 2)], 30, None, ["a"]),
        ([item("a", 1, broken=True, busy=True)], 30, 0, []),
        ([item("a", 1)], None, None, []),
    ],
)
def test_what_goes(
    found: list[Item], days: float | None, size: int | None, gone: list[str]
) -> None:
    age = None if days is None else days * DAY
    assert [one.name for one in superfluous(found, NOW, age, size)] == gone


def fill(entry: Path) -> Manifest:
    (entry / "image").write_bytes(b"kernel" * 1000)
    return Manifest("6.1", "6.1", "image", None, None, "d" * 64, "somewhere")


HOLDER = """
import sys
from pathlib import Path
from test_prune import fill
from vmtest.kernels.store.store import Store

Store(Path(sys.argv[1])).add(sys.argv[2], fill)
print("taken", flush=True)
sys.stdin.read()
"""


@contextmanager
def taken(cache: Path, key: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has taken a kernel, which it made when it was not there."""
    here = os.pathsep.join([str(Path(__file__).parent), *(p for p in sys.path if p)])
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(cache), key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": here},
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "taken\n"
        try:
            yield process
        finally:
            process.kill()


def image(cache: Path, name: str) -> Path:
    """A guest image, complete."""
    folder = cache / "images" / name
    folder.mkdir(parents=True)
    (folder / "root.sqfs").write_bytes(b"root")
    write_json(folder / "image.json", {"sha256": sha256(b"root").hexdigest(), "size": 4})
    return folder


def unused_for(cache: Path, days: float) -> None:
    """As if nothing had been taken for ``days``."""
    for path in [*(cache / "used").glob("*"), *cache.glob("*s/*")]:
        os.utime(path, (path.stat().st_mtime - days * DAY,) * 2)


def test_what_a_process_has_taken_stays(tmp_path: Path) -> None:
    with taken(tmp_path, "k"):
        (found,) = items(tmp_path)
        assert found.busy
        assert remove(tmp_path, [found]) == []
        assert Store(tmp_path).get("k") is not None


def test_what_a_process_had_taken_goes_however_it_ended(tmp_path: Path) -> None:
    with taken(tmp_path, "k"):
        pass  # it is killed
    (found,) = items(tmp_path)
    assert not found.busy
    assert remove(tmp_path, [found]) == [found]
    assert Store(tmp_path).get("k") is None and items(tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_two_processes_may_take_the_same(tmp_path: Path) -> None:
    with taken(tmp_path, "k"):
        with taken(tmp_path, "k"):
            pass
        assert in_use(tmp_path, "kernel-k")


def test_taking_is_noted_and_looking_is_not(tmp_path: Path) -> None:
    with taken(tmp_path, "k"):
        pass
    unused_for(tmp_path, 40)
    before = last_used(tmp_path, "kernel-k")
    assert before is not None
    Store(tmp_path).get("k")
    assert last_used(tmp_path, "kernel-k") == before
    with taken(tmp_path, "k"):
        after = last_used(tmp_path, "kernel-k")
    assert after is not None and after > before + 39 * DAY


def test_what_is_being_removed_is_made_anew_by_who_wants_it(tmp_path: Path) -> None:
    with taken(tmp_path, "k"):
        pass
    assert remove_unused(tmp_path, "kernel-k", tmp_path / "kernels" / "k")
    with taken(tmp_path, "k"):
        assert Store(tmp_path).get("k") is not None


def test_a_broken_entry_goes(tmp_path: Path) -> None:
    with taken(tmp_path, "k"):
        pass
    (tmp_path / "kernels" / "k" / "image").write_bytes(b"")
    (found,) = items(tmp_path)
    assert found.broken


def test_guest_images_are_pruned_too(tmp_path: Path) -> None:
    folder = image(tmp_path, "bookworm-x")
    (found,) = items(tmp_path)
    assert (found.kind, found.name, found.broken) == ("image", "bookworm-x", False)
    assert remove(tmp_path, [found]) == [found]
    assert not folder.exists()


def snapshot(cache: Path) -> Entry:
    """A snapshot of a guest, complete."""
    entry = Entry(cache, "snapshot", cache / "snapshots" / "6.12.1-x")
    entry.place.mkdir(parents=True)
    (entry.place / "memory").write_bytes(b"m" * 100_000)
    seal(entry.place)
    entry.remember()
    return entry


def test_the_command_removes_a_snapshot_and_says_its_size(tmp_path: Path) -> None:
    entry = snapshot(tmp_path)
    unused_for(tmp_path, 40)
    said = vmtest("kernels", "prune", cwd=tmp_path, environment={"VMTEST_CACHE": str(tmp_path)})
    assert "removed snapshot 6.12.1-x (0.1 MB, " in said.out
    assert not entry.place.exists()


@pytest.mark.parametrize("damage", ["seal.json", "memory"])
def test_a_damaged_snapshot_counts_as_broken(tmp_path: Path, damage: str) -> None:
    (snapshot(tmp_path).place / damage).unlink()
    (found,) = items(tmp_path)
    assert found.broken


@pytest.mark.parametrize("damage", ["", "seal.json", "memory"])
def test_doctor_hashes_snapshots(tmp_path: Path, damage: str) -> None:
    entry = snapshot(tmp_path)
    if damage:
        (entry.place / damage).write_bytes(b"rot")
    said = vmtest("doctor", "--cache", cwd=tmp_path, environment={"VMTEST_CACHE": str(tmp_path)})
    (line,) = (line for line in said.out.splitlines() if "6.12.1-x" in line)
    assert ("is damaged" in line, "MB" in line) == (bool(damage), not damage)


def test_the_guest_image_of_a_run_is_taken(tmp_path: Path) -> None:
    key = image_key(GuestSpec())
    image(tmp_path, key)
    assert not in_use(tmp_path, f"image-{key}")
    prepare(GuestSpec(), tmp_path)
    assert in_use(tmp_path, f"image-{key}")


def test_the_command_removes_what_is_old(tmp_path: Path) -> None:
    image(tmp_path, "bookworm-x")
    unused_for(tmp_path, 40)
    with taken(tmp_path, "k"):
        pass
    environment = {"VMTEST_CACHE": str(tmp_path)}
    said = vmtest("kernels", "prune", "--dry-run", cwd=tmp_path, environment=environment)
    assert said.status == 0
    assert "would remove image bookworm-x (0.0 MB, last used 40 days ago)" in said.out
    assert said.out.splitlines()[-1].startswith("would free 0.0 MB; 1 entry (")
    assert len(items(tmp_path)) == 2
    said = vmtest("kernels", "prune", cwd=tmp_path, environment=environment)
    assert "removed image bookworm-x" in said.out
    assert said.out.endswith("freed 0.0 MB; 1 entry (0.0 MB) stays, 0 in use\n")
    assert [one.name for one in items(tmp_path)] == ["k"]


@pytest.mark.parametrize(
    ("option", "value", "cure"),
    [
        ("--older-than", "30", "12h, 30d or 8w"),
        ("--older-than", "9" * 5000 + "d", "12h, 30d or 8w"),
        ("--max-size", "2T", "500M or 2G"),
        ("--max-size", "9" * 5000 + "M", "500M or 2G"),
    ],
    ids=["no unit", "an endless age", "another unit", "an endless size"],
)
def test_no_age_and_no_size_are_the_users_to_mend(
    tmp_path: Path, option: str, value: str, cure: str
) -> None:
    environment = {"VMTEST_CACHE": str(tmp_path)}
    vmtest("kernels", "prune", option, value, cwd=tmp_path, environment=environment).refuses(
        2, f"{option} {value}: is no", cure
    )


def test_a_damaged_kernel_counts_as_broken(tmp_path: Path) -> None:
    image = Store(tmp_path).add("k", fill).image
    image.write_bytes(bytes(image.stat().st_size))
    (found,) = items(tmp_path)
    assert found.broken


HOLDS = """
import pathlib, sys
from vmtest.host.cache import hold, in_use
root = pathlib.Path(sys.argv[1])
hold(root, "kernel-x")
hold(root, "kernel-x")
assert in_use(root, "kernel-x")
"""


def test_what_a_process_holds_until_its_end_warns_of_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "always", "-c", HOLDS, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stderr == ""
    assert not in_use(tmp_path, "kernel-x")
