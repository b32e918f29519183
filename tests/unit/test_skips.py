"""Where skips are strict, one that is not listed fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.expected_skips import EXPECTED, ExpectedSkip, expected

TESTS = Path(__file__).resolve().parents[1]

SUITE = """
import pytest

def test_passes():
    pass

def test_skips():
    pytest.skip("there is no flute")

@pytest.mark.skipif(True, reason="no time")
def test_marked():
    pass

@pytest.mark.xfail(reason="known")
def test_known():
    assert False
"""


def run(folder: Path, text: str, *options: str, ci: str | None = None) -> tuple[int, str]:
    """Runs pytest on a test file beside copies of our conftest.py and what it imports."""
    (folder / "tests").mkdir()
    for name in ("conftest.py", "expected_skips.py"):
        shutil.copy(TESTS / name, folder / "tests" / name)
    shutil.copytree(TESTS / "faults", folder / "tests" / "faults")
    (folder / "tests" / "test_own.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *options, "tests"]
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "PYTHONPATH")}
    if ci is not None:
        environment["CI"] = ci
    done = subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_skip_that_is_not_listed_fails(tmp_path: Path) -> None:
    status, said = run(tmp_path, SUITE, "--strict-skips")
    assert status == 1
    assert "1 passed" in said and "1 xfailed" in said
    assert "test_own.py::test_skips was skipped: there is no flute" in said
    assert "test_own.py::test_marked was skipped: no time" in said
    assert "expected_skips.py" in said


@pytest.mark.parametrize(
    "text",
    [
        "import pytest\npytest.skip('no flute', allow_module_level=True)\n",
        "import pytest\npytest.importorskip('no_such_module_at_all')\n",
    ],
)
def test_skip_of_a_whole_file_fails(tmp_path: Path, text: str) -> None:
    status, said = run(tmp_path, text, "--strict-skips")
    assert status != 0
    assert "test_own.py was skipped: " in said


@pytest.mark.parametrize("ci", ["true", "1"])
def test_skips_are_strict_in_ci(tmp_path: Path, ci: str) -> None:
    assert run(tmp_path, SUITE, ci=ci)[0] == 1


@pytest.mark.parametrize("ci", [None, "", "0", "false"])
def test_skips_are_not_strict_elsewhere(tmp_path: Path, ci: str | None) -> None:
    assert run(tmp_path, SUITE, ci=ci)[0] == 0


def test_skip_that_is_listed_stays_a_skip(tmp_path: Path) -> None:
    text = f"""{SUITE}
from tests import expected_skips as listed
listed.EXPECTED = [
    listed.ExpectedSkip("*::test_skips", "there is no *", "why"),
    listed.ExpectedSkip("*::test_marked", "*", "why"),
]
"""
    status, said = run(tmp_path, text, "--strict-skips")
    assert status == 0, said
    assert "2 skipped" in said


def test_entry_is_for_its_reason_only() -> None:
    entry = EXPECTED[0]
    assert expected(entry.test, entry.says) is entry
    assert expected(entry.test, "something else") is None


@pytest.mark.parametrize("entry", EXPECTED, ids=lambda entry: entry.test)
def test_entry_names_a_test_that_exists(entry: ExpectedSkip) -> None:
    file, _, name = entry.test.partition("::")
    assert name == "*" or f"def {name}(" in (TESTS.parent / file).read_text()
    assert (TESTS.parent / file).is_file() and entry.why
