"""A run among those that are kept: the latest, what is new since one that passed, what may go."""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest
from command import vmtest

from vmtest.api.history import since, superfluous, take_in
from vmtest.errors import UsageError
from vmtest.model.events import Booted, Event, KernelFinished, LoadFinished, TestFinished
from vmtest.model.loads import LoadResult, Verdict
from vmtest.model.results import SCHEMA, KernelResult, Matrix, Outcome, Status, TestResult
from vmtest.runs import matrix_json
from vmtest.runs.events import EVENTS, EventLog
from vmtest.runs.folder import RunFolder
from vmtest.runs.latest import Latest

Keep = Callable[..., RunFolder]
OLD = 90 * 86400.0


def matrix(run: str = "r", **outcomes: Outcome) -> Matrix:
    """A run of one kernel with the tests by name."""
    tests = tuple(TestResult(f"t.py::{name}", "s", out, 0.1) for name, out in outcomes.items())
    bad = any(test.outcome.bad for test in tests)
    kernel = KernelResult("6.12", Status.FAILED if bad else Status.PASSED, tests=tests)
    return Matrix(SCHEMA, run, "2026-11-29T07:34:49+00:00", 1.0, ("s",), (kernel,))


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """Keeps a run of the day ``n``, written to ``age`` seconds ago."""

    def keeping(
        n: int, kept: Matrix, branch: str = "main", age: float = OLD, commit: str = "1"
    ) -> RunFolder:
        name = f"202611{n:02d}T000000Z-00000{n % 10}"
        folder = RunFolder(tmp_path / ".vmtest" / "runs" / name)
        folder.path.mkdir(parents=True)
        folder.write("matrix.json", matrix_json.dumps(replace(kept, run=name)))
        folder.describe({"project": {"commit": commit * 40, "dirty": False, "branch": branch}})
        for path in (*folder.path.rglob("*"), folder.path):
            os.utime(path, times=(time.time() - age,) * 2)
        return folder

    return keeping


GOOD, BAD = Outcome.PASSED, Outcome.FAILED


def test_what_fails_since_the_last_run_that_passed_is_counted(keep: Keep) -> None:
    keep(1, matrix(a=GOOD, b=GOOD, c=BAD))
    keep(2, matrix(a=GOOD, b=GOOD, c=GOOD))
    keep(3, matrix(a=GOOD, b=BAD, c=GOOD))
    failing = matrix(a=BAD, b=BAD, c=GOOD)
    assert str(since(keep(4, failing), failing)) == (
        "2 new failing results since run 20261102T000000Z-000002, "
        'the last on branch "main" that passed (commit 111111111111)'
    )


def test_what_is_new_comes_with_the_command_that_lists_the_commits(keep: Keep) -> None:
    keep(1, matrix(a=GOOD, b=GOOD))
    found = since(keep(2, matrix(a=BAD), commit="2"), matrix(a=BAD))
    listed = "git log --oneline 111111111111..222222222222 lists the commits since"
    assert str(found).endswith(f"; {listed}")
    found = since(keep(3, matrix(a=GOOD), commit="2"), matrix(a=GOOD))
    assert found is not None and "git log" not in str(found)


def test_failures_of_what_the_earlier_run_does_not_have_are_counted(keep: Keep) -> None:
    keep(1, matrix(a=GOOD))
    last = (
        'since run 20261101T000000Z-000001, the last on branch "main" that passed '
        "(commit 111111111111)"
    )
    why = "no counterpart in that run and"
    new = matrix(a=GOOD, b=BAD)
    assert str(since(keep(2, new), new)) == (
        f"no new failing result {last}; 1 failing result has {why} is not compared"
    )
    new = matrix(a=BAD, b=BAD, c=BAD, d=GOOD)
    assert str(since(keep(3, new), new)) == (
        f"1 new failing result {last}; 2 failing results have {why} are not compared"
    )
    other = replace(new.kernels[0], kernel="6.1")
    new = replace(new, kernels=(matrix(a=GOOD).kernels[0], other))
    assert str(since(keep(4, new), new)) == (
        f"no new failing result {last}; 3 failing results have {why} are not compared"
    )


def test_a_run_on_another_branch_is_not_compared(keep: Keep) -> None:
    keep(1, matrix(a=GOOD))
    keep(2, matrix(a=GOOD), branch="other")
    found = since(keep(3, matrix(a=BAD)), matrix(a=BAD))
    assert found is not None
    assert found.run.startswith("20261101T")


def test_a_run_without_a_result_in_common_is_not_compared(keep: Keep) -> None:
    keep(1, matrix(a=GOOD))
    keep(2, matrix(z=GOOD))
    found = since(keep(3, matrix(a=BAD)), matrix(a=BAD))
    assert found is not None
    assert found.run.startswith("20261101T")


def test_a_later_run_is_not_compared(keep: Keep) -> None:
    folder = keep(1, matrix(a=BAD))
    keep(2, matrix(a=GOOD))
    assert since(folder, matrix(a=BAD)) is None


def test_a_run_that_cannot_be_read_is_passed_over(keep: Keep) -> None:
    keep(1, matrix(a=GOOD))
    keep(2, matrix(a=GOOD)).write("matrix.json", "{")
    found = since(keep(3, matrix(a=BAD)), matrix(a=BAD))
    assert found is not None
    assert found.new == 1


def test_the_report_ends_with_what_is_new(keep: Keep, tmp_path: Path) -> None:
    keep(1, matrix(a=GOOD))
    folder = keep(2, matrix(a=BAD))
    said = vmtest("report", str(folder.path), cwd=tmp_path)
    assert "\n1 new failing result since run 20261101T000000Z-000001, the last on" in said.out


@pytest.mark.parametrize(
    ("event", "ran"),
    [
        (Booted("6.12", 1.0), False),
        (TestFinished("6.12", TestResult("t", "s", GOOD)), True),
        (LoadFinished("6.12", LoadResult("o", "p", Verdict.ACCEPTED)), True),
        (KernelFinished("6.12", KernelResult("6.12", Status.BOOT_FAILED)), False),
        (KernelFinished("6.12", KernelResult("6.12", Status.INFRA_ERROR)), False),
        (KernelFinished("6.12", KernelResult("6.12", Status.PASSED)), True),
    ],
)
def test_latest_points_only_at_runs_that_ran_something(
    event: Event, ran: bool, keep: Keep, tmp_path: Path
) -> None:
    earlier, later = keep(1, matrix(a=GOOD)), keep(2, matrix(a=GOOD))
    earlier.become_latest()
    Latest(later).hear(event)
    latest = (tmp_path / ".vmtest" / "latest").resolve()
    assert latest == (later if ran else earlier).path


def test_old_runs_go_but_not_the_latest_nor_the_last_that_passed(
    keep: Keep, tmp_path: Path
) -> None:
    names = [keep(n, matrix(a=GOOD if n == 2 else BAD)).name for n in range(1, 6)]
    RunFolder(tmp_path / ".vmtest" / "runs" / names[2]).become_latest()
    gone = superfluous(tmp_path, time.time(), 1, None)
    assert [folder.name for folder in gone] == [names[0], names[3]]


def test_what_was_just_written_to_stays(keep: Keep, tmp_path: Path) -> None:
    keep(1, matrix(a=BAD), age=60)
    keep(2, matrix(a=BAD))
    assert superfluous(tmp_path, time.time(), 1, None) == []


def test_a_run_whose_files_are_still_appended_to_stays(keep: Keep, tmp_path: Path) -> None:
    folder = keep(1, matrix(a=BAD))
    log = folder.kernel("6.12") / "console.log"
    log.write_text("as it happens")
    for place in (log.parent, folder.path):
        os.utime(place, times=(time.time() - OLD,) * 2)
    keep(2, matrix(a=BAD))
    assert superfluous(tmp_path, time.time(), 1, None) == []


def test_a_run_whose_runner_is_alive_stays(keep: Keep, tmp_path: Path) -> None:
    folder = keep(1, matrix(a=BAD))
    keep(2, matrix(a=BAD))
    with EventLog(folder.path / EVENTS):
        for path in (folder.path / EVENTS, folder.path):
            os.utime(path, times=(time.time() - OLD,) * 2)
        assert superfluous(tmp_path, time.time(), 1, None) == []
    assert [gone.name for gone in superfluous(tmp_path, time.time(), 1, None)] == [folder.name]


def test_an_age_spares_younger_runs(keep: Keep, tmp_path: Path) -> None:
    keep(1, matrix(a=BAD))
    keep(2, matrix(a=BAD), age=7200)
    assert [f.name[:8] for f in superfluous(tmp_path, time.time(), None, 86400)] == ["20261101"]


def test_prune_removes_and_says_what_is_left(keep: Keep, tmp_path: Path) -> None:
    first = keep(1, matrix(a=BAD))
    keep(2, matrix(a=BAD))
    tried = vmtest("runs", "prune", "--keep", "1", "--dry-run", cwd=tmp_path)
    assert tried.out == f"would remove {first.name}\n1 run would be left\n"
    assert first.path.exists()
    said = vmtest("runs", "prune", "--keep", "1", cwd=tmp_path)
    assert said.out == f"removed {first.name}\n1 run left\n"
    assert not first.path.exists()


def test_show_says_what_a_run_was(keep: Keep, tmp_path: Path) -> None:
    keep(1, matrix(a=GOOD))
    folder = keep(2, matrix(a=BAD))
    out = vmtest("runs", "show", folder.name, cwd=tmp_path).out
    assert f"run          {folder.name}\n" in out
    assert "branch       main\n" in out
    assert "kernel       6.12: FAILED\n" in out
    assert "compared     1 new failing result since run 20261101T" in out
    assert f"file         .vmtest/runs/{folder.name}/matrix.json\n" in out


def test_runs_of_an_artifact_come_in_with_their_names(keep: Keep, tmp_path: Path) -> None:
    folder = keep(1, matrix(a=BAD))
    archive = tmp_path / "logs.zip"
    with ZipFile(archive, "w") as files:
        for file in folder.path.iterdir():
            files.write(file, f"logs/{folder.name}/{file.name}")
    other = tmp_path / "other"
    assert list(take_in(archive, other)) == [(folder.name, True)]
    copied = other / ".vmtest" / "runs" / folder.name
    assert json.loads((copied / "matrix.json").read_text())["run"] == folder.name
    assert (copied / "report.html").is_file()
    assert list(take_in(archive, other)) == [(folder.name, False)]


def test_an_imported_run_takes_no_link_along(keep: Keep, tmp_path: Path) -> None:
    folder = keep(1, matrix(a=BAD))
    (folder.path / "secret").symlink_to("/etc/passwd")
    list(take_in(folder.path.parent, tmp_path / "other"))
    assert not (tmp_path / "other" / ".vmtest" / "runs" / folder.name / "secret").exists()


@pytest.mark.parametrize("name", ["../../../evil", "/tmp/evil", "", "20261101T000000Z-00000G"])
def test_an_imported_run_with_another_name_gets_one(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "matrix.json").write_text(matrix_json.dumps(matrix(name, a=BAD)))
    ((made, is_new),) = take_in(source, tmp_path / "project")
    assert is_new
    runs = tmp_path / "project" / ".vmtest" / "runs"
    assert [path.name for path in runs.iterdir()] == [made]


def test_a_file_that_is_not_a_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("no")
    with pytest.raises(UsageError, match=r"x\.zip: is not a \.zip file, is damaged"):
        list(take_in(tmp_path / "x.zip", tmp_path))


@pytest.mark.parametrize(
    ("kind", "where", "byte"),
    [
        (zipfile.ZIP_DEFLATED, "data", 0xFF),
        (zipfile.ZIP_BZIP2, "data", 0xFF),
        (zipfile.ZIP_LZMA, "data", 0xFF),
        (zipfile.ZIP_DEFLATED, "encrypted", 1),
        (zipfile.ZIP_DEFLATED, "method", 97),
    ],
)
def test_a_damaged_encrypted_or_unknown_archive_is_named(
    kind: int, where: str, byte: int, tmp_path: Path
) -> None:
    archive = tmp_path / "x.zip"
    with ZipFile(archive, "w", kind) as files:
        files.writestr("matrix.json", "abcdefgh" * 100)
    data = bytearray(archive.read_bytes())
    central = data.index(b"PK\x01\x02")
    places = {
        "data": [*range(41, 51)],  # behind the first member's header and name
        "encrypted": [6, central + 8],  # the flags, in both headers
        "method": [8, central + 10],
    }[where]
    for place in places:
        data[place] = byte
    archive.write_bytes(data)
    with pytest.raises(UsageError, match=r"x\.zip: .* cannot be read: .*; fetch it again"):
        list(take_in(archive, tmp_path / "project"))


def test_an_import_that_was_interrupted_is_not_already_there(
    keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = keep(1, matrix(a=BAD))
    other = tmp_path / "other"

    def interrupted(*copied: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("vmtest.api.history.leave_page", interrupted)
        list(take_in(folder.path.parent, other))
    assert [path.name for path in (other / ".vmtest").iterdir()] == ["runs"]
    assert list(take_in(folder.path.parent, other)) == [(folder.name, True)]


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run in it: no matrix"):
        list(take_in(tmp_path, tmp_path))
