"""What the shell offers for a word, as its completion script asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import vmtest

CONFIG = """
schema = 1
[guest]
root = "debian"
[apt.debian]
suites = ["trixie"]
[[kernel]]
name = "6.1"
apt = "debian"
version = "6.1.*"
tags = ["default", "lts"]
[[kernel]]
name = "6.12"
apt = "debian"
version = "6.12.*"
tags = ["default"]
[[kernel]]
name = "own"
path = "vmlinuz"
[[suite]]
name = "network"
tests = "tests/network"
[[suite]]
name = "maps"
tests = "tests/maps"
"""
KERNELS = ["6.1", "6.12", "own"]
RUNS = ["20260102T000000Z-bbbbbb", "20260101T000000Z-aaaaaa"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "kernels.toml").write_text(CONFIG)
    for name in RUNS:
        (tmp_path / ".vmtest/runs" / name).mkdir(parents=True)
    return tmp_path


def offered(words: str, folder: Path) -> list[str]:
    """The words that bash is offered behind ``words``, which end in the one that is begun.

    There is no cache and no mirror to read.
    """
    environment = {
        "_VMTEST_COMPLETE": "complete_bash",
        "COMP_WORDS": f"vmtest {words}",
        "COMP_CWORD": str(len(f"vmtest {words}".split(" ")) - 1),
        "VMTEST_CACHE": str(folder / "cache"),
        "PATH": str(folder),
    }
    said = vmtest(cwd=folder, environment=environment)
    assert (said.status, said.err) == (0, ""), said
    assert not (folder / "cache").exists()
    return said.out.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("run --kernel ", [*KERNELS, "tag:default", "tag:lts"]),
        ("verify --kernel 6", ["6.1", "6.12"]),
        ("exec --kernel tag:l", ["tag:lts"]),
        ("run --kernel 6.1 --kernel 6", ["6.12"]),
        ("kernels lock --kernel o", ["own"]),
        ("kernels fetch --kernel o", ["own"]),
        ("image export x.tar --kernel o", ["own"]),
        ("shell ", KERNELS),
        ("go-exec --kernel 6.12", ["6.12"]),
        ("bisect --good 6.1", ["6.1", "6.12"]),
        ("run --suite ", ["network", "maps"]),
        ("run --suite maps --suite ", ["network"]),
        ("bisect --suite n", ["network"]),
        ("report ", RUNS),
        ("merge 20260101", RUNS[1:]),
        ("runs show ", RUNS),
        ("runs diff 20260101T000000Z-aaaaaa 20260102", RUNS[:1]),
        ("verify --from-run 2", RUNS),
        ("kernels add ubuntu-22", ["ubuntu-22-04"]),
    ],
)
def test_a_word_is_offered(words: str, found: list[str], project: Path) -> None:
    assert offered(words, project) == found


def test_another_kernels_toml_is_read(project: Path) -> None:
    other = project / "other.toml"
    other.write_text(CONFIG.replace('"6.1"', '"theirs"'))
    assert offered(f"run --config {other} --kernel t", project) == [
        "theirs",
        "tag:default",
        "tag:lts",
    ]


@pytest.mark.parametrize("text", ["][", "schema = 2\n", "schema = 1\n[[kernel]]\nname = 1\n"])
def test_a_broken_kernels_toml_is_passed_over_in_silence(text: str, project: Path) -> None:
    (project / "kernels.toml").write_text(text)
    assert [offered(words, project) for words in ("run --kernel ", "run --suite ")] == [[], []]
    assert offered("report ", project) == RUNS


def test_without_a_kernels_toml_the_built_in_kernels_are_offered(tmp_path: Path) -> None:
    assert offered("verify --kernel 6", tmp_path) == ["6.1", "6.12"]
    assert offered("report ", tmp_path) == []
