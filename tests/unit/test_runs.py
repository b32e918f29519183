from pathlib import Path

import pytest

from vmtest.errors import InfrastructureError, UsageError
from vmtest.runs.folder import create, find


def test_latest_points_to_the_run_that_became_it(tmp_path: Path) -> None:
    create(tmp_path).become_latest()
    second = create(tmp_path)
    second.become_latest()
    create(tmp_path)
    assert (tmp_path / ".vmtest" / "latest").resolve() == second.path


def test_the_folder_keeps_itself_out_of_git(tmp_path: Path) -> None:
    create(tmp_path)
    assert (tmp_path / ".vmtest" / ".gitignore").read_text() == "*\n"


def test_a_run_is_found_by_name_beginning_path_and_as_the_latest(tmp_path: Path) -> None:
    run = create(tmp_path)
    run.become_latest()
    for wanted in (run.name, run.name[:-2], str(run.path), None):
        assert find(tmp_path, wanted).path == run.path


def test_an_unknown_run_names_the_latest(tmp_path: Path) -> None:
    run = create(tmp_path)
    with pytest.raises(UsageError, match=f'there is no run "x" .*{run.name}'):
        find(tmp_path, "x")


def test_an_ambiguous_beginning_is_refused(tmp_path: Path) -> None:
    create(tmp_path)
    create(tmp_path)
    with pytest.raises(UsageError, match="is the beginning of 2 runs"):
        find(tmp_path, "2")


def test_no_run_yet_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no run in .* yet; start one with: vmtest run"):
        find(tmp_path, None)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    run = create(tmp_path)
    run.write("matrix.json", "old")
    run.write("matrix.json", "new")
    assert (run.path / "matrix.json").read_text() == "new"
    assert [path.name for path in run.path.iterdir()] == ["matrix.json"]


def test_a_project_that_cannot_be_written_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / ".vmtest").write_text("in the way")
    with pytest.raises(InfrastructureError, match=r"cannot write the run's folder .*make room"):
        create(tmp_path)
