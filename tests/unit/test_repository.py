"""The files around the code: release notes, the hooks of a commit, what the wheel says."""

import configparser
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = """# Changelog

## 0.3.0 (unreleased)

- Later.

## 0.2.0 (2026-12-24)

New:

- `vmtest x`.

## 0.1.0 (2026-11-30)
"""


def release_notes() -> Callable[[str, str, str], str]:
    """The function ``notes`` of the release workflow's script."""
    spec = importlib.util.spec_from_file_location("release_notes", ROOT / ".ci/release_notes.py")
    assert spec and spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    notes: Callable[[str, str, str], str] = module.notes
    return notes


def test_notes_are_the_section_of_the_version() -> None:
    assert release_notes()("v0.2.0", "0.2.0", CHANGELOG) == "New:\n\n- `vmtest x`.\n"


@pytest.mark.parametrize(
    ("tag", "version", "words"),
    [
        ("v0.2.1", "0.2.0", "the tag v0.2.1 is not v0.2.0"),
        ("0.2.0", "0.2.0", "the tag 0.2.0 is not v0.2.0"),
        ("v0.3.0", "0.3.0", 'write the date into "## 0.3.0 (unreleased)"'),
        ("v0.1.0", "0.1.0", "nothing stands below"),
        ("v0.4.0", "0.4.0", "has no section"),
        ("v0.2", "0.2", "has no section"),
    ],
)
def test_release_that_is_not_ready_is_refused(tag: str, version: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        release_notes()(tag, version, CHANGELOG)


def test_changelog_has_a_section_for_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert project["version"] in headings


def lint_commands() -> list[list[str]]:
    """What ``tox -e lint`` runs, as words; ``sh -c`` is taken away."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    lines = [shlex.split(line) for line in tox["testenv:lint"]["commands"].strip().splitlines()]
    return [shlex.split(line[2]) if line[:2] == ["sh", "-c"] else line for line in lines]


def hooks() -> list[tuple[str, str]]:
    """Of each hook the command and the pattern of its files, or "" for those with a type."""
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    found = []
    for hook in text.split("      - id: ")[1:]:
        entry = re.search(r"^ +entry: (.*)$", hook, re.MULTILINE)
        files = re.search(r"^ +files: (.*)$", hook, re.MULTILINE)
        assert entry
        found.append((entry[1], files[1] if files else ""))
    return found


def project_files() -> list[str]:
    """The files that a lint command may name, relative to the project."""
    folders = [
        "vmtest/vm",
        ".ci",
        "bpf",
        "examples",
        "tests/verify",
        "tests/bisect",
        "benchmarks",
        ".github",
    ]
    found = (path for folder in folders for path in (ROOT / folder).rglob("*"))
    return ["action.yml", *(str(path.relative_to(ROOT)) for path in found if path.is_file())]


@pytest.mark.parametrize("words", lint_commands(), ids=" ".join)
def test_commit_hook_checks_what_tox_checks(words: list[str]) -> None:
    arguments = [word for word in words if "/" in word or word == "." or word.endswith(".yml")]
    command = " ".join(word for word in words if word not in arguments)
    patterns = [files for entry, files in hooks() if entry == command]
    assert patterns
    if arguments == ["."]:
        return  # ruff knows its files itself
    checked = [f for f in project_files() if any(fnmatch(f, word) for word in arguments)]
    assert checked
    assert [f for f in checked if not re.search(patterns[0], f)] == []


def test_package_says_that_it_is_typed() -> None:
    assert (ROOT / "vmtest/py.typed").is_file()
