"""What vmtest reads back from its cache and its runs may have any shape: no traceback comes of it.

A newer or older vmtest wrote it, a disk cut it, somebody made a folder of that name.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from vmtest.bisect import journal
from vmtest.errors import InfrastructureError, UsageError
from vmtest.host.cache import read_record, sha256_json, write_record
from vmtest.host.debian import Mirrors
from vmtest.host.seal import Entry
from vmtest.kernels.archive.candidates import Candidate
from vmtest.kernels.archive.kept import Index, KeptIndex, SuiteUnreadable
from vmtest.kernels.lock import file as lock
from vmtest.kernels.store.store import Resolution, Store
from vmtest.model.kernels import Accelerator
from vmtest.model.results import SCHEMA, KernelResult, Status
from vmtest.rootfs.images import recheck_image
from vmtest.rootfs.libbpf import NEWEST, Shelf
from vmtest.runs import rows
from vmtest.runs.events import read_events
from vmtest.runs.folder import RunFolder
from vmtest.runs.read import read_facts, read_matrix
from vmtest.vm import accel, snapshot

VALUES: tuple[object, ...] = (
    None, [], {}, "x", "\ud800", -1, 1.5, 10**400, True, [[1]], {"a": None}
)  # fmt: skip
RAW = (
    b"", b"[]", b"null", b'"x"', b"3", b"{{{", b"\xff\xfe{}", b"[" * 100_000,
    b'{"schema": ' + b"9" * 5000 + b"}",
)  # fmt: skip


def shapes(good: dict[str, Any]) -> Iterator[bytes]:
    """Anything at all; then ``good`` with each value as something else, its digest right or not."""
    yield from RAW
    for key in good:
        without = {name: value for name, value in good.items() if name != key}
        for changed in (without, *({**good, key: value} for value in VALUES)):
            yield json.dumps(changed).encode()
            yield json.dumps({**changed, "sha256": sha256_json(changed)}).encode()


def survives(file: Path, good: dict[str, Any], read: Callable[[], object]) -> None:
    """Whatever ``file`` holds, ``read`` ends or says what is wrong with a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for data in shapes(good):
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        with suppress(UsageError, InfrastructureError):
            read()
    file.unlink(missing_ok=True)
    file.mkdir()
    (file / "something").touch()
    with suppress(UsageError, InfrastructureError):
        read()


class Listed(KeptIndex):
    """An index that is fetched at once, or cannot be."""

    def __init__(self, cache: Path, *, broken: bool = False) -> None:
        self.cache, self.suite, self.broken = cache, "listed", broken

    @property
    def directory(self) -> Path:
        return self.cache / "kind" / "listed"

    def _update(self) -> None:
        if self.broken:
            raise self._failure("the mirror is gone", transient=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "list").write_text("fetched\n")
        self._refreshed()

    def _lists(self) -> list[Path]:
        return list(self.directory.glob("list"))

    def _read(self, note: str) -> Index:
        found: tuple[Candidate, ...] = ()
        return Index(self.suite, found, note)


def test_a_probe_of_any_shape_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = {name: accel.Probe(Accelerator(name), 1.0, "") for name in ("kvm", "tcg")}
    monkeypatch.setattr(accel, "_probe_both", lambda qemu, image, known: works)
    accel.choose(Path("kernel"), tmp_path)
    (file,) = (tmp_path / "accel").glob("*.json")
    good = read_record(file)
    assert good is not None
    survives(file, good, lambda: accel.choose(Path("kernel"), tmp_path))
    assert read_record(file) is not None  # written, and in place of the folder


def test_an_index_whose_age_has_any_shape_is_fetched_again(tmp_path: Path) -> None:
    file = Listed(tmp_path).directory / "refreshed.json"
    survives(file, {"when": time.time(), "lists": {}}, lambda: Listed(tmp_path).index(100.0))
    assert read_record(file) is not None


def test_a_failure_of_any_shape_is_asked_again(tmp_path: Path) -> None:
    file = Listed(tmp_path).directory / "failed.json"
    good = {"when": time.time(), "reason": "gone", "transient": True}
    survives(file, good, lambda: Listed(tmp_path, broken=True).index(0.0))
    with pytest.raises(SuiteUnreadable, match="the mirror is gone"):
        Listed(tmp_path, broken=True).index(0.0)


def test_an_answer_of_any_shape_is_written_again(tmp_path: Path) -> None:
    store, question = Store(tmp_path), ["which"]
    answer = Resolution("key", "6.6", "here")
    store.remember(question, answer)
    (file,) = (tmp_path / "resolved").glob("*.json")
    good = read_record(file)
    assert good is not None

    def ask() -> None:
        store.recall(question)
        store.remember(question, answer)

    survives(file, good, ask)
    assert read_record(file) == good


def test_an_entry_of_any_shape_is_no_kernel(tmp_path: Path) -> None:
    place = tmp_path / "kernels" / "key"
    (place / "boot").mkdir(parents=True)
    (place / "boot" / "vmlinuz-6.6").write_bytes(b"x")
    good = {
        "schema": 1, "key": "key", "version": "6.6", "release": "6.6", "digest": "", "note": "",
        "image": "boot/vmlinuz-6.6", "modules": None, "config": None, "origin": "here",
        "image_size": 1, "tree_size": 1,
    }  # fmt: skip
    store = Store(tmp_path)
    survives(place / "entry.json", good, lambda: (store.entries(), store.get("key")))


@pytest.mark.parametrize("name", ["seal.json", "checked"])
def test_a_seal_of_any_shape_is_damage(tmp_path: Path, name: str) -> None:
    place = tmp_path / "kernels" / "key"
    place.mkdir(parents=True)
    (place / "entry.json").write_text("{}")
    entry = Entry.of(place)
    assert entry is not None
    file = place / name if name == "seal.json" else entry._checked
    good = {"schema": 1, "files": {"entry.json": [2, "0" * 64]}, "stamp": "x"}
    survives(file, good, lambda: (entry.glance(), entry.inspect()))


def test_a_record_of_an_image_of_any_shape_is_no_image(tmp_path: Path) -> None:
    place = tmp_path / "images" / "key"
    place.mkdir(parents=True)
    (place / "root.sqfs").write_bytes(b"hsqs")
    survives(place / "image.json", {"size": 4, "sha256": "0" * 64}, lambda: recheck_image(place))


def test_a_newest_libbpf_of_any_shape_is_looked_for_again(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, lambda: Mirrors(None, None))
    good = {"when": time.time(), "entry": "1.5", "note": ""}
    survives(tmp_path / "libbpf" / "newest.json", good, lambda: shelf._kept(NEWEST))


def test_a_snapshot_of_any_shape_is_no_snapshot(tmp_path: Path) -> None:
    good = {"schema": 1, "folder": "/x", "argv": ["qemu"], "saved": 1.0}

    def read() -> None:
        with suppress(snapshot.SnapshotError):
            snapshot.read(tmp_path)

    survives(tmp_path / snapshot.MACHINE, good, read)


ENTRY = {"request": {}, "version": "6.6", "key": "key", "digest": "0" * 64, "origin": "here"}


def test_a_lock_file_of_any_shape_says_so(tmp_path: Path) -> None:
    file = tmp_path / "kernels.lock"
    survives(file, {"schema": 1, "kernels": {"a": ENTRY}}, lambda: lock.read(file))


@pytest.mark.parametrize("key", list(ENTRY))
@pytest.mark.parametrize("value", [None, [], 3, 10**400], ids=["null", "list", "number", "huge"])
def test_an_entry_of_a_lock_file_has_its_types(tmp_path: Path, key: str, value: object) -> None:
    file = tmp_path / "kernels.lock"
    file.write_text(json.dumps({"schema": 1, "kernels": {"a": {**ENTRY, key: value}}}))
    with pytest.raises(UsageError, match=r"kernels\.lock: cannot be understood"):
        lock.read(file)


QUESTION = {
    "event": "question", "asked": {}, "points": [{"name": "6.6", "version": "6.6-1"}],
    "find_fixed": False, "repeat": 1, "gone": [], "left_out": [],
}  # fmt: skip
TOLD = {"event": "told", "kernel": "6.6", "observation": {"verdict": "bad", "why": "it failed"}}


def test_a_journal_of_any_shape_is_not_resumed(tmp_path: Path) -> None:
    survives(tmp_path / journal.JOURNAL, QUESTION, lambda: journal.read(tmp_path))


def test_a_damaged_line_of_a_journal_costs_that_line(tmp_path: Path) -> None:
    lines = [json.dumps(QUESTION).encode()]
    for data in shapes(TOLD):
        lines += [data.replace(b"\n", b" "), json.dumps({"event": "round"}).encode()]
    (tmp_path / journal.JOURNAL).write_bytes(b"\n".join([*lines, json.dumps(TOLD).encode()]))
    recorded = journal.read(tmp_path)
    assert recorded is not None
    assert recorded.seen[0][-1].why == "it failed"


def test_facts_and_events_of_any_shape_are_none(tmp_path: Path) -> None:
    survives(tmp_path / "run.json", {"arguments": []}, lambda: read_facts(tmp_path))
    survives(tmp_path / "events.jsonl", {"event": "Note"}, lambda: read_events(tmp_path))


def test_collected_tests_of_any_shape_are_none(tmp_path: Path) -> None:
    file = tmp_path / rows.COLLECTED
    (tmp_path / rows.RESULTS).touch()
    result = KernelResult("k", Status.INFRA_ERROR)
    survives(file, {"a": "b"}, lambda: rows.kept(tmp_path, result))


def test_a_matrix_of_any_shape_says_so(tmp_path: Path) -> None:
    good = {"schema": SCHEMA, "kernels": []}
    survives(tmp_path / "matrix.json", good, lambda: read_matrix(RunFolder(tmp_path)))


def test_a_record_replaces_a_folder(tmp_path: Path) -> None:
    (tmp_path / "record.json" / "in" / "it").mkdir(parents=True)
    write_record(tmp_path / "record.json", {"a": 1})
    assert read_record(tmp_path / "record.json") == {"a": 1}
