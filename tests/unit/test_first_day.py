"""What docs/explanation/first-day.md counts of vmtest itself: lines that are in this repository."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from vmtest.init import draft
from vmtest.init.look import look
from vmtest.objects.compile import build_all

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "first-day.md"
EXAMPLES = ("c", "go", "python", "rust")


def cells() -> list[str]:
    """Our own row: commands, lines of configuration, lines of a job."""
    (row,) = re.findall(r"^\| vmtest \| (\d.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [cell.strip() for cell in row.split(" | ")]


def counted(text: str) -> list[str]:
    """The lines of a file of TOML or YAML that say something."""
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith(("#", "- name:"))]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return fence.findall(page.read_text(encoding="utf-8"))


def test_the_commands_are_those_that_the_readme_begins_with() -> None:
    number, _, named = cells()[0].partition(": ")
    install, verify, *_ = blocks(ROOT / "README.md", "sh")
    lines = [*install.splitlines(), *verify.splitlines()]
    assert len(lines) == int(number)
    for line, command in zip(lines, re.findall(r"`([^`]+)`", named), strict=True):
        assert command in line


def lines_of(name: str, folder: Path) -> list[int]:
    """How long the kernels.toml of an example is, before and after its objects are built."""
    made = shutil.copytree(ROOT / "examples" / name, folder / name)
    found = [len(counted(draft.kernels_toml(look(made))))]
    if (made / "src").is_dir() and list((made / "src").glob("*.bpf.c")):
        build_all(made / "src", made / "build")
        found.append(len(counted(draft.kernels_toml(look(made)))))
    return found


def test_the_configuration_is_as_long_as_init_writes_it(tmp_path: Path) -> None:
    counts = [count for name in EXAMPLES for count in lines_of(name, tmp_path)]
    assert f"`vmtest init` writes {min(counts)} to {max(counts)} " in cells()[1]


def test_the_job_is_as_long_as_the_page_shows_it() -> None:
    first, *_ = blocks(ROOT / "docs" / "how-to" / "use-in-ci.md", "yaml")
    assert first.startswith("jobs:\n")
    assert len(counted(first)) == int(cells()[2])


def test_comments_names_and_blank_lines_do_not_count() -> None:
    assert counted("a:\n\n  # b\n  - name: c\n    run: d\n") == ["a:", "run: d"]
