"""The library: the examples of docs/api.md in the tutorial's project, on real kernels."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from real_kernels import PROJECT, image_of

from vmtest import Run, SuitesRequest, load_config, read_run, run_suites
from vmtest.errors import UsageError
from vmtest.model.project import Config

TUTORIAL = PROJECT / "docs" / "tutorial" / "five-minutes.md"
NEWER = """
from pathlib import Path

def test_counts():
    assert not Path("/proc/sys/net/ipv4/tcp_plb_enabled").exists()  # Linux 6.2
"""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    fence = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return fence.findall(page.read_text(encoding="utf-8"))


SUITES, VERIFY, BISECT = blocks(PROJECT / "docs" / "api.md", "python")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The tutorial's project, as a reader has it at the end."""
    (program,), (test,) = blocks(TUTORIAL, "c"), blocks(TUTORIAL, "python")
    (configuration,) = blocks(TUTORIAL, "toml")
    for folder in ("bpf", "guest-tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bpf" / "count.bpf.c").write_text(program)
    (tmp_path / "guest-tests" / "test_count.py").write_text(test)
    (tmp_path / "kernels.toml").write_text(configuration)
    return tmp_path


def said(program: str, project: Path) -> subprocess.CompletedProcess[str]:
    """What an example printed."""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=project, capture_output=True, text=True, check=False
    )


def test_the_example_runs_a_suite_and_hears_how_the_kernel_ended(project: Path) -> None:
    ended = said(SUITES, project)
    assert ended.returncode == 0, ended
    assert re.fullmatch(
        r"6\.12 PASSED\n6\.12\.\S+ \S*test_counts_the_bytes_of_a_datagram passed\n", ended.stdout
    )


def test_the_example_verifies_an_object(project: Path) -> None:
    (project / "build").mkdir()
    made = subprocess.run([sys.executable, "-m", "vmtest", "build"], cwd=project, check=False)
    assert made.returncode == 0
    ended = said(VERIFY, project)
    assert re.search(r"^6\.12 count accepted [1-9]\d*$", ended.stdout, re.MULTILINE), ended


def test_the_example_finds_the_first_kernel_that_its_judge_calls_bad(
    project: Path, settings: Config, cache: Path
) -> None:
    for name in ("6.1", "6.12"):
        image_of(name, settings, cache)  # what `cached` will find
    (project / "guest-tests" / "test_count.py").write_text(NEWER)
    ended = said(BISECT.replace('bad="6.12"', 'bad="6.12", cached=True'), project)
    assert re.fullmatch(r"first bad kernel: 6\.12\.\d+\n", ended.stdout), ended


def test_a_run_that_failed_is_given_and_can_be_read_again(project: Path) -> None:
    (project / "guest-tests" / "test_count.py").write_text("def test_no():\n    assert 1 == 2\n")
    run = run_suites(
        load_config(project / "kernels.toml"), SuitesRequest(kernels=("6.12",), warm=True)
    )
    assert run.status == 1
    assert read_run(run.folder) == Run(run.matrix, run.folder)


def test_a_kernel_that_is_not_there_is_an_exception(project: Path) -> None:
    with pytest.raises(UsageError, match=r"9\.9"):
        run_suites(load_config(project / "kernels.toml"), SuitesRequest(kernels=("9.9",)))
