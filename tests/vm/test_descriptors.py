"""A runner that may have next to no files or memory: named with the cure, nothing left behind."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
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
    assert "; give vmtest or its container more memory, or raise its limit (ulimit -v)" in said
    assert in_guest("run", cwd=project).status == 0


LARGE = """
import pytest
import time

def test_first():
    pass

def test_second():
    time.sleep(3)  # in the guest: the limit comes while tests run

@pytest.mark.parametrize("n", range(4))
def test_large(n):
    print("x" * 8_000_000)
    assert 0
"""


def test_a_runner_that_gets_no_more_memory_while_tests_run_loses_no_result(project: Path) -> None:
    """Not one page more from then on: what it has is enough, or it says that it is not."""
    (project / "test_own.py").write_text(LARGE)
    with subprocess.Popen(
        [sys.executable, "-m", "vmtest", "run", "--warm"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as runner:
        deadline = time.monotonic() + 300
        while not any(rows(project)):
            assert runner.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        resource.prlimit(runner.pid, resource.RLIMIT_AS, (1, 1))
        said, _ = runner.communicate(timeout=300)
    assert "a bug in vmtest" not in said and "Traceback" not in said
    if runner.returncode == 1:
        assert [row["outcome"] for row in rows(project)] == ["passed"] * 2 + ["failed"] * 4
    else:
        assert runner.returncode == 3 and "give vmtest or its container more memory" in said
        assert rows(project)[0]["outcome"] == "passed"
    assert list((project / "tmp").iterdir()) == []


def rows(project: Path) -> list[dict[str, object]]:
    """The results that are on disk."""
    files = project.glob(".vmtest/runs/*/*/results.jsonl")
    lines = [line for file in files for line in file.read_text().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]
