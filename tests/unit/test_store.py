"""The store: complete or absent, whoever writes and however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vmtest.errors import InfrastructureError
from vmtest.kernels.store.store import Manifest, Resolution, Store

KEY = "6.1.10-amd64_6.1.10-1-0123456789ab"


def fill(entry: Path) -> Manifest:
    (entry / "boot").mkdir()
    (entry / "boot/vmlinux").write_bytes(b"kernel")
    (entry / "lib/modules/6.1.10").mkdir(parents=True)
    (entry / "lib/modules/6.1.10/modules.dep").touch()
    return Manifest(
        "6.1.10-1", "6.1.10", "boot/vmlinux", "lib/modules/6.1.10", None, "d" * 64, "somewhere"
    )


WRITER = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_store import KEY, fill
from vmtest.kernels.store.store import Store

root, mark, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])

def slowly(entry):
    with (mark / "calls").open("a") as calls:
        calls.write(f"{os.getpid()}\\n")
    (entry / "half").write_bytes(bytes(100000))
    (mark / "writing").touch()
    time.sleep(seconds)
    return fill(entry)

image = Store(root).add(KEY, slowly, name="k")
print(image.image)
"""


def writer(root: Path, mark: Path, seconds: float) -> subprocess.Popen[str]:
    mark.mkdir(exist_ok=True)
    arguments = [str(root), str(mark), str(seconds), str(Path(__file__).parent)]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def test_what_was_added_is_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    added = store.add(KEY, fill, name="6.1")
    assert store.get(KEY, "6.1") == added
    assert added.image.read_bytes() == b"kernel"
    assert (added.name, added.release, added.version.text) == ("6.1", "6.1.10", "6.1.10-1")


def test_an_empty_store_has_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "absent")
    assert store.get(KEY) is None
    assert store.entries() == [] and store.size() == 0
    assert not (tmp_path / "absent").exists()


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(KEY, fill)

    def never(entry: Path) -> Manifest:
        raise AssertionError("made twice")

    shutil.rmtree(tmp_path / "locks")
    store.add(KEY, never)
    assert not (tmp_path / "locks").exists()  # a store that can only be read works


def test_entries_come_with_their_sizes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(KEY, fill)
    (entry,) = store.entries()
    assert (entry.key, entry.manifest.origin) == (KEY, "somewhere")
    assert entry.size > 0 and store.size() == entry.size


def test_a_fill_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fails(entry: Path) -> Manifest:
        (entry / "half").touch()
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        store.add(KEY, fails)
    assert store.get(KEY) is None
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_full_disk_names_the_place_and_leaves_nothing(tmp_path: Path) -> None:
    def full(entry: Path) -> Manifest:
        raise OSError(28, "No space left on device")

    with pytest.raises(InfrastructureError, match=rf"no space left in {tmp_path} \("):
        Store(tmp_path).add(KEY, full, name="6.1")
    assert Store(tmp_path).entries() == []


def test_a_damaged_entry_counts_as_absent_and_is_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    image = store.add(KEY, fill)
    image.image.write_bytes(b"")
    assert store.get(KEY) is None
    assert store.add(KEY, fill).image.read_bytes() == b"kernel"


def test_an_answer_is_recalled_while_its_kernel_is_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    answer = Resolution(KEY, "6.1.10-1", "somewhere")
    store.remember(["apt", "6.1.*"], answer)
    assert store.recall(["apt", "6.1.*"]) is None
    store.add(KEY, fill)
    assert store.recall(["apt", "6.1.*"]) == answer
    assert store.recall(["apt", "6.12.*"]) is None


def test_two_processes_that_want_the_same_kernel_make_it_once(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    runners = [writer(tmp_path / "cache", mark, 0.5) for _ in range(2)]
    printed = [runner.communicate(timeout=30)[0] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0]
    assert printed[0] == printed[1]
    assert len((mark / "calls").read_text().split()) == 1


def test_a_writer_killed_half_way_leaves_no_half_entry_and_the_next_one_works(
    tmp_path: Path,
) -> None:
    mark, root = tmp_path / "mark", tmp_path / "cache"
    killed = writer(root, mark, 60)
    wait_for(mark / "writing")
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=10)
    store = Store(root)
    assert store.get(KEY) is None and store.entries() == []
    assert len(list((root / "tmp").iterdir())) == 1
    assert store.add(KEY, fill).image.read_bytes() == b"kernel"
    assert list((root / "tmp").iterdir()) == []


def test_scratch_of_a_dead_writer_goes_when_another_kernel_is_added(tmp_path: Path) -> None:
    mark, root = tmp_path / "mark", tmp_path / "cache"
    killed = writer(root, mark, 60)
    wait_for(mark / "writing")
    killed.kill()
    killed.communicate(timeout=10)
    Store(root).add("another", fill)
    assert list((root / "tmp").iterdir()) == []


def test_scratch_of_a_living_writer_stays(tmp_path: Path) -> None:
    mark, root = tmp_path / "mark", tmp_path / "cache"
    living = writer(root, mark, 2)
    wait_for(mark / "writing")
    Store(root).add("another", fill)
    assert len(list((root / "tmp").iterdir())) == 1
    living.communicate(timeout=30)
    assert living.returncode == 0
    assert Store(root).get(KEY) is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_nobody_may_write_to_is_named_with_the_cure(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InfrastructureError, match=r"VMTEST_CACHE"):
        Store(tmp_path / "cache").add(KEY, fill)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"version": "6.1.10-1"', '"version": "6.9.10-1"'),
        ('"version": "6.1.10-1"', '"version": "none"'),
        ("{", "["),
    ],
)
def test_a_damaged_answer_is_no_answer(tmp_path: Path, old: str, new: str) -> None:
    store = Store(tmp_path)
    store.add(KEY, fill)
    store.remember(["apt", "6.1.*"], Resolution(KEY, "6.1.10-1", "somewhere"))
    (record,) = (tmp_path / "resolved").iterdir()
    record.write_text(record.read_text().replace(old, new))
    assert store.recall(["apt", "6.1.*"]) is None


def test_an_answer_of_an_older_vmtest_is_recalled(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(KEY, fill)
    answer = Resolution(KEY, "6.1.10-1", "somewhere")
    store.remember(["apt", "6.1.*"], answer)
    (record,) = (tmp_path / "resolved").iterdir()
    value = json.loads(record.read_text())
    record.write_text(json.dumps({name: value[name] for name in value if name != "sha256"}))
    assert store.recall(["apt", "6.1.*"]) == answer


@pytest.mark.parametrize("name", ["locks", "tmp", "kernels", "checked", "used"])
def test_a_file_where_a_folder_of_the_cache_should_be_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    try:
        Store(tmp_path).add(KEY, fill)
    except InfrastructureError as error:
        assert str(tmp_path / name) in str(error)
    else:
        assert name in ("checked", "used"), "these only spare work"


def test_a_folder_where_a_lock_should_be_is_named(tmp_path: Path) -> None:
    lock = tmp_path / "locks" / f"kernel-{KEY}.lock"
    lock.mkdir(parents=True)
    with pytest.raises(InfrastructureError, match="cannot lock: Is a directory"):
        Store(tmp_path).add(KEY, fill)
