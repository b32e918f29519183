"""``vmtest kernels``: what is available, what is outdated; against a tiny signed archive."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import signed_archive
from command import in_process, vmtest

from vmtest.model.results import SCHEMA, KernelResult, Matrix, Status
from vmtest.runs import matrix_json

pytestmark = signed_archive.needed


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return signed_archive.project(made, tmp_path, monkeypatch)


def ran(project: Path, run: str, *results: KernelResult) -> None:
    """As if a run called ``run`` had had ``results``."""
    folder = project / ".vmtest" / "runs" / run
    folder.mkdir(parents=True)
    matrix = Matrix(SCHEMA, run, "2026-01-01T00:00:00+00:00", 1.0, (), results)
    (folder / "matrix.json").write_text(matrix_json.dumps(matrix))


def digest(project: Path, name: str) -> str:
    """What ``name`` has when it is fetched."""
    assert vmtest("kernels", "fetch", "--kernel", name, cwd=project).status == 0
    cache = project.parent / "cache" / "kernels"
    (entry,) = [json.loads(f.read_text()) for f in cache.glob("*/entry.json")]
    return str(entry["digest"])


def test_available_lists_all_in_order_with_what_cannot_boot(project: Path) -> None:
    said = vmtest("kernels", "available", cwd=project)
    assert said.status == 0, said
    lines = said.out.splitlines()
    assert [line.split()[:3] for line in lines[1:-1]] == [
        ["6.1.9", "6.1.9-1", "good"],
        ["6.1.10", "6.1.10-1", "good"],
        ["7.1.13", "7.1.13-1", "good"],
        ["7.2.6", "7.2.6-1", "good"],
    ]
    assert "cannot boot: its linux-modules package" in lines[3]
    assert lines[-1] == "3 of 4 can boot"


def test_available_says_what_is_cached(project: Path) -> None:
    digest(project, "old")
    said = vmtest("kernels", "available", "6.1", "--json", cwd=project)
    rows = json.loads(said.out)["kernels"]
    assert [(row["package"], row["cached"]) for row in rows] == [
        ("6.1.9-1", False),
        ("6.1.10-1", True),
    ]


def test_available_of_nothing_names_the_nearest(project: Path) -> None:
    vmtest("kernels", "available", "6.12", cwd=project).refuses(
        3, "no kernel 6.12; nearest bootable: 6.1.10 (good), 7.2.6 (good)"
    )


def test_available_without_an_archive_names_the_cure(project: Path) -> None:
    (project / "kernels.toml").write_text('schema = 1\n[[kernel]]\nname = "x"\npath = "x"\n')
    in_process("kernels", "available", cwd=project).refuses(2, "no [apt.NAME]", "add one")


def test_a_kernel_that_no_run_booted_is_not_outdated(project: Path) -> None:
    ran(project, "1", KernelResult("old", Status.INFRA_ERROR))
    said = vmtest("kernels", "outdated", cwd=project)
    assert (said.status, said.out.splitlines()[0]) == (
        0,
        "old: no run has booted it; it is 6.1.10-1 now",
    )


def test_a_newer_release_than_the_last_run_saw_is_told_by_the_status(project: Path) -> None:
    current = digest(project, "old")
    ran(project, "1", KernelResult("old", Status.PASSED, release="6.1.10", digest=current))
    ran(project, "2", KernelResult("old", Status.PASSED, release="6.1.8", digest="0" * 64))
    ran(project, "3", KernelResult("old", Status.CANCELLED))
    said = vmtest("kernels", "outdated", cwd=project)
    assert said.status == 1
    assert said.out.splitlines()[0] == (
        "old: newer: 6.1.10-1 (debian good: linux-image-6.1.10-amd64 6.1.10-1); run 2 booted 6.1.8"
    )


def test_what_the_last_run_saw_is_not_outdated(project: Path) -> None:
    current = digest(project, "old")
    ran(project, "1", KernelResult("old", Status.PASSED, release="6.1.8", digest="0" * 64))
    ran(project, "2", KernelResult("old", Status.FAILED, release="6.1.10", digest=current))
    said = vmtest("kernels", "outdated", "--json", cwd=project)
    assert said.status == 0
    assert [row["state"] for row in json.loads(said.out)] == ["same", "never run"]


def test_a_kernel_that_cannot_be_told_is_infrastructures(project: Path) -> None:
    text = (project / "kernels.toml").read_text().replace('"*"', '"9.*"')
    (project / "kernels.toml").write_text(text)
    said = vmtest("kernels", "outdated", cwd=project)
    assert said.status == 3
    assert "new: no kernel 9.*" in said.out
