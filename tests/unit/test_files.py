"""Files that are read once."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vmtest.host.files import Files


def test_who_asks_later_gets_what_was_read_first(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    files = Files()
    assert files.read(tmp_path / "a").data == b"one"
    (tmp_path / "a").write_bytes(b"two")
    assert files.read(tmp_path / "a").data == b"one"


def test_a_folder_keeps_the_files_that_it_had(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    files = Files()
    assert files.below(tmp_path, Path.iterdir) == (tmp_path / "a",)
    (tmp_path / "b").touch()
    assert files.below(tmp_path, Path.iterdir) == (tmp_path / "a",)


def test_digests_are_told_by_kind_and_relative_path(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    files = Files()
    files.read(tmp_path / "a", "objects")
    files.read(tmp_path / "b")
    digest = hashlib.sha256(b"one").hexdigest()
    assert files.digests(tmp_path) == {"objects": {"a": digest}}


def test_a_file_that_may_be_executed_is_known_as_such(tmp_path: Path) -> None:
    (tmp_path / "a").touch(mode=0o755)
    (tmp_path / "b").touch(mode=0o644)
    files = Files()
    assert [files.read(tmp_path / name).executable for name in "ab"] == [True, False]
