"""A project's own pytest, with its tests run in a real kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = """
[tool.pytest.ini_options]
pythonpath = ["src"]
"""
TESTS = """
import os
import pytest
from mine import answer
from tests.helper import release


def test_the_package_is_there():
    assert answer() == 42

def test_where_it_runs():
    assert release().startswith("6.12.")
    assert os.geteuid() == 0

@pytest.mark.parametrize("n", [1, 2])
def test_n(n):
    assert n == 1

@pytest.mark.kernel("<6")
def test_old():
    raise AssertionError
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name, text in {
        "pyproject.toml": SETTINGS,
        "src/mine/__init__.py": "def answer():\n    return 42\n",
        "tests/__init__.py": "",
        "tests/helper.py": "import os\n\ndef release():\n    return os.uname().release\n",
        "tests/test_mine.py": TESTS,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def own_pytest(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pytest", "--vmtest-kernel", "6.12", "-p", "no:randomly"]
    return subprocess.run(
        [*argv, "-p", "no:vmtest", "-p", "vmtest.plugin.options", *options],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_a_projects_own_pytest_runs_its_tests_in_the_kernel(project: Path) -> None:
    ended = own_pytest(project)
    assert ended.returncode == 1, ended
    assert "FAILED tests/test_mine.py::test_n[2-6.12] - assert 2 == 1" in ended.stdout, ended
    assert "1 failed, 3 passed, 1 skipped" in ended.stdout, ended
    listed = own_pytest(project, "--lf", "--collect-only", "-q").stdout
    assert [line for line in listed.splitlines() if "::" in line] == [
        "tests/test_mine.py::test_n[2-6.12]"
    ]
