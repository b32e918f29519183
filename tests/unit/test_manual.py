"""``vmtest docs``: the pages that come with the package."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from command import vmtest

from vmtest.errors import UsageError
from vmtest.manual.pages import page, pages

ROOT = Path(__file__).resolve().parents[2]


def test_every_page_of_the_documentation_has_a_topic_of_its_own() -> None:
    topics = [one.topic for one in pages()]
    files = [path for path in (ROOT / "docs").rglob("*.md") if path.name != "index.md"]
    assert sorted(topics) == sorted(path.stem for path in files)


def test_a_page_shows_what_is_taken_from_the_code() -> None:
    text = page("kernels-toml").text()
    assert "| `silence_timeout` |" in text
    assert "<!-- generated" not in text


def test_a_misspelt_topic_has_a_suggestion() -> None:
    with pytest.raises(UsageError, match='did you mean "reason-codes"'):
        page("reason-code")


def test_topics_are_listed_with_their_titles(tmp_path: Path) -> None:
    told = vmtest("docs", cwd=tmp_path).out
    assert "tutorial:\n  five-minutes" in told
    assert "Find the commit that fails" in told


def test_a_page_in_a_pipe_is_its_markdown(tmp_path: Path) -> None:
    assert vmtest("docs", "watch", cwd=tmp_path).out.startswith("# Get an answer")


def test_the_wheel_has_every_folder_of_pages() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packed = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    places = [one.path.relative_to(ROOT) for one in pages()]
    assert [str(p) for p in places if not {str(p), str(p.parent)} & set(packed)] == []


def test_all_code_of_the_guests_says_its_license() -> None:
    files = sorted((ROOT / "vmtest" / "guest").rglob("*.py"))
    assert len(files) > 30
    silent = [file for file in files if "SPDX-License-Identifier: MIT" not in file.read_text()]
    assert silent == []
