"""What is checked out in a project's folder, as run.json keeps it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vmtest.host.git import Checkout, checkout_of


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "a.txt").write_text("one\n")
    git(folder, "init", "-q", "-b", "trunk")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def test_a_commit_with_only_new_files_beside_it_is_clean(repository: Path) -> None:
    (repository / "new.txt").write_text("new\n")
    assert checkout_of(repository) == Checkout(git(repository, "rev-parse", "HEAD"), False, "trunk")


def test_an_edited_file_makes_it_dirty(repository: Path) -> None:
    (repository / "a.txt").write_text("two\n")
    assert checkout_of(repository) == Checkout(git(repository, "rev-parse", "HEAD"), True, "trunk")


def test_a_commit_that_is_no_branch_has_none(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    git(repository, "checkout", "-q", "--detach")
    found = checkout_of(repository)
    assert found is not None
    assert found.branch == ""


def test_ci_says_which_branch_a_commit_is_of(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("GITHUB_HEAD_REF", "feature")
    git(repository, "checkout", "-q", "--detach")
    found = checkout_of(repository)
    assert found is not None
    assert found.branch == "feature"


def test_a_folder_below_is_of_the_same_commit(repository: Path) -> None:
    (repository / "below").mkdir()
    assert checkout_of(repository / "below") == checkout_of(repository)


def test_outside_of_git_nothing_is_checked_out(tmp_path: Path) -> None:
    assert checkout_of(tmp_path) is None


def test_without_a_commit_nothing_is_checked_out(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert checkout_of(tmp_path) is None


def test_a_hooks_environment_means_no_other_repository(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    assert checkout_of(repository) is not None
