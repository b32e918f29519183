"""A runner that may open next to no files: named with the cure, and nothing is left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from any_guest import in_guest
from real_kernels import KERNEL

from tests.faults.fixtures import Noticed

PROJECT = f"""
schema = 1
[apt.debian]
suites = ["trixie-security"]
[[kernel]]
name = "{KERNEL}"
apt = "debian"
version = "{KERNEL}.*"
memory = "512M"
[[suite]]
name = "own"
tests = "test_own.py"
"""


@pytest.mark.parametrize("limit", [8, 16, 24, 255])
def test_a_runner_without_descriptors_says_so_with_the_cure_and_the_next_run_works(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noticed: Noticed
) -> None:
    (tmp_path / "kernels.toml").write_text(PROJECT)
    (tmp_path / "test_own.py").write_text("def test_a():\n    pass\n")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    with noticed.here():
        starved = subprocess.run(
            ["prlimit", f"--nofile={limit}", sys.executable, "-m", "vmtest", "run", "--warm"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert starved.returncode == 3, starved
    said = " ".join((starved.stdout + starved.stderr).split())
    assert "Traceback" not in said
    assert "; raise the limit of open files (ulimit -n)" in said
    assert "panicked" not in said
    assert list((tmp_path / "tmp").iterdir()) == []
    assert in_guest("run", cwd=tmp_path).status == 0
