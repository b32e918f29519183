"""Downloads: continued only where the server still has the same file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from http_files import Served, serving

from vmtest.host import attempts
from vmtest.kernels.files.download import DownloadFailed, download

OLD, NEW = b"o" * 1000, b"n" * 1000


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr("vmtest.kernels.files.download._PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(Served({"/file": OLD})) as server:
        yield server


def got(served: Served, folder: Path) -> bytes:
    download(f"{served.url}/file", folder / "file", "k")
    return (folder / "file").read_bytes()


def test_a_part_of_another_file_is_not_continued(served: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"another file's beginning")
    assert got(served, tmp_path) == OLD


@pytest.mark.parametrize(
    ("tags", "new"),  # without tags nothing tells two files of one size apart but the sha256
    [(True, NEW), (True, NEW * 2), (True, NEW[:600]), (False, NEW * 2), (False, NEW[:600])],
)
def test_a_file_that_changes_between_two_parts_is_not_mixed(
    tags: bool, new: bytes, served: Served, tmp_path: Path
) -> None:
    served.tags, served.cut = tags, [400]

    def change() -> None:
        served.files["/file"] = new

    served.after = change
    assert got(served, tmp_path) == new


def test_the_same_file_is_continued(served: Served, tmp_path: Path) -> None:
    served.cut = [400]
    assert got(served, tmp_path) == OLD
    assert [asked for _, asked in served.asked] == [None, "bytes=400-"]


def test_a_file_that_says_that_it_is_too_large_is_refused_before_it_is_read(
    served: Served, tmp_path: Path
) -> None:
    with pytest.raises(DownloadFailed, match="is larger than 999 bytes") as caught:
        download(f"{served.url}/file", tmp_path / "file", "k", limit=999)
    assert caught.value.refused and not (tmp_path / "file").exists()


def test_a_file_that_goes_on_for_ever_is_refused(served: Served, tmp_path: Path) -> None:
    served.length = False
    with pytest.raises(DownloadFailed, match="is larger than 999 bytes"):
        download(f"{served.url}/file", tmp_path / "file", "k", limit=999)
    assert not (tmp_path / "file").exists()


def test_a_file_as_large_as_it_may_be_is_taken(served: Served, tmp_path: Path) -> None:
    download(f"{served.url}/file", tmp_path / "file", "k", limit=1000)
    assert (tmp_path / "file").read_bytes() == OLD


def test_each_attempt_that_is_made_again_is_told_without_the_password(
    served: Served, tmp_path: Path
) -> None:
    served.statuses, served.cut = [503, 200], [400]
    address = served.url.replace("://", "://me:hunter2@") + "/file"
    lines: list[str] = []
    with attempts.told(lines.append):
        download(address, tmp_path / "file", "6.12")
    where = f"6.12: downloading {served.url.replace('://', '://***@')}/file failed: "
    assert lines == [
        f"{where}HTTP status 503 Service Unavailable; it is tried again (attempt 2 of 4)",
        f"{where}the connection ended after 400 of 1000 bytes; it is tried again (attempt 3 of 4)",
    ]
    assert (tmp_path / "file").read_bytes() == OLD


def test_nothing_is_told_of_a_download_that_works_or_is_refused(
    served: Served, tmp_path: Path
) -> None:
    lines: list[str] = []
    with attempts.told(lines.append):
        got(served, tmp_path)
        with pytest.raises(DownloadFailed):
            download(f"{served.url}/nowhere", tmp_path / "file", "6.12")
    assert lines == []


def test_what_is_kept_is_still_told(served: Served, tmp_path: Path) -> None:
    served.statuses = [503]
    lines: list[str] = []
    with attempts.told(lines.append), attempts.kept() as kept:
        got(served, tmp_path)
    assert len(kept) == 1 and kept == lines


def test_whoever_is_told_in_here_is_not_told_outside(served: Served, tmp_path: Path) -> None:
    outer: list[str] = []
    inner: list[str] = []
    with attempts.told(outer.append):
        served.statuses = [503]
        with attempts.told(inner.append):
            got(served, tmp_path)
        served.statuses = [503]
        got(served, tmp_path)
    assert (len(outer), len(inner)) == (1, 1)
    served.statuses = [503]
    got(served, tmp_path)  # nobody listens
    assert (len(outer), len(inner)) == (1, 1)
