"""A runner that may have next to no files or memory: named with the cure, nothing left behind."""

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


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "kernels.toml").write_text(PROJECT)
    (tmp_path / "test_own.py").write_text("def test_a():\n    pass\n")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path


def refused(limit: str, project: Path, noticed: Noticed) -> str:
    """What a run says that ``limit`` keeps from working; nothing of it is left."""
    with noticed.here():
        starved = subprocess.run(
            ["prlimit", limit, sys.executable, "-m", "vmtest", "run", "--warm"],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert starved.returncode == 3, starved
    said = " ".join((starved.stdout + starved.stderr).split())
    assert "Traceback" not in said
    assert "a bug in vmtest" not in said
    assert list((project / "tmp").iterdir()) == []
    return said


@pytest.mark.parametrize("limit", [8, 16, 24, 255])
def test_a_runner_without_descriptors_says_so_with_the_cure_and_the_next_run_works(
    limit: int, project: Path, noticed: Noticed
) -> None:
    said = refused(f"--nofile={limit}", project, noticed)
    assert "; raise the limit of open files (ulimit -n)" in said
    assert "panicked" not in said
    assert in_guest("run", cwd=project).status == 0


@pytest.mark.parametrize("limit", [20, 150, 300, 450])
def test_a_runner_without_memory_says_so_with_the_cure_and_the_next_run_works(
    limit: int, project: Path, noticed: Noticed
) -> None:
    """Before anything is imported, and where the runner or its QEMU gets no more."""
    said = refused(f"--as={limit << 20}", project, noticed)
    assert "; give vmtest or its container more memory, or raise its limits (ulimit -v" in said
    assert in_guest("run", cwd=project).status == 0
