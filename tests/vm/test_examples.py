"""The examples: what their pages say is what happens, in a copy of the folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from real_kernels import PROJECT

EXAMPLES = PROJECT / "examples"
NAMES = ("c", "go", "python", "rust")
TAKES = {"c": "make", "go": "go", "python": "clang", "rust": "cargo"}
"""The tool beside vmtest's own that each needs."""
MADE = (
    *("build", "target", "Cargo.lock", ".vmtest", "kernels.toml"),
    *("__pycache__", ".pytest_cache", "*.test"),
)
"""What somebody who tried an example left in its folder."""
TOLD = "..."
"""Stands in a page for lines that it leaves out."""


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def comparable(line: str) -> str:
    """A line of output without what differs from run to run: times, the accelerator, spaces."""
    line = re.sub(r"\d+(\.\d+)?s\b|\d+(\.\d+)? s\b|\d+ min( \d+ s)?", "TIME", line)
    return " ".join(re.sub(r"\b(tcg|kvm)\b", "ACCELERATOR", line).strip("= ").split())


def lines_of(text: str) -> Iterator[str]:
    return (line for line in map(comparable, text.splitlines()) if line)


def missing(shown: str, said: str) -> list[str]:
    """The lines of ``shown`` that ``said`` does not have in their order."""
    there = lines_of(said)
    return [line for line in lines_of(shown) if line != TOLD and line not in there]


def copied(name: str, folder: Path) -> Path:
    return shutil.copytree(EXAMPLES / name, folder / name, ignore=shutil.ignore_patterns(*MADE))


def carried_out(command: str, folder: Path) -> str:
    """What a command of a page prints; fails unless its status is 0."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def example(name: str) -> ParameterSet:
    lacks = shutil.which(TAKES[name]) is None
    return pytest.param(
        name, marks=pytest.mark.skipif(lacks, reason=f"{TAKES[name]} is not installed")
    )


@pytest.mark.parametrize("name", [example(name) for name in NAMES])
def test_three_commands_reach_the_verdict_that_the_page_prints(name: str, tmp_path: Path) -> None:
    page = (EXAMPLES / name / "README.md").read_text()
    (commands,) = blocks(page, "sh")
    assert len(commands.splitlines()) == 3
    folder = copied(name, tmp_path)
    said = "".join(carried_out(command, folder) for command in commands.splitlines())
    for shown in blocks(page, "text"):
        assert missing(shown, said) == [], said
    drafted = (folder / "kernels.toml").read_text()
    assert [part for part in blocks(page, "toml") if part not in drafted] == []


@pytest.mark.parametrize("name", [example(name) for name in NAMES])
def test_the_job_that_init_writes_passes(name: str, tmp_path: Path) -> None:
    """On one of its kernels: `.venv` is where the job installs vmtest."""
    folder = copied(name, tmp_path)
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    built_first = ["make"] if name == "c" else []
    for command in (*built_first, "vmtest init --yes --ci github"):
        carried_out(command, folder)
    job = (folder / ".github/workflows/kernels.yml").read_text()
    _, _, run = job.partition(".venv/bin/vmtest setup\n")
    lines = takewhile(lambda line: line.startswith(" " * 10), run.splitlines())
    script = "\n".join(line[10:] for line in lines)
    one = script.replace("5.10 6.1 6.12 newest", "6.12")
    one = one.replace(" --junit", " --kernel 6.12 --junit")
    assert one != script
    said = carried_out(one, folder)
    assert "1 passed" in said or "ok" in said, said
    assert (folder / "junit.xml").is_file() == ("--junit" in one)


def test_a_broken_example_is_noticed(tmp_path: Path) -> None:
    *_, last = blocks((EXAMPLES / "c" / "README.md").read_text(), "sh")[0].splitlines()
    folder = copied("c", tmp_path)
    source = folder / "src" / "block.bpf.c"
    source.write_text(source.read_text().replace("return REFUSE;", "return ALLOW;"))
    with pytest.raises(AssertionError, match="not ok 1 - a port in the map is refused"):
        carried_out(f"make && vmtest init --yes && {last}", folder)


def test_an_output_that_the_page_does_not_show_is_noticed() -> None:
    assert missing("a 1.5 s\n...\nb\n", "a 2 s\nx\nb\n") == []
    assert missing("a\nb\n", "b\na\n") == ["b"]


def test_every_example_is_run() -> None:
    assert sorted(path.parent.name for path in EXAMPLES.glob("*/README.md")) == list(NAMES)
